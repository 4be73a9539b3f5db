//! Writes one copy.

use crate::error::Result;
use crate::ids::CopyId;
use crate::journal::Outcome;
use crate::rotation::Rotation;
use crate::run::RunState;
use crate::value::Update;

/// Brings a copy to the new password. The sink itself reads first and writes only what
/// differs, so this may be repeated at will.
pub(crate) async fn perform(rotation: &Rotation, id: &CopyId, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let copy = rotation.copy(id)?;
    // Two copies in one application's settings are read and written as a whole; side by side
    // they would undo each other.
    let _turn = match rotation.wholes.get(&copy.sink.whole()) {
        Some(whole) => Some(whole.lock().await),
        None => None,
    };
    let update = Update {
        run: run.run,
        copy: id,
        template: &copy.template,
        url: &rotation.url,
        target: rotation.role(keys.seat).target,
        twin: rotation.twin.as_ref().map(|_| rotation.role(keys.seat.other()).target.user.as_str()),
        anew: !run.plan().changes_password(),
        password: &keys.next,
        versions: &run.versions(),
    };
    let outcome = copy.sink.publish(&update).await?;
    Ok(Outcome { fingerprint: Some(rotation.key.fingerprint(&keys.next)), ..outcome })
}
