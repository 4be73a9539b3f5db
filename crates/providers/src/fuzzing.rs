//! What the fuzz targets call: doors to functions that nobody else outside of this crate needs.

use std::future::Future;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::SdkError;
use aws_smithy_types::error::ErrorMetadata;
use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::Headers;
use futures::FutureExt;
use jiff::Timestamp;
use pgrotate_core::database_url::Target;
use pgrotate_core::env::Clock;
use pgrotate_core::{Environment, Error, Result, Secret};
use reqwest::Response;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::aws_secrets_manager::classify as aws;
use crate::azure::{self, Accounts};
use crate::child::{self, Ended};
use crate::credentials::Credentials;
use crate::env_file::Dialect;
use crate::env_file::line::Line;
use crate::github::installation::Place;
use crate::http::Effect;
use crate::shared::{DatabaseTls, Shared, TlsMode, Vendors};
use crate::ssh::{self, Ssh};
use crate::webhook::{Format, Options, Webhook};
use crate::{azure_app_service, azure_key_vault, azure_postgres_flexible, github, jira, onepassword};

const OPERATION: &str = "do it";

// ---------------------------------------------------------------- passwords and files

/// The SCRAM verifier that goes to a server.
///
/// # Errors
/// When it came out damaged.
pub fn verifier(password: &Secret) -> Result<String> {
    crate::postgres::verifier(password)
}

/// A file with a value put into it.
pub struct Edit {
    /// Where the former value stood.
    pub span: Range<usize>,
    /// The whole file.
    pub new: Zeroizing<Vec<u8>>,
}

/// The one value that a key has in a file; `None` where it has none.
///
/// # Errors
/// When the file can't be edited with certainty.
pub fn read(dialect: Dialect, key: &str, file: &[u8]) -> Result<Option<Secret>> {
    let line = line(dialect, key);
    line.value(line.place(file)?.as_ref())
}

/// Puts a value into a file, as a run does: what can't be read is not written. `None` if no variable has this name.
pub fn edit(dialect: Dialect, key: &str, file: &[u8], value: &Secret) -> Option<Result<Edit>> {
    let line = dialect.takes_name(key).then(|| line(dialect, key))?;
    let edit = || {
        let place = line.place(file)?;
        line.value(place.as_ref())?;
        let new = line.change(file, place.as_ref(), value.expose())?;
        let span = place.map(|place| place.span).unwrap_or_default();
        Ok(Edit { span, new })
    };
    Some(edit())
}

fn line(dialect: Dialect, key: &str) -> Line {
    Line { key: key.to_owned(), dialect, file: "a file".into() }
}

// ---------------------------------------------------------------- answers

/// An answer that is no success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, with their names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What each vendor's answer is taken to mean, once for a request that reads and once for one that writes.
pub fn meanings(answer: &Answer) -> Vec<(&'static str, Error)> {
    [Effect::Reads, Effect::Writes]
        .into_iter()
        .flat_map(|effect| [over_http(answer, effect), over_sdks(answer, effect), by_words(answer, effect)])
        .flatten()
        .collect()
}

/// Systems that are asked by our own client.
fn over_http(answer: &Answer, effect: Effect) -> Vec<(&'static str, Error)> {
    let Some(response) = answer.response() else { return Vec::new() };
    let mut found = vec![
        ("jira", jira::classify(&response, effect, OPERATION)),
        ("the log stream", azure_app_service::log::classify(response.status(), &response, OPERATION.into())),
        ("the webhook", WEBHOOK.classify(response.status(), crate::http::retry_after(&response))),
    ];
    let (api, place) = (github::Api::new(&SHARED).ok(), Place::of(&["repos", "owner", "name"]));
    for (vendor, app) in [("github", false), ("the github app", true)] {
        let (Some(api), Some(response)) = (&api, answer.response()) else { continue };
        found.extend(
            at_once(async {
                match app {
                    false => api.classify(response, effect, OPERATION).await,
                    true => api.refused(response, place.as_ref()).await,
                }
            })
            .map(|error| (vendor, error)),
        );
    }
    let connect = at_once(onepassword::connect::classify(response, effect, OPERATION));
    found.extend(connect.map(|error| ("1password connect", error)));
    found
}

/// Systems that are asked by their vendor's crates.
fn over_sdks(answer: &Answer, effect: Effect) -> Vec<(&'static str, Error)> {
    let manager = || azure::Answer::new(answer.raw());
    let vault = azure_key_vault::failure::Place { vault: "vault".into(), secret: "secret".into() };
    let refused = |code: Option<String>| {
        let kind = ErrorKind::HttpResponse {
            status: answer.status.into(),
            error_code: code,
            raw_response: Some(Box::new(answer.raw())),
        };
        azure_core::Error::with_message(kind, answer.text())
    };
    let code = answer.named(&["error", "code", "error_codes"]);
    let mut found = vec![
        ("the resource manager", manager().classify(effect, OPERATION)),
        ("the flexible server", azure_postgres_flexible::classify(&manager(), OPERATION)),
        ("its operation", azure_postgres_flexible::failed(false, &manager().failure(), OPERATION)),
        ("key vault", azure_key_vault::failure::classify(&refused(None), effect, OPERATION, &vault)),
        ("entra", azure::credential::failure::entra(answer.status, &code, "somebody")),
    ];
    let cli = azure::credential::failure::why_not_the_cli(&refused(None));
    found.push(("the azure cli", Error::new(pgrotate_core::Kind::Unauthenticated, OPERATION).because(cli)));
    found.extend(answer.aws(effect).map(|error| ("aws", error)));
    found
}

/// Programs, whose words are searched.
fn by_words(answer: &Answer, effect: Effect) -> Vec<(&'static str, Error)> {
    let ended = Some(Ended::Status(ExitStatus::from_raw(i32::from(answer.status & 0xFF) << 8)));
    let said =
        child::Answer { ended, stdout: Zeroizing::default(), stderr: Zeroizing::new(answer.body.clone()) };
    let patience = Duration::from_secs(30);
    let mut found = vec![("op", onepassword::cli::failure::classify(&said, effect, patience, OPERATION))];
    if let Ok(Some(ssh)) = Ssh::configured(Some("host".into()), None, &SHARED) {
        let judged = |began| ssh::failure::classify(&ssh, &said, began, effect, patience, OPERATION);
        found.extend([("ssh", judged(false)), ("ssh", judged(true))]);
    }
    found
}

impl Answer {
    fn response(&self) -> Option<Response> {
        let builder = http::Response::builder().status(self.status);
        let builder = self.headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        builder.body(self.body.clone()).ok().map(Response::from)
    }

    fn raw(&self) -> RawResponse {
        let mut headers = Headers::new();
        self.headers.iter().for_each(|(name, value)| headers.insert(name.clone(), value.clone()));
        RawResponse::from_bytes(self.status.into(), headers, self.body.clone())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first of these members of a JSON body, one inside of another where it is an object.
    fn named(&self, names: &[&str]) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let member =
            |value: &Value| names.iter().map(|name| value[*name].clone()).find(|value| !value.is_null());
        let found = member(&body).map(|value| member(&value).unwrap_or(value)).unwrap_or_default();
        found.as_str().map_or_else(String::new, str::to_owned)
    }

    /// As the SDK reads an answer of AWS's JSON protocol.
    fn aws(&self, effect: Effect) -> Option<Error> {
        let (code, message) = (self.named(&["__type", "code"]), self.named(&["message", "Message"]));
        let error = ErrorMetadata::builder().code(code).message(message).build();
        let status = self.status.try_into().ok()?;
        let mut raw = HttpResponse::new(status, self.body.clone().into());
        for (name, value) in &self.headers {
            raw.headers_mut().try_insert(name.clone(), value.clone()).ok()?;
        }
        let request = if effect == Effect::Writes { aws::Request::Put } else { aws::Request::Get };
        Some(aws::classify(&SdkError::service_error(error, raw), request, "secret"))
    }
}

/// What waits for a body that is there already does not wait.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

static SHARED: LazyLock<Arc<Shared>> = LazyLock::new(|| {
    Arc::new(Shared {
        environment: Environment::from("dev"),
        target: Target { host: "db".into(), port: 5432, database: "app".into(), user: "admin".into() },
        takes_turns: false,
        database_tls: DatabaseTls { mode: TlsMode::VerifyFull, ca_file: None },
        credentials: Credentials::default(),
        http: crate::http::tls_config(None)
            .and_then(crate::http::client)
            .expect("the system's trust store is enough"),
        ca: None,
        vendors: Vendors::default(),
        azure: Accounts::default(),
        budgets: Default::default(),
        looks: Default::default(),
        clocks: Default::default(),
        base: ".".into(),
        clock: Arc::new(Stopped),
    })
});

static WEBHOOK: LazyLock<Webhook> = LazyLock::new(|| {
    let options = Options { format: Format::Slack, url_variable: "URL".into() };
    Webhook::new(None, options, Arc::clone(&SHARED)).expect("URL is a variable's name")
});

/// A clock that stands.
#[derive(Debug)]
struct Stopped;

#[async_trait::async_trait]
impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _duration: Duration) {}
}
