//! The consumer: a program that makes something take up its copies, here or on another machine.
//!
//! It has to be idempotent, as a restart is: after a crash, or when its end was not seen, it is
//! run again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Activation, Consumer, Finding, Severity};
use pgrotate_core::{Error, Kind, Result};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::words::Said;
use super::{KIND, Program, default_timeout};
use crate::child;
use crate::http::Effect;
use crate::log_scan::Redactor;
use crate::shared::Shared;
use crate::ssh::{Ssh, SshOptions, quoted};

/// What stands before the exit status of a program over there.
const STATUS: &str = "--pgrotate-status ";
/// The most that is taken of a program's words.
const MOST: usize = 1 << 20;
/// Why a program that can't be run stops a rotation before it begins.
const WHY: &str = "what it restarts would go on with the old password after the change";
/// How long a look at another machine may take.
const LOOK: Duration = Duration::from_secs(30);

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerOptions {
    /// The program and its arguments; no shell reads them. It must do no harm to run it twice.
    pub command: Vec<String>,
    /// Where it runs: relative to the configuration file, or on another machine absolute or below
    /// `~/`.
    #[serde(default)]
    pub directory: Option<String>,
    /// The machine to run it on, as `ssh` takes it; by itself this one.
    #[serde(default)]
    pub host: Option<String>,
    /// How `ssh` is called.
    #[serde(default)]
    pub ssh: Option<SshOptions>,
    /// Seconds that it may take.
    #[serde(default = "default_timeout")]
    pub timeout_s: u64,
}

/// A program that restarts something.
pub struct CommandConsumer {
    pub(super) id: String,
    pub(super) program: Program,
    pub(super) place: Place,
    timeout: Duration,
}

/// Where it runs.
pub(super) enum Place {
    Here(PathBuf),
    There(Ssh, Option<String>),
}

/// How it ended, and everything it said.
struct Ran {
    code: Option<i32>,
    said: Vec<Zeroizing<Vec<u8>>>,
}

impl CommandConsumer {
    /// Runs nothing yet.
    ///
    /// # Errors
    /// When there is no program, an argument would hold a secret, or the host is none.
    pub fn new(name: Option<String>, options: ConsumerOptions, shared: Arc<Shared>) -> Result<Self> {
        let ConsumerOptions { command, directory, host, ssh, timeout_s } = options;
        let named = name.map(|name| format!("{KIND}:{name}"));
        let program = Program::new(command, &format!("the consumer {}", named.as_deref().unwrap_or(KIND)))?;
        let own = || program.name.rsplit('/').next().unwrap_or_default();
        let id = named.unwrap_or_else(|| format!("{KIND}:{}", own()));
        let place = match Ssh::configured(host, ssh, &shared)? {
            None => Place::Here(shared.path(directory.as_deref().unwrap_or("."))),
            Some(ssh) => {
                let relative = |path: &String| !path.starts_with('/') && !path.starts_with("~/");
                if directory.as_ref().is_some_and(relative) {
                    return Err(Error::new(Kind::Config, format!("use the consumer {id}"))
                        .because("on another machine `directory` begins with / or ~/"));
                }
                Place::There(ssh, directory)
            }
        };
        Ok(Self { id, program, place, timeout: Duration::from_secs(timeout_s) })
    }

    fn operation(&self) -> String {
        match &self.place {
            Place::Here(directory) => format!("run {} in {}", self.program.name, directory.display()),
            Place::There(ssh, _) => format!("run {} on {}", self.program.name, ssh.place()),
        }
    }

    async fn run_here(&self, directory: &PathBuf) -> Result<Ran> {
        let missing = || {
            Error::new(Kind::NotFound, self.operation())
                .because("there is no such program, or it can't be executed")
        };
        let program = self.program.find(directory).ok_or_else(missing)?;
        let mut command = child::command(&program);
        // What talks to the user's own services finds them by these.
        child::keep(&mut command, &["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"]);
        command.args(&self.program.arguments).current_dir(directory);
        let answer = child::ask(&mut command, b"", MOST, self.timeout).await.map_err(|error| {
            Error::new(Kind::BadState, self.operation()).because(error.kind().to_string())
        })?;
        if answer.is_late() {
            let why = format!("it took longer than {} s", self.timeout.as_secs());
            return Err(Error::new(Kind::TimedOut, self.operation()).because(why).unknown());
        }
        Ok(Ran { code: answer.code(), said: vec![answer.stdout, answer.stderr] })
    }

    /// The beginning of every script over there: the folder, and the program as the only word.
    fn script(&self, directory: Option<&str>) -> String {
        let folder = match directory.map(|path| (path, path.strip_prefix("~/"))) {
            None => String::new(),
            Some((_, Some(rest))) => format!("cd -- \"$HOME\"/{} || exit 1\n", quoted(rest)),
            Some((path, None)) => format!("cd -- {} || exit 1\n", quoted(path)),
        };
        format!("{folder}program={}\n", quoted(&self.program.name))
    }

    async fn run_there(&self, ssh: &Ssh, directory: Option<&str>) -> Result<Ran> {
        let arguments: String =
            self.program.arguments.iter().map(|word| format!(" {}", quoted(word))).collect();
        let script = format!(
            "{}\"$program\"{arguments} </dev/null 2>&1\nprintf '\\n{STATUS}%s\\n' \"$?\"",
            self.script(directory)
        );
        let said = ssh.run(&script, b"", Effect::Writes, self.timeout, &self.operation()).await?;
        let at = said.windows(STATUS.len()).rposition(|part| part == STATUS.as_bytes());
        let status =
            at.and_then(|at| std::str::from_utf8(&said[at + STATUS.len()..]).ok()?.trim().parse().ok());
        let (Some(at), Some(code)) = (at, status) else {
            let why = "the other machine's answer makes no sense";
            return Err(Error::new(Kind::Corrupt, self.operation()).because(why).unknown());
        };
        Ok(Ran { code: Some(code), said: vec![Zeroizing::new(said[..at].to_vec())] })
    }

    /// What the run came to, in words.
    fn judge(&self, ran: &Ran, redactor: &Redactor) -> Result<Outcome> {
        if ran.code == Some(0) {
            return Ok(Outcome::changed());
        }
        let mut words = Said::default();
        for said in &ran.said {
            String::from_utf8_lossy(said).lines().for_each(|line| words.hear(line, redactor));
        }
        let why = match ran.code {
            Some(code) => format!("it ended with exit status {code}"),
            None => "it was ended by a signal".to_owned(),
        };
        let error = Error::new(Kind::BadState, self.operation()).because(why);
        let error =
            words.last.into_iter().fold(error, |error, line| error.because(format!("it said: {line}")));
        Err(error.hint("it is run again by the next try; it must do no harm to run it twice"))
    }
}

#[async_trait]
impl Consumer for CommandConsumer {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        let folder = |folder: &str| {
            let what = format!("cannot {}: there is no folder {folder}", self.operation());
            let mend = "make it, or correct `directory`";
            Ok(vec![Finding::new(Severity::Blocks, &self.id, what).why(WHY).mend(mend)])
        };
        let missing = match &self.place {
            Place::Here(directory) if !directory.is_dir() => return folder(&directory.display().to_string()),
            Place::Here(directory) => self.program.find(directory).is_none(),
            Place::There(ssh, directory) => {
                let script = format!(
                    "{}command -v \"$program\" >/dev/null && echo there || echo missing",
                    self.script(directory.as_deref())
                );
                // A folder that is missing is told from a script that fails.
                let script = script.replacen("|| exit 1\n", "|| { echo nowhere; exit 0; }\n", 1);
                let said = ssh.run(&script, b"", Effect::Reads, LOOK, &self.operation()).await?;
                if &said[..] == b"nowhere\n" {
                    return folder(directory.as_deref().unwrap_or("~"));
                }
                &said[..] != b"there\n"
            }
        };
        if !missing {
            return Ok(Vec::new());
        }
        let what = format!("cannot {}: there is no such program", self.operation());
        let mend = "install it, or correct `command`; the account's PATH may be shorter than a login's";
        Ok(vec![Finding::new(Severity::Blocks, &self.id, what).why(WHY).mend(mend)])
    }

    async fn activate(&self, activation: &Activation<'_>) -> Result<Outcome> {
        let ran = match &self.place {
            Place::Here(directory) => self.run_here(directory).await?,
            Place::There(ssh, directory) => self.run_there(ssh, directory.as_deref()).await?,
        };
        // It was told no password, and may yet print the one that it has read.
        let redactor = Redactor::new(activation.previous.into_iter().chain([activation.password]));
        self.judge(&ran, &redactor)
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

#[cfg(test)]
mod tests;
