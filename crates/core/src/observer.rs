//! Who watches a run: a progress display, a stream of JSON lines, a test.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::Error;
use crate::executor::End;
use crate::ids::{Environment, RunId};
use crate::journal::Outcome;
use crate::plan::{Plan, Step};

/// What an observer hears.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The lease is being taken.
    LeaseWanted,
    /// The lease is held.
    LeaseTaken,
    /// The run begins or goes on.
    RunStarted {
        /// What it does.
        plan: &'a Plan,
        /// Whether an earlier process had begun it.
        resumed: bool,
    },
    /// A try of a step begins.
    StepStarted {
        /// Which.
        step: &'a Step,
        /// Its how many-th try.
        attempt: u32,
    },
    /// A step is done.
    StepFinished {
        /// Which.
        step: &'a Step,
        /// What came of it.
        outcome: &'a Outcome,
        /// How long the try took.
        elapsed: Duration,
    },
    /// A try failed.
    StepFailed {
        /// Which.
        step: &'a Step,
        /// Why.
        error: &'a Error,
        /// How long until the next try; `None` if there will be none.
        retry_in: Option<Duration>,
    },
    /// A step waits for a person.
    StepParked {
        /// Which.
        step: &'a Step,
        /// Why.
        error: &'a Error,
    },
    /// The process is done with the run.
    RunEnded {
        /// How.
        end: &'a End,
    },
}

/// Hears what happens, when it happens. Must not block.
pub trait Observer: Send + Sync {
    /// One piece of news.
    fn notice(&self, at: Timestamp, environment: &Environment, run: RunId, progress: &Progress<'_>);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn notice(&self, _at: Timestamp, _environment: &Environment, _run: RunId, _progress: &Progress<'_>) {}
}
