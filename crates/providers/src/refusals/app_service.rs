//! App Service: settings, references to Key Vault, the application, its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use jiff::Timestamp;
use pgrotate_core::provider::{Activation, Consumer, Evidence, Severity, Sink, Verification};
use pgrotate_core::{CopyId, Kind, Secret, VersionId};
use serde_json::{Value, json};

use super::azure::no_right;
use super::{CANARY, LATER, NEVER, Page, Play, Row, UNKNOWN, after, row};
use crate::azure::testing::{Fake, RealClock, Seen, Wanted, empty, reply, run, with_header};
use crate::azure_app_service::{App, AppOptions, Log, LogOptions, Setting, SettingOptions};

const LIST: &str = "Microsoft.Web/sites/config/list/action";
const WRITE: &str = "Microsoft.Web/sites/config/write";
const READ: &str = "Microsoft.Web/sites/config/read";
const RESTART: &str = "Microsoft.Web/sites/restart/action";

fn options(more: Value) -> Value {
    let mut options = json!({"subscription": "sub", "resource_group": "rg", "app": "api"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

fn setting(fake: &Fake) -> Setting {
    let options: SettingOptions =
        serde_json::from_value(options(json!({"setting": "DATABASE_URL"}))).unwrap();
    Setting::new(None, options, fake.shared()).unwrap()
}

fn app(fake: &Fake) -> App {
    let options: AppOptions = serde_json::from_value(options(json!({}))).unwrap();
    App::new(None, options, fake.shared()).unwrap()
}

/// A site where all is well, but for what `bad` answers itself.
async fn site(bad: impl Fn(&Seen) -> Option<Response> + Send + 'static) -> Fake {
    Fake::start(move |request| {
        bad(request).unwrap_or_else(|| match request.path.rsplit('/').next() {
            Some("permissions") => reply(200, json!({"value": [{"actions": ["*"]}]})),
            Some("slots" | "appsettings" | "locks" | "denyAssignments") if request.method == "GET" => {
                reply(200, json!({"value": []}))
            }
            Some("list") if request.path.contains("connectionstrings") => {
                let string = json!({"value": "postgresql://admin:old@db/app", "type": "PostgreSQL"});
                reply(200, json!({"properties": {"DATABASE_URL": string}}))
            }
            Some("list") => {
                reply(200, json!({"properties": {"DATABASE_URL": "postgresql://admin:old@db/app"}}))
            }
            Some("restart" | "refresh") => empty(200),
            Some("logs") => {
                reply(200, json!({"properties": {"httpLogs": {"fileSystem": {"enabled": true}}}}))
            }
            Some("api") => {
                let scm = json!([{"name": format!("api.scm.{}", request.host), "hostType": "Repository"}]);
                reply(200, json!({"properties": {"state": "Running", "hostNameSslStates": scm}}))
            }
            _ => reply(200, json!({"properties": {}})),
        })
    })
    .await
}

/// A site that answers so to one request.
async fn refusing(method: &'static str, end: &'static str, play: Play) -> Fake {
    site(move |request| (request.method == method && request.path.ends_with(end)).then(|| play.response()))
        .await
}

fn denied(action: &str) -> Play {
    Play::azure(403, "AuthorizationFailed", &no_right(action))
}

/// App Service's own older form of an error, without the outer object.
fn bare(status: u16, code: &str) -> Play {
    Play::new(
        status,
        json!({"Code": code, "Message": CANARY, "Target": null, "Details": [{"Message": CANARY}]}),
    )
}

#[tokio::test]
async fn settings_that_can_not_be_listed_or_written() {
    let mut page = Page::default();
    let locked = || Play::azure(409, "ScopeLocked", "The scope is locked.");
    let throttled = || Play::azure(429, "TooManyRequests", "").header("retry-after", "8");
    let reads = [
        row("403: a plain Reader", denied(LIST), Kind::Forbidden, NEVER),
        row("404", Play::azure(404, "ResourceNotFound", ""), Kind::NotFound, NEVER),
        row("404 in the older form", bare(404, "NotFound"), Kind::NotFound, NEVER),
        row("409: a read-only lock forbids lists too", locked(), Kind::BadState, NEVER),
        row("429", throttled(), Kind::Throttled, after(8000)),
        row(
            "200 with a value that is no text",
            Play::new(200, json!({"properties": {"A": [CANARY]}})),
            Kind::Corrupt,
            NEVER,
        ),
    ];
    let writes = [
        row("403", denied(WRITE), Kind::Forbidden, NEVER),
        row("400 in the older form", bare(400, "BadRequest"), Kind::Rejected, NEVER),
        row("409: a lock", locked(), Kind::BadState, NEVER),
        row("409: busy", Play::azure(409, "Conflict", "Cannot modify this site"), Kind::Busy, LATER),
        row("429", throttled(), Kind::Throttled, after(8000)),
        row("500", bare(500, "InternalServerError"), Kind::ServerFault, UNKNOWN),
    ];
    let reads = reads.into_iter().map(|row| ("POST", "/appsettings/list", row));
    let writes = writes.into_iter().map(|row| ("PUT", "/config/appsettings", row));
    for (method, end, Row { what, play, kind, retry }) in reads.chain(writes) {
        let fake = refusing(method, end, play).await;
        let setting = setting(&fake);
        let wanted = Wanted::new(setting.id(), "{database_url}", "new");
        let error = setting.publish(&wanted.update()).await.unwrap_err();
        page.error(&format!("{method} {end}: {what}"), &error, kind, retry);
        assert_eq!(
            fake.seen().iter().filter(|one| one.method == method && one.path.ends_with(end)).count(),
            1
        );
    }
    insta::assert_snapshot!("app_service_settings", page.0);
}

#[tokio::test]
async fn a_change_that_was_accepted_and_went_wrong() {
    let mut page = Page::default();
    for status in ["Failed", "Canceled"] {
        let fake = site(move |request| match (request.method.as_str(), request.path.as_str()) {
            ("PUT", _) => Some(with_header(
                empty(202),
                "azure-asyncoperation",
                &format!("https://{}/operations/1", request.host),
            )),
            (_, "/operations/1") => {
                let error = json!({"code": "Conflict", "message": CANARY});
                Some(reply(200, json!({"status": status, "error": error})))
            }
            _ => None,
        })
        .await;
        let setting = setting(&fake);
        let wanted = Wanted::new(setting.id(), "{database_url}", "new");
        let error = setting.publish(&wanted.update()).await.unwrap_err();
        page.error(&format!("operation: {status}"), &error, Kind::ServerFault, UNKNOWN);
    }
    insta::assert_snapshot!("app_service_operation", page.0);
}

fn reference(status: &str, active: &str) -> Value {
    json!({"value": [{"name": "DATABASE_URL", "properties": {"status": status, "vaultName": "kv-test",
        "secretName": "database-url", "activeVersion": active, "details": CANARY, "reference": CANARY}}]})
}

/// Every status that a reference can have.
#[tokio::test]
async fn references_that_give_no_value() {
    let mut page = Page::default();
    let literal = "@Microsoft.KeyVault(SecretUri=https://kv-test.vault.azure.net/secrets/database-url/)";
    for status in [
        "Initialized",
        "InvalidSyntax",
        "MSINotEnabled",
        "VaultNotFound",
        "SecretNotFound",
        "SecretVersionNotFound",
        "AccessToKeyVaultDenied",
        "FetchTimedOut",
        "UnauthorizedClient",
        "OtherReasons",
    ] {
        let fake = site(move |request| match request.path.rsplit('/').next() {
            Some("list") => Some(reply(200, json!({"properties": {"DATABASE_URL": literal}}))),
            Some("appsettings") => Some(reply(200, reference(status, "v1"))),
            _ => None,
        })
        .await;
        let findings = setting(&fake).check().await.unwrap().findings;
        assert!(
            findings.iter().any(|finding| finding.severity == Severity::Blocks),
            "{status}: {findings:?}"
        );
        findings
            .iter()
            .for_each(|finding| page.finding(&format!("the setting's reference: {status}"), finding));
        // A new one has not been looked at yet, which is no trouble.
        let own = app(&fake).check().await.unwrap();
        assert_eq!(own.len(), usize::from(status != "Initialized"), "{own:?}");
        own.iter()
            .for_each(|finding| page.finding(&format!("the application's reference: {status}"), finding));
    }
    let written = "https://kv-test.vault.azure.net/secrets/database-url/v2";
    let versions = BTreeMap::from([(CopyId::from("azure_key_vault:database-url"), VersionId::from(written))]);
    for status in ["Resolved", "AccessToKeyVaultDenied", "FetchTimedOut"] {
        let fake = site(move |request| {
            (request.method == "GET" && request.path.ends_with("/appsettings"))
                .then(|| reply(200, reference(status, "v1")))
        })
        .await;
        let error = app(&fake)
            .activate(&Activation {
                run: run(),
                versions: &versions,
                password: &Secret::new("new"),
                previous: None,
            })
            .await
            .unwrap_err();
        page.error(
            &format!("after the refresh: {status}, with the version before"),
            &error,
            Kind::BadState,
            LATER,
        );
        assert!(
            fake.seen().iter().all(|request| !request.path.ends_with("/restart")),
            "restarted into the old value"
        );
    }
    insta::assert_snapshot!("app_service_references", page.0);
}

#[tokio::test]
async fn settings_that_are_something_else() {
    let mut page = Page::default();
    let pinned = "@Microsoft.KeyVault(SecretUri=https://kv-test.vault.azure.net/secrets/database-url/0a1b)";
    let unreadable = format!("@Microsoft.KeyVault({CANARY})");
    let own = [
        ("a pinned reference", json!({"DATABASE_URL": pinned})),
        ("a reference that can't be read", json!({"DATABASE_URL": unreadable})),
        ("a setting of another case", json!({"database_url": CANARY})),
        ("a connection string", json!({})),
    ];
    for (what, settings) in own {
        let fake = site(move |request| {
            let list = request.path.ends_with("/appsettings/list");
            list.then(|| reply(200, json!({"properties": settings})))
        })
        .await;
        setting(&fake).check().await.unwrap().findings.iter().for_each(|finding| page.finding(what, finding));
    }
    let fake = refusing("POST", "/list", Play::new(200, json!({"properties": {}}))).await;
    setting(&fake)
        .check()
        .await
        .unwrap()
        .findings
        .iter()
        .for_each(|finding| page.finding("no setting", finding));
    let fake = site(|request| match request.path.rsplit('/').next() {
        Some("slots") => Some(reply(200, json!({"value": [{"name": "api/staging"}]}))),
        Some("permissions") => Some(reply(200, json!({"value": [{"actions": ["*/read"]}]}))),
        _ => None,
    })
    .await;
    setting(&fake)
        .check()
        .await
        .unwrap()
        .findings
        .iter()
        .for_each(|finding| page.finding("slots, no rights", finding));
    let fake = refusing("GET", "/slots", denied("Microsoft.Web/sites/slots/read")).await;
    setting(&fake)
        .check()
        .await
        .unwrap()
        .findings
        .iter()
        .for_each(|finding| page.finding("slots are hidden", finding));
    insta::assert_snapshot!("app_service_findings", page.0);
}

#[tokio::test]
async fn an_application_that_can_not_be_brought_to_its_new_settings() {
    let mut page = Page::default();
    let written = "https://kv-test.vault.azure.net/secrets/database-url/v2";
    let versions = BTreeMap::from([(CopyId::from("azure_key_vault:database-url"), VersionId::from(written))]);
    let rows = [
        ("POST", "/restart", row("403", denied(RESTART), Kind::Forbidden, NEVER)),
        ("POST", "/restart", row("409: a lock", Play::azure(409, "ScopeLocked", ""), Kind::BadState, NEVER)),
        ("POST", "/restart", row("500", bare(500, "InternalServerError"), Kind::ServerFault, UNKNOWN)),
        ("POST", "/refresh", row("403", denied(WRITE), Kind::Forbidden, NEVER)),
        (
            "POST",
            "/refresh",
            row("404: not there in this cloud", bare(404, "NotFound"), Kind::NotFound, NEVER),
        ),
        ("GET", "/appsettings", row("403", denied(READ), Kind::Forbidden, NEVER)),
    ];
    for (method, end, Row { what, play, kind, retry }) in rows {
        let fake = site(move |request| match () {
            () if request.method == method && request.path.ends_with(end) => Some(play.response()),
            () if end == "/refresh" && request.method == "GET" && request.path.ends_with("/appsettings") => {
                Some(reply(200, reference("Resolved", "v1")))
            }
            () => None,
        })
        .await;
        let error = app(&fake)
            .activate(&Activation {
                run: run(),
                versions: &versions,
                password: &Secret::new("new"),
                previous: None,
            })
            .await
            .unwrap_err();
        page.error(&format!("{method} {end}: {what}"), &error, kind, retry);
    }
    let fake = refusing("GET", "/appsettings", denied(READ)).await;
    app(&fake)
        .check()
        .await
        .unwrap()
        .iter()
        .for_each(|finding| page.finding("references are hidden", finding));
    let stopped = Play::new(200, json!({"properties": {"state": "Stopped"}}));
    let fake = refusing("GET", "/sites/api", stopped).await;
    app(&fake)
        .check()
        .await
        .unwrap()
        .iter()
        .for_each(|finding| page.finding("the application is stopped", finding));
    insta::assert_snapshot!("app_service_application", page.0);
}

#[tokio::test]
async fn a_log_that_can_not_be_read() {
    let mut page = Page::default();
    let plain = |status| Play::new(status, json!({"echo": CANARY}));
    let rows = [
        row("401", plain(401), Kind::Unauthenticated, NEVER),
        row("403", plain(403), Kind::Forbidden, NEVER),
        row("404", plain(404), Kind::NotFound, NEVER),
        row("429", plain(429).header("retry-after", "3"), Kind::Throttled, after(3000)),
        row("503", plain(503), Kind::ServerFault, LATER),
    ];
    for row in rows {
        let fake = refusing("GET", "/logstream", row.play).await;
        let shared = fake.shared_with(Arc::new(RealClock), "AZURE_CLIENT_SECRET=s3cr3t\n");
        let options: LogOptions = serde_json::from_value(options(json!({"quiet_ms": 300}))).unwrap();
        let log = Log::new(None, options, shared).unwrap();
        let (password, url) =
            (Secret::new(CANARY), Secret::new(format!("postgresql://admin:{CANARY}@db/app")));
        let (since, previous) = (Timestamp::now(), None);
        let evidence =
            Evidence { run: run(), password: &password, previous, url: &url, changing_since: since, since };
        page.error(
            &format!("GET /logstream: {}", row.what),
            &log.verify(&evidence).await.unwrap_err(),
            row.kind,
            row.retry,
        );
    }
    insta::assert_snapshot!("app_service_log", page.0);
}
