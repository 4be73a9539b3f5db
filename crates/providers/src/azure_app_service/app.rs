//! An application, as a consumer: it takes up new settings and new secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Activation, Consumer, Finding, Severity};
use pgrotate_core::{CopyId, Error, Kind, Result, VersionId};
use serde::Deserialize;

use super::reference::Statuses;
use super::{ROLE, Site};
use crate::azure::{self, Account, Action, Call, Need, Pace};
use crate::azure_key_vault;
use crate::shared::Shared;

/// Time for refreshed references to arrive. Seconds are usual.
const REFRESH_LIMIT: Duration = Duration::from_secs(120);

/// `[[consumers]] kind = "azure_app_service"`
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
}

/// One application or slot.
pub struct App {
    id: String,
    site: Site,
}

/// How hard a restart is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restart {
    /// Only what does not run on the present settings yet.
    IfNeeded,
    /// In any case: that a secret behind a reference is new is no change of the settings.
    Always,
}

impl App {
    /// Binds the application. Nothing is asked of Azure yet.
    ///
    /// # Errors
    /// When a name can't be one of Azure's.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { subscription, resource_group, app, slot } = options;
        let site = Site::new(subscription, resource_group, app, slot, shared)?;
        let id = format!("azure_app_service:{}", name.unwrap_or_else(|| site.name()));
        Ok(Self { id, site })
    }

    fn found(&self, severity: Severity, what: impl Into<String>) -> Finding {
        Finding::new(severity, self.id.as_str(), what)
    }

    async fn look_at_site(&self, account: &Account) -> Result<Vec<Finding>> {
        let site = self.site.read(account).await?;
        let stopped =
            site.properties.state.as_deref().is_some_and(|state| !state.eq_ignore_ascii_case("Running"));
        Ok(Vec::from_iter(stopped.then(|| {
            self.found(Severity::Warning, "the application is stopped")
                .why("nothing can prove that it works afterwards")
                .mend(format!("az webapp start {}", self.site.cli()))
        })))
    }

    /// What stands in the way of the restart, and of fetching references anew where that is needed.
    async fn hindrances(&self, account: &Account, refreshes: bool) -> Result<Vec<Finding>> {
        let restart = "without it the application can't be made to use the new password at once";
        let refresh =
            "without it the application's Key Vault references keep the old password for up to 24 hours";
        let mut actions = vec![Action::control(self.site.right("restart/action"), restart)];
        if refreshes {
            actions.push(Action::control(self.site.right("config/write"), refresh));
        }
        let need = Need { subject: &self.id, actions: &actions, role: ROLE };
        azure::hindrances(&self.site.shared, account, &self.site.resource(account), &need).await
    }

    /// What is wrong with references, and whether there are some that the run has to have fetched anew.
    async fn look_at_references(&self, account: &Account) -> Result<(Vec<Finding>, bool)> {
        match Statuses::look(&self.site, account).await {
            Ok(statuses) => {
                let broken = statuses.broken().map(|status| {
                    let what = format!(
                        "the Key Vault reference in {} gives no value: {}",
                        status.setting, status.status
                    );
                    let why = "the application gets the text of the reference instead, at the latest when it restarts";
                    self.found(Severity::Warning, what).why(why).mend(status.mend())
                });
                let shared = &self.site.shared;
                let suffix = &shared.vendors.azure.key_vault_suffix;
                let of_copy = |vault: &str, secret: &str| {
                    shared.azure.has_copy_at(&azure_key_vault::location(vault, secret, suffix))
                };
                Ok((broken.collect(), statuses.points_at(of_copy)))
            }
            Err(error) if error.kind() == Kind::Forbidden => {
                let what = "whether settings are Key Vault references can't be seen; the run needs to know";
                Ok((vec![self.found(Severity::Blocks, what).mend(error.hints().join("; "))], false))
            }
            Err(error) => Err(error),
        }
    }

    /// Has the references to what the run wrote fetched anew and waits until they have arrived.
    /// Tells whether there were any.
    async fn refresh(&self, account: &Account, written: &BTreeMap<CopyId, VersionId>) -> Result<bool> {
        // Without a secret of the run there is nothing that a reference could have missed.
        if written.keys().all(|copy| copy.kind() != "azure_key_vault") {
            return Ok(false);
        }
        let name = self.site.name();
        let statuses = Statuses::read(&self.site, account).await?;
        if statuses.awaited(written).is_empty() {
            return Ok(false);
        }
        if statuses.still_waiting(written, &name).is_none() {
            return Ok(true);
        }
        Statuses::refresh(&self.site, account).await?;
        let mut pace = Pace::new(&*self.site.shared.clock, REFRESH_LIMIT);
        loop {
            let waiting = match Statuses::read(&self.site, account).await {
                Ok(statuses) => statuses.still_waiting(written, &name),
                Err(error) if matches!(error.retry(), pgrotate_core::Retry::Later { .. }) => Some(error),
                Err(error) => return Err(error),
            };
            match waiting {
                None => return Ok(true),
                Some(_) if pace.rest(None).await => {}
                Some(error) => return Err(error.later(None)),
            }
        }
    }

    async fn restart(&self, account: &Account, restart: Restart) -> Result<Outcome> {
        let operation = format!("restart the application {}", self.site.name());
        let mut url = self.site.url(account, &["restart"]);
        let soft = if restart == Restart::IfNeeded { "true" } else { "false" };
        url.query_pairs_mut().append_pair("softRestart", soft).append_pair("synchronous", "true");
        let answer = account.send(Call::post(url).patient(), &operation).await.map_err(repeatable)?;
        let outcome = Outcome::changed();
        Ok(match answer.status() {
            202 => outcome
                .note("Azure accepted the restart and did not wait for its end; the health check has to"),
            _ => outcome,
        })
    }
}

/// A restart whose answer was lost is repeated without harm.
fn repeatable(error: Error) -> Error {
    if error.kind() == Kind::TimedOut {
        return error.hint("does the application start at all? look at its log");
    }
    error
}

#[async_trait]
impl Consumer for App {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        let account = self.site.account()?;
        let (site, references, _) = futures::join!(
            self.look_at_site(&account),
            self.look_at_references(&account),
            // At the same time as the rest; what is judged of it depends on the references.
            self.hindrances(&account, false),
        );
        let (found, refreshes) = references?;
        Ok([site?, found, self.hindrances(&account, refreshes).await?].concat())
    }

    async fn activate(&self, activation: &Activation<'_>) -> Result<Outcome> {
        let account = self.site.account()?;
        if self.refresh(&account, activation.versions).await? {
            let note = "its Key Vault references have arrived at the new version";
            return self.restart(&account, Restart::Always).await.map(|outcome| outcome.note(note));
        }
        // The changed setting restarts the application by itself; this waits for it.
        self.restart(&account, Restart::IfNeeded).await
    }
}
