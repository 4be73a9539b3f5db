//! SIGKILL at every write of a rotation, whose request arrives all the same, late: while the next process is about
//! to write the same, having seen that it is not there, or when that one is done.
//!
//! A vendor without idempotency keys then does twice what was asked for twice, with the same value: a second Key Vault
//! version, a second comment. Nobody can take back a request that is on its way. All else is promised as ever.

use std::thread;

use serde_json::{Value, json};

use super::{ONCE, Picture, TICKET, Twice, eventually, finish, nobody_is_locked_out, rotate, start};
use crate::lab::Lab;
use crate::requests::Request;

/// How many sandboxes share the writes.
const LANES: usize = 3;
const ENVIRONMENT: &str = "staging";

/// When the late request arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arrival {
    /// When the next process has looked and is about to write the same.
    Amid,
    /// When the next process is done.
    Afterwards,
}

/// A write: what a fault has to match, and the how many-th such request it is.
#[derive(Debug)]
struct Write {
    fits: Value,
    nth: usize,
}

impl Write {
    /// The writes among a rotation's recorded requests.
    fn all(recorded: &[Value]) -> Vec<Self> {
        let fits = |request: &Value| {
            let operation = Request::operation(request);
            let path = request["path"].as_str().unwrap();
            let asked = if operation.is_empty() { path } else { operation };
            json!({ "system": request["system"], "method": request["method"], "path_contains": asked })
        };
        let writes = recorded.iter().enumerate().filter(|(_, request)| Request::of(request).writes);
        writes
            .map(|(place, request)| {
                let fits_too = |other: &&Value| fits(other) == fits(request);
                Self { fits: fits(request), nth: recorded[..=place].iter().filter(fits_too).count() }
            })
            .collect()
    }

    /// Holds the how many-th request of this kind.
    fn hold(&self, lab: &Lab, nth: usize, late: bool) {
        let mut fault = self.fits.clone();
        fault["nth"] = nth.into();
        fault["when"] = "before".into();
        fault["kind"] = "hold".into();
        fault["late"] = late.into();
        lab.fault(&fault);
    }
}

/// Whether so many requests are held.
fn held(lab: &Lab, mark: u64, count: usize) -> bool {
    lab.requests_after(mark).iter().filter(|entry| entry["held"] == true).count() >= count
}

fn arrives_late(lab: &Lab, write: &Write, arrival: Arrival) {
    let (before, mark) = (Picture::take(lab, ENVIRONMENT), lab.last_request());
    write.hold(lab, write.nth, true);
    let mut process = rotate(lab, ENVIRONMENT);
    eventually("a write that is held", || held(lab, mark, 1).then_some(()));
    process.kill().unwrap();
    let _ = finish(process);
    nobody_is_locked_out(lab, ENVIRONMENT);

    if arrival == Arrival::Amid {
        write.hold(lab, 1, false);
    }
    let mut process = start(lab, &["resume"]);
    eventually("the next process", || {
        (held(lab, mark, 2) || process.try_wait().unwrap().is_some()).then_some(())
    });
    lab.clear_faults();
    let run = finish(process);
    let text = run.text();
    run.exits(0);
    eventually("the late request", || {
        lab.requests_after(mark)
            .iter()
            .all(|entry| !entry["status"].is_null() || entry["fault"].is_null())
            .then_some(())
    });
    println!("{arrival:?}: {} {} number {}", write.fits["method"], write.fits["system"], write.nth);
    before.is_renewed(lab, Twice { versions: 2, comments: 2, ..ONCE });
    nothing_is_left(lab, &text);
}

/// What came after the end of its run may lie in the vault of record, and is dropped as the next check says.
fn nothing_is_left(lab: &Lab, text: &str) {
    let check = lab.pgrotate(&["check", ENVIRONMENT, "--ticket", TICKET]);
    if check.0.status.code() == Some(0) {
        return;
    }
    let run = text.split_whitespace().find(|word| word.starts_with("01M")).unwrap();
    assert!(check.text().contains(&format!("pgrotate abort {run}")), "{}", check.text());
    lab.pgrotate(&["abort", run]).exits(0);
    lab.pgrotate(&["check", ENVIRONMENT]).exits(0);
}

#[test]
fn a_write_that_arrives_after_its_senders_death_breaks_nothing() {
    let count = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                scope.spawn(move || {
                    let lab = Lab::recording(ENVIRONMENT).without_alembic();
                    finish(rotate(&lab, ENVIRONMENT)).exits(0);
                    let writes = Write::all(lab.get("/_sandbox/recording").as_array().unwrap());
                    let cases = writes.iter().flat_map(|write| {
                        [Arrival::Amid, Arrival::Afterwards].map(|arrival| (write, arrival))
                    });
                    for (write, arrival) in cases.skip(lane).step_by(LANES) {
                        arrives_late(&lab, write, arrival);
                    }
                    writes.len()
                })
            })
            .collect();
        let counts: Vec<usize> = lanes.into_iter().map(|lane| lane.join().unwrap()).collect();
        assert!(counts.iter().all(|count| *count == counts[0] && *count >= 12), "{counts:?}");
        counts[0]
    });
    println!("{count} writes, each arriving late in two ways");
}
