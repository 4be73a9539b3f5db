//! The simulation holds what the contract promises, and would notice if it did not.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use pgrotate_core::journal::RunOutcome;
use pgrotate_sim::play::{Keep, Verdict, chosen, sabotaged, seed, seed_by};
use pgrotate_sim::{Chosen, Death, Fault, Moves, Sabotage, Scenario, Way};

const JOURNAL: Keep = Keep { story: false, moves: true, journal: true };

/// Seeds that once broke a promise, here or in the simulation itself: late writes of a run's first try, a process that
/// nobody was left to wake, a run called off while its password was on the way, a way back from a way back. Of two roles: a
/// run called off that saw an old state of the vault of record, or that was over, and a promotion that came late.
const KEPT: [(Way, &[u64]); 3] = [
    (
        Way::InPlace,
        &[
            253, 542, 956, 1_039, 1_805, 2_491, 3_293, 4_418, 5_506, 11_004, 19_335, 24_896, 36_539, 346_139,
            826_419,
        ],
    ),
    (Way::Password, &[955, 1_886, 2_762, 2_875, 3_149, 3_564, 6_770, 8_141]),
    (Way::NoLogin, &[250, 376, 540, 1_437, 2_243]),
];

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
    let kept = KEPT.iter().flat_map(|(way, numbers)| numbers.iter().map(move |number| (*way, *number)));
    for (way, number) in kept {
        let verdict = seed_by(way, number, JOURNAL, None);
        assert_eq!(verdict.broken, Vec::<String>::new(), "pgrotate-sim --seed {number} --way {way}");
    }
}

#[test]
fn random_seeds_keep_every_promise_and_take_every_transition() {
    let mut moves = Moves::default();
    let (mut done, mut not, mut back, mut turns) = (0, 0, 0, [0; Way::ALL.len()]);
    for number in 0..1_000 {
        let verdict = seed(number, JOURNAL);
        assert_eq!(verdict.broken, Vec::<String>::new(), "pgrotate-sim --seed {number}");
        moves.add(verdict.moves);
        for outcome in &verdict.outcomes {
            match outcome {
                Some(RunOutcome::Done) => done += 1,
                _ => not += 1,
            }
        }
        back += u32::from(verdict.journal.contains("stage_previous"));
        let way = Way::ALL.iter().position(|way| *way == Way::of(number)).unwrap();
        turns[way] += verdict.outcomes.iter().filter(|outcome| **outcome == Some(RunOutcome::Done)).count();
    }
    assert_eq!(moves.missing(), Vec::<String>::new());
    assert!(
        done > 100 && not > 100 && back > 100 && turns.iter().all(|done| *done > 100),
        "{done} done, by way {turns:?}, {not} not, {back} back: the dice are loaded"
    );
}

/// Everything that can happen once in a scenario: no fault or any at any request, and a death at any look or none.
fn one_thing(scenario: Scenario) -> Vec<Chosen> {
    let clean = chosen(&Chosen::nothing(scenario), JOURNAL);
    assert_eq!((clean.broken.len(), clean.outcomes[0]), (0, Some(RunOutcome::Done)));
    let faults = (0..clean.requests).flat_map(|number| Fault::ALL.map(|fault| (number, fault)));
    let faulty = faults.flat_map(|fault| {
        [None, Some(Death::WithAnswer(fault.0))].map(|death| Chosen::new(scenario, [fault], death))
    });
    let deadly = (0..clean.looks).map(|look| Chosen::new(scenario, [], Some(Death::AtLook(look))));
    faulty.chain(deadly).collect()
}

#[test]
fn every_fault_at_every_request_and_a_death_at_every_look() {
    for scenario in Scenario::ALL {
        for faults in one_thing(scenario) {
            let verdict = chosen(&faults, JOURNAL);
            assert_eq!(verdict.broken, Vec::<String>::new(), "pgrotate-sim --play \"{faults}\"");
            if faults.faults.is_empty() {
                // Who dies before the run is written down has begun none.
                let done = verdict.outcomes.first().is_none_or(|outcome| *outcome == Some(RunOutcome::Done));
                assert!(
                    done,
                    "a death alone keeps nothing from being done: pgrotate-sim --play \"{faults}\""
                );
            }
        }
    }
}

/// Whether a broken promise is found, by one thing that goes wrong or by the dice.
fn is_noticed(sabotage: Sabotage, promise: char) -> bool {
    let found = |verdict: Verdict| verdict.broken.iter().any(|words| words.starts_with(promise));
    let keep = Keep::default();
    let scenario = |way: &Way| match way {
        Way::InPlace => Scenario::Rotate,
        Way::Password => Scenario::Turn,
        Way::NoLogin => Scenario::Close,
    };
    sabotage.ways().iter().all(|way| {
        one_thing(scenario(way))
            .into_iter()
            .chain([Chosen::nothing(scenario(way))])
            .any(|faults| found(sabotaged(&faults, keep, Some(sabotage))))
            || (0..3_000).any(|number| found(seed_by(*way, number, keep, Some(sabotage))))
    })
}

#[test]
fn a_promise_that_is_broken_on_purpose_is_noticed() {
    for (sabotage, promise) in Sabotage::ALL {
        assert!(
            is_noticed(sabotage, promise),
            "{sabotage:?} breaks the promise {promise}, and nobody noticed"
        );
    }
}

#[test]
fn every_promise_is_broken_by_somebody() {
    for promise in '1'..='7' {
        assert!(Sabotage::ALL.iter().any(|(_, breaks)| *breaks == promise), "nobody breaks {promise}");
    }
}
