//! What a person reads when a system says no: one table for each system, with every error that its vendor documents.
//!
//! A row says what the vendor answers, what kind of failure that is and whether to try again; the words come out as one
//! page per system under `refusals/snapshots`, to be read as a whole. Every answer echoes a password, which must be
//! nowhere in what is said; and what can't be waited out says what helps.

mod app_service;
mod aws;
mod azure;
mod env_file;
mod github;
mod key_vault;
mod onepassword;
mod postgres;

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Retry};
use serde_json::{Value, json};

use crate::fake::Reply;

/// What vendors echo. With signs that no code or name has, as a password could have them.
const CANARY: &str = "Canary/8Zquux+9Xyzzy:";

/// What a vendor answers.
#[derive(Clone)]
struct Play {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Play {
    fn new(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// An error in the form of Azure's interfaces; details and message echo the password.
    fn azure(status: u16, code: &str, message: &str) -> Self {
        let message = format!("{message} {CANARY}");
        let details = json!([{"code": "Detail", "message": CANARY, "target": CANARY}]);
        Self::new(status, json!({"error": {"code": code, "message": message, "details": details}}))
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn response(&self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.status).unwrap();
        let mut response = match &self.body {
            Value::Null => status.into_response(),
            body => (status, axum::Json(body.clone())).into_response(),
        };
        for (name, value) in &self.headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        response
    }

    fn reply(&self) -> Reply {
        let reply = match &self.body {
            Value::Null => Reply::empty(self.status),
            body => Reply::json(self.status, body),
        };
        self.headers.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    }
}

/// A row: what happens, what is answered, and what that has to mean.
struct Row {
    what: &'static str,
    play: Play,
    kind: Kind,
    retry: Retry,
}

fn row(what: &'static str, play: Play, kind: Kind, retry: Retry) -> Row {
    Row { what, play, kind, retry }
}

const NEVER: Retry = Retry::Never;
const UNKNOWN: Retry = Retry::Unknown;
/// Later, and nobody has said when.
const LATER: Retry = Retry::Later { after_ms: None };

const fn after(after_ms: u64) -> Retry {
    Retry::Later { after_ms: Some(after_ms) }
}

/// Everything that a system makes us say.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Holds an error against what it has to be, and puts its words on the page.
    fn error(&mut self, what: &str, error: &Error, kind: Kind, retry: Retry) {
        assert_eq!((error.kind(), error.retry()), (kind, retry), "{what}: {error}");
        let helps = !error.hints().is_empty() || matches!(retry, Retry::Later { .. } | Retry::Unknown);
        assert!(helps, "{what}: nothing says what to do: {error}");
        assert!(!error.causes().is_empty(), "{what}: nothing says why: {error}");
        let lines = std::iter::once(format!("error: {}", error.operation()))
            .chain(error.causes().iter().map(|cause| format!("cause: {cause}")))
            .chain(error.hints().iter().map(|hint| format!("hint:  {hint}")));
        let retry = match retry {
            Retry::Never => "not again".to_owned(),
            Retry::Later { after_ms: None } => "again, later".to_owned(),
            Retry::Later { after_ms: Some(wait) } => format!("again, after {wait} ms"),
            Retry::Unknown => "look first, then again".to_owned(),
        };
        self.add(what, &format!("{kind:?}, {retry}"), lines);
        quiet(what, &format!("{error} {error:?} {}", serde_json::to_string(error).unwrap()));
    }

    /// Puts a finding on the page. What stops a run says what to do.
    fn finding(&mut self, what: &str, finding: &Finding) {
        assert!(finding.severity < Severity::Blocks || finding.mend.is_some(), "{what}: {finding:?}");
        let severity = format!("{:?}", finding.severity).to_lowercase();
        let lines = std::iter::once(format!("{severity}: {}: {}", finding.subject, finding.what))
            .chain(finding.why.iter().map(|why| format!("why:   {why}")))
            .chain(finding.mend.iter().map(|mend| format!("mend:  {mend}")));
        self.add(what, "found by check", lines);
        quiet(what, &format!("{finding:?}"));
    }

    fn add(&mut self, what: &str, means: &str, lines: impl Iterator<Item = String>) {
        writeln!(self.0, "## {what}\n({means})").unwrap();
        lines.for_each(|line| writeln!(self.0, "{line}").unwrap());
        self.0.push('\n');
    }
}

/// Nothing of what a vendor echoed, and no URL with somebody's name in it.
fn quiet(what: &str, shown: &str) {
    let pieces = CANARY.split(['/', '+', ':']).filter(|piece| !piece.is_empty());
    for piece in pieces.chain([CANARY]) {
        assert!(!shown.contains(piece), "{what}: an answer is echoed");
    }
    for (at, _) in shown.match_indices("://") {
        let authority = shown[at + 3..].split(['/', ' ', '"', '?']).next().unwrap_or_default();
        assert!(!authority.contains('@'), "{what}: a URL with user-info: {shown}");
    }
}
