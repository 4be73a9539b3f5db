//! Begins runs, goes on with them and calls them off: one at a time in an environment, under a lease.
//!
//! It knows neither where the journal lives nor what a step does; both come in through traits, so what a
//! simulation plays is what the program runs. [`runs`] answers questions about runs, [`keep`] keeps the lease alive.

mod keep;
mod runs;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::{Clock, Entropy};
use crate::error::{Error, Kind, Result};
use crate::executor::{End, Executor, Patience, World};
use crate::ids::{Environment, RunId};
use crate::journal::{Journal, Start};
use crate::lease::Leases;
use crate::observer::{Observer, Progress};
use crate::past::Overrides;
use crate::run::{Phase, RunState};

use keep::{Guarded, Held};
pub use runs::same_place;

/// Who asks for a run, and why.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Who.
    pub operator: String,
    /// The ticket, as the operator names it.
    pub ticket: Option<String>,
    /// What they let pass.
    pub overrides: Overrides,
}

/// Why a call of the engine came to no end of its own.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The run was not begun or taken over, or somebody else has it now: nothing is left to do here.
    Before(Error),
    /// The run is begun and could not be carried on: `resume` goes on with it.
    During(RunId, Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Before(error)
    }
}

/// Drives runs, with this store as its memory.
#[derive(Clone)]
pub struct Engine<S> {
    store: S,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    observer: Arc<dyn Observer>,
    patience: Patience,
    stop: Arc<AtomicBool>,
}

impl<S: Journal + Leases> Engine<S> {
    /// An engine over a store. When `stop` is set, the steps in hand are finished and no other is begun.
    pub fn new(
        store: S,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        observer: Arc<dyn Observer>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { store, clock, entropy, observer, patience: Patience::default(), stop }
    }

    /// The memory of runs.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Begins a run, and carries it out.
    ///
    /// # Errors
    /// [`Trouble::Before`] when another run of the environment is not over (but for the one that is taken back) or
    /// somebody else holds the lease; [`Trouble::During`] when the journal fails after the run has begun.
    pub async fn start(&self, world: &dyn World, wish: Wish) -> Result<(RunId, End), Trouble> {
        let plan = world.plan();
        let run = RunId::generate(self.clock.now(), &*self.entropy);
        let held = self.lease(&plan.environment, run).await?;
        let end = self
            .holding(&held, async {
                self.refuse_second(&plan).await?;
                let start = Start {
                    plan,
                    generation: held.lease.generation,
                    operator: wish.operator,
                    ticket: wish.ticket,
                    overrides: wish.overrides,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                };
                let stop = self.stop();
                let world = self.guarded(world, &held);
                let executor = self.executor(&world, &stop);
                let mut state = executor.begin(run, start, &held.lease).await?;
                executor.drive(&mut state, &held.lease).await.map_err(|error| Trouble::During(run, error))
            })
            .await?;
        Ok((run, end))
    }

    /// Goes on with a run after a crash or a parked step.
    ///
    /// # Errors
    /// As [`Engine::start`]; also when the run is over, another one has taken it back, or the configuration has
    /// changed under it.
    pub async fn resume(&self, world: &dyn World, run: RunId) -> Result<End, Trouble> {
        let state = self.state(run).await?;
        same_place(world, &state)?;
        let held = self.lease(&state.plan().environment, run).await?;
        self.holding(&held, async {
            self.refuse_overtaken(&state).await?;
            let stop = self.stop();
            let world = self.guarded(world, &held);
            let executor = self.executor(&world, &stop);
            let mut state = executor.take_over(run, &held.lease).await?;
            executor.drive(&mut state, &held.lease).await.map_err(|error| Trouble::During(run, error))
        })
        .await
    }

    /// Calls a run off before its point of no return. Of a run that is over, drops what it may have left in the
    /// vault of record: a write that came after its sender had given up.
    ///
    /// # Errors
    /// Past the point of no return, and as [`Engine::resume`].
    pub async fn abort(&self, world: &dyn World, run: RunId) -> Result<End, Trouble> {
        let state = self.state(run).await?;
        same_place(world, &state)?;
        let held = self.lease(&state.plan().environment, run).await?;
        self.holding(&held, async {
            // Read under the lease: a moment ago another process may have carried it on.
            let state = self.state(run).await?;
            let stop = self.stop();
            let world = self.guarded(world, &held);
            let executor = self.executor(&world, &stop);
            if state.phase == Phase::Finished || self.overtaken_by(&state).await?.is_some() {
                // Its answer may have been lost, and its write have come late.
                world.discard(&state).await?;
                return Ok(End::Aborted);
            }
            let mut state = executor.take_over(run, &held.lease).await?;
            Ok(executor.abort(&mut state, &held.lease).await?)
        })
        .await
    }

    /// Does something else to an environment that no run may meet: alone, and while none is open.
    ///
    /// # Errors
    /// When a run of the environment is not over or somebody else holds the lease, and those of the work.
    pub async fn alone<T>(
        &self,
        environment: &Environment,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T, Trouble> {
        let held = self.lease(environment, RunId::generate(self.clock.now(), &*self.entropy)).await?;
        self.holding(&held, async {
            match self.unfinished(Some(environment)).await?.first() {
                Some(state) => Err(not_over(environment, state).into()),
                None => Ok(work.await?),
            }
        })
        .await
    }

    /// Whether the process has been asked to begin nothing more.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn stop(&self) -> impl Fn() -> bool + Send + Sync {
        || self.is_stopping()
    }

    fn guarded<'a>(&'a self, world: &'a dyn World, held: &'a Held) -> Guarded<'a> {
        Guarded { world, held, clock: &*self.clock }
    }

    fn executor<'a>(
        &'a self,
        world: &'a dyn World,
        stop: &'a (dyn Fn() -> bool + Send + Sync),
    ) -> Executor<'a> {
        Executor {
            journal: &self.store,
            world,
            clock: &*self.clock,
            entropy: &*self.entropy,
            observer: &*self.observer,
            patience: self.patience,
            stop,
        }
    }

    /// Takes the lease of an environment.
    async fn lease(&self, environment: &Environment, run: RunId) -> Result<Held> {
        self.observer.notice(self.clock.now(), environment, run, &Progress::LeaseWanted);
        // Before the request: the lease may count from any moment since.
        let since = self.clock.uptime();
        let held = Held::new(self.store.acquire(environment).await?, since);
        self.observer.notice(self.clock.now(), environment, run, &Progress::LeaseTaken);
        Ok(held)
    }

    /// A run that is not over would be overtaken, with a pending password of its own.
    async fn refuse_second(&self, plan: &crate::plan::Plan) -> Result<()> {
        let environment = &plan.environment;
        let Some(state) = self.unfinished(Some(environment)).await?.into_iter().next() else { return Ok(()) };
        // What is taken back need not come to its end first: often it can't.
        if plan.back().is_some_and(|back| back.run == state.run) && state.has_promoted() {
            return Ok(());
        }
        Err(not_over(environment, &state))
    }

    async fn refuse_overtaken(&self, state: &RunState) -> Result<()> {
        let run = state.run;
        match self.overtaken_by(state).await? {
            Some(by) if state.phase != Phase::Finished => {
                Err(Error::new(Kind::BadState, format!("go on with the run {run}"))
                    .because(format!("the run {by} has taken it back"))
                    .hint(format!("what came of that: pgrotate history {by}")))
            }
            _ => Ok(()),
        }
    }
}

fn not_over(environment: &Environment, state: &RunState) -> Error {
    let error = Error::new(Kind::BadState, format!("start rotating {environment}"))
        .because(format!("the run {} is not over", state.run));
    ways_on(state).into_iter().fold(error, Error::hint)
}

/// What a person can do about a run that is not over.
fn ways_on(state: &RunState) -> Vec<String> {
    let run = state.run;
    let on = format!("go on with it: pgrotate resume {run}");
    match state.past_point_of_no_return() {
        true => vec![on],
        false => vec![on, format!("or call it off: pgrotate abort {run}")],
    }
}
