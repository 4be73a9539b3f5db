//! The vault of record: what it holds, and what a run asks of it.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Finding, Seat};
use crate::by_hand::{Instruction, Part};
use crate::error::{Error, Kind, Result};
use crate::ids::{CopyId, RunId, VersionId};
use crate::secret::Secret;

/// One version in a vault of record.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The password.
    pub secret: Secret,
    /// The run that made it; `None` for one made by hand.
    pub run: Option<RunId>,
}

/// What a vault of record holds, read in one piece.
#[derive(Clone, Debug, Default)]
pub struct VaultState {
    /// The password whose word counts.
    pub current: Option<Entry>,
    /// What runs have staged and not promoted. One at most, unless a try that was given up arrived late after all:
    /// then what it wrote stands beside the others and replaces none.
    pub pending: Vec<Entry>,
    /// The one before. Where two roles take turns it is the idle one's, and the current one is the live one's.
    pub previous: Option<Entry>,
    /// The role whose password is the current one, if the vault says so.
    pub user: Option<String>,
    /// What the vault calls the state it is in.
    pub version: Option<VersionId>,
    /// When it last changed, if the vault says so.
    pub updated_at: Option<Timestamp>,
}

impl VaultState {
    /// Whose the current password is, `twin` being the second role, if there is one. Where the vault names neither it
    /// is the first one's: so it was before there were two.
    pub fn live(&self, twin: Option<&str>) -> Seat {
        if twin.is_some() && self.user.as_deref() == twin { Seat::Second } else { Seat::First }
    }
}

/// A look at a vault of record, with what stands in the way of changing it.
#[derive(Debug, Default)]
pub struct Survey {
    /// What it holds, where the look has shown it; else it has to be [read](Vault::read).
    pub state: Option<VaultState>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What the system itself calls the vault, where that says more than [`Vault::location`]: an id that another one
    /// of the same name would not have.
    pub identity: Option<String>,
}

/// The vault of record: holds the next password beside the current one, so that at every
/// instant one of its versions logs in.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Its name among the copies.
    fn id(&self) -> &CopyId;

    /// Where it is, precisely enough that two environments with the same text share it.
    fn location(&self) -> String;

    /// Whether it can be read and written, and what stands in the way. Changes nothing.
    async fn check(&self) -> Result<Survey>;

    /// Makes the vault, with the password that works now in it; only for vaults that are
    /// pgrotate's own.
    ///
    /// # Errors
    /// When it exists, or its system has other ways to make one.
    async fn create(&self, _current: &Secret) -> Result<()> {
        Err(Error::new(Kind::Config, format!("make {}", self.id()))
            .because("pgrotate makes vaults of the kind \"local_vault\" alone")
            .hint("make it in its own system, with the password that works now"))
    }

    /// Everything it holds for this role. A field that does not exist yet is `None`.
    async fn read(&self) -> Result<VaultState>;

    /// Stores a password as *pending*, marked with the run, and leaves the rest alone. A request of it that arrives
    /// only after its sender has given up may add its password to those that are pending, and must not replace one:
    /// the server may have that one already.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind::Conflict) if another pending password is there, be it this
    /// run's own: a run has one at a time. What is current already is not pending any more, though it may still be there.
    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()>;

    /// Makes this pending password of the run current and the current one previous, in one write, and drops whatever
    /// else the run has staged. Names the role that the password is for, if that can be another one than before. What has
    /// already happened is not repeated; a request of it that arrives only then must not drop what has been staged since.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind::Conflict) if this password is neither pending nor current: the server has it.
    async fn promote(&self, run: RunId, next: &Secret, user: Option<&str>) -> Result<Option<VersionId>>;

    /// Keeps a password as the idle role's, in the place of the previous one, in one write, and drops whatever else
    /// the run has staged. What has already happened is not repeated.
    async fn lay_aside(&self, run: RunId, idle: &Secret) -> Result<()>;

    /// Drops everything that the run has staged. Without effect if there is nothing of this run.
    async fn discard(&self, run: RunId) -> Result<()>;

    /// How a person stores the new password in it and keeps the one before.
    fn by_hand(&self) -> Vec<Instruction> {
        vec![Instruction::elsewhere(Part::Before, self.id().as_str())]
    }
}
