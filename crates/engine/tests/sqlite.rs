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
use pgrotate_core::lease::{Generation, Lease, Leases, TERM};
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

    /// Everything that the journal has to say of a run.
    async fn history(&self, run: RunId) -> pgrotate_core::Result<()> {
        let engine = Embedded::new(
            SqliteStore::open(&self.path())?,
            Self::clock(),
            Self::entropy(),
            Arc::new(Unobserved),
            Arc::clone(&self.stop),
        );
        engine.history(None).await?;
        engine.state(run).await.map(drop)
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
        Wish { operator: "somebody".into(), ticket: Some("OPS-1".into()), ..Wish::default() }
    }

    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// Changes what is there behind the back of the triggers; gives the number of rows.
    fn tamper(&self, sql: &str) -> usize {
        let raw = self.raw();
        let triggers: Vec<String> = raw
            .prepare("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        raw.execute_batch("DROP TRIGGER entries_stay; DROP TRIGGER entries_last").unwrap();
        let rows = raw.execute(sql, []).unwrap();
        triggers.iter().for_each(|trigger| raw.execute_batch(trigger).unwrap());
        rows
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
    lab.tamper(&format!("UPDATE entries SET record = 'x' WHERE run = '{old}' AND seq = 2"));
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

/// Whoever is late gives nothing back, and need not know.
#[tokio::test]
async fn a_late_lease_is_given_back_without_effect_and_a_damaged_one_is_named() {
    let lab = Lab::new();
    let (store, theirs) = (lab.store(), lab.store().held_by(another_living_process()));
    let late = store.acquire(&environment()).await.unwrap();
    store.release(&late).await.unwrap();
    let newer = theirs.acquire(&environment()).await.unwrap();
    store.release(&late).await.unwrap();
    assert_eq!(store.acquire(&environment()).await.unwrap_err().kind(), Kind::Busy, "theirs was given back");
    lab.tamper("UPDATE leases SET runs = 7");
    assert_eq!(theirs.release(&newer).await.unwrap_err().kind(), Kind::Corrupt);
}

/// Other processes, on this machine and on others, read in the row until when it is somebody's.
#[tokio::test]
async fn a_lease_is_somebodys_for_a_term_from_its_last_renewal() {
    let lab = Lab::new();
    let store = lab.store();
    let row = || -> (Option<String>, i64, i64) {
        let columns = "SELECT holder, expires_at_ms, expires_up_ms FROM leases";
        lab.raw().query_row(columns, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let term = i64::try_from(TERM.as_millis()).unwrap();
    let uptime = || i64::try_from(SystemClock.uptime().as_millis()).unwrap();
    let (now, up) = (Lab::clock().now().as_millisecond(), uptime());
    let lease = store.acquire(&environment()).await.unwrap();
    let (holder, at, until) = row();
    assert_eq!((holder, at), (Some(Holder::this_process().to_text()), lease.expires_at.as_millisecond()));
    assert!(at >= now + term && until >= up + term, "{at} {until}");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let renewed = store.renew(&lease).await.unwrap();
    let (holder, renewed_at, renewed_until) = row();
    assert_eq!((holder.is_some(), renewed_at), (true, renewed.expires_at.as_millisecond()));
    assert!(renewed_at >= at + 20 && renewed_until >= until + 20, "{renewed_at} {renewed_until}");
    store.release(&renewed).await.unwrap();
    let (holder, over, until) = row();
    assert_eq!((holder, until), (None, 0));
    assert!(over <= Lab::clock().now().as_millisecond(), "it ended when it was given back");
}

#[tokio::test]
async fn an_entry_that_leaves_a_gap_is_a_late_writers() {
    let lab = Lab::new();
    let store = lab.store();
    let lease = store.acquire(&environment()).await.unwrap();
    let run = RunId::generate(Lab::clock().now(), &OsEntropy);
    let record = first(&lab, &lease);
    store.append(&lease, run, std::slice::from_ref(&record)).await.unwrap();
    let gap = Record { seq: 2, event: Event::RunParked, ..record.clone() };
    assert_eq!(store.append(&lease, run, &[gap]).await.unwrap_err().kind(), Kind::Fenced);
    // Of a run that is not known at all: its beginning was there when it was read.
    let later = Record { seq: 1, event: Event::RunParked, ..record.clone() };
    let unknown = RunId::generate(Lab::clock().now(), &OsEntropy);
    let error = store.append(&lease, unknown, &[later]).await.unwrap_err();
    assert!(error.to_string().contains("it has no beginning any more"), "{error}");
    // The run is another environment's.
    let other = store.acquire(&Environment::from("other")).await.unwrap();
    let next = Record { seq: 1, event: Event::RunParked, ..record };
    assert_eq!(store.append(&other, run, &[next]).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(store.read(run).await.unwrap().len(), 1);
}

#[tokio::test]
async fn entries_without_a_heading_are_a_damage_of_their_run() {
    let lab = Lab::new();
    let (run, _) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    let store = lab.store();
    lab.tamper("DELETE FROM runs");
    let error = store.read(run).await.unwrap_err();
    assert!(error.to_string().contains("it has entries and no heading"), "{error}");
    let unknown = RunId::generate(Lab::clock().now(), &OsEntropy);
    let error = store.read(unknown).await.unwrap_err();
    assert!(!error.to_string().contains("it has entries and no heading"), "{error}");
    // Nor is it begun a second time: that would be another's entry under its number.
    let lease = store.acquire(&environment()).await.unwrap();
    let error = store.append(&lease, run, &[first(&lab, &lease)]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

fn first(lab: &Lab, lease: &Lease) -> Record {
    let start = Start {
        plan: lab.rotation().plan(),
        generation: lease.generation,
        operator: "somebody".into(),
        ticket: None,
        overrides: Default::default(),
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
        ("DELETE FROM entries WHERE seq = 3", "entry 3 is missing: entry 4"),
        ("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)", "entry 27 is gone"),
        ("DELETE FROM entries", "entry 27 is gone"),
        ("UPDATE entries SET record = substr(record, 1, 20) WHERE seq = 5", "entry 5 is damaged"),
        // What still makes sense, and is not what was written.
        (
            "UPDATE entries SET record = replace(record, 'step_finished', 'step_started') WHERE seq = 2",
            "entry 2 is damaged",
        ),
        (
            "UPDATE entries SET record = replace(record, ':\"confirmed\"', ':\"changed\"') WHERE seq = 2",
            "entry 2",
        ),
        ("UPDATE entries SET record = replace(record, '\"at\":\"2', '\"at\":\"3') WHERE seq = 7", "entry 7"),
        ("UPDATE entries SET generation = 2 WHERE seq = 9", "entry 9 is damaged"),
        ("UPDATE entries SET environment = 'prod' WHERE seq = 9", "entry 9 is damaged"),
        ("UPDATE runs SET generation = 2", "the heading of the run"),
        ("UPDATE runs SET length = 27", "the heading of the run"),
        ("DELETE FROM runs", "had 28 entries, and the journal has 0"),
        ("UPDATE leases SET generation = 0", "the lease of test is damaged"),
        ("UPDATE leases SET holder = 'nobody'", "the lease of test is damaged"),
        ("DELETE FROM leases", "nothing of it is left"),
    ];
    for (damage, named) in damages {
        let lab = Lab::new();
        let (run, _) = lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
        assert!(lab.tamper(damage) > 0, "{damage}");
        let Err(error) = lab.history(run).await else { panic!("not found: {damage}") };
        assert_eq!(error.kind(), Kind::Corrupt, "{damage}: {error}");
        assert!(error.to_string().contains(named), "{damage}: {error}");
        assert!(error.hints().iter().any(|hint| hint.contains("pgrotate status ENV")), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_found_without_a_witness_too() {
    let damages = [
        ("DELETE FROM runs WHERE number = 0", "test had 2 runs, and 1 of them are left"),
        ("DELETE FROM runs WHERE number = 1", "test had 2 runs, and 1 of them are left"),
        ("DELETE FROM runs", "test had 2 runs, and 0 of them are left"),
        ("DELETE FROM leases", "the lease of test is gone"),
    ];
    for (damage, named) in damages {
        let lab = Lab::new();
        lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
        lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
        std::fs::remove_dir_all(lab.folder.path().join("journal.sqlite-witness")).unwrap();
        lab.tamper(damage);
        let error = lab.engine().unfinished(None).await.unwrap_err();
        assert!(error.to_string().contains(named), "{damage}: {error}");
        let Err(Trouble::Before(_)) = lab.engine().start(&lab.rotation(), Lab::wish()).await else {
            panic!("it went on in spite of {damage}");
        };
    }
}

#[tokio::test]
async fn entries_of_a_newer_program_are_not_read() {
    let lab = Lab::new();
    let store = lab.store();
    let lease = store.acquire(&environment()).await.unwrap();
    let run = RunId::generate(Lab::clock().now(), &OsEntropy);
    store.append(&lease, run, &[Record { format: FORMAT + 1, ..first(&lab, &lease) }]).await.unwrap();
    let error = lab.engine().state(run).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadState);
    assert!(error.to_string().contains("newer pgrotate"), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_not_touched() {
    let lab = Lab::new();
    lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    lab.raw().pragma_update(None, "user_version", 3).unwrap();
    let error = SqliteStore::open(&lab.path()).err().unwrap();
    assert_eq!(error.kind(), Kind::BadState);
    assert!(error.to_string().contains("layout 3, this one knows 2"), "{error}");
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
    let noted = lab.folder.path().join("journal.sqlite-witness");
    let files = [lab.folder.path(), &noted].map(|folder| std::fs::read_dir(folder).unwrap());
    let files: Vec<_> = files.into_iter().flatten().map(|file| file.unwrap().path()).collect();
    for file in files.iter().filter(|path| path.is_file()) {
        let bytes = std::fs::read(file).unwrap();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!holds(&password) && !holds("OldOldOldOld1"));
    }
}

/// One of ten thousand environments must not look through the runs of all the others.
#[tokio::test]
async fn the_runs_of_an_environment_are_found_by_an_index_in_an_older_journal_too() {
    let lab = Lab::new();
    lab.engine().start(&lab.rotation(), Lab::wish()).await.unwrap();
    lab.raw().execute_batch("DROP INDEX runs_of").unwrap();
    let runs = lab.store().runs(Some(&environment())).await.unwrap();
    assert_eq!(runs.len(), 1);
    let sql = "EXPLAIN QUERY PLAN SELECT run, environment, number, generation, length, tip, digest FROM runs \
               WHERE environment = ?1 ORDER BY run DESC";
    let plan: String = lab.raw().query_row(sql, ["test"], |row| row.get(3)).unwrap();
    assert!(plan.contains("USING INDEX runs_of"), "{plan}");
}
