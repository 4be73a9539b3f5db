//! A stand-in for Azure in this crate's own tests: one TLS listener under all of its host names.
//! It issues tokens by itself; what else it answers is up to the test.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use pgrotate_core::database_url::Target;
use pgrotate_core::env::Clock;
use pgrotate_core::env::testing::ManualClock;
use pgrotate_core::value::{Template, Update, UrlTemplate};
use pgrotate_core::{CopyId, Environment, RunId, Secret, VersionId};
use serde_json::{Value, json};

use crate::credentials::Credentials;
use crate::http;
use crate::shared::{AzureSettings, DatabaseTls, Shared, TlsMode, Vendors};

pub(crate) const TENANT: &str = "00000000-0000-0000-0000-0000000000aa";
pub(crate) const URL: &str = "postgresql+asyncpg://{user}:{password}@{host}:{port}/{name}?ssl=require";

/// A request as the stand-in saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

impl Seen {
    /// `GET /path`, without what is the same in all paths.
    pub(crate) fn line(&self) -> String {
        let path =
            self.path.strip_prefix("/subscriptions/sub/resourceGroups/rg/providers").unwrap_or(&self.path);
        format!("{} {path}", self.method)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

type Handler = Box<dyn FnMut(&Seen) -> Response + Send>;

struct Inner {
    handler: Mutex<Handler>,
    seen: Mutex<Vec<Seen>>,
    tokens: Mutex<Vec<String>>,
}

/// The stand-in.
pub(crate) struct Fake {
    inner: Arc<Inner>,
    pub(crate) port: u16,
    ca: String,
}

impl Fake {
    /// Starts one that answers all but sign-ins as told.
    pub(crate) async fn start(handler: impl FnMut(&Seen) -> Response + Send + 'static) -> Self {
        let names = ["localhost", "login.localhost", "kv-test.vault.localhost", "api.scm.localhost"];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(names.map(str::to_owned)).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner {
            handler: Mutex::new(Box::new(handler)),
            seen: Mutex::default(),
            tokens: Mutex::default(),
        });
        let app = axum::Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let server =
            axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(config))).unwrap();
        tokio::spawn(server.serve(app.into_make_service()));
        Self { inner, port, ca: certificate.pem() }
    }

    /// The requests so far, sign-ins left out.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// The requests so far as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// The scopes for which tokens were asked.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.inner.tokens.lock().unwrap().clone()
    }

    /// Providers' surroundings, with a clock that jumps.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared_with(Arc::new(ManualClock::at_second(1_700_000_000)), "AZURE_CLIENT_SECRET=s3cr3t\n")
    }

    pub(crate) fn shared_with(&self, clock: Arc<dyn Clock>, credentials: &str) -> Arc<Shared> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        let host = format!("https://login.localhost:{}", self.port);
        write!(file, "AZURE_CLIENT_ID=app\nAZURE_AUTHORITY_HOST={host}\n{credentials}").unwrap();
        let azure = AzureSettings {
            tenant: Some(TENANT.into()),
            resource_manager: format!("https://localhost:{}", self.port),
            key_vault_suffix: format!("vault.localhost:{}", self.port),
            ..AzureSettings::default()
        };
        Arc::new(Shared {
            environment: Environment::from("test"),
            target: target(),
            takes_turns: false,
            database_tls: DatabaseTls { mode: TlsMode::VerifyFull, ca_file: None },
            credentials: Credentials::with_file(file.path()).unwrap(),
            http: http::client(http::tls_config(Some(self.ca.as_bytes())).unwrap()).unwrap(),
            ca: None,
            vendors: Vendors { azure, ..Vendors::default() },
            azure: super::Accounts::default(),
            budgets: Default::default(),
            looks: Default::default(),
            clocks: Default::default(),
            base: "/".into(),
            clock,
        })
    }
}

async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name: &str| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let host = parts.uri.authority().map(ToString::to_string).unwrap_or_else(|| text("host"));
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let seen = Seen {
        method: parts.method.to_string(),
        host,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        authorization: text("authorization"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    if seen.host.starts_with("login.") && seen.path == format!("/{TENANT}/oauth2/v2.0/token") {
        return issue(&inner, &seen);
    }
    inner.seen.lock().unwrap().push(seen.clone());
    (inner.handler.lock().unwrap())(&seen)
}

fn issue(inner: &Inner, seen: &Seen) -> Response {
    let form: std::collections::HashMap<String, String> =
        url::form_urlencoded::parse(seen.body.as_bytes()).into_owned().collect();
    // What is proven with ends in the code with which it is refused.
    let proof = form.get("client_secret").or_else(|| form.get("client_assertion"));
    if let Some((_, code)) = proof.and_then(|proof| proof.split_once("AADSTS")) {
        let body = json!({"error": "invalid_client", "error_codes": [code.parse::<u64>().unwrap()],
            "error_description": format!("AADSTS{code}: hunter2")});
        return reply(401, body);
    }
    if form.get("client_secret").is_some_and(|secret| secret != "s3cr3t") {
        let body = json!({"error": "invalid_client", "error_codes": [7_000_215],
            "error_description": "AADSTS7000215: Invalid client secret provided: hunter2"});
        return reply(401, body);
    }
    let mut tokens = inner.tokens.lock().unwrap();
    tokens.push(form["scope"].clone());
    let token = format!("token-{}", tokens.len());
    reply(200, json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token}))
}

/// An answer with a JSON body.
pub(crate) fn reply(status: u16, body: Value) -> Response {
    (axum::http::StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

/// An answer without a body.
pub(crate) fn empty(status: u16) -> Response {
    axum::http::StatusCode::from_u16(status).unwrap().into_response()
}

/// The answer with one header more.
pub(crate) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

/// An error in the resource manager's form.
pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Response {
    reply(status, json!({"error": {"code": code, "message": message}}))
}

/// A clock that goes with the time.
#[derive(Debug)]
pub(crate) struct RealClock;

#[async_trait]
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        self.now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

pub(crate) fn target() -> Target {
    Target { host: "db".into(), port: 5432, database: "app".into(), user: "admin".into() }
}

pub(crate) fn run() -> RunId {
    "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()
}

/// An update with everything that it borrows.
pub(crate) struct Wanted {
    copy: CopyId,
    template: Template,
    url: UrlTemplate,
    target: Target,
    password: Secret,
    versions: std::collections::BTreeMap<CopyId, VersionId>,
}

impl Wanted {
    pub(crate) fn new(copy: &CopyId, template: &str, password: &str) -> Self {
        Self {
            copy: copy.clone(),
            template: Template::parse(template).unwrap(),
            url: UrlTemplate::parse(URL, &target()).unwrap(),
            target: target(),
            password: Secret::new(password),
            versions: std::collections::BTreeMap::new(),
        }
    }

    pub(crate) fn update(&self) -> Update<'_> {
        Update {
            run: run(),
            copy: &self.copy,
            template: &self.template,
            url: &self.url,
            target: &self.target,
            twin: None,
            anew: false,
            password: &self.password,
            versions: &self.versions,
        }
    }
}
