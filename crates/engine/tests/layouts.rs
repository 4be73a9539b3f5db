//! A journal that an older pgrotate made is taken over as it is, and its run is carried on.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pgrotate_core::engine::Wish;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::End;
use pgrotate_core::journal::Journal as _;
use pgrotate_core::memory::{self, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::provider::Entry;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::{Kind, RunId, Secret};
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};

/// What `.dump` of SQLite's shell wrote of a journal that pgrotate 0.1.0 made around a world in memory.
const LAYOUT_1: &str = include_str!("fixtures/layout-1.sql");
const DONE: &str = "01M89CWE42W12PRVT5X0KX3MZF";
const IN_FLIGHT: &str = "01M89CWE6E5XJ3FXQ8F3GY8P8J";
/// The passwords of that world, from the first to the one in flight.
const PASSWORDS: [&str; 3] =
    ["OldOldOldOld1", "Nw6zs5Th1p4PiGlya896sv96fvP6sVzC", "uXWFyysxSlosAsxG3sglcQn7iYXyAvZi"];

type Row = (String, i64, String, i64, String);

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// A state folder with the old journal, in which this was changed.
    fn new(change: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        let raw = lab.raw();
        raw.execute_batch(LAYOUT_1).unwrap();
        raw.execute_batch(change).unwrap();
        lab
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("journal.sqlite")
    }

    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    fn engine(&self) -> Embedded {
        let store = SqliteStore::open(&self.path()).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy));
        Embedded::new(store, clock, entropy, Arc::new(Unobserved), Arc::new(AtomicBool::new(false)))
    }
}

fn run(id: &str) -> RunId {
    id.parse().unwrap()
}

/// The world as the process left it: the server has taken the new password, and nobody wrote that down.
fn world() -> Memory {
    let [first, second, third] = PASSWORDS;
    let world = memory::world(second);
    {
        let mut state = world.state();
        state.server = third.to_owned();
        let entry = |password, id| Entry { secret: Secret::new(password), run: Some(run(id)) };
        state.vault.current = Some(entry(second, DONE));
        state.vault.previous = Some(Entry { secret: Secret::new(first), run: None });
        state.vault.pending = vec![entry(third, IN_FLIGHT)];
        state.vault_writes = 3;
        state.copies.get_mut(&memory::password_copy()).unwrap().insert(0, first.to_owned());
        state.copies.get_mut(&memory::url_copy()).unwrap().insert(0, memory::url(first));
    }
    world
}

fn rotation(world: &Memory) -> Rotation {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    memory::rotation(world, &clock, &entropy)
}

fn entries(path: &Path) -> Vec<Row> {
    let raw = rusqlite::Connection::open(path).unwrap();
    let mut select = raw
        .prepare("SELECT run, seq, environment, generation, record FROM entries ORDER BY run, seq")
        .unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    select.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

fn layout(path: &Path) -> i64 {
    let raw = rusqlite::Connection::open(path).unwrap();
    raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_run_that_began_in_an_older_journal_is_carried_on() {
    let lab = Lab::new("");
    let before = entries(&lab.path());
    assert_eq!((before.len(), layout(&lab.path())), (34, 1));
    let open = lab.engine().unfinished(None).await.unwrap();
    assert_eq!(open.iter().map(|state| state.run).collect::<Vec<_>>(), [run(IN_FLIGHT)]);
    assert!(open[0].past_point_of_no_return());
    assert_eq!((entries(&lab.path()), layout(&lab.path())), (before, 2));

    let world = world();
    let end = lab.engine().resume(&rotation(&world), run(IN_FLIGHT)).await.unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    let new = PASSWORDS[2];
    assert_eq!(world.state().server, new);
    assert_eq!(world.state().vault.current.as_ref().unwrap().secret.expose(), new);
    assert_eq!(world.state().application.as_deref(), Some(memory::url(new).as_str()));
    assert!(matches!(lab.engine().start(&rotation(&world), wish()).await.unwrap().1, End::Done));
    let history = lab.engine().history(None).await.unwrap();
    assert_eq!(history.len(), 3);
    assert_eq!((history[1].run, history[2].run), (run(IN_FLIGHT), run(DONE)));
    assert!(history[0].start.generation > history[1].start.generation);
    let headings = SqliteStore::open(&lab.path()).unwrap().runs(None).await.unwrap();
    let generations: Vec<_> = headings.iter().map(|heading| heading.generation).collect();
    assert_eq!(generations, history.iter().map(|state| state.start.generation).collect::<Vec<_>>());
    let raw = lab.raw();
    assert!(raw.execute("DELETE FROM entries", []).unwrap_err().to_string().contains("append-only"));
}

fn wish() -> Wish {
    Wish { operator: "somebody".into(), ticket: None, ..Wish::default() }
}

/// What the older program left damaged is damaged afterwards too, and nothing is half done.
#[tokio::test]
async fn damage_in_an_older_journal_is_not_sealed_as_if_it_were_whole() {
    let gap =
        format!("DROP TRIGGER entries_last; DELETE FROM entries WHERE run = '{IN_FLIGHT}' AND seq = 3;");
    let gap =
        gap + "CREATE TRIGGER entries_last BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'x'); END";
    let lab = Lab::new(&gap);
    let error = lab.engine().state(run(IN_FLIGHT)).await.unwrap_err();
    assert!(error.to_string().contains("entry 3 is missing"), "{error}");
    assert!(lab.engine().state(run(DONE)).await.is_ok());

    let beginning = gap.replace("seq = 3", "seq = 0");
    for damage in [beginning.as_str(), "DELETE FROM leases", "UPDATE leases SET environment = 'prod'"] {
        let lab = Lab::new(damage);
        let before = entries(&lab.path());
        let error = SqliteStore::open(&lab.path()).err().unwrap();
        assert_eq!(error.kind(), Kind::Corrupt, "{damage}: {error}");
        assert!(error.to_string().contains("belong to no run or no environment"), "{damage}: {error}");
        assert_eq!((entries(&lab.path()), layout(&lab.path())), (before, 1), "{damage}");
    }
}
