//! A process that is stopped for longer than its lease holds, while others carry its run to the end.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::requests::Request;

/// How long a lease holds, and a little: `lease::TERM` of the core.
const LEASE: Duration = Duration::from_secs(61);

/// A process that does not outlive its test, however that ends: a stopped one would stay for ever.
struct Sleeper(Child);

impl Sleeper {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap(), signal).unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Goes on with the run as soon as the lease can be had.
fn take_over(lab: &Lab, asleep_since: Instant) {
    let refused = lab.pgrotate(&["resume"]);
    assert!(refused.text().contains("holds it until"), "a living process has it: {}", refused.text());
    let _ = refused.exits(1);
    loop {
        let run = lab.pgrotate(&["resume"]);
        if run.0.status.code() == Some(0) {
            return;
        }
        assert!(asleep_since.elapsed() < LEASE * 2, "{}", run.text());
        sleep(Duration::from_millis(500));
    }
}

/// Stops a rotation that is held at a read of `publish`, whose answer it gets when it wakes up: then it would write.
/// Meanwhile the run is finished by others, and as many further rotations are done.
fn late(rotations: usize) {
    let lab = Lab::recording("dev");
    let old = lab.password("dev");
    // Requests have a time limit as long as the lease. For the one that is held not to reach it first, it is sent
    // well after the lease was taken.
    lab.fault(&json!({ "method": "GET", "path_contains": "/v1/vaults?", "when": "before", "kind": "delay", "delay_ms": 16_000 }));
    lab.fault(
        &json!({ "path_contains": "config/appsettings/list", "nth": 2, "when": "after", "kind": "hold" }),
    );
    let mut command = lab.command(&["rotate", "dev", "--ticket", "OPS-7"]);
    let output = lab.state_folder().with_file_name("late");
    let file = std::fs::File::create(&output).unwrap();
    let mut process = Sleeper(command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
    let held = || lab.requests().into_iter().find(|request| request["held"] == true);
    lab.wait_for("the read that is held", || held().is_some());
    let sent = Instant::now();
    // Whoever is stopped while it writes to the journal holds SQLite's lock, and keeps everybody out until it is ended:
    // here the other steps come to their end first.
    sleep(Duration::from_millis(700));
    process.signal(Signal::STOP);

    take_over(&lab, sent);
    let mut new = lab.everything_is_new("dev", &old);
    for _ in 0..rotations {
        lab.pgrotate(&["rotate", "dev", "--ticket", "OPS-7"]).exits(0);
        new = lab.everything_is_new("dev", &new);
    }
    let (mark, versions) = (lab.last_request(), lab.versions("dev"));
    assert!(held().is_some(), "the late one's request is still on its way");
    let slept = sent.elapsed();

    lab.clear_faults();
    process.signal(Signal::CONT);
    let status = process.0.wait().unwrap();
    sleep(Duration::from_millis(500));
    let text = std::fs::read_to_string(output).unwrap();
    println!("{rotations} further rotations: woken {slept:?} after its request was sent\n{text}");
    let recording = lab.get("/_sandbox/recording");
    let since = |request: &&Value| request["seq"].as_u64().unwrap() > mark;
    let written: Vec<Request> = recording
        .as_array()
        .unwrap()
        .iter()
        .filter(since)
        .map(Request::of)
        .filter(|one| one.writes)
        .collect();
    assert_eq!(written, [], "the late one has changed something");
    assert_eq!(lab.versions("dev"), versions);
    assert_eq!(lab.password("dev"), new);
    assert_eq!(lab.state()["dev"]["copies"]["azure_key_vault:postgres-admin-password"]["value"], new);
    assert_eq!(status.code(), Some(3), "{text}");
    assert!(text.contains("another pgrotate has taken this environment over"), "{text}");
    assert!(text.contains("pgrotate status dev"), "it does not say how to look: {text}");
    assert!(!text.contains("pgrotate resume"), "the run is not its own any more: {text}");
    lab.pgrotate(&["status", "dev"]).exits(0);
}

#[test]
fn one_that_slept_past_its_lease_is_fenced_off() {
    late(0);
}

#[test]
fn one_that_slept_through_a_further_rotation_writes_no_stale_password() {
    late(1);
}
