//! What the commands share: the configuration, the state folder, the engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::observer::Observer;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::run::RunState;
use pgrotate_core::{Environment, Error, Kind, Result, RunId};
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, Home, SqliteStore};

use crate::config::{Config, Deps};
use crate::exit::Failure;

/// One call of the program.
pub(crate) struct App {
    config: Option<PathBuf>,
    /// Whether stdout is for machines.
    pub(crate) json: bool,
    /// The door to time.
    pub(crate) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stop: Arc<AtomicBool>,
}

impl App {
    /// A call with these global options.
    pub(crate) fn new(config: Option<PathBuf>, json: bool) -> Self {
        Self {
            config,
            json,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Reads the configuration.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&Config::find(self.config.clone())?)?)
    }

    /// The state folder: `PGROTATE_STATE_DIR`, else the XDG state folder.
    pub(crate) fn home(&self) -> Result<Home> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = variable("PGROTATE_STATE_DIR")
            .or_else(|| variable("XDG_STATE_HOME").map(|folder| folder.join("pgrotate")))
            .or_else(|| variable("HOME").map(|folder| folder.join(".local/state/pgrotate")))
            .ok_or_else(|| {
                Error::new(Kind::Config, "find the state folder")
                    .because("neither PGROTATE_STATE_DIR nor HOME is set")
            })?;
        Home::open(path)
    }

    /// Binds one environment to its providers.
    pub(crate) fn rotation(&self, config: &Config, environment: &Environment) -> Result<Rotation, Failure> {
        let key = self.home()?.fingerprint_key(&*self.entropy)?;
        let deps = Deps { key, clock: Arc::clone(&self.clock), entropy: Arc::clone(&self.entropy) };
        Ok(config.rotation(environment, deps)?)
    }

    /// The same, with what the journal knows about the environment.
    pub(crate) async fn rotation_after(
        &self,
        config: &Config,
        environment: &Environment,
        engine: &Embedded,
    ) -> Result<Rotation, Failure> {
        let mut rotation = self.rotation(config, environment)?;
        rotation.around.past = engine.past(environment, config.first(environment)).await?;
        Ok(rotation)
    }

    /// The engine, watched by this observer.
    pub(crate) fn engine(&self, observer: Arc<dyn Observer>) -> Result<Embedded> {
        let store = SqliteStore::open(&self.home()?.journal())?;
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Ok(Embedded::new(store, clock, entropy, observer, Arc::clone(&self.stop)))
    }

    /// From now on the first Ctrl-C, SIGTERM or SIGHUP lets the steps in hand finish and begins no
    /// other.
    pub(crate) fn stop_on_signals(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let stop = Arc::clone(&self.stop);
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return;
        };
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
                stop.store(true, Ordering::Relaxed);
                crate::display::warning("stopping after the step in hand; nothing is lost");
            }
        });
    }

    /// Whether the process has been asked to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, and tells whether the process was asked to stop meanwhile.
    pub(crate) async fn stopping_within(&self, time: Duration) -> bool {
        const NAP: Duration = Duration::from_millis(200);
        let until = self.clock.uptime() + time;
        loop {
            let left = until.saturating_sub(self.clock.uptime());
            if self.stopping() || left.is_zero() {
                return self.stopping();
            }
            self.clock.sleep(left.min(NAP)).await;
        }
    }

    /// The run that a command means: the one named, or the only one that is not over.
    pub(crate) async fn run(&self, engine: &Embedded, named: Option<RunId>) -> Result<RunState> {
        if let Some(run) = named {
            return engine.state(run).await;
        }
        let mut open = engine.unfinished(None).await?;
        match (open.pop(), open.len()) {
            (Some(state), 0) => Ok(state),
            (None, _) => {
                Err(Error::new(Kind::NotFound, "find a run to go on with").because("every run is over"))
            }
            (Some(last), _) => {
                open.push(last);
                let error =
                    Error::new(Kind::Ambiguous, "tell which run is meant").because("several are not over");
                Err(open.iter().fold(error, |error, state| {
                    error.hint(format!("{}: {}", state.plan().environment, state.run))
                }))
            }
        }
    }
}

/// An environment of the configuration.
pub(crate) fn known(config: &Config, name: &str) -> Result<Environment, Failure> {
    let environments = config.environments();
    environments.iter().find(|own| own.as_str() == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = environments.iter().map(Environment::as_str).collect();
        let error = Error::new(Kind::Config, format!("find the environment {name:?}")).because(format!(
            "{} has {}",
            config.path().display(),
            names.join(", ")
        ));
        let error = match pgrotate_core::value::closest(name, &names) {
            Some(meant) => error.hint(format!("did you mean {meant}?")),
            None => error,
        };
        error.into()
    })
}
