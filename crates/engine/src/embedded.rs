//! The engine of one process: takes the lease, keeps it alive, and lets the executor drive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::{End, Executor, Patience};
use pgrotate_core::journal::{Journal, RunHeading, Start, fenced};
use pgrotate_core::lease::{Lease, Leases, TERM};
use pgrotate_core::observer::{Observer, Progress};
use pgrotate_core::plan::{Back, Plan};
use pgrotate_core::rotation::Rotation;
use pgrotate_core::run::{Phase, RunState};
use pgrotate_core::{Environment, Error, Kind, Result, RunId};

use crate::sqlite::SqliteStore;

/// Who asks for a run, and why.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Who.
    pub operator: String,
    /// The ticket, as the operator names it.
    pub ticket: Option<String>,
}

/// Why a call of the engine came to no end of its own.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Before the run was begun or taken over: nothing has happened.
    Before(Error),
    /// The run is begun and could not be carried on: `resume` goes on with it.
    During(RunId, Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Before(error)
    }
}

/// Runs rotations in this process.
#[derive(Clone)]
pub struct Embedded {
    store: SqliteStore,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    observer: Arc<dyn Observer>,
    patience: Patience,
    stop: Arc<AtomicBool>,
}

impl Embedded {
    /// An engine over a state folder's store. When `stop` is set, the steps in hand are
    /// finished and no other is begun.
    pub fn new(
        store: SqliteStore,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        observer: Arc<dyn Observer>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { store, clock, entropy, observer, patience: Patience::default(), stop }
    }

    /// Rotates.
    ///
    /// # Errors
    /// [`Trouble::Before`] when another run of the environment is not over (but for the one that is taken back) or
    /// somebody else holds the lease; [`Trouble::During`] when the journal fails after the run has begun.
    pub async fn start(&self, rotation: &Rotation, wish: Wish) -> Result<(RunId, End), Trouble> {
        let plan = rotation.plan();
        let run = RunId::generate(self.clock.now(), &*self.entropy);
        let lease = self.lease(&plan.environment, run).await?;
        let work = async {
            self.refuse_second(&plan).await?;
            let start = Start {
                plan,
                generation: lease.generation,
                operator: wish.operator,
                ticket: wish.ticket,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            self.guarded(rotation, &lease, async |executor| {
                let mut state = executor.begin(run, start, &lease).await?;
                executor.drive(&mut state, &lease).await.map_err(|error| Trouble::During(run, error))
            })
            .await
        };
        let result = work.await;
        self.release(&lease, result.map(|end| (run, end))).await
    }

    /// Goes on with a run after a crash or a parked step.
    ///
    /// # Errors
    /// As [`Embedded::start`]; also when the run is over or the configuration has changed under it.
    pub async fn resume(&self, rotation: &Rotation, run: RunId) -> Result<End, Trouble> {
        same_place(rotation, &self.state(run).await?)?;
        let lease = self.lease(&rotation.environment, run).await?;
        let work = self.guarded(rotation, &lease, async |executor| {
            self.refuse_overtaken(run).await?;
            let mut state = executor.take_over(run, &lease).await?;
            executor.drive(&mut state, &lease).await.map_err(|error| Trouble::During(run, error))
        });
        let result = work.await;
        self.release(&lease, result).await
    }

    /// Calls a run off before its point of no return. Of a run that is over, drops what it may
    /// have left in the vault of record: a write that came after its sender had given up.
    ///
    /// # Errors
    /// Past the point of no return, and as [`Embedded::resume`].
    pub async fn abort(&self, rotation: &Rotation, run: RunId) -> Result<End, Trouble> {
        let state = self.state(run).await?;
        same_place(rotation, &state)?;
        let lease = self.lease(&rotation.environment, run).await?;
        let over = state.phase == Phase::Finished || self.overtaken_by(&state).await?.is_some();
        let work = self.guarded(rotation, &lease, async |executor| {
            if over {
                // Its answer may have been lost, and its write have come late.
                executor.world.discard(&state).await?;
                return Ok(End::Aborted);
            }
            let mut state = executor.take_over(run, &lease).await?;
            executor.abort(&mut state, &lease).await.map_err(Trouble::Before)
        });
        let result = work.await;
        self.release(&lease, result).await
    }

    /// Takes the lease of an environment.
    async fn lease(&self, environment: &Environment, run: RunId) -> Result<Lease> {
        self.observer.notice(self.clock.now(), environment, run, &Progress::LeaseWanted);
        let lease = self.store.acquire(environment).await?;
        self.observer.notice(self.clock.now(), environment, run, &Progress::LeaseTaken);
        Ok(lease)
    }

    /// Gives an executor, and keeps the lease alive while it works. A lease that can't be kept
    /// stops the run before its next step; the journal refuses its writes in any case.
    async fn guarded(
        &self,
        rotation: &Rotation,
        lease: &Lease,
        work: impl AsyncFnOnce(Executor<'_>) -> Result<End, Trouble>,
    ) -> Result<End, Trouble> {
        let lost = Arc::new(AtomicBool::new(false));
        let keeper = tokio::spawn(keep_alive(self.store.clone(), lease.clone(), Arc::clone(&lost)));
        let stop = || self.stop.load(Ordering::Relaxed) || lost.load(Ordering::Relaxed);
        let executor = Executor {
            journal: &self.store,
            world: rotation,
            clock: &*self.clock,
            entropy: &*self.entropy,
            observer: &*self.observer,
            patience: self.patience,
            stop: &stop,
        };
        let end = work(executor).await;
        keeper.abort();
        match end {
            // Nobody asked it to stop: somebody else goes on with the environment.
            Ok(End::Stopped) if lost.load(Ordering::Relaxed) => {
                Err(Trouble::Before(fenced(&lease.environment)))
            }
            end => end,
        }
    }

    async fn release<T>(&self, lease: &Lease, result: Result<T, Trouble>) -> Result<T, Trouble> {
        // The run's own result counts; a lease that can't be given back runs out by itself.
        let _ = self.store.release(lease).await;
        result
    }

    /// A run that is not over would be overtaken, with a pending password of its own.
    async fn refuse_second(&self, plan: &Plan) -> Result<()> {
        let environment = &plan.environment;
        match self.unfinished(Some(environment)).await?.into_iter().next() {
            None => Ok(()),
            // What is taken back need not come to its end first: often it can't.
            Some(state) if plan.back().is_some_and(|back| back.run == state.run) && state.has_promoted() => {
                Ok(())
            }
            Some(state) => {
                let run = state.run;
                let error = Error::new(Kind::BadState, format!("start rotating {environment}"))
                    .because(format!("the run {run} is not over"))
                    .hint(format!("go on with it: pgrotate resume {run}"));
                Err(if state.past_point_of_no_return() {
                    error
                } else {
                    error.hint(format!("or call it off: pgrotate abort {run}"))
                })
            }
        }
    }

    /// Where a rollback of this run leads.
    ///
    /// # Errors
    /// When it changed nothing, or has not come far enough.
    pub async fn way_back(&self, run: RunId) -> Result<Back> {
        let state = self.state(run).await?;
        let refuse = |why: &str| Error::new(Kind::BadState, format!("take the run {run} back")).because(why);
        if state.changed_nothing() {
            return Err(refuse("it changed nothing"));
        }
        if !state.has_promoted() {
            let error =
                refuse("it is not over, and the vault of record does not call its password current yet")
                    .hint(format!("go on with it: pgrotate resume {run}"));
            return Err(match state.past_point_of_no_return() {
                true => error,
                false => error.hint(format!("or call it off: pgrotate abort {run}")),
            });
        }
        let before = state.outcome_of("stage").and_then(|outcome| outcome.previous.clone());
        let to = before.ok_or_else(|| refuse("the vault of record held no password before it"))?;
        Ok(Back { run, to })
    }

    /// The run that has changed the environment since, or is about to.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn overtaken_by(&self, state: &RunState) -> Result<Option<RunId>> {
        for heading in self.newest_first(Some(&state.plan().environment)).await? {
            if heading.generation <= state.start.generation {
                break;
            }
            if !self.state(heading.run).await?.changed_nothing() {
                return Ok(Some(heading.run));
            }
        }
        Ok(None)
    }

    async fn refuse_overtaken(&self, run: RunId) -> Result<()> {
        let state = self.state(run).await?;
        match self.overtaken_by(&state).await? {
            Some(by) if state.phase != Phase::Finished => {
                Err(Error::new(Kind::BadState, format!("go on with the run {run}"))
                    .because(format!("the run {by} has taken it back"))
                    .hint(format!("what came of that: pgrotate history {by}")))
            }
            _ => Ok(()),
        }
    }

    /// The runs, each environment's newest first.
    async fn newest_first(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        let mut headings = self.store.runs(environment).await?;
        headings.sort_by_key(|heading| std::cmp::Reverse(heading.generation));
        Ok(headings)
    }

    /// The runs that are not over. An environment has one at most, its newest: a run begins
    /// only when those before it are over, but for the one that it takes back. So an old entry that is damaged is
    /// nobody's trouble.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn unfinished(&self, environment: Option<&Environment>) -> Result<Vec<RunState>> {
        let mut open = Vec::new();
        let mut seen = Vec::new();
        for heading in self.newest_first(environment).await? {
            if seen.contains(&heading.environment) {
                continue;
            }
            let state = self.state(heading.run).await?;
            // A rollback that came to nothing leaves what it was to take back as it was.
            if state.changed_nothing() && state.plan().back().is_some() {
                continue;
            }
            if state.phase != Phase::Finished {
                open.push(state);
            }
            seen.push(heading.environment);
        }
        Ok(open)
    }

    /// All runs, newest first.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn history(&self, environment: Option<&Environment>) -> Result<Vec<RunState>> {
        let mut states = Vec::new();
        for heading in self.store.runs(environment).await? {
            states.push(self.state(heading.run).await?);
        }
        Ok(states)
    }

    /// One run.
    ///
    /// # Errors
    /// When there is no such run, or the journal can't be read.
    pub async fn state(&self, run: RunId) -> Result<RunState> {
        RunState::fold(run, &self.store.read(run).await?)
    }
}

/// A run is carried on, and taken back, only where it began: under the same name another configuration,
/// or an edited one, may mean another server.
///
/// # Errors
/// When the rotation leads to another server or another vault of record.
pub fn same_place(rotation: &Rotation, state: &RunState) -> Result<()> {
    let (then, now) = (state.plan(), rotation.plan());
    let differs = [
        ("target", then.target.as_str(), now.target.as_str()),
        ("authority", then.authority.as_str(), now.authority.as_str()),
        ("vault of record", then.vault.as_str(), now.vault.as_str()),
    ]
    .into_iter()
    .find(|(_, then, now)| then != now);
    match differs {
        None => Ok(()),
        Some((what, then, now)) => Err(Error::new(Kind::Config, format!("go on with the run {}", state.run))
            .because(format!("its {what} is {then}; the configuration now says {now}"))
            .hint(
                "use the configuration with which it began, or a state folder of its own for each project",
            )),
    }
}

/// Renews a lease three times in its term.
async fn keep_alive(store: SqliteStore, lease: Lease, lost: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(Duration::from_secs(TERM.as_secs() / 3)).await;
        if let Err(error) = store.renew(&lease).await
            && error.kind() == Kind::Fenced
        {
            lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}
