//! Logs in with the new password on a fresh connection. Only this proves `install`: a cloud can
//! report success and have changed nothing.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::provider::Login;
use crate::rotation::{Role, Rotation};
use crate::run::RunState;
use crate::secret::Secret;

/// Logs in.
pub(crate) async fn perform(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let role = rotation.role(keys.seat);
    match role.verifier.login(&keys.next).await? {
        Login::Accepted => {
            let outcome = Outcome::confirmed().note("the new password logs in");
            Ok(Outcome { server_time: server_time(role, &keys.next).await, ..outcome })
        }
        Login::Refused => Err(Error::new(Kind::Refused, format!("log in as {}", role.target))
            .because("the server refuses the new password, though the authority says that it was set")
            .hint("is password sign-in enabled on the server? both passwords are in the vault of record")
            .later(None)),
    }
}

/// What the server's clock says now. Where it can't be asked the run goes on: `promote` comes next, and our own clock has to do.
async fn server_time(role: Role<'_>, next: &Secret) -> Option<Timestamp> {
    role.census?.take(next, Duration::ZERO).await.ok().map(|sample| sample.at)
}
