//! The vendors' documented rates, kept to by the whole process: whoever asks five hundred environments at once
//! waits here for a moment instead of being turned away there.
//!
//! A request first takes its share of each budget that it draws on. Nobody else's requests are known here, so a vendor may still
//! turn one away; what it asks for then is waited for as ever.

use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::Effect;

type Limiter = RateLimiter<String, HashMapStateStore<String>, DefaultClock>;

/// Resource manager's reads: 25 a second for each subscription and region, 250 at once ("Understand how Azure Resource
/// Manager throttles requests"). A subscription is taken for one region.
static ARM_READS: LazyLock<Limiter> = LazyLock::new(|| limiter(25, 1, 250));
/// Its writes: 10 a second, 200 at once (same place).
static ARM_WRITES: LazyLock<Limiter> = LazyLock::new(|| limiter(10, 1, 200));
/// A vault's secret transactions: 4,000 in ten seconds ("Azure Key Vault service limits").
static VAULTS: LazyLock<Limiter> = LazyLock::new(|| limiter(400, 1, 400));
/// GitHub's points: 900 a minute, a read 1, a write 5 ("Rate limits for the REST API", secondary limits).
static GITHUB: LazyLock<Limiter> = LazyLock::new(|| limiter(900, 60, 100));
/// What GitHub lets be made: 80 a minute (same place).
static GITHUB_MADE: LazyLock<Limiter> = LazyLock::new(|| limiter(80, 60, 20));
/// How many requests GitHub takes at the same time: 100 (same place).
static GITHUB_AT_ONCE: Semaphore = Semaphore::const_new(100);

/// So many in so many seconds, and so many of them at once.
fn limiter(number: u32, seconds: u32, at_once: u32) -> Limiter {
    let whole = |number: u32| NonZeroU32::new(number).expect("a vendor that allows nothing has no budget");
    let each = Duration::from_secs(u64::from(seconds)) / number;
    let quota = Quota::with_period(each).expect("a rate is no rate without time");
    RateLimiter::hashmap(quota.allow_burst(whole(at_once)))
}

/// Takes one request's share; waits until there is one.
async fn take(limiter: &Limiter, key: &str, shares: u32) {
    for _ in 0..shares {
        limiter.until_key_ready(&key.to_owned()).await;
    }
}

/// Before a request to Azure. What is neither resource manager's nor a vault's has no documented rate.
pub(crate) async fn azure(url: &reqwest::Url, effect: Effect) {
    let mut parts = url.path_segments().into_iter().flatten();
    match (parts.next(), parts.next(), effect) {
        (Some("subscriptions"), Some(subscription), Effect::Reads) => take(&ARM_READS, subscription, 1).await,
        (Some("subscriptions"), Some(subscription), Effect::Writes) => {
            take(&ARM_WRITES, subscription, 1).await
        }
        (Some("secrets"), ..) => take(&VAULTS, url.host_str().unwrap_or_default(), 1).await,
        _ => {}
    }
}

/// Before a request to GitHub, which counts until the permit is dropped. `host` is whose budget it draws on.
/// Whatever is written counts as made: which endpoints do is not said.
pub(crate) async fn github(host: &str, effect: Effect) -> Option<SemaphorePermit<'static>> {
    match effect {
        Effect::Reads => take(&GITHUB, host, 1).await,
        Effect::Writes => {
            take(&GITHUB, host, 5).await;
            take(&GITHUB_MADE, host, 1).await;
        }
    }
    GITHUB_AT_ONCE.acquire().await.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A burst goes through at once, and what comes after it in the documented time; keys don't share.
    #[tokio::test]
    async fn what_is_more_than_a_vendor_takes_waits() {
        let limiter = limiter(100, 1, 5);
        let began = Instant::now();
        take(&limiter, "one", 5).await;
        assert!(began.elapsed() < Duration::from_millis(40), "{:?}", began.elapsed());
        take(&limiter, "one", 10).await;
        assert!(began.elapsed() >= Duration::from_millis(95), "{:?}", began.elapsed());
        let other = Instant::now();
        take(&limiter, "other", 5).await;
        assert!(other.elapsed() < Duration::from_millis(40), "{:?}", other.elapsed());
    }

    #[tokio::test]
    async fn a_request_draws_on_its_own_budget() {
        let url = |text: &str| text.parse::<reqwest::Url>().unwrap();
        let left = |limiter: &Limiter, key: &str| {
            (0..).take_while(|_| limiter.check_key(&key.to_owned()).is_ok()).take(1000).count()
        };
        azure(&url("https://management.azure.com/subscriptions/s1/x"), Effect::Reads).await;
        azure(&url("https://kv-1.vault.azure.net/secrets/a"), Effect::Writes).await;
        azure(&url("https://login.microsoftonline.com/t/oauth2/v2.0/token"), Effect::Reads).await;
        assert!((249..=255).contains(&left(&ARM_READS, "s1")));
        assert!((200..=205).contains(&left(&ARM_WRITES, "s1")));
        assert!(left(&VAULTS, "kv-1.vault.azure.net") >= 399);
        let permit = github("t1", Effect::Writes).await;
        assert!(permit.is_some() && GITHUB_AT_ONCE.available_permits() < 100);
        assert!((95..=97).contains(&left(&GITHUB, "t1")));
        assert_eq!(left(&GITHUB_MADE, "t1"), 19);
    }
}
