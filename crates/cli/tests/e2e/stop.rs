//! SIGTERM and Ctrl-C: the steps in hand are finished, no other begins, and the program says how to go on.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::lab::Lab;

/// How long a process that only waits may take to notice. It looks twice a second.
const SOON: Duration = Duration::from_secs(2);

/// A rotation in progress, with its output in files: a pipe that nobody reads would hold it up.
struct Rotation<'a> {
    lab: &'a Lab,
    process: Child,
}

impl<'a> Rotation<'a> {
    fn start(lab: &'a Lab, arguments: &[&str]) -> Self {
        let file = |name: &str| std::fs::File::create(lab.state_folder().with_file_name(name)).unwrap();
        let mut command: Command = lab.command(arguments);
        let process = command.stdout(file("out")).stderr(file("err")).stdin(Stdio::null()).spawn().unwrap();
        Self { lab, process }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap(), signal).unwrap();
    }

    fn read(&self, name: &str) -> String {
        let mut text = String::new();
        let path = self.lab.state_folder().with_file_name(name);
        std::fs::File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn says(&self, words: &str) {
        self.lab.wait_for(words, || self.read("err").contains(words));
    }

    /// Expects that it stops on its own, with the command that goes on; gives the run.
    fn stops(mut self) -> String {
        let status = self.process.wait().unwrap();
        let (out, err) = (self.read("out"), self.read("err"));
        assert_eq!(status.code(), Some(3), "{out}\n{err}");
        let run = self.run();
        assert!(
            out.contains(&format!("stopped on request; go on with: pgrotate resume {run}\n")),
            "{out}\n{err}"
        );
        run
    }

    fn run(&self) -> String {
        let newest = &self.lab.pgrotate(&["--json", "history"]).events(0)[0];
        newest["run"].as_str().unwrap().to_owned()
    }
}

/// Where a run's steps stand.
fn steps(lab: &Lab, run: &str) -> Vec<(String, String)> {
    let journal: Vec<Value> = lab.pgrotate(&["--json", "history", run]).events(0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = journal[0]["steps"].as_array().unwrap();
    steps.iter().map(|step| (text(&step["step"]), text(&step["status"]))).collect()
}

fn held(lab: &Lab) {
    lab.wait_for("a request that is held", || lab.requests().iter().any(|request| request["held"] == true));
}

#[test]
fn before_the_point_of_no_return_it_stops_after_the_step_in_hand() {
    for signal in [Signal::TERM, Signal::INT] {
        let lab = Lab::new("dev");
        let old = lab.password("dev");
        // Of the changes of the item the first is check's, which changes nothing.
        lab.fault(&json!({ "method": "PATCH", "path_contains": "/items/", "nth": 2, "when": "before", "kind": "hold" }));
        let rotation = Rotation::start(&lab, &["rotate", "dev"]);
        held(&lab);
        rotation.signal(signal);
        rotation.says("stopping after the step in hand");
        // Whoever is impatient changes nothing.
        rotation.signal(Signal::TERM);
        rotation.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(300));
        lab.clear_faults();
        let run = rotation.stops();
        let open: Vec<_> = steps(&lab, &run).into_iter().filter(|(_, status)| status != "waiting").collect();
        let done = |step: &str| (step.to_owned(), "done".to_owned());
        assert_eq!(open, [done("check"), done("stage")]);
        assert_eq!(lab.password("dev"), old);
        let out = std::fs::read_to_string(lab.state_folder().with_file_name("out")).unwrap();
        assert!(out.contains(&format!("or call it off: pgrotate abort {run}\n")), "{out}");
        let said = lab.pgrotate(&["rotate", "dev"]).text();
        assert!(said.contains(&format!("pgrotate resume {run}")), "{said}");
        lab.pgrotate(&["resume", &run]).exits(0);
        lab.everything_is_new("dev", &old);
    }
}

#[test]
fn past_the_point_of_no_return_it_finishes_what_is_in_hand() {
    let lab = Lab::new("dev");
    let old = lab.password("dev");
    lab.fault(&json!({ "method": "PUT", "path_contains": "/secrets/database-url", "when": "after", "kind": "hold" }));
    let rotation = Rotation::start(&lab, &["rotate", "dev"]);
    held(&lab);
    rotation.signal(Signal::INT);
    rotation.says("stopping after the step in hand");
    rotation.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    lab.clear_faults();
    let run = rotation.stops();
    let steps = steps(&lab, &run);
    assert!(steps.contains(&("publish/azure_key_vault:database-url".into(), "done".into())), "{steps:?}");
    for (step, status) in &steps {
        assert_ne!(status, "in flight", "{step} was left");
        let later = ["activate/azure_app_service:", "verify/azure_key_vault:database-url", "record/"];
        assert!(!later.iter().any(|later| step.starts_with(later)) || status == "waiting", "{step} began");
    }
    assert!(lab.pgrotate(&["abort"]).text().contains("point of no return"));
    lab.pgrotate(&["resume", &run]).exits(0);
    lab.everything_is_new("dev", &old);
}

#[test]
fn a_pause_before_the_next_try_is_not_waited_for() {
    let lab = Lab::new("dev");
    let old = lab.password("dev");
    lab.fault(&json!({ "method": "PUT", "path_contains": "/secrets/database-url", "when": "before",
        "kind": "status", "status": 429, "retry_after_s": 60, "times": 1000 }));
    let rotation = Rotation::start(&lab, &["rotate", "dev"]);
    rotation.says("again   publish/azure_key_vault:database-url");
    // The other copies are not what is waited for here.
    lab.wait_for("the other copies", || rotation.read("err").contains("publish/aws_secrets_manager"));
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    rotation.signal(Signal::TERM);
    let run = rotation.stops();
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    lab.clear_faults();
    lab.pgrotate(&["resume", &run]).exits(0);
    lab.everything_is_new("dev", &old);
}

#[test]
fn a_soak_is_left_at_once_and_resume_waits_for_the_rest() {
    let lab = Lab::new("dev,staging");
    let (old, staging) = (lab.password("dev"), lab.password("staging"));
    let rotation = Rotation::start(&lab, &["rotate", "dev", "staging", "--soak", "8s"]);
    rotation.says("wait    soak");
    let (began, asked) = (Instant::now(), Instant::now());
    rotation.signal(Signal::TERM);
    rotation.says("not begun: staging");
    let run = rotation.stops();
    assert!(asked.elapsed() < SOON, "it took {:?}", asked.elapsed());
    assert_eq!(lab.password("staging"), staging);
    lab.pgrotate(&["resume", &run]).exits(0);
    assert!(began.elapsed() >= Duration::from_secs(7), "the soak was cut short");
    lab.everything_is_new("dev", &old);
}
