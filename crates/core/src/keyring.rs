//! The two passwords of a run, fetched from the vault of record when a step needs them.
//!
//! They are never handed from step to step: a step that runs in another process, after a crash
//! or in another engine, finds them by the run's id, and the journal's fingerprints prove that
//! they are the same ones.

use std::sync::{Arc, Mutex};

use crate::error::{Error, Kind, Result};
use crate::ids::RunId;
use crate::provider::{Entry, Vault, VaultState};
use crate::run::RunState;
use crate::secret::{FingerprintKey, Secret};

/// The passwords of one run.
#[derive(Debug)]
pub struct Keys {
    /// The one that the run brings.
    pub next: Secret,
    /// The one before, if the vault of record still has it.
    pub previous: Option<Secret>,
    /// Whether the vault of record already calls the new one current.
    pub promoted: bool,
}

impl Keys {
    /// Finds the passwords of a run in what the vault holds; `staged` knows the run's own among several. There are
    /// several when a first try to stage one arrived only after a second one had been staged.
    pub fn find(run: RunId, state: VaultState, staged: impl Fn(&Secret) -> bool) -> Option<Self> {
        let ours = |entry: &Entry| entry.run == Some(run) && staged(&entry.secret);
        let secret = |entry: Option<Entry>| entry.map(|entry| entry.secret);
        // Once it is current, what is pending came late: of a run that brings an earlier password back it is the same.
        match (state.current, state.pending.into_iter().find(ours)) {
            (Some(current), _) if ours(&current) => {
                Some(Self { next: current.secret, previous: secret(state.previous), promoted: true })
            }
            (current, Some(pending)) => {
                Some(Self { next: pending.secret, previous: secret(current), promoted: false })
            }
            _ => None,
        }
    }

    /// The passwords of a run that brings none: the current one, as the check has found it.
    fn unchanged(run: &RunState, state: VaultState, key: &FingerprintKey) -> Option<Self> {
        let found = run.outcome_of("check").and_then(|outcome| outcome.previous.as_ref());
        let current = state.current?.secret;
        let same = found.is_none_or(|found| key.fingerprint(&current) == *found);
        same.then(|| Self {
            next: current,
            previous: state.previous.map(|entry| entry.secret),
            promoted: true,
        })
    }
}

/// Fetches a run's passwords once per process.
#[derive(Debug, Default)]
pub struct Keyring(Mutex<Option<(RunId, Arc<Keys>)>>);

impl Keyring {
    /// The passwords of this run.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the vault no longer holds them, or holds others than the journal
    /// remembers.
    pub async fn keys(&self, vault: &dyn Vault, key: &FingerprintKey, state: &RunState) -> Result<Arc<Keys>> {
        if let Some((run, keys)) = &*self.0.lock().expect("no holder of this lock panics")
            && *run == state.run
        {
            return Ok(Arc::clone(keys));
        }
        if !state.plan().changes_password() {
            let keys = Keys::unchanged(state, vault.read().await?, key);
            let keys = keys.ok_or_else(|| {
                lost(vault, state.run, "it calls another password current than at the check")
            })?;
            return Ok(self.keep(state.run, keys));
        }
        let staged = state.outcome_of("stage").and_then(|outcome| outcome.fingerprint.as_ref());
        let is_staged = |secret: &Secret| staged.is_none_or(|staged| key.fingerprint(secret) == *staged);
        let keys = Keys::find(state.run, vault.read().await?, is_staged)
            .ok_or_else(|| lost(vault, state.run, "it does not hold the one that this run has staged"))?;
        Ok(self.keep(state.run, keys))
    }

    /// Remembers passwords that a step has just read.
    pub fn keep(&self, run: RunId, keys: Keys) -> Arc<Keys> {
        let keys = Arc::new(keys);
        *self.0.lock().expect("no holder of this lock panics") = Some((run, Arc::clone(&keys)));
        keys
    }
}

fn lost(vault: &dyn Vault, run: RunId, why: &str) -> Error {
    Error::new(Kind::Conflict, format!("find the new password of the run {run} in {}", vault.id()))
        .because(why)
        .hint("somebody changed the vault of record during the run; its own history may have the value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_first_try_is_not_taken_for_the_runs_password() {
        let run = RunId::generate(jiff::Timestamp::UNIX_EPOCH, &crate::env::testing::SeededEntropy::new(1));
        let entry = |text: &str, run| Some(Entry { secret: Secret::new(text), run });
        let state = || VaultState {
            current: entry("second", Some(run)),
            pending: entry("late", Some(run)).into_iter().collect(),
            previous: entry("old", None),
            ..VaultState::default()
        };
        let keys = Keys::find(run, state(), |own| own.expose() == "second").unwrap();
        assert_eq!((keys.next.expose(), keys.promoted), ("second", true));
        assert_eq!(keys.previous.unwrap().expose(), "old");
        assert!(Keys::find(run, state(), |own| own.expose() == "third").is_none());
    }

    /// Found by the simulator: a way back stages the same password on each try.
    #[test]
    fn a_late_try_to_stage_the_password_that_is_current_by_now_changes_nothing() {
        let run = RunId::generate(jiff::Timestamp::UNIX_EPOCH, &crate::env::testing::SeededEntropy::new(1));
        let entry = |text: &str| Some(Entry { secret: Secret::new(text), run: Some(run) });
        let state = VaultState {
            current: entry("earlier"),
            pending: entry("earlier").into_iter().collect(),
            previous: Some(Entry { secret: Secret::new("later"), run: None }),
            ..VaultState::default()
        };
        let keys = Keys::find(run, state, |_| true).unwrap();
        assert_eq!((keys.next.expose(), keys.promoted), ("earlier", true));
        assert_eq!(keys.previous.unwrap().expose(), "later");
    }
}
