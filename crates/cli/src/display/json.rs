//! A run as JSON lines, in the form of the contract.

use jiff::Timestamp;
use pgrotate_core::executor::End;
use pgrotate_core::observer::{Observer, Progress};
use pgrotate_core::plan::{Action, Step};
use pgrotate_core::{Environment, RunId};
use serde_json::{Map, Value, json};

/// Prints each event when it happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl Observer for Lines {
    fn notice(&self, at: Timestamp, environment: &Environment, run: RunId, progress: &Progress<'_>) {
        for (event, fields) in events(progress) {
            let mut line = Map::new();
            line.insert("ts".into(), json!(at));
            line.insert("run".into(), json!(run));
            line.insert("environment".into(), json!(environment));
            line.insert("event".into(), json!(event));
            line.extend(fields);
            super::json(&Value::Object(line));
        }
    }
}

type Event = (&'static str, Map<String, Value>);

/// The contract's events of one piece of news.
fn events(progress: &Progress<'_>) -> Vec<Event> {
    match progress {
        Progress::LeaseWanted | Progress::LeaseTaken => Vec::new(),
        Progress::RunStarted { plan, resumed } => vec![
            ("run_started", fields([("detail", json!({ "plan": plan.hash(), "resumed": resumed }))])),
            ("step_started", fields([("step", json!("lease"))])),
            ("step_finished", fields([("step", json!("lease"))])),
        ],
        Progress::StepStarted { step, attempt } => {
            vec![("step_started", of(step, json!({ "attempt": attempt })))]
        }
        Progress::StepFinished { step, outcome, elapsed } => {
            let detail = json!({ "outcome": outcome, "elapsed_ms": elapsed.as_millis() });
            let mut events = vec![("step_finished", of(step, detail.clone()))];
            match step.action.kind() {
                "publish" => events.push(("sink_published", of(step, detail))),
                "check" | "prove" | "verify" => events.push(("check_passed", of(step, detail))),
                _ => {}
            }
            events
        }
        Progress::StepFailed { step, error, retry_in } => {
            // Of the other steps the next try, or `parked`, tells.
            if !matches!(step.action.kind(), "check" | "prove" | "verify") {
                return Vec::new();
            }
            let detail = json!({ "error": error, "retry_in_ms": retry_in.map(|pause| pause.as_millis()) });
            vec![("check_failed", of(step, detail))]
        }
        Progress::StepParked { step, error } => vec![("parked", of(step, json!({ "error": error })))],
        Progress::RunEnded { end } => vec![("run_finished", ended(end))],
    }
}

fn ended(end: &End) -> Map<String, Value> {
    let (outcome, detail) = match end {
        End::Done => ("done", Value::Null),
        End::Failed(error) => ("failed", json!({ "error": error })),
        End::Aborted => ("aborted", Value::Null),
        End::Parked(steps) => {
            let steps: Vec<Value> =
                steps.iter().map(|(step, error)| json!({ "step": step, "error": error })).collect();
            ("parked", json!({ "waiting": steps }))
        }
        End::Stopped => ("parked", json!({ "stopped": "on request" })),
    };
    let mut all = fields([("outcome", json!(outcome))]);
    if !detail.is_null() {
        all.insert("detail".into(), detail);
    }
    all
}

fn of(step: &Step, mut detail: Value) -> Map<String, Value> {
    let mut all = fields([("step", json!(step.action.kind()))]);
    match step.action.proof() {
        Action::Publish { copy } | Action::VerifyCopy { copy } | Action::Retire { copy } => {
            all.insert("sink".into(), json!(copy));
        }
        action => {
            if let (Some(subject), Some(detail)) = (action.subject(), detail.as_object_mut()) {
                detail.insert("subject".into(), json!(subject));
            }
        }
    }
    all.insert("detail".into(), detail);
    all
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
