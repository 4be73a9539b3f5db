//! A fleet in virtual time, at vendors that count what they are asked and turn away what is more than they document.
//!
//! Real are the engine, the fleet of the core, the journal that the caller brings and the budgets that it brings. Simulated are time and
//! the vendors: each environment is a world in memory whose every call sends the requests that the real provider
//! sends ([`requests`] has them; a test holds them against those that a real rotation was seen to send).

mod limits;
mod requests;
mod vendors;

use std::collections::BTreeMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::engine::{Engine, Wish};
use pgrotate_core::env::Clock;
use pgrotate_core::executor::{End, World};
use pgrotate_core::fleet::{Ended, Fleet, Members, Summary};
use pgrotate_core::journal::Journal;
use pgrotate_core::lease::Leases;
use pgrotate_core::memory::Memory;
use pgrotate_core::observer::Unobserved;
use pgrotate_core::plan::Plan;
use pgrotate_core::{Result, RunId};

use crate::dice::Dice;
use crate::time::{Due, Flag, Time};

use limits::Gate;
pub use limits::{Shortest, Toll};
pub use requests::{Request, Vendor};
use vendors::Wire;

/// What a fleet is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many environments.
    pub environments: usize,
    /// How many of them are in hand at once.
    pub at_once: NonZeroUsize,
    /// Whether all are in one subscription; else each has its own. Vaults are each their own, GitHub's owner and AWS's account are
    /// always one for all.
    pub one_subscription: bool,
    /// Whether requests take no time; else a tenth of a second, a server five more, an application two.
    pub at_once_answered: bool,
}

/// What is around a fleet: whoever paces it, and whoever hears of its runs.
#[async_trait]
pub trait Around: Send + Sync {
    /// Comes before each request; what it gives is kept until the answer is there.
    async fn before(&self, clock: &dyn Clock, request: &Request) -> Option<Box<dyn Send>>;

    /// Comes before each member.
    async fn room_for(&self, clock: &dyn Clock, plan: &Plan);

    /// A run has come to its end.
    async fn ended(&self, run: RunId);
}

/// What came of a fleet.
#[derive(Debug)]
pub struct Played {
    /// How the members ended.
    pub summary: Summary,
    /// How long it took in virtual time.
    pub took: Duration,
    /// The longest run, from its beginning to its end.
    pub longest: Duration,
    /// The most that were in hand at once.
    pub most_in_hand: usize,
    /// What the vendors have counted.
    pub toll: Toll,
    /// Members that were done and whose world does not have one new password everywhere, of their own run.
    pub mixed: usize,
}

/// Rotates a fleet. `store` is its journal.
///
/// # Panics
/// When everybody waits and nothing is due: a mistake of the simulation.
pub fn play<S: Journal + Leases>(shape: Shape, store: S, around: &Arc<dyn Around>) -> Played {
    let time = Time::default();
    let (clock, dice) = (Arc::new(time.clone()), Arc::new(Dice::new(1)));
    let stop = Arc::new(AtomicBool::new(false));
    let engine = Engine::new(store, clock, dice.clone(), Arc::new(Unobserved), stop);
    let crowd = Crowd {
        shape,
        time: time.clone(),
        dice,
        around: Arc::clone(around),
        gate: Arc::default(),
        hand: Mutex::default(),
        most: Mutex::default(),
    };
    let fleet = Fleet::new(&engine, &time, shape.at_once);
    let wish = Wish { operator: "simulation".into(), ..Wish::default() };
    let summary = to_its_end(&time, fleet.rotate(&crowd, &wish));
    let most = *crowd.most();
    let toll = crowd.gate.lock().toll();
    Played {
        summary,
        took: time.uptime(),
        longest: most.longest,
        most_in_hand: most.in_hand,
        mixed: most.mixed,
        toll,
    }
}

/// Lets time pass until this is done.
fn to_its_end<T>(time: &Time, work: impl Future<Output = T>) -> T {
    let (mut work, flag) = (pin!(work), Flag::up());
    let waker = Waker::from(Arc::clone(&flag));
    loop {
        while flag.take() {
            if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return done;
            }
        }
        match time.next().expect("somebody who waits has a time at which to go on") {
            Due::Wake(waker) => waker.wake(),
            Due::Arrival(arrival) => arrival(),
        }
    }
}

/// The extremes of a fleet.
#[derive(Clone, Copy, Default)]
struct Most {
    longest: Duration,
    in_hand: usize,
    mixed: usize,
}

/// A member that is in hand.
struct InHand {
    began: Duration,
    memory: Memory,
    before: String,
}

/// The members.
struct Crowd {
    shape: Shape,
    time: Time,
    dice: Arc<Dice>,
    around: Arc<dyn Around>,
    gate: Arc<Gate>,
    hand: Mutex<BTreeMap<usize, InHand>>,
    most: Mutex<Most>,
}

impl Crowd {
    fn hand(&self) -> MutexGuard<'_, BTreeMap<usize, InHand>> {
        self.hand.lock().expect("no holder of this lock panics")
    }

    fn most(&self) -> MutexGuard<'_, Most> {
        self.most.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl Members for Crowd {
    fn number(&self) -> usize {
        self.shape.environments
    }

    async fn member(&self, place: usize) -> Result<Box<dyn World>> {
        let wire = Wire {
            place,
            shape: self.shape,
            time: self.time.clone(),
            dice: Arc::clone(&self.dice),
            around: Arc::clone(&self.around),
            gate: Arc::clone(&self.gate),
        };
        let before = format!("Old{place:0>29}");
        let memory = vendors::world(&before);
        let rotation = vendors::rotation(&wire, &memory);
        self.around.room_for(&self.time, &rotation.plan()).await;
        let mut hand = self.hand();
        hand.insert(place, InHand { began: self.time.uptime(), memory, before });
        let mut most = self.most();
        most.in_hand = most.in_hand.max(hand.len());
        Ok(Box::new(rotation))
    }

    async fn ended(&self, ended: &Ended) {
        let Some(own) = self.hand().remove(&ended.place) else { return };
        let Ok((run, end)) = &ended.result else { return };
        {
            let mut most = self.most();
            most.longest = most.longest.max(self.time.uptime() - own.began);
            let mixed = matches!(end, End::Done) && !vendors::is_rotated(&own.memory, &own.before, *run);
            most.mixed += usize::from(mixed);
        }
        self.around.ended(*run).await;
    }
}
