//! A run that the test of a step brings to where it wants it.

use std::sync::Arc;

use jiff::Timestamp;

use crate::env::testing::{ManualClock, SeededEntropy};
use crate::env::{Clock, Entropy};
use crate::error::Error;
use crate::ids::{RunId, StepId};
use crate::journal::{Event, FORMAT, Outcome, Record, Start};
use crate::lease::Generation;
use crate::memory::{self, Memory};
use crate::plan::{Action, Plan, Step};
use crate::rotation::Rotation;
use crate::run::RunState;

pub(crate) fn rotation(world: &Memory) -> Rotation {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    memory::rotation(world, &clock, &entropy)
}

/// The run whose journal is written here.
pub(crate) fn own_run() -> RunId {
    "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()
}

/// The run [`own_run`], which has just begun.
pub(crate) fn begun(plan: Plan) -> RunState {
    let start = Start {
        plan,
        generation: Generation(1),
        operator: "somebody".into(),
        ticket: None,
        overrides: Default::default(),
        version: "0".into(),
    };
    RunState::begin(own_run(), &record(0, Event::RunStarted(Arc::new(start)))).unwrap()
}

/// The same of these steps alone, none of which waits for another.
pub(crate) fn begun_with(rotation: &Rotation, actions: &[Action]) -> RunState {
    let steps = actions.iter().map(|action| Step::new(action.clone(), Vec::new())).collect();
    begun(Plan { steps, ..rotation.plan() })
}

fn record(seq: u64, event: Event) -> Record {
    Record { format: FORMAT, seq, at: Timestamp::UNIX_EPOCH, event }
}

/// Writes down what came of a step's first try.
pub(crate) fn tried(run: &mut RunState, step: &StepId, result: Result<Outcome, Error>) {
    let ended = match result {
        Ok(outcome) => Event::StepFinished { step: step.clone(), outcome: Box::new(outcome) },
        Err(error) => Event::StepFailed { step: step.clone(), error },
    };
    for event in [Event::StepStarted { step: step.clone(), attempt: 1 }, ended] {
        run.apply(&record(run.next_seq, event)).unwrap();
    }
}

/// Another process takes the run over.
pub(crate) fn taken_over(run: &mut RunState) {
    let generation = Generation(run.generation.0 + 1);
    run.apply(&record(run.next_seq, Event::RunResumed { generation })).unwrap();
}
