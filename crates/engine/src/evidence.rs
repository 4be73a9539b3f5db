//! The evidence of a state folder: what its journal says of runs that are over or wait for a person, in a file of signed
//! lines.
//!
//! The journal is what runs live by, and the evidence is made from it afterwards: no step waits for it. A process that
//! dies between the two leaves that to the next one, which says that it came late. Appended is in one write, under a
//! lock, so that two processes never write between each other's lines.
//!
//! A process that appends again and again goes through the file and the journal once, and then only as far as they have grown: else
//! ten thousand runs would read ten thousand times what ten thousand runs have left.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pgrotate_core::journal::{Event, Journal, Record};
use pgrotate_core::{Error, Kind, Result, RunId};
use pgrotate_evidence::batch::{Seal, Subject};
use pgrotate_evidence::line::{Author, Dropped};
use pgrotate_evidence::{Batch, Signer, Survey};
use serde_json::value::to_raw_value;

use crate::holder;
use crate::home::{Home, refused};
use crate::sqlite::SqliteStore;

/// How long another process may take to append. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether it is done.
const PAUSE: Duration = Duration::from_millis(20);

/// The evidence of a state folder.
#[derive(Clone, Debug)]
pub struct Evidence {
    path: PathBuf,
    author: Author,
    /// What the file held when this process had last written it.
    left: Arc<Mutex<Option<Survey>>>,
    patience: Duration,
}

/// What came of an append.
#[derive(Debug, Default)]
pub struct Appended {
    /// The runs that were written, and whether that was left over from another process.
    pub runs: Vec<(RunId, bool)>,
    /// What a crash had left of an earlier append, and was taken away.
    pub dropped: Option<Dropped>,
    /// The runs that could not be read, and why.
    pub unread: Vec<Error>,
}

/// A run that is not in the evidence as far as it is in the journal.
struct Due {
    run: RunId,
    records: Vec<Record>,
    /// How many of them are in the evidence.
    known: u64,
    late: bool,
}

impl Evidence {
    /// Of this folder, to be written in this user's name.
    pub fn of(home: &Home, user: String) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let author = Author { user, host: holder::host(), version };
        Self { path: home.evidence(), author, left: Arc::default(), patience: PATIENCE }
    }

    /// Who writes it here.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// Appends what the journal has and the evidence has not: of this run all that there is, of others what is over or
    /// waits for a person. Nothing is written twice. The key is asked for only if there is something to sign. The others
    /// are looked for once: what a process has not found then is for the next one.
    ///
    /// # Errors
    /// When the file can't be read or written, or the journal as a whole can't be read. Then a later call does it.
    pub async fn append(
        &self,
        store: &SqliteStore,
        own: Option<RunId>,
        signer: impl FnOnce() -> Result<Arc<Signer>>,
        now: Timestamp,
    ) -> Result<Appended> {
        let left = self.left.lock().expect("no holder of this lock panics").take();
        let lengths = match (own, &left) {
            (Some(own), Some(_)) => vec![(own, store.length(own)?)],
            _ => store.lengths()?,
        };
        if lengths.is_empty() && !self.path.exists() {
            return Ok(Appended::default());
        }
        let mut file = self.open()?;
        let mut survey = self.survey(&file, left).map_err(|error| self.failed(&error))?;
        let mut done = Appended::default();
        let due = due(store, &lengths, &survey, own, &mut done.unread).await;
        if due.is_empty() {
            self.leave(survey);
            return Ok(done);
        }
        let (signer, at) = (signer()?, now.to_string());
        let (mut batch, mut known) = (Batch::after(survey.tip), Vec::new());
        for due in due {
            let dropped = survey.dropped.as_ref().filter(|_| done.runs.is_empty());
            let entries = self.project(&due, &mut batch, (&at, dropped), &signer)?;
            known.push((due.run.to_string(), entries));
            done.runs.push((due.run, due.late));
        }
        self.write(&mut file, &survey, batch.bytes()).map_err(|error| self.failed(&error))?;
        done.dropped = survey.dropped.take();
        survey.entries.extend(known);
        self.leave(Survey { tip: batch.tip(), length: survey.length + batch.bytes().len() as u64, ..survey });
        Ok(done)
    }

    /// What the file holds: as it was left, if nobody has written to it since, else gone through.
    fn survey(&self, file: &File, left: Option<Survey>) -> std::io::Result<Survey> {
        let length = file.metadata()?.len();
        match left {
            Some(left) if left.dropped.is_none() && left.length == length => Ok(left),
            _ => Survey::of(&mut BufReader::new(file)),
        }
    }

    fn leave(&self, survey: Survey) {
        *self.left.lock().expect("no holder of this lock panics") = Some(survey);
    }

    /// What a run's entries are as lines; gives how many of the run are known then.
    fn project(
        &self,
        due: &Due,
        batch: &mut Batch,
        (at, dropped): (&str, Option<&Dropped>),
        signer: &Signer,
    ) -> Result<u64> {
        let Some(Event::RunStarted(start)) = due.records.first().map(|record| &record.event) else {
            return Err(Error::internal("a run without a beginning was read"));
        };
        let (run, hash) = (due.run.to_string(), start.plan.hash());
        let subject = Subject { run: &run, environment: start.plan.environment.as_str() };
        let mut entries = due.known;
        for record in due.records.iter().filter(|record| record.seq >= due.known) {
            let text =
                to_raw_value(record).map_err(|_| Error::internal("an event could not be written as JSON"))?;
            batch.entry(subject, record.seq, &text, (record.seq == 0).then_some(hash.as_str()));
            entries = record.seq + 1;
        }
        let seal = Seal { entries, at, by: &self.author, late: due.late, dropped };
        batch.seal(subject, seal, signer);
        Ok(entries)
    }

    /// The file, which nobody else writes as long as it is open.
    fn open(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.path).map_err(|error| self.failed(&error))?;
        self.lock(&file, File::try_lock)?;
        Ok(file)
    }

    fn lock(&self, file: &File, lock: impl Fn(&File) -> std::result::Result<(), TryLockError>) -> Result<()> {
        let began = Instant::now();
        loop {
            match lock(file) {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if began.elapsed() < self.patience => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(Kind::Busy, self.operation())
                        .because("another process has held it for several seconds"));
                }
                Err(TryLockError::Error(error)) => return Err(self.failed(&error)),
            }
        }
    }

    fn write(&self, file: &mut File, survey: &Survey, bytes: &[u8]) -> std::io::Result<()> {
        if survey.dropped.is_some() {
            file.set_len(survey.length)?;
        }
        file.seek(SeekFrom::Start(survey.length))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            // On a full disk half of it would only be in the way; if not even this works, the next append does it.
            let _ = file.set_len(survey.length);
        }
        written?;
        // The folder too: the file may be new.
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// The whole file, as it is between two appends; none if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(&error)),
        };
        self.lock(&file, File::try_lock_shared)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| self.failed(&error))?;
        Ok(Some(bytes))
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn operation(&self) -> String {
        format!("use the evidence {}", self.path.display())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        refused(error, self.operation())
    }
}

/// The runs of which entries have to be written, the earliest first.
async fn due(
    store: &SqliteStore,
    lengths: &[(RunId, u64)],
    survey: &Survey,
    own: Option<RunId>,
    unread: &mut Vec<Error>,
) -> Vec<Due> {
    let mut due = Vec::new();
    for (run, length) in lengths {
        let known = survey.entries.get(&run.to_string()).copied().unwrap_or(0);
        if known >= *length {
            continue;
        }
        match store.read(*run).await {
            Ok(records) if own == Some(*run) || rests(&records) => {
                due.push(Due { run: *run, records, known, late: own != Some(*run) });
            }
            Ok(_) => {}
            // A run that can't be read is its own trouble, not that of the others.
            Err(error) => unread.push(error),
        }
    }
    due
}

/// The runs of which journal and evidence have another number of entries, with both numbers: those that rest with more
/// in the journal, and those of which the journal has lost some.
///
/// # Errors
/// When the journal can't be read.
pub async fn unlike(store: &SqliteStore, known: impl Fn(RunId) -> u64) -> Result<Vec<(RunId, u64, u64)>> {
    let mut unlike = Vec::new();
    for (run, length) in store.lengths()? {
        let known = known(run);
        if known > length || (known < length && rests(&store.read(run).await?)) {
            unlike.push((run, length, known));
        }
    }
    Ok(unlike)
}

/// Whether a run is over, or waits for a person.
pub fn rests(records: &[Record]) -> bool {
    let last = records.last().map(|record| &record.event);
    matches!(last, Some(Event::RunFinished { .. } | Event::RunParked))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that were read while another process writes would end in the middle.
    #[test]
    fn who_finds_another_at_it_waits_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        let mut evidence = Evidence::of(&home, "tester".into());
        assert_eq!(evidence.read().unwrap(), None);
        let another = evidence.open().unwrap();
        (&another).write_all(b"half a").unwrap();
        evidence.patience = Duration::from_millis(60);
        let began = Instant::now();
        let error = evidence.read().unwrap_err();
        assert!(error.kind() == Kind::Busy && began.elapsed() >= evidence.patience, "{error}");
        assert!(error.operation().ends_with("evidence.jsonl"), "{error}");
        assert_eq!(evidence.open().unwrap_err().kind(), Kind::Busy);
        evidence.patience = PATIENCE;
        let reader = std::thread::spawn(move || evidence.read());
        std::thread::sleep(5 * PAUSE);
        (&another).write_all(b" line").unwrap();
        drop(another);
        assert_eq!(reader.join().unwrap().unwrap().unwrap(), b"half a line");
    }

    #[test]
    fn evidence_that_can_not_be_looked_at_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        std::fs::remove_dir(home.path()).unwrap();
        std::fs::write(home.path(), "no folder").unwrap();
        assert!(Evidence::of(&home, "tester".into()).read().is_err());
    }
}
