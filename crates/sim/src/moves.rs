//! Which transitions of core's two tables a journal has taken: what no simulation takes is not proven by any.

use std::collections::BTreeMap;

use pgrotate_core::RunId;
use pgrotate_core::journal::Record;
use pgrotate_core::run::{
    Phase, PhaseMove, RunState, StepMove, StepStatus, next_phase, next_step, phase_move, step_move,
};

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
        let mut missing = Vec::new();
        for status in StepStatus::ALL {
            for by in StepMove::ALL {
                if next_step(status, by).is_some() && !self.steps.contains_key(&(status, by)) {
                    missing.push(format!("step {status:?} {by:?}"));
                }
            }
        }
        for phase in Phase::ALL {
            for by in PhaseMove::ALL {
                if next_phase(phase, by).is_some() && !self.phases.contains_key(&(phase, by)) {
                    missing.push(format!("run {phase:?} {by:?}"));
                }
            }
        }
        missing
    }
}
