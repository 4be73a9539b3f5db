//! The store's promises: durable, append-only, one writer, damage found.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrotate_core::engine::{Trouble, Wish};
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::End;
use pgrotate_core::ids::RunId;
use pgrotate_core::journal::{Event, FORMAT, Journal, Record, RunOutcome, Start};
use pgrotate_core::lease::{Generation, Lease, Leases};
use pgrotate_core::memory::{self, Fault, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::{Environment, Kind};
use pgrotate_engine::holder::Holder;
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};

struct Lab {
    folder: tempfile::TempDir,
    world: Memory,
    stop: Arc<AtomicBool>,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, world: memory::world("OldOldOldOld1"), stop: Arc::new(AtomicBool::new(false)) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("journal.sqlite")
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.path()).unwrap()
    }

    fn clock() -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn entropy() -> Arc<dyn Entropy> {
        Arc::new(OsEntropy)
    }

    fn engine(&self) -> Embedded {
        Embedded::new(
            self.store(),
            Self::clock(),
            Self::entropy(),
            Arc::new(Unobserved),
            Arc::clone(&self.stop),
        )
    }

    fn rotation(&self) -> pgrotate_core::rotation::Rotation {
        memory::rotation(&self.world, &Self::clock(), &Self::entropy())
    }

    fn wish() -> Wish {
        Wish { operator: "somebody".into(), ticket: Some("OPS-1".into()) }
    }

    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

fn environment() -> Environment {
    Environment::from("test")
}

fn another_living_process() -> Holder {
    // The parent of a test is a living process that is not this one.
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", std::os::unix::process::parent_id())).unwrap();
    let started = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().nth(19).unwrap().to_owned();
    let this = Holder::this_process().to_text();
    let rest: Vec<&str> = this.splitn(3, ' ').collect();
    Holder::from_text(&format!("{} {started} {}", std::os::unix::process::parent_id(), rest[2])).unwrap()
}

#[tokio::test]
async fn a_run_survives_the_process_that_made_it() {
    let lab = Lab::new();
    let (run, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Done));
    let state = lab.engine().state(run).await.unwrap();
    assert_eq!(state.outcome, Some(RunOutcome::Done));
    assert_eq!(state.start.ticket.as_deref(), Some("OPS-1"));
    assert!(lab.engine().unfinished(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_parked_run_stops_the_next_one_and_is_resumed() {
    let lab = Lab::new();
    lab.world.state().faults.insert(13, Fault::Refuse);
    let (run, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Parked(ref steps) if steps.len() == 1), "{end:?}");
    let Err(Trouble::Before(error)) = lab.engine().start(&lab.rotation(), Lab::wish()).await else {
        panic!("a second run began");
    };
    assert_eq!(error.kind(), Kind::BadState);
    assert!(error.hints()[0].contains(&run.to_string()), "{:?}", error.hints());
    assert_eq!(error.hints().len(), 1, "past the point of no return there is no abort to offer");
    assert!(matches!(lab.engine().resume(&lab.rotation(), run).await.unwrap(), End::Done));
}

#[tokio::test]
async fn a_run_is_not_carried_on_against_another_server() {
    let lab = Lab::new();
    lab.world.state().faults.insert(13, Fault::Refuse);
    let (run, _) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let mut elsewhere = lab.rotation();
    elsewhere.target.host = "db.of.another.project".into();
    for result in [lab.engine().resume(&elsewhere, run).await, lab.engine().abort(&elsewhere, run).await] {
        let Err(Trouble::Before(error)) = result else { panic!("it went on") };
        assert!(error.to_string().contains("db.of.another.project"), "{error}");
    }
    assert!(matches!(lab.engine().resume(&lab.rotation(), run).await, Ok(End::Done)));
}

#[tokio::test]
async fn what_a_done_run_left_behind_can_be_dropped_too() {
    let lab = Lab::new();
    let (run, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    // A first try of `stage` that got no answer arrives when everything is over.
    let secret = pgrotate_core::Secret::new("late");
    lab.world.state().vault.pending = vec![pgrotate_core::provider::Entry { secret, run: Some(run) }];
    let (_, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let End::Failed(error) = end else { panic!("{end:?}") };
    assert!(error.hints().iter().any(|hint| hint.contains(&format!("pgrotate abort {run}"))), "{error:?}");
    let current = lab.world.state().vault.current.as_ref().unwrap().secret.clone();
    assert!(matches!(lab.engine().abort(&lab.rotation(), run).await, Ok(End::Aborted)));
    assert!(lab.world.state().vault.pending.is_empty());
    assert_eq!(lab.world.state().vault.current.as_ref().unwrap().secret, current);
    assert_eq!(lab.engine().state(run).await.unwrap().outcome, Some(RunOutcome::Done));
    let (_, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Done));
}

#[tokio::test]
async fn what_a_run_that_is_over_left_behind_can_be_dropped() {
    let lab = Lab::new();
    lab.world.state().faults.insert(8, Fault::Refuse);
    let (run, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    // The write whose answer said no comes late after all.
    let secret = pgrotate_core::Secret::new("late");
    lab.world.state().vault.pending = vec![pgrotate_core::provider::Entry { secret, run: Some(run) }];
    let (_, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let End::Failed(error) = end else { panic!("{end:?}") };
    assert!(error.hints().iter().any(|hint| hint.contains(&format!("pgrotate abort {run}"))), "{error:?}");
    assert!(matches!(lab.engine().abort(&lab.rotation(), run).await, Ok(End::Aborted)));
    assert!(lab.world.state().vault.pending.is_empty());
    let (_, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Done));
}

#[tokio::test]
async fn an_old_entry_that_is_damaged_does_not_stop_the_next_run() {
    let lab = Lab::new();
    let (old, _) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let raw = lab.raw();
    raw.execute_batch("DROP TRIGGER entries_stay").unwrap();
    raw.execute("UPDATE entries SET record = 'x' WHERE run = ?1 AND seq = 2", [old.to_string()]).unwrap();
    assert!(lab.engine().state(old).await.is_err());
    assert!(lab.engine().start(&lab.rotation(), Lab::wish()).await.is_ok());
}

#[tokio::test]
async fn a_stopped_run_goes_on_where_it_was() {
    let lab = Lab::new();
    lab.stop.store(true, Ordering::Relaxed);
    let (run, end) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    assert!(matches!(end, End::Stopped));
    assert!(lab.world.state().calls.is_empty());
    lab.stop.store(false, Ordering::Relaxed);
    assert!(matches!(lab.engine().resume(&lab.rotation(), run).await.unwrap(), End::Done));
}

#[tokio::test]
async fn a_living_holder_keeps_its_lease_and_a_dead_one_loses_it() {
    let lab = Lab::new();
    let store = lab.store();
    let theirs = lab.store().held_by(another_living_process());
    let lease = theirs.acquire(&environment()).await.unwrap();
    let error = store.acquire(&environment()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.to_string().contains("process"), "{error}");
    theirs.release(&lease).await.unwrap();
    let mine = store.acquire(&environment()).await.unwrap();
    assert_eq!(mine.generation, Generation(lease.generation.0 + 1));

    let mut child = std::process::Command::new("true").spawn().unwrap();
    let this = Holder::this_process().to_text();
    let rest: Vec<&str> = this.splitn(3, ' ').collect();
    let dead = Holder::from_text(&format!("{} 1 {}", child.id(), rest[2])).unwrap();
    child.wait().unwrap();
    store.release(&mine).await.unwrap();
    lab.store().held_by(dead).acquire(&environment()).await.unwrap();
    assert_eq!(store.acquire(&environment()).await.unwrap().generation, Generation(4));
}

#[tokio::test]
async fn a_late_writer_can_neither_append_nor_renew() {
    let lab = Lab::new();
    let store = lab.store();
    let late = store.acquire(&environment()).await.unwrap();
    let newer = store.acquire(&environment()).await.unwrap();
    let run = RunId::generate(Lab::clock().now(), &OsEntropy);
    let record = first(&lab, &late);
    assert_eq!(
        store.append(&late, run, std::slice::from_ref(&record)).await.unwrap_err().kind(),
        Kind::Fenced
    );
    assert_eq!(store.renew(&late).await.unwrap_err().kind(), Kind::Fenced);
    store.append(&newer, run, std::slice::from_ref(&record)).await.unwrap();
    assert_eq!(
        store.append(&newer, run, &[record]).await.unwrap_err().kind(),
        Kind::Fenced,
        "the same number twice"
    );
    assert_eq!(store.read(run).await.unwrap().len(), 1);
}

fn first(lab: &Lab, lease: &Lease) -> Record {
    let start = Start {
        plan: lab.rotation().plan(),
        generation: lease.generation,
        operator: "somebody".into(),
        ticket: None,
        version: "test".into(),
    };
    Record { format: FORMAT, seq: 0, at: Lab::clock().now(), event: Event::RunStarted(Arc::new(start)) }
}

#[tokio::test]
async fn what_is_written_stays() {
    let lab = Lab::new();
    lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let raw = lab.raw();
    assert!(raw.execute("DELETE FROM entries", []).unwrap_err().to_string().contains("append-only"));
    assert!(
        raw.execute("UPDATE entries SET record = '{}'", []).unwrap_err().to_string().contains("append-only")
    );
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let damages = [
        ("DELETE FROM entries WHERE seq = 3", "entry 4"),
        (
            "UPDATE entries SET record = replace(record, 'step_finished', 'step_failed') WHERE seq = 2",
            "entry 2",
        ),
        ("UPDATE entries SET record = substr(record, 1, 20) WHERE seq = 5", "entry 5"),
        ("UPDATE entries SET record = replace(record, '\"seq\":2', '\"seq\":1') WHERE seq = 2", "entry 1"),
        (
            "UPDATE entries SET record = replace(record, '\"format\":1', '\"format\":99') WHERE seq = 1",
            "newer pgrotate",
        ),
    ];
    for (damage, named) in damages {
        let lab = Lab::new();
        let (run, _) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
        let raw = lab.raw();
        raw.execute_batch("DROP TRIGGER entries_stay; DROP TRIGGER entries_last").unwrap();
        assert_eq!(raw.execute(damage, []).unwrap(), 1, "{damage}");
        let Err(error) = lab.engine().state(run).await else { panic!("not found: {damage}") };
        assert!(error.to_string().contains(named), "{damage}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_refused() {
    let lab = Lab::new();
    std::fs::write(
        lab.path(),
        "this is not a database, and it is longer than a header of SQLite needs to be to be read as one....",
    )
    .unwrap();
    assert_eq!(SqliteStore::open(&lab.path()).err().unwrap().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn the_journal_holds_no_password() {
    let lab = Lab::new();
    lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let password = lab.world.state().server.clone();
    for file in std::fs::read_dir(lab.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!holds(&password) && !holds("OldOldOldOld1"));
    }
}
