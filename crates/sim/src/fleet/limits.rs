//! The vendors' side: what is documented, counted as they count, and turned away where it is more.
//!
//! Nothing here comes from the budgets that keep to it, so that a mistake is not shared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::requests::{Request, Vendor};

/// How a limit is counted, in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Count {
    /// So many in any stretch of time of this length.
    Window { number: u64, ms: u64 },
    /// A bucket that holds so many, and gets so many back a second.
    Bucket { holds: u64, a_second: u64 },
}

/// A documented limit.
#[derive(Debug)]
struct Limit {
    name: &'static str,
    vendor: Vendor,
    /// What one read and one write cost; nothing, if they don't draw on it.
    read: u64,
    write: u64,
    count: Count,
    /// Whether it is one for all vaults of a subscription, rather than for the request's own place.
    of_subscription: bool,
}

const fn limit(name: &'static str, vendor: Vendor, (read, write): (u64, u64), count: Count) -> Limit {
    Limit { name, vendor, read, write, count, of_subscription: false }
}

/// "Understand how Azure Resource Manager throttles requests", "Azure Key Vault service limits", "Rate limits for the REST
/// API" of GitHub, "AWS Secrets Manager quotas".
static LIMITS: [Limit; 9] = [
    limit("ARM reads", Vendor::ResourceManager, (1, 0), Count::Bucket { holds: 250, a_second: 25 }),
    limit("ARM writes", Vendor::ResourceManager, (0, 1), Count::Bucket { holds: 200, a_second: 10 }),
    limit("a vault", Vendor::KeyVault, (1, 1), Count::Window { number: 4_000, ms: 10_000 }),
    Limit {
        of_subscription: true,
        ..limit("vaults", Vendor::KeyVault, (1, 1), Count::Window { number: 20_000, ms: 10_000 })
    },
    limit("GitHub's points", Vendor::Github, (1, 5), Count::Window { number: 900, ms: 60_000 }),
    limit("GitHub's 80 a minute", Vendor::Github, (0, 1), Count::Window { number: 80, ms: 60_000 }),
    limit("GitHub's 500 an hour", Vendor::Github, (0, 1), Count::Window { number: 500, ms: 3_600_000 }),
    limit("AWS writes", Vendor::Aws, (0, 1), Count::Window { number: 50, ms: 1_000 }),
    limit("AWS reads", Vendor::Aws, (1, 0), Count::Window { number: 10_000, ms: 1_000 }),
];

/// How many requests GitHub takes at the same time.
const GITHUB_AT_ONCE: usize = 100;
/// How often those are looked for whom nobody has asked for a while.
const SOMETIMES: u64 = 4_096;

/// What one limit has counted for one place.
#[derive(Debug, Default)]
struct Counted {
    /// When, and how much; of a window only what still counts.
    recent: VecDeque<(u64, u64)>,
    sum: u64,
    /// A bucket's missing part, in thousandths, at this time.
    missing: u64,
    at_ms: u64,
}

impl Counted {
    /// Takes a request in, or tells how long it has to stay away.
    fn take(&mut self, count: Count, cost: u64, now_ms: u64) -> Result<(), Duration> {
        self.forget(count, now_ms);
        match count {
            Count::Window { number, ms } => {
                if self.sum + cost > number {
                    let oldest = self.recent.front().map_or(now_ms, |(at, _)| *at);
                    return Err(Duration::from_millis(oldest + ms - now_ms));
                }
                self.sum += cost;
                self.recent.push_back((now_ms, cost));
            }
            Count::Bucket { holds, .. } => {
                if self.missing + cost * 1_000 > holds * 1_000 {
                    return Err(Duration::from_secs(1));
                }
                self.missing += cost * 1_000;
            }
        }
        Ok(())
    }

    fn forget(&mut self, count: Count, now_ms: u64) {
        match count {
            Count::Window { ms, .. } => {
                while let Some((_, cost)) = self.recent.pop_front_if(|(at, _)| *at + ms <= now_ms) {
                    self.sum -= cost;
                }
            }
            Count::Bucket { a_second, .. } => {
                self.missing = self.missing.saturating_sub((now_ms - self.at_ms) * a_second);
                self.at_ms = now_ms;
            }
        }
    }

    fn is_nothing(&mut self, count: Count, now_ms: u64) -> bool {
        self.forget(count, now_ms);
        self.sum == 0 && self.missing == 0
    }
}

/// What the vendors have counted.
#[derive(Clone, Debug, Default)]
pub struct Toll {
    /// The requests that were taken, by vendor: those that only read, and the others.
    pub requests: BTreeMap<Vendor, [u64; 2]>,
    /// The requests that were more than a limit allows, by its name.
    pub violations: BTreeMap<&'static str, u64>,
    /// The shortest time in which all that was taken can be, and the limit that wants it.
    pub shortest: Shortest,
}

/// What the limits make of a number of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shortest {
    /// The limit that wants most time; none, if there was no request.
    pub limit: &'static str,
    /// The requests divided by what it allows in the long run.
    pub quotient: Duration,
    /// The same for who uses from the first moment on whatever is allowed: what may come at once costs no time.
    pub possible: Duration,
}

impl Count {
    fn shortest(self, cost: u64, limit: &'static str) -> Shortest {
        let (quotient_ms, possible_ms) = match self {
            Self::Window { number, ms } => (cost * ms / number, cost.div_ceil(number).saturating_sub(1) * ms),
            Self::Bucket { holds, a_second } => {
                (cost * 1_000 / a_second, cost.saturating_sub(holds) * 1_000 / a_second)
            }
        };
        let (quotient, possible) = (Duration::from_millis(quotient_ms), Duration::from_millis(possible_ms));
        Shortest { limit, quotient, possible }
    }
}

#[derive(Debug, Default)]
struct Inner {
    counted: BTreeMap<(usize, String), Counted>,
    /// What was taken, by limit and place.
    taken: BTreeMap<(usize, String), u64>,
    toll: Toll,
    arrivals: u64,
    at_github: usize,
}

/// The gate through which all requests come.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Inner>);

pub(super) struct Open<'g>(MutexGuard<'g, Inner>);

impl Gate {
    pub(super) fn lock(&self) -> Open<'_> {
        Open(self.0.lock().expect("no holder of this lock panics"))
    }
}

impl Open<'_> {
    /// A request arrives; whoever is turned away is told for how long to stay away.
    pub(super) fn arrives(
        &mut self,
        request: &Request,
        subscription: &str,
        now_ms: u64,
    ) -> Result<(), Duration> {
        let inner = &mut *self.0;
        inner.arrivals += 1;
        if inner.arrivals.is_multiple_of(SOMETIMES) {
            inner.counted.retain(|(number, _), own| !own.is_nothing(LIMITS[*number].count, now_ms));
        }
        if request.vendor == Vendor::Github {
            inner.at_github += 1;
            if inner.at_github > GITHUB_AT_ONCE {
                return Err(inner.violated("GitHub's 100 at once", Duration::from_secs(60)));
            }
        }
        for (number, limit) in LIMITS.iter().enumerate().filter(|(_, own)| own.vendor == request.vendor) {
            let cost = if request.writes { limit.write } else { limit.read };
            if cost == 0 {
                continue;
            }
            let place = if limit.of_subscription { subscription } else { &request.place };
            let key = (number, place.to_owned());
            if let Err(wait) = inner.counted.entry(key.clone()).or_default().take(limit.count, cost, now_ms) {
                return Err(inner.violated(limit.name, wait));
            }
            *inner.taken.entry(key).or_default() += cost;
        }
        inner.toll.requests.entry(request.vendor).or_default()[usize::from(request.writes)] += 1;
        Ok(())
    }

    /// Its answer goes back.
    pub(super) fn answers(&mut self, request: &Request) {
        self.0.at_github -= usize::from(request.vendor == Vendor::Github);
    }

    /// What was counted until now.
    pub(super) fn toll(&self) -> Toll {
        let each = self.0.taken.iter().map(|((number, _), cost)| {
            let Limit { count, name, .. } = &LIMITS[*number];
            count.shortest(*cost, name)
        });
        let shortest = each.max_by_key(|own| (own.possible, own.quotient)).unwrap_or_default();
        Toll { shortest, ..self.0.toll.clone() }
    }
}

impl Inner {
    fn violated(&mut self, limit: &'static str, wait: Duration) -> Duration {
        *self.toll.violations.entry(limit).or_default() += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many requests at these times are taken.
    fn taken(gate: &Gate, request: &Request, times: impl IntoIterator<Item = u64>) -> usize {
        let mut open = gate.lock();
        let taken = |at: &u64| {
            let verdict = open.arrives(request, "sub", *at);
            open.answers(request);
            verdict.is_ok()
        };
        times.into_iter().filter(taken).count()
    }

    #[test]
    fn a_window_slides_and_a_bucket_fills_again() {
        let gate = Gate::default();
        let github = Request { vendor: Vendor::Github, place: "owner".into(), writes: true };
        assert_eq!(taken(&gate, &github, std::iter::repeat_n(59_999, 100)), 80);
        assert_eq!(
            taken(&gate, &github, [60_000, 119_998]),
            0,
            "a new minute by the clock is none of a sliding one"
        );
        assert_eq!(taken(&gate, &github, [119_999]), 1);
        let server = Request { vendor: Vendor::ResourceManager, place: "sub".into(), writes: true };
        assert_eq!(taken(&gate, &server, std::iter::repeat_n(0, 300)), 200);
        assert_eq!(taken(&gate, &server, std::iter::repeat_n(1_000, 300)), 10);
        let toll = gate.lock().toll();
        assert_eq!(toll.requests[&Vendor::Github], [0, 81]);
        assert_eq!(toll.violations, BTreeMap::from([("GitHub's 80 a minute", 22), ("ARM writes", 390)]));
    }

    #[test]
    fn the_shortest_time_is_that_of_the_tightest_limit() {
        let gate = Gate::default();
        let github = Request { vendor: Vendor::Github, place: "owner".into(), writes: true };
        assert_eq!(taken(&gate, &github, (0..501).map(|number| number * 8_000)), 501);
        let Shortest { limit, quotient, possible } = gate.lock().toll().shortest;
        assert_eq!((limit, possible), ("GitHub's 500 an hour", Duration::from_secs(3_600)));
        assert_eq!(quotient, Duration::from_millis(3_607_200));
    }

    #[test]
    fn no_more_than_a_hundred_are_at_github_at_once() {
        let gate = Gate::default();
        let read = Request { vendor: Vendor::Github, place: "owner".into(), writes: false };
        let mut open = gate.lock();
        assert!((0..100).all(|_| open.arrives(&read, "sub", 0).is_ok()));
        assert!(open.arrives(&read, "sub", 0).is_err());
        (0..2).for_each(|_| open.answers(&read));
        assert!(open.arrives(&read, "sub", 0).is_ok());
        assert_eq!(open.toll().violations, BTreeMap::from([("GitHub's 100 at once", 1)]));
    }
}
