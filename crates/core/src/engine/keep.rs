//! Keeps a lease alive while work is done under it, and holds the work still when the lease may have run out.
//!
//! A process can be stopped for longer than its lease holds, and another one take the environment over meanwhile.
//! The journal refuses what the late one then writes. But a step in hand is past the journal, and would send its next
//! request without asking anybody. So a step is looked at only while the lease certainly holds: whoever wakes up
//! late first renews it, or finds that it is gone and touches nothing any more.

#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{Engine, Trouble};
use crate::env::Clock;
use crate::error::{Error, Kind, Result};
use crate::executor::World;
use crate::journal::{Journal, Outcome, fenced};
use crate::lease::{Lease, Leases, TERM};
use crate::plan::{Plan, Step};
use crate::run::RunState;

/// The pause before a lease that could not be renewed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The pause before work that is held still looks whether the lease holds again.
const STILL: Duration = Duration::from_millis(100);

/// A lease, and until when it certainly holds, counted as [`uptime`](Clock::uptime).
pub(super) struct Held {
    pub(super) lease: Lease,
    until: Mutex<Duration>,
}

impl Held {
    /// A lease that was asked for at this time of the uptime.
    pub(super) fn new(lease: Lease, since: Duration) -> Self {
        Self { lease, until: Mutex::new(since + TERM) }
    }

    fn renewed(&self, since: Duration) {
        *self.until.lock().expect("no holder of this lock panics") = since + TERM;
    }

    fn holds_at(&self, uptime: Duration) -> bool {
        uptime < *self.until.lock().expect("no holder of this lock panics")
    }
}

/// A world that is touched only while a lease certainly holds.
pub(super) struct Guarded<'a> {
    pub(super) world: &'a dyn World,
    pub(super) held: &'a Held,
    pub(super) clock: &'a dyn Clock,
}

impl Guarded<'_> {
    /// Does work, and holds it still between any two moments at which the lease may have run out. Whoever keeps the
    /// lease ends all of it when somebody else has the environment.
    async fn while_it_holds<T>(&self, work: impl Future<Output = T>) -> T {
        let (mut work, mut pause) = (pin!(work), None);
        poll_fn(|context| {
            while !self.held.holds_at(self.clock.uptime()) {
                let rest = pause.get_or_insert_with(|| self.clock.sleep(STILL));
                if rest.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                pause = None;
            }
            work.as_mut().poll(context)
        })
        .await
    }
}

#[async_trait]
impl World for Guarded<'_> {
    fn plan(&self) -> Plan {
        self.world.plan()
    }

    async fn perform(&self, step: &Step, run: &RunState) -> Result<Outcome> {
        self.while_it_holds(self.world.perform(step, run)).await
    }

    async fn discard(&self, run: &RunState) -> Result<()> {
        self.while_it_holds(self.world.discard(run)).await
    }
}

impl<S: Journal + Leases> Engine<S> {
    /// Does work while a lease is held, and gives the lease back.
    ///
    /// # Errors
    /// [`Kind::Fenced`] when somebody else has taken the lease; the work is dropped where it stands, and whoever has
    /// the environment now finds in the journal what it had begun.
    pub(super) async fn holding<T>(
        &self,
        held: &Held,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let (mut work, mut keeping) = (pin!(work), pin!(self.keep(held)));
        let result = poll_fn(|context| match keeping.as_mut().poll(context) {
            Poll::Ready(error) => Poll::Ready(Err(Trouble::Before(error))),
            Poll::Pending => work.as_mut().poll(context),
        })
        .await;
        // The work's own result counts; a lease that can't be given back runs out by itself.
        let _ = self.store.release(&held.lease).await;
        result
    }

    /// Renews a lease three times in its term. Ends only when somebody else has taken it.
    async fn keep(&self, held: &Held) -> Error {
        loop {
            self.clock.sleep(TERM / 3).await;
            loop {
                let since = self.clock.uptime();
                match self.store.renew(&held.lease).await {
                    Ok(_) => break held.renewed(since),
                    Err(error) if error.kind() == Kind::Fenced => return fenced(&held.lease.environment),
                    Err(_) => self.clock.sleep(AGAIN).await,
                }
            }
        }
    }
}
