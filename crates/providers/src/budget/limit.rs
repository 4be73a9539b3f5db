//! One limit, and who has drawn on it.
//!
//! A vendor counts when a request arrives, and we when it leaves: what left in good order may arrive closer together. So
//! a budget is smaller than its limit by what can come of [`TRAVEL`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgrotate_core::env::Clock;
use tokio::sync::OwnedMutexGuard;

/// By how much the journeys of two requests may differ, their waits for a processor included.
const TRAVEL: Duration = Duration::from_secs(1);
/// A clock may count in milliseconds only.
const TICK: Duration = Duration::from_millis(1);
/// From how many keys on those are forgotten that have nothing drawn any more.
const MANY: usize = 64;

/// What a vendor allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many in any stretch of time of this length.
    Window {
        /// How many.
        number: u32,
        /// In which time.
        within: Duration,
    },
    /// So many at once, and so many a second in the long run.
    Bucket {
        /// How many at once.
        holds: u32,
        /// How many come back in a second.
        a_second: u32,
    },
}

/// What has been drawn for one key.
enum Drawn {
    /// When, and how much, the earliest first.
    Window { shares: VecDeque<(Duration, u32)>, sum: u32 },
    /// When the bucket will be full again.
    Bucket { full_at: Duration },
}

impl Drawn {
    fn nothing(limit: Limit) -> Self {
        match limit {
            Limit::Window { .. } => Self::Window { shares: VecDeque::new(), sum: 0 },
            Limit::Bucket { .. } => Self::Bucket { full_at: Duration::ZERO },
        }
    }

    /// How long until so many more can be drawn; nothing if they can be now.
    fn wait(&mut self, limit: Limit, now: Duration, more: u32) -> Option<Duration> {
        match (limit, self) {
            (Limit::Window { number, within }, Self::Window { shares, sum }) => {
                let within = within + TRAVEL;
                while let Some((_, share)) = shares.pop_front_if(|(at, _)| *at + within <= now) {
                    *sum -= share;
                }
                let (mut left, mut until) = (*sum, None);
                let mut oldest = shares.iter();
                while left + more > number
                    && let Some((at, share)) = oldest.next()
                {
                    (left, until) = (left - share, Some(*at + within));
                }
                until.map(|until| until - now)
            }
            (Limit::Bucket { holds, a_second }, Self::Bucket { full_at }) => {
                let room = each(a_second) * holds - TRAVEL;
                let full_at = (*full_at).max(now) + each(a_second) * more;
                full_at.checked_sub(now + room).filter(|wait| !wait.is_zero())
            }
            _ => None,
        }
    }

    fn draw(&mut self, limit: Limit, now: Duration, more: u32) {
        match (limit, self) {
            (_, Self::Window { shares, sum }) => {
                *sum += more;
                shares.push_back((now, more));
            }
            (Limit::Bucket { a_second, .. }, Self::Bucket { full_at }) => {
                *full_at = (*full_at).max(now) + each(a_second) * more;
            }
            _ => {}
        }
    }

    /// Whether it is as if nothing had ever been drawn.
    fn is_nothing(&self, limit: Limit, now: Duration) -> bool {
        match (limit, self) {
            (Limit::Window { within, .. }, Self::Window { shares, .. }) => {
                shares.back().is_none_or(|(at, _)| *at + within + TRAVEL <= now)
            }
            (_, Self::Bucket { full_at }) => *full_at <= now,
            _ => true,
        }
    }
}

/// How long one share takes to come back.
fn each(a_second: u32) -> Duration {
    Duration::from_secs(1) / a_second
}

type Key = Arc<tokio::sync::Mutex<Drawn>>;

/// The keys of one limit: subscriptions, vaults, hosts.
struct Keys {
    drawn: HashMap<String, Key>,
    /// From how many on those with nothing drawn are looked for.
    many: usize,
}

/// A limit, for each key by itself.
pub(super) struct Budget {
    limit: Limit,
    keys: Mutex<Keys>,
}

/// The right to draw so many shares at once, as long as it is held: nobody else can draw meanwhile.
pub(super) struct Turn {
    drawn: OwnedMutexGuard<Drawn>,
    limit: Limit,
    shares: u32,
}

impl Turn {
    /// Draws them.
    pub(super) fn take(mut self, clock: &dyn Clock) {
        let Self { limit, shares, .. } = self;
        self.drawn.draw(limit, clock.uptime(), shares);
    }
}

impl Budget {
    pub(super) fn new(limit: Limit) -> Self {
        Self { limit, keys: Mutex::new(Keys { drawn: HashMap::new(), many: MANY }) }
    }

    /// Waits until there is room for so many shares. One waits for time to pass, and the others for it, in the order in
    /// which they came.
    pub(super) async fn turn(&self, clock: &dyn Clock, key: &str, shares: u32) -> Turn {
        let mut drawn = self.of(key, clock.uptime()).lock_owned().await;
        while let Some(wait) = drawn.wait(self.limit, clock.uptime(), shares) {
            clock.sleep(wait + TICK).await;
        }
        Turn { drawn, limit: self.limit, shares }
    }

    fn of(&self, key: &str, now: Duration) -> Key {
        let mut keys = self.keys.lock().expect("no holder of this lock panics");
        if let Some(drawn) = keys.drawn.get(key) {
            return Arc::clone(drawn);
        }
        if keys.drawn.len() >= keys.many {
            // Nobody else can come by a key while the keys are locked.
            keys.drawn.retain(|_, drawn| {
                Arc::strong_count(drawn) > 1
                    || drawn.try_lock().is_ok_and(|drawn| !drawn.is_nothing(self.limit, now))
            });
            keys.many = MANY.max(2 * keys.drawn.len());
        }
        let drawn = Arc::new(tokio::sync::Mutex::new(Drawn::nothing(self.limit)));
        keys.drawn.insert(key.to_owned(), Arc::clone(&drawn));
        drawn
    }

    #[cfg(test)]
    pub(super) fn number_of_keys(&self) -> usize {
        self.keys.lock().unwrap().drawn.len()
    }
}
