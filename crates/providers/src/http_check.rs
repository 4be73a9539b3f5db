//! An HTTP endpoint that says whether the application is well: `[[checks]] kind = "http"`.
//!
//! One good answer proves little: it can come from an instance that is about to stop. So several in a row count, and
//! only those to requests that began after the consumers had taken up the new copies. What the endpoint itself looks at is
//! the application's affair; it should open a fresh database connection, because pooled ones outlive their password.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Evidence, Finding, Severity, Verification};
use pgrotate_core::{Error, Kind, Result};
use reqwest::Url;
use serde::Deserialize;

use crate::http::{self, Effect};
use crate::shared::Shared;

/// An answer that takes longer counts as none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `[[checks]] kind = "http"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What is asked, with GET. Plain http only to loopback.
    pub url: String,
    /// How many good answers in a row are wanted.
    #[serde(default = "successes")]
    pub successes: u32,
    /// The pause between two requests, in milliseconds.
    #[serde(default = "interval_ms")]
    pub interval_ms: u64,
    /// How long it is tried, in seconds.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// The status of a good answer.
    #[serde(default = "expect_status")]
    pub expect_status: u16,
}

fn successes() -> u32 {
    3
}

fn interval_ms() -> u64 {
    250
}

fn timeout_s() -> u64 {
    60
}

fn expect_status() -> u16 {
    200
}

/// One endpoint.
pub struct HttpCheck {
    id: String,
    url: Url,
    successes: u32,
    interval: Duration,
    timeout: Duration,
    expect_status: u16,
    shared: Arc<Shared>,
}

/// What one request showed.
enum Look {
    Good,
    Bad(String),
}

impl HttpCheck {
    /// Binds the verification.
    ///
    /// # Errors
    /// When the URL can't be used, or no success is wanted.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        if options.successes == 0 {
            return Err(
                Error::new(Kind::Config, "use `successes = 0`").because("no answer would prove nothing")
            );
        }
        Ok(Self {
            id: name.unwrap_or_else(|| "http".to_owned()),
            url: http::endpoint(&options.url)?,
            successes: options.successes,
            interval: Duration::from_millis(options.interval_ms),
            timeout: Duration::from_secs(options.timeout_s),
            expect_status: options.expect_status,
            shared,
        })
    }

    fn place(&self) -> String {
        format!("{}{}", self.url.host_str().unwrap_or_default(), self.url.path())
    }

    async fn look(&self) -> Look {
        let request = self.shared.http.get(self.url.clone()).timeout(ANSWER_TIMEOUT);
        match request.send().await {
            Ok(answer) if answer.status().as_u16() == self.expect_status => Look::Good,
            Ok(answer) => Look::Bad(format!("it answers {}", answer.status().as_u16())),
            Err(error) => {
                let error = http::unanswered(&error, Effect::Reads, "ask it");
                Look::Bad(error.causes().join(": "))
            }
        }
    }

    fn failed(&self, last: Option<String>) -> Error {
        Error::new(Kind::BadState, format!("see {} healthy", self.place()))
            .because(format!(
                "{} good answers in a row were wanted within {} s",
                self.successes,
                self.timeout.as_secs()
            ))
            .because(last.unwrap_or_else(|| "there was no time for a request".to_owned()))
            .hint("look at the application's log; a password that it does not take shows there")
    }
}

#[async_trait]
impl Verification for HttpCheck {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        Ok(match self.look().await {
            Look::Good => Vec::new(),
            // A rotation may be what mends it.
            Look::Bad(why) => {
                let what = format!("{} is not healthy now: {why}", self.place());
                vec![Finding::new(Severity::Warning, self.id.as_str(), what)]
            }
        })
    }

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        let clock = &self.shared.clock;
        let began = clock.now();
        let (mut streak, mut first, mut last) = (0, None::<Timestamp>, None);
        while clock.now().duration_since(began).unsigned_abs() < self.timeout {
            let asked_at = clock.now();
            let look = self.look().await;
            match look {
                // A request that began before the restart was over may have met the old instance.
                _ if asked_at < evidence.since => {}
                Look::Good => {
                    streak += 1;
                    first.get_or_insert_with(|| clock.now());
                    if streak == self.successes {
                        let outcome = Outcome { effect_at: first, ..Outcome::confirmed() };
                        return Ok(outcome.note(format!("{} good answers in a row", self.successes)));
                    }
                }
                Look::Bad(why) => {
                    (streak, first, last) = (0, None, Some(why));
                }
            }
            clock.sleep(self.interval).await;
        }
        Err(self.failed(last))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use pgrotate_core::Secret;
    use pgrotate_core::journal::Effect as Did;

    use super::*;
    use crate::fake;
    use crate::shared::Vendors;

    /// An endpoint that gives these answers, and the last one for ever.
    async fn endpoint(answers: &[u16]) -> String {
        let answers = Arc::new(Mutex::new(answers.to_vec()));
        let answer = move || async move {
            let mut left = answers.lock().unwrap();
            let next = if left.len() > 1 { left.remove(0) } else { left[0] };
            (StatusCode::from_u16(next).unwrap(), "postgresql://admin:hunter2@db/app")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/healthz", get(answer))).await },
        );
        format!("http://{address}/healthz")
    }

    async fn verify(answers: &[u16]) -> Result<Outcome> {
        let options = serde_json::json!({ "url": endpoint(answers).await, "timeout_s": 3 });
        let check = HttpCheck::new(
            None,
            serde_json::from_value(options).unwrap(),
            fake::shared(Vendors::default(), ""),
        )
        .unwrap();
        let (password, url) = (Secret::new("hunter2"), Secret::new("postgresql://admin:hunter2@db/app"));
        let since = check.shared.clock.now();
        let run = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        check.verify(&Evidence { run, password: &password, url: &url, changing_since: since, since }).await
    }

    #[tokio::test]
    async fn three_in_a_row_prove_it_and_one_bad_answer_starts_anew() {
        let outcome = verify(&[503, 200, 200, 503, 200]).await.unwrap();
        assert_eq!(outcome.effect, Did::Confirmed);
        assert!(outcome.effect_at.is_some());
    }

    #[tokio::test]
    async fn what_stays_ill_fails_and_its_answer_is_not_repeated() {
        let error = verify(&[200, 200, 503]).await.unwrap_err();
        assert!(error.to_string().contains("it answers 503"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn plain_http_to_elsewhere_is_refused() {
        let options =
            serde_json::from_value(serde_json::json!({ "url": "http://api.example.com/healthz" })).unwrap();
        assert!(HttpCheck::new(None, options, fake::shared(Vendors::default(), "")).is_err());
    }
}
