//! Takes the version before this run's out of use, where the policy says so.

use crate::error::Result;
use crate::ids::CopyId;
use crate::journal::Outcome;
use crate::rotation::Rotation;
use crate::run::RunState;

/// Retires the version that was current when the run was checked.
pub(crate) async fn perform(rotation: &Rotation, id: &CopyId, run: &RunState) -> Result<Outcome> {
    let before = run.outcome_of("check").and_then(|outcome| outcome.before.get(id));
    let written = run.versions();
    match before {
        None => Ok(Outcome::skipped("no version before this one was seen")),
        Some(before) if written.get(id) == Some(before) => {
            Ok(Outcome::skipped("the run wrote no new version"))
        }
        Some(before) => rotation.copy(id)?.sink.retire(before).await,
    }
}
