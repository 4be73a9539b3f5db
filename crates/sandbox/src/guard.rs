//! Nothing may outlive a sandbox, not even one that was killed with SIGKILL.
//!
//! A second process, the guard, waits for the end of a pipe that only the sandbox holds open. The kernel closes it
//! however the sandbox ends; the guard then ends the process groups it was told of, deletes their folder and ends.
//! An orderly end takes the same way: the sandbox closes the pipe and waits for the guard.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::error::{Context, Result};

/// How long the guard waits for processes to end before it kills them.
const PATIENCE: Duration = Duration::from_secs(3);

/// The sandbox's end of the pipe.
pub(crate) struct Guard {
    pipe: Mutex<Option<ChildStdin>>,
    process: Mutex<Child>,
}

impl Guard {
    /// Starts the guard: this program once more, as `guard`.
    pub(crate) fn start() -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let program = std::env::current_exe().context(|| "cannot find this program's file".into())?;
        let mut process = Command::new(program)
            .arg("guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C on the terminal, or a signal to the sandbox's group, must not end it first.
            .process_group(0)
            .spawn()
            .context(|| "cannot start the guard".into())?;
        let pipe = process.stdin.take();
        Ok(Self { pipe: Mutex::new(pipe), process: Mutex::new(process) })
    }

    /// Has a process group ended with `signal` when the sandbox is gone.
    pub(crate) fn watch(&self, group: u32, signal: Signal) {
        self.tell(&format!("watch {group} {}", signal.as_raw()));
    }

    /// Takes a process group back: it has ended.
    pub(crate) fn forget(&self, group: u32) {
        self.tell(&format!("forget {group}"));
    }

    /// Has a folder deleted when the sandbox is gone.
    pub(crate) fn remove(&self, folder: &Path) {
        self.tell(&format!("remove {}", folder.display()));
    }

    /// Has the guard do now what is left to do.
    pub(crate) fn release(&self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether the guard has done its work.
    pub(crate) fn has_ended(&self) -> bool {
        let ended = self.process.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        !matches!(ended, Ok(None))
    }

    fn tell(&self, line: &str) {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = pipe.as_mut() else { return };
        if let Err(error) = writeln!(pipe, "{line}") {
            tracing::warn!("the guard is gone, a killed sandbox would leave processes behind: {error}");
        }
    }
}

/// What the guard knows: the groups to end, each with its signal, and the folders to delete.
#[derive(Default)]
struct Charge {
    groups: Vec<(Pid, Signal)>,
    folders: Vec<PathBuf>,
}

/// The guard process: reads until the sandbox is gone, then cleans up.
pub(crate) fn run() {
    let mut charge = Charge::default();
    for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
        charge.learn(&line);
    }
    charge.clean_up(PATIENCE);
}

impl Charge {
    fn learn(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "watch" => {
                let Some((group, signal)) = rest.split_once(' ') else { return };
                let group = group.parse().ok().and_then(Pid::from_raw);
                let signal = signal.parse().ok().and_then(Signal::from_named_raw);
                self.groups.extend(group.zip(signal));
            }
            "forget" => self.groups.retain(|(group, _)| group.as_raw_pid().to_string() != rest),
            "remove" => self.folders.push(PathBuf::from(rest)),
            _ => {}
        }
    }

    fn clean_up(&self, patience: Duration) {
        for (group, signal) in &self.groups {
            let _ = kill_process_group(*group, *signal);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.groups.iter().any(|(group, _)| exists(*group)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        for (group, _) in &self.groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        for folder in &self.folders {
            remove_folder(folder);
        }
    }
}

/// Deletes a folder; processes that are just ending may still write into it, so it tries more than once.
pub(crate) fn remove_folder(folder: &Path) {
    for _ in 0..20 {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Whether a group has a living leader or, without one, any member. A dead leader that nobody has asked for its exit
/// status yet is not waited for: once the sandbox is gone, that is up to the system's first process.
fn exists(group: Pid) -> bool {
    let leader = std::fs::read_to_string(format!("/proc/{}/stat", group.as_raw_pid())).unwrap_or_default();
    let is_zombie = leader.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'));
    !is_zombie && test_kill_process_group(group) != Err(Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charge_follows_what_it_is_told() {
        let mut charge = Charge::default();
        for line in ["watch 71 9", "watch 72 3", "forget 71", "remove /tmp/a b", "nonsense", "watch x 9"] {
            charge.learn(line);
        }
        assert_eq!(charge.groups, [(Pid::from_raw(72).unwrap(), Signal::QUIT)]);
        assert_eq!(charge.folders, [PathBuf::from("/tmp/a b")]);
    }

    #[test]
    fn cleaning_up_ends_a_group_that_ignores_its_signal_and_deletes_folders() {
        use std::os::unix::process::CommandExt;
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; sleep 60 & wait"])
            .process_group(0)
            .spawn()
            .unwrap();
        let group = Pid::from_child(&child);
        let charge = Charge { groups: vec![(group, Signal::TERM)], folders: vec![inner.clone()] };
        charge.clean_up(Duration::from_millis(100));
        child.wait().unwrap();
        assert!(!inner.exists());
        // The group's second process was the shell's child; it goes with the group, not with the shell.
        let deadline = Instant::now() + PATIENCE;
        while exists(group) {
            assert!(Instant::now() < deadline, "the group still has a member");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
