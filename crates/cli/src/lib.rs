//! `pgrotate`: rotates a PostgreSQL password everywhere it lives, and proves that it worked.
//!
//! This crate is all terminal, files and environment; what a rotation means is in the core.

#![forbid(unsafe_code)]

mod app;
mod commands;
mod config;
mod display;
mod evidence;
mod exit;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guard;

use std::process::ExitCode;

use clap::Parser;

/// Rotates a PostgreSQL password everywhere it lives, and proves that it worked.
///
/// Exit status: 0 done; 1 failed and nothing is left half-way; 2 usage or configuration;
/// 3 parked, a person is needed; 4 drift.
#[derive(Debug, Parser)]
#[command(name = "pgrotate", version, max_term_width = 100)]
struct Cli {
    /// The configuration [default: PGROTATE_CONFIG, else ./pgrotate.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Print one JSON object a line on stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: commands::Command,
}

/// The whole program, from its arguments to its exit status.
pub fn main() -> ExitCode {
    guard::harden();
    guard::hush();
    display::hook();
    let cli = Cli::parse();
    guard::trace();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a thread without timers and sockets can't do anything");
    let app = app::App::new(cli.config, cli.json);
    let status = runtime.block_on(commands::run(&app, cli.command));
    // Blocking reads of an answer that never came must not hold the process back.
    runtime.shutdown_background();
    status.unwrap_or_else(|failure| failure.show()).into()
}
