//! The way back: a forward run to the password from before.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pgrotate_core::engine::{Trouble, Wish};
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::End;
use pgrotate_core::memory::{self, Fault, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::{Kind, RunId};
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};

const OLD: &str = "OldOldOldOld1";

struct Lab {
    folder: tempfile::TempDir,
    world: Memory,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), world: memory::world(OLD) }
    }

    fn engine(&self) -> Embedded {
        let store = SqliteStore::open(&self.folder.path().join("journal.sqlite")).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(OsEntropy));
        Embedded::new(store, clock, entropy, Arc::new(Unobserved), Arc::new(AtomicBool::new(false)))
    }

    fn rotation(&self) -> Rotation {
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
            (Arc::new(SystemClock), Arc::new(OsEntropy));
        memory::rotation(&self.world, &clock, &entropy)
    }

    async fn rotate(&self) -> Result<(RunId, End), Trouble> {
        self.engine().start(&self.rotation(), wish()).await
    }

    /// A run that waits at the application's copy for a person.
    async fn parked(&self) -> RunId {
        self.world.state().faults.insert(13, Fault::Refuse);
        let (run, end) = self.rotate().await.unwrap();
        assert!(matches!(end, End::Parked(_)), "{end:?}");
        run
    }

    async fn take_back(&self, run: RunId) -> Result<(RunId, End), Trouble> {
        let back = Some(self.engine().way_back(run).await?);
        self.engine().start(&Rotation { back, ..self.rotation() }, wish()).await
    }

    /// Everything holds this password.
    fn everything_is(&self, password: &str) {
        let state = self.world.state();
        assert_eq!(state.server, password);
        assert_eq!(state.vault.current.as_ref().unwrap().secret.expose(), password);
        assert!(state.vault.pending.is_empty());
        assert_eq!(state.copies[&memory::password_copy()].last().unwrap(), password);
        assert_eq!(state.copies[&memory::url_copy()].last().unwrap(), &memory::url(password));
        assert_eq!(state.application.as_deref(), Some(memory::url(password).as_str()));
    }
}

fn wish() -> Wish {
    Wish { operator: "somebody".into(), ticket: None, ..Wish::default() }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Trouble>) -> pgrotate_core::Error {
    match result.unwrap_err() {
        Trouble::Before(error) | Trouble::During(_, error) => error,
    }
}

#[tokio::test]
async fn a_done_run_is_taken_back_and_that_run_too() {
    let lab = Lab::new();
    let (first, _) = lab.rotate().await.unwrap();
    let new = lab.world.state().server.clone();
    let (second, end) = lab.take_back(first).await.unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.everything_is(OLD);
    assert_eq!(lab.world.state().vault.previous.as_ref().unwrap().secret.expose(), new);
    let state = lab.engine().state(second).await.unwrap();
    assert_eq!(state.plan().back().unwrap().run, first);
    assert!(state.plan().of_kind("verify").count() >= 3, "the same proofs as of any run");
    let check = &state.outcome_of("check").unwrap().findings;
    assert!(check.iter().any(|finding| finding.what.contains("whoever has learnt it")), "{check:?}");
    // And forward again, by going back from going back.
    let (_, end) = lab.take_back(second).await.unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.everything_is(&new);
}

#[tokio::test]
async fn what_the_vault_no_longer_holds_can_not_be_taken_back() {
    let lab = Lab::new();
    let (first, _) = lab.rotate().await.unwrap();
    let (second, _) = lab.rotate().await.unwrap();
    let now = lab.world.state().server.clone();
    let (_, end) = lab.take_back(first).await.unwrap();
    let End::Failed(error) = end else { panic!("{end:?}") };
    assert_eq!(error.kind(), Kind::Blocked);
    assert!(error.to_string().contains("does not hold it any more"), "{error}");
    lab.everything_is(&now);
    // The last one can be, once: after that it is the current one.
    assert!(matches!(lab.take_back(second).await.unwrap().1, End::Done));
    let (_, end) = lab.take_back(second).await.unwrap();
    let End::Failed(error) = end else { panic!("{end:?}") };
    assert!(error.to_string().contains("as the current one already"), "{error}");
}

#[tokio::test]
async fn a_parked_run_is_taken_back_and_can_not_be_carried_on_then() {
    let lab = Lab::new();
    let run = lab.parked().await;
    let (back, end) = lab.take_back(run).await.unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.everything_is(OLD);
    assert!(lab.engine().unfinished(None).await.unwrap().is_empty());
    let error = refusal(lab.engine().resume(&lab.rotation(), run).await);
    assert!(error.to_string().contains(&back.to_string()), "{error}");
    lab.everything_is(OLD);
    // What it may have left in the vault of record can still be dropped.
    assert!(matches!(lab.engine().abort(&lab.rotation(), run).await, Ok(End::Aborted)));
    assert!(matches!(lab.rotate().await.unwrap().1, End::Done));
}

#[tokio::test]
async fn a_way_back_that_comes_to_nothing_leaves_the_parked_run_to_be_carried_on() {
    let lab = Lab::new();
    let run = lab.parked().await;
    let calls = lab.world.state().calls.len();
    lab.world.state().faults.insert(calls, Fault::Refuse);
    let (failed, end) = lab.take_back(run).await.unwrap();
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    assert!(lab.engine().state(failed).await.unwrap().changed_nothing());
    let open = lab.engine().unfinished(None).await.unwrap();
    assert_eq!(open.iter().map(|state| state.run).collect::<Vec<_>>(), [run]);
    assert!(matches!(lab.engine().resume(&lab.rotation(), run).await, Ok(End::Done)));
    let new = lab.world.state().server.clone();
    lab.everything_is(&new);
}

#[tokio::test]
async fn what_changed_nothing_or_is_half_way_has_no_way_back() {
    let lab = Lab::new();
    lab.world.state().faults.insert(0, Fault::Refuse);
    let (failed, _) = lab.rotate().await.unwrap();
    let error = refusal(lab.take_back(failed).await);
    assert!(error.to_string().contains("it changed nothing"), "{error}");

    let clean = Lab::new();
    clean.rotate().await.unwrap();
    let install = clean.world.state().calls.iter().position(|call| *call == "authority.install").unwrap();
    let lab = Lab::new();
    // The server has the new password, and the vault of record does not call it current.
    lab.world.state().faults.insert(install + 1, Fault::Refuse);
    let (half, end) = lab.rotate().await.unwrap();
    assert!(matches!(end, End::Parked(_)), "{end:?}");
    let error = refusal(lab.take_back(half).await);
    assert!(error.hints().iter().all(|hint| hint.contains("pgrotate resume")), "{error:?}");
}

/// However far it comes: nothing is changed, or the password is the one from before.
#[tokio::test]
async fn every_call_of_a_way_back_may_be_refused() {
    let begun = {
        let lab = Lab::new();
        lab.rotate().await.unwrap();
        lab.world.state().calls.len()
    };
    let (mut failed, mut parked) = (0, 0);
    for place in begun.. {
        let lab = Lab::new();
        let (first, _) = lab.rotate().await.unwrap();
        let new = lab.world.state().server.clone();
        lab.world.state().faults.insert(place, Fault::Refuse);
        let (run, end) = lab.take_back(first).await.unwrap();
        match end {
            End::Failed(_) => {
                failed += 1;
                lab.everything_is(&new);
            }
            End::Parked(_) => {
                parked += 1;
                assert!(matches!(lab.engine().resume(&lab.rotation(), run).await.unwrap(), End::Done));
                lab.everything_is(OLD);
            }
            _ if lab.world.state().calls.len() <= place => break,
            end => panic!("{end:?}"),
        }
    }
    assert!(failed > 5 && parked > 5, "{failed} failed, {parked} parked");
}
