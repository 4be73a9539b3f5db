//! `pgrotate roles`

use clap::Subcommand;

use crate::app::App;
use crate::exit::{Failure, Status};

mod prepare;

/// Make two login roles that take turns
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(prepare::Args),
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Prepare(args) => prepare::run(app, args).await,
    }
}
