//! SIGKILL at every request of a rotation, before its effect and after it.
//!
//! The n-th request is held, and so is all that comes after it, so that the world is exactly as the first requests
//! have left it. Requests of steps that run side by side change places from run to run: in the end each request of a
//! clean rotation has to have been held once, and those that numbers alone have missed are held by name.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ONCE, Picture, Twice, eventually, finish, nobody_is_locked_out, rotate};
use crate::lab::Lab;
use crate::requests::steady;

/// How many sandboxes share the boundaries of a test.
const LANES: usize = 3;

/// More requests than any rotation makes.
const ALL: u32 = 100_000;

/// A request, so that it is known again in another run: who is asked what, and for the how many-th time.
type Name = (String, usize);

/// Where a rotation is cut off.
#[derive(Debug)]
enum Boundary {
    /// At its n-th request, counted from 1.
    Numbered(usize),
    /// At a request that fits, for the how many-th time.
    Named { entry: Value, nth: usize },
}

/// What came of a rotation that was to be cut off.
enum Cut {
    /// It was held at this request, and killed there.
    Killed { name: Name, aside: Aside },
    /// It has no such request, and came to its end. These are its requests.
    Finished(Vec<Value>),
}

/// What is known of a death.
struct Aside {
    /// The server had been asked to change its password.
    server_asked: bool,
    /// The on-call message was on its way and never arrived.
    message_lost: bool,
}

/// The numbers that one lane takes.
fn numbers(lane: usize) -> impl Iterator<Item = usize> {
    (lane + 1..).step_by(LANES)
}

/// What a request is about, in every run and in every sandbox.
fn about(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let host = text("host").split(['.', ':']).next().unwrap().to_owned();
    format!("{} {} {host}{} {}", text("system"), text("method"), steady(&text("path")), text("operation"))
}

/// The request at this place of a rotation. How often a running operation is asked about depends on the hour.
fn name(entries: &[Value], place: usize) -> Name {
    let own = about(&entries[place]);
    let count = entries[..=place].iter().filter(|entry| about(entry) == own).count();
    let count = if own.contains("azureAsyncOperation") { 1 } else { count };
    (own, count)
}

/// The part of a request's path that a fault can be set for.
fn path(entry: &Value) -> &str {
    let path = entry["path"].as_str().unwrap();
    let path = path.split("***").next().unwrap();
    path.find("azureAsyncOperation").map_or(path, |end| &path[..end + "azureAsyncOperation".len()])
}

impl Boundary {
    /// The same request in a lane's own sandbox, as its clean rotation made it.
    fn named(clean: &[Value], wanted: &Name) -> Self {
        let place = (0..clean.len()).find(|place| name(clean, *place) == *wanted).unwrap();
        let entry = clean[place].clone();
        let fits = |other: &&Value| {
            other["system"] == entry["system"]
                && other["method"] == entry["method"]
                && (other["path"].as_str().unwrap().contains(path(&entry)))
                && (entry["operation"].is_null() || other["operation"] == entry["operation"])
        };
        let nth = clean[..=place].iter().filter(fits).count();
        Self::Named { entry, nth }
    }

    /// Sets the faults that hold a rotation here.
    fn arm(&self, lab: &Lab, when: &str) {
        match self {
            Self::Numbered(number) => {
                lab.fault(&json!({ "nth": number, "when": when, "kind": "hold" }));
                lab.fault(&json!({ "nth": number + 1, "times": ALL, "when": "before", "kind": "hold" }));
            }
            Self::Named { entry, nth } => {
                let asked = entry["operation"].as_str().unwrap_or(path(entry));
                lab.fault(
                    &json!({ "system": entry["system"], "method": entry["method"], "path_contains": asked,
                    "nth": nth, "when": when, "kind": "hold" }),
                );
            }
        }
    }
}

/// The place of the request that is held at a boundary, once it is: the first that the faults have hit. Of a process
/// that died before this one something may still have come in.
fn held(entries: &[Value]) -> Option<usize> {
    let hit = |entry: &Value| entry["fault"] == "hold" && entry["abandoned"].is_null();
    let place = entries.iter().position(hit)?;
    (entries[place]["held"] == true).then_some(place)
}

/// Lets a rotation run into a boundary, and kills it there.
fn cut(lab: &Lab, environment: &str, boundary: &Boundary, when: &str) -> Cut {
    let mark = lab.last_request();
    boundary.arm(lab, when);
    let mut process = rotate(lab, environment);
    let place = eventually("a request that is held", || {
        let held = held(&lab.requests_after(mark));
        if held.is_none() && process.try_wait().unwrap().is_some() {
            return Some(None);
        }
        held.map(Some)
    });
    if place.is_some() {
        // What else is on its way is held as well.
        thread::sleep(Duration::from_millis(20));
        process.kill().unwrap();
    }
    let run = finish(process);
    let Some(place) = place else {
        run.exits(0);
        lab.clear_faults();
        return Cut::Finished(lab.requests_after(mark));
    };
    // A request whose caller has died never arrives; only then may the faults go.
    eventually("the sandbox to notice the death", || {
        lab.requests_after(mark).iter().all(|entry| entry["held"].is_null()).then_some(())
    });
    lab.clear_faults();
    let entries = lab.requests_after(mark);
    let carried_out = |at: usize, entry: &Value| entry["fault"].is_null() || (when == "after" && at == place);
    let any = |wanted: &dyn Fn(usize, &Value) -> bool| {
        entries.iter().enumerate().any(|(at, entry)| wanted(at, entry))
    };
    let aside = Aside {
        server_asked: any(&|at, entry| {
            carried_out(at, entry) && entry["method"] == "PATCH" && entry["system"] == "resource_manager"
        }),
        message_lost: any(&|at, entry| !carried_out(at, entry) && entry["system"] == "webhook"),
    };
    Cut::Killed { name: name(&entries, place), aside }
}

/// Goes on after a death, or calls the run off where that is still possible; tells which.
fn converge(lab: &Lab, before: &Picture, aside: &Aside, call_off: bool) -> bool {
    nobody_is_locked_out(lab, &before.environment);
    if call_off {
        let run = lab.pgrotate(&["abort"]);
        if run.0.status.code() == Some(0) {
            assert!(!aside.server_asked, "the server may have the new password: {}", run.text());
            before.is_unchanged(lab);
            return true;
        }
        assert!(run.text().contains("point of no return"), "{}", run.text());
        let _ = run.exits(3);
    }
    let run = lab.pgrotate(&["resume"]);
    let text = run.text();
    run.exits(0);
    if aside.message_lost {
        assert!(text.contains("unseen  record/on-call"), "{text}");
    }
    let messages = usize::from(!aside.message_lost);
    before.is_renewed(lab, Twice { messages: messages..=messages, ..ONCE });
    false
}

/// One sandbox with its share of the boundaries.
struct Lane {
    lab: Lab,
    environment: &'static str,
    when: &'static str,
    held: BTreeSet<Name>,
    clean: Vec<Value>,
    called_off: usize,
}

impl Lane {
    fn new(environment: &'static str, when: &'static str) -> Self {
        let lab = Lab::new(environment).without_alembic();
        Self { lab, environment, when, held: BTreeSet::new(), clean: Vec::new(), called_off: 0 }
    }

    /// Cuts a rotation off and lets it converge; without such a request the rotation is a clean one.
    fn take(&mut self, boundary: &Boundary, call_off: bool) {
        let before = Picture::take(&self.lab, self.environment);
        match cut(&self.lab, self.environment, boundary, self.when) {
            Cut::Killed { name, aside } => {
                self.called_off += usize::from(converge(&self.lab, &before, &aside, call_off));
                self.held.insert(name);
            }
            Cut::Finished(entries) => {
                before.is_renewed(&self.lab, ONCE);
                self.clean = entries;
            }
        }
    }

    /// Every number of the lane's, until a rotation ends without having been held.
    fn run(&mut self, lane: usize) {
        for (turn, number) in numbers(lane).enumerate() {
            let parity = usize::from(self.when == "after");
            self.take(&Boundary::Numbered(number), turn % 2 == parity);
            if !self.clean.is_empty() {
                assert!(
                    self.clean.len() < number,
                    "a rotation of {} requests was not held",
                    self.clean.len()
                );
                return;
            }
        }
    }

    /// Those that numbers alone have missed.
    fn run_named(&mut self, wanted: &[Name]) {
        for wanted in wanted {
            let boundary = Boundary::named(&self.clean, wanted);
            self.take(&boundary, false);
            assert!(self.held.contains(wanted), "{boundary:?} was not met");
        }
    }

    /// The requests of its clean rotation.
    fn requests(&self) -> BTreeSet<Name> {
        (0..self.clean.len()).map(|place| name(&self.clean, place)).collect()
    }
}

fn every_boundary(environment: &'static str, when: &'static str) {
    let mut lanes: Vec<Lane> = Vec::new();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..LANES)
            .map(|place| {
                scope.spawn(move || {
                    let mut lane = Lane::new(environment, when);
                    lane.run(place);
                    lane
                })
            })
            .collect();
        lanes.extend(starts.into_iter().map(|lane| lane.join().unwrap()));
    });
    let held: BTreeSet<Name> = lanes.iter().flat_map(|lane| lane.held.clone()).collect();
    let all: BTreeSet<Name> = lanes.iter().flat_map(Lane::requests).collect();
    let missed: Vec<Name> = all.difference(&held).cloned().collect();
    thread::scope(|scope| {
        for (place, lane) in lanes.iter_mut().enumerate() {
            let own = lane.requests();
            let wanted: Vec<Name> = missed
                .iter()
                .enumerate()
                .filter(|(number, name)| number % LANES == place && own.contains(name))
                .map(|(_, name)| name.clone())
                .collect();
            scope.spawn(move || lane.run_named(&wanted));
        }
    });
    let held: BTreeSet<Name> = lanes.iter().flat_map(|lane| lane.held.clone()).collect();
    let open: Vec<&Name> = all.difference(&held).collect();
    assert!(open.is_empty(), "never held: {open:?}");
    assert!(lanes.iter().all(|lane| lane.called_off > 0), "no run was called off");
    println!(
        "{environment}, {when} the effect: {} requests, each held and killed at; {} of them by name; {} runs called off",
        all.len(),
        missed.len(),
        lanes.iter().map(|lane| lane.called_off).sum::<usize>()
    );
}

#[test]
fn killed_before_any_request_takes_effect_it_converges() {
    every_boundary("dev", "before");
}

#[test]
fn killed_after_any_request_took_effect_it_converges() {
    every_boundary("prod", "after");
}

#[test]
fn the_lanes_together_take_every_number_once() {
    let mut taken: Vec<usize> = (0..LANES).flat_map(|lane| numbers(lane).take(100)).collect();
    taken.sort_unstable();
    assert_eq!(taken, (1..=100 * LANES).collect::<Vec<_>>());
}
