//! The witness: what the journal has come to, noted outside of the database.
//!
//! A write-ahead log that was cut off or removed is silently taken by SQLite for one that ends
//! there, and a run whose `install` had begun would look as if it had not. So after each commit
//! a small file beside the database, one for each environment, is told how far the journal goes.
//! It is written after the commit and never synced: it costs no synchronous write, and after a
//! crash it can be behind the journal but never ahead. A journal that is behind its witness has lost
//! something.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgrotate_core::{Environment, Error, Kind, Result, RunId};
use serde_json::{Value, json};

use super::damage;
use super::rows::{Heading, LeaseRow};
use super::seal::Seal;

/// One write of this size is a single sector: it happens or it does not.
const SECTOR: usize = 512;
/// How often a file that makes no sense is read again: somebody may be writing it.
const LOOKS: usize = 3;

/// How far the journal of one environment goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) environment: Environment,
    /// Of the newest lease.
    pub(super) generation: i64,
    /// How many runs there are.
    pub(super) runs: i64,
    /// The run that was last written.
    pub(super) last: Option<Last>,
}

/// What is neither a witness nor none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nonsense;

/// How far a run goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) run: RunId,
    pub(super) length: i64,
    /// The digest of its last entry.
    pub(super) tip: String,
}

impl Witness {
    /// After a commit that left these rows.
    pub(super) fn of(lease: &LeaseRow, heading: &Heading) -> Self {
        let last = Last { run: heading.run, length: heading.length, tip: heading.tip.to_text() };
        Self { last: Some(last), ..Self::of_lease(lease) }
    }

    fn of_lease(lease: &LeaseRow) -> Self {
        let (environment, generation, runs) = (lease.environment.clone(), lease.generation, lease.runs);
        Self { environment, generation, runs, last: None }
    }

    fn digest(&self) -> String {
        let seal =
            Seal::of("witness").text(self.environment.as_str()).number(self.generation).number(self.runs);
        let seal = match &self.last {
            None => seal,
            Some(last) => seal.text(&last.run.to_string()).number(last.length).text(&last.tip),
        };
        seal.done().to_text()
    }

    /// A line of JSON, filled up with spaces to whole sectors: a shorter one leaves nothing of a longer one behind.
    fn to_text(&self) -> String {
        let last = self.last.as_ref().map(|last| json!([last.run, last.length, last.tip]));
        let line = json!({
            "environment": self.environment, "generation": self.generation, "runs": self.runs,
            "last": last, "digest": self.digest(),
        })
        .to_string();
        let size = (line.len() + 1).next_multiple_of(SECTOR);
        format!("{line:<width$}\n", width = size - 1)
    }

    /// What was noted; none in a file that is empty or full of zeros.
    fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, Nonsense> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        serde_json::from_slice(bytes).ok().and_then(|value| Self::from_json(&value)).map(Some).ok_or(Nonsense)
    }

    fn from_json(value: &Value) -> Option<Self> {
        let last = match &value["last"] {
            Value::Null => None,
            Value::Array(parts) => Some(Last {
                run: parts.first()?.as_str()?.parse().ok()?,
                length: parts.get(1)?.as_i64()?,
                tip: parts.get(2)?.as_str()?.to_owned(),
            }),
            _ => return None,
        };
        let witness = Self {
            environment: Environment::from(value["environment"].as_str()?),
            generation: value["generation"].as_i64()?,
            runs: value["runs"].as_i64()?,
            last,
        };
        (value["digest"] == witness.digest()).then_some(witness)
    }
}

/// The witnesses of one database.
#[derive(Clone, Debug)]
pub(super) struct Witnesses(PathBuf);

impl Witnesses {
    /// In a folder whose name begins like the database's, as those of SQLite's own files do: who moves
    /// `journal.sqlite*` has all of them.
    pub(super) fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-witness");
        Self(PathBuf::from(name))
    }

    /// Notes how far the journal goes. Where the file can't be written it stays behind, which is
    /// harmless.
    pub(super) fn note(&self, witness: &Witness) -> std::io::Result<()> {
        let path = self.path(&witness.environment);
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
                open()?
            }
            opened => opened?,
        };
        file.write_all_at(witness.to_text().as_bytes(), 0)
    }

    /// The same with a new lease, before anything has happened: then it must be possible.
    pub(super) fn begin(&self, lease: &LeaseRow) -> Result<()> {
        let last = self.one(&self.path(&lease.environment))?.and_then(|witness| witness.last);
        self.note(&Witness { last, ..Witness::of_lease(lease) }).map_err(|error| {
            Error::new(Kind::Config, format!("note the journal's end in {}", self.0.display()))
                .because(error.kind().to_string())
                .hint("check the state folder's owner, mode and free space")
        })
    }

    /// All of them.
    ///
    /// # Errors
    /// When one is damaged. One that is empty or full of zeros is what a power failure leaves of a
    /// file that was never synced: no witness.
    pub(super) fn all(&self) -> Result<Vec<Witness>> {
        let unreadable = |error: std::io::Error| {
            damage::unreadable(format!("{} can't be read: {}", self.0.display(), error.kind()))
        };
        let files = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(unreadable)?,
        };
        let mut all = Vec::new();
        for file in files {
            all.extend(self.one(&file.map_err(unreadable)?.path())?);
        }
        Ok(all)
    }

    fn one(&self, path: &Path) -> Result<Option<Witness>> {
        for _ in 0..LOOKS {
            let bytes = match std::fs::read(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                read => read.map_err(|_| damage::witness(path))?,
            };
            match Witness::from_bytes(&bytes) {
                Ok(None) => return Ok(None),
                Ok(Some(witness)) if self.path(&witness.environment) == path => return Ok(Some(witness)),
                _ => {}
            }
        }
        Err(damage::witness(path))
    }

    fn path(&self, environment: &Environment) -> PathBuf {
        self.0.join(file_name(environment.as_str()))
    }
}

/// A name under which every environment has a file of its own, whatever it is called and on every file
/// system.
fn file_name(environment: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for byte in environment.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => write!(name, "%{byte:02x}").expect("writing to a String can't fail"),
        }
    }
    match name.len() {
        1..=200 => name,
        _ => format!("%{}", Seal::of("name").text(environment).done().to_text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn witness(environment: &str, length: i64) -> Witness {
        let run = "01M89CWE42W12PRVT5X0KX3MZF".parse().unwrap();
        let last = Some(Last { run, length, tip: Seal::of("x").done().to_text() });
        Witness { environment: Environment::from(environment), generation: 3, runs: 2, last }
    }

    #[test]
    fn every_name_has_a_file_of_its_own_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let witnesses = Witnesses::beside(&folder.path().join("journal.sqlite"));
        let names =
            ["dev", "Dev", "a/b", "a%2fb", ".", "..", "", "ä", "\0", &"x".repeat(300), &"y".repeat(300)];
        for name in names {
            witnesses.note(&witness(name, 1)).unwrap();
        }
        let mut seen = witnesses.all().unwrap();
        seen.sort_by(|a, b| a.environment.cmp(&b.environment));
        let mut names: Vec<_> = names.iter().map(|name| witness(name, 1)).collect();
        names.sort_by(|a, b| a.environment.cmp(&b.environment));
        assert_eq!(seen, names);
        for file in std::fs::read_dir(&witnesses.0).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::metadata(&witnesses.0).unwrap().mode() & 0o777, 0o700);
    }

    /// A shorter one leaves nothing of a longer one behind, wherever the line ends.
    #[test]
    fn a_note_of_any_length_fills_whole_sectors_with_a_line() {
        for length in 1..=2 * SECTOR {
            let text = witness(&"x".repeat(length), 1).to_text();
            assert!(text.len().is_multiple_of(SECTOR) && text.ends_with('\n'), "{length}");
            assert!(text.trim_end().len() + SECTOR >= text.len(), "{length}: no more sectors than it takes");
        }
    }

    #[test]
    fn what_can_not_be_looked_at_is_not_taken_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let witnesses = Witnesses::beside(&folder.path().join("journal.sqlite"));
        assert_eq!(witnesses.all().unwrap(), []);
        std::fs::write(&witnesses.0, "no folder").unwrap();
        assert_eq!(witnesses.all().unwrap_err().kind(), Kind::Corrupt);
        let refused = witnesses.note(&witness("dev", 1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotADirectory, "as it was refused at first");
        std::fs::remove_file(&witnesses.0).unwrap();
        std::fs::create_dir_all(witnesses.path(&Environment::from("dev"))).unwrap();
        assert_eq!(witnesses.all().unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn a_new_lease_is_noted_beside_what_was_written_last_or_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        let witnesses = Witnesses::beside(&folder.path().join("journal.sqlite"));
        let noted = witness("dev", 17);
        witnesses.note(&noted).unwrap();
        let lease = LeaseRow { generation: 4, runs: 2, ..LeaseRow::first(Environment::from("dev")) };
        witnesses.begin(&lease).unwrap();
        assert_eq!(witnesses.all().unwrap(), [Witness { generation: 4, ..noted }]);
        std::fs::remove_dir_all(&witnesses.0).unwrap();
        std::fs::create_dir(&witnesses.0).unwrap();
        std::fs::create_dir(witnesses.path(&lease.environment)).unwrap();
        assert!(witnesses.begin(&lease).is_err());
    }

    #[test]
    fn a_later_one_replaces_an_earlier_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let witnesses = Witnesses::beside(&folder.path().join("journal.sqlite"));
        for length in [i64::MAX, 7] {
            witnesses.note(&witness("dev", length)).unwrap();
        }
        assert_eq!(witnesses.all().unwrap(), [witness("dev", 7)]);
        let first = Witness { last: None, ..witness("dev", 0) };
        witnesses.note(&first).unwrap();
        assert_eq!(witnesses.all().unwrap(), [first]);
    }

    #[test]
    fn every_damage_to_it_is_found_but_for_what_a_power_failure_leaves() {
        let whole = witness("dev", 17);
        let bytes = whole.to_text().into_bytes();
        assert_eq!(bytes.len(), SECTOR);
        // White space for white space is the same note.
        let same_or_nothing =
            |read: Result<Option<Witness>, Nonsense>| read.is_err() || read == Ok(Some(whole.clone()));
        for place in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(same_or_nothing(Witness::from_bytes(&flipped)), "bit {place}");
        }
        for length in 1..bytes.len() {
            assert!(same_or_nothing(Witness::from_bytes(&bytes[..length])), "{length} bytes");
        }
        assert_eq!(Witness::from_bytes(&[]), Ok(None));
        assert_eq!(Witness::from_bytes(&[0; SECTOR]), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let witnesses = Witnesses::beside(&folder.path().join("journal.sqlite"));
        witnesses.note(&witness("dev", 17)).unwrap();
        let text = witness("dev", 17).to_text();
        std::fs::write(witnesses.path(&Environment::from("prod")), text).unwrap();
        let error = witnesses.all().unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "a copy under another name");
        assert!(error.to_string().contains("journal.sqlite-witness/prod"), "{error}");
    }
}
