//! One test for each quirk of the flexible server.

use std::sync::Mutex;

use axum::response::Response;
use pgrotate_core::Retry;
use pgrotate_core::env::testing::ManualClock;
use pgrotate_core::journal::Effect as Did;
use serde_json::{Value, json};

use super::*;
use crate::azure::testing::{Fake, Seen, empty, refusal, reply, run, with_header};

const SERVER: &str = "/Microsoft.DBforPostgreSQL/flexibleServers/pg";

fn resource(state: &str) -> Value {
    json!({"name": "pg", "properties": {
        "state": state,
        "administratorLogin": "admin",
        "fullyQualifiedDomainName": "db",
        "replicationRole": "Primary",
        "authConfig": {"passwordAuth": "Enabled", "activeDirectoryAuth": "Disabled"},
        "storage": {"storageSizeGB": 128},
    }})
}

fn server(shared: Arc<Shared>) -> Server {
    let options = Options { subscription: "sub".into(), resource_group: "rg".into(), server: "pg".into() };
    Server::new(None, options, shared).unwrap()
}

/// The signed URL that the fake hands out: long, and with escapes that must stay as they are.
fn poll_url(request: &Seen) -> String {
    let signature = "A%2B%2f".repeat(500);
    format!(
        "https://{}/locations/westeurope/azureAsyncOperation/1?api-version=x&t=1&c={signature}",
        request.host
    )
}

fn accepted(request: &Seen) -> Response {
    let answer = with_header(empty(202), "azure-asyncoperation", &poll_url(request));
    with_header(answer, "location", &format!("https://{}/operationResults/1", request.host))
}

/// What the fake answers to polls, one after the other; the last one again and again.
fn script(answers: Vec<(u16, Value)>) -> impl FnMut() -> Response + Send {
    let answers = Mutex::new(answers.into_iter().peekable());
    move || {
        let mut answers = answers.lock().unwrap();
        let next = answers.next().unwrap();
        if answers.peek().is_none() {
            *answers = vec![next.clone()].into_iter().peekable();
        }
        reply(next.0, next.1)
    }
}

async fn azure(polls: Vec<(u16, Value)>) -> Fake {
    let mut poll = script(polls);
    Fake::start(move |request| match request.method.as_str() {
        "PATCH" => accepted(request),
        _ if request.path.starts_with("/locations/") => poll(),
        _ => reply(200, resource("Ready")),
    })
    .await
}

async fn install(shared: Arc<Shared>) -> Result<Outcome> {
    let (current, next) = (Secret::new("old"), Secret::new("n\"e\\w"));
    server(shared).install(&Change { run: run(), current: &current, next: &next }).await
}

#[tokio::test]
async fn one_property_is_changed_and_the_operation_followed_to_its_end() {
    let running = json!({"name": "1", "status": "InProgress", "startTime": "x"});
    let fake =
        azure(vec![(200, running.clone()), (200, running), (200, json!({"status": "sUCCEEDED"}))]).await;
    let clock = Arc::new(ManualClock::at_second(1_700_000_000));
    let shared = fake.shared_with(clock, "AZURE_CLIENT_SECRET=s3cr3t\n");
    let outcome = install(Arc::clone(&shared)).await.unwrap();
    assert_eq!(outcome.effect, Did::Changed);
    // Three times 0.25 s after the change was accepted.
    let waited = outcome.effect_at.unwrap().as_millisecond() - 1_700_000_000_000;
    assert_eq!(waited, 750);
    let seen = fake.seen();
    let patch = seen.iter().find(|request| request.method == "PATCH").unwrap();
    assert_eq!(patch.body, r#"{"properties":{"administratorLoginPassword":"n\"e\\w"}}"#);
    assert_eq!(patch.query, "api-version=2025-08-01");
    let poll = seen.iter().find(|request| request.path.starts_with("/locations/")).unwrap();
    assert!(poll_url(poll).ends_with(&poll.query), "the URL is used as it was given");
    let get = format!("GET {SERVER}");
    let patch = format!("PATCH {SERVER}");
    let poll = "GET /locations/westeurope/azureAsyncOperation/1";
    assert_eq!(fake.lines(), [&get, &patch, poll, poll, poll, &get]);
}

#[tokio::test]
async fn a_pause_that_azure_asks_for_is_kept() {
    let polls = Mutex::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PATCH" => with_header(accepted(request), "retry-after", "10"),
        _ if request.path.starts_with("/locations/") => {
            let mut polls = polls.lock().unwrap();
            *polls += 1;
            let status = if *polls < 3 { "InProgress" } else { "Succeeded" };
            with_header(reply(200, json!({"status": status})), "retry-after", "20")
        }
        _ => reply(200, resource("Ready")),
    })
    .await;
    let outcome = install(fake.shared()).await.unwrap();
    assert_eq!(outcome.effect_at.unwrap().as_second(), 1_700_000_050);
}

#[tokio::test]
async fn location_alone_is_followed_by_status() {
    let polls = Mutex::new(0);
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PATCH" => {
            with_header(empty(202), "location", &format!("https://{}/operationResults/1", request.host))
        }
        _ if request.path.starts_with("/operationResults/") => {
            let mut polls = polls.lock().unwrap();
            *polls += 1;
            empty(if *polls < 3 { 202 } else { 204 })
        }
        _ => reply(200, resource("Ready")),
    })
    .await;
    assert!(install(fake.shared()).await.unwrap().effect_at.is_some());
    assert_eq!(fake.lines().iter().filter(|line| line.contains("operationResults")).count(), 3);
}

#[tokio::test]
async fn a_busy_server_is_waited_for_before_and_after_it_says_so() {
    for (status, code, text) in [
        (400, "", "Server pg is busy with other operations. Please try later"),
        (409, "Conflict", "The server is BUSY."),
        (409, "ServerIsNotReady", "Server pg is not ready. Its current state is 'Updating'."),
    ] {
        let mut step = 0;
        let fake = Fake::start(move |request| {
            step += 1;
            match (step, request.method.as_str()) {
                // An operation of an earlier try, or of somebody else.
                (1 | 2, "GET") => reply(200, resource("Updating")),
                (4, "PATCH") => refusal(status, code, text),
                (5, "GET") => reply(200, resource("Updating")),
                (_, "PATCH") => accepted(request),
                _ if request.path.starts_with("/locations/") => reply(200, json!({"status": "Succeeded"})),
                _ => reply(200, resource("Ready")),
            }
        })
        .await;
        let shared = fake.shared();
        let error = install(Arc::clone(&shared)).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Busy, Retry::Later { after_ms: None }), "{text}");
        install(shared).await.unwrap();
        let methods: Vec<_> = fake.seen().into_iter().map(|request| request.method).collect();
        assert_eq!(methods, ["GET", "GET", "GET", "PATCH", "GET", "GET", "PATCH", "GET", "GET"], "{text}");
    }
}

#[tokio::test]
async fn a_server_that_stays_busy_is_given_up_without_effect() {
    let fake = Fake::start(|_| reply(200, resource("Updating"))).await;
    let error = install(fake.shared()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::TimedOut, Retry::Later { after_ms: None }));
    assert!(fake.lines().iter().all(|line| line.starts_with("GET")));
}

#[tokio::test]
async fn a_stopped_server_is_not_touched() {
    let fake = Fake::start(|_| reply(200, resource("Stopped"))).await;
    let error = install(fake.shared()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Never));
    assert!(error.hints()[0].contains("flexible-server start"));
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_leaves_it_open() {
    let fake = Fake::start(|request| match request.method.as_str() {
        "PATCH" => empty(502),
        _ => reply(200, resource("Ready")),
    })
    .await;
    assert_eq!(install(fake.shared()).await.unwrap_err().retry(), Retry::Unknown);
}

#[tokio::test]
async fn a_rejected_password_is_not_repeated_in_words() {
    let fake = Fake::start(|request| match request.method.as_str() {
        "PATCH" => refusal(400, "InvalidParameterValue", "n\"e\\w is too weak"),
        _ => reply(200, resource("Ready")),
    })
    .await;
    let error = install(fake.shared()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Rejected, Retry::Never));
    assert!(!format!("{error:?}").contains("weak") && error.hints()[0].contains("8 to 128"));
}

#[tokio::test]
async fn a_failed_operation_leaves_it_open() {
    for (status, kind) in [("FAILED", Kind::ServerFault), ("Canceled", Kind::Conflict)] {
        let body = json!({"status": status, "error": {"code": "InternalServerError", "message": "n\"e\\w"}});
        let error = install(azure(vec![(200, body)]).await.shared()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Unknown));
        assert!(error.to_string().contains("(InternalServerError)"), "{error}");
    }
}

#[tokio::test]
async fn lost_polls_do_not_matter_until_time_is_over() {
    let fake = azure(vec![(500, json!({})), (429, json!({})), (200, json!({"status": "Succeeded"}))]).await;
    install(fake.shared()).await.unwrap();
    let fake = azure(vec![(200, json!({"status": "InProgress"}))]).await;
    let error = install(fake.shared()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::TimedOut, Retry::Unknown));
}

#[tokio::test]
async fn without_the_right_to_poll_the_servers_state_tells() {
    let mut patched = 0;
    let fake = Fake::start(move |request| match request.method.as_str() {
        "PATCH" => {
            patched = 1;
            accepted(request)
        }
        _ if request.path.starts_with("/locations/") => refusal(403, "AuthorizationFailed", ""),
        _ if (1..4).contains(&patched) => {
            patched += 1;
            reply(200, resource("Updating"))
        }
        _ => reply(200, resource("Ready")),
    })
    .await;
    let outcome = install(fake.shared()).await.unwrap();
    assert!(outcome.notes[0].contains("did not say"), "{:?}", outcome.notes);
    // A server that is never seen busy has to be watched for a while.
    let fake = azure(vec![(404, json!({}))]).await;
    let outcome = install(fake.shared()).await.unwrap();
    assert!(outcome.effect_at.unwrap().as_second() >= 1_700_000_060);
}

#[tokio::test]
async fn a_poll_url_that_leads_elsewhere_gets_no_token() {
    let fake = Fake::start(|request| match request.method.as_str() {
        "PATCH" => with_header(empty(202), "azure-asyncoperation", "https://evil.example/operation"),
        _ => reply(200, resource("Ready")),
    })
    .await;
    let error = install(fake.shared()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Corrupt, Retry::Unknown));
}

#[tokio::test]
async fn everything_that_would_stop_the_change_is_found_before() {
    let all =
        json!({"value": [{"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}]});
    let fake = Fake::start(move |request| {
        if request.path.ends_with("/permissions") {
            return reply(200, json!({"value": [{"actions": ["*/read"]}]}));
        }
        if request.path.ends_with("/locks") {
            return reply(200, json!({"value": [{"properties": {"level": "ReadOnly"}}]}));
        }
        reply(
            200,
            json!({"properties": {
                "state": "Stopped",
                "administratorLogin": "root",
                "fullyQualifiedDomainName": "elsewhere.invalid",
                "replicationRole": "AsyncReplica",
                "authConfig": {"passwordAuth": "Disabled"},
            }}),
        )
    })
    .await;
    let findings = server(fake.shared()).check(&Secret::new("old")).await.unwrap();
    let blocks: Vec<_> = findings.iter().filter(|found| found.severity == Severity::Blocks).collect();
    let text = blocks.iter().map(|found| found.what.as_str()).collect::<Vec<_>>().join("\n");
    for needed in ["Stopped", "replica", "disabled", "\"root\"", "elsewhere", "flexibleServers/write", "lock"]
    {
        assert!(text.contains(needed), "{needed} in {text}");
    }
    assert!(blocks.iter().all(|found| found.mend.is_some()));
    // With a role that may do all but ask how an operation goes, the run is slower and possible.
    let write = json!({"value": [{"actions": ["*/flexibleServers/*"]}]});
    let fake = Fake::start(move |request| match () {
        () if request.path.ends_with("/permissions") => reply(200, write.clone()),
        () if request.path.contains("/Microsoft.Authorization/") => reply(200, json!({"value": []})),
        () => reply(200, resource("Ready")),
    })
    .await;
    let findings = server(fake.shared()).check(&Secret::new("old")).await.unwrap();
    let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Warning, Severity::Note], "{findings:?}");

    let fake = Fake::start(move |request| match () {
        () if request.path.ends_with("/permissions") => reply(200, all.clone()),
        () if request.path.contains("/Microsoft.Authorization/") => refusal(403, "AuthorizationFailed", ""),
        () => reply(200, resource("Ready")),
    })
    .await;
    let findings = server(fake.shared()).check(&Secret::new("old")).await.unwrap();
    assert!(findings.iter().all(|found| found.severity == Severity::Unseen) && findings.len() == 2);
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn the_server_must_be_the_one_that_is_logged_in_to() {
    let fake = Fake::start(|_| empty(404)).await;
    let mut shared = Arc::into_inner(fake.shared()).unwrap();
    shared.target.host = "127.0.0.1".into();
    let server = server(Arc::new(shared));
    for (own, expected) in [
        (Some("127.0.0.1."), None),
        (Some("LOCALHOST"), Some(Severity::Note)),
        (Some("127.0.0.2"), Some(Severity::Blocks)),
        (Some("elsewhere.invalid"), Some(Severity::Blocks)),
        (None, Some(Severity::Unseen)),
    ] {
        let name = own.map(str::to_owned);
        let properties = Properties { fully_qualified_domain_name: name, ..Properties::default() };
        let found = server.judge_host(&properties).await;
        assert_eq!(found.as_ref().map(|found| found.severity), expected, "{own:?}");
        if let Some(found) = found.filter(|found| found.severity == Severity::Blocks) {
            assert!(found.what.contains(own.unwrap()) && found.what.contains("127.0.0.1"), "{}", found.what);
            assert!(found.mend.is_some());
        }
    }
}
