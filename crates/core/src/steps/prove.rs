//! Logs in with the new password on a fresh connection. Only this proves `install`: a cloud can
//! report success and have changed nothing.

use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::provider::Login;
use crate::rotation::Rotation;
use crate::run::RunState;

/// Logs in.
pub(crate) async fn perform(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    match rotation.verifier.login(&keys.next).await? {
        Login::Accepted => Ok(Outcome::confirmed().note("the new password logs in")),
        Login::Refused => Err(Error::new(Kind::Refused, format!("log in as {}", rotation.target))
            .because("the server refuses the new password, though the authority says that it was set")
            .hint("is password sign-in enabled on the server? both passwords are in the vault of record")
            .later(None)),
    }
}
