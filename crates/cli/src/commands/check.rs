//! `pgrotate check ENV...`

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use pgrotate_core::Environment;
use pgrotate_core::observer::Unobserved;
use pgrotate_core::provider::{Severity, grouped};
use pgrotate_core::steps::check::{self, Asked, Report};
use serde_json::json;

use super::rotate::LetPass;
use super::status::AT_A_TIME;
use crate::app::{App, known};
use crate::config::Config;
use crate::display;
use crate::exit::{Failure, Status};

/// Find everything that could stop a run, before it starts; changes nothing
///
/// Exit status 1 if something would stop one. Several environments are asked at the same time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environments
    #[arg(value_name = "ENV", required_unless_present = "all")]
    environments: Vec<String>,
    /// All environments of the configuration
    #[arg(long, conflicts_with = "environments")]
    all: bool,
    /// The ticket that a run would be given
    #[arg(long, value_name = "T")]
    ticket: Option<String>,
    #[command(flatten)]
    pass: LetPass,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environments = match args.all {
        true => config.environments(),
        false => args.environments.iter().map(|name| known(&config, name)).collect::<Result<_, _>>()?,
    };
    let engine = app.engine(Arc::new(Unobserved))?;
    let overrides = args.pass.overrides();
    let asked = Asked { ticket: args.ticket.as_deref(), overrides: &overrides };
    if !app.json {
        config.warnings().iter().for_each(|warning| display::warning(warning));
    }
    let reports = stream::iter(&environments).map(|environment| async {
        // What it has read ends with it: five hundred of them are not kept in memory.
        let rotation = app.rotation_after(&config, environment, &engine).await?;
        Ok::<_, Failure>(check::look(&rotation, asked, None).await)
    });
    let mut reports = std::pin::pin!(reports.buffered(AT_A_TIME));
    let mut status = Status::Done;
    for environment in &environments {
        let report = reports.next().await.expect("every environment has a report")?;
        show(app, &config, environment, &report);
        if report.blocks() {
            status = Status::Failed;
        }
    }
    Ok(status)
}

fn show(app: &App, config: &Config, environment: &Environment, report: &Report) {
    if app.json {
        let event = if report.blocks() { "check_failed" } else { "check_passed" };
        return display::json(&json!({
            "ts": app.clock.now(), "environment": environment, "event": event, "step": "check",
            "detail": { "findings": report.findings, "warnings": config.warnings() },
        }));
    }
    for finding in grouped(&report.findings) {
        display::out(&display::finding(&finding));
    }
    let blocking = report.findings.iter().filter(|finding| finding.severity == Severity::Blocks).count();
    display::out(&match blocking {
        0 => format!("{environment}: nothing found that would stop a rotation\n"),
        1 => format!("{environment}: one finding would stop a rotation\n"),
        several => format!("{environment}: {several} findings would stop a rotation\n"),
    });
}
