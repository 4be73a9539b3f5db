//! Which transitions of core's two tables a journal has taken: what no simulation takes is not proven by any.

use std::collections::BTreeMap;

use pgrotate_core::RunId;
use pgrotate_core::journal::{Event, Record, RunOutcome};
use pgrotate_core::run::{Phase, PhaseMove, RunState, StepMove, StepStatus, next_phase, next_step};

/// How often each transition was taken.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    /// Of steps.
    pub steps: BTreeMap<(StepStatus, StepMove), u64>,
    /// Of runs.
    pub phases: BTreeMap<(Phase, PhaseMove), u64>,
}

impl Moves {
    /// Those of one run.
    pub(crate) fn of(run: RunId, records: &[Record]) -> Self {
        let mut moves = Self::default();
        let Some((first, rest)) = records.split_first() else { return moves };
        let Ok(mut state) = RunState::begin(run, first) else { return moves };
        for record in rest {
            if let Some((step, step_move)) = step_move(&record.event) {
                *moves.steps.entry((state.status(step), step_move)).or_default() += 1;
            }
            *moves.phases.entry((state.phase, phase_move(&record.event))).or_default() += 1;
            if state.apply(record).is_err() {
                break;
            }
        }
        moves
    }

    /// Adds those of others.
    pub fn add(&mut self, others: Self) {
        for (key, count) in others.steps {
            *self.steps.entry(key).or_default() += count;
        }
        for (key, count) in others.phases {
            *self.phases.entry(key).or_default() += count;
        }
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.add(others);
        self
    }

    /// The legal transitions that were never taken.
    pub fn missing(&self) -> Vec<String> {
        use StepStatus::{Done, Failed, InFlight, Parked, Waiting};
        let mut missing = Vec::new();
        for status in [Waiting, InFlight, Failed, Parked, Done] {
            for step_move in [StepMove::Start, StepMove::Finish, StepMove::Fail, StepMove::Park] {
                if next_step(status, step_move).is_some() && !self.steps.contains_key(&(status, step_move)) {
                    missing.push(format!("step {status:?} {step_move:?}"));
                }
            }
        }
        for phase in [Phase::Running, Phase::Parked, Phase::Aborting, Phase::Finished] {
            for phase_move in [
                PhaseMove::Resume,
                PhaseMove::Step,
                PhaseMove::Park,
                PhaseMove::Abort,
                PhaseMove::Complete,
                PhaseMove::CallOff,
            ] {
                if next_phase(phase, phase_move).is_some() && !self.phases.contains_key(&(phase, phase_move))
                {
                    missing.push(format!("run {phase:?} {phase_move:?}"));
                }
            }
        }
        missing
    }
}

fn step_move(event: &Event) -> Option<(&pgrotate_core::StepId, StepMove)> {
    match event {
        Event::StepStarted { step, .. } => Some((step, StepMove::Start)),
        Event::StepFinished { step, .. } => Some((step, StepMove::Finish)),
        Event::StepFailed { step, .. } => Some((step, StepMove::Fail)),
        Event::StepParked { step } => Some((step, StepMove::Park)),
        _ => None,
    }
}

fn phase_move(event: &Event) -> PhaseMove {
    match event {
        Event::RunResumed { .. } => PhaseMove::Resume,
        Event::RunParked => PhaseMove::Park,
        Event::AbortStarted { .. } => PhaseMove::Abort,
        Event::RunFinished { outcome: RunOutcome::Done } => PhaseMove::Complete,
        Event::RunFinished { .. } => PhaseMove::CallOff,
        _ => PhaseMove::Step,
    }
}
