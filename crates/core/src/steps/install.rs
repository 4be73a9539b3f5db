//! Gives the new password to the authority. The point of no return.

use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::plan::Step;
use crate::provider::{Change, Login};
use crate::rotation::Rotation;
use crate::run::RunState;

/// Installs the password, unless a login shows that an earlier try already did.
pub(crate) async fn perform(rotation: &Rotation, step: &Step, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    if run.step(&step.id).may_have_happened {
        // First settle: a probe in the middle of the operation would say no, and cost a second
        // one while nobody can log in.
        rotation.authority.settle().await?;
        if rotation.verifier.login(&keys.next).await? == Login::Accepted {
            return Ok(Outcome::already_done());
        }
    }
    let current = keys.previous.as_ref().ok_or_else(|| {
        Error::new(Kind::Conflict, "install the new password")
            .because(format!("{} no longer holds the password that works now", rotation.vault.id()))
    })?;
    rotation.authority.install(&Change { run: run.run, current, next: &keys.next }).await
}
