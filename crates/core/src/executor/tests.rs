//! How long the executor waits, and what it does instead where that is too long.

use std::sync::Mutex;

use futures::FutureExt;

use super::*;
use crate::env::testing::{ManualClock, SeededEntropy};
use crate::ids::{CopyId, Environment};
use crate::journal::MemoryJournal;
use crate::lease::Generation;
use crate::observer::Unobserved;
use crate::plan::{self, Plan, StrategyName};

const HOUR: u64 = 3600;

/// Fails as it is told, one failure after the other, then succeeds; remembers when it was asked.
struct Scripted {
    clock: ManualClock,
    failures: Mutex<std::vec::IntoIter<Error>>,
    asked: Mutex<Vec<Timestamp>>,
}

impl Scripted {
    fn new(failures: Vec<Error>) -> Self {
        Self {
            clock: ManualClock::at_second(1_700_000_000),
            failures: Mutex::new(failures.into_iter()),
            asked: Mutex::default(),
        }
    }

    fn answer(&self) -> Result<()> {
        self.asked.lock().unwrap().push(self.clock.now());
        self.failures.lock().unwrap().next().map_or(Ok(()), Err)
    }

    /// How long it was left alone between the questions.
    fn pauses(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        asked.windows(2).map(|pair| pair[1].duration_since(pair[0]).unsigned_abs()).collect()
    }

    /// A run of this one step.
    fn run(&self, action: Action) -> (End, RunState) {
        let (journal, entropy) = (MemoryJournal::default(), SeededEntropy::new(3));
        let executor = Executor {
            journal: &journal,
            world: self,
            clock: &self.clock,
            entropy: &entropy,
            observer: &Unobserved,
            patience: Patience::default(),
            stop: &|| false,
        };
        let (environment, generation) = (Environment::from("test"), Generation(1));
        let lease = Lease { environment: environment.clone(), generation, expires_at: self.clock.now() };
        journal.fence(&lease);
        let plan = plan(action);
        let (operator, version) = ("somebody".into(), "test".into());
        let start = Start { plan, generation, operator, ticket: None, version };
        let whole = async {
            let run = RunId::generate(self.clock.now(), &entropy);
            let mut state = executor.begin(run, start, &lease).await?;
            executor.drive(&mut state, &lease).await.map(|end| (end, state))
        };
        whole.now_or_never().expect("nothing in this world waits").unwrap()
    }
}

/// A plan of this one step.
fn plan(action: Action) -> Plan {
    Plan {
        format: plan::FORMAT,
        environment: Environment::from("test"),
        strategy: StrategyName::InPlace,
        target: String::new(),
        authority: String::new(),
        vault: CopyId::from("vault"),
        steps: vec![Step::new(action, Vec::new())],
    }
}

#[async_trait]
impl World for Scripted {
    fn plan(&self) -> Plan {
        plan(Action::Check)
    }

    async fn perform(&self, _: &Step, _: &RunState) -> Result<Outcome> {
        self.answer().map(|()| Outcome::changed())
    }

    async fn discard(&self, _: &RunState) -> Result<()> {
        self.answer()
    }
}

fn throttled(seconds: u64) -> Error {
    Error::new(Kind::Throttled, "write").later(Some(seconds_of(seconds)))
}

fn lost() -> Error {
    Error::new(Kind::Unreachable, "write").later(None)
}

fn seconds_of(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn who_asks_for_a_wait_gets_it_and_more_each_time() {
    let world = Scripted::new(vec![throttled(60); 4]);
    let (end, _) = world.run(Action::Prove);
    assert!(matches!(end, End::Done), "{end:?}");
    assert_eq!(world.pauses(), [60, 120, 180, 240].map(seconds_of));
}

#[test]
fn a_wait_grows_no_longer_than_the_longest_that_is_waited_for() {
    let world = Scripted::new(vec![throttled(250); 4]);
    let (end, _) = world.run(Action::Prove);
    assert!(matches!(end, End::Done), "{end:?}");
    assert_eq!(world.pauses(), [250, 500, 600, 600].map(seconds_of));
}

#[test]
fn other_failures_in_between_begin_the_count_again() {
    let world = Scripted::new(vec![lost(), throttled(60), lost(), throttled(60)]);
    world.run(Action::Prove);
    let pauses = world.pauses();
    assert_eq!([pauses[1], pauses[3]], [60, 60].map(seconds_of));
    assert!(pauses[0] < seconds_of(1) && pauses[2] < seconds_of(3), "{pauses:?}");
}

#[test]
fn a_wait_without_a_time_is_of_our_own_choosing() {
    let world = Scripted::new(vec![Error::new(Kind::Throttled, "write").later(None); 3]);
    world.run(Action::Prove);
    let longest = [500, 1000, 2000].map(Duration::from_millis);
    for (pause, longest) in std::iter::zip(world.pauses(), longest) {
        assert!(pause >= longest / 2 && pause <= longest, "{:?}", world.pauses());
    }
}

#[test]
fn the_probe_after_an_unknown_effect_waits_as_well() {
    let world = Scripted::new(vec![throttled(60).unknown()]);
    world.run(Action::Prove);
    assert_eq!(world.pauses(), [seconds_of(60)]);
}

#[test]
fn what_is_busy_is_asked_more_often_than_what_fails() {
    let busy = vec![Error::new(Kind::Busy, "write").later(None); 14];
    let (end, _) = Scripted::new(busy).run(Action::Prove);
    assert!(matches!(end, End::Done), "{end:?}");
    let (end, _) = Scripted::new(vec![lost(); 5]).run(Action::Prove);
    assert!(matches!(end, End::Failed(_)), "{end:?}");
}

#[test]
fn a_wait_that_is_too_long_ends_the_run_or_parks_the_step() {
    let world = Scripted::new(vec![throttled(HOUR)]);
    let (end, _) = world.run(Action::Stage);
    let End::Failed(error) = end else { panic!("{end:?}") };
    assert_eq!(error.told(), Some(seconds_of(HOUR)));
    // The second question drops the pending password.
    assert_eq!(world.pauses(), [Duration::ZERO]);

    let world = Scripted::new(vec![throttled(HOUR).unknown()]);
    let (end, state) = world.run(Action::Install);
    let End::Parked(steps) = end else { panic!("{end:?}") };
    assert_eq!(steps[0].1.told(), Some(seconds_of(HOUR)));
    assert!(state.past_point_of_no_return() && world.pauses().is_empty());
}

#[test]
fn the_pending_password_is_dropped_as_patiently() {
    let refused = Error::new(Kind::Forbidden, "write");
    let world = Scripted::new(vec![refused, throttled(60), throttled(60), lost(), throttled(60)]);
    let (end, _) = world.run(Action::Stage);
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    let pauses = world.pauses();
    assert_eq!([pauses[1], pauses[2], pauses[4]], [60, 120, 60].map(seconds_of));
}
