//! Another machine, reached by the system's own `ssh`.
//!
//! `ssh` and its configuration are what a machine's owner has already set up: keys, agents,
//! jump hosts, known hosts. pgrotate adds only what it must insist on: no questions
//! (`BatchMode`), a host key that is known before (`StrictHostKeyChecking=yes`), a bounded time,
//! nothing forwarded, no connection shared with others.
//!
//! *Needs*, over there, an account with a POSIX shell as `sh` and `dd`; each use says what else.
//!
//! What runs there is a small shell script, and both it and what it works on come by stdin: the
//! process lists of the two machines show a line that is the same every time and holds no name,
//! no path and no content. The script announces itself first, so that
//! whatever a login shell's start-up files print is told from its answer, and so that a failure
//! is known to have come before or after its start.

pub(crate) mod failure;
pub(crate) mod forward;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use pgrotate_core::{Error, Kind, Result};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::by_hand;
use crate::child;
use crate::http::Effect;
use crate::shared::Shared;

/// What `ssh` must do, whatever its configuration says.
const INSISTED: [&str; 17] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "NoHostAuthenticationForLocalhost=no",
    "UpdateHostKeys=no",
    "ConnectTimeout=10",
    "ConnectionAttempts=1",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    // A connection that somebody else has opened may have been opened without looking at the key.
    "ControlMaster=no",
    "ControlPath=none",
    "LogLevel=ERROR",
];
/// What the script says first.
const MARK: &str = "--pgrotate-1--\n";
/// The exit status when the script did not arrive whole.
const DAMAGED: i32 = 96;
/// The most that is taken of an answer.
const MOST: usize = 8 << 20;

/// How `ssh` shall be called, beyond what its own configuration says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshOptions {
    /// The port.
    pub port: Option<u16>,
    /// The private key; no other is offered.
    pub identity_file: Option<String>,
    /// A configuration of its own, in the place of `~/.ssh/config` and the system's.
    pub config_file: Option<String>,
    /// The only file whose host keys count.
    pub known_hosts_file: Option<String>,
}

/// A machine, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Ssh {
    destination: String,
    port: Option<u16>,
    identity: Option<PathBuf>,
    config: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
}

impl Ssh {
    /// Reads the options; connects to nothing yet.
    ///
    /// # Errors
    /// When the destination, or a path, is none that `ssh` would take as it is meant.
    pub(crate) fn new(destination: &str, options: SshOptions, shared: &Shared) -> Result<Self> {
        let refuse =
            |why: String| Error::new(Kind::Config, format!("reach {destination:?} by ssh")).because(why);
        let odd = |c: char| c.is_whitespace() || c.is_control();
        let host = destination.rsplit('@').next().unwrap_or_default();
        if destination.starts_with('-')
            || host.is_empty()
            || host.starts_with('-')
            || destination.contains(odd)
        {
            return Err(refuse("that can't be the name of a host".into())
                .hint("host = \"agent-1\", \"user@agent-1\", or a Host of your ssh configuration"));
        }
        let path = |text: Option<String>| match text {
            None => Ok(None),
            // These mean something to ssh in the value of an option.
            Some(text) if text.contains(['%', '$', '"', '\\']) || text.contains(char::is_control) => {
                Err(refuse(format!("the path {text:?} has a character in it that means something to ssh")))
            }
            Some(text) => std::path::absolute(shared.path(&text)).map(Some).map_err(|_| refuse(text)),
        };
        Ok(Self {
            destination: destination.to_owned(),
            port: options.port,
            identity: path(options.identity_file)?,
            config: path(options.config_file)?,
            known_hosts: path(options.known_hosts_file)?,
        })
    }

    /// The machine that a table of the configuration names with `host` and `ssh`, if it does.
    ///
    /// # Errors
    /// As of [`Ssh::new`]; and when the table says how, and not to where.
    pub(crate) fn configured(
        host: Option<String>,
        options: Option<SshOptions>,
        shared: &Shared,
    ) -> Result<Option<Self>> {
        match (host, options) {
            (Some(host), options) => Self::new(&host, options.unwrap_or_default(), shared).map(Some),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Error::new(Kind::Config, "use `ssh` without `host`")
                .because("nobody says which machine is meant")
                .hint("add host = \"…\", or leave `ssh` out for this machine")),
        }
    }

    /// The machine as messages call it, and as copies on it are told apart.
    pub(crate) fn place(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.destination),
            None => self.destination.clone(),
        }
    }

    /// The command of a shell that takes a command for the other machine as its last word.
    pub(crate) fn by_hand(&self) -> String {
        let mut words = ["ssh", "-o", "StrictHostKeyChecking=yes"].map(str::to_owned).to_vec();
        words.extend(self.options());
        words.extend(["--".to_owned(), self.destination.clone()]);
        by_hand::words(words.iter().map(String::as_str))
    }

    /// What stands between `ssh` and the destination.
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["-a", "-x", "-T"].map(str::to_owned).to_vec();
        arguments.extend(INSISTED.iter().flat_map(|text| ["-o".to_owned(), (*text).to_owned()]));
        arguments.extend(self.options());
        arguments
    }

    /// What the configuration says of how the machine is reached.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let mut option = |text: String| options.extend(["-o".to_owned(), text]);
        if let Some(port) = self.port {
            option(format!("Port={port}"));
        }
        if let Some(file) = &self.identity {
            option(format!("IdentityFile=\"{}\"", file.display()));
            option("IdentitiesOnly=yes".to_owned());
        }
        if let Some(file) = &self.known_hosts {
            option(format!("UserKnownHostsFile=\"{}\"", file.display()));
            option("GlobalKnownHostsFile=/dev/null".to_owned());
            option("KnownHostsCommand=none".to_owned());
        }
        if let Some(file) = &self.config {
            options.extend(["-F".to_owned(), file.display().to_string()]);
        }
        options
    }

    fn program(operation: &str) -> Result<PathBuf> {
        child::find("ssh").ok_or_else(|| {
            Error::new(Kind::BadState, operation)
                .because("there is no program ssh on this machine's PATH")
                .hint("install the OpenSSH client")
        })
    }

    /// Runs a script over there, with an input, and gives what it said.
    ///
    /// # Errors
    /// As `failure.rs` tells them apart. With [`Effect::Writes`], whatever may have come after
    /// the script's start is unknown.
    pub(crate) async fn run(
        &self,
        script: &str,
        input: &[u8],
        effect: Effect,
        timeout: Duration,
        operation: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let program = Self::program(operation)?;
        let script = format!("#pgrotate\nLC_ALL=C\nexport LC_ALL\nprintf '%s' '{MARK}'\n{script}\n#end");
        // Quoted so that any login shell hands it on as it is, csh and fish included. What does
        // not begin and end as it should has lost something on the way and is not run: the rest
        // of it would stand among the input.
        let remote = format!(
            "exec sh -c 's=$(dd bs=1 count={} 2>/dev/null); case $s in \"#pgrotate\"*\"#end\") eval \"$s\";; *) exit {DAMAGED};; esac'",
            script.len()
        );
        let mut command = child::command(&program);
        child::keep(&mut command, &["SSH_AUTH_SOCK"]);
        command.env("LC_ALL", "C").args(self.arguments()).args(["--", &self.destination, &remote]);
        let whole = Zeroizing::new([script.as_bytes(), input].concat());
        let answer = child::ask(&mut command, &whole, MOST, timeout).await.map_err(|error| {
            Error::new(Kind::BadState, operation).because(format!("ssh: {}", error.kind()))
        })?;
        let said = answer.stdout.windows(MARK.len()).position(|part| part == MARK.as_bytes());
        match said {
            Some(at) if answer.code() == Some(0) => {
                Ok(Zeroizing::new(answer.stdout[at + MARK.len()..].to_vec()))
            }
            _ => Err(failure::classify(self, &answer, said.is_some(), effect, timeout, operation)),
        }
    }
}

/// A text as one word of a POSIX shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
