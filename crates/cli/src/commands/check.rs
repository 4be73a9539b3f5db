//! `pgrotate check ENV`

use std::sync::Arc;

use pgrotate_core::observer::Unobserved;
use pgrotate_core::provider::{Severity, grouped};
use pgrotate_core::steps::check::{self, Asked};
use serde_json::json;

use super::rotate::LetPass;
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
    #[command(flatten)]
    pass: LetPass,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let engine = app.engine(Arc::new(Unobserved))?;
    let rotation = app.rotation_after(&config, &environment, &engine).await?;
    let overrides = args.pass.overrides();
    let asked = Asked { ticket: args.ticket.as_deref(), overrides: &overrides };
    let report = check::look(&rotation, asked, None).await;
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
