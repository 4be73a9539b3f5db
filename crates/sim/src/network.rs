//! The way to the outside: every request travels, may fail in every way that a network knows, and is carried out even
//! if its sender has died meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pgrotate_core::{Error, Kind, Result};

use crate::dice::Dice;
use crate::story::Story;
use crate::time::{Due, Time};
use crate::world::{Shared, World};

/// After this time everything is well: faults, deaths and jumps are over, and runs have to come to their end.
const WELL_AFTER_MS: u64 = 900_000;
/// How long a sender waits for an answer.
const PATIENCE_MS: u64 = 30_000;
/// How much later than that a request may still arrive.
const LATE_MS: u64 = 5_000;
/// How long a statement takes at most, with the opening of its session.
const STATEMENT_MS: u64 = 3_000;
/// How long an outage lasts: longer than any step goes on trying.
const OUTAGE_MS: u64 = 120_000;

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
    /// A read shows what was there before a write of a moment ago.
    Stale,
    /// The whole system is gone from now on, for longer than anybody goes on trying.
    Outage,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::Before,
        Self::Throttled,
        Self::AnswerLost,
        Self::Late,
        Self::Stale,
        Self::Outage,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|fault| fault.to_string() == text);
        named.ok_or_else(|| format!("there is no fault {text:?}"))
    }
}

/// Which requests meet which fault.
pub(crate) enum Fates {
    /// So many in a thousand, until all is well.
    Random { in_thousand: u64 },
    /// The requests of these numbers, counted from 0; and the one with whose answer its sender dies.
    Chosen { faults: BTreeMap<usize, Fault>, deadly: Option<usize> },
}

#[derive(Default)]
struct Traffic {
    /// How many requests have been sent since faults began to matter.
    sent: usize,
    /// How many requests met each fault.
    met: BTreeMap<Fault, u64>,
    /// The systems that are gone, and until when.
    gone: BTreeMap<&'static str, u64>,
    /// The process that dies with the answer it has just got.
    doomed: Option<u32>,
    /// The processes that have died: their leases bind nobody, and nobody hears of their requests.
    dead: Vec<u32>,
}

/// What the requests of a simulation share.
pub(crate) struct Network {
    pub(crate) world: Shared,
    pub(crate) time: Time,
    pub(crate) dice: Dice,
    pub(crate) story: Story,
    fates: Fates,
    /// From when on chosen faults count; a scenario may need some peace before.
    armed: Mutex<bool>,
    traffic: Mutex<Traffic>,
}

impl Network {
    pub(crate) fn new(world: Shared, time: Time, dice: Dice, story: Story, fates: Fates) -> Self {
        Self { world, time, dice, story, fates, armed: Mutex::new(false), traffic: Mutex::default() }
    }

    /// Whether the time of faults is over.
    pub(crate) fn is_well(&self) -> bool {
        self.time.now_ms() >= WELL_AFTER_MS
    }

    /// From now on requests are counted, and meet their faults.
    pub(crate) fn arm(&self) {
        *self.armed.lock().expect("no holder of this lock panics") = true;
    }

    pub(crate) fn is_armed(&self) -> bool {
        *self.armed.lock().expect("no holder of this lock panics")
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().expect("no holder of this lock panics")
    }

    /// How many requests have been sent.
    pub(crate) fn sent(&self) -> usize {
        self.traffic().sent
    }

    /// How many requests met each fault.
    pub(crate) fn met(&self) -> BTreeMap<Fault, u64> {
        self.traffic().met.clone()
    }

    /// The process that dies now, if an answer was deadly.
    pub(crate) fn doomed(&self) -> Option<u32> {
        self.traffic().doomed.take()
    }

    /// Notes a death.
    pub(crate) fn bury(&self, process: u32) {
        self.traffic().dead.push(process);
    }

    pub(crate) fn is_dead(&self, process: u32) -> bool {
        self.traffic().dead.contains(&process)
    }

    /// What happens to the next request, and whether its answer is deadly.
    fn fate(&self, system: &'static str) -> (Option<Fault>, bool) {
        let now = self.time.now_ms();
        let mut traffic = self.traffic();
        let number = traffic.sent;
        let (fault, deadly) = match &self.fates {
            Fates::Chosen { .. } if !self.is_armed() => return (None, false),
            Fates::Chosen { faults, deadly } => (faults.get(&number).copied(), *deadly == Some(number)),
            Fates::Random { in_thousand } => {
                let hit = now < WELL_AFTER_MS && self.dice.in_thousand(*in_thousand);
                (hit.then(|| self.dice.one_of(&Fault::ALL)), false)
            }
        };
        traffic.sent += 1;
        if let Some(fault) = fault {
            *traffic.met.entry(fault).or_default() += 1;
        }
        if fault == Some(Fault::Outage) {
            traffic.gone.insert(system, now + OUTAGE_MS);
        }
        let gone = traffic.gone.get(system).is_some_and(|until| now < *until);
        (if gone { Some(Fault::Outage) } else { fault }, deadly)
    }
}

/// One process's access to the network.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) network: Arc<Network>,
    /// Who sends.
    pub(crate) process: u32,
}

/// How something travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As a request, which proxies and queues may keep for longer than its sender waits.
    Request,
    /// Within a session.
    Session,
}

/// What a request does there.
type Effect<T> = Box<dyn FnOnce(&mut World, Arrives) -> Result<T> + Send>;

/// How a request arrives.
#[derive(Clone, Copy)]
pub(crate) struct Arrives {
    /// Whether it may see an old state of things.
    pub(crate) stale: bool,
    /// Whether its sender has given up, or died: somebody may have looked, and found nothing, and sent another.
    pub(crate) late: bool,
    /// When.
    pub(crate) at_ms: u64,
}

impl Wire {
    /// A question to a system, named by the word before the colon: nothing changes, so an unanswered one is simply
    /// asked again.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut World, Arrives) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.send(what, Way::Request, Box::new(effect)).await.map_err(|error| match error.kind() {
            Kind::TimedOut => error.later(None),
            _ => error,
        })
    }

    /// A change: without an answer nobody knows whether it has happened.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut World, Arrives) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.network.world.lock().is_written_by(self.process, what);
        self.send(what, Way::Request, Box::new(effect)).await
    }

    /// A change by SQL. It can't arrive minutes later: it goes over a session of its own, nothing keeps it on its way,
    /// and the server waits neither for a lock nor for the statement longer than its sender listens. When that is
    /// gone, the statement has its effect within seconds or never. The session is there before the statement is sent;
    /// so who looks for sessions sees whether one may still come.
    pub(crate) async fn statement<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut World, Arrives) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let session = {
            let mut world = self.network.world.lock();
            world.is_written_by(self.process, what);
            Arc::clone(&world.sessions)
        };
        let effect = move |world: &mut World, how: Arrives| {
            let result = effect(world, how);
            drop(session);
            result
        };
        self.send(what, Way::Session, Box::new(effect)).await
    }

    async fn send<T: Send + 'static>(&self, what: &'static str, way: Way, effect: Effect<T>) -> Result<T> {
        let network = &self.network;
        let (fault, deadly) = network.fate(what.split_once(':').map_or(what, |(system, _)| system));
        network.story.tell(&network.time, || {
            let fault = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
            let deadly = if deadly { ": its answer is deadly" } else { "" };
            format!("process {}: {what}{fault}{deadly}", self.process)
        });
        let result = self.travel(what, way, fault, effect).await;
        if deadly {
            network.traffic().doomed = Some(self.process);
            std::future::pending::<()>().await;
        }
        result
    }

    async fn travel<T: Send + 'static>(
        &self,
        what: &'static str,
        way: Way,
        fault: Option<Fault>,
        effect: Effect<T>,
    ) -> Result<T> {
        let network = &self.network;
        let (mut there, back) = (1 + network.dice.below(20), 1 + network.dice.below(20));
        if way == Way::Session {
            there += network.dice.below(STATEMENT_MS);
        }
        let error = |kind| Error::new(kind, what);
        match fault {
            Some(Fault::Refused) => self.in_vain(there + back, error(Kind::Forbidden)).await,
            Some(Fault::Before | Fault::Outage) => {
                self.in_vain(there + back, error(Kind::Unreachable).later(None)).await
            }
            Some(Fault::Throttled) => {
                let wait = Duration::from_millis(1000 + network.dice.below(4000));
                self.in_vain(there + back, error(Kind::Throttled).later(Some(wait))).await
            }
            Some(Fault::AnswerLost) => {
                drop(self.arrive(there, effect, fault));
                self.in_vain(PATIENCE_MS, error(Kind::TimedOut).unknown()).await
            }
            // What is not there after so long is lost with its session.
            Some(Fault::Late) if way == Way::Session => {
                self.in_vain(PATIENCE_MS, error(Kind::TimedOut).unknown()).await
            }
            Some(Fault::Late) => {
                drop(self.arrive(PATIENCE_MS + 1 + network.dice.below(LATE_MS), effect, fault));
                self.in_vain(PATIENCE_MS, error(Kind::TimedOut).unknown()).await
            }
            Some(Fault::Stale) | None => {
                let answer = self.arrive(there, effect, fault);
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
        fault: Option<Fault>,
    ) -> Arc<Mutex<Option<Result<T>>>> {
        let answer = Arc::new(Mutex::new(None));
        let (slot, network, process) = (Arc::clone(&answer), Arc::clone(&self.network), self.process);
        let (stale, late) = (fault == Some(Fault::Stale), fault == Some(Fault::Late));
        let at_ms = self.network.time.now_ms() + in_ms;
        let arrival = move || {
            let late = late || network.is_dead(process);
            let mut world = network.world.lock();
            let result = effect(&mut world, Arrives { stale, late, at_ms });
            world.inspect();
            *slot.lock().expect("no holder of this lock panics") = Some(result);
        };
        self.network.time.plan(in_ms, Due::Arrival(Box::new(arrival)));
        answer
    }
}
