//! The simulation holds what the contract promises, and would notice if it did not.

use std::collections::BTreeMap;

use pgrotate_core::journal::RunOutcome;
use pgrotate_sim::play::{Keep, chosen, sabotaged, seed};
use pgrotate_sim::{Fault, Moves, Sabotage};

const JOURNAL: Keep = Keep { story: false, moves: true, journal: true };

/// Seeds that once broke a promise: late writes of a run's first try, a process that nobody was left to wake.
const KEPT: [u64; 7] = [542, 956, 1_805, 4_418, 11_004, 24_896, 36_539];

#[test]
fn the_same_seed_gives_the_same_journal() {
    for number in 0..20 {
        let (first, second) = (seed(number, JOURNAL), seed(number, JOURNAL));
        assert!(!first.journal.is_empty());
        assert_eq!(first.journal, second.journal, "seed {number}");
    }
    assert_ne!(seed(1, JOURNAL).journal, seed(2, JOURNAL).journal);
}

#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    for number in KEPT {
        assert_eq!(seed(number, JOURNAL).broken, Vec::<String>::new(), "seed {number}");
    }
}

#[test]
fn random_seeds_keep_every_promise_and_take_every_transition() {
    let mut moves = Moves::default();
    let (mut done, mut not) = (0, 0);
    for number in 0..1_000 {
        let verdict = seed(number, JOURNAL);
        assert_eq!(verdict.broken, Vec::<String>::new(), "pgrotate-sim --seed {number}");
        moves = moves.and(verdict.moves);
        match verdict.outcome {
            Some(RunOutcome::Done) => done += 1,
            _ => not += 1,
        }
    }
    assert_eq!(moves.missing(), Vec::<String>::new());
    assert!(done > 100 && not > 100, "{done} done, {not} not: the dice are loaded");
}

#[test]
fn every_fault_at_every_request_and_a_death_at_every_look() {
    let clean = chosen(&BTreeMap::new(), None, JOURNAL);
    assert_eq!((clean.broken.len(), clean.outcome), (0, Some(RunOutcome::Done)));
    for look in 0..clean.looks {
        let verdict = chosen(&BTreeMap::new(), Some(look), JOURNAL);
        assert_eq!(verdict.broken, Vec::<String>::new(), "death at look {look}");
        assert_eq!(verdict.outcome, Some(RunOutcome::Done), "death at look {look}");
    }
    for number in 0..clean.requests {
        for fault in Fault::ALL {
            let verdict = chosen(&BTreeMap::from([(number, fault)]), None, JOURNAL);
            assert_eq!(verdict.broken, Vec::<String>::new(), "{fault:?} at request {number}");
        }
    }
}

#[test]
fn a_promise_that_is_broken_on_purpose_is_noticed() {
    for sabotage in Sabotage::ALL {
        assert!(!sabotaged(sabotage).broken.is_empty(), "nobody noticed {sabotage:?}");
    }
}
