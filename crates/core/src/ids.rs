//! Names of things, each with a type of its own so that they can't be confused.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::env::Entropy;

// Names are handed from picture to picture of a run: a copy of one costs no memory of its own.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
    };
}

name! {
    /// An environment's name, for instance `dev`.
    Environment
}
name! {
    /// One copy of the password, as `KIND:NAME`, for instance `azure_key_vault:database-url`.
    CopyId
}
name! {
    /// What a store calls one version of a copy. It never contains the value.
    VersionId
}
name! {
    /// One step of a plan, as `KIND` or `KIND/TARGET`, for instance `publish/env_file:dev.env`.
    StepId
}

impl CopyId {
    /// The part before the colon: which provider keeps the copy.
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or(self.as_str(), |(kind, _)| kind)
    }
}

/// One execution of a plan. Sorts by the time it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Ulid);

impl RunId {
    /// Makes an id from the time and 80 random bits.
    pub fn generate(now: Timestamp, entropy: &dyn Entropy) -> Self {
        let mut random = [0_u8; 16];
        entropy.fill(&mut random);
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(millis, u128::from_be_bytes(random)))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self).map_err(|_| NotARunId)
    }
}

/// A text that is no run id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARunId;

impl fmt::Display for NotARunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a run id: 26 letters and digits, as `pgrotate history` prints them")
    }
}

impl std::error::Error for NotARunId {}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::SeededEntropy;

    #[test]
    fn run_ids_sort_by_time_and_survive_text() {
        let entropy = SeededEntropy::new(1);
        let early = RunId::generate(Timestamp::from_second(1_700_000_000).unwrap(), &entropy);
        let late = RunId::generate(Timestamp::from_second(1_700_000_001).unwrap(), &entropy);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!("01JZ7".parse::<RunId>(), Err(NotARunId));
    }

    #[test]
    fn who_mistypes_a_run_id_is_told_where_they_stand() {
        assert!("01JZ7".parse::<RunId>().unwrap_err().to_string().contains("`pgrotate history` prints them"));
    }

    #[test]
    fn a_copy_knows_its_kind() {
        assert_eq!(CopyId::from("env_file:dev.env").kind(), "env_file");
    }
}
