//! A plan is data: a list of named steps, each with the steps it waits for.
//!
//! The same value is printed by `plan`, walked by the executor, and can be walked by any other
//! engine. Steps that don't wait for each other run at the same time, so a run takes as long
//! as its longest chain.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{CopyId, Environment, RunId, StepId};
use crate::secret::{Fingerprint, hex};

/// The version of the plan's own form.
pub const FORMAT: u16 = 1;

/// How availability is kept during a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// One role: its password changes, and consumers follow.
    InPlace,
    /// Two roles that take turns: the idle one gets a new password, and consumers move to it.
    Alternating,
    /// No password changes: copies that have drifted are brought in line with the vault of record.
    Repair,
}

/// What a step does. The names are those of the contract's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Looks at everything the run will need, before anything changes.
    Check,
    /// Makes a password and stores it as pending in the vault of record.
    Stage,
    /// Stores an earlier password as pending in the vault of record, instead of a new one.
    StagePrevious {
        /// Which.
        back: Back,
    },
    /// Gives it to the authority. The point of no return.
    Install,
    /// Logs in with it.
    Prove,
    /// Makes it current in the vault of record.
    Promote,
    /// Writes one copy.
    Publish {
        /// Which.
        copy: CopyId,
    },
    /// Makes one consumer take up its copies.
    Activate {
        /// Which.
        consumer: String,
    },
    /// Logs in with the new password and sees the old one refused.
    VerifyLogin,
    /// Reads one copy back.
    VerifyCopy {
        /// Which.
        copy: CopyId,
    },
    /// Sees sessions of one consumer that began after the change.
    VerifySessions {
        /// Which.
        consumer: String,
    },
    /// Tries both passwords from another place.
    VerifyFrom {
        /// Which.
        vantage: String,
    },
    /// Sees the new password refused by the servers of the other environments.
    VerifyElsewhere,
    /// Lets one verification speak.
    Verify {
        /// Which.
        verification: String,
    },
    /// Waits, so that what fails only after a while can show.
    Soak {
        /// How long, counted from its first start.
        seconds: u64,
    },
    /// Repeats a proof after the wait.
    VerifyAgain {
        /// Which.
        proof: Box<Action>,
    },
    /// Takes the version before out of use.
    Retire {
        /// Of which copy.
        copy: CopyId,
    },
    /// Makes the password with which the role that was live lies idle, and stores it as pending.
    StageIdle,
    /// Takes the role that was live out of use.
    RetireRole,
    /// Keeps the idle role's password in the vault of record, in place of the one that is dead.
    LayAside,
    /// Writes the run down in one place.
    Record {
        /// Which.
        recorder: String,
    },
}

impl Action {
    /// The step's name in the contract's table.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Stage | Self::StagePrevious { .. } => "stage",
            Self::Install => "install",
            Self::Prove => "prove",
            Self::Promote => "promote",
            Self::Publish { .. } => "publish",
            Self::Activate { .. } => "activate",
            Self::VerifyLogin
            | Self::VerifyCopy { .. }
            | Self::VerifySessions { .. }
            | Self::VerifyFrom { .. }
            | Self::VerifyElsewhere
            | Self::Verify { .. }
            | Self::VerifyAgain { .. } => "verify",
            Self::Soak { .. } => "soak",
            Self::Retire { .. } | Self::StageIdle | Self::RetireRole | Self::LayAside => "retire",
            Self::Record { .. } => "record",
        }
    }

    /// What it is done to, if the plan can have several steps of its kind.
    pub fn subject(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Publish { copy } | Self::VerifyCopy { copy } | Self::Retire { copy } => {
                copy.as_str().into()
            }
            Self::Activate { consumer } => consumer.into(),
            Self::VerifyLogin => "login".into(),
            Self::VerifySessions { consumer } => format!("sessions of {consumer}").into(),
            Self::VerifyFrom { vantage } => format!("login from {vantage}").into(),
            Self::VerifyElsewhere => "login elsewhere".into(),
            Self::Verify { verification } => verification.into(),
            Self::Record { recorder } => recorder.into(),
            Self::StageIdle => "idle password".into(),
            Self::RetireRole => "role".into(),
            Self::LayAside => "dead password".into(),
            Self::VerifyAgain { proof } => return proof.subject(),
            _ => return None,
        })
    }

    /// What is done, be it for the first or the second time.
    pub fn proof(&self) -> &Self {
        match self {
            Self::VerifyAgain { proof } => proof.proof(),
            own => own,
        }
    }

    fn step_id(&self) -> StepId {
        let verb = match self {
            Self::VerifyAgain { .. } => "verify-again",
            own => own.kind(),
        };
        StepId::new(match self.subject() {
            Some(subject) => format!("{verb}/{subject}"),
            None => verb.to_owned(),
        })
    }
}

/// Where a rollback leads: to the password from before a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Back {
    /// The run that is taken back.
    pub run: RunId,
    /// The mark of the password from before it.
    pub to: Fingerprint,
}

/// One effect of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name; unique within the plan.
    pub id: StepId,
    /// What it does.
    pub action: Action,
    /// The steps that must be done before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<StepId>,
}

impl Step {
    /// Names a step by its action.
    pub fn new(action: Action, after: Vec<StepId>) -> Self {
        Self { id: action.step_id(), action, after }
    }
}

/// What one rotation of one environment does, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT`] when it was made.
    pub format: u16,
    /// The environment.
    pub environment: Environment,
    /// How availability is kept.
    pub strategy: StrategyName,
    /// The role and where it logs in, for a person to read.
    pub target: String,
    /// The authority, for a person to read.
    pub authority: String,
    /// The vault of record.
    pub vault: CopyId,
    /// The steps, in an order that a person can follow; each waits only for earlier ones.
    pub steps: Vec<Step>,
}

impl Plan {
    /// A hash of everything that the plan says: what a person approved is what runs.
    pub fn hash(&self) -> PlanHash {
        let text = serde_json::to_vec(self).expect("a plan has only text in it");
        PlanHash(hex(&Sha256::digest(text)))
    }

    /// Where the step of this name stands.
    pub fn place(&self, id: &StepId) -> Option<usize> {
        self.steps.iter().position(|step| step.id == *id)
    }

    /// The step of this name.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }

    /// The steps of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Step> {
        self.steps.iter().filter(move |step| step.action.kind() == kind)
    }

    /// Whether it brings another password. What does not puts copies right.
    pub fn changes_password(&self) -> bool {
        self.steps.iter().any(|step| step.action == Action::Install)
    }

    /// How many roles it knows, and how one of two rests; nothing for a repair, which is the same for all.
    pub fn way(&self) -> Option<&'static str> {
        match self.strategy {
            StrategyName::Repair => None,
            StrategyName::InPlace => Some("one role"),
            StrategyName::Alternating if self.steps.iter().any(|step| step.action == Action::StageIdle) => {
                Some("two roles, of which the idle one rests with a password")
            }
            StrategyName::Alternating => Some("two roles, of which the idle one may not log in"),
        }
    }

    /// Whether a step is the one behind which there is only forward: from then on somebody may depend on what is new.
    pub fn is_point_of_no_return(&self, action: &Action) -> bool {
        match self.strategy {
            StrategyName::InPlace => *action == Action::Install,
            StrategyName::Alternating => *action == Action::Promote,
            StrategyName::Repair => matches!(action, Action::Publish { .. }),
        }
    }

    /// The copies that it puts right, if it brings no other password.
    pub fn repair(&self) -> Option<Vec<CopyId>> {
        let copy = |step: &Step| match &step.action {
            Action::Publish { copy } => Some(copy.clone()),
            _ => None,
        };
        (!self.changes_password()).then(|| self.steps.iter().filter_map(copy).collect())
    }

    /// Where it leads back to, if it is a rollback.
    pub fn back(&self) -> Option<&Back> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::StagePrevious { back } => Some(back),
            _ => None,
        })
    }

    /// What is wrong with the plan, if anything: a name used twice, or a step that waits for
    /// one that does not stand before it.
    pub fn defect(&self) -> Option<String> {
        let mut earlier: Vec<&StepId> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            if earlier.contains(&&step.id) {
                return Some(format!("the step {} stands in it twice", step.id));
            }
            if let Some(missing) = step.after.iter().find(|id| !earlier.contains(id)) {
                return Some(format!("{} waits for {missing}, which does not stand before it", step.id));
            }
            earlier.push(&step.id);
        }
        None
    }
}

/// SHA-256 of a plan, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanHash(String);

impl PlanHash {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12.min(self.0.len())]
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a strategy has to know of a rotation: names, and who waits for whom.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The environment.
    pub environment: Environment,
    /// The role and where it logs in.
    pub target: String,
    /// The authority.
    pub authority: String,
    /// The vault of record.
    pub vault: CopyId,
    /// The copies, those that consumers wait for first.
    pub copies: Vec<CopyOutline>,
    /// The consumers.
    pub consumers: Vec<ConsumerOutline>,
    /// The verifications beside login and read-back.
    pub verifications: Vec<VerificationOutline>,
    /// How long to wait before everything is proven a second time; `None` proves it once.
    pub soak: Option<Duration>,
    /// The earlier password that shall be brought back, instead of a new one.
    pub back: Option<Back>,
    /// The places from which both passwords are tried, beside here.
    pub vantages: Vec<String>,
    /// Whether there are other environments, whose servers must refuse the new password.
    pub elsewhere: bool,
    /// How the role that was live is taken out of use, if there are two that take turns.
    pub retirement: Option<Retirement>,
    /// The recorders.
    pub recorders: Vec<String>,
}

/// How a role that takes turns with another one is taken out of use until it is its turn again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retirement {
    /// It gets a random password that only the vault of record knows, and changes it itself when its turn comes.
    #[default]
    Password,
    /// It may not log in, and has no password: the other one has to be allowed to administer it.
    NoLogin,
}

/// A copy, as a strategy sees it.
#[derive(Clone, Debug)]
pub struct CopyOutline {
    /// Its id.
    pub id: CopyId,
    /// Whether the version before is taken out of use at the end.
    pub retire: bool,
}

/// A consumer, as a strategy sees it.
#[derive(Clone, Debug)]
pub struct ConsumerOutline {
    /// Its name.
    pub id: String,
    /// The copies that it reads; empty means that all are waited for.
    pub waits_for: Vec<CopyId>,
    /// Whether its sessions can be told from others.
    pub has_sessions: bool,
}

impl ConsumerOutline {
    /// Whether it reads this copy, or may.
    pub fn waits(&self, copy: &CopyOutline) -> bool {
        self.waits_for.is_empty() || self.waits_for.contains(&copy.id)
    }
}

impl Outline {
    /// Whether a consumer waits for this copy.
    pub fn is_awaited(&self, copy: &CopyOutline) -> bool {
        self.consumers.iter().any(|consumer| consumer.waits(copy))
    }
}

/// A verification, as a strategy sees it.
#[derive(Clone, Debug)]
pub struct VerificationOutline {
    /// Its name.
    pub id: String,
    /// Whether it depends on consumers having taken up the new copies.
    pub after_activation: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish() -> Action {
        Action::Publish { copy: "a:b".into() }
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            format: FORMAT,
            environment: "dev".into(),
            strategy: StrategyName::InPlace,
            target: "app@db".into(),
            authority: "server".into(),
            vault: "vault:one".into(),
            steps,
        }
    }

    /// Journals and scripts know steps by these names, so they stay.
    #[test]
    fn a_step_is_named_after_what_it_does_to_what() {
        let copy = || CopyId::from("a:b");
        let back = Back { run: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(), to: fingerprint() };
        let again = Action::VerifyAgain { proof: Box::new(Action::VerifyCopy { copy: copy() }) };
        assert_eq!(again.proof(), &Action::VerifyCopy { copy: copy() });
        assert_eq!(publish().proof(), &publish());
        let actions = [
            Action::Check,
            Action::Stage,
            Action::StagePrevious { back },
            Action::Install,
            Action::Prove,
            Action::Promote,
            publish(),
            Action::Activate { consumer: "app".into() },
            Action::VerifyLogin,
            Action::VerifyCopy { copy: copy() },
            Action::VerifySessions { consumer: "app".into() },
            Action::VerifyFrom { vantage: "agent".into() },
            Action::VerifyElsewhere,
            Action::Verify { verification: "health".into() },
            Action::Soak { seconds: 60 },
            again,
            Action::Retire { copy: copy() },
            Action::StageIdle,
            Action::RetireRole,
            Action::LayAside,
            Action::Record { recorder: "log".into() },
        ];
        let names = actions.map(|action| format!("{}: {}", action.kind(), action.step_id()));
        insta::assert_snapshot!(names.join("\n"), @r"
        check: check
        stage: stage
        stage: stage
        install: install
        prove: prove
        promote: promote
        publish: publish/a:b
        activate: activate/app
        verify: verify/login
        verify: verify/a:b
        verify: verify/sessions of app
        verify: verify/login from agent
        verify: verify/login elsewhere
        verify: verify/health
        soak: soak
        verify: verify-again/a:b
        retire: retire/a:b
        retire: retire/idle password
        retire: retire/role
        retire: retire/dead password
        record: record/log
        ");
    }

    fn fingerprint() -> Fingerprint {
        crate::FingerprintKey::new([1; 32]).fingerprint(&crate::Secret::new("old"))
    }

    #[test]
    fn a_plan_that_nobody_could_follow_is_found() {
        let step =
            |action: Action, after: &[&str]| Step::new(action, after.iter().map(|id| (*id).into()).collect());
        let good = plan(vec![step(Action::Check, &[]), step(publish(), &["check"])]);
        assert_eq!(good.defect(), None);
        let twice = plan(vec![step(Action::Check, &[]), step(Action::Check, &[])]);
        assert_eq!(twice.defect().as_deref(), Some("the step check stands in it twice"));
        let early = plan(vec![step(publish(), &["check"]), step(Action::Check, &[])]);
        assert!(early.defect().unwrap().contains("waits for check, which does not stand before it"));
        let itself = plan(vec![step(Action::Check, &["check"])]);
        assert!(itself.defect().is_some(), "it would wait for ever");
    }

    #[test]
    fn steps_are_found_by_name_and_kind() {
        let plan = plan(vec![Step::new(Action::Check, Vec::new()), Step::new(publish(), Vec::new())]);
        assert_eq!(plan.step(&"publish/a:b".into()).unwrap().action, publish());
        assert_eq!(plan.step(&"stage".into()), None);
        assert_eq!(plan.of_kind("publish").map(|step| step.id.as_str()).collect::<Vec<_>>(), ["publish/a:b"]);
        assert_eq!(plan.back(), None);
    }

    #[test]
    fn a_rollback_says_where_it_leads() {
        let back = Back { run: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(), to: fingerprint() };
        let plan = plan(vec![Step::new(Action::StagePrevious { back: back.clone() }, Vec::new())]);
        assert_eq!(plan.back(), Some(&back));
    }

    #[test]
    fn a_hash_has_a_short_form_that_begins_it() {
        let hash = plan(Vec::new()).hash();
        assert_eq!((hash.as_str().len(), hash.short().len()), (64, 12));
        assert!(hash.as_str().starts_with(hash.short()));
        assert_eq!(hash.to_string(), hash.as_str());
        let cut: PlanHash = serde_json::from_str("\"abc\"").unwrap();
        assert_eq!(cut.short(), "abc", "of a text that is no hash");
    }
}
