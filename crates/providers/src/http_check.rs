//! A health endpoint that has to answer well several times in a row: a verification.
//!
//! Only answers to requests that began after the last consumer was told count, and they have
//! to be consecutive: right after a restart old and new instances answer in turn. It needs no
//! rights; an endpoint that asks for a credential can't be used.
//!
//! Quirks: an endpoint may stay green on connections that were logged in before the change.
//! Only one that opens a fresh connection proves anything about the password; which one it is
//! can't be seen from here, so the fresh login and the log scan are proofs of their own.

mod by_hand;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Evidence, Finding, Severity, Verification};
use pgrotate_core::{Error, Kind, Result};
use reqwest::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use crate::http::{self, Effect};
use crate::shared::Shared;

/// The kind in the configuration.
const KIND: &str = "http";
/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that carry credentials, which have no place in the configuration.
const CREDENTIALS: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-functions-key"];

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What is asked.
    pub url: String,
    /// How many good answers in a row are a proof.
    #[serde(default = "defaults::successes")]
    pub successes: u32,
    /// Milliseconds between two questions.
    #[serde(default = "defaults::interval_ms")]
    pub interval_ms: u64,
    /// Seconds that the proof may take.
    #[serde(default = "defaults::timeout_s")]
    pub timeout_s: u64,
    /// The status of a good answer.
    #[serde(default = "defaults::expect_status")]
    pub expect_status: u16,
    /// Headers of the question; none with a credential.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

mod defaults {
    pub(super) fn successes() -> u32 {
        3
    }
    pub(super) fn interval_ms() -> u64 {
        250
    }
    pub(super) fn timeout_s() -> u64 {
        60
    }
    pub(super) fn expect_status() -> u16 {
        200
    }
}

/// A health endpoint.
pub struct HttpCheck {
    id: String,
    /// The URL without its query, for people.
    shown: String,
    url: Url,
    headers: HeaderMap,
    successes: u32,
    expected: StatusCode,
    interval: Duration,
    timeout: Duration,
    shared: Arc<Shared>,
}

impl HttpCheck {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When the URL can't be used, or a header or number makes no sense.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let id = name.unwrap_or_else(|| KIND.to_owned());
        let refuse = |why: String| Error::new(Kind::Config, format!("use the check {id}")).because(why);
        let url =
            http::endpoint(&options.url).map_err(|error| error.during(format!("use the check {id}")))?;
        let expected = StatusCode::from_u16(options.expect_status)
            .map_err(|_| refuse(format!("{} is no HTTP status", options.expect_status)))?;
        if options.successes == 0 {
            return Err(refuse("no success at all would be a proof of nothing".into()));
        }
        let mut headers = HeaderMap::new();
        // A cache in between would only repeat what was true before.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        for (name, value) in &options.headers {
            if CREDENTIALS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(refuse(format!("the header {name} would be a credential in the configuration")));
            }
            let name =
                HeaderName::try_from(name).map_err(|_| refuse(format!("{name:?} is no header's name")))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| refuse(format!("the header {name} has a value that can't be sent")))?;
            headers.insert(name, value);
        }
        Ok(Self {
            shown: shown(&url),
            url,
            headers,
            successes: options.successes,
            expected,
            interval: Duration::from_millis(options.interval_ms),
            timeout: Duration::from_secs(options.timeout_s),
            shared,
            id,
        })
    }

    /// Asks once. The body is not looked at: it may say anything.
    async fn ask(&self) -> std::result::Result<(), Error> {
        let operation = format!("get a good answer of {}", self.shown);
        let request = self.shared.http.get(self.url.clone()).headers(self.headers.clone());
        match request.timeout(ANSWER_TIMEOUT.min(self.timeout)).send().await {
            Ok(answer) if answer.status() == self.expected => Ok(()),
            Ok(answer) => {
                let cause =
                    format!("it answers {}, not {}", answer.status().as_u16(), self.expected.as_u16());
                let kind = match http::kind_of(answer.status()) {
                    // Not our own: the endpoint is asked without credentials.
                    Kind::Unauthenticated | Kind::Forbidden | Kind::Rejected => Kind::BadState,
                    kind => kind,
                };
                Err(Error::new(kind, operation).because(cause))
            }
            Err(error) => Err(http::unanswered(&error, Effect::Reads, operation)),
        }
    }
}

#[async_trait]
impl Verification for HttpCheck {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        let Err(error) = self.ask().await else { return Ok(Vec::new()) };
        // No reason not to rotate: it may be the password that is wrong.
        let finding = Finding::new(Severity::Warning, &self.id, error.to_string())
            .why("it is red before anything has changed: after the change nobody could tell what the change has done");
        let mend = "correct `url` if it is wrong; if the application is ill, find out why before you rotate";
        Ok(vec![finding.mend(error.hints().first().cloned().unwrap_or_else(|| mend.to_owned()))])
    }

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        let clock = &self.shared.clock;
        let deadline = clock.now() + self.timeout;
        let mut streak = Streak::default();
        loop {
            let began = clock.now();
            let failure = match self.ask().await {
                Ok(()) if began >= evidence.since => {
                    if streak.success(clock.now()) == self.successes {
                        let outcome =
                            Outcome::confirmed().note(format!("{} good answers in a row", self.successes));
                        return Ok(Outcome { effect_at: streak.since, ..outcome });
                    }
                    None
                }
                Ok(()) => None,
                Err(error) => {
                    streak = Streak::default();
                    Some(error)
                }
            };
            if clock.now() + self.interval > deadline {
                return Err(self.late(failure, streak.count));
            }
            clock.sleep(self.interval).await;
        }
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

impl HttpCheck {
    fn late(&self, last: Option<Error>, count: u32) -> Error {
        let (timeout, wanted) = (self.timeout.as_secs(), self.successes);
        let operation = format!("see {} healthy", self.shown);
        let why = format!("no {wanted} good answers in a row within {timeout} s");
        let error = match &last {
            Some(last) => {
                last.causes().iter().fold(Error::new(last.kind(), operation).because(why), |error, cause| {
                    error.because(cause.clone())
                })
            }
            None => {
                Error::new(Kind::TimedOut, operation).because(format!("{why}: there were {count} at the end"))
            }
        };
        error.hint("look at the application's log; both passwords are in the vault of record")
    }
}

/// Good answers in a row.
#[derive(Default)]
struct Streak {
    count: u32,
    since: Option<Timestamp>,
}

impl Streak {
    fn success(&mut self, at: Timestamp) -> u32 {
        self.since.get_or_insert(at);
        self.count += 1;
        self.count
    }
}

/// A URL for people: the query may hold a key.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pgrotate_core::{Retry, Secret};

    use super::*;
    use crate::fake::{self, Fake, Reply};
    use crate::shared::Vendors;

    /// An endpoint that answers with these statuses, and with the last one from then on.
    async fn answering(statuses: &'static [u16]) -> Fake {
        let asked = AtomicUsize::new(0);
        Fake::start(move |_| {
            let index = asked.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1);
            match statuses[index] {
                0 => Reply::hang_up(),
                status => Reply::json(status, &"a body that says hunter2".into()),
            }
        })
        .await
    }

    fn options(url: &str) -> Options {
        serde_json::from_value(serde_json::json!({ "url": url })).unwrap()
    }

    fn check(options: Options) -> HttpCheck {
        HttpCheck::new(None, options, fake::shared(Vendors::default(), "")).unwrap()
    }

    /// The fake clock begins at 2026-01-01T00:00:00Z and moves by a quarter of a second with each pause.
    async fn verify(check: &HttpCheck, since: &str) -> Result<Outcome> {
        let (password, url) = (Secret::new("x"), Secret::new("y"));
        let since = since.parse().unwrap();
        check
            .verify(&Evidence {
                run: fake::run(),
                password: &password,
                previous: None,
                url: &url,
                changing_since: since,
                since,
            })
            .await
    }

    const LONG_AGO: &str = "2025-12-31T00:00:00Z";

    #[tokio::test]
    async fn the_proof_is_the_last_streak() {
        let fake = answering(&[200, 200, 503, 0, 200]).await;
        let outcome = verify(&check(options(&fake.url)), LONG_AGO).await.unwrap();
        assert_eq!(outcome.effect_at, Some("2026-01-01T00:00:01Z".parse().unwrap()));
        assert_eq!(fake.take_lines().len(), 7);
        assert_eq!(fake.calls().len(), 0);
    }

    #[tokio::test]
    async fn answers_to_earlier_questions_do_not_count() {
        let fake = answering(&[200]).await;
        let outcome = verify(&check(options(&fake.url)), "2026-01-01T00:00:02Z").await.unwrap();
        assert_eq!(outcome.effect_at, Some("2026-01-01T00:00:02Z".parse().unwrap()));
    }

    #[tokio::test]
    async fn an_ill_endpoint_is_quoted_by_its_status_alone() {
        let fake = answering(&[200, 503]).await;
        let error = verify(&check(options(&format!("{}/healthz?key=hunter2", fake.url))), LONG_AGO)
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::ServerFault, Retry::Never));
        assert!(error.to_string().contains("it answers 503, not 200"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
        assert_eq!(fake.calls().len(), 241, "as many as fit into the time");
    }

    #[tokio::test]
    async fn a_streak_that_is_too_short_is_no_proof() {
        let fake = answering(&[200, 200, 500, 200, 500, 200]).await;
        let mut options = options(&fake.url);
        options.timeout_s = 1;
        let error = verify(&check(options), LONG_AGO).await.unwrap_err();
        assert!(error.to_string().contains("no 3 good answers in a row"), "{error}");
    }

    #[tokio::test]
    async fn the_check_only_warns() {
        let fake = answering(&[500, 302, 204]).await;
        let mut options = options(&fake.url);
        options.expect_status = 204;
        options.headers.insert("X-Probe".into(), "pgrotate".into());
        let check = check(options);
        for _ in 0..2 {
            assert_eq!(check.check().await.unwrap()[0].severity, Severity::Warning);
        }
        assert_eq!(check.check().await, Ok(Vec::new()));
        assert_eq!(fake.calls()[0].header("x-probe"), Some("pgrotate"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut Options)| {
            let mut options = options("https://example.com/healthz");
            change(&mut options);
            HttpCheck::new(Some("x".into()), options, fake::shared(Vendors::default(), ""))
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(refused(|_| {}), None);
        assert!(refused(|options| options.url = "http://example.com".into()).unwrap().contains("plain http"));
        assert!(refused(|options| options.successes = 0).is_some());
        assert!(refused(|options| options.expect_status = 7).is_some());
        let key =
            refused(|options| drop(options.headers.insert("Authorization".into(), "Bearer hunter2".into())));
        assert!(key.is_some_and(|said| said.contains("credential") && !said.contains("hunter2")));
        assert!(refused(|options| drop(options.headers.insert("a b".into(), "c".into()))).is_some());
    }
}
