//! Long-running operations: where to ask how far one is, how often, and what the answers mean.
//!
//! The URL comes from the headers and is used as it is: it carries a signature, is some 3 KB
//! long, and spells the region otherwise than the resource does, so nobody could rebuild it. Only
//! its host is checked, because a token goes along. (Azure Resource Manager, "Track asynchronous
//! operations".)

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgrotate_core::env::Clock;
use pgrotate_core::{Error, Kind, Result, Retry};
use reqwest::Url;
use serde::Deserialize;

use super::answer::{Answer, Failure};
use super::{Account, Call};

/// The shortest pause of our own choosing.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause of our own choosing.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// In between a pause is this part of the time that has passed: applications wait for the end, and it is seen late by at
/// most as much. An operation of a minute is asked about some 40 times, of the 250 questions that may come at once
/// (Azure Resource Manager, "Request limits and throttling").
const SHARE: u32 = 10;

/// How often to ask, and until when.
pub(crate) struct Pace<'a> {
    clock: &'a dyn Clock,
    began: Timestamp,
    until: Timestamp,
}

impl<'a> Pace<'a> {
    /// Begins to wait, for this long at most.
    pub(crate) fn new(clock: &'a dyn Clock, limit: Duration) -> Self {
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let began = clock.now();
        Self { clock, began, until: began.saturating_add(limit).unwrap_or(Timestamp::MAX) }
    }

    /// Waits before the next question: as long as was asked for, else the longer the longer it takes.
    /// Tells whether there is time for another question; a wait that was asked for is never cut.
    pub(crate) async fn rest(&mut self, told: Option<Duration>) -> bool {
        let now = self.clock.now();
        let left = Duration::try_from(self.until.duration_since(now)).unwrap_or_default();
        if left.is_zero() || told.is_some_and(|told| told > left) {
            return false;
        }
        let passed = Duration::try_from(now.duration_since(self.began)).unwrap_or_default();
        let own = (passed / SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let pause = told.unwrap_or(own).min(left);
        self.clock.sleep(pause).await;
        true
    }

    /// The same after a failure. Gives back one that does not pass, or not in time.
    pub(crate) async fn outlast(&mut self, error: Error) -> Result<()> {
        match error.retry() {
            Retry::Later { .. } if self.rest(error.told()).await => Ok(()),
            _ => Err(error),
        }
    }
}

/// How an operation ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It succeeded; this is when that was seen.
    Succeeded(Timestamp),
    /// It failed or was canceled.
    Failed { canceled: bool, failure: Failure },
    /// It can't be asked how it went: the right to poll is missing, or it is no longer known.
    Untold(Error),
}

/// An operation that Azure carries out after its answer.
pub(crate) struct Operation {
    url: Url,
    /// Whether the body says how far it is; else the status does.
    status_in_body: bool,
    first_pause: Option<Duration>,
}

#[derive(Deserialize)]
struct Poll {
    status: String,
    #[serde(default)]
    error: Option<Failure>,
}

impl Operation {
    /// The operation that an answer announces, if it does.
    ///
    /// # Errors
    /// When its URL leads elsewhere than to the resource manager.
    pub(crate) fn announced(account: &Account, answer: &Answer, operation: &str) -> Result<Option<Self>> {
        let (text, status_in_body) = match (answer.header("azure-asyncoperation"), answer.header("location"))
        {
            (Some(url), _) => (url, true),
            (None, Some(url)) if answer.status() == 202 => (url, false),
            _ => return Ok(None),
        };
        let url = Url::parse(text).ok().filter(|url| account.vouches_for(url)).ok_or_else(|| {
            Error::new(Kind::Corrupt, operation)
                .because(
                    "Azure has accepted it, but the address to ask about it is not the resource manager's",
                )
                .unknown()
        })?;
        Ok(Some(Self { url, status_in_body, first_pause: answer.retry_after() }))
    }

    /// Asks until it has ended.
    ///
    /// # Errors
    /// When it has not ended in time, or nobody answers for as long: it may end yet.
    pub(crate) async fn follow(self, account: &Account, pace: &mut Pace<'_>, operation: &str) -> Result<End> {
        let mut pause = self.first_pause;
        let mut trouble = None;
        while pace.rest(pause).await {
            match account.send(Call::get(self.url.clone()), operation).await {
                Ok(answer) => {
                    pause = answer.retry_after();
                    trouble = None;
                    if let Some(end) = self.end(&answer, pace.clock.now(), operation)? {
                        return Ok(end);
                    }
                }
                Err(error) => match error.retry() {
                    // A lost poll says nothing of the operation.
                    Retry::Later { after_ms } => {
                        pause = after_ms.map(Duration::from_millis);
                        trouble = Some(error);
                    }
                    _ => return Ok(End::Untold(error)),
                },
            }
        }
        let error = trouble.unwrap_or_else(|| {
            Error::new(Kind::TimedOut, operation)
                .because("Azure's operation has not ended in time")
                .hint("the resource's activity log in the portal shows how far it is")
        });
        Err(error.unknown())
    }

    fn end(&self, answer: &Answer, now: Timestamp, operation: &str) -> Result<Option<End>> {
        if !self.status_in_body {
            return Ok((answer.status() != 202).then_some(End::Succeeded(now)));
        }
        let poll: Poll = answer.json(operation).map_err(Error::unknown)?;
        let failed = |canceled| End::Failed { canceled, failure: poll.error.unwrap_or_default() };
        Ok(match poll.status.to_ascii_lowercase().as_str() {
            "succeeded" => Some(End::Succeeded(now)),
            "failed" => Some(failed(false)),
            // Both spellings occur.
            "canceled" | "cancelled" => Some(failed(true)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use pgrotate_core::env::testing::ManualClock;

    use super::*;

    #[tokio::test]
    async fn the_end_is_seen_late_by_a_tenth_at_most_and_little_is_asked() {
        for (operation, questions) in [(0, 1..=1), (5, 15..=22), (60, 35..=45), (600, 140..=160)] {
            let clock = ManualClock::at_second(0);
            let began = clock.now();
            let mut pace = Pace::new(&clock, Duration::from_secs(1200));
            let (mut asked, mut passed) = (0, Duration::ZERO);
            while asked == 0 || passed < Duration::from_secs(operation) {
                assert!(pace.rest(None).await);
                asked += 1;
                passed = clock.now().duration_since(began).unsigned_abs();
            }
            assert!(questions.contains(&asked), "{operation} s: {asked} questions");
            let late = passed - Duration::from_secs(operation);
            assert!(
                late <= Duration::from_secs(operation).div_f64(10.0).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
                "{late:?}"
            );
        }
    }
}
