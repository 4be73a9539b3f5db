//! What is looked at when a journal is opened, and what a lease does to its log.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::journal::{Event, FORMAT, Journal as _, Outcome, Record, Start};
use pgrotate_core::lease::{Lease, Leases as _};
use pgrotate_core::memory;
use pgrotate_core::{Environment, Error, Kind, RunId};
use pgrotate_engine::SqliteStore;
use pgrotate_engine::system::{OsEntropy, SystemClock};

const DATABASE: &str = "journal.sqlite";
const LOG: &str = "journal.sqlite-wal";
const WITNESS: &str = "journal.sqlite-witness/test";
/// The log is made as long before a run as a run needs it.
const A_RUNS_LOG: u64 = 1 << 20;

/// A state folder whose store was opened once.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.store();
        lab
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn open(&self) -> Result<SqliteStore, Error> {
        SqliteStore::open(&self.path(DATABASE))
    }

    fn store(&self) -> SqliteStore {
        self.open().unwrap()
    }

    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path(DATABASE)).unwrap()
    }

    /// What is said of it when it is opened.
    fn damage(&self) -> String {
        let error = self.open().err().unwrap();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        error.to_string()
    }

    fn size(&self, file: &str) -> u64 {
        fs::metadata(self.path(file)).map_or(0, |metadata| metadata.len())
    }

    /// Begins a run at this time, and gives the environment back.
    async fn begin(&self, run: RunId, at: Timestamp) {
        let store = self.store();
        let lease = store.acquire(&environment()).await.unwrap();
        store.append(&lease, run, &[record(&lease, at)]).await.unwrap();
        store.release(&lease).await.unwrap();
    }
}

fn environment() -> Environment {
    Environment::from("test")
}

fn run() -> RunId {
    RunId::generate(Timestamp::now(), &OsEntropy)
}

fn record(lease: &Lease, at: Timestamp) -> Record {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    let start = Start {
        plan: memory::rotation(&memory::world("x"), &clock, &entropy).plan(),
        generation: lease.generation,
        operator: "somebody".into(),
        ticket: None,
        overrides: Default::default(),
        version: "test".into(),
    };
    Record { format: FORMAT, seq: 0, at, event: Event::RunStarted(Arc::new(start)) }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

#[test]
fn who_looks_does_not_wait_for_who_writes() {
    let lab = Lab::new();
    let writer = lab.raw();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    lab.store();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_layout_that_never_was_is_damage_and_no_newer_program() {
    let lab = Lab::new();
    lab.raw().pragma_update(None, "user_version", -1).unwrap();
    assert!(lab.damage().contains("the number of its layout is damaged"));
}

/// The journal is append-only by its triggers: one that does something else would let entries go.
#[test]
fn a_part_that_is_described_otherwise_than_it_was_made_is_named() {
    let gone = "DROP TRIGGER entries_stay";
    let harmless = "CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT 1; END";
    for change in [gone.to_owned(), format!("{gone}; {harmless}")] {
        let lab = Lab::new();
        lab.raw().execute_batch(&change).unwrap();
        assert!(lab.damage().contains("the description of its part entries_stay is damaged"), "{change}");
    }
}

#[tokio::test]
async fn a_journal_that_is_gone_is_missed_by_whatever_is_left_of_it() {
    for left in [WITNESS, LOG] {
        let lab = Lab::new();
        // As long as it is open somewhere its log stays.
        let open = lab.store();
        lab.begin(run(), Timestamp::now()).await;
        let (bytes, path) = (fs::read(lab.path(left)).unwrap(), lab.path(left));
        drop(open);
        for entry in fs::read_dir(lab.0.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert!(lab.damage().contains("there was a journal"), "{left}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "looking changed nothing");
    }
}

/// What is noted beside it is never synced, so after a power failure it may be older.
#[tokio::test]
async fn a_witness_may_be_behind_the_journal_and_never_ahead() {
    let lab = Lab::new();
    lab.begin(run(), Timestamp::now()).await;
    let old = Lab(tempfile::tempdir().unwrap());
    for file in [DATABASE, WITNESS] {
        copy(&lab.path(file), &old.path(file));
    }
    // Another lease and nothing else: only the count of the leases tells.
    let store = lab.store();
    store.release(&store.acquire(&environment()).await.unwrap()).await.unwrap();
    copy(&lab.path(WITNESS), &old.path(WITNESS));
    assert!(old.damage().contains("test had 1 runs and 2 leases, and the journal knows of 1 and 1"));
    copy(&lab.path(WITNESS), &old.path("older"));
    lab.begin(run(), Timestamp::now()).await;
    copy(&old.path("older"), &lab.path(WITNESS));
    lab.store();
}

#[tokio::test]
async fn an_entry_that_was_written_otherwise_is_told_from_the_one_that_is_there() {
    let (lab, other, run) = (Lab::new(), Lab::new(), run());
    lab.begin(run, Timestamp::UNIX_EPOCH).await;
    other.begin(run, Timestamp::now()).await;
    copy(&other.path(WITNESS), &lab.path(WITNESS));
    assert!(
        lab.damage().contains(&format!("entry 0 of the run {run} of test is not the one that was written"))
    );
}

/// A write that makes no file longer is quicker, and has its room even on a disk that has become full. And what the
/// log holds is put into the database by who gives the lease back, not by a step.
#[tokio::test]
async fn a_run_finds_its_log_long_enough_and_nobody_empties_it_meanwhile() {
    let (lab, run) = (Lab::new(), run());
    let store = lab.store();
    let lease = store.acquire(&environment()).await.unwrap();
    assert_eq!(lab.size(LOG), A_RUNS_LOG);
    let first = record(&lease, Timestamp::now());
    store.append(&lease, run, std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(lab.size(LOG), A_RUNS_LOG, "it was written into what was there");
    // More than SQLite would leave in its log by itself.
    for seq in 1..=6 {
        let outcome = Box::new(Outcome::changed().note("x".repeat(1 << 20)));
        let event = Event::StepFinished { step: "check".into(), outcome };
        store.append(&lease, run, &[Record { seq, event, ..first.clone() }]).await.unwrap();
    }
    assert!(lab.size(DATABASE) < A_RUNS_LOG, "{}", lab.size(DATABASE));
    store.release(&lease).await.unwrap();
    assert!(lab.size(DATABASE) > 6 * A_RUNS_LOG, "{}", lab.size(DATABASE));
    assert_eq!(lab.store().lengths().unwrap(), [(run, 7)]);
}
