//! Files that are changed as a whole or not at all.
//!
//! New content is written beside the old one, made durable, and takes its name in one step, so
//! a reader sees the old file or the new one and a crash leaves one of the two. What a file is
//! beside its content (owner, mode, access lists, labels) is carried over.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgrotate_core::{Error, Kind, Result};
use rustix::fs::{Access, AtFlags, FlockOperation, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// More than any file that we edit can sensibly have.
const LARGEST: u64 = 4 << 20;

/// A file as it was at one moment.
pub(crate) struct Snapshot {
    /// Its content.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// Everything else.
    pub(crate) metadata: Metadata,
}

impl Snapshot {
    /// When it was last written.
    pub(crate) fn updated_at(&self) -> Option<Timestamp> {
        Timestamp::try_from(self.metadata.modified().ok()?).ok()
    }
}

/// Runs work on files and ciphers where it does not hold up the other steps.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::internal("a task that works on files ended early")),
    }
}

/// Reads a regular file. Its last component must not be a symbolic link.
///
/// # Errors
/// In the words of `operation`, without any of the content.
pub(crate) fn read(path: &Path, operation: &str) -> Result<Snapshot> {
    let failed = |error: io::Error| classify(&error, operation);
    let (mut file, metadata) = open(path, OpenOptions::new().read(true), operation)?;
    if metadata.len() > LARGEST {
        return Err(Error::new(Kind::Config, operation)
            .because("it is larger than 4 MiB, which is hardly the file that was meant")
            .hint("correct the path in the configuration"));
    }
    // Reserved beforehand: a buffer that grows leaves copies of secrets behind.
    let capacity = usize::try_from(metadata.len()).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    Read::by_ref(&mut file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Snapshot { bytes, metadata })
}

/// Opens a regular file, and no symbolic link to one.
fn open(path: &Path, options: &mut OpenOptions, operation: &str) -> Result<(File, Metadata)> {
    let failed = |error: io::Error| classify(&error, operation);
    // Without NONBLOCK, opening a named pipe would wait for somebody to write into it.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::new(Kind::Config, operation)
            .because("it is not a regular file")
            .hint("correct the path in the configuration"));
    }
    Ok((file, metadata))
}

/// Puts new content in the place of a file that was read before, all of it or none.
///
/// # Errors
/// [`Kind::Conflict`] if somebody else has changed the file since it was read.
pub(crate) fn replace(path: &Path, old: &Snapshot, bytes: &[u8], operation: &str) -> Result<()> {
    let failed = |error: io::Error| classify(&error, operation);
    let temporary = write_beside(path, bytes, operation)?;
    carry_over(temporary.as_file(), path, &old.metadata, operation)?;
    temporary.as_file().sync_all().map_err(failed)?;
    let now = std::fs::symlink_metadata(path).map_err(failed)?;
    if !same(&now, &old.metadata) {
        return Err(Error::new(Kind::Conflict, operation)
            .because("somebody else changed the file in this very moment")
            .later(None));
    }
    temporary.persist(path).map_err(|error| failed(error.error))?;
    sync_folder(path, operation)
}

/// Makes a file that does not exist yet, with mode 0600.
///
/// # Errors
/// [`Kind::Conflict`] if it exists.
pub(crate) fn create(path: &Path, bytes: &[u8], operation: &str) -> Result<()> {
    let temporary = write_beside(path, bytes, operation)?;
    temporary.as_file().sync_all().map_err(|error| classify(&error, operation))?;
    temporary.persist_noclobber(path).map_err(|error| classify(&error.error, operation))?;
    sync_folder(path, operation)
}

/// Removes what a process that was killed while it replaced a file has left behind.
pub(crate) fn sweep(path: &Path) {
    let left = folder_of(path).join(temporary_name(path));
    if left.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        let _ = std::fs::remove_file(left);
    }
}

/// The new content under a name of its own, readable by nobody else. The name is always the
/// same, so that [`sweep`] and the next try find what a crash has left.
fn write_beside(path: &Path, bytes: &[u8], operation: &str) -> Result<tempfile::NamedTempFile> {
    sweep(path);
    let failed = |error: io::Error| classify(&error, operation);
    let mut temporary = tempfile::Builder::new()
        .prefix(&temporary_name(path))
        .rand_bytes(0)
        .tempfile_in(folder_of(path))
        .map_err(failed)?;
    temporary.write_all(bytes).map_err(failed)?;
    Ok(temporary)
}

fn temporary_name(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".pgrotate-new");
    name
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether nobody has touched the file between two looks.
fn same(now: &Metadata, then: &Metadata) -> bool {
    let mark = |file: &Metadata| {
        (
            file.dev(),
            file.ino(),
            file.size(),
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        )
    };
    mark(now) == mark(then)
}

/// Gives a new file the owner, the attributes (access lists, labels) and the mode of the old one.
fn carry_over(new: &File, path: &Path, old: &Metadata, operation: &str) -> Result<()> {
    let is = new.metadata().map_err(|error| classify(&error, operation))?;
    if (is.uid(), is.gid()) != (old.uid(), old.gid()) {
        let (uid, gid) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
        rustix::fs::fchown(new, Some(uid), Some(gid)).map_err(|_| {
            Error::new(Kind::Forbidden, operation)
                .because("the file belongs to another user or group, and only root can keep it so")
                .hint("run pgrotate as the file's owner")
        })?;
    }
    copy_attributes(new, path).map_err(|error| classify(&error.into(), operation))?;
    rustix::fs::fchmod(new, Mode::from_raw_mode(old.mode() & 0o7777))
        .map_err(|error| classify(&error.into(), operation))
}

fn copy_attributes(new: &File, path: &Path) -> rustix::io::Result<()> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS | Errno::PERM | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 << 10];
        let length = match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(length) => length,
            // Gone between the two calls, or for the kernel's eyes alone.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => continue,
            Err(error) => return Err(error),
        };
        match rustix::fs::fsetxattr(new, name, &value[..length], XattrFlags::empty()) {
            // The kernel sets labels itself; where we may not, it has done what the policy says.
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a new name durable. When that fails the name is there, and only a crash could undo it.
pub(crate) fn sync_folder(path: &Path, operation: &str) -> Result<()> {
    let synced = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    synced.map_err(|error| classify(&error, operation).unknown())
}

/// Whether files can be made and replaced in a folder. `None` if they can, else why not.
pub(crate) fn unwritable(folder: &Path) -> Option<String> {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    let allowed = rustix::fs::accessat(rustix::fs::CWD, folder, access, AtFlags::EACCESS);
    allowed.err().map(|error| io::Error::from(error).kind().to_string())
}

/// Whether we could not give a new file the owner and group of the old one.
pub(crate) fn is_foreign(metadata: &Metadata) -> bool {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let member = |gid: u32| {
        let groups = rustix::process::getgroups().unwrap_or_default();
        group.as_raw() == gid || groups.iter().any(|own| own.as_raw() == gid)
    };
    !user.is_root() && (metadata.uid() != user.as_raw() || !member(metadata.gid()))
}

/// An exclusive lock among processes, which ends with this value or the process.
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Whether it is this file that is locked, and not one whose place it has taken.
    pub(crate) fn is_of(&self, file: &Metadata) -> bool {
        self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
    }
}

/// Locks the file of this name. Whoever replaces files may have put another one in its place
/// meanwhile, so what is read afterwards has to be compared by [`Lock::is_of`].
///
/// # Errors
/// [`Kind::Busy`], to be tried later, while another process holds the lock.
pub(crate) fn hold(path: &Path, operation: &str) -> Result<Lock> {
    // Network file systems lock only what is open for writing, which a mode of 0400 forbids.
    let (file, _) = open(path, OpenOptions::new().read(true).write(true), operation)
        .or_else(|_| open(path, OpenOptions::new().read(true), operation))?;
    lock(file, operation)
}

/// Locks a file that is open already.
///
/// # Errors
/// [`Kind::Busy`], to be tried later, while another process holds the lock.
pub(crate) fn lock(file: File, operation: &str) -> Result<Lock> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { file }),
        Err(Errno::WOULDBLOCK) => Err(Error::new(Kind::Busy, operation)
            .because("another process is writing it right now")
            .later(None)),
        Err(error) => Err(classify(&error.into(), operation)),
    }
}

/// Turns the system's answer into ours. Nothing has been changed when it is given.
pub(crate) fn classify(error: &io::Error, operation: &str) -> Error {
    let (kind, cause) = match (error.kind(), error.raw_os_error()) {
        (_, Some(code)) if code == Errno::LOOP.raw_os_error() => {
            (Kind::Config, "it is a symbolic link".to_owned())
        }
        (io::ErrorKind::NotFound, _) => (Kind::NotFound, "there is no such file or folder".to_owned()),
        (io::ErrorKind::AlreadyExists, _) => (Kind::Conflict, "it exists already".to_owned()),
        (kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem), _) => {
            (Kind::Forbidden, kind.to_string())
        }
        (kind, _) => (Kind::BadState, kind.to_string()),
    };
    let error = Error::new(kind, operation).because(cause);
    match kind {
        Kind::NotFound => {
            error.hint("is the path right? a relative one counts from the folder of the configuration")
        }
        Kind::Forbidden => error.hint("give pgrotate's user the right to it, or run pgrotate as its owner"),
        Kind::Config => error.hint("name the file itself, to which the link leads"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use pgrotate_core::Retry;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn owner_mode_and_attributes_are_carried_over() {
        let folder = folder();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let named = rustix::fs::setxattr(&path, "user.note", b"kept", XattrFlags::empty());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        }
        let old = read(&path, "change it").unwrap();
        replace(&path, &old, b"new", "change it").unwrap();
        let now = read(&path, "read it").unwrap();
        assert_eq!(&now.bytes[..], b"new");
        let what = |metadata: &Metadata| (metadata.mode(), metadata.uid(), metadata.gid());
        assert_eq!(what(&now.metadata), what(&old.metadata));
        if named.is_ok() {
            let mut value = [0_u8; 4];
            assert_eq!(rustix::fs::getxattr(&path, "user.note", &mut value[..]), Ok(4));
            assert_eq!(&value, b"kept");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_change_by_somebody_else_is_not_overwritten() {
        let folder = folder();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let old = read(&path, "change it").unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let error = replace(&path, &old, b"ours", "change it").unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Later { after_ms: None }));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_a_crash_left_is_swept_away() {
        let folder = folder();
        let path = folder.path().join("a");
        std::fs::write(folder.path().join(".a.pgrotate-new"), "half").unwrap();
        create(&path, b"whole", "make it").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(create(&path, b"again", "make it").unwrap_err().kind(), Kind::Conflict);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = folder();
        let (file, link, pipe) =
            (folder.path().join("file"), folder.path().join("link"), folder.path().join("pipe"));
        std::fs::write(&file, "x").unwrap();
        symlink("file", &link).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let why = |path: &Path| read(path, "read it").err().unwrap().to_string();
        assert!(why(&link).contains("symbolic link"));
        assert!(why(&pipe).contains("not a regular file"));
        assert!(why(folder.path()).contains("not a regular file"));
        assert!(why(&folder.path().join("none")).contains("no such file"));
    }

    #[test]
    fn a_lock_keeps_the_second_writer_waiting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = lock(file.reopen().unwrap(), "write it").unwrap();
        let busy = lock(file.reopen().unwrap(), "write it").err().unwrap();
        assert_eq!((busy.kind(), busy.retry()), (Kind::Busy, Retry::Later { after_ms: None }));
        drop(first);
        assert!(lock(file.reopen().unwrap(), "write it").is_ok());
    }
}
