//! 1Password as the vault of record, by way of a Connect server or of the CLI `op`.
//!
//! One item holds everything: the current password stays in the item's own password field, so
//! that people find it where they always did, and the other versions stand in fields that
//! pgrotate adds: `pgrotate pending RUN`, `pgrotate previous` (both hidden) and, in plain text, the
//! runs that made the current and the previous one. Connect shows no history of an item, so the
//! previous password would otherwise be lost to programs.
//!
//! *Needs* a Connect token (`OP_CONNECT_TOKEN`) with read and write on the vault, or a service
//! account's (`OP_SERVICE_ACCOUNT_TOKEN`) with `read_items` and `write_items`, and `op` 2.18 or
//! newer. `[onepassword] via` says which; without it Connect is taken where a server is named.
//!
//! By Connect an item is patched; the CLI can only rewrite it as a whole, so it is asked first
//! what would be lost (`onepassword/cli.rs`). Both ways the item is compared afterwards with what it
//! was before.
//!
//! Of Connect's interface (specification 1.7.1):
//! - Titles are not unique; two items of one title stop the run.
//! - `PATCH` takes a JSON Patch of `add`, `remove` and `replace`, with fields addressed by id
//!   and not by place. `PUT` would replace the item and lose what isn't sent, so it isn't used.
//! - Every step here is a single patch, which Connect carries out as a whole: there is no
//!   moment at which a password is in no field.
//! - There is no ETag. Each answer is compared with what was there before; a change beside ours
//!   stops the run instead of going unnoticed. What matters most needs no condition: staging only
//!   adds a field, and promoting removes one by its id, so neither can undo the other by coming late.
//! - An empty patch is documented to change nothing and answers with the item. `check` uses it
//!   to find out whether the token may write. That the right is looked at before the patch is
//!   an inference.

mod by_hand;
pub(crate) mod cli;
pub(crate) mod connect;
mod item;
#[cfg(test)]
mod tests;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::provider::{Entry, Finding, Severity, Survey, Vault, VaultState};
use pgrotate_core::{CopyId, Error, Kind, Result, RunId, Secret, VersionId};
use serde::Deserialize;
use tokio::sync::OnceCell;

use self::item::{Goal, Item, Slot};
use self::transport::{Place, Transport};
use crate::shared::Shared;

/// The kind's name in the configuration and in copy ids.
const KIND: &str = "onepassword";

/// Which item.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The vault's name or id.
    pub vault: String,
    /// The item's title or id.
    pub item: String,
    /// The id or label of the field that holds the password; by itself the one that 1Password
    /// marks as the password.
    #[serde(default)]
    pub field: Option<String>,
}

/// One item in 1Password.
pub struct Onepassword {
    id: CopyId,
    options: Options,
    shared: Arc<Shared>,
    /// The CLI, where it is needed: a name on PATH.
    op: PathBuf,
    transport: OnceCell<Box<dyn Transport>>,
    place: OnceCell<Place>,
}

impl Onepassword {
    /// Binds the vault of record to an item.
    ///
    /// # Errors
    /// When the configured field is one of those that pgrotate adds.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        if options.field.as_deref().is_some_and(Slot::is_own_label) {
            return Err(Error::new(Kind::Config, "use the configured field as the password")
                .because("pgrotate keeps its own notes in a field of this label"));
        }
        let id = CopyId::new(format!("{KIND}:{}", name.as_ref().unwrap_or(&options.item)));
        let op = PathBuf::from("op");
        Ok(Self { id, options, shared, op, transport: OnceCell::new(), place: OnceCell::new() })
    }

    async fn transport(&self) -> Result<&dyn Transport> {
        let choose = || async { transport::choose(&self.shared, &self.op) };
        self.transport.get_or_try_init(choose).await.map(Box::as_ref)
    }

    /// Where the item is; looked up once.
    async fn place(&self) -> Result<&Place> {
        let Options { vault, item, .. } = &self.options;
        self.place.get_or_try_init(|| async { self.transport().await?.place(vault, item).await }).await
    }

    async fn item(&self) -> Result<Item> {
        let place = self.place().await?;
        self.transport().await?.item(place, self.options.field.as_deref()).await
    }

    /// Whether the item is another one than it was: then a patch that was made for it may not fit any more.
    async fn has_moved(&self, before: &Item) -> bool {
        self.item().await.is_ok_and(|now| now.version() != before.version())
    }

    /// Brings the item to the goals in one write, and makes sure that nothing else changed.
    async fn reach(&self, before: &Item, goals: &[Goal]) -> Result<Option<VersionId>> {
        if before.patch(goals)?.is_empty() {
            return Ok(before.version());
        }
        let (place, choice) = (self.place().await?, self.options.field.as_deref());
        let after = match self.transport().await?.reach(place, before, goals, choice).await {
            Err(error) if error.kind() == Kind::Rejected && self.has_moved(before).await => {
                return Err(Error::new(Kind::Conflict, format!("change {}", self.id))
                    .because(
                        "it was changed at the same moment, perhaps by a request of our own that came late",
                    )
                    .unknown());
            }
            after => after?,
        };
        match after.deviation(before, goals)? {
            None => Ok(after.version()),
            Some(what) => Err(Error::new(Kind::Conflict, format!("change only the password in {}", self.id))
                .because(what)
                .hint("somebody edited the item at the same moment; look at it in 1Password, which keeps its history")),
        }
    }
}

#[async_trait]
impl Vault for Onepassword {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        // Without the field: what a run stages and keeps belongs to the item as a whole.
        let Options { vault, item, .. } = &self.options;
        format!("{KIND}/{vault}/{item}")
    }

    async fn check(&self) -> Result<Survey> {
        let (place, choice) = (self.place().await?, self.options.field.as_deref());
        let (item, mut findings) = self.transport().await?.probe(place, choice, self.id.as_str()).await?;
        if let Some(item) = &item {
            findings.extend(item.state().map(|state| {
                let what = format!("the item is {}", state.to_lowercase());
                Finding::new(Severity::Blocks, self.id.as_str(), what).mend("restore it in 1Password")
            }));
        }
        let state = item.map(|item| item.read()).transpose()?;
        // Both are made once and never given to another one.
        let identity = Some(format!("1Password vault {} item {}", place.vault, place.item));
        Ok(Survey { state, findings, identity })
    }

    async fn read(&self) -> Result<VaultState> {
        self.item().await?.read()
    }

    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()> {
        let before = self.item().await?;
        let state = before.read()?;
        let refuse =
            |why: String| Error::new(Kind::Conflict, format!("stage a password in {}", self.id)).because(why);
        let current = state.current.filter(|current| current.run == Some(run));
        // What is current by now and still pending came late.
        let late = |own: &Entry| {
            own.run == Some(run) && current.as_ref().is_some_and(|current| current.secret == own.secret)
        };
        if current.as_ref().is_some_and(|current| current.secret == *secret) {
            return Err(refuse("this run's password is already the current one".into()));
        }
        let pending: Vec<_> = state.pending.iter().filter(|own| !late(own)).collect();
        if let Some(first) = pending.first() {
            return match first.run {
                Some(owner) if owner == run && pending.iter().all(|own| own.secret == *secret) => Ok(()),
                Some(owner) if owner == run => Err(refuse("this run has staged another one before".into())),
                Some(owner) => Err(refuse(format!("a pending password of the run {owner} is there"))
                    .hint(format!("finish it first: pgrotate resume {owner}, or pgrotate abort {owner}"))),
                None => Err(refuse("a pending password of an unknown run is there".into())
                    .hint("look at the item in 1Password and remove it there if it is not in use")),
            };
        }
        self.reach(&before, &[(Slot::Pending(run), Some(secret.clone()))]).await.map(drop)
    }

    async fn promote(&self, run: RunId, next: &Secret, user: Option<&str>) -> Result<Option<VersionId>> {
        let before = self.item().await?;
        let state = before.read()?;
        let ours = |entry: &Entry| entry.run == Some(run) && entry.secret == *next;
        // A first try to stage it may have come late: what is current already is not made current once more, for
        // that would drop the password from before.
        if state.current.as_ref().is_some_and(ours) {
            return self.reach(&before, &[(Slot::Pending(run), None)]).await;
        }
        if !state.pending.iter().any(ours) {
            return Err(Error::new(Kind::Conflict, format!("make the new password current in {}", self.id))
                .because("the item does not hold this run's password as pending")
                .hint("somebody changed the item; its history in 1Password has the value"));
        }
        let name = |run: RunId| Secret::new(run.to_string());
        let (old, old_run) = match state.current {
            Some(current) => (Some(current.secret), current.run.map(name)),
            None => (None, None),
        };
        // Should a server ever carry out half a patch: the old password is kept before it is
        // overwritten, and the pending one is dropped when it stands elsewhere.
        let mut goals = vec![
            (Slot::Previous, old),
            (Slot::PreviousRun, old_run),
            (Slot::Password, Some(next.clone())),
            (Slot::Run, Some(name(run))),
            (Slot::Pending(run), None),
        ];
        goals.extend(user.map(|user| (Slot::User, Some(Secret::new(user)))));
        self.reach(&before, &goals).await
    }

    async fn lay_aside(&self, run: RunId, idle: &Secret) -> Result<()> {
        let before = self.item().await?;
        let goals = [
            (Slot::Previous, Some(idle.clone())),
            (Slot::PreviousRun, Some(Secret::new(run.to_string()))),
            (Slot::Pending(run), None),
        ];
        self.reach(&before, &goals).await.map(drop)
    }

    async fn discard(&self, run: RunId) -> Result<()> {
        let before = self.item().await?;
        self.reach(&before, &[(Slot::Pending(run), None)]).await.map(drop)
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}
