//! Azure's sign-in service: tokens for a service principal, bound to one audience.
//!
//! Tokens have the shape of a JWT because the vendor's tools read their claims, but nothing signs them: a service
//! asks this stand-in which token it has issued, so a made-up one is refused. A client assertion is checked by those
//! who issue them ([`Federation`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::World;
use super::call::{Call, lock, random_guid, reply};
use super::federation::Federation;

/// How long a token is good for.
pub(super) const TOKEN_SECONDS: i64 = 3599;

/// A service that takes tokens. Each refuses those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Azure Resource Manager.
    ResourceManager,
    /// Key Vault's data plane.
    KeyVault,
    /// App Service's SCM sites.
    AppService,
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is none.
    Missing,
    /// This service never issued it, or it has been revoked.
    Unknown,
    /// Its time is over.
    Expired,
    /// It is for this other resource.
    Audience(String),
}

/// The sign-in service and the tokens that it has issued.
pub(crate) struct AzureSignIn {
    base: String,
    resource_manager: String,
    key_vault: String,
    tenant: String,
    client_id: String,
    client_secret: String,
    object_id: String,
    federation: Arc<Federation>,
    /// Whether the secret's time is over.
    secret_expired: Mutex<bool>,
    tokens: Mutex<HashMap<String, Token>>,
}

struct Token {
    audience: Audience,
    resource: String,
    expires: Timestamp,
}

/// A refusal of the token endpoint: status, OAuth's error, Azure's code and text.
struct Denial(u16, &'static str, u32, String);

impl AzureSignIn {
    /// The service for one tenant with one service principal.
    pub(crate) fn new(world: &World, federation: Arc<Federation>) -> Self {
        Self {
            base: world.endpoints.sign_in.clone(),
            resource_manager: world.endpoints.resource_manager.clone(),
            key_vault: world.endpoints.key_vault.clone(),
            tenant: world.credentials.tenant.clone(),
            client_id: world.credentials.client_id.clone(),
            client_secret: world.credentials.client_secret.clone(),
            object_id: random_guid(),
            federation,
            secret_expired: Mutex::new(false),
            tokens: Mutex::default(),
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// The tenant's id.
    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The service's base URL, for the challenges of the other services.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The service principal's object id.
    pub(crate) fn object_id(&self) -> &str {
        &self.object_id
    }

    /// The service principal's client id.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Checks the token of a call to a service that takes one of `audiences`.
    pub(crate) fn check(&self, call: &Call, audiences: &[Audience]) -> Result<(), Refusal> {
        let presented = call.bearer().ok_or(Refusal::Missing)?;
        let tokens = lock(&self.tokens);
        let token = tokens.get(presented).ok_or(Refusal::Unknown)?;
        if !audiences.contains(&token.audience) {
            return Err(Refusal::Audience(token.resource.clone()));
        }
        if token.expires <= Timestamp::now() { Err(Refusal::Expired) } else { Ok(()) }
    }

    /// Ends the life of every token that has been issued, as time would.
    pub(crate) fn expire_tokens(&self) {
        for token in lock(&self.tokens).values_mut() {
            token.expires = Timestamp::UNIX_EPOCH;
        }
    }

    /// Ends the secret's time, or gives it a new one.
    pub(super) fn expire_secret(&self, expired: bool) {
        *lock(&self.secret_expired) = expired;
    }

    /// A token for whoever the machine's identity is; none for a resource that the tenant does not know.
    pub(super) fn token_of(&self, resource: &str) -> Option<String> {
        let (audience, resource) = self.audience(resource)?;
        Some(self.issue(audience, &resource))
    }

    /// A token for tests of the other services.
    #[cfg(test)]
    pub(crate) fn token_for(&self, scope: &str) -> String {
        let (audience, resource) = self.audience(scope).expect("a scope that the service knows");
        self.issue(audience, &resource)
    }

    /// Which service a scope or resource means. Tools write it with and without a slash at the end, and doubled.
    fn audience(&self, scope: &str) -> Option<(Audience, String)> {
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let audience = match resource.trim_end_matches('/') {
            "https://management.azure.com" | "https://management.core.windows.net" => {
                Audience::ResourceManager
            }
            "https://vault.azure.net" => Audience::KeyVault,
            "https://appservice.azure.com" => Audience::AppService,
            other if other == self.resource_manager => Audience::ResourceManager,
            other if other == self.key_vault => Audience::KeyVault,
            _ => return None,
        };
        Some((audience, resource.to_owned()))
    }

    fn issue(&self, audience: Audience, resource: &str) -> String {
        let now = Timestamp::now();
        let expires = now + SignedDuration::from_secs(TOKEN_SECONDS);
        let claims = json!({
            "aud": resource,
            "iss": format!("https://sts.windows.net/{}/", self.tenant),
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": expires.as_second(),
            "appid": self.client_id,
            "appidacr": "1",
            "idtyp": "app",
            "oid": self.object_id,
            "sub": self.object_id,
            "tid": self.tenant,
            "uti": random_guid(),
            "ver": "1.0",
        });
        let token = format!("{}.{}.", encode(&json!({"typ": "JWT", "alg": "none"})), encode(&claims));
        lock(&self.tokens).insert(token.clone(), Token { audience, resource: resource.to_owned(), expires });
        token
    }

    /// The token endpoint, of both versions: `scope` in the second, `resource` in the first.
    fn token(&self, tenant: &str, call: &Call) -> Result<Value, Denial> {
        if tenant != self.tenant {
            let text =
                format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
            return Err(Denial(400, "invalid_request", 90002, text));
        }
        match call.form("grant_type").as_deref() {
            Some("client_credentials") => {}
            Some(other) => {
                let text = format!("The app requested an unsupported grant type '{other}'.");
                return Err(Denial(400, "unsupported_grant_type", 70003, text));
            }
            None => {
                let text = "The request body must contain the following parameter: 'grant_type'.".to_owned();
                return Err(Denial(400, "invalid_request", 900_144, text));
            }
        }
        self.authenticate(call)?;
        let wanted = call.form("scope").or_else(|| call.form("resource")).unwrap_or_default();
        let (audience, resource) =
            wanted.split_whitespace().find_map(|scope| self.audience(scope)).ok_or_else(|| {
                let text = format!("The resource principal named {wanted} was not found in the tenant.");
                Denial(400, "invalid_resource", 500_011, text)
            })?;
        let token = self.issue(audience, &resource);
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "ext_expires_in": TOKEN_SECONDS,
            "access_token": token,
        }))
    }

    fn authenticate(&self, call: &Call) -> Result<(), Denial> {
        // OAuth lets a client name itself in a Basic header instead of the form.
        let (basic_id, basic_secret) = call.basic().unzip();
        let client = call.form("client_id").or(basic_id).unwrap_or_default();
        if client != self.client_id {
            let text = format!("Application with identifier '{client}' was not found in the directory.");
            return Err(Denial(400, "unauthorized_client", 700_016, text));
        }
        if let Some(assertion) = call.form("client_assertion") {
            let checked = self.federation.check(&assertion);
            return checked.map_err(|(code, text)| Denial(401, "invalid_client", code, text));
        }
        match call.form("client_secret").or(basic_secret) {
            Some(secret) if secret == self.client_secret && *lock(&self.secret_expired) => {
                let text = format!("The provided client secret keys for app '{client}' are expired.");
                Err(Denial(401, "invalid_client", 7_000_222, text))
            }
            Some(secret) if secret == self.client_secret => Ok(()),
            Some(_) => {
                let text = format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client \
                     secret value, not the client secret ID, for a secret added to app '{client}'."
                );
                Err(Denial(401, "invalid_client", 7_000_215, text))
            }
            None => {
                let text = "The request body must contain the following parameter: 'client_assertion' or \
                            'client_secret'.";
                Err(Denial(401, "invalid_client", 7_000_218, text.to_owned()))
            }
        }
    }

    fn openid_configuration(&self, tenant: &str) -> Value {
        let base = format!("{}/{tenant}", self.base);
        json!({
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": format!("{}/{}/v2.0", self.base, self.tenant),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
            "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
            "tenant_region_scope": "EU",
            "cloud_instance_name": "localhost",
        })
    }

    fn instance_discovery(&self) -> Value {
        let host = self.base.split("//").nth(1).unwrap_or(&self.base);
        json!({
            "tenant_discovery_endpoint":
                format!("{}/{}/v2.0/.well-known/openid-configuration", self.base, self.tenant),
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        })
    }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

async fn serve(State(service): State<Arc<AzureSignIn>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    match (call.method.as_str(), call.segments().as_slice()) {
        ("POST", [tenant, "oauth2", "v2.0", "token"] | [tenant, "oauth2", "token"]) => {
            match service.token(tenant, &call) {
                Ok(body) => reply(200, body),
                Err(denial) => denied(&service, denial),
            }
        }
        ("GET", [tenant, "v2.0", ".well-known", "openid-configuration"])
        | ("GET", [tenant, ".well-known", "openid-configuration"]) => {
            reply(200, service.openid_configuration(tenant))
        }
        ("GET", [_, "discovery", "v2.0", "keys"]) => reply(200, json!({"keys": []})),
        ("GET", ["common", "discovery", "instance"]) => reply(200, service.instance_discovery()),
        _ => reply(404, json!({"error": "not_found"})),
    }
}

fn denied(service: &AzureSignIn, Denial(status, error, code, text): Denial) -> Response {
    let (trace, correlation) = (random_guid(), random_guid());
    let at = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    reply(
        status,
        json!({
            "error": error,
            "error_description": format!(
                "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}"
            ),
            "error_codes": [code],
            "timestamp": at,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("{}/error?code={code}", service.base),
        }),
    )
}

#[cfg(test)]
mod tests;
