//! A consumer that nobody here can tell anything: it logs in as the role, and takes up a new password by itself or by
//! somebody else's hand. Declaring it says that its sessions are known; a run waits until it has a new one.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::{Instruction, Part};
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Activation, Consumer, Finding};
use pgrotate_core::{Error, Kind, Result};
use serde::Deserialize;

use crate::shared::Shared;

/// There is nothing to set beside its name, its copies and its sessions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// A consumer that takes up its copies by itself.
pub struct Unmanaged(String);

impl Unmanaged {
    /// Connects to nothing.
    ///
    /// # Errors
    /// When it has no name.
    pub fn new(name: Option<String>, _options: Options, _shared: Arc<Shared>) -> Result<Self> {
        let name = name.filter(|name| !name.trim().is_empty()).ok_or_else(|| {
            Error::new(Kind::Config, "use a consumer of the kind \"unmanaged\"")
                .because("it has no `name`, so nobody could say which one is meant")
        })?;
        Ok(Self(format!("unmanaged:{name}")))
    }
}

#[async_trait]
impl Consumer for Unmanaged {
    fn id(&self) -> &str {
        &self.0
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    fn by_hand(&self) -> Vec<Instruction> {
        let instruction = Instruction::new(
            Part::Applications,
            format!("{}: it takes up its copies by itself", self.0),
            format!("{}: обновляется без нашего участия", self.0),
        )
        .say(
            "Nothing to do. The list of sessions at the end shows whether it has logged in since.",
            "Ничего делать не нужно. Список сеансов в конце покажет, вошёл ли он заново.",
        );
        vec![instruction]
    }

    async fn activate(&self, _activation: &Activation<'_>) -> Result<Outcome> {
        Ok(Outcome::skipped("it takes up its copies by itself"))
    }
}
