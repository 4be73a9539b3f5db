//! Who starts processes: a person who wants something done, and goes on when a process has died or a step is parked.

use futures::FutureExt;
use pgrotate_core::RunId;
use pgrotate_core::engine::Engine;
use pgrotate_core::journal::RunOutcome;
use pgrotate_core::run::Phase;

use crate::disk::Desk;
use crate::network::{Network, Wire};
use crate::process::{self, Command};
use crate::shape::{Goal, Shape};
use crate::time::Time;

/// Who begins a new run gives what the one before has sent so long to arrive.
const PAUSE_MS: u64 = 60_000;

/// A person with goals.
pub(crate) struct Person {
    goals: Vec<Goal>,
    armed_at: usize,
    changes_mind: u64,
    /// The goals that have been set out for.
    begun: usize,
    /// What has been decided, and waits for what is under way.
    next: Option<Command>,
    waits_until_ms: Option<u64>,
    /// How long to wait before going on.
    retry_ms: u64,
    engine: Engine<Desk>,
    wire: Wire,
}

impl Person {
    pub(crate) fn new(shape: &Shape, desk: Desk, wire: Wire) -> Self {
        Self {
            goals: shape.goals.clone(),
            armed_at: shape.armed_at,
            changes_mind: shape.changes_mind,
            begun: 0,
            next: None,
            waits_until_ms: None,
            retry_ms: 0,
            engine: process::engine(&desk, &wire),
            wire,
        }
    }

    /// What somebody starts who does not know that a process is at work.
    pub(crate) fn rival(network: &Network) -> Command {
        let newest = network.world.lock().witness.runs().last();
        match newest {
            Some((run, _)) if network.dice.in_thousand(700) => Command::Resume(run),
            _ => Command::Rotate,
        }
    }

    /// How the runs ended, newest first.
    pub(crate) fn outcomes(&self) -> Vec<Option<RunOutcome>> {
        let world = self.wire.network.world.lock();
        world.witness.runs().rev().map(|(_, outcome)| outcome).collect()
    }

    /// Whether what is under way is given time to arrive, before the next process starts.
    pub(crate) fn lets_pass(&mut self, time: &Time) -> bool {
        if self.next.is_none() {
            self.next = self.decides();
        }
        let pause_ms = match self.next {
            None | Some(Command::Rotate | Command::Rollback(_)) => PAUSE_MS,
            Some(Command::Resume(_) | Command::Abort(_)) => self.retry_ms,
        };
        let until = *self.waits_until_ms.get_or_insert(time.now_ms() + pause_ms);
        // In the end everything arrives.
        self.next.is_none() || time.next_ms().is_some_and(|next| next < until)
    }

    /// The next command; none when all is over.
    pub(crate) fn wants(&mut self) -> Option<Command> {
        self.waits_until_ms = None;
        // Who had to go on more often waits longer.
        self.retry_ms = (2 * self.retry_ms + 1).min(PAUSE_MS);
        // What came late may ask for one thing more.
        let command = self.next.take().or_else(|| self.decides())?;
        if matches!(command, Command::Rotate | Command::Rollback(_)) {
            if self.begun == self.armed_at {
                self.wire.network.arm();
            }
            self.begun += 1;
            self.retry_ms = 0;
        }
        Some(command)
    }

    fn decides(&self) -> Option<Command> {
        if let Some(run) = self.wire.network.world.lock().witness.open() {
            return Some(self.goes_on(run));
        }
        // What came late is dropped, as the next run's check would ask for it.
        if let Some(left) = self.left_pending() {
            return Some(Command::Abort(left));
        }
        let goal = self.goals.get(self.begun)?;
        let world = self.wire.network.world.lock();
        let last_done = world.witness.runs().rev().find(|(_, outcome)| *outcome == Some(RunOutcome::Done));
        Some(match (goal, last_done) {
            (Goal::GoBack, Some((run, _))) => Command::Rollback(run),
            _ => Command::Rotate,
        })
    }

    fn goes_on(&self, run: RunId) -> Command {
        let network = &self.wire.network;
        if network.is_well() || !network.dice.in_thousand(self.changes_mind) {
            return Command::Resume(run);
        }
        let state = self.engine.state(run).now_or_never().and_then(Result::ok);
        match state {
            Some(state) if !state.past_point_of_no_return() || self.is_stubborn() => Command::Abort(run),
            Some(state) if state.has_promoted() && state.phase == Phase::Parked => Command::Rollback(run),
            _ => Command::Resume(run),
        }
    }

    /// Some would call a run off that only goes forward.
    fn is_stubborn(&self) -> bool {
        self.wire.network.dice.in_thousand(300)
    }

    fn left_pending(&self) -> Option<RunId> {
        let world = self.wire.network.world.lock();
        world.safe.pending.first().and_then(|kept| kept.run)
    }
}
