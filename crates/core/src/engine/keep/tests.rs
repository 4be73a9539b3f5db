//! Work that is held still, by a clock that only a test moves.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use jiff::Timestamp;

use super::*;
use crate::ids::Environment;
use crate::lease::Generation;

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
