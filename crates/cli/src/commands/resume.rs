//! `pgrotate resume [RUN]`

use pgrotate_core::RunId;

use super::rotate::conclude;
use crate::app::{App, known};
use crate::display;
use crate::exit::{Failure, Status};

/// Go on with a run after a crash or a parked step
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run; may be left out if only one is not over
    run: Option<RunId>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let engine = app.engine(display::observer(app.json))?;
    let state = app.run(&engine, args.run).await?;
    let environment = known(&config, state.plan().environment.as_str())?;
    let mut rotation = app.rotation_after(&config, &environment, &engine).await?;
    rotation.repair = state.plan().repair();
    app.stop_on_signals();
    let end = engine.resume(&rotation, state.run).await?;
    conclude(app, &engine, state.run, &end).await
}
