//! The application's log after its restart, searched for what PostgreSQL, its drivers and Alembic
//! really print when a login fails. (A runbook's `invalid password` appears in none of them.)

mod lines;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Evidence, Finding, Severity, Verification};
use pgrotate_core::{Error, Kind, Result};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use self::lines::{Lines, Scan};
use super::{Properties, Site};
use crate::azure::{Account, Call};
use crate::http::{self, Effect, kind_of, retry_of, unanswered, with_retry};
use crate::log_scan::Redactor;
use crate::shared::Shared;

/// As much of the stream is read at most.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// A difference between the clocks that is worth correcting; the header tells whole seconds.
const CLOCKS_AGREE_WITHIN: SignedDuration = SignedDuration::from_secs(2);

/// `[[checks]] kind = "azure_app_service_log"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group.
    pub resource_group: String,
    /// The application's name.
    pub app: String,
    /// The slot; the production site if left out.
    #[serde(default)]
    pub slot: Option<String>,
    /// Texts to look for beside [`TROUBLES`](crate::log_scan::TROUBLES); upper and lower case are the same.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// Without a new line for this long, in milliseconds, the log has said what it has to say; so has that of an
    /// application that is never quiet with a line from this long after the reading began.
    #[serde(default = "quiet_ms")]
    pub quiet_ms: u64,
    /// After this many seconds the log is left alone in any case.
    #[serde(default = "limit_s")]
    pub limit_s: u64,
}

fn quiet_ms() -> u64 {
    2000
}

fn limit_s() -> u64 {
    20
}

/// The log of one application or slot.
pub struct Log {
    id: String,
    pub(super) site: Site,
    /// What the configuration looks for beside the built-in texts, in lower case.
    pub(super) patterns: Vec<String>,
    quiet: Duration,
    pub(super) limit: Duration,
    /// The SCM site, once it is known: it has the name of neither application nor slot.
    scm: futures::lock::Mutex<Option<String>>,
}

impl Log {
    /// Binds the verification. Nothing is asked of Azure yet.
    ///
    /// # Errors
    /// When a name can't be one of Azure's, or a pattern is empty.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { subscription, resource_group, app, slot, patterns, quiet_ms, limit_s } = options;
        if patterns.iter().any(|pattern| pattern.trim().is_empty()) {
            return Err(Error::new(Kind::Config, "use an empty text in `patterns`")
                .because("every line would match it"));
        }
        Ok(Self {
            id: name.unwrap_or_else(|| "log".to_owned()),
            site: Site::new(subscription, resource_group, app, slot, shared)?,
            patterns: patterns.into_iter().map(|pattern| pattern.to_lowercase()).collect(),
            quiet: Duration::from_millis(quiet_ms),
            limit: Duration::from_secs(limit_s),
            scm: futures::lock::Mutex::default(),
        })
    }

    fn operation(&self) -> String {
        format!("read the log of the application {}", self.site.name())
    }

    async fn scm_host(&self, account: &Account) -> Result<String> {
        let mut kept = self.scm.lock().await;
        if let Some(host) = &*kept {
            return Ok(host.clone());
        }
        let site = self.site.read(account).await?;
        let host = self.host_in(&site.properties)?;
        *kept = Some(host.clone());
        Ok(host)
    }

    fn host_in(&self, properties: &Properties) -> Result<String> {
        let host = properties.scm_host().ok_or_else(|| {
            Error::new(Kind::NotFound, self.operation()).because("the application has no SCM site")
        })?;
        Ok(host.to_owned())
    }

    /// Opens the stream and leaves it: whether it can be read shows in no other way.
    async fn look_at_stream(&self, account: &Account) -> Result<Vec<Finding>> {
        match self.open(account).await {
            Ok(_) => Ok(Vec::new()),
            Err(error) if matches!(error.kind(), Kind::Unauthenticated | Kind::Forbidden) => {
                let what = format!("the log can't be read: {}", error.causes().join(": "));
                let finding = Finding::new(Severity::Blocks, self.id.as_str(), what)
                    .why("the run reads it after the change, and could not end without it")
                    .mend(error.hints().join("; "));
                Ok(vec![finding])
            }
            Err(error) => Err(error),
        }
    }

    async fn look_at_settings(&self, account: &Account) -> Result<Vec<Finding>> {
        let operation = format!("read the log settings of {}", self.site.name());
        let found = |what: &str| Finding::new(Severity::Unseen, self.id.as_str(), what);
        match self.site.look::<Value>(account, &["config", "logs"], Call::get, &operation).await {
            Ok(logs) if is_silent(&logs["properties"]) => Ok(vec![
                found("the application's logs are switched off, so nothing will be seen in them").mend(
                    format!("az webapp log config {} --docker-container-logging filesystem", self.site.cli()),
                ),
            ]),
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.kind() == Kind::Forbidden => {
                Ok(vec![found("whether the application's logs are switched on can't be seen")])
            }
            Err(error) => Err(error),
        }
    }

    async fn open(&self, account: &Account) -> Result<Response> {
        let operation = self.operation();
        let host = self.scm_host(account).await?;
        let url = http::endpoint(&format!("https://{host}/logstream"))
            .map_err(|error| error.during(operation.clone()))?;
        let authorization =
            account.scm_authorization().await.map_err(|error| error.during(operation.clone()))?;
        let request = account
            .http()
            .get(url)
            .header("authorization", authorization.as_str())
            .timeout(self.limit + Duration::from_secs(30));
        let response =
            request.send().await.map_err(|error| unanswered(&error, Effect::Reads, operation.clone()))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(classify(response.status(), &response, operation))
        }
    }

    /// Reads until the log is quiet, or it has been enough. `ahead` is how far the other side's clock is.
    async fn read(
        &self,
        response: &mut Response,
        lines: &mut Lines<'_>,
        ahead: SignedDuration,
    ) -> Result<()> {
        let clock = &self.site.shared.clock;
        let after = |wait| clock.now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let (until, enough) = (after(self.limit), after(self.quiet));
        // An application with requests writes on and on. By a line from then, all from before has been shown.
        let enough_there = enough.checked_add(ahead).unwrap_or(enough);
        let mut bytes = 0;
        loop {
            let left = until.duration_since(clock.now());
            // Both clocks: theirs may be a little ahead without our knowing.
            let caught_up = lines.reach(enough_there) && clock.now() >= enough;
            if caught_up || left.is_negative() || bytes > BYTES_MAX {
                return Ok(());
            }
            let pause = self.quiet.min(left.unsigned_abs());
            let chunk = futures::select_biased! {
                chunk = response.chunk().fuse() => chunk,
                () = clock.sleep(pause).fuse() => return Ok(()),
            };
            match chunk {
                Ok(Some(chunk)) => {
                    bytes += chunk.len();
                    lines.take(&chunk);
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(unanswered(&error, Effect::Reads, self.operation())),
            }
        }
    }

    fn judge(&self, scan: &Scan) -> Result<Outcome> {
        if let Some((pattern, excerpt)) = &scan.first {
            let count = scan.matching;
            let s = if count == 1 { "" } else { "s" };
            return Err(Error::new(Kind::BadState, format!("see a clean log of {}", self.site.name()))
                .because(format!("{count} line{s} since the restart match {pattern:?}"))
                .because(format!("the first: {excerpt}"))
                .hint(format!("see for yourself: az webapp log tail {}", self.site.cli())));
        }
        if scan.lines == 0 {
            return Ok(Outcome::unseen("the log shows no line since the restart"));
        }
        let outcome = Outcome::confirmed().note(format!(
            "{} lines since the restart began, none about a failed login after it",
            scan.lines
        ));
        Ok(match scan.meanwhile {
            0 => outcome,
            count => outcome.note(format!("{count} while the application was restarting")),
        })
    }
}

/// What a refusal of the SCM site means.
pub(crate) fn classify(status: StatusCode, response: &Response, operation: String) -> Error {
    let after = http::retry_after(response);
    let error = Error::new(kind_of(status), operation);
    match status.as_u16() {
        401 | 403 => error
            .because(format!("the SCM site refuses the token ({})", status.as_u16()))
            .hint("give this identity the role \"Website Contributor\" on the application")
            .hint("does the SCM site allow this machine's address? see Networking, Access restriction"),
        404 => error.because("the SCM site has no log stream (404)").hint(
            "is the application running? a stopped one has none; az webapp log config switches logs on",
        ),
        _ => with_retry(
            error.because(format!("the SCM site answers {}", status.as_u16())),
            retry_of(status, Effect::Reads, after),
        ),
    }
}

/// How far the other side's clock is ahead of ours, if that matters.
fn clock_ahead(response: &Response, now: Timestamp) -> SignedDuration {
    let date = response.headers().get("date").and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let ahead = date.map_or(SignedDuration::ZERO, |date| date.timestamp().duration_since(now));
    if ahead.abs() <= CLOCKS_AGREE_WITHIN { SignedDuration::ZERO } else { ahead }
}

#[async_trait]
impl Verification for Log {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        let account = self.site.account()?;
        let (stream, settings) =
            futures::join!(self.look_at_stream(&account), self.look_at_settings(&account));
        Ok([stream?, settings?].concat())
    }

    async fn verify(&self, evidence: &Evidence<'_>) -> Result<Outcome> {
        let account = self.site.account()?;
        let mut response = self.open(&account).await?;
        let ahead = clock_ahead(&response, self.site.shared.clock.now());
        let there = |ours: Timestamp| ours.checked_add(ahead).unwrap_or(ours);
        let restart = there(evidence.changing_since)..there(evidence.since);
        let secrets = evidence.previous.into_iter().chain([evidence.password]);
        let mut lines = Lines::new(&self.patterns, restart, Redactor::new(secrets).strict());
        let read = self.read(&mut response, &mut lines, ahead).await;
        let scan = lines.finish();
        // A stream that breaks after some lines has still shown them.
        if scan.lines == 0 {
            read?;
        }
        self.judge(&scan)
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

/// Whether neither the web server's nor the application's output is kept.
fn is_silent(logs: &Value) -> bool {
    let http = logs["httpLogs"]["fileSystem"]["enabled"].as_bool().unwrap_or(false);
    let level = logs["applicationLogs"]["fileSystem"]["level"].as_str().unwrap_or("Off");
    !http && level.eq_ignore_ascii_case("Off")
}
