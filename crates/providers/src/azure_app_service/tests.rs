//! One test for each quirk of App Service.

mod connection_strings;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use jiff::Timestamp;
use pgrotate_core::journal::Effect as Did;
use pgrotate_core::provider::{Activation, Consumer, Content, Evidence, Severity, Sink, Verification};
use pgrotate_core::{CopyId, Kind, Retry, Secret, VersionId};
use serde_json::{Value, json};

use super::*;
use crate::azure::testing::{Fake, RealClock, Seen, Wanted, empty, refusal, reply, run, with_header};
use crate::azure_key_vault;

const SITE: &str = "/Microsoft.Web/sites/api";
const OLD: &str = "postgresql+asyncpg://admin:old@db:5432/app?ssl=require";
const NEW: &str = "postgresql+asyncpg://admin:new@db:5432/app?ssl=require";
const REFERENCE: &str =
    "@Microsoft.KeyVault(SecretUri=https://kv-test.vault.azure.net/secrets/database-url/)";
const SALT: &str = "p%41q\"'\\$HOME `x` {y} é=&#+ /";

fn options() -> Value {
    json!({"subscription": "sub", "resource_group": "rg", "app": "api"})
}

fn with(mut options: Value, name: &str, value: Value) -> Value {
    options[name] = value;
    options
}

fn setting(fake: &Fake) -> Setting {
    let options = with(options(), "setting", json!("DATABASE_URL"));
    Setting::new(None, serde_json::from_value(options).unwrap(), fake.shared()).unwrap()
}

fn app(fake: &Fake) -> App {
    App::new(None, serde_json::from_value(options()).unwrap(), fake.shared()).unwrap()
}

fn wanted(setting: &Setting) -> Wanted {
    Wanted::new(setting.id(), "{database_url}", "new")
}

fn settings(value: &str) -> Value {
    json!({"DATABASE_URL": value, "SECRET_SALT": SALT, "EMPTY": ""})
}

/// What a site answers to everything that is not about its settings.
fn surroundings(request: &Seen) -> Response {
    let line = request.line();
    match line.rsplit('/').next() {
        Some("permissions") => reply(200, json!({"value": [{"actions": ["Microsoft.Web/sites/*"]}]})),
        Some("slots" | "appsettings" | "locks" | "denyAssignments") => reply(200, json!({"value": []})),
        Some("list") => reply(200, json!({"properties": {}})),
        Some("logstream") => empty(200),
        Some("logs") => reply(200, json!({"properties": {"httpLogs": {"fileSystem": {"enabled": true}}}})),
        Some("restart") => empty(200),
        Some("api") => {
            let scm = format!("api.scm.{}", request.host);
            reply(
                200,
                json!({"properties": {"state": "Running", "hostNameSslStates": [
                {"name": "api.example", "hostType": "Standard"}, {"name": scm, "hostType": "Repository"}]}}),
            )
        }
        _ => refusal(404, "NotFound", ""),
    }
}

/// A site that keeps its settings; `meddle` may change them after each PUT, and say no to it.
async fn site(
    initial: Value,
    mut meddle: impl FnMut(&mut Value) -> Option<Response> + Send + 'static,
) -> Fake {
    let mut kept = initial;
    Fake::start(move |request| match request.line().strip_prefix(&format!("POST {SITE}/config/")) {
        Some("appsettings/list") => reply(200, json!({"properties": kept})),
        _ if request.method == "PUT" => {
            kept = request.json()["properties"].clone();
            meddle(&mut kept).unwrap_or_else(|| reply(200, json!({"properties": kept})))
        }
        _ => surroundings(request),
    })
    .await
}

#[tokio::test]
async fn one_setting_changes_and_the_rest_is_proven_to_be_as_before() {
    let fake = site(settings(OLD), |_| None).await;
    let setting = setting(&fake);
    let wanted = wanted(&setting);
    assert_eq!(setting.publish(&wanted.update()).await.unwrap().effect, Did::Changed);
    let list = format!("POST {SITE}/config/appsettings/list");
    assert_eq!(
        fake.lines(),
        [list.as_str(), &format!("PUT {SITE}/config/appsettings")],
        "the answer shows what is stored"
    );
    let put = fake.seen().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(put.json(), json!({"properties": settings(NEW)}));
    assert_eq!(put.query, "api-version=2025-05-01");
    assert_eq!(setting.publish(&wanted.update()).await.unwrap().effect, Did::AlreadyDone);
    assert_eq!(fake.seen().len(), 3);
    let seen = setting.inspect().await.unwrap();
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new(NEW)));
}

#[tokio::test]
async fn an_answer_that_does_not_show_the_values_leads_to_a_look() {
    for answer in [json!({"properties": {"DATABASE_URL": null}}), json!({}), json!("?")] {
        let fake = site(settings(OLD), move |_| Some(reply(200, answer.clone()))).await;
        let setting = setting(&fake);
        assert_eq!(setting.publish(&wanted(&setting).update()).await.unwrap().effect, Did::Changed);
        assert_eq!(fake.lines()[2], format!("POST {SITE}/config/appsettings/list"));
    }
}

#[tokio::test]
async fn what_several_copies_and_the_application_want_to_know_is_asked_once() {
    let fake = site(settings(OLD), |_| None).await;
    let shared = fake.shared();
    let setting = |name: &str| {
        let options = with(options(), "setting", json!(name));
        Setting::new(None, serde_json::from_value(options).unwrap(), shared.clone()).unwrap()
    };
    let (first, second) = (setting("DATABASE_URL"), setting("SECRET_SALT"));
    let app = App::new(None, serde_json::from_value(options()).unwrap(), shared.clone()).unwrap();
    let log = Log::new(None, serde_json::from_value(options()).unwrap(), shared.clone()).unwrap();
    let (first, second, app, log) = futures::join!(first.check(), second.check(), app.check(), log.check());
    assert!(first.is_ok() && second.is_ok() && app.is_ok() && log.is_ok());
    let mut lines = fake.lines();
    lines.sort();
    let all = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), all, "{lines:?}");
}

#[tokio::test]
async fn another_writer_is_noticed_and_no_value_is_shown() {
    let fake = site(settings(OLD), |kept| {
        kept["SECRET_SALT"] = json!("hunter2");
        kept["OTHER"] = json!("hunter3");
        None
    })
    .await;
    let setting = setting(&fake);
    let error = setting.publish(&wanted(&setting).update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Never));
    assert!(
        error.to_string().contains("SECRET_SALT, OTHER") || error.to_string().contains("OTHER, SECRET_SALT")
    );
    assert!(!format!("{error:?}").contains("hunter") && !format!("{error:?}").contains("p%41q"));
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_still_proven() {
    // The PUT takes effect and loses a setting, and its answer is lost too.
    let fake = site(settings(OLD), |kept| {
        kept.as_object_mut().unwrap().remove("EMPTY");
        Some(empty(502))
    })
    .await;
    let setting = setting(&fake);
    let wanted = wanted(&setting);
    let lost = setting.publish(&wanted.update()).await.unwrap_err();
    assert_eq!(lost.retry(), Retry::Unknown);
    let error = setting.publish(&wanted.update()).await.unwrap_err();
    assert!(error.to_string().contains("EMPTY"), "{error}");

    let fake = site(settings(OLD), |_| Some(empty(502))).await;
    let setting = self::setting(&fake);
    assert_eq!(setting.publish(&wanted.update()).await.unwrap_err().retry(), Retry::Unknown);
    assert_eq!(setting.publish(&wanted.update()).await.unwrap().effect, Did::Changed);
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("PUT")).count(), 1);
}

#[tokio::test]
async fn a_change_that_is_carried_out_later_is_waited_for() {
    let mut polls = 0;
    let mut kept = settings(OLD);
    let mut next = Value::Null;
    let fake = Fake::start(move |request| match request.path.as_str() {
        "/later" => {
            polls += 1;
            if polls == 3 {
                kept = next.clone();
            }
            empty(if polls < 3 { 202 } else { 200 })
        }
        _ if request.method == "PUT" => {
            next = request.json()["properties"].clone();
            with_header(empty(202), "location", &format!("https://{}/later", request.host))
        }
        _ => reply(200, json!({"properties": kept})),
    })
    .await;
    let setting = setting(&fake);
    assert_eq!(setting.publish(&wanted(&setting).update()).await.unwrap().effect, Did::Changed);
}

#[tokio::test]
async fn a_reference_is_never_overwritten() {
    let fake = site(settings(REFERENCE), |_| None).await;
    let setting = setting(&fake);
    let outcome = setting.publish(&wanted(&setting).update()).await.unwrap();
    assert_eq!(outcome.effect, Did::Kept);
    assert!(outcome.notes[0].contains("database-url in the vault kv-test"), "{:?}", outcome.notes);
    let found = setting.check().await.unwrap();
    // In the very words of the copy that it points at.
    let options = json!({"vault": "KV-Test", "secret": "Database-Url"});
    let secret =
        azure_key_vault::Copy::new(None, serde_json::from_value(options).unwrap(), fake.shared()).unwrap();
    assert!(matches!(found.seen.content, Content::Reference(to) if to == secret.location()));
    assert_eq!(found.findings, []);

    let pinned = REFERENCE.replace("/)", "/0a1b)");
    let fake = site(settings(&pinned), |_| None).await;
    let setting = self::setting(&fake);
    let found = setting.check().await.unwrap();
    assert_eq!(found.findings[0].severity, Severity::Blocks);
    assert!(found.findings[0].what.contains("points at one version"), "{:?}", found.findings);
    assert_eq!(setting.publish(&wanted(&setting).update()).await.unwrap_err().kind(), Kind::BadState);
    assert!(fake.lines().iter().all(|line| !line.starts_with("PUT")));
}

#[tokio::test]
async fn a_reference_that_gives_no_value_blocks() {
    let fake = Fake::start(|request| match request.line().rsplit('/').next() {
        Some("list") => reply(200, json!({"properties": settings(REFERENCE)})),
        Some("appsettings") => reply(200, json!({"value": [item("AccessToKeyVaultDenied", None)]})),
        _ => surroundings(request),
    })
    .await;
    let found = setting(&fake).check().await.unwrap().findings;
    assert_eq!(found[0].severity, Severity::Blocks);
    assert!(found[0].mend.as_deref().unwrap().contains("Key Vault Secrets User"));
    let found = app(&fake).check().await.unwrap();
    assert_eq!(found[0].severity, Severity::Warning);
}

#[tokio::test]
async fn a_missing_setting_may_live_elsewhere() {
    for (present, strings, severity, says) in [
        (json!({"Database_Url": "x"}), json!({}), Severity::Blocks, "Database_Url"),
        (
            json!({}),
            json!({"DATABASE_URL": {"value": "hunter2", "type": "Custom"}}),
            Severity::Blocks,
            "connection string",
        ),
        (json!({}), json!({"OTHER": {}}), Severity::Warning, "would make it"),
    ] {
        let fake =
            Fake::start(move |request| match request.line().strip_prefix(&format!("POST {SITE}/config/")) {
                Some("appsettings/list") => reply(200, json!({"properties": present})),
                Some("connectionstrings/list") => reply(200, json!({"properties": strings})),
                _ => surroundings(request),
            })
            .await;
        let found = setting(&fake).check().await.unwrap().findings;
        assert_eq!(found[0].severity, severity);
        assert!(found[0].what.contains(says) && !found[0].what.contains("hunter2"), "{found:?}");
    }
}

#[tokio::test]
async fn rights_and_slots_are_looked_up() {
    let fake = Fake::start(|request| match request.line().rsplit('/').next() {
        Some("list") => reply(200, json!({"properties": settings(OLD)})),
        Some("permissions") => reply(200, json!({"value": [{"actions": ["*/read", "*/list/action"]}]})),
        Some("slots") => reply(200, json!({"value": [{"name": "api/staging"}]})),
        _ => surroundings(request),
    })
    .await;
    let found = setting(&fake).check().await.unwrap().findings;
    assert!(
        found
            .iter()
            .any(|found| found.severity == Severity::Blocks && found.what.contains("sites/config/write"))
    );
    assert!(found.iter().any(|found| found.severity == Severity::Note && found.what.contains("staging")));
    let found = app(&fake).check().await.unwrap();
    assert!(found.iter().any(|found| found.what.contains("sites/restart/action")));
}

#[tokio::test]
async fn a_slot_has_resources_and_rights_of_its_own() {
    let fake = Fake::start(|request| {
        assert!(request.line().contains("/sites/api/slots/blue/"), "{}", request.line());
        reply(200, json!({"properties": settings(OLD), "value": []}))
    })
    .await;
    let options = with(with(options(), "slot", json!("blue")), "setting", json!("DATABASE_URL"));
    let setting =
        Setting::new(None, serde_json::from_value(options.clone()).unwrap(), fake.shared()).unwrap();
    let found = setting.check().await.unwrap().findings;
    for right in ["config/list/action", "config/write"] {
        let right = format!("Microsoft.Web/sites/slots/{right}");
        assert!(found.iter().any(|found| found.what.contains(&right)), "{found:?}");
    }
    assert!(setting.whole() != self::setting(&fake).whole());
    let production = with(options, "slot", json!("Production"));
    let production = Setting::new(None, serde_json::from_value(production).unwrap(), fake.shared()).unwrap();
    assert_eq!(production.whole(), self::setting(&fake).whole());
}

#[tokio::test]
async fn a_slot_that_is_not_there_is_named_with_what_to_do() {
    let fake = Fake::start(|_| refusal(404, "ResourceNotFound", "")).await;
    let slot = with(options(), "slot", json!("green"));
    let setting = with(slot.clone(), "setting", json!("DATABASE_URL"));
    let setting = Setting::new(None, serde_json::from_value(setting).unwrap(), fake.shared()).unwrap();
    let app = App::new(None, serde_json::from_value(slot).unwrap(), fake.shared()).unwrap();
    for error in [setting.check().await.unwrap_err(), app.check().await.unwrap_err()] {
        assert_eq!((error.kind(), error.retry()), (Kind::NotFound, Retry::Never));
        let causes = error.causes().join("; ");
        assert!(causes.contains("api has no slot \"green\""), "{causes}");
        let hints = error.hints().join("; ");
        assert!(hints.contains("slot list --resource-group rg --name api"), "{hints}");
    }
    // Of the production site nobody speaks of slots.
    let error = self::setting(&fake).check().await.unwrap_err();
    assert!(!error.causes().join("; ").contains("slot"), "{error:?}");
}

fn item(status: &str, active: Option<&str>) -> Value {
    json!({"name": "DATABASE_URL", "properties": {
        "reference": REFERENCE, "status": status, "vaultName": "kv-test", "secretName": "database-url",
        "activeVersion": active, "source": "KeyVault"}})
}

fn written() -> BTreeMap<CopyId, VersionId> {
    let id = "https://kv-test.vault.azure.net/secrets/database-url/v2";
    BTreeMap::from([(CopyId::from("azure_key_vault:database-url"), VersionId::from(id))])
}

async fn activate(
    fake: &Fake,
    versions: &BTreeMap<CopyId, VersionId>,
) -> Result<pgrotate_core::journal::Outcome> {
    let password = &Secret::new("new-password");
    app(fake).activate(&Activation { run: run(), versions, password, previous: None }).await
}

#[tokio::test]
async fn a_changed_setting_needs_no_second_restart() {
    let fake = Fake::start(surroundings).await;
    activate(&fake, &BTreeMap::new()).await.unwrap();
    assert_eq!(fake.lines(), [format!("POST {SITE}/restart")]);
    assert_eq!(fake.seen()[0].query, "api-version=2025-05-01&softRestart=true&synchronous=true");
    assert_eq!(app(&fake).id(), "azure_app_service:api");
}

#[tokio::test]
async fn references_arrive_before_the_restart() {
    let mut reads = 0;
    let fake = Fake::start(move |request| match request.line().rsplit('/').next() {
        Some("appsettings") => {
            reads += 1;
            let (status, active) =
                [("Resolved", "v1"), ("Initialized", "v1"), ("Resolved", "v2")][reads.min(3) - 1];
            reply(200, json!({"value": [item(status, Some(active))]}))
        }
        Some("refresh") => reply(200, json!({"value": []})),
        _ => surroundings(request),
    })
    .await;
    let outcome = activate(&fake, &written()).await.unwrap();
    assert!(outcome.notes[0].contains("arrived"));
    let read = format!("GET {SITE}/config/configreferences/appsettings");
    let refresh = format!("POST {SITE}/config/configreferences/appsettings/refresh");
    assert_eq!(fake.lines(), [read.as_str(), &refresh, &read, &read, &format!("POST {SITE}/restart")]);
    assert_eq!(fake.seen()[1].query, "api-version=2022-03-01");
    assert!(
        fake.seen()[4].query.contains("softRestart=false"),
        "a new secret behind a reference is no change"
    );
}

#[tokio::test]
async fn a_reference_that_does_not_arrive_is_said_and_nothing_restarted() {
    let fake = Fake::start(|request| match request.line().rsplit('/').next() {
        Some("appsettings") => reply(200, json!({"value": [item("Resolved", Some("v1"))]})),
        Some("refresh") => empty(200),
        _ => surroundings(request),
    })
    .await;
    let error = activate(&fake, &written()).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Later { after_ms: None });
    assert!(error.hints()[0].contains("24 hours"), "{:?}", error.hints());
    assert!(fake.lines().iter().all(|line| !line.ends_with("/restart")));
}

#[tokio::test]
async fn other_peoples_references_are_not_waited_for() {
    let fake = Fake::start(|request| match request.line().rsplit('/').next() {
        Some("appsettings") => {
            let mut other = item("SecretNotFound", None);
            other["properties"]["secretName"] = json!("smtp-password");
            reply(200, json!({"value": [other]}))
        }
        _ => surroundings(request),
    })
    .await;
    activate(&fake, &written()).await.unwrap();
    assert_eq!(fake.seen().len(), 2);
    assert!(fake.seen()[1].query.contains("softRestart=true"));
}

#[tokio::test]
async fn a_restart_that_azure_only_accepts_is_noted() {
    let fake = Fake::start(|_| empty(202)).await;
    let outcome = activate(&fake, &BTreeMap::new()).await.unwrap();
    assert!(outcome.notes[0].contains("did not wait"));
}

/// A site whose log shows some lines at once and then stays open.
async fn logging(text: String, last: Option<&'static str>) -> Fake {
    let text = Mutex::new(text);
    Fake::start(move |request| {
        if request.path != "/logstream" {
            return surroundings(request);
        }
        assert!(
            request.host.starts_with("api.scm.localhost:") && request.authorization.starts_with("Bearer ")
        );
        let first = text.lock().unwrap().clone();
        let late = async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, std::io::Error>(last.unwrap_or_default().to_owned())
        };
        let stream = futures::stream::iter([Ok(first)])
            .chain(futures::stream::once(late))
            .chain(futures::stream::pending());
        Body::from_stream(stream).into_response()
    })
    .await
}

async fn look_at_log(fake: &Fake, since: Timestamp, extra: Value) -> Result<pgrotate_core::journal::Outcome> {
    let mut options = with(options(), "quiet_ms", json!(300));
    for (name, value) in extra.as_object().unwrap() {
        options[name.as_str()] = value.clone();
    }
    let shared = fake.shared_with(std::sync::Arc::new(RealClock), "AZURE_CLIENT_SECRET=s3cr3t\n");
    let log = Log::new(None, serde_json::from_value(options).unwrap(), shared).unwrap();
    assert_eq!(log.id(), "log");
    let (password, url) = (Secret::new("hunter2"), Secret::new("postgresql://admin:hunter2@db/app"));
    let previous = Secret::new("swordfish");
    let previous = Some(&previous);
    let changing_since = since;
    log.verify(&Evidence { run: run(), password: &password, previous, url: &url, changing_since, since })
        .await
}

const GREETING: &str = "2026-11-23T22:36:00  Welcome, you are now connected to log-streaming service.\n\n";

#[tokio::test]
async fn the_log_is_read_until_it_is_quiet() {
    let since = Timestamp::now();
    let text = format!("{GREETING}{since} INFO: started\n");
    let fake = logging(text, Some("more of that\n")).await;
    let outcome = look_at_log(&fake, since, json!({})).await.unwrap();
    assert_eq!(outcome.effect, Did::Confirmed);
    assert!(outcome.notes[0].starts_with("2 lines"), "{:?}", outcome.notes);
    assert_eq!(fake.tokens()[1], "https://appservice.azure.com/.default");
    assert_eq!(fake.lines(), [format!("GET {SITE}"), "GET /logstream".into()]);
}

#[tokio::test]
async fn a_failed_login_in_the_log_is_an_error_without_secrets() {
    let since = Timestamp::now();
    let fake = logging(
        format!(
            "{since} asyncpg.exceptions.InvalidPasswordError: hunter2 or swordfish at postgresql://admin:hunter2@db/app\n"
        ),
        None,
    )
    .await;
    let error = look_at_log(&fake, since, json!({})).await.unwrap_err();
    let shown = format!("{error} {:?}", error.hints());
    assert!(shown.contains("invalidpassworderror") && shown.contains("1 line"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("swordfish"), "{shown}");
    let fake = logging(format!("{since} Out of Cheese\n"), None).await;
    let error = look_at_log(&fake, since, json!({"patterns": ["out of CHEESE"]})).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Never);
}

#[tokio::test]
async fn what_was_logged_before_the_restart_is_not_seen() {
    let since = Timestamp::now();
    let before = since - jiff::SignedDuration::from_secs(1);
    let fake = logging(format!("{before} password authentication failed for user \"admin\"\n"), None).await;
    let outcome = look_at_log(&fake, since, json!({})).await.unwrap();
    assert_eq!(outcome.effect, Did::Unseen);
}

/// A log that never rests, with lines from so long ago.
async fn restless(ago: jiff::SignedDuration) -> Fake {
    Fake::start(move |request| {
        if request.path != "/logstream" {
            return surroundings(request);
        }
        let lines = futures::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>(format!("{} INFO\n", Timestamp::now() - ago)), ()))
        });
        Body::from_stream(lines).into_response()
    })
    .await
}

#[tokio::test]
async fn the_log_of_a_busy_application_is_read_until_it_has_caught_up() {
    let fake = restless(jiff::SignedDuration::ZERO).await;
    let began = std::time::Instant::now();
    let outcome = look_at_log(&fake, Timestamp::now(), json!({"limit_s": 20})).await.unwrap();
    assert_eq!(outcome.effect, Did::Confirmed);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_log_that_never_rests_and_never_catches_up_is_left_alone_in_the_end() {
    let fake = restless(jiff::SignedDuration::from_secs(60)).await;
    let began = std::time::Instant::now();
    let since = Timestamp::now() - jiff::SignedDuration::from_secs(120);
    let outcome = look_at_log(&fake, since, json!({"limit_s": 1})).await.unwrap();
    assert_eq!(outcome.effect, Did::Confirmed);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_clock_that_runs_ahead_over_there_is_allowed_for() {
    let since = Timestamp::now();
    let fake = Fake::start(move |request| {
        if request.path != "/logstream" {
            return surroundings(request);
        }
        let hour = jiff::SignedDuration::from_hours(1);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&(Timestamp::now() + hour))
            .unwrap();
        // By their clock an hour from now, by ours a minute before the restart.
        let at = since + hour - jiff::SignedDuration::from_secs(60);
        with_header(format!("{at} password authentication failed\n").into_response(), "date", &date)
    })
    .await;
    assert_eq!(look_at_log(&fake, since, json!({})).await.unwrap().effect, Did::Unseen);
}

#[tokio::test]
async fn an_scm_site_that_refuses_says_which_role_helps() {
    let fake =
        Fake::start(|request| if request.path == "/logstream" { empty(401) } else { surroundings(request) })
            .await;
    let error = look_at_log(&fake, Timestamp::now(), json!({})).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert!(error.hints()[0].contains("Website Contributor"));
}

#[tokio::test]
async fn logs_that_are_switched_off_are_said_to_be_unseen() {
    let fake = Fake::start(|request| match request.line().rsplit('/').next() {
        Some("logs") => {
            reply(200, json!({"properties": {"applicationLogs": {"fileSystem": {"level": "Off"}}}}))
        }
        _ => surroundings(request),
    })
    .await;
    let log =
        Log::new(Some("app log".into()), serde_json::from_value(options()).unwrap(), fake.shared()).unwrap();
    assert_eq!(log.id(), "app log");
    let found = log.check().await.unwrap();
    assert_eq!(found[0].severity, Severity::Unseen);
    assert!(found[0].mend.as_deref().unwrap().contains("--resource-group rg --name api"));
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn a_log_that_will_not_be_read_is_known_before() {
    let fake =
        Fake::start(|request| if request.path == "/logstream" { empty(403) } else { surroundings(request) })
            .await;
    let log = Log::new(None, serde_json::from_value(options()).unwrap(), fake.shared()).unwrap();
    let found = log.check().await.unwrap();
    assert!(found.len() == 1 && found[0].severity == Severity::Blocks, "{found:?}");
    assert!(found[0].mend.as_deref().unwrap().contains("Website Contributor"));
}

/// Settings, connection strings and a slot; all but the first hold the password without being named.
async fn crowded(sticky: Value) -> Fake {
    Fake::start(move |request| match request.line().strip_prefix(&format!("POST {SITE}/")) {
        Some("config/appsettings/list") => {
            reply(200, json!({"properties": {"DATABASE_URL": LONG, "REPORTS": LONG, "SALT": SALT}}))
        }
        Some("config/connectionstrings/list") => reply(
            200,
            json!({"properties": {"Main": {"value": "Host=db;Password=p/ssw0rd!;", "type": "PostgreSQL"}}}),
        ),
        Some("slots/blue/config/appsettings/list") => {
            reply(200, json!({"properties": {"OTHER": "p/ssw0rd!"}}))
        }
        _ if request.path.ends_with("/slots") => reply(200, json!({"value": [{"name": "api/blue"}]})),
        _ if request.path.ends_with("/slotConfigNames") => reply(200, json!({"properties": sticky})),
        _ => surroundings(request),
    })
    .await
}

const LONG: &str = "postgresql://admin:p%2Fssw0rd!@db/app";

#[tokio::test]
async fn what_holds_the_password_without_being_named_is_found() {
    let fake = crowded(json!({"appSettingNames": null})).await;
    let found = setting(&fake).check().await.unwrap().findings;
    let said = |words: &str| found.iter().filter(|found| found.what.contains(words)).count();
    assert_eq!(said("the setting REPORTS of api"), 1);
    assert_eq!(said("the connection string Main of api"), 1);
    assert_eq!(said("the slot api/blue holds the same password in OTHER"), 1);
    assert!(found.len() == 3 && found.iter().all(|found| found.severity == Severity::Warning), "{found:?}");
    assert!(!format!("{found:?}").contains("ssw0rd"));
    assert!(found.iter().any(|found| found.why.as_deref().unwrap().contains("brings it into production")));

    let fake = crowded(json!({"appSettingNames": ["DATABASE_URL"]})).await;
    let found = setting(&fake).check().await.unwrap().findings;
    assert!(found.iter().any(|found| found.why.as_deref().unwrap().contains("stays with its slot")));
}

#[tokio::test]
async fn what_is_named_is_no_stranger() {
    let fake = crowded(json!({})).await;
    let shared = fake.shared();
    let bind = |more: Value| {
        let mut options = options();
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Setting::new(None, serde_json::from_value(options).unwrap(), shared.clone()).unwrap()
    };
    let setting = bind(json!({"setting": "DATABASE_URL"}));
    for more in [
        json!({"setting": "REPORTS"}),
        json!({"connection_string": "Main"}),
        json!({"slot": "blue", "setting": "DATABASE_URL"}),
    ] {
        bind(more);
    }
    assert_eq!(setting.check().await.unwrap().findings, []);
}

#[tokio::test]
async fn a_site_is_known_by_its_host_name() {
    let fake = site(settings(OLD), |_| None).await;
    assert_eq!(setting(&fake).check().await.unwrap().identity, None, "it does not say");
    let fake = Fake::start(|request| match request.line().rsplit('/').next() {
        Some("api") => reply(200, json!({"properties": {"defaultHostName": "api-g4h2.example"}})),
        Some("list") => reply(200, json!({"properties": {}})),
        _ => surroundings(request),
    })
    .await;
    let found = setting(&fake).check().await.unwrap();
    let expected = "azure_app_service sub/rg/api at api-g4h2.example setting DATABASE_URL";
    assert_eq!(found.identity.as_deref(), Some(expected));
}
