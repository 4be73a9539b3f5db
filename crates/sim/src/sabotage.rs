//! Promises broken on purpose, to see that somebody notices.
//!
//! Most are a small patch of the order of steps: of the plan, of what a step does, or of what is written down when.
//! The rest are vendors that lie.

use async_trait::async_trait;
use pgrotate_core::executor::World;
use pgrotate_core::journal::{Event, Outcome, Record};
use pgrotate_core::plan::{Action, Plan, Step};
use pgrotate_core::provider::Change;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::run::RunState;
use pgrotate_core::{Error, Result, Retry, StepId};

use crate::shape::Way;

/// A promise that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The server gets the password before the vault of record has it.
    InstallBeforeStage,
    /// The vault of record calls the password current before the server has it.
    PromoteBeforeInstall,
    /// The copies are written before the server has the password.
    PublishBeforeInstall,
    /// The application restarts before its copy is written.
    RestartBeforePublish,
    /// The pending password is dropped a moment before it becomes current.
    DiscardBeforePromote,
    /// Steps are written down as started only after their effect.
    EffectBeforeJournal,
    /// A lost answer of the server is taken for a no.
    LostAnswerIsNo,
    /// A second try to change the server brings another password.
    RetryMakesNewPassword,
    /// A run that is called off drops the pending password however far it has come.
    AbortPastNoReturn,
    /// A lease is given to whoever asks.
    LeaseForEverybody,
    /// The story is told once more than it should be.
    TellsTwice,
    /// Copies are written without a look at what is there.
    WritesBlindly,
    /// The outcome of a step holds the password.
    PasswordInJournal,
    /// A copy that can't be read back is called fine.
    UnseenIsFine,
    /// Nobody looks whether the application is well.
    HealthIsAssumed,
    /// The vault of record forgets the pending password when it becomes current.
    PromoteForgets,
    /// A store changes what stands beside a copy.
    WriteSpills,
    /// A store that shows nothing takes a write and does not keep it.
    WriteIsLost,
    /// The application is told to restart, and stays as it is, and looks healthy.
    RestartIsFeigned,
    /// The server says that it has changed its password, and takes another one.
    InstallGarbles,
    /// The role that was live is retired before those who use it have moved.
    RetireBeforeMove,
    /// The role that was live rests with a password that the vault of record does not hold.
    RestIsUnstaged,
    /// The idle role's password takes the place of the old one before that is dead.
    LaidAsideTooSoon,
    /// A run that is called off drops the pending password, and leaves the idle role with it.
    AbortLeavesTheIdle,
    /// Nobody waits for a session that may still change a role.
    SessionsAreIgnored,
    /// The vault of record does not say whose the password is that it calls current now.
    PromoteNamesNobody,
    /// The role that is live gets the password that is meant for the idle one.
    InstallHitsTheLiveRole,
}

impl Sabotage {
    /// All of them, each with the number of a promise that it breaks.
    pub const ALL: [(Self, char); 26] = [
        (Self::InstallBeforeStage, '1'),
        (Self::PromoteBeforeInstall, '2'),
        (Self::PublishBeforeInstall, '2'),
        (Self::RestartBeforePublish, '7'),
        (Self::DiscardBeforePromote, '1'),
        (Self::EffectBeforeJournal, '1'),
        (Self::LostAnswerIsNo, '1'),
        (Self::RetryMakesNewPassword, '1'),
        (Self::AbortPastNoReturn, '1'),
        (Self::LeaseForEverybody, '3'),
        (Self::TellsTwice, '6'),
        (Self::WritesBlindly, '6'),
        (Self::PasswordInJournal, '4'),
        (Self::UnseenIsFine, '7'),
        (Self::HealthIsAssumed, '7'),
        (Self::PromoteForgets, '1'),
        (Self::WriteSpills, '5'),
        (Self::WriteIsLost, '7'),
        (Self::RestartIsFeigned, '7'),
        (Self::InstallGarbles, '1'),
        (Self::RetireBeforeMove, '1'),
        (Self::RestIsUnstaged, '7'),
        (Self::LaidAsideTooSoon, '7'),
        (Self::AbortLeavesTheIdle, '2'),
        (Self::PromoteNamesNobody, '1'),
        (Self::InstallHitsTheLiveRole, '1'),
    ];

    /// The ways to rotate in which it can do harm.
    pub fn ways(self) -> &'static [Way] {
        const TURNS: [Way; 2] = [Way::Password, Way::NoLogin];
        match self {
            Self::RestIsUnstaged | Self::LaidAsideTooSoon => &TURNS[..1],
            Self::RetireBeforeMove
            | Self::AbortLeavesTheIdle
            | Self::SessionsAreIgnored
            | Self::PromoteNamesNobody
            | Self::InstallHitsTheLiveRole => &TURNS,
            _ => &[Way::InPlace],
        }
    }
}

/// A rotation whose steps somebody has patched.
pub(crate) struct Saboteur<'a> {
    pub(crate) rotation: &'a Rotation,
    pub(crate) sabotage: Sabotage,
}

#[async_trait]
impl World for Saboteur<'_> {
    fn plan(&self) -> Plan {
        let mut plan = self.rotation.plan();
        patch(&mut plan, self.sabotage);
        plan
    }

    async fn perform(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        match (self.sabotage, &step.action) {
            (Sabotage::InstallBeforeStage, Action::Stage) => self.install_then_stage(run).await,
            (Sabotage::DiscardBeforePromote, Action::Promote) => self.discard_then_promote(step, run).await,
            (Sabotage::RetryMakesNewPassword, Action::Install) => self.install_another(step, run).await,
            (Sabotage::LostAnswerIsNo, Action::Install) => {
                self.rotation.perform(step, run).await.map_err(|error| match error.retry() {
                    Retry::Unknown => Error::new(error.kind(), "change the server"),
                    _ => error,
                })
            }
            (Sabotage::RestIsUnstaged, Action::RetireRole) => {
                // What it has staged it has in its memory, too.
                let rotation = self.rotation;
                rotation.keyring.keys(&*rotation.vault, rotation.twin_name(), &rotation.key, run).await?;
                rotation.vault.discard(run.run).await?;
                rotation.perform(step, run).await
            }
            (Sabotage::TellsTwice, Action::Record { .. }) => {
                self.rotation.perform(step, run).await?;
                self.rotation.perform(step, run).await
            }
            (Sabotage::PasswordInJournal, Action::Promote) => {
                let outcome = self.rotation.perform(step, run).await?;
                let state = self.rotation.vault.read().await?;
                Ok(match state.current {
                    Some(current) => outcome.note(current.secret.expose()),
                    None => outcome,
                })
            }
            (Sabotage::UnseenIsFine, Action::VerifyCopy { .. }) => {
                self.rotation.perform(step, run).await.map(|_| Outcome::confirmed())
            }
            (Sabotage::HealthIsAssumed | Sabotage::RestartBeforePublish, Action::Verify { .. }) => {
                Ok(Outcome::confirmed())
            }
            (Sabotage::HealthIsAssumed, Action::Activate { .. }) => {
                Ok(Outcome::skipped("it will have noticed"))
            }
            _ => self.rotation.perform(step, run).await,
        }
    }

    async fn discard(&self, run: &RunState) -> Result<()> {
        match self.sabotage {
            Sabotage::AbortLeavesTheIdle => self.rotation.vault.discard(run.run).await,
            _ => self.rotation.discard(run).await,
        }
    }
}

impl Saboteur<'_> {
    async fn install_then_stage(&self, run: &RunState) -> Result<Outcome> {
        let rotation = self.rotation;
        let next = rotation.policy.generate(&rotation.target.user, &*rotation.entropy)?;
        let current = rotation.vault.read().await?.current.ok_or_else(|| Error::internal("no password"))?;
        let change = Change { run: run.run, current: &current.secret, next: &next };
        rotation.authority.install(&change).await?;
        rotation.vault.stage(run.run, &next).await?;
        Ok(Outcome { fingerprint: Some(rotation.key.fingerprint(&next)), ..Outcome::changed() })
    }

    async fn discard_then_promote(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        let vault = &self.rotation.vault;
        for pending in vault.read().await?.pending {
            vault.discard(run.run).await?;
            vault.stage(run.run, &pending.secret).await?;
        }
        self.rotation.perform(step, run).await
    }

    async fn install_another(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        if run.step(&step.id).attempts > 1 {
            let rotation = self.rotation;
            let another = rotation.policy.generate(&rotation.target.user, &*rotation.entropy)?;
            rotation.vault.discard(run.run).await?;
            rotation.vault.stage(run.run, &another).await?;
        }
        self.rotation.perform(step, run).await
    }
}

/// The step that makes the password with which the role that was live will rest.
const STAGES: &str = "retire/idle password";

/// Changes the order of a plan's steps.
fn patch(plan: &mut Plan, sabotage: Sabotage) {
    match sabotage {
        Sabotage::PromoteBeforeInstall => {
            waits_for(plan, "promote", &["stage"]);
            waits_for(plan, "install", &["promote"]);
            publish_waits_for(plan, "prove");
            plan.steps.swap(2, 4);
            plan.steps.swap(3, 4);
        }
        Sabotage::PublishBeforeInstall => publish_waits_for(plan, "stage"),
        Sabotage::RestartBeforePublish => {
            for step in plan.steps.iter_mut().filter(|step| step.action.kind() == "activate") {
                step.after = vec![StepId::from("promote")];
            }
        }
        Sabotage::RetireBeforeMove => {
            waits_for(plan, "retire/role", &["promote"]);
            if plan.place(&StepId::from(STAGES)).is_some() {
                waits_for(plan, STAGES, &["promote"]);
                waits_for(plan, "retire/role", &[STAGES]);
            }
        }
        Sabotage::LaidAsideTooSoon => {
            waits_for(plan, "retire/dead password", &[STAGES]);
        }
        _ => {}
    }
    debug_assert_eq!(plan.defect(), None, "{sabotage:?}");
}

fn waits_for(plan: &mut Plan, step: &str, after: &[&str]) {
    let step = plan.steps.iter_mut().find(|own| own.id.as_str() == step).expect("a step of every plan");
    step.after = after.iter().map(|id| StepId::from(*id)).collect();
}

fn publish_waits_for(plan: &mut Plan, id: &str) {
    for step in plan.steps.iter_mut().filter(|step| step.action.kind() == "publish") {
        step.after = vec![StepId::from(id)];
    }
}

/// Splits what is to be written down now from what a saboteur keeps for later: that steps have been started.
pub(crate) fn held_back(records: &[Record]) -> usize {
    let started = |record: &&Record| matches!(record.event, Event::StepStarted { .. });
    records.len() - records.iter().rev().take_while(started).count()
}
