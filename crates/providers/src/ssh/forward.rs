//! A connection that another machine opens for us (`ssh -W`): its bytes come and go here.

use std::process::Stdio;
use std::time::Duration;

use pgrotate_core::{Error, Kind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Join};
use tokio::process::{Child, ChildStderr};
use zeroize::Zeroizing;

use super::{Ssh, failure};
use crate::child::{self, Answer, Ended, Group};
use crate::http::Effect;

/// How long `ssh` may take to say why it failed.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The most that is read of them.
const MOST: u64 = 64 << 10;

/// The connection. The program that carries it ends with this value.
pub(crate) struct Forward {
    child: Child,
    stderr: Option<ChildStderr>,
    _group: Group,
}

impl Ssh {
    /// Lets the other machine connect with a port, and gives the connection.
    ///
    /// # Errors
    /// When `ssh` can't be started. Whatever fails later shows on the connection, and [`Forward::failure`] says why.
    pub(crate) fn forward(
        &self,
        host: &str,
        port: u16,
        operation: &str,
    ) -> Result<(Forward, impl AsyncRead + AsyncWrite + Send + Unpin + use<>)> {
        let program = Self::program(operation)?;
        let mut command = child::command(&program);
        child::keep(&mut command, &["SSH_AUTH_SOCK"]);
        let there = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        command.env("LC_ALL", "C").args(self.arguments()).args(["-W", &there, "--", &self.destination]);
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(|error| {
            Error::new(Kind::BadState, operation).because(format!("ssh: {}", error.kind()))
        })?;
        let group = Group::of(&child);
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::internal("a child was started without its pipes"));
        };
        let stderr = child.stderr.take();
        Ok((Forward { child, stderr, _group: group }, stream(stdout, stdin)))
    }
}

fn stream<R: AsyncRead, W: AsyncWrite>(reader: R, writer: W) -> Join<R, W> {
    tokio::io::join(reader, writer)
}

impl Forward {
    /// Why the connection did not come about, in our words.
    pub(crate) async fn failure(mut self, ssh: &Ssh, operation: &str) -> Error {
        let mut stderr = Zeroizing::new(Vec::new());
        let listen = async {
            if let Some(own) = self.stderr.take() {
                let _ = own.take(MOST).read_to_end(&mut stderr).await;
            }
            self.child.wait().await
        };
        let ended = match tokio::time::timeout(LAST_WORDS, listen).await {
            Ok(status) => status.ok().map(Ended::Status),
            Err(_) => Some(Ended::Late),
        };
        let answer = Answer { ended, stdout: Zeroizing::default(), stderr };
        about_forwarding(ssh, &answer, operation)
            .unwrap_or_else(|| failure::classify(ssh, &answer, false, Effect::Reads, LAST_WORDS, operation))
    }
}

/// `ssh` came as far as the other machine, and no further.
fn about_forwarding(ssh: &Ssh, answer: &Answer, operation: &str) -> Option<Error> {
    let (place, said) = (ssh.place(), answer.complaint());
    let has = |part: &str| said.contains(part);
    if has("administratively prohibited") || has("forwarding is disabled") || has("not permitted") {
        let why = format!("{place} does not let us through to the server");
        let hint = "its sshd has to allow it: AllowTcpForwarding local (and PermitOpen, if that is set)";
        return Some(Error::new(Kind::Forbidden, operation).because(why).hint(hint));
    }
    if has("open failed") || has("stdio forwarding failed") {
        let why = format!("{place} can't reach the server");
        let hint = "is the server's name known there, and does a firewall stand between them?";
        return Some(Error::new(Kind::Unreachable, operation).because(why).hint(hint).later(None));
    }
    None
}
