//! How far a file goes, for whoever appends to it.
//!
//! What is appended together ends with a seal and is written at once; so whatever stands behind the last seal is what a
//! crash left of a write. It is taken away, and written again from the journal. A line that is nothing of ours was not
//! left by a crash: it stays, and [`verify`](crate::verify) names it.

use std::collections::HashMap;
use std::io::{self, BufRead};

use sha2::{Digest as _, Sha256};

use crate::batch::Tip;
use crate::line::{Digest, Dropped, Kind, Line};

/// What a file holds.
#[derive(Debug)]
pub struct Survey {
    /// Its last line that stays.
    pub tip: Tip,
    /// How many bytes stay.
    pub length: u64,
    /// What has to go, because it was cut.
    pub dropped: Option<Dropped>,
    /// How many entries of each run are in it.
    pub entries: HashMap<String, u64>,
}

impl Survey {
    /// Goes through a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(file: &mut impl BufRead) -> io::Result<Self> {
        let mut survey = Self { tip: Tip::NONE, length: 0, dropped: None, entries: HashMap::new() };
        let (mut line, mut loose, mut rest) = (Vec::new(), Loose::default(), None);
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some(text) = line.strip_suffix(b"\n") else {
                rest = Some(std::mem::take(&mut line));
                break;
            };
            match Line::parse(text) {
                Some(read) if read.kind == Kind::Entry => loose.add(&line),
                read => {
                    survey.keep(&loose, text);
                    loose = Loose::default();
                    if let Some(Line { kind: Kind::Seal, run, entries: Some(entries), .. }) = read {
                        survey.entries.insert(run.into_owned(), entries);
                    }
                }
            }
        }
        loose.hash.update(rest.as_deref().unwrap_or_default());
        let bytes = loose.bytes + rest.map_or(0, |rest| rest.len() as u64);
        survey.dropped =
            (bytes > 0).then(|| Dropped { bytes, sha256: format!("{:x}", loose.hash.finalize()) });
        Ok(survey)
    }

    /// Whatever stands before this line, and the line.
    fn keep(&mut self, loose: &Loose, text: &[u8]) {
        self.tip = Tip { line: self.tip.line + loose.lines + 1, digest: Digest::of(text) };
        self.length += loose.bytes + text.len() as u64 + 1;
    }
}

/// Lines that no seal has ended yet.
#[derive(Default)]
struct Loose {
    lines: u64,
    bytes: u64,
    hash: Sha256,
}

impl Loose {
    fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        self.bytes += line.len() as u64;
        self.hash.update(line);
    }
}
