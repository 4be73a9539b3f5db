//! Writes the run down where people read about it.

use crate::error::Result;
use crate::journal::Outcome;
use crate::plan::Step;
use crate::provider::Story;
use crate::rotation::{Rotation, gone};
use crate::run::RunState;

/// Writes the story in one place, once.
pub(crate) async fn perform(rotation: &Rotation, id: &str, step: &Step, run: &RunState) -> Result<Outcome> {
    let recorder = rotation.recorders.iter().find(|own| own.id() == id).ok_or_else(|| gone(id))?;
    let again = run.step(&step.id).may_have_happened;
    recorder.record(&story(rotation, run), again).await
}

fn story(rotation: &Rotation, run: &RunState) -> Story {
    let verified = run.plan().of_kind("verify").filter_map(|step| run.step(&step.id).finished_at).max();
    Story {
        run: run.run,
        takes_back: run.plan().back().map(|back| back.run),
        environment: rotation.environment.clone(),
        operator: run.start.operator.clone(),
        ticket: run.start.ticket.clone(),
        started_at: run.started_at,
        proven_at: verified.unwrap_or(run.moved_at),
        target: rotation.described(),
        versions: run.versions(),
        window_ms: run.window_ms(),
    }
}
