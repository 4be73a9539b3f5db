//! One setting or one connection string of an application, as a copy.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::lock::Mutex;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::{Effect as Did, Outcome};
use pgrotate_core::provider::{Capabilities, Content, Finding, Inspection, Seen, Severity, Sink};
use pgrotate_core::value::{Template, Update};
use pgrotate_core::{CopyId, Error, Kind, Result, Secret};
use serde::Deserialize;

use super::neighbours::is_hidden;
use super::reference::{Pointer, Reference, Statuses};
use super::settings::{Settings, Table};
use super::{ROLE, Site};
use crate::azure::{self, Account, Action, Answer, Call, End, Need, Operation, Pace};
use crate::azure_key_vault;
use crate::shared::Shared;

/// Time for the hosting kinds that carry a change out after their answer.
const OPERATION_LIMIT: Duration = Duration::from_secs(120);

/// `[[sinks]] kind = "azure_app_service"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group.
    pub resource_group: String,
    /// The application's name.
    pub app: String,
    /// The slot; the production site if left out.
    #[serde(default)]
    pub slot: Option<String>,
    /// The setting's name.
    #[serde(default)]
    pub setting: Option<String>,
    /// The connection string's name, instead of `setting`.
    #[serde(default)]
    pub connection_string: Option<String>,
}

/// One setting or connection string of one application or slot.
pub struct Setting {
    id: CopyId,
    pub(super) site: Site,
    pub(super) table: Table,
    pub(super) name: String,
    /// What was there before a change whose answer was lost. Without it a repeat could not prove
    /// that the rest is as before.
    before: Mutex<Option<Settings>>,
}

impl Setting {
    /// Binds the copy. Nothing is asked of Azure yet.
    ///
    /// # Errors
    /// When a name can't be one of Azure's, or not exactly one of setting and connection string is named.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { subscription, resource_group, app, slot, setting, connection_string } = options;
        let refuse = |why: &str| Err(Error::new(Kind::Config, "tell which setting is meant").because(why));
        let (table, own) = match (setting, connection_string) {
            (Some(setting), None) => (Table::Settings, setting),
            (None, Some(string)) => (Table::ConnectionStrings, string),
            _ => return refuse("there must be one of `setting` and `connection_string`"),
        };
        if own.trim().is_empty() {
            return refuse("its name is empty");
        }
        let site = Site::new(subscription, resource_group, app, slot, shared)?;
        site.shared.azure.declare(location(&site, table, &own));
        Ok(Self {
            id: CopyId::new(format!("azure_app_service:{}", name.as_ref().unwrap_or(&own))),
            site,
            table,
            name: own,
            before: Mutex::default(),
        })
    }

    async fn list(&self, account: &Account) -> Result<Settings> {
        Settings::list(&self.site, account, self.table).await
    }

    /// `write the setting NAME of APP`
    fn operation(&self, verb: &str) -> String {
        format!("{verb} the {} {} of {}", self.table.noun(), self.name, self.site.name())
    }

    fn seen(&self, settings: &Settings) -> Seen {
        let content = match settings.get(&self.name) {
            None => Content::Absent,
            Some(value) => match Pointer::read(value) {
                None => Content::Value(value.clone()),
                Some(Pointer::To(reference)) => {
                    let suffix = &self.site.shared.vendors.azure.key_vault_suffix;
                    Content::Reference(azure_key_vault::location(&reference.vault, &reference.secret, suffix))
                }
                Some(Pointer::Unreadable) => {
                    Content::Reference("a Key Vault reference that can't be read".into())
                }
            },
        };
        Seen { content, version: None, updated_at: None }
    }

    pub(super) fn found(&self, severity: Severity, what: impl Into<String>) -> Finding {
        Finding::new(severity, self.id.as_str(), what)
    }

    /// What stands in the way of the setting as it is.
    async fn judge(&self, account: &Account, settings: &Settings) -> Result<Vec<Finding>> {
        let Some(value) = settings.get(&self.name) else { return self.absent(account, settings).await };
        match Pointer::read(value) {
            None => Ok(Vec::new()),
            Some(Pointer::Unreadable) => Ok(vec![
                self.found(Severity::Blocks, "it holds a Key Vault reference that can't be read")
                    .mend("correct the reference by hand"),
            ]),
            Some(Pointer::To(_)) if self.table == Table::ConnectionStrings => {
                Ok(vec![self.found(Severity::Blocks, REFERENCE_IN_STRING).mend(MAKE_IT_A_SETTING)])
            }
            Some(Pointer::To(reference)) if reference.version.is_some() => {
                Ok(vec![self.found(Severity::Blocks, pinned(&reference)).mend(UNPIN)])
            }
            Some(Pointer::To(_)) => {
                let statuses = Statuses::look(&self.site, account).await?;
                let broken = statuses.of_setting(&self.name).filter(|status| !status.is_resolved());
                Ok(Vec::from_iter(broken.map(|status| {
                    let what = format!("its Key Vault reference gives no value: {}", status.status);
                    self.found(Severity::Blocks, what).mend(status.mend())
                })))
            }
        }
    }

    /// What a missing row means: a new one, unless it lives elsewhere.
    async fn absent(&self, account: &Account, settings: &Settings) -> Result<Vec<Finding>> {
        let noun = self.table.noun();
        let found = |severity, what: String, mend: &str| Ok(vec![self.found(severity, what).mend(mend)]);
        if let Some(other) = settings.like(&self.name) {
            let what = format!("there is no such {noun}, but one that is called {other}");
            return found(Severity::Blocks, what, "correct the name in the configuration");
        }
        let other = self.table.other();
        let elsewhere = match self.look_at(account, other).await {
            Ok(elsewhere) => elsewhere.get(&self.name).is_some(),
            Err(error) if is_hidden(&error) => false,
            Err(error) => return Err(error),
        };
        if elsewhere {
            let what = format!("there is no such {noun}, but a {} of this name", other.noun());
            let mend = match other {
                Table::Settings => "name it as `setting`",
                Table::ConnectionStrings => "name it as `connection_string`",
            };
            return found(Severity::Blocks, what, mend);
        }
        match self.table {
            Table::Settings => {
                let what = "there is no such setting yet; the run would make it".to_owned();
                found(Severity::Warning, what, "is the name right?")
            }
            Table::ConnectionStrings => {
                let what =
                    "there is no such connection string, and its type would have to be chosen".to_owned();
                found(Severity::Blocks, what, "is the name right? if so, make it once by hand")
            }
        }
    }

    /// Replaces the table. Gives what Azure then holds.
    async fn write(&self, account: &Account, settings: &Settings) -> Result<Settings> {
        let operation = self.operation("write");
        let url = self.site.url(account, &["config", self.table.path()]);
        let answer = account.send(Call::put(url, settings.body()), &operation).await?;
        let shown = if answer.status() == 202 {
            self.follow(account, &answer, &operation).await?;
            None
        } else {
            Settings::of(&answer)
        };
        match shown {
            Some(stored) => Ok(stored),
            // An answer without the table: it has to be asked for.
            None => self.list(account).await.map_err(Error::unknown),
        }
    }

    /// Waits for the hosting kinds that carry a change out after their answer.
    async fn follow(&self, account: &Account, answer: &Answer, operation: &str) -> Result<()> {
        let Some(announced) = Operation::announced(account, answer, operation)? else { return Ok(()) };
        let mut pace = Pace::new(&*self.site.shared.clock, OPERATION_LIMIT);
        match announced.follow(account, &mut pace, operation).await? {
            // What can't be asked about shows in the list that comes next.
            End::Succeeded(_) | End::Untold(_) => Ok(()),
            End::Failed { canceled, failure } => {
                let how = if canceled { "canceled it" } else { "failed" };
                let code = azure::show_code(&failure.code);
                Err(Error::new(Kind::ServerFault, operation)
                    .because(format!("Azure accepted the change and then {how}{code}"))
                    .hint("the application's activity log in the portal has the details")
                    .unknown())
            }
        }
    }

    /// Proves that the setting is as wanted and every other one as before.
    fn prove(&self, before: &Settings, after: &Settings, value: &Secret) -> Result<()> {
        let operation = self.operation("confirm");
        if after.get(&self.name) != Some(value) {
            return Err(Error::new(Kind::Conflict, operation)
                .because("it does not hold what was written; somebody else may be writing too")
                .unknown());
        }
        let others = before.differences(after, &self.name);
        if others.is_empty() {
            return Ok(());
        }
        let hint = "somebody else writes this application's settings, and one of the two changes may be lost: \
                    compare them, then `pgrotate resume`";
        Err(Error::new(Kind::Conflict, operation)
            .because(format!(
                "other {}s changed while it was written: {}",
                self.table.noun(),
                others.join(", ")
            ))
            .hint(hint))
    }
}

const REFERENCE_IN_STRING: &str = "it is a Key Vault reference, and nothing tells when a connection string takes up a new version of its secret";
const MAKE_IT_A_SETTING: &str = "make it an app setting, whose references can be refreshed and watched";
const UNPIN: &str = "take the version out of the reference; the application then gets the latest one, which is the one that is rotated";

fn pinned(reference: &Reference) -> String {
    format!("it points at one version of {reference}, so a new version has no effect on it")
}

#[async_trait]
impl Sink for Setting {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        location(&self.site, self.table, &self.name)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: true, version_ids: false, reports_time: false }
    }

    fn whole(&self) -> String {
        match self.table {
            Table::Settings => self.site.location(),
            Table::ConnectionStrings => format!("{} connection strings", self.site.location()),
        }
    }

    async fn check(&self) -> Result<Inspection> {
        let account = self.site.account()?;
        let look = async {
            let settings = self.look_at(&account, self.table).await?;
            let (own, beside) =
                futures::join!(self.judge(&account, &settings), self.look_beside(&account, &settings));
            Ok::<_, Error>((self.seen(&settings), [own?, beside?].concat()))
        };
        let (look, hindrances, identity) =
            futures::join!(look, self.hindrances(&account), self.site.identity(&account));
        let identity = identity.map(|site| format!("{site} {} {}", self.table.noun(), self.name));
        azure::inspection(look, hindrances?, identity)
    }

    async fn inspect(&self) -> Result<Seen> {
        let account = self.site.account()?;
        self.list(&account).await.map(|settings| self.seen(&settings))
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let account = self.site.account()?;
        // One change of this copy at a time; what other copies do is the executor's concern.
        let mut kept = self.before.lock().await;
        let settings = self.list(&account).await?;
        let present = settings.get(&self.name);
        match present.and_then(Pointer::read) {
            None => {}
            Some(Pointer::To(_)) if self.table == Table::ConnectionStrings => {
                return Err(self.refuse(REFERENCE_IN_STRING, MAKE_IT_A_SETTING));
            }
            Some(Pointer::To(reference)) if reference.version.is_none() => {
                return Ok(Outcome::of(Did::Kept).note(format!("it points at {reference} and stays so")));
            }
            Some(Pointer::To(reference)) => return Err(self.refuse(&pinned(&reference), UNPIN)),
            Some(Pointer::Unreadable) => {
                return Err(
                    self.refuse("it holds a Key Vault reference that can't be read", "correct it by hand")
                );
            }
        }
        let value = update.value(present)?;
        if present == Some(&value) {
            // Of a write whose answer was lost, the proof is still to be made.
            return match kept.take() {
                Some(before) => self.prove(&before, &settings, &value).map(|()| Outcome::changed()),
                None => Ok(Outcome::already_done()),
            };
        }
        let changed = settings.with(&self.name, &value);
        let before = kept.insert(settings).clone();
        let after = self.write(&account, &changed).await?;
        *kept = None;
        self.prove(&before, &after, &value).map(|()| Outcome::changed())
    }

    fn by_hand(&self, template: &Template) -> Vec<Instruction> {
        self.instructions(template)
    }
}

impl Setting {
    fn refuse(&self, why: &str, mend: &str) -> Error {
        Error::new(Kind::BadState, self.operation("write")).because(why).hint(mend)
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A table as it is, asked once for all copies in it.
    pub(super) async fn look_at(&self, account: &Account, table: Table) -> Result<Arc<Settings>> {
        Settings::look(&self.site, account, table).await
    }

    /// What stands in the way of reading and writing the table.
    async fn hindrances(&self, account: &Account) -> Result<Vec<Finding>> {
        let actions = [
            Action::control(
                self.site.right("config/list/action"),
                "all settings are read before one is written, because they are written together",
            ),
            Action::control(self.site.right("config/write"), "without it the new password can't be written"),
        ];
        let need = Need { subject: self.id.as_str(), actions: &actions, role: ROLE };
        azure::hindrances(&self.site.shared, account, &self.site.resource(account), &need).await
    }
}

/// Where a row of a table is.
pub(super) fn location(site: &Site, table: Table, name: &str) -> String {
    format!("{} {} {name}", site.location(), table.noun())
}
