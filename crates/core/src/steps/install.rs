//! Gives the new password to the authority. The point of no return, unless it is an idle role's.

use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::keyring::Keys;
use crate::plan::{Retirement, Step};
use crate::provider::{Change, Login};
use crate::rotation::Rotation;
use crate::run::RunState;
use crate::secret::Secret;

/// Installs the password, unless a login shows that an earlier try already did.
pub(crate) async fn perform(rotation: &Rotation, step: &Step, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let role = rotation.role(keys.seat);
    if run.step(&step.id).may_have_happened {
        // First settle: a probe in the middle of the operation would say no, and cost a second
        // one while nobody can log in.
        role.authority.settle().await?;
        if role.verifier.login(&keys.next).await? == Login::Accepted {
            return Ok(Outcome::already_done());
        }
    }
    let current = opening(rotation, &keys).ok_or_else(|| {
        Error::new(Kind::Conflict, "install the new password")
            .because(format!("{} no longer holds the password that works now", rotation.vault.id()))
    })?;
    role.authority.install(&Change { run: run.run, current, next: &keys.next }).await
}

/// The password that lets the authority in: a role that takes turns changes its own, unless it may not log in.
fn opening<'a>(rotation: &Rotation, keys: &'a Keys) -> Option<&'a Secret> {
    match rotation.twin.as_ref().map(|twin| twin.retirement) {
        Some(Retirement::Password) => keys.idle.as_ref(),
        Some(Retirement::NoLogin) | None => keys.previous.as_ref(),
    }
}
