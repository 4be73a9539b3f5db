//! Sees that a consumer has taken up the new password: it has a session that began after the change.

use std::time::Duration;

use jiff::Timestamp;

use crate::census::{Reconnect, Sample, Session, Sessions};
use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::provider::Census;
use crate::rotation::{Rotation, gone};
use crate::run::RunState;
use crate::secret::Secret;

/// The wait between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a consumer that need not be logged in may take to show itself.
const GRACE: Duration = Duration::from_secs(3);

/// Waits until the consumer has a new session, in bounded time. Sessions from before the change prove nothing.
pub(crate) async fn perform(rotation: &Rotation, id: &str, run: &RunState) -> Result<Outcome> {
    let bound = rotation.consumers.iter().find(|bound| bound.consumer.id() == id).ok_or_else(|| gone(id))?;
    let (Some(census), Some(sessions)) = (&rotation.around.census, &bound.sessions) else {
        return Err(gone(&format!("the sessions of {id}")));
    };
    let keys = rotation.keys(run).await?;
    let watch =
        Watch { rotation, census: &**census, sessions, password: &keys.next, changed: changed_at(run) };
    watch.until_new(id).await
}

/// From when on a session has logged in with the new password. Where the server did not tell its time, our own has to do.
fn changed_at(run: &RunState) -> Timestamp {
    let server = run.outcome_of("prove").and_then(|outcome| outcome.server_time);
    server.or_else(|| run.proven_at()).unwrap_or(run.started_at)
}

struct Watch<'a> {
    rotation: &'a Rotation,
    census: &'a dyn Census,
    sessions: &'a Sessions,
    password: &'a Secret,
    changed: Timestamp,
}

impl Watch<'_> {
    async fn until_new(&self, id: &str) -> Result<Outcome> {
        let clock = &self.rotation.clock;
        let (began, patience) = (clock.uptime(), self.rotation.around.times.adoption);
        let mut ended = 0;
        loop {
            let sample = self.census.take(self.password, Duration::ZERO).await?;
            let (new, old) = self.own(&sample);
            if self.sessions.reconnect == Reconnect::Terminate && !old.is_empty() {
                ended += self.census.end(self.password, &old).await?;
            } else if let Some(first) = new.iter().map(|session| session.since).min() {
                return Ok(adopted(first, &new, &old, ended));
            }
            let waited = clock.uptime().saturating_sub(began);
            if self.sessions.optional && new.is_empty() && old.is_empty() && waited >= GRACE.min(patience) {
                return Ok(Outcome::unseen("it is not logged in, and need not be"));
            }
            if waited >= patience {
                return Err(self.unproven(id, &old));
            }
            clock.sleep(PAUSE).await;
        }
    }

    /// The consumer's sessions from after the change and from before it.
    fn own(&self, sample: &Sample) -> (Vec<Session>, Vec<Session>) {
        let own = sample.sessions.iter().filter(|session| self.sessions.has(session)).cloned();
        own.partition(|session| session.since > self.changed)
    }

    fn unproven(&self, id: &str, old: &[Session]) -> Error {
        let patience = self.rotation.around.times.adoption.as_secs();
        let error = Error::new(Kind::BadState, format!("see {id} log in with the new password"));
        let error = match old {
            [] => error
                .because(format!("no session of it appeared within {patience} s ({})", self.sessions))
                .hint("does it run, and does `sessions` in the configuration describe it?"),
            _ => error
                .because(format!("it goes on with what logged in before the change: {}", names(old)))
                .hint("whether it has the new password is unproven until it logs in again: restart it, or let the server \
                       end its old sessions (sessions = { …, reconnect = \"terminate\" })"),
        };
        error.hint("then `pgrotate resume` looks again; the new password itself is proven and in the vault of record")
    }
}

fn adopted(first: Timestamp, new: &[Session], old: &[Session], ended: usize) -> Outcome {
    let outcome = Outcome::confirmed().note(format!(
        "logged in with the new password at {first:.3}, by the server's clock; {} now",
        count(new.len())
    ));
    let outcome = match ended {
        0 => outcome,
        ended => outcome.note(format!("the server ended {} from before the change", count(ended))),
    };
    match old {
        [] => outcome,
        _ => {
            outcome.note(format!("still there from before the change, which proves nothing: {}", names(old)))
        }
    }
}

fn count(sessions: usize) -> String {
    if sessions == 1 { "one session".to_owned() } else { format!("{sessions} sessions") }
}

fn names(sessions: &[Session]) -> String {
    let one =
        |session: &Session| format!("{} (pid {}, since {:.0})", session.origin(), session.pid, session.since);
    sessions.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
