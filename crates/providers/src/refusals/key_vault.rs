//! Key Vault's data plane.

use axum::response::Response;
use pgrotate_core::provider::Sink;
use pgrotate_core::{Error, Kind};
use serde_json::{Value, json};

use super::{CANARY, LATER, NEVER, Page, Play, Row, UNKNOWN, after, row};
use crate::azure::testing::{Fake, Seen, Wanted, refusal, reply, with_header};
use crate::azure_key_vault::{Copy, Options};

fn copy(fake: &Fake) -> Copy {
    let options = Options {
        vault: "kv-test".into(),
        secret: "database-url".into(),
        subscription: None,
        resource_group: None,
    };
    Copy::new(None, options, fake.shared()).unwrap()
}

fn bundle() -> Value {
    json!({"value": "old", "id": "https://kv-test.vault.azure.net/secrets/database-url/v1", "attributes": {}})
}

fn challenge() -> Response {
    let header = r#"Bearer authorization="https://login.localhost/t", resource="https://vault.azure.net""#;
    with_header(
        refusal(401, "Unauthorized", "AKV10000: Request is missing a token"),
        "www-authenticate",
        header,
    )
}

/// An error with an inner one, as Key Vault has them; everything that is text echoes the password.
fn inner(status: u16, code: &str, inner: &str) -> Play {
    let text = format!(
        "Caller is not authorized to perform action on resource.\r\n\
         Action: 'Microsoft.KeyVault/vaults/secrets/setSecret/action'\r\nAssignment: (not found)\r\n{CANARY}"
    );
    let inner = json!({"code": inner, "message": CANARY});
    Play::new(status, json!({"error": {"code": code, "message": text, "innererror": inner}}))
}

fn rows() -> Vec<Row> {
    let throttled =
        || Play::azure(429, "Throttled", "Request was not processed because too many requests were received");
    let forbidden = |code| inner(403, "Forbidden", code);
    let taken = |code| inner(409, "Conflict", code);
    vec![
        row(
            "401: the token has expired or is for somebody else",
            Play::azure(401, "Unauthorized", "AKV10022: Invalid audience."),
            Kind::Unauthenticated,
            LATER,
        ),
        row("403 ForbiddenByRbac", forbidden("ForbiddenByRbac"), Kind::Forbidden, NEVER),
        row("403 AccessDenied", forbidden("AccessDenied"), Kind::Forbidden, NEVER),
        row("403 ForbiddenByPolicy", forbidden("ForbiddenByPolicy"), Kind::Forbidden, NEVER),
        row("403 ForbiddenByFirewall", forbidden("ForbiddenByFirewall"), Kind::Forbidden, NEVER),
        row("403 ForbiddenByConnection", forbidden("ForbiddenByConnection"), Kind::Forbidden, NEVER),
        row("403 of an unknown kind", Play::azure(403, "Forbidden", "no"), Kind::Forbidden, NEVER),
        row(
            "409 ObjectIsDeletedButRecoverable",
            taken("ObjectIsDeletedButRecoverable"),
            Kind::BadState,
            NEVER,
        ),
        row("409 ObjectIsBeingDeleted", taken("ObjectIsBeingDeleted"), Kind::Busy, after(5000)),
        row("409 ObjectIsBeingRecovered", taken("ObjectIsBeingRecovered"), Kind::Busy, after(5000)),
        row("429 without a time", throttled(), Kind::Throttled, LATER),
        row(
            "429, Retry-After in seconds",
            throttled().header("retry-after", "3"),
            Kind::Throttled,
            after(3000),
        ),
        row(
            "429, Retry-After as a date",
            throttled()
                .header("date", "Thu, 01 Jan 2026 00:00:00 GMT")
                .header("retry-after", "Thu, 01 Jan 2026 00:00:09 GMT"),
            Kind::Throttled,
            after(9000),
        ),
        row(
            "429, x-ms-retry-after-ms",
            throttled().header("x-ms-retry-after-ms", "250"),
            Kind::Throttled,
            after(250),
        ),
        row("400", Play::azure(400, "BadParameter", "is not a valid"), Kind::Rejected, NEVER),
        row(
            "404 SecretNotFound",
            Play::azure(404, "SecretNotFound", "A secret with (name/id) was not found"),
            Kind::NotFound,
            NEVER,
        ),
    ]
}

async fn error_of(method: &'static str, play: Play) -> (Error, usize) {
    let fake = Fake::start(move |request: &Seen| match request.method.as_str() {
        _ if request.authorization.is_empty() => challenge(),
        own if own == method => play.response(),
        _ => reply(200, bundle()),
    })
    .await;
    let copy = copy(&fake);
    let wanted = Wanted::new(copy.id(), "{password}", CANARY);
    let error = copy.publish(&wanted.update()).await.unwrap_err();
    let count =
        fake.seen().iter().filter(|one| one.method == method && !one.authorization.is_empty()).count();
    (error, count)
}

#[tokio::test]
async fn a_write_that_the_vault_refuses() {
    let mut page = Page::default();
    let faults = [
        row("403 SecretDisabled", inner(403, "Forbidden", "SecretDisabled"), Kind::Forbidden, NEVER),
        row("500", Play::azure(500, "InternalError", ""), Kind::ServerFault, UNKNOWN),
        row("503", Play::azure(503, "ServiceUnavailable", ""), Kind::ServerFault, UNKNOWN),
        row(
            "503 with Retry-After",
            Play::azure(503, "ServiceUnavailable", "").header("retry-after", "5"),
            Kind::ServerFault,
            after(5000),
        ),
        row("200, and something else is stored", Play::new(200, bundle()), Kind::Corrupt, UNKNOWN),
        row("200, and no secret in it", Play::new(200, json!({"echo": CANARY})), Kind::Corrupt, UNKNOWN),
    ];
    for row in rows().into_iter().chain(faults) {
        let (error, writes) = error_of("PUT", row.play).await;
        page.error(&format!("PUT: {}", row.what), &error, row.kind, row.retry);
        assert_eq!(writes, 1, "{}: each further one may be a further version", row.what);
    }
    insta::assert_snapshot!("key_vault_write", page.0);
}

#[tokio::test]
async fn a_read_that_the_vault_refuses() {
    let mut page = Page::default();
    let fault = row("500", Play::azure(500, "InternalError", ""), Kind::ServerFault, LATER);
    // That there is no secret is an answer to a read, and not an error.
    let reads = rows().into_iter().filter(|row| !row.what.contains("SecretNotFound"));
    for row in reads.chain([fault]) {
        let (error, reads) = error_of("GET", row.play).await;
        page.error(&format!("GET: {}", row.what), &error, row.kind, row.retry);
        assert_eq!(reads, 1, "{}", row.what);
    }
    let (error, _) = error_of("GET", inner(403, "Forbidden", "SecretDisabled")).await;
    page.error("the latest version is disabled", &error, Kind::BadState, NEVER);
    insta::assert_snapshot!("key_vault_read", page.0);
}

#[tokio::test]
async fn what_check_finds_before_it_could_go_wrong() {
    let mut page = Page::default();
    let deleted = Play::new(200, json!({"recoveryId": "x", "echo": CANARY}));
    let unseen = Play::azure(403, "Forbidden", "no");
    let free = Play::azure(404, "SecretNotFound", "");
    for (what, play) in
        [("deleted", deleted), ("whether it is deleted can't be seen", unseen), ("no secret", free)]
    {
        let fake = Fake::start(move |request: &Seen| match () {
            () if request.authorization.is_empty() => challenge(),
            () if request.path.starts_with("/deletedsecrets/") => play.response(),
            () => Play::azure(404, "SecretNotFound", "").response(),
        })
        .await;
        for finding in copy(&fake).check().await.unwrap().findings {
            page.finding(what, &finding);
        }
    }
    let fake = Fake::start(|request: &Seen| {
        if request.authorization.is_empty() {
            challenge()
        } else {
            inner(403, "Forbidden", "SecretDisabled").response()
        }
    })
    .await;
    for finding in copy(&fake).check().await.unwrap().findings {
        page.finding("disabled", &finding);
    }
    insta::assert_snapshot!("key_vault_findings", page.0);
}
