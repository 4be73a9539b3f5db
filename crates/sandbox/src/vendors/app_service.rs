//! App Service: a site's settings as Azure Resource Manager shows them, the restarts that changing them brings, and
//! the SCM site with the application's log stream.
//!
//! The resources are reached through [`super::ResourceManager`], which owns their address; the router here is the SCM
//! site's alone. Each environment has the application that the sandbox runs; further applications and deployment slots
//! are added by [`control`]. Simplified: those keep settings and connection strings of their own and count their
//! restarts, but run no process, and their host name is that of the application that runs; a site has one instance;
//! refreshing references makes new values known, and the process gets them at its next start. Whether
//! Azure restarts an application for a PUT of the settings it already has is not documented: this one doesn't.

mod archive;
mod control;
mod publishing;
mod restarts;
mod scm;
mod site;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use self::site::Site;
use super::azure_access::AzureAccess;
use super::azure_arm::{ArmCall, ArmFailure, ArmGate};
use super::azure_sign_in::AzureSignIn;
use super::call::{empty, lock, reply};
use super::{AppControl, Environment, KeyVault, Latency, World};

const KIND: &str = "Microsoft.Web/sites";

/// App Service's sites.
pub(crate) struct AppService {
    scm: String,
    latency: Latency,
    sign_in: Arc<AzureSignIn>,
    gate: ArmGate,
    key_vault: Arc<KeyVault>,
    apps: Arc<dyn AppControl>,
    sites: Mutex<Vec<Site>>,
}

/// Which site or slot a call means: its place in the list, which only grows.
#[derive(Clone, Copy)]
struct SiteIndex(usize);

impl AppService {
    /// A site for each environment, with settings beside `DATABASE_URL` that no rotation may touch.
    pub(crate) fn new(
        world: &World,
        sign_in: Arc<AzureSignIn>,
        access: Arc<AzureAccess>,
        key_vault: Arc<KeyVault>,
    ) -> Self {
        let mut sites: Vec<Site> = world.environments.iter().map(Site::seed).collect();
        sites.iter_mut().for_each(|site| site.resolve(&key_vault));
        Self {
            scm: world.endpoints.scm.clone(),
            latency: world.latency,
            gate: ArmGate::new(sign_in.clone(), access),
            sign_in,
            key_vault,
            apps: world.apps.clone(),
            sites: Mutex::new(sites),
        }
    }

    /// The HTTP interface of the SCM sites.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        scm::router(self)
    }

    /// A call to a resource of `Microsoft.Web`, its token checked.
    pub(crate) async fn resource(self: &Arc<Self>, target: &ArmCall<'_>) -> Result<Response, ArmFailure> {
        let lower = target.lower();
        let lower: Vec<&str> = lower.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        match (target.call.method.as_str(), lower.as_slice()) {
            ("GET", ["sites"]) => {
                self.admit(target, None, "read", false)?;
                let sites = lock(&self.sites);
                let shown = sites.iter().filter(|site| site.slot.is_none() && site.is_in(target.environment));
                Ok(reply(
                    200,
                    json!({"value": shown.map(|site| site.resource(&self.scm)).collect::<Vec<_>>()}),
                ))
            }
            ("GET", ["sites", name, "slots"]) => {
                self.admit(target, Some(""), "read", false)?;
                self.find(target, name, None)?;
                let sites = lock(&self.sites);
                let slots = sites.iter().filter(|site| {
                    site.slot.is_some()
                        && site.is_in(target.environment)
                        && site.app.eq_ignore_ascii_case(name)
                });
                Ok(reply(
                    200,
                    json!({"value": slots.map(|site| site.resource(&self.scm)).collect::<Vec<_>>()}),
                ))
            }
            (_, ["sites", name, "slots", slot, rest @ ..]) => self.site(target, name, Some(slot), rest).await,
            (_, ["sites", name, rest @ ..]) => self.site(target, name, None, rest).await,
            _ => Err(ArmFailure::no_such_path(target.call)),
        }
    }

    async fn site(
        self: &Arc<Self>,
        target: &ArmCall<'_>,
        name: &str,
        slot: Option<&str>,
        rest: &[&str],
    ) -> Result<Response, ArmFailure> {
        let method = target.call.method.as_str();
        let (action, changes) = action(method, rest).ok_or_else(|| ArmFailure::no_such_path(target.call))?;
        self.admit(target, slot, action, changes)?;
        let index = self.find(target, name, slot)?;
        match (method, rest) {
            ("PUT", ["config", "appsettings"]) => self.put_settings(target, index)?,
            ("PUT", ["config", "connectionstrings"]) => self.put_connection_strings(target, index)?,
            ("PUT", ["config", "slotconfignames"]) if slot.is_none() => {
                let properties = body(target)?["properties"].clone();
                lock(&self.sites)[index.0].sticky = properties;
            }
            ("POST", ["config", "configreferences", "appsettings", "refresh"]) => {
                lock(&self.sites)[index.0].resolve(&self.key_vault);
            }
            ("POST", ["restart"]) => return Ok(self.restart(target, index).await),
            ("POST", ["publishxml"]) => {
                let profile = lock(&self.sites)[index.0].publish_profile(&self.scm);
                return Ok(([(header::CONTENT_TYPE, "application/xml")], profile).into_response());
            }
            _ => {}
        }
        let sites = lock(&self.sites);
        let shown = self.view(&sites[index.0], target, rest);
        shown.map(|body| reply(200, body)).ok_or_else(|| ArmFailure::no_such_path(target.call))
    }

    /// What a rotation has to leave as it is: the other settings of an environment's first application.
    pub(crate) fn neighbours(&self, environment: &Environment) -> Value {
        let sites = lock(&self.sites);
        let own =
            |site: &&Site| site.is_in(environment) && site.app == environment.app() && site.slot.is_none();
        let settings = sites.iter().find(own).map(|site| site.settings.clone()).unwrap_or_default();
        json!(settings.into_iter().filter(|(name, _)| name != "DATABASE_URL").collect::<BTreeMap<_, _>>())
    }

    /// What a read shows, and a change when it is made.
    fn view(&self, site: &Site, target: &ArmCall<'_>, rest: &[&str]) -> Option<Value> {
        Some(match rest {
            [] => site.resource(&self.scm),
            ["config", "appsettings", ..] => site.settings_resource(),
            ["config", "connectionstrings", ..] => site.connection_strings_resource(),
            ["config", "publishingcredentials", "list"] => site.publishing_resource(&self.scm),
            ["config", "slotconfignames"] if site.slot.is_none() => site.sticky_resource(),
            ["config", "configreferences", "appsettings"]
            | ["config", "configreferences", "appsettings", "refresh"] => site.references_resource(),
            // The settings' names keep their case, so the one asked for is taken as the caller spelt it.
            ["config", "configreferences", "appsettings", _] => {
                site.reference_resource(target.rest.last()?)?
            }
            ["config", what @ ("web" | "logs")] => site.config_resource(what),
            ["instances"] => site.instances_resource(self.starts_of(site)),
            ["basicpublishingcredentialspolicies", which @ ("scm" | "ftp")] => site.policy_resource(which),
            _ => return None,
        })
    }

    fn admit(
        &self,
        target: &ArmCall<'_>,
        slot: Option<&str>,
        action: &str,
        changes: bool,
    ) -> Result<(), ArmFailure> {
        let kind = if slot.is_some() { "Microsoft.Web/sites/slots" } else { KIND };
        self.gate.admit(&target.environment.name, &format!("{kind}/{action}"), target.scope(), changes)
    }

    fn find(&self, target: &ArmCall<'_>, name: &str, slot: Option<&str>) -> Result<SiteIndex, ArmFailure> {
        let sites = lock(&self.sites);
        let found = sites.iter().position(|site| {
            site.is_in(target.environment)
                && site.app.eq_ignore_ascii_case(name)
                && match (site.slot.as_deref(), slot) {
                    (Some(own), Some(slot)) => own.eq_ignore_ascii_case(slot),
                    (own, slot) => own.is_none() && slot.is_none(),
                }
        });
        found.map(SiteIndex).ok_or_else(|| {
            let full = slot.map_or_else(|| name.to_owned(), |slot| format!("{name}/slots/{slot}"));
            ArmFailure::resource_not_found(KIND, &full, target.group)
        })
    }

    /// Replaces all settings: what the body doesn't name is gone.
    fn put_settings(self: &Arc<Self>, target: &ArmCall<'_>, index: SiteIndex) -> Result<(), ArmFailure> {
        let request = body(target)?;
        let settings: Option<BTreeMap<String, String>> = request["properties"].as_object().and_then(|map| {
            map.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        });
        let settings = settings.ok_or_else(|| {
            let text = "The properties of the app settings must be an object of strings.".to_owned();
            ArmFailure::new(400, "BadRequest", text)
        })?;
        self.change_settings(index, |present| *present = settings);
        Ok(())
    }

    fn put_connection_strings(
        self: &Arc<Self>,
        target: &ArmCall<'_>,
        index: SiteIndex,
    ) -> Result<(), ArmFailure> {
        let request = body(target)?;
        let entries = request["properties"].as_object().ok_or_else(|| {
            let text = "The properties of the connection strings must be an object.".to_owned();
            ArmFailure::new(400, "BadRequest", text)
        })?;
        let entries = entries.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect();
        self.change_strings(index, |present| *present = entries);
        Ok(())
    }

    async fn restart(self: &Arc<Self>, target: &ArmCall<'_>, index: SiteIndex) -> Response {
        let flag = |name| target.call.query(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let ticket = if flag("softRestart") { self.soft_restart(index) } else { self.hard_restart(index) };
        if flag("synchronous") {
            self.wait_for(index, ticket).await;
        }
        empty(200)
    }
}

/// The right that an endpoint of a site needs, and whether a read-only lock forbids it.
fn action(method: &str, rest: &[&str]) -> Option<(&'static str, bool)> {
    Some(match (method, rest) {
        ("GET", []) => ("read", false),
        ("GET", ["config", ..]) => ("config/read", false),
        ("GET", ["instances"]) => ("instances/read", false),
        ("GET", ["basicpublishingcredentialspolicies", _]) => {
            ("basicPublishingCredentialsPolicies/read", false)
        }
        // Reads made with POST, which a read-only lock forbids too.
        ("POST", ["config", "appsettings" | "connectionstrings" | "publishingcredentials", "list"]) => {
            ("config/list/action", true)
        }
        ("POST", ["publishxml"]) => ("publishxml/action", true),
        ("PUT", ["config", "appsettings" | "connectionstrings" | "slotconfignames"])
        | ("POST", ["config", "configreferences", "appsettings", "refresh"]) => ("config/write", true),
        ("POST", ["restart"]) => ("restart/action", true),
        _ => return None,
    })
}

fn body(target: &ArmCall<'_>) -> Result<Value, ArmFailure> {
    target.call.json().map_err(|_| {
        let text = "The request content was invalid and could not be deserialized.".to_owned();
        ArmFailure::new(400, "InvalidRequestContent", text)
    })
}
