//! From one environment to the next: only when the one before is proven, and into production only knowingly.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::{Lab, Run};

/// The requests that went to an environment's own systems.
fn requests_of(lab: &Lab, environment: &str) -> usize {
    let own = |request: &&Value| {
        let text = format!("{}{}", request["host"].as_str().unwrap(), request["path"].as_str().unwrap());
        text.contains(&format!("-{environment}"))
    };
    lab.requests().iter().filter(own).count()
}

#[test]
fn the_next_environment_begins_only_when_the_one_before_is_proven() {
    let lab = Lab::new("dev,staging");
    let (dev, staging) = (lab.password("dev"), lab.password("staging"));
    lab.fault(
        &json!({ "method": "PUT", "path_contains": "/secrets/postgres-admin-password", "host_contains": "dev",
        "when": "before", "kind": "status", "status": 403, "times": 10_000 }),
    );
    let before = requests_of(&lab, "staging");
    let run = lab.pgrotate(&["rotate", "dev", "staging"]);
    let text = run.text();
    let _ = run.exits(3);
    assert!(text.contains("not begun: staging"), "{text}");
    assert_eq!(requests_of(&lab, "staging"), before, "somebody has asked staging something");
    assert_eq!(lab.password("staging"), staging);
    lab.clear_faults();
    lab.pgrotate(&["resume"]).exits(0);
    lab.everything_is_new("dev", &dev);
    lab.pgrotate(&["rotate", "staging"]).exits(0);
    lab.everything_is_new("staging", &staging);
}

#[test]
fn what_breaks_during_the_soak_keeps_the_next_environment_from_being_touched() {
    let lab = Lab::new("dev,staging");
    let staging = lab.password("staging");
    let mut child = lab
        .command(&["--json", "rotate", "dev", "staging", "--soak", "3s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let soaks = event["event"] == "step_started" && event["step"] == "soak";
        events.push(event);
        if soaks {
            // Everything was proven; now somebody takes a right away.
            lab.fault(&json!({ "path_contains": "/secrets/postgres-admin-password", "when": "before",
                "kind": "status", "status": 403, "times": 10_000 }));
        }
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let parked: Vec<&Value> = events.iter().filter(|event| event["event"] == "parked").collect();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(parked[0]["sink"], "azure_key_vault:postgres-admin-password");
    assert_eq!(parked[0]["step"], "verify");
    assert!(events.iter().all(|event| event["environment"] == "dev"));
    assert!(lab.state()["dev"]["messages"].as_array().unwrap().is_empty(), "it was told as done");
    assert_eq!(lab.password("staging"), staging);
}

#[test]
fn after_the_soak_everything_is_proven_again() {
    let lab = Lab::new("dev");
    let old = lab.password("dev");
    let began = std::time::Instant::now();
    let events = lab.pgrotate(&["--json", "rotate", "dev", "--soak", "2s"]).events(0);
    assert!(began.elapsed().as_secs() >= 2);
    let passed: Vec<String> = events
        .iter()
        .filter(|event| event["event"] == "check_passed" && event["step"] == "verify")
        .map(|event| format!("{}{}", event["sink"], event["detail"]["subject"]))
        .collect();
    let soak =
        events.iter().position(|event| event["event"] == "step_finished" && event["step"] == "soak").unwrap();
    let after = events[soak..].iter().filter(|event| event["event"] == "check_passed").count();
    assert_eq!(passed.len(), 2 * after, "{passed:?}");
    lab.everything_is_new("dev", &old);
}

/// A call with a script's words on stdin.
fn answered(lab: &Lab, arguments: &[&str], words: &str) -> Run {
    let mut child = lab
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    Run(child.wait_with_output().unwrap())
}

#[test]
fn production_is_rotated_only_by_who_repeats_its_plans_hash() {
    let lab = Lab::new("dev,prod");
    let (dev, prod) = (lab.password("dev"), lab.password("prod"));
    let hash = |arguments: &[&str]| lab.pgrotate(arguments).events(0)[0]["hash"].as_str().unwrap().to_owned();
    let (plain, soaked) =
        (hash(&["--json", "plan", "prod"]), hash(&["--json", "plan", "prod", "--soak", "1s"]));
    assert_ne!(plain, soaked);
    let before = lab.requests().len();
    for words in ["", "yes\n", &soaked] {
        let run = answered(&lab, &["rotate", "dev", "prod"], words);
        let text = run.text();
        let _ = run.exits(1);
        assert!(
            text.contains(&plain) && text.contains("pgrotate plan prod") && text.contains("--yes"),
            "{text}"
        );
    }
    assert_eq!(lab.requests().len(), before, "something has begun without a yes");
    assert_eq!(lab.pgrotate(&["--json", "history"]).events(0), Vec::<Value>::new());
    let _ = answered(&lab, &["rotate", "dev", "prod"], &format!("{}\n", &plain[..12])).exits(0);
    lab.everything_is_new("dev", &dev);
    lab.everything_is_new("prod", &prod);
}
