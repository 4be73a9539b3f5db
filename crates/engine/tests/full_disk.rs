//! A disk that is full at any moment of a run: said in words, nothing half written, carried on afterwards.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pgrotate_core::Kind;
use pgrotate_core::engine::{Trouble, Wish};
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::End;
use pgrotate_core::memory::{self, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::rotation::Rotation;
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};

fn engine(store: SqliteStore) -> Embedded {
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    Embedded::new(store, clock, entropy, Arc::new(Unobserved), Arc::new(AtomicBool::new(false)))
}

fn rotation(world: &Memory) -> Rotation {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    memory::rotation(world, &clock, &entropy)
}

fn store(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("journal.sqlite")).unwrap()
}

fn wish() -> Wish {
    Wish { operator: "somebody".into(), ticket: None, ..Wish::default() }
}

/// The disk is full when the database has this many pages; tells what came of a run that began then.
async fn run_on(pages: u32) -> &'static str {
    let folder = tempfile::tempdir().unwrap();
    let world = memory::world("OldOldOldOld1");
    let small = store(folder.path());
    small.limit_pages(pages).unwrap();
    let (error, came) = match engine(small).start(&rotation(&world), wish()).await {
        Ok((_, end)) => {
            assert!(matches!(end, End::Done), "{end:?}");
            return "done";
        }
        Err(Trouble::Before(error)) => (error, "before"),
        Err(Trouble::During(run, error)) => {
            let state = engine(store(folder.path())).state(run).await.unwrap();
            assert!(state.outcome.is_none(), "{pages} pages");
            (error, "during")
        }
    };
    assert_eq!(error.kind(), Kind::BadState, "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("resume")), "{error:?}");

    let roomy = engine(store(folder.path()));
    let end = match roomy.unfinished(None).await.unwrap().first() {
        Some(state) => roomy.resume(&rotation(&world), state.run).await.unwrap(),
        None => {
            assert_eq!(came, "before");
            assert!(world.state().calls.is_empty(), "nothing is done that is not written down");
            roomy.start(&rotation(&world), wish()).await.unwrap().1
        }
    };
    assert!(matches!(end, End::Done), "{pages} pages: {end:?}");
    let state = world.state();
    assert_eq!(state.vault.current.as_ref().unwrap().secret.expose(), state.server);
    assert_eq!(state.vault_writes, 2, "{pages} pages: one password was staged and promoted");
    came
}

#[tokio::test]
async fn it_may_be_full_at_any_page() {
    let mut came = Vec::new();
    for pages in 1.. {
        came.push(run_on(pages).await);
        if came.last() == Some(&"done") {
            break;
        }
    }
    let count = |what: &str| came.iter().filter(|came| **came == what).count();
    assert!(count("before") > 0 && count("during") > 1, "{came:?}");
}
