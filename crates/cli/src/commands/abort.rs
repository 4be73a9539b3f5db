//! `pgrotate abort [RUN]`

use pgrotate_core::RunId;

use super::rotate::conclude;
use crate::app::{App, known};
use crate::display;
use crate::exit::{Failure, Status};

/// Call a run off before its point of no return; the pending password is dropped
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
    let mut rotation = app.rotation(&config, &environment)?;
    rotation.repair = state.plan().repair();
    let end = engine.abort(&rotation, state.run).await?;
    conclude(app, &engine, state.run, &end).await
}
