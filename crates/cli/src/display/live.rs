//! A run on a terminal: one live line per step in hand, with its elapsed time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use pgrotate_core::observer::{Observer, Progress};
use pgrotate_core::plan::Step;
use pgrotate_core::{Environment, RunId, StepId};

use super::plain;

/// The lines of the steps in hand; finished ones scroll away above them.
pub(super) struct Live {
    lines: MultiProgress,
    in_hand: Mutex<BTreeMap<StepId, ProgressBar>>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { lines: MultiProgress::new(), in_hand: Mutex::default() }
    }

    fn begin(&self, step: &Step, attempt: u32) {
        let style =
            ProgressStyle::with_template("  {spinner} {msg} {elapsed}").expect("a template of this file");
        let bar = self.lines.add(ProgressBar::new_spinner().with_style(style));
        bar.set_message(match attempt {
            1 => step.id.to_string(),
            attempt => format!("{} (try {attempt})", step.id),
        });
        bar.enable_steady_tick(Duration::from_millis(100));
        if let Some(former) = self.bars().insert(step.id.clone(), bar) {
            former.finish_and_clear();
        }
    }

    fn wait(&self, step: &Step, pause: Duration) {
        if let Some(bar) = self.bars().get(&step.id) {
            bar.set_message(format!("{}: waiting {} for the next try", step.id, super::seconds(pause)));
        }
    }

    fn end(&self, step: &Step) {
        if let Some(bar) = self.bars().remove(&step.id) {
            bar.finish_and_clear();
        }
    }

    fn bars(&self) -> std::sync::MutexGuard<'_, BTreeMap<StepId, ProgressBar>> {
        self.in_hand.lock().expect("no holder of this lock panics")
    }
}

impl Observer for Live {
    fn notice(&self, _at: Timestamp, environment: &Environment, run: RunId, progress: &Progress<'_>) {
        match progress {
            Progress::StepStarted { step, attempt } => self.begin(step, *attempt),
            Progress::StepFailed { step, retry_in: Some(pause), .. } => self.wait(step, *pause),
            Progress::StepFinished { step, .. } | Progress::StepFailed { step, .. } => self.end(step),
            _ => {}
        }
        if let Some(text) = plain::line(run, progress) {
            self.lines.suspend(|| super::err(&format!("{environment}  {text}\n")));
        }
    }
}
