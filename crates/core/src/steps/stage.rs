//! Makes a new password, or finds an earlier one, and stores it as pending in the vault of record.

use crate::error::{Error, Kind, Result, Retry};
use crate::journal::Outcome;
use crate::keyring::Keys;
use crate::plan::{Action, Back, Step};
use crate::provider::VaultState;
use crate::rotation::Rotation;
use crate::run::RunState;
use crate::secret::Secret;

/// Stages a password of this run, or finds the one that an earlier try staged: a run has one
/// password, however often this step is repeated.
pub(crate) async fn perform(rotation: &Rotation, step: &Step, run: &RunState) -> Result<Outcome> {
    let again = run.step(&step.id).may_have_happened;
    if again && let Some(keys) = Keys::find(run.run, rotation.vault.read().await?, rotation.twin_name(), |_| true) {
        return Ok(outcome(rotation, run, keys, Outcome::already_done()));
    }
    // Between the check and now lie a crash and any time: look once more.
    if run.generation != run.start.generation {
        super::check::possible(rotation, run).await?;
    }
    let secret = match &step.action {
        Action::StagePrevious { back } => previous(rotation, back, &rotation.vault.read().await?)?,
        _ => rotation.policy.generate(&rotation.target.user, &*rotation.entropy)?,
    };
    if let Err(error) = rotation.vault.stage(run.run, &secret).await {
        // What an earlier try sent may arrive only now. It is as good as this one.
        if again
            && error.kind() == Kind::Conflict
            && let Some(keys) = Keys::find(run.run, rotation.vault.read().await?, rotation.twin_name(), |_| true)
        {
            return Ok(outcome(rotation, run, keys, Outcome::already_done()));
        }
        return Err(error);
    }
    // Read back before the server hears of it: what is not safely stored must not be installed.
    // A read that fails now comes after the effect, whatever it says of itself: the next try
    // has to find this password and not make another.
    let stored = rotation.vault.read().await.map_err(|error| match error.retry() {
        Retry::Never => error,
        Retry::Later { .. } | Retry::Unknown => error.unknown(),
    })?;
    match Keys::find(run.run, stored, rotation.twin_name(), |own| *own == secret) {
        Some(keys) => Ok(outcome(rotation, run, keys, Outcome::changed())),
        None => Err(Error::new(Kind::Corrupt, format!("stage a password in {}", rotation.vault.id()))
            .because("the vault of record does not give back what was stored")
            .hint("nothing was changed on the server; look at the vault of record, then start again")),
    }
}

/// The password from before a run, if the vault of record still has it.
///
/// # Errors
/// When it does not, or has it as the current one.
pub(crate) fn previous(rotation: &Rotation, back: &Back, state: &VaultState) -> Result<Secret> {
    let is_meant = |secret: &Secret| rotation.key.fingerprint(secret) == back.to;
    let operation = format!("go back to the password from before the run {}", back.run);
    if state.current.as_ref().is_some_and(|entry| is_meant(&entry.secret)) {
        return Err(Error::new(Kind::Blocked, operation)
            .because("the vault of record has it as the current one already")
            .hint(format!("see which copies disagree: pgrotate status {}", rotation.environment)));
    }
    match &state.previous {
        Some(entry) if is_meant(&entry.secret) => Ok(entry.secret.clone()),
        _ => Err(Error::new(Kind::Blocked, operation)
            .because(
                "the vault of record does not hold it any more: it keeps the last one before the current",
            )
            .hint("only the last change can be taken back; the vault's own history may have older ones")),
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
