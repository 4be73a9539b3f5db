//! GitHub's REST API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgrotate_core::provider::Sink;
use pgrotate_core::{Error, Kind};
use serde_json::{Value, json};

use super::{CANARY, LATER, NEVER, Page, Play, Row, UNKNOWN, after, row};
use crate::fake::{Call, Fake, Job, Reply, shared};
use crate::github_actions::GithubActions;
use crate::shared::{GithubSettings, Vendors};

const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const FINE: &str = "Resource not accessible by personal access token";

fn sink(fake: &Fake, options: Value) -> GithubActions {
    let github = GithubSettings { api: fake.url.clone(), ..GithubSettings::default() };
    let shared = shared(Vendors { github, ..Vendors::default() }, "GH_TOKEN=ghp_token");
    GithubActions::new(None, serde_json::from_value(options).unwrap(), shared).unwrap()
}

fn of_repository() -> Value {
    json!({"repository": "mindwell/backend", "secret": "DEV_DATABASE_URL"})
}

/// An error in GitHub's form, which echoes the password everywhere.
fn github(status: u16, message: &str) -> Play {
    let body = json!({"message": format!("{message} {CANARY}"), "documentation_url": "https://docs.github.com/rest",
        "status": status.to_string()});
    Play::new(status, body).header("date", DATE)
}

fn invalid(code: &str) -> Play {
    let errors = json!([{"resource": "Secret", "field": "encrypted_value", "code": code, "message": CANARY,
        "value": CANARY}]);
    Play::new(422, json!({"message": format!("Validation Failed {CANARY}"), "errors": errors}))
}

fn rows() -> Vec<Row> {
    let primary = |status| {
        github(status, "API rate limit exceeded for user ID 1.")
            .header("x-ratelimit-remaining", "0")
            .header("x-ratelimit-reset", "1767225690")
    };
    let secondary = |status| {
        github(status, "You have exceeded a secondary rate limit.").header("x-ratelimit-remaining", "4000")
    };
    let sso = "required; url=https://github.com/orgs/mindwell/sso?authorization_request=Canary";
    let fine = github(403, FINE).header("x-accepted-github-permissions", "secrets=write");
    let either = github(403, "Resource not accessible by integration")
        .header("x-accepted-github-permissions", "secrets=write,environments=write; administration=write");
    let classic =
        github(403, "Must have admin rights to Repository.").header("x-accepted-oauth-scopes", "repo");
    vec![
        row("400: an API version that is gone", github(400, "Invalid API version"), Kind::Rejected, NEVER),
        row("401", github(401, "Bad credentials"), Kind::Unauthenticated, NEVER),
        row("403 by personal access token", fine, Kind::Forbidden, NEVER),
        row("403 by integration", either, Kind::Forbidden, NEVER),
        row("403 for a classic token", classic, Kind::Forbidden, NEVER),
        row("403 without a word of what is wanted", github(403, FINE), Kind::Forbidden, NEVER),
        row("403 single sign-on", github(403, "SAML").header("x-github-sso", sso), Kind::Forbidden, NEVER),
        row("403, primary limit", primary(403), Kind::Throttled, after(91_000)),
        row("429, primary limit", primary(429), Kind::Throttled, after(91_000)),
        row("403, secondary limit without a time", secondary(403), Kind::Throttled, after(60_000)),
        row("429, secondary limit without a time", secondary(429), Kind::Throttled, after(60_000)),
        row("403, secondary limit", secondary(403).header("retry-after", "7"), Kind::Throttled, after(7000)),
        row(
            "429, secondary limit until a date",
            secondary(429).header("retry-after", "Thu, 01 Jan 2026 00:01:30 GMT"),
            Kind::Throttled,
            after(90_000),
        ),
        row("404: absent, or hidden", github(404, "Not Found"), Kind::NotFound, NEVER),
        row("301: renamed", github(301, "Moved Permanently"), Kind::BadState, NEVER),
        row("422 invalid", invalid("invalid"), Kind::Rejected, NEVER),
        row("422 missing_field", invalid("missing_field"), Kind::Rejected, NEVER),
        row("422 of no known code", invalid(CANARY), Kind::Rejected, NEVER),
    ]
}

fn key() -> Reply {
    Reply::json(200, &json!({"key_id": "1", "key": STANDARD.encode([9; 32])})).header("date", DATE)
}

async fn error_of(method: &'static str, play: Play) -> (Error, usize) {
    let fake = Fake::start(move |call: &Call| match call.method.as_str() {
        own if own == method => play.reply(),
        _ => key(),
    })
    .await;
    let sink = sink(&fake, of_repository());
    let error = sink.publish(&Job::new(sink.id(), "{password}", CANARY).update()).await.unwrap_err();
    (error, fake.calls().iter().filter(|call| call.method == method).count())
}

#[tokio::test]
async fn a_write_that_github_refuses() {
    let mut page = Page::default();
    let fault = row("502", github(502, "Bad Gateway"), Kind::ServerFault, UNKNOWN);
    for row in rows().into_iter().chain([fault]) {
        let (error, writes) = error_of("PUT", row.play).await;
        page.error(&format!("PUT: {}", row.what), &error, row.kind, row.retry);
        assert_eq!(writes, 1, "{}", row.what);
    }
    insta::assert_snapshot!("github_write", page.0);
}

#[tokio::test]
async fn a_read_that_github_refuses() {
    let mut page = Page::default();
    let fault = row("502", github(502, "Bad Gateway"), Kind::ServerFault, LATER);
    let nonsense = row("200 that is no JSON", Play::new(200, Value::Null), Kind::Corrupt, NEVER);
    for row in rows().into_iter().chain([fault, nonsense]) {
        let (error, _) = error_of("GET", row.play).await;
        page.error(&format!("GET: {}", row.what), &error, row.kind, row.retry);
    }
    insta::assert_snapshot!("github_read", page.0);
}

/// GitHub answers a question as if nobody might know: 404 for everything, or a right that is missing.
#[tokio::test]
async fn what_check_finds_before_it_could_go_wrong() {
    let mut page = Page::default();
    for (what, play) in [("everything is hidden", github(404, "Not Found")), ("no right", github(403, FINE))]
    {
        let fake = Fake::start(move |_: &Call| play.reply()).await;
        match sink(&fake, of_repository()).check().await {
            Ok(inspection) => inspection.findings.iter().for_each(|finding| page.finding(what, finding)),
            Err(error) => page.error(what, &error, error.kind(), NEVER),
        }
    }
    insta::assert_snapshot!("github_findings", page.0);
}
