//! The tables, and what a run's journal says of it, entry by entry.

use std::time::Duration;

use super::*;
use crate::ids::Environment;
use crate::plan::{self, ConsumerOutline, CopyOutline, Outline, VerificationOutline};
use crate::strategy::in_place;

/// The whole table in one picture: whatever is not in it is refused.
#[test]
fn the_table_of_legal_transitions() {
    let steps = StepStatus::ALL.into_iter().flat_map(|from| {
        StepMove::ALL
            .into_iter()
            .filter_map(move |by| Some(format!("{from:?} --{by:?}--> {:?}", next_step(from, by)?)))
    });
    let phases = Phase::ALL.into_iter().flat_map(|from| {
        PhaseMove::ALL
            .into_iter()
            .filter_map(move |by| Some(format!("run {from:?} --{by:?}--> {:?}", next_phase(from, by)?)))
    });
    let table: Vec<String> = steps.chain(phases).collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    Waiting --Start--> InFlight
    InFlight --Start--> InFlight
    InFlight --Finish--> Done
    InFlight --Fail--> Failed
    Failed --Start--> InFlight
    Failed --Park--> Parked
    Parked --Start--> InFlight
    run Running --Resume--> Running
    run Running --Step--> Running
    run Running --Park--> Parked
    run Running --Abort--> Aborting
    run Running --Complete--> Finished
    run Parked --Resume--> Running
    run Aborting --Resume--> Aborting
    run Aborting --CallOff--> Finished
    ");
}

/// The report and the simulation find a step's entries by this.
#[test]
fn an_entry_says_which_step_it_moves_and_how() {
    let step = || StepId::from("check");
    let outcome = Box::new(Outcome::changed());
    for (event, by) in [
        (Event::StepStarted { step: step(), attempt: 1 }, StepMove::Start),
        (Event::StepFinished { step: step(), outcome }, StepMove::Finish),
        (Event::StepFailed { step: step(), error: unreachable() }, StepMove::Fail),
        (Event::StepParked { step: step() }, StepMove::Park),
    ] {
        assert_eq!((step_move(&event), phase_move(&event)), (Some((&step(), by)), PhaseMove::Step));
    }
    assert_eq!(step_move(&Event::RunParked), None);
}

#[test]
fn nothing_follows_the_end() {
    assert!(PhaseMove::ALL.into_iter().all(|by| next_phase(Phase::Finished, by).is_none()));
    assert!(StepMove::ALL.into_iter().all(|by| next_step(StepStatus::Done, by).is_none()));
}

// ---------------------------------------------------------------- runs

/// A run whose entries are written one after the other, a second apart.
struct Run(RunState);

const BEGUN: i64 = 1_767_225_600;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(BEGUN + i64::try_from(second).unwrap()).unwrap()
}

fn outline() -> Outline {
    Outline {
        environment: Environment::from("dev"),
        target: "app@db".into(),
        authority: "server".into(),
        vault: CopyId::from("vault:one"),
        copies: ["store:one", "store:two"].map(|id| CopyOutline { id: id.into(), retire: false }).to_vec(),
        consumers: vec![ConsumerOutline { id: "app".into(), waits_for: Vec::new(), has_sessions: false }],
        verifications: vec![VerificationOutline { id: "health".into(), after_activation: true }],
        soak: None,
        back: None,
        vantages: Vec::new(),
        elsewhere: false,
        retirement: None,
        recorders: Vec::new(),
    }
}

fn started(plan: Plan) -> Record {
    let (operator, version) = ("somebody".into(), "0".into());
    let start = Start {
        plan,
        generation: Generation(1),
        operator,
        ticket: None,
        overrides: Default::default(),
        version,
    };
    Record { format: FORMAT, seq: 0, at: at(0), event: Event::RunStarted(std::sync::Arc::new(start)) }
}

fn id() -> RunId {
    "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()
}

fn unreachable() -> Error {
    Error::new(Kind::Unreachable, "try")
}

impl Run {
    fn of(outline: &Outline) -> Self {
        Self(RunState::begin(id(), &started(in_place::plan(outline))).unwrap())
    }

    fn next(&self, event: Event) -> Record {
        Record { format: FORMAT, seq: self.0.next_seq, at: at(self.0.next_seq), event }
    }

    /// Takes an entry in; one that can't follow has to leave everything as it was.
    fn try_event(&mut self, event: Event) -> Result<()> {
        let (record, before) = (self.next(event), format!("{:?}", self.0));
        let taken = self.0.apply(&record);
        assert!(taken.is_ok() || format!("{:?}", self.0) == before, "a refused entry has changed the run");
        taken
    }

    fn event(&mut self, event: Event) -> &mut Self {
        self.try_event(event).unwrap();
        self
    }

    fn start(&mut self, step: &str) -> &mut Self {
        let step = StepId::from(step);
        let attempt = self.0.step(&step).attempts + 1;
        self.event(Event::StepStarted { step, attempt })
    }

    fn finish(&mut self, step: &str, outcome: Outcome) -> &mut Self {
        self.event(Event::StepFinished { step: step.into(), outcome: Box::new(outcome) })
    }

    fn done(&mut self, steps: &[&str]) -> &mut Self {
        for step in steps {
            self.start(step).finish(step, Outcome::changed());
        }
        self
    }

    fn fail(&mut self, step: &str, error: Error) -> &mut Self {
        self.event(Event::StepFailed { step: step.into(), error })
    }

    fn story(&self, step: &str) -> &StepState {
        self.0.step(&step.into())
    }
}

const BEFORE: [&str; 2] = ["check", "stage"];

#[test]
fn a_step_waits_for_what_stands_before_it_and_counts_its_tries() {
    let mut run = Run::of(&outline());
    let start = |step: &str, attempt| Event::StepStarted { step: step.into(), attempt };
    assert!(run.try_event(start("stage", 1)).unwrap_err().to_string().contains("stage waits for check"));
    assert!(run.try_event(start("check", 2)).unwrap_err().to_string().contains("is number 1"));
    assert!(run.try_event(start("nothing", 1)).is_err(), "no such step");
    run.start("check").fail("check", unreachable());
    assert_eq!(run.0.status(&"check".into()), StepStatus::Failed);
    assert!(run.try_event(start("check", 1)).is_err(), "the second try is number 2");
    run.start("check");
    assert_eq!((run.story("check").attempts, run.story("check").recent_attempts), (2, 2));
    assert_eq!(run.story("check").started_at, Some(at(1)), "the first try");
    run.event(Event::RunResumed { generation: Generation(2) });
    assert_eq!((run.story("check").attempts, run.story("check").recent_attempts), (2, 0));
    run.finish("check", Outcome::changed());
    assert_eq!((run.story("check").finished_at, &run.story("check").error), (Some(at(5)), &None));
    assert_eq!((run.0.moved_at, run.0.started_at, run.0.next_seq), (at(5), at(0), 6));
}

#[test]
fn systems_that_ask_for_fewer_requests_are_counted_in_a_row() {
    let mut run = Run::of(&outline());
    let throttled = || Error::new(Kind::Throttled, "try").later(None);
    run.start("check").fail("check", throttled()).start("check").fail("check", throttled());
    assert_eq!(run.story("check").throttled, 2);
    run.start("check").fail("check", unreachable());
    assert_eq!(run.story("check").throttled, 0);
    run.start("check").fail("check", throttled()).event(Event::RunResumed { generation: Generation(2) });
    assert_eq!(run.story("check").throttled, 0, "a person has asked for it");
}

#[test]
fn the_point_of_no_return_is_passed_when_the_server_may_have_the_password() {
    let install = || {
        let mut run = Run::of(&outline());
        run.done(&BEFORE);
        assert!(!run.0.past_point_of_no_return(), "staged is harmless");
        run.start("install");
        run
    };
    assert!(install().0.past_point_of_no_return(), "in flight");
    let mut refused = install();
    assert!(!refused.fail("install", unreachable()).0.past_point_of_no_return(), "a clear no");
    refused.event(Event::AbortStarted { asked: true });
    assert!(refused.0.abort_asked);
    let mut lost = install();
    assert!(lost.fail("install", unreachable().unknown()).0.past_point_of_no_return(), "no answer");
    assert!(lost.try_event(Event::AbortStarted { asked: true }).is_err());
    let mut died = install();
    died.event(Event::RunResumed { generation: Generation(2) })
        .start("install")
        .fail("install", unreachable());
    assert!(died.0.past_point_of_no_return(), "the process that died may have installed it");
    assert!(install().finish("install", Outcome::changed()).0.past_point_of_no_return());
}

#[test]
fn a_run_ends_once_and_only_when_nothing_is_left_to_do() {
    let mut run = Run::of(&outline());
    assert!(run.try_event(Event::RunFinished { outcome: RunOutcome::Done }).is_err());
    assert!(
        run.try_event(Event::RunFinished { outcome: RunOutcome::Aborted }).is_err(),
        "nobody called it off"
    );
    let again = started(in_place::plan(&outline())).event;
    assert!(run.try_event(again).unwrap_err().to_string().contains("begins once"));
    run.event(Event::AbortStarted { asked: false }).event(Event::RunFinished { outcome: RunOutcome::Failed });
    assert!(run.0.changed_nothing() && !run.0.abort_asked);
    assert_eq!((run.0.phase, run.0.outcome), (Phase::Finished, Some(RunOutcome::Failed)));
    assert!(run.try_event(Event::RunResumed { generation: Generation(9) }).is_err());

    let mut whole = Run::of(&outline());
    let steps: Vec<StepId> = whole.0.plan().steps.iter().map(|step| step.id.clone()).collect();
    steps.iter().for_each(|step| {
        assert!(!whole.0.all_done());
        whole.done(&[step.as_str()]);
    });
    whole.event(Event::RunFinished { outcome: RunOutcome::Done });
    assert!(whole.0.all_done() && !whole.0.changed_nothing());
}

#[test]
fn a_lease_that_is_not_newer_takes_nothing_over() {
    let mut run = Run::of(&outline());
    for old in [0, 1] {
        assert!(run.try_event(Event::RunResumed { generation: Generation(old) }).is_err());
    }
    run.event(Event::RunResumed { generation: Generation(2) });
    assert_eq!(run.0.generation, Generation(2));
}

#[test]
fn entries_that_are_missing_or_of_a_newer_program_are_told_apart() {
    let mut run = Run::of(&outline());
    let late = Record { seq: 2, ..run.next(Event::RunParked) };
    assert_eq!(run.0.apply(&late).unwrap_err().kind(), Kind::Corrupt);
    let newer = Record { format: FORMAT + 1, ..run.next(Event::RunParked) };
    assert_eq!(run.0.apply(&newer).unwrap_err().kind(), Kind::BadState);
    assert_eq!(RunState::fold(id(), &[]).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(RunState::begin(id(), &run.next(Event::RunParked)).unwrap_err().kind(), Kind::Corrupt);
    let shifted = Record { seq: 1, ..started(in_place::plan(&outline())) };
    assert_eq!(RunState::begin(id(), &shifted).unwrap_err().kind(), Kind::Corrupt);
    let mut broken = in_place::plan(&outline());
    broken.steps.swap(0, 1);
    assert_eq!(RunState::begin(id(), &started(broken)).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_run_remembers_what_it_did_and_when() {
    let mut run = Run::of(&outline());
    assert!(!run.0.may_have_staged());
    assert_eq!((run.0.changing_since(), run.0.in_use_since(), run.0.window_ms()), (None, None, None));
    run.done(&["check"]).start("stage");
    assert!(run.0.may_have_staged());
    run.finish("stage", Outcome::changed());
    let install = at(run.0.next_seq);
    run.done(&["install"]);
    assert_eq!(run.0.proven_at(), None, "that it was set proves nothing");
    run.done(&["prove"]);
    assert_eq!(run.0.proven_at(), Some(at(run.0.next_seq - 1)));
    assert!(!run.0.has_promoted());
    let promoted = at(run.0.next_seq + 1);
    run.done(&["promote"]);
    assert!(run.0.has_promoted());
    assert_eq!((run.0.in_use_since(), run.0.changing_since()), (Some(promoted), None));
    let published = at(run.0.next_seq);
    run.start("publish/store:one").finish("publish/store:one", Outcome::changed().version(Some("v7".into())));
    assert_eq!(run.0.versions(), BTreeMap::from([("store:one".into(), "v7".into())]));
    assert_eq!(run.0.outcome_of("publish").unwrap().version, Some("v7".into()), "of its own kind");
    assert_eq!(run.0.changing_since(), Some(published), "the first of them");
    run.done(&["publish/store:two"]);
    assert_eq!(run.0.in_use_since(), Some(at(run.0.next_seq - 1)), "the last of them");
    assert_eq!((run.0.outcome_of("install"), run.0.outcome_of("soak")), (Some(&Outcome::changed()), None));
    run.done(&["activate/app"]);
    assert_eq!(run.0.in_use_since(), Some(at(run.0.next_seq - 1)));
    assert_eq!(run.0.window_ms(), None, "nothing has proven it yet");
    let seen = install + Duration::from_millis(4_321);
    let outcome = Outcome { effect_at: Some(seen), ..Outcome::confirmed() };
    run.start("verify/health").finish("verify/health", outcome);
    assert_eq!(run.0.window_ms(), Some(4_321));
    let parts: Vec<u64> = run.0.window().unwrap().parts.into_iter().map(|(_, part)| part).collect();
    assert_eq!(parts, [1_000, 2_000, 1_321, 0], "what was not waited for is no part of it");
}

/// Of a journal from elsewhere; nothing that asks for the window may fall over it.
#[test]
fn a_plan_that_installs_nothing_has_no_window() {
    let mut plan = in_place::plan(&outline());
    plan.steps.truncate(2);
    assert_eq!(plan.format, plan::FORMAT);
    assert_eq!(RunState::begin(id(), &started(plan)).unwrap().window_ms(), None);
}
