//! One environment, bound to everything that a rotation of its password touches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::lock::Mutex;

use crate::census::{self, Sessions};
use crate::database_url::{DatabaseUrl, Target};
use crate::env::{Clock, Entropy};
use crate::error::{Error, Result};
use crate::executor::World;
use crate::ids::{CopyId, Environment};
use crate::journal::Outcome;
use crate::keyring::{Keyring, Keys};
use crate::password::Policy;
use crate::past::Past;
use crate::plan::{
    Action, Back, ConsumerOutline, CopyOutline, Outline, Plan, Retirement, Step, VerificationOutline,
};
use crate::provider::{
    Authority, Census, Consumer, Overheard, Pair, Recorder, Seat, Sink, Vantage, Vault, Verification,
    Verifier,
};
use crate::run::RunState;
use crate::secret::FingerprintKey;
use crate::steps;
use crate::strategy;
use crate::value::{Template, UrlTemplate};

/// A sink with what belongs into it.
pub struct Copy {
    /// Where it is kept.
    pub sink: Box<dyn Sink>,
    /// What it holds.
    pub template: Template,
    /// Whether the version before is taken out of use at the end.
    pub retire: bool,
}

/// A consumer with the copies that it reads.
pub struct BoundConsumer {
    /// Who it is.
    pub consumer: Box<dyn Consumer>,
    /// The copies that it reads; empty means that all are waited for.
    pub waits_for: Vec<CopyId>,
    /// How its sessions look, if they can be told from others.
    pub sessions: Option<Sessions>,
}

/// What a rotation looks at beyond its own systems.
#[derive(Default)]
pub struct Surroundings {
    /// Who is logged in.
    pub census: Option<Box<dyn Census>>,
    /// How long is looked who is logged in, and waited for them.
    pub times: census::Times,
    /// The servers of the other environments.
    pub elsewhere: Vec<(Environment, Box<dyn Verifier>)>,
    /// Other places from which both passwords are tried.
    pub vantages: Vec<Box<dyn Vantage>>,
    /// What the journal knows.
    pub past: Past,
    /// What the systems' answers tell beside what was asked, if somebody listens.
    pub overheard: Option<Arc<dyn Overheard>>,
}

/// The role that takes turns with the configured one, with everything that is bound to it.
pub struct Twin {
    /// Where it logs in.
    pub target: Target,
    /// The server's own side of its password.
    pub authority: Box<dyn Authority>,
    /// Proves its password.
    pub verifier: Box<dyn Verifier>,
    /// Who is logged in as it.
    pub census: Option<Box<dyn Census>>,
    /// The servers of the other environments.
    pub elsewhere: Vec<(Environment, Box<dyn Verifier>)>,
    /// Other places from which its passwords are tried.
    pub vantages: Vec<Box<dyn Vantage>>,
    /// Both roles, as the server has them.
    pub pair: Box<dyn Pair>,
    /// How the one that was live is taken out of use.
    pub retirement: Retirement,
}

/// One role of an environment, with everything that is bound to it.
#[derive(Clone, Copy)]
pub struct Role<'a> {
    /// Where it logs in.
    pub target: &'a Target,
    /// The server's own side of its password.
    pub authority: &'a dyn Authority,
    /// Proves its password.
    pub verifier: &'a dyn Verifier,
    /// Who is logged in as it.
    pub census: Option<&'a dyn Census>,
    /// The servers of the other environments.
    pub elsewhere: &'a [(Environment, Box<dyn Verifier>)],
    /// Other places from which its passwords are tried.
    pub vantages: &'a [Box<dyn Vantage>],
}

/// Everything that rotating one environment's password needs.
pub struct Rotation {
    /// The environment.
    pub environment: Environment,
    /// Where the role logs in.
    pub target: Target,
    /// The role that takes turns with it, if there is one.
    pub twin: Option<Twin>,
    /// What new passwords look like.
    pub policy: Policy,
    /// The form of a URL that can't be read.
    pub url: UrlTemplate,
    /// The vault of record.
    pub vault: Box<dyn Vault>,
    /// The server's own side.
    pub authority: Box<dyn Authority>,
    /// Proves a password.
    pub verifier: Box<dyn Verifier>,
    /// The copies.
    pub copies: Vec<Copy>,
    /// The consumers.
    pub consumers: Vec<BoundConsumer>,
    /// The verifications beside login and read-back.
    pub verifications: Vec<Box<dyn Verification>>,
    /// How long to wait before everything is proven a second time; `None` proves it once.
    pub soak: Option<Duration>,
    /// The earlier password that shall be brought back, instead of a new one.
    pub back: Option<Back>,
    /// The copies that shall be put right with the current password, instead of a new one for all.
    pub repair: Option<Vec<CopyId>>,
    /// The recorders.
    pub recorders: Vec<Box<dyn Recorder>>,
    /// Everything around.
    pub around: Surroundings,
    /// Marks passwords.
    pub key: FingerprintKey,
    /// The door to time.
    pub clock: Arc<dyn Clock>,
    /// The door to chance.
    pub entropy: Arc<dyn Entropy>,
    /// The run's passwords, fetched once.
    pub keyring: Keyring,
    /// One lock for each thing that several copies are written into as a whole.
    pub wholes: BTreeMap<String, Mutex<()>>,
}

impl Rotation {
    /// What a strategy has to know. Copies that consumers wait for come first.
    pub fn outline(&self) -> Outline {
        let awaited = |id: &CopyId| self.consumers.iter().any(|bound| bound.waits_for.contains(id));
        let mut copies: Vec<&Copy> = self.copies.iter().collect();
        copies.sort_by_key(|copy| !awaited(copy.sink.id()));
        Outline {
            environment: self.environment.clone(),
            target: self.described(),
            authority: self.authority.describe(),
            vault: self.vault.id().clone(),
            copies: copies
                .iter()
                .map(|copy| CopyOutline { id: copy.sink.id().clone(), retire: copy.retire })
                .collect(),
            consumers: self
                .consumers
                .iter()
                .map(|bound| ConsumerOutline {
                    id: bound.consumer.id().to_owned(),
                    waits_for: bound.waits_for.clone(),
                    has_sessions: self.around.census.is_some() && bound.sessions.is_some(),
                })
                .collect(),
            verifications: self
                .verifications
                .iter()
                .map(|own| VerificationOutline {
                    id: own.id().to_owned(),
                    after_activation: own.after_activation(),
                })
                .collect(),
            soak: self.soak,
            back: self.back.clone(),
            vantages: self.around.vantages.iter().map(|own| own.name().to_owned()).collect(),
            elsewhere: !self.around.elsewhere.is_empty(),
            retirement: self.twin.as_ref().map(|twin| twin.retirement),
            recorders: self.recorders.iter().map(|own| own.id().to_owned()).collect(),
        }
    }

    /// The steps that a rotation takes.
    pub fn plan(&self) -> Plan {
        let outline = self.outline();
        match (&self.repair, outline.retirement) {
            (Some(copies), _) => strategy::repair::plan(&outline, copies),
            (None, Some(retirement)) => strategy::alternating::plan(&outline, retirement),
            (None, None) => strategy::in_place::plan(&outline),
        }
    }

    /// Whose passwords are rotated and where they log in, for a person to read.
    pub fn described(&self) -> String {
        match &self.twin {
            None => self.target.to_string(),
            Some(twin) => format!("{} and {}", twin.target.user, self.target),
        }
    }

    /// The role in a seat.
    pub fn role(&self, seat: Seat) -> Role<'_> {
        match (&self.twin, seat) {
            (Some(twin), Seat::Second) => Role {
                target: &twin.target,
                authority: &*twin.authority,
                verifier: &*twin.verifier,
                census: twin.census.as_deref(),
                elsewhere: &twin.elsewhere,
                vantages: &twin.vantages,
            },
            _ => Role {
                target: &self.target,
                authority: &*self.authority,
                verifier: &*self.verifier,
                census: self.around.census.as_deref(),
                elsewhere: &self.around.elsewhere,
                vantages: &self.around.vantages,
            },
        }
    }

    /// The name of the second role, where two take turns.
    pub fn twin_name(&self) -> Option<&str> {
        self.twin.as_ref().map(|twin| twin.target.user.as_str())
    }

    /// The role that takes turns with the one in this seat; without a twin it is the same.
    pub(crate) fn other(&self, seat: Seat) -> Seat {
        if self.twin.is_none() { seat } else { seat.other() }
    }

    /// What a present URL has to point at: it may name the one role or the other.
    pub(crate) fn target_of(&self, url: &DatabaseUrl) -> &Target {
        match &self.twin {
            Some(twin) if url.target().user == twin.target.user => &twin.target,
            _ => &self.target,
        }
    }

    /// Locks for [`Rotation::wholes`], from the copies themselves.
    pub fn locks(copies: &[Copy]) -> BTreeMap<String, Mutex<()>> {
        copies.iter().map(|copy| (copy.sink.whole(), Mutex::new(()))).collect()
    }

    /// The passwords of a run.
    pub(crate) async fn keys(&self, run: &RunState) -> Result<Arc<Keys>> {
        self.keyring.keys(&*self.vault, self.twin_name(), &self.key, run).await
    }

    /// Whether one of the copies is at this place.
    pub(crate) fn has_copy_at(&self, location: &str) -> bool {
        self.copies.iter().any(|copy| copy.sink.location() == location)
    }

    /// The copies that a run has to do with.
    pub(crate) fn looked_at(&self) -> impl Iterator<Item = &Copy> {
        let meant = |copy: &&Copy| match &self.repair {
            Some(repair) => repair.contains(copy.sink.id()),
            None => true,
        };
        self.copies.iter().filter(meant)
    }

    /// The copy of this id.
    pub(crate) fn copy(&self, id: &CopyId) -> Result<&Copy> {
        self.copies.iter().find(|copy| copy.sink.id() == id).ok_or_else(|| gone(id.as_str()))
    }
}

/// A step of an older plan names something that the configuration no longer has.
pub(crate) fn gone(name: &str) -> Error {
    Error::new(crate::Kind::Config, format!("go on with {name}"))
        .because("the run's plan has it, the configuration does not any more")
        .hint("put it back into the configuration until the run is done")
}

#[async_trait]
impl World for Rotation {
    fn plan(&self) -> Plan {
        Self::plan(self)
    }

    async fn perform(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        match step.action.proof() {
            Action::Check => steps::check::perform(self, run).await,
            Action::Stage | Action::StagePrevious { .. } => steps::stage::perform(self, step, run).await,
            Action::Install => steps::install::perform(self, step, run).await,
            Action::Prove => steps::prove::perform(self, run).await,
            Action::Promote => steps::promote::perform(self, run).await,
            Action::Publish { copy } => steps::publish::perform(self, copy, run).await,
            Action::Activate { consumer } => steps::activate::perform(self, consumer, run).await,
            Action::VerifyLogin => steps::verify::login(self, run).await,
            Action::VerifyCopy { copy } => steps::verify::copy(self, copy, step, run).await,
            Action::VerifySessions { consumer } => steps::sessions::perform(self, consumer, run).await,
            Action::VerifyFrom { vantage } => steps::verify::from(self, vantage, run).await,
            Action::VerifyElsewhere => steps::verify::elsewhere(self, run).await,
            Action::Verify { verification } => steps::verify::other(self, verification, run).await,
            Action::Soak { .. } | Action::VerifyAgain { .. } => {
                Err(Error::internal("a step that is the executor's own came to the world"))
            }
            Action::Retire { copy } => steps::retire::perform(self, copy, run).await,
            Action::StageIdle => steps::idle::stage(self, run).await,
            Action::RetireRole => steps::idle::retire(self, run).await,
            Action::LayAside => steps::idle::lay_aside(self, run).await,
            Action::Record { recorder } => steps::record::perform(self, recorder, step, run).await,
        }
    }

    async fn discard(&self, run: &RunState) -> Result<()> {
        steps::idle::restore(self, run).await?;
        self.vault.discard(run.run).await
    }
}

#[cfg(test)]
mod tests;
