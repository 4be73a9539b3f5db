//! How many entries a second are verified: part of `make bench`.

// A program for developers says what it expects by unwrapping.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use pgrotate_evidence::batch::{Seal, Subject, Tip};
use pgrotate_evidence::line::Author;
use pgrotate_evidence::{Batch, Signer, Survey, Trusted, verify};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// About as in a year of 500 environments that are rotated every three months.
const RUNS: u64 = 2_000;
/// As a run of the example has.
const ENTRIES: u64 = 70;
const ROUNDS: usize = 5;

/// The words of an entry, about as long as those of the example: a plan at the beginning, outcomes after.
fn record(entry: u64) -> Box<RawValue> {
    let length = match (entry, entry % 2) {
        (0, _) => 6_000,
        (_, 0) => 320,
        _ => 60,
    };
    let words = "publish/azure_key_vault:database-url ".repeat(length / 37 + 1);
    let text = format!(
        r#"{{"format":1,"seq":{entry},"at":"2026-11-25T12:00:00Z","event":"step_finished","step":"{words}"}}"#
    );
    RawValue::from_string(text).unwrap()
}

fn main() {
    let signer = Signer::from_seed(&Zeroizing::new([7; 32]), "bench");
    let mut trusted = Trusted::default();
    trusted.add(&signer.public());
    let by = Author { user: "bench".into(), host: "bench".into(), version: "bench".into() };
    let mut batch = Batch::after(Tip::NONE);
    for run in 0..RUNS {
        let run = format!("01K{run:023}");
        let subject = Subject { run: &run, environment: "dev" };
        (0..ENTRIES).for_each(|entry| batch.entry(subject, entry, &record(entry), None));
        let at = "2026-11-25T12:00:00Z";
        let seal = Seal { entries: ENTRIES, at, by: &by, late: false, dropped: None };
        batch.seal(subject, seal, &signer);
    }
    let file = batch.bytes();
    let timed = |work: &dyn Fn()| {
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let began = Instant::now();
                work();
                began.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    let verified = timed(&|| assert_eq!(verify(&mut &*file, &trusted).unwrap().entries, RUNS * ENTRIES));
    let surveyed = timed(&|| assert_eq!(Survey::of(&mut &*file).unwrap().entries.len() as u64, RUNS));
    let entries = (RUNS * ENTRIES) as f64;
    println!(
        r#"{{"entries":{},"megabytes":{:.1},"verified_per_second":{:.0},"surveyed_per_second":{:.0}}}"#,
        RUNS * ENTRIES,
        file.len() as f64 / 1e6,
        entries / verified,
        entries / surveyed
    );
}
