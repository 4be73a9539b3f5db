//! A line `KEY=value` in a file on this machine: a sink.
//!
//! Exactly one value is changed; every other byte stays, line endings, comments and a missing
//! last line break included, and so do owner, mode, access lists and labels. The new file
//! takes the old one's place in one step. How the value is read and quoted is the business of
//! the file's reader, so the dialect has to be named (table in `env_file/dialect.rs`).
//!
//! It needs the right to write the *folder*, and to be the file's owner or root. It can't make
//! a file or a line that is not there: whoever reads the file decides where that belongs.
//!
//! Quirks:
//! - GitHub's runner takes quotes for a part of the value and has no comments.
//! - Versions of Docker differ on quotes around a value, versions of systemd on comments that
//!   end in a backslash; where that matters the file is refused.
//! - A symbolic link is followed within its folder, and stays; one that leads out is refused.
//! - A process that was killed while it replaced the file leaves the new one beside it, with
//!   mode 0600; the next try removes it.

mod dialect;
mod shell;
mod systemd;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Capabilities, Content, Finding, Inspection, Seen, Severity, Sink};
use pgrotate_core::value::Update;
use pgrotate_core::{CopyId, Error, Kind, Result, Secret};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::files::{self, Snapshot};
use crate::shared::Shared;
pub use dialect::Dialect;
use dialect::{Flaw, Place, quoted};

/// The kind in the configuration.
const KIND: &str = "env_file";

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The file; `~/` is the home folder.
    pub path: String,
    /// The name before the `=`.
    pub key: String,
    /// Who reads the file.
    pub dialect: Dialect,
}

/// One value in one file.
pub struct EnvFile {
    id: CopyId,
    file: File,
}

/// What the work on the file needs to know.
#[derive(Clone)]
struct File {
    path: PathBuf,
    key: String,
    dialect: Dialect,
}

/// The file as it is, with the place of the value.
struct Loaded {
    path: PathBuf,
    snapshot: Snapshot,
    place: Option<Place>,
}

impl EnvFile {
    /// Looks at no file yet.
    ///
    /// # Errors
    /// When the path names no file, or the key can't be a variable's name.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { path, key, dialect } = options;
        let path = shared.path(&path);
        let refuse = |why: String| Error::new(Kind::Config, "edit an env file").because(why);
        let own = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let own = own.ok_or_else(|| refuse(format!("{} names no file", path.display())))?;
        if !dialect.takes_name(&key) {
            return Err(refuse(format!("{key:?} can't be the name of a variable there")));
        }
        let id = CopyId::new(format!("{KIND}:{}", name.unwrap_or(own)));
        Ok(Self { id, file: File { path, key, dialect } })
    }

    async fn load(&self) -> Result<Loaded> {
        let file = self.file.clone();
        files::blocking(move || file.load()).await
    }

    fn seen(&self, loaded: &Loaded) -> Result<Seen> {
        let content = match self.file.value(loaded)? {
            Some(value) => Content::Value(value),
            None => Content::Absent,
        };
        Ok(Seen { content, version: None, updated_at: loaded.snapshot.updated_at() })
    }
}

#[async_trait]
impl Sink for EnvFile {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        format!("{}:{}", self.whole(), self.file.key)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: true, version_ids: false, reports_time: true }
    }

    fn whole(&self) -> String {
        format!("{KIND}:{}", self.file.path.display())
    }

    fn guards_whole(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<Inspection> {
        let loaded = self.load().await?;
        let (file, id) = (self.file.clone(), self.id.clone());
        files::blocking(move || Ok((file.findings(id.as_str(), &loaded), loaded)))
            .await
            .and_then(|(findings, loaded)| Ok(Inspection { seen: self.seen(&loaded)?, findings }))
    }

    async fn inspect(&self) -> Result<Seen> {
        self.seen(&self.load().await?)
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let file = self.file.clone();
        // Held until the file is replaced: another process may want to change another line of it.
        let (lock, loaded) = files::blocking(move || file.hold()).await?;
        let present = self.file.value(&loaded)?;
        let value = update.value(present.as_ref())?;
        let (file, expected) = (self.file.clone(), value.clone());
        if present.as_ref() == Some(&value) {
            files::sweep(&loaded.path);
            return Ok(Outcome::already_done());
        }
        let again = files::blocking(move || {
            file.change(&loaded, value.expose())?;
            drop(lock);
            file.load()
        });
        match self.file.value(&again.await?)? {
            Some(value) if value == expected => Ok(Outcome::changed()),
            _ => Err(self
                .file
                .refuse(Kind::Conflict, "it does not hold what was written a moment ago")
                .later(None)),
        }
    }
}

impl File {
    fn operation(&self) -> String {
        format!("edit {} in {}", self.key, self.path.display())
    }

    fn refuse(&self, kind: Kind, why: impl Into<String>) -> Error {
        Error::new(kind, self.operation()).because(why)
    }

    /// The file itself: a link is followed, within the folder.
    fn resolve(&self) -> Result<PathBuf> {
        let failed = |error: std::io::Error| files::classify(&error, &self.operation());
        let folder = files::folder_of(&self.path).canonicalize().map_err(failed)?;
        let named = folder.join(self.path.file_name().unwrap_or_default());
        if !named.symlink_metadata().map_err(failed)?.is_symlink() {
            return Ok(named);
        }
        let target = named.canonicalize().map_err(failed)?;
        if target.starts_with(&folder) {
            return Ok(target);
        }
        Err(self
            .refuse(Kind::Config, "it is a symbolic link that leads out of its folder")
            .hint("name the file itself as `path`, if it is the one that is meant"))
    }

    fn load(&self) -> Result<Loaded> {
        let path = self.resolve()?;
        let snapshot = files::read(&path, &self.operation())?;
        let place = self.place(&snapshot.bytes)?;
        Ok(Loaded { path, snapshot, place })
    }

    /// Locks the file, then loads it.
    fn hold(&self) -> Result<(files::Lock, Loaded)> {
        let lock = files::hold(&self.resolve()?, &self.operation())?;
        let loaded = self.load()?;
        if lock.is_of(&loaded.snapshot.metadata) {
            return Ok((lock, loaded));
        }
        Err(self.refuse(Kind::Busy, "another process has replaced it in this very moment").later(None))
    }

    /// The one place where the key gets its value.
    fn place(&self, text: &[u8]) -> Result<Option<Place>> {
        let Self { key, dialect, .. } = self;
        let mut places = dialect.find(text, key).map_err(|Flaw { line, what }| {
            self.refuse(Kind::Config, format!("line {line}: {what}"))
                .hint(format!("keep {key} in a file of its own that only assigns"))
        })?;
        if let [first, second, ..] = &places[..] {
            let why = format!("{key} stands in it twice, in lines {} and {}", first.line, second.line);
            return Err(self.refuse(Kind::Ambiguous, why).hint("remove the line that does not count"));
        }
        Ok(places.pop())
    }

    /// The present value; none where there is nothing, or nothing yet, behind the `=`.
    fn value(&self, loaded: &Loaded) -> Result<Option<Secret>> {
        let Some(place) = &loaded.place else { return Ok(None) };
        if place.computed {
            let why = format!("line {}: its value is computed by the shell", place.line);
            return Err(self.refuse(Kind::Config, why).hint("write the value itself there"));
        }
        match std::str::from_utf8(&place.value) {
            Ok("") => Ok(None),
            Ok(value) => Ok(Some(Secret::new(value))),
            Err(_) => Err(self.refuse(Kind::Corrupt, format!("line {}: its value is not UTF-8", place.line))),
        }
    }

    /// What stands in the way of a change, or is worth a look.
    fn findings(&self, subject: &str, loaded: &Loaded) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |severity, what: &str, mend: String| {
            findings.push(Finding::new(severity, subject, what).mend(mend));
        };
        let (key, shown) = (&self.key, loaded.path.display());
        match &loaded.place {
            None => {
                find(
                    Severity::Blocks,
                    &format!("{shown} has no line for {key}"),
                    format!("add the line `{key}=`"),
                );
            }
            Some(place) if place.value.is_empty() => {
                find(Severity::Note, "it has no value yet", "the run writes the configured form".into());
            }
            Some(place) if self.dialect == Dialect::Verbatim && quoted(&place.value) => {
                let what = "its value stands in quotes, which this dialect takes for a part of it";
                find(
                    Severity::Warning,
                    what,
                    "remove them, or name the dialect of whoever reads the file".into(),
                );
            }
            Some(_) => {}
        }
        let folder = files::folder_of(&loaded.path);
        if let Some(why) = files::unwritable(&folder) {
            let mend = format!("give pgrotate's user the right to write {}", folder.display());
            find(Severity::Blocks, &format!("its folder can't be written: {why}"), mend);
        }
        let metadata = &loaded.snapshot.metadata;
        if files::is_foreign(metadata) {
            let what = "the file belongs to another user or group, and would not any more after a change";
            find(Severity::Blocks, what, "run pgrotate as that user".into());
        }
        if metadata.mode() & 0o007 != 0 {
            find(Severity::Warning, "everybody on this machine can read it", format!("chmod o= {shown}"));
        }
        if metadata.nlink() > 1 {
            let what = "the file has a second name (a hard link), which would keep the old value";
            find(Severity::Warning, what, format!("find {} -samefile {shown}", folder.display()));
        }
        findings
    }

    /// Writes the value in its place, and nothing else.
    fn change(&self, loaded: &Loaded, value: &str) -> Result<()> {
        let place = loaded.place.as_ref().ok_or_else(|| {
            self.refuse(Kind::NotFound, "there is no line for it")
                .hint(format!("add the line `{}=`", self.key))
        })?;
        let written = self.dialect.write(value, place.style).map_err(|why| {
            let why = format!("the new value can't be written in this dialect: {why}");
            self.refuse(Kind::Rejected, why)
                .hint("let [password] make passwords of letters and digits, or name the dialect of whoever reads the file")
        })?;
        let old = &loaded.snapshot.bytes;
        let mut new = Zeroizing::new(Vec::with_capacity(old.len() + written.len()));
        new.extend_from_slice(&old[..place.span.start]);
        new.extend_from_slice(written.as_bytes());
        new.extend_from_slice(&old[place.span.end..]);
        // Before it takes the old one's place: the reader must find exactly the new value there.
        match self.place(&new)? {
            Some(again) if *again.value == value.as_bytes() && !again.computed => {}
            _ => return Err(Error::internal("a value would not be read as it was written")),
        }
        files::replace(&loaded.path, &loaded.snapshot, &new, &self.operation())
    }
}

#[cfg(test)]
mod tests;
