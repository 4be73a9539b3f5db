//! One writer per environment.
//!
//! A lease alone can't stop a process that slept through its end, so each one carries a
//! generation that only grows, and the journal refuses what comes with an old one.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::Environment;

/// How long a lease holds without being renewed.
pub const TERM: Duration = Duration::from_secs(60);

/// Counts the leases of one environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The right to change one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub environment: Environment,
    /// Fences off everybody with a smaller one.
    pub generation: Generation,
    /// Until when, unless it is renewed.
    pub expires_at: Timestamp,
}

/// Grants leases.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of an environment, with a generation higher than all before.
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::Kind::Busy) while a living process holds it; the message names
    /// that process and the time at which its lease ends.
    async fn acquire(&self, environment: &Environment) -> Result<Lease>;

    /// Extends the lease by [`TERM`] from now.
    ///
    /// # Errors
    /// [`Kind::Fenced`](crate::Kind::Fenced) if somebody else has taken it meanwhile.
    async fn renew(&self, lease: &Lease) -> Result<Lease>;

    /// Gives the lease back. Without effect if somebody else has taken it meanwhile.
    async fn release(&self, lease: &Lease) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_reads_as_its_number() {
        assert_eq!(Generation(7).to_string(), "7");
    }
}
