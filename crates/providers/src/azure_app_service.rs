//! Azure App Service: one setting of an application (a copy), the application itself (a consumer),
//! and its log (a verification). Each can be of the production site or of a slot.
//!
//! Needs on the site:
//! - setting: `Microsoft.Web/sites/config/list/action` (a plain *Reader* lacks it) and
//!   `Microsoft.Web/sites/config/write`
//! - application: `Microsoft.Web/sites/read`, `Microsoft.Web/sites/restart/action`, and for Key
//!   Vault references `Microsoft.Web/sites/config/read` and `…/config/write`
//! - log: `Microsoft.Web/sites/read`, and a role that lets a token into the SCM site, such as
//!   *Website Contributor*
//!
//! of a slot the same with `sites/slots`.
//!
//! Can't: change one setting alone. The interface replaces all of them and knows no condition, so
//! somebody else's change between the list and the PUT would be lost; what is listed before and
//! after is compared, value by value.
//!
//! Quirks (App Service REST reference, "Web Apps - Update Application Settings", "- Restart"; "Use Key
//! Vault references as app settings"):
//! - a changed setting restarts the application by itself, in the background. A soft, synchronous
//!   restart afterwards restarts only what still runs on the old settings, and waits for it.
//! - a setting `@Microsoft.KeyVault(…)` points at a secret. It is never overwritten. The value
//!   behind it is kept for up to 24 hours, or until a refresh; a plain restart does not fetch it.
//! - some hosting kinds answer a PUT with 202 and a `Location` to ask about.

mod app;
pub(crate) mod log;
mod neighbours;
mod reference;
mod setting;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use pgrotate_core::{Error, Kind, Result};
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use self::app::{App, Options as AppOptions};
pub use self::log::{Log, Options as LogOptions};
pub use self::setting::{Options as SettingOptions, Setting};
use crate::azure::{self, Account, Call, below, checked_name};
use crate::shared::Shared;

/// The built-in role that suffices.
const ROLE: &str = "Website Contributor";

/// The production site of an application, or one of its slots.
struct Site {
    subscription: String,
    group: String,
    app: String,
    slot: Option<String>,
    shared: Arc<Shared>,
}

/// A site, as far as it matters here.
#[derive(Deserialize)]
struct Resource {
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    default_host_name: Option<String>,
    #[serde(default)]
    host_name_ssl_states: Vec<HostName>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostName {
    name: String,
    #[serde(default)]
    host_type: Option<String>,
}

impl Properties {
    /// The host of the SCM site. It can't be guessed from the application's name.
    fn scm_host(&self) -> Option<&str> {
        let repository = |host: &&HostName| host.host_type.as_deref() == Some("Repository");
        self.host_name_ssl_states.iter().find(repository).map(|host| host.name.as_str())
    }
}

impl Site {
    fn new(
        subscription: String,
        group: String,
        app: String,
        slot: Option<String>,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        checked_name("subscription", &subscription)?;
        checked_name("resource_group", &group)?;
        checked_name("app", &app)?;
        // App Service itself calls the site that is no slot so.
        let slot = slot.filter(|slot| !slot.eq_ignore_ascii_case("production"));
        if let Some(slot) = &slot {
            checked_name("slot", slot)?;
        }
        Ok(Self { subscription, group, app, slot, shared })
    }

    fn account(&self) -> Result<Arc<Account>> {
        azure::account(&self.shared)
    }

    /// The application's name, with the slot's if it is one.
    fn name(&self) -> String {
        match &self.slot {
            Some(slot) => format!("{}/{slot}", self.app),
            None => self.app.clone(),
        }
    }

    fn location(&self) -> String {
        let Self { subscription, group, .. } = self;
        format!("azure_app_service {subscription}/{group}/{}", self.name()).to_ascii_lowercase()
    }

    fn resource(&self, account: &Account) -> Url {
        let mut provider = vec!["Microsoft.Web", "sites", self.app.as_str()];
        if let Some(slot) = &self.slot {
            provider.extend(["slots", slot]);
        }
        account.resource(&self.subscription, &self.group, &provider)
    }

    fn url(&self, account: &Account, path: &[&str]) -> Url {
        below(&self.resource(account), path, &self.shared.vendors.azure.web_api_version)
    }

    /// The full name of a right on the site.
    fn right(&self, action: &str) -> String {
        let slots = if self.slot.is_some() { "/slots" } else { "" };
        format!("Microsoft.Web/sites{slots}/{action}")
    }

    /// One of its slots.
    fn slot(&self, slot: &str) -> Result<Self> {
        let Self { subscription, group, app, shared, .. } = self;
        Self::new(subscription.clone(), group.clone(), app.clone(), Some(slot.to_owned()), Arc::clone(shared))
    }

    /// What tells it from another site of its name: the host name, in which App Service puts a part of its own where
    /// it is asked to. It stays for as long as the site does.
    async fn identity(&self, account: &Account) -> Option<String> {
        let site = self.read(account).await.ok()?;
        let host = site.properties.default_host_name.as_deref()?;
        Some(format!("{} at {host}", self.location()))
    }

    /// What the application is, asked once.
    async fn read(&self, account: &Account) -> Result<Arc<Resource>> {
        let operation = format!("read the application {}", self.name());
        self.look(account, &[], Call::get, &operation).await
    }

    /// What is below the site, asked once: for checks, which look at the same things from several sides.
    async fn look<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        account: &Account,
        path: &[&str],
        call: impl FnOnce(Url) -> Call,
        operation: &str,
    ) -> Result<Arc<T>> {
        let url = self.url(account, path);
        let question = format!("look at {url}");
        let ask = async {
            let answer = account.send(call(url), operation).await.map_err(|error| self.explain(error))?;
            answer.json::<T>(operation)
        };
        self.shared.looks.once(question, ask).await
    }

    /// Azure's answer doesn't tell whether it is the slot or its application that is not there.
    fn explain(&self, error: Error) -> Error {
        match &self.slot {
            Some(slot) if error.kind() == Kind::NotFound => {
                let Self { group, app, .. } = self;
                error
                    .because(format!("{app} has no slot \"{slot}\", or there is no such application"))
                    .hint(format!(
                        "`az webapp deployment slot list --resource-group {group} --name {app}` shows the slots \
                         that there are: correct `slot` in the configuration, or make the slot first"
                    ))
            }
            _ => error,
        }
    }

    /// Options of the Azure CLI that mean this site.
    fn cli(&self) -> String {
        let slot = self.slot.as_ref().map_or_else(String::new, |slot| format!(" --slot {slot}"));
        format!("--resource-group {} --name {}{slot}", self.group, self.app)
    }
}
