//! Lines that are appended together.

use serde_json::value::RawValue;

use crate::key::Signer;
use crate::line::{Author, Digest, Dropped, Kind, Written};

/// Between what is signed and the signature.
pub(crate) const SIGNATURE: &str = ",\"signature\":\"";

/// The last line of a file: what the next one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its number; 0 if there is none.
    pub line: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Tip {
    /// Of an empty file.
    pub const NONE: Self = Self { line: 0, digest: Digest::NONE };
}

/// Of which run something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The run.
    pub run: &'a str,
    /// Its environment.
    pub environment: &'a str,
}

/// What a seal says.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// How many entries of the run stand in the file up to here.
    pub entries: u64,
    /// When.
    pub at: &'a str,
    /// Who.
    pub by: &'a Author,
    /// Whether another process than that of the run writes it, later.
    pub late: bool,
    /// What was taken away before.
    pub dropped: Option<&'a Dropped>,
}

/// Lines that follow the last one of a file.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    tip: Tip,
}

impl Batch {
    /// Nothing yet, behind this line.
    pub fn after(tip: Tip) -> Self {
        Self { bytes: Vec::new(), tip }
    }

    /// Adds an entry of a journal, word for word, with the hash of the plan where it begins.
    pub fn entry(&mut self, subject: Subject<'_>, entry: u64, record: &RawValue, plan: Option<&str>) {
        let line =
            Written { entry: Some(entry), record: Some(record), plan, ..self.next(Kind::Entry, subject) };
        self.push(&line.to_bytes());
    }

    /// Ends what belongs to a run, by a signature.
    pub fn seal(&mut self, subject: Subject<'_>, seal: Seal<'_>, signer: &Signer) {
        let Seal { entries, at, by, late, dropped } = seal;
        let line = Written {
            entries: Some(entries),
            at: Some(at),
            by: Some(by),
            late,
            dropped,
            ..self.next(Kind::Seal, subject)
        };
        self.push(&signed(line.to_bytes(), signer));
    }

    fn next<'a>(&self, kind: Kind, subject: Subject<'a>) -> Written<'a> {
        Written::new(self.tip.line + 1, self.tip.digest.hex(), kind, subject.run, subject.environment)
    }

    fn push(&mut self, line: &[u8]) {
        self.tip = Tip { line: self.tip.line + 1, digest: Digest::of(line) };
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
    }

    /// The last line.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// The lines, each with its end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Puts a signature over what a line says at its end.
pub(crate) fn signed(mut line: Vec<u8>, signer: &Signer) -> Vec<u8> {
    let brace = line.pop();
    debug_assert_eq!(brace, Some(b'}'));
    let signature = signer.sign(&line);
    line.extend_from_slice(SIGNATURE.as_bytes());
    line.extend_from_slice(signature.as_bytes());
    line.extend_from_slice(b"\"}");
    line
}

/// What is signed of a line, and the signature.
pub(crate) fn parts(line: &[u8]) -> Option<(&[u8], &str)> {
    // A signature has neither of these letters in it, so the last place is the one.
    let rest = line.strip_suffix(b"\"}")?;
    let at = rest.windows(SIGNATURE.len()).rposition(|window| window == SIGNATURE.as_bytes())?;
    Some((&rest[..at], std::str::from_utf8(&rest[at + SIGNATURE.len()..]).ok()?))
}
