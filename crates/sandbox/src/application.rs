//! The real application behind an App Service site: a process, and the log that Azure's Linux stream shows.
//!
//! The process gets the site's settings as its environment and nothing of ours. Whatever it prints goes, line by
//! line, into a bounded log that can be followed.
//!
//! A start overlaps, as Azure's reference of the app settings has it: the new instance runs before the old one ends,
//! unless `WEBSITE_DISABLE_OVERLAPPED_RECYCLING` is 1. The new one is ready when it answers the warm-up path with
//! whatever status (`WEBSITE_WARMUP_PATH`, there). One that doesn't come up leaves nobody to serve: "the platform fails
//! the startup attempt and retries, which results in 503 errors" (`WEBSITES_CONTAINER_START_TIME_LIMIT`, there). Here
//! nothing is tried again; the next start is the caller's.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use rustix::process::Signal;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::broadcast;

use crate::error::{Context, Error, Result};
use crate::front::{Front, Requests};
use crate::process::{Launcher, Port, Process, direct_client, is_executable, wait_for_answer};
use crate::vendors::{AppControl, LogLine};

/// How many lines the log keeps.
const LOG_LINES: usize = 5_000;
/// How long a start may take: an import of everything on a slow machine, and the migrations.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long App Service would wait as well before it kills a container.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// What App Service asks a new instance for until it answers.
const WARMUP_PATH: &str = "/robots933456.txt";
/// The setting that ends the old instance before the new one begins.
const NO_OVERLAP: &str = "WEBSITE_DISABLE_OVERLAPPED_RECYCLING";

/// One application.
pub(crate) struct Application {
    service: PathBuf,
    home: PathBuf,
    front: Front,
    launcher: Arc<Launcher>,
    log: Arc<Log>,
    starts: Mutex<Vec<Start>>,
    /// Held while it starts: a second start waits for the first.
    running: tokio::sync::Mutex<Option<Instance>>,
}

/// How long a start took, without the wait that the vendor puts before it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Start {
    /// When its process was started.
    began: Timestamp,
    /// When it took the requests; null where it did not come up.
    ready: Option<Timestamp>,
    /// When the instance before it had ended.
    over: Timestamp,
}

/// A process that answers requests, on a port that nobody is told.
struct Instance {
    process: Process,
    requests: Requests,
    _port: Port,
}

impl Application {
    /// An application that is not started yet. `service` is its folder, `home` what it gets as its home, and `log` a
    /// file for those who look for the reason of a failed start.
    pub(crate) async fn new(
        launcher: Arc<Launcher>,
        service: &Path,
        home: &Path,
        log: &Path,
    ) -> Result<Self> {
        let server = service.join(".venv/bin/uvicorn");
        if !is_executable(&server) {
            return Err(Error::new(format!("{} is missing: run `make setup`", server.display())));
        }
        std::fs::create_dir_all(home).context(|| format!("cannot make {}", home.display()))?;
        Ok(Self {
            service: service.to_owned(),
            home: home.to_owned(),
            front: Front::open().await?,
            launcher,
            log: Arc::new(Log::new(log)?),
            starts: Mutex::default(),
            running: tokio::sync::Mutex::default(),
        })
    }

    /// Its host and port.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.front.port())
    }

    /// How often it has been started.
    pub(crate) fn starts(&self) -> u64 {
        u64::try_from(self.history().len()).unwrap_or(u64::MAX)
    }

    /// Every start.
    pub(crate) fn history(&self) -> Vec<Start> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts it with these settings, in place of the instance that runs; ends when the new one takes the requests and
    /// the old one is gone.
    pub(crate) async fn start(&self, settings: &BTreeMap<String, String>) -> Result<()> {
        let mut running = self.running.lock().await;
        if settings.get(NO_OVERLAP).is_some_and(|value| value == "1") {
            self.front.close();
            Instance::end(running.take()).await;
        }
        let began = Timestamp::now();
        let started = self.start_instance(settings).await;
        let ready = started.is_ok().then(Timestamp::now);
        if started.is_err() {
            self.front.close();
        }
        Instance::end(running.take()).await;
        let start = Start { began, ready, over: Timestamp::now() };
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).push(start);
        *running = Some(started?);
        Ok(())
    }

    /// Starts an instance, and sends it the requests as soon as it answers.
    async fn start_instance(&self, settings: &BTreeMap<String, String>) -> Result<Instance> {
        let port = Port::reserve()?;
        let mut process = self.spawn(settings, port.number())?;
        let url = format!("http://127.0.0.1:{}{WARMUP_PATH}", port.number());
        match wait_for_answer(&process, &url, START_PATIENCE).await {
            Ok(()) => Ok(Instance { process, requests: self.front.lead_to(port.number()), _port: port }),
            Err(error) => {
                process.stop(Signal::TERM, STOP_PATIENCE).await;
                Err(error)
            }
        }
    }

    /// An error if it can't say of itself that it reaches its database.
    pub(crate) async fn check_health(&self) -> Result<()> {
        let url = format!("http://{}/api/healthz", self.host());
        let answer = direct_client()?.get(&url).send().await.context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(Error::new(format!("{url} was answered with {status}")))
        }
    }

    fn spawn(&self, settings: &BTreeMap<String, String>, port: u16) -> Result<Process> {
        let mut command = self.launcher.command(Path::new("/bin/sh"), Signal::KILL);
        // The service's own start-up command, as App Service runs it: migrate, then serve.
        command.arg(self.service.join("startup.sh")).current_dir(&self.service);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(settings);
        // The platform's own variables win over settings of the same name, and nothing else is inherited.
        let programs = format!("{}:/usr/local/bin:/usr/bin:/bin", self.service.join(".venv/bin").display());
        command.env("PATH", programs).env("HOME", &self.home).env("LANG", "C.UTF-8");
        command.env("HOST", "127.0.0.1").env("PORT", port.to_string());
        let (process, pipes) = self.launcher.spawn("the application", command, Signal::KILL)?;
        self.capture(pipes.stdout);
        self.capture(pipes.stderr);
        Ok(process)
    }

    fn capture(&self, pipe: Option<impl AsyncRead + Unpin + Send + 'static>) {
        let Some(pipe) = pipe else { return };
        let log = self.log.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).split(b'\n');
            // Bytes and not text: a line that is no UTF-8 must not end the log.
            while let Ok(Some(line)) = lines.next_segment().await {
                log.add(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
            }
        });
    }
}

impl Instance {
    /// Lets an instance that gets no more requests answer those that it has, and ends it.
    async fn end(instance: Option<Self>) {
        let Some(mut instance) = instance else { return };
        if tokio::time::timeout(STOP_PATIENCE, instance.requests.answered()).await.is_err() {
            tracing::warn!("an instance of the application ends with requests unanswered");
        }
        instance.process.stop(Signal::TERM, STOP_PATIENCE).await;
    }
}

/// What an application has printed, and those who follow it.
struct Log {
    lines: Mutex<VecDeque<LogLine>>,
    followers: broadcast::Sender<LogLine>,
    file: File,
}

impl Log {
    fn new(file: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(file);
        let file = file.context(|| "cannot open the application's log".into())?;
        Ok(Self { lines: Mutex::default(), followers: broadcast::Sender::new(1024), file })
    }

    fn add(&self, text: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = LogLine { at: Timestamp::now(), text };
        // The file only helps to find a fault; a full disk must not silence the stream.
        let _ = writeln!(&self.file, "{:.9} {}", line.at, line.text);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        // Still under the lock, so that a new follower sees the line either here or there. Nobody may be following.
        let _ = self.followers.send(line);
    }

    fn follow(&self) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.iter().cloned().collect(), self.followers.subscribe())
    }
}

/// All applications, by the name of their site.
pub(crate) struct Applications(pub(crate) BTreeMap<String, Arc<Application>>);

impl AppControl for Applications {
    fn start<'a>(
        &'a self,
        app: &'a str,
        settings: BTreeMap<String, String>,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async move {
            let application = self.0.get(app).ok_or_else(|| format!("there is no site {app}"))?;
            application.start(&settings).await.map_err(|error| error.chain())
        })
    }

    fn starts(&self, app: &str) -> u64 {
        self.0.get(app).map_or(0, |application| application.starts())
    }

    fn follow(&self, app: &str) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        match self.0.get(app) {
            Some(application) => application.log.follow(),
            // A site without an application: an empty log that has already ended.
            None => (Vec::new(), broadcast::Sender::new(1).subscribe()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_sees_each_line_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Log::new(file.path()).unwrap();
        log.add("before".into());
        let (past, mut future) = log.follow();
        log.add("after".into());
        assert_eq!(past.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["before"]);
        assert_eq!(future.try_recv().unwrap().text, "after");
        assert!(future.try_recv().is_err());
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert!(
            written.lines().all(|line| line.contains("Z ")) && written.contains("Z after\n"),
            "{written}"
        );
    }

    #[test]
    fn the_log_forgets_its_oldest_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Log::new(file.path()).unwrap();
        for number in 0..LOG_LINES + 2 {
            log.add(number.to_string());
        }
        let (lines, _) = log.follow();
        assert_eq!((lines.len(), lines[0].text.as_str()), (LOG_LINES, "2"));
    }
}
