//! The two passwords of a run, fetched from the vault of record when a step needs them.
//!
//! They are never handed from step to step: a step that runs in another process, after a crash
//! or in another engine, finds them by the run's id, and the journal's fingerprints prove that
//! they are the same ones.

use std::sync::{Arc, Mutex};

use crate::error::{Error, Kind, Result};
use crate::ids::RunId;
use crate::provider::{Vault, VaultState};
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
    /// Finds the passwords of a run in what the vault holds.
    pub fn find(run: RunId, state: VaultState) -> Option<Self> {
        let ours = |entry: &crate::provider::Entry| entry.run == Some(run);
        let secret = |entry: Option<crate::provider::Entry>| entry.map(|entry| entry.secret);
        match (state.pending, state.current) {
            (Some(pending), current) if ours(&pending) => {
                Some(Self { next: pending.secret, previous: secret(current), promoted: false })
            }
            (_, Some(current)) if ours(&current) => {
                Some(Self { next: current.secret, previous: secret(state.previous), promoted: true })
            }
            _ => None,
        }
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
        let keys = Keys::find(state.run, vault.read().await?)
            .ok_or_else(|| lost(vault, state.run, "it holds none of this run"))?;
        if let Some(staged) = state.outcome_of("stage").and_then(|outcome| outcome.fingerprint.as_ref())
            && key.fingerprint(&keys.next) != *staged
        {
            return Err(lost(vault, state.run, "it holds another one under the name of this run"));
        }
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
