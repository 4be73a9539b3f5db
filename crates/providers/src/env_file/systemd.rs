//! systemd's `EnvironmentFile=`, state by state as `env-file.c` has it.
//!
//! Quoted pieces follow one another and may span lines; a backslash outside of quotes takes
//! the next character as it is; white space around a bare value is dropped.

use zeroize::Zeroizing;

use super::dialect::{Flaw, Place, Style};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeKey,
    Key,
    BeforeValue,
    Bare,
    BareEscape,
    Single,
    Double,
    DoubleEscape,
    Comment,
    CommentEscape,
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What a backslash in double quotes takes its meaning from.
const ESCAPED: &[u8] = b"\"\\`$";

/// The assignment that is being read.
#[derive(Default)]
struct Assignment {
    line: usize,
    key: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
    /// The length of the value up to its last character that is no trailing white space.
    kept: usize,
    /// Where the value as it is written begins and ends, if it has begun.
    span: Option<(usize, usize)>,
    /// The first byte of it, and whether something followed a closed quotation.
    opening: Option<u8>,
    mixed: bool,
    /// Where `=` stands.
    equals: usize,
}

impl Assignment {
    fn touch(&mut self, at: usize, byte: u8, state: State) {
        if self.opening.is_none() {
            self.opening = Some(byte);
        } else if state == State::BeforeValue {
            self.mixed = true;
        }
        let (begin, _) = *self.span.get_or_insert((at, at));
        self.span = Some((begin, at + 1));
    }

    fn push(&mut self, bytes: &[u8]) {
        self.value.extend_from_slice(bytes);
        self.kept = self.value.len();
    }

    fn finish(mut self, key: &str) -> Option<Place> {
        let trimmed = self.key.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
        if self.key[..trimmed] != *key.as_bytes() {
            return None;
        }
        self.value.truncate(self.kept);
        let (begin, end) = self.span.unwrap_or((self.equals + 1, self.equals + 1));
        let style = match self.opening {
            _ if self.mixed => Style::Mixed,
            Some(b'\'') => Style::Single,
            Some(b'"') => Style::Double,
            _ => Style::Bare,
        };
        Some(Place { line: self.line, span: begin..end, style, value: self.value, computed: false })
    }
}

/// Every assignment of the key.
pub(super) fn find(text: &[u8], key: &str) -> Result<Vec<Place>, Flaw> {
    // A NUL ends the file for systemd.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let (mut state, mut line, mut places) = (State::BeforeKey, 1, Vec::new());
    let mut current = Assignment::default();
    for (at, &byte) in text.iter().enumerate() {
        let next = step(state, at, byte, &mut current)?;
        match (state, next) {
            (State::BeforeKey, State::Key) => {
                current = Assignment { line, key: vec![byte], ..Assignment::default() };
            }
            (State::BeforeValue | State::Bare, State::BeforeKey) => {
                places.extend(std::mem::take(&mut current).finish(key));
            }
            (State::CommentEscape, _) if is_newline(byte) => {
                // Up to version 253 the comment goes on, from 254 on it doesn't.
                let what = "this comment ends in a backslash, which versions of systemd read differently";
                return Err(Flaw { line, what });
            }
            _ => {}
        }
        line += usize::from(byte == b'\n');
        state = next;
    }
    match state {
        State::BeforeKey | State::Key | State::Comment | State::CommentEscape => {}
        State::Single | State::Double | State::DoubleEscape => {
            return Err(Flaw { line: current.line, what: "its quotation is never closed" });
        }
        State::BareEscape => {
            return Err(Flaw { line: current.line, what: "the file ends in a backslash" });
        }
        State::BeforeValue | State::Bare => places.extend(current.finish(key)),
    }
    Ok(places)
}

/// One byte. What it means for the value is noted in the assignment.
fn step(state: State, at: usize, byte: u8, current: &mut Assignment) -> Result<State, Flaw> {
    Ok(match (state, byte) {
        (State::BeforeKey, b'#' | b';') => State::Comment,
        (State::BeforeKey, byte) if is_space(byte) => State::BeforeKey,
        (State::BeforeKey, _) => State::Key,
        (State::Key, byte) if is_newline(byte) => State::BeforeKey,
        (State::Key, b'=') => {
            current.equals = at;
            State::BeforeValue
        }
        (State::Key, byte) => {
            current.key.push(byte);
            State::Key
        }
        (State::BeforeValue | State::Bare, byte) if is_newline(byte) => State::BeforeKey,
        (State::BeforeValue, byte) if is_space(byte) => State::BeforeValue,
        (State::BeforeValue | State::Bare, b'\\') => {
            current.touch(at, byte, state);
            current.mixed = true;
            // White space before an escape is inside of the value.
            current.kept = current.value.len();
            State::BareEscape
        }
        (State::BeforeValue, b'\'') => {
            current.touch(at, byte, state);
            State::Single
        }
        (State::BeforeValue, b'"') => {
            current.touch(at, byte, state);
            State::Double
        }
        (State::Bare, byte) if is_space(byte) => {
            current.value.push(byte);
            State::Bare
        }
        (State::BeforeValue | State::Bare, byte) => {
            current.touch(at, byte, state);
            current.push(&[byte]);
            State::Bare
        }
        (State::BareEscape, byte) => {
            current.touch(at, byte, state);
            if !is_newline(byte) {
                current.push(&[byte]);
            }
            State::Bare
        }
        (State::Single, b'\'') | (State::Double, b'"') => {
            current.touch(at, byte, state);
            State::BeforeValue
        }
        (State::Double, b'\\') => State::DoubleEscape,
        (State::Single | State::Double, byte) => {
            current.push(&[byte]);
            state
        }
        (State::DoubleEscape, byte) => {
            match byte {
                b'\n' => {}
                byte if ESCAPED.contains(&byte) => current.push(&[byte]),
                byte => current.push(&[b'\\', byte]),
            }
            State::Double
        }
        (State::Comment, b'\\') => State::CommentEscape,
        (State::Comment, byte) if is_newline(byte) => State::BeforeKey,
        (State::Comment | State::CommentEscape, _) => State::Comment,
    })
}

/// A value in the present style if that can hold it, else in double quotes.
pub(super) fn write(value: &str, style: Style) -> Result<Zeroizing<String>, &'static str> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err("systemd ignores a variable with control characters in it");
    }
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '\\' | '\'' | '"');
    Ok(match style {
        Style::Bare if value.chars().all(plain) => Zeroizing::new(value.to_owned()),
        Style::Single if !value.contains('\'') => Zeroizing::new(format!("'{value}'")),
        _ => {
            let mut text = Zeroizing::new(String::with_capacity(value.len() * 2 + 2));
            text.push('"');
            for character in value.chars() {
                if u8::try_from(character).is_ok_and(|byte| ESCAPED.contains(&byte)) {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push('"');
            text
        }
    })
}
