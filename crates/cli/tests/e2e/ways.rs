//! The other ways in: 1Password by its CLI, an agent by ssh, a service that is restarted.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::canary::Canary;
use crate::lab::{Lab, Run};
use crate::rotation::command_lines;

fn stand_ins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/stand-ins").canonicalize().unwrap()
}

/// Runs the program, and beside its end gives every command line that the machine showed meanwhile.
fn watched(mut command: Command) -> (Run, BTreeSet<String>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.extend(command_lines());
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        let output = command.output().unwrap();
        done.store(true, Ordering::Relaxed);
        (Run(output), watch.join().unwrap())
    })
}

// ---------------------------------------------------------------- 1Password by its CLI

/// An account of 1Password that only the stand-in for the CLI knows.
struct Account(PathBuf);

impl Account {
    fn new(lab: &Lab, password: &str) -> Self {
        let vault = "vvvvvvvvvvvvvvvvvvvvvvvvvv";
        let item = json!({
            "id": "iiiiiiiiiiiiiiiiiiiiiiiiii", "title": "MindWell dev Postgres Admin", "category": "DATABASE",
            "vault": {"id": vault, "name": "MindWell"}, "version": 3, "tags": ["postgres"],
            "created_at": "2025-03-04T09:15:02Z", "updated_at": "2026-08-01T07:42:11Z",
            "sections": [{"id": "s", "label": "Server"}],
            "fields": [
                {"id": "username", "type": "STRING", "label": "username", "value": "mindwelladmin"},
                {"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": password},
                {"id": "f", "section": {"id": "s", "label": "Server"}, "type": "CONCEALED", "label": "PIN", "value": "untouched"},
            ],
        });
        let account = Self(lab.state_folder().with_file_name("account.json"));
        account.write(&json!({
            "key": "k",
            "vaults": [{"id": vault, "name": "MindWell", "access": "write"}],
            "items": [item],
        }));
        account
    }

    fn token(&self) -> String {
        let claims = json!({"state": self.0, "key": "k"}).to_string();
        format!("ops_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims))
    }

    fn write(&self, state: &Value) {
        std::fs::write(&self.0, state.to_string()).unwrap();
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.0).unwrap()).unwrap()
    }

    fn field(&self, label: &str) -> Option<String> {
        let state = self.state();
        let fields = state["items"][0]["fields"].as_array().unwrap();
        let field = fields.iter().find(|field| field["label"] == label)?;
        field["value"].as_str().map(str::to_owned)
    }

    fn has(&self, beginning: &str) -> bool {
        let starts =
            |field: &Value| field["label"].as_str().is_some_and(|label| label.starts_with(beginning));
        self.state()["items"][0]["fields"].as_array().unwrap().iter().any(starts)
    }

    fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.0.with_file_name("account.json.calls")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The program with the CLI on its PATH, and what would lead the CLI astray.
fn with_cli(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command(arguments);
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(stand_ins()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap()).env("OP_CONNECT_HOST", "http://127.0.0.1:1");
    command
}

#[test]
fn a_vault_of_record_that_the_cli_reaches_is_rotated() {
    let lab = Lab::new("dev");
    let old = lab.password("dev");
    let account = Account::new(&lab, &old);
    let text = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), text.replace("[onepassword]\n", "[onepassword]\nvia = \"cli\"\n")).unwrap();
    let credentials = lab.world().join("credentials.env");
    let text = std::fs::read_to_string(&credentials).unwrap();
    std::fs::write(&credentials, format!("{text}OP_SERVICE_ACCOUNT_TOKEN={}\n", account.token())).unwrap();

    let check = Run(with_cli(&lab, &["check", "dev"]).output().unwrap());
    assert!(check.text().contains("whether the service account may write"), "{}", check.text());
    let _ = check.exits(0);
    // The CLI dies after its first write, and nobody hears of it.
    let mut state = account.state();
    state["faults"] = json!([{"command": "item edit", "when": "after", "kind": "kill"}]);
    account.write(&state);

    let (run, seen) = watched(with_cli(&lab, &["rotate", "dev", "--ticket", "OPS-12"]));
    let said = run.text();
    let _ = run.exits(0);
    let new = lab.password("dev");
    assert!(new != old);
    // Not assert_eq: its message would show the values.
    assert!(account.field("password").as_ref() == Some(&new));
    assert!(account.field("pgrotate previous").as_ref() == Some(&old));
    assert_eq!(
        (account.field("PIN").as_deref(), account.has("pgrotate pending")),
        (Some("untouched"), false)
    );
    let world = lab.state()["dev"].clone();
    for (id, copy) in world["copies"].as_object().unwrap() {
        let theirs = copy["value"].as_str().unwrap();
        assert_eq!(theirs.contains(&new), !id.starts_with("onepassword:"), "{id}");
    }
    assert!(lab.logs_in(&world["postgres"], &new) && !lab.logs_in(&world["postgres"], &old));

    let of_connect = |request: &Value| request["system"] == "onepassword";
    assert!(!lab.requests().iter().any(of_connect), "nobody asked the Connect server");
    let calls = account.calls();
    let edits =
        calls.iter().filter(|call| call["stdin"] == true && !call["argv"].to_string().contains("--dry-run"));
    assert_eq!(edits.count(), 2, "one to stage and one to promote");
    assert!(calls.iter().all(|call| call["leak"] == false));
    assert!(seen.iter().any(|line| line.contains("op item edit")), "the watch saw nothing of it");
    let canary = Canary::of([("old", &old), ("new", &new), ("token", &account.token())]);
    canary.not_in("the output", said);
    seen.iter().for_each(|line| canary.not_in("a command line", line));
    canary.not_under(&lab.state_folder(), &[]);
    Run(with_cli(&lab, &["status", "dev"]).output().unwrap()).exits(0);
}

// ---------------------------------------------------------------- an agent by ssh

/// A real sshd on loopback, with keys of its own.
pub(crate) struct Agent {
    sshd: Child,
    pub(crate) folder: PathBuf,
    port: u16,
}

impl Agent {
    pub(crate) fn start(lab: &Lab) -> Self {
        let folder = lab.state_folder().with_file_name("agent");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sshd = Command::new(stand_ins().join("sshd"))
            .arg(&folder)
            .arg(port.to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        lab.wait_for("sshd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { sshd, folder, port }
    }

    /// How it is reached.
    pub(crate) fn there(&self) -> String {
        let folder = self.folder.display();
        format!(
            "host = \"127.0.0.1\"\nssh = {{ port = {}, identity_file = \"{folder}/client_key\", \
             known_hosts_file = \"{folder}/known_hosts\", config_file = \"/dev/null\" }}",
            self.port
        )
    }

    /// A sink, and a consumer that keeps what its file was when the consumer ran.
    fn tables(&self) -> String {
        let (folder, there) = (self.folder.display(), self.there());
        format!(
            r#"
[[sinks]]
kind = "env_file"
name = "agent-1"
path = "{folder}/home/dev.env"
key = "DATABASE_URL"
dialect = "verbatim"
value = "{{database_url}}"
{there}

[[consumers]]
kind = "command"
name = "runner"
command = ["cp", "dev.env", "as the service's.env"]
directory = "{folder}/home"
waits_for = ["env_file:agent-1"]
{there}
"#
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

#[test]
fn an_agent_over_ssh_gets_its_copy_and_then_its_restart() {
    let lab = Lab::new("dev");
    let old = lab.password("dev");
    let agent = Agent::start(&lab);
    let own = std::fs::read_to_string(lab.world().join("agents/dev/.config/mindwell/dev.env")).unwrap();
    let url = own.lines().find(|line| line.starts_with("DATABASE_URL=")).unwrap();
    std::fs::create_dir(agent.folder.join("home")).unwrap();
    let file = agent.folder.join("home/dev.env");
    std::fs::write(&file, format!("PATH=$HOME/'bin'\r\n{url}\r\nLAST=\"1\"")).unwrap();
    let text = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), format!("{text}{}", agent.tables())).unwrap();

    // A host that is not the one that is known gets nothing, and the run does not begin.
    let known = std::fs::read_to_string(agent.folder.join("known_hosts")).unwrap();
    let stranger = std::fs::read_to_string(agent.folder.join("stranger_key.pub")).unwrap();
    let forged = format!("[127.0.0.1]:{} {stranger}", agent.port);
    std::fs::write(agent.folder.join("known_hosts"), forged).unwrap();
    let refused = lab.pgrotate(&["rotate", "dev"]);
    assert!(refused.text().contains("another host key"), "{}", refused.text());
    let _ = refused.exits(1);
    assert!(lab.password("dev") == old);
    std::fs::write(agent.folder.join("known_hosts"), known).unwrap();

    let (run, seen) = watched(lab.command(&["--json", "rotate", "dev", "--ticket", "OPS-12"]));
    let events = run.events(0);
    let new = lab.everything_is_new("dev", &old);
    let after = std::fs::read_to_string(&file).unwrap();
    let expected = format!("PATH=$HOME/'bin'\r\n{}\r\nLAST=\"1\"", url.replace(&old, &new));
    assert!(after == expected, "one value has changed, and nothing else");
    let taken_up = std::fs::read_to_string(agent.folder.join("home/as the service's.env")).unwrap();
    assert!(taken_up == after, "the restart came before the copy");
    assert_eq!(std::fs::read_dir(agent.folder.join("home")).unwrap().count(), 2);
    let finished = |step: &str, of: &str| {
        events.iter().any(|event| {
            let subject = event.get("sink").unwrap_or(&event["detail"]["subject"]);
            event["event"] == "step_finished" && event["step"] == step && subject == of
        })
    };
    assert!(finished("publish", "env_file:agent-1") && finished("activate", "command:runner"));

    assert!(seen.iter().any(|line| line.contains("dd bs=1 count=")), "the watch saw nothing of it");
    let output: String = events.iter().map(Value::to_string).collect();
    let canary = Canary::of([("old", &old), ("new", &new)]);
    canary.not_in("the output", output);
    seen.iter().for_each(|line| canary.not_in("a command line", line));
    canary.not_under(&lab.state_folder(), &[]);
    let status = lab.pgrotate(&["--json", "status", "dev"]).events(0);
    let copies = status[0]["copies"].as_array().unwrap();
    let copy = copies.iter().find(|copy| copy["id"] == "env_file:agent-1").unwrap();
    assert_eq!(copy["state"], "current");
}
