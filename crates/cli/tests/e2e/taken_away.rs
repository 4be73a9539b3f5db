//! Each thing that a rotation needs is taken away, one at a time. `check` names it, a rotation is refused for what
//! blocks, and nothing has changed. A case is one line of a table; there is a table for each group of systems.

mod azure;
mod others;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::requests::Request;

/// What was taken away is put back.
type Back = Box<dyn FnOnce(&Lab)>;
/// Takes something away and gives what puts it back.
type Away = Box<dyn Fn(&Lab) -> Back>;

/// One thing that is taken away, and what has to be said of it.
struct Case {
    name: &'static str,
    away: Vec<Away>,
    said: Vec<Said>,
}

/// A finding, as `check --json` has to print it: exactly this subject and severity, and these words in its text.
struct Said {
    severity: &'static str,
    subject: &'static str,
    words: &'static str,
}

impl Said {
    fn fits(&self, finding: &Value) -> bool {
        text(finding, "subject") == self.subject
            && text(finding, "severity") == self.severity
            && format!("{} {}", text(finding, "what"), text(finding, "why")).contains(self.words)
    }
}

/// A line of a table.
fn case<const N: usize>(name: &'static str, away: Away, said: [Said; N]) -> Case {
    Case { name, away: vec![away], said: said.into() }
}

impl Case {
    /// Takes something more away, before the rest.
    fn with(mut self, first: Away) -> Self {
        self.away.insert(0, first);
        self
    }

    fn blocks(&self) -> bool {
        self.said.iter().any(|said| said.severity == "blocks")
    }
}

/// A finding for which a rotation is refused.
fn blocks(subject: &'static str, words: &'static str) -> Said {
    Said { severity: "blocks", subject, words }
}

/// A finding that a person should look at.
fn warning(subject: &'static str, words: &'static str) -> Said {
    Said { severity: "warning", subject, words }
}

/// Something that can't be known.
fn unseen(subject: &'static str, words: &'static str) -> Said {
    Said { severity: "unseen", subject, words }
}

/// Something that is good to know.
fn note(subject: &'static str, words: &'static str) -> Said {
    Said { severity: "note", subject, words }
}

/// A vendor's state, as the sandbox's control knows it (`vendors/control.rs`), and the one that it has otherwise.
fn state(system: &'static str, what: &'static str, bad: Value, good: Value) -> Away {
    Box::new(move |lab| {
        lab.set(system, what, &bad);
        let good = good.clone();
        Box::new(move |lab| lab.set(system, what, &good))
    })
}

/// A vendor that answers requests of this kind so, whatever is asked: `{"system", "path_contains", "status", "code"}`.
fn answer(mut fault: Value) -> Away {
    for (name, value) in [("when", json!("before")), ("kind", json!("status")), ("times", json!(u32::MAX))] {
        fault.as_object_mut().unwrap().entry(name).or_insert(value);
    }
    Box::new(move |lab| {
        lab.fault(&fault);
        Box::new(Lab::clear_faults)
    })
}

/// A file in the sandbox's folder, with another text.
fn file(path: &'static str, change: fn(&str) -> String) -> Away {
    Box::new(move |lab| {
        let path = lab.world().join(path);
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "{} stays as it is", path.display());
        std::fs::write(&path, changed).unwrap();
        Box::new(move |_| std::fs::write(&path, &text).unwrap())
    })
}

/// The configuration with one more table at its end, in which `{subscription}` and `{env}` mean what they always do.
fn configured(table: &'static str) -> Away {
    Box::new(move |lab| {
        let path = lab.config();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{table}\n")).unwrap();
        Box::new(move |_| std::fs::write(&path, &text).unwrap())
    })
}

/// Anything else: how it is taken away, and how it is put back.
fn other(take: fn(&Lab), give: fn(&Lab)) -> Away {
    Box::new(move |lab| {
        take(lab);
        Box::new(give)
    })
}

/// Goes through a table, with one sandbox for all of it, and without what takes longer than all the rest: the check by
/// a command, and counting for a second who is logged in.
fn play(cases: Vec<Case>) {
    let lab = Lab::recording("dev").without_alembic();
    let text = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), format!("{text}\n[census]\nwindow = \"0s\"\n")).unwrap();
    play_in(&lab, cases);
}

/// Goes through a table in a sandbox that records.
fn play_in(lab: &Lab, cases: Vec<Case>) {
    let whole = steady(findings(lab, 0, "nothing is taken away"));
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.name;
        for said in &case.said {
            let always = whole.iter().any(|finding| said.fits(finding));
            assert!(!always, "{name}: {} {:?} is always said", said.subject, said.words);
        }
        wrong.extend(take_away(lab, case).into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(steady(findings(lab, 0, "everything is back")), whole, "something was not put back");
}

/// Without what depends on the moment: an application that is just restarting is not logged in.
fn steady(findings: Vec<Value>) -> Vec<Value> {
    findings
        .into_iter()
        .filter(|finding| !text(finding, "what").contains("no session of it was seen"))
        .collect()
}

/// Plays one case; gives what was not as it should be.
fn take_away(lab: &Lab, case: Case) -> Vec<String> {
    let backs: Vec<Back> = case.away.iter().map(|away| away(lab)).collect();
    let (before, last) = (held(lab), lab.last_request());
    let mut wrong = Vec::new();
    let check = lab.pgrotate(&["--json", "check", "dev"]);
    let (status, expected) = (check.0.status.code(), i32::from(case.blocks()));
    if status != Some(expected) {
        wrong.push(format!("check exits {status:?}, not {expected}: {}", check.text()));
    }
    let found = of_event(&check.0.stdout);
    wrong.extend(compare(&case, &found));
    if case.blocks() {
        let rotate = lab.pgrotate(&["rotate", "dev", "--yes"]);
        if rotate.0.status.code() != Some(1) {
            wrong.push(format!("rotate exits {:?}: {}", rotate.0.status.code(), rotate.text()));
        }
        let reason = case.said.iter().find(|said| said.severity == "blocks").map_or("", |said| said.words);
        if !rotate.text().contains(reason) {
            wrong.push(format!("rotate does not say why it is refused: {}", rotate.text()));
        }
    }
    let written: Vec<Value> = lab.recording_after(last);
    let written: Vec<Request> = written.iter().map(Request::of).filter(|request| request.writes).collect();
    if !written.is_empty() {
        wrong.push(format!("something was written: {written:#?}"));
    }
    // Without the difference, which has passwords in it.
    if held(lab) != before {
        wrong.push("something has changed".to_owned());
    }
    for back in backs.into_iter().rev() {
        back(lab);
    }
    wrong
}

/// What was expected and not said, and what blocks and was not expected.
fn compare(case: &Case, found: &[Value]) -> Vec<String> {
    let missing = case.said.iter().filter(|said| !found.iter().any(|finding| said.fits(finding)));
    let missing = missing.map(|said| {
        format!("not said: {} {} {:?}; found {found:#?}", said.severity, said.subject, said.words)
    });
    let surplus = found.iter().filter(|finding| {
        text(finding, "severity") == "blocks" && !case.said.iter().any(|said| said.fits(finding))
    });
    let surplus = surplus.map(|finding| format!("blocks too: {finding:#}"));
    let unhelpful = found.iter().filter(|finding| {
        case.said.iter().any(|said| said.severity == "blocks" && said.fits(finding))
            && text(finding, "mend").is_empty()
    });
    let unhelpful = unhelpful.map(|finding| format!("nothing to do about it: {finding:#}"));
    missing.chain(surplus).chain(unhelpful).collect()
}

/// What `check --json` finds.
fn findings(lab: &Lab, status: i32, when: &str) -> Vec<Value> {
    let check = lab.pgrotate(&["--json", "check", "dev"]);
    assert_eq!(check.0.status.code(), Some(status), "{when}: {}", check.text());
    of_event(&check.0.stdout)
}

fn of_event(stdout: &[u8]) -> Vec<Value> {
    let event: Value = serde_json::from_slice(stdout).unwrap_or_default();
    event["detail"]["findings"].as_array().cloned().unwrap_or_default()
}

fn text<'v>(finding: &'v Value, name: &str) -> &'v str {
    finding[name].as_str().unwrap_or_default()
}

/// Everything that the sandbox holds, without the starts of the application: a setting that a case changes restarts
/// it in the background, and a restart that the program asks for is among the requests.
fn held(lab: &Lab) -> Value {
    let mut state = lab.state();
    for name in ["app", "sites"] {
        state["dev"].as_object_mut().unwrap().remove(name);
    }
    state
}
