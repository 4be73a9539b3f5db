//! What a fleet is for: bounded, each member by itself, none of them another's trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::engine::tests::{Still, Store};
use crate::env::Entropy;
use crate::env::testing::{ManualClock, SeededEntropy};
use crate::journal::{Outcome, RunOutcome};
use crate::memory::{self, Fault, Memory};
use crate::observer::Unobserved;
use crate::plan::{Plan, Step};
use crate::rotation::Rotation;
use crate::run::RunState;

const OLD: &str = "OldPassword1OldPassword1OldPassw";

/// What the members share: how many of them are in hand, and how many there were at most.
#[derive(Default)]
struct Hands {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A member that lets the others go on between any two of its steps.
struct Member {
    rotation: Rotation,
    hands: Arc<Hands>,
}

impl Member {
    fn new(rotation: Rotation, hands: &Arc<Hands>) -> Self {
        let now = hands.now.fetch_add(1, Ordering::Relaxed) + 1;
        hands.most.fetch_max(now, Ordering::Relaxed);
        Self { rotation, hands: Arc::clone(hands) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hands.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl World for Member {
    fn plan(&self) -> Plan {
        self.rotation.plan()
    }

    async fn perform(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        tokio::task::yield_now().await;
        self.rotation.perform(step, run).await
    }

    async fn discard(&self, run: &RunState) -> Result<()> {
        self.rotation.discard(run).await
    }
}

/// A world for each member.
struct Lab {
    worlds: Vec<Memory>,
    names: Vec<String>,
    hands: Arc<Hands>,
    ended: Mutex<Vec<usize>>,
    /// The member that can't be made, and the one from which on there is no room.
    unmade: Option<usize>,
    no_room_from: Option<usize>,
    stop: Arc<AtomicBool>,
    engine: Engine<Store>,
}

impl Lab {
    fn of(number: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (clock, entropy) = (Arc::new(Still), Arc::new(SeededEntropy::new(3)));
        let engine = Engine::new(Store::default(), clock, entropy, Arc::new(Unobserved), Arc::clone(&stop));
        Self {
            worlds: (0..number).map(|_| memory::world(OLD)).collect(),
            names: (0..number).map(|place| format!("env-{place}")).collect(),
            hands: Arc::default(),
            ended: Mutex::default(),
            unmade: None,
            no_room_from: None,
            stop,
            engine,
        }
    }

    async fn rotate(&self, at_once: usize) -> Summary {
        let clock = ManualClock::at_second(1_700_000_000);
        let fleet = Fleet::new(&self.engine, &clock, NonZeroUsize::new(at_once).unwrap());
        fleet.rotate(self, &Wish { operator: "test".into(), ..Wish::default() }).await
    }

    /// Whether everything of a member has the password that its server accepts, which is a new one.
    fn is_rotated(&self, place: usize) -> bool {
        let state = self.worlds[place].state();
        let current = state.vault.current.as_ref().unwrap().secret.expose().to_owned();
        let copies: Vec<&str> = state.copies.values().map(|values| values.last().unwrap().as_str()).collect();
        state.server != OLD
            && current == state.server
            && copies == [&state.server, &memory::url(&state.server)]
    }
}

#[async_trait]
impl Members for Lab {
    fn number(&self) -> usize {
        self.worlds.len()
    }

    async fn member(&self, place: usize) -> Result<Box<dyn World>> {
        if self.unmade == Some(place) {
            return Err(Error::new(Kind::Config, "make a member"));
        }
        if self.no_room_from.is_some_and(|from| place >= from) {
            self.stop.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(1_700_000_000));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(place as u64));
        let rotation = memory::rotation(&self.worlds[place], &clock, &entropy);
        let rotation = Rotation { environment: self.names[place].as_str().into(), ..rotation };
        Ok(Box::new(Member::new(rotation, &self.hands)))
    }

    async fn ended(&self, ended: &Ended) {
        self.ended.lock().unwrap().push(ended.place);
    }
}

#[tokio::test]
async fn so_many_are_in_hand_and_never_more() {
    for at_once in [1, 3, 8] {
        let lab = Lab::of(20);
        let summary = lab.rotate(at_once).await;
        assert_eq!((summary.done, summary.others.len(), summary.not_begun), (20, 0, 0));
        // The next one is made before its place is free, and not before any other is.
        assert_eq!(lab.hands.most.load(Ordering::Relaxed), at_once);
        assert_eq!(lab.hands.now.load(Ordering::Relaxed), 0, "whoever has ended is gone");
    }
}

#[tokio::test]
async fn every_member_has_its_own_run_and_its_own_password() {
    let lab = Lab::of(12);
    assert_eq!(lab.rotate(5).await.done, 12);
    let mut ended = lab.ended.lock().unwrap().clone();
    ended.sort_unstable();
    assert_eq!(ended, (0..12).collect::<Vec<_>>());
    let passwords: BTreeSet<String> = lab.worlds.iter().map(|world| world.state().server.clone()).collect();
    assert_eq!(passwords.len(), 12);
    assert!((0..12).all(|place| lab.is_rotated(place)));
    for (place, name) in lab.names.iter().enumerate() {
        let [run] = &lab.engine.history(Some(&name.as_str().into())).await.unwrap()[..] else { panic!() };
        assert_eq!(
            (run.outcome, &lab.worlds[place].state().stories[..]),
            (Some(RunOutcome::Done), &[run.run][..])
        );
    }
}

#[tokio::test]
async fn who_fails_stops_nobody_else() {
    let alone = Lab::of(1);
    alone.rotate(1).await;
    let record = alone.worlds[0].state().calls.iter().position(|call| call == "recorder.record").unwrap();
    let mut lab = Lab::of(9);
    lab.unmade = Some(0);
    // One is refused before its point of no return, one after it.
    lab.worlds[4].state().faults.insert(1, Fault::Refuse);
    lab.worlds[6].state().faults.insert(record, Fault::Refuse);
    let summary = lab.rotate(2).await;
    assert_eq!((summary.done, summary.not_begun), (6, 0));
    let of = |place: usize| &summary.others.iter().find(|ended| ended.place == place).unwrap().result;
    assert!(matches!(of(0), Err(Trouble::Before(error)) if error.kind() == Kind::Config));
    assert!(matches!(of(4), Ok((_, End::Failed(_)))), "{:?}", of(4));
    assert!(matches!(of(6), Ok((_, End::Parked(_)))), "{:?}", of(6));
    assert_eq!(lab.worlds[4].state().server, OLD);
    assert!([1, 2, 3, 5, 7, 8].into_iter().all(|place| lab.is_rotated(place)));
}

#[tokio::test]
async fn an_environment_that_comes_twice_has_one_run() {
    let mut lab = Lab::of(3);
    lab.names[2] = lab.names[0].clone();
    let summary = lab.rotate(3).await;
    assert_eq!(summary.done, 2);
    let Err(Trouble::Before(error)) = &summary.others[0].result else { panic!() };
    assert!(error.to_string().contains("twice"), "{error}");
    assert_eq!(lab.worlds[2].state().server, OLD);
}

#[tokio::test]
async fn nobody_begins_after_a_stop_not_even_who_waits_for_room() {
    let mut lab = Lab::of(7);
    lab.no_room_from = Some(4);
    let summary = lab.rotate(4).await;
    assert_eq!(summary.not_begun, 3);
    assert!(summary.others.iter().all(|ended| matches!(ended.result, Ok((_, End::Stopped)))));
    assert_eq!(summary.done + summary.others.len(), 4);
    assert!(lab.worlds[4..].iter().all(|world| world.state().calls.is_empty()));
}
