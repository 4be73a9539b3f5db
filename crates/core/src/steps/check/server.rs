//! What the check asks of the vault of record and, with what it holds, of the server.

mod idle;

use futures::future::join_all;
use jiff::Timestamp;

use super::Report;
use crate::census::{self, Sample, Trials};
use crate::error::{Error, Result};
use crate::ids::RunId;
use crate::past::Overrides;
use crate::plan::Back;
use crate::provider::{Entry, Finding, Login, Present, Seat, Severity, Survey, Trial, VaultState};
use crate::rotation::{Role, Rotation};
use crate::run::RunState;
use crate::secret::Secret;
use crate::steps::stage;

/// Looks at the vault of record and, with what it holds, at the server.
pub(super) async fn look(rotation: &Rotation, overrides: &Overrides, run: Option<&RunState>) -> Report {
    let vault = &rotation.vault;
    let mut report = Report::default();
    let state = match vault.check().await {
        Ok(Survey { state, findings, identity }) => {
            report.findings = findings;
            report.identify("vault of record", identity.unwrap_or_else(|| vault.location()));
            match state {
                Some(state) => Ok(state),
                None => vault.read().await,
            }
        }
        Err(error) => Err(error),
    };
    let state = match state {
        Ok(state) => state,
        // What has been found already explains why it can't be read.
        Err(_) if report.blocks() => return report,
        Err(error) => {
            report.take(Err(error), vault.id().as_str());
            return report;
        }
    };
    report.findings.extend(foreign_pending(rotation, &state, run.map(|run| run.run)));
    let back = run.map_or(rotation.back.as_ref(), |run| run.plan().back());
    // Once it is staged there is nothing more to find.
    if let Some(back) = back
        && !state.pending.iter().any(|entry| run.is_some_and(|run| entry.run == Some(run.run)))
    {
        report.findings.push(way_back(rotation, back, &state));
    }
    let live = state.live(rotation.twin_name());
    let named = state.user.clone();
    let user = unknown_user(rotation, named.as_deref());
    let Some(Entry { secret: current, .. }) = state.current else {
        let what = "the vault of record holds no current password";
        let mend = "store the password that works now in it, then try again";
        report.findings.push(Finding::new(Severity::Blocks, vault.id().as_str(), what).mend(mend));
        return report;
    };
    report.findings.extend(user);
    let (server, idle) = futures::join!(
        look_at_server(rotation, (live, named.as_deref()), &current, overrides),
        idle::look(rotation, live, &current, state.previous.as_ref(), overrides),
    );
    report.merge(server);
    report.merge(idle);
    report.current = Some(current);
    report
}

/// Whose the password is must be known where it can be one of two roles'. The login proves the guess.
fn unknown_user(rotation: &Rotation, user: Option<&str>) -> Option<Finding> {
    let (twin, first) = (rotation.twin_name()?, rotation.target.user.as_str());
    let user = user.filter(|user| *user != twin && *user != first)?;
    let what = format!("it says that its password is {user:?}'s, which is neither {first:?} nor {twin:?}");
    let mend = format!("it is taken for {first:?}'s; the rotation writes the right name there");
    Some(Finding::new(Severity::Warning, rotation.vault.id().as_str(), what).mend(mend))
}

async fn look_at_server(
    rotation: &Rotation,
    (live, user): (Seat, Option<&str>),
    current: &Secret,
    overrides: &Overrides,
) -> Report {
    let role = rotation.role(live);
    let (login, authority, identity, sessions, vantages, tried) = futures::join!(
        role.verifier.login(current),
        check_authority(rotation, role, current),
        role.verifier.identity(current),
        look_at_sessions(rotation, role, current),
        look_from_vantages(role, current),
        try_out(rotation, role, current),
    );
    let mut server = Report::default();
    server.take(authority, &role.authority.describe());
    // A login that fails says so itself.
    if matches!(login, Ok(Login::Accepted)) {
        let sessions = sessions.map(|seen| {
            let sample = seen.map(|(sample, at)| {
                let trials = tried.as_the_server_has_it(sample.at, at);
                sample.without(trials)
            });
            sample.map_or_else(Vec::new, |sample| {
                census::findings(rotation, &role.target.user, &sample, &overrides.waived)
            })
        });
        server.merge(tried.report);
        server.take(sessions, "sessions");
        server.findings.extend(vantages);
        match identity {
            Ok(identity) => identity.into_iter().for_each(|own| server.identify("PostgreSQL system", own)),
            Err(error) => server.findings.push(unseen_identity(&error)),
        }
    }
    // What stops the authority explains a login that fails; saying both would hide the reason.
    if !(login.is_err() && server.blocks()) {
        server.take(login.map(|login| judge(rotation, role, user, login)), "login");
    }
    server
}

/// Of two roles that take turns the idle one is changed.
async fn check_authority(rotation: &Rotation, role: Role<'_>, current: &Secret) -> Result<Vec<Finding>> {
    match rotation.twin {
        None => role.authority.check(current).await,
        Some(_) => Ok(Vec::new()),
    }
}

/// After the change every vantage has to be able to tell; one that can't tell now would only park the run then.
async fn look_from_vantages(role: Role<'_>, current: &Secret) -> Vec<Finding> {
    let looks = role.vantages.iter();
    let looks = join_all(looks.map(|own| async move { (own.name(), own.login(current).await) })).await;
    let find = |(name, login): (&str, Result<Login>)| {
        let what = match &login {
            Ok(Login::Accepted) => return None,
            Ok(Login::Refused) => "from there the server refuses the password that works here".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let mend = login.err().map(|error| error.hints().join("; ")).filter(|hints| !hints.is_empty());
        let mend = mend.unwrap_or_else(|| {
            "look what answers there, or take the vantage out of the configuration".into()
        });
        let why = "what this vantage has to prove after the change could not be proven, and the run would be parked";
        Some(Finding::new(Severity::Blocks, name, what).why(why).mend(mend))
    };
    looks.into_iter().filter_map(find).collect()
}

/// The server's identity is a second look at what its name already says.
fn unseen_identity(error: &Error) -> Finding {
    Finding::new(
        Severity::Unseen,
        "PostgreSQL system",
        format!("the server does not say which it is: {error:#}"),
    )
}

/// Who is logged in, and when that was, by our own clock.
async fn look_at_sessions(
    rotation: &Rotation,
    role: Role<'_>,
    current: &Secret,
) -> Result<Option<(Sample, Timestamp)>> {
    let Some(own) = role.census else { return Ok(None) };
    // What changes no password locks nobody out.
    if rotation.repair.is_some() {
        return Ok(None);
    }
    let sample = own.take(current, rotation.around.times.window).await?;
    Ok(Some((sample, rotation.clock.now())))
}

/// What came of the verifications' trials, how often they logged in, and from when to when, by our own clock.
struct Tried {
    report: Report,
    logins: usize,
    time: (Timestamp, Timestamp),
}

impl Tried {
    /// By the clock of the server, on which it was `there` when it was `here` on ours.
    fn as_the_server_has_it(&self, there: Timestamp, here: Timestamp) -> Trials {
        let ahead = there.duration_since(here);
        Trials { logins: self.logins, time: (self.time.0 + ahead, self.time.1 + ahead) }
    }
}

/// Lets the verifications try themselves out with the password that works now.
async fn try_out(rotation: &Rotation, role: Role<'_>, current: &Secret) -> Tried {
    let began = rotation.clock.now();
    let url = rotation.url.render(role.target, current);
    let present = Present { password: current, url: &url };
    let asked = rotation.verifications.iter().filter(|_| rotation.repair.is_none());
    let tries = asked.map(async |own| (own.id(), own.try_out(&present).await));
    let (mut report, mut logins) = (Report::default(), 0);
    for (id, result) in join_all(tries).await {
        let found = result.map(|Trial { findings, logins: own }| {
            logins += own;
            findings
        });
        report.take(found, id);
    }
    Tried { report, logins, time: (began, rotation.clock.now()) }
}

/// A pending password of another run must not be overwritten: it may be the one that works.
fn foreign_pending(rotation: &Rotation, state: &VaultState, own: Option<RunId>) -> Option<Finding> {
    let pending = state.pending.iter().find(|pending| own.is_none() || pending.run != own)?;
    let (owner, mend) = match pending.run {
        Some(run) => (
            format!("the run {run}"),
            format!(
                "finish it first: pgrotate resume {run}; if it is over, this drops what it left: pgrotate abort {run}; \
                 if the journal knows nothing of it: `pgrotate status {}` tells whether the server has that password \
                 (then make it the current one in the vault) or not (then remove it there)",
                rotation.environment
            ),
        ),
        None => (
            "nobody knows which run".to_owned(),
            "look at it in the vault and remove it there if it is not in use".to_owned(),
        ),
    };
    let what = format!("it holds a pending password that belongs to {owner}");
    Some(Finding::new(Severity::Blocks, rotation.vault.id().as_str(), what).mend(mend))
}

/// Whether the earlier password is there. Who wants it back should know what that means.
fn way_back(rotation: &Rotation, back: &Back, state: &VaultState) -> Finding {
    let subject = rotation.vault.id().as_str();
    if rotation.twin.is_some() {
        let what =
            "where two roles take turns there is no way back to an earlier password: it went with its role";
        let mend = format!("rotate once more: pgrotate rotate {}", rotation.environment);
        return Finding::new(Severity::Blocks, subject, what).mend(mend);
    }
    match stage::previous(rotation, back, state) {
        Ok(_) => {
            let what = "an earlier password comes into use again: whoever has learnt it can log in";
            Finding::new(Severity::Warning, subject, what)
                .mend("rotate to a new one as soon as that is possible")
        }
        Err(error) => {
            let finding = Finding::new(Severity::Blocks, subject, error.causes().join("; "));
            finding.mend(error.hints().join("; "))
        }
    }
}

/// `user` is whose the vault of record says that its password is.
fn judge(rotation: &Rotation, role: Role<'_>, user: Option<&str>, login: Login) -> Vec<Finding> {
    if login == Login::Accepted {
        return Vec::new();
    }
    let what = format!("the server refuses the password that {} calls current", rotation.vault.id());
    let own = role.target.user.as_str();
    let mend = match user.filter(|user| *user != own) {
        None => "find out which password works and store that one in the vault of record".to_owned(),
        Some(user) => format!(
            "the vault of record says that it is {user}'s. If two roles took turns here, rotate once more with \
             `strategy = \"alternating\"`, so that {own} is the live one; or store the password of {own} there"
        ),
    };
    vec![Finding::new(Severity::Blocks, role.target.to_string(), what).mend(mend)]
}
