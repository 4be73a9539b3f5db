//! Key Vault's data plane for secrets: every set is a new version, names of deleted secrets stay taken, and nothing is
//! said before a token for this service is shown.
//!
//! A vault is known by the first label of the host name, `{vault}.vault.localhost`. Simplified: keys, certificates and
//! backups don't exist, and `exp` and `nbf` are kept but, as in Azure, have no effect on reading.

mod secrets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use self::secrets::{Failure, Secret, Stage, Version};
use super::azure_access::AzureAccess;
use super::azure_sign_in::{Audience, AzureSignIn, Refusal};
use super::call::{Call, empty, lock, reply, with_header};
use super::{Copy, Environment, World};

/// A secret of every vault that is no copy: an application setting refers to it.
const BYSTANDER: &str = "smtp-password";

/// The largest page of a list.
const PAGE_MAX: usize = 25;

/// All vaults.
pub(crate) struct KeyVault {
    base: String,
    recovery: Duration,
    sign_in: Arc<AzureSignIn>,
    access: Arc<AzureAccess>,
    vaults: Mutex<BTreeMap<String, Vault>>,
}

struct Vault {
    environment: String,
    /// With secret permissions in an access policy, if the vault doesn't use roles.
    policy: Option<Vec<String>>,
    behind_firewall: bool,
    secrets: BTreeMap<String, Secret>,
}

/// An operation's name in access policies and its data action.
#[derive(Clone, Copy)]
struct Right(&'static str, &'static str);

const GET: Right = Right("get", "getSecret/action");
const LIST: Right = Right("list", "readMetadata/action");
const SET: Right = Right("set", "setSecret/action");
const UPDATE: Right = Right("set", "update/action");
const DELETE: Right = Right("delete", "delete");
const RECOVER: Right = Right("recover", "recover/action");
const PURGE: Right = Right("purge", "purge/action");

impl KeyVault {
    /// A vault for each environment with the runbook's two secrets, and one that the runbook doesn't know.
    pub(crate) fn new(world: &World, sign_in: Arc<AzureSignIn>, access: Arc<AzureAccess>) -> Self {
        let vaults = world.environments.iter().map(|environment| {
            let mut secrets = BTreeMap::new();
            let tags = json!({"owner": "platform", "rotation": "manual"});
            secrets.insert(
                "postgres-admin-password".to_owned(),
                Secret::seed(&environment.password, Some("text/plain"), tags.clone()),
            );
            secrets.insert("database-url".to_owned(), Secret::seed(&environment.database_url, None, tags));
            secrets.insert(BYSTANDER.to_owned(), Secret::seed("not-ours-to-change", None, json!({})));
            let vault = Vault {
                environment: environment.name.clone(),
                policy: None,
                behind_firewall: false,
                secrets,
            };
            (environment.vault(), vault)
        });
        Self {
            base: world.endpoints.key_vault.clone(),
            recovery: world.latency.operation / 2,
            sign_in,
            access,
            vaults: Mutex::new(vaults.collect()),
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// The vault as a resource of Azure Resource Manager: what tells roles from access policies.
    pub(crate) fn resource_properties(&self, vault: &str) -> Option<Value> {
        let vaults = lock(&self.vaults);
        let (name, vault) = vaults.get_key_value(vault)?;
        let policies: Vec<Value> = vault
            .policy
            .iter()
            .map(|rights| {
                json!({
                    "tenantId": self.sign_in.tenant(),
                    "objectId": self.sign_in.object_id(),
                    "permissions": {"keys": [], "secrets": rights, "certificates": []},
                })
            })
            .collect();
        Some(json!({
            "sku": {"family": "A", "name": "standard"},
            "tenantId": self.sign_in.tenant(),
            "accessPolicies": policies,
            "enabledForDeployment": false,
            "enableSoftDelete": true,
            "softDeleteRetentionInDays": 90,
            "enableRbacAuthorization": vault.policy.is_none(),
            "enablePurgeProtection": true,
            "vaultUri": format!("{}/", self.vault_url(name)),
            "provisioningState": "Succeeded",
            "networkAcls": {
                "bypass": "AzureServices",
                "defaultAction": if vault.behind_firewall { "Deny" } else { "Allow" },
                "ipRules": [],
                "virtualNetworkRules": [],
            },
            "publicNetworkAccess": "Enabled",
        }))
    }

    /// What an App Service reference reads: the value and its version, or the status that App Service shows.
    pub(crate) fn resolve(
        &self,
        vault: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<(String, String), &'static str> {
        let mut vaults = lock(&self.vaults);
        let vault = vaults.get_mut(&vault.to_ascii_lowercase()).ok_or("VaultNotFound")?;
        let secret = vault.secrets.get_mut(&name.to_ascii_lowercase()).ok_or("SecretNotFound")?;
        if secret.stage() != Stage::Live {
            return Err("SecretNotFound");
        }
        let found = match version {
            None => secret.latest(),
            Some(version) => secret.version(version).ok_or("SecretVersionNotFound")?,
        };
        if found.enabled {
            Ok((found.value.clone(), found.id.clone()))
        } else {
            Err("AccessToKeyVaultDenied")
        }
    }

    /// What the control interface shows of an environment's secrets: all but the bystander of the seed.
    pub(crate) fn copies(&self, environment: &Environment) -> Vec<(String, Copy)> {
        let vaults = lock(&self.vaults);
        let Some(vault) = vaults.get(&environment.vault()) else { return Vec::new() };
        let copy = |secret: &Secret| Copy {
            value: Some(secret.latest().value.clone()),
            version: secret.latest().id.clone(),
            versions: secret.versions.len(),
        };
        let shown = vault.secrets.iter().filter(|(name, _)| *name != BYSTANDER);
        shown.map(|(name, secret)| (format!("azure_key_vault:{name}"), copy(secret))).collect()
    }

    /// What a rotation has to leave as it is: the secret that the runbook doesn't know, and what stands beside the
    /// values of the others.
    pub(crate) fn neighbours(&self, environment: &Environment) -> Value {
        let vaults = lock(&self.vaults);
        let Some(vault) = vaults.get(&environment.vault()) else { return Value::Null };
        let shown = |(name, secret): (&String, &Secret)| {
            let value = (name == BYSTANDER).then(|| json!([secret.latest().value, secret.versions.len()]));
            (name.clone(), value.unwrap_or_else(|| secret.latest().remarks()))
        };
        vault.secrets.iter().map(shown).collect()
    }

    /// Puts an environment's vault into a state that a test wants to see handled.
    pub(crate) fn set(&self, environment: &Environment, what: &str, value: &Value) -> Result<(), String> {
        let mut vaults = lock(&self.vaults);
        let vault = vaults.get_mut(&environment.vault()).ok_or("no such vault")?;
        let name =
            value.as_str().or_else(|| value["secret"].as_str()).unwrap_or_default().to_ascii_lowercase();
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        match what {
            "firewall" => vault.behind_firewall = value.as_bool().ok_or("firewall takes true or false")?,
            "access_policy" => {
                let rights = value.as_array().map(|rights| {
                    rights.iter().filter_map(|right| right.as_str().map(str::to_owned)).collect()
                });
                vault.policy = rights;
            }
            "value" => {
                let version = Version::new(text("value").ok_or("value takes {secret, value}")?);
                match vault.secrets.get_mut(&name) {
                    Some(secret) => secret.versions.push(version),
                    None => drop(vault.secrets.insert(name, Secret::from(version))),
                }
            }
            "removed" => drop(vault.secrets.remove(&name).ok_or("no such secret")?),
            "deleted" => vault.secret(&name)?.delete(),
            "recovered" => vault.secret(&name)?.restore(),
            "disabled" => vault.secret(&name)?.latest_mut().enabled = false,
            "enabled" => vault.secret(&name)?.latest_mut().enabled = true,
            "attributes" => vault.secret(&name)?.latest_mut().date(&value["nbf"], &value["exp"]),
            "tags" => vault.secret(&name)?.latest_mut().tag(&value["tags"]),
            other => return Err(format!("key_vault can't set {other:?}")),
        }
        Ok(())
    }

    fn vault_url(&self, vault: &str) -> String {
        self.base.replacen("://", &format!("://{vault}."), 1)
    }
}

impl Vault {
    fn secret(&mut self, name: &str) -> Result<&mut Secret, &'static str> {
        self.secrets.get_mut(name).ok_or("no such secret")
    }

    /// What stands between the caller and an operation: firewall first, then rights.
    fn admit(&self, access: &AzureAccess, vault: &str, right: Right, client: &str) -> Result<(), Failure> {
        if self.behind_firewall {
            let text = format!(
                "Client address is not authorized and caller is not a trusted service. Vault: {vault}"
            );
            return Err(Failure::inner(403, "Forbidden", "ForbiddenByFirewall", text));
        }
        let Right(permission, data_action) = right;
        if let Some(policy) = &self.policy {
            if policy.iter().any(|granted| granted.eq_ignore_ascii_case(permission)) {
                return Ok(());
            }
            let text = format!(
                "The user, group or application 'appid={client}' does not have secrets {permission} permission on \
                 key vault '{vault};location=westeurope'."
            );
            return Err(Failure::inner(403, "Forbidden", "AccessDenied", text));
        }
        let action = format!("Microsoft.KeyVault/vaults/secrets/{data_action}");
        let forbidden = access.forbids(&self.environment, &action);
        if access.allows(&self.environment, &action) && !forbidden {
            return Ok(());
        }
        let assignment = if forbidden { "(found)" } else { "(not found)" };
        let denial = if forbidden { super::azure_access::DENIAL } else { "null" };
        let text = format!(
            "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role \
             definitions were changed recently, please observe propagation time.\r\nCaller: appid={client}\r\nAction: \
             '{action}'\r\nAssignment: {assignment}\r\nDenyAssignmentId: {denial}\r\nVault: {vault};location=westeurope"
        );
        Err(Failure::inner(403, "Forbidden", "ForbiddenByRbac", text))
    }
}

async fn serve(State(service): State<Arc<KeyVault>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    // The challenge comes before everything else: tools send their first request bare and without its body.
    if let Err(refusal) = service.sign_in.check(&call, &[Audience::KeyVault]) {
        return challenge(&service, &refusal);
    }
    let vault = call.host_label().to_owned();
    let outcome = match call.query("api-version") {
        None | Some("") => Err(Failure::bad("api-version must be specified".to_owned())),
        Some(version) if !(version.starts_with("7.") || version.starts_with("202")) => {
            Err(Failure::bad(format!(
                "The specified version ({version}) is not recognized. Consider using the latest supported version \
             (2026-04-01)."
            )))
        }
        Some(_) => service.dispatch(&vault, &call),
    };
    outcome.unwrap_or_else(Failure::into_response)
}

/// The right that an operation needs.
fn right(method: &str, parts: &[&str]) -> Option<Right> {
    Some(match (method, parts) {
        ("PUT", ["secrets", _]) => SET,
        ("PATCH", ["secrets", _, _]) => UPDATE,
        ("DELETE", ["secrets", _]) => DELETE,
        ("GET", ["secrets"] | ["secrets", _, "versions"] | ["deletedsecrets", _]) => LIST,
        ("GET", ["secrets", _] | ["secrets", _, _]) => GET,
        ("POST", ["deletedsecrets", _, "recover"]) => RECOVER,
        ("DELETE", ["deletedsecrets", _]) => PURGE,
        _ => return None,
    })
}

impl KeyVault {
    fn dispatch(&self, name: &str, call: &Call) -> Result<Response, Failure> {
        let mut parts = call.segments();
        // Tools write an empty version for the latest one: `/secrets/name/`.
        if parts.last() == Some(&"") {
            parts.pop();
        }
        let mut vaults = lock(&self.vaults);
        let vault = vaults
            .get_mut(name)
            .ok_or_else(|| Failure::plain(404, "VaultNotFound", format!("no vault {name}")))?;
        let method = call.method.as_str();
        let right = right(method, &parts).ok_or_else(|| {
            Failure::bad(format!("Method {method} does not allow operation on {}", call.path))
        })?;
        vault.admit(&self.access, name, right, self.sign_in.client_id())?;
        let url = self.vault_url(name);
        match (method, parts.as_slice()) {
            ("PUT", ["secrets", name]) => vault.put(&url, name, &body(call)?),
            ("PATCH", ["secrets", name, version]) => vault.patch(&url, name, version, &body(call)?),
            ("DELETE", ["secrets", name]) => {
                vault.live(name)?.delete();
                vault.deleted(&url, name)
            }
            ("GET", ["secrets"]) => page(call, &format!("{url}/secrets"), vault.list(&url)),
            ("GET", ["secrets", name, "versions"]) => {
                let items = vault.list_versions(&url, name)?;
                page(call, &format!("{url}/secrets/{name}/versions"), items)
            }
            ("GET", ["secrets", name]) => vault.get(&url, name, None),
            ("GET", ["secrets", name, version]) => vault.get(&url, name, Some(version)),
            ("POST", ["deletedsecrets", name, _]) => {
                vault.recover(&url, name, Instant::now() + self.recovery)
            }
            ("DELETE", [_, name]) => {
                vault.deleted(&url, name)?;
                vault.secrets.remove(&name.to_ascii_lowercase());
                Ok(empty(204))
            }
            (_, [.., name]) => vault.deleted(&url, name),
            (_, []) => Err(Failure::bad("The path names no operation".to_owned())),
        }
    }
}

fn body(call: &Call) -> Result<Value, Failure> {
    call.json().map_err(|_| Failure::bad("The request body is not valid JSON.".to_owned()))
}

/// One page of a list; the token in `nextLink` is where the next one begins.
fn page(call: &Call, url: &str, items: Vec<Value>) -> Result<Response, Failure> {
    let size = call.query_number("maxresults").unwrap_or(PAGE_MAX);
    if size == 0 || size > PAGE_MAX {
        return Err(Failure::bad(format!("maxresults must be between 1 and {PAGE_MAX}")));
    }
    let start = call.query_number("$skiptoken").unwrap_or(0);
    let version = call.query("api-version").unwrap_or_default();
    let next = (start + size < items.len())
        .then(|| format!("{url}?api-version={version}&$skiptoken={}&maxresults={size}", start + size));
    let shown: Vec<Value> = items.into_iter().skip(start).take(size).collect();
    Ok(reply(200, json!({"value": shown, "nextLink": next})))
}

fn challenge(service: &KeyVault, refusal: &Refusal) -> Response {
    let text = match refusal {
        Refusal::Missing => "AKV10000: Request is missing a Bearer or PoP token.".to_owned(),
        Refusal::Unknown => "AKV10001: The token is not valid.".to_owned(),
        Refusal::Expired => "AKV10020: The token has expired.".to_owned(),
        Refusal::Audience(found) => {
            format!("AKV10022: Invalid audience. Expected https://vault.azure.net, found: {found}.")
        }
    };
    let header = format!(
        "Bearer authorization=\"{}/{}\", resource=\"{}\"",
        service.sign_in.base(),
        service.sign_in.tenant(),
        service.base
    );
    let body = json!({"error": {"code": "Unauthorized", "message": text}});
    with_header(reply(401, body), "www-authenticate", &header)
}
