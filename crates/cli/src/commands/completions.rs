//! `pgrotate completions SHELL`

use clap::CommandFactory;

use crate::exit::{Failure, Status};

/// Print shell completions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: Args) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "pgrotate", &mut text);
    crate::display::out(&String::from_utf8_lossy(&text));
    Ok(Status::Done)
}
