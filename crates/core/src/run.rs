//! What a run is: the fold of its events.
//!
//! [`next_step`] and [`next_phase`] together are the one table of legal transitions. Live
//! writes and recovery go through the same table, so a journal that was damaged or written
//! out of order is found when it is read, and never guessed at.

mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Error, Kind, Result, Retry};
use crate::ids::{CopyId, RunId, StepId, VersionId};
use crate::journal::{Event, FORMAT, Outcome, Record, RunOutcome, Start};
use crate::lease::Generation;
use crate::past::Published;
use crate::plan::{Action, Plan, Step};
pub use window::Window;

/// Where one step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepStatus {
    /// Not begun.
    Waiting,
    /// Begun; its effect may have happened.
    InFlight,
    /// Its last try failed.
    Failed,
    /// It waits for a person.
    Parked,
    /// Done.
    Done,
}

impl StepStatus {
    /// All of them: a table that is walked through has to be whole.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::InFlight, Self::Failed, Self::Parked, Self::Done];
}

/// What an event does to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepMove {
    /// [`Event::StepStarted`].
    Start,
    /// [`Event::StepFinished`].
    Finish,
    /// [`Event::StepFailed`].
    Fail,
    /// [`Event::StepParked`].
    Park,
}

impl StepMove {
    /// All of them: a table that is walked through has to be whole.
    pub const ALL: [Self; 4] = [Self::Start, Self::Finish, Self::Fail, Self::Park];
}

/// Where the run as a whole stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Steps are being carried out.
    Running,
    /// Nothing more can be done without a person.
    Parked,
    /// The pending password is being dropped.
    Aborting,
    /// Over.
    Finished,
}

impl Phase {
    /// All of them: a table that is walked through has to be whole.
    pub const ALL: [Self; 4] = [Self::Running, Self::Parked, Self::Aborting, Self::Finished];
}

/// What an event does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PhaseMove {
    /// [`Event::RunResumed`].
    Resume,
    /// Any step's event.
    Step,
    /// [`Event::RunParked`].
    Park,
    /// [`Event::AbortStarted`].
    Abort,
    /// [`Event::RunFinished`] with [`RunOutcome::Done`].
    Complete,
    /// [`Event::RunFinished`] with another outcome.
    CallOff,
}

impl PhaseMove {
    /// All of them: a table that is walked through has to be whole.
    pub const ALL: [Self; 6] =
        [Self::Resume, Self::Step, Self::Park, Self::Abort, Self::Complete, Self::CallOff];
}

/// The table of legal transitions of a step.
pub fn next_step(status: StepStatus, step_move: StepMove) -> Option<StepStatus> {
    use StepMove::{Fail, Finish, Park, Start};
    use StepStatus::{Done, Failed, InFlight, Parked, Waiting};
    match (status, step_move) {
        // A step in flight starts again when its process died, a parked one when a person asks.
        (Waiting | InFlight | Failed | Parked, Start) => Some(InFlight),
        (InFlight, Finish) => Some(Done),
        (InFlight, Fail) => Some(Failed),
        (Failed, Park) => Some(Parked),
        _ => None,
    }
}

/// The table of legal transitions of a run.
pub fn next_phase(phase: Phase, phase_move: PhaseMove) -> Option<Phase> {
    use Phase::{Aborting, Finished, Parked, Running};
    use PhaseMove::{Abort, CallOff, Complete, Park, Resume, Step};
    match (phase, phase_move) {
        (Running | Parked, Resume) => Some(Running),
        (Running, Step) => Some(Running),
        (Running, Park) => Some(Parked),
        // A parked run is past its point of no return: nothing before that is ever parked.
        (Running, Abort) => Some(Aborting),
        // A crash while the pending password is dropped: dropping it goes on.
        (Aborting, Resume) => Some(Aborting),
        (Running, Complete) | (Aborting, CallOff) => Some(Finished),
        _ => None,
    }
}

/// One step's story so far.
#[derive(Clone, Debug)]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// How often it was tried since a person last asked for it.
    pub recent_attempts: u32,
    /// How many of its last tries in a row met a system that asked for fewer requests.
    pub throttled: u32,
    /// Whether a try may have had its effect without our knowing.
    pub may_have_happened: bool,
    /// Why the last try failed.
    pub error: Option<Error>,
    /// What came of it.
    pub outcome: Option<Outcome>,
    /// When it was first begun.
    pub started_at: Option<Timestamp>,
    /// When it was done.
    pub finished_at: Option<Timestamp>,
}

impl StepState {
    fn new() -> Self {
        Self {
            status: StepStatus::Waiting,
            attempts: 0,
            recent_attempts: 0,
            throttled: 0,
            may_have_happened: false,
            error: None,
            outcome: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// A run, as its journal tells it.
#[derive(Clone, Debug)]
pub struct RunState {
    /// Which.
    pub run: RunId,
    /// How it began; every picture of the run shares it.
    pub start: Arc<Start>,
    /// When it began.
    pub started_at: Timestamp,
    /// Where it stands.
    pub phase: Phase,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// Whether a person called it off, rather than a step having failed.
    pub abort_asked: bool,
    /// When it last moved.
    pub moved_at: Timestamp,
    /// The lease under which it was last written.
    pub generation: Generation,
    /// The number of the next entry.
    pub next_seq: u64,
    /// In the plan's order. Shared by the pictures of a run, and copied when it moves on while somebody looks at one.
    steps: Arc<Vec<StepState>>,
}

impl RunState {
    /// Reads a run from its journal.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] names the first entry that can't follow what stands before it, and
    /// [`Kind::BadState`] a journal of a newer program.
    pub fn fold(run: RunId, records: &[Record]) -> Result<Self> {
        let (first, rest) = records.split_first().ok_or_else(|| {
            Error::new(Kind::NotFound, format!("find the run {run}"))
                .because("the journal has no such run")
                .hint("list the runs: pgrotate history")
        })?;
        let mut state = Self::begin(run, first)?;
        rest.iter().try_for_each(|record| state.apply(record))?;
        Ok(state)
    }

    /// A run that has just begun.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if the first entry is no beginning, or its plan is broken.
    pub fn begin(run: RunId, first: &Record) -> Result<Self> {
        check_format(run, first)?;
        let (0, Event::RunStarted(start)) = (first.seq, &first.event) else {
            return Err(corrupt(run, first, "a run begins with run_started"));
        };
        if let Some(defect) = start.plan.defect() {
            return Err(corrupt(run, first, &format!("its plan is broken: {defect}")));
        }
        Ok(Self {
            run,
            started_at: first.at,
            phase: Phase::Running,
            outcome: None,
            abort_asked: false,
            moved_at: first.at,
            generation: start.generation,
            next_seq: 1,
            steps: Arc::new(vec![StepState::new(); start.plan.steps.len()]),
            start: Arc::clone(start),
        })
    }

    /// Takes in the next entry.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it can't follow what stands before it; the state is then unchanged.
    pub fn apply(&mut self, record: &Record) -> Result<()> {
        check_format(self.run, record)?;
        if record.seq != self.next_seq {
            return Err(corrupt(self.run, record, &format!("the next entry has number {}", self.next_seq)));
        }
        let phase = next_phase(self.phase, phase_move(&record.event)).ok_or_else(|| {
            corrupt(self.run, record, &format!("it can't happen to a run that is {:?}", self.phase))
        })?;
        match &record.event {
            Event::RunStarted(_) => return Err(corrupt(self.run, record, "a run begins once")),
            Event::RunResumed { generation } => self.resumed(*generation, record)?,
            Event::StepStarted { step, attempt } => self.started(step, *attempt, record)?,
            Event::StepFinished { step, outcome } => {
                let state = self.moved(step, StepMove::Finish, record)?;
                state.outcome = Some((**outcome).clone());
                state.finished_at = Some(record.at);
                state.error = None;
            }
            Event::StepFailed { step, error } => {
                let state = self.moved(step, StepMove::Fail, record)?;
                state.may_have_happened |= error.retry() == Retry::Unknown;
                state.throttled = if error.kind() == Kind::Throttled { state.throttled + 1 } else { 0 };
                state.error = Some(error.clone());
            }
            Event::StepParked { step } => drop(self.moved(step, StepMove::Park, record)?),
            Event::RunParked => {}
            Event::AbortStarted { asked } => {
                if self.past_point_of_no_return() {
                    return Err(corrupt(self.run, record, "it is past its point of no return"));
                }
                self.abort_asked = *asked;
            }
            Event::RunFinished { outcome } => {
                if *outcome == RunOutcome::Done && !self.all_done() {
                    return Err(corrupt(self.run, record, "not all of its steps are done"));
                }
                self.outcome = Some(*outcome);
            }
        }
        self.phase = phase;
        self.moved_at = record.at;
        self.next_seq += 1;
        Ok(())
    }

    fn resumed(&mut self, generation: Generation, record: &Record) -> Result<()> {
        if generation <= self.generation {
            return Err(corrupt(self.run, record, "its lease is not newer than the one before"));
        }
        self.generation = generation;
        for state in Arc::make_mut(&mut self.steps) {
            state.recent_attempts = 0;
            state.throttled = 0;
        }
        Ok(())
    }

    fn started(&mut self, step: &StepId, attempt: u32, record: &Record) -> Result<()> {
        let place = self.place(step, record)?;
        let waits = &self.plan().steps[place].after;
        if let Some(open) = waits.iter().find(|id| self.status(id) != StepStatus::Done) {
            return Err(corrupt(self.run, record, &format!("{step} waits for {open}, which is not done")));
        }
        let next = self.steps[place].attempts + 1;
        if attempt != next {
            return Err(corrupt(self.run, record, &format!("the next try of {step} is number {next}")));
        }
        let state = self.moved(step, StepMove::Start, record)?;
        state.attempts = attempt;
        state.recent_attempts += 1;
        state.started_at.get_or_insert(record.at);
        Ok(())
    }

    fn moved(&mut self, step: &StepId, step_move: StepMove, record: &Record) -> Result<&mut StepState> {
        let (run, place) = (self.run, self.place(step, record)?);
        let state = &mut Arc::make_mut(&mut self.steps)[place];
        let next = next_step(state.status, step_move).ok_or_else(|| {
            corrupt(
                run,
                record,
                &format!("{step_move:?} can't happen to {step}, which is {:?}", state.status),
            )
        })?;
        // A step that starts again without having failed was in the hands of a process that died.
        state.may_have_happened |= state.status == StepStatus::InFlight && step_move == StepMove::Start;
        state.status = next;
        Ok(state)
    }

    /// Where a step stands in the plan.
    fn place(&self, step: &StepId, record: &Record) -> Result<usize> {
        self.plan()
            .place(step)
            .ok_or_else(|| corrupt(self.run, record, &format!("the plan has no step {step}")))
    }

    /// What the run does.
    pub fn plan(&self) -> &Plan {
        &self.start.plan
    }

    /// One step's story.
    ///
    /// # Panics
    /// If the plan has no such step.
    pub fn step(&self, id: &StepId) -> &StepState {
        let place = self.plan().place(id).expect("steps are looked up by the plan's own ids");
        &self.steps[place]
    }

    /// Where a step stands.
    pub fn status(&self, id: &StepId) -> StepStatus {
        self.plan().place(id).map_or(StepStatus::Waiting, |place| self.steps[place].status)
    }

    /// The steps in the plan's order, each with its story.
    pub fn steps(&self) -> impl Iterator<Item = (&Step, &StepState)> {
        std::iter::zip(&self.plan().steps, &*self.steps)
    }

    /// What came of the first step of this kind, if it is done.
    pub fn outcome_of(&self, kind: &str) -> Option<&Outcome> {
        self.steps()
            .find(|(step, _)| step.action.kind() == kind)
            .and_then(|(_, state)| state.outcome.as_ref())
    }

    /// What came of the step that does this, if it is done.
    pub fn outcome_of_action(&self, action: &Action) -> Option<&Outcome> {
        self.steps().find(|(step, _)| step.action == *action).and_then(|(_, state)| state.outcome.as_ref())
    }

    /// Whether every step is done.
    pub fn all_done(&self) -> bool {
        self.steps.iter().all(|state| state.status == StepStatus::Done)
    }

    /// Whether a step behind which there is only forward may have happened: from its first try that was not answered
    /// with a clear no. Until a try that is in flight is answered, it counts.
    pub fn past_point_of_no_return(&self) -> bool {
        self.may_have_happened(|action| self.plan().is_point_of_no_return(action))
    }

    /// Whether a step of this sort has had its effect, or may have had it.
    pub fn may_have_happened(&self, sort: impl Fn(&Action) -> bool) -> bool {
        self.steps().filter(|(step, _)| sort(&step.action)).any(|(_, state)| {
            state.may_have_happened || matches!(state.status, StepStatus::InFlight | StepStatus::Done)
        })
    }

    /// Whether the vault of record calls the run's password current.
    pub fn has_promoted(&self) -> bool {
        self.plan().of_kind("promote").all(|step| self.status(&step.id) == StepStatus::Done)
    }

    /// Whether the run is over and everything is as it was before.
    pub fn changed_nothing(&self) -> bool {
        matches!(self.outcome, Some(RunOutcome::Failed | RunOutcome::Aborted))
    }

    /// Whether the vault of record may hold a pending password of this run.
    pub fn may_have_staged(&self) -> bool {
        self.plan().of_kind("stage").any(|step| self.step(&step.id).attempts > 0)
    }

    /// The versions that this run has written, by copy.
    pub fn versions(&self) -> BTreeMap<CopyId, VersionId> {
        self.steps()
            .filter_map(|(step, state)| match &step.action {
                Action::Publish { copy } => Some((copy.clone(), state.outcome.as_ref()?.version.clone()?)),
                _ => None,
            })
            .collect()
    }

    /// When the server was seen to take the new password.
    pub fn proven_at(&self) -> Option<Timestamp> {
        self.plan().of_kind("prove").find_map(|step| self.step(&step.id).finished_at)
    }

    /// The copies that this run has brought to its password, and when.
    pub fn published(&self) -> impl Iterator<Item = (CopyId, Published)> {
        self.steps().filter_map(|(step, state)| match &step.action {
            Action::Publish { copy } => {
                Some((copy.clone(), Published { run: self.run, at: state.finished_at? }))
            }
            _ => None,
        })
    }

    /// When the last consumer had taken up the new copies; the end of the last publication if
    /// there is none.
    pub fn in_use_since(&self) -> Option<Timestamp> {
        let last = |kind: &'static str| {
            self.plan().of_kind(kind).filter_map(|step| self.step(&step.id).finished_at).max()
        };
        last("activate").or_else(|| last("publish")).or_else(|| last("promote"))
    }

    /// When the first copy was about to be written: from then on consumers may restart.
    pub fn changing_since(&self) -> Option<Timestamp> {
        let first = |kind: &'static str| {
            self.plan().of_kind(kind).filter_map(|step| self.step(&step.id).started_at).min()
        };
        first("publish").or_else(|| first("activate"))
    }
}

/// What an event does to a step, if it is one of a step.
pub fn step_move(event: &Event) -> Option<(&StepId, StepMove)> {
    match event {
        Event::StepStarted { step, .. } => Some((step, StepMove::Start)),
        Event::StepFinished { step, .. } => Some((step, StepMove::Finish)),
        Event::StepFailed { step, .. } => Some((step, StepMove::Fail)),
        Event::StepParked { step } => Some((step, StepMove::Park)),
        Event::RunStarted(_)
        | Event::RunResumed { .. }
        | Event::RunParked
        | Event::AbortStarted { .. }
        | Event::RunFinished { .. } => None,
    }
}

/// What an event does to the run.
pub fn phase_move(event: &Event) -> PhaseMove {
    match event {
        Event::RunResumed { .. } => PhaseMove::Resume,
        Event::RunParked => PhaseMove::Park,
        Event::AbortStarted { .. } => PhaseMove::Abort,
        Event::RunFinished { outcome: RunOutcome::Done } => PhaseMove::Complete,
        Event::RunFinished { .. } => PhaseMove::CallOff,
        Event::RunStarted(_)
        | Event::StepStarted { .. }
        | Event::StepFinished { .. }
        | Event::StepFailed { .. }
        | Event::StepParked { .. } => PhaseMove::Step,
    }
}

fn check_format(run: RunId, record: &Record) -> Result<()> {
    if record.format <= FORMAT {
        return Ok(());
    }
    Err(Error::new(Kind::BadState, format!("read the journal of the run {run}"))
        .because(format!("a newer pgrotate wrote it (format {}, this one reads {FORMAT})", record.format))
        .hint("use that version to go on with the run"))
}

fn corrupt(run: RunId, record: &Record, why: &str) -> Error {
    Error::new(Kind::Corrupt, format!("read the journal of the run {run}"))
        .because(format!("entry {} does not fit: {why}", record.seq))
        .hint("the journal is damaged; don't edit it; `pgrotate status ENV` shows which password works")
}

#[cfg(test)]
mod tests;
