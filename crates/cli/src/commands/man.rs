//! `pgrotate man`

use clap::CommandFactory;
use pgrotate_core::Error;

use crate::exit::{Failure, Status};

/// Print the manual page
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(crate::Cli::command())
        .render(&mut text)
        .map_err(|_| Error::internal("the manual page could not be written"))?;
    crate::display::out(&String::from_utf8_lossy(&text));
    Ok(Status::Done)
}
