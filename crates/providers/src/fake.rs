//! What the providers' tests share: a server on loopback that answers as a test says, and the
//! things that a sink is handed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use pgrotate_core::database_url::Target;
use pgrotate_core::env::testing::ManualClock;
use pgrotate_core::provider::Story;
use pgrotate_core::value::{Template, Update, UrlTemplate};
use pgrotate_core::{CopyId, Environment, RunId, Secret, VersionId};
use serde_json::Value;

use crate::credentials::Credentials;
use crate::http;
use crate::shared::{DatabaseTls, Shared, TlsMode, Vendors};

/// The run that tests speak of.
pub(crate) const RUN: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
/// Another run.
pub(crate) const OTHER_RUN: &str = "01BX5ZZKBKACTAV9WEVGEMMVRZ";

/// [`RUN`] as an id.
pub(crate) fn run() -> RunId {
    RUN.parse().unwrap()
}

/// A request, as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The method.
    pub(crate) method: String,
    /// Path and query, as they were sent.
    pub(crate) path: String,
    headers: BTreeMap<String, String>,
    /// The body.
    pub(crate) body: String,
}

impl Call {
    /// Method, path and query in one text.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the server answers.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    hangs_up: bool,
}

impl Reply {
    /// A status and a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string(), hangs_up: false }
    }

    /// A status and a text as body.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::empty(status) }
    }

    /// A status without body.
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), hangs_up: false }
    }

    /// No answer: the connection breaks.
    pub(crate) fn hang_up() -> Self {
        Self { hangs_up: true, ..Self::empty(500) }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server on loopback. It ends with the test's runtime.
pub(crate) struct Fake {
    /// Its base URL, without a slash at the end.
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Fake {
    /// Starts a server that answers by this function.
    pub(crate) async fn start(answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&calls), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            async move {
                let call = read(request).await;
                seen.lock().unwrap().push(call.clone());
                write(answer(&call))
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, calls }
    }

    /// What it was asked so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// What it was asked so far, one line each; and forgets it.
    pub(crate) fn take_lines(&self) -> Vec<String> {
        self.calls.lock().unwrap().drain(..).map(|call| call.line()).collect()
    }
}

async fn read(request: Request) -> Call {
    let (parts, body) = request.into_parts();
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    Call {
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap(),
    }
}

fn write(reply: Reply) -> Response {
    if reply.hangs_up {
        // Ends the connection's task, without the panic hook's words.
        std::panic::resume_unwind(Box::new("hang up"));
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}

/// What the providers of an environment share, with these vendors' settings and these lines
/// in the credentials file.
pub(crate) fn shared(vendors: Vendors, credentials: &str) -> Arc<Shared> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(credentials.as_bytes()).unwrap();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    Arc::new(Shared {
        environment: Environment::from("dev"),
        target: target(),
        takes_turns: false,
        database_tls: DatabaseTls { mode: TlsMode::VerifyFull, ca_file: None },
        credentials: Credentials::with_file(file.path()).unwrap(),
        http: http::client(http::tls_config(None).unwrap()).unwrap(),
        ca: None,
        vendors,
        base: PathBuf::from("."),
        azure: crate::azure::Accounts::default(),
        budgets: Default::default(),
        looks: Default::default(),
        clocks: Default::default(),
        clock: Arc::new(ManualClock::at_second(1_767_225_600)),
    })
}

fn target() -> Target {
    Target {
        host: "db.example.com".into(),
        port: 5432,
        database: "mindwell_app".into(),
        user: "mindwelladmin".into(),
    }
}

/// What an update is made of.
pub(crate) struct Job {
    copy: CopyId,
    template: Template,
    url: UrlTemplate,
    target: Target,
    password: Secret,
    versions: BTreeMap<CopyId, VersionId>,
}

impl Job {
    /// A change of this copy to this password.
    pub(crate) fn new(copy: &CopyId, template: &str, password: &str) -> Self {
        let url = "postgresql://{user}:{password}@{host}:{port}/{name}";
        Self {
            copy: copy.clone(),
            template: Template::parse(template).unwrap(),
            url: UrlTemplate::parse(url, &target()).unwrap(),
            target: target(),
            password: Secret::new(password),
            versions: BTreeMap::new(),
        }
    }

    /// The change, as a sink is handed it.
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

/// The story of a run, told with this ticket.
pub(crate) fn story(ticket: Option<&str>) -> Story {
    let secret_id = "https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef";
    Story {
        run: run(),
        takes_back: None,
        environment: Environment::from("dev"),
        operator: "ada".into(),
        ticket: ticket.map(str::to_owned),
        started_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        proven_at: "2026-01-01T00:01:00Z".parse().unwrap(),
        target: target().to_string(),
        versions: BTreeMap::from([
            (CopyId::from("azure_key_vault:database-url"), VersionId::from(secret_id)),
            (CopyId::from("aws_secrets_manager:x"), VersionId::from("abc")),
        ]),
        window_ms: Some(2300),
    }
}
