//! The way back: a forward run to the password from before.

use serde_json::Value;

use crate::lab::Lab;

/// Rotates, and gives the run.
fn rotate(lab: &Lab) -> String {
    let events = lab.pgrotate(&["--json", "rotate", "dev"]).events(0);
    events.last().unwrap()["run"].as_str().unwrap().to_owned()
}

#[test]
fn the_last_rotation_is_taken_back_with_every_proof() {
    let lab = Lab::new("dev");
    rotate(&lab);
    let first = lab.password("dev");
    let run = rotate(&lab);
    let second = lab.password("dev");

    // Looking changes nothing, and shows the hash that prod would be asked for.
    let plan = lab.pgrotate(&["rollback", &run, "--plan"]).exits(0);
    assert!(plan.contains(&format!("the one from before the run {run}")), "{plan}");
    assert_eq!(lab.password("dev"), second);

    let events = lab.pgrotate(&["--json", "rollback", &run, "--ticket", "OPS-7"]).events(0);
    let finished: Vec<&Value> = events.iter().filter(|event| event["event"] == "run_finished").collect();
    assert_eq!((finished.len(), &finished[0]["outcome"]), (1, &Value::from("done")));
    let proofs = events.iter().filter(|event| {
        event["event"] == "check_passed" && event["step"].as_str().unwrap().starts_with("verify")
    });
    assert!(proofs.count() > 10, "a way back is proven like any other run");
    assert_eq!(lab.everything_is_new("dev", &second), first);
    lab.pgrotate(&["status", "dev"]).exits(0);

    // People are told what happened, and not that there was a rotation.
    let state = lab.state();
    let comment = state["dev"]["comments"].as_array().unwrap().last().unwrap().to_string();
    assert!(comment.contains(&run), "{comment}");
    let back = events[0]["run"].as_str().unwrap();
    let story = lab.pgrotate(&["history", back]).exits(0);
    assert!(story.contains(&format!("takes back {run}")), "{story}");
    for text in [plan, story, format!("{events:?}")] {
        assert!(!text.contains(&first) && !text.contains(&second), "a password is shown");
    }

    // What is current already, and what the vault no longer holds, can't be brought back: said before anything changes.
    let again = lab.pgrotate(&["rollback", &run]);
    assert!(again.text().contains("as the current one already"), "{}", again.text());
    let _ = again.exits(1);
    rotate(&lab);
    rotate(&lab);
    let gone = lab.pgrotate(&["rollback", &run]);
    assert!(gone.text().contains("does not hold it any more"), "{}", gone.text());
    let _ = gone.exits(1);
    let unknown = lab.pgrotate(&["rollback", "01JZ7000000000000000000000"]);
    assert!(unknown.text().contains("no such run"), "{}", unknown.text());
}

#[test]
fn a_parked_run_is_taken_back_and_says_so() {
    let lab = Lab::new("dev");
    rotate(&lab);
    let before = lab.password("dev");
    lab.fault(&serde_json::json!({ "method": "PUT", "path_contains": "/actions/secrets/", "when": "before",
        "kind": "status", "status": 403, "times": 100 }));
    let events = lab.pgrotate(&["--json", "rotate", "dev"]).events(3);
    let parked = events[0]["run"].as_str().unwrap();
    let half = lab.password("dev");
    assert_ne!(half, before);
    lab.clear_faults();

    lab.pgrotate(&["rollback", parked]).exits(0);
    assert_eq!(lab.everything_is_new("dev", &half), before);
    let resumed = lab.pgrotate(&["resume", parked]);
    assert!(resumed.text().contains("has taken it back"), "{}", resumed.text());
    let _ = resumed.exits(3);
    let history = lab.pgrotate(&["history"]).exits(0);
    assert!(history.contains("parked, taken back"), "{history}");
    // The environment is free for the next one.
    rotate(&lab);
    lab.everything_is_new("dev", &before);
}
