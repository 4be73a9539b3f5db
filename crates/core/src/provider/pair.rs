//! Two login roles that take turns, as the server has them.

use async_trait::async_trait;

use super::Finding;
use crate::error::Result;
use crate::journal::Outcome;
use crate::secret::Secret;

/// Which of an environment's roles. Where there is one alone it is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seat {
    /// The role that the configuration names under `[database]`.
    First,
    /// Its twin.
    Second,
}

impl Seat {
    /// The role that takes turns with this one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Two roles that take turns, as the server has them. Everything is done as the live one.
#[async_trait]
pub trait Pair: Send + Sync {
    /// Whether both can do the same, neither owns anything alone, and the live one may do what a run asks of it.
    /// Changes nothing.
    async fn check(&self, live: Seat, password: &Secret) -> Result<Vec<Finding>>;

    /// Takes the right to log in from the other role, and its password. Repeating it has the same end state.
    async fn close(&self, live: Seat, password: &Secret) -> Result<Outcome>;

    /// What has to be done so that the two can take turns; with a new password for the other role, if it needs one.
    /// Changes nothing.
    async fn prepare(&self, live: Seat, password: &Secret, idle: Option<&Secret>) -> Result<Preparation>;

    /// Does it, all or nothing.
    ///
    /// # Errors
    /// When the server refuses a statement: which, and why.
    async fn apply(&self, live: Seat, password: &Secret, preparation: &Preparation) -> Result<()>;
}

/// What two roles lack to take turns.
#[derive(Debug, Default)]
pub struct Preparation {
    /// In the order in which they are carried out, all or none.
    pub statements: Vec<Statement>,
    /// What no statement of ours can do.
    pub by_hand: Vec<String>,
}

/// One statement of SQL.
#[derive(Debug)]
pub struct Statement {
    /// For a person to read.
    pub shown: String,
    /// What is sent, where that has more in it than may be shown.
    pub sent: Option<Secret>,
}
