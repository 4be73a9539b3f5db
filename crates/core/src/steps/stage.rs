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
    if again
        && let Some(keys) = Keys::find(run.run, rotation.vault.read().await?, rotation.twin_name(), |_| true)
    {
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
            && let Some(keys) =
                Keys::find(run.run, rotation.vault.read().await?, rotation.twin_name(), |_| true)
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures::FutureExt;

    use super::super::testing::{begun, begun_with, own_run, rotation, taken_over, tried};
    use super::*;
    use crate::ids::{CopyId, RunId, VersionId};
    use crate::journal::Effect;
    use crate::memory;
    use crate::provider::{Entry, Survey, Vault};

    fn stage(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
        let step = run.plan().of_kind("stage").next().unwrap();
        perform(rotation, step, run).now_or_never().unwrap()
    }

    /// A run whose first try to stage a password came to nothing that it knows of.
    fn tried_already(rotation: &Rotation) -> RunState {
        let mut run = begun_with(rotation, &[Action::Stage]);
        let step = run.plan().steps[0].id.clone();
        tried(&mut run, &step, Err(Error::new(Kind::TimedOut, "stage").unknown()));
        run
    }

    #[test]
    fn a_run_has_one_password_and_the_journal_has_its_mark() {
        let world = memory::world("now");
        let rotation = rotation(&world);
        let mark = |password: &str| Some(rotation.key.fingerprint(&Secret::new(password)));
        let first = stage(&rotation, &begun(rotation.plan())).unwrap();
        let staged = world.state().vault.pending[0].secret.clone();
        assert_eq!((first.effect, first.previous), (Effect::Changed, mark("now")));
        assert_eq!(first.fingerprint, mark(staged.expose()));
        let again = stage(&rotation, &tried_already(&rotation)).unwrap();
        assert_eq!((again.effect, again.fingerprint), (Effect::AlreadyDone, first.fingerprint));
        assert_eq!(world.state().vault.pending.len(), 1);
    }

    #[test]
    fn who_takes_a_run_over_looks_once_more_before_it_stages_anything() {
        let world = memory::world("now");
        let rotation = rotation(&world);
        let mut run = begun(rotation.plan());
        taken_over(&mut run);
        world.state().server = "another by now".into();
        assert_eq!(stage(&rotation, &run).unwrap_err().kind(), Kind::Blocked);
        assert!(world.state().vault.pending.is_empty());
        let before = world.state().calls.len();
        stage(&rotation, &begun(rotation.plan())).unwrap();
        let calls = world.state().calls[before..].to_vec();
        assert_eq!(calls, ["vault.stage", "vault.read"], "who has just looked does not look again");
    }

    #[test]
    fn a_way_back_stages_the_password_from_before_and_no_other() {
        let world = memory::world("now");
        let mut rotation = rotation(&world);
        let before = |password| Some(Entry { secret: Secret::new(password), run: None });
        let to = rotation.key.fingerprint(&Secret::new("before"));
        rotation.back = Some(Back { run: own_run(), to });
        let run = begun(rotation.plan());
        world.state().vault.previous = before("one before that");
        assert_eq!(stage(&rotation, &run).unwrap_err().kind(), Kind::Blocked);
        assert!(world.state().vault.pending.is_empty());
        world.state().vault.previous = before("before");
        stage(&rotation, &run).unwrap();
        assert_eq!(world.state().vault.pending[0].secret, Secret::new("before"));
    }

    /// A vault that refuses to stage like this, and has what a first try sent only from then on.
    struct Late(CopyId, Kind, Mutex<VaultState>);

    #[async_trait]
    impl Vault for Late {
        fn id(&self) -> &CopyId {
            &self.0
        }
        fn location(&self) -> String {
            "late".into()
        }
        async fn check(&self) -> Result<Survey> {
            Ok(Survey::default())
        }
        async fn read(&self) -> Result<VaultState> {
            Ok(self.2.lock().unwrap().clone())
        }
        async fn stage(&self, run: RunId, _: &Secret) -> Result<()> {
            let pending = vec![Entry { secret: Secret::new("first"), run: Some(run) }];
            self.2.lock().unwrap().pending = pending;
            Err(Error::new(self.1, "stage"))
        }
        async fn promote(&self, _: RunId, _: &Secret, _: Option<&str>) -> Result<Option<VersionId>> {
            Err(Error::internal("nothing is promoted here"))
        }
        async fn lay_aside(&self, _: RunId, _: &Secret) -> Result<()> {
            Err(Error::internal("nothing is kept here"))
        }
        async fn discard(&self, _: RunId) -> Result<()> {
            Err(Error::internal("nothing is discarded here"))
        }
    }

    #[test]
    fn what_a_first_try_sent_may_arrive_while_the_second_one_is_refused() {
        let staged = |kind, again| {
            let mut rotation = rotation(&memory::world("now"));
            rotation.vault = Box::new(Late(CopyId::from("late:vault"), kind, Mutex::default()));
            let run = if again { tried_already(&rotation) } else { begun(rotation.plan()) };
            stage(&rotation, &run).map(|outcome| outcome.effect).map_err(|error| error.kind())
        };
        assert_eq!(staged(Kind::Conflict, true), Ok(Effect::AlreadyDone));
        assert_eq!(staged(Kind::Conflict, false), Err(Kind::Conflict), "this run has sent none before");
        assert_eq!(staged(Kind::Forbidden, true), Err(Kind::Forbidden), "that is no answer to a second one");
    }
}
