//! `pgrotate repair ENV [COPY]`

use std::sync::Arc;

use pgrotate_core::drift::{self, State, Status as Drift};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::{CopyId, Error, Kind};

use super::plan;
use super::rotate::{Asked, carry_out};
use crate::app::{App, known};
use crate::display;
use crate::exit::{Failure, Status};

/// Bring copies that have drifted back in line with the vault of record; no password changes
///
/// Without COPY it is every copy that can be seen to hold something else. A URL that points at the wrong place is written
/// anew. Whoever reads the copies is restarted and proven as by a rotation.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
    /// One copy, as `status` names it; also one that can't be seen
    #[arg(value_name = "COPY")]
    copy: Option<String>,
    #[command(flatten)]
    wish: Asked,
    /// Show the steps and the plan's hash; change nothing
    #[arg(long, conflicts_with = "yes")]
    plan: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let quiet = app.engine(Arc::new(Unobserved))?;
    let mut rotation = app.rotation_after(&config, &environment, &quiet).await?;
    // What comes first elsewhere is a new password, and this brings none.
    rotation.around.past.forerunner = None;
    let status = drift::status(&rotation).await;
    let copies = match &args.copy {
        Some(name) => vec![named(&rotation, name)?],
        None => drifted(&status)?,
    };
    if copies.is_empty() {
        display::out(&format!("{environment}: no copy is seen to have drifted; nothing is changed\n"));
        return Ok(Status::Done);
    }
    rotation.repair = Some(copies);
    if args.plan {
        plan::show(app, &rotation, &status);
        return Ok(Status::Done);
    }
    carry_out(app, &config, &rotation, args.wish).await
}

/// The copies that hold something else than the vault of record. The vault itself is none of them.
fn drifted(status: &Drift) -> Result<Vec<CopyId>, Failure> {
    if status.vault.state != State::Current || status.server.state != State::Current {
        let error = Error::new(Kind::BadState, format!("repair {}", status.environment));
        let notes = [&status.vault.note, &status.server.note];
        let error = notes.into_iter().flatten().fold(error, |error, note| error.because(note.clone()));
        let hint = "the current password of the vault of record has to log in first: see `pgrotate status`";
        return Err(error.hint(hint).into());
    }
    let stale =
        status.copies.iter().skip(1).filter(|copy| matches!(copy.state, State::Stale | State::Pending));
    Ok(stale.map(|copy| copy.id.clone()).collect())
}

fn named(rotation: &Rotation, name: &str) -> Result<CopyId, Failure> {
    let known: Vec<&str> = rotation.copies.iter().map(|copy| copy.sink.id().as_str()).collect();
    if known.contains(&name) {
        return Ok(CopyId::from(name));
    }
    let error = Error::new(Kind::Config, format!("find the copy {name:?}")).because(format!(
        "{} has {}",
        rotation.environment,
        known.join(", ")
    ));
    Err(match pgrotate_core::value::closest(name, &known) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error,
    }
    .into())
}
