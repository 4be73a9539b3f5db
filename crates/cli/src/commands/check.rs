//! `pgrotate check ENV`

use pgrotate_core::provider::{Severity, grouped};
use pgrotate_core::steps::check;
use serde_json::json;

use crate::app::{App, known};
use crate::display;
use crate::exit::{Failure, Status};

/// Find everything that could stop a run, before it starts; changes nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
    /// The ticket that a run would be given
    #[arg(long, value_name = "T")]
    ticket: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let rotation = app.rotation(&config, &environment)?;
    let report = check::look(&rotation, args.ticket.as_deref(), None).await;
    if app.json {
        let event = if report.blocks() { "check_failed" } else { "check_passed" };
        display::json(&json!({
            "ts": app.clock.now(), "environment": environment, "event": event, "step": "check",
            "detail": { "findings": report.findings, "warnings": config.warnings() },
        }));
    } else {
        config.warnings().iter().for_each(|warning| display::warning(warning));
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
    Ok(if report.blocks() { Status::Failed } else { Status::Done })
}
