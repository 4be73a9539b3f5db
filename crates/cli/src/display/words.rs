//! Values in words.

use std::time::Duration;

use pgrotate_core::Error;
use pgrotate_core::journal::{Effect, Outcome};

use super::{RED, styled};

/// A time span as people read it.
pub(crate) fn seconds(span: Duration) -> String {
    match span.as_secs() {
        0..60 => format!("{:.1} s", span.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// What a step did, in one word.
pub(crate) fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Changed => "changed",
        Effect::AlreadyDone => "already there",
        Effect::Confirmed => "confirmed",
        Effect::Kept => "kept",
        Effect::Skipped => "skipped",
        Effect::Unseen => "unseen",
    }
}

/// What came of a step, in a line.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    let version = outcome.version.as_ref().map(|version| format!("version {}", short(version.as_str())));
    let notes = outcome.notes.iter().cloned();
    [effect(outcome.effect).to_owned()].into_iter().chain(version).chain(notes).collect::<Vec<_>>().join(", ")
}

/// A version id short enough for a table: what stands after the last slash of a URL.
pub(crate) fn short(version: &str) -> String {
    let last = version.rsplit('/').next().unwrap_or(version);
    if last.chars().count() > 16 {
        format!("{}…", last.chars().take(12).collect::<String>())
    } else {
        last.to_owned()
    }
}

/// A failure: what failed, each cause on its line, how long to wait where somebody said so, then what helps.
pub(super) fn error(error: &Error) -> String {
    let first = format!("{} {}\n", styled(RED, "error:"), error.operation());
    let causes = error.causes().iter().map(|cause| format!("cause: {cause}\n"));
    let told = error.told_in_words().map(|told| format!("cause: {told}\n"));
    let hints = error.hints().iter().map(|hint| format!("hint:  {hint}\n"));
    std::iter::once(first).chain(causes).chain(told).chain(hints).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_versions_are_short() {
        assert_eq!(seconds(Duration::from_millis(1_449)), "1.4 s");
        assert_eq!(seconds(Duration::from_secs(63)), "1 min 03 s");
        assert_eq!(short("https://v/secrets/n/0123456789abcdef0123456789abcdef"), "0123456789ab…");
        assert_eq!(short("7"), "7");
    }
}
