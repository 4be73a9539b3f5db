//! A run as plain lines, one per step, for logs and pipes.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use pgrotate_core::journal::Effect;
use pgrotate_core::observer::{Observer, Progress};
use pgrotate_core::plan::Action;
use pgrotate_core::provider::{Finding, Severity, grouped};
use pgrotate_core::{Environment, RunId};

use super::{err, outcome, seconds};

/// Prints each step when it is done.
#[derive(Debug, Default)]
pub(super) struct Lines {
    began: Mutex<Option<Timestamp>>,
}

impl Observer for Lines {
    fn notice(&self, at: Timestamp, environment: &Environment, run: RunId, progress: &Progress<'_>) {
        let mut began = self.began.lock().expect("no holder of this lock panics");
        if matches!(progress, Progress::LeaseWanted) {
            *began = Some(at);
        }
        let since = began.map_or(Duration::ZERO, |began| at.duration_since(began).unsigned_abs());
        if let Some(text) = line(run, progress) {
            err(&format!("{environment} {:>8}  {text}\n", seconds(since)));
        }
    }
}

/// The warnings among findings, each once with all that it is about; and how many other things
/// can't be seen.
fn warnings(findings: &[Finding]) -> String {
    let warnings = grouped(findings.iter().filter(|finding| finding.severity == Severity::Warning));
    let unseen = match findings.iter().filter(|finding| finding.severity == Severity::Unseen).count() {
        0 => String::new(),
        1 => "; one thing can't be seen before (pgrotate check names it)".to_owned(),
        count => format!("; {count} things can't be seen before (pgrotate check lists them)"),
    };
    let shown = warnings.into_iter().map(|finding| {
        let finding = Finding { mend: None, ..finding };
        format!("\n{}", super::finding(&finding).trim_end())
    });
    std::iter::once(unseen).chain(shown).collect()
}

/// What there is to say about a piece of news, if anything.
pub(super) fn line(run: RunId, progress: &Progress<'_>) -> Option<String> {
    match progress {
        Progress::StepStarted { step, .. } if let Action::Soak { seconds: soak } = step.action => {
            let time = seconds(Duration::from_secs(soak));
            Some(format!("wait    {}: {time} after the proofs, then everything is proven again", step.id))
        }
        Progress::LeaseWanted | Progress::StepStarted { .. } | Progress::RunEnded { .. } => None,
        Progress::LeaseTaken => Some("ok      lease".into()),
        Progress::RunStarted { plan, resumed } => {
            let verb = if *resumed { "goes on" } else { "begins" };
            Some(format!("run     {run} {verb}: {} steps, plan {}", plan.steps.len(), plan.hash().short()))
        }
        Progress::StepFinished { step, outcome: what, elapsed } => {
            let (mark, words) = match what.effect {
                Effect::Unseen | Effect::Skipped => {
                    (super::words::effect(what.effect), what.notes.join(", "))
                }
                _ => ("ok", outcome(what)),
            };
            let (id, findings) = (&step.id, warnings(&what.findings));
            Some(format!("{mark:<7} {id} ({}): {words}{findings}", seconds(*elapsed)))
        }
        Progress::StepFailed { step, error, retry_in: Some(pause) } => {
            Some(format!("again   {} in {}: {error}", step.id, seconds(*pause)))
        }
        Progress::StepFailed { step, error, retry_in: None } => Some(format!("failed  {}: {error}", step.id)),
        Progress::StepParked { step, .. } => Some(format!("parked  {}", step.id)),
    }
}
