use std::sync::Arc;

use futures::FutureExt;

use super::*;
use crate::env::testing::{ManualClock, SeededEntropy};
use crate::env::{Clock, Entropy};
use crate::memory::{self, Fault, Memory};

fn entry(password: &str) -> Entry {
    Entry { secret: Secret::new(password), run: None }
}

/// A world in which everybody has the password `now`, changed like this.
fn look(change: impl FnOnce(&Memory)) -> Status {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let world = memory::world("now");
    change(&world);
    status(&memory::rotation(&world, &clock, &entropy)).now_or_never().unwrap()
}

fn copy_states(status: &Status) -> Vec<State> {
    status.copies.iter().map(|copy| copy.state).collect()
}

#[test]
fn where_everybody_has_the_same_nothing_drifts_and_nobody_has_anything_to_say() {
    let status = look(|_| {});
    assert_eq!((status.server.state, status.vault.state), (State::Current, State::Current));
    assert_eq!(copy_states(&status), [State::Current; 3]);
    let notes = status.copies.iter().map(|copy| &copy.note).chain([&status.server.note, &status.vault.note]);
    assert!(notes.flatten().next().is_none(), "{status:?}");
    assert!(!status.drifts());
}

#[test]
fn one_copy_that_holds_another_password_is_drift_and_the_others_are_none() {
    let status = look(|world| {
        world.state().copies.insert(memory::password_copy(), vec!["other".into()]);
    });
    assert_eq!(copy_states(&status), [State::Current, State::Stale, State::Current]);
    assert!(status.copies[1].note.as_ref().unwrap().contains("another password than the vault of record"));
    assert_ne!(status.copies[1].fingerprint, status.vault.current);
    assert_eq!(status.server.state, State::Current);
    assert!(status.drifts());
}

#[test]
fn the_right_password_for_the_wrong_server_is_drift_too() {
    let url = memory::url("now").replace("@db:", "@prod:");
    let status = look(|world| {
        world.state().copies.insert(memory::url_copy(), vec![url]);
    });
    assert_eq!(copy_states(&status), [State::Current, State::Current, State::Stale]);
    assert!(status.copies[2].note.as_ref().unwrap().starts_with("in its URL, "), "{status:?}");
}

#[test]
fn a_server_that_knows_none_of_the_passwords_is_drift_alone() {
    let status = look(|world| world.state().server = "other".into());
    assert_eq!((status.server.state, status.server.fingerprint.is_some()), (State::Stale, false));
    assert_eq!(copy_states(&status), [State::Current; 3]);
    assert!(status.drifts());
}

#[test]
fn a_server_with_an_earlier_password_says_which() {
    let status = look(|world| {
        let mut state = world.state();
        state.vault.previous = Some(entry("before"));
        state.server = "before".into();
    });
    assert_eq!((status.server.state, status.server.fingerprint), (State::Stale, status.vault.previous));
    assert!(status.server.note.unwrap().contains("accepts the previous password"));
}

#[test]
fn a_run_that_stopped_half_way_is_seen_in_everybody_that_it_has_reached() {
    let status = look(|world| {
        let mut state = world.state();
        state.vault.pending = vec![entry("next")];
        state.server = "next".into();
        state.copies.insert(memory::password_copy(), vec!["next".into()]);
    });
    assert_eq!(status.server.state, State::Pending);
    assert!(status.server.note.as_ref().unwrap().contains("pgrotate resume"));
    assert_eq!(status.vault.note.as_deref(), Some("a pending password is staged"));
    assert_eq!(copy_states(&status), [State::Current, State::Pending, State::Current]);
    assert_eq!(status.copies[1].note, None, "it is not another one than the vault knows");
    assert_eq!(status.copies[1].fingerprint, status.vault.pending);
    assert!(status.drifts());
}

/// Nobody tries a password at the server that is not known to be right, and nobody is called stale for want of one.
#[test]
fn without_the_vault_of_record_nobody_is_judged() {
    let status = look(|world| {
        world.state().faults.insert(0, Fault::Refuse);
    });
    assert_eq!((status.vault.state, status.server.state), (State::Unreachable, State::Unseen));
    assert_eq!(copy_states(&status), [State::Unreachable, State::Unseen, State::Unseen]);
    assert_eq!(status.server.note.as_deref(), Some(NOTHING_TO_TRY));
    assert_eq!(status.copies[1].note.as_deref(), Some(NOTHING_TO_COMPARE));
    assert!(status.drifts());
}

#[test]
fn a_vault_without_a_current_password_is_drift() {
    let status = look(|world| world.state().vault.current = None);
    assert_eq!(status.vault.state, State::Stale);
    assert_eq!(copy_states(&status), [State::Stale; 3]);
}
