//! What stands before every vendor: latency, a record of each request, and the faults that a test has set.
//!
//! The public record holds no secret: neither headers nor bodies, and no value of a query parameter that signs or
//! authorizes. Whole requests, each with its answer, are kept only where the sandbox was started with
//! `--record-bodies`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::faults::{Fault, Faults, Hit, Kind, Target, When};

/// No vendor takes a larger request.
const BODY_LIMIT: usize = 8 << 20;
/// The oldest requests are forgotten beyond this many.
const ENTRIES: usize = 100_000;
/// Query parameters whose value signs or authorizes.
const SECRET_PARAMETERS: [&str; 7] =
    ["sig", "signature", "code", "token", "access_token", "client_secret", "s"];
/// Headers that authorize; not even `--record-bodies` keeps them, but for the scheme of the first.
const SECRET_HEADERS: [&str; 4] = ["authorization", "x-amz-security-token", "cookie", "set-cookie"];

/// Records requests, and spoils those that a fault hits.
pub(crate) struct Recorder {
    latency: Duration,
    faults: Faults,
    entries: Mutex<Entries>,
    recording: Option<Mutex<Vec<Value>>>,
}

#[derive(Default)]
struct Entries {
    kept: VecDeque<Entry>,
    last: u64,
}

/// One request, as `GET /_sandbox/requests` shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    /// Counts from 1, in the order of arrival.
    pub(crate) seq: u64,
    /// When it arrived.
    pub(crate) time: Timestamp,
    /// The system it went to.
    pub(crate) system: &'static str,
    /// Its method.
    pub(crate) method: String,
    /// Its host, which names the key vault or the application.
    pub(crate) host: String,
    /// Its path and query without secrets.
    pub(crate) path: String,
    /// The AWS operation, whose path is always `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) operation: String,
    /// The answer's status; null while in flight and where there was no answer.
    pub(crate) status: Option<u16>,
    /// From arrival to answer.
    pub(crate) latency_ms: Option<u64>,
    /// The caller went away before the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) abandoned: bool,
    /// A fault holds it at this moment.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) held: bool,
    /// The fault that hit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<Kind>,
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(crate) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("dropped by a fault")
    }
}

impl std::error::Error for Dropped {}

impl Recorder {
    /// A recorder that lets each request wait for `latency`, and keeps whole requests if told so.
    pub(crate) fn new(latency: Duration, record_bodies: bool) -> Self {
        Self {
            latency,
            faults: Faults::new(),
            entries: Mutex::default(),
            recording: record_bodies.then(Mutex::default),
        }
    }

    /// How long each request waits.
    pub(crate) const fn latency(&self) -> Duration {
        self.latency
    }

    /// The faults.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The requests so far that came after this one; all of them after 0.
    pub(crate) fn requests(&self, after: u64) -> Vec<Entry> {
        self.entries().kept.iter().filter(|entry| entry.seq > after).cloned().collect()
    }

    /// Whole requests with their answers, those that came after this one, if they are kept.
    pub(crate) fn recording(&self, after: u64) -> Option<Vec<Value>> {
        let recording = self.recording.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let later = |request: &&Value| request["seq"].as_u64().is_none_or(|seq| seq > after);
        Some(recording.iter().filter(later).cloned().collect())
    }

    /// Answers a request to `system` through `router`. Once the vendor has begun, the request is carried out even if
    /// the caller goes away, as at the real one.
    pub(crate) async fn answer<B>(
        self: Arc<Self>,
        system: &'static str,
        router: Router,
        request: Request<B>,
    ) -> Result<Response<Body>, Dropped>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let arrived = Instant::now();
        let (parts, body) = request.into_parts();
        // A request that did not arrive whole has not arrived.
        let body = axum::body::to_bytes(Body::new(body), BODY_LIMIT).await.map_err(|_| Dropped)?;
        let mut flight = InFlight { seq: self.open(system, &parts, &body), recorder: &self, landed: false };
        let mut hits = self.hits(system, &parts, &body);
        hits.iter_mut().for_each(|hit| hit.fault.repeat(&body));
        if let Some(hit) = hits.first() {
            flight.change(|entry| entry.fault = Some(hit.fault.kind));
        }
        tokio::time::sleep(self.latency).await;
        let late = hits.iter().any(|hit| hit.fault.late);
        let request = Request::from_parts(parts, Body::from(body));
        let answer = Arc::clone(&self).carried_out(flight.seq, arrived, hits, router, request);
        // Nobody may wait for it any more when its time comes.
        let answer = if late { tokio::spawn(answer).await.unwrap_or(Err(Dropped)) } else { answer.await };
        flight.landed = true;
        answer
    }

    /// Carries a request out between the faults that hit it, and notes what was answered.
    async fn carried_out(
        self: Arc<Self>,
        seq: u64,
        arrived: Instant,
        mut hits: Vec<Hit>,
        router: Router,
        request: Request<Body>,
    ) -> Result<Response<Body>, Dropped> {
        let answer = match self.spoilt(seq, &mut hits, router, request).await {
            Ok(answer) => self.keep(seq, answer).await,
            dropped => dropped,
        };
        self.change(seq, |entry| {
            entry.status = answer.as_ref().ok().map(|response| response.status().as_u16());
            entry.latency_ms = u64::try_from(arrived.elapsed().as_millis()).ok();
        });
        answer
    }

    /// Puts an answer beside its request, where requests are kept. A stream has no end to wait for, so its body is
    /// passed on unseen.
    async fn keep(&self, seq: u64, answer: Response<Body>) -> Result<Response<Body>, Dropped> {
        let Some(recording) = &self.recording else { return Ok(answer) };
        let (parts, body) = answer.into_parts();
        let (body, seen) = match body.size_hint().exact() {
            Some(_) => {
                let bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(|_| Dropped)?;
                (Body::from(bytes.clone()), Some(bytes))
            }
            None => (body, None),
        };
        let kept = json!({
            "status": parts.status.as_u16(),
            "headers": shown(&parts.headers),
            "body": seen.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        });
        let mut recording = recording.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = recording.iter_mut().rev().find(|request| request["seq"] == seq) {
            request["answer"] = kept;
        }
        drop(recording);
        Ok(Response::from_parts(parts, body))
    }

    /// The answer to a request, as the faults that hit it leave it.
    async fn spoilt(
        &self,
        seq: u64,
        hits: &mut [Hit],
        router: Router,
        request: Request<Body>,
    ) -> Result<Response<Body>, Dropped> {
        if let Some(response) = self.spoil(seq, hits, When::Before).await? {
            return Ok(response);
        }
        let answer = carry_out(router, request).await;
        Ok(self.spoil(seq, hits, When::After).await?.unwrap_or(answer))
    }

    /// Lets the faults of one side of the effect happen, in the order they were set.
    async fn spoil(&self, seq: u64, hits: &mut [Hit], when: When) -> Result<Option<Response<Body>>, Dropped> {
        for hit in hits.iter_mut().filter(|hit| hit.fault.when == when) {
            match hit.fault.kind {
                Kind::Delay => hit.wait().await,
                Kind::Hold => {
                    let _held = Held::begin(self, seq);
                    hit.wait().await;
                }
                Kind::Drop => return Err(Dropped),
                Kind::Status => return Ok(Some(spoilt_answer(&hit.fault))),
            }
        }
        Ok(None)
    }

    fn hits(&self, system: &str, parts: &Parts, body: &[u8]) -> Vec<Hit> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        self.faults.hits(&Target {
            method: parts.method.as_str(),
            path,
            host: &host(parts),
            system,
            operation: &named(system, parts, body),
        })
    }

    fn open(&self, system: &'static str, parts: &Parts, body: &Bytes) -> u64 {
        let time = Timestamp::now();
        let mut entries = self.entries();
        entries.last += 1;
        let seq = entries.last;
        if entries.kept.len() == ENTRIES {
            entries.kept.pop_front();
        }
        entries.kept.push_back(Entry {
            seq,
            time,
            system,
            method: parts.method.to_string(),
            host: host(parts),
            path: public_path(system, parts),
            operation: named(system, parts, body),
            status: None,
            latency_ms: None,
            abandoned: false,
            held: false,
            fault: None,
        });
        drop(entries);
        if let Some(recording) = &self.recording {
            recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(whole(seq, time, system, parts, body));
        }
        seq
    }

    fn change(&self, seq: u64, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        let first = entries.kept.front().map_or(seq, |entry| entry.seq);
        let index = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        if let Some(entry) = entries.kept.get_mut(index).filter(|entry| entry.seq == seq) {
            change(entry);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has arrived. If it is dropped before it lands, the caller has gone away.
struct InFlight<'a> {
    seq: u64,
    recorder: &'a Recorder,
    landed: bool,
}

impl InFlight<'_> {
    fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.recorder.change(self.seq, change);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.change(|entry| entry.abandoned = true);
        }
    }
}

/// A request that a fault holds, for as long as this lives.
struct Held<'a> {
    seq: u64,
    recorder: &'a Recorder,
}

impl<'a> Held<'a> {
    fn begin(recorder: &'a Recorder, seq: u64) -> Self {
        recorder.change(seq, |entry| entry.held = true);
        Self { seq, recorder }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.recorder.change(self.seq, |entry| entry.held = false);
    }
}

/// Runs the vendor's handler in a task of its own: it must not stop half-way when the caller goes away.
async fn carry_out(router: Router, request: Request<Body>) -> Response<Body> {
    let handler = tokio::spawn(async move {
        let Ok(response) = TowerToHyperService::new(router).call(request).await as Result<_, Infallible>;
        response
    });
    handler.await.unwrap_or_else(|error| {
        tracing::error!("a handler failed: {error}");
        said(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "a handler failed")
    })
}

/// The answer that a fault wants, with the vendor's own words where it has them.
fn spoilt_answer(fault: &Fault) -> Response<Body> {
    let status = fault.status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let usual = match status {
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::FORBIDDEN => "AuthorizationFailed",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        _ => "InternalServerError",
    };
    let message = fault.message.as_deref().unwrap_or("a fault set in the sandbox");
    let mut response = said(status, fault.code.as_deref().unwrap_or(usual), message);
    let headers = response.headers_mut();
    if let Some(seconds) = fault.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    for (name, value) in &fault.headers {
        let name = HeaderName::try_from(name.as_str()).expect("looked at when the fault was set");
        headers
            .insert(name, HeaderValue::try_from(value.as_str()).expect("looked at when the fault was set"));
    }
    response
}

/// An answer that each vendor's client can read: Azure's `error`, everybody's `message`, AWS's `__type`.
fn said(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = json!({"error": {"code": code, "message": message}, "message": message, "__type": code});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The host that a request names.
pub(crate) fn host(parts: &Parts) -> String {
    let named = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| parts.uri.authority().map(|authority| authority.as_str())).unwrap_or_default().to_owned()
}

/// The AWS operation of a request, of either protocol.
fn named(system: &str, parts: &Parts, body: &[u8]) -> String {
    let operation = operation(&parts.headers);
    if operation.is_empty() && system == "aws" {
        let mut fields = url::form_urlencoded::parse(body);
        return fields
            .find(|(name, _)| name == "Action")
            .map(|(_, own)| own.into_owned())
            .unwrap_or_default();
    }
    operation.to_owned()
}

/// `PutSecretValue` of `X-Amz-Target: secretsmanager.PutSecretValue`.
fn operation(headers: &HeaderMap) -> &str {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    target.rsplit_once('.').map_or(target, |(_, operation)| operation)
}

/// Path and query, with what authorizes replaced by `***`.
fn public_path(system: &str, parts: &Parts) -> String {
    let mut path = parts.uri.path().to_owned();
    if system == "webhook"
        && let Some((open, _)) = path.rsplit_once('/')
    {
        // The end of a chat webhook's path is its credential.
        path = format!("{open}/***");
    }
    let Some(query) = parts.uri.query() else { return path };
    let parameters = query.split('&').map(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        let secret = SECRET_PARAMETERS.iter().any(|secret| secret.eq_ignore_ascii_case(name));
        if secret { format!("{name}=***") } else { parameter.to_owned() }
    });
    format!("{path}?{}", parameters.collect::<Vec<_>>().join("&"))
}

/// Headers without what authorizes. That there was an authorization, and of which scheme, stays.
fn shown(headers: &HeaderMap) -> Vec<(&str, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let shown = |(name, value)| match name {
        &header::AUTHORIZATION => {
            let scheme = text(value).split(' ').next().unwrap_or_default().to_owned();
            Some((name.as_str(), format!("{scheme} ***")))
        }
        name if SECRET_HEADERS.contains(&name.as_str()) => None,
        name => Some((name.as_str(), text(value))),
    };
    headers.iter().filter_map(shown).collect()
}

/// A whole request, for contract tests. Its answer follows when there is one.
fn whole(seq: u64, time: Timestamp, system: &str, parts: &Parts, body: &Bytes) -> Value {
    json!({
        "seq": seq,
        "time": time,
        "system": system,
        "method": parts.method.as_str(),
        "host": host(parts),
        "path": parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        "headers": shown(&parts.headers),
        "body": String::from_utf8_lossy(body),
        "answer": null,
    })
}

#[cfg(test)]
mod tests;
