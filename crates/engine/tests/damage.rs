//! A journal that is damaged says the same as before, or that it is damaged: never anything else.
//!
//! The damage is enumerated: bits flipped, sectors zeroed, files cut off and removed. A build for debugging, which is
//! slow, takes a sample of the bits, always the same one; `cargo test --release` takes every bit.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pgrotate_core::engine::Wish;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::End;
use pgrotate_core::journal::{Journal as _, Record, RunHeading};
use pgrotate_core::memory::{self, Fault, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::run::RunState;
use pgrotate_core::{Environment, Error, Kind, Result, RunId};
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};

const DATABASE: &str = "journal.sqlite";
const LOG: &str = "journal.sqlite-wal";

/// In memory where the machine has that: what is tested is what is read, not whether it is durable.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn engine(folder: &Path) -> Result<Embedded> {
    let store = SqliteStore::open(&folder.join(DATABASE))?;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    Ok(Embedded::new(store, clock, entropy, Arc::new(Unobserved), Arc::new(AtomicBool::new(false))))
}

fn rotation(world: &Memory, environment: &str) -> Rotation {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    Rotation { environment: Environment::from(environment), ..memory::rotation(world, &clock, &entropy) }
}

fn wish() -> Wish {
    Wish { operator: "somebody".into(), ticket: None, ..Wish::default() }
}

/// Everything that a journal says: its runs in their order, and each one's entries, from which alone its state
/// follows.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    headings: Result<Vec<RunHeading>>,
    runs: BTreeMap<RunId, Result<Vec<Record>>>,
}

/// A state folder's files, byte for byte, and what they say.
struct Journal {
    files: BTreeMap<PathBuf, Vec<u8>>,
    runs: Vec<RunId>,
    whole: Told,
}

impl Journal {
    /// One run that is over, one that is parked, one in flight, and two environments. In the file called the
    /// log is what was written after the first run.
    async fn new() -> Self {
        let folder = folder();
        let (dev, prod) = (memory::world("OldOldOldOld1"), memory::world("OldOldOldOld2"));
        let (done, end) = engine(folder.path()).unwrap().start(&rotation(&dev, "dev"), wish()).await.unwrap();
        assert!(matches!(end, End::Done));
        emptied(folder.path()).await;
        let engine = engine(folder.path()).unwrap();
        prod.state().faults.insert(13, Fault::Refuse);
        let (parked, end) = engine.start(&rotation(&prod, "prod"), wish()).await.unwrap();
        assert!(matches!(end, End::Parked(_)));
        let calls = dev.state().calls.clone();
        let install = calls.iter().position(|call| call == "authority.install").unwrap();
        dev.state().dies_after = Some(calls.len() + install);
        let dying = rotation(&dev, "dev");
        let flight = tokio::time::timeout(Duration::from_millis(500), engine.start(&dying, wish())).await;
        assert!(flight.is_err(), "its process died in `install`");
        let runs: Vec<RunId> = engine.history(None).await.unwrap().iter().map(|state| state.run).collect();
        assert_eq!(runs.len(), 3);
        assert!(runs.contains(&done) && runs.contains(&parked));
        let files = read_files(folder.path());
        assert!(files[Path::new(LOG)].len() > 10_000);
        let whole = tell(folder.path(), &runs).await;
        Self { files, runs, whole }
    }

    /// The same when everything is in the database and nothing in the log.
    async fn at_rest() -> Self {
        let live = Self::new().await;
        let folder = folder();
        write_files(folder.path(), &live.files);
        drop(engine(folder.path()).unwrap());
        emptied(folder.path()).await;
        let files = read_files(folder.path());
        Self { files, ..live }
    }

    fn size(&self, file: &str) -> usize {
        self.files[Path::new(file)].len()
    }

    /// How far SQLite's log is written; the zeros behind say nothing, and one that changes changes nothing.
    fn log_size(&self) -> usize {
        let end = self.files[Path::new(LOG)].iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // A header, and whole frames behind it.
        32 + (end - 32).next_multiple_of(FRAME)
    }

    /// Damages one file in each of these ways, and looks what the journal says then. Gives how many ways
    /// were noticed.
    async fn damage<D: std::fmt::Debug + Copy>(
        &self,
        file: &str,
        ways: impl IntoIterator<Item = D>,
        damage: impl Fn(D, &mut Vec<u8>),
    ) -> Noticed {
        let folder = folder();
        let mut noticed = Noticed::default();
        write_files(folder.path(), &self.files);
        for way in ways {
            let mut bytes = self.files[Path::new(file)].clone();
            damage(way, &mut bytes);
            if bytes == self.files[Path::new(file)] {
                continue;
            }
            fs::write(folder.path().join(file), bytes).unwrap();
            let told = tell(folder.path(), &self.runs).await;
            noticed.count(&self.whole, &told, &format!("{file}, {way:?}"));
            for gone in read_files(folder.path()).keys().filter(|path| !self.files.contains_key(*path)) {
                fs::remove_file(folder.path().join(gone)).unwrap();
            }
            write_files(folder.path(), &self.files);
        }
        noticed
    }
}

/// What came of many damages.
#[derive(Debug, Default)]
struct Noticed {
    /// The journal said the same as before.
    harmless: usize,
    /// It said that it is damaged, and where.
    named: usize,
}

impl Noticed {
    fn count(&mut self, whole: &Told, told: &Told, damage: &str) {
        let mut same = true;
        let mut judge = |error: &Error| {
            same = false;
            let named = matches!(error.kind(), Kind::Corrupt | Kind::BadState | Kind::Config);
            assert!(named && !error.causes().is_empty() && !error.hints().is_empty(), "{damage}: {error}");
        };
        match &told.headings {
            Ok(headings) => assert_eq!(Some(headings), whole.headings.as_ref().ok(), "{damage}"),
            Err(error) => judge(error),
        }
        for (run, told) in &told.runs {
            match told {
                Ok(records) => assert_eq!(Some(records), whole.runs[run].as_ref().ok(), "{damage}"),
                Err(error) => judge(error),
            }
        }
        if same { self.harmless += 1 } else { self.named += 1 }
    }
}

async fn tell(folder: &Path, runs: &[RunId]) -> Told {
    let store = match SqliteStore::open(&folder.join(DATABASE)) {
        Ok(store) => store,
        Err(error) => return Told { headings: Err(error), runs: BTreeMap::new() },
    };
    let mut told = Told { headings: store.runs(None).await, runs: BTreeMap::new() };
    for run in runs {
        told.runs.insert(*run, store.read(*run).await);
    }
    told
}

/// The last one to leave puts what is in the log into the database; who keeps its lease alive leaves a little later.
async fn emptied(folder: &Path) {
    let log = folder.join(LOG);
    for _ in 0..200 {
        if !log.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log is still there");
}

/// The database, its log and what was noted beside it, by their paths in the folder.
fn read_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let noted = folder.join("journal.sqlite-witness");
    let paths = [folder, &noted].map(|folder| fs::read_dir(folder).unwrap());
    let paths = paths.into_iter().flatten().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.is_file() && !path.ends_with("journal.sqlite-shm"))
        .map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

fn write_files(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    fs::create_dir_all(folder.join("journal.sqlite-witness")).unwrap();
    for (path, bytes) in files {
        fs::write(folder.join(path), bytes).unwrap();
    }
}

const PAGE: usize = 4096;
const SECTOR: usize = 512;
const FRAME: usize = 24 + PAGE;

/// The bits to flip, by number: all of them, or all of the database's header, all of the beginnings of pages, which
/// say where the rest is, and of the rest a bit of every twenty-ninth byte.
fn bits_of_database(size: usize) -> impl Iterator<Item = usize> {
    const BEGINNING: usize = 24;
    (0..size * 8).filter(|number| {
        let (byte, bit) = (number / 8, number % 8);
        let steers = byte < 100 || byte % PAGE < BEGINNING;
        !cfg!(debug_assertions) || steers || (byte % 29 == 0 && byte / 29 % 8 == bit)
    })
}

/// The same of the log: its header and a bit of every byte of its frames' headers, and of the rest a bit of
/// every two hundred and eleventh byte.
fn bits_of_log(size: usize) -> impl Iterator<Item = usize> {
    (0..size * 8).filter(|number| {
        let (byte, bit) = (number / 8, number % 8);
        let steers = byte < 32 || ((byte - 32) % FRAME < 24 && byte % 8 == bit);
        !cfg!(debug_assertions) || steers || (byte % 211 == 0 && byte / 211 % 8 == bit)
    })
}

fn flip(number: usize, bytes: &mut [u8]) {
    bytes[number / 8] ^= 1 << (number % 8);
}

/// Around every sector and every frame, and everywhere in the first one.
fn lengths(size: usize) -> impl Iterator<Item = usize> {
    let limit =
        |length: usize| length % SECTOR <= 1 || (length + 1).is_multiple_of(SECTOR) || length % FRAME == 32;
    (0..size).filter(move |length| *length < 128 || limit(*length) || size - length < 8)
}

fn cut(length: usize, bytes: &mut Vec<u8>) {
    bytes.truncate(length);
}

fn zero(sector: usize, bytes: &mut [u8]) {
    let end = (sector + SECTOR).min(bytes.len());
    bytes[sector..end].fill(0);
}

#[tokio::test]
async fn every_flipped_bit_of_the_database() {
    let journal = Journal::at_rest().await;
    let noticed = journal
        .damage(DATABASE, bits_of_database(journal.size(DATABASE)), |bit, bytes| flip(bit, bytes))
        .await;
    assert!(noticed.named > noticed.harmless / 4, "{noticed:?}");
}

#[tokio::test]
async fn every_flipped_bit_of_the_log() {
    let journal = Journal::new().await;
    let noticed = journal.damage(LOG, bits_of_log(journal.log_size()), |bit, bytes| flip(bit, bytes)).await;
    assert_eq!(noticed.harmless, 0, "SQLite takes it for the log's end: {noticed:?}");
}

#[tokio::test]
async fn every_zeroed_sector() {
    let journal = Journal::at_rest().await;
    let noticed = journal
        .damage(DATABASE, (0..journal.size(DATABASE)).step_by(SECTOR), |sector, bytes| zero(sector, bytes))
        .await;
    assert!(noticed.named > noticed.harmless, "{noticed:?}");
    let journal = Journal::new().await;
    let noticed = journal
        .damage(LOG, (0..journal.log_size()).step_by(SECTOR), |sector, bytes| zero(sector, bytes))
        .await;
    assert!(noticed.named > 100 && noticed.harmless < noticed.named / 4, "{noticed:?}");
}

#[tokio::test]
async fn every_cut() {
    let journal = Journal::at_rest().await;
    let noticed = journal.damage(DATABASE, lengths(journal.size(DATABASE)), cut).await;
    // The end of the last page may be empty.
    assert!(noticed.harmless < SECTOR && noticed.named > 10 * noticed.harmless, "{noticed:?}");
    let journal = Journal::new().await;
    let noticed = journal.damage(LOG, lengths(journal.log_size()), cut).await;
    assert_eq!(noticed.harmless, 0, "{noticed:?}");
    let noticed = journal.damage(DATABASE, lengths(journal.size(DATABASE)), cut).await;
    assert!(noticed.named > noticed.harmless, "{noticed:?}");
}

/// A write that makes no file longer is quicker, and has its room even on a disk that has become full.
#[tokio::test]
async fn a_run_writes_into_a_log_that_is_long_enough() {
    let journal = Journal::new().await;
    assert!(journal.log_size() > 10 * FRAME && journal.size(LOG) == 1 << 20, "{}", journal.log_size());
    let log = &journal.files[Path::new(LOG)];
    assert!(log[journal.log_size()..].iter().all(|byte| *byte == 0));
}

/// A file that is gone, or came back from an older copy of the folder.
#[tokio::test]
async fn what_is_removed_is_missed() {
    let journal = Journal::new().await;
    for gone in [vec![DATABASE], vec![LOG], vec![DATABASE, LOG]] {
        let mut files = journal.files.clone();
        gone.iter().for_each(|file| drop(files.remove(Path::new(file))));
        let folder = folder();
        write_files(folder.path(), &files);
        let error = SqliteStore::open(&folder.path().join(DATABASE)).err().unwrap();
        assert_eq!(error.kind(), Kind::Corrupt, "{gone:?}: {error}");
        assert!(error.to_string().contains("removed or put back from an older copy"), "{gone:?}: {error}");
        let left = read_files(folder.path());
        assert!(files.iter().all(|(path, bytes)| left[path] == *bytes), "{gone:?}: looking changed nothing");
    }
}

/// What is noted beside the database is never synced: a power failure leaves it older, empty or full of zeros.
#[tokio::test]
async fn what_a_power_failure_does_to_the_witness_is_harmless() {
    let journal = Journal::new().await;
    let noted = "journal.sqlite-witness/dev";
    let noticed =
        journal.damage(noted, [0, journal.size(noted)], |length, bytes| *bytes = vec![0; length]).await;
    assert_eq!((noticed.named, noticed.harmless), (0, 2));
    let rested = Journal::at_rest().await;
    let mut files = rested.files.clone();
    files.retain(|path, _| !path.starts_with("journal.sqlite-witness"));
    let folder = folder();
    write_files(folder.path(), &files);
    assert_eq!(tell(folder.path(), &rested.runs).await, rested.whole);
}

/// A run goes on writing in a journal with a flipped bit: what it wrote is there, or the damage is named.
#[tokio::test]
async fn what_is_written_into_a_damaged_journal_is_there_or_missed() {
    let journal = Journal::at_rest().await;
    let world = memory::world("OldOldOldOld3");
    let mut written = 0;
    for number in (0..journal.size(DATABASE) * 8).step_by(977) {
        let folder = folder();
        let mut files = journal.files.clone();
        flip(number, files.get_mut(Path::new(DATABASE)).unwrap());
        write_files(folder.path(), &files);
        let Ok(engine) = engine(folder.path()) else { continue };
        let Ok((run, _)) = engine.start(&rotation(&world, "staging"), wish()).await else { continue };
        drop(engine);
        written += 1;
        let mut noticed = Noticed::default();
        let told = tell(folder.path(), &[journal.runs.as_slice(), &[run]].concat()).await;
        let old = Told {
            headings: told.headings.clone(),
            runs: told.runs.clone().into_iter().filter(|(own, _)| *own != run).collect(),
        };
        noticed.count(
            &Told { headings: told.headings.clone(), runs: journal.whole.runs.clone() },
            &old,
            &format!("bit {number}"),
        );
        match told.runs.get(&run) {
            Some(Ok(records)) => {
                assert!(RunState::fold(run, records).unwrap().outcome.is_some(), "bit {number}")
            }
            Some(Err(error)) => assert_eq!(error.kind(), Kind::Corrupt, "bit {number}: {error}"),
            None => assert!(told.headings.is_err(), "bit {number}"),
        }
    }
    assert!(written > 100, "{written}");
}
