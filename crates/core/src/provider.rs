//! What an outside system can be for a rotation, as traits.
//!
//! One value implements one role for one environment: a sink *is* one copy, already bound to
//! its vault, item or file. Every effect is idempotent under its run id, and every one that
//! changes something can be asked whether it has happened.

mod pair;
mod vault;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::by_hand::{Instruction, Part};
use crate::census::{Sample, Session};
use crate::error::Result;
use crate::ids::{CopyId, Environment, RunId, VersionId};
use crate::journal::Outcome;
use crate::secret::Secret;
use crate::value::{Template, Update};
pub use pair::{Pair, Preparation, Seat, Statement};
pub use vault::{Entry, Survey, Vault, VaultState};

/// What a store can do beyond being written. Kept short: each flag changes what pgrotate does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The value can be read back.
    pub read_back: bool,
    /// Each write has an id of its own.
    pub version_ids: bool,
    /// The store says when a value was last written.
    pub reports_time: bool,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// This can't be known from here.
    Unseen,
    /// The run can go on; a person should look.
    Warning,
    /// The run must not start.
    Blocks,
}

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about, for instance a copy's id.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// Why it matters: what would come of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    /// Says what was found about what.
    pub fn new(severity: Severity, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { subject: subject.into(), severity, what: what.into(), why: None, mend: None }
    }

    /// Adds why it matters, where what was found does not say so by itself.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// Findings for a person to read: what is the same of several subjects is said once, about all of them.
pub fn grouped<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<Finding> {
    let mut groups: Vec<Finding> = Vec::new();
    for finding in findings {
        let alike = |own: &&mut Finding| {
            (own.severity, &own.what, &own.why, &own.mend)
                == (finding.severity, &finding.what, &finding.why, &finding.mend)
        };
        match groups.iter_mut().find(alike) {
            Some(group) => group.subject = format!("{}, {}", group.subject, finding.subject),
            None => groups.push(finding.clone()),
        }
    }
    groups
}

/// A change of the role's password on the server.
#[derive(Debug)]
pub struct Change<'a> {
    /// The run.
    pub run: RunId,
    /// The password that works now.
    pub current: &'a Secret,
    /// The password that shall work.
    pub next: &'a Secret,
}

/// The system that accepts or refuses a password: the PostgreSQL server, reached by SQL or by
/// its cloud's resource manager.
#[async_trait]
pub trait Authority: Send + Sync {
    /// What it is, as `KIND:NAME`.
    fn describe(&self) -> String;

    /// Where it is, precisely enough that two environments with the same text share it.
    fn location(&self) -> String;

    /// Whether the change would be allowed and possible now.
    async fn check(&self, current: &Secret) -> Result<Vec<Finding>>;

    /// Waits until nothing that an earlier try began is under way any more, so that a login then
    /// tells whether it had its effect.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the next password the one that works. Repeating it has the same end state.
    async fn install(&self, change: &Change<'_>) -> Result<Outcome>;

    /// How a person makes the new password the one that works.
    fn by_hand(&self) -> Vec<Instruction> {
        vec![Instruction::elsewhere(Part::Server, &self.describe())]
    }
}

/// What a server says to a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// The login succeeded, as the expected role.
    Accepted,
    /// The server refuses this password (SQLSTATE 28P01).
    Refused,
}

/// Proves a password by using it.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Logs in on a fresh connection, as the configured role, to the configured database.
    ///
    /// # Errors
    /// Everything that is neither yes nor no: unreachable, TLS, a role that may not log in.
    async fn login(&self, secret: &Secret) -> Result<Login>;

    /// The words of a shell that `psql` takes as its `--dbname`, without a password; `None` if it is no `psql` that
    /// could prove it.
    fn by_hand(&self) -> Option<String> {
        None
    }

    /// What the server calls itself, whatever name leads to it, for who may log in; nothing if it does not say.
    async fn identity(&self, _secret: &Secret) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Another place from which passwords are proven.
pub trait Vantage: Verifier {
    /// Its name within the environment.
    fn name(&self) -> &str;
}

/// Knows who is logged in as the role.
#[async_trait]
pub trait Census: Send + Sync {
    /// Looks for as long as the window: whoever was there at some time is in the sample. An empty window is one look.
    async fn take(&self, secret: &Secret, window: Duration) -> Result<Sample>;

    /// Ends sessions, and no other that has one's number by now. Gives how many were still there.
    async fn end(&self, secret: &Secret, sessions: &[Session]) -> Result<usize>;
}

/// What can be seen of a copy.
#[derive(Clone, Debug)]
pub enum Content {
    /// Its value.
    Value(Secret),
    /// It points at another copy instead of holding a value; where to, in the form of that
    /// copy's [`Sink::location`].
    Reference(String),
    /// It is there, and its value can't be read.
    Unseen,
    /// There is nothing.
    Absent,
}

/// A look at a copy.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is in it.
    pub content: Content,
    /// The current version's id, if the store has such.
    pub version: Option<VersionId>,
    /// When it was last written, if the store says so.
    pub updated_at: Option<Timestamp>,
}

/// A look at a copy, with what stands in the way of changing it.
#[derive(Debug)]
pub struct Inspection {
    /// What was seen.
    pub seen: Seen,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What the system itself calls the copy or what holds it, where that says more than [`Sink::location`]: an id
    /// that another one of the same name would not have.
    pub identity: Option<String>,
}

/// A place that keeps a copy.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The copy's id, as the contract prints it.
    fn id(&self) -> &CopyId;

    /// Where the copy is, precisely enough that two copies with the same text are the same.
    fn location(&self) -> String;

    /// What the store can do.
    fn capabilities(&self) -> Capabilities;

    /// What is read and written as a whole with other copies: an application's settings, a
    /// file, a JSON secret; precisely enough that two copies with the same text share it. Copies
    /// of one such thing are published one after the other.
    fn whole(&self) -> String {
        self.location()
    }

    /// Whether [`Sink::whole`] is safe from another process that writes it at the same time, so
    /// that two environments may have copies in it.
    fn guards_whole(&self) -> bool {
        false
    }

    /// Looks at the copy and at everything that could stop a change. Changes nothing.
    async fn check(&self) -> Result<Inspection>;

    /// Looks whether [`Sink::retire`] will be possible, for copies of which the version before is to be taken out of
    /// use. Changes nothing.
    async fn check_retirement(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Looks at the copy. Changes nothing.
    async fn inspect(&self) -> Result<Seen>;

    /// Brings the copy to the update's value: reads where it can, writes only what differs,
    /// and confirms what it wrote.
    async fn publish(&self, update: &Update<'_>) -> Result<Outcome>;

    /// Takes the version before this run's out of use, where the store can do that.
    async fn retire(&self, _previous: &VersionId) -> Result<Outcome> {
        Ok(Outcome::skipped("this store keeps no versions that could be taken out of use"))
    }

    /// How a person brings the copy to what the template says.
    fn by_hand(&self, _template: &Template) -> Vec<Instruction> {
        vec![Instruction::elsewhere(Part::Ci, self.id().as_str())]
    }
}

/// What a consumer needs to know to take up the new copies.
#[derive(Debug)]
pub struct Activation<'a> {
    /// The run.
    pub run: RunId,
    /// The versions that were published, by copy.
    pub versions: &'a BTreeMap<CopyId, VersionId>,
    /// The new password: what is repeated of other programs' words must not have it in it.
    pub password: &'a Secret,
    /// The old password, where it is still known: neither must it have that.
    pub previous: Option<&'a Secret>,
}

/// Something that uses the password and has to be told: an application that restarts.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Its name, as `KIND:NAME`.
    fn id(&self) -> &str;

    /// Whether it can be told, and what stands in the way.
    async fn check(&self) -> Result<Vec<Finding>>;

    /// Makes it take up the published copies: refresh, restart.
    async fn activate(&self, activation: &Activation<'_>) -> Result<Outcome>;

    /// How a person makes it take up the new copies.
    fn by_hand(&self) -> Vec<Instruction> {
        vec![Instruction::elsewhere(Part::Applications, self.id())]
    }
}

/// What a verification may use.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The run.
    pub run: RunId,
    /// The new password.
    pub password: &'a Secret,
    /// The old password, where it is still known: what is repeated of other programs' words must
    /// not have it in it either.
    pub previous: Option<&'a Secret>,
    /// The database URL with the new password.
    pub url: &'a Secret,
    /// From when on consumers may have been taking up the new copies.
    pub changing_since: Timestamp,
    /// From when on proof counts: the end of the last activation.
    pub since: Timestamp,
}

/// What works before a run, for a verification that can try itself out with it.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    /// The password that works now.
    pub password: &'a Secret,
    /// The database URL with it.
    pub url: &'a Secret,
}

/// What came of a verification that tried itself out.
#[derive(Debug, Default)]
pub struct Trial {
    /// What was found.
    pub findings: Vec<Finding>,
    /// How often it logged in for that, under a name that is not ours.
    pub logins: usize,
}

/// A proof, after publishing, that the new password is in use.
#[async_trait]
pub trait Verification: Send + Sync {
    /// Its name within the environment.
    fn id(&self) -> &str;

    /// Whether it depends on consumers having taken up the new copies.
    fn after_activation(&self) -> bool {
        true
    }

    /// Whether it will be possible, as far as that can be told before.
    async fn check(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// The part of the check that needs the password of now: asked once the vault of record has told it. Changes
    /// nothing.
    async fn try_out(&self, _present: &Present<'_>) -> Result<Trial> {
        Ok(Trial::default())
    }

    /// Proves it, or fails. What can't be seen is an outcome of its own, never a success.
    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome>;

    /// How a person proves it.
    fn by_hand(&self) -> Vec<Instruction> {
        vec![Instruction::elsewhere(Part::Validation, self.id())]
    }
}

/// What is written down about a run that is done.
#[derive(Clone, Debug, Serialize)]
pub struct Story {
    /// The run.
    pub run: RunId,
    /// The run that it takes back, if it is a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takes_back: Option<RunId>,
    /// The environment.
    pub environment: Environment,
    /// Who asked for it.
    pub operator: String,
    /// The ticket, as the operator named it.
    pub ticket: Option<String>,
    /// When the run began.
    pub started_at: Timestamp,
    /// When the copies were proven.
    pub proven_at: Timestamp,
    /// The role and where it logs in, without password.
    pub target: String,
    /// The versions written, by copy; a Key Vault copy's version is its Secret Id.
    pub versions: BTreeMap<CopyId, VersionId>,
    /// The longest time for which the applications can have been unable to log in, in milliseconds.
    pub window_ms: Option<u64>,
}

impl Story {
    /// The Key Vault Secret Ids among the versions, which the ticket wants to see.
    pub fn secret_ids(&self) -> impl Iterator<Item = (&CopyId, &VersionId)> {
        self.versions.iter().filter(|(copy, _)| copy.kind() == "azure_key_vault")
    }
}

/// A place where people read that a rotation happened.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Its name within the environment.
    fn id(&self) -> &str;

    /// Whether it writes to this ticket. What only mentions a ticket does not take it.
    fn takes(&self, _ticket: &str) -> bool {
        false
    }

    /// Whether it can be written, and what stands in the way.
    async fn check(&self, ticket: Option<&str>) -> Result<Vec<Finding>>;

    /// Writes the story once. `again` says that an earlier try may have succeeded: the
    /// recorder then looks first, and one that can't look does not write a second time but
    /// says *unseen*.
    async fn record(&self, story: &Story, again: bool) -> Result<Outcome>;

    /// How a person writes it down.
    fn by_hand(&self) -> Vec<Instruction> {
        vec![Instruction::elsewhere(Part::Records, self.id())]
    }
}

/// What the systems' answers tell beside what was asked: how late it is there.
pub trait Overheard: Send + Sync {
    /// What was found in the answers so far.
    fn findings(&self) -> Vec<Finding>;
}

#[cfg(test)]
mod defaults;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_of_several_is_said_once() {
        let found = |subject: &str, what: &str| Finding::new(Severity::Warning, subject, what).mend("m");
        let other = Finding::new(Severity::Blocks, "d", "x");
        let all = [found("a", "x"), found("b", "y"), found("c", "x"), other.clone()];
        assert_eq!(grouped(&all), [found("a, c", "x"), found("b", "y"), other]);
    }
}
