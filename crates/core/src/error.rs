//! What can go wrong, and what that means for a retry.
//!
//! An [`Error`] is made of words written in this program: it has no foreign `source`, because
//! the text of a foreign error can echo the value that was sent. That is also why it can be
//! written to the journal as it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::Request;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as the program's own behaviour depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The thing does not exist, or is hidden from us.
    NotFound,
    /// More than one thing answers to the name.
    Ambiguous,
    /// No credentials, or the system does not accept them.
    Unauthenticated,
    /// The credentials are good and the right is missing.
    Forbidden,
    /// The system is in a state in which this can't be done.
    BadState,
    /// Somebody else changed the thing meanwhile.
    Conflict,
    /// The system did not like what was sent.
    Rejected,
    /// Too many requests.
    Throttled,
    /// Busy with something else.
    Busy,
    /// Nobody answers there.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The other side failed.
    ServerFault,
    /// An answer that makes no sense.
    Corrupt,
    /// A password was tried, and the server refuses it.
    Refused,
    /// A check found something that stops the run.
    Blocked,
    /// A newer lease exists: this process must not write any more.
    Fenced,
    /// The configuration, or a file that it names, can't be used.
    Config,
    /// This program broke one of its own promises.
    Internal,
}

/// Whether and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The effect has not happened and trying again would change nothing.
    Never,
    /// The effect has not happened; trying again may help, after this many milliseconds if
    /// the other side named a time.
    Later {
        /// Milliseconds to wait at least.
        after_ms: Option<u64>,
    },
    /// The effect may have happened. Always leads to a probe, never to a blind second try.
    Unknown,
}

/// One failure: what could not be done to what, why, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    kind: Kind,
    retry: Retry,
    /// The wait that the other side asked for, kept where `retry` has no room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_ms: Option<u64>,
    operation: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    /// What other systems call what they were asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requests: Vec<Request>,
}

impl Error {
    /// Says what could not be done, in words that complete "cannot …". Not to be retried
    /// unless a line that knows better says so.
    pub fn new(kind: Kind, operation: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            retry: Retry::Never,
            told_ms: None,
            operation: operation.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            requests: Vec::new(),
        }))
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Marks a failure without effect that may pass by itself.
    #[must_use]
    pub fn later(mut self, after: Option<Duration>) -> Self {
        let after_ms = after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.0.retry = Retry::Later { after_ms };
        self
    }

    /// Marks a failure after which nobody knows whether the effect has happened. Who asked for a
    /// wait still wants it: the probe is a request too.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.0.told_ms = self.told_ms();
        self.0.retry = Retry::Unknown;
        self
    }

    /// Adds what other systems call the requests that led here.
    #[must_use]
    pub fn asked(mut self, requests: Vec<Request>) -> Self {
        self.0.requests = requests;
        self
    }

    /// Says what could not be done in the words of the caller; the former words become a cause.
    #[must_use]
    pub fn during(mut self, operation: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.0.operation, operation.into());
        self.0.causes.insert(0, format!("cannot {inner}"));
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether to try again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How long the other side asks to be left alone.
    pub fn told(&self) -> Option<Duration> {
        self.told_ms().map(Duration::from_millis)
    }

    fn told_ms(&self) -> Option<u64> {
        match self.0.retry {
            Retry::Later { after_ms } => after_ms,
            Retry::Unknown => self.0.told_ms,
            Retry::Never => None,
        }
    }

    /// The same in words, for where nobody waits for it.
    pub fn told_in_words(&self) -> Option<String> {
        let told = self.told().filter(|told| !told.is_zero())?;
        Some(format!("it may be asked again in {}", rounded_up(told)))
    }

    /// What could not be done, as a sentence.
    pub fn operation(&self) -> String {
        format!("cannot {}", self.0.operation)
    }

    /// The reasons, outermost first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// What other systems call the requests that led here.
    pub fn requests(&self) -> &[Request] {
        &self.0.requests
    }

    /// What a person can do.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// A failure of this program's own logic: a promise between two of its parts is broken.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, "go on")
            .because(what)
            .hint("this is a defect of pgrotate; please report it with what `pgrotate history RUN` prints")
    }
}

/// What failed and why. The alternate form, `{:#}`, adds how long the other side asks to wait.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.0.operation)?;
        self.0.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))?;
        match self.told_in_words().filter(|_| f.alternate()) {
            Some(told) => write!(f, ": {told}"),
            None => Ok(()),
        }
    }
}

/// A wait in words, in whole units and never less than it is: who comes back too early waits again.
fn rounded_up(wait: Duration) -> String {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    match seconds {
        0..=120 => format!("{seconds} s"),
        121..=7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_error_is_not_retried() {
        assert_eq!(Error::new(Kind::Busy, "x").retry(), Retry::Never);
    }

    #[test]
    fn context_reads_from_outside_in() {
        let error = Error::new(Kind::Forbidden, "write the secret DATABASE_URL")
            .because("refused with 403")
            .hint("grant \"Secrets: write\"")
            .during("publish github_actions:DATABASE_URL");
        assert_eq!(
            error.to_string(),
            "cannot publish github_actions:DATABASE_URL: cannot write the secret DATABASE_URL: refused with 403"
        );
        assert_eq!(error.operation(), "cannot publish github_actions:DATABASE_URL");
        assert_eq!(error.causes(), ["cannot write the secret DATABASE_URL", "refused with 403"]);
        assert_eq!(error.hints(), ["grant \"Secrets: write\""]);
    }

    #[test]
    fn survives_the_journal() {
        let error = Error::new(Kind::Throttled, "x").later(Some(Duration::from_secs(3)));
        for error in [error.clone(), error.unknown()] {
            let text = serde_json::to_string(&error).unwrap();
            assert_eq!(serde_json::from_str::<Error>(&text).unwrap(), error);
        }
    }

    /// Who asks a vendor about a failure needs the vendor's own name for it.
    #[test]
    fn a_failure_keeps_what_others_call_the_requests_that_led_to_it() {
        let request = Request { system: "azure".into(), what: "GET".into(), id: "4711".into() };
        let error = Error::new(Kind::TimedOut, "x").asked(vec![request.clone()]).unknown().during("y");
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&text).unwrap().requests(), [request]);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_when_the_effect_becomes_unknown() {
        let error = Error::new(Kind::Throttled, "x").later(Some(Duration::from_secs(3))).unknown();
        assert_eq!((error.retry(), error.told()), (Retry::Unknown, Some(Duration::from_secs(3))));
        assert_eq!(error.clone().unknown().told(), error.told());
        assert_eq!(Error::new(Kind::TimedOut, "x").unknown().told(), None);
    }

    #[test]
    fn the_alternate_form_says_how_long_to_wait() {
        let told = |wait| format!("{:#}", Error::new(Kind::Throttled, "x").later(wait));
        let after = |millis| told(Some(Duration::from_millis(millis)));
        assert_eq!(after(7_001), "cannot x: it may be asked again in 8 s");
        assert_eq!(after(601_000), "cannot x: it may be asked again in 11 min");
        assert_eq!(after(3 * 3_600_000), "cannot x: it may be asked again in 3 h");
        assert_eq!([told(None), after(0)], ["cannot x", "cannot x"]);
        let plain = Error::new(Kind::Throttled, "x").later(Some(Duration::from_secs(7)));
        assert_eq!(plain.to_string(), "cannot x", "who waits shows the wait itself");
    }
}
