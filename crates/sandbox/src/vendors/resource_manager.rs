//! Azure Resource Manager: what the vendor's tools need to sign in, the PostgreSQL server resource with its
//! long-running operation, permissions and locks, the vault as a resource. App Service's resources stand behind the
//! same address and are served by [`AppService`].
//!
//! Simplified: paging never happens, tags and role assignments can't be changed, and the status and code for a
//! stopped server, a replica and a password that breaks the rules are our guess, because no source names them.

mod catalogue;
mod servers;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use self::servers::{Operation, Server};
use super::azure_access::{AzureAccess, Denial, Lock, Whom};
use super::azure_arm::{
    ArmCall, ArmFailure, ArmGate, REGION, environment_of, group_id, resource_id, subscriptions,
};
use super::azure_sign_in::{Audience, AzureSignIn, Refusal};
use super::call::{Call, lock, random_guid, reply, with_header};
use super::{AppService, Endpoints, Environment, KeyVault, Latency, ServerControl, World};

/// Azure Resource Manager.
pub(crate) struct ResourceManager {
    endpoints: Endpoints,
    environments: Vec<Environment>,
    subscriptions: Vec<String>,
    latency: Latency,
    sign_in: Arc<AzureSignIn>,
    access: Arc<AzureAccess>,
    gate: ArmGate,
    key_vault: Arc<KeyVault>,
    app_service: Arc<AppService>,
    control: Arc<dyn ServerControl>,
    servers: Mutex<Vec<Server>>,
    operations: Mutex<Vec<Operation>>,
}

impl ResourceManager {
    /// The resources of all environments.
    pub(crate) fn new(
        world: &World,
        sign_in: Arc<AzureSignIn>,
        access: Arc<AzureAccess>,
        key_vault: Arc<KeyVault>,
        app_service: Arc<AppService>,
    ) -> Self {
        Self {
            endpoints: world.endpoints.clone(),
            environments: world.environments.clone(),
            subscriptions: subscriptions(world),
            latency: world.latency,
            gate: ArmGate::new(sign_in.clone(), access.clone()),
            sign_in,
            access,
            key_vault,
            app_service,
            control: world.servers.clone(),
            servers: Mutex::new(world.environments.iter().map(Server::new).collect()),
            operations: Mutex::default(),
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// Puts an environment into a state that a test wants to see handled.
    pub(crate) fn set(&self, environment: &Environment, what: &str, value: &Value) -> Result<(), String> {
        match what {
            "deny" => {
                let actions = value.as_array().ok_or("deny takes a list of actions")?;
                let actions =
                    actions.iter().filter_map(|action| action.as_str().map(str::to_owned)).collect();
                self.access.deny(&environment.name, actions);
            }
            "deny_assignment" => self.access.set_denial(&environment.name, denial(value)?),
            "lock" => self.access.set_lock(&environment.name, wanted_lock(environment, value)?),
            "tokens_expired" => self.sign_in.expire_tokens(),
            _ => {
                let mut servers = lock(&self.servers);
                let server = servers
                    .iter_mut()
                    .find(|server| server.environment.name == environment.name)
                    .ok_or("no such server")?;
                server.set(what, value)?;
            }
        }
        Ok(())
    }
}

/// `{"actions": [..], "whom"?: "everybody" | "group" | "others"}`, or null for none.
fn denial(value: &Value) -> Result<Option<Denial>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let actions = value["actions"].as_array().ok_or("deny_assignment takes {actions, whom?}")?;
    let whom = match value["whom"].as_str() {
        None | Some("everybody") => Whom::Everybody,
        Some("group") => Whom::Group,
        Some("others") => Whom::Others,
        Some(other) => return Err(format!("a deny assignment does not mean {other:?}")),
    };
    let actions = actions.iter().filter_map(|action| action.as_str().map(str::to_owned)).collect();
    Ok(Some(Denial { actions, whom }))
}

/// A level alone for the environment's resource group, or `{"level", "at"}`, or null for none.
fn wanted_lock(environment: &Environment, value: &Value) -> Result<Option<Lock>, String> {
    let Some(level) = value.as_str().or_else(|| value["level"].as_str()) else { return Ok(None) };
    let scope = match value["at"].as_str() {
        None | Some("group") => group_id(environment),
        Some("subscription") => format!("/subscriptions/{}", environment.subscription),
        Some("server") => {
            let name = environment.server();
            resource_id(environment, &format!("Microsoft.DBforPostgreSQL/flexibleServers/{name}"))
        }
        Some("application") => {
            resource_id(environment, &format!("Microsoft.Web/sites/{}", environment.app()))
        }
        Some("vault") => {
            resource_id(environment, &format!("Microsoft.KeyVault/vaults/{}", environment.vault()))
        }
        Some(other) => return Err(format!("there is nothing to lock at {other:?}")),
    };
    Ok(Some(Lock { level: level.to_owned(), scope }))
}

async fn serve(State(service): State<Arc<ResourceManager>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    if call.path.trim_end_matches('/') == "/metadata/endpoints" {
        return reply(200, catalogue::metadata(&service.endpoints, &service.sign_in, &call));
    }
    if let Err(refusal) = service.sign_in.check(&call, &[Audience::ResourceManager]) {
        return unauthenticated(&service, refusal);
    }
    if call.query("api-version").is_none_or(str::is_empty) {
        let text = "The api-version query parameter (?api-version=) is required for all requests.".to_owned();
        return ArmFailure::new(400, "MissingApiVersionParameter", text).into_response();
    }
    let answer = dispatch(&service, &call).await.unwrap_or_else(ArmFailure::into_response);
    let kind = if call.method.as_str() == "GET" { "reads" } else { "writes" };
    let name = match kind {
        "reads" => "x-ms-ratelimit-remaining-subscription-reads",
        _ => "x-ms-ratelimit-remaining-subscription-writes",
    };
    with_header(with_header(answer, "x-ms-request-id", &random_guid()), name, "249")
}

async fn dispatch(service: &Arc<ResourceManager>, call: &Call) -> Result<Response, ArmFailure> {
    // The vendor's tool puts a base URL with a slash at its end before a path that begins with one.
    let segments: Vec<&str> = call.segments().into_iter().filter(|segment| !segment.is_empty()).collect();
    let lower: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match (call.method.as_str(), lower.as_slice()) {
        (_, ["subscriptions", subscription, "resourcegroups", _, "providers", namespace, ..]) => {
            let target = ArmCall {
                call,
                environment: environment_of(&service.environments, subscription, segments[3])?,
                group: segments[3],
                rest: segments.get(6..).unwrap_or_default(),
            };
            service.in_group(namespace, &target).await
        }
        (
            "GET",
            [
                "subscriptions",
                _,
                "providers",
                "microsoft.dbforpostgresql",
                "locations",
                _,
                kind @ ("azureasyncoperation" | "operationresults"),
                id,
            ],
        ) => service.poll(call, kind, id),
        ("GET", path) => service.listing(call, path, &segments),
        _ => Err(ArmFailure::no_such_path(call)),
    }
}

impl ResourceManager {
    /// Everything above the resource groups' content: what tools read at sign-in and to find their way.
    fn listing(&self, call: &Call, path: &[&str], segments: &[&str]) -> Result<Response, ArmFailure> {
        let known = |subscription: &str| {
            self.subscriptions.iter().find(|id| id.eq_ignore_ascii_case(subscription)).ok_or_else(|| {
                let text = format!("The subscription '{subscription}' could not be found.");
                ArmFailure::new(404, "SubscriptionNotFound", text)
            })
        };
        let body = match path {
            ["tenants"] => catalogue::tenants(self.sign_in.tenant()),
            ["subscriptions"] => {
                let all: Vec<Value> = self.subscriptions.iter().map(|id| self.subscription(id)).collect();
                let count = all.len();
                json!({"value": all, "count": {"type": "Total", "value": count}})
            }
            ["subscriptions", id] => self.subscription(known(id)?),
            ["subscriptions", id, "locations"] => catalogue::locations(known(id)?),
            ["subscriptions", id, "resourcegroups"] => {
                let id = known(id)?;
                let groups = self.environments.iter().filter(|environment| &environment.subscription == id);
                json!({"value": groups.map(catalogue::resource_group).collect::<Vec<_>>()})
            }
            ["subscriptions", id, "resourcegroups", _] => {
                catalogue::resource_group(environment_of(&self.environments, known(id)?, segments[3])?)
            }
            ["subscriptions", id, "providers", "microsoft.dbforpostgresql", "flexibleservers"] => {
                let id = known(id)?;
                json!({"value": self.list_servers(|environment| &environment.subscription == id)})
            }
            [
                "subscriptions",
                id,
                "providers",
                "microsoft.dbforpostgresql",
                "locations",
                _,
                "capabilities",
            ] => {
                known(id)?;
                catalogue::capabilities()
            }
            ["subscriptions", id, "resources"] => {
                let id = known(id)?;
                let environments =
                    self.environments.iter().filter(|environment| &environment.subscription == id);
                let applications = |environment: &Environment| self.app_service.applications(environment);
                catalogue::resources(environments, applications, call)
            }
            ["subscriptions", id, "providers", namespace] => catalogue::provider(known(id)?, namespace),
            _ => {
                let text = format!("The path '/{}' is not served.", path.join("/"));
                return Err(ArmFailure::new(404, "InvalidResourceType", text));
            }
        };
        Ok(reply(200, body))
    }

    fn subscription(&self, id: &str) -> Value {
        let name = self.environments.iter().find(|environment| environment.subscription == id);
        catalogue::subscription(id, name.map_or("", |environment| &environment.name), self.sign_in.tenant())
    }

    /// A call inside a resource group.
    async fn in_group(
        self: &Arc<Self>,
        namespace: &str,
        target: &ArmCall<'_>,
    ) -> Result<Response, ArmFailure> {
        let lower = target.lower();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        // Permissions and locks are asked of the group or of any resource in it.
        match (namespace, lower.as_slice()) {
            ("microsoft.authorization", [what]) | (_, [.., "providers", "microsoft.authorization", what]) => {
                return self.authorization(what, target);
            }
            ("microsoft.dbforpostgresql", ["flexibleservers", ..]) => return self.servers(target, &lower),
            ("microsoft.keyvault", ["vaults", vault]) if target.call.method.as_str() == "GET" => {
                return self.vault(target, vault);
            }
            ("microsoft.web", _) => {}
            _ => return Err(ArmFailure::no_such_path(target.call)),
        }
        self.app_service.resource(target).await
    }

    fn authorization(&self, what: &str, target: &ArmCall<'_>) -> Result<Response, ArmFailure> {
        let environment = &target.environment.name;
        let scope = target.scope().to_ascii_lowercase();
        let scope = scope.split("/providers/microsoft.authorization/").next().unwrap_or_default();
        let kind = match what {
            "permissions" => "permissions",
            "locks" => "locks",
            "denyassignments" => "denyAssignments",
            _ => return Err(ArmFailure::no_such_path(target.call)),
        };
        if target.call.method.as_str() != "GET" {
            return Err(ArmFailure::no_such_path(target.call));
        }
        let right = format!("Microsoft.Authorization/{kind}/read");
        self.gate.admit(environment, &right, target.scope(), false)?;
        let group = group_id(target.environment);
        Ok(reply(
            200,
            match kind {
                "permissions" => self.access.permissions(environment),
                "locks" => self.access.locks(environment, scope),
                _ => self.access.denials(environment, &group, self.sign_in.object_id()),
            },
        ))
    }

    fn vault(&self, target: &ArmCall<'_>, vault: &str) -> Result<Response, ArmFailure> {
        let name = &target.environment.name;
        self.gate.admit(name, "Microsoft.KeyVault/vaults/read", target.scope(), false)?;
        let properties = (target.environment.vault() == vault)
            .then(|| self.key_vault.resource_properties(vault))
            .flatten()
            .ok_or_else(|| {
                ArmFailure::resource_not_found("Microsoft.KeyVault/vaults", vault, target.group)
            })?;
        let body = json!({
            "id": resource_id(target.environment, &format!("Microsoft.KeyVault/vaults/{vault}")),
            "name": vault,
            "type": "Microsoft.KeyVault/vaults",
            "location": REGION.1,
            "tags": {},
            "properties": properties,
        });
        Ok(reply(200, body))
    }
}

fn unauthenticated(service: &ResourceManager, refusal: Refusal) -> Response {
    let (code, text) = match refusal {
        Refusal::Missing => (
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.".to_owned(),
        ),
        Refusal::Unknown => ("InvalidAuthenticationToken", "The access token is invalid.".to_owned()),
        Refusal::Expired => {
            let text = "The access token expiry UTC time is earlier than current UTC time.".to_owned();
            ("ExpiredAuthenticationToken", text)
        }
        Refusal::Audience(found) => {
            let text = format!(
                "The access token has been obtained for wrong audience or resource '{found}'. It should exactly match \
                 with one of the allowed audiences 'https://management.core.windows.net/', \
                 'https://management.azure.com/', '{}'.",
                service.endpoints.resource_manager
            );
            ("InvalidAuthenticationTokenAudience", text)
        }
    };
    let header = format!(
        "Bearer authorization_uri=\"{}/{}\", error=\"invalid_token\", error_description=\"{code}\"",
        service.sign_in.base(),
        service.sign_in.tenant()
    );
    let body = json!({"error": {"code": code, "message": text}});
    with_header(reply(401, body), "www-authenticate", &header)
}
