//! Work that is held still, by a clock that only a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use jiff::Timestamp;

use super::*;
use crate::env::testing::SeededEntropy;
use crate::ids::{Environment, RunId};
use crate::journal::{Record, RunHeading};
use crate::lease::Generation;
use crate::observer::Unobserved;

/// A clock whose sleepers are woken by looking at them.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn move_to(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.uptime() + duration;
        poll_fn(|_| if self.uptime() < until { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// Counts how often it is looked at, and never ends.
struct Looks(AtomicUsize);

#[async_trait]
impl World for Looks {
    fn plan(&self) -> Plan {
        unreachable!("nobody asks for a plan here")
    }

    async fn perform(&self, _: &Step, _: &RunState) -> Result<Outcome> {
        unreachable!("nothing is performed here")
    }

    async fn discard(&self, _: &RunState) -> Result<()> {
        unreachable!("nothing is discarded here")
    }
}

#[test]
fn a_step_is_not_looked_at_while_its_lease_may_have_run_out() {
    let (clock, looks) = (Hand::default(), Looks(AtomicUsize::new(0)));
    let lease =
        Lease { environment: Environment::from("test"), generation: Generation(1), expires_at: clock.now() };
    let held = Held::new(lease, Duration::ZERO);
    let guarded = Guarded { world: &looks, held: &held, clock: &clock };
    let mut work = pin!(guarded.while_it_holds(poll_fn(|_| {
        looks.0.fetch_add(1, Ordering::Relaxed);
        Poll::<()>::Pending
    })));
    let mut look = |at: u64| {
        clock.move_to(at);
        assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        looks.0.load(Ordering::Relaxed)
    };
    let term = TERM.as_secs();
    assert_eq!(look(0), 1);
    assert_eq!(look(term - 1), 2);
    // The process was stopped until the lease had run out, and nobody knows who has the environment now.
    assert_eq!(look(term), 2);
    assert_eq!(look(3 * term), 2);
    // It was renewed: nobody had taken it.
    held.renewed(Duration::from_secs(3 * term));
    assert_eq!(look(3 * term + 1), 3);
    assert_eq!(look(4 * term), 3, "and it runs out again");
}

/// Answers to renewals in their order, and when they were asked for; the rest are granted.
#[derive(Default)]
struct Renewals {
    clock: Arc<Hand>,
    refused: Mutex<Vec<Option<Kind>>>,
    asked: Mutex<Vec<u64>>,
    given_back: AtomicUsize,
}

#[async_trait]
impl Leases for Arc<Renewals> {
    async fn acquire(&self, _: &Environment) -> Result<Lease> {
        unreachable!("nobody takes a lease here")
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease> {
        self.asked.lock().unwrap().push(self.clock.uptime().as_secs());
        let refused = self.refused.lock().unwrap().pop().flatten();
        refused.map_or_else(|| Ok(lease.clone()), |kind| Err(Error::new(kind, "renew")))
    }

    async fn release(&self, _: &Lease) -> Result<()> {
        self.given_back.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Journal for Arc<Renewals> {
    async fn append(&self, _: &Lease, _: RunId, _: &[Record]) -> Result<()> {
        unreachable!("nothing is written here")
    }

    async fn read(&self, _: RunId) -> Result<Vec<Record>> {
        unreachable!("nothing is read here")
    }

    async fn runs(&self, _: Option<&Environment>) -> Result<Vec<RunHeading>> {
        unreachable!("nothing is read here")
    }
}

/// Looks once a second at work that never ends, under a lease of which the renewals are refused like this. Gives the
/// seconds in which a renewal was asked for, and in which the lease certainly held; and what ended it.
fn hold(refused: &[Option<Kind>], seconds: u64) -> (Vec<u64>, Vec<u64>, Option<Error>) {
    let store = Arc::new(Renewals {
        refused: Mutex::new(refused.iter().rev().copied().collect()),
        ..Renewals::default()
    });
    let clock = Arc::clone(&store.clock);
    let (entropy, observer) = (Arc::new(SeededEntropy::new(1)), Arc::new(Unobserved));
    let own: Arc<dyn Clock> = Arc::clone(&store.clock) as _;
    let engine = Engine::new(Arc::clone(&store), own, entropy, observer, Arc::default());
    let (environment, expires_at) = (Environment::from("test"), clock.now());
    let held = Held::new(Lease { environment, generation: Generation(1), expires_at }, Duration::ZERO);
    let (mut holds, mut ended) = (Vec::new(), None);
    {
        let mut work = pin!(engine.holding(&held, std::future::pending::<Result<(), Trouble>>()));
        for second in 0..=seconds {
            clock.move_to(second);
            match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending if held.holds_at(clock.uptime()) => holds.push(second),
                Poll::Pending => {}
                Poll::Ready(Err(Trouble::Before(error))) => {
                    ended = Some(error);
                    break;
                }
                Poll::Ready(other) => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(store.given_back.load(Ordering::Relaxed), usize::from(ended.is_some()));
    let asked = store.asked.lock().unwrap().clone();
    (asked, holds, ended)
}

#[test]
fn a_lease_is_renewed_three_times_in_its_term_and_holds_all_the_while() {
    let third = TERM.as_secs() / 3;
    let (asked, holds, ended) = hold(&[], 5 * third);
    assert_eq!(asked, [third, 2 * third, 3 * third, 4 * third, 5 * third]);
    assert_eq!((holds.len() as u64, ended), (5 * third + 1, None));
}

#[test]
fn a_renewal_that_fails_is_tried_again_at_once_and_ends_nothing() {
    let third = TERM.as_secs() / 3;
    let (asked, _, ended) = hold(&[None, Some(Kind::TimedOut), Some(Kind::BadState)], 3 * third + 2);
    assert_eq!(asked, [third, 2 * third, 2 * third + 1, 2 * third + 2, 3 * third + 2]);
    assert_eq!(ended, None);
}

#[test]
fn who_has_lost_the_lease_touches_nothing_any_more() {
    let third = TERM.as_secs() / 3;
    let (asked, _, ended) = hold(&[None, Some(Kind::Fenced)], TERM.as_secs());
    assert_eq!(asked, [third, 2 * third]);
    assert_eq!(ended.unwrap().kind(), Kind::Fenced);
}
