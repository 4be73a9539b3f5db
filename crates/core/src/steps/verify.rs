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
    use std::collections::BTreeMap;

    use async_trait::async_trait;
    use futures::FutureExt;

    use super::super::testing::{begun, begun_with, rotation, tried};
    use super::*;
    use crate::keyring::Keys;
    use crate::memory::{self, Memory};
    use crate::plan::Action;
    use crate::provider::Vantage;
    use crate::secret::Secret;

    #[test]
    fn a_reference_proves_what_it_points_at_and_nothing_else() {
        let rotation = rotation(&memory::world("x"));
        assert_eq!(reference(&rotation, "memory:url").effect, Effect::Confirmed);
        let elsewhere = reference(&rotation, "memory:elsewhere");
        assert_eq!(elsewhere.effect, Effect::Unseen);
        assert!(elsewhere.notes[0].contains("memory:elsewhere"));
    }

    /// A run that brings the password `new`, and knows this one from before it.
    fn run(rotation: &Rotation, previous: Option<&str>) -> RunState {
        with_keys(begun(rotation.plan()), rotation, previous)
    }

    fn with_keys(run: RunState, rotation: &Rotation, previous: Option<&str>) -> RunState {
        let keys = Keys::promoted("new", previous);
        rotation.keyring.keep(run.run, keys);
        run
    }

    /// A server under its name, with the passwords that it accepts; with none it can't be reached.
    struct Server(&'static str, Option<&'static [&'static str]>);

    #[async_trait]
    impl Verifier for Server {
        async fn login(&self, secret: &Secret) -> Result<Login> {
            let accepted = self.1.ok_or_else(|| Error::new(Kind::TimedOut, "reach it"))?;
            Ok(if accepted.contains(&secret.expose()) { Login::Accepted } else { Login::Refused })
        }
    }

    impl Vantage for Server {
        fn name(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn the_new_password_has_to_work_and_the_old_one_must_not() {
        let prove = |accepted: &'static [&'static str], previous| {
            let mut rotation = rotation(&memory::world("x"));
            rotation.verifier = Box::new(Server("here", Some(accepted)));
            let run = run(&rotation, previous);
            login(&rotation, &run).now_or_never().unwrap()
        };
        assert_eq!(prove(&["new"], Some("old")).unwrap().effect, Effect::Confirmed);
        let why = |accepted, previous| {
            let error = prove(accepted, previous).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            error.causes()[0].clone()
        };
        assert_eq!(why(&["old"], Some("old")), "the server refuses the new password");
        assert_eq!(why(&["new", "old"], Some("old")), "the server still accepts the old password");
        assert_eq!(why(&["new"], Some("new")), "old and new password are the same");
        assert_eq!(prove(&["new"], None).unwrap().effect, Effect::Unseen, "there is no old one to try");
    }

    #[test]
    fn each_vantage_proves_what_is_seen_from_there() {
        let mut rotation = rotation(&memory::world("x"));
        rotation.around.vantages =
            vec![Box::new(Server("proxy", Some(&["old"]))), Box::new(Server("office", Some(&["new"])))];
        let run = run(&rotation, Some("old"));
        let prove = |vantage| from(&rotation, vantage, &run).now_or_never().unwrap();
        assert_eq!(prove("office").unwrap().effect, Effect::Confirmed);
        let error = prove("proxy").unwrap_err();
        assert!(error.kind() == Kind::Refused && error.operation().ends_with("from proxy"), "{error}");
        assert_eq!(
            prove("home").unwrap_err().kind(),
            Kind::Config,
            "it is not in the configuration any more"
        );
    }

    #[test]
    fn a_server_of_another_environment_that_takes_the_new_password_is_this_one() {
        let prove = |servers: Vec<Server>| {
            let mut rotation = rotation(&memory::world("x"));
            let named = servers.into_iter().map(|own| (own.0.into(), Box::new(own) as Box<dyn Verifier>));
            rotation.around.elsewhere = named.collect();
            let run = run(&rotation, Some("old"));
            elsewhere(&rotation, &run).now_or_never().unwrap()
        };
        let (dev, lost) = (|| Server("dev", Some(&["other"])), || Server("lost", None));
        let outcome = prove(vec![dev()]).unwrap();
        assert_eq!(
            (outcome.effect, &outcome.notes[..]),
            (Effect::Confirmed, &["refused in dev".to_owned()][..])
        );
        let outcome = prove(vec![lost(), dev()]).unwrap();
        assert_eq!(outcome.effect, Effect::Unseen, "who can't be asked proves nothing");
        assert_eq!(outcome.notes, ["lost could not be asked: cannot reach it", "refused in dev"]);
        assert_eq!(prove(vec![lost()]).unwrap().notes.len(), 1);
        let error = prove(vec![dev(), Server("prod", Some(&["new"]))]).unwrap_err();
        assert!(error.causes()[0].contains("prod and test have one server"), "{error}");
    }

    /// What a copy is seen to hold after the run has published it, on a try after this failure.
    fn read_back(world: &Memory, failure: Option<Error>) -> Result<Outcome> {
        let rotation = rotation(world);
        let id = memory::password_copy();
        let run = begun_with(&rotation, &[Action::VerifyCopy { copy: id.clone() }]);
        let (mut run, step) = (with_keys(run.clone(), &rotation, Some("old")), run.plan().steps[0].clone());
        if let Some(error) = failure {
            tried(&mut run, &step.id, Err(error));
        }
        copy(&rotation, &id, &step, &run).now_or_never().unwrap()
    }

    #[test]
    fn a_copy_that_was_found_different_is_published_once_more_and_no_other() {
        let holds = |value: &str| {
            let world = memory::world("old");
            world.state().copies = BTreeMap::from([(memory::password_copy(), vec![value.to_owned()])]);
            world
        };
        assert_eq!(read_back(&holds("new"), None).unwrap().effect, Effect::Confirmed);
        let error = read_back(&holds("other"), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let world = holds("other");
        assert_eq!(read_back(&world, Some(error)).unwrap().effect, Effect::Confirmed);
        assert_eq!(world.state().copies[&memory::password_copy()], ["other", "new"]);
        let world = holds("other");
        let unreachable = Error::new(Kind::TimedOut, "reach it").later(None);
        assert_eq!(read_back(&world, Some(unreachable)).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(world.state().copies[&memory::password_copy()], ["other"], "it is only looked at");
    }
}
