//! The runbook as one command.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::canary::Canary;
use crate::lab::Lab;

#[test]
fn dev_staging_and_prod_are_rotated_in_order_and_proven() {
    let lab = Lab::new("dev,staging,prod");
    let environments = ["dev", "staging", "prod"];
    let old = environments.map(|environment| lab.password(environment));
    let before = lab.state();
    let events = lab
        .pgrotate(&[
            "--json",
            "rotate",
            "dev",
            "staging",
            "prod",
            "--ticket",
            "mindwell/ops#12",
            "--operator",
            "ana",
            "--yes",
        ])
        .events(0);

    let mut secrets = old.to_vec();
    for (environment, old) in std::iter::zip(environments, &old) {
        secrets.push(lab.everything_is_new(environment, old));
        let finished: Vec<&Value> = events
            .iter()
            .filter(|event| event["environment"] == environment && event["event"] == "run_finished")
            .collect();
        assert_eq!(finished.len(), 1);
        assert_eq!(finished[0]["outcome"], "done");
    }
    in_order(&events, &environments);
    for event in &events {
        assert!(
            ["ts", "run", "environment", "event"].iter().all(|field| event[field].is_string()),
            "{event}"
        );
    }
    records(&lab, &events);
    nothing_else_changed(&before, &lab.state());

    let status = lab.pgrotate(&["--json", "status"]).events(0);
    assert_eq!(status.len(), 3);
    for (status, environment) in std::iter::zip(&status, environments) {
        states(&lab, status, environment);
    }
    no_leak(&lab, &events, &secrets);
}

/// An environment begins only after the one before is done.
fn in_order(events: &[Value], environments: &[&str]) {
    let order: Vec<&str> = events.iter().map(|event| event["environment"].as_str().unwrap()).collect();
    let mut seen = order.clone();
    seen.dedup();
    assert_eq!(seen, environments);
    let kinds: BTreeSet<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected =
        ["check_passed", "run_finished", "run_started", "sink_published", "step_finished", "step_started"];
    assert_eq!(kinds, BTreeSet::from(expected));
}

/// Changelog, on-call message, ticket: each once, with run and Secret Id, in the right place.
fn records(lab: &Lab, events: &[Value]) {
    let changelog = std::fs::read_to_string(lab.world().join("security-changelog.md")).unwrap();
    let state = lab.state();
    for environment in ["dev", "staging", "prod"] {
        let of_this = |event: &&Value| event["environment"] == environment && event["event"] == "run_started";
        let run = events.iter().find(of_this).unwrap()["run"].as_str().unwrap();
        assert_eq!(changelog.matches(run).count(), 1, "{changelog}");
        assert_eq!(state[environment]["messages"].as_array().unwrap().len(), 1);
        let comments = state[environment]["comments"].as_array().unwrap();
        assert_eq!(comments.len(), 1, "{comments:?}");
        let text = comments[0].to_string();
        assert!(text.contains(run) && text.contains(&format!("kv-mindwell-{environment}")), "{text}");
        let version =
            state[environment]["copies"]["azure_key_vault:database-url"]["version"].as_str().unwrap();
        assert!(text.contains(version) && changelog.contains(version), "the Secret Id is missing");
    }
    assert!(changelog.contains("| ana |") && changelog.contains("mindwell/ops#12"));
}

/// One new version each, and one restart.
fn nothing_else_changed(before: &Value, after: &Value) {
    for environment in ["dev", "staging", "prod"] {
        let copies = |state: &Value, id: &str| state[environment]["copies"][id]["versions"].as_u64().unwrap();
        for id in ["azure_key_vault:database-url", "azure_key_vault:postgres-admin-password"] {
            assert_eq!(copies(after, id), copies(before, id) + 1, "{id} of {environment}");
        }
        let aws = format!("aws_secrets_manager:mindwell/{environment}/postgres/admin-password");
        assert_eq!(copies(after, &aws), copies(before, &aws) + 1);
        let starts = |state: &Value| state[environment]["app"]["starts"].as_u64().unwrap();
        assert_eq!(starts(after), starts(before) + 1, "{environment} was started more than once");
    }
}

/// `status` and the sandbox agree about every copy.
fn states(lab: &Lab, status: &Value, environment: &str) {
    assert_eq!(status["environment"], environment);
    let state = lab.state();
    let known: BTreeSet<&String> = state[environment]["copies"].as_object().unwrap().keys().collect();
    let copies = status["copies"].as_array().unwrap();
    let named: BTreeSet<String> = copies.iter().map(|copy| copy["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(known.into_iter().cloned().collect::<BTreeSet<_>>(), named);
    for copy in copies {
        let id = copy["id"].as_str().unwrap();
        let expected = if id.starts_with("github_actions:") { "unseen" } else { "current" };
        assert_eq!(copy["state"], expected, "{copy}");
    }
    assert_eq!(status["server"]["state"], "current");
}

fn no_leak(lab: &Lab, events: &[Value], secrets: &[String]) {
    let canary = Canary::of(secrets.iter().enumerate().map(|(number, secret)| (number.to_string(), secret)));
    canary.not_in("the output", events.iter().map(Value::to_string).collect::<String>());
    canary.not_under(&lab.state_folder(), &[]);
    canary.not_under(&lab.world().join("logs"), &[]);
    assert!(canary.not_at(&lab.world().join("security-changelog.md")));
    let told = lab.state();
    for environment in ["dev", "staging", "prod"] {
        canary.not_in("a message", told[environment]["messages"].to_string());
        canary.not_in("a comment", told[environment]["comments"].to_string());
    }
}

#[test]
fn a_person_sees_the_plan_the_progress_and_the_result() {
    let lab = Lab::new("dev");
    let plan = lab.pgrotate(&["plan", "dev"]).exits(0);
    assert!(plan.contains("189 bits"), "{plan}");
    let again = lab.pgrotate(&["plan", "dev"]).exits(0);
    let hash = |text: &str| text.lines().find(|line| line.starts_with("plan: ")).unwrap().to_owned();
    assert_eq!(hash(&plan), hash(&again), "the same plan has the same hash");

    let old = lab.password("dev");
    let run = lab.pgrotate(&["rotate", "dev"]);
    let text = run.text();
    let out = run.exits(0);
    assert!(
        out.contains("azure_key_vault:database-url") && out.contains("could not log in for at most"),
        "{text}"
    );
    assert!(text.contains("unseen"), "GitHub's values can't be seen, and that is said: {text}");
    assert!(!text.contains('\u{1b}'), "no colour where there is no terminal");
    lab.everything_is_new("dev", &old);

    let history = lab.pgrotate(&["--json", "history"]).events(0);
    assert_eq!(history[0]["outcome"], "done");
    assert_eq!(history[0]["operator"], "tester");
    let id = history[0]["run"].as_str().unwrap();
    assert!(lab.pgrotate(&["history", id]).exits(0).contains("publish/azure_app_service:DATABASE_URL"));
    assert!(lab.pgrotate(&["resume", id]).text().contains("it is over"));
    let text = lab.pgrotate(&["resume"]).text();
    assert!(text.contains("every run is over"), "{text}");
}

/// PostgreSQL, a file for a vault and a file for a copy: nothing else is needed.
#[test]
fn without_any_cloud_the_same_promises_hold() {
    let lab = Lab::new("dev");
    let (old, port) = (lab.password("dev"), lab.state()["dev"]["postgres"]["port"].clone());
    let ca = lab.world().join("ca.pem");
    let env_file = lab.state_folder().with_file_name("app.env");
    std::fs::write(&env_file, format!("# kept\nPGPASSWORD={old}\n")).unwrap();
    let text = format!(
        r#"project = "small"
[environments]
dev = {{}}
[database]
host = "localhost"
port = {port}
name = "mindwell_app"
user = "mindwelladmin"
tls = {{ ca_file = "{}" }}
[vault]
kind = "local_vault"
path = "{{env}}.age"
identity_file = "identity.txt"
[authority]
kind = "postgres"
[[sinks]]
kind = "env_file"
path = "{}"
key = "PGPASSWORD"
dialect = "shell"
value = "{{password}}"
"#,
        ca.display(),
        env_file.display()
    );
    let config = lab.state_folder().with_file_name("small.toml");
    std::fs::write(&config, text).unwrap();
    let with_password = |password: &str| {
        let mut command = lab.command(&["vault", "dev"]);
        let mut child = command.env("PGROTATE_CONFIG", &config).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
        child.wait().unwrap().code()
    };
    assert_eq!(with_password("not-the-password"), Some(1));
    assert_eq!(with_password(&old), Some(0));
    let small = |arguments: &[&str]| {
        crate::lab::Run(lab.command(arguments).env("PGROTATE_CONFIG", &config).output().unwrap())
    };
    small(&["check", "dev", "--waive", "mindwell*"]).exits(0);
    let out = small(&["rotate", "dev", "--waive", "mindwell*"]).exits(0);
    assert!(!out.contains("could not log in"), "nobody measured that here: {out}");
    small(&["status", "dev"]).exits(0);

    let text = std::fs::read_to_string(&env_file).unwrap();
    let new = text.strip_prefix("# kept\nPGPASSWORD=").unwrap().trim_end();
    let postgres = lab.state()["dev"]["postgres"].clone();
    assert!(new != old && lab.logs_in(&postgres, new) && !lab.logs_in(&postgres, &old));
    let log = std::fs::read_to_string(lab.world().join("logs/postgres-dev.log")).unwrap();
    assert!(
        log.contains("ALTER ROLE") && !log.contains(new),
        "the server's log shows the statement and no password"
    );
    Canary::of([("new", new)]).not_under(&lab.state_folder(), &[]);
}

/// What the list of processes shows to everybody.
pub(crate) fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

#[test]
fn a_second_rotation_is_as_good_as_the_first() {
    let lab = Lab::new("dev");
    for _ in 0..2 {
        let old = lab.password("dev");
        lab.pgrotate(&["rotate", "dev", "--ticket", "OPS-12"]).exits(0);
        lab.everything_is_new("dev", &old);
    }
    let state = lab.state();
    assert_eq!(state["dev"]["messages"].as_array().unwrap().len(), 2);
    assert_eq!(state["dev"]["comments"].as_array().unwrap().len(), 2);
}

#[test]
fn drift_is_seen() {
    let lab = Lab::new("dev");
    lab.set(
        "key_vault",
        "value",
        &serde_json::json!({ "secret": "postgres-admin-password", "value": "SomebodyElse1" }),
    );
    let status = lab.pgrotate(&["--json", "status", "dev"]).events(4);
    let copy = status[0]["copies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|copy| copy["id"] == "azure_key_vault:postgres-admin-password");
    assert_eq!(copy.unwrap()["state"], "stale");
    lab.pgrotate(&["rotate", "dev"]).exits(0);
    let _ = lab.pgrotate(&["status", "dev"]).exits(0);
}
