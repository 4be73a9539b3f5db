//! The way to the outside: every request travels, may fail in every way that a network knows, and is carried out even
//! if its sender has died meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgrotate_core::{Error, Kind, Result};

use crate::dice::Dice;
use crate::story::Story;
use crate::time::{Due, Time};
use crate::world::{Shared, World};

/// How long a sender waits for an answer.
const PATIENCE_MS: u64 = 30_000;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It is refused for good, without effect.
    Refused,
    /// It fails without effect, and may work later.
    Before,
    /// The vendor asks for patience.
    Throttled,
    /// It has its effect, and the answer is lost.
    AnswerLost,
    /// It arrives only after its sender has given up.
    Late,
    /// A read shows what was there before the last write.
    Stale,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Refused, Self::Before, Self::Throttled, Self::AnswerLost, Self::Late, Self::Stale];
}

/// Which requests meet which fault.
pub(crate) enum Fates {
    /// So many in a thousand, until a time after which the network is well.
    Random { in_thousand: u64, until_ms: u64 },
    /// The requests of these numbers, counted from 0.
    Chosen(BTreeMap<usize, Fault>),
}

/// What the requests of a simulation share.
pub(crate) struct Network {
    pub(crate) world: Shared,
    pub(crate) time: Time,
    pub(crate) dice: Dice,
    pub(crate) story: Story,
    fates: Fates,
    sent: Mutex<usize>,
}

impl Network {
    pub(crate) fn new(world: Shared, time: Time, dice: Dice, story: Story, fates: Fates) -> Self {
        Self { world, time, dice, story, fates, sent: Mutex::new(0) }
    }

    /// How many requests have been sent.
    pub(crate) fn sent(&self) -> usize {
        *self.sent.lock().expect("no holder of this lock panics")
    }

    fn fate(&self) -> Option<Fault> {
        let number = {
            let mut sent = self.sent.lock().expect("no holder of this lock panics");
            *sent += 1;
            *sent - 1
        };
        match &self.fates {
            Fates::Chosen(faults) => faults.get(&number).copied(),
            Fates::Random { in_thousand, until_ms } => {
                let hit = self.time.now_ms() < *until_ms && self.dice.in_thousand(*in_thousand);
                hit.then(|| Fault::ALL[usize::try_from(self.dice.below(6)).unwrap_or(0)])
            }
        }
    }
}

/// One process's access to the network.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) network: Arc<Network>,
    /// Who sends.
    pub(crate) process: u32,
}

/// What a request does there, and whether it may see an old state of things.
type Effect<T> = Box<dyn FnOnce(&mut World, bool) -> Result<T> + Send>;

impl Wire {
    /// A question: nothing changes, so an unanswered one is simply asked again.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut World, bool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(what, Box::new(effect)).await.map_err(|error| match error.kind() {
            Kind::TimedOut => error.later(None),
            _ => error,
        })
    }

    /// A change: without an answer nobody knows whether it has happened.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(what, Box::new(move |world, _stale| effect(world))).await
    }

    async fn send<T: Send + 'static>(&self, what: &'static str, effect: Effect<T>) -> Result<T> {
        let network = &self.network;
        let fault = network.fate();
        network.story.tell(&network.time, || match fault {
            None => format!("process {}: {what}", self.process),
            Some(fault) => format!("process {}: {what}: {fault:?}", self.process),
        });
        let (there, back) = (1 + network.dice.below(20), 1 + network.dice.below(20));
        let error = |kind| Error::new(kind, what);
        match fault {
            Some(Fault::Refused) => self.in_vain(there + back, error(Kind::Forbidden)).await,
            Some(Fault::Before) => self.in_vain(there + back, error(Kind::Unreachable).later(None)).await,
            Some(Fault::Throttled) => {
                let wait = Duration::from_millis(1000 + network.dice.below(4000));
                self.in_vain(there + back, error(Kind::Throttled).later(Some(wait))).await
            }
            Some(Fault::AnswerLost) => {
                drop(self.arrive(there, effect, false));
                self.in_vain(PATIENCE_MS, error(Kind::TimedOut).unknown()).await
            }
            Some(Fault::Late) => {
                drop(self.arrive(PATIENCE_MS + 1 + network.dice.below(5000), effect, false));
                self.in_vain(PATIENCE_MS, error(Kind::TimedOut).unknown()).await
            }
            Some(Fault::Stale) | None => {
                let answer = self.arrive(there, effect, fault == Some(Fault::Stale));
                network.time.sleep_ms(there + back).await;
                let mut answer = answer.lock().expect("no holder of this lock panics");
                answer.take().expect("a request arrives before its answer")
            }
        }
    }

    async fn in_vain<T>(&self, ms: u64, error: Error) -> Result<T> {
        self.network.time.sleep_ms(ms).await;
        Err(error)
    }

    /// Lets a request arrive, whatever becomes of its sender.
    fn arrive<T: Send + 'static>(
        &self,
        in_ms: u64,
        effect: Effect<T>,
        stale: bool,
    ) -> Arc<Mutex<Option<Result<T>>>> {
        let answer = Arc::new(Mutex::new(None));
        let (slot, world) = (Arc::clone(&answer), self.network.world.clone());
        let arrival = move || {
            let mut world = world.lock();
            let result = effect(&mut world, stale);
            world.inspect();
            *slot.lock().expect("no holder of this lock panics") = Some(result);
        };
        self.network.time.plan(in_ms, Due::Arrival(Box::new(arrival)));
        answer
    }
}
