//! The state folder: the journal, the evidence, the keys of the fingerprints and of the evidence, for their owner alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgrotate_core::env::Entropy;
use pgrotate_core::{Error, FingerprintKey, Kind, Result};
use pgrotate_evidence::Signer;
use zeroize::Zeroizing;

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

    fn make_key(&self, path: &Path, entropy: &dyn Entropy) -> Result<FingerprintKey> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        entropy.fill(&mut *bytes);
        self.make(path, &*bytes).map_err(|error| refused(&error, key("make", path)))?;
        read_key(File::open(path).map_err(|error| refused(&error, key("read", path)))?, path)
    }

    /// Where the evidence is.
    pub fn evidence(&self) -> PathBuf {
        self.0.join("evidence.jsonl")
    }

    /// The key of this folder that signs evidence, in the form of OpenSSH; none before its first use.
    ///
    /// # Errors
    /// When the file can't be read, others may read it, or it holds no such key.
    pub fn evidence_key(&self) -> Result<Option<Signer>> {
        let path = self.evidence_key_file();
        let operation = || format!("read the evidence key {}", path.display());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(&error, operation())),
        };
        for_its_owner(&file, &path, operation)?;
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(|error| refused(&error, operation()))?;
        let signer = Signer::from_openssh(&text).map_err(|problem| {
            Error::new(Kind::Config, operation()).because(problem.to_string()).hint(
                "put it back from a copy; or move it away, and the next run makes another one. What the old one \
                 has signed then counts only for who names its public half: `trusted_keys` under [evidence]",
            )
        })?;
        Ok(Some(signer))
    }

    /// The same, made with mode 0600 when it is first needed, with its public half beside it.
    ///
    /// # Errors
    /// As [`Home::evidence_key`]; also when it can't be made.
    pub fn make_evidence_key(&self, entropy: &dyn Entropy) -> Result<Signer> {
        if let Some(signer) = self.evidence_key()? {
            return Ok(signer);
        }
        let path = self.evidence_key_file();
        let operation = || format!("make the evidence key {}", path.display());
        let mut seed = Zeroizing::new([0_u8; 32]);
        entropy.fill(&mut *seed);
        let text = Signer::from_seed(&seed, "pgrotate evidence").to_openssh();
        self.make(&path, text.as_bytes()).map_err(|error| refused(&error, operation()))?;
        // Another process may have been first: then its key is the one.
        let signer = self.evidence_key()?;
        let signer =
            signer.ok_or_else(|| Error::new(Kind::BadState, operation()).because("it is gone again"))?;
        let public = format!("{}\n", signer.public().to_openssh());
        // For people; nothing reads it.
        let _ = std::fs::write(path.with_extension("key.pub"), public);
        Ok(signer)
    }

    fn evidence_key_file(&self) -> PathBuf {
        self.0.join("evidence.key")
    }

    /// Writes a file that must not exist twice: beside and then linked into place, so that of two processes that come
    /// first at the same time one wins whole, and a crash leaves no half of one.
    fn make(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let own = path.with_added_extension(std::process::id().to_string());
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&own)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            match std::fs::hard_link(&own, path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
                _ => File::open(&self.0)?.sync_all(),
            }
        };
        let written = write();
        // In any case: half a key is of no use to anybody, and on a full disk in the way.
        let removed = std::fs::remove_file(&own);
        written.and(removed)
    }
}

/// A key that others may read is none.
fn for_its_owner(file: &File, path: &Path, operation: impl Fn() -> String) -> Result<std::fs::Metadata> {
    let metadata = file.metadata().map_err(|error| refused(&error, operation()))?;
    if metadata.mode() & 0o077 != 0 {
        let error = Error::new(Kind::Config, operation()).because("others than its owner may read it");
        return Err(error.hint(format!("chmod 600 {}", path.display())));
    }
    Ok(metadata)
}

fn read_key(mut file: File, path: &Path) -> Result<FingerprintKey> {
    let unusable = |why: &str| Error::new(Kind::Config, key("read", path)).because(why);
    let metadata = for_its_owner(&file, path, || key("read", path))?;
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
pub(crate) fn refused(error: &std::io::Error, operation: String) -> Error {
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
    use std::os::unix::fs::PermissionsExt;

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
        for wrong in ["short", "33 bytes are one more than a key."] {
            std::fs::write(&path, wrong).unwrap();
            let error = home.fingerprint_key(&OsEntropy).unwrap_err().to_string();
            assert!(error.ends_with("it is not a key of 32 bytes"), "{error}");
        }
    }

    #[test]
    fn the_key_of_the_evidence_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        assert!(home.evidence_key().unwrap().is_none());
        let key = home.make_evidence_key(&OsEntropy).unwrap().public();
        assert_eq!(home.make_evidence_key(&OsEntropy).unwrap().public(), key);
        let path = home.path().join("evidence.key");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let public = std::fs::read_to_string(home.path().join("evidence.key.pub")).unwrap();
        assert_eq!(public.trim_end(), key.to_openssh());
        std::fs::write(&path, "short").unwrap();
        let error = home.make_evidence_key(&OsEntropy).unwrap_err();
        assert!(error.to_string().contains("no key in the form of OpenSSH"), "{error}");
        let mut names: Vec<_> =
            std::fs::read_dir(home.path()).unwrap().map(|own| own.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["evidence.key", "evidence.key.pub"]);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        home.fingerprint_key(&OsEntropy).unwrap();
        home.make_evidence_key(&OsEntropy).unwrap();
        for name in ["fingerprint.key", "evidence.key"] {
            let path = home.path().join(name);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        }
        let errors =
            [home.fingerprint_key(&OsEntropy).unwrap_err(), home.evidence_key().map(|_| ()).unwrap_err()];
        for error in errors {
            assert!(error.to_string().contains("others than its owner may read it"), "{error}");
            assert!(error.hints()[0].starts_with("chmod 600 "), "{error:?}");
        }
    }

    /// Marks made with another key would call every copy stale.
    #[test]
    fn a_key_that_can_not_be_looked_at_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        std::fs::remove_dir(home.path()).unwrap();
        std::fs::write(home.path(), "no folder").unwrap();
        let error = home.fingerprint_key(&OsEntropy).unwrap_err();
        assert!(error.operation().starts_with("cannot read the fingerprint key "), "{error}");
        assert!(home.evidence_key().is_err());
    }

    #[test]
    fn who_comes_second_takes_the_key_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        let path = home.path().join("key");
        home.make(&path, b"first").unwrap();
        home.make(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        // With the slash it would have to be a folder: written beside, and not linked into place.
        assert!(home.make(&home.path().join("other/"), b"lost").is_err());
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Home::open(folder.path()).unwrap_err().to_string().contains("may write"));
    }
}
