//! Faults on request: what a test sets to see the rotation survive.
//!
//! *before* means that the vendor never saw the request; *after* means that the effect has happened and only its
//! answer is spoilt, the case in which a client can't know.
//!
//! A `status` may carry the vendor's own code, words and headers, so that each one's way to say "not so fast" can be
//! played as it is documented.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One fault, as `POST /_sandbox/faults` takes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// Only requests with this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// Only requests with this in their path and query, or in the name of their AWS operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_contains: Option<String>,
    /// Only requests with this in their host, which tells one key vault from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_contains: Option<String>,
    /// Only requests to this system, as `GET /_sandbox/requests` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// The first matching request to be hit, counted from 1 since the fault was set.
    #[serde(default = "one")]
    nth: u32,
    /// How many matching requests are hit from then on.
    #[serde(default = "one")]
    times: u32,
    /// Instead of the effect, or after it.
    pub(crate) when: When,
    /// What happens.
    pub(crate) kind: Kind,
    /// The answer's status, for `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// The answer's Retry-After in seconds, for `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_s: Option<u64>,
    /// The vendor's code in the answer, for `status`; may be empty, as Azure's for a busy server is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// The vendor's words in the answer, for `status`. `{body}` stands for what was sent: some repeat what they refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// More headers of the answer, for `status`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// How long to wait, for `delay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    /// For `hold`: the request is carried out in the end even if its caller has gone meanwhile, as one that
    /// lingered in a network. By itself such a request never arrives.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) late: bool,
}

const fn one() -> u32 {
    1
}

/// Whether the effect happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum When {
    /// The vendor never sees the request (`delay`, `hold`: it sees it late).
    Before,
    /// The effect has happened; the answer is spoilt.
    After,
}

/// What a fault does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Answers with a status.
    Status,
    /// Closes the connection without an answer.
    Drop,
    /// Waits for a time.
    Delay,
    /// Waits until the faults are deleted: the moment to kill a client at.
    Hold,
}

/// What a fault is matched against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The request's method.
    pub(crate) method: &'a str,
    /// Its path and query, whole.
    pub(crate) path: &'a str,
    /// Its host.
    pub(crate) host: &'a str,
    /// The system it goes to.
    pub(crate) system: &'a str,
    /// The AWS operation, else empty.
    pub(crate) operation: &'a str,
}

/// The faults that are set.
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
    /// Counts how often the faults have been deleted; a held request waits for it to change.
    cleared: watch::Sender<u64>,
}

struct Rule {
    fault: Fault,
    seen: u32,
}

/// A fault that hits a request, with what it takes to wait for its end.
pub(crate) struct Hit {
    /// The fault.
    pub(crate) fault: Fault,
    cleared: watch::Receiver<u64>,
    since: u64,
}

impl Fault {
    /// What makes no sense is refused when it is set, not ignored when it should hit.
    fn check(&self) -> Result<(), String> {
        if self.nth == 0 || self.times == 0 {
            return Err("nth and times count from 1".into());
        }
        self.check_answer()?;
        match self.kind {
            kind if self.late && kind != Kind::Hold => Err("`late` belongs to kind `hold`".into()),
            Kind::Status => match self.status {
                Some(200..=599) => Ok(()),
                Some(_) => Err("status must lie between 200 and 599".into()),
                None => Err("kind `status` needs `status`".into()),
            },
            Kind::Delay if self.delay_ms.is_none() => Err("kind `delay` needs `delay_ms`".into()),
            _ => Ok(()),
        }
    }

    fn check_answer(&self) -> Result<(), String> {
        let says = self.code.is_some() || self.message.is_some() || !self.headers.is_empty();
        if says && self.kind != Kind::Status {
            return Err("`code`, `message` and `headers` belong to kind `status`".into());
        }
        let odd = |(name, value): &(&String, &String)| {
            HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err()
        };
        match self.headers.iter().find(odd) {
            Some((name, _)) => Err(format!("the header {name:?} can't be sent")),
            None => Ok(()),
        }
    }

    /// Puts what was sent into the vendor's words, where they want it.
    pub(crate) fn repeat(&mut self, body: &[u8]) {
        if let Some(message) = &mut self.message {
            *message = message.replace("{body}", &String::from_utf8_lossy(body));
        }
    }

    fn matches(&self, target: &Target<'_>) -> bool {
        let within =
            |part: &Option<String>, whole: &str| part.as_ref().is_none_or(|part| whole.contains(part));
        self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(target.method))
            && (within(&self.path_contains, target.path) || within(&self.path_contains, target.operation))
            && within(&self.host_contains, target.host)
            && self.system.as_ref().is_none_or(|system| system == target.system)
    }
}

impl Faults {
    /// No faults.
    pub(crate) fn new() -> Self {
        Self { rules: Mutex::default(), cleared: watch::Sender::new(0) }
    }

    /// Sets one more fault.
    pub(crate) fn set(&self, fault: Fault) -> Result<(), String> {
        fault.check()?;
        self.rules().push(Rule { fault, seen: 0 });
        Ok(())
    }

    /// Deletes all faults and lets held requests go on.
    pub(crate) fn clear(&self) {
        let mut rules = self.rules();
        rules.clear();
        self.cleared.send_modify(|count| *count += 1);
    }

    /// The faults that are set.
    pub(crate) fn list(&self) -> Vec<Fault> {
        self.rules().iter().map(|rule| rule.fault.clone()).collect()
    }

    /// Counts a request, and says which faults hit it.
    pub(crate) fn hits(&self, target: &Target<'_>) -> Vec<Hit> {
        let mut rules = self.rules();
        // Under the rules' lock: a deletion after this line changes the number that a hold waits on.
        let since = *self.cleared.borrow();
        let mut hits = Vec::new();
        for rule in rules.iter_mut().filter(|rule| rule.fault.matches(target)) {
            rule.seen += 1;
            let first = rule.fault.nth;
            if rule.seen >= first && rule.seen - first < rule.fault.times {
                hits.push(Hit { fault: rule.fault.clone(), cleared: self.cleared.subscribe(), since });
            }
        }
        hits
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hit {
    /// Waits as `delay` and `hold` do; the other kinds don't wait.
    pub(crate) async fn wait(&mut self) {
        match self.fault.kind {
            Kind::Delay => tokio::time::sleep(Duration::from_millis(self.fault.delay_ms.unwrap_or(0))).await,
            Kind::Hold => {
                let since = self.since;
                // An error means that the sandbox is ending, which ends the wait as well.
                let _ = self.cleared.wait_for(|count| *count != since).await;
            }
            Kind::Status | Kind::Drop => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PUT: Target<'_> = Target {
        method: "PUT",
        path: "/secrets/database-url?api-version=7.6",
        host: "kv-mindwell-dev.vault.localhost:1",
        system: "key_vault",
        operation: "",
    };

    fn fault(value: serde_json::Value) -> Fault {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_nth_request_is_hit_and_as_many_as_were_asked_for() {
        let faults = Faults::new();
        faults.set(fault(json!({"nth": 2, "times": 2, "when": "before", "kind": "drop"}))).unwrap();
        let hit: Vec<bool> = (0..5).map(|_| !faults.hits(&PUT).is_empty()).collect();
        assert_eq!(hit, [false, true, true, false, false]);
    }

    #[test]
    fn every_condition_has_to_match() {
        let matching = json!({"method": "put", "path_contains": "database-url", "host_contains": "-dev.",
            "system": "key_vault", "when": "after", "kind": "hold"});
        assert!(fault(matching.clone()).matches(&PUT));
        for (key, other) in [
            ("method", "GET"),
            ("path_contains", "admin-password"),
            ("host_contains", "-prod."),
            ("system", "github"),
        ] {
            let mut value = matching.clone();
            value[key] = json!(other);
            assert!(!fault(value).matches(&PUT), "{key}");
        }
    }

    #[test]
    fn an_aws_operation_is_found_by_its_name() {
        let aws = Target { method: "POST", path: "/", host: "", system: "aws", operation: "PutSecretValue" };
        assert!(fault(json!({"path_contains": "PutSecret", "when": "before", "kind": "drop"})).matches(&aws));
        assert!(
            !fault(json!({"path_contains": "GetSecret", "when": "before", "kind": "drop"})).matches(&aws)
        );
    }

    #[test]
    fn nonsense_is_refused_when_set() {
        let faults = Faults::new();
        for value in [
            json!({"when": "before", "kind": "status"}),
            json!({"when": "before", "kind": "status", "status": 99}),
            json!({"when": "before", "kind": "delay"}),
            json!({"when": "before", "kind": "drop", "nth": 0}),
            json!({"when": "before", "kind": "drop", "times": 0}),
            json!({"when": "before", "kind": "drop", "late": true}),
            json!({"when": "before", "kind": "drop", "code": "Throttled"}),
            json!({"when": "before", "kind": "status", "status": 429, "headers": {"no name": "1"}}),
            json!({"when": "before", "kind": "status", "status": 429, "headers": {"x-a": "1\n2"}}),
        ] {
            assert!(faults.set(fault(value.clone())).is_err(), "{value}");
        }
        assert!(
            serde_json::from_value::<Fault>(json!({"when": "before", "kind": "drop", "path": "x"})).is_err()
        );
        assert!(faults.list().is_empty());
    }

    #[tokio::test]
    async fn a_held_request_goes_on_when_the_faults_are_deleted() {
        let faults = Faults::new();
        faults.set(fault(json!({"when": "before", "kind": "hold"}))).unwrap();
        let mut hit = faults.hits(&PUT).remove(0);
        let early = tokio::time::timeout(Duration::from_millis(20), hit.wait()).await;
        assert!(early.is_err(), "nothing has been deleted yet");
        faults.clear();
        tokio::time::timeout(Duration::from_secs(5), hit.wait()).await.unwrap();
        assert!(faults.hits(&PUT).is_empty());
    }
}
