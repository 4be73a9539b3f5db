//! The two passwords of a run, fetched from the vault of record when a step needs them.
//!
//! They are never handed from step to step: a step that runs in another process, after a crash
//! or in another engine, finds them by the run's id, and the journal's fingerprints prove that
//! they are the same ones.

use std::sync::{Arc, Mutex};

use crate::error::{Error, Kind, Result};
use crate::ids::RunId;
use crate::journal::Outcome;
use crate::plan::Action;
use crate::provider::{Entry, Seat, Vault, VaultState};
use crate::run::RunState;
use crate::secret::{FingerprintKey, Secret};

/// The passwords of one run.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The one that the run brings.
    pub next: Secret,
    /// The one before, if the vault of record still has it.
    pub previous: Option<Secret>,
    /// Whether the vault of record already calls the new one current.
    pub promoted: bool,
    /// Whose the new one is.
    pub seat: Seat,
    /// What the role that does not live has on the server, as the vault of record keeps it: before the run has
    /// promoted the idle one's, afterwards the one that it has staged for the role that was live.
    pub idle: Option<Secret>,
}

impl Keys {
    /// Those of a run that has promoted its password.
    #[cfg(test)]
    pub(crate) fn promoted(next: &str, previous: Option<&str>) -> Self {
        let (next, previous) = (Secret::new(next), previous.map(Secret::new));
        Self { next, previous, promoted: true, seat: Seat::First, idle: None }
    }

    /// Finds the passwords of a run in what the vault holds; `staged` knows the run's own among several. There are
    /// several when a first try to stage one arrived only after a second one had been staged. `twin` is the second
    /// role, where two take turns.
    pub fn find(
        run: RunId,
        state: VaultState,
        twin: Option<&str>,
        staged: impl Fn(&Secret) -> bool,
    ) -> Option<Self> {
        let live = state.live(twin);
        let next = if twin.is_none() { live } else { live.other() };
        let ours = |entry: &Entry| entry.run == Some(run) && staged(&entry.secret);
        let secret = |entry: Option<Entry>| entry.map(|entry| entry.secret);
        let VaultState { current, pending, previous, .. } = state;
        // Once it is current, what is pending came late, or is meant for the idle role: of a run that brings an
        // earlier password back it is the same.
        match (current, pending.into_iter().find(ours)) {
            (Some(current), _) if ours(&current) => {
                let (next, previous) = (current.secret, secret(previous));
                Some(Self { next, previous, promoted: true, seat: live, idle: None })
            }
            (current, Some(pending)) => {
                let (pending, idle) = (pending.secret, secret(previous));
                Some(Self { next: pending, previous: secret(current), promoted: false, seat: next, idle })
            }
            _ => None,
        }
    }

    /// The password that a run has staged for the role that was live, once its own is the current one; `staged` knows
    /// it among several. What was meant to become current and came late is none.
    pub fn find_idle(run: RunId, state: &VaultState, staged: impl Fn(&Secret) -> bool) -> Option<Secret> {
        let current = state.current.as_ref().filter(|current| current.run == Some(run))?;
        let ours = |entry: &&Entry| {
            entry.run == Some(run) && entry.secret != current.secret && staged(&entry.secret)
        };
        state.pending.iter().find(ours).map(|entry| entry.secret.clone())
    }

    /// The passwords of a run that brings none: the current one, as the check has found it.
    fn unchanged(
        run: &RunState,
        state: VaultState,
        twin: Option<&str>,
        key: &FingerprintKey,
    ) -> Option<Self> {
        let seat = state.live(twin);
        let found = run.outcome_of("check").and_then(|outcome| outcome.previous.as_ref());
        let current = state.current?.secret;
        let same = found.is_none_or(|found| key.fingerprint(&current) == *found);
        same.then(|| Self {
            next: current,
            // The idle role's is none that should be dead.
            previous: state.previous.filter(|_| twin.is_none()).map(|entry| entry.secret),
            promoted: true,
            seat,
            idle: None,
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
    pub async fn keys(
        &self,
        vault: &dyn Vault,
        twin: Option<&str>,
        key: &FingerprintKey,
        state: &RunState,
    ) -> Result<Arc<Keys>> {
        if let Some((run, keys)) = &*self.0.lock().expect("no holder of this lock panics")
            && *run == state.run
        {
            return Ok(Arc::clone(keys));
        }
        if !state.plan().changes_password() {
            let keys = Keys::unchanged(state, vault.read().await?, twin, key);
            let keys = keys.ok_or_else(|| {
                lost(vault, state.run, "it calls another password current than at the check")
            })?;
            return Ok(self.keep(state.run, keys));
        }
        let is = |outcome: Option<&Outcome>, secret: &Secret| {
            let mark = outcome.and_then(|outcome| outcome.fingerprint.as_ref());
            mark.is_none_or(|mark| key.fingerprint(secret) == *mark)
        };
        let (staged, idle) = (state.outcome_of("stage"), state.outcome_of_action(&Action::StageIdle));
        let found = vault.read().await?;
        let idle = idle.and_then(|idle| Keys::find_idle(state.run, &found, |secret| is(Some(idle), secret)));
        let keys = Keys::find(state.run, found, twin, |secret| is(staged, secret))
            .ok_or_else(|| lost(vault, state.run, "it does not hold the one that this run has staged"))?;
        Ok(self.keep(state.run, Keys { idle: idle.or(keys.idle), ..keys }))
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
        let keys = Keys::find(run, state(), None, |own| own.expose() == "second").unwrap();
        assert_eq!((keys.next.expose(), keys.promoted), ("second", true));
        assert_eq!(keys.previous.unwrap().expose(), "old");
        assert!(Keys::find(run, state(), None, |own| own.expose() == "third").is_none());
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
        let keys = Keys::find(run, state, None, |_| true).unwrap();
        assert_eq!((keys.next.expose(), keys.promoted), ("earlier", true));
        assert_eq!(keys.previous.unwrap().expose(), "later");
    }
}
