//! The state folder's disk is full or can't be written, from the start or in the middle of a run.
//!
//! The folder is a small file system of its own, mounted where nobody else sees it: that takes root, or a kernel that
//! lets its users have namespaces.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::requests::Request;

/// A shell in a mount namespace of its own, where the state folder is a small file system.
struct Shell<'a> {
    lab: &'a Lab,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl<'a> Shell<'a> {
    /// # Panics
    /// Where no namespace is to be had.
    fn new(lab: &'a Lab) -> Self {
        std::fs::create_dir_all(lab.state_folder()).unwrap();
        let able = |flags: &str| {
            let probe =
                Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "none", "/mnt"]).output();
            probe.is_ok_and(|output| output.status.success())
        };
        let flags = ["-m", "-Urm"].into_iter().find(|flags| able(flags)).expect(
            "this test mounts a small file system for itself: it needs util-linux's unshare, and either root or a \
             kernel that lets users have namespaces (sysctl kernel.unprivileged_userns_clone=1)",
        );
        // The program's whole environment, so that it can be called by its name.
        let pgrotate = lab.command(&[]);
        let mut shell = Command::new("unshare");
        shell.args([flags, "sh"]).env_clear();
        shell.envs(pgrotate.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("PGROTATE", pgrotate.get_program()).env("OUTPUT", output(lab));
        let mut process = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut shell = Self { lab, process, input, output: BufReader::new(output) };
        shell.must("mount -t tmpfs -o size=4m,mode=700 none \"$PGROTATE_STATE_DIR\"");
        shell
    }

    /// Runs a line to its end; gives exit status and all that it said.
    fn run(&mut self, line: &str) -> (i32, String) {
        writeln!(self.input, "( {line} ) 2>&1; status=$?; echo; echo \"::$status\"").unwrap();
        let mut text = String::new();
        loop {
            let before = text.len();
            assert_ne!(self.output.read_line(&mut text).unwrap(), 0, "the shell has ended: {text}");
            if let Some(status) = text[before..].strip_prefix("::") {
                let status = status.trim().parse().unwrap();
                return (status, text[..before].to_owned());
            }
        }
    }

    fn must(&mut self, line: &str) {
        let (status, text) = self.run(line);
        assert_eq!(status, 0, "{line}: {text}");
    }

    /// Runs the program, and expects an exit status; gives all that it said.
    #[track_caller]
    fn pgrotate(&mut self, arguments: &str, expected: i32) -> String {
        let (status, text) = self.run(&format!("\"$PGROTATE\" {arguments}"));
        println!("$ pgrotate {arguments}\n{text}exit status {status}");
        assert_eq!(status, expected, "{arguments}: {text}");
        text
    }

    /// Starts a rotation that is held at a request, and waits until it is.
    fn rotate_until_held(&mut self, request: &Value) {
        self.lab.fault(request);
        self.must(
            "(sh -c 'echo $$ >\"$OUTPUT.pid\"; exec \"$PGROTATE\" rotate dev --ticket OPS-7' >\"$OUTPUT\" 2>&1
              echo \"exit status $?\" >>\"$OUTPUT\") &",
        );
        self.lab.wait_for("a request that is held", || {
            self.lab.requests().iter().any(|request| request["held"] == true)
        });
    }

    /// Lets the request go on; gives what the rotation says until its end, and the requests that change something
    /// since.
    fn let_go(&mut self) -> (String, Vec<Request>) {
        let mark = self.lab.last_request();
        self.lab.clear_faults();
        let output = || std::fs::read_to_string(output(self.lab)).unwrap();
        self.lab.wait_for("the end of the rotation", || output().contains("exit status "));
        println!("{}", output());
        let recording = self.lab.get("/_sandbox/recording");
        let since = |request: &&Value| request["seq"].as_u64().unwrap() > mark;
        let requests = recording.as_array().unwrap().iter().filter(since).map(Request::of);
        (output(), requests.filter(|request| request.writes).collect())
    }

    fn fill(&mut self) {
        let (status, text) = self.run("cat /dev/zero >\"$PGROTATE_STATE_DIR/ballast\"");
        assert!(status != 0 && text.contains("No space left"), "{text}");
    }

    fn make_room(&mut self) {
        self.must("rm \"$PGROTATE_STATE_DIR/ballast\"");
    }

    fn remount(&mut self, flag: &str) {
        self.must(&format!("mount -o remount,{flag} \"$PGROTATE_STATE_DIR\""));
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "exit");
        let _ = self.process.wait();
    }
}

/// What a rotation in the background says.
fn output(lab: &Lab) -> PathBuf {
    lab.state_folder().with_file_name("output")
}

/// Says every one of these.
#[track_caller]
fn says(text: &str, all: &[&str]) {
    for words in all {
        assert!(text.contains(words), "it does not say {words:?}: {text}");
    }
}

/// The request that stages the new password: of the changes of the item the first is check's, which changes nothing.
fn stage() -> Value {
    json!({ "method": "PATCH", "path_contains": "/items/", "nth": 2, "when": "after", "kind": "hold" })
}

fn publish() -> Value {
    json!({ "method": "PUT", "path_contains": "/secrets/database-url", "when": "after", "kind": "hold" })
}

#[test]
fn on_a_full_disk_nothing_begins() {
    let lab = Lab::recording("dev");
    let old = lab.password("dev");
    let mut shell = Shell::new(&lab);
    shell.fill();
    let text = shell.pgrotate("rotate dev", 3);
    says(&text, &["cannot make the fingerprint key", "the disk is full", "make room"]);
    assert_eq!(lab.last_request(), 0, "somebody was asked something");
    shell.make_room();
    shell.pgrotate("rotate dev --ticket OPS-7", 0);
    let new = lab.everything_is_new("dev", &old);

    shell.fill();
    let mark = lab.last_request();
    let text = shell.pgrotate("rotate dev", 3);
    says(&text, &["the disk is full", "make room"]);
    assert_eq!(lab.last_request(), mark, "somebody was asked something");
    shell.make_room();
    shell.pgrotate("rotate dev --ticket OPS-7", 0);
    lab.everything_is_new("dev", &new);
}

/// The room for its journal was taken with the lease.
#[test]
fn when_the_disk_gets_full_a_run_comes_to_its_end() {
    for request in [stage(), publish()] {
        let lab = Lab::recording("dev");
        let old = lab.password("dev");
        let mut shell = Shell::new(&lab);
        shell.rotate_until_held(&request);
        shell.fill();
        let (text, _) = shell.let_go();
        says(&text, &["exit status 0"]);
        lab.everything_is_new("dev", &old);
    }
}

/// Who dies leaves the log as it is, so that `resume` finds its room.
#[test]
fn a_run_that_died_before_the_disk_got_full_is_ended_by_resume() {
    let lab = Lab::recording("dev");
    let old = lab.password("dev");
    let mut shell = Shell::new(&lab);
    shell.rotate_until_held(&publish());
    shell.must("kill -KILL $(cat \"$OUTPUT.pid\")");
    lab.wait_for("its death", || std::fs::read_to_string(output(&lab)).unwrap().contains("exit status 137"));
    lab.clear_faults();
    shell.fill();
    shell.pgrotate("resume", 0);
    lab.everything_is_new("dev", &old);
}

#[test]
fn in_a_folder_that_cannot_be_written_nothing_begins() {
    let lab = Lab::recording("dev");
    let old = lab.password("dev");
    let mut shell = Shell::new(&lab);
    shell.remount("ro");
    let text = shell.pgrotate("rotate dev", 2);
    says(&text, &["cannot make the fingerprint key", "read-only", "PGROTATE_STATE_DIR"]);
    assert_eq!(lab.last_request(), 0, "somebody was asked something");
    shell.remount("rw");
    shell.pgrotate("rotate dev --ticket OPS-7", 0);
    let new = lab.everything_is_new("dev", &old);

    shell.remount("ro");
    let mark = lab.last_request();
    let text = shell.pgrotate("rotate dev", 2);
    says(&text, &["can't be written", "PGROTATE_STATE_DIR"]);
    assert_eq!(lab.last_request(), mark, "somebody was asked something");
    shell.remount("rw");
    shell.pgrotate("rotate dev --ticket OPS-7", 0);
    lab.everything_is_new("dev", &new);
}

/// A kernel does not let go of what is open for writing, so the run has to have died first.
#[test]
fn a_run_whose_folder_becomes_read_only_goes_on_when_it_can_be_written() {
    for request in [stage(), publish()] {
        let lab = Lab::recording("dev");
        let old = lab.password("dev");
        let mut shell = Shell::new(&lab);
        shell.rotate_until_held(&request);
        shell.must("kill -KILL $(cat \"$OUTPUT.pid\")");
        lab.wait_for("its death", || {
            std::fs::read_to_string(output(&lab)).unwrap().contains("exit status 137")
        });
        lab.clear_faults();
        shell.remount("ro");
        let mark = lab.last_request();
        let text = shell.pgrotate("resume", 2);
        says(&text, &["can't be written"]);
        assert_eq!(lab.last_request(), mark, "somebody was asked something");
        shell.remount("rw");
        shell.pgrotate("resume", 0);
        lab.everything_is_new("dev", &old);
    }
}
