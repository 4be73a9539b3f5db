//! Programs that pgrotate runs: found by name, started with a clean environment and nothing of
//! ours to inherit, and ended with everything that they have started.
//!
//! Nothing secret is ever among a program's arguments, which every user of the machine can read:
//! what it has to know goes to its stdin. A child has a process group of its own, which ends at
//! the time-out and with pgrotate; where util-linux's `setpriv` is installed the child itself
//! ends even if pgrotate is killed.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

/// What a child keeps of our environment: what programs need to start at all.
pub(crate) const KEPT: [&str; 5] = ["PATH", "HOME", "LANG", "USER", "TMPDIR"];
/// How long to go on reading when the child is gone and others hold its output open.
const GRACE: Duration = Duration::from_secs(1);
/// What is kept of what a child says on stderr: enough to know what is wrong.
const MOST_OF_STDERR: usize = 64 << 10;

/// The file of a program, looked up as a shell would: on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places =
        std::env::split_paths(&path).filter_map(|folder| std::path::absolute(folder.join(program)).ok());
    places.find(|path| is_executable(path))
}

/// Whether this is a file that can be run.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// A program that is about to be run, with nothing in its environment but [`KEPT`].
pub(crate) fn command(program: &Path) -> Command {
    let mut command = match find("setpriv").filter(|path| is_util_linux(path)) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).env_clear();
    keep(&mut command, &KEPT);
    command
}

/// Lets a child see more of our environment.
pub(crate) fn keep(command: &mut Command, names: &[&str]) {
    command.envs(names.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
}

/// BusyBox has a `setpriv` too, which knows nothing of parents.
fn is_util_linux(setpriv: &Path) -> bool {
    setpriv.canonicalize().is_ok_and(|path| path.file_name().is_some_and(|name| name == "setpriv"))
}

/// How a child ended.
pub(crate) enum Ended {
    /// By itself, or by a signal of somebody else.
    Status(ExitStatus),
    /// It took too long and was ended.
    Late,
}

/// Waits for the child and for its words.
pub(crate) async fn watch(
    child: &mut Child,
    listen: impl Future<Output = ()>,
    timeout: Duration,
) -> Option<Ended> {
    let mut listen = std::pin::pin!(listen);
    let whole = async {
        let mut heard = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = &mut listen, if !heard => heard = true,
            }
        };
        if !heard {
            // A grandchild may hold the pipes open for ever.
            let _ = tokio::time::timeout(GRACE, listen).await;
        }
        status
    };
    match tokio::time::timeout(timeout, whole).await {
        Ok(status) => status.ok().map(Ended::Status),
        Err(_) => Some(Ended::Late),
    }
}

/// The child's process group. It ends with this value: at the time-out, when pgrotate is asked
/// to stop, and when the child has left others behind.
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group that the child leads.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(id.cast_signed())))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // That there is nobody left is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What a child answered.
pub(crate) struct Answer {
    /// How it ended; `None` if the system lost sight of it.
    pub(crate) ended: Option<Ended>,
    /// Everything it said, or the first part of it.
    pub(crate) stdout: Zeroizing<Vec<u8>>,
    /// What it complained of.
    pub(crate) stderr: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Its exit status, if it ended by itself.
    pub(crate) fn code(&self) -> Option<i32> {
        match &self.ended {
            Some(Ended::Status(status)) => status.code(),
            _ => None,
        }
    }

    /// Whether it was ended at the time-out.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.ended, Some(Ended::Late))
    }

    /// What it complained of, in lower case, for searching. It may hold anything, so it is not to
    /// be shown.
    pub(crate) fn complaint(&self) -> Zeroizing<String> {
        Zeroizing::new(String::from_utf8_lossy(&self.stderr).to_ascii_lowercase())
    }
}

/// Runs a child to its end: hands it the input, and takes in at most `most` bytes of its output.
///
/// # Errors
/// When it can't be started.
pub(crate) async fn ask(
    command: &mut Command,
    input: &[u8],
    most: usize,
    timeout: Duration,
) -> io::Result<Answer> {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Zeroizing::default(), Zeroizing::default());
    let talk = async {
        let tell = async {
            if let Some(mut stdin) = stdin {
                // A child that does not want it says why, and its words count.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let listen = (take(stdout, most, &mut said), take(stderr, MOST_OF_STDERR, &mut complained));
        tokio::join!(tell, listen.0, listen.1);
    };
    let ended = watch(&mut child, talk, timeout).await;
    drop(group);
    Ok(Answer { ended, stdout: said, stderr: complained })
}

/// Reads to the end and keeps the beginning, without leaving copies of it in memory.
async fn take(stream: Option<impl AsyncRead + Unpin>, most: usize, kept: &mut Zeroizing<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut piece = Zeroizing::new(vec![0_u8; 16 << 10]);
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        let wanted = length.min(most - kept.len());
        if kept.capacity() - kept.len() < wanted {
            // A vector that grows by itself leaves what it held behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * (kept.len() + wanted)));
            larger.extend_from_slice(kept);
            *kept = larger;
        }
        kept.extend_from_slice(&piece[..wanted]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, input: &[u8], most: usize, timeout_ms: u64) -> Answer {
        let mut command = command(&find("sh").unwrap());
        ask(command.args(["-c", script]), input, most, Duration::from_millis(timeout_ms)).await.unwrap()
    }

    #[tokio::test]
    async fn input_goes_in_and_both_outputs_come_out() {
        let answer = sh("cat; echo Odd >&2; exit 3", b"a\0b", 100, 10_000).await;
        assert_eq!((answer.code(), &answer.stdout[..]), (Some(3), b"a\0b".as_slice()));
        assert_eq!(answer.complaint().as_str(), "odd\n");
    }

    #[tokio::test]
    async fn much_of_everything_neither_blocks_nor_fills_the_memory() {
        let input = vec![b'x'; 3 << 20];
        let answer = sh("cat; head -c 200000 /dev/zero >&2", &input, 1 << 20, 20_000).await;
        assert_eq!((answer.stdout.len(), answer.stderr.len()), (1 << 20, MOST_OF_STDERR));
        // Somebody who does not read is no reason to wait.
        let answer = sh("exec <&-; echo no", &input, 100, 20_000).await;
        assert_eq!(&answer.stdout[..], b"no\n");
    }

    #[tokio::test]
    async fn a_late_one_is_ended_and_says_so() {
        let answer = sh("echo begun; sleep 60", b"", 100, 300).await;
        assert!(answer.is_late() && answer.code().is_none());
        assert_eq!(&answer.stdout[..], b"begun\n");
    }

    #[tokio::test]
    async fn nothing_of_ours_is_inherited() {
        let answer = sh("env", b"", 10_000, 10_000).await;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(text.contains("PATH=") && !text.contains("CARGO"), "{text}");
    }
}
