//! What a fleet costs us, and how long the vendors make it take: part of `make bench`.
//!
//! `own N AT_ONCE` rotates N environments over providers that answer at once, with the real journal and the real evidence in a folder
//! beside the build's files. Whoever starts it counts the time of the process. `limits N AT_ONCE own|one` does it with
//! vendors that take their time, all of it virtual, and a subscription each or one for all.
//!
//! In both, what waits for a budget waits in virtual time, and the vendors count for themselves what they are asked.

// A program for developers says what it expects by unwrapping.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/common/paced.rs"]
mod paced;

use std::path::Path;
use std::sync::Arc;

use pgrotate_engine::system::OsEntropy;
use pgrotate_engine::{Evidence, Home, SqliteStore};
use pgrotate_sim::fleet::{Around, Played, Shape, play};

use self::paced::{Keeper, Paced};

/// A state folder on the build's disk, or in memory where only virtual time counts.
fn folder(in_memory: bool) -> tempfile::TempDir {
    let beside = || tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    match in_memory {
        true => tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| beside()),
        false => beside(),
    }
}

fn played(shape: Shape, folder: &Path) -> Played {
    let home = Home::open(folder.join("state")).unwrap();
    let store = SqliteStore::open(&home.journal()).unwrap();
    let signer = Arc::new(home.make_evidence_key(&OsEntropy).unwrap());
    let keeper = Keeper { evidence: Evidence::of(&home, "bench".into()), store: store.clone(), signer };
    let around: Arc<dyn Around> = Arc::new(Paced::kept(keeper));
    play(shape, store, &around)
}

/// The most memory that this process has had. What `wait4` says begins with that of the process it was made by.
fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn main() {
    // Cargo adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [what, environments, at_once, rest @ ..] = &arguments[..] else {
        return println!("fleet own N AT_ONCE | fleet limits N AT_ONCE own|one");
    };
    let own = what == "own";
    let shape = Shape {
        environments: environments.parse().unwrap(),
        at_once: at_once.parse().unwrap(),
        one_subscription: rest.first().is_some_and(|word| word == "one"),
        at_once_answered: own,
    };
    let folder = folder(!own);
    let Played { summary, took, longest, most_in_hand, toll, mixed } = played(shape, folder.path());
    assert_eq!((summary.done, mixed), (shape.environments, 0), "{:?}", summary.others.first());
    let requests: u64 = toll.requests.values().flatten().sum();
    println!(
        "{}",
        serde_json::json!({
            "environments": shape.environments, "most_in_hand": most_in_hand, "requests": requests,
            "violations": toll.violations.values().sum::<u64>(), "took_s": took.as_secs_f64(),
            "peak_kb": peak_kilobytes(),
            "longest_run_s": longest.as_secs_f64(), "limit": toll.shortest.limit,
            "quotient_s": toll.shortest.quotient.as_secs_f64(), "shortest_s": toll.shortest.possible.as_secs_f64(),
        })
    );
}
