//! `pgrotate-sim`: simulates rotations and tells which promises were broken.

// A program for developers, whose output is its purpose.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use pgrotate_sim::play::{BEFALLS, Keep, Verdict, chosen, seed_by};
use pgrotate_sim::sweep::{on_threads, sweep};
use pgrotate_sim::{Chosen, Fault, Moves, Way};
use rustix::time::{ClockId, clock_gettime};

/// Simulates rotations and checks what must always hold
#[derive(Debug, Parser)]
struct Args {
    /// How many random seeds
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many threads [default: one for each processor]
    #[arg(long)]
    threads: Option<usize>,
    /// Leave the enumeration out
    #[arg(long)]
    random_only: bool,
    /// Rotate in this way, whatever the seeds say: "InPlace", "Password" or "NoLogin"
    #[arg(long, conflicts_with = "play")]
    way: Option<Way>,
    /// Show what happens in one seed, and nothing else
    #[arg(long)]
    seed: Option<u64>,
    /// Show what happens when exactly this goes wrong, for instance "rotate 12:Late answer:12"
    #[arg(long, value_name = "FAULTS", conflicts_with = "seed")]
    play: Option<Chosen>,
}

/// What came of many simulations.
#[derive(Default)]
struct Sum {
    played: u64,
    rotations: u64,
    requests: u64,
    /// What the threads have spent of their processors, which others use too.
    busy: Duration,
    broken: Vec<String>,
    moves: Moves,
    befell: BTreeMap<&'static str, u64>,
    met: BTreeMap<Fault, u64>,
}

impl Sum {
    fn take(&mut self, verdict: Verdict, command: impl FnOnce() -> String) {
        self.played += 1;
        self.rotations += verdict.outcomes.len() as u64;
        self.requests += verdict.requests as u64;
        if !verdict.broken.is_empty() {
            self.broken.push(format!("{}: {}", command(), verdict.broken.join("; ")));
        }
        self.moves.add(verdict.moves);
        add(&mut self.befell, verdict.befell);
        add(&mut self.met, verdict.met);
    }

    fn and(mut self, other: Self) -> Self {
        self.played += other.played;
        self.rotations += other.rotations;
        self.requests += other.requests;
        self.busy += other.busy;
        self.broken.extend(other.broken);
        self.moves.add(other.moves);
        add(&mut self.befell, other.befell);
        add(&mut self.met, other.met);
        self
    }
}

/// What this thread has spent of a processor.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn add<K: Ord>(sum: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        *sum.entry(key).or_default() += count;
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let keep = Keep { story: true, moves: false, journal: false };
    match (args.seed, &args.play) {
        (Some(number), _) => {
            return show(seed_by(args.way.unwrap_or_else(|| Way::of(number)), number, keep, None));
        }
        (_, Some(faults)) => return show(chosen(faults, keep)),
        _ => {}
    }
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let mut sum = Sum::default();
    if !args.random_only {
        sum = sum.and(timed("enumerated", || {
            sweep(threads, |sum: &mut Sum, faults, verdict| {
                sum.take(verdict, || format!("pgrotate-sim --play \"{faults}\""));
                sum.busy = spent();
            })
        }));
    }
    let next = AtomicU64::new(args.first);
    sum = sum.and(timed("random", || {
        on_threads(threads, |sum: &mut Sum| {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= args.first + args.seeds {
                    break;
                }
                let keep = Keep { moves: number.is_multiple_of(10), ..Keep::default() };
                let way = args.way.unwrap_or_else(|| Way::of(number));
                sum.take(seed_by(way, number, keep, None), || {
                    format!("pgrotate-sim --seed {number} --way {way}")
                });
            }
            sum.busy = spent();
        })
    }));
    report(&sum)
}

fn report(sum: &Sum) -> ExitCode {
    println!("what befell the processes:");
    sum.befell.iter().for_each(|(what, count)| println!("  {what}: {count}"));
    println!("requests that met a fault:");
    sum.met.iter().for_each(|(fault, count)| println!("  {fault}: {count}"));
    println!("transitions taken (of every tenth seed, and of single faults):");
    for ((status, step_move), count) in &sum.moves.steps {
        println!("  step {status:?} {step_move:?}: {count}");
    }
    for ((phase, phase_move), count) in &sum.moves.phases {
        println!("  run {phase:?} {phase_move:?}: {count}");
    }
    let mut missing = sum.moves.missing();
    missing.extend(
        BEFALLS.iter().filter(|what| !sum.befell.contains_key(*what)).map(|what| format!("a process {what}")),
    );
    missing.extend(Fault::ALL.iter().filter(|fault| !sum.met.contains_key(fault)).map(Fault::to_string));
    missing.iter().for_each(|transition| println!("never happened: {transition}"));
    for broken in sum.broken.iter().take(20) {
        println!("broken: {broken}");
    }
    println!("{} simulations, {} broken", sum.played, sum.broken.len());
    if sum.broken.is_empty() && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(verdict: Verdict) -> ExitCode {
    verdict.story.iter().for_each(|line| println!("{line}"));
    println!("{:?} (newest first), {} requests", verdict.outcomes, verdict.requests);
    verdict.broken.iter().for_each(|promise| println!("broken: {promise}"));
    if verdict.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn timed(what: &str, play: impl FnOnce() -> Vec<Sum>) -> Sum {
    let began = Instant::now();
    let sums = play();
    let (seconds, threads) = (began.elapsed().as_secs_f64(), sums.len());
    let sum = sums.into_iter().fold(Sum::default(), Sum::and);
    println!(
        "{what}: {} simulations with {} rotations and {} requests in {seconds:.1} s on {threads} threads; \
         of one core {:.0} s: {:.0} simulations, {:.0} rotations a second",
        sum.played,
        sum.rotations,
        sum.requests,
        sum.busy.as_secs_f64(),
        sum.played as f64 / sum.busy.as_secs_f64(),
        sum.rotations as f64 / sum.busy.as_secs_f64(),
    );
    sum
}
