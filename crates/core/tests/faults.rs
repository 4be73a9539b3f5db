//! Every call of a rotation, failed in every way, with the process dying or living on. Nobody
//! picks which faults to try: the calls of a clean run are counted, and each gets its turn.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pgrotate_core::env::testing::{ManualClock, SeededEntropy};
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::executor::{End, Executor, Patience, World};
use pgrotate_core::ids::{Environment, RunId};
use pgrotate_core::journal::{Journal, MemoryJournal, RunOutcome, Start};
use pgrotate_core::lease::{Generation, Lease};
use pgrotate_core::memory::{self, Fault, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::plan::Retirement;
use pgrotate_core::provider::Entry;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::run::{Phase, RunState};
use pgrotate_core::{Error, Kind, Secret};

const OLD: &str = "OldPassword1OldPassword1OldPassw";
/// What the role that is idle rests with.
const IDLE: &str = "IdlePassword1IdlePassword1IdlePa";
/// The ways to rotate: in place, and in turn with either retirement.
const WAYS: [Option<Retirement>; 3] = [None, Some(Retirement::Password), Some(Retirement::NoLogin)];
/// When everything begins, and how long a soak takes, in seconds.
const BEGIN: i64 = 1_700_000_000;
const SOAK: i64 = 60;

/// A world, a journal, and what a process needs.
struct Lab {
    world: Memory,
    journal: MemoryJournal,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    generation: std::cell::Cell<u64>,
    /// How long a run waits before it proves everything again.
    soak: Option<Duration>,
    /// Whether the versions that are replaced are taken out of use.
    retire: bool,
    /// The second at which the process is asked to stop.
    stop_at: Option<i64>,
    /// How the role that was live is retired, if two take turns.
    turns: Option<Retirement>,
}

impl Lab {
    fn new() -> Self {
        Self {
            world: memory::world(OLD),
            journal: MemoryJournal::default(),
            clock: Arc::new(ManualClock::at_second(BEGIN)),
            entropy: Arc::new(SeededEntropy::new(7)),
            generation: std::cell::Cell::new(0),
            soak: None,
            retire: false,
            stop_at: None,
            turns: None,
        }
    }

    /// With one role, or with two of which the second is idle.
    fn of(turns: Option<Retirement>) -> Self {
        let lab = Self { turns, ..Self::new() };
        if turns == Some(Retirement::Password) {
            let mut state = lab.world.state();
            state.second = Some(IDLE.to_owned());
            state.vault.previous = Some(Entry { secret: Secret::new(IDLE), run: None });
        }
        lab
    }

    fn soaking() -> Self {
        Self { soak: Some(Duration::from_secs(SOAK as u64)), ..Self::new() }
    }

    fn rotation(&self) -> Rotation {
        let mut rotation = match self.turns {
            None => memory::rotation(&self.world, &self.clock, &self.entropy),
            Some(retirement) => memory::alternating(&self.world, &self.clock, &self.entropy, retirement),
        };
        rotation.soak = self.soak;
        rotation.copies.iter_mut().for_each(|copy| copy.retire = self.retire);
        rotation
    }

    fn lease(&self) -> Lease {
        self.generation.set(self.generation.get() + 1);
        let environment = Environment::from("test");
        let expires_at = self.clock.now();
        let lease = Lease { environment, generation: Generation(self.generation.get()), expires_at };
        self.journal.fence(&lease);
        lease
    }

    fn executor<'a>(&'a self, rotation: &'a Rotation) -> Executor<'a> {
        Executor {
            journal: &self.journal,
            world: rotation,
            clock: &*self.clock,
            entropy: &*self.entropy,
            observer: &Unobserved,
            patience: Patience::default(),
            stop: &|| false,
        }
    }

    /// A process: begins or takes over the run, and dies after the effect of this call.
    fn process(&self, run: Option<RunId>, dies_after: Option<usize>) -> Result<(RunId, End), Error> {
        self.world.state().dies_after = dies_after;
        let rotation = self.rotation();
        let lease = self.lease();
        let (clock, stop_at) = (&*self.clock, self.stop_at);
        let stop = || stop_at.is_some_and(|second| clock.now().as_second() >= second);
        let executor = Executor { stop: &stop, ..self.executor(&rotation) };
        let id = run.unwrap_or_else(|| RunId::generate(self.clock.now(), &*self.entropy));
        let whole = async {
            let mut state = match run {
                Some(run) => executor.take_over(run, &lease).await?,
                None => executor.begin(id, start(&rotation.plan(), &lease), &lease).await?,
            };
            executor.drive(&mut state, &lease).await.map(|end| (id, end))
        };
        // Nothing in this world waits, so one poll is the whole process, unless it dies.
        let result = whole.now_or_never();
        self.world.state().dies_after = None;
        result.unwrap_or_else(|| Err(Error::new(Kind::Internal, "live on")))
    }

    fn state(&self, run: RunId) -> RunState {
        RunState::fold(run, &self.journal.read(run).now_or_never().unwrap().unwrap()).unwrap()
    }

    fn run(&self) -> RunId {
        self.journal.runs(None).now_or_never().unwrap().unwrap()[0].run
    }

    /// Nobody is locked out: some version in the vault of record logs in, and where two roles take turns so does the
    /// application, whether it goes on with what it has or starts anew.
    fn somebody_can_log_in(&self) {
        let state = self.world.state();
        let vault = &state.vault;
        let mut versions = vault.current.iter().chain(&vault.pending).chain(&vault.previous);
        assert!(
            versions.any(|entry| accepted(&state).any(|(_, password)| entry.secret.expose() == password)),
            "no version in the vault of record logs in; calls so far: {:?}",
            state.calls
        );
        let can = |url: Option<&String>| {
            url.is_some_and(|url| accepted(&state).any(|(user, password)| *url == url_of(user, password)))
        };
        if self.turns.is_some() {
            assert!(can(state.application.as_ref()), "the application is locked out; {:?}", state.calls);
            let copy = state.copies[&memory::url_copy()].last();
            assert!(can(copy), "whoever starts now is locked out; {:?}", state.calls);
        }
    }

    /// Everything new, once.
    fn everything_is_new(&self) {
        let state = self.world.state();
        let (user, password) = match self.turns {
            None => (FIRST, state.server.clone()),
            Some(_) => (memory::SECOND, state.second.clone().unwrap()),
        };
        assert!(password != OLD && password != IDLE);
        assert_eq!(state.vault.current.as_ref().unwrap().secret.expose(), password);
        assert_eq!(state.vault.user.as_deref(), self.turns.map(|_| memory::SECOND));
        let kept = state.vault.previous.as_ref().unwrap().secret.expose();
        match self.turns {
            None => assert_eq!(kept, OLD),
            Some(Retirement::NoLogin) => assert_eq!((kept, state.server.as_str()), (OLD, "")),
            Some(Retirement::Password) => {
                assert_eq!(kept, state.server, "the idle role's password is kept");
                assert!(kept != OLD && kept != IDLE && kept != password);
            }
        }
        assert!(state.vault.pending.is_empty());
        assert_eq!(state.copies[&memory::password_copy()], [OLD, &password], "one new version, not more");
        assert_eq!(state.copies[&memory::url_copy()], [memory::url(OLD), url_of(user, &password)]);
        assert_eq!(state.application.as_deref(), Some(url_of(user, &password).as_str()));
        assert!(state.stories.len() <= 1, "told twice");
    }

    /// As before.
    fn nothing_is_changed(&self) {
        let state = self.world.state();
        let resting = (self.turns == Some(Retirement::Password)).then_some(IDLE);
        assert_eq!((state.server.as_str(), state.second.as_deref()), (OLD, resting));
        assert_eq!(state.vault.current.as_ref().unwrap().secret.expose(), OLD);
        assert!(state.vault.pending.is_empty() && state.vault.user.is_none());
        assert_eq!(state.vault.previous.as_ref().map(|entry| entry.secret.expose()), resting);
        assert!(state.copies.values().all(|values| values.len() == 1));
    }

    /// The run is over one way or the other.
    fn has_converged(&self, run: RunId) {
        let state = self.state(run);
        assert_eq!(state.phase, Phase::Finished);
        match state.outcome {
            Some(RunOutcome::Done) => self.everything_is_new(),
            _ => self.nothing_is_changed(),
        }
    }
}

const FIRST: &str = "mindwelladmin";

/// The roles and passwords that the server accepts.
fn accepted(state: &memory::State) -> impl Iterator<Item = (&str, &str)> {
    let first = Some((FIRST, state.server.as_str())).filter(|(_, password)| !password.is_empty());
    first.into_iter().chain(state.second.as_deref().map(|password| (memory::SECOND, password)))
}

fn url_of(user: &str, password: &str) -> String {
    memory::url(password).replace(FIRST, user)
}

fn start(plan: &pgrotate_core::plan::Plan, lease: &Lease) -> Start {
    Start {
        plan: plan.clone(),
        generation: lease.generation,
        operator: "somebody".into(),
        ticket: None,
        overrides: Default::default(),
        version: "test".into(),
    }
}

fn calls_of_a_clean_run(turns: Option<Retirement>) -> usize {
    let lab = Lab::of(turns);
    let (run, end) = lab.process(None, None).unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.everything_is_new();
    lab.has_converged(run);
    assert_eq!(lab.world.state().stories.len(), 1);
    assert_eq!(lab.world.state().starts, 1);
    lab.world.state().calls.len()
}

fn place(turns: Option<Retirement>) -> usize {
    WAYS.iter().position(|way| *way == turns).unwrap()
}

/// Every call of a clean run of each way.
fn calls() -> impl Iterator<Item = (Option<Retirement>, usize)> {
    WAYS.into_iter().flat_map(|turns| (0..calls_of_a_clean_run(turns)).map(move |call| (turns, call)))
}

#[test]
fn a_clean_run_makes_no_call_too_many() {
    let lab = Lab::new();
    lab.process(None, None).unwrap();
    let calls = lab.world.state().calls.join("\n");
    insta::assert_snapshot!(calls);
}

/// A person who reads the history sees by its mark that one password went everywhere.
#[test]
fn the_journal_names_the_password_that_was_promoted_and_published() {
    let lab = Lab::new();
    let (run, _) = lab.process(None, None).unwrap();
    let state = lab.state(run);
    let mark = |kind: &str| state.outcome_of(kind).unwrap().fingerprint.clone();
    assert!(mark("stage").is_some());
    assert_eq!((mark("promote"), mark("publish")), (mark("stage"), mark("stage")));
}

#[test]
fn the_version_that_was_replaced_is_taken_out_of_use_where_the_policy_says_so() {
    let retired = |lab: &Lab| {
        lab.process(None, None).unwrap();
        let mut calls = lab.world.state().calls.clone();
        calls.retain(|call| call.contains("retire"));
        calls.sort();
        calls
    };
    assert_eq!(retired(&Lab::new()), Vec::<String>::new());
    let lab = Lab { retire: true, ..Lab::new() };
    assert_eq!(retired(&lab), ["memory:password.retire 1", "memory:url.retire 1"]);
    lab.everything_is_new();
}

#[test]
fn every_call_may_fail_before_its_effect_or_lose_its_answer() {
    for (turns, call) in calls() {
        for fault in [Fault::Before, Fault::Lost, Fault::After] {
            let lab = Lab::of(turns);
            lab.world.state().faults.insert(call, fault);
            let (run, end) = lab.process(None, None).unwrap();
            assert!(matches!(end, End::Done), "{fault:?} at call {call}: {end:?}");
            lab.has_converged(run);
        }
    }
}

/// What one system answers to all who ask at once, two copies of it for instance, is as passing as
/// what it answers to one.
#[test]
fn calls_side_by_side_may_fail_together() {
    for (turns, call) in calls() {
        let lab = Lab::of(turns);
        lab.world.state().faults.extend([(call, Fault::Before), (call + 1, Fault::Before)]);
        let (run, end) = lab.process(None, None).unwrap();
        assert!(matches!(end, End::Done), "at call {call}: {end:?}");
        lab.has_converged(run);
    }
}

#[test]
fn every_call_may_be_refused_for_good() {
    for (turns, call) in calls() {
        let lab = Lab::of(turns);
        lab.world.state().faults.insert(call, Fault::Refuse);
        let (run, end) = lab.process(None, None).unwrap();
        lab.somebody_can_log_in();
        match end {
            End::Failed(_) => lab.has_converged(run),
            End::Parked(_) => {
                let (_, end) = lab.process(Some(run), None).unwrap();
                assert!(matches!(end, End::Done), "refused at call {call}, then resumed: {end:?}");
                lab.has_converged(run);
            }
            other => panic!("refused at call {call}: {other:?}"),
        }
    }
}

/// The process dies right after each call's effect, before it can write that down; then the
/// next one meets a fault at each of its own calls.
#[test]
fn the_process_may_die_anywhere_and_the_next_one_may_meet_any_fault() {
    let mut died = [0; WAYS.len()];
    for (turns, dies_at) in calls() {
        let calls = calls_of_a_clean_run(turns);
        for second in (dies_at..dies_at + calls).map(Some).chain([None]) {
            for fault in [Fault::Before, Fault::Lost, Fault::After] {
                let lab = Lab::of(turns);
                let result = lab.process(None, Some(dies_at));
                lab.somebody_can_log_in();
                died[place(turns)] += usize::from(result.is_err());
                let run = lab.run();
                if lab.state(run).phase == Phase::Finished {
                    continue;
                }
                if let Some(second) = second {
                    lab.world.state().faults.insert(second, fault);
                }
                let (_, end) = lab.process(Some(run), None).unwrap();
                assert!(matches!(end, End::Done), "died at {dies_at}, then {fault:?} at {second:?}: {end:?}");
                lab.somebody_can_log_in();
                lab.has_converged(run);
            }
        }
    }
    for turns in WAYS {
        let (died, calls) = (died[place(turns)], calls_of_a_clean_run(turns));
        assert!(died > calls, "the process has to die for this test to mean something; it died {died} times");
    }
}

#[test]
fn a_run_can_be_called_off_until_the_server_may_know() {
    for (turns, dies_at) in calls() {
        let lab = Lab::of(turns);
        if lab.process(None, Some(dies_at)).is_ok() {
            continue;
        }
        let run = lab.run();
        let rotation = lab.rotation();
        let lease = lab.lease();
        let executor = lab.executor(&rotation);
        let result = async {
            let mut state = executor.take_over(run, &lease).await?;
            let past = state.past_point_of_no_return();
            executor.abort(&mut state, &lease).await.map_err(|error| (assert!(past), error).1)
        };
        match result.now_or_never().unwrap() {
            Ok(end) => {
                assert!(matches!(end, End::Aborted));
                lab.nothing_is_changed();
                assert_eq!(lab.state(run).outcome, Some(RunOutcome::Aborted));
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::BadState);
                lab.somebody_can_log_in();
            }
        }
    }
}

/// A step before the point of no return is refused, the pending password is being dropped, and
/// the process dies: the next one drops it and says what the first one would have said.
#[test]
fn the_process_may_die_while_a_run_is_called_off() {
    let mut died = 0;
    for (turns, refused) in calls() {
        for later in 1..=4 {
            let lab = Lab::of(turns);
            lab.world.state().faults.insert(refused, Fault::Refuse);
            if lab.process(None, Some(refused + later)).is_ok() {
                continue;
            }
            let run = lab.run();
            if lab.state(run).phase != Phase::Aborting {
                continue;
            }
            died += 1;
            let (_, end) = lab.process(Some(run), None).unwrap();
            assert!(matches!(end, End::Failed(_)), "refused at {refused}: {end:?}");
            assert_eq!(lab.state(run).outcome, Some(RunOutcome::Failed));
            lab.nothing_is_changed();
        }
    }
    assert!(died > 0, "no process died while it called a run off");
}

/// What a run that is done may have left behind can be dropped, and nothing of it is undone with that.
#[test]
fn to_drop_what_a_done_run_has_left_undoes_nothing() {
    for turns in WAYS {
        let lab = Lab::of(turns);
        let (run, _) = lab.process(None, None).unwrap();
        lab.rotation().discard(&lab.state(run)).now_or_never().unwrap().unwrap();
        lab.everything_is_new();
    }
}

#[test]
fn a_soak_waits_and_then_proves_everything_again() {
    let lab = Lab::soaking();
    let (run, end) = lab.process(None, None).unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.has_converged(run);
    assert!(lab.clock.now().as_second() >= BEGIN + SOAK);
    let calls = lab.world.state().calls.clone();
    let times = |name: &str| calls.iter().filter(|call| *call == name).count();
    assert_eq!((times("health.verify"), times("recorder.record")), (2, 1));
    let once = Lab::new();
    once.process(None, None).unwrap();
    let logins = once.world.state().calls.iter().filter(|call| *call == "login").count();
    assert_eq!(times("login"), logins + 2, "the new one accepted and the old one refused, a second time");
}

#[test]
fn who_stops_a_soak_waits_only_for_the_rest_of_it_afterwards() {
    let mut lab = Lab::soaking();
    lab.stop_at = Some(BEGIN + SOAK / 2);
    let (run, end) = lab.process(None, None).unwrap();
    assert!(matches!(end, End::Stopped), "{end:?}");
    lab.stop_at = None;
    let (_, end) = lab.process(Some(run), None).unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.has_converged(run);
    assert_eq!(lab.clock.now().as_second(), BEGIN + SOAK);
}

#[test]
fn what_fails_after_the_soak_is_parked_and_not_told_as_done() {
    let lab = Lab::soaking();
    lab.process(None, None).unwrap();
    let second = lab.world.state().calls.iter().rposition(|call| call == "health.verify").unwrap();
    let lab = Lab::soaking();
    lab.world.state().faults.insert(second, Fault::Refuse);
    let (run, end) = lab.process(None, None).unwrap();
    let End::Parked(steps) = end else { panic!("{end:?}") };
    assert_eq!(steps[0].0.as_str(), "verify-again/health");
    assert_eq!(lab.world.state().stories.len(), 0);
    let (_, end) = lab.process(Some(run), None).unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    lab.has_converged(run);
}

#[test]
fn a_late_writer_is_fenced_off() {
    let lab = Lab::new();
    let rotation = lab.rotation();
    let late = lab.lease();
    let executor = lab.executor(&rotation);
    let run = RunId::generate(lab.clock.now(), &*lab.entropy);
    let mut state =
        executor.begin(run, start(&rotation.plan(), &late), &late).now_or_never().unwrap().unwrap();
    let (_, end) = lab.process(Some(run), None).unwrap();
    assert!(matches!(end, End::Done));
    let calls = lab.world.state().calls.len();
    let error = executor.drive(&mut state, &late).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced);
    assert_eq!(lab.world.state().calls.len(), calls, "the late one acted");
    lab.everything_is_new();
}
