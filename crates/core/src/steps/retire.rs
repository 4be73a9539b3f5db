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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt;

    use super::super::testing::{begun_with, rotation, tried};
    use super::*;
    use crate::ids::VersionId;
    use crate::journal::Effect;
    use crate::memory;
    use crate::plan::Action;

    /// Where nothing was written, what was current before is current now.
    #[test]
    fn only_a_version_that_was_replaced_is_taken_out_of_use() {
        let world = memory::world("old");
        let (rotation, copy) = (rotation(&world), memory::password_copy());
        let retire = |before: Option<&str>, written: Option<&str>| {
            let publish = Action::Publish { copy: copy.clone() };
            let mut run = begun_with(&rotation, &[Action::Check, publish]);
            let seen = before.map(|version| (copy.clone(), VersionId::from(version)));
            let steps: Vec<_> = run.plan().steps.iter().map(|step| step.id.clone()).collect();
            tried(
                &mut run,
                &steps[0],
                Ok(Outcome { before: BTreeMap::from_iter(seen), ..Outcome::confirmed() }),
            );
            tried(&mut run, &steps[1], Ok(Outcome::changed().version(written.map(VersionId::from))));
            world.state().calls.clear();
            let outcome = perform(&rotation, &copy, &run).now_or_never().unwrap().unwrap();
            (outcome.effect, world.state().calls.clone())
        };
        assert_eq!(retire(Some("1"), Some("2")), (Effect::Changed, vec!["memory:password.retire 1".into()]));
        assert_eq!(retire(Some("1"), Some("1")), (Effect::Skipped, vec![]));
        assert_eq!(retire(None, Some("2")), (Effect::Skipped, vec![]));
    }
}
