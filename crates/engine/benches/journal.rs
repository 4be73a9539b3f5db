//! What a step costs on disk: part of `make bench`.
//!
//! `measure` times steps of the real executor over the real journal, and between every two of them, on the same file
//! system, one synchronous write of the disk's own. `run STEPS` only carries steps out, for somebody who counts system calls.
//! `recover RUNS` times the beginning of a `resume` in a journal of so many runs.

// A program for developers says what it expects by unwrapping.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::{End, Executor, Patience, World};
use pgrotate_core::journal::{Event, FORMAT, Journal, Outcome, Record, RunOutcome, Start};
use pgrotate_core::lease::{Lease, Leases};
use pgrotate_core::memory::{self, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::plan::{Action, Plan, Step};
use pgrotate_core::provider::Verifier;
use pgrotate_core::run::RunState;
use pgrotate_core::{Result, RunId, Secret, StepId};
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, SqliteStore};

const ROUNDS: usize = 31;
/// About as many as a run of the example has.
const STEPS: usize = 40;
/// A page with its header, as SQLite's log holds it.
const FRAME: usize = 4120;

/// Each step is a login that is answered at once.
struct Logins {
    world: Memory,
    plan: Plan,
    password: Secret,
    /// The file that each step writes to beside its own business, and how long that took.
    beside: Option<Mutex<(File, Duration)>>,
}

#[async_trait]
impl World for Logins {
    fn plan(&self) -> Plan {
        self.plan.clone()
    }

    async fn perform(&self, _step: &Step, _run: &RunState) -> Result<Outcome> {
        if let Some(beside) = &self.beside {
            let (file, took) = &mut *beside.lock().unwrap();
            let began = Instant::now();
            file.write_all(&[b'x'; FRAME]).unwrap();
            file.sync_data().unwrap();
            *took += began.elapsed();
        }
        self.world.login(&self.password).await.map(|_| Outcome::confirmed())
    }

    async fn discard(&self, _run: &RunState) -> Result<()> {
        Ok(())
    }
}

/// A state folder beside the build's files, so on their file system.
struct Lab {
    folder: tempfile::TempDir,
    store: SqliteStore,
}

impl Lab {
    fn new() -> Self {
        Self::inside(tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap())
    }

    /// In memory where the machine has that, for what only has to be long.
    fn in_memory() -> Self {
        Self::inside(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn inside(folder: tempfile::TempDir) -> Self {
        let store = SqliteStore::open(&folder.path().join("journal.sqlite")).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Steps one after the other, each waiting for the one before: none can share its write with another. Gives
    /// how long they took, and how long as many writes of the disk's own.
    async fn chain(&self, steps: usize, beside: bool) -> (Duration, Duration) {
        let world = memory::world("OldOldOldOld1");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let plan = Plan { steps: chained(steps), ..memory::rotation(&world, &clock, &entropy).plan() };
        let lease = self.store.acquire(&plan.environment).await.unwrap();
        let open = || OpenOptions::new().append(true).create(true).open(self.path("beside")).unwrap();
        let beside = beside.then(|| Mutex::new((open(), Duration::ZERO)));
        let world = Logins { world, plan: plan.clone(), password: Secret::new("OldOldOldOld1"), beside };
        let executor = Executor {
            journal: &self.store,
            world: &world,
            clock: &*clock,
            entropy: &*entropy,
            observer: &Unobserved,
            patience: Patience::default(),
            stop: &|| false,
        };
        let run = RunId::generate(clock.now(), &*entropy);
        let mut state = executor.begin(run, start(plan, &lease), &lease).await.unwrap();
        let began = Instant::now();
        assert!(matches!(executor.drive(&mut state, &lease).await.unwrap(), End::Done));
        let took = began.elapsed();
        self.store.release(&lease).await.unwrap();
        let alone = world.beside.map_or(Duration::ZERO, |beside| beside.into_inner().unwrap().1);
        (took - alone, alone)
    }
}

/// Runs that are over, and a last one that has only begun.
impl Lab {
    async fn past(&self, runs: usize) {
        let world = memory::world("OldOldOldOld1");
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
            (Arc::new(SystemClock), Arc::new(OsEntropy));
        let plan = memory::rotation(&world, &clock, &entropy).plan();
        for number in 0..runs {
            let lease = self.store.acquire(&plan.environment).await.unwrap();
            let run = RunId::generate(clock.now(), &*entropy);
            let mut records = vec![record(0, Event::RunStarted(Arc::new(start(plan.clone(), &lease))))];
            if number + 1 < runs {
                for step in &plan.steps {
                    let (step, outcome) = (step.id.clone(), Outcome::confirmed());
                    records
                        .push(record(records.len(), Event::StepStarted { step: step.clone(), attempt: 1 }));
                    records.push(record(
                        records.len(),
                        Event::StepFinished { step, outcome: Box::new(outcome) },
                    ));
                }
                records.push(record(records.len(), Event::RunFinished { outcome: RunOutcome::Done }));
            }
            self.store.append(&lease, run, &records).await.unwrap();
        }
    }
}

fn record(seq: usize, event: Event) -> Record {
    Record { format: FORMAT, seq: u64::try_from(seq).unwrap(), at: SystemClock.now(), event }
}

fn chained(steps: usize) -> Vec<Step> {
    let mut chain: Vec<Step> = Vec::with_capacity(steps);
    for number in 0..steps {
        let after: Vec<StepId> = chain.last().map(|step| step.id.clone()).into_iter().collect();
        chain.push(Step::new(Action::Verify { verification: number.to_string() }, after));
    }
    chain
}

fn start(plan: Plan, lease: &Lease) -> Start {
    let generation = lease.generation;
    Start {
        plan,
        generation,
        operator: "bench".into(),
        ticket: None,
        overrides: Default::default(),
        version: "bench".into(),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn say(text: &serde_json::Value) {
    println!("{text}");
}

/// Write for write in turn, so that what else the machine does meets both.
async fn measure() {
    let (mut steps, mut writes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let per_second = |took: Duration| f64::from(u32::try_from(STEPS).unwrap()) / took.as_secs_f64();
    for _ in 0..ROUNDS {
        let (step, write) = Lab::new().chain(STEPS, true).await;
        steps.push(per_second(step));
        writes.push(per_second(write));
        ratios.push(write.as_secs_f64() / step.as_secs_f64());
    }
    say(&serde_json::json!({
        "steps_per_second": median(steps), "writes_per_second": median(writes), "ratio": median(ratios),
    }));
}

/// The slowest part of a `resume` that has nothing to do with the vendors, in a journal with a past.
async fn recover(runs: usize) {
    let lab = Lab::in_memory();
    lab.past(runs).await;
    let path = lab.path("journal.sqlite");
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let store = SqliteStore::open(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let engine =
            Embedded::new(store, Arc::new(SystemClock), Arc::new(OsEntropy), Arc::new(Unobserved), stop);
        let open = engine.unfinished(None).await.unwrap().remove(0);
        assert!(engine.overtaken_by(&open).await.unwrap().is_none());
        engine.state(open.run).await.unwrap();
        took.push(began.elapsed().as_secs_f64());
    }
    say(&serde_json::json!({ "runs": runs, "milliseconds": median(took) * 1000.0 }));
}

fn main() {
    // Cargo adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let number = |place: usize| arguments[place].parse().unwrap();
    match arguments.first().map(String::as_str) {
        Some("run") => drop(runtime.block_on(Lab::new().chain(number(1), false))),
        Some("recover") => runtime.block_on(recover(number(1))),
        _ => runtime.block_on(measure()),
    }
}
