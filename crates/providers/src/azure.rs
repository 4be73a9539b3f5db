//! Azure: one sign-in for all of its providers, and the road to the resource manager.
//!
//! # Who signs in
//!
//! The first of these that is configured is used, and none is tried in its place when it fails:
//!
//! 1. a service principal: `AZURE_CLIENT_SECRET`, with `AZURE_CLIENT_ID` and the tenant
//! 2. a workload identity, with `AZURE_CLIENT_ID` and the tenant: the token in
//!    `AZURE_FEDERATED_TOKEN_FILE`, else the one that GitHub gives a job with the permission
//!    `id-token: write` (`ACTIONS_ID_TOKEN_REQUEST_URL`, `ACTIONS_ID_TOKEN_REQUEST_TOKEN`)
//! 3. the managed identity of an App Service: `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`
//!
//! Where none is, whoever is logged in to the Azure CLI (`az login`) signs in, else the managed
//! identity of the virtual machine. That is the order of Microsoft's `DefaultAzureCredential` but
//! for the last two: who logged in to a machine meant it, and looking for a machine's identity
//! costs a second wherever there is none. `AZURE_CLIENT_ID` chooses a user-assigned identity.
//! `sign_in` under `[azure]`, else `AZURE_TOKEN_CREDENTIALS`, leaves one way.
//!
//! The tenant is `[azure] tenant`, else `AZURE_TENANT_ID`; the Azure CLI knows its own.
//! `AZURE_AUTHORITY_HOST` names another sign-in service; without it, it is the one of the cloud to
//! which the resource manager belongs. Microsoft's `azure_identity` talks to it and takes https
//! only; its instance discovery does not exist in the Rust edition.
//!
//! # What goes through here
//!
//! Resource manager calls run through `azure_core`'s pipeline with its retries off: it would replay
//! a PUT or PATCH whose answer was lost, which is for the run's executor to decide. A 401 alone is
//! answered by one more try with a fresh token, because nothing can have happened.

mod answer;
mod carrier;
pub(crate) mod credential;
mod operation;
mod rights;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::Bytes;
use azure_core::http::policies::Policy;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{
    ClientOptions, Context, Method, Pipeline, PipelineSendOptions, Request, RetryOptions, Transport,
    UserAgentOptions,
};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgrotate_core::provider::{Content, Finding, Inspection, Seen, Severity};
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::Url;
use serde::Deserialize;
use zeroize::Zeroizing;

pub(crate) use self::answer::{Answer, Failure, explain, quoted_after, show_code};
use self::carrier::Carrier;
use self::credential::{Credential, Tokens};
pub(crate) use self::operation::{End, Operation, Pace};
pub(crate) use self::rights::{Action, Need, grant, hindrances, not_allowed};
use crate::http::{self, Effect};
use crate::shared::Shared;

/// The newest stable interface of Key Vault, which Microsoft's other SDKs speak by now; the crate alone would speak
/// the one before.
const KEY_VAULT_API_VERSION: &str = "2026-04-01";
/// Time for an ordinary request.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a request that waits for an application to start. The resource manager itself gives
/// up after about four minutes.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(300);

/// Who an account is: the resource manager, the tenant, the sign-in service and the way to sign in.
type Identity = [String; 4];

/// The accounts of one environment. Clones share the sign-ins, so that the environments of one configuration sign in
/// once, and nothing else: an environment's connections, whose buffers have held its passwords, end with it.
#[derive(Default)]
pub struct Accounts {
    tokens: Arc<Mutex<BTreeMap<Identity, Tokens>>>,
    own: Mutex<BTreeMap<Identity, Arc<Account>>>,
    copies: Mutex<BTreeSet<String>>,
}

impl Accounts {
    /// Notes a copy of the environment, so that one beside it can be told from those that nobody has listed.
    pub(crate) fn declare(&self, location: String) {
        self.copies.lock().expect("no holder of this lock panics").insert(location);
    }

    /// Whether the environment has a copy there.
    pub(crate) fn has_copy_at(&self, location: &str) -> bool {
        self.copies.lock().expect("no holder of this lock panics").contains(location)
    }
}

impl Clone for Accounts {
    fn clone(&self) -> Self {
        Self { tokens: Arc::clone(&self.tokens), own: Mutex::default(), copies: Mutex::default() }
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts(hidden)")
    }
}

/// One identity in one cloud, with the connections that it uses.
pub(crate) struct Account {
    resource_manager: Url,
    credential: Arc<Credential>,
    http: reqwest::Client,
    vault_options: ClientOptions,
    pipeline: Pipeline,
    patient_pipeline: Pipeline,
    vaults: Mutex<BTreeMap<String, Arc<VaultClient>>>,
}

/// The client of one vault.
pub(crate) struct VaultClient {
    client: SecretClient,
    first: tokio::sync::Mutex<bool>,
}

impl VaultClient {
    /// The client, for requests after the first.
    pub(crate) fn get(&self) -> &SecretClient {
        &self.client
    }

    /// Sends what may be the first request. From the vault's challenge to it the client learns where to sign in;
    /// those that want to be first too wait, and are not challenged.
    pub(crate) async fn first<'a, F: Future>(
        &'a self,
        send: impl FnOnce(&'a SecretClient) -> F,
    ) -> F::Output {
        let mut first = self.first.lock().await;
        if !*first {
            drop(first);
            return send(&self.client).await;
        }
        let answer = send(&self.client).await;
        *first = false;
        answer
    }
}

/// The account that an environment's settings describe. Signs in only when it is first used.
///
/// # Errors
/// When an endpoint can't be used.
pub(crate) fn account(shared: &Shared) -> Result<Arc<Account>> {
    let settings = &shared.vendors.azure;
    let plain = |name: &str| shared.credentials.plain(name);
    let key = [
        settings.resource_manager.clone(),
        settings.tenant.clone().or_else(|| plain("AZURE_TENANT_ID")).unwrap_or_default(),
        plain("AZURE_AUTHORITY_HOST").unwrap_or_default(),
        format!("{:?}", settings.sign_in),
    ];
    let mut accounts = shared.azure.own.lock().expect("no holder of this lock panics");
    if let Some(account) = accounts.get(&key) {
        return Ok(Arc::clone(account));
    }
    let tokens = {
        let mut tokens = shared.azure.tokens.lock().expect("no holder of this lock panics");
        tokens.entry(key.clone()).or_default().clone()
    };
    let account = Arc::new(Account::new(shared, tokens)?);
    accounts.insert(key, Arc::clone(&account));
    Ok(account)
}

impl Account {
    fn new(shared: &Shared, tokens: Tokens) -> Result<Self> {
        let resource_manager = tls_endpoint(&shared.vendors.azure.resource_manager)?;
        let credential = Arc::new(Credential::new(shared, &resource_manager, tokens)?);
        let pipeline = |timeout| {
            let scope = scope_of(&resource_manager);
            let policy: Arc<dyn Policy> =
                Arc::new(BearerTokenAuthorizationPolicy::new(credential.clone(), [scope]));
            Pipeline::new(
                Some(env!("CARGO_PKG_NAME")),
                Some(env!("CARGO_PKG_VERSION")),
                client_options(shared, timeout),
                Vec::new(),
                vec![policy],
                None,
            )
        };
        Ok(Self {
            pipeline: pipeline(TIMEOUT),
            patient_pipeline: pipeline(PATIENT_TIMEOUT),
            credential,
            http: shared.http.clone(),
            vault_options: client_options(shared, TIMEOUT),
            resource_manager,
            vaults: Mutex::default(),
        })
    }

    /// The URL of a resource: `provider` is its namespace, type and name, and what follows.
    pub(crate) fn resource(&self, subscription: &str, group: &str, provider: &[&str]) -> Url {
        let mut url = self.resource_manager.clone();
        let head = ["subscriptions", subscription, "resourceGroups", group, "providers"];
        extend(&mut url, head.iter().chain(provider));
        url
    }

    /// Sends a call to the resource manager.
    ///
    /// # Errors
    /// When no answer comes, or one that is not a success, in the words of `operation`.
    pub(crate) async fn send(&self, call: Call, operation: &str) -> Result<Answer> {
        let effect = call.effect;
        let answer = self.exchange(call, operation).await?;
        if answer.is_success() { Ok(answer) } else { Err(answer.classify(effect, operation)) }
    }

    /// Sends a call to the resource manager and gives whatever it answers.
    ///
    /// # Errors
    /// When no answer comes.
    pub(crate) async fn exchange(&self, call: Call, operation: &str) -> Result<Answer> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.exchange_once(&call, operation).await?;
            if answer.status() != 401 || tries > 1 {
                return Ok(answer);
            }
            self.credential.forget(&scope_of(&self.resource_manager));
        }
    }

    async fn exchange_once(&self, call: &Call, operation: &str) -> Result<Answer> {
        let mut request = Request::new(call.url.clone(), call.method);
        request.insert_header("accept", "application/json");
        if let Some(body) = &call.body {
            request.insert_header("content-type", "application/json");
            request.set_body(body.clone());
        }
        let pipeline = if call.patient { &self.patient_pipeline } else { &self.pipeline };
        let options = PipelineSendOptions { skip_checks: true, ..Default::default() };
        let sent = pipeline.send(&Context::new(), &mut request, Some(options)).await;
        sent.map(Answer::new).map_err(|error| explain(&error, call.effect, operation))
    }

    /// The object id of whoever signs in, as the token says it; for questions about who is meant, never for whom to let in.
    pub(crate) async fn caller(&self) -> Option<String> {
        let token = self.credential.token(&scope_of(&self.resource_manager)).await.ok()?;
        let claims = URL_SAFE_NO_PAD.decode(token.expose().split('.').nth(1)?).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
        claims.oid.filter(|oid| !oid.is_empty() && oid.len() <= 64 && oid.chars().all(plain))
    }

    /// A token for an App Service's SCM site, as the value of an `Authorization` header.
    pub(crate) async fn scm_authorization(&self) -> Result<Zeroizing<String>> {
        let host = self.resource_manager.host_str().unwrap_or_default();
        // The sovereign clouds have no audience of App Service's own.
        let scope = match sovereign(host) {
            Some(_) => scope_of(&self.resource_manager),
            None => "https://appservice.azure.com/.default".to_owned(),
        };
        let token = self.credential.token(&scope).await?;
        Ok(Zeroizing::new(format!("Bearer {}", token.expose())))
    }

    /// The HTTP client, for what is no resource manager call.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The client of one vault; all copies in it share its sign-in.
    ///
    /// # Errors
    /// When the vault's URL can't be used.
    pub(crate) fn secrets(&self, vault_url: &str) -> Result<Arc<VaultClient>> {
        let mut vaults = self.vaults.lock().expect("no holder of this lock panics");
        if let Some(client) = vaults.get(vault_url) {
            return Ok(Arc::clone(client));
        }
        let url = tls_endpoint(vault_url)?;
        let options = SecretClientOptions {
            api_version: KEY_VAULT_API_VERSION.to_owned(),
            client_options: self.vault_options.clone(),
            // A vault on this machine names Azure's own audience. Everywhere else the vault must
            // belong to the domain for which it wants a token.
            verify_challenge_resource: Some(!is_loopback(&url)),
        };
        let client = SecretClient::new(url.as_str(), self.credential.clone(), Some(options))
            .map_err(|_| Error::internal("the Key Vault client could not be built"))?;
        let client = Arc::new(VaultClient { client, first: tokio::sync::Mutex::new(true) });
        vaults.insert(vault_url.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// Whether a URL that the resource manager handed out leads back to it. A token goes along.
    pub(crate) fn vouches_for(&self, url: &Url) -> bool {
        let own = self.resource_manager.host_str().unwrap_or_default();
        let host = url.host_str().unwrap_or_default();
        let related =
            host.eq_ignore_ascii_case(own) || host.to_ascii_lowercase().ends_with(&format!(".{own}"));
        url.scheme() == "https" && (related || is_loopback(url) && is_loopback(&self.resource_manager))
    }

    /// Drops the Key Vault token, after a vault has refused it.
    pub(crate) fn forget_tokens(&self) {
        self.credential.forget_all();
    }
}

/// What is read of a token.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    oid: Option<String>,
}

/// One call to the resource manager.
pub(crate) struct Call {
    method: Method,
    url: Url,
    body: Option<Bytes>,
    effect: Effect,
    patient: bool,
}

impl Call {
    /// A read.
    pub(crate) fn get(url: Url) -> Self {
        Self { method: Method::Get, url, body: None, effect: Effect::Reads, patient: false }
    }

    /// A read that the resource manager wants as a POST, because it shows secrets.
    pub(crate) fn list(url: Url) -> Self {
        Self { method: Method::Post, ..Self::get(url) }
    }

    /// An action.
    pub(crate) fn post(url: Url) -> Self {
        Self { effect: Effect::Writes, ..Self::list(url) }
    }

    /// A change of parts of a resource.
    pub(crate) fn patch(url: Url, body: Zeroizing<Vec<u8>>) -> Self {
        Self { method: Method::Patch, ..Self::put(url, body) }
    }

    /// A replacement of a resource.
    pub(crate) fn put(url: Url, body: Zeroizing<Vec<u8>>) -> Self {
        // The bytes stay in the wiped container until the last holder has sent them.
        let body = Some(Bytes::from_owner(body));
        Self { method: Method::Put, body, ..Self::post(url) }
    }

    /// With time for an application to start.
    #[must_use]
    pub(crate) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }
}

/// The URL of something below a resource, in an API version.
pub(crate) fn below(resource: &Url, path: &[&str], api_version: &str) -> Url {
    let mut url = resource.clone();
    extend(&mut url, path.iter());
    url.query_pairs_mut().append_pair("api-version", api_version);
    url
}

fn extend<'a>(url: &mut Url, segments: impl Iterator<Item = &'a &'a str>) {
    url.path_segments_mut().expect("an https URL has a path").pop_if_empty().extend(segments);
}

/// Makes sure that a name from the configuration is one segment of a URL and nothing else.
///
/// # Errors
/// Names the option.
pub(crate) fn checked_name<'a>(option: &str, name: &'a str) -> Result<&'a str> {
    let fits = |character: char| character.is_alphanumeric() || "-_.()".contains(character);
    if !name.is_empty() && name.chars().all(fits) && !name.starts_with('.') {
        return Ok(name);
    }
    Err(Error::new(Kind::Config, format!("use {name:?} as `{option}`"))
        .because("Azure has no such names")
        .hint("give the name alone, without path or URL"))
}

fn client_options(shared: &Shared, timeout: Duration) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(Arc::new(Carrier::new(shared, timeout)))),
        retry: RetryOptions::none(),
        // Only a short word: `azure_core` panics at anything else.
        user_agent: UserAgentOptions { application_id: Some("pgrotate".into()) },
        ..Default::default()
    }
}

/// Microsoft's crates send no token over plain HTTP, not even to this machine.
fn tls_endpoint(text: &str) -> Result<Url> {
    let url = http::endpoint(text)?;
    if url.scheme() == "https" {
        return Ok(url);
    }
    Err(Error::new(Kind::Config, "use a configured Azure endpoint")
        .because("Microsoft's libraries send tokens over https only")
        .hint("write https://, and name the CA's file where the system does not know it"))
}

/// The scope of a token for a service.
fn scope_of(endpoint: &Url) -> String {
    format!("{}/.default", endpoint.as_str().trim_end_matches('/'))
}

/// The sign-in service of a sovereign cloud, by its resource manager's host.
fn sovereign(host: &str) -> Option<&'static str> {
    match host {
        _ if host.ends_with(".usgovcloudapi.net") => Some("https://login.microsoftonline.us"),
        _ if host.ends_with(".chinacloudapi.cn") => Some("https://login.chinacloudapi.cn"),
        _ => None,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A secret as JSON text, quotes included.
pub(crate) fn json_text(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(serde_json::to_string(secret.expose()).expect("a text is always valid JSON"))
}

/// A look at a copy, with what stands in its way: that explains why it can't be read, where it can't.
pub(crate) fn inspection(
    look: Result<(Seen, Vec<Finding>)>,
    hindrances: Vec<Finding>,
    identity: Option<String>,
) -> Result<Inspection> {
    match look {
        Ok((seen, found)) => Ok(Inspection { seen, findings: [found, hindrances].concat(), identity }),
        Err(_) if hindrances.iter().any(|finding| finding.severity == Severity::Blocks) => {
            let seen = Seen { content: Content::Unseen, version: None, updated_at: None };
            Ok(Inspection { seen, findings: hindrances, identity })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
