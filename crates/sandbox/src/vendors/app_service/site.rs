//! One site or slot: its settings, the Key Vault references among them, and how Azure Resource Manager shows it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::azure_arm::{REGION, resource_id};
use super::super::call::now_text;
use super::super::{Environment, KeyVault};
use super::KIND;
use super::publishing::Publishing;
use super::restarts::Restarts;

/// Tells a connection string from a setting of the same name.
pub(super) const STRINGS: &str = "connectionstrings/";
/// How a Key Vault reference begins.
const REFERENCE: &str = "@Microsoft.KeyVault(";

/// An application's site, or a slot of it.
pub(super) struct Site {
    pub(super) environment: Environment,
    /// The application: the environment's own, or a further one.
    pub(super) app: String,
    pub(super) slot: Option<String>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) connection_strings: BTreeMap<String, Value>,
    /// The names that stay with the slot in a swap.
    pub(super) sticky: Value,
    pub(super) basic_auth: bool,
    /// What the SCM site's Basic authentication takes.
    pub(super) publishing: Publishing,
    pub(super) stopped: bool,
    /// Neither the application's output nor the web server's is kept.
    pub(super) logs_off: bool,
    /// Somebody has removed it. Its place in the list stays.
    pub(super) removed: bool,
    /// The settings that were there from the beginning and are no copies.
    pub(super) bystanders: BTreeSet<String>,
    /// How often each setting has been changed, and each connection string: its name follows [`STRINGS`].
    pub(super) changes: BTreeMap<String, usize>,
    /// Counts the changes of the configuration.
    pub(super) generation: u64,
    /// The configuration that the process was started with.
    pub(super) running: Option<u64>,
    pub(super) restarts: Restarts,
    references: BTreeMap<String, Reference>,
    modified: String,
}

/// A Key Vault reference with what it was last resolved to.
#[derive(Clone, PartialEq, Eq)]
struct Reference {
    vault: String,
    secret: String,
    version: Option<String>,
    /// Value and version, or the status that says why there is none.
    outcome: Result<(String, String), &'static str>,
}

impl Site {
    /// A site as it is before the first rotation. The settings beside `DATABASE_URL` hold what a careless writer
    /// would damage: quotes, percent signs, a reference, an empty value.
    pub(super) fn seed(environment: &Environment) -> Self {
        let vault = environment.vault();
        let mut settings = environment.app_settings.clone();
        for (name, value) in [
            ("DATABASE_URL", environment.database_url.as_str()),
            ("LOG_LEVEL", "info"),
            ("WEBSITES_PORT", "8000"),
            ("SECRET_SALT", "p%41q\"'\\$HOME `x` {y} é=&#+ /"),
            ("FEATURE_FLAGS", ""),
            (
                "SMTP_PASSWORD",
                &format!(
                    "@Microsoft.KeyVault(SecretUri=https://{vault}.vault.azure.net/secrets/smtp-password/)"
                ),
            ),
        ] {
            settings.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        Self {
            bystanders: settings.keys().filter(|name| *name != "DATABASE_URL").cloned().collect(),
            changes: settings.keys().map(|name| (name.clone(), 1)).collect(),
            environment: environment.clone(),
            app: environment.app(),
            slot: None,
            settings,
            connection_strings: BTreeMap::new(),
            sticky: json!({
                "appSettingNames": ["LOG_LEVEL"],
                "connectionStringNames": [],
                "azureStorageConfigNames": [],
            }),
            basic_auth: false,
            publishing: Publishing::new(&environment.app(), None),
            stopped: false,
            logs_off: false,
            removed: false,
            generation: 0,
            running: None,
            restarts: Restarts::default(),
            references: BTreeMap::new(),
            modified: now_text(),
        }
    }

    /// A slot with a copy of the site's configuration.
    pub(super) fn as_slot(&self, name: &str) -> Self {
        self.copied(self.app.clone(), Some(name.to_owned()))
    }

    /// Another application with a copy of this one's configuration.
    pub(super) fn as_app(&self, name: &str) -> Self {
        self.copied(name.to_owned(), None)
    }

    fn copied(&self, app: String, slot: Option<String>) -> Self {
        let strings = self.connection_strings.keys().map(|name| format!("{STRINGS}{name}"));
        Self {
            settings: self.settings.clone(),
            connection_strings: self.connection_strings.clone(),
            references: self.references.clone(),
            sticky: self.sticky.clone(),
            bystanders: self.bystanders.clone(),
            changes: self.settings.keys().cloned().chain(strings).map(|name| (name, 1)).collect(),
            publishing: Publishing::new(&app, slot.as_deref()),
            app,
            slot,
            ..Self::seed(&self.environment)
        }
    }

    /// Whether a process stands behind it: only the environment's own application has one.
    pub(super) fn has_process(&self) -> bool {
        self.slot.is_none() && self.app == self.environment.app()
    }

    /// Application and slot, as Azure names the resource.
    pub(super) fn full_name(&self) -> String {
        self.slot.as_ref().map_or_else(|| self.app.clone(), |slot| format!("{}/{slot}", self.app))
    }

    pub(super) fn is_in(&self, environment: &Environment) -> bool {
        !self.removed && self.environment.name == environment.name
    }

    /// Changes the settings and tells whether that made a difference.
    pub(super) fn change_settings(&mut self, change: impl FnOnce(&mut BTreeMap<String, String>)) -> bool {
        let before = self.settings.clone();
        change(&mut self.settings);
        for (name, value) in &self.settings {
            if before.get(name) != Some(value) {
                *self.changes.entry(name.clone()).or_default() += 1;
            }
        }
        self.modified = now_text();
        before != self.settings
    }

    /// Changes the connection strings and tells whether that made a difference.
    pub(super) fn change_strings(&mut self, change: impl FnOnce(&mut BTreeMap<String, Value>)) -> bool {
        let before = self.connection_strings.clone();
        change(&mut self.connection_strings);
        for (name, entry) in &self.connection_strings {
            if before.get(name) != Some(entry) {
                *self.changes.entry(format!("{STRINGS}{name}")).or_default() += 1;
            }
        }
        self.modified = now_text();
        before != self.connection_strings
    }

    /// Reads every reference anew. If a value has changed, the process no longer has the present configuration.
    pub(super) fn resolve(&mut self, key_vault: &KeyVault) {
        let resolved: BTreeMap<String, Reference> = self
            .settings
            .iter()
            .filter(|(_, value)| value.starts_with(REFERENCE))
            .map(|(name, value)| (name.clone(), Reference::resolve(value, key_vault)))
            .collect();
        if resolved != self.references {
            self.references = resolved;
            self.generation += 1;
        }
    }

    /// What the process gets in its environment. A reference that can't be resolved is handed over as it is written.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.settings.clone();
        for (name, reference) in &self.references {
            if let Ok((value, _)) = &reference.outcome {
                variables.insert(name.clone(), value.clone());
            }
        }
        for (name, entry) in &self.connection_strings {
            let value = entry["value"].as_str().unwrap_or_default();
            let prefix = if entry["type"] == "PostgreSQL" { "POSTGRESQLCONNSTR" } else { "CUSTOMCONNSTR" };
            variables.insert(format!("{prefix}_{name}"), value.to_owned());
        }
        variables.insert("WEBSITE_SITE_NAME".to_owned(), self.app.clone());
        variables.insert("WEBSITE_HOSTNAME".to_owned(), self.environment.app_host.clone());
        variables
    }

    /// The first label of the site's host names.
    pub(super) fn label(&self) -> String {
        self.full_name().replace('/', "-")
    }

    pub(super) fn id(&self) -> String {
        let slot = self.slot.as_ref().map_or_else(String::new, |slot| format!("/slots/{slot}"));
        resource_id(&self.environment, &format!("{KIND}/{}{slot}", self.app))
    }

    pub(super) fn kind(&self) -> &'static str {
        if self.slot.is_some() { "Microsoft.Web/sites/slots" } else { KIND }
    }

    fn child(&self, path: &str, name: &str, properties: &Value) -> Value {
        json!({
            "id": format!("{}/{path}", self.id()),
            "name": name,
            "type": format!("{}/config", self.kind()),
            "location": REGION.0,
            "properties": properties,
        })
    }

    /// The site itself.
    pub(super) fn resource(&self, scm: &str) -> Value {
        let host = &self.environment.app_host;
        let (_, scm_host) = scm.split_once("://").unwrap_or(("", scm));
        let scm_host = format!("{}.{scm_host}", self.label());
        let ssl = |name: &str, kind: &str| json!({"name": name, "sslState": "Disabled", "hostType": kind});
        let plan = resource_id(&self.environment, "Microsoft.Web/serverfarms/plan-mindwell");
        json!({
            "id": self.id(),
            "name": self.full_name(),
            "type": self.kind(),
            "kind": "app,linux",
            "location": REGION.0,
            "tags": {"environment": self.environment.name},
            "identity": {
                "type": "SystemAssigned",
                "principalId": "5d0d6f1e-0000-4000-8000-000000000001",
                "tenantId": "00000000-0000-0000-0000-0000000000aa",
            },
            "properties": {
                "state": if self.stopped { "Stopped" } else { "Running" },
                "hostNames": [host],
                "repositorySiteName": self.app,
                "usageState": "Normal",
                "enabled": true,
                "enabledHostNames": [host, scm_host],
                "availabilityState": "Normal",
                "hostNameSslStates": [ssl(host, "Standard"), ssl(&scm_host, "Repository")],
                "serverFarmId": plan,
                "reserved": true,
                "lastModifiedTimeUtc": self.modified,
                "clientAffinityEnabled": false,
                "httpsOnly": false,
                "defaultHostName": host,
                "keyVaultReferenceIdentity": "SystemAssigned",
                "resourceGroup": self.environment.resource_group(),
                "sku": "PremiumV3",
            },
        })
    }

    pub(super) fn settings_resource(&self) -> Value {
        self.child("config/appsettings", "appsettings", &json!(self.settings))
    }

    pub(super) fn connection_strings_resource(&self) -> Value {
        self.child("config/connectionstrings", "connectionstrings", &json!(self.connection_strings))
    }

    pub(super) fn sticky_resource(&self) -> Value {
        self.child("config/slotConfigNames", "slotConfigNames", &self.sticky)
    }

    pub(super) fn config_resource(&self, what: &str) -> Value {
        let properties = match what {
            "web" => json!({
                "numberOfWorkers": 1,
                "linuxFxVersion": "PYTHON|3.11",
                "alwaysOn": true,
                "httpLoggingEnabled": true,
                "healthCheckPath": "/api/healthz",
                "minTlsVersion": "1.2",
                "scmMinTlsVersion": "1.2",
                "ftpsState": "Disabled",
                "keyVaultReferenceIdentity": "SystemAssigned",
            }),
            _ => json!({
                "applicationLogs": {"fileSystem": {"level": if self.logs_off { "Off" } else { "Information" }}},
                "httpLogs":
                    {"fileSystem": {"retentionInMb": 35, "retentionInDays": 3, "enabled": !self.logs_off}},
                "failedRequestsTracing": {"enabled": false},
                "detailedErrorMessages": {"enabled": false},
            }),
        };
        self.child(&format!("config/{what}"), what, &properties)
    }

    /// The one instance; its container has another name after each of the application's starts.
    pub(super) fn instances_resource(&self, starts: u64) -> Value {
        let instance = "b3d4e5f60718293a4b5c6d7e8f901234";
        let container = format!("{}_{starts}_{}", self.label(), &instance[..8]);
        json!({
            "value": [{
                "id": format!("{}/instances/{instance}", self.id()),
                "name": instance,
                "type": format!("{}/instances", self.kind()),
                "properties": {
                    "state": if self.stopped { "STOPPED" } else { "READY" },
                    "containers": {"main": {"id": instance, "name": container}},
                },
            }],
        })
    }

    pub(super) fn policy_resource(&self, which: &str) -> Value {
        json!({
            "id": format!("{}/basicPublishingCredentialsPolicies/{which}", self.id()),
            "name": which,
            "type": format!("{}/basicPublishingCredentialsPolicies", self.kind()),
            "location": REGION.0,
            "properties": {"allow": self.basic_auth},
        })
    }

    pub(super) fn references_resource(&self) -> Value {
        let shown: Vec<Value> =
            self.references.keys().filter_map(|name| self.reference_resource(name)).collect();
        json!({"value": shown, "nextLink": null})
    }

    pub(super) fn reference_resource(&self, name: &str) -> Option<Value> {
        let reference = self.references.get(name)?;
        let status = reference.outcome.as_ref().err().copied().unwrap_or("Resolved");
        let mut properties = json!({
            "reference": self.settings.get(name),
            "status": status,
            "vaultName": reference.vault,
            "secretName": reference.secret,
            "identityType": {"type": "SystemAssigned"},
            "details": match status {
                "Resolved" => "Reference has been successfully resolved.",
                _ => "Reference was not able to be resolved.",
            },
            "source": "KeyVault",
        });
        if let Some(version) = &reference.version {
            properties["secretVersion"] = json!(version);
        }
        if let Ok((_, active)) = &reference.outcome {
            properties["activeVersion"] = json!(active);
        }
        let mut resource =
            self.child(&format!("config/configreferences/appsettings/{name}"), name, &properties);
        resource["type"] = json!(format!("{}/config/configreferences", self.kind()));
        Some(resource)
    }
}

impl Reference {
    fn resolve(literal: &str, key_vault: &KeyVault) -> Self {
        let Some((vault, secret, version)) = parse(literal) else {
            let nothing = String::new();
            return Self {
                vault: nothing.clone(),
                secret: nothing,
                version: None,
                outcome: Err("InvalidSyntax"),
            };
        };
        let outcome = key_vault.resolve(&vault, &secret, version.as_deref());
        Self { vault, secret, version, outcome }
    }
}

/// Vault, secret and version of a reference, in either of its two forms.
fn parse(literal: &str) -> Option<(String, String, Option<String>)> {
    let inside = literal.strip_prefix(REFERENCE)?.strip_suffix(')')?;
    let fields: BTreeMap<&str, &str> = inside
        .split(';')
        .map(|field| field.trim().split_once('='))
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .collect();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    if let Some(uri) = fields.get("SecretUri") {
        let url = url::Url::parse(uri).ok()?;
        let vault = url.host_str()?.split('.').next()?.to_owned();
        let mut path = url.path_segments()?;
        return (path.next() == Some("secrets"))
            .then(|| Some((vault, some(path.next()?)?, path.next().and_then(some))))
            .flatten();
    }
    let version = fields.get("SecretVersion").copied().and_then(some);
    Some((some(fields.get("VaultName")?)?, some(fields.get("SecretName")?)?, version))
}
