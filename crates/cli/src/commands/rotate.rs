//! `pgrotate rotate ENV...`

use std::io::IsTerminal;

use pgrotate_core::executor::End;
use pgrotate_core::{Environment, Error, Kind, RunId};
use pgrotate_engine::Embedded;
use pgrotate_engine::embedded::Wish;

use crate::app::{App, known};
use crate::config::Config;
use crate::display;
use crate::exit::{Failure, Status};

/// Rotate the password of environments, each only after the one before is proven
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environments, in order
    #[arg(required = true, value_name = "ENV")]
    environments: Vec<String>,
    /// The ticket that asks for it, for instance OPS-12 or owner/repository#12
    #[arg(long, value_name = "T")]
    ticket: Option<String>,
    /// Who does it [default: the user's name]
    #[arg(long, value_name = "O", env = "PGROTATE_OPERATOR")]
    operator: Option<String>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environments = chosen(&config, &args.environments)?;
    // All of them are bound before the first one starts: what can't be read is found now.
    for environment in &environments {
        app.rotation(&config, environment)?;
    }
    let wish = Wish { operator: args.operator.unwrap_or_else(user), ticket: args.ticket };
    let engine = app.engine(display::observer(app.json))?;
    app.stop_on_signals();
    for (place, environment) in environments.iter().enumerate() {
        let status = one(app, &config, &engine, environment, &wish, args.yes).await?;
        let rest = &environments[place + 1..];
        if status != Status::Done || (app.stopping() && !rest.is_empty()) {
            not_begun(rest);
            return Ok(if status == Status::Done { Status::Parked } else { status });
        }
    }
    Ok(Status::Done)
}

async fn one(
    app: &App,
    config: &Config,
    engine: &Embedded,
    environment: &Environment,
    wish: &Wish,
    yes: bool,
) -> Result<Status, Failure> {
    let rotation = app.rotation(config, environment)?;
    let plan = rotation.plan();
    if !yes
        && !agreed(&format!(
            "Rotate {environment} ({} steps, plan {})?",
            plan.steps.len(),
            plan.hash().short()
        ))
    {
        let error =
            Error::new(Kind::Blocked, format!("rotate {environment}")).because("it was not confirmed");
        return Err(error.into());
    }
    let (run, end) = engine.start(&rotation, wish.clone()).await?;
    conclude(app, engine, run, &end).await
}

/// Asks a person, if there is one. One who can't see the question has not agreed.
fn agreed(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return true;
    }
    dialoguer::Confirm::new().with_prompt(question).default(false).interact().unwrap_or(false)
}

/// Shows how a run ended, and gives the status.
pub(crate) async fn conclude(app: &App, engine: &Embedded, run: RunId, end: &End) -> Result<Status, Failure> {
    if !app.json {
        let state = engine.state(run).await?;
        display::summary(&state, end);
    }
    Ok(match end {
        End::Done | End::Aborted => Status::Done,
        End::Failed(_) => Status::Failed,
        End::Parked(_) | End::Stopped => Status::Parked,
    })
}

fn not_begun(rest: &[Environment]) {
    if !rest.is_empty() {
        let names: Vec<&str> = rest.iter().map(Environment::as_str).collect();
        display::warning(&format!("not begun: {}", names.join(", ")));
    }
}

fn chosen(config: &Config, names: &[String]) -> Result<Vec<Environment>, Failure> {
    let mut chosen: Vec<Environment> = Vec::new();
    for name in names {
        let environment = known(config, name)?;
        if chosen.contains(&environment) {
            return Err(Error::new(Kind::Config, format!("rotate {name} twice in one call")).into());
        }
        chosen.push(environment);
    }
    Ok(chosen)
}

fn user() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
