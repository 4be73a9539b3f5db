//! A file on this machine.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use async_trait::async_trait;
use pgrotate_core::{Error, Kind, Result};
use zeroize::Zeroizing;

use super::by_hand;
use super::store::{Draft, Facts, Store, Text};
use crate::files::{self, Lock, Snapshot};

/// A file by its path.
#[derive(Clone)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
}

/// The file that was locked, as it was when it was read.
pub(super) struct Held {
    lock: Lock,
    path: PathBuf,
    metadata: std::fs::Metadata,
}

impl LocalFile {
    /// The file itself: a link is followed, within the folder.
    fn resolve(&self, operation: &str) -> Result<PathBuf> {
        let failed = |error: std::io::Error| files::classify(&error, operation);
        let folder = files::folder_of(&self.path).canonicalize().map_err(failed)?;
        let named = folder.join(self.path.file_name().unwrap_or_default());
        if !named.symlink_metadata().map_err(failed)?.is_symlink() {
            return Ok(named);
        }
        let target = named.canonicalize().map_err(failed)?;
        if target.starts_with(&folder) { Ok(target) } else { Err(leads_out(operation)) }
    }

    fn load(&self, operation: &str) -> Result<(PathBuf, Snapshot)> {
        let path = self.resolve(operation)?;
        let snapshot = files::read(&path, operation)?;
        Ok((path, snapshot))
    }

    /// Locks the file, then loads it.
    fn hold(&self, operation: &str) -> Result<Draft> {
        let lock = files::hold(&self.resolve(operation)?, operation)?;
        let (path, snapshot) = self.load(operation)?;
        if !lock.is_of(&snapshot.metadata) {
            return Err(Error::new(Kind::Busy, operation)
                .because("another process has replaced it in this very moment")
                .later(None));
        }
        files::sweep(&path);
        let facts = facts(&path, &snapshot);
        let Snapshot { bytes, metadata } = snapshot;
        Ok(Draft { text: Text { bytes, facts }, held: Some(Held { lock, path, metadata }) })
    }
}

/// The refusal of a link to somewhere else.
pub(super) fn leads_out(operation: &str) -> Error {
    Error::new(Kind::Config, operation)
        .because("it is a symbolic link that leads out of its folder")
        .hint("name the file itself as `path`, if it is the one that is meant")
}

fn facts(path: &std::path::Path, snapshot: &Snapshot) -> Facts {
    let folder = files::folder_of(path);
    let metadata = &snapshot.metadata;
    Facts {
        path: path.display().to_string(),
        updated_at: snapshot.updated_at(),
        mode: metadata.mode(),
        names: metadata.nlink(),
        unwritable: files::unwritable(&folder),
        foreign: files::is_foreign(metadata),
        room: rustix::fs::statvfs(&folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        folder: folder.display().to_string(),
    }
}

#[async_trait]
impl Store for LocalFile {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn by_hand(&self, command: &str) -> String {
        command.to_owned()
    }

    fn commands(&self) -> [String; 2] {
        by_hand::here(&self.path)
    }

    async fn read(&self, operation: &str) -> Result<Text> {
        let (file, operation) = (self.clone(), operation.to_owned());
        files::blocking(move || {
            let (path, snapshot) = file.load(&operation)?;
            Ok(Text { facts: facts(&path, &snapshot), bytes: snapshot.bytes })
        })
        .await
    }

    async fn begin(&self, operation: &str) -> Result<Draft> {
        let (file, operation) = (self.clone(), operation.to_owned());
        files::blocking(move || file.hold(&operation)).await
    }

    async fn replace(
        &self,
        draft: Draft,
        new: Zeroizing<Vec<u8>>,
        operation: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let (file, operation) = (self.clone(), operation.to_owned());
        let Some(Held { lock, path, metadata }) = draft.held else {
            return Err(Error::internal("a file of another machine was to be replaced on this one"));
        };
        let old = Snapshot { bytes: draft.text.bytes, metadata };
        files::blocking(move || {
            files::replace(&path, &old, &new, &operation)?;
            drop(lock);
            Ok(file.load(&operation)?.1.bytes)
        })
        .await
    }
}
