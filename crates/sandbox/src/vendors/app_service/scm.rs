//! The SCM site of an application: its log stream, which never ends, and its log files: their list, the file itself,
//! and the archive of them all.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::super::LogLine;
use super::super::azure_sign_in::Audience;
use super::super::call::{Call, empty, lock, now_text, reply, with_header};
use super::AppService;
use super::archive::zip;

/// The name of the container's log: date, instance, role.
const LOG_FILE: &str = "2026_11_23_ln0sdlwk0000_default_docker.log";

pub(super) fn router(service: Arc<AppService>) -> Router {
    Router::new().fallback(serve).with_state(service)
}

async fn serve(State(service): State<Arc<AppService>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    let label = call.host_label();
    if !admits(&service, &call, label) {
        return with_header(empty(401), "www-authenticate", "Basic realm=\"site\"");
    }
    let Some((app, has_process, right)) = site(&service, label) else { return empty(404) };
    // Whom the resource manager does not let publish, Kudu does not let in.
    if call.basic().is_none() && !right {
        return empty(403);
    }
    match (call.method.as_str(), call.segments().as_slice()) {
        ("GET", ["logstream", ..] | ["api", "logstream", ..]) if !has_process => log_stream(Vec::new(), None),
        ("GET", ["logstream", ..] | ["api", "logstream", ..]) => {
            let (recent, live) = service.apps.follow(&app);
            log_stream(recent, Some(live))
        }
        ("GET", ["api", "logs", "docker"]) => {
            let (recent, _) = service.apps.follow(&app);
            let size: usize = recent.iter().map(|line| line.text.len() + 1).sum();
            let root = service.scm.replacen("://", &format!("://{label}."), 1);
            reply(
                200,
                json!([{
                    "machineName": "ln0sdlwk0000",
                    "lastUpdated": now_text(),
                    "size": size,
                    "href": format!("{root}/api/vfs/LogFiles/{LOG_FILE}"),
                    "path": format!("/home/LogFiles/{LOG_FILE}"),
                }]),
            )
        }
        ("GET", ["api", "vfs", "LogFiles", LOG_FILE]) => {
            ([(header::CONTENT_TYPE, "text/plain")], log_file(&service, &app)).into_response()
        }
        ("GET", ["dump"] | ["api", "dump"] | ["api", "logs", "docker", "zip"]) => {
            let name = format!("LogFiles/{LOG_FILE}");
            let archive = zip(&[(&name, log_file(&service, &app).into_bytes())]);
            ([(header::CONTENT_TYPE, "application/zip")], archive).into_response()
        }
        _ => empty(404),
    }
}

/// What the application has printed, as its log file has it.
fn log_file(service: &AppService, app: &str) -> String {
    service.apps.follow(app).0.iter().map(written).collect()
}

/// The SCM site takes tokens for App Service and for the resource manager, and the publishing credentials of the site
/// where its policy allows Basic authentication.
fn admits(service: &AppService, call: &Call, label: &str) -> bool {
    if service.sign_in.check(call, &[Audience::AppService, Audience::ResourceManager]).is_ok() {
        return true;
    }
    let Some((user, password)) = call.basic() else { return false };
    let sites = lock(&service.sites);
    let site = sites.iter().find(|site| site.label().eq_ignore_ascii_case(label));
    site.is_some_and(|site| site.accepts_basic(&user, &password))
}

/// The application of a host name's first label, whether a process stands behind it, and whether the caller's roles let
/// in ("Kudu service overview": it takes the right to publish).
fn site(service: &AppService, label: &str) -> Option<(String, bool, bool)> {
    let sites = lock(&service.sites);
    let site = sites.iter().find(|site| !site.removed && site.label().eq_ignore_ascii_case(label))?;
    let action = format!("{}/publish/Action", site.kind());
    let right = service.gate.admit(&site.environment.name, &action, &site.id(), false).is_ok();
    Some((site.app.clone(), site.has_process(), right))
}

/// The recent lines and then every line as it comes, each with the time at which it was printed.
fn log_stream(recent: Vec<LogLine>, live: Option<Receiver<LogLine>>) -> Response {
    let greeting = format!(
        "{}  Welcome, you are now connected to log-streaming service.\n\n",
        Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S")
    );
    let first = [greeting].into_iter().chain(recent.iter().map(written)).collect();
    let content = [(header::CONTENT_TYPE, "text/plain")];
    (content, Body::from_stream(follow(first, live))).into_response()
}

fn follow(
    first: VecDeque<String>,
    live: Option<Receiver<LogLine>>,
) -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold((first, live), |(mut first, mut live)| async move {
        if let Some(text) = first.pop_front() {
            return Some((Ok(text), (first, live)));
        }
        let text = match &mut live {
            // Where nothing runs, the stream stays silent without ending.
            None => std::future::pending().await,
            Some(receiver) => match receiver.recv().await {
                Ok(line) => written(&line),
                Err(RecvError::Lagged(count)) => {
                    format!("{count} lines were dropped: the reader was too slow.\n")
                }
                Err(RecvError::Closed) => return None,
            },
        };
        Some((Ok(text), (first, live)))
    })
}

fn written(line: &LogLine) -> String {
    format!("{} {}\n", line.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"), line.text)
}
