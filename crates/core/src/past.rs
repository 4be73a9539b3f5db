//! What earlier runs have shown, and what a new run must not contradict.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{CopyId, Environment, RunId};
use crate::provider::{Finding, Severity};

/// What the journal knows about an environment.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// What its systems truly were when a run last succeeded.
    pub pinned: Option<Pinned>,
    /// The environment that has to be rotated first.
    pub forerunner: Option<Forerunner>,
    /// Which run wrote each copy last.
    pub published: BTreeMap<CopyId, Published>,
}

/// The identities that a successful run has proven.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// Which run.
    pub run: RunId,
    /// When it was done.
    pub at: Timestamp,
    /// What each system called itself.
    pub identities: BTreeMap<String, String>,
}

/// An environment whose rotation has to have succeeded not long ago.
#[derive(Clone, Debug)]
pub struct Forerunner {
    /// Which.
    pub environment: Environment,
    /// How long ago at most.
    pub within: Duration,
    /// Its last success.
    pub proven: Option<(RunId, Timestamp)>,
}

/// When a copy was last written, and by which run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The run.
    pub run: RunId,
    /// When its step was done.
    pub at: Timestamp,
}

/// What a person lets pass in one run, and why. It stands in the run's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// The strangers among the sessions that are let go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
    /// Why the run need not wait for the environment that has to be rotated first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
    /// Why systems are others than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
}

impl Overrides {
    /// Whether everything is as usual.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Past {
    /// What in a look at the environment does not fit what was known.
    pub fn findings(
        &self,
        identities: &BTreeMap<String, String>,
        overrides: &Overrides,
        now: Timestamp,
    ) -> Vec<Finding> {
        let moved = self.pinned.iter().flat_map(|pinned| pinned.findings(identities, overrides));
        moved.chain(self.forerunner.as_ref().and_then(|own| own.finding(overrides, now))).collect()
    }
}

impl Pinned {
    fn findings(&self, seen: &BTreeMap<String, String>, overrides: &Overrides) -> Vec<Finding> {
        let moved = |(subject, before): (&String, &String)| {
            let now = seen.get(subject).filter(|now| *now != before)?;
            let what = format!("it is {now} now; the run {} proved {before} at {:.0}", self.run, self.at);
            Some(match &overrides.moved {
                Some(reason) => Finding::new(Severity::Warning, subject.as_str(), what)
                    .mend(format!("taken for right, because: {reason}")),
                None => Finding::new(Severity::Blocks, subject.as_str(), what)
                    .why("the configuration may have come to point at another environment's system")
                    .mend("correct the configuration; if the system has really moved: --moved 'WHY'"),
            })
        };
        self.identities.iter().filter_map(moved).collect()
    }
}

impl Forerunner {
    fn finding(&self, overrides: &Overrides, now: Timestamp) -> Option<Finding> {
        let Self { environment, within, proven } = self;
        let limit = words(*within);
        let what = match proven {
            Some((_, at)) if now.duration_since(*at).unsigned_abs() <= *within => return None,
            Some((run, at)) => {
                format!(
                    "{environment} was last rotated and proven at {at:.0} (run {run}); that may be {limit} ago"
                )
            }
            None => format!("{environment} comes first, and no run of it has succeeded here"),
        };
        let subject = "proven first";
        Some(match &overrides.unproven {
            Some(reason) => {
                Finding::new(Severity::Warning, subject, what).mend(format!("let pass, because: {reason}"))
            }
            None => Finding::new(Severity::Blocks, subject, what)
                .why("what goes wrong should go wrong there")
                .mend(format!("pgrotate rotate {environment}; in need: --without-proof 'WHY'")),
        })
    }
}

/// A time in whole days, hours or minutes.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        _ if seconds.is_multiple_of(86_400) => (seconds / 86_400, "day"),
        _ if seconds.is_multiple_of(3_600) => (seconds / 3_600, "hour"),
        _ => (seconds / 60, "minute"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run() -> RunId {
        "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_system_that_is_another_one_is_shown_with_both_identities() {
        let pinned = Pinned {
            run: run(),
            at: at(0),
            identities: map(&[("server", "a"), ("vault", "v"), ("gone", "g")]),
        };
        let past = Past { pinned: Some(pinned), ..Past::default() };
        let find = |seen: &[(&str, &str)], overrides: &Overrides| past.findings(&map(seen), overrides, at(1));
        assert_eq!(find(&[("server", "a"), ("vault", "v"), ("new", "n")], &Overrides::default()), []);
        let moved = find(&[("server", "b"), ("vault", "v")], &Overrides::default());
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].severity, moved[0].subject.as_str()), (Severity::Blocks, "server"));
        assert!(
            moved[0].what.contains("it is b now") && moved[0].what.contains("proved a at"),
            "{}",
            moved[0].what
        );
        let meant = Overrides { moved: Some("new region".into()), ..Overrides::default() };
        let moved = find(&[("server", "b")], &meant);
        assert_eq!(moved[0].severity, Severity::Warning);
        assert!(moved[0].mend.as_ref().unwrap().contains("new region"));
    }

    #[test]
    fn the_first_one_has_to_have_succeeded_not_long_ago() {
        let past = |proven| Past {
            forerunner: Some(Forerunner {
                environment: "staging".into(),
                within: Duration::from_secs(7 * 86_400),
                proven,
            }),
            ..Past::default()
        };
        let find = |proven, overrides: &Overrides| {
            past(proven).findings(&BTreeMap::new(), overrides, at(7 * 86_400)).pop()
        };
        let none = Overrides::default();
        assert_eq!(find(Some((run(), at(0))), &none), None);
        let old = find(Some((run(), at(-1))), &none).unwrap();
        assert!(
            old.severity == Severity::Blocks && old.what.contains("that may be 7 days ago"),
            "{}",
            old.what
        );
        let never = find(None, &none).unwrap();
        assert!(
            never.severity == Severity::Blocks && never.what.contains("staging comes first"),
            "{}",
            never.what
        );
        let need = Overrides { unproven: Some("leaked".into()), ..none };
        assert_eq!(find(None, &need).unwrap().severity, Severity::Warning);
    }

    /// The journal leaves out what is empty, and must not leave out a reason.
    #[test]
    fn whatever_is_let_pass_is_something() {
        let usual = Overrides::default();
        assert!(usual.is_empty());
        let waived = Overrides { waived: vec!["psql".into()], ..usual.clone() };
        let unproven = Overrides { unproven: Some("leaked".into()), ..usual.clone() };
        let moved = Overrides { moved: Some("new region".into()), ..usual };
        assert!([waived, unproven, moved].iter().all(|own| !own.is_empty()));
    }

    #[test]
    fn times_are_said_in_their_own_unit() {
        let said = [86_400, 7_200, 3_600, 5_400].map(|seconds| words(Duration::from_secs(seconds)));
        assert_eq!(said, ["1 day", "2 hours", "1 hour", "90 minutes"]);
    }
}
