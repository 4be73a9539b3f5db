//! What a person is told who asks for a run, and where the engine refuses to begin or to go on.

use std::sync::Mutex;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::Timestamp;

use super::*;
use crate::env::testing::{ManualClock, SeededEntropy};
use crate::ids::CopyId;
use crate::journal::{MemoryJournal, Record, RunHeading};
use crate::lease::{Generation, Lease};
use crate::memory::{self, Memory};
use crate::observer::Unobserved;
use crate::past::Past;
use crate::plan::{Back, Plan, Retirement};
use crate::rotation::Rotation;

/// A journal in memory, with leases that nobody else wants.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<(MemoryJournal, Mutex<u64>)>);

#[async_trait]
impl Journal for Store {
    async fn append(&self, lease: &Lease, run: RunId, records: &[Record]) -> Result<()> {
        self.0.0.append(lease, run, records).await
    }

    async fn read(&self, run: RunId) -> Result<Vec<Record>> {
        self.0.0.read(run).await
    }

    async fn runs(&self, environment: Option<&Environment>) -> Result<Vec<RunHeading>> {
        self.0.0.runs(environment).await
    }
}

#[async_trait]
impl Leases for Store {
    async fn acquire(&self, environment: &Environment) -> Result<Lease> {
        let mut leases = self.0.1.lock().unwrap();
        *leases += 1;
        let (environment, generation) = (environment.clone(), Generation(*leases));
        let lease = Lease { environment, generation, expires_at: Timestamp::UNIX_EPOCH };
        self.0.0.fence(&lease);
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease> {
        Ok(lease.clone())
    }

    async fn release(&self, _: &Lease) -> Result<()> {
        Ok(())
    }
}

/// Time stands: nothing in these runs is tried twice, and no lease grows old.
pub(crate) struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn uptime(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    async fn sleep(&self, _: std::time::Duration) {
        std::future::pending().await
    }
}

/// A world, and an engine that changes it.
struct Lab {
    world: Memory,
    engine: Engine<Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Lab {
    fn new() -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(11));
        let (store, observer, stop) = (Store::default(), Arc::new(Unobserved), Arc::default());
        Self {
            world: memory::world("OldPassword1OldPassword1OldPassw"),
            engine: Engine::new(store, Arc::new(Still), Arc::clone(&entropy), observer, stop),
            clock: Arc::new(ManualClock::at_second(1_700_000_000)),
            entropy,
        }
    }

    fn rotation(&self, back: Option<Back>) -> Rotation {
        Rotation { back, ..memory::rotation(&self.world, &self.clock, &self.entropy) }
    }

    /// A run that is refused for good at its first call of this name.
    fn start(&self, refused_at: Option<&str>) -> (RunId, End) {
        let world = Refusing { rotation: self.rotation(None), refused_at };
        self.engine.start(&world, wish()).now_or_never().unwrap().unwrap()
    }

    /// A run that puts one copy right.
    fn repair(&self) -> RunId {
        let rotation = Rotation { repair: Some(vec![memory::url_copy()]), ..self.rotation(None) };
        let (run, end) = self.engine.start(&rotation, wish()).now_or_never().unwrap().unwrap();
        assert!(matches!(end, End::Done), "{end:?}");
        run
    }

    /// What the journal knows, where this very environment has to be rotated first.
    fn past(&self) -> Past {
        let test = Environment::from("test");
        let first = (test.clone(), std::time::Duration::ZERO);
        self.engine.past(&test, Some(first)).now_or_never().unwrap().unwrap()
    }

    fn start_again(&self) -> Error {
        let again = self.engine.start(&self.rotation(None), wish()).now_or_never().unwrap();
        let Err(Trouble::Before(error)) = again else { panic!("{again:?}") };
        error
    }

    fn way_back(&self, run: RunId) -> Result<Back> {
        self.engine.way_back(run).now_or_never().unwrap()
    }

    fn history(&self) -> Vec<RunId> {
        let states = self.engine.history(None).now_or_never().unwrap().unwrap();
        states.iter().map(|state| state.run).collect()
    }
}

/// A rotation with a step that fails for good.
struct Refusing<'a> {
    rotation: Rotation,
    refused_at: Option<&'a str>,
}

#[async_trait]
impl World for Refusing<'_> {
    fn plan(&self) -> Plan {
        self.rotation.plan()
    }

    async fn perform(&self, step: &crate::plan::Step, run: &RunState) -> Result<crate::journal::Outcome> {
        match self.refused_at {
            Some(kind) if step.action.kind() == kind => Err(Error::new(Kind::Forbidden, kind)),
            _ => self.rotation.perform(step, run).await,
        }
    }

    async fn discard(&self, run: &RunState) -> Result<()> {
        self.rotation.discard(run).await
    }
}

fn wish() -> Wish {
    Wish { operator: "somebody".into(), ticket: None, ..Wish::default() }
}

#[test]
fn a_second_run_is_refused_with_the_ways_on_that_there_are() {
    let lab = Lab::new();
    let (run, end) = lab.start(Some("publish"));
    assert!(matches!(end, End::Parked(_)), "{end:?}");
    let error = lab.start_again();
    assert_eq!(error.kind(), Kind::BadState);
    assert_eq!(error.causes(), [format!("the run {run} is not over")]);
    assert_eq!(error.hints(), [format!("go on with it: pgrotate resume {run}")], "it is past calling off");
}

#[test]
fn a_run_that_the_server_knows_nothing_of_may_also_be_called_off() {
    let lab = Lab::new();
    lab.engine.stop.store(true, Ordering::Relaxed);
    let (run, end) = lab.start(None);
    assert!(matches!(end, End::Stopped), "{end:?}");
    let ways =
        [format!("go on with it: pgrotate resume {run}"), format!("or call it off: pgrotate abort {run}")];
    assert_eq!(lab.start_again().hints(), ways);
    assert_eq!(lab.way_back(run).unwrap_err().hints(), ways, "nothing is there to be taken back");
}

#[test]
fn only_what_has_changed_something_is_taken_back() {
    let lab = Lab::new();
    let (failed, end) = lab.start(Some("stage"));
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    assert_eq!(lab.way_back(failed).unwrap_err().causes(), ["it changed nothing"]);
    let (done, _) = lab.start(None);
    assert_eq!(lab.way_back(done).unwrap().run, done);
}

#[test]
fn a_run_that_is_taken_back_need_not_be_over_and_is_not_gone_on_with() {
    let lab = Lab::new();
    let (run, _) = lab.start(Some("publish"));
    let rotation = lab.rotation(Some(lab.way_back(run).unwrap()));
    let (back, end) = lab.engine.start(&rotation, wish()).now_or_never().unwrap().unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    let resumed = lab.engine.resume(&lab.rotation(None), run).now_or_never().unwrap();
    let Err(Trouble::Before(error)) = resumed else { panic!("{resumed:?}") };
    assert_eq!(error.causes(), [format!("the run {back} has taken it back")]);
    let mut both = lab.history();
    both.sort();
    let mut expected = [run, back];
    expected.sort();
    assert_eq!(both, expected);
}

/// The write of a pending password may come after its sender has given up.
#[test]
fn to_call_off_a_run_that_is_over_drops_what_it_may_have_left() {
    let lab = Lab::new();
    let (run, _) = lab.start(Some("install"));
    let before = lab.world.state().calls.len();
    let end = lab.engine.abort(&lab.rotation(None), run).now_or_never().unwrap().unwrap();
    assert!(matches!(end, End::Aborted), "{end:?}");
    assert_eq!(lab.world.state().calls[before..], ["vault.discard"]);
}

#[test]
fn a_run_that_is_over_is_over_whoever_came_after_it() {
    let lab = Lab::new();
    let (first, _) = lab.start(None);
    lab.start(None);
    let resumed = lab.engine.resume(&lab.rotation(None), first).now_or_never().unwrap();
    let Err(Trouble::Before(error)) = resumed else { panic!("{resumed:?}") };
    assert_eq!(error.causes(), ["it is over"]);
}

#[test]
fn the_journal_knows_who_wrote_a_copy_last_and_what_was_proven() {
    let lab = Lab::new();
    assert!(lab.past().published.is_empty() && lab.past().pinned.is_none());
    assert_eq!(lab.past().forerunner.unwrap().proven, None);
    let (done, _) = lab.start(None);
    let writer = |past: &Past, copy: &CopyId| past.published[copy].run;
    let past = lab.past();
    assert_eq!(writer(&past, &memory::password_copy()), done);
    assert_eq!((past.pinned.unwrap().run, past.forerunner.unwrap().proven.unwrap().0), (done, done));

    let repair = lab.repair();
    let past = lab.past();
    assert_eq!(writer(&past, &memory::password_copy()), done);
    assert_eq!(writer(&past, &memory::url_copy()), repair);
    assert_eq!(past.pinned.unwrap().run, repair, "it has seen the same systems");
    assert_eq!(past.forerunner.unwrap().proven.unwrap().0, done, "it proves nothing of a rotation");

    let (parked, _) = lab.start(Some("activate"));
    let past = lab.past();
    assert_eq!(writer(&past, &memory::url_copy()), parked, "it has come that far");
    assert_eq!(past.pinned.unwrap().run, repair, "it has not come to its end");
    assert_eq!(past.forerunner.unwrap().proven.unwrap().0, done);
}

#[test]
fn what_brought_no_password_is_not_taken_back() {
    let lab = Lab::new();
    let repair = lab.repair();
    let error = lab.way_back(repair).unwrap_err();
    assert_eq!(error.causes(), ["it brought no other password, it put copies right"]);
}

/// The newest decides, and a rollback that came to nothing decides nothing.
#[test]
fn a_run_that_waits_is_found_behind_a_rollback_that_failed_and_not_behind_a_run_that_is_done() {
    let lab = Lab::new();
    let open = || -> Vec<RunId> {
        let open = lab.engine.unfinished(None).now_or_never().unwrap().unwrap();
        open.iter().map(|state| state.run).collect()
    };
    assert_eq!(open(), []);
    let (failed, _) = lab.start(Some("stage"));
    assert!(lab.engine.state(failed).now_or_never().unwrap().unwrap().changed_nothing());
    assert_eq!(open(), []);
    let (parked, _) = lab.start(Some("publish"));
    assert_eq!(open(), [parked]);
    let back = lab.rotation(Some(lab.way_back(parked).unwrap()));
    let refusing = Refusing { rotation: back, refused_at: Some("stage") };
    let (_, end) = lab.engine.start(&refusing, wish()).now_or_never().unwrap().unwrap();
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    assert_eq!(open(), [parked]);
    let back = lab.rotation(Some(lab.way_back(parked).unwrap()));
    let (_, end) = lab.engine.start(&back, wish()).now_or_never().unwrap().unwrap();
    assert!(matches!(end, End::Done), "{end:?}");
    assert_eq!(open(), [], "what was taken back is nobody's any more");
}

/// The same name in another configuration may mean another server.
#[test]
fn a_run_is_carried_on_and_called_off_only_where_it_began() {
    let lab = Lab::new();
    lab.engine.stop.store(true, Ordering::Relaxed);
    let (run, _) = lab.start(None);
    let state = lab.engine.state(run).now_or_never().unwrap().unwrap();
    assert!(same_place(&lab.rotation(None), &state).is_ok());
    let mut elsewhere = lab.rotation(None);
    elsewhere.target.host = "other".into();
    let resumed = lab.engine.resume(&elsewhere, run).now_or_never().unwrap();
    let Err(Trouble::Before(error)) = resumed else { panic!("{resumed:?}") };
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.causes()[0].starts_with("its target is "), "{error}");
    let called_off = lab.engine.abort(&elsewhere, run).now_or_never().unwrap();
    assert!(matches!(called_off, Err(Trouble::Before(_))), "{called_off:?}");
    let mut other_vault = state.clone();
    let mut start = (*state.start).clone();
    start.plan.vault = CopyId::from("another:vault");
    other_vault.start = Arc::new(start);
    assert!(
        same_place(&lab.rotation(None), &other_vault).unwrap_err().causes()[0].starts_with("its vault of")
    );
}

/// A run of two roles can't be carried on as one of one role, or with the other rest: half of its passwords would be the
/// wrong role's.
#[test]
fn a_run_goes_on_only_in_the_way_in_which_it_began() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let world = memory::world("now");
    let turns = |rest| memory::alternating(&world, &clock, &entropy, rest);
    let one = || memory::rotation(&world, &clock, &entropy);
    let begun = |rotation: &Rotation| crate::steps::testing::begun(rotation.plan());
    let (resting, closed) = (turns(Retirement::Password), turns(Retirement::NoLogin));
    for (then, now) in [(&resting, &closed), (&closed, &resting), (&one(), &resting), (&closed, &one())] {
        let error = same_place(now, &begun(then)).unwrap_err();
        assert!(error.causes()[0].starts_with("its way is "), "{error}");
    }
    assert!(same_place(&closed, &begun(&closed)).is_ok());
    let repair = Rotation { repair: Some(Vec::new()), ..one() };
    assert!(same_place(&one(), &begun(&repair)).is_ok(), "a repair is the same for all");
}
