//! A sandbox and the program, as a person at a shell has them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A started sandbox with a state folder for the program; all of it goes with the test.
pub(crate) struct Lab {
    sandbox: Child,
    control: String,
    folder: TempDir,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// Starts a sandbox of these environments and waits until it is ready.
    pub(crate) fn new(environments: &str) -> Self {
        Self::with(environments, &[])
    }

    /// The same, and it keeps whole requests and answers.
    pub(crate) fn recording(environments: &str) -> Self {
        Self::with(environments, &["--record-bodies"])
    }

    /// The same, and its first passwords are such as a URL has to encode. It keeps whole requests.
    pub(crate) fn with_base64_passwords(environments: &str) -> Self {
        Self::with(environments, &["--base64-passwords", "--record-bodies"])
    }

    fn with(environments: &str, flags: &[&str]) -> Self {
        let program = assert_cmd::cargo::cargo_bin!("pgrotate").with_file_name("pgrotate-sandbox");
        assert!(program.exists(), "build the whole workspace first: cargo build --workspace");
        let folder = tempfile::tempdir().unwrap();
        let mut sandbox = Command::new(program)
            .args(["up", "--env", environments, "--dir"])
            .arg(folder.path().join("world"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(sandbox.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(
            !line.is_empty(),
            "the sandbox did not start; its reason is on stderr (`make setup` installs what it needs)"
        );
        let ready: Value = serde_json::from_str(&line).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            sandbox,
            control: ready["control"].as_str().unwrap().to_owned(),
            folder,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            runtime,
        }
    }

    /// The sandbox's process.
    pub(crate) fn sandbox(&self) -> u32 {
        self.sandbox.id()
    }

    /// Where the sandbox keeps its world.
    pub(crate) fn world(&self) -> PathBuf {
        self.folder.path().join("world")
    }

    /// The configuration of the sandbox.
    pub(crate) fn config(&self) -> PathBuf {
        self.world().join("pgrotate.toml")
    }

    /// The same without the check by a command, which asks nobody for anything and takes most of the program's time.
    pub(crate) fn without_alembic(self) -> Self {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let tables: Vec<&str> = text.split("\n[[").collect();
        let kept: Vec<&str> =
            tables.iter().copied().filter(|table| !table.contains("kind = \"command\"")).collect();
        assert_eq!(kept.len() + 1, tables.len(), "{text}");
        std::fs::write(self.config(), kept.join("\n[[")).unwrap();
        self
    }

    /// Adds tables to the configuration.
    pub(crate) fn append(&self, tables: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), format!("{text}\n{tables}")).unwrap();
    }

    /// The program's state folder.
    pub(crate) fn state_folder(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The program with nothing in its environment that a machine happens to have.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pgrotate"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("USER", "tester")
            .env("PGROTATE_STATE_DIR", self.state_folder())
            .env("PGROTATE_CONFIG", self.config())
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn pgrotate(&self, arguments: &[&str]) -> Run {
        Run(self.command(arguments).output().unwrap())
    }

    /// What the control interface answers.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.runtime.block_on(async {
            let answer = self.http.get(format!("{}{path}", self.control)).send().await.unwrap();
            answer.json().await.unwrap()
        })
    }

    /// Everything that the sandbox holds, by environment.
    pub(crate) fn state(&self) -> Value {
        self.get("/_sandbox/state")
    }

    fn post(&self, path: &str, body: &Value) {
        self.runtime.block_on(async {
            let answer = self.http.post(format!("{}{path}", self.control)).json(body).send().await.unwrap();
            let status = answer.status();
            assert!(status.is_success(), "{path} {body}: {status}: {}", answer.text().await.unwrap());
        });
    }

    /// Puts a vendor into a bad state.
    pub(crate) fn set(&self, system: &str, what: &str, value: &Value) {
        self.post(
            "/_sandbox/set",
            &json!({ "system": system, "environment": "dev", "what": what, "value": value }),
        );
    }

    /// Sets a fault.
    pub(crate) fn fault(&self, fault: &Value) {
        self.post("/_sandbox/faults", fault);
    }

    /// Takes the faults away; requests that are held go on.
    pub(crate) fn clear_faults(&self) {
        self.runtime.block_on(async {
            self.http.delete(format!("{}/_sandbox/faults", self.control)).send().await.unwrap();
        });
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests_after(0)
    }

    /// The requests that came after the one with this number.
    pub(crate) fn requests_after(&self, seq: u64) -> Vec<Value> {
        let requests = self.get(&format!("/_sandbox/requests?after={seq}"));
        requests.as_array().unwrap().clone()
    }

    /// The same as they were sent, each with its answer; the sandbox has to be [recording](Self::recording).
    pub(crate) fn recording_after(&self, seq: u64) -> Vec<Value> {
        let requests = self.get(&format!("/_sandbox/recording?after={seq}"));
        requests.as_array().unwrap().clone()
    }

    /// The number of the last request.
    pub(crate) fn last_request(&self) -> u64 {
        self.requests().last().map_or(0, |request| request["seq"].as_u64().unwrap())
    }

    /// Whether the server lets the role in with this password, asked of PostgreSQL's own client.
    pub(crate) fn logs_in(&self, postgres: &Value, password: &str) -> bool {
        let target = format!(
            "host=127.0.0.1 port={} user={} dbname={} sslmode=require",
            postgres["port"],
            postgres["user"].as_str().unwrap(),
            postgres["database"].as_str().unwrap()
        );
        let output = Command::new("psql")
            .args([&target, "-Atc", "select 1"])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        output.status.success()
    }

    /// The status of the application's health check, which opens a fresh connection.
    pub(crate) fn health(&self, environment: &Value) -> u16 {
        let url = format!("{}/api/healthz", environment["app"]["url"].as_str().unwrap());
        self.runtime.block_on(async { self.http.get(url).send().await.unwrap().status().as_u16() })
    }

    /// Whether the application of an environment is up, and the server lets it in.
    pub(crate) fn is_healthy(&self, environment: &str) -> bool {
        let url = format!("{}/api/healthz", self.state()[environment]["app"]["url"].as_str().unwrap());
        self.runtime.block_on(async {
            let answer = self.http.get(url).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
    }

    /// Every copy and the server hold one password, which is not the one before; gives it.
    pub(crate) fn everything_is_new(&self, environment: &str, old: &str) -> String {
        let state = self.state()[environment].clone();
        let password = state["postgres"]["password"].as_str().unwrap().to_owned();
        assert_ne!(password, old);
        assert_eq!(password.len(), 32);
        for (id, copy) in state["copies"].as_object().unwrap() {
            let value = copy["value"].as_str().unwrap();
            let holds = value == password || value.contains(&format!(":{password}@"));
            assert!(holds, "{id} does not hold the new password");
            assert!(!value.contains(old), "{id} holds the old one");
        }
        assert!(self.logs_in(&state["postgres"], &password) && !self.logs_in(&state["postgres"], old));
        assert_eq!(self.health(&state), 200, "the application can't open a new connection");
        password
    }

    /// The password that the server of an environment takes now.
    pub(crate) fn password(&self, environment: &str) -> String {
        self.state()[environment]["postgres"]["password"].as_str().unwrap().to_owned()
    }

    /// How many versions each copy has.
    pub(crate) fn versions(&self, environment: &str) -> BTreeMap<String, u64> {
        let state = self.state();
        let copies = state[environment]["copies"].as_object().unwrap();
        copies.iter().map(|(id, copy)| (id.clone(), copy["versions"].as_u64().unwrap())).collect()
    }

    /// Waits until something is so.
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The sandbox takes everything it started with it when it is asked in order.
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.sandbox.id()).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.sandbox.wait();
    }
}

/// A finished call of the program.
#[must_use]
pub(crate) struct Run(pub(crate) Output);

impl Run {
    /// Both streams, for searching.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", String::from_utf8_lossy(&self.0.stdout), String::from_utf8_lossy(&self.0.stderr))
    }

    /// Expects an exit status; gives stdout.
    #[track_caller]
    pub(crate) fn exits(self, status: i32) -> String {
        assert_eq!(self.0.status.code(), Some(status), "{}", self.text());
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// Expects an exit status; gives the JSON lines of stdout.
    #[track_caller]
    pub(crate) fn events(self, status: i32) -> Vec<Value> {
        self.exits(status).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
