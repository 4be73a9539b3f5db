//! `pgrotate rotate ENV...`

use std::time::Duration;

use pgrotate_core::engine::Wish;
use pgrotate_core::executor::End;
use pgrotate_core::past::Overrides;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::{Environment, Error, Kind, RunId};
use pgrotate_engine::Embedded;
use pgrotate_providers::requests::Noting;

use crate::app::{App, known};
use crate::commands::confirm;
use crate::config::Config;
use crate::display;
use crate::evidence::{Keeper, user};
use crate::exit::{Failure, Status};

/// Rotate the password of environments, each only after the one before is proven
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environments, in order
    #[arg(required = true, value_name = "ENV")]
    environments: Vec<String>,
    #[command(flatten)]
    wish: Asked,
    #[command(flatten)]
    soak: Soak,
}

/// Who asks and why, of every command that begins a run.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// The ticket that asks for it, for instance OPS-12 or owner/repository#12
    #[arg(long, value_name = "T")]
    ticket: Option<String>,
    /// Who does it [default: the user's name]
    #[arg(long, value_name = "O", env = "PGROTATE_OPERATOR")]
    operator: Option<String>,
    /// Don't ask, not even before prod
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pass: LetPass,
}

/// What a person lets pass that would stop a run, of every command that looks for it. It goes into the evidence.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LetPass {
    /// Let somebody go who is logged in and declared for no consumer: an application's name or all of `name@address`,
    /// as `check` says it; `*` stands for anything. Can be given several times
    #[arg(long = "waive", value_name = "NAME")]
    waived: Vec<String>,
    /// Why the run need not wait for a recent success in the environment that comes first
    #[arg(long = "without-proof", value_name = "WHY", value_parser = reason)]
    unproven: Option<String>,
    /// Why a system is another one than the last successful run proved
    #[arg(long, value_name = "WHY", value_parser = reason)]
    moved: Option<String>,
}

impl LetPass {
    /// The same in the journal's words.
    pub(crate) fn overrides(self) -> Overrides {
        Overrides { waived: self.waived, unproven: self.unproven, moved: self.moved }
    }
}

/// A reason that says something.
fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a reason is wanted: it goes into the evidence".to_owned()),
        text => Ok(text.to_owned()),
    }
}

impl Asked {
    /// The wish in the engine's words.
    pub(crate) fn wish(self) -> Wish {
        Wish {
            operator: self.operator.unwrap_or_else(user),
            ticket: self.ticket,
            overrides: self.pass.overrides(),
        }
    }
}

/// `--soak`, of every command that makes a plan.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Soak {
    /// Wait this long when all is proven, then prove everything again, before an environment counts as done and
    /// the next one begins; for instance 90s, 10m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = soak)]
    soak: Option<Duration>,
}

impl Soak {
    /// Puts the wait into a rotation's plan.
    pub(crate) fn apply(self, rotation: Rotation) -> Rotation {
        Rotation { soak: self.soak, ..rotation }
    }
}

/// The longest wait: what should be watched for longer is a matter for `status`, not for a run that holds a lease.
const LONGEST_SOAK: Duration = Duration::from_secs(7 * 24 * 3600);

const EXAMPLE: &str = "a time such as 90s, 10m or 1h30m is wanted";

/// A time on the command line.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let time: jiff::SignedDuration = text.parse().map_err(|_| EXAMPLE.to_owned())?;
    Duration::try_from(time).map_err(|_| EXAMPLE.to_owned())
}

fn soak(text: &str) -> Result<Duration, String> {
    let time = span(text)?;
    match time.as_secs() {
        0 => Err(format!("it must be at least a second; {EXAMPLE}")),
        _ if time > LONGEST_SOAK => Err("it must be at most a week".to_owned()),
        // The plan counts in seconds.
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environments = chosen(&config, &args.environments)?;
    // All of them are bound before the first one starts: what can't be read is found now.
    let mut plans = Vec::with_capacity(environments.len());
    for environment in &environments {
        plans.push(args.soak.apply(app.rotation(&config, environment)?).plan());
    }
    if !args.wish.yes {
        confirm::all(&config, &plans)?;
    }
    let wish = args.wish.wish();
    let engine = app.engine(display::observer(app.json))?;
    let keeper = app.keeper(&config)?;
    keeper.catch_up(&engine).await;
    app.stop_on_signals();
    for (place, environment) in environments.iter().enumerate() {
        let rotation = args.soak.apply(app.rotation_after(&config, environment, &engine).await?);
        let (run, end) = engine.start(&Noting(&rotation), wish.clone()).await?;
        let status = conclude(app, (&engine, &keeper), run, &end).await?;
        let rest = &environments[place + 1..];
        if status != Status::Done || (app.stopping() && !rest.is_empty()) {
            not_begun(rest);
            return Ok(if status == Status::Done { Status::Parked } else { status });
        }
    }
    Ok(Status::Done)
}

/// Writes the evidence of a run that goes no further, shows how it ended, and gives the status.
/// Asks, unless that is not wanted, carries one environment's run out, and shows how it ended.
pub(crate) async fn carry_out(
    app: &App,
    config: &Config,
    rotation: &Rotation,
    asked: Asked,
) -> Result<Status, Failure> {
    if !asked.yes {
        confirm::all(config, &[rotation.plan()])?;
    }
    let engine = app.engine(display::observer(app.json))?;
    let keeper = app.keeper(config)?;
    keeper.catch_up(&engine).await;
    app.stop_on_signals();
    let (run, end) = engine.start(&Noting(rotation), asked.wish()).await?;
    conclude(app, (&engine, &keeper), run, &end).await
}

pub(crate) async fn conclude(
    app: &App,
    (engine, keeper): (&Embedded, &Keeper),
    run: RunId,
    end: &End,
) -> Result<Status, Failure> {
    keeper.conclude(engine, run).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_is_a_time() {
        let seconds = |text: &str| soak(text).map(|time| time.as_secs());
        assert_eq!([seconds("90s"), seconds("10m"), seconds("1h30m")], [Ok(90), Ok(600), Ok(5_400)]);
        assert_eq!(seconds("168h"), Ok(LONGEST_SOAK.as_secs()));
        for wrong in ["", "10", "m", "-5m", "0s", "500ms", "8d", "169h"] {
            assert!(soak(wrong).is_err(), "{wrong}");
        }
    }
}
