//! Proves that the new password is in use everywhere and that the old one is dead.

use futures::future::join_all;

use crate::error::{Error, Kind, Result};
use crate::ids::CopyId;
use crate::journal::{Effect, Outcome};
use crate::keyring::Keys;
use crate::plan::Step;
use crate::provider::{Content, Evidence, Login, Verifier};
use crate::rotation::{Role, Rotation, gone};
use crate::run::RunState;
use crate::value::Reading;

/// Logs in with the new password on a fresh connection, and sees the old one refused.
pub(crate) async fn login(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let (new, old) = (rotation.role(keys.seat), rotation.role(rotation.other(keys.seat)));
    both(new.verifier, old.verifier, format!("prove the login as {}", new.target), &keys).await
}

/// The same from another place: a proxy, a second server behind the name, or a rule for some addresses may answer there.
pub(crate) async fn from(rotation: &Rotation, vantage: &str, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let (new, old) = (rotation.role(keys.seat), rotation.role(rotation.other(keys.seat)));
    let named = |role: Role<'_>| {
        let own = role.vantages.iter().position(|own| own.name() == vantage);
        own.ok_or_else(|| gone(vantage))
    };
    let operation = format!("prove the login as {} from {vantage}", new.target);
    both(&*new.vantages[named(new)?], &*old.vantages[named(old)?], operation, &keys).await
}

/// Sees the new password refused by the servers of the other environments: one that takes it is this environment's
/// own server under another name.
pub(crate) async fn elsewhere(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let next = &keys.next;
    let tries = rotation.role(keys.seat).elsewhere.iter();
    let tries = join_all(tries.map(|(other, server)| async move { (other, server.login(next).await) })).await;
    let (mut refused, mut outcome) = (Vec::new(), Outcome::confirmed());
    for (other, login) in tries {
        match login {
            Ok(Login::Refused) => refused.push(other.as_str()),
            Ok(Login::Accepted) => {
                return Err(Error::new(Kind::Conflict, format!("see the new password refused in {other}"))
                    .because(format!("it logs in there: {other} and {} have one server", rotation.environment))
                    .hint("correct [database] in the configuration; the environment that was meant still has its old password"));
            }
            Err(error) => {
                outcome.effect = Effect::Unseen;
                outcome = outcome.note(format!("{other} could not be asked: {error}"));
            }
        }
    }
    Ok(if refused.is_empty() { outcome } else { outcome.note(format!("refused in {}", refused.join(", "))) })
}

/// Both passwords, each with its role: they are one unless two take turns.
async fn both<V: Verifier + ?Sized>(new: &V, old: &V, operation: String, keys: &Keys) -> Result<Outcome> {
    let refuse = |why: &str| Error::new(Kind::Refused, operation.as_str()).because(why);
    if new.login(&keys.next).await? == Login::Refused {
        return Err(
            refuse("the server refuses the new password").hint("somebody may have changed it after this run")
        );
    }
    let Some(previous) = &keys.previous else {
        return Ok(Outcome::unseen(
            "the new password logs in; the old one is no longer known, so nobody can say whether it is refused",
        ));
    };
    match old.login(previous).await? {
        Login::Refused => Ok(Outcome::confirmed().note("the new password logs in, the old one is refused")),
        Login::Accepted if *previous == keys.next => Err(refuse("old and new password are the same")),
        Login::Accepted => Err(refuse("the server still accepts the old password")
            .hint("does the server have a second way in, a proxy or a `trust` line, for this role?")),
    }
}

/// Reads a copy back. One that was found different is published once more on the next try: the
/// sink writes nothing if a stale read was all there was to it.
pub(crate) async fn copy(rotation: &Rotation, id: &CopyId, step: &Step, run: &RunState) -> Result<Outcome> {
    let copy = rotation.copy(id)?;
    if !copy.sink.capabilities().read_back {
        return Ok(Outcome::unseen("this store never gives a value back"));
    }
    let found_different = |error: &Error| error.kind() == Kind::Conflict;
    if run.step(&step.id).error.as_ref().is_some_and(found_different) {
        super::publish::perform(rotation, id, run).await?;
    }
    let keys = rotation.keys(run).await?;
    let seen = copy.sink.inspect().await?;
    let refuse = |why: String| {
        Error::new(Kind::Conflict, format!("read {id} back"))
            .because(why)
            .hint("somebody else may be writing it; find out who, then `pgrotate resume` publishes it again")
            .later(None)
    };
    let user = &rotation.role(keys.seat).target.user;
    match seen.content {
        Content::Value(value) => match copy.template.read(&value) {
            (Reading::Password(_), Some(url)) if url.target().user != *user => {
                Err(refuse(format!("it names the role {:?} and not {user:?}", url.target().user)))
            }
            (Reading::Password(password), _) if password == keys.next => {
                Ok(Outcome::confirmed().version(seen.version))
            }
            (Reading::Password(_), _) => {
                Err(refuse("it holds another password than the one that was published".into()))
            }
            (Reading::Foreign(why), _) => Err(refuse(why)),
        },
        Content::Reference(to) => Ok(reference(rotation, &to)),
        Content::Unseen => Ok(Outcome::unseen("its value can't be read from here")),
        Content::Absent => Err(refuse("it is gone".into())),
    }
}

/// The copy that another one points at is read back by itself, if it is one.
fn reference(rotation: &Rotation, to: &str) -> Outcome {
    if rotation.has_copy_at(to) {
        return Outcome::confirmed().note(format!("it points at {to}"));
    }
    Outcome::unseen(format!("it points at {to}, which is not a copy of this run"))
}

/// Lets one verification speak.
pub(crate) async fn other(rotation: &Rotation, id: &str, run: &RunState) -> Result<Outcome> {
    let own = rotation.verifications.iter().find(|own| own.id() == id).ok_or_else(|| gone(id))?;
    let keys = rotation.keys(run).await?;
    let url = rotation.url.render(rotation.role(keys.seat).target, &keys.next);
    let since = run.in_use_since().unwrap_or(run.started_at);
    let changing_since = run.changing_since().unwrap_or(since);
    let (password, previous) = (&keys.next, keys.previous.as_ref());
    own.verify(&Evidence { run: run.run, password, previous, url: &url, changing_since, since }).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::testing::{ManualClock, SeededEntropy};
    use crate::env::{Clock, Entropy};
    use crate::memory;

    #[test]
    fn a_reference_proves_what_it_points_at_and_nothing_else() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let rotation = memory::rotation(&memory::world("x"), &clock, &entropy);
        assert_eq!(reference(&rotation, "memory:url").effect, Effect::Confirmed);
        let elsewhere = reference(&rotation, "memory:elsewhere");
        assert_eq!(elsewhere.effect, Effect::Unseen);
        assert!(elsewhere.notes[0].contains("memory:elsewhere"));
    }
}
