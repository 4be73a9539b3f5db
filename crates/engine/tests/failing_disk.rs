//! A disk that refuses a write at any moment of a run. The refusal is real: the operating system lets no file of this
//! process grow beyond a size. That holds for the process, so this test has a file of its own.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pgrotate_core::Kind;
use pgrotate_core::engine::{Trouble, Wish};
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::End;
use pgrotate_core::memory;
use pgrotate_core::observer::Unobserved;
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets no file grow beyond this.
fn limit(bytes: Option<u64>) {
    let hard = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(hard), maximum: hard }).unwrap();
}

#[tokio::test]
async fn a_write_may_be_refused_at_any_moment() {
    /// Who writes beyond the limit is killed, unless it listens.
    const SIGXFSZ: i32 = 25;
    let kind = tokio::signal::unix::SignalKind::from_raw(SIGXFSZ);
    let _listening = tokio::signal::unix::signal(kind).unwrap();
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    let mut refused = 0;
    for size in (0..).step_by(6000) {
        let folder = tempfile::tempdir().unwrap();
        let world = memory::world("OldOldOldOld1");
        let rotation = || memory::rotation(&world, &clock, &entropy);
        let engine = || {
            let store = SqliteStore::open(&folder.path().join("journal.sqlite")).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            Embedded::new(store, Arc::clone(&clock), Arc::clone(&entropy), Arc::new(Unobserved), stop)
        };
        let wish = || Wish { operator: "somebody".into(), ticket: None, ..Wish::default() };
        let small = engine();
        let made = std::fs::metadata(folder.path().join("journal.sqlite-wal")).unwrap().len();
        limit(Some(made + size));
        let result = small.start(&rotation(), wish()).await;
        limit(None);
        drop(small);
        let error = match result {
            Ok((_, end)) => {
                assert!(matches!(end, End::Done), "{end:?}");
                break;
            }
            Err(Trouble::Before(error) | Trouble::During(_, error)) => error,
        };
        refused += 1;
        assert_eq!(error.kind(), Kind::BadState, "{size}: {error}");
        assert!(error.to_string().contains("the disk failed"), "{size}: {error}");
        let end = match engine().unfinished(None).await.unwrap().first() {
            Some(state) => engine().resume(&rotation(), state.run).await.unwrap(),
            None => engine().start(&rotation(), wish()).await.unwrap().1,
        };
        assert!(matches!(end, End::Done), "{size}: {end:?}");
        assert_eq!(world.state().vault_writes, 2, "{size}: one password was staged and promoted");
    }
    assert!(refused > 10, "{refused}");
}
