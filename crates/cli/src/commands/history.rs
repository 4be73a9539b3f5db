//! `pgrotate history [RUN]`

use std::sync::Arc;

use pgrotate_core::RunId;
use pgrotate_core::journal::RunOutcome;
use pgrotate_core::observer::Unobserved;
use pgrotate_core::run::{Phase, RunState, StepStatus};
use serde_json::json;

use crate::app::App;
use crate::display::{self, table};
use crate::exit::{Failure, Status};

/// Show past runs, or one run step by step
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    run: Option<RunId>,
    /// Only this environment's runs
    #[arg(long, value_name = "ENV", conflicts_with = "run")]
    environment: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let engine = app.engine(Arc::new(Unobserved))?;
    if let Some(run) = args.run {
        let state = engine.state(run).await?;
        let standing = standing(&state, engine.overtaken_by(&state).await?);
        match app.json {
            true => display::json(&json!({ "run": heading(&state, &standing), "steps": steps(&state) })),
            false => display::out(&one(&state, &standing)),
        }
        return Ok(Status::Done);
    }
    let environment = args.environment.map(pgrotate_core::Environment::new);
    let mut states = Vec::new();
    for state in engine.history(environment.as_ref()).await? {
        let overtaken = match state.phase {
            Phase::Finished => None,
            _ => engine.overtaken_by(&state).await?,
        };
        states.push((standing(&state, overtaken), state));
    }
    if app.json {
        states.iter().for_each(|(standing, state)| display::json(&heading(state, standing)));
    } else if states.is_empty() {
        display::out("no run yet\n");
    } else {
        let rows = states.iter().map(|(standing, state)| row(state, standing)).collect();
        display::out(&format!(
            "{}\n",
            table(&["run", "environment", "begun", "outcome", "took", "operator", "ticket"], rows)
        ));
    }
    Ok(Status::Done)
}

/// How a run stands, in a word or two; `overtaken` is the run that has taken it back, if one has.
pub(super) fn standing(state: &RunState, overtaken: Option<RunId>) -> String {
    let word = match (state.phase, state.outcome) {
        (_, Some(RunOutcome::Done)) => "done",
        (_, Some(RunOutcome::Failed)) => "failed",
        (_, Some(RunOutcome::Aborted)) => "aborted",
        (Phase::Parked, _) => "parked",
        (Phase::Aborting, _) => "aborting",
        _ => "not over",
    };
    match overtaken.filter(|_| state.phase != Phase::Finished) {
        None => word.to_owned(),
        Some(_) => format!("{word}, taken back"),
    }
}

fn row(state: &RunState, standing: &str) -> Vec<String> {
    vec![
        state.run.to_string(),
        state.plan().environment.to_string(),
        format!("{:.0}", state.started_at),
        standing.to_owned(),
        display::seconds(state.moved_at.duration_since(state.started_at).unsigned_abs()),
        state.start.operator.clone(),
        state.start.ticket.clone().unwrap_or_default(),
    ]
}

fn heading(state: &RunState, standing: &str) -> serde_json::Value {
    json!({
        "run": state.run,
        "environment": state.plan().environment,
        "started_at": state.started_at,
        "moved_at": state.moved_at,
        "outcome": standing,
        "takes_back": state.plan().back().map(|back| back.run),
        "operator": state.start.operator,
        "ticket": state.start.ticket,
        "plan": state.plan().hash(),
        "window_ms": state.window_ms(),
    })
}

fn steps(state: &RunState) -> Vec<serde_json::Value> {
    let step = |(step, story): (&pgrotate_core::plan::Step, &pgrotate_core::run::StepState)| {
        json!({
            "step": step.id, "status": word(story.status), "attempts": story.attempts, "started_at": story.started_at,
            "finished_at": story.finished_at, "outcome": story.outcome, "error": story.error,
        })
    };
    state.steps().map(step).collect()
}

pub(super) fn word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Waiting => "waiting",
        StepStatus::InFlight => "in flight",
        StepStatus::Failed => "failed",
        StepStatus::Parked => "parked",
        StepStatus::Done => "done",
    }
}

fn one(state: &RunState, standing: &str) -> String {
    let rows = state
        .steps()
        .map(|(step, story)| {
            let took = story.started_at.zip(story.finished_at);
            let effect = story.outcome.as_ref().map(display::outcome);
            vec![
                step.id.to_string(),
                word(story.status).to_owned(),
                story.attempts.to_string(),
                took.map(|(from, to)| display::seconds(to.duration_since(from).unsigned_abs()))
                    .unwrap_or_default(),
                effect.or_else(|| story.error.as_ref().map(ToString::to_string)).unwrap_or_default(),
            ]
        })
        .collect();
    let back = state.plan().back().map(|back| format!(", takes back {}", back.run)).unwrap_or_default();
    let ticket = state.start.ticket.as_ref().map(|ticket| format!(", ticket {ticket}")).unwrap_or_default();
    format!(
        "{} of {}: {}, begun {:.0} by {}{ticket}, plan {}{back}\n\n{}\n",
        state.run,
        state.plan().environment,
        standing,
        state.started_at,
        state.start.operator,
        state.plan().hash().short(),
        table(&["step", "status", "tries", "took", "outcome"], rows)
    )
}
