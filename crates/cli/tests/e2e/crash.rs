//! The process dies in the middle; the next one finishes.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lab::Lab;

/// Starts a rotation, holds it at the first request that fits, kills it with SIGKILL there.
pub(crate) fn kill_at(lab: &Lab, fault: &Value) {
    lab.fault(fault);
    let mut process = lab
        .command(&["rotate", "dev", "--ticket", "OPS-7"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    lab.wait_for("a request that is held", || {
        lab.requests().iter().any(|request| request["fault"] == "hold")
    });
    process.kill().unwrap();
    process.wait().unwrap();
    lab.clear_faults();
}

/// Stores that keep every version got one.
pub(crate) fn one_new_version(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for id in ["azure_key_vault:database-url", "azure_key_vault:postgres-admin-password"] {
        assert_eq!(after[id], before[id] + 1, "{id}");
    }
    let aws = "aws_secrets_manager:mindwell/dev/postgres/admin-password";
    assert_eq!(after[aws], before[aws] + 1);
}

#[test]
fn killed_in_the_middle_of_publish_it_is_finished_by_resume() {
    for when in ["before", "after"] {
        let lab = Lab::new("dev");
        let (old, before) = (lab.password("dev"), lab.versions("dev"));
        let request = json!({ "method": "PUT", "path_contains": "/secrets/database-url", "when": when, "kind": "hold" });
        kill_at(&lab, &request);

        let refused = lab.pgrotate(&["rotate", "dev"]);
        assert!(refused.text().contains("is not over"), "{}", refused.text());
        let aborted = lab.pgrotate(&["abort"]);
        assert!(aborted.text().contains("point of no return"), "{}", aborted.text());
        let _ = aborted.exits(3);

        lab.pgrotate(&["resume"]).exits(0);
        lab.everything_is_new("dev", &old);
        one_new_version(&before, &lab.versions("dev"));
        let state = lab.state();
        assert_eq!(state["dev"]["messages"].as_array().unwrap().len(), 1);
        assert_eq!(state["dev"]["comments"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn killed_after_the_server_may_know_nobody_is_locked_out() {
    for when in ["before", "after"] {
        let lab = Lab::new("dev");
        let old = lab.password("dev");
        let request =
            json!({ "method": "PATCH", "path_contains": "flexibleServers", "when": when, "kind": "hold" });
        kill_at(&lab, &request);
        let state = lab.pgrotate(&["--json", "status", "dev"]);
        let server = state.text();
        assert!(
            server.contains(r#""state":"current""#) || server.contains(r#""state":"pending""#),
            "{server}"
        );
        lab.pgrotate(&["resume"]).exits(0);
        lab.everything_is_new("dev", &old);
    }
}

#[test]
fn killed_before_the_server_knows_it_can_be_called_off() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), lab.state());
    kill_at(
        &lab,
        &json!({ "method": "PATCH", "path_contains": "/items/", "nth": 2, "when": "after", "kind": "hold" }),
    );
    lab.pgrotate(&["abort"]).exits(0);
    assert_eq!(lab.password("dev"), old);
    let after = lab.state();
    for (id, copy) in before["dev"]["copies"].as_object().unwrap() {
        assert_eq!(copy["value"], after["dev"]["copies"][id]["value"], "{id}");
    }
    lab.pgrotate(&["rotate", "dev"]).exits(0);
    lab.everything_is_new("dev", &old);
}

#[test]
fn a_sink_that_refuses_is_parked_by_name_and_the_rest_is_done() {
    let lab = Lab::new("dev");
    let old = lab.password("dev");
    lab.fault(
        &json!({ "method": "PUT", "path_contains": "/actions/secrets/DEV_DATABASE_URL", "when": "before",
        "kind": "status", "status": 403, "times": 100 }),
    );
    let events = lab.pgrotate(&["--json", "rotate", "dev"]).events(3);
    let parked: Vec<&Value> = events.iter().filter(|event| event["event"] == "parked").collect();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!(parked[0]["sink"], "github_actions:DEV_DATABASE_URL");
    let state = lab.state();
    let new = state["dev"]["postgres"]["password"].as_str().unwrap();
    assert_ne!(new, old);
    assert_eq!(lab.health(&state["dev"]), 200, "the application waits for nobody else");
    for id in ["github_actions:DEV_POSTGRES_ADMIN_PASSWORD", "azure_key_vault:postgres-admin-password"] {
        assert_eq!(state["dev"]["copies"][id]["value"], new, "{id}");
    }
    assert!(state["dev"]["messages"].as_array().unwrap().is_empty(), "nobody is told that it is done");

    lab.clear_faults();
    lab.pgrotate(&["resume"]).exits(0);
    lab.everything_is_new("dev", &old);
}

/// Every write that would do something a second time if it were sent again.
#[test]
fn lost_answers_are_looked_into_and_not_repeated() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), lab.versions("dev"));
    let starts = |lab: &Lab| lab.state()["dev"]["app"]["starts"].as_u64().unwrap();
    let started = starts(&lab);
    // Of the changes of the item the first is check's, which changes nothing; then stage and promote.
    for (method, path, nth) in [
        ("PATCH", "/items/", 2),
        ("PATCH", "flexibleServers", 1),
        ("PATCH", "/items/", 3),
        ("PUT", "/secrets/database-url", 1),
        ("PUT", "config/appsettings", 1),
        ("PUT", "/actions/secrets/DEV_DATABASE_URL", 1),
        ("POST", "PutSecretValue", 1),
        ("POST", "/restart", 1),
        ("POST", "/services/", 1),
        ("POST", "/comment", 1),
    ] {
        lab.fault(
            &json!({ "method": method, "path_contains": path, "nth": nth, "when": "after", "kind": "drop" }),
        );
    }
    let run = lab.pgrotate(&["rotate", "dev", "--ticket", "OPS-7"]);
    let text = run.text();
    run.exits(0);
    lab.everything_is_new("dev", &old);
    let (after, state) = (lab.versions("dev"), lab.state());
    one_new_version(&before, &after);
    let vault = "onepassword:MindWell dev Postgres Admin";
    assert_eq!(after[vault], before[vault] + 2, "staged and promoted");
    assert_eq!(starts(&lab), started + 1, "the application was started more than once");
    for told in ["messages", "comments"] {
        assert_eq!(state["dev"][told].as_array().unwrap().len(), 1, "{told}");
    }
    assert!(text.contains("unseen  record/on-call"), "whether the message was posted can't be seen: {text}");
    let dropped = lab.requests().into_iter().filter(|request| request["fault"] == "drop").count();
    assert_eq!(dropped, 10, "a fault met nothing");
    let patches = lab.requests().into_iter().filter(|request| {
        request["method"] == "PATCH" && request["path"].as_str().unwrap().contains("flexibleServers")
    });
    assert_eq!(patches.count(), 1, "the server was asked to change a second time, while nobody could log in");
}
