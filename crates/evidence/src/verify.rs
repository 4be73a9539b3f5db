//! Whether a file is what was written.
//!
//! Every line has the digest of the line before it, and what was appended together ends with a signature: so a change
//! anywhere is missed by nobody, and the first place that does not fit is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};

use crate::FORMAT;
use crate::batch;
use crate::key::{Trusted, Verdict, judge};
use crate::line::{Author, Digest, Dropped, Kind, Line};

/// What a file that fits proves.
#[derive(Debug)]
pub struct Proof {
    /// How many lines it has.
    pub lines: u64,
    /// How many of them are entries of journals.
    pub entries: u64,
    /// The runs in it.
    pub runs: BTreeMap<String, Ended>,
    /// The keys that have signed.
    pub signers: BTreeSet<String>,
    /// What was taken away on the way, and before which line.
    pub dropped: Vec<(u64, Dropped)>,
    /// The digest of the last line.
    pub head: Digest,
    /// The run and the lines that it is a part for, if it is one.
    pub excerpt: Option<(String, (u64, u64))>,
}

/// How far a run goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its environment.
    pub environment: String,
    /// How many entries it has.
    pub entries: u64,
    /// The line of its last signature, as the line counts itself.
    pub line: u64,
    /// Who has signed it last.
    pub signer: String,
    /// When.
    pub at: String,
    /// Which process that was.
    pub by: Option<Author>,
    /// Whether another process than the run's own has written some of it, later.
    pub late: bool,
}

/// The first place that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which line of the file, from 1.
    pub line: u64,
    /// Of which run, as far as that can be told.
    pub run: Option<String>,
    /// What is wrong with it.
    pub what: What,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// There is none.
    Empty,
    /// It is nothing that pgrotate writes.
    NotALine,
    /// It was written by a newer program.
    Newer(u16),
    /// It is not what was written.
    Changed,
    /// These lines are missing before it.
    Missing(u64, u64),
    /// The line of this number stands there.
    Moved(u64),
    /// It has no end.
    Cut,
    /// Nothing after it is signed.
    Unsigned,
    /// Its signature is of something else.
    Signature,
    /// It is signed by a key of which nobody has said that it counts.
    Stranger(String),
    /// The run has so many entries up to here, and the line counts another number.
    Entries(u64),
    /// An excerpt goes up to this line.
    Short(u64),
}

impl What {
    /// In one word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotALine => "unreadable",
            Self::Newer(_) => "newer",
            Self::Changed => "changed",
            Self::Missing(..) | Self::Short(_) => "missing",
            Self::Moved(_) => "moved",
            Self::Cut => "cut",
            Self::Unsigned => "unsigned",
            Self::Signature => "signature",
            Self::Stranger(_) => "unknown_key",
            Self::Entries(_) => "entries",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no line in it"),
            Self::NotALine => f.write_str("it is no line of evidence: it was changed, or put there"),
            Self::Newer(format) => {
                write!(f, "a newer pgrotate wrote it (format {format}, this one reads {FORMAT})")
            }
            Self::Changed => f.write_str("it was changed after it was written"),
            Self::Missing(from, to) if from == to => write!(f, "line {from} is missing before it"),
            Self::Missing(from, to) => write!(f, "the lines {from} to {to} are missing before it"),
            Self::Moved(number) => {
                write!(f, "line {number} stands there: it was moved or repeated, or what stood there is gone")
            }
            Self::Cut => f.write_str("it is cut off"),
            Self::Unsigned => f.write_str("nothing signed follows it: what came after it is gone"),
            Self::Signature => {
                f.write_str("its signature does not match: it was changed after it was signed")
            }
            Self::Stranger(key) => write!(f, "it is signed by an unknown key, {key}"),
            Self::Entries(known) => {
                write!(f, "its run has {known} entries up to here, and it counts otherwise")
            }
            Self::Short(last) => write!(f, "the excerpt goes up to line {last}, and ends here"),
        }
    }
}

/// Why a file proves nothing.
#[derive(Debug)]
pub enum Failure {
    /// It can't be read.
    Io(io::Error),
    /// It is not what was written.
    Broken(Broken),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Goes through a file from its first line to its last.
///
/// # Errors
/// The first line that does not fit, or that the file can't be read.
pub fn verify(file: &mut impl BufRead, trusted: &Trusted) -> Result<Proof, Failure> {
    let mut walk = Walk::new(trusted);
    let mut text = Vec::new();
    loop {
        text.clear();
        if file.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        match walk.step(&text) {
            Ok(()) => {}
            Err(Wrong::Here(what)) => return Err(walk.broken(walk.place, what)),
            Err(Wrong::Before) => return Err(walk.broken(walk.place.max(2) - 1, What::Changed)),
            Err(Wrong::Between(digest)) => {
                let mut next = Vec::new();
                file.read_until(b'\n', &mut next)?;
                // Where the line after this one has its digest, this one is as it was, and the one before is not.
                let follows = Line::parse(next.trim_ascii_end()).is_some_and(|next| digest.is(&next.prev));
                let place = if follows && walk.place > 1 { walk.place - 1 } else { walk.place };
                return Err(walk.broken(place, What::Changed));
            }
        }
    }
    walk.end()
}

/// What is wrong, and where.
enum Wrong {
    /// With the line itself.
    Here(What),
    /// With the one before: this one is as it was signed.
    Before,
    /// With it or with the one before, which do not fit together; this is its own digest.
    Between(Digest),
}

/// What an excerpt promises.
struct Heading {
    run: String,
    lines: (u64, u64),
    head: String,
}

/// A run whose lines are being read.
struct Open {
    run: String,
    entries: u64,
}

struct Walk<'a> {
    trusted: &'a Trusted,
    /// Which line of the file is looked at.
    place: u64,
    /// The number of the last line, as the lines count themselves.
    number: u64,
    /// What the next line has to name.
    prev: Option<Digest>,
    /// The same from the heading of an excerpt.
    told: Option<String>,
    /// Whether the line before was signed, and so is as it was.
    sealed: bool,
    heading: Option<Heading>,
    open: Option<Open>,
    proof: Proof,
}

impl<'a> Walk<'a> {
    fn new(trusted: &'a Trusted) -> Self {
        let proof = Proof {
            lines: 0,
            entries: 0,
            runs: BTreeMap::new(),
            signers: BTreeSet::new(),
            dropped: Vec::new(),
            head: Digest::NONE,
            excerpt: None,
        };
        Self {
            trusted,
            place: 0,
            number: 0,
            prev: Some(Digest::NONE),
            told: None,
            sealed: true,
            heading: None,
            open: None,
            proof,
        }
    }

    fn broken(&self, line: u64, what: What) -> Failure {
        let last = || self.proof.runs.iter().max_by_key(|(_, ended)| ended.line).map(|(run, _)| run.clone());
        let run = self.open.as_ref().map(|open| open.run.clone()).or_else(last);
        Failure::Broken(Broken { line, run, what })
    }

    fn step(&mut self, text: &[u8]) -> Result<(), Wrong> {
        self.place += 1;
        let text = text.strip_suffix(b"\n").ok_or(Wrong::Here(What::Cut))?;
        let line = Line::parse(text).ok_or(Wrong::Here(What::NotALine))?;
        if line.format > FORMAT {
            return Err(Wrong::Here(What::Newer(line.format)));
        }
        let digest = Digest::of(text);
        if line.kind == Kind::Excerpt {
            return self.begin(&line, text).map_err(Wrong::Here);
        }
        self.follows(&line, (text, digest))?;
        self.number = line.line;
        match line.kind {
            Kind::Seal => self.seal(&line, text).map_err(Wrong::Here)?,
            _ => self.entry(&line).map_err(Wrong::Here)?,
        }
        self.sealed = line.kind == Kind::Seal;
        (self.prev, self.told) = (Some(digest), None);
        self.proof.lines += 1;
        self.proof.head = digest;
        Ok(())
    }

    /// The heading of an excerpt.
    fn begin(&mut self, line: &Line<'_>, text: &[u8]) -> Result<(), What> {
        let (Some((first, last)), Some(head)) = (line.lines, &line.head) else { return Err(What::NotALine) };
        if self.place > 1 {
            return Err(What::Moved(0));
        }
        self.open = Some(Open { run: line.run.to_string(), entries: 0 });
        let signer = self.signed(text)?;
        self.open = None;
        self.proof.signers.insert(signer);
        self.number = first.saturating_sub(1);
        (self.prev, self.told) = (None, Some(line.prev.to_string()));
        let run = line.run.to_string();
        self.proof.excerpt = Some((run.clone(), (first, last)));
        self.heading = Some(Heading { run, lines: (first, last), head: head.to_string() });
        Ok(())
    }

    /// Whether the line is the one that comes after the one before.
    fn follows(&self, line: &Line<'_>, (text, digest): (&[u8], Digest)) -> Result<(), Wrong> {
        let wanted = self.number + 1;
        let fits = match (&self.prev, &self.told) {
            (Some(prev), _) => prev.is(&line.prev),
            (None, told) => told.as_deref() == Some(&line.prev),
        };
        if fits && line.line == wanted {
            return Ok(());
        }
        if !fits && line.line > wanted {
            return Err(Wrong::Here(What::Missing(wanted, line.line - 1)));
        }
        if !fits && line.line < wanted {
            return Err(Wrong::Here(What::Moved(line.line)));
        }
        let signed = (line.kind == Kind::Seal).then(|| self.signed(text));
        match (fits || self.sealed, signed) {
            (true, _) | (_, Some(Err(What::Signature))) => Err(Wrong::Here(What::Changed)),
            (_, Some(_)) => Err(Wrong::Before),
            (_, None) => Err(Wrong::Between(digest)),
        }
    }

    fn entry(&mut self, line: &Line<'_>) -> Result<(), What> {
        let open = match self.open.take() {
            Some(open) if open.run == line.run => open,
            Some(open) => {
                self.open = Some(open);
                return Err(What::Unsigned);
            }
            None => Open { run: line.run.to_string(), entries: self.known(line) },
        };
        let entries = open.entries;
        let open = self.open.insert(open);
        if line.entry != Some(entries) || line.record.is_none() {
            return Err(What::Entries(entries));
        }
        open.entries += 1;
        self.proof.entries += 1;
        Ok(())
    }

    /// How many entries of the line's run have been read. Of a run that is not an excerpt's own, the beginning may lie
    /// before it.
    fn known(&self, line: &Line<'_>) -> u64 {
        let other = self.heading.as_ref().is_some_and(|heading| heading.run != line.run);
        match self.proof.runs.get(&*line.run) {
            Some(ended) => ended.entries,
            None if other => line.entry.or(line.entries).unwrap_or(0),
            None => 0,
        }
    }

    fn seal(&mut self, line: &Line<'_>, text: &[u8]) -> Result<(), What> {
        if self.open.as_ref().is_some_and(|open| open.run != line.run) {
            return Err(What::Unsigned);
        }
        let entries = self.open.as_ref().map_or_else(|| self.known(line), |open| open.entries);
        self.open = Some(Open { run: line.run.to_string(), entries });
        let signer = self.signed(text)?;
        if line.entries != Some(entries) {
            return Err(What::Entries(entries));
        }
        let earlier = self.proof.runs.get(&*line.run).is_some_and(|ended| ended.late);
        let ended = Ended {
            environment: line.environment.to_string(),
            entries,
            line: line.line,
            signer: signer.clone(),
            at: line.at.as_deref().unwrap_or_default().to_owned(),
            by: line.by.clone(),
            late: line.late || earlier,
        };
        self.proof.runs.insert(line.run.to_string(), ended);
        self.proof.signers.insert(signer);
        self.proof.dropped.extend(line.dropped.clone().map(|dropped| (line.line, dropped)));
        self.open = None;
        Ok(())
    }

    fn signed(&self, text: &[u8]) -> Result<String, What> {
        let (message, signature) = batch::parts(text).ok_or(What::Signature)?;
        match judge(message, signature, self.trusted) {
            Verdict::Good(key) => Ok(key),
            Verdict::Stranger(key) => Err(What::Stranger(key)),
            Verdict::Bad => Err(What::Signature),
        }
    }

    fn end(self) -> Result<Proof, Failure> {
        let short = self.heading.as_ref().filter(|heading| {
            self.number != heading.lines.1 || !self.proof.head.is(&heading.head) || self.proof.lines == 0
        });
        let what = match (self.place, &self.open, short) {
            (0, ..) => What::Empty,
            (_, Some(_), _) => What::Unsigned,
            (_, None, Some(heading)) => What::Short(heading.lines.1),
            (_, None, None) => return Ok(self.proof),
        };
        Err(self.broken(self.place, what))
    }
}

#[cfg(test)]
mod tests;
