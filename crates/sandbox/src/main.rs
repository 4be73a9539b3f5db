//! `pgrotate-sandbox`: the runbook's whole world on loopback.
//!
//! `up` starts a real PostgreSQL and a real application per environment, moto for AWS, and stand-ins for the other
//! vendors; it writes a configuration for them, prints one line when all is ready, and takes everything with it when
//! it ends. `load` asks one of its applications on and on.

mod app_key;
mod application;
mod ca;
mod config;
mod control;
mod error;
mod faults;
mod front;
mod guard;
mod lifetime;
mod listener;
mod load;
mod moto;
mod postgres;
mod premises;
mod process;
mod recorder;
mod secrets;
mod vendors;
mod world;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::error::{Context, Result};
use crate::lifetime::Lifetime;
use crate::listener::Bound;
use crate::load::Load;
use crate::process::Launcher;
use crate::world::{Options, World};

/// The runbook's whole world on loopback.
#[derive(Parser)]
#[command(name = "pgrotate-sandbox", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a sandbox and run it until Ctrl-C, SIGTERM, or the end of the parent process
    Up(Up),
    /// Ask an application at a fixed rate until Ctrl-C or SIGTERM; print what became of it as one JSON object
    Load(Asked),
    /// Clean up after a sandbox that has been killed; the sandbox starts this itself
    #[command(hide = true)]
    Guard,
}

#[derive(Args)]
struct Up {
    /// Folder for the configuration and the agents' files: new, empty, or an earlier sandbox's
    #[arg(long)]
    dir: PathBuf,
    /// Environments to start
    #[arg(long, value_delimiter = ',', default_value = "dev,staging,prod")]
    env: Vec<String>,
    /// How long the vendors take
    #[arg(long, value_enum, default_value = "instant")]
    latency: Pace,
    /// The example's folder, examples/mindwell
    #[arg(long, env = "PGROTATE_EXAMPLE")]
    example: Option<PathBuf>,
    /// Keep whole requests and answers in memory for GET /_sandbox/recording; they hold passwords
    #[arg(long)]
    record_bodies: bool,
    /// Begin with passwords that a URL has to encode, as those of `openssl rand -base64`
    #[arg(long)]
    base64_passwords: bool,
}

#[derive(Args)]
struct Asked {
    /// The application's address
    #[arg(long)]
    url: String,
    /// Requests a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pace {
    /// As fast as they can
    Instant,
    /// 100 ms a request, 5 s for the server's operation, 2 s for an application's start
    Typical,
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    if let Command::Guard = command {
        guard::run();
        return ExitCode::SUCCESS;
    }
    // First of all: a parent that ends from here on is noticed.
    let lifetime = Lifetime::begin();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Only a second installation fails, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match command {
        Command::Up(up) => run(up, lifetime),
        Command::Load(asked) => ask(&asked, &lifetime),
        Command::Guard => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(up: Up, lifetime: Lifetime) -> Result<()> {
    let options = Options {
        dir: up.dir,
        environments: up.env,
        typical: up.latency == Pace::Typical,
        example: up.example.unwrap_or_else(|| repository().join("examples/mindwell")),
        repository: repository(),
        record_bodies: up.record_bodies,
        base64_passwords: up.base64_passwords,
    };
    runtime()?.block_on(async {
        let launcher = Arc::new(Launcher::new()?);
        let outcome = tokio::select! {
            outcome = live(&options, launcher.clone()) => outcome,
            ended = lifetime.over() => ended,
        };
        // Whatever still runs, because the start broke off for instance, the guard ends.
        launcher.stop_all().await;
        outcome
    })
}

/// One thread: the kernel ends our children with the thread that started them.
fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context(|| "cannot start the runtime".into())
}

fn ask(asked: &Asked, lifetime: &Lifetime) -> Result<()> {
    let load = Load::new(&asked.url, asked.rate)?;
    let summary = runtime()?.block_on(load.run(lifetime.over()))?;
    writeln!(std::io::stdout(), "{}", summary.shown()).context(|| "cannot write to stdout".into())
}

/// The one line on stdout.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    config: PathBuf,
    control: String,
}

/// Starts everything, says so, and stays until it is dropped.
async fn live(options: &Options, launcher: Arc<Launcher>) -> Result<()> {
    let world = Arc::new(World::start(options, launcher).await?);
    let control = Bound::new().await?;
    let ready = Ready {
        ready: true,
        config: world.config_path().to_owned(),
        control: format!("http://127.0.0.1:{}", control.port()),
    };
    let ready = serde_json::to_string(&ready).context(|| "cannot say that the sandbox is ready".into())?;
    control.serve_unrecorded(control::router(world));
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).context(|| "cannot write to stdout".into())?;
    std::future::pending().await
}

/// The repository: where this program's file lies in its `target` folder, else where it was built.
fn repository() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.ancestors().find(|folder| folder.join("examples/mindwell/pgrotate.toml").is_file());
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let found = beside.map_or_else(built, Path::to_path_buf);
    found.canonicalize().unwrap_or(found)
}
