//! `pgrotate rollback RUN`

use std::sync::Arc;

use pgrotate_core::RunId;
use pgrotate_core::drift;
use pgrotate_core::engine::same_place;
use pgrotate_core::observer::Unobserved;
use pgrotate_core::rotation::Rotation;

use super::plan;
use super::rotate::{Asked, Soak, carry_out};
use crate::app::{App, known};
use crate::exit::{Failure, Status};

/// Make the password from before a run current again, by a run of its own with all its checks and proofs
///
/// The vault of record keeps one previous password, so the last change of an environment can be taken back: a run
/// that is done, or one that is parked after its password became current.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run that is taken back
    run: RunId,
    #[command(flatten)]
    wish: Asked,
    #[command(flatten)]
    soak: Soak,
    /// Show the steps and the plan's hash; change nothing
    #[arg(long, conflicts_with = "yes")]
    plan: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let quiet = app.engine(Arc::new(Unobserved))?;
    let state = quiet.state(args.run).await?;
    let environment = known(&config, state.plan().environment.as_str())?;
    let back = Some(quiet.way_back(args.run).await?);
    let rotation = args.soak.apply(app.rotation_after(&config, &environment, &quiet).await?);
    let mut rotation = Rotation { back, ..rotation };
    // Going back is for an emergency, and nothing new that should be tried elsewhere first.
    rotation.around.past.forerunner = None;
    same_place(&rotation, &state)?;
    if args.plan {
        plan::show(app, &rotation, &drift::status(&rotation).await);
        return Ok(Status::Done);
    }
    carry_out(app, &config, &rotation, args.wish).await
}
