//! Azure Resource Manager, and the flexible server that is changed through it.

use std::sync::{Arc, Mutex};

use axum::response::Response;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Authority, Change, Finding};
use pgrotate_core::{Kind, Result, Retry, Secret};
use serde_json::{Value, json};

use super::{CANARY, LATER, NEVER, Page, Play, Row, UNKNOWN, after, row};
use crate::azure::testing::{Fake, Seen, empty, reply, run, with_header};
use crate::azure_postgres_flexible::{Options, Server};

fn server(fake: &Fake) -> Server {
    let options = Options { subscription: "sub".into(), resource_group: "rg".into(), server: "pg".into() };
    Server::new(None, options, fake.shared()).unwrap()
}

fn resource(state: &str) -> Value {
    json!({"properties": {"state": state, "administratorLogin": "admin", "fullyQualifiedDomainName": "db",
        "replicationRole": "Primary", "authConfig": {"passwordAuth": "Enabled"}}})
}

fn accepted(request: &Seen) -> Response {
    with_header(empty(202), "azure-asyncoperation", &format!("https://{}/operations/1", request.host))
}

async fn install(fake: &Fake) -> Result<Outcome> {
    let (current, next) = (Secret::new("old"), Secret::new(CANARY));
    server(fake).install(&Change { run: run(), current: &current, next: &next }).await
}

async fn check(fake: &Fake) -> Result<Vec<Finding>> {
    server(fake).check(&Secret::new("old")).await
}

/// How the resource manager names a right that is missing.
pub(super) fn no_right(action: &str) -> String {
    format!(
        "The client '0000' with object id '1111' does not have authorization to perform action '{action}' over \
         scope '/subscriptions/sub' or the scope is invalid."
    )
}

const WRITE: &str = "Microsoft.DBforPostgreSQL/flexibleServers/write";

/// The errors that the resource manager has for everybody.
fn common() -> Vec<Row> {
    let throttled = || Play::azure(429, "TooManyRequests", "The request is being throttled.");
    let missing = |code| Play::azure(404, code, "could not be found");
    let date = ("Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:42 GMT");
    let dated = throttled().header("date", date.0).header("retry-after", date.1);
    let expired = Play::azure(401, "ExpiredAuthenticationToken", "The access token expiry UTC time is past.");
    let nameless = Play::azure(403, "LinkedAuthorizationFailed", "perform action");
    let policy = Play::azure(403, "RequestDisallowedByPolicy", "Resource was disallowed by policy.");
    let running = Play::azure(409, "AnotherOperationInProgress", "Another operation is in progress.");
    vec![
        row("401", expired, Kind::Unauthenticated, LATER),
        row(
            "403 AuthorizationFailed",
            Play::azure(403, "AuthorizationFailed", &no_right(WRITE)),
            Kind::Forbidden,
            NEVER,
        ),
        row("403 without the name of a right", nameless, Kind::Forbidden, NEVER),
        row("403 RequestDisallowedByPolicy", policy, Kind::Forbidden, NEVER),
        row("404 ResourceNotFound", missing("ResourceNotFound"), Kind::NotFound, NEVER),
        row("404 ResourceGroupNotFound", missing("ResourceGroupNotFound"), Kind::NotFound, NEVER),
        row("404 SubscriptionNotFound", missing("SubscriptionNotFound"), Kind::NotFound, NEVER),
        row(
            "409 ScopeLocked",
            Play::azure(409, "ScopeLocked", "The scope is locked."),
            Kind::BadState,
            NEVER,
        ),
        row("409 another operation is running", running, Kind::Busy, LATER),
        row("429 without a time", throttled(), Kind::Throttled, LATER),
        row(
            "429, Retry-After in seconds",
            throttled().header("retry-after", "17"),
            Kind::Throttled,
            after(17_000),
        ),
        row("429, Retry-After as a date", dated, Kind::Throttled, after(42_000)),
        row(
            "429, retry-after-ms",
            throttled().header("retry-after-ms", "1500"),
            Kind::Throttled,
            after(1500),
        ),
        row(
            "429, x-ms-retry-after-ms",
            throttled().header("x-ms-retry-after-ms", "900"),
            Kind::Throttled,
            after(900),
        ),
        row(
            "503 with Retry-After",
            Play::azure(503, "ServerBusy", "").header("retry-after", "5"),
            Kind::ServerFault,
            after(5000),
        ),
    ]
}

/// A change that is refused. It is sent once, whatever comes back.
async fn refused(page: &mut Page, row: Row) {
    let play = row.play.clone();
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PATCH" => play.response(),
        _ => reply(200, resource("Ready")),
    })
    .await;
    let error = install(&fake).await.unwrap_err();
    page.error(&format!("PATCH: {}", row.what), &error, row.kind, row.retry);
    let patches = fake.seen().iter().filter(|request| request.method == "PATCH").count();
    // With a refused token nothing has happened; it is sent once more with a fresh one.
    let expected = if row.kind == Kind::Unauthenticated { 2 } else { 1 };
    assert_eq!(patches, expected, "{}: a change was repeated below the executor", row.what);
}

#[tokio::test]
async fn a_change_that_azure_refuses() {
    let mut page = Page::default();
    let invalid = "Invalid value given for parameter administratorLoginPassword";
    let missing = Play::azure(400, "EngineCredentialsNotProvided", "Credentials are required");
    let own = [
        row(
            "400: the password is not to Azure's liking",
            Play::azure(400, "InvalidParameterValue", invalid),
            Kind::Rejected,
            NEVER,
        ),
        row("400 EngineCredentialsNotProvided", missing, Kind::Rejected, NEVER),
        row("500", Play::azure(500, "InternalServerError", ""), Kind::ServerFault, UNKNOWN),
        row("503 without a time", Play::azure(503, "ServiceUnavailable", ""), Kind::ServerFault, UNKNOWN),
        row("405 without a body", Play::new(405, Value::Null), Kind::Rejected, NEVER),
    ];
    for row in common().into_iter().chain(own) {
        refused(&mut page, row).await;
    }
    insta::assert_snapshot!("azure_change", page.0);
}

#[tokio::test]
async fn a_read_that_azure_refuses() {
    let mut page = Page::default();
    let fault = row("500", Play::azure(500, "InternalServerError", ""), Kind::ServerFault, LATER);
    for row in common().into_iter().chain([fault]) {
        let play = row.play.clone();
        let fake = Fake::start(move |request| match request.path.rsplit('/').next() {
            Some("permissions" | "locks") => reply(200, json!({"value": [{"actions": ["*"]}]})),
            _ => play.response(),
        })
        .await;
        page.error(&format!("GET: {}", row.what), &check(&fake).await.unwrap_err(), row.kind, row.retry);
    }
    insta::assert_snapshot!("azure_read", page.0);
}

#[tokio::test]
async fn an_operation_that_was_accepted_and_went_wrong() {
    let mut page = Page::default();
    let ended = |status: &str, code: &str| {
        Play::new(200, json!({"name": "1", "status": status, "error": {"code": code, "message": CANARY}}))
    };
    let throttled = Play::azure(429, "TooManyRequests", "").header("retry-after", "60");
    let rows = [
        row("Failed", ended("Failed", "InternalServerError"), Kind::ServerFault, UNKNOWN),
        row(
            "Failed without a reason",
            Play::new(200, json!({"status": "failed"})),
            Kind::ServerFault,
            UNKNOWN,
        ),
        row("Failed with ServerIsNotReady", ended("Failed", "ServerIsNotReady"), Kind::ServerFault, UNKNOWN),
        row(
            "Failed with EngineCredentialsNotProvided",
            ended("Failed", "EngineCredentialsNotProvided"),
            Kind::ServerFault,
            UNKNOWN,
        ),
        row("Canceled", ended("Canceled", "OperationCanceled"), Kind::Conflict, UNKNOWN),
        row("it never ends", Play::new(200, json!({"status": "InProgress"})), Kind::TimedOut, UNKNOWN),
        row("an answer that is none", Play::new(200, json!({"echo": CANARY})), Kind::Corrupt, UNKNOWN),
        row("429, again and again", throttled, Kind::Throttled, UNKNOWN),
    ];
    for row in rows {
        let play = row.play.clone();
        let fake = Fake::start(move |request| match request.method.as_str() {
            "PATCH" => accepted(request),
            _ if request.path.starts_with("/operations/") => play.response(),
            _ => reply(200, resource("Ready")),
        })
        .await;
        page.error(
            &format!("operation: {}", row.what),
            &install(&fake).await.unwrap_err(),
            row.kind,
            row.retry,
        );
    }
    insta::assert_snapshot!("azure_operation", page.0);
}

/// The state is what tells, because the codes are empty or unknown.
#[tokio::test]
async fn a_server_that_can_not_be_changed_now() {
    let mut page = Page::default();
    for state in ["Stopped", "Stopping", "Disabled", "Dropping", "Inaccessible"] {
        let fake = Fake::start(move |_| reply(200, resource(state))).await;
        let error = install(&fake).await.unwrap_err();
        page.error(&format!("the state {state}"), &error, Kind::BadState, NEVER);
        assert!(fake.seen().iter().all(|request| request.method == "GET"), "{state}");
    }
    for state in ["Updating", "Starting", "Restarting", "Provisioning"] {
        let fake = Fake::start(move |_| reply(200, resource(state))).await;
        let error = install(&fake).await.unwrap_err();
        page.error(&format!("the state {state}, for ever"), &error, Kind::TimedOut, LATER);
    }
    let busy = Play::azure(409, "", "Server pg is busy with other operations. Please try later");
    let empty_400 = Play { status: 400, ..busy.clone() };
    let not_ready = Play::azure(400, "ServerIsNotReady", "Server is not ready; its state is Updating.");
    let told = busy.clone().header("retry-after", "9");
    let all = [
        ("409 busy, empty code", busy, LATER),
        ("409 busy, with a time", told, after(9_000)),
        ("400 busy, empty code", empty_400, LATER),
        ("ServerIsNotReady", not_ready, LATER),
    ];
    for (what, play, retry) in all {
        busy_once(&mut page, what, play, retry).await;
    }
    insta::assert_snapshot!("azure_state", page.0);
}

/// Refused once, it is asked how it is until it is ready, and only then for the change again.
async fn busy_once(page: &mut Page, what: &str, play: Play, retry: Retry) {
    let states = Arc::new(Mutex::new(vec!["Ready", "Ready", "Updating", "Updating", "Ready"]));
    let (left, refusals) = (Arc::clone(&states), Mutex::new(vec![play]));
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PATCH" => refusals.lock().unwrap().pop().map_or_else(|| accepted(request), |play| play.response()),
        _ if request.path.starts_with("/operations/") => reply(200, json!({"status": "Succeeded"})),
        _ => reply(200, resource(left.lock().unwrap().pop().unwrap_or("Ready"))),
    })
    .await;
    page.error(what, &install(&fake).await.unwrap_err(), Kind::Busy, retry);
    install(&fake).await.unwrap();
    let methods: Vec<String> = fake.seen().into_iter().map(|request| request.method).collect();
    // Ready, refused, Updating twice, Ready, accepted, polled, Ready.
    assert_eq!(methods, ["GET", "PATCH", "GET", "GET", "GET", "PATCH", "GET", "GET"]);
}

#[tokio::test]
async fn what_check_finds_before_it_could_go_wrong() {
    let mut page = Page::default();
    let bad = json!({"properties": {"state": "Stopped", "administratorLogin": "root",
        "fullyQualifiedDomainName": "elsewhere.invalid", "replicationRole": "AsyncReplica",
        "authConfig": {"passwordAuth": "Disabled"}}});
    let denials = json!({"value": [{"properties": {
        "denyAssignmentName": "stack", "permissions": [{"actions": ["*/write"]}],
        "principals": [{"id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined"}]}}]});
    let fake = Fake::start(move |request| match request.path.rsplit('/').next() {
        Some("permissions") => reply(200, json!({"value": [{"actions": ["*/read"]}]})),
        Some("locks") => reply(200, json!({"value": [{"properties": {"level": "ReadOnly"}}]})),
        Some("denyAssignments") => reply(200, denials.clone()),
        _ => reply(200, bad.clone()),
    })
    .await;
    for finding in check(&fake).await.unwrap() {
        page.finding("everything is wrong", &finding);
    }
    let fake = Fake::start(|request| match request.path.rsplit('/').next() {
        Some("permissions" | "locks" | "denyAssignments") => {
            Play::azure(403, "AuthorizationFailed", &no_right("*/read")).response()
        }
        _ => reply(200, resource("Ready")),
    })
    .await;
    for finding in check(&fake).await.unwrap() {
        page.finding("nothing can be seen", &finding);
    }
    insta::assert_snapshot!("azure_findings", page.0);
}
