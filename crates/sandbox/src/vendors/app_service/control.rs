//! What the control interface shows of the sites, and what it does to them.
//!
//! A copy's id is what a configuration would call it. A setting of the environment's own application is called by its
//! name alone, as the runbook's is; everything else says where it is:
//!
//! | copy | id |
//! | --- | --- |
//! | setting | `azure_app_service:DATABASE_URL` |
//! | connection string | `azure_app_service:mindwell-dev-api/connectionstrings/Database` |
//! | setting of a slot | `azure_app_service:mindwell-dev-api/blue/DATABASE_URL` |
//! | connection string of a slot | `azure_app_service:mindwell-dev-api/blue/connectionstrings/Database` |
//! | setting of a further application | `azure_app_service:mindwell-dev-worker/DATABASE_URL` |

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::call::lock;
use super::super::{Copy, Environment};
use super::site::{STRINGS, Site};
use super::{AppService, SiteIndex};

impl AppService {
    /// The settings and connection strings that hold, or may come to hold, a copy: the bystanders of the seed are not
    /// among them.
    pub(crate) fn copies(&self, environment: &Environment) -> Vec<(String, Copy)> {
        let sites = lock(&self.sites);
        let own = sites.iter().filter(|site| site.is_in(environment));
        own.flat_map(Site::copies).map(|(name, copy)| (format!("azure_app_service:{name}"), copy)).collect()
    }

    /// How often the sites without a process have been started, by full name.
    pub(crate) fn starts(&self, environment: &Environment) -> BTreeMap<String, u64> {
        let sites = lock(&self.sites);
        let own = sites.iter().filter(|site| site.is_in(environment) && !site.has_process());
        own.map(|site| (site.full_name(), self.starts_of(site))).collect()
    }

    /// The applications of an environment, its own first.
    pub(crate) fn applications(&self, environment: &Environment) -> Vec<String> {
        let sites = lock(&self.sites);
        let own = sites.iter().filter(|site| site.is_in(environment) && site.slot.is_none());
        own.map(|site| site.app.clone()).collect()
    }

    /// Puts a site of an environment into a state that a test wants to see handled.
    pub(crate) fn set(
        self: &Arc<Self>,
        environment: &Environment,
        what: &str,
        value: &Value,
    ) -> Result<(), String> {
        let text = |key: &str| value[key].as_str();
        let site = || self.meant(environment, text("app"), text("slot"));
        match what {
            "app" => {
                let name = value.as_str().ok_or("app takes a name")?;
                let own = self.meant(environment, None, None)?;
                return self.add(own, |own| own.as_app(name));
            }
            "slot" => {
                let name = value.as_str().or(text("slot")).ok_or("slot takes a name, or {app, slot}")?;
                let of = self.meant(environment, text("app"), None)?;
                return self.add(of, |of| of.as_slot(name));
            }
            "setting" => {
                let name = text("name").ok_or("setting takes {app?, slot?, name, value}")?;
                self.change_settings(site()?, |settings| match text("value") {
                    Some(value) => drop(settings.insert(name.to_owned(), value.to_owned())),
                    None => drop(settings.remove(name)),
                });
            }
            "reference" => {
                let name = text("name").unwrap_or("DATABASE_URL").to_owned();
                let secret =
                    text("secret").ok_or("reference takes {app?, slot?, name?, secret, version?}")?;
                let version =
                    text("version").map_or_else(String::new, |version| format!(";SecretVersion={version}"));
                let vault = environment.vault();
                let literal = format!("@Microsoft.KeyVault(VaultName={vault};SecretName={secret}{version})");
                self.change_settings(site()?, |settings| drop(settings.insert(name, literal)));
            }
            "connection_string" => {
                let name = text("name").ok_or("connection_string takes {app?, slot?, name, value, type?}")?;
                let kind = text("type").unwrap_or("PostgreSQL");
                self.change_strings(site()?, |strings| match text("value") {
                    Some(value) => {
                        drop(strings.insert(name.to_owned(), json!({"value": value, "type": kind})))
                    }
                    None => drop(strings.remove(name)),
                });
            }
            "slot_removed" => {
                let name =
                    value.as_str().or(text("slot")).ok_or("slot_removed takes a name, or {app, slot}")?;
                let SiteIndex(index) = self.meant(environment, text("app"), Some(name))?;
                lock(&self.sites)[index].removed = true;
            }
            "sticky" => {
                let SiteIndex(index) = self.meant(environment, None, None)?;
                lock(&self.sites)[index].sticky["appSettingNames"] = value.clone();
            }
            "basic_auth" | "stopped" | "logs_off" => {
                let truth = value.as_bool().ok_or_else(|| format!("{what} takes true or false"))?;
                let SiteIndex(index) = self.meant(environment, None, None)?;
                let site = &mut lock(&self.sites)[index];
                let switch = match what {
                    "stopped" => &mut site.stopped,
                    "logs_off" => &mut site.logs_off,
                    _ => &mut site.basic_auth,
                };
                *switch = truth;
            }
            other => return Err(format!("app_service can't set {other:?}")),
        }
        Ok(())
    }

    /// The site that a request of the control interface means: the environment's own one unless it says another.
    fn meant(
        &self,
        environment: &Environment,
        app: Option<&str>,
        slot: Option<&str>,
    ) -> Result<SiteIndex, String> {
        let own = environment.app();
        let app = app.unwrap_or(&own);
        let sites = lock(&self.sites);
        let found = sites
            .iter()
            .position(|site| site.is_in(environment) && site.app == app && site.slot.as_deref() == slot);
        let full = || slot.map_or_else(|| app.to_owned(), |slot| format!("{app}/{slot}"));
        found.map(SiteIndex).ok_or_else(|| format!("there is no site {}", full()))
    }

    /// Adds a site that is made from another one, and starts it.
    fn add(self: &Arc<Self>, from: SiteIndex, make: impl FnOnce(&Site) -> Site) -> Result<(), String> {
        let index = {
            let mut sites = lock(&self.sites);
            let new = make(&sites[from.0]);
            // By the label, because host names are made of it.
            if sites.iter().any(|site| !site.removed && site.label().eq_ignore_ascii_case(&new.label())) {
                return Err(format!("there is a site {} already", new.full_name()));
            }
            sites.push(new);
            SiteIndex(sites.len() - 1)
        };
        self.hard_restart(index);
        Ok(())
    }
}

impl Site {
    fn copies(&self) -> Vec<(String, Copy)> {
        let place = format!("{}/", self.full_name());
        let of_settings = if self.has_process() { "" } else { &place };
        let settings = self.settings.iter().filter(|(name, _)| !self.bystanders.contains(*name));
        let settings =
            settings.map(|(name, value)| (format!("{of_settings}{name}"), self.copy(name, value.clone())));
        let strings = self.connection_strings.iter().map(|(name, entry)| {
            let own = format!("{STRINGS}{name}");
            let value = entry["value"].as_str().unwrap_or_default().to_owned();
            let copy = self.copy(&own, value);
            (format!("{place}{own}"), copy)
        });
        settings.chain(strings).collect()
    }

    fn copy(&self, name: &str, value: String) -> Copy {
        let changes = self.changes.get(name).copied().unwrap_or_default();
        Copy { value: Some(value), version: changes.to_string(), versions: changes }
    }
}
