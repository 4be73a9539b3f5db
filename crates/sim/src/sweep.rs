//! Everything that can go wrong, one after the other: for each scenario every request × every fault × (the process dies
//! with the answer, or not) × every second fault; and every fault with a death at every look at the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::network::Fault;
use crate::play::{Keep, Verdict, chosen};
use crate::shape::{Chosen, Death, Scenario};

/// So many requests more than a clean run sends can a run with a fault send.
const MORE: usize = 12;

/// A part of the sweep that one thread plays: everything that begins with one fault, or with none.
#[derive(Clone, Copy, Debug)]
struct Part {
    scenario: Scenario,
    first: Option<(usize, Fault)>,
    requests: usize,
    looks: usize,
}

impl Part {
    /// What it consists of.
    fn all(self) -> impl Iterator<Item = Chosen> {
        let Self { scenario, first, requests, looks } = self;
        let deaths = (0..looks).map(Death::AtLook).map(Some).chain([None]);
        let single = deaths.map(move |death| Chosen::new(scenario, first, death));
        // Everything may happen to the soak that happens to a rotation; its own steps are crossed with deaths alone.
        let crossed = first.filter(|_| !scenario.soaks());
        let pairs = crossed.into_iter().flat_map(move |first| {
            let later = first.0 + 1..requests + MORE;
            let seconds = later.flat_map(|number| Fault::ALL.map(|fault| (number, fault)));
            seconds.flat_map(move |second| {
                [None, Some(Death::WithAnswer(first.0))]
                    .map(|death| Chosen::new(scenario, [first, second], death))
            })
        });
        single.chain(pairs)
    }
}

fn parts() -> Vec<Part> {
    let mut parts = Vec::new();
    for scenario in Scenario::ALL {
        let clean = chosen(&Chosen::nothing(scenario), Keep::default());
        let (requests, looks) = (clean.requests, clean.looks);
        let firsts = (0..requests).flat_map(|number| Fault::ALL.map(|fault| Some((number, fault))));
        parts.extend([None].into_iter().chain(firsts).map(|first| Part { scenario, first, requests, looks }));
    }
    parts
}

/// Plays all of it on so many threads, and gives what each thread has made of its verdicts.
pub fn sweep<S: Default + Send>(threads: usize, take: impl Fn(&mut S, &Chosen, Verdict) + Sync) -> Vec<S> {
    let (parts, next) = (parts(), AtomicUsize::new(0));
    on_threads(threads, |sum: &mut S| {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Which transitions are taken is seen well enough in what begins with a single fault.
            let keep = Keep { moves: true, ..Keep::default() };
            for (number, chosen_one) in part.all().enumerate() {
                let keep = if number < 100 { keep } else { Keep::default() };
                take(sum, &chosen_one, chosen(&chosen_one, keep));
            }
        }
    })
}

/// Lets so many threads work, each on a sum of its own.
pub fn on_threads<S: Default + Send>(threads: usize, work: impl Fn(&mut S) + Sync) -> Vec<S> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut sum = S::default();
                    work(&mut sum);
                    sum
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("a simulation does not panic")).collect()
    })
}
