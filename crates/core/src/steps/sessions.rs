//! Sees that a consumer has taken up the new password: it has a session that began after the change.

use std::time::Duration;

use jiff::Timestamp;

use crate::census::{Reconnect, Sample, Session, Sessions};
use crate::error::{Error, Kind, Result};
use crate::journal::Outcome;
use crate::keyring::Keys;
use crate::provider::Census;
use crate::rotation::{Rotation, gone};
use crate::run::RunState;
use crate::secret::Secret;

/// The wait between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits until the consumer has a new session, in bounded time. Sessions from before the change prove nothing.
pub(crate) async fn perform(rotation: &Rotation, id: &str, run: &RunState) -> Result<Outcome> {
    let bound = rotation.consumers.iter().find(|bound| bound.consumer.id() == id).ok_or_else(|| gone(id))?;
    let keys = rotation.keys(run).await?;
    let (Some(census), Some(sessions)) = (rotation.role(keys.seat).census, &bound.sessions) else {
        return Err(gone(&format!("the sessions of {id}")));
    };
    let watch = Watch {
        rotation,
        census,
        sessions,
        password: &keys.next,
        changed: changed_at(run),
        left: Left::of(rotation, &keys),
    };
    watch.until_new(id).await
}

/// From when on a session has logged in with the new password. Where the server did not tell its time, our own has to do.
fn changed_at(run: &RunState) -> Timestamp {
    let server = run.outcome_of("prove").and_then(|outcome| outcome.server_time);
    server.or_else(|| run.proven_at()).unwrap_or(run.started_at)
}

/// The role that consumers leave, where two take turns: its sessions are old ones, whenever they began.
struct Left<'a> {
    census: &'a dyn Census,
    /// It has the first of these until it is retired, and then the second.
    passwords: Vec<&'a Secret>,
}

impl<'a> Left<'a> {
    fn of(rotation: &'a Rotation, keys: &'a Keys) -> Option<Self> {
        let census = rotation.twin.as_ref().and_then(|_| rotation.role(keys.seat.other()).census)?;
        Some(Self { census, passwords: keys.previous.iter().chain(&keys.idle).collect() })
    }

    /// Who is still there, and the password with which that was seen.
    async fn look(&self) -> Result<(Sample, &'a Secret)> {
        let mut refused = Error::new(Kind::Conflict, "see who is still logged in as the role that was live")
            .because("the vault of record has no password of it any more");
        for password in &self.passwords {
            match self.census.take(password, Duration::ZERO).await {
                Ok(sample) => return Ok((sample, password)),
                Err(error) if error.kind() == Kind::Refused => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }
}

/// A consumer's sessions.
struct Seen<'a> {
    /// From after the change.
    new: Vec<Session>,
    /// From before it.
    old: Vec<Session>,
    /// Where the old ones are, and the password for it.
    place: (&'a dyn Census, &'a Secret),
}

struct Watch<'a> {
    rotation: &'a Rotation,
    census: &'a dyn Census,
    sessions: &'a Sessions,
    password: &'a Secret,
    changed: Timestamp,
    left: Option<Left<'a>>,
}

impl Watch<'_> {
    async fn until_new(&self, id: &str) -> Result<Outcome> {
        let clock = &self.rotation.clock;
        let (began, patience) = (clock.uptime(), self.rotation.around.times.adoption);
        let mut ended = 0;
        loop {
            let Seen { new, old, place: (census, password) } = self.look().await?;
            if self.sessions.reconnect == Reconnect::Terminate && !old.is_empty() {
                ended += census.end(password, &old).await?;
            } else if let Some(first) = new.iter().map(|session| session.since).min()
                && self.may_leave(&old)
            {
                return Ok(adopted(first, &new, &old, ended));
            }
            let waited = clock.uptime().saturating_sub(began);
            if self.sessions.optional && new.is_empty() && old.is_empty() {
                return Ok(Outcome::unseen("it is not logged in, and need not be"));
            }
            if waited >= patience {
                return Err(self.unproven(id, &old));
            }
            clock.sleep(PAUSE).await;
        }
    }

    /// Whether old sessions may stay. Those of a role that is about to be retired could not be replaced any more, while
    /// until then nobody is hurt by waiting.
    fn may_leave(&self, old: &[Session]) -> bool {
        self.left.is_none() || old.is_empty()
    }

    async fn look(&self) -> Result<Seen<'_>> {
        let own = |sample: &Sample| -> Vec<Session> {
            sample.sessions.iter().filter(|session| self.sessions.has(session)).cloned().collect()
        };
        let sample = self.census.take(self.password, Duration::ZERO).await?;
        match &self.left {
            None => {
                let (new, old) = own(&sample).into_iter().partition(|session| session.since > self.changed);
                Ok(Seen { new, old, place: (self.census, self.password) })
            }
            Some(left) => {
                let (before, password) = left.look().await?;
                Ok(Seen { new: own(&sample), old: own(&before), place: (left.census, password) })
            }
        }
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
