//! 1Password's CLI with a service account, as far as it is needed.
//!
//! `op` gets the item as JSON on its stdin; its arguments, which every user of the machine can
//! read, hold ids alone. It gets the token in its environment, which is the only way it takes one,
//! and nothing else of 1Password's: `OP_CONNECT_HOST` and `OP_CONNECT_TOKEN` would win over it, and a
//! cache (`OP_CACHE`, on by default) would show an item as it was before somebody else's change.
//!
//! Of the CLI's documentation:
//! - A service account needs 2.18, and `--vault` with every item.
//! - An edit by JSON rewrites the whole item, and destroys a passkey on it. Whether an item has
//!   one is not always to be seen in its JSON. A preview (`--dry-run`) shows what else would be
//!   lost.
//! - What an edit prints of hidden fields is not documented, so the item is read again.
//! - Each call costs up to five requests of an hourly and a daily allowance.

pub(crate) mod failure;
mod limits;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Result, Secret};
use serde_json::Value;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::item::{Goal, Item, wipe};
use super::transport::{self, Place, Transport};
use crate::child;
use crate::http::Effect;
use crate::shared::Shared;

/// The version from which on there are service accounts.
const NEEDED: (u64, u64) = (2, 18);
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is taken of an answer.
const MOST: usize = 8 << 20;
/// What `op` may see of our environment beside what every program needs: where its folders are,
/// and how this machine reaches others.
const KEPT: [&str; 10] = [
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The CLI with a service account's token.
pub(super) struct Cli {
    /// Its file, or its name on PATH.
    op: PathBuf,
    token: Secret,
    /// Its file, when its version was seen to be new enough.
    ready: OnceCell<PathBuf>,
}

impl Cli {
    /// Finds the token. Runs nothing.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(shared: &Arc<Shared>, op: &Path) -> Result<Self> {
        let token = shared.credentials.need(
            "OP_SERVICE_ACCOUNT_TOKEN",
            "1Password",
            "make a service account with read_items and write_items on the vault",
        )?;
        Ok(Self { op: op.to_owned(), token, ready: OnceCell::new() })
    }

    /// The program, whose version is looked at once.
    async fn program(&self) -> Result<&Path> {
        let look = || async {
            let operation = "run 1Password's CLI";
            let found = if self.op.is_absolute() {
                Some(self.op.clone()).filter(|op| child::is_executable(op))
            } else {
                child::find(&self.op.to_string_lossy())
            };
            let program = found.ok_or_else(|| {
                Error::new(Kind::BadState, operation)
                    .because("there is no program op on PATH")
                    .hint("install 1Password CLI 2.18 or newer, or use a Connect server: [onepassword] connect = \"…\"")
            })?;
            let said = self.call(&program, &["--version"], b"", Effect::Reads, operation).await?;
            let version = std::str::from_utf8(&said).unwrap_or_default().trim();
            match numbers(version) {
                Some(own) if own >= NEEDED => Ok(program),
                Some(own) => Err(Error::new(Kind::BadState, operation)
                    .because(format!("it is version {}.{}, and knows no service accounts", own.0, own.1))
                    .hint("install 2.18 or newer")),
                None => Err(Error::new(Kind::BadState, operation)
                    .because(format!("{} does not answer as 1Password's CLI does", program.display()))),
            }
        };
        self.ready.get_or_try_init(look).await.map(PathBuf::as_path)
    }

    async fn call(
        &self,
        program: &Path,
        arguments: &[&str],
        input: &[u8],
        effect: Effect,
        operation: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut command = child::command(program);
        child::keep(&mut command, &KEPT);
        command.env("OP_SERVICE_ACCOUNT_TOKEN", self.token.expose()).env("OP_CACHE", "false");
        command.args(arguments);
        let answer = child::ask(&mut command, input, MOST, PATIENCE).await.map_err(|error| {
            Error::new(Kind::BadState, operation).because(format!("op: {}", error.kind()))
        })?;
        match answer.code() {
            Some(0) => Ok(answer.stdout),
            _ => Err(failure::classify(&answer, effect, PATIENCE, operation)),
        }
    }

    /// A call that answers in JSON.
    async fn json(&self, arguments: &[&str], input: &[u8], effect: Effect, operation: &str) -> Result<Value> {
        let program = self.program().await?;
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
        let said = self.call(program, &arguments, input, effect, operation).await?;
        serde_json::from_slice(&said).map_err(|_| {
            let error = Error::new(Kind::Corrupt, operation).because("what op says is no JSON");
            if effect == Effect::Writes { error.unknown() } else { error.later(None) }
        })
    }

    /// What would be lost if the item were written as it is, as the CLI itself previews it.
    async fn preview(&self, place: &Place, item: &Item, subject: &str) -> Result<Option<Finding>> {
        let operation = "preview a change of the item in 1Password";
        let arguments = ["item", "edit", &place.item, "--vault", &place.vault, "--dry-run"];
        let previewed = self.json(&arguments, &item.text(), Effect::Reads, operation).await;
        let unseen = || {
            let what = "whether 1Password's CLI would keep every field of the item can't be told before: it shows no preview";
            Finding::new(Severity::Unseen, subject, what)
        };
        let mut preview = match previewed {
            Ok(preview) => preview,
            Err(error) if matches!(error.kind(), Kind::BadState | Kind::Corrupt) => {
                return Ok(Some(unseen()));
            }
            Err(error) => return Err(error),
        };
        let lost = item.lost_in(&preview);
        let shows = preview["fields"].is_array();
        wipe(&mut preview);
        Ok(match lost {
            _ if !shows => Some(unseen()),
            Some(lost) => {
                let what = format!("a change by 1Password's CLI would lose something: {lost}");
                let mend = "use a Connect server for this item: [onepassword] via = \"connect\"";
                Some(Finding::new(Severity::Blocks, subject, what).mend(mend))
            }
            None => None,
        })
    }
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Why an item with a passkey is left alone.
fn has_passkey(item: &Item) -> Option<&'static str> {
    item.has_passkey().then_some("the item has a passkey, which a change by 1Password's CLI would destroy")
}

const MEND_PASSKEY: &str =
    "move the passkey to an item of its own, or use a Connect server: [onepassword] via = \"connect\"";

#[async_trait]
impl Transport for Cli {
    async fn place(&self, vault: &str, item: &str) -> Result<Place> {
        let find = async |arguments: &[&str], key: &str, name: &str, what: &str| {
            let operation = format!("find the {what} \"{name}\" in 1Password");
            let mut all = self.json(arguments, b"", Effect::Reads, &operation).await?;
            let found = transport::only(&all, key, name, what);
            wipe(&mut all);
            found
        };
        let vault = match transport::is_id(vault) {
            true => vault.to_owned(),
            false => find(&["vault", "list"], "name", vault, "vault").await?,
        };
        let item = match transport::is_id(item) {
            true => item.to_owned(),
            // By itself `item get` would take a domain for a title, and pass over the archive.
            false => {
                find(&["item", "list", "--vault", &vault, "--include-archive"], "title", item, "item").await?
            }
        };
        Ok(Place { vault, item })
    }

    async fn item(&self, place: &Place, choice: Option<&str>) -> Result<Item> {
        let arguments = ["item", "get", &place.item, "--vault", &place.vault, "--include-archive"];
        let document = self.json(&arguments, b"", Effect::Reads, "read the item in 1Password").await?;
        Ok(Item::new(document, choice.map(str::to_owned)))
    }

    async fn reach(
        &self,
        place: &Place,
        before: &Item,
        goals: &[Goal],
        choice: Option<&str>,
    ) -> Result<Item> {
        let operation = "change the item in 1Password";
        if let Some(why) = has_passkey(before) {
            return Err(Error::new(Kind::BadState, operation).because(why).hint(MEND_PASSKEY));
        }
        let edited = before.edited(goals)?;
        let arguments = ["item", "edit", &place.item, "--vault", &place.vault];
        wipe(&mut self.json(&arguments, &edited.text(), Effect::Writes, operation).await?);
        // It is written: whatever hinders the look at it leaves that to the next try.
        self.item(place, choice).await.map_err(Error::unknown)
    }

    async fn probe(
        &self,
        place: &Place,
        choice: Option<&str>,
        subject: &str,
    ) -> Result<(Option<Item>, Vec<Finding>)> {
        let item = self.item(place, choice).await?;
        let mut findings = Vec::new();
        if let Some(why) = has_passkey(&item) {
            findings.push(Finding::new(Severity::Blocks, subject, why).mend(MEND_PASSKEY));
        } else if item.category() == Some("LOGIN") {
            let what = "whether the item has a passkey can't be told for certain, and a change by 1Password's CLI would destroy it";
            findings.push(Finding::new(Severity::Unseen, subject, what).mend(MEND_PASSKEY));
        }
        // What is archived can't be edited, not even for show.
        if item.state().is_none() {
            findings.extend(self.preview(place, &item, subject).await?);
        }
        let what = "whether the service account may write to the vault is seen at its first write, before the server is changed";
        let mend = "give it write_items on the vault, if it has not";
        findings.push(Finding::new(Severity::Unseen, subject, what).mend(mend));
        // What is left of the allowance is worth knowing and no reason to stop if it is not told.
        let arguments = ["service-account", "ratelimit"];
        if let Ok(rows) = self.json(&arguments, b"", Effect::Reads, "read the allowance").await {
            findings.extend(limits::findings(&rows, subject));
        }
        Ok((Some(item), findings))
    }
}
