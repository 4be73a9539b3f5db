//! Makes a plan happen in spite of crashes.
//!
//! The loop knows nothing of where it runs: it asks a [`World`] to perform a step, a
//! [`Journal`] to remember it, and a [`Clock`] to wait. It starts every step whose
//! predecessors are done, and writes "started" before the effect, so that after a crash the
//! journal says of every effect whether it may have happened. The news of finished steps and
//! the start of the next ones go into one durable write.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;

use crate::env::{Clock, Entropy};
use crate::error::{Error, Kind, Result, Retry};
use crate::ids::{RunId, StepId};
use crate::journal::{Event, FORMAT, Journal, Outcome, Record, RunOutcome, Start};
use crate::lease::Lease;
use crate::observer::{Observer, Progress};
use crate::plan::{Action, Plan, Step, StrategyName};
use crate::run::{Phase, RunState, StepState, StepStatus};

/// What steps act on.
#[async_trait]
pub trait World: Send + Sync {
    /// What a run does here.
    fn plan(&self) -> Plan;

    /// Carries out one step: probe, act, confirm. Repeating it has one effect.
    async fn perform(&self, step: &Step, run: &RunState) -> Result<Outcome>;

    /// Drops the pending password of a run that is called off.
    async fn discard(&self, run: &RunState) -> Result<()>;
}

/// How a process leaves a run.
#[derive(Clone, Debug)]
pub enum End {
    /// Everything is new and proven.
    Done,
    /// A step before the point of no return failed; nothing is changed.
    Failed(Error),
    /// Called off; nothing is changed.
    Aborted,
    /// These steps wait for a person; everything else that could be done is done.
    Parked(Vec<(StepId, Error)>),
    /// The process was asked to stop; `resume` goes on.
    Stopped,
}

/// How soon a pause notices that the process shall stop.
const LONGEST_NAP: Duration = Duration::from_millis(500);

/// How long to go on trying.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries of a step before it fails for good.
    pub attempts: u32,
    /// Tries of what is busy with something else: nothing is wrong there, and that comes to an end.
    pub busy: u32,
    /// Tries of a password that the server refuses: few and far apart, because servers lock out
    /// who hammers, and a cloud may need seconds to make a password effective.
    pub logins: u32,
    /// The pause after the first refusal; each further one is twice as long.
    pub login_pause: Duration,
    /// The first pause; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause of our own choosing.
    pub longest_pause: Duration,
    /// The longest pause that another system may ask for before the step is parked instead.
    pub longest_told: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            busy: 15,
            logins: 4,
            login_pause: Duration::from_secs(2),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
            longest_told: Duration::from_secs(600),
        }
    }
}

impl Patience {
    /// How long to wait before the next try, if there shall be one. `throttled` counts the tries in
    /// a row, this one included, that met a system which asked for fewer requests.
    fn pause(&self, error: &Error, tries: u32, throttled: u32, entropy: &dyn Entropy) -> Option<Duration> {
        let (limit, first) = match error.kind() {
            Kind::Refused => (self.logins, self.login_pause),
            Kind::Busy => (self.busy, self.first_pause),
            _ => (self.attempts, self.first_pause),
        };
        let told = error.told().unwrap_or_default();
        if tries >= limit || error.retry() == Retry::Never || told > self.longest_told {
            return None;
        }
        // Who asks again to be left alone was not left alone for long enough.
        let told = told.saturating_mul(throttled.max(1)).min(self.longest_told);
        let own = first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(self.longest_pause);
        // Between a half and the whole of it, so that many runs don't come back in step.
        let mut random = [0_u8];
        entropy.fill(&mut random);
        let jittered = own.mul_f64(0.5 + f64::from(random[0]) / 512.0);
        Some(jittered.max(told))
    }
}

/// Drives runs.
#[derive(Clone, Copy)]
pub struct Executor<'a> {
    /// Where events are kept.
    pub journal: &'a dyn Journal,
    /// What steps act on.
    pub world: &'a dyn World,
    /// The door to time.
    pub clock: &'a dyn Clock,
    /// The door to chance.
    pub entropy: &'a dyn Entropy,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// How long to go on trying.
    pub patience: Patience,
    /// Whether the process has been asked to stop: then the steps in hand are finished and no
    /// other is begun.
    pub stop: &'a (dyn Fn() -> bool + Send + Sync),
}

/// What a future in the executor's hands has to tell.
enum News {
    /// A try is over.
    Tried { step: Box<Step>, result: Box<Result<Outcome>>, began: Timestamp },
    /// The pause before the next try is over.
    Rested(StepId),
}

/// The futures of the steps that are being carried out.
type Hands<'a> = FuturesUnordered<BoxFuture<'a, News>>;

/// A run with the events that are not on disk yet.
struct Ledger<'r> {
    state: &'r mut RunState,
    lease: &'r Lease,
    unsaved: Vec<Record>,
}

impl Ledger<'_> {
    /// Takes an event in. It is on disk after the next flush.
    fn note(&mut self, at: Timestamp, event: Event) -> Result<()> {
        let record = Record { format: FORMAT, seq: self.state.next_seq, at, event };
        self.state.apply(&record)?;
        self.unsaved.push(record);
        Ok(())
    }

    /// Writes the events down, in one durable write.
    async fn flush(&mut self, journal: &dyn Journal) -> Result<()> {
        if self.unsaved.is_empty() {
            return Ok(());
        }
        journal.append(self.lease, self.state.run, &self.unsaved).await?;
        self.unsaved.clear();
        Ok(())
    }
}

impl<'a> Executor<'a> {
    /// Begins a run: its first event makes it discoverable after a crash.
    ///
    /// # Errors
    /// When the journal can't be written.
    pub async fn begin(&self, run: RunId, start: Start, lease: &Lease) -> Result<RunState> {
        let record = Record {
            format: FORMAT,
            seq: 0,
            at: self.clock.now(),
            event: Event::RunStarted(Arc::new(start)),
        };
        let state = RunState::begin(run, &record)?;
        self.journal.append(lease, run, &[record]).await?;
        self.notice(&state, &Progress::RunStarted { plan: state.plan(), resumed: false });
        Ok(state)
    }

    /// Takes over a run that another process began. Parked steps get another try.
    ///
    /// # Errors
    /// When the run is over, or the journal can't be read or written.
    pub async fn take_over(&self, run: RunId, lease: &Lease) -> Result<RunState> {
        let mut state = RunState::fold(run, &self.journal.read(run).await?)?;
        if state.phase == Phase::Finished {
            return Err(Error::new(Kind::Config, format!("go on with the run {run}"))
                .because("it is over")
                .hint(format!("what came of it: pgrotate history {run}")));
        }
        let mut ledger = Ledger { state: &mut state, lease, unsaved: Vec::new() };
        ledger.note(self.clock.now(), Event::RunResumed { generation: lease.generation })?;
        ledger.flush(self.journal).await?;
        self.notice(&state, &Progress::RunStarted { plan: state.plan(), resumed: true });
        Ok(state)
    }

    /// Carries the run on until it is over, parked or stopped.
    ///
    /// # Errors
    /// Only when the journal can't be written, which includes being fenced off: then no other
    /// effect is begun.
    pub async fn drive(&self, state: &mut RunState, lease: &Lease) -> Result<End> {
        let mut ledger = Ledger { state, lease, unsaved: Vec::new() };
        let end = if ledger.state.phase == Phase::Aborting {
            self.call_off(&mut ledger, None).await?
        } else {
            match self.carry_out(&mut ledger).await? {
                Some(error) => {
                    ledger.note(self.clock.now(), Event::AbortStarted { asked: false })?;
                    self.call_off(&mut ledger, Some(error)).await?
                }
                None => self.conclude(&mut ledger).await?,
            }
        };
        self.notice(ledger.state, &Progress::RunEnded { end: &end });
        Ok(end)
    }

    /// Calls a run off at a person's wish.
    ///
    /// # Errors
    /// [`Kind::BadState`] past the point of no return.
    pub async fn abort(&self, state: &mut RunState, lease: &Lease) -> Result<End> {
        if state.past_point_of_no_return() {
            return Err(Error::new(Kind::BadState, format!("abort the run {}", state.run))
                .because("it is past its point of no return: the server may have the new password already")
                .hint(format!("go forward: pgrotate resume {}", state.run)));
        }
        let mut ledger = Ledger { state, lease, unsaved: Vec::new() };
        if ledger.state.phase != Phase::Aborting {
            ledger.note(self.clock.now(), Event::AbortStarted { asked: true })?;
        }
        let end = self.call_off(&mut ledger, None).await?;
        self.notice(ledger.state, &Progress::RunEnded { end: &end });
        Ok(end)
    }

    /// Runs every step that can run. Gives the error that ends a run before its point of no
    /// return; after it, failed steps are parked and the rest goes on.
    async fn carry_out(&self, ledger: &mut Ledger<'_>) -> Result<Option<Error>> {
        let mut hands: Hands<'a> = FuturesUnordered::new();
        let mut in_hand: BTreeSet<StepId> = BTreeSet::new();
        let mut fatal = None;
        loop {
            let begin = fatal.is_none() && !(self.stop)();
            let ready = if begin { ready(ledger.state, &in_hand) } else { Vec::new() };
            for step in &ready {
                let attempt = ledger.state.step(&step.id).attempts + 1;
                ledger.note(self.clock.now(), Event::StepStarted { step: step.id.clone(), attempt })?;
            }
            // On disk before the effect: a crash must not hide that it may have happened.
            ledger.flush(self.journal).await?;
            if !ready.is_empty() {
                // One picture of the run for all steps that begin together.
                let seen = Arc::new(ledger.state.clone());
                for step in ready {
                    in_hand.insert(step.id.clone());
                    hands.push(self.attempt(step, Arc::clone(&seen)));
                }
            }
            match hands.next().await {
                None => return Ok(fatal),
                Some(News::Rested(step)) => drop(in_hand.remove(&step)),
                Some(News::Tried { step, result, began }) => {
                    match self.settle(ledger, &step, *result, began)? {
                        Verdict::Settled => drop(in_hand.remove(&step.id)),
                        Verdict::Again(pause) => hands.push(self.rest(step.id, pause)),
                        Verdict::Fatal(error) => fatal = Some(error),
                    }
                }
            }
        }
    }

    /// One try of a step.
    fn attempt(&self, step: Step, state: Arc<RunState>) -> BoxFuture<'a, News> {
        self.notice(&state, &Progress::StepStarted { step: &step, attempt: state.step(&step.id).attempts });
        let (world, began) = (self.world, self.clock.now());
        if let Action::Soak { seconds } = step.action {
            let first = state.step(&step.id).started_at.unwrap_or(began);
            return self.soak(step, first, Duration::from_secs(seconds));
        }
        Box::pin(async move {
            let result = world.perform(&step, &state).await;
            News::Tried { step: Box::new(step), result: Box::new(result), began }
        })
    }

    /// The pause before another try. Nobody who wants to stop waits for its end.
    fn rest(&self, step: StepId, pause: Duration) -> BoxFuture<'a, News> {
        let (clock, stop) = (self.clock, self.stop);
        Box::pin(async move {
            nap(clock, stop, pause).await;
            News::Rested(step)
        })
    }

    /// A step that only waits. It counts from its first start, so that a run which is resumed waits for no
    /// more than the rest; who wants to stop leaves it open.
    fn soak(&self, step: Step, first: Timestamp, time: Duration) -> BoxFuture<'a, News> {
        let (clock, stop, began) = (self.clock, self.stop, self.clock.now());
        let passed = Duration::try_from(began.duration_since(first)).unwrap_or_default();
        Box::pin(async move {
            if !nap(clock, stop, time.saturating_sub(passed)).await {
                return News::Rested(step.id);
            }
            News::Tried { step: Box::new(step), result: Box::new(Ok(Outcome::confirmed())), began }
        })
    }

    /// Takes in what came of a try, and decides what follows from a failure.
    fn settle(
        &self,
        ledger: &mut Ledger<'_>,
        step: &Step,
        result: Result<Outcome>,
        began: Timestamp,
    ) -> Result<Verdict> {
        let now = self.clock.now();
        let error = match result {
            Ok(outcome) => {
                let elapsed = now.duration_since(began).unsigned_abs();
                self.notice(ledger.state, &Progress::StepFinished { step, outcome: &outcome, elapsed });
                ledger
                    .note(now, Event::StepFinished { step: step.id.clone(), outcome: Box::new(outcome) })?;
                return Ok(Verdict::Settled);
            }
            Err(error) => error,
        };
        ledger.note(now, Event::StepFailed { step: step.id.clone(), error: error.clone() })?;
        let StepState { recent_attempts, throttled, .. } = *ledger.state.step(&step.id);
        let pause = self.patience.pause(&error, recent_attempts, throttled, self.entropy);
        self.notice(ledger.state, &Progress::StepFailed { step, error: &error, retry_in: pause });
        match pause {
            Some(pause) => Ok(Verdict::Again(pause)),
            None if ledger.state.past_point_of_no_return() => {
                self.notice(ledger.state, &Progress::StepParked { step, error: &error });
                ledger.note(now, Event::StepParked { step: step.id.clone() })?;
                Ok(Verdict::Settled)
            }
            None => Ok(Verdict::Fatal(error)),
        }
    }

    /// Ends a run whose steps have been carried out as far as they go.
    async fn conclude(&self, ledger: &mut Ledger<'_>) -> Result<End> {
        if ledger.state.all_done() {
            ledger.note(self.clock.now(), Event::RunFinished { outcome: RunOutcome::Done })?;
            ledger.flush(self.journal).await?;
            return Ok(End::Done);
        }
        let parked = parked(ledger.state);
        if parked.is_empty() || !ready(ledger.state, &BTreeSet::new()).is_empty() {
            ledger.flush(self.journal).await?;
            return Ok(End::Stopped);
        }
        ledger.note(self.clock.now(), Event::RunParked)?;
        ledger.flush(self.journal).await?;
        Ok(End::Parked(parked))
    }

    /// Drops the pending password and ends the run.
    async fn call_off(&self, ledger: &mut Ledger<'_>, why: Option<Error>) -> Result<End> {
        ledger.flush(self.journal).await?;
        if ledger.state.may_have_staged()
            && let Err(error) = self.discard(ledger.state).await
        {
            let run = ledger.state.run;
            let left = match ledger.state.plan().strategy {
                StrategyName::Alternating => {
                    "give the idle role back what it had and drop the pending password; nobody uses either, and the next run \
                     would stop at them"
                }
                _ => "drop the pending password, which is harmless but would stop the next run",
            };
            let error = error
                .during(left)
                .hint(format!("when the vault of record answers again: pgrotate abort {run}"));
            return Ok(End::Parked(vec![(StepId::from("discard"), error)]));
        }
        let outcome = if ledger.state.abort_asked { RunOutcome::Aborted } else { RunOutcome::Failed };
        ledger.note(self.clock.now(), Event::RunFinished { outcome })?;
        ledger.flush(self.journal).await?;
        Ok(match (outcome, why.or_else(|| last_error(ledger.state))) {
            (RunOutcome::Failed, Some(error)) => End::Failed(error),
            _ => End::Aborted,
        })
    }

    /// Discarding has no step of its own: it is repeated here.
    async fn discard(&self, state: &RunState) -> Result<()> {
        let (mut tries, mut throttled) = (0, 0);
        loop {
            let Err(error) = self.world.discard(state).await else { return Ok(()) };
            tries += 1;
            throttled = if error.kind() == Kind::Throttled { throttled + 1 } else { 0 };
            let pause = self.patience.pause(&error, tries, throttled, self.entropy);
            self.clock.sleep(pause.ok_or(error)?).await;
        }
    }

    fn notice(&self, state: &RunState, progress: &Progress<'_>) {
        self.observer.notice(self.clock.now(), &state.plan().environment, state.run, progress);
    }
}

/// Waits, unless the process shall stop; tells whether the whole time has passed.
async fn nap(clock: &dyn Clock, stop: &(dyn Fn() -> bool + Send + Sync), time: Duration) -> bool {
    let mut left = time;
    while !left.is_zero() && !stop() {
        let nap = left.min(LONGEST_NAP);
        clock.sleep(nap).await;
        left -= nap;
    }
    left.is_zero()
}

/// What follows from a try.
enum Verdict {
    /// The step is done or parked.
    Settled,
    /// It is tried again after a pause.
    Again(Duration),
    /// The run ends.
    Fatal(Error),
}

/// The steps that can begin: not in hand, not parked since a person last asked, and everything
/// they wait for is done. A step that was in flight when its process died begins again.
fn ready(state: &RunState, in_hand: &BTreeSet<StepId>) -> Vec<Step> {
    let open = |story: &StepState| match story.status {
        StepStatus::Waiting | StepStatus::InFlight | StepStatus::Failed => true,
        StepStatus::Parked => story.recent_attempts == 0,
        StepStatus::Done => false,
    };
    let done = |id: &StepId| state.status(id) == StepStatus::Done;
    state
        .steps()
        .filter(|(step, story)| open(story) && !in_hand.contains(&step.id) && step.after.iter().all(done))
        .map(|(step, _)| step.clone())
        .collect()
}

/// The failure that made a run give up.
fn last_error(state: &RunState) -> Option<Error> {
    state.steps().filter_map(|(_, story)| story.error.clone()).last()
}

/// The steps that wait for a person, with the reason.
pub fn parked(state: &RunState) -> Vec<(StepId, Error)> {
    let waiting = state.steps().filter(|(_, story)| story.status == StepStatus::Parked);
    waiting.filter_map(|(step, story)| Some((step.id.clone(), story.error.clone()?))).collect()
}
