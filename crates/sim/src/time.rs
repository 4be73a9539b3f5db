//! Virtual time: it passes when nothing is left to do at the present moment, and then in one leap to the next thing
//! that is due. Nothing here waits for anything real.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pgrotate_core::env::Clock;

/// When every simulation begins: a second of no importance.
const EPOCH_S: i64 = 1_700_000_000;

/// Something that happens when nobody is looking: a request that arrives.
pub(crate) type Arrival = Box<dyn FnOnce() + Send>;

/// What is due at some time.
pub(crate) enum Due {
    /// Somebody's sleep is over.
    Wake(Waker),
    /// Something arrives.
    Arrival(Arrival),
}

struct Entry {
    at_ms: u64,
    /// What was planned first happens first.
    seq: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_ms, self.seq).cmp(&(other.at_ms, other.seq))
    }
}

#[derive(Default)]
struct Plans {
    seq: u64,
    /// How far the machines' clocks are from where they began, beside the time that has passed.
    jumped_ms: i64,
    queue: BinaryHeap<Reverse<Entry>>,
}

/// The one clock of a simulation, and everything that is planned.
#[derive(Clone, Default)]
pub(crate) struct Time(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Asked by everybody who waits, whenever anything happens.
    now_ms: AtomicU64,
    plans: Mutex<Plans>,
}

impl Time {
    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.0.plans.lock().expect("no holder of this lock panics")
    }

    /// Milliseconds since the beginning, which no jump changes.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.now_ms.load(Memory::Relaxed)
    }

    /// Puts the machines' clocks forward or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.plans().jumped_ms += by_ms;
    }

    /// Plans something.
    pub(crate) fn plan(&self, in_ms: u64, due: Due) {
        let mut plans = self.plans();
        let (at_ms, seq) = (self.now_ms() + in_ms, plans.seq);
        plans.seq += 1;
        plans.queue.push(Reverse(Entry { at_ms, seq, due }));
    }

    /// Leaps to the next thing that is due.
    pub(crate) fn next(&self) -> Option<Due> {
        let Reverse(entry) = self.plans().queue.pop()?;
        self.0.now_ms.store(entry.at_ms, Memory::Relaxed);
        Some(entry.due)
    }

    /// When the next thing is due.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.plans().queue.peek().map(|Reverse(entry)| entry.at_ms)
    }

    /// Waits in virtual time.
    pub(crate) async fn sleep_ms(&self, ms: u64) {
        let (mut until, time) = (None, self.clone());
        poll_fn(move |context: &mut Context<'_>| {
            let now = time.now_ms();
            match until {
                Some(until) if now >= until => Poll::Ready(()),
                Some(_) => Poll::Pending,
                None => {
                    until = Some(now + ms);
                    time.plan(ms, Due::Wake(context.waker().clone()));
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

#[async_trait]
impl Clock for Time {
    fn now(&self) -> Timestamp {
        let jumped_ms = self.plans().jumped_ms;
        let ms = i64::try_from(self.now_ms()).unwrap_or(i64::MAX).saturating_add(jumped_ms);
        Timestamp::from_second(EPOCH_S).expect("a second within jiff's range")
            + SignedDuration::from_millis(ms)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }

    async fn sleep(&self, duration: Duration) {
        self.sleep_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).await;
    }
}

/// Whether a process has something to do.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    /// A flag that is up, so that the process is looked at once.
    pub(crate) fn up() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    /// Takes the flag down; tells whether it was up.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Memory::Relaxed)
    }

    /// Puts it up again.
    pub(crate) fn raise(&self) {
        self.0.store(true, Memory::Relaxed);
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }
}
