//! The journal is damaged after a run died: nothing is guessed, and a person is told the way out.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::crash::kill_at;
use crate::lab::Lab;

/// The journal and what belongs to it, as `journal.sqlite*` names it.
fn files(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.state_folder()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("journal.sqlite")).collect()
}

/// What a command says, on whichever stream.
fn said(lab: &Lab, command: &[&str], status: i32) -> String {
    let run = lab.pgrotate(command);
    let text = run.text();
    let _ = run.exits(status);
    text
}

#[test]
fn a_journal_that_lost_its_end_stops_everything_but_status() {
    let lab = Lab::new("dev");
    let (old, before) = (lab.password("dev"), lab.requests().len());
    kill_at(
        &lab,
        &json!({ "method": "PATCH", "path_contains": "flexibleServers", "when": "after", "kind": "hold" }),
    );
    // What was written of this run is still in the log.
    fs::remove_file(lab.state_folder().join("journal.sqlite-wal")).unwrap();
    let changes = || {
        let requests = lab.requests();
        let of_interest = requests.iter().skip(before).filter(|request| request["method"] == "PATCH");
        of_interest.count()
    };
    let database = || fs::read(lab.state_folder().join("journal.sqlite")).unwrap();
    let (then, left) = (changes(), database());
    for command in [&["rotate", "dev"][..], &["resume"], &["abort"], &["history"]] {
        let said = said(&lab, command, 3);
        assert!(said.contains("journal"), "{command:?}: {said}");
        assert!(said.contains("cut off, removed or put back from an older copy"), "{command:?}: {said}");
        assert!(said.contains("pgrotate status"), "{command:?}: {said}");
    }
    assert_eq!(changes(), then, "nothing is done");
    assert!(database() == left, "nothing is repaired");

    let text = said(&lab, &["status", "dev"], 3);
    let server = text.lines().find(|line| line.trim_start().starts_with("server")).unwrap();
    assert!(server.contains("pending"), "the server has the new one: {text}");
    assert!(text.contains("put back from an older copy"), "{text}");

    // The way out: without its journal the run is a pending password of which nobody knows more.
    for file in files(&lab) {
        fs::rename(&file, lab.world().join(file.file_name().unwrap())).unwrap();
    }
    let text = said(&lab, &["rotate", "dev"], 1);
    assert!(text.contains("if the journal knows nothing of it: `pgrotate status dev` tells"), "{text}");
    assert!(!lab.logs_in(&lab.state()["dev"]["postgres"], &old), "the server has kept the new one");
}
