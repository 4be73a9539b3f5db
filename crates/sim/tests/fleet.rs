//! A fleet keeps to every documented limit, in a time that is near the shortest.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

#[path = "common/paced.rs"]
mod paced;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::RunId;
use pgrotate_core::env::Clock;
use pgrotate_core::plan::Plan;
use pgrotate_engine::system::OsEntropy;
use pgrotate_engine::{Evidence, Home, SqliteStore};
use pgrotate_evidence::{Trusted, verify};
use pgrotate_sim::fleet::{Around, Played, Request, Shape, Vendor, play};

use self::paced::{Keeper, Paced};

fn shape(environments: usize, at_once: usize) -> Shape {
    let at_once = NonZeroUsize::new(at_once).unwrap();
    Shape { environments, at_once, one_subscription: false, at_once_answered: false }
}

fn played(shape: Shape, around: Arc<dyn Around>) -> Played {
    // In memory where the machine has that: it is not the disk that is tried here.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    play(shape, SqliteStore::open(&folder.path().join("journal.sqlite")).unwrap(), &around)
}

/// Whoever waits for nobody.
struct Unpaced;

#[async_trait]
impl Around for Unpaced {
    async fn before(&self, _: &dyn Clock, _: &Request) -> Option<Box<dyn Send>> {
        None
    }

    async fn room_for(&self, _: &dyn Clock, _: &Plan) {}

    async fn ended(&self, _: RunId) {}
}

/// The snapshot that the whole program's test keeps.
const SEEN: &str = include_str!(
    "../../cli/tests/e2e/snapshots/e2e__requests__a_rotation_asks_nothing_twice_and_nothing_too_much.snap"
);

#[test]
fn a_simulated_rotation_sends_what_a_real_one_was_seen_to_send() {
    let seen = SEEN.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(": "));
    let seen: BTreeMap<&str, u64> =
        seen.filter_map(|(system, number)| Some((system, number.parse().ok()?))).collect();
    let toll = played(shape(1, 1), Arc::new(Paced::default())).toll;
    let mut sent: BTreeMap<String, u64> =
        toll.requests.iter().map(|(vendor, [reads, writes])| (vendor.to_string(), reads + writes)).collect();
    // A process signs in once, however many environments it has.
    sent.insert("sign_in".to_owned(), seen["sign_in"]);
    assert_eq!(sent, seen.iter().map(|(system, number)| ((*system).to_owned(), *number)).collect());
    // Those that vendors count as writes: PUT, PATCH, POST.
    let changes = |system: &str| {
        let own = SEEN.lines().skip_while(|line| !line.starts_with(&format!("{system}: "))).skip(1);
        let number = |line: &str| {
            let line = line.trim_start();
            let (times, what) = line.split_once(" × ").unwrap_or(("1", line));
            let writes = ["PUT ", "PATCH ", "POST "].iter().any(|method| what.starts_with(method));
            if writes { times.parse::<u64>().unwrap() } else { 0 }
        };
        own.take_while(|line| line.starts_with(' ')).map(number).sum::<u64>()
    };
    for vendor in [Vendor::ResourceManager, Vendor::KeyVault, Vendor::Github] {
        assert_eq!(toll.requests[&vendor][1], changes(&vendor.to_string()), "{vendor}");
    }
}

#[test]
fn a_fleet_violates_no_limit_and_is_nearly_as_fast_as_they_allow() {
    for one_subscription in [false, true] {
        let shape = Shape { one_subscription, ..shape(300, 64) };
        let played = played(shape, Arc::new(Paced::default()));
        assert_eq!(played.summary.done, 300, "{:?}", played.summary.others);
        assert_eq!(
            (played.toll.violations, played.mixed, played.most_in_hand <= 64),
            (BTreeMap::new(), 0, true)
        );
        let shortest = played.toll.shortest;
        assert_eq!(shortest.limit, "GitHub's 500 an hour");
        let ratio = played.took.as_secs_f64() / shortest.possible.as_secs_f64();
        assert!((1.0..1.06).contains(&ratio), "{:?} of {shortest:?}", played.took);
        // Nobody who has begun waits for the hour: they wait before.
        assert!(played.longest < Duration::from_secs(180), "{:?}", played.longest);
    }
}

/// If the vendors of the simulation did not count, the test above would prove nothing.
#[test]
fn without_budgets_the_vendors_turn_requests_away() {
    let shape = Shape { one_subscription: true, ..shape(150, 64) };
    let played = played(shape, Arc::new(Unpaced));
    assert_eq!((played.mixed, played.most_in_hand), (0, 64));
    for limit in ["ARM reads", "GitHub's points", "GitHub's 100 at once"] {
        assert!(played.toll.violations.get(limit).is_some_and(|number| *number > 0), "{limit}: {played:?}");
    }
    // Who is turned away comes again, or waits for a person: nobody is lost.
    assert_eq!(played.summary.done + played.summary.others.len(), 150);
}

#[test]
fn answers_that_come_at_once_are_counted_too() {
    let shape = Shape { at_once_answered: true, one_subscription: true, ..shape(120, 32) };
    let played = played(shape, Arc::new(Paced::default()));
    assert_eq!((played.summary.done, played.mixed, played.most_in_hand), (120, 0, 32));
    assert_eq!(played.toll.violations, BTreeMap::new());
    assert!(played.took >= played.toll.shortest.possible);
}

#[test]
fn every_run_of_a_fleet_is_in_the_evidence_once_and_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path().join("state")).unwrap();
    let store = SqliteStore::open(&home.journal()).unwrap();
    let signer = Arc::new(home.make_evidence_key(&OsEntropy).unwrap());
    let evidence = Evidence::of(&home, "tester".into());
    let keeper = Keeper { evidence: evidence.clone(), store: store.clone(), signer: Arc::clone(&signer) };
    let around: Arc<dyn Around> = Arc::new(Paced::kept(keeper));
    let played = play(Shape { at_once_answered: true, ..shape(30, 7) }, store.clone(), &around);
    assert_eq!(played.summary.done, 30);
    let mut trusted = Trusted::default();
    trusted.add(&signer.public());
    let proof = verify(&mut &*evidence.read().unwrap().unwrap(), &trusted).unwrap();
    let journal = store.lengths().unwrap();
    assert_eq!((proof.runs.len(), journal.len()), (30, 30));
    for (run, length) in journal {
        let own = &proof.runs[&run.to_string()];
        assert_eq!((own.entries, own.late), (length, false));
    }
}
