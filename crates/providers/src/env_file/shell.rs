//! A file that a POSIX shell sources, as far as it does nothing but assign.
//!
//! Only the shell itself knows what an arbitrary script does, so a file with more than
//! comments, assignments, `export` and `set -a` is refused: pgrotate could not promise that
//! the line it changes is the one that counts. Other values may use `$NAME`; commands may not.

use std::ops::Range;

use zeroize::Zeroizing;

use super::dialect::{BOM, Flaw, Place, Style};

const CARRIAGE: &str = "it ends in CR LF, and the shell takes the CR for a part of the line";
const SCRIPT: &str = "it is more than an assignment, and only the shell knows what it does";
const COMPUTES: &str = "it runs a command or computes something to make a value";

/// Every assignment of the key.
pub(super) fn find(text: &[u8], key: &str) -> Result<Vec<Place>, Flaw> {
    let mut reader = Reader { text, at: 0, line: 1 };
    if text.starts_with(BOM) {
        return Err(
            reader.flaw("it begins with a byte order mark, which the shell takes for a part of the line")
        );
    }
    let mut places = Vec::new();
    while reader.next_command() {
        reader.command(key, &mut places)?;
    }
    Ok(places)
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
}

/// A word, read to its end.
#[derive(Default)]
struct Word {
    value: Zeroizing<Vec<u8>>,
    computed: bool,
    /// How many stretches of bare text, `'…'` and `"…"` it consists of, and the last of them.
    pieces: usize,
    style: Option<Style>,
}

impl Word {
    fn piece(&mut self, style: Style) {
        if self.style != Some(style) || style != Style::Bare {
            self.pieces += 1;
        }
        self.style = Some(style);
    }
}

impl<'t> Reader<'t> {
    fn flaw(&self, what: &'static str) -> Flaw {
        Flaw { line: self.line, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        self.line += usize::from(byte == b'\n');
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        loop {
            match &self.text[self.at..] {
                [b' ' | b'\t', ..] => drop(self.take()),
                [b'\\', b'\n', ..] => drop((self.take(), self.take())),
                _ => return,
            }
        }
    }

    /// Goes to where the next command begins, if there is one.
    fn next_command(&mut self) -> bool {
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return false,
                Some(b'\n') => drop(self.take()),
                Some(b'#') => self.skip_comment(),
                Some(_) => return true,
            }
        }
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.take();
        }
    }

    /// One command: assignments, `export` with assignments or names, or `set -a`.
    fn command(&mut self, key: &str, places: &mut Vec<Place>) -> Result<(), Flaw> {
        let mut exports = false;
        let mut words = 0;
        loop {
            self.skip_blanks();
            match self.peek() {
                // `export` alone would print every variable.
                None | Some(b'\n' | b'#' | b';') if exports && words == 1 => return Err(self.flaw(SCRIPT)),
                None | Some(b'\n' | b'#') => {
                    self.skip_comment();
                    return Ok(());
                }
                Some(b';') if words > 0 => {
                    self.take();
                    // `;;` belongs to a `case`.
                    return if self.peek() == Some(b';') { Err(self.flaw(SCRIPT)) } else { Ok(()) };
                }
                Some(_) => {}
            }
            let name = self.name();
            if self.text[name.end..].first() == Some(&b'=') && !name.is_empty() {
                self.at = name.end + 1;
                let place = self.assignment(exports)?;
                if self.text[name] == *key.as_bytes() {
                    places.push(place);
                }
            } else if self.ends_word(name.end) && exports && !name.is_empty() {
                self.at = name.end;
            } else if self.ends_word(name.end) && words == 0 && self.text[name.clone()] == *b"export" {
                self.at = name.end;
                exports = true;
            } else if self.ends_word(name.end) && words == 0 && self.text[name.clone()] == *b"set" {
                self.at = name.end;
                self.set()?;
            } else if self.peek() == Some(b'\r') {
                return Err(self.flaw(CARRIAGE));
            } else {
                return Err(self.flaw(SCRIPT));
            }
            words += 1;
        }
    }

    /// Switching the export of everything on or off.
    fn set(&mut self) -> Result<(), Flaw> {
        let mut words = Vec::new();
        loop {
            self.skip_blanks();
            let begin = self.at;
            while !self.ends_word(self.at) && self.text[begin] != b'#' {
                self.at += 1;
            }
            if begin == self.at {
                break;
            }
            words.push(&self.text[begin..self.at]);
        }
        match words[..] {
            [b"-a" | b"+a"] | [b"-o" | b"+o", b"allexport"] => Ok(()),
            _ => Err(self.flaw(SCRIPT)),
        }
    }

    /// The name that begins here; empty if none does.
    fn name(&self) -> Range<usize> {
        let rest = &self.text[self.at..];
        let is_name = |(index, byte): (usize, &u8)| {
            byte.is_ascii_alphabetic() || *byte == b'_' || (index > 0 && byte.is_ascii_digit())
        };
        let length = rest.iter().enumerate().take_while(|pair| is_name(*pair)).count();
        self.at..self.at + length
    }

    fn ends_word(&self, at: usize) -> bool {
        matches!(self.text.get(at), None | Some(b' ' | b'\t' | b'\n' | b';'))
    }

    /// The value behind a `=`, up to the end of the word.
    fn assignment(&mut self, exports: bool) -> Result<Place, Flaw> {
        let (line, begin) = (self.line, self.at);
        let mut word = Word::default();
        // A tilde means a home folder at the beginning and after a colon.
        let mut tilde = true;
        while !self.ends_word(self.at) {
            let byte = self.take().expect("a word that does not end has another byte");
            let (after_colon, joined) = (byte == b':', byte == b'\\' && self.peek() == Some(b'\n'));
            match byte {
                b'\'' => self.single(&mut word)?,
                b'"' => self.double(&mut word)?,
                b'\\' => self.escape(&mut word)?,
                b'$' => {
                    word.piece(Style::Bare);
                    self.dollar(&mut word, true)?;
                }
                b'`' => return Err(self.flaw(COMPUTES)),
                b'&' | b'|' | b'<' | b'>' | b'(' | b')' => return Err(self.flaw(SCRIPT)),
                b'\r' => {
                    return Err(
                        self.flaw("it ends in CR LF, and the shell takes the CR for a part of the value")
                    );
                }
                0 => return Err(self.flaw("there is a NUL in it")),
                byte => {
                    word.piece(Style::Bare);
                    // `export` is a command like any other to bash, which expands braces in its words.
                    word.computed |= (tilde && byte == b'~') || (exports && byte == b'{');
                    word.value.push(byte);
                }
            }
            tilde = after_colon || (tilde && joined);
        }
        let style = if word.pieces > 1 { Style::Mixed } else { word.style.unwrap_or(Style::Bare) };
        Ok(Place { line, span: begin..self.at, style, value: word.value, computed: word.computed })
    }

    fn single(&mut self, word: &mut Word) -> Result<(), Flaw> {
        word.piece(Style::Single);
        let opened = self.line;
        loop {
            match self.take() {
                None => return Err(Flaw { line: opened, what: "its quotation is never closed" }),
                Some(b'\'') => return Ok(()),
                Some(0) => return Err(self.flaw("there is a NUL in it")),
                Some(byte) => word.value.push(byte),
            }
        }
    }

    fn double(&mut self, word: &mut Word) -> Result<(), Flaw> {
        word.piece(Style::Double);
        let opened = self.line;
        loop {
            match self.take() {
                None => return Err(Flaw { line: opened, what: "its quotation is never closed" }),
                Some(b'"') => return Ok(()),
                Some(b'$') => self.dollar(word, false)?,
                Some(b'`') => return Err(self.flaw(COMPUTES)),
                Some(b'\\') => match self.peek() {
                    Some(b'\n') => drop(self.take()),
                    Some(byte @ (b'$' | b'`' | b'"' | b'\\')) => {
                        self.take();
                        word.value.push(byte);
                    }
                    _ => word.value.push(b'\\'),
                },
                Some(0) => return Err(self.flaw("there is a NUL in it")),
                Some(byte) => word.value.push(byte),
            }
        }
    }

    fn escape(&mut self, word: &mut Word) -> Result<(), Flaw> {
        match self.take() {
            Some(b'\n') => {}
            Some(b'\r' | 0) => return Err(self.flaw("there is a CR or a NUL in it")),
            Some(byte) => {
                word.piece(Style::Mixed);
                word.value.push(byte);
            }
            None => return Err(self.flaw("the file ends in a backslash")),
        }
        Ok(())
    }

    /// What follows a `$`: a name, or nothing special. A value with a name in it is known to
    /// the shell alone.
    fn dollar(&mut self, word: &mut Word, bare: bool) -> Result<(), Flaw> {
        match self.peek() {
            Some(b'(') => Err(self.flaw(COMPUTES)),
            // A line that goes on is joined before the `$` is looked at.
            Some(b'\\') if self.text.get(self.at + 1) == Some(&b'\n') => Err(self.flaw(COMPUTES)),
            // Shells disagree on these.
            Some(b'\'' | b'"') if bare => {
                Err(self.flaw("`$` before a quotation means something else in each shell"))
            }
            Some(b'[') => Err(self.flaw("`$[` means something else in each shell")),
            Some(b'{') => {
                self.take();
                let name = self.name();
                if name.is_empty() || self.text.get(name.end) != Some(&b'}') {
                    return Err(self.flaw(COMPUTES));
                }
                self.at = name.end + 1;
                word.computed = true;
                Ok(())
            }
            Some(byte) if byte.is_ascii_alphanumeric() || b"_@*#?-$!".contains(&byte) => {
                word.computed = true;
                Ok(())
            }
            _ => {
                word.value.push(b'$');
                Ok(())
            }
        }
    }
}

/// A value in the present style if that can hold it, else in single quotes, which hold all.
pub(super) fn write(value: &str, style: Style) -> Zeroizing<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,/:@%+=?".contains(c);
    match style {
        Style::Bare if value.chars().all(plain) => Zeroizing::new(value.to_owned()),
        // An exclamation mark in double quotes is the history of an interactive shell.
        Style::Double if !value.contains('!') => {
            let mut text = Zeroizing::new(String::with_capacity(value.len() * 2 + 2));
            text.push('"');
            for character in value.chars() {
                if matches!(character, '$' | '`' | '"' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push('"');
            text
        }
        _ => Zeroizing::new(format!("'{}'", Zeroizing::new(value.replace('\'', "'\\''")).as_str())),
    }
}
