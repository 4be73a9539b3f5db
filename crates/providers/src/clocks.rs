//! How late it is elsewhere: what the answers that a check fetches anyway tell of the other side's clock.
//!
//! Requests to AWS are signed with a time, certificates and tokens begin and end, and a GitHub App signs in with a
//! proof that lives for minutes: a clock that is wrong makes all of that fail, each with words of its own. AWS
//! refuses a signature that is five minutes off (`RequestTimeTooSkewed`; AWS, "Elements of an AWS API request
//! signature").

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use pgrotate_core::provider::{Finding, Severity};

/// What AWS is called among the systems.
pub(crate) const AWS: &str = "AWS";
/// From here on somebody should look.
const WORTH_A_LOOK: SignedDuration = SignedDuration::from_secs(60);
/// From here on AWS refuses.
const AWS_REFUSES: SignedDuration = SignedDuration::from_mins(5);

/// How far this machine's clock is ahead of each system's, where that is furthest.
#[derive(Default)]
pub struct Clocks(Mutex<BTreeMap<String, SignedDuration>>);

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clocks")
    }
}

impl Clocks {
    /// Takes in what a system's clock said when ours said `now`.
    pub(crate) fn hear(&self, system: &str, told: Timestamp, now: Timestamp) {
        let ahead = now.duration_since(told);
        let mut known = self.0.lock().expect("no holder of this lock panics");
        let furthest = known.entry(system.to_owned()).or_default();
        if ahead.abs() > furthest.abs() {
            *furthest = ahead;
        }
    }

    /// The same of an answer's `Date` header, which tells whole seconds.
    pub(crate) fn hear_header(&self, system: &str, date: Option<&str>, now: Timestamp) {
        if let Some(told) = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok()) {
            self.hear(system, told, now);
        }
    }

    /// What a person should know of it.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let known = self.0.lock().expect("no holder of this lock panics");
        let off = |ahead: bool| {
            let of = known.iter().filter(move |(_, by)| by.abs() > WORTH_A_LOOK && by.is_positive() == ahead);
            let of: Vec<(&str, SignedDuration)> =
                of.map(|(system, by)| (system.as_str(), by.abs())).collect();
            finding(&of, if ahead { "ahead of" } else { "behind" })
        };
        [off(true), off(false)].into_iter().flatten().collect()
    }
}

fn finding(off: &[(&str, SignedDuration)], way: &str) -> Option<Finding> {
    if off.is_empty() {
        return None;
    }
    let refuses = off.iter().any(|(system, by)| *system == AWS && *by > AWS_REFUSES);
    let systems: Vec<String> =
        off.iter().map(|(system, by)| format!("{} {way} that of {system}", amount(*by))).collect();
    let (severity, why) = match refuses {
        true => (Severity::Blocks, "AWS refuses every request that is signed more than five minutes off"),
        false => (
            Severity::Warning,
            "signatures, certificates and tokens are good for a time, and fail outside of it",
        ),
    };
    let what = format!("this machine's clock is {}", systems.join(", and "));
    let mend = "let the clock be set by the network (timedatectl set-ntp true); if all others agree with it, that \
                one system's clock is wrong";
    Some(Finding::new(severity, "clock", what).why(why).mend(mend))
}

/// A time as people say it.
fn amount(by: SignedDuration) -> String {
    let seconds = by.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(told: &[(&str, i64)]) -> Vec<(Severity, String)> {
        let (clocks, now) = (Clocks::default(), Timestamp::from_second(1_767_225_600).unwrap());
        for (system, ahead) in told {
            clocks.hear(system, now - SignedDuration::from_secs(*ahead), now);
        }
        clocks.findings().into_iter().map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn a_minute_is_worth_a_word_and_five_stop_what_aws_is_asked_for() {
        assert_eq!(found(&[("GitHub", 60), (AWS, -59)]), []);
        let words = |text: &str| format!("this machine's clock is {text}");
        assert_eq!(
            found(&[("GitHub", 61)]),
            [(Severity::Warning, words("1 min 1 s ahead of that of GitHub"))]
        );
        let both = words("5 min 1 s behind that of AWS, and 2 h 0 min behind that of GitHub");
        assert_eq!(found(&[("GitHub", -7200), (AWS, -301)]), [(Severity::Blocks, both)]);
        assert_eq!(found(&[(AWS, 300)])[0].0, Severity::Warning);
        assert_eq!(found(&[("GitHub", -7200)])[0].0, Severity::Warning, "only AWS is known to refuse");
    }

    #[test]
    fn the_furthest_of_a_system_counts() {
        assert_eq!(found(&[("GitHub", 90), ("GitHub", 0), ("GitHub", -100)]).len(), 1);
        let clocks = Clocks::default();
        let now: Timestamp = "2026-01-01T00:03:00Z".parse().unwrap();
        for date in [Some("Thu, 01 Jan 2026 00:00:00 GMT"), Some("soon"), None] {
            clocks.hear_header("GitHub", date, now);
        }
        assert!(clocks.findings()[0].what.contains("3 min 0 s ahead"));
    }
}
