//! The state folder: the journal and the key of the fingerprints, for their owner alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgrotate_core::env::Entropy;
use pgrotate_core::{Error, FingerprintKey, Kind, Result};

/// The state folder.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Opens the folder, and makes it with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// When it can't be made, or others may write to it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let operation = || format!("use the state folder {}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| refused(&error, operation()))?;
        let metadata = std::fs::metadata(&path).map_err(|error| refused(&error, operation()))?;
        if metadata.mode() & 0o022 != 0 {
            return Err(Error::new(Kind::Config, operation())
                .because("others than its owner may write to it")
                .hint(ANOTHER)
                .hint(format!("chmod 700 {}", path.display())));
        }
        Ok(Self(path))
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.sqlite")
    }

    /// The key of the fingerprints; made with mode 0600 when it is first needed.
    ///
    /// # Errors
    /// When the file can't be read or made, has a wrong size, or others may read it.
    pub fn fingerprint_key(&self, entropy: &dyn Entropy) -> Result<FingerprintKey> {
        let path = self.0.join("fingerprint.key");
        match File::open(&path) {
            Ok(file) => read_key(file, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.make_key(&path, entropy),
            Err(error) => Err(refused(&error, key("read", &path))),
        }
    }

    /// Written beside and then linked into place, so that of two processes that come first at
    /// the same time one wins whole, and a crash leaves no half a key.
    fn make_key(&self, path: &Path, entropy: &dyn Entropy) -> Result<FingerprintKey> {
        let mut bytes = [0_u8; 32];
        entropy.fill(&mut bytes);
        let own = self.0.join(format!("fingerprint.key.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&own)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            match std::fs::hard_link(&own, path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
                _ => File::open(&self.0)?.sync_all(),
            }
        };
        let written = write();
        // In any case: half a key is of no use to anybody, and on a full disk in the way.
        let removed = std::fs::remove_file(&own);
        written.and(removed).map_err(|error| refused(&error, key("make", path)))?;
        read_key(File::open(path).map_err(|error| refused(&error, key("read", path)))?, path)
    }
}

fn read_key(mut file: File, path: &Path) -> Result<FingerprintKey> {
    let unusable = |why: &str| Error::new(Kind::Config, key("read", path)).because(why);
    let metadata = file.metadata().map_err(|error| refused(&error, key("read", path)))?;
    if metadata.mode() & 0o077 != 0 {
        let error = unusable("others than its owner may read it");
        return Err(error.hint(format!("chmod 600 {}", path.display())));
    }
    let mut bytes = [0_u8; 32];
    let whole = metadata.len() == 32 && file.read_exact(&mut bytes).is_ok();
    if !whole {
        return Err(unusable("it is not a key of 32 bytes"));
    }
    Ok(FingerprintKey::new(bytes))
}

/// What is done with the key, for an error.
fn key(verb: &str, path: &Path) -> String {
    format!("{verb} the fingerprint key {}", path.display())
}

/// What helps where this folder can't be used.
const ANOTHER: &str = "name another one with PGROTATE_STATE_DIR";

/// What the system says to a file, with what to do about it.
fn refused(error: &std::io::Error, operation: String) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::new(Kind::BadState, operation)
            .because("the disk is full")
            .hint("make room, then try again"),
        kind => {
            let error = Error::new(Kind::Config, operation).because(kind.to_string());
            error.hint(format!("check the owner and the mode of the state folder, or {ANOTHER}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::OsEntropy;
    use pgrotate_core::Secret;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        let secret = Secret::new("x");
        let first = home.fingerprint_key(&OsEntropy).unwrap().fingerprint(&secret);
        assert_eq!(home.fingerprint_key(&OsEntropy).unwrap().fingerprint(&secret), first);
        let path = home.path().join("fingerprint.key");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(home.path()).unwrap().mode() & 0o777, 0o700);
        std::fs::write(&path, "short").unwrap();
        assert!(home.fingerprint_key(&OsEntropy).is_err());
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Home::open(folder.path()).unwrap_err().to_string().contains("may write"));
    }
}
