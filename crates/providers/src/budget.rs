//! The vendors' documented rates, kept to by the whole process: whoever asks five hundred environments at once
//! waits here for a moment instead of being turned away there.
//!
//! A request first takes its share of each budget that it draws on. Nobody else's requests are known here, so a vendor may still
//! turn one away; what it asks for then is waited for as ever. Time comes from outside, so that a simulation waits for nothing real.

mod limit;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pgrotate_core::env::Clock;
use pgrotate_core::plan::{Action, Plan};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::limit::Limit;
use self::limit::{Budget, Turn};
pub use crate::http::Effect;

/// Resource manager's reads: 25 a second for each subscription and region, 250 at once ("Understand how Azure Resource
/// Manager throttles requests"). A subscription is taken for one region.
const ARM_READS: Limit = Limit::Bucket { holds: 250, a_second: 25 };
/// Its writes: 10 a second, 200 at once (same place).
const ARM_WRITES: Limit = Limit::Bucket { holds: 200, a_second: 10 };
/// A vault's secret transactions: 4,000 in ten seconds ("Azure Key Vault service limits").
const VAULT: Limit = Limit::Window { number: 4_000, within: Duration::from_secs(10) };
/// Those of all vaults of a subscription: five times as many (same place). A host name does not tell whose it is, so all are
/// taken for one subscription's.
const VAULTS: Limit = Limit::Window { number: 20_000, within: Duration::from_secs(10) };
/// GitHub's points: 900 a minute, a read 1, a write 5 ("Rate limits for the REST API", secondary limits).
const GITHUB_POINTS: Limit = Limit::Window { number: 900, within: Duration::from_secs(60) };
/// What GitHub lets be made: 80 a minute (same place).
const GITHUB_MADE: Limit = Limit::Window { number: 80, within: Duration::from_secs(60) };
/// And 500 an hour (same place).
const GITHUB_MADE_AN_HOUR: Limit = Limit::Window { number: 500, within: Duration::from_secs(3600) };
/// As much of that as a run waits for at one time.
const AT_ONE_TIME: u32 = 40;
/// How many requests GitHub takes at the same time (same place).
const GITHUB_AT_ONCE: usize = 100;
/// AWS Secrets Manager's writes, all kinds of them together: 50 a second for each account and region ("AWS Secrets
/// Manager quotas"). Its reads have quotas that nobody reaches from one process.
const AWS_WRITES: Limit = Limit::Window { number: 50, within: Duration::from_secs(1) };

/// The budgets of one process. Clones share them.
#[derive(Clone)]
pub struct Budgets(Arc<All>);

struct All {
    arm_reads: Budget,
    arm_writes: Budget,
    vault: Budget,
    vaults: Budget,
    github_points: Budget,
    github_made: Budget,
    github_made_an_hour: Budget,
    github_at_once: Arc<Semaphore>,
    aws_writes: Budget,
}

impl Default for Budgets {
    fn default() -> Self {
        Self(Arc::new(All {
            arm_reads: Budget::new(ARM_READS),
            arm_writes: Budget::new(ARM_WRITES),
            vault: Budget::new(VAULT),
            vaults: Budget::new(VAULTS),
            github_points: Budget::new(GITHUB_POINTS),
            github_made: Budget::new(GITHUB_MADE),
            github_made_an_hour: Budget::new(GITHUB_MADE_AN_HOUR),
            github_at_once: Arc::new(Semaphore::new(GITHUB_AT_ONCE)),
            aws_writes: Budget::new(AWS_WRITES),
        }))
    }
}

impl fmt::Debug for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Budgets")
    }
}

impl Budgets {
    /// Before a request to Azure. What is neither resource manager's nor a vault's has no documented rate.
    pub(crate) async fn azure(&self, clock: &dyn Clock, url: &reqwest::Url, effect: Effect) {
        let mut parts = url.path_segments().into_iter().flatten();
        match (parts.next(), parts.next()) {
            (Some("subscriptions"), Some(subscription)) => {
                self.resource_manager(clock, subscription, effect).await;
            }
            (Some("secrets"), _) => self.vault(clock, url.authority()).await,
            _ => {}
        }
    }

    /// Before a request to Azure's resource manager that has to do with this subscription.
    pub async fn resource_manager(&self, clock: &dyn Clock, subscription: &str, effect: Effect) {
        let budget = match effect {
            Effect::Reads => &self.0.arm_reads,
            Effect::Writes => &self.0.arm_writes,
        };
        budget.turn(clock, subscription, 1).await.take(clock);
    }

    /// Before a request to this vault.
    pub async fn vault(&self, clock: &dyn Clock, host: &str) {
        let own = self.0.vault.turn(clock, host, 1).await;
        take_all([own, self.0.vaults.turn(clock, "", 1).await], clock);
    }

    /// Before a request to GitHub, which counts until the permit is dropped. `host` is whose budget it draws on.
    /// Whatever is written counts as made: which endpoints do is not said.
    pub async fn github(
        &self,
        clock: &dyn Clock,
        host: &str,
        effect: Effect,
    ) -> Option<OwnedSemaphorePermit> {
        let all = &*self.0;
        // What may take an hour is waited for first, by those alone who need it, and nothing is held meanwhile. It is taken in the
        // end, with the rest: at the moment at which the request goes.
        let (made, points) = match effect {
            Effect::Reads => (None, 1),
            Effect::Writes => (Some(self.made(clock, host, 1).await), 5),
        };
        let permit = Arc::clone(&all.github_at_once).acquire_owned().await.ok();
        all.github_points.turn(clock, host, points).await.take(clock);
        take_all(made.into_iter().flatten(), clock);
        permit
    }

    async fn made(&self, clock: &dyn Clock, host: &str, number: u32) -> [Turn; 2] {
        let an_hour = self.0.github_made_an_hour.turn(clock, host, number).await;
        [an_hour, self.0.github_made.turn(clock, host, number).await]
    }

    /// Before a write to AWS Secrets Manager; `place` is the account and region, or what stands for it.
    pub async fn aws_write(&self, clock: &dyn Clock, place: &str) {
        self.0.aws_writes.turn(clock, place, 1).await.take(clock);
    }

    /// Waits until there is room for a whole run of this plan, at the vendors whose limits it would wait for in the middle, and
    /// takes it. Of budgets of their own: a fleet asks these before a member begins, and its requests ask the others. So nobody waits
    /// for an hour between the change of the server and the last copy, with a lease that has to be kept.
    pub async fn room_for(&self, clock: &dyn Clock, host: &str, plan: &Plan) {
        let made = plan.steps.iter().filter(|step| makes_at_github(&step.action)).count();
        let mut left = u32::try_from(made).unwrap_or(u32::MAX);
        while left > 0 {
            // More than a minute allows comes in parts, as it will be sent.
            let part = left.min(AT_ONE_TIME);
            take_all(self.made(clock, host, part).await, clock);
            left -= part;
        }
    }
}

/// Whether a step writes something at GitHub.
fn makes_at_github(action: &Action) -> bool {
    match action {
        Action::Publish { copy } => copy.as_str().starts_with("github_actions:"),
        Action::Record { recorder } => recorder == "github_issue",
        _ => false,
    }
}

/// Several shares that are one request's.
fn take_all(turns: impl IntoIterator<Item = Turn>, clock: &dyn Clock) {
    turns.into_iter().for_each(|turn| turn.take(clock));
}
