//! One process of pgrotate: takes the lease, keeps it alive, begins or takes over a run, and lets the executor drive.
//! It may die between any two moments.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::future::{Either, select};
use jiff::SignedDuration;
use pgrotate_core::env::Clock;
use pgrotate_core::executor::{End, Executor, Patience};
use pgrotate_core::journal::{Journal, MemoryJournal, Record, RunHeading, Start, fenced};
use pgrotate_core::lease::{Generation, Lease, Leases, TERM};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::run::{Phase, RunState};
use pgrotate_core::{Environment, Error, Kind, Result, RunId};

use crate::network::Wire;
use crate::time::Time;
use crate::vendors;

/// Who holds the lease.
#[derive(Default)]
struct Holder {
    generation: u64,
    held: Option<(u32, Lease)>,
}

/// A state folder: the journal and the lease, with the rules of the real one.
#[derive(Clone)]
pub(crate) struct Disk {
    journal: Arc<MemoryJournal>,
    holder: Arc<Mutex<Holder>>,
    /// The processes that have died: their leases bind nobody.
    dead: Arc<Mutex<Vec<u32>>>,
    time: Time,
}

impl Disk {
    pub(crate) fn new(time: Time) -> Self {
        Self { journal: Arc::default(), holder: Arc::default(), dead: Arc::default(), time }
    }

    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().expect("no holder of this lock panics")
    }

    /// Notes a death.
    pub(crate) fn bury(&self, process: u32) {
        self.dead.lock().expect("no holder of this lock panics").push(process);
    }

    /// The last run, if there is one.
    pub(crate) async fn last(&self) -> Result<Option<RunState>> {
        match self.journal.runs(None).await?.into_iter().next() {
            Some(RunHeading { run, .. }) => RunState::fold(run, &self.journal.read(run).await?).map(Some),
            None => Ok(None),
        }
    }

    /// The whole journal, run by run.
    pub(crate) async fn records(&self) -> Result<Vec<(RunId, Vec<Record>)>> {
        let mut runs = Vec::new();
        for heading in self.journal.runs(None).await? {
            runs.push((heading.run, self.journal.read(heading.run).await?));
        }
        Ok(runs)
    }

    /// The same as text.
    pub(crate) async fn text(&self) -> Result<String> {
        let mut text = String::new();
        for record in self.records().await?.iter().flat_map(|(_, records)| records) {
            text += &serde_json::to_string(record).map_err(|_| Error::internal("a record is no JSON"))?;
            text.push('\n');
        }
        Ok(text)
    }
}

/// One process's access to the state folder.
struct Desk<'d> {
    disk: &'d Disk,
    process: u32,
}

#[async_trait]
impl Journal for Desk<'_> {
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()> {
        // A process may die before its write, and after it without knowing.
        self.disk.time.sleep_ms(1).await;
        self.disk.journal.append(lease, run, records).await?;
        self.disk.time.sleep_ms(1).await;
        Ok(())
    }

    async fn read(&self, run: RunId) -> Result<Vec<Record>> {
        self.disk.journal.read(run).await
    }

    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        self.disk.journal.runs(environment).await
    }
}

#[async_trait]
impl Leases for Desk<'_> {
    async fn acquire(&self, environment: &Environment) -> Result<Lease> {
        let now = self.disk.time.now();
        let mut holder = self.disk.holder();
        if let Some((process, lease)) = &holder.held {
            let dead = self.disk.dead.lock().expect("no holder of this lock panics").contains(process);
            if !dead && lease.expires_at > now {
                return Err(Error::new(Kind::Busy, "take the lease").because("a living process holds it"));
            }
        }
        holder.generation += 1;
        let lease = Lease {
            environment: environment.clone(),
            generation: Generation(holder.generation),
            expires_at: now + SignedDuration::try_from(TERM).unwrap_or(SignedDuration::MAX),
        };
        self.disk.journal.fence(&lease);
        holder.held = Some((self.process, lease.clone()));
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease> {
        let now = self.disk.time.now();
        let mut holder = self.disk.holder();
        match &mut holder.held {
            Some((_, held)) if held.generation == lease.generation => {
                held.expires_at = now + SignedDuration::try_from(TERM).unwrap_or(SignedDuration::MAX);
                Ok(held.clone())
            }
            _ => Err(fenced(&lease.environment)),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let mut holder = self.disk.holder();
        if holder.held.as_ref().is_some_and(|(_, held)| held.generation == lease.generation) {
            holder.held = None;
        }
        Ok(())
    }
}

/// What a person wants of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// `rotate`, or `resume` where a run is not over.
    Forward,
    /// `abort`.
    Abort,
}

/// How a process ended, if it was not killed.
#[derive(Clone, Debug)]
pub(crate) enum Exit {
    /// The run came to this.
    Run(End),
    /// It could not begin, or not go on.
    Trouble(Error),
}

/// Runs a process to its end.
pub(crate) async fn run(disk: Disk, wire: Wire, command: Command, soak: bool) -> Exit {
    match work(&disk, &wire, command, soak).await {
        Ok(end) => Exit::Run(end),
        Err(error) => Exit::Trouble(error),
    }
}

async fn work(disk: &Disk, wire: &Wire, command: Command, soak: bool) -> Result<End> {
    let desk = Desk { disk, process: wire.process };
    let rotation = vendors::rotation(wire, soak);
    let lease = desk.acquire(&rotation.environment).await?;
    let lost = AtomicBool::new(false);
    let stop = || lost.load(Ordering::Relaxed);
    let executor = Executor {
        journal: &desk,
        world: &rotation,
        clock: &wire.network.time,
        entropy: &wire.network.dice,
        observer: &Unobserved,
        patience: Patience::default(),
        stop: &stop,
    };
    let driving = async {
        match (disk.last().await?, command) {
            (Some(state), Command::Abort) if state.phase == Phase::Finished => {
                // Its answer may have been lost, and its write have come late.
                pgrotate_core::executor::World::discard(&rotation, &state).await?;
                Ok(End::Aborted)
            }
            (Some(state), _) if state.phase == Phase::Finished => {
                Err(Error::new(Kind::BadState, "go on").because("the run is over"))
            }
            (Some(state), command) => {
                let mut state = executor.take_over(state.run, &lease).await?;
                match command {
                    Command::Forward => executor.drive(&mut state, &lease).await,
                    Command::Abort => executor.abort(&mut state, &lease).await,
                }
            }
            (None, _) => {
                let run = RunId::generate(wire.network.time.now(), &wire.network.dice);
                let start = Start {
                    plan: rotation.plan(),
                    generation: lease.generation,
                    operator: "simulation".into(),
                    ticket: None,
                    version: "0".into(),
                };
                let mut state = executor.begin(run, start, &lease).await?;
                executor.drive(&mut state, &lease).await
            }
        }
    };
    let keeping = async {
        let third = u64::try_from(TERM.as_millis() / 3).unwrap_or(20_000);
        loop {
            wire.network.time.sleep_ms(third).await;
            if desk.renew(&lease).await.is_err() {
                lost.store(true, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
        }
    };
    let end = match select(Box::pin(driving), Box::pin(keeping)).await {
        Either::Left((end, _)) => end,
        Either::Right(((), _)) => Err(Error::internal("keeping a lease never ends")),
    };
    let _ = desk.release(&lease).await;
    end
}
