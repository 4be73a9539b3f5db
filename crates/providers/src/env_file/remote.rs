//! A file on another machine, reached by ssh.
//!
//! The same promises as on this one, kept by small scripts over there (`env_file/remote/*.sh`):
//! the new content is written beside the old, flushed, given the old one's owner, mode and
//! attributes, and takes its name in one step, if the old one still is what was read. How long
//! the content is and its checksum go along, because a connection that breaks looks to the other
//! side like the end of the content.
//!
//! *Needs*, over there, a POSIX shell and GNU's or BusyBox's small tools. With `flock` the lock
//! is the one that pgrotate itself would take there; without, it is a folder beside the file.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::by_hand;
use super::local::leads_out;
use super::store::{Draft, Facts, Store, Text};
use crate::http::Effect;
use crate::ssh::{self, Ssh};

const FIND: &str = include_str!("remote/find.sh");
const LOCK: &str = include_str!("remote/lock.sh");
const LOOK: &str = include_str!("remote/look.sh");
const SWAP: &str = include_str!("remote/swap.sh");
/// How long one visit may take, the way there included.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file by its machine and path.
pub(super) struct RemoteFile {
    ssh: Ssh,
    /// Absolute, or below the home folder over there.
    path: String,
}

impl RemoteFile {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the path depends on where one is.
    pub(super) fn new(ssh: Ssh, path: String) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(Kind::Config, "edit an env file").because(why));
        if !path.starts_with('/') && !path.starts_with("~/") {
            return refuse("on another machine a path begins with / or ~/");
        }
        if path.ends_with('/') || path.contains(char::is_control) {
            return refuse("the path names no file");
        }
        Ok(Self { ssh, path })
    }

    async fn visit(
        &self,
        parts: &[&str],
        input: &[u8],
        effect: Effect,
        operation: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let path = match self.path.strip_prefix("~/") {
            Some(rest) => format!("path=$HOME/{}", ssh::quoted(rest)),
            None => format!("path={}", ssh::quoted(&self.path)),
        };
        let script =
            std::iter::once(path.as_str()).chain(parts.iter().copied()).collect::<Vec<_>>().join("\n");
        let said = self.ssh.run(&script, input, effect, PATIENCE, operation).await?;
        let end = said.iter().position(|byte| *byte == b'\n').ok_or_else(|| garbled(effect, operation))?;
        let rest = Zeroizing::new(said[end + 1..].to_vec());
        match String::from_utf8_lossy(&said[..end]).split_once(' ') {
            None if &said[..end] == b"ok" => Ok(rest),
            Some(("no", why)) => Err(self.refusal(why, operation)),
            _ => Err(garbled(effect, operation)),
        }
    }

    /// Why a script did nothing, in its word for it.
    fn refusal(&self, why: &str, operation: &str) -> Error {
        let error = |kind, why: &str| Error::new(kind, operation).because(why);
        let host = self.ssh.place();
        match why {
            "missing" => error(Kind::NotFound, "there is no such file or folder"),
            "outside" => leads_out(operation),
            "irregular" => error(Kind::Config, "it is not a regular file"),
            "large" => {
                error(Kind::Config, "it is larger than 4 MiB, which is hardly the file that was meant")
            }
            "forbidden" => error(Kind::Forbidden, "permission denied")
                .hint(format!("give the account that ssh logs in with on {host} the right to read the file and to write its folder")),
            "readonly" => error(Kind::Forbidden, "read-only filesystem or storage medium"),
            "space" => error(Kind::BadState, "there is no space left there"),
            "foreign" => error(Kind::Forbidden, "the file belongs to another user or group, and only root can keep it so")
                .hint(format!("log in to {host} as the file's owner: host = \"owner@…\"")),
            "busy" => error(Kind::Busy, "another process is writing it right now").later(None),
            "changed" => {
                error(Kind::Conflict, "somebody else changed the file in this very moment").later(None)
            }
            "torn" => error(Kind::Unreachable, "the new content did not arrive whole").later(None),
            _ => match why.strip_prefix("tool ") {
                Some(tool) => error(Kind::BadState, &format!("{host} has no {tool} that can do what is needed"))
                    .hint("it needs GNU coreutils or BusyBox"),
                None => error(Kind::BadState, "the new content could not be written beside the file"),
            },
        }
    }
}

fn garbled(effect: Effect, operation: &str) -> Error {
    let error = Error::new(Kind::Corrupt, operation).because("the other machine's answer makes no sense");
    if effect == Effect::Writes { error.unknown() } else { error.later(None) }
}

/// Takes what `look.sh` says apart.
fn text(said: &[u8]) -> Option<Text> {
    let mut lines = said.splitn(7, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(lines.next()?).ok();
    let (numbers, user, groups, writable, room, path) =
        (line()?, line()?, line()?, line()?, line()?, line()?);
    let content = lines.next()?;
    let mut numbers = numbers.split(' ');
    let mode = u32::from_str_radix(numbers.next()?, 8).ok()?;
    let mut number = || numbers.next()?.parse::<u64>().ok();
    let (owner, group, names, seconds, size) = (number()?, number()?, number()?, number()?, number()?);
    let user: u64 = user.parse().ok()?;
    let member = groups.split(' ').any(|own| own.parse() == Ok(group));
    let folder = path.rsplit_once('/')?.0;
    if content.len() as u64 != size {
        return None;
    }
    let facts = Facts {
        path: path.to_owned(),
        folder: if folder.is_empty() { "/".into() } else { folder.to_owned() },
        updated_at: i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        mode,
        names,
        unwritable: (writable != "yes").then(|| "permission denied, or a read-only file system".to_owned()),
        room: room.parse::<u64>().ok().map(|kilobytes| kilobytes.saturating_mul(1024)),
        foreign: user != 0 && (owner != user || !member),
    };
    Some(Text { bytes: Zeroizing::new(content.to_vec()), facts })
}

#[async_trait]
impl Store for RemoteFile {
    fn shown(&self) -> String {
        format!("{}:{}", self.ssh.place(), self.path)
    }

    fn by_hand(&self, command: &str) -> String {
        format!("on {}: {command}", self.ssh.place())
    }

    fn commands(&self) -> [String; 2] {
        by_hand::there(&self.ssh.by_hand(), &self.path)
    }

    async fn read(&self, operation: &str) -> Result<Text> {
        let said = self.visit(&[FIND, LOOK], b"", Effect::Reads, operation).await?;
        text(&said).ok_or_else(|| garbled(Effect::Reads, operation))
    }

    async fn begin(&self, operation: &str) -> Result<Draft> {
        // It writes nothing that counts: a lost answer leaves the file as it is.
        let said = self.visit(&[FIND, LOCK, LOOK], b"", Effect::Reads, operation).await?;
        let text = text(&said).ok_or_else(|| garbled(Effect::Reads, operation))?;
        Ok(Draft { text, held: None })
    }

    async fn replace(
        &self,
        draft: Draft,
        new: Zeroizing<Vec<u8>>,
        operation: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let sum = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
        let numbers = format!("was={}\nwill={}\nsize={}", sum(&draft.text.bytes), sum(&new), new.len());
        self.visit(&[FIND, LOCK, &numbers, SWAP], &new, Effect::Writes, operation).await
    }
}

#[cfg(test)]
mod tests;
