//! What became of a load's requests, as one JSON object.
//!
//! | key | what |
//! | --- | --- |
//! | `began`, `seconds`, `rate` | when, for how long, how many a second |
//! | `sent`, `fresh`, `failed` | all requests, those that log in to the database afresh, those that failed |
//! | `late_ms` | by how much the latest request missed its time: beyond some milliseconds the machine was too busy |
//! | `failures` | by kind and reason, the milliseconds after `began` at which each was due |
//! | `failed_per_100ms` | how many of those that were due in each tenth of a second failed |
//! | `without_login_ms` | `from`, `longest`: the longest time in which no fresh login succeeded |
//! | `latency_ms` | per kind, quantiles from when a request was due to the end of its answer |

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What a request asks of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A login on a connection of its own.
    Fresh,
    /// A query on a connection of the application's pool.
    Read,
    /// A row more, by the pool too.
    Write,
}

/// One request that has come to an end.
pub(super) struct Answer {
    pub(super) kind: Kind,
    /// When it was to go out, from the beginning on.
    pub(super) due: Duration,
    pub(super) took: Duration,
    /// Why it failed, if it did.
    pub(super) failure: Option<String>,
}

/// All of them.
pub(crate) struct Summary {
    began: Timestamp,
    rate: u32,
    length: Duration,
    late: Duration,
    answers: Vec<Answer>,
}

impl Summary {
    pub(super) fn new(began: Timestamp, rate: u32) -> Self {
        Self { began, rate, length: Duration::ZERO, late: Duration::ZERO, answers: Vec::new() }
    }

    pub(super) fn was_late(&mut self, late: Duration) {
        self.late = self.late.max(late);
    }

    pub(super) fn count(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    pub(super) fn ends(&mut self, length: Duration) {
        self.length = length;
    }

    /// The JSON object.
    pub(crate) fn shown(&self) -> Value {
        let failed: Vec<&Answer> = self.answers.iter().filter(|answer| answer.failure.is_some()).collect();
        let fresh = self.answers.iter().filter(|answer| answer.kind == Kind::Fresh).count();
        let (from, longest) = self.without_login();
        json!({
            "began": self.began.to_string(),
            "seconds": self.length.as_secs_f64(),
            "rate": self.rate,
            "sent": self.answers.len(),
            "fresh": fresh,
            "failed": failed.len(),
            "late_ms": milliseconds(self.late),
            "failures": by_reason(&failed),
            "failed_per_100ms": self.per_tenth(&failed),
            "without_login_ms": {"from": milliseconds(from), "longest": milliseconds(longest)},
            "latency_ms": self.latencies(),
        })
    }

    fn per_tenth(&self, failed: &[&Answer]) -> Vec<u32> {
        let tenth = |due: Duration| usize::try_from(due.as_millis() / 100).unwrap_or(usize::MAX);
        let mut tenths = vec![0; tenth(self.length) + 1];
        for answer in failed {
            if let Some(count) = tenths.get_mut(tenth(answer.due)) {
                *count += 1;
            }
        }
        tenths
    }

    /// Where the longest time without a successful fresh login begins, and how long it is. A login counts when it is
    /// answered: one that was kept waiting shortens nothing.
    fn without_login(&self) -> (Duration, Duration) {
        let logins = self.answers.iter().filter(|answer| answer.kind == Kind::Fresh);
        let mut moments: Vec<Duration> = logins
            .filter(|answer| answer.failure.is_none())
            .map(|answer| answer.due + answer.took)
            .filter(|moment| *moment < self.length)
            .collect();
        moments.extend([Duration::ZERO, self.length]);
        moments.sort_unstable();
        let spans = moments.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
        spans.max_by_key(|(_, length)| *length).unwrap_or_default()
    }

    fn latencies(&self) -> Value {
        let mut kinds: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
        for answer in &self.answers {
            kinds.entry(answer.kind).or_default().push(answer.took);
        }
        let shown = kinds.into_iter().map(|(kind, mut took)| {
            took.sort_unstable();
            let at = |share: usize| milliseconds(took[(took.len() - 1) * share / 1000]);
            let quantiles = json!({"p50": at(500), "p90": at(900), "p99": at(990), "max": at(1000)});
            (name(kind).to_owned(), quantiles)
        });
        Value::Object(shown.collect())
    }
}

fn by_reason(failed: &[&Answer]) -> Value {
    let mut reasons: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for answer in failed {
        let why = answer.failure.as_deref().unwrap_or_default();
        let due = u64::try_from(answer.due.as_millis()).unwrap_or(u64::MAX);
        reasons.entry(format!("{}: {why}", name(answer.kind))).or_default().push(due);
    }
    reasons.values_mut().for_each(|times| times.sort_unstable());
    Value::Object(reasons.into_iter().map(|(reason, times)| (reason, json!(times))).collect::<Map<_, _>>())
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Fresh => "fresh",
        Kind::Read => "read",
        Kind::Write => "write",
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(answers: &[(Kind, u64, u64, Option<&str>)]) -> Value {
        let mut summary = Summary::new(Timestamp::UNIX_EPOCH, 10);
        for (kind, due, took, failure) in answers {
            let (due, took) = (Duration::from_millis(*due), Duration::from_millis(*took));
            summary.count(Answer { kind: *kind, due, took, failure: failure.map(str::to_owned) });
        }
        summary.ends(Duration::from_millis(1000));
        summary.shown()
    }

    #[test]
    fn failures_stand_at_the_time_at_which_they_were_due() {
        let shown = summary(&[
            (Kind::Fresh, 250, 3000, Some("status 503")),
            (Kind::Read, 210, 5, Some("status 500")),
            (Kind::Fresh, 50, 5, Some("status 503")),
            (Kind::Write, 999, 5, None),
        ]);
        assert_eq!((&shown["sent"], &shown["fresh"], &shown["failed"]), (&json!(4), &json!(2), &json!(3)));
        let failures = json!({"fresh: status 503": [50, 250], "read: status 500": [210]});
        assert_eq!(shown["failures"], failures);
        assert_eq!(shown["failed_per_100ms"], json!([1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn a_login_ends_the_time_without_one_when_it_is_answered_and_pooled_requests_never_do() {
        let shown = summary(&[
            (Kind::Fresh, 0, 100, None),
            (Kind::Fresh, 200, 500, None),
            (Kind::Read, 300, 10, None),
            (Kind::Fresh, 400, 10, Some("status 503")),
            (Kind::Fresh, 800, 10, None),
        ]);
        assert_eq!(shown["without_login_ms"], json!({"from": 100.0, "longest": 600.0}));
        assert_eq!(summary(&[])["without_login_ms"], json!({"from": 0.0, "longest": 1000.0}));
        let late = summary(&[(Kind::Fresh, 900, 500, None)]);
        assert_eq!(late["without_login_ms"]["longest"], 1000.0, "what is answered after the end was none");
    }

    #[test]
    fn quantiles_are_those_of_each_kind() {
        let mut answers: Vec<_> = (1..=101).map(|took| (Kind::Read, 0, took, None)).collect();
        answers.push((Kind::Write, 0, 7, None));
        let shown = summary(&answers);
        let read = json!({"p50": 51.0, "p90": 91.0, "p99": 100.0, "max": 101.0});
        assert_eq!(
            shown["latency_ms"],
            json!({"read": read, "write": {"p50": 7.0, "p90": 7.0, "p99": 7.0, "max": 7.0}})
        );
    }
}
