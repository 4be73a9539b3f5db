//! A small sandbox for the tests of the stand-ins: routers on real sockets, servers and applications that only
//! remember what was asked of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use futures::future::BoxFuture;
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::call::lock;
use super::{
    AppControl, Credentials, Endpoints, Environment, Latency, LogLine, ServerControl, Vendors, World,
};

/// The subscription of the only environment with resources in most tests.
pub(super) const SUBSCRIPTION: &str = "00000000-0000-0000-0000-00000000d0e0";
/// The sandbox's own base URLs, as no listener has them: tests ask the routers on a port of their own.
pub(super) const ARM: &str = "https://arm.localhost:8443";
/// See [`ARM`].
pub(super) const KEY_VAULT: &str = "https://vault.localhost:8444";

/// Remembers the passwords.
#[derive(Default)]
pub(super) struct FakeServers {
    pub(super) passwords: Mutex<Vec<(String, String, String)>>,
}

impl ServerControl for FakeServers {
    fn set_password<'a>(
        &'a self,
        server: &'a str,
        user: &'a str,
        password: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        lock(&self.passwords).push((server.to_owned(), user.to_owned(), password.to_owned()));
        Box::pin(async { Ok(()) })
    }
}

/// Remembers the starts, and prints a line at each.
pub(super) struct FakeApps {
    pub(super) starts: Mutex<Vec<(String, BTreeMap<String, String>)>>,
    lines: broadcast::Sender<LogLine>,
}

impl FakeApps {
    /// Prints a line as the application would.
    pub(super) fn print(&self, text: &str) {
        let _ = self.lines.send(LogLine { at: Timestamp::now(), text: text.to_owned() });
    }

    /// The settings of the latest start.
    pub(super) fn latest(&self) -> BTreeMap<String, String> {
        lock(&self.starts).last().expect("the application has been started").1.clone()
    }
}

impl AppControl for FakeApps {
    fn start<'a>(
        &'a self,
        app: &'a str,
        settings: BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<(), String>> {
        lock(&self.starts).push((app.to_owned(), settings));
        Box::pin(async { Ok(()) })
    }

    fn starts(&self, app: &str) -> u64 {
        lock(&self.starts).iter().filter(|(started, _)| started == app).count() as u64
    }

    fn follow(&self, _app: &str) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        let recent = vec![LogLine { at: Timestamp::UNIX_EPOCH, text: "started long ago".to_owned() }];
        (recent, self.lines.subscribe())
    }
}

/// All stand-ins with dev and staging, and what stands behind them.
pub(super) struct Sandbox {
    pub(super) vendors: Vendors,
    pub(super) servers: Arc<FakeServers>,
    pub(super) apps: Arc<FakeApps>,
}

impl Sandbox {
    /// With operations and starts that take no time.
    pub(super) fn new() -> Self {
        Self::with(Latency { operation: Duration::ZERO, app_start: Duration::ZERO }, "ghp_test")
    }

    /// With operations and starts that take this long.
    pub(super) fn slow(milliseconds: u64) -> Self {
        let time = Duration::from_millis(milliseconds);
        Self::with(Latency { operation: time, app_start: time }, "ghp_test")
    }

    pub(super) fn with(latency: Latency, github_token: &str) -> Self {
        let servers = Arc::new(FakeServers::default());
        let apps = Arc::new(FakeApps { starts: Mutex::default(), lines: broadcast::Sender::new(16) });
        let world = World {
            environments: vec![
                environment("dev", SUBSCRIPTION),
                environment("staging", "another-subscription"),
            ],
            endpoints: endpoints(),
            credentials: credentials(github_token),
            latency,
            servers: servers.clone(),
            apps: apps.clone(),
        };
        Self { vendors: Vendors::new(&world), servers, apps }
    }

    /// Applies a bad state to dev.
    pub(super) fn set(&self, system: &str, what: &str, value: Value) {
        let request =
            serde_json::json!({"system": system, "environment": "dev", "what": what, "value": value});
        super::apply(&self.vendors, &request).unwrap();
    }

    /// A call to Azure Resource Manager; `path` follows dev's resource group's `/providers`.
    pub(super) async fn arm(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let path = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-mindwell-dev/providers{path}");
        self.arm_path(method, &path, body).await
    }

    /// A call to Azure Resource Manager with a whole path.
    pub(super) async fn arm_path(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let token = self.vendors.sign_in.token_for("https://management.azure.com/.default");
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}api-version=2025-08-01");
        let site = serve(self.vendors.resource_manager.clone().router()).await;
        let request = site.request(method, &path).bearer_auth(token);
        answer(with_body(request, body)).await
    }

    /// A call to dev's key vault with a token for it.
    pub(super) async fn vault(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let token = self.vendors.sign_in.token_for("https://vault.azure.net/.default");
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}api-version=2025-07-01");
        let site = serve(self.vendors.key_vault.clone().router()).await;
        let request = site.request(method, &path).header("host", "kv-mindwell-dev.vault.localhost:8444");
        answer(with_body(request.bearer_auth(token), body)).await
    }

    /// A call to GitHub with the token and a user agent.
    pub(super) async fn github(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.github_as("ghp_test", method, path, body).await
    }

    /// A call to GitHub with a token and a user agent.
    pub(super) async fn github_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let site = serve(self.vendors.github.clone().router()).await;
        let request = site.request(method, path).bearer_auth(token).header("user-agent", "tests");
        answer(with_body(request, body)).await
    }

    /// A call to 1Password Connect with the token.
    pub(super) async fn connect(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let site = serve(self.vendors.onepassword.clone().router()).await;
        answer(with_body(site.request(method, path).bearer_auth("connect-token"), body)).await
    }
}

/// Base URLs that no listener has.
pub(super) fn endpoints() -> Endpoints {
    Endpoints {
        sign_in: "https://login.localhost:8442".into(),
        resource_manager: ARM.into(),
        key_vault: KEY_VAULT.into(),
        scm: "https://scm.localhost:8445".into(),
        github: "https://github.localhost:8446".into(),
        jira: "https://jira.localhost:8447".into(),
    }
}

fn credentials(github_token: &str) -> Credentials {
    Credentials {
        tenant: "00000000-0000-0000-0000-0000000000aa".into(),
        client_id: "client".into(),
        client_secret: "client-secret".into(),
        identity_header: "identity-header".into(),
        job_token: "job-token".into(),
        github_token: github_token.into(),
        // Making one takes longer than most tests: those of the App have one of their own.
        github_app_key: Vec::new(),
        connect_token: "connect-token".into(),
        slack_path: "/services/T0/B0/key".into(),
        teams_signature: "signature".into(),
        jira_email: "rotation@mindwell.example".into(),
        jira_token: "jira-token".into(),
    }
}

fn environment(name: &str, subscription: &str) -> Environment {
    Environment {
        name: name.into(),
        subscription: subscription.into(),
        postgres_host: "localhost".into(),
        postgres_user: "mindwelladmin".into(),
        password: format!("Seed-{name}-1"),
        database_url: format!("postgresql+asyncpg://mindwelladmin:Seed-{name}-1@localhost:5432/mindwell_app"),
        app_host: "127.0.0.1:8000".into(),
        app_settings: [("PORT".to_owned(), "8000".to_owned())].into(),
    }
}

/// A router that listens.
pub(super) struct Site {
    base: String,
    client: Client,
}

/// Puts a router on a port of its own.
pub(super) async fn serve(router: Router) -> Site {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    // One client for all tests: loading the system's certificates takes longer than most of them. No connection is
    // shared, because every site has a port of its own.
    static CLIENT: OnceLock<Client> = OnceLock::new();
    Site { base, client: CLIENT.get_or_init(Client::new).clone() }
}

impl Site {
    /// A request that hasn't been sent yet.
    pub(super) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("{}{path}", self.base))
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    pub(super) text: String,
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer, if it has this status; shows what came instead otherwise.
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

/// Sends a request and reads the answer to its end.
pub(super) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text }
}

/// Asks again until the answer is as wanted; a test that waits too long fails with the last one.
pub(super) async fn until(mut ask: impl AsyncFnMut() -> Answer, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "never came: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn with_body(request: RequestBuilder, body: Option<Value>) -> RequestBuilder {
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
}
