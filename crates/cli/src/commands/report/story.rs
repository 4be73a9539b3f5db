//! A run as its evidence tells it. Read from the signed lines and from nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pgrotate_core::journal::{Effect, Event, Outcome, Record};
use pgrotate_core::plan::Action;
use pgrotate_core::provider::Severity;
use pgrotate_core::run::{RunState, StepState, StepStatus};
use pgrotate_core::{Error, Kind, Result, RunId, StepId};
use pgrotate_evidence::line::{self, Line};
use pgrotate_evidence::verify::{Failure, Proof};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::commands::{audit, history};
use crate::display;

/// What a person reads of a run.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    pub(super) run: String,
    pub(super) environment: String,
    pub(super) outcome: String,
    pub(super) title: String,
    pub(super) facts: Vec<Fact>,
    pub(super) copies: Vec<Copy>,
    pub(super) findings: Vec<Finding>,
    pub(super) steps: Vec<Step>,
    /// How long the run took, in milliseconds; what the steps' places count in.
    pub(super) took_ms: u64,
    /// The longest time for which the applications can have been unable to log in: from and to.
    pub(super) window: Option<(u64, u64)>,
    /// Whether the evidence is what was written, in words.
    pub(super) integrity: String,
    pub(super) whole: bool,
    /// The keys that have signed, and the last line, for who verifies elsewhere.
    pub(super) signers: Vec<String>,
    pub(super) lines: (u64, u64),
}

#[derive(Debug, Serialize)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Copy {
    pub(super) id: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) written: String,
    pub(super) read_back: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) severity: String,
    pub(super) subject: String,
    pub(super) what: String,
    pub(super) why: Option<String>,
    pub(super) mend: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) tries: u32,
    /// How long after the run's begin it was begun, and how long it took, in words.
    pub(super) after: String,
    pub(super) took: String,
    /// The same in milliseconds.
    pub(super) from_ms: u64,
    pub(super) for_ms: u64,
    pub(super) outcome: String,
    pub(super) notes: Vec<String>,
    /// What its outcome says beside, by name.
    pub(super) more: Vec<Fact>,
    pub(super) failures: Vec<String>,
    pub(super) requests: Vec<Request>,
}

#[derive(Debug, Serialize)]
pub(super) struct Request {
    pub(super) system: String,
    pub(super) what: String,
    pub(super) id: String,
}

/// One run's lines.
#[derive(Default)]
struct Lines {
    records: Vec<Record>,
    /// The same as JSON: a newer program may have written more than this one reads.
    raw: Vec<Value>,
    /// When parts were signed, by whom, and whether late.
    seals: Vec<(String, Option<line::Author>, bool)>,
    first: u64,
    last: u64,
}

impl Story {
    /// Reads a run; gives nothing if the file has nothing of it.
    ///
    /// # Errors
    /// When its lines can't be read, or are no run.
    pub(super) fn read(run: RunId, file: &[u8], proof: &Result<Proof, Failure>) -> Result<Option<Self>> {
        let lines = Lines::of(run, file)?;
        if lines.records.is_empty() {
            return Ok(None);
        }
        let state = RunState::fold(run, &lines.records)?;
        let (integrity, whole) = integrity(proof, &state);
        let outcome = history::standing(&state, None);
        let environment = state.plan().environment.to_string();
        let began = state.started_at;
        let window = window(&state);
        Ok(Some(Self {
            run: run.to_string(),
            title: format!("{environment}: {outcome}, run {run}"),
            facts: facts(&state, &lines),
            copies: copies(&state),
            findings: findings(&state),
            steps: state.steps().map(|(step, story)| lines.step(&step.id, story, began)).collect(),
            took_ms: since(began, state.moved_at),
            window,
            signers: proof.as_ref().map(|proof| proof.signers.iter().cloned().collect()).unwrap_or_default(),
            lines: (lines.first, lines.last),
            environment,
            outcome,
            integrity,
            whole,
        }))
    }
}

impl Lines {
    fn of(run: RunId, file: &[u8]) -> Result<Self> {
        let (name, mut lines) = (run.to_string(), Self::default());
        for line in file.split(|byte| *byte == b'\n').filter_map(Line::parse).filter(|line| line.run == name)
        {
            if lines.first == 0 {
                lines.first = line.line;
            }
            lines.last = line.line;
            if let Some(record) = line.record {
                let read = |_| {
                    Error::new(Kind::BadState, format!("read the evidence of the run {run}"))
                        .because(format!("its line {} is not what this version writes", line.line))
                        .hint("`pgrotate audit verify` tells whether it was changed")
                };
                lines.records.push(serde_json::from_str(record.get()).map_err(read)?);
                lines.raw.push(serde_json::from_str(record.get()).map_err(read)?);
            } else {
                lines.seals.push((line.at.unwrap_or_default().into_owned(), line.by, line.late));
            }
        }
        Ok(lines)
    }

    fn step(&self, id: &StepId, story: &StepState, began: Timestamp) -> Step {
        let from_ms = story.started_at.map_or(0, |from| since(began, from));
        let last = self.records.iter().rev().find(|record| names(&record.event, id)).map(|record| record.at);
        let for_ms = story.started_at.zip(story.finished_at.or(last)).map_or(0, |(from, to)| since(from, to));
        let failures = self.records.iter().filter_map(|record| match &record.event {
            Event::StepFailed { step, error } if step == id => Some(error.to_string()),
            _ => None,
        });
        let (outcome, notes) = match (&story.outcome, story.status) {
            (Some(outcome), _) => (in_words(outcome), outcome.notes.clone()),
            (None, StepStatus::Waiting) => (String::new(), Vec::new()),
            (None, _) => (story.error.as_ref().map(ToString::to_string).unwrap_or_default(), Vec::new()),
        };
        let begun = story.started_at.is_some();
        let failed = self.records.iter().filter_map(|record| match &record.event {
            Event::StepFailed { step, error } if step == id => Some(error.requests()),
            _ => None,
        });
        let done = story.outcome.as_ref().map(|outcome| outcome.requests.as_slice());
        let requests = failed.chain(done).flatten().map(|own| Request {
            system: own.system.clone(),
            what: own.what.clone(),
            id: own.id.clone(),
        });
        Step {
            id: id.to_string(),
            status: history::word(story.status).to_owned(),
            tries: story.attempts,
            after: if begun { format!("+{}", words(from_ms)) } else { String::new() },
            took: if begun { words(for_ms) } else { String::new() },
            from_ms,
            for_ms,
            outcome,
            notes,
            more: self.more(id),
            failures: failures.collect(),
            requests: requests.collect(),
        }
    }

    /// What a step's outcome says beside what this version knows.
    fn more(&self, id: &StepId) -> Vec<Fact> {
        const KNOWN: [&str; 9] = [
            "effect",
            "version",
            "fingerprint",
            "previous",
            "before",
            "effect_at",
            "notes",
            "findings",
            "requests",
        ];
        let finished = |raw: &&Value| {
            let event = &raw["event"];
            event["event"] == "step_finished" && event["step"] == id.as_str()
        };
        let last = self.raw.iter().rev().find(finished).and_then(|raw| raw["event"]["outcome"].as_object());
        last.map(|outcome| beside(outcome, &KNOWN)).unwrap_or_default()
    }
}

/// The members of an object that are none of these, each by its name; of a table of names, each one.
fn beside(object: &Map<String, Value>, known: &[&str]) -> Vec<Fact> {
    let strange = object.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    let facts = strange.flat_map(|(name, value)| {
        let name = name.replace('_', " ");
        match value {
            Value::Object(all) => all
                .iter()
                .map(|(own, value)| Fact { name: format!("{name}: {own}"), value: plain(value) })
                .collect(),
            value => vec![Fact { name, value: plain(value) }],
        }
    });
    facts.collect()
}

/// A value for a person to read.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(all) => {
            all.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

fn names(event: &Event, id: &StepId) -> bool {
    pgrotate_core::run::step_move(event).is_some_and(|(step, _)| step == id)
}

fn integrity(proof: &Result<Proof, Failure>, state: &RunState) -> (String, bool) {
    match proof {
        Ok(proof) => match proof.runs.get(&state.run.to_string()) {
            Some(ended) => {
                let words = format!(
                    "evidence: {} entries as they were written, signed by {}; line {} of the log",
                    ended.entries, ended.signer, ended.line
                );
                (words, true)
            }
            None => ("the evidence of the run has no signed end".to_owned(), false),
        },
        Err(Failure::Broken(broken)) => {
            (format!("the evidence is not what was written: {}", audit::at(broken)), false)
        }
        Err(Failure::Io(error)) => (format!("the evidence can't be read: {}", error.kind()), false),
    }
}

fn facts(state: &RunState, lines: &Lines) -> Vec<Fact> {
    const KNOWN: [&str; 6] = ["event", "plan", "generation", "operator", "ticket", "version"];
    let (start, plan) = (&state.start, state.plan());
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: String| facts.push(Fact { name: name.to_owned(), value });
    fact("operator", start.operator.clone());
    start.ticket.iter().for_each(|ticket| fact("ticket", ticket.clone()));
    for (at, by, late) in &lines.seals {
        let by = by.as_ref().map(|by| format!("{} on {}, pgrotate {}", by.user, by.host, by.version));
        let late = if *late { ", later than the run, from its journal" } else { "" };
        fact("written and signed", format!("{} by {}{late}", at, by.unwrap_or_default()));
    }
    fact("environment", plan.environment.to_string());
    fact("target", plan.target.clone());
    fact("authority", plan.authority.clone());
    fact("vault of record", plan.vault.to_string());
    plan.back().iter().for_each(|back| fact("takes back", back.run.to_string()));
    fact("plan", plan.hash().to_string());
    fact("pgrotate", start.version.clone());
    fact("began", state.started_at.to_string());
    moments(lines).into_iter().for_each(|(name, at)| fact(name, at.to_string()));
    fact("took", words(since(state.started_at, state.moved_at)));
    let window = state.window().map_or_else(
        || "unseen: no check has told when the applications could log in again".to_owned(),
        |window| format!("the applications {}", display::window(&window)),
    );
    if state.past_point_of_no_return() {
        fact("outage window", window);
    }
    let marks = state.outcome_of("stage");
    let mark = |mark: Option<&pgrotate_core::Fingerprint>| mark.map(ToString::to_string);
    mark(marks.and_then(|own| own.previous.as_ref()))
        .into_iter()
        .for_each(|own| fact("fingerprint before", own));
    mark(marks.and_then(|own| own.fingerprint.as_ref()))
        .into_iter()
        .for_each(|own| fact("fingerprint after", own));
    let start = lines.raw.first().and_then(|raw| raw["event"].as_object());
    facts.extend(start.map(|start| beside(start, &KNOWN)).unwrap_or_default());
    facts
}

/// What happened to the run as a whole.
fn moments(lines: &Lines) -> Vec<(&'static str, Timestamp)> {
    let moment = |record: &Record| {
        let name = match &record.event {
            Event::RunResumed { .. } => "resumed",
            Event::RunParked => "parked",
            Event::AbortStarted { asked: true } => "called off",
            Event::AbortStarted { asked: false } => "given up",
            Event::RunFinished { .. } => "ended",
            _ => return None,
        };
        Some((name, record.at))
    };
    lines.records.iter().filter_map(moment).collect()
}

fn copies(state: &RunState) -> Vec<Copy> {
    let before = state.outcome_of("check").map(|outcome| outcome.before.clone()).unwrap_or_default();
    let verified: BTreeMap<_, _> = state
        .steps()
        .filter_map(|(step, story)| match &step.action {
            Action::VerifyCopy { copy } => Some((copy.clone(), story)),
            _ => None,
        })
        .collect();
    let row = |id: &pgrotate_core::CopyId, written: &StepState, read_back: Option<&&StepState>| {
        let version = written.outcome.as_ref().and_then(|outcome| outcome.version.as_ref());
        Copy {
            id: id.to_string(),
            before: before.get(id).map(ToString::to_string).unwrap_or_default(),
            after: version.map(ToString::to_string).unwrap_or_default(),
            written: standing(written),
            read_back: read_back.map(|story| proof(story)).unwrap_or_default(),
        }
    };
    let rows = state.steps().filter_map(|(step, story)| match &step.action {
        Action::Promote => Some(row(&state.plan().vault, story, None)),
        Action::Publish { copy } => Some(row(copy, story, verified.get(copy))),
        _ => None,
    });
    rows.collect()
}

fn standing(story: &StepState) -> String {
    match (story.status, &story.outcome) {
        (StepStatus::Done, Some(outcome)) => display::effect(outcome.effect).to_owned(),
        (StepStatus::Parked, _) => "parked".to_owned(),
        _ => "not written".to_owned(),
    }
}

fn proof(story: &StepState) -> String {
    match (story.status, &story.outcome) {
        (StepStatus::Done, Some(Outcome { effect: Effect::Unseen, .. })) => "unseen".to_owned(),
        (StepStatus::Done, _) => "current".to_owned(),
        (StepStatus::Parked, _) => "parked".to_owned(),
        _ => "not read".to_owned(),
    }
}

fn findings(state: &RunState) -> Vec<Finding> {
    let all = state.steps().filter_map(|(_, story)| story.outcome.as_ref()).flat_map(|own| &own.findings);
    all.map(|own| Finding {
        severity: severity(own.severity).to_owned(),
        subject: own.subject.clone(),
        what: own.what.clone(),
        why: own.why.clone(),
        mend: own.mend.clone(),
    })
    .collect()
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Unseen => "unseen",
        Severity::Warning => "warning",
        Severity::Blocks => "blocks",
    }
}

/// An outcome without its notes.
fn in_words(outcome: &Outcome) -> String {
    let version = outcome.version.as_ref().map(|version| format!("version {version}"));
    [display::effect(outcome.effect).to_owned()].into_iter().chain(version).collect::<Vec<_>>().join(", ")
}

/// From the start of `install` to the last proof that an application can log in, in milliseconds of the run.
fn window(state: &RunState) -> Option<(u64, u64)> {
    let length = state.window_ms().filter(|length| *length > 0)?;
    let from = since(state.started_at, state.step(&StepId::from("install")).started_at?);
    Some((from, from + length))
}

fn since(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

fn words(millis: u64) -> String {
    display::seconds(Duration::from_millis(millis))
}
