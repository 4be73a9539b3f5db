//! One line: what it says, and how it is tied to the one before.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// SHA-256 of a line's bytes, without the line's end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What stands before the first line.
    pub const NONE: Self = Self([0; 32]);

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// In hexadecimal, as `sha256sum` prints it.
    pub fn hex(&self) -> String {
        self.to_string()
    }

    /// Whether this text is the digest, in small letters.
    pub(crate) fn is(&self, text: &str) -> bool {
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        let digits = self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        text.bytes().eq(digits)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One entry of a run's journal.
    Entry,
    /// The signed end of what was appended together.
    Seal,
    /// The signed heading of a file that is a part of another one.
    Excerpt,
}

/// Who has written a part: the process, not the person who asked for the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The user of the system.
    pub user: String,
    /// The machine.
    pub host: String,
    /// The program's version.
    pub version: String,
}

/// What was found behind the last signed line and taken away: a write that a crash had cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How much, in bytes.
    pub bytes: u64,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

/// A line as it is read. A newer program may have written more into it; the signatures and digests cover that too.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// [`FORMAT`](crate::FORMAT) when it was written.
    pub format: u16,
    /// Its number in the file, from 1; 0 for the heading of an excerpt.
    pub line: u64,
    /// The digest of the line before it, in hexadecimal.
    #[serde(borrow)]
    pub prev: Cow<'a, str>,
    /// What it is.
    pub kind: Kind,
    /// Of which run.
    #[serde(borrow)]
    pub run: Cow<'a, str>,
    /// Of which environment.
    #[serde(borrow)]
    pub environment: Cow<'a, str>,
    /// Its number in the run, from 0 (of an entry).
    pub entry: Option<u64>,
    /// The journal's own words (of an entry).
    #[serde(borrow)]
    pub record: Option<&'a RawValue>,
    /// How many entries of the run stand in the file up to here (of a seal).
    pub entries: Option<u64>,
    /// When it was signed (of a seal).
    #[serde(borrow)]
    pub at: Option<Cow<'a, str>>,
    /// Who has written and signed it (of a seal).
    pub by: Option<Author>,
    /// Whether another process than that of the run has written it, later (of a seal).
    #[serde(default)]
    pub late: bool,
    /// What was taken away before it was written (of a seal).
    pub dropped: Option<Dropped>,
    /// The first and the last line of an excerpt.
    pub lines: Option<(u64, u64)>,
    /// The digest of the last line of an excerpt, in hexadecimal.
    #[serde(borrow)]
    pub head: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    /// Reads a line, without its end.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The same as it is written, in this order, so that a person finds things at the same place in every line.
#[derive(Serialize)]
pub(crate) struct Written<'a> {
    pub(crate) format: u16,
    pub(crate) line: u64,
    pub(crate) prev: String,
    pub(crate) kind: Kind,
    pub(crate) run: &'a str,
    pub(crate) environment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entry: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<&'a Author>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) late: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped: Option<&'a Dropped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lines: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<String>,
}

impl<'a> Written<'a> {
    pub(crate) fn new(line: u64, prev: String, kind: Kind, run: &'a str, environment: &'a str) -> Self {
        Self {
            format: crate::FORMAT,
            line,
            prev,
            kind,
            run,
            environment,
            entry: None,
            plan: None,
            record: None,
            entries: None,
            at: None,
            by: None,
            late: false,
            dropped: None,
            lines: None,
            head: None,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a line is numbers and texts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_its_text() {
        let digest = Digest::of(b"a");
        assert_eq!(digest.hex(), "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb");
        assert!(digest.is(&digest.hex()));
        for other in ["", "ca97", &digest.hex().to_uppercase(), &format!("{digest}0"), &Digest::NONE.hex()] {
            assert!(!digest.is(other), "{other}");
        }
    }
}
