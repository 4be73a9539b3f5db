//! Makes the proven password current in the vault of record.

use crate::error::Result;
use crate::journal::{Effect, Outcome};
use crate::rotation::Rotation;
use crate::run::RunState;

/// Promotes the pending password, unless that has already happened.
pub(crate) async fn perform(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let effect = if keys.promoted { Effect::AlreadyDone } else { Effect::Changed };
    let user = rotation.twin.as_ref().map(|_| rotation.role(keys.seat).target.user.as_str());
    let version = rotation.vault.promote(run.run, &keys.next, user).await?;
    Ok(Outcome { fingerprint: Some(rotation.key.fingerprint(&keys.next)), ..Outcome::of(effect) }
        .version(version))
}
