//! What programs print when a password is wrong, and how to repeat what they print without
//! the password in it.
//!
//! The runbook looks for `invalid password`, which neither PostgreSQL nor any driver ever
//! prints. What they do print was collected from PostgreSQL 15, psycopg, asyncpg, SQLAlchemy
//! and Alembic; see [`TROUBLES`].

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pgrotate_core::Secret;
use pgrotate_core::database_url;
use zeroize::Zeroizing;

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The server does not let somebody in.
    Login,
    /// A program can't read its database URL.
    Url,
}

/// What is searched for, in lower case, and what it means.
pub const TROUBLES: &[(&str, Trouble)] = &[
    // The server's log, libpq, psycopg and asyncpg, in whatever SQLAlchemy wraps it.
    ("password authentication failed", Trouble::Login),
    ("invalidpassworderror", Trouble::Login),
    ("28p01", Trouble::Login),
    // The family of 28000.
    ("no pg_hba.conf entry", Trouble::Login),
    ("invalidauthorizationspecification", Trouble::Login),
    ("not permitted to log in", Trouble::Login),
    // asyncpg through SQLAlchemy; Alembic's ConfigParser on a `%`; a `/`, `#` or `?` that was
    // not encoded, so that the rest of the password stands where the port is expected.
    ("unexpected keyword argument 'sslmode'", Trouble::Url),
    ("invalid interpolation syntax", Trouble::Url),
    ("invalid literal for int() with base 10", Trouble::Url),
];

/// What a line tells about passwords and URLs, if it tells anything, and the text of
/// [`TROUBLES`] that says so.
pub fn find(line: &str) -> Option<(&'static str, Trouble)> {
    let line = line.to_ascii_lowercase();
    TROUBLES.iter().find(|(text, _)| stands_in(&line, text)).copied()
}

/// What a line of a log tells about passwords and URLs, if it tells anything.
///
/// ```
/// use pgrotate_providers::log_scan::{Trouble, trouble};
/// let line = r#"FATAL:  password authentication failed for user "app""#;
/// assert_eq!(trouble(line), Some(Trouble::Login));
/// assert_eq!(trouble("invalid password"), None); // nobody prints this
/// ```
pub fn trouble(line: &str) -> Option<Trouble> {
    find(line).map(|(_, trouble)| trouble)
}

/// Whether a text stands in a line, and not as a part of a longer word or number: `28P01` is
/// in many a hash.
fn stands_in(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let alone = |character: Option<char>| character.is_none_or(|c| !c.is_ascii_alphanumeric());
        let whole = !text.starts_with(|c: char| c.is_ascii_digit());
        whole || (alone(line[..at].chars().next_back()) && alone(line[at + text.len()..].chars().next()))
    })
}

/// Takes passwords out of what is kept of other programs' words.
///
/// Whole secrets go, and so do pieces of them: a URL that was split in the wrong place is
/// printed in parts. The user-info of every URL goes as well, whosever it is.
#[derive(Debug)]
pub struct Redactor {
    /// In all the spellings in which a program may print them.
    secrets: Vec<Secret>,
    /// Whether everything that may be a secret goes, whosever it is.
    strict: bool,
}

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";
/// What announces a secret in a word, in lower case.
const TELLING: [&str; 5] = ["password=", "pwd=", "password:", "://", "@"];
/// Pieces of a secret from this length on are hidden; shorter ones are anybody's.
const PIECE: usize = 6;
/// What is shown of a line, in bytes: it is quoted to give an idea, not to be complete.
const LONGEST: usize = 400;
/// What is looked at of a line: long enough to see the end of every URL that begins in the
/// part that is shown.
const LOOKED_AT: usize = 16 * LONGEST;

impl Redactor {
    /// For these secrets. Of a URL give the password, or its host's name would be hidden too.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let spellings = |secret: &Secret| {
            let json = Zeroizing::new(serde_json::Value::from(secret.expose()).to_string());
            let encoded = Secret::new(database_url::encode(secret.expose()).as_str());
            let mut spellings = vec![secret.clone(), Secret::new(json.trim_matches('"'))];
            spellings.extend([secret, &encoded].into_iter().flat_map(digits));
            spellings.push(encoded);
            spellings
        };
        let secrets = secrets.into_iter().flat_map(spellings).filter(|secret| !secret.is_empty());
        Self { secrets: secrets.collect(), strict: false }
    }

    /// For words that are not only about our own secrets, such as a whole application's log:
    /// URLs go altogether, and so do what follows `password=` and everything in quotes, because
    /// a driver quotes the piece of a damaged URL that it could not read, however short.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// A line that can be shown: without secrets, control characters and excess length.
    pub fn line(&self, line: &str) -> String {
        let line = &line[..line.floor_char_boundary(LOOKED_AT)];
        let mut hidden = vec![false; line.len()];
        for secret in &self.secrets {
            hide_pieces(line.as_bytes(), secret.expose().as_bytes(), &mut hidden);
        }
        hide_user_infos(line, &mut hidden);
        if self.strict {
            hide_quoted(line, &mut hidden);
            hide_telling_words(line, &mut hidden);
        }
        let mut shown = String::new();
        let mut covered = false;
        for (at, character) in line.char_indices() {
            let hide = hidden[at..at + character.len_utf8()].contains(&true);
            match (hide, covered) {
                (true, false) => shown.push_str(HIDDEN),
                (true, true) => {}
                // What moves a terminal's cursor must not come from a foreign program.
                (false, _) if character.is_control() => shown.push(' '),
                (false, _) => shown.push(character),
            }
            covered = hide;
            if shown.len() >= LONGEST {
                shown.push('…');
                break;
            }
        }
        shown.trim_end().to_owned()
    }
}

/// The hexadecimal and base64 forms of a text, as they stand in a header or in a dump of bytes. In base64 a text looks
/// different after one, two and three other bytes; what it shares a letter with is left out.
fn digits(text: &Secret) -> Vec<Secret> {
    let bytes = text.expose().as_bytes();
    if bytes.len() < PIECE {
        return Vec::new();
    }
    let hex = Zeroizing::new(pgrotate_core::secret::hex(bytes));
    let mut forms = vec![Secret::new(hex.to_ascii_uppercase()), Secret::new(hex.as_str())];
    for before in 0..3 {
        let padded = Zeroizing::new([&[0; 2][..before], bytes].concat());
        let own = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        for alphabet in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(alphabet.encode(&padded));
            forms.push(Secret::new(&encoded[own.clone()]));
        }
    }
    forms
}

/// Marks every byte that belongs to a piece of the secret.
fn hide_pieces(line: &[u8], secret: &[u8], hidden: &mut [bool]) {
    let size = PIECE.min(secret.len());
    let pieces: HashSet<&[u8]> = secret.windows(size).collect();
    for (at, window) in line.windows(size).enumerate() {
        if pieces.contains(window) {
            hidden[at..at + size].fill(true);
        }
    }
}

/// Marks what stands between `://user:` and the last `@` of the word.
fn hide_user_infos(line: &str, hidden: &mut [bool]) {
    for (at, _) in line.match_indices("://") {
        let start = at + 3;
        let word = line[start..].split([' ', '\t', '"', '\'', '<', '>']).next().unwrap_or_default();
        if let (Some(colon), Some(end)) = (word.find(':'), word.rfind('@'))
            && colon < end
        {
            hidden[start + colon + 1..start + end].fill(true);
        }
    }
}

/// Marks what stands between quotes; an open quote reaches to the end.
fn hide_quoted(line: &str, hidden: &mut [bool]) {
    let mut open = None;
    for (at, character) in line.char_indices() {
        match open {
            Some(quote) if character == quote => open = None,
            Some(_) => hidden[at..at + character.len_utf8()].fill(true),
            None => open = matches!(character, '"' | '\'' | '`').then_some(character),
        }
    }
}

/// Marks the words that have a sign of a secret in them.
fn hide_telling_words(line: &str, hidden: &mut [bool]) {
    let mut start = 0;
    for word in line.split_inclusive(char::is_whitespace) {
        let lower = word.to_ascii_lowercase();
        if TELLING.iter().any(|mark| lower.contains(mark)) {
            hidden[start..start + word.trim_end().len()].fill(true);
        }
        start += word.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines as they were printed, with what each of them means.
    #[test]
    fn what_is_really_printed_is_recognised() {
        for line in [
            "2026-01-01 00:00:00 UTC [7] app@db FATAL:  password authentication failed for user \"app\"",
            "connection to server at \"h\", port 5432 failed: FATAL:  password authentication failed for user \"u\"",
            "asyncpg.exceptions.InvalidPasswordError: password authentication failed for user \"u\"",
            "asyncpg.exceptions.InvalidAuthorizationSpecificationError: role \"u\" is not permitted to log in",
            "FATAL:  no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
            "SQLSTATE=28P01",
        ] {
            assert_eq!(trouble(line), Some(Trouble::Login), "{line}");
        }
        for line in [
            "TypeError: connect() got an unexpected keyword argument 'sslmode'",
            "ValueError: invalid interpolation syntax in 'postgresql://u:a%zb@h/d' at position 20",
            "ValueError: invalid literal for int() with base 10: 'ter2'",
        ] {
            assert_eq!(trouble(line), Some(Trouble::Url), "{line}");
        }
        for line in ["invalid password", "INFO  [alembic] Running upgrade", "commit a28p01b", "id 128P01", ""]
        {
            assert_eq!(trouble(line), None, "{line}");
        }
    }

    #[test]
    fn secrets_and_their_pieces_are_hidden() {
        let redactor = Redactor::new([&Secret::new("Zq8x/PTk%n5V\"b")]);
        for (line, shown) in [
            ("the password is Zq8x/PTk%n5V\"b.", "the password is ***."),
            ("encoded Zq8x%2FPTk%25n5V%22b", "encoded ***"),
            ("as JSON \"Zq8x/PTk%n5V\\\"b\"", "as JSON \"***\""),
            ("no such host 'PTk%n5V'", "no such host '***'"),
            ("Zq8x is short enough", "Zq8x is short enough"),
            ("postgresql://someone:else@db/x", "postgresql://someone:***@db/x"),
            ("see https://example.com:80/a for it@home", "see https://example.com:80/a for it@home"),
            ("a\u{1b}[2Jb\r", "a [2Jb"),
        ] {
            assert_eq!(redactor.line(line), shown);
        }
        assert!(redactor.line(&"x".repeat(5_000)).len() < 500);
        assert_eq!(Redactor::new([&Secret::new("")]).line("as it is"), "as it is");
        assert!(!format!("{redactor:?}").contains("Zq8x"));
    }

    /// As somebody else's tools print them, in the middle of other bytes.
    #[test]
    fn a_secret_is_hidden_in_base64_and_in_hexadecimal() {
        let redactor = Redactor::new([&Secret::new("Zq8x/PTk+n5Vb?2m")]);
        for line in [
            "basic YTpacTh4L1BUaytuNVZiPzJt",
            "basic YWI6WnE4eC9QVGsrbjVWYj8ybQ==",
            "basic YWJjOlpxOHgvUFRrK241VmI_Mm0",
            "url eDpacTh4JTJGUFRrJTJCbjVWYiUzRjJtQGg=",
            "hex 5a7138782f50546b2b6e3556623f326d",
            "hex 5A7138782F50546B2B6E3556623F326D",
        ] {
            let shown = redactor.line(line);
            assert!(shown.contains(HIDDEN) && shown.len() < 18, "{line}: {shown}");
        }
    }

    #[test]
    fn a_strict_redactor_hides_what_may_be_anybodys_secret() {
        let redactor = Redactor::new([&Secret::new("hunter2")]).strict();
        for (line, shown) in [
            ("login of \"é\" as 'u' failed", "login of \"***\" as '***' failed"),
            ("it isn't closed é", "it isn'***"),
            ("to postgresql://host/db now", "to *** now"),
            ("Password=a PWD=b é@c password:d", "*** *** *** ***"),
            ("hunter2 is ours, hunter3 is not", "*** is ours, ***3 is not"),
            ("nothing of that", "nothing of that"),
        ] {
            assert_eq!(redactor.line(line), shown);
        }
    }

    proptest! {
        #[test]
        fn no_piece_of_a_secret_is_ever_shown(secret in "[A-Za-z0-9]{8,32}", before in "\\PC{0,20}", after in "\\PC{0,20}") {
            let redactor = Redactor::new([&Secret::new(secret.clone())]);
            let shown = redactor.line(&format!("{before}{secret}{after}"));
            for piece in secret.as_bytes().windows(PIECE) {
                prop_assert!(!shown.contains(std::str::from_utf8(piece).unwrap()), "{shown}");
            }
        }
    }
}
