//! The folders of a sandbox: the one that its user names, and a scratch folder that goes with it.
//!
//! A folder that a sandbox did not make is never touched. One that it made is taken over, and only what the sandbox
//! writes is deleted there: beside it may lie somebody's state or notes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{Context, Error, Result};
use crate::guard::{Guard, remove_folder};

/// Says that a sandbox made the folder, and holds the lock of the one that runs there.
const MARKER: &str = ".pgrotate-sandbox";
/// What a sandbox writes beside its marker.
const OURS: [&str; 9] = [
    "pgrotate.toml",
    "credentials.env",
    "sign-in.env",
    "federated-token",
    "github-app.pem",
    "ca.pem",
    "agents",
    "logs",
    "security-changelog.md",
];
const SCRATCH_PREFIX: &str = "pgrotate-sandbox-";
/// What an environment's cluster may come to need, three times what it begins with.
const ENVIRONMENT_BYTES: u64 = 128 << 20;

/// The folders of a running sandbox.
pub(crate) struct Premises {
    folder: PathBuf,
    scratch: PathBuf,
    /// Locked while the sandbox runs.
    _marker: File,
}

impl Premises {
    /// Takes a folder over: a new one, an empty one, or one that an earlier sandbox made. Makes a scratch folder for
    /// so many environments.
    pub(crate) fn claim(folder: &Path, environments: usize, guard: &Guard) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder.canonicalize().context(|| format!("cannot find {}", folder.display()))?;
        if let Some(problem) = unusable(&folder) {
            return Err(Error::new(format!("{} can't be a sandbox: {problem}", folder.display())));
        }
        let mut marker = lock_marker(&folder)?;
        remove_leftovers(&folder, &mut marker)?;
        let scratch = make_scratch(environments)?;
        guard.remove(&scratch);
        let text = format!(
            "This folder belongs to pgrotate-sandbox, which makes these files anew at each start:\n{}\nscratch {}\n",
            OURS.join(" "),
            scratch.display()
        );
        marker
            .set_len(0)
            .and_then(|()| marker.write_all(text.as_bytes()))
            .context(|| format!("cannot write {MARKER}"))?;
        for made in [folder.join("logs"), folder.join("agents")] {
            std::fs::create_dir(&made).context(|| format!("cannot make {}", made.display()))?;
        }
        Ok(Self { folder, scratch, _marker: marker })
    }

    /// A path in the folder that its user named.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A path in the scratch folder, which is short enough for a socket.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<()> {
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.context(|| format!("cannot make {}", folder.display()))?;
        }
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .context(|| format!("cannot write {}", path.display()))
    }
}

/// Why a folder's name or content forbids its use.
fn unusable(folder: &Path) -> Option<&'static str> {
    let Some(name) = folder.to_str() else { return Some("its path is no UTF-8") };
    if name.contains(['{', '}', '\n']) {
        // It goes into a configuration, where braces name variables.
        return Some("its path holds a brace or a line break");
    }
    let mut entries = std::fs::read_dir(folder).into_iter().flatten();
    if !folder.join(MARKER).exists() && entries.next().is_some() {
        return Some("it is not empty, and no sandbox has made it");
    }
    None
}

fn lock_marker(folder: &Path) -> Result<File> {
    let path = folder.join(MARKER);
    let marker =
        OpenOptions::new().create(true).truncate(false).read(true).append(true).mode(0o600).open(&path);
    let marker = marker.context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&marker, FlockOperation::NonBlockingLockExclusive)
        .context(|| format!("another sandbox runs in {}", folder.display()))?;
    Ok(marker)
}

/// Deletes what an earlier sandbox left, its scratch folder included if nobody could do that for it.
fn remove_leftovers(folder: &Path, marker: &mut File) -> Result<()> {
    let mut text = String::new();
    marker.read_to_string(&mut text).context(|| format!("cannot read {MARKER}"))?;
    let scratch = text.lines().find_map(|line| line.strip_prefix("scratch ")).map(Path::new);
    let named_by_us = |path: &&Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SCRATCH_PREFIX))
    };
    if let Some(scratch) = scratch.filter(named_by_us) {
        remove_folder(scratch);
    }
    for name in OURS {
        let path = folder.join(name);
        let removed = match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.context(|| format!("cannot delete {}", path.display()))?;
    }
    Ok(())
}

/// A folder in memory if there is room for it, for initdb is three times as fast there, else below /tmp. Both are
/// short: a socket's path must not be longer than about a hundred bytes. PostgreSQL's user has to be able to reach
/// its own folder in it.
fn make_scratch(environments: usize) -> Result<PathBuf> {
    let in_memory = Path::new("/dev/shm");
    let needed = ENVIRONMENT_BYTES.saturating_mul(environments.try_into().unwrap_or(u64::MAX));
    let parent = if free_bytes(in_memory) >= needed { in_memory } else { Path::new("/tmp") };
    let scratch = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(parent);
    let scratch = scratch.context(|| format!("cannot make a folder in {}", parent.display()))?.keep();
    std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o711))
        .context(|| format!("cannot open {} for PostgreSQL", scratch.display()))?;
    Ok(scratch)
}

fn free_bytes(folder: &Path) -> u64 {
    let writable = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    let system = rustix::fs::statvfs(folder).ok().filter(|_| writable);
    system.map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_elses_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pgrotate.toml"), "mine").unwrap();
        assert!(unusable(folder.path()).unwrap().contains("not empty"));
        assert_eq!(std::fs::read_to_string(folder.path().join("pgrotate.toml")).unwrap(), "mine");
        let braces = tempfile::Builder::new().prefix("{env}").tempdir().unwrap();
        assert!(unusable(braces.path()).unwrap().contains("brace"));
    }

    #[test]
    fn only_what_a_sandbox_writes_is_deleted_when_it_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut marker = lock_marker(folder.path()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let kept = elsewhere.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        writeln!(marker, "scratch {}", kept.display()).unwrap();
        std::fs::create_dir(folder.path().join("agents")).unwrap();
        for name in ["ca.pem", "agents/dev.env", "notes.txt"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let mut marker = File::open(folder.path().join(MARKER)).unwrap();
        remove_leftovers(folder.path(), &mut marker).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [MARKER, "notes.txt"]);
        assert!(kept.exists(), "a folder that no sandbox named stays, whatever the marker says");
    }

    #[test]
    fn two_sandboxes_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _first = lock_marker(folder.path()).unwrap();
        assert!(lock_marker(folder.path()).unwrap_err().to_string().contains("another sandbox"));
    }
}
