//! What the check asks of the role that is not live, where two take turns: that it can take over, and that nobody
//! would be hurt by it.

use futures::future::OptionFuture;

use super::super::Report;
use crate::census;
use crate::past::Overrides;
use crate::plan::Retirement;
use crate::provider::{Entry, Finding, Login, Seat, Severity};
use crate::rotation::{Role, Rotation, Twin};
use crate::secret::Secret;

/// Looks at both roles as a pair, and at the idle one alone.
pub(super) async fn look(
    rotation: &Rotation,
    live: Seat,
    current: &Secret,
    kept: Option<&Entry>,
    overrides: &Overrides,
) -> Report {
    let mut report = Report::default();
    // What changes no password moves nobody to the other role.
    let Some(twin) = rotation.twin.as_ref().filter(|_| rotation.repair.is_none()) else { return report };
    let idle = rotation.role(live.other());
    let alone = async {
        match twin.retirement {
            Retirement::Password => look_at_resting(rotation, idle, kept, overrides).await,
            Retirement::NoLogin => look_at_closed(idle, current).await,
        }
    };
    let (pair, alone) = futures::join!(twin.pair.check(live, current), alone);
    report.take(pair, &names(rotation, twin));
    report.merge(alone);
    report
}

fn names(rotation: &Rotation, twin: &Twin) -> String {
    format!("{} and {}", rotation.target.user, twin.target.user)
}

/// The live role changes it, and has to be allowed to.
async fn look_at_closed(idle: Role<'_>, current: &Secret) -> Report {
    let mut report = Report::default();
    report.take(idle.authority.check(current).await, &idle.authority.describe());
    report
}

/// It logs in with what the vault of record keeps for it, and changes its own password.
async fn look_at_resting(
    rotation: &Rotation,
    idle: Role<'_>,
    kept: Option<&Entry>,
    overrides: &Overrides,
) -> Report {
    let mut report = Report::default();
    let user = &idle.target.user;
    let mend = format!(
        "pgrotate roles prepare {} shows what is missing, and --apply makes it so",
        rotation.environment
    );
    let Some(Entry { secret, .. }) = kept else {
        let what = format!("it keeps no password of {user}, the role that would take over");
        report.findings.push(Finding::new(Severity::Blocks, rotation.vault.id().as_str(), what).mend(mend));
        return report;
    };
    let sessions =
        OptionFuture::from(idle.census.map(|census| census.take(secret, rotation.around.times.window)));
    let (login, authority, sessions) =
        futures::join!(idle.verifier.login(secret), idle.authority.check(secret), sessions);
    match login {
        Ok(Login::Accepted) => {
            report.take(authority, &idle.authority.describe());
            let busy = sessions.transpose().map(|sample| {
                sample.map_or_else(Vec::new, |sample| {
                    census::in_use(rotation, user, &sample, &overrides.waived)
                })
            });
            report.take(busy, "sessions");
        }
        Ok(Login::Refused) => {
            let what = format!("the server refuses the password that {} keeps for it", rotation.vault.id());
            let why = "it could not take over";
            report.findings.push(Finding::new(Severity::Blocks, user.as_str(), what).why(why).mend(mend));
        }
        Err(error) => report.take(Err(error), user),
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::super::super::{Asked, look};
    use super::*;
    use crate::env::testing::{ManualClock, SeededEntropy};
    use crate::env::{Clock, Entropy};
    use crate::memory::{self, Memory};

    /// What a check says that blocks, of a world in which this is so.
    fn blocking(retirement: Retirement, so: impl Fn(&mut memory::State)) -> Vec<String> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let world: Memory = memory::world("live");
        so(&mut world.state());
        let rotation = memory::alternating(&world, &clock, &entropy, retirement);
        let asked = Asked { ticket: None, overrides: &Overrides::default() };
        let report = look(&rotation, asked, None).now_or_never().unwrap();
        let blocks = report.findings.into_iter().filter(|own| own.severity == Severity::Blocks);
        blocks.map(|own| format!("{}: {}", own.subject, own.what)).collect()
    }

    fn kept(password: &str) -> Option<Entry> {
        Some(Entry { secret: Secret::new(password), run: None })
    }

    #[test]
    fn a_role_that_could_not_take_over_is_found_before() {
        let nothing = blocking(Retirement::Password, |state| state.second = Some("resting".into()));
        assert_eq!(
            nothing,
            ["memory:vault: it keeps no password of mindwelladmin_b, the role that would take over"]
        );
        let other = blocking(Retirement::Password, |state| {
            state.second = Some("resting".into());
            state.vault.previous = kept("another");
        });
        assert_eq!(
            other,
            ["mindwelladmin_b: the server refuses the password that memory:vault keeps for it"]
        );
        let good = blocking(Retirement::Password, |state| {
            state.second = Some("resting".into());
            state.vault.previous = kept("resting");
        });
        assert_eq!(good, Vec::<String>::new());
        assert_eq!(blocking(Retirement::NoLogin, |_| {}), Vec::<String>::new(), "it needs no password");
    }

    #[test]
    fn the_vault_of_record_may_call_the_second_role_live() {
        let turned = blocking(Retirement::Password, |state| {
            (state.server, state.second) = ("resting".into(), Some("live".into()));
            state.vault.user = Some(memory::SECOND.into());
            state.vault.previous = kept("resting");
        });
        assert_eq!(turned, Vec::<String>::new());
    }
}
