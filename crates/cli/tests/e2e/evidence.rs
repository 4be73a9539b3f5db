//! What a run leaves to show, and that nobody changes it unnoticed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgrotate_evidence::Trusted;
use pgrotate_evidence::line::{Kind, Line};
use serde_json::{Value, json};

use crate::lab::{Lab, Run};

fn log(lab: &Lab) -> PathBuf {
    lab.state_folder().join("evidence.jsonl")
}

fn lines(lab: &Lab) -> Vec<String> {
    std::fs::read_to_string(log(lab)).unwrap().lines().map(str::to_owned).collect()
}

/// Rotates dev; gives the run's id.
fn rotate(lab: &Lab) -> String {
    let events =
        lab.pgrotate(&["--json", "rotate", "dev", "--ticket", "OPS-7", "--operator", "ana"]).events(0);
    events[0]["run"].as_str().unwrap().to_owned()
}

fn verified(lab: &Lab) -> Value {
    lab.pgrotate(&["--json", "audit", "verify"]).events(0).remove(0)
}

/// The program on a machine that has nothing of this one but some files.
fn elsewhere(lab: &Lab, arguments: &[&str]) -> Run {
    let mut command = lab.command(arguments);
    command.env_remove("PGROTATE_STATE_DIR").env_remove("PGROTATE_CONFIG");
    let empty = tempfile::tempdir().unwrap();
    command.env("HOME", empty.path()).current_dir(empty.path());
    Run(command.output().unwrap())
}

#[test]
fn a_rotation_leaves_evidence_that_proves_itself_here_and_elsewhere() {
    let lab = Lab::new("dev").without_alembic();
    let run = rotate(&lab);
    let proof = verified(&lab);
    assert_eq!(
        (&proof["ok"], &proof["runs"], &proof["missing"]),
        (&json!(true), &json!(1), &json!([])),
        "{proof}"
    );
    assert_eq!((&proof["late"], &proof["compared_with_journal"]), (&json!([]), &json!(true)), "{proof}");
    let key = lab.pgrotate(&["audit", "key"]).exits(0);
    let copy = lab.state_folder().join("copy.jsonl").display().to_string();
    let key_file = lab.state_folder().join("evidence.key.pub").display().to_string();
    std::fs::copy(log(&lab), &copy).unwrap();
    for key in [key.trim(), &key_file, proof["signers"][0].as_str().unwrap()] {
        let text = elsewhere(&lab, &["audit", "verify", &copy, "--key", key]).exits(0);
        assert!(text.contains("of 1 run, each as it was written"), "{text}");
    }
    let text = elsewhere(&lab, &["audit", "verify", &copy]);
    assert!(text.text().contains("nobody has said whose signature counts"), "{}", text.text());
    let _ = text.exits(2);

    // An edited byte anywhere, by the program and then, far more often, by what it is made of.
    let good = std::fs::read(&copy).unwrap();
    let text = String::from_utf8(good.clone()).unwrap().replacen("OPS-7", "OPS-8", 1);
    std::fs::write(&copy, text).unwrap();
    let found =
        elsewhere(&lab, &["--json", "audit", "verify", &copy, "--key", &key_file]).events(1).remove(0);
    assert_eq!(
        (&found["line"], &found["what"], &found["run"]),
        (&json!(1), &json!("changed"), &json!(run)),
        "{found}"
    );
    let mut trusted = Trusted::default();
    trusted.add_text(&key).unwrap();
    let (mut bad, mut line) = (good.clone(), 1);
    for place in 0..good.len() {
        if place % 37 == 0 || place + 400 > good.len() {
            bad[place] ^= 1;
            match pgrotate_evidence::verify(&mut &*bad, &trusted) {
                Err(pgrotate_evidence::verify::Failure::Broken(broken)) => {
                    assert_eq!(broken.line, line, "{place}")
                }
                other => panic!("byte {place}: {other:?}"),
            }
            bad[place] = good[place];
        }
        line += u64::from(good[place] == b'\n');
    }
}

#[test]
fn an_edited_log_is_named_in_the_state_folder() {
    let lab = Lab::new("dev").without_alembic();
    let run = rotate(&lab);
    let good = std::fs::read_to_string(log(&lab)).unwrap();
    std::fs::write(log(&lab), good.replacen("\"ana\"", "\"bob\"", 1)).unwrap();
    let text = lab.pgrotate(&["audit", "verify"]).exits(1);
    assert!(text.contains(&format!("line 1 (run {run}): it was changed after it was written")), "{text}");
    let report = lab.pgrotate(&["report", &run]);
    assert!(report.text().contains("the evidence is not what was written: line 1"), "{}", report.text());
    let _ = report.exits(1);
    // The end taken away up to a signature fits by itself; the journal knows better.
    std::fs::write(log(&lab), "").unwrap();
    let found = lab.pgrotate(&["--json", "audit", "verify"]).events(1).remove(0);
    assert_eq!((&found["ok"], &found["missing"][0]["run"]), (&json!(false), &json!(run)), "{found}");
    // Signed by somebody else.
    std::fs::write(log(&lab), &good).unwrap();
    std::fs::remove_file(lab.state_folder().join("evidence.key")).unwrap();
    let text = lab.pgrotate(&["audit", "verify"]);
    assert!(text.text().contains("it is signed by an unknown key, SHA256:"), "{}", text.text());
    let _ = text.exits(1);
}

#[test]
fn a_report_shows_a_run_on_paper_and_its_excerpt_proves_it() {
    let lab = Lab::new("dev").without_alembic();
    rotate(&lab);
    let run = rotate(&lab);
    let text = lab.pgrotate(&["report", &run]).exits(0);
    for words in [
        "ana",
        "OPS-7",
        "tester on ",
        "azure_key_vault:database-url",
        "could not log in for at most",
        "signed by SHA256:",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let story = lab.pgrotate(&["--json", "report", &run]).events(0).remove(0);
    for (step, system, what) in [
        ("publish/azure_key_vault:database-url", "azure", "PUT"),
        ("publish/github_actions:DEV_DATABASE_URL", "github", "PUT"),
        ("publish/aws_secrets_manager:mindwell/dev/postgres/admin-password", "aws", "PutSecretValue"),
    ] {
        let found = story["steps"].as_array().unwrap().iter().find(|own| own["id"] == step).unwrap();
        let asked = found["requests"].as_array().unwrap();
        let known = |own: &Value| own["system"] == system && own["what"] == what;
        assert!(asked.iter().any(known), "{step}: {found}");
    }
    let folder = lab.state_folder();
    let (page, part) = (folder.join("report.html"), folder.join("part.jsonl"));
    let (page_name, part_name) = (page.display().to_string(), part.display().to_string());
    assert_eq!(lab.pgrotate(&["report", &run, "--html", &page_name, "--export", &part_name]).exits(0), "");
    let html = std::fs::read_to_string(&page).unwrap();
    for words in [&run, "<svg", "OPS-7", "Copies before and after", "outage window", "It verifies."] {
        assert!(html.contains(words), "{words}: {html}");
    }
    assert!(
        !html.contains("<script") && !html.contains("http://") && !html.contains("src="),
        "it asks for something"
    );
    let key = folder.join("evidence.key.pub").display().to_string();
    let text = elsewhere(&lab, &["audit", "verify", &part_name, "--key", &key]).exits(0);
    assert!(text.contains(&format!("for the run {run}")), "{text}");
    plain_tools_agree(&lab, &part);
}

/// What docs/evidence.md tells an auditor who has none of our programs.
fn plain_tools_agree(lab: &Lab, file: &Path) {
    let folder = lab.state_folder();
    let public = std::fs::read_to_string(folder.join("evidence.key.pub")).unwrap();
    std::fs::write(folder.join("signers"), format!("pgrotate {public}")).unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let mut seals = 0;
    for line in text.lines().filter(|line| line.contains(",\"signature\":\"")) {
        let (message, rest) = line.rsplit_once(",\"signature\":\"").unwrap();
        let base64 = rest.strip_suffix("\"}").unwrap();
        let body: Vec<&str> =
            base64.as_bytes().chunks(70).map(|own| std::str::from_utf8(own).unwrap()).collect();
        let pem =
            format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", body.join("\n"));
        std::fs::write(folder.join("line.sig"), pem).unwrap();
        let mut child = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-n", "pgrotate-evidence", "-I", "pgrotate", "-f"])
            .arg(folder.join("signers"))
            .arg("-s")
            .arg(folder.join("line.sig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{line}");
        seals += 1;
    }
    assert_eq!(seals, 2, "the heading and the end");
}

#[test]
fn a_parked_run_is_in_the_evidence_and_its_end_too() {
    let lab = Lab::new("dev").without_alembic();
    lab.fault(&json!({ "method": "PUT", "path_contains": "/secrets/database-url", "kind": "status", "status": 403, "when": "before", "times": 50 }));
    let events = lab.pgrotate(&["--json", "rotate", "dev"]).events(3);
    let run = events[0]["run"].as_str().unwrap().to_owned();
    let before = lines(&lab).len();
    assert_eq!(verified(&lab)["missing"], json!([]));
    let text = lab.pgrotate(&["report", &run]).exits(0);
    assert!(text.contains("parked") && text.contains("publish/azure_key_vault:database-url"), "{text}");
    lab.clear_faults();
    let _ = lab.pgrotate(&["resume"]).exits(0);
    assert!(lines(&lab).len() > before);
    let proof = verified(&lab);
    assert_eq!((&proof["runs"], &proof["late"]), (&json!(1), &json!([])), "{proof}");
    let text = lab.pgrotate(&["report", &run]).exits(0);
    for words in ["parked", "resumed", "ended", "a try failed"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// The lock of the evidence holds the process between the journal's last entry and the evidence.
#[test]
fn a_process_that_dies_before_its_evidence_leaves_that_to_the_next_one() {
    let lab = Lab::new("dev").without_alembic();
    rotate(&lab);
    let before = std::fs::read(log(&lab)).unwrap();
    let held = std::fs::File::open(log(&lab)).unwrap();
    held.lock().unwrap();
    let mut doomed = lab.command(&["--json", "rotate", "dev"]);
    let mut doomed = doomed.stdout(Stdio::piped()).spawn().unwrap();
    let events = std::io::BufRead::lines(std::io::BufReader::new(doomed.stdout.take().unwrap()));
    let last = events.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let last = last.into_iter().find(|event| event["event"] == "run_finished").expect("it came to its end");
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    held.unlock().unwrap();
    assert_eq!(std::fs::read(log(&lab)).unwrap(), before, "it was written after all");

    let run = last["run"].as_str().unwrap();
    let found = lab.pgrotate(&["--json", "audit", "verify"]).events(1).remove(0);
    assert_eq!(
        found["missing"],
        json!([{ "run": run, "journal": found["missing"][0]["journal"], "evidence": 0 }])
    );
    assert_eq!(std::fs::read(log(&lab)).unwrap(), before, "who verifies writes nothing");
    let report = lab.pgrotate(&["report", run]);
    assert!(report.text().contains("was missing, and is written now"), "{}", report.text());
    assert!(report.text().contains("later than the run"), "{}", report.text());
    let _ = report.exits(0);
    assert_eq!(verified(&lab)["late"], json!([run]));
    let after = std::fs::read(log(&lab)).unwrap();
    let _ = lab.pgrotate(&["report", run]).exits(0);
    assert_eq!(std::fs::read(log(&lab)).unwrap(), after, "nothing is written twice");
}

#[test]
fn a_last_line_that_was_cut_is_taken_away_written_anew_and_said() {
    let lab = Lab::new("dev").without_alembic();
    let first = rotate(&lab);
    let run = rotate(&lab);
    let whole = std::fs::read(log(&lab)).unwrap();
    for cut in [1, 30, 300, 5000] {
        std::fs::write(log(&lab), &whole[..whole.len() - cut]).unwrap();
        let found = lab.pgrotate(&["--json", "audit", "verify"]).events(1).remove(0);
        assert!(["cut", "unsigned"].contains(&found["what"].as_str().unwrap()), "{found}");
        let report = lab.pgrotate(&["report", &run]);
        assert!(report.text().contains("the end of the evidence was cut off"), "{}", report.text());
        let _ = report.exits(0);
        let proof = verified(&lab);
        assert_eq!((&proof["late"], &proof["runs"]), (&json!([run]), &json!(2)), "{proof}");
        assert!(proof["dropped"][0]["bytes"].as_u64().unwrap() > 0, "{proof}");
        let entries = |lines: Vec<String>, run: &str| {
            let own = |line: &&String| {
                let line = Line::parse(line.as_bytes()).unwrap();
                line.run == run && line.kind == Kind::Entry
            };
            lines.iter().filter(own).count()
        };
        let journal = lab.pgrotate(&["--json", "history", &run]).events(0);
        assert!(entries(lines(&lab), &run) > journal[0]["steps"].as_array().unwrap().len());
        assert!(entries(lines(&lab), &first) > 0);
    }
}

#[test]
fn evidence_that_can_not_be_written_stops_no_rotation() {
    let lab = Lab::new("dev").without_alembic();
    let old = lab.password("dev");
    std::fs::create_dir_all(log(&lab)).unwrap();
    rustix::fs::chmod(lab.state_folder(), 0o700.into()).unwrap();
    let rotation = lab.pgrotate(&["rotate", "dev"]);
    assert!(rotation.text().contains("the evidence is not written yet"), "{}", rotation.text());
    let _ = rotation.exits(0);
    lab.everything_is_new("dev", &old);
    std::fs::remove_dir(log(&lab)).unwrap();
    let run = lab.pgrotate(&["--json", "history"]).events(0)[0]["run"].as_str().unwrap().to_owned();
    rotate(&lab);
    assert_eq!(verified(&lab)["late"], json!([run]));
}

fn keygen(file: &Path, arguments: &[&str]) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-C", "test", "-f"])
        .arg(file)
        .args(arguments)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn an_ssh_key_signs_where_it_is_named_and_one_that_can_not_is_refused_before_a_run() {
    let lab = Lab::new("dev").without_alembic();
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let folder = lab.world();
    keygen(&folder.join("good"), &["-t", "ed25519", "-N", ""]);
    keygen(&folder.join("locked"), &["-t", "ed25519", "-N", "passphrase"]);
    keygen(&folder.join("rsa"), &["-t", "rsa", "-b", "2048", "-N", ""]);
    std::fs::copy(folder.join("good"), folder.join("open")).unwrap();
    rustix::fs::chmod(folder.join("open"), 0o644.into()).unwrap();
    let with = |line: &str| std::fs::write(lab.config(), format!("{text}\n[evidence]\n{line}\n")).unwrap();
    let before = lab.last_request();
    for (key, words) in [
        ("locked", "it is protected by a passphrase"),
        ("rsa", "it is of the kind ssh-rsa"),
        ("nowhere", "there is no such file"),
        ("open", "others than its owner may read it"),
        ("pgrotate.toml", "it is no key in the form"),
    ] {
        with(&format!("ssh_key = \"{key}\""));
        rustix::fs::chmod(lab.config(), 0o600.into()).unwrap();
        let refused = lab.pgrotate(&["rotate", "dev"]);
        assert!(refused.text().contains(words), "{key}: {}", refused.text());
        let _ = refused.exits(2);
    }
    assert_eq!(lab.last_request(), before, "somebody was asked something");

    with("ssh_key = \"good\"");
    let run = rotate(&lab);
    assert!(!lab.state_folder().join("evidence.key").exists(), "no other key is made");
    assert_eq!(verified(&lab)["missing"], json!([]));
    // Without it in the configuration nobody knows the key, until somebody names it.
    std::fs::write(lab.config(), &text).unwrap();
    let found = lab.pgrotate(&["--json", "audit", "verify"]).events(1).remove(0);
    assert_eq!((&found["what"], &found["run"]), (&json!("unknown_key"), &json!(run)), "{found}");
    let key = folder.join("good.pub").display().to_string();
    let _ = lab.pgrotate(&["audit", "verify", "--key", &key]).exits(0);
    with("trusted_keys = [\"good.pub\"]");
    let _ = verified(&lab);
    with("trusted_keys = [\"pgrotate.toml\"]");
    let refused = lab.pgrotate(&["audit", "verify"]);
    assert!(refused.text().contains("it is no key in the form"), "{}", refused.text());
    let _ = refused.exits(2);
}
