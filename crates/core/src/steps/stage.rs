//! Makes a new password and stores it as pending in the vault of record.

use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::keyring::Keys;
use crate::plan::Step;
use crate::rotation::Rotation;
use crate::run::RunState;

/// Stages a password of this run, or finds the one that an earlier try staged: a run has one
/// password, however often this step is repeated.
pub(crate) async fn perform(rotation: &Rotation, step: &Step, run: &RunState) -> Result<Outcome> {
    let again = run.step(&step.id).may_have_happened;
    if again && let Some(keys) = Keys::find(run.run, rotation.vault.read().await?) {
        return Ok(outcome(rotation, run, keys, Outcome::already_done()));
    }
    // Between the check and now lie a crash and any time: look once more.
    if run.generation != run.start.generation {
        super::check::possible(rotation, run).await?;
    }
    let secret = rotation.policy.generate(&rotation.target.user, &*rotation.entropy)?;
    rotation.vault.stage(run.run, &secret).await?;
    // Read back before the server hears of it: what is not safely stored must not be installed.
    match Keys::find(run.run, rotation.vault.read().await?) {
        Some(keys) if keys.next == secret => Ok(outcome(rotation, run, keys, Outcome::changed())),
        _ => Err(Error::new(Kind::Corrupt, format!("stage a password in {}", rotation.vault.id()))
            .because("the vault of record does not give back what was stored")
            .hint("nothing was changed on the server; look at the vault of record, then start again")),
    }
}

fn outcome(rotation: &Rotation, run: &RunState, keys: Keys, outcome: Outcome) -> Outcome {
    let keys = rotation.keyring.keep(run.run, keys);
    Outcome {
        fingerprint: Some(rotation.key.fingerprint(&keys.next)),
        previous: keys.previous.as_ref().map(|previous| rotation.key.fingerprint(previous)),
        ..outcome
    }
}
