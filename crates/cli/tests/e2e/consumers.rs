//! Who is logged in: strangers stop a run, and a consumer is proven by a session from after the change alone. Systems
//! that are others than before, or shared by two environments. The login seen from another machine.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::ways::Agent;

/// A client that logs in and stays, as a pool does.
pub(crate) struct Client(Child);

impl Client {
    fn log_in(lab: &Lab, environment: &str, name: &str) -> Self {
        let postgres = lab.state()[environment]["postgres"].clone();
        let login = (postgres["user"].as_str().unwrap(), postgres["password"].as_str().unwrap());
        Self::begin(&postgres, login, name, lab, || sessions(lab, environment).iter().any(|own| own == name))
    }

    /// As another role of `dev`; `is_in` tells whether it has come in.
    pub(crate) fn log_in_as(lab: &Lab, login: (&str, &str), name: &str, is_in: impl Fn() -> bool) -> Self {
        Self::begin(&lab.state()["dev"]["postgres"], login, name, lab, is_in)
    }

    fn begin(
        postgres: &Value,
        (user, password): (&str, &str),
        name: &str,
        lab: &Lab,
        is_in: impl Fn() -> bool,
    ) -> Self {
        let target = format!(
            "host=127.0.0.1 port={} user={user} dbname={} sslmode=require application_name={name}",
            postgres["port"],
            postgres["database"].as_str().unwrap()
        );
        let mut psql = Command::new("psql")
            .args([&target, "-AtX"])
            .env("PGPASSWORD", password)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        psql.stdin.as_mut().unwrap().write_all(b"select 1;\n").unwrap();
        let client = Self(psql);
        lab.wait_for("a client to log in", is_in);
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The names of those who are logged in.
fn sessions(lab: &Lab, environment: &str) -> Vec<String> {
    let shown = lab.pgrotate(&["--json", "consumers", environment]);
    let shown: Value = serde_json::from_slice(&shown.0.stdout).unwrap();
    let name = |group: &Value| group["origin"].as_str().unwrap().rsplit_once('@').unwrap().0.to_owned();
    shown["sessions"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_second_application_that_nobody_declared_stops_the_run_and_is_named() {
    let lab = Lab::new("dev").without_alembic();
    let old = lab.password("dev");
    assert_eq!(sessions(&lab, "dev"), ["mindwell-api"]);
    lab.pgrotate(&["consumers", "dev"]).exits(0);
    let stranger = Client::log_in(&lab, "dev", "nightly-report");
    let before = lab.versions("dev");

    let shown = lab.pgrotate(&["consumers", "dev"]).exits(1);
    assert!(shown.contains("nightly-report@127.0.0.1  not declared"), "{shown}");
    assert!(
        shown.contains("sessions = { application_name = \"nightly-report\", addresses = [\"127.0.0.1\"] }")
    );
    let checked = lab.pgrotate(&["--json", "check", "dev"]).events(1);
    let named = json!("nightly-report@127.0.0.1");
    let findings = checked[0]["detail"]["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["subject"] == named).unwrap();
    assert_eq!(found["severity"], "blocks", "{found}");
    let run = lab.pgrotate(&["rotate", "dev"]);
    assert!(run.text().contains("nightly-report@127.0.0.1"), "{}", run.text());
    let _ = run.exits(1);
    assert_eq!((lab.versions("dev"), lab.password("dev")), (before, old.clone()), "something has changed");

    // Waived by name, it is named all the same.
    let run = lab.pgrotate(&["rotate", "dev", "--waive", "nightly-report"]);
    assert!(run.text().contains("nightly-report@127.0.0.1"), "{}", run.text());
    let _ = run.exits(0);
    lab.everything_is_new("dev", &old);
    drop(stranger);
}

#[test]
fn a_pool_that_keeps_its_old_sessions_is_unproven_until_it_logs_in_again() {
    let lab = Lab::new("dev").without_alembic();
    let old = lab.password("dev");
    lab.append(
        "[[consumers]]\nkind = \"unmanaged\"\nname = \"pool\"\nsessions = { application_name = \"pool\" }\n\
         [census]\nadoption = \"4s\"\n",
    );
    let pool = Client::log_in(&lab, "dev", "pool");
    let run = lab.pgrotate(&["rotate", "dev"]);
    let text = run.text();
    let _ = run.exits(3);
    assert!(
        text.contains("it goes on with what logged in before the change: pool@127.0.0.1 (pid "),
        "{text}"
    );
    lab.everything_is_new("dev", &old);
    let again = lab.pgrotate(&["resume"]);
    let _ = again.exits(3);

    drop(pool);
    let _pool = Client::log_in(&lab, "dev", "pool");
    let events = lab.pgrotate(&["--json", "resume"]).events(0);
    let proof = events.iter().find(|event| {
        event["detail"]["subject"] == "sessions of unmanaged:pool" && event["event"] == "check_passed"
    });
    assert!(proof.unwrap().to_string().contains("logged in with the new password at"), "{proof:?}");
}

#[test]
fn old_sessions_are_ended_where_the_configuration_says_so() {
    let lab = Lab::new("dev").without_alembic();
    lab.append(
        "[[consumers]]\nkind = \"unmanaged\"\nname = \"pool\"\n\
         sessions = { application_name = \"pool\", optional = true, reconnect = \"terminate\" }\n",
    );
    let _pool = Client::log_in(&lab, "dev", "pool");
    lab.pgrotate(&["rotate", "dev"]).exits(0);
    assert!(!sessions(&lab, "dev").contains(&"pool".to_owned()), "the server has ended it");
}

#[test]
fn a_consumer_that_never_appears_is_named_before_and_after() {
    let lab = Lab::new("dev").without_alembic();
    lab.append(
        "[[consumers]]\nkind = \"unmanaged\"\nname = \"ghost\"\nsessions = { application_name = \"ghost\" }\n\
         [census]\nadoption = \"2s\"\n",
    );
    let checked = lab.pgrotate(&["check", "dev"]).exits(0);
    assert!(checked.contains("unmanaged:ghost: it is declared, and no session of it was seen"), "{checked}");
    let run = lab.pgrotate(&["rotate", "dev"]);
    assert!(run.text().contains("no session of it appeared within 2 s"), "{}", run.text());
    let _ = run.exits(3);
}

/// The same server under another name: what a run has proven is another text now.
#[test]
fn a_system_that_is_another_than_before_is_refused_with_both_identities() {
    let lab = Lab::new("dev").without_alembic();
    lab.pgrotate(&["rotate", "dev"]).exits(0);
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let moved = text.replacen("host = \"localhost\"", "host = \"db.localhost\"", 1);
    assert_ne!(text, moved);
    std::fs::write(lab.config(), moved).unwrap();
    let before = lab.versions("dev");
    for command in ["check", "rotate"] {
        let run = lab.pgrotate(&[command, "dev"]);
        let text = run.text();
        let _ = run.exits(1);
        assert!(text.contains("it is mindwelladmin@db.localhost:"), "{text}");
        assert!(text.contains("proved mindwelladmin@localhost:"), "{text}");
    }
    assert_eq!(lab.versions("dev"), before);
    let meant = lab.pgrotate(&["check", "dev", "--moved", "the server has a new name"]).text();
    assert!(meant.contains("taken for right, because: the server has a new name"), "{meant}");
}

/// dev's configuration is made to point at staging's server.
#[test]
fn another_environments_server_is_refused() {
    let lab = Lab::new("dev,staging").without_alembic();
    lab.pgrotate(&["rotate", "dev", "staging"]).exits(0);
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let ports = ["dev", "staging"].map(|name| lab.state()[name]["postgres"]["port"].to_string());
    let crossed = text.replace(&ports[0], "PORT").replace(&ports[1], &ports[0]).replace("PORT", &ports[1]);
    std::fs::write(lab.config(), crossed).unwrap();
    let before = (lab.versions("dev"), lab.versions("staging"));
    let run = lab.pgrotate(&["rotate", "dev"]);
    let said = run.text();
    let _ = run.exits(1);
    let (now, then) = (format!("localhost:{}", ports[1]), format!("localhost:{}", ports[0]));
    assert!(said.contains(&now) && said.contains(&then) && said.contains("proved"), "{said}");
    assert_eq!((lab.versions("dev"), lab.versions("staging")), before, "something has changed");
}

#[test]
fn production_waits_for_a_success_in_staging_or_a_reason() {
    let lab = Lab::new("staging,prod").without_alembic();
    let run = lab.pgrotate(&["rotate", "prod", "--yes"]);
    assert!(
        run.text().contains("staging comes first, and no run of it has succeeded here"),
        "{}",
        run.text()
    );
    let _ = run.exits(1);
    lab.pgrotate(&["check", "prod"]).exits(1);
    let empty = lab.pgrotate(&["rotate", "prod", "--yes", "--without-proof", " "]);
    let _ = empty.exits(2);
    lab.pgrotate(&["rotate", "staging"]).exits(0);
    lab.pgrotate(&["check", "prod"]).exits(0);
    lab.pgrotate(&["rotate", "prod", "--yes"]).exits(0);
}

#[test]
fn the_old_password_is_refused_from_another_machine_too() {
    let lab = Lab::new("dev").without_alembic();
    let agent = Agent::start(&lab);
    let old = lab.password("dev");
    lab.append(&format!("[[vantages]]\nkind = \"ssh\"\nname = \"agent-1\"\n{}\n", agent.there()));
    let events = lab.pgrotate(&["--json", "rotate", "dev"]).events(0);
    let proof = events
        .iter()
        .find(|event| event["detail"]["subject"] == "login from agent-1" && event["event"] == "check_passed");
    assert!(proof.unwrap().to_string().contains("the old one is refused"), "{proof:?}");
    let new = lab.everything_is_new("dev", &old);

    // Nobody takes connections there any more: found before anything changes.
    drop(agent);
    for command in ["check", "rotate"] {
        let run = lab.pgrotate(&[command, "dev"]);
        let text = run.text();
        let _ = run.exits(1);
        assert!(
            text.contains("agent-1") && text.contains("nobody takes ssh connections at 127.0.0.1"),
            "{text}"
        );
    }
    assert_eq!(lab.password("dev"), new);
}

#[test]
fn a_copy_that_has_drifted_is_put_right_alone() {
    let lab = Lab::new("dev").without_alembic();
    lab.pgrotate(&["rotate", "dev"]).exits(0);
    let (password, before) = (lab.password("dev"), lab.versions("dev"));
    let file = lab.world().join("agents/dev/.config/mindwell/dev.env");
    let text = std::fs::read_to_string(&file).unwrap();
    // The right password and the wrong host.
    std::fs::write(&file, text.replace("@localhost", "@elsewhere.example")).unwrap();
    let shown = lab.pgrotate(&["status", "dev"]).exits(4);
    assert!(shown.contains("elsewhere.example") && shown.contains("pgrotate repair dev"), "{shown}");
    let plan = lab.pgrotate(&["repair", "dev", "--plan"]).exits(0);
    assert!(plan.contains("publish  env_file:dev.env") || plan.contains("env_file:dev.env"), "{plan}");
    lab.pgrotate(&["repair", "dev"]).exits(0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "all of it is as it was");
    assert_eq!(lab.password("dev"), password);
    let after = lab.versions("dev");
    let touched: Vec<_> =
        after.iter().filter(|(id, versions)| before[*id] != **versions).map(|own| own.0).collect();
    assert!(touched.iter().all(|id| *id == "env_file:dev.env"), "{touched:?}");
    lab.pgrotate(&["status", "dev"]).exits(0);
    let nothing = lab.pgrotate(&["repair", "dev"]).exits(0);
    assert!(nothing.contains("no copy is seen to have drifted"), "{nothing}");

    // What can't be seen is written where somebody names it, and told who wrote it last.
    lab.pgrotate(&["repair", "dev", "github_actions:DEV_DATABASE_URL"]).exits(0);
    let events = lab.pgrotate(&["--json", "status", "dev"]).events(0);
    let copies = events[0]["copies"].as_array().unwrap();
    let unseen = copies.iter().find(|copy| copy["id"] == "github_actions:DEV_DATABASE_URL").unwrap();
    assert!(unseen["changed_by"]["run"].is_string() && unseen["state"] == "unseen", "{unseen}");
    let unknown = lab.pgrotate(&["repair", "dev", "github_actions:DEV_DATABASE_URI"]);
    assert!(unknown.text().contains("did you mean github_actions:DEV_DATABASE_URL?"), "{}", unknown.text());
    let _ = unknown.exits(2);
}

#[test]
fn who_watches_sees_a_drift_when_it_comes_and_is_told_when_it_stops() {
    let lab = Lab::new("dev").without_alembic();
    let mut watch = lab
        .command(&["--json", "status", "dev", "--watch", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut state = |id: &str| {
        let status: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let copies = status["copies"].as_array().unwrap();
        copies.iter().find(|copy| copy["id"] == id).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("env_file:dev.env"), "current");
    let file = lab.world().join("agents/dev/.config/mindwell/dev.env");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("@localhost", "@elsewhere.example")).unwrap();
    assert!((0..30).any(|_| state("env_file:dev.env") == "stale"), "it does not look again");
    let id = rustix::process::Pid::from_raw(i32::try_from(watch.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(4), "the last look's status");
}
