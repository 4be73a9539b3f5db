//! A line `KEY=value` in a file, on this machine or, with `host`, on another one: a sink.
//!
//! Exactly one value is changed; every other byte stays, line endings, comments and a missing
//! last line break included, and so do owner, mode, access lists and labels. The new file
//! takes the old one's place in one step. How the value is read and quoted is the business of
//! the file's reader, so the dialect has to be named (table in `env_file/dialect.rs`).
//!
//! It needs the right to write the *folder*, and to be the file's owner or root. It can't make
//! a file or a line that is not there: whoever reads the file decides where that belongs.
//!
//! Another machine is reached by the system's `ssh` (the module `ssh`), with the same promises
//! (`env_file/remote.rs`); what `ssh` logs in as needs the rights there.
//!
//! Quirks:
//! - GitHub's runner takes quotes for a part of the value and has no comments.
//! - Versions of Docker differ on quotes around a value, versions of systemd on comments that
//!   end in a backslash; where that matters the file is refused.
//! - A symbolic link is followed within its folder, and stays; one that leads out is refused.
//! - A process that was killed while it replaced the file leaves the new one beside it, with
//!   mode 0600; the next try removes it.

mod by_hand;
mod dialect;
pub(crate) mod line;
mod local;
mod remote;
mod shell;
mod store;
mod systemd;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Capabilities, Content, Finding, Inspection, Seen, Severity, Sink};
use pgrotate_core::value::{Template, Update};
use pgrotate_core::{CopyId, Error, Kind, Result};
use serde::Deserialize;

use self::line::Line;
use self::local::LocalFile;
use self::remote::RemoteFile;
use self::store::{Store, Text};
use crate::shared::Shared;
use crate::ssh::{Ssh, SshOptions};
pub use dialect::Dialect;

/// The kind in the configuration.
const KIND: &str = "env_file";

/// The room that a change needs beyond the file itself: a block for its name and its access lists.
const ROOM: u64 = 8 << 10;

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
    /// The machine that it is on, as `ssh` takes it; by itself this one.
    #[serde(default)]
    pub host: Option<String>,
    /// How `ssh` is called.
    #[serde(default)]
    pub ssh: Option<SshOptions>,
}

/// One value in one file.
pub struct EnvFile {
    id: CopyId,
    line: Line,
    store: Box<dyn Store>,
}

impl EnvFile {
    /// Looks at no file yet.
    ///
    /// # Errors
    /// When the path names no file, the key can't be a variable's name, or the host none.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { path, key, dialect, host, ssh } = options;
        let refuse = |why: String| Error::new(Kind::Config, "edit an env file").because(why);
        let own = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned());
        let own = own.ok_or_else(|| refuse(format!("{path} names no file")))?;
        if !dialect.takes_name(&key) {
            return Err(refuse(format!("{key:?} can't be the name of a variable there")));
        }
        let store: Box<dyn Store> = match Ssh::configured(host, ssh, &shared)? {
            Some(ssh) => Box::new(RemoteFile::new(ssh, path)?),
            None => Box::new(LocalFile { path: shared.path(&path) }),
        };
        let id = CopyId::new(format!("{KIND}:{}", name.unwrap_or(own)));
        Ok(Self { id, line: Line { key, dialect, file: store.shown() }, store })
    }

    async fn text(&self) -> Result<Text> {
        self.store.read(&self.line.operation()).await
    }

    fn seen(&self, text: &Text) -> Result<Seen> {
        let place = self.line.place(&text.bytes)?;
        let content = match self.line.value(place.as_ref())? {
            Some(value) => Content::Value(value),
            None => Content::Absent,
        };
        Ok(Seen { content, version: None, updated_at: text.facts.updated_at })
    }

    /// What stands in the way of a change, or is worth a look.
    fn findings(&self, text: &Text) -> Result<Vec<Finding>> {
        let mut findings = self.line.findings(self.id.as_str(), &text.bytes)?;
        let facts = &text.facts;
        let mut find = |severity, what: &str, mend: String| {
            findings.push(Finding::new(severity, self.id.as_str(), what).mend(mend));
        };
        if let Some(why) = &facts.unwritable {
            let mend =
                format!("give the account that pgrotate has there the right to write {}", facts.folder);
            find(Severity::Blocks, &format!("its folder can't be written: {why}"), mend);
        }
        let needed = ROOM + text.bytes.len() as u64;
        if let Some(room) = facts.room.filter(|room| *room < needed) {
            let what = format!(
                "there is room for {room} bytes left on its disk, too little for a new file beside it"
            );
            find(Severity::Blocks, &what, format!("make room where {} is", facts.folder));
        }
        if facts.foreign {
            let what = "the file belongs to another user or group, and would not any more after a change";
            find(Severity::Blocks, what, "let pgrotate be that user there".into());
        }
        if facts.mode & 0o007 != 0 {
            let mend = self.store.by_hand(&format!("chmod o= {}", facts.path));
            find(Severity::Warning, "everybody on its machine can read it", mend);
        }
        if facts.names > 1 {
            let what = "the file has a second name (a hard link), which would keep the old value";
            let mend = format!("find {} -samefile {}", facts.folder, facts.path);
            find(Severity::Warning, what, self.store.by_hand(&mend));
        }
        Ok(findings)
    }
}

#[async_trait]
impl Sink for EnvFile {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        format!("{}:{}", self.whole(), self.line.key)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: true, version_ids: false, reports_time: true }
    }

    fn whole(&self) -> String {
        format!("{KIND}:{}", self.store.shown())
    }

    fn guards_whole(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<Inspection> {
        let text = self.text().await?;
        Ok(Inspection { seen: self.seen(&text)?, findings: self.findings(&text)?, identity: None })
    }

    async fn inspect(&self) -> Result<Seen> {
        self.seen(&self.text().await?)
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let operation = self.line.operation();
        let draft = self.store.begin(&operation).await?;
        let place = self.line.place(&draft.text.bytes)?;
        let present = self.line.value(place.as_ref())?;
        let value = update.value(present.as_ref())?;
        if present.as_ref() == Some(&value) {
            return Ok(Outcome::already_done());
        }
        let new = self.line.change(&draft.text.bytes, place.as_ref(), value.expose())?;
        let after = self.store.replace(draft, new, &operation).await?;
        let place = self.line.place(&after)?;
        match self.line.value(place.as_ref())? {
            Some(found) if found == value => Ok(Outcome::changed()),
            _ => Err(self
                .line
                .refuse(Kind::Conflict, "it does not hold what was written a moment ago")
                .later(None)),
        }
    }

    fn by_hand(&self, template: &Template) -> Vec<Instruction> {
        self.instructions(template)
    }
}

#[cfg(test)]
mod tests;
