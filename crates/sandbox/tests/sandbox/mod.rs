//! A sandbox under test: started as its users start it, and ended with the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The program, with the environment that the test runs in.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrotate-sandbox"));
    command.stdin(Stdio::null());
    command
}

/// A started sandbox. A failing start prints its reason to the test's stderr.
pub(crate) struct Sandbox {
    process: Child,
    folder: TempDir,
    control: String,
    http: reqwest::Client,
}

impl Sandbox {
    /// Starts a sandbox and waits until it is ready.
    pub(crate) async fn up(arguments: &[&str]) -> Self {
        let mut sandbox = Self::begin(arguments);
        sandbox.wait_until_ready();
        sandbox
    }

    /// Starts one whose parent is a shell; `signal` and `wait` mean the shell.
    pub(crate) async fn up_below_a_shell(arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        // Without `wait`, the shell would replace itself by its last command.
        shell.args(["-c", "\"$@\" & wait", "sh", env!("CARGO_BIN_EXE_pgrotate-sandbox")]);
        let mut sandbox = Self::spawn(shell, arguments);
        sandbox.wait_until_ready();
        sandbox
    }

    /// Starts one without waiting.
    pub(crate) fn begin(arguments: &[&str]) -> Self {
        Self::spawn(program(), arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        // Only the first of a process succeeds; the others find it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        command.arg("up").arg("--dir").arg(folder.path()).args(arguments);
        let process = command.stdout(Stdio::piped()).spawn().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { process, folder, control: String::new(), http }
    }

    fn wait_until_ready(&mut self) {
        let mut line = String::new();
        BufReader::new(self.process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the sandbox has not started; its reason is on stderr");
        let ready: Value = serde_json::from_str(&line).unwrap();
        let config = self.folder.path().canonicalize().unwrap().join("pgrotate.toml");
        let control = ready["control"].as_str().unwrap();
        let expected =
            format!("{{\"ready\":true,\"config\":\"{}\",\"control\":\"{control}\"}}\n", config.display());
        assert_eq!(line, expected);
        self.control = control.to_owned();
    }

    /// The folder that the sandbox was given.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration that it wrote.
    pub(crate) fn config(&self) -> toml::Table {
        std::fs::read_to_string(self.folder().join("pgrotate.toml")).unwrap().parse().unwrap()
    }

    /// A credential that it wrote.
    pub(crate) fn credential(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder().join("credentials.env")).unwrap();
        let variables: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        variables[name].to_owned()
    }

    /// What the control interface answers.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.control)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// The state of everything.
    pub(crate) async fn state(&self) -> Value {
        self.get("/_sandbox/state").await
    }

    /// What the application of an environment's state says of its health.
    pub(crate) async fn health(&self, environment: &Value) -> u16 {
        let url = environment["app"]["url"].as_str().unwrap();
        self.http.get(format!("{url}/api/healthz")).send().await.unwrap().status().as_u16()
    }

    /// Sets a fault, in place of those before.
    pub(crate) async fn fault(&self, fault: Value) {
        self.clear_faults().await;
        assert_eq!(self.try_fault(&fault).await.status(), 200);
    }

    /// Tries to set a fault.
    pub(crate) async fn try_fault(&self, fault: &Value) -> reqwest::Response {
        self.http.post(format!("{}/_sandbox/faults", self.control)).json(fault).send().await.unwrap()
    }

    /// Deletes all faults.
    pub(crate) async fn clear_faults(&self) {
        let answer = self.http.delete(format!("{}/_sandbox/faults", self.control)).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    }

    /// The last request of that kind, as soon as there is one.
    pub(crate) async fn wait_for_request(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let requests = self.get("/_sandbox/requests").await;
            if let Some(request) = requests.as_array().unwrap().iter().rev().find(|request| wanted(request)) {
                return request.clone();
            }
            assert!(Instant::now() < deadline, "no such request");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The scratch folder, as soon as it is named.
    pub(crate) async fn wait_for_scratch(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(scratch) = scratch(self.folder()) {
                return scratch.display().to_string();
            }
            assert!(Instant::now() < deadline, "no scratch folder");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What exists because of this sandbox.
    pub(crate) fn traces(&self) -> Traces {
        let ports = self.config_ports();
        Traces { processes: descendants(self.pid()), ports, scratch: scratch(self.folder()) }
    }

    fn config_ports(&self) -> Vec<u16> {
        let text = std::fs::read_to_string(self.folder().join("pgrotate.toml")).unwrap_or_default();
        let numbers = text.split(|character: char| !character.is_ascii_digit());
        numbers.filter(|digits| digits.len() == 5).filter_map(|digits| digits.parse().ok()).collect()
    }

    /// The id of the started process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal to the started process.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.signal("TERM");
            let _ = self.process.wait();
        }
    }
}

/// What a sandbox brought into the world beside its user's folder.
pub(crate) struct Traces {
    /// Every process below it.
    pub(crate) processes: Vec<u32>,
    ports: Vec<u16>,
    scratch: Option<PathBuf>,
}

impl Traces {
    /// Which of it still exists.
    pub(crate) fn left(&self) -> Vec<String> {
        let processes =
            self.processes.iter().filter(|pid| is_alive(**pid)).map(|pid| format!("process {pid}"));
        let open = |port: &&u16| TcpStream::connect((Ipv4Addr::LOCALHOST, **port)).is_ok();
        let ports = self.ports.iter().filter(open).map(|port| format!("port {port}"));
        let scratch = self.scratch.iter().filter(|folder| folder.exists());
        processes.chain(ports).chain(scratch.map(|folder| folder.display().to_string())).collect()
    }
}

/// Asks until nothing is left or the time is over.
pub(crate) async fn gone_within(time: Duration, left: impl Fn() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + time;
    loop {
        let remaining = left();
        if remaining.is_empty() || Instant::now() > deadline {
            return remaining;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn scratch(folder: &Path) -> Option<PathBuf> {
    let marker = std::fs::read_to_string(folder.join(".pgrotate-sandbox")).ok()?;
    marker.lines().find_map(|line| line.strip_prefix("scratch ")).map(PathBuf::from)
}

/// All processes below one.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some((_, parent)) = stat(child) {
            children.entry(parent).or_default().push(child);
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![pid]);
    while let Some(parent) = open.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        open.extend(&below);
        found.extend(below);
    }
    found
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended; it only waits for its parent to notice.
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Logs the administrator in over TLS, with the sandbox's CA and the server's name checked.
pub(crate) async fn login(
    sandbox: &Sandbox,
    port: u64,
    password: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(sandbox.folder().join("ca.pem")).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth();
    let mut config = admin(port, password);
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Tries to log the administrator in without TLS.
pub(crate) async fn plaintext_login(port: u64, password: &str) -> Result<(), tokio_postgres::Error> {
    let mut config = admin(port, password);
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    config.connect(NoTls).await.map(|_| ())
}

fn admin(port: u64, password: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("localhost").port(port.try_into().unwrap());
    config.user("mindwelladmin").password(password).dbname("mindwell_app");
    config
}

/// A caller of Azure.
pub(crate) struct Azure {
    http: reqwest::Client,
    resource_manager: String,
    vault: String,
    scm: String,
    subscription: String,
    manager_token: String,
    vault_token: String,
}

/// Signs in as the sandbox's service principal.
pub(crate) async fn azure_client(sandbox: &Sandbox) -> Azure {
    let config = sandbox.config();
    let text = |table: &str, key: &str| config[table][key].as_str().unwrap().to_owned();
    let resource_manager = text("azure", "resource_manager");
    let vault_host = format!("kv-mindwell-dev.{}", text("azure", "key_vault_suffix"));
    let (vault_name, port) = vault_host.split_once(':').unwrap();
    let scm_name = "mindwell-dev-api.scm.localhost";
    let ca = std::fs::read(sandbox.folder().join("ca.pem")).unwrap();
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .resolve(vault_name, SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap())))
        .resolve(scm_name, SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap())))
        .build()
        .unwrap();
    let token = async |scope: &str| {
        let sign_in = sandbox.credential("AZURE_AUTHORITY_HOST");
        let tenant = sandbox.credential("AZURE_TENANT_ID");
        let form = [
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", sandbox.credential("AZURE_CLIENT_ID")),
            ("client_secret", sandbox.credential("AZURE_CLIENT_SECRET")),
            ("scope", scope.to_owned()),
        ];
        let answer =
            http.post(format!("{sign_in}/{tenant}/oauth2/v2.0/token")).form(&form).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    };
    Azure {
        manager_token: token("https://management.azure.com/.default").await,
        vault_token: token("https://vault.azure.net/.default").await,
        subscription: config["environments"]["dev"]["subscription"].as_str().unwrap().to_owned(),
        vault: format!("https://{vault_host}"),
        scm: format!("https://{scm_name}:{port}"),
        resource_manager,
        http,
    }
}

impl Azure {
    /// Changes the server's password as pgrotate does, and waits for the operation's end.
    pub(crate) async fn change_password(&self, password: &str) {
        let url = self
            .resource("Microsoft.DBforPostgreSQL/flexibleServers/pgflex-mindwell-dev?api-version=2025-08-01");
        let body = json!({"properties": {"administratorLoginPassword": password}});
        let answer = self.http.patch(url).bearer_auth(&self.manager_token).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let poll = answer.headers()["azure-asyncoperation"].to_str().unwrap().to_owned();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.http.get(&poll).bearer_auth(&self.manager_token).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            match answer["status"].as_str() {
                Some("Succeeded") => return,
                Some("InProgress") => assert!(Instant::now() < deadline, "the operation does not end"),
                _ => panic!("{answer}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The application's settings.
    pub(crate) async fn app_settings(&self) -> Value {
        let url = self
            .resource("Microsoft.Web/sites/mindwell-dev-api/config/appsettings/list?api-version=2025-05-01");
        let answer = self.http.post(url).bearer_auth(&self.manager_token).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["properties"].take()
    }

    /// Replaces the application's settings.
    pub(crate) async fn put_app_settings(&self, settings: &Value) {
        let url =
            self.resource("Microsoft.Web/sites/mindwell-dev-api/config/appsettings?api-version=2025-05-01");
        let body = json!({"properties": settings});
        let answer = self.http.put(url).bearer_auth(&self.manager_token).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// The application's log stream, up to a text in it.
    pub(crate) async fn log_until(&self, wanted: &str) -> String {
        let url = format!("{}/logstream", self.scm);
        let mut answer = self.http.get(url).bearer_auth(&self.manager_token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut text = String::new();
        while !text.contains(wanted) {
            let piece = tokio::time::timeout(Duration::from_secs(10), answer.chunk()).await;
            let piece = piece.unwrap_or_else(|_| panic!("{wanted} is not in the log:\n{text}"));
            text.push_str(&String::from_utf8_lossy(&piece.unwrap().unwrap()));
        }
        text
    }

    fn resource(&self, resource: &str) -> String {
        let (manager, subscription) = (&self.resource_manager, &self.subscription);
        format!("{manager}/subscriptions/{subscription}/resourceGroups/rg-mindwell-dev/providers/{resource}")
    }

    /// Sets a secret of the key vault.
    pub(crate) async fn put_secret(&self, name: &str, value: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("{}/secrets/{name}?api-version=7.6", self.vault);
        self.http.put(url).bearer_auth(&self.vault_token).json(&json!({"value": value})).send().await
    }
}
