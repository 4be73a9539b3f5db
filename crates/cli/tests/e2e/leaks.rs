//! No password shows, whatever happens to a run. The passwords that a sandbox begins with have to be encoded in a URL, so
//! that each form differs from the others; those that the runs make are found in what 1Password was sent.
//!
//! Passwords may be in the vendors' stores, in the agents' env files, and in the environment of the one check that the
//! configuration gives the URL to; these are named below, and everything else is searched.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::canary::Canary;
use crate::lab::{Lab, Run};
use crate::trace;
use crate::watch::{self, Seen, Watch, talkative};

/// What of the sandbox's own world holds passwords, or the credentials of vendors.
const SECRET: [&str; 5] = ["agents", "credentials.env", "sign-in.env", "github-app.pem", "federated-token"];

/// Every password that a run has made so far, be it that nobody uses it any more: what 1Password was sent.
fn made(lab: &Lab) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for request in lab.get("/_sandbox/recording").as_array().unwrap() {
        if request["method"] == "PATCH" && request["path"].as_str().unwrap().contains("/items/") {
            let body = request["body"].as_str().unwrap();
            collect(&serde_json::from_str(body).unwrap(), &mut found);
        }
    }
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.len() == 32 && text.chars().all(|c| c.is_ascii_alphanumeric()) => {
            found.insert(text.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// The passwords of a lab, first and later ones, and the credentials of its vendors.
fn canary(lab: &Lab, first: &[&str]) -> Canary {
    let made = made(lab);
    assert!(!made.is_empty(), "nothing to search for");
    let first = first.iter().map(|password| ("first password".to_owned(), (*password).to_owned()));
    let made =
        made.into_iter().enumerate().map(|(number, password)| (format!("password {number}"), password));
    // The ends of credentials: their beginnings say what they are, and an address where they are used.
    let credentials = watch::credentials(lab).into_iter();
    let credentials =
        credentials.map(|(name, value)| (name, value[value.len().saturating_sub(24)..].to_owned()));
    Canary::of(first.chain(made).chain(credentials))
}

/// Nothing was seen, and nothing lies where everybody may look afterwards.
#[track_caller]
fn nothing_shows(lab: &Lab, seen: &Seen, canary: &Canary) {
    seen.shows_nothing_of(canary);
    nothing_lies_about(lab, canary);
}

#[track_caller]
fn nothing_lies_about(lab: &Lab, canary: &Canary) {
    assert!(canary.not_under(&lab.world(), &SECRET.map(|name| lab.world().join(name))) > 2);
    canary.not_under(&lab.state_folder(), &[]);
    let state = lab.state();
    for told in ["messages", "comments"] {
        canary.not_in(told, state["dev"][told].to_string());
    }
    canary.not_in("the list of requests", lab.get("/_sandbox/requests").to_string());
}

#[test]
fn nothing_that_a_rotation_starts_or_writes_shows_a_password() {
    let lab = Lab::with_base64_passwords("dev");
    let old = lab.password("dev");
    let log = lab.state_folder().with_file_name("strace");
    let (output, trace) = trace::run(&talkative(&lab, &["rotate", "dev", "--ticket", "OPS-12"]), &log);
    let run = Run(output);
    let text = run.text();
    let _ = run.exits(0);
    let new = lab.everything_is_new("dev", &old);
    let canary = canary(&lab, &[&old]);
    canary.not_in("the output", text);

    let (mut checks, mut trials, mut env_files) = (0, 0, 0);
    for [line, environment] in &trace.started {
        canary.not_in("a command line", line);
        let line = String::from_utf8_lossy(line);
        // `alembic heads` reads the scripts and is told no password.
        if line.contains("alembic") && !line.contains("\"heads\"") {
            let (before, rest) = split(environment, b"\"DATABASE_URL=");
            let (url, after) = split(rest, b"\"");
            canary.not_in("the rest of the check's environment", [before, after].concat());
            // The one that looks before the run has the password of before.
            if String::from_utf8_lossy(url).contains(&format!(":{new}@")) {
                checks += 1;
            } else {
                assert!(!canary.find(url).is_empty(), "the trace misses what is there");
                trials += 1;
            }
        } else {
            canary.not_in(&format!("the environment of {line}"), environment);
        }
    }
    for (target, bytes) in &trace.written {
        // The copy itself, and the file beside it that takes its place.
        if target.contains("/agents/dev/.config/mindwell/.dev.env.pgrotate-new>") {
            env_files += usize::from(!canary.find(bytes).is_empty());
        } else {
            canary.not_in(&format!("what was written to {target}"), bytes);
        }
    }
    assert!(
        checks > 0 && trials > 0 && env_files > 0,
        "the trace misses what is there: {:?}",
        trace.command_lines()
    );
    let own = lab.state_folder();
    let folder = own.parent().unwrap();
    let elsewhere: BTreeSet<PathBuf> =
        trace.files().into_iter().filter(|file| !file.starts_with(folder)).collect();
    assert_eq!(elsewhere, BTreeSet::new(), "files in places that nobody named");
    assert!(trace.files().iter().any(|file| file.starts_with(&own)), "the trace misses the journal");
    nothing_lies_about(&lab, &canary);
    canary.not_under(folder, &["world", "strace"].map(|name| folder.join(name)));
}

/// The bytes before and after the first of these.
fn split<'b>(bytes: &'b [u8], at: &[u8]) -> (&'b [u8], &'b [u8]) {
    let position = bytes.windows(at.len()).position(|part| part == at).expect("it is not there");
    (&bytes[..position], &bytes[position + at.len()..])
}

/// Three passwords more: what the second role is made with, what it gets, and what the first one rests with. The server's own
/// log has every statement that makes or changes a role.
#[test]
fn two_roles_that_are_made_and_take_turns_show_no_password() {
    let lab = Lab::with_base64_passwords("dev").in_turn("").without_alembic();
    let old = lab.password("dev");
    let mut seen = Vec::new();
    for (number, arguments) in
        [&["roles", "prepare", "dev", "--apply"][..], &["rotate", "dev", "--yes"]].into_iter().enumerate()
    {
        let log = lab.state_folder().with_file_name(format!("strace-{number}"));
        let (output, trace) = trace::run(&talkative(&lab, arguments), &log);
        let run = Run(output);
        seen.push((run.text(), trace));
        let _ = run.exits(0);
    }
    let canary = canary(&lab, &[&old]);
    assert!(made(&lab).len() >= 3, "passwords are missing among what is searched for: {}", made(&lab).len());
    for (text, trace) in &seen {
        canary.not_in("the output", text);
        for [line, environment] in &trace.started {
            canary.not_in("a command line", line);
            canary.not_in("a program's environment", environment);
        }
        for (target, bytes) in &trace.written {
            if !target.contains("/agents/dev/.config/mindwell/.dev.env.pgrotate-new>") {
                canary.not_in(&format!("what was written to {target}"), bytes);
            }
        }
    }
    nothing_lies_about(&lab, &canary);
}

/// A run is killed at every seventh of its requests, in turn before and after the request's effect, and gone on with.
#[test]
fn a_run_that_is_killed_and_gone_on_with_shows_no_password() {
    let lab = Lab::with_base64_passwords("dev");
    let first = lab.password("dev");
    let mut watch = Watch::over(&lab);
    let before = lab.requests().len();
    let _ = watch.run(&["rotate", "dev"]).exits(0);
    let whole = lab.requests().len() - before;
    let mut kills = 0;
    for boundary in (2..whole).step_by(7) {
        let when = ["before", "after"][kills % 2];
        let began = lab.requests().len();
        lab.fault(&json!({ "nth": boundary, "when": when, "kind": "hold" }));
        let mut process = watch.start(&["rotate", "dev", "--ticket", "OPS-7"]);
        lab.wait_for("a request that is held", || {
            lab.requests()[began..].iter().any(|request| request["fault"] == "hold")
        });
        process.kill().unwrap();
        let _ = watch.finish(process);
        lab.clear_faults();
        kills += 1;
        let _ = watch.run(&["status", "dev"]);
        let _ = watch.run(&["resume"]).exits(0);
    }
    assert!(kills >= 8, "{whole} requests");
    let seen = watch.end();
    let canary = canary(&lab, &[&first]);
    seen.saw_the_check_with(&canary);
    nothing_shows(&lab, &seen, &canary);
}

/// Refuses, in an answer that repeats what was sent.
fn repeats(lab: &Lab, method: &str, path: &str, status: u16, nth: u32) {
    lab.fault(&json!({ "method": method, "path_contains": path, "nth": nth, "times": 100, "when": "before",
        "kind": "status", "status": status, "message": "this can't be taken: {body}" }));
}

/// The id of the last run.
fn last_run(lab: &Lab) -> String {
    lab.pgrotate(&["--json", "history"]).events(0)[0]["run"].as_str().unwrap().to_owned()
}

#[test]
fn a_vendor_that_repeats_what_it_refuses_is_not_repeated() {
    let lab = Lab::with_base64_passwords("dev");
    let first = lab.password("dev");
    let mut watch = Watch::over(&lab);
    // The new password can't be staged: nothing has happened.
    repeats(&lab, "PATCH", "/items/", 400, 2);
    let _ = watch.run(&["rotate", "dev"]).exits(1);
    lab.clear_faults();
    // The server does not take it.
    repeats(&lab, "PATCH", "flexibleServers", 400, 1);
    let run = watch.run(&["rotate", "dev"]);
    assert!([Some(1), Some(3)].contains(&run.0.status.code()), "{}", run.text());
    lab.clear_faults();
    let _ = watch.run(&["abort"]);
    let _ = watch.run(&["resume"]);
    // Half of the stores don't, and nobody wants to hear of it.
    for (method, path) in [
        ("PUT", "/secrets/database-url"),
        ("PUT", "config/appsettings"),
        ("PUT", "/actions/secrets/DEV_DATABASE_URL"),
        ("POST", "PutSecretValue"),
        ("POST", "/services/"),
        ("POST", "/comment"),
    ] {
        repeats(&lab, method, path, 400, 1);
    }
    for json in [&["--json"][..], &[]] {
        let _ = watch.run(&[json, &["rotate", "dev", "--ticket", "OPS-7"]].concat());
        let parked = watch.run(&[json, &["resume"]].concat());
        assert!(parked.text().contains("database-url"), "{}", parked.text());
        let _ = parked.exits(3);
        everything_is_asked(&mut watch, json, &last_run(&lab));
    }
    lab.clear_faults();
    let _ = watch.run(&["resume"]).exits(0);
    lab.everything_is_new("dev", &first);
    let (seen, canary) = (watch.end(), canary(&lab, &[&first]));
    let answers = lab.get("/_sandbox/recording");
    let repeated = |request: &&Value| {
        let body = request["answer"]["body"].as_str().unwrap_or_default();
        body.contains("this can't be taken") && !canary.find(body.as_bytes()).is_empty()
    };
    let systems =
        answers.as_array().unwrap().iter().filter(repeated).map(|request| request["system"].to_string());
    let systems: BTreeSet<String> = systems.collect();
    assert!(systems.len() >= 4, "only {systems:?} repeated a password");
    nothing_shows(&lab, &seen, &canary);
}

/// Every command that only looks.
fn everything_is_asked(watch: &mut Watch<'_>, json: &[&str], run: &str) {
    for command in
        [&["status", "dev"][..], &["check", "dev"], &["plan", "dev"], &["history"], &["history", run]]
    {
        let _ = watch.run(&[json, command].concat());
    }
}

#[test]
fn called_off_taken_back_and_answered_too_late_it_shows_no_password() {
    let lab = Lab::with_base64_passwords("dev");
    let first = lab.password("dev");
    let mut watch = Watch::over(&lab);
    // Killed when the password is staged, and called off.
    lab.fault(
        &json!({ "method": "PATCH", "path_contains": "/items/", "nth": 2, "when": "after", "kind": "hold" }),
    );
    let mut process = watch.start(&["rotate", "dev"]);
    lab.wait_for("a request that is held", || {
        lab.requests().iter().any(|request| request["fault"] == "hold")
    });
    process.kill().unwrap();
    let _ = watch.finish(process);
    lab.clear_faults();
    let _ = watch.run(&["--json", "abort"]).exits(0);
    // Answers that are lost after the effect.
    for path in ["/items/", "flexibleServers", "/secrets/database-url", "PutSecretValue", "/services/"] {
        lab.fault(&json!({ "path_contains": path, "nth": 3, "when": "after", "kind": "drop" }));
    }
    let _ = watch.run(&["rotate", "dev", "--ticket", "OPS-7"]).exits(0);
    lab.clear_faults();
    lab.everything_is_new("dev", &first);
    // Back to the password that every layer has to encode, through the real Alembic.
    let run = last_run(&lab);
    let _ = watch.run(&["--json", "rollback", &run, "--plan"]).exits(0);
    let _ = watch.run(&["rollback", &run, "--ticket", "OPS-8"]).exits(0);
    assert!(lab.password("dev") == first, "the first password is not back");
    for json in [&["--json"][..], &[]] {
        everything_is_asked(&mut watch, json, &run);
    }
    let seen = watch.end();
    let canary = canary(&lab, &[&first]);
    seen.saw_the_check_with(&canary);
    seen.saw_the_check_with(&Canary::of([("first password", &first)]));
    nothing_shows(&lab, &seen, &canary);
}

/// A check that tells everybody what it was given, as it is and in the forms that tools like to print.
const TALKATIVE_CHECK: &str = r#"#!/bin/sh
url=$DATABASE_URL
unset DATABASE_URL
echo "could not connect to $url" >&2
password=${url#*:*:}
password=${password%%@*}
echo "password: $password"
printf 'Authorization: Basic %s\n' "$(printf 'mindwelladmin:%s' "$password" | base64 -w0)"
printf 'hex %s\n' "$(printf %s "$password" | od -An -tx1 | tr -d ' \n')"
exit 1
"#;

#[test]
fn refused_logins_and_checks_that_tell_what_they_know_show_no_password() {
    let lab = Lab::with_base64_passwords("dev");
    let first = lab.password("dev");
    let mut watch = Watch::over(&lab);
    // Somebody has put a password into the vault that the server refuses.
    let foreign = "Fo9reign/Zq8xPTkn5VbR2mWc+J7hwLsd";
    lab.set("onepassword", "password", &json!(foreign));
    for json in [&["--json"][..], &[]] {
        let _ = watch.run(&[json, &["rotate", "dev"]].concat()).exits(1);
        let _ = watch.run(&[json, &["check", "dev"]].concat()).exits(1);
        let _ = watch.run(&[json, &["status", "dev"]].concat()).exits(4);
    }
    lab.set("onepassword", "password", &json!(first));

    let config = std::fs::read_to_string(lab.config()).unwrap();
    let check = lab.world().join("a-check");
    std::fs::write(&check, TALKATIVE_CHECK).unwrap();
    std::fs::set_permissions(&check, PermissionsExt::from_mode(0o755)).unwrap();
    let told =
        config.replace(r#"".venv/bin/alembic", "current""#, &format!("{:?}", check.display().to_string()));
    assert_ne!(told, config);
    std::fs::write(lab.config(), told).unwrap();
    let parked = watch.run(&["rotate", "dev", "--ticket", "OPS-7"]);
    let text = parked.text();
    let _ = parked.exits(3);
    assert!(text.contains("could not connect to") && text.contains("Authorization: Basic"), "{text}");
    let _ = watch.run(&["--json", "resume"]).exits(3);
    for json in [&["--json"][..], &[]] {
        everything_is_asked(&mut watch, json, &last_run(&lab));
    }
    std::fs::write(lab.config(), config).unwrap();
    let _ = watch.run(&["resume"]).exits(0);
    let seen = watch.end();
    let canary = canary(&lab, &[&first, foreign]);
    seen.saw_the_check_with(&canary);
    nothing_shows(&lab, &seen, &canary);
}

#[test]
fn a_password_that_is_typed_stays_where_it_was_typed() {
    let lab = Lab::with_base64_passwords("dev");
    let (old, port) = (lab.password("dev"), lab.state()["dev"]["postgres"]["port"].clone());
    let folder = lab.state_folder();
    let folder = folder.parent().unwrap();
    let text = format!(
        "project = \"small\"\n[environments]\ndev = {{}}\n[database]\nhost = \"localhost\"\nport = {port}\n\
         name = \"mindwell_app\"\nuser = \"mindwelladmin\"\ntls = {{ ca_file = \"{}\" }}\n[vault]\n\
         kind = \"local_vault\"\npath = \"{{env}}.age\"\nidentity_file = \"identity.txt\"\n[authority]\n\
         kind = \"postgres\"\n",
        lab.world().join("ca.pem").display()
    );
    let config = folder.join("small.toml");
    std::fs::write(&config, text).unwrap();
    let small = |arguments: &[&str]| {
        let mut command = talkative(&lab, arguments);
        command.env("PGROTATE_CONFIG", &config);
        command
    };
    let mut watch = Watch::over(&lab);
    let wrong = "Wr0ng/Zq8xPTkn5VbR2mWc+J7hwLsd3G=";
    let _ = watch.answered(small(&["vault", "dev"]), &format!("{wrong}\n")).exits(1);
    let _ = watch.answered(small(&["vault", "dev"]), &format!("{old}\n")).exits(0);
    // Once more, over the one that is there.
    let _ = watch.answered(small(&["vault", "dev"]), &format!("{old}\n"));
    // Somebody types it where it does not belong.
    let _ = watch.answered(small(&["rotate", "dev", "--waive", "*"]), &format!("{old}\n")).exits(0);
    let _ = watch.answered(small(&["status", "dev"]), "").exits(0);
    let seen = watch.end();
    let canary = Canary::of([("old", &old), ("wrong", &wrong.to_owned())]);
    seen.saw_the_program();
    nothing_shows(&lab, &seen, &canary);
    // The vault is encrypted, and what made it is not beside it.
    let read = canary.not_under(folder, &[lab.world()]);
    assert!(read > 3 && folder.join("dev.age").exists(), "{read} files");
}
