//! The commands, one file each.

mod abort;
mod audit;
mod check;
mod completions;
mod confirm;
mod consumers;
mod history;
mod init;
mod man;
mod plan;
mod repair;
mod report;
mod resume;
mod roles;
mod rollback;
mod rotate;
mod runbook;
mod status;
mod vault;

use clap::Subcommand;

use crate::app::App;
use crate::exit::{Failure, Status};

/// What a person can ask for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    Check(check::Args),
    Plan(plan::Args),
    Consumers(consumers::Args),
    Rotate(rotate::Args),
    Repair(repair::Args),
    Roles(roles::Args),
    Resume(resume::Args),
    Abort(abort::Args),
    Rollback(rollback::Args),
    Status(status::Args),
    History(history::Args),
    Runbook(runbook::Args),
    Report(report::Args),
    Audit(audit::Args),
    Vault(vault::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Carries a command out.
pub(crate) async fn run(app: &App, command: Command) -> Result<Status, Failure> {
    match command {
        Command::Init(args) => init::run(app, args).await,
        Command::Check(args) => check::run(app, args).await,
        Command::Consumers(args) => consumers::run(app, args).await,
        Command::Plan(args) => plan::run(app, args).await,
        Command::Rotate(args) => rotate::run(app, args).await,
        Command::Repair(args) => repair::run(app, args).await,
        Command::Roles(args) => roles::run(app, args).await,
        Command::Resume(args) => resume::run(app, args).await,
        Command::Abort(args) => abort::run(app, args).await,
        Command::Rollback(args) => rollback::run(app, args).await,
        Command::Status(args) => status::run(app, args).await,
        Command::History(args) => history::run(app, args).await,
        Command::Runbook(args) => runbook::run(app, args).await,
        Command::Report(args) => report::run(app, args).await,
        Command::Audit(args) => audit::run(app, args).await,
        Command::Vault(args) => vault::run(app, args).await,
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(&args),
    }
}
