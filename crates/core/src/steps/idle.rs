//! What happens to the role that is not live, where two take turns: it is put to rest behind the change, and gets back
//! what it had if the change is called off.

use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::journal::{Effect, Outcome};
use crate::keyring::Keys;
use crate::plan::{Action, Retirement, Step};
use crate::provider::{Change, Entry, Login};
use crate::rotation::{Role, Rotation, gone};
use crate::run::{Phase, RunState, StepStatus};
use crate::secret::Secret;

/// For so long a change can go on of which nobody waits for the answer: the server is told to give it up after 20 seconds.
const LINGERS: Duration = Duration::from_secs(21);

/// Makes the password with which the role that was live will rest, or finds the one that an earlier try has staged.
pub(crate) async fn stage(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let found = async || Ok(Keys::find_idle(run.run, &rotation.vault.read().await?, |_| true));
    let outcome = |idle: Secret, outcome: Outcome| {
        let fingerprint = Some(rotation.key.fingerprint(&idle));
        rotation.keyring.keep(run.run, Keys { idle: Some(idle), ..Keys::clone(&keys) });
        Outcome { fingerprint, ..outcome }
    };
    // Asked in any case: a try that failed for good may have failed behind its effect.
    if let Some(idle) = found().await? {
        return Ok(outcome(idle, Outcome::already_done()));
    }
    let resting = rotation.role(rotation.other(keys.seat));
    let idle = rotation.policy.generate(&resting.target.user, &*rotation.entropy)?;
    rotation.vault.stage(run.run, &idle).await?;
    // Read back before the server hears of it, as for the password that is used.
    match found().await? {
        Some(stored) if stored == idle => Ok(outcome(idle, Outcome::changed())),
        _ => Err(Error::new(Kind::Corrupt, format!("stage a password in {}", rotation.vault.id()))
            .because("the vault of record does not give back what was stored")
            .hint(
                "the new password is in use and proven; look at the vault of record, then `pgrotate resume`",
            )),
    }
}

/// Takes the role that was live out of use: from now on its password of before is worth nothing.
pub(crate) async fn retire(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let twin = rotation.twin.as_ref().ok_or_else(|| gone("the second role"))?;
    let keys = rotation.keys(run).await?;
    match twin.retirement {
        Retirement::NoLogin => twin.pair.close(keys.seat, &keys.next).await,
        Retirement::Password => rest(rotation.role(keys.seat.other()), run, &keys).await,
    }
}

/// The role gives itself the password that only the vault of record knows.
async fn rest(role: Role<'_>, run: &RunState, keys: &Keys) -> Result<Outcome> {
    let operation = format!("give {} a password to rest with", role.target);
    let lost = |what| Error::new(Kind::Conflict, operation.as_str()).because(what);
    let idle = keys.idle.as_ref().ok_or_else(|| lost("the vault of record does not hold it any more"))?;
    role.authority.settle().await?;
    if role.verifier.login(idle).await? == Login::Accepted {
        return Ok(Outcome::already_done());
    }
    let current = keys
        .previous
        .as_ref()
        .ok_or_else(|| lost("the vault of record does not hold the password that works now"))?;
    role.authority.install(&Change { run: run.run, current, next: idle }).await?;
    match role.verifier.login(idle).await? {
        Login::Accepted => Ok(Outcome::changed()
            .note(format!("{} rests with a password that only the vault has", role.target.user))),
        Login::Refused => Err(Error::new(Kind::Refused, operation)
            .because("the server refuses that password, though it was set")
            .hint(
                "all three passwords are in the vault of record; look at the server, then `pgrotate resume`",
            )
            .later(None)),
    }
}

/// Keeps the idle role's password, in place of the one that has been proven dead.
pub(crate) async fn lay_aside(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let keys = rotation.keys(run).await?;
    let state = rotation.vault.read().await?;
    let laid = |secret: &Secret| {
        let mark = run.outcome_of_action(&Action::StageIdle).and_then(|outcome| outcome.fingerprint.clone());
        mark == Some(rotation.key.fingerprint(secret))
    };
    let effect = match &state.previous {
        Some(previous) if laid(&previous.secret) => Effect::AlreadyDone,
        _ => Effect::Changed,
    };
    let idle = match (effect, state.previous, &keys.idle) {
        (Effect::AlreadyDone, Some(previous), _) => previous.secret,
        (_, _, Some(idle)) => idle.clone(),
        _ => {
            return Err(Error::new(
                Kind::Conflict,
                format!("keep the idle role's password in {}", rotation.vault.id()),
            )
            .because("it does not hold it any more")
            .hint(format!(
                "it can be given a new one: pgrotate roles prepare {} --apply",
                rotation.environment
            )));
        }
    };
    rotation.vault.lay_aside(run.run, &idle).await?;
    Ok(Outcome { fingerprint: Some(rotation.key.fingerprint(&idle)), ..Outcome::of(effect) })
}

/// Gives the idle role back what it had, where a run is called off that may have changed it.
pub(crate) async fn restore(rotation: &Rotation, run: &RunState) -> Result<()> {
    let Some(twin) = &rotation.twin else { return Ok(()) };
    // Of a run that is over only what came late is left: its password is in use, or the role has been given back.
    let may_be_changed = run.may_have_happened(|action| *action == Action::Install);
    if run.phase == Phase::Finished || run.past_point_of_no_return() || !may_be_changed {
        return Ok(());
    }
    // Whose process died, or whose answer was lost, may have a statement under way of which no login tells.
    let is_known = |step: &Step| run.status(&step.id) == StepStatus::Done;
    if !run.plan().of_kind("install").all(is_known) {
        rotation.clock.sleep(LINGERS).await;
    }
    let state = rotation.vault.read().await?;
    let live = state.live(rotation.twin_name());
    let role = rotation.role(live.other());
    role.authority.settle().await?;
    match (twin.retirement, state.current) {
        (Retirement::Password, _) => give_back(rotation, role, run, state.previous, &state.pending).await,
        // Whether it is closed no login tells, but closing it twice does no harm.
        (Retirement::NoLogin, Some(current)) => twin.pair.close(live, &current.secret).await.map(drop),
        (Retirement::NoLogin, None) => Err(cannot_give_back(role, "hold the live role's any more")),
    }
}

/// The server is asked what the role has, for the vault of record may show an old state or have dropped the run's
/// password already, up to a last answer that was lost.
async fn give_back(
    rotation: &Rotation,
    role: Role<'_>,
    run: &RunState,
    kept: Option<Entry>,
    pending: &[Entry],
) -> Result<()> {
    let kept = kept.ok_or_else(|| cannot_give_back(role, "hold it any more"))?.secret;
    if role.verifier.login(&kept).await? == Login::Accepted {
        return Ok(());
    }
    let mark = run.outcome_of("stage").and_then(|outcome| outcome.fingerprint.clone());
    let installed = |entry: &&Entry| {
        entry.run == Some(run.run) && mark.as_ref() == Some(&rotation.key.fingerprint(&entry.secret))
    };
    let current = pending.iter().find(installed).ok_or_else(|| {
        cannot_give_back(role, "show the one that the run has given it")
            .hint(format!("should that stay so: pgrotate roles prepare {} --apply", rotation.environment))
            .later(None)
    })?;
    role.authority.install(&Change { run: run.run, current: &current.secret, next: &kept }).await.map(drop)
}

fn cannot_give_back(role: Role<'_>, what: &str) -> Error {
    Error::new(Kind::Conflict, format!("give {} back the password that it had", role.target))
        .because(format!("the vault of record does not {what}"))
}
