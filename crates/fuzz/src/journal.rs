//! Any text as the lines of a run's journal, and any sequence of events as a run: what begins with a brace is text, a
//! record a line, and everything else is choices.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgrotate_core::journal::{Event, FORMAT, Outcome, Record, RunOutcome, Start};
use pgrotate_core::lease::Generation;
use pgrotate_core::plan::{ConsumerOutline, CopyOutline, Outline, Plan, VerificationOutline};
use pgrotate_core::run::{Phase, RunState, StepStatus};
use pgrotate_core::strategy::in_place;
use pgrotate_core::{CopyId, Environment, Error, Kind, RunId, StepId};

/// Events of a run that is played: three times as many as a whole one has, so that an input takes no time.
const LONGEST: usize = 150;

/// What can't follow is refused and changes nothing; what follows is a run that keeps its rules.
pub fn journal(input: &[u8]) {
    match input.first() {
        Some(b'{') => decoded(input),
        Some(_) => played(input),
        None => {}
    }
}

fn run() -> RunId {
    "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("a run id")
}

fn decoded(input: &[u8]) {
    let mut records = Vec::new();
    for line in input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(record) = serde_json::from_slice::<Record>(line) else { continue };
        let text = serde_json::to_string(&record).expect("what was read can be written");
        let again: Record = serde_json::from_str(&text).expect("and read again");
        assert_eq!(again, record);
        assert_eq!(serde_json::to_string(&again).expect("and written again"), text);
        records.push(record);
    }
    let Some((first, rest)) = records.split_first() else { return };
    let Ok(mut state) = RunState::begin(run(), first) else { return };
    let mut kept = vec![first.clone()];
    rest.iter().for_each(|record| apply(&mut state, record.clone(), &mut kept));
    asked(&state, &kept);
}

/// A run of a whole plan, event by event; each byte or two choose what happens next.
fn played(input: &[u8]) {
    let plan = plan();
    let ids: Vec<StepId> = plan.steps.iter().map(|step| step.id.clone()).collect();
    let start = Start {
        plan,
        generation: Generation(1),
        operator: "fuzz".into(),
        ticket: None,
        overrides: Default::default(),
        version: "0".into(),
    };
    let first = record(0, Event::RunStarted(std::sync::Arc::new(start)));
    let mut state = RunState::begin(run(), &first).expect("a plan of a strategy begins a run");
    let mut kept = vec![first];
    for pair in input.chunks(2).take(LONGEST) {
        let (what, which) = (pair[0], usize::from(*pair.get(1).unwrap_or(&0)));
        let event = event(&state, what, &ids[which % ids.len()], which);
        // Now and then an entry is lost, or comes twice.
        let seq = if what >= 0xF0 { u64::from(what & 0xF) } else { state.next_seq };
        apply(&mut state, record(seq, event), &mut kept);
    }
    asked(&state, &kept);
}

fn record(seq: u64, event: Event) -> Record {
    let at = Timestamp::from_second(1_767_225_600 + i64::try_from(seq).unwrap_or(0)).expect("a time");
    Record { format: FORMAT, seq, at, event }
}

fn event(state: &RunState, what: u8, id: &StepId, which: usize) -> Event {
    let (step, error) = (id.clone(), || Error::new(Kind::Unreachable, "try"));
    match what % 16 {
        0..=3 => Event::StepStarted { attempt: state.step(id).attempts + 1, step },
        4 => Event::StepStarted { attempt: u32::from(what), step },
        5..=8 => Event::StepFinished { step, outcome: Box::new(Outcome::changed()) },
        9 => Event::StepFailed { step, error: error().unknown() },
        10 => Event::StepFailed { step, error: error() },
        11 => Event::StepParked { step },
        12 => Event::RunParked,
        13 => Event::AbortStarted { asked: which.is_multiple_of(2) },
        14 => Event::RunResumed { generation: Generation(state.generation.0 + which as u64 % 3) },
        _ => Event::RunFinished {
            outcome: [RunOutcome::Done, RunOutcome::Failed, RunOutcome::Aborted][which % 3],
        },
    }
}

fn plan() -> Plan {
    in_place::plan(&Outline {
        environment: Environment::from("dev"),
        target: "app@db".into(),
        authority: "server".into(),
        vault: CopyId::from("vault:one"),
        copies: ["store:one", "store:two"].map(|id| CopyOutline { id: id.into(), retire: true }).to_vec(),
        consumers: vec![ConsumerOutline {
            id: "app".into(),
            waits_for: vec!["store:one".into()],
            has_sessions: false,
        }],
        verifications: vec![VerificationOutline { id: "health".into(), after_activation: true }],
        soak: Some(std::time::Duration::from_secs(1)),
        back: None,
        vantages: Vec::new(),
        elsewhere: false,
        retirement: None,
        recorders: vec!["log".into()],
    })
}

/// Takes an entry in, and holds the state against what was promised of it.
fn apply(state: &mut RunState, record: Record, kept: &mut Vec<Record>) {
    let (before, past) = (state.clone(), state.past_point_of_no_return());
    if state.apply(&record).is_err() {
        assert_eq!(format!("{state:?}"), format!("{before:?}"), "a refused entry has changed the run");
        return;
    }
    assert!(
        !past || !matches!(record.event, Event::AbortStarted { .. }),
        "called off after the point of no return"
    );
    assert_eq!(state.next_seq, record.seq + 1);
    kept.push(record);
    assert_eq!(state.phase == Phase::Finished, state.outcome.is_some());
    if state.outcome == Some(RunOutcome::Done) {
        assert!(state.all_done(), "done, with something left to do");
    }
    for (step, story) in state.steps().filter(|(_, story)| story.status != StepStatus::Waiting) {
        assert!(story.attempts > 0, "{} has moved without having begun", step.id);
        assert!(
            step.after.iter().all(|id| state.status(id) == StepStatus::Done),
            "{} was too early",
            step.id
        );
    }
}

/// The run is what its entries say, and everything that somebody may want to know of it has an answer.
fn asked(state: &RunState, kept: &[Record]) {
    let refolded = RunState::fold(run(), kept).expect("what was taken in can be read again");
    assert_eq!(format!("{refolded:?}"), format!("{state:?}"));
    let mut text = String::new();
    let _ = write!(text, "{:?} {:?} {:?}", state.window_ms(), state.in_use_since(), state.changing_since());
    let _ = write!(text, "{:?} {} {}", state.versions(), state.has_promoted(), state.changed_nothing());
    let _ = write!(text, "{} {:?}", state.may_have_staged(), state.outcome_of("check"));
    let _ = write!(text, "{} {:?}", state.plan().hash().short(), state.plan().back());
}
