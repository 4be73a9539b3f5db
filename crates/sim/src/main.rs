//! `pgrotate-sim`: simulates rotations and tells which promises were broken.

// A program for developers, whose output is its purpose.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use pgrotate_sim::play::{Keep, Verdict, chosen, seed};
use pgrotate_sim::{Fault, Moves};

/// Simulates rotations and checks what must always hold
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Show what happens in one seed, and nothing else
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the enumeration out
    #[arg(long)]
    random_only: bool,
}

/// What came of many simulations.
#[derive(Default)]
struct Sum {
    played: u64,
    broken: u64,
    requests: usize,
    moves: Moves,
}

impl Sum {
    fn take(&mut self, verdict: Verdict, which: impl FnOnce() -> String) {
        self.played += 1;
        self.requests += verdict.requests;
        if !verdict.broken.is_empty() {
            self.broken += 1;
            if self.broken <= 10 {
                println!("{}: {}", which(), verdict.broken.join("; "));
            }
        }
        self.moves = std::mem::take(&mut self.moves).and(verdict.moves);
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(number) = args.seed {
        return show(number);
    }
    let mut sum = Sum::default();
    if !args.random_only {
        timed("enumerated", &mut sum, enumerate);
    }
    timed("random", &mut sum, |sum| {
        for number in args.first..args.first + args.seeds {
            // The journal as text costs as much as the rest, so every hundredth is looked into.
            let keep = Keep { moves: number % 10 == 0, journal: number % 100 == 0, story: false };
            sum.take(seed(number, keep), || format!("seed {number} (see it: pgrotate-sim --seed {number})"));
        }
    });
    for ((status, step_move), count) in &sum.moves.steps {
        println!("  step {status:?} {step_move:?}: {count}");
    }
    for ((phase, phase_move), count) in &sum.moves.phases {
        println!("  run {phase:?} {phase_move:?}: {count}");
    }
    let missing = sum.moves.missing();
    missing.iter().for_each(|transition| println!("never taken: {transition}"));
    println!("{} simulations, {} broken", sum.played, sum.broken);
    if sum.broken == 0 && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(number: u64) -> ExitCode {
    let verdict = seed(number, Keep { story: true, moves: false, journal: true });
    verdict.story.iter().for_each(|line| println!("{line}"));
    println!("{:?} after {} processes and {} requests", verdict.outcome, verdict.processes, verdict.requests);
    verdict.broken.iter().for_each(|promise| println!("broken: {promise}"));
    if verdict.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn timed(what: &str, sum: &mut Sum, play: impl FnOnce(&mut Sum)) {
    let (began, played, requests) = (Instant::now(), sum.played, sum.requests);
    play(sum);
    let (seconds, played) = (began.elapsed().as_secs_f64(), sum.played - played);
    println!(
        "{what}: {played} simulations, {} requests in {seconds:.1} s: {:.0} a second",
        sum.requests - requests,
        played as f64 / seconds
    );
}

/// Every fault at every request, crossed with every second one, and with a death at every look.
fn enumerate(sum: &mut Sum) {
    let keep = Keep { moves: true, ..Keep::default() };
    let clean = chosen(&BTreeMap::new(), None, keep);
    let (requests, looks) = (clean.requests, clean.looks);
    sum.take(clean, || "without a fault".to_owned());
    for look in 0..looks {
        sum.take(chosen(&BTreeMap::new(), Some(look), keep), || format!("death at look {look}"));
    }
    for first in (0..requests).flat_map(|number| Fault::ALL.map(|fault| (number, fault))) {
        for look in (0..looks).map(Some).chain([None]) {
            let faults = BTreeMap::from([first]);
            sum.take(chosen(&faults, look, Keep::default()), || format!("{first:?}, death at look {look:?}"));
        }
        for second in (first.0 + 1..requests + 10).flat_map(|number| Fault::ALL.map(|fault| (number, fault)))
        {
            let faults = BTreeMap::from([first, second]);
            sum.take(chosen(&faults, None, Keep::default()), || format!("{first:?}, {second:?}"));
        }
    }
}
