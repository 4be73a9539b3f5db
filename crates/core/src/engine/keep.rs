//! Keeps a lease alive while work is done under it, and holds the work still when the lease may have run out.
//!
//! A process can be stopped for longer than its lease holds, and another one take the environment over meanwhile.
//! The journal refuses what the late one then writes. But a step in hand is past the journal, and would send its next
//! request without asking anybody. So the work is looked at only while the lease certainly holds: whoever wakes up
//! late first renews it, or finds that it is gone and touches nothing any more.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use crate::engine::{Engine, Trouble};
use crate::error::{Error, Kind, Result};
use crate::journal::{Journal, fenced};
use crate::lease::{Lease, Leases, TERM};

/// The pause before a lease that could not be renewed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A lease, and until when it certainly holds, counted as [`uptime`](crate::env::Clock::uptime).
pub(crate) struct Held {
    pub(crate) lease: Lease,
    until: Mutex<Duration>,
}

impl Held {
    /// A lease that was asked for at this time of the uptime.
    pub(crate) fn new(lease: Lease, since: Duration) -> Self {
        Self { lease, until: Mutex::new(since + TERM) }
    }

    fn renewed(&self, since: Duration) {
        *self.until.lock().expect("no holder of this lock panics") = since + TERM;
    }

    fn until(&self) -> Duration {
        *self.until.lock().expect("no holder of this lock panics")
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
        let result = poll_fn(|context| {
            if let Poll::Ready(error) = keeping.as_mut().poll(context) {
                return Poll::Ready(Err(Trouble::Before(error)));
            }
            if self.clock.uptime() >= held.until() {
                // Renewing it goes on, and looks here again.
                return Poll::Pending;
            }
            work.as_mut().poll(context)
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
