//! A program of the configuration's own: a verification, which proves something with the new
//! password in its environment, or a consumer, which restarts something. In the runbook the first
//! is Alembic; the second is a runner's service, which reads its `.env` at its start.
//!
//! The password is in that one child's environment and nowhere else: a place for it among the
//! arguments, which every user of the machine can read, is refused. A consumer is told no
//! password at all. Children are started and ended as the module `child` says.
//!
//! Quirks: Alembic exits with 1 whatever went wrong, and `upgrade head` is no neutral check but
//! migrates. Tools that fail on a URL like to print it; their words are scanned and redacted
//! ([`crate::log_scan`]) before a line of them is kept.

mod alembic;
mod by_hand;
mod check;
mod restart;
mod words;

use std::path::PathBuf;

use pgrotate_core::value::Template;
use pgrotate_core::{Error, Kind, Result};

pub use self::check::{CommandCheck, Options};
pub use self::restart::{CommandConsumer, ConsumerOptions};
use crate::child;

/// The kind in the configuration.
const KIND: &str = "command";

fn default_timeout() -> u64 {
    120
}

/// A program with its arguments, none of which is a secret.
struct Program {
    name: String,
    arguments: Vec<String>,
}

impl Program {
    /// Reads a `command` of the configuration. `whose` is what needs it, in words.
    ///
    /// # Errors
    /// When there is no program, or an argument would hold a secret.
    fn new(command: Vec<String>, whose: &str) -> Result<Self> {
        let refuse = |why: String| Error::new(Kind::Config, format!("use {whose}")).because(why);
        let mut words = command.into_iter();
        let name = words.next().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| refuse("`command` is empty".into()))?;
        let arguments: Vec<String> = words.collect();
        let exposed =
            |word: &&String| Template::VARIABLES.iter().any(|name| word.contains(&format!("{{{name}}}")));
        if let Some(word) = std::iter::once(&name).chain(&arguments).find(exposed) {
            return Err(refuse(format!("{word:?} would show the password to everybody on this machine"))
                .hint("a check can have it in its `environment`; a program's arguments are no secret"));
        }
        Ok(Self { name, arguments })
    }

    /// The program's file, if there is one that can be run.
    fn find(&self, directory: &std::path::Path) -> Option<PathBuf> {
        if self.name.contains('/') {
            // Absolute, because the child looks for it when it is in its directory already.
            let path = std::path::absolute(directory.join(&self.name)).ok();
            return path.filter(|path| child::is_executable(path));
        }
        child::find(&self.name)
    }
}
