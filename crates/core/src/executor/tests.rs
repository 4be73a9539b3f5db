//! How long the executor waits, and what it does instead where that is too long.

use std::sync::Mutex;

use futures::FutureExt;

use super::*;
use crate::env::testing::{ManualClock, SeededEntropy};
use crate::ids::{CopyId, Environment};
use crate::journal::MemoryJournal;
use crate::lease::Generation;
use crate::observer::{Observer, Progress, Unobserved};
use crate::plan::{self, Plan, StrategyName};

const HOUR: u64 = 3600;

/// Writes down what it hears.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn notice(&self, _: Timestamp, environment: &Environment, _: RunId, progress: &Progress<'_>) {
        let news = match progress {
            Progress::RunStarted { resumed, .. } => format!("started, resumed: {resumed}"),
            Progress::StepStarted { step, attempt } => format!("{} begins try {attempt}", step.id),
            Progress::StepFailed { step, retry_in, .. } => {
                format!("{} fails, tried again: {}", step.id, retry_in.is_some())
            }
            Progress::StepFinished { step, outcome, elapsed } => {
                format!("{}: {:?} in {elapsed:?}", step.id, outcome.effect)
            }
            Progress::RunEnded { end } => format!("ended: {end:?}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(format!("{environment}: {news}"));
    }
}

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
        self.run_plan(plan(vec![action]), &Unobserved, &|| false)
    }

    /// A run that somebody watches, and may stop.
    fn run_plan(
        &self,
        plan: Plan,
        observer: &dyn Observer,
        stop: &(dyn Fn() -> bool + Send + Sync),
    ) -> (End, RunState) {
        let (journal, entropy) = (MemoryJournal::default(), SeededEntropy::new(3));
        let executor = Executor {
            journal: &journal,
            world: self,
            clock: &self.clock,
            entropy: &entropy,
            observer,
            patience: Patience::default(),
            stop,
        };
        let (environment, generation) = (Environment::from("test"), Generation(1));
        let lease = Lease { environment: environment.clone(), generation, expires_at: self.clock.now() };
        journal.fence(&lease);
        let (operator, version) = ("somebody".into(), "test".into());
        let start =
            Start { plan, generation, operator, ticket: None, overrides: Default::default(), version };
        let whole = async {
            let run = RunId::generate(self.clock.now(), &entropy);
            let mut state = executor.begin(run, start, &lease).await?;
            executor.drive(&mut state, &lease).await.map(|end| (end, state))
        };
        whole.now_or_never().expect("nothing in this world waits").unwrap()
    }
}

/// A plan of these steps, none of which waits for another.
fn plan(actions: Vec<Action>) -> Plan {
    Plan {
        format: plan::FORMAT,
        environment: Environment::from("test"),
        strategy: StrategyName::InPlace,
        target: String::new(),
        authority: String::new(),
        vault: CopyId::from("vault"),
        steps: actions.into_iter().map(|action| Step::new(action, Vec::new())).collect(),
    }
}

#[async_trait]
impl World for Scripted {
    fn plan(&self) -> Plan {
        plan(vec![Action::Check])
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

#[test]
fn a_vault_that_keeps_failing_is_not_asked_forever_to_drop_the_pending_password() {
    let failures = std::iter::once(Error::new(Kind::Forbidden, "write")).chain(vec![lost(); 100]);
    let world = Scripted::new(failures.collect());
    let (end, state) = world.run(Action::Stage);
    let End::Parked(steps) = end else { panic!("{end:?}") };
    assert_eq!(steps[0].0, StepId::from("discard"));
    assert_eq!(world.asked.lock().unwrap().len(), 1 + 5, "the write, and as many tries as a step has");
    assert_eq!((state.phase, state.outcome), (Phase::Aborting, None));
}

#[test]
fn a_refused_login_is_tried_seldom_and_far_apart() {
    let world = Scripted::new(vec![Error::new(Kind::Refused, "log in").later(None); 100]);
    let (end, _) = world.run(Action::Prove);
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    let pauses = world.pauses();
    assert_eq!(pauses.len(), 3, "four logins, and no fifth that would lock somebody out");
    for (pause, longest) in std::iter::zip(pauses, [2, 4, 8].map(seconds_of)) {
        assert!(pause >= longest / 2 && pause <= longest, "{:?}", world.pauses());
    }
}

#[test]
fn the_longest_wait_is_still_waited_for() {
    let longest = Patience::default().longest_told;
    let world = Scripted::new(vec![throttled(longest.as_secs())]);
    let (end, _) = world.run(Action::Prove);
    assert!(matches!(end, End::Done), "{end:?}");
    assert_eq!(world.pauses(), [longest]);
}

/// Parked is for a run in which nothing is left to do without a person.
#[test]
fn a_run_that_is_stopped_before_its_last_step_is_not_parked() {
    let world = Scripted::new(vec![throttled(HOUR).unknown()]);
    let asked = || !world.asked.lock().unwrap().is_empty();
    let steps = plan(vec![Action::Install, Action::Soak { seconds: HOUR }]);
    let (end, state) = world.run_plan(steps, &Unobserved, &asked);
    assert!(matches!(end, End::Stopped), "{end:?}");
    assert_eq!(state.status(&"install".into()), StepStatus::Parked);
    assert_eq!((state.phase, state.status(&"soak".into())), (Phase::Running, StepStatus::InFlight));
}

#[test]
fn who_watches_hears_of_every_try_and_of_the_end() {
    let (world, heard) = (Scripted::new(vec![lost()]), Heard::default());
    world.run_plan(plan(vec![Action::Prove]), &heard, &|| false);
    let news = [
        "test: started, resumed: false",
        "test: prove begins try 1",
        "test: prove fails, tried again: true",
        "test: prove begins try 2",
        "test: prove: Changed in 0ns",
        "test: ended: Done",
    ];
    assert_eq!(*heard.0.lock().unwrap(), news);
}
