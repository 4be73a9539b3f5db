//! Child processes that end with the sandbox.
//!
//! Each child leads a process group of its own, so that Ctrl-C on the terminal reaches the sandbox alone and a whole
//! group can be ended at once. Two things see to its end when the sandbox is killed: the guard, and, where
//! util-linux's `setpriv` is installed, the kernel's parent-death signal. The kernel sends that when the *thread*
//! that started the child ends; the sandbox runs on its main thread alone.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::sync::watch;

use crate::error::{Context, Error, Result};
use crate::guard::Guard;

/// The user and group that a child runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
}

/// Starts children.
pub(crate) struct Launcher {
    guard: Arc<Guard>,
    setpriv: Option<PathBuf>,
}

impl Launcher {
    /// Starts the guard.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { guard: Arc::new(Guard::start()?), setpriv: find_program("setpriv") })
    }

    /// The guard, to tell it of folders.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// A command with an empty environment that gets `on_death` (SIGKILL or SIGQUIT) when the sandbox ends without
    /// stopping it.
    pub(crate) fn command(&self, program: &Path, on_death: Signal) -> Command {
        let mut command = match &self.setpriv {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                let signal = if on_death == Signal::QUIT { "QUIT" } else { "KILL" };
                command.args(["--pdeathsig", signal, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_clear().process_group(0).stdin(Stdio::null());
        command
    }

    /// Starts a command made by [`Launcher::command`]. When the child ends, so does what is left of its group.
    pub(crate) fn spawn(
        &self,
        name: &str,
        mut command: Command,
        on_death: Signal,
    ) -> Result<(Process, Pipes)> {
        let mut child = command.spawn().context(|| format!("cannot start {name}"))?;
        let group = child.id().ok_or_else(|| Error::new(format!("{name} ended at once")))?;
        self.guard.watch(group, on_death);
        let pipes = Pipes { stdout: child.stdout.take(), stderr: child.stderr.take() };
        let (end, ended) = watch::channel(None);
        let guard = self.guard.clone();
        tokio::spawn(async move {
            let status = child.wait().await.ok();
            // A start-up script that is killed leaves its own child in the group.
            signal_group(group, Signal::KILL);
            guard.forget(group);
            end.send_replace(Some(status.unwrap_or_default()));
        });
        Ok((Process { name: name.to_owned(), group, ended }, pipes))
    }

    /// Runs a command to its end; an error holds what it printed to stderr.
    pub(crate) async fn run(&self, name: &str, mut command: Command) -> Result<()> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let (mut process, pipes) = self.spawn(name, command, Signal::KILL)?;
        let mut text = String::new();
        if let Some(mut stderr) = pipes.stderr {
            stderr.read_to_string(&mut text).await.context(|| format!("cannot read what {name} prints"))?;
        }
        let status = process.end().await;
        if status.success() { Ok(()) } else { Err(Error::new(format!("{name}: {status}: {}", text.trim()))) }
    }

    /// Has the guard end every child that still runs and delete the scratch folder, and waits for that.
    pub(crate) async fn stop_all(&self) {
        self.guard.release();
        while !self.guard.has_ended() {
            // Not blocking: the children that end meanwhile have to be reaped, or the guard would wait for them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A child, the leader of its group.
#[derive(Clone)]
pub(crate) struct Process {
    name: String,
    group: u32,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// What a child prints, if its command asked for pipes.
pub(crate) struct Pipes {
    /// Its stdout.
    pub(crate) stdout: Option<ChildStdout>,
    /// Its stderr.
    pub(crate) stderr: Option<ChildStderr>,
}

impl Process {
    /// Stops the child: `signal` to its group, and SIGKILL if it has not ended in time.
    pub(crate) async fn stop(&mut self, signal: Signal, patience: Duration) {
        if self.ended.borrow().is_some() {
            return;
        }
        signal_group(self.group, signal);
        if tokio::time::timeout(patience, self.end()).await.is_err() {
            tracing::warn!("{} did not end within {patience:?}: killed", self.name);
            signal_group(self.group, Signal::KILL);
            self.end().await;
        }
    }

    /// An error if the process has ended already.
    pub(crate) fn still_runs(&self) -> Result<()> {
        match *self.ended.borrow() {
            None => Ok(()),
            Some(status) => Err(Error::new(format!("{} ended: {status}", self.name))),
        }
    }

    async fn end(&mut self) -> ExitStatus {
        let ended = self.ended.wait_for(Option::is_some).await;
        // The sender is gone without a word only when the runtime ends.
        ended.ok().and_then(|status| *status).unwrap_or_default()
    }
}

fn signal_group(group: u32, signal: Signal) {
    if let Some(group) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        // A group that has ended already is what was wanted.
        let _ = kill_process_group(group, signal);
    }
}

/// Waits until something accepts connections on a port of the loopback, as long as the process runs.
pub(crate) async fn wait_for_port(process: &Process, port: u16, patience: Duration) -> Result<()> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(());
        }
        process.still_runs()?;
        if tokio::time::Instant::now() > deadline {
            return Err(Error::new(format!("{} does not answer on port {port}", process.name)));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a URL is answered, however, as long as the process runs.
pub(crate) async fn wait_for_answer(process: &Process, url: &str, patience: Duration) -> Result<()> {
    let client = direct_client()?;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let asked = client.get(url).send();
        if tokio::time::timeout_at(deadline, asked).await.is_ok_and(|answer| answer.is_ok()) {
            return Ok(());
        }
        process.still_runs()?;
        if tokio::time::Instant::now() > deadline {
            return Err(Error::new(format!("{} does not answer {url}", process.name)));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client that goes straight to the loopback, whatever proxy the environment names.
pub(crate) fn direct_client() -> Result<reqwest::Client> {
    direct_client_builder().build().context(|| "cannot make an HTTP client".into())
}

/// What [`direct_client`] is made with.
pub(crate) fn direct_client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none())
}

/// A port of the loopback that is kept for a child, also while the child is down for a restart.
///
/// The socket is bound but never listens. The kernel then gives the port to nobody else, while a child that sets
/// SO_REUSEADDR, as every server does, may listen on it.
pub(crate) struct Port {
    number: u16,
    _bound: TcpSocket,
}

impl Port {
    /// Takes any free port.
    pub(crate) fn reserve() -> Result<Self> {
        let socket = TcpSocket::new_v4().and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok(socket)
        });
        let socket = socket.context(|| "there is no free port on 127.0.0.1".into())?;
        let number = socket.local_addr().context(|| "cannot tell the port".into())?.port();
        Ok(Self { number, _bound: socket })
    }

    /// Its number.
    pub(crate) const fn number(&self) -> u16 {
        self.number
    }
}

/// The first executable of that name in PATH, or where Debian keeps system programs.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin".into(), "/bin".into(), "/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

/// Whether a path is a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_reserved_port_goes_to_one_child_at_a_time_and_again_to_the_next() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: std::collections::BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len(), "no port is reserved twice");
        for _ in 0..2 {
            // The standard library sets SO_REUSEADDR, as servers do.
            let child = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0].number())).unwrap();
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0].number())).is_err());
            drop(child);
        }
    }

    #[test]
    fn programs_are_found_by_name_and_only_if_executable() {
        assert!(is_executable(&find_program("sh").unwrap()));
        assert_eq!(find_program("no-such-program-here"), None);
        assert!(!is_executable(Path::new("/etc/passwd")));
        assert!(!is_executable(Path::new("/usr/bin")));
    }
}
