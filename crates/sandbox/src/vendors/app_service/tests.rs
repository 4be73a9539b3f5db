use std::time::Duration;

use serde_json::{Value, json};

use super::super::testing::{Answer, SUBSCRIPTION, Sandbox, Site, answer, serve, until};
use super::super::{AppControl, Latency, apply};

const APP: &str = "/Microsoft.Web/sites/mindwell-dev-api";

async fn settings(sandbox: &Sandbox) -> Value {
    let path = format!("{APP}/config/appsettings/list");
    sandbox.arm("POST", &path, None).await.expect(200).body["properties"].clone()
}

async fn put(sandbox: &Sandbox, settings: &Value) -> Answer {
    let path = format!("{APP}/config/appsettings");
    sandbox.arm("PUT", &path, Some(json!({"properties": settings}))).await
}

async fn restart(sandbox: &Sandbox, query: &str) {
    let answer = sandbox.arm("POST", &format!("{APP}/restart{query}"), None).await.expect(200);
    assert_eq!(answer.text, "");
}

fn starts(sandbox: &Sandbox) -> u64 {
    sandbox.apps.starts("mindwell-dev-api")
}

/// A sandbox whose applications run.
async fn running(milliseconds: u64) -> Sandbox {
    let sandbox = Sandbox::slow(milliseconds);
    sandbox.vendors.app_service.start_all().await;
    assert_eq!(starts(&sandbox), 1);
    sandbox
}

/// Waits until everything that is on its way has happened.
async fn settle(sandbox: &Sandbox) {
    restart(sandbox, "?softRestart=true&synchronous=true").await;
}

#[tokio::test]
async fn a_put_replaces_all_settings_and_restarts_once() {
    let sandbox = running(50).await;
    let before = settings(&sandbox).await;
    assert_eq!(before["SECRET_SALT"], "p%41q\"'\\$HOME `x` {y} é=&#+ /");
    let mut after = before.clone();
    after["DATABASE_URL"] = json!("postgresql://new");
    let stored = put(&sandbox, &after).await.expect(200);
    assert_eq!(stored.body["properties"], after);
    settle(&sandbox).await;
    assert_eq!(starts(&sandbox), 2);
    assert_eq!(sandbox.apps.latest()["DATABASE_URL"], "postgresql://new");
    assert_eq!(sandbox.apps.latest()["PORT"], "8000");
    // Only what is put is kept.
    put(&sandbox, &json!({"DATABASE_URL": "alone"})).await.expect(200);
    assert_eq!(settings(&sandbox).await, json!({"DATABASE_URL": "alone"}));
    settle(&sandbox).await;
    assert!(!sandbox.apps.latest().contains_key("LOG_LEVEL"));
    put(&sandbox, &json!({"DATABASE_URL": 5})).await.expect(400);
}

#[tokio::test]
async fn the_same_settings_again_restart_nothing() {
    let sandbox = running(0).await;
    let before = settings(&sandbox).await;
    put(&sandbox, &before).await.expect(200);
    settle(&sandbox).await;
    assert_eq!(starts(&sandbox), 1);
    assert_eq!(sandbox.vendors.copies("dev")["azure_app_service:DATABASE_URL"].versions, 1);
}

#[tokio::test]
async fn a_change_and_a_plain_restart_are_two_restarts_but_a_soft_one_waits_for_the_change() {
    let sandbox = running(300).await;
    let mut after = settings(&sandbox).await;
    after["DATABASE_URL"] = json!("one");
    put(&sandbox, &after).await.expect(200);
    restart(&sandbox, "?softRestart=true&synchronous=true").await;
    assert_eq!(starts(&sandbox), 2, "the soft restart is the one that the change has caused");
    assert_eq!(sandbox.apps.latest()["DATABASE_URL"], "one");
    after["DATABASE_URL"] = json!("two");
    put(&sandbox, &after).await.expect(200);
    restart(&sandbox, "?synchronous=true").await;
    assert_eq!(starts(&sandbox), 4, "the plain restart comes on top");
    restart(&sandbox, "").await;
    assert_eq!(starts(&sandbox), 4, "a restart that isn't synchronous answers at once");
    settle(&sandbox).await;
    assert_eq!(starts(&sandbox), 5);
}

#[tokio::test]
async fn a_reference_is_read_at_a_change_or_a_refresh_and_not_at_a_restart() {
    let sandbox = running(0).await;
    sandbox.set("app_service", "reference", json!({"secret": "database-url"}));
    settle(&sandbox).await;
    assert!(sandbox.apps.latest()["DATABASE_URL"].starts_with("postgresql+asyncpg://"));
    assert_eq!(
        settings(&sandbox).await["DATABASE_URL"],
        "@Microsoft.KeyVault(VaultName=kv-mindwell-dev;SecretName=database-url)"
    );
    sandbox.set("key_vault", "value", json!({"secret": "database-url", "value": "postgresql://new"}));
    restart(&sandbox, "?synchronous=true").await;
    assert!(sandbox.apps.latest()["DATABASE_URL"].starts_with("postgresql+asyncpg://"), "cached");
    let one = format!("{APP}/config/configreferences/appsettings/DATABASE_URL");
    let before = sandbox.arm("GET", &one, None).await.expect(200).body["properties"].clone();
    assert_eq!(before["status"], "Resolved");
    let refresh = format!("{APP}/config/configreferences/appsettings/refresh");
    sandbox.arm("POST", &refresh, None).await.expect(200);
    let after = sandbox.arm("GET", &one, None).await.expect(200).body["properties"].clone();
    assert_ne!(after["activeVersion"], before["activeVersion"]);
    let latest = sandbox.vendors.copies("dev")["azure_key_vault:database-url"].version.clone();
    assert_eq!(after["activeVersion"], latest);
    restart(&sandbox, "?softRestart=true&synchronous=true").await;
    assert_eq!(sandbox.apps.latest()["DATABASE_URL"], "postgresql://new");
}

#[tokio::test]
async fn a_reference_that_fails_is_handed_over_as_it_is_written() {
    let sandbox = running(0).await;
    let status = async |literal: &str| {
        sandbox.set("app_service", "setting", json!({"name": "X", "value": literal}));
        settle(&sandbox).await;
        let path = format!("{APP}/config/configreferences/appsettings/X");
        let shown = sandbox.arm("GET", &path, None).await.expect(200).body["properties"]["status"].clone();
        (shown, sandbox.apps.latest()["X"].clone())
    };
    for (literal, expected) in [
        ("@Microsoft.KeyVault(VaultName=kv-mindwell-dev;SecretName=nothing)", "SecretNotFound"),
        ("@Microsoft.KeyVault(VaultName=elsewhere;SecretName=x)", "VaultNotFound"),
        ("@Microsoft.KeyVault(Vault=kv-mindwell-dev)", "InvalidSyntax"),
        (
            "@Microsoft.KeyVault(VaultName=kv-mindwell-dev;SecretName=database-url;SecretVersion=0)",
            "SecretVersionNotFound",
        ),
    ] {
        assert_eq!(status(literal).await, (json!(expected), literal.to_owned()));
    }
    let uri = "@Microsoft.KeyVault(SecretUri=https://kv-mindwell-dev.vault.azure.net/secrets/smtp-password/)";
    assert_eq!(status(uri).await, (json!("Resolved"), "not-ours-to-change".to_owned()));
    let path = format!("{APP}/config/configreferences/appsettings/LOG_LEVEL");
    sandbox.arm("GET", &path, None).await.expect(404);
}

#[tokio::test]
async fn a_pinned_reference_stays_with_its_version() {
    let sandbox = running(0).await;
    let version = sandbox.vendors.copies("dev")["azure_key_vault:database-url"].version.clone();
    sandbox.set("app_service", "reference", json!({"secret": "database-url", "version": version}));
    sandbox.set("key_vault", "value", json!({"secret": "database-url", "value": "postgresql://new"}));
    let refresh = format!("{APP}/config/configreferences/appsettings/refresh");
    let shown = sandbox.arm("POST", &refresh, None).await.expect(200).body;
    let database =
        shown["value"].as_array().unwrap().iter().find(|one| one["name"] == "DATABASE_URL").unwrap();
    assert_eq!(database["properties"]["activeVersion"], version);
    assert_eq!(database["properties"]["secretVersion"], version);
}

#[tokio::test]
async fn a_slot_has_settings_of_its_own() {
    let sandbox = running(0).await;
    sandbox.set("app_service", "slot", json!("blue"));
    let slots = sandbox.arm("GET", &format!("{APP}/slots"), None).await.expect(200);
    assert_eq!(slots.body["value"][0]["name"], "mindwell-dev-api/blue");
    let path = format!("{APP}/slots/blue/config/appsettings");
    sandbox.arm("PUT", &path, Some(json!({"properties": {"A": "b"}}))).await.expect(200);
    let list = sandbox.arm("POST", &format!("{path}/list"), None).await.expect(200);
    assert_eq!(list.body["properties"], json!({"A": "b"}));
    assert!(settings(&sandbox).await["DATABASE_URL"].is_string());
    sandbox.arm("POST", &format!("{APP}/slots/blue/restart?synchronous=true"), None).await.expect(200);
    assert_eq!(starts(&sandbox), 1);
    let sticky = sandbox.arm("GET", &format!("{APP}/config/slotConfigNames"), None).await.expect(200);
    assert_eq!(sticky.body["properties"]["appSettingNames"], json!(["LOG_LEVEL"]));
    sandbox.arm("GET", &format!("{APP}/slots/green"), None).await.expect(404);
    sandbox.set("resource_manager", "deny", json!(["Microsoft.Web/sites/slots/config/list/action"]));
    sandbox.arm("POST", &format!("{path}/list"), None).await.expect(403);
    settings(&sandbox).await;
}

#[tokio::test]
async fn a_further_application_is_like_the_first_but_runs_nothing() {
    const WORKER: &str = "/Microsoft.Web/sites/mindwell-dev-worker";
    let sandbox = running(0).await;
    sandbox.set("app_service", "setting", json!({"name": "EXTRA", "value": "one"}));
    sandbox.set("app_service", "app", json!("mindwell-dev-worker"));
    sandbox.set("app_service", "slot", json!({"app": "mindwell-dev-worker", "slot": "Blue"}));
    let names = async |path: &str| {
        let list = sandbox.arm("GET", path, None).await.expect(200).body["value"].clone();
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("/Microsoft.Web/sites").await, ["mindwell-dev-api", "mindwell-dev-worker"]);
    assert_eq!(names(&format!("{WORKER}/slots")).await, ["mindwell-dev-worker/Blue"]);
    assert!(names(&format!("{APP}/slots")).await.is_empty(), "another application's slot");
    let filter = "resourceType%20eq%20'Microsoft.Web%2Fsites'%20and%20name%20eq%20'mindwell-dev-worker'";
    let found = format!("/subscriptions/{SUBSCRIPTION}/resources?$filter={filter}");
    let found = sandbox.arm_path("GET", &found, None).await.expect(200).body;
    assert_eq!(found["value"][0]["name"], "mindwell-dev-worker");

    // Each has a configuration of its own, which began as the first one's; slots' names ignore case.
    for site in [WORKER.to_owned(), format!("{WORKER}/slots/blue")] {
        let settle = format!("{site}/restart?softRestart=true&synchronous=true");
        sandbox.arm("POST", &settle, None).await.expect(200);
        let list = format!("{site}/config/appsettings/list");
        let before = sandbox.arm("POST", &list, None).await.expect(200).body["properties"].clone();
        assert_eq!(before["EXTRA"], "one");
        let body = json!({"properties": {"EXTRA": site}});
        sandbox.arm("PUT", &format!("{site}/config/appsettings"), Some(body)).await.expect(200);
        sandbox.arm("POST", &settle, None).await.expect(200);
    }
    let copies = sandbox.vendors.copies("dev");
    let value = |id: &str| copies[&format!("azure_app_service:{id}")].value.clone().unwrap();
    assert_eq!(value("EXTRA"), "one");
    assert_eq!(value("mindwell-dev-worker/EXTRA"), WORKER);
    assert_eq!(value("mindwell-dev-worker/Blue/EXTRA"), format!("{WORKER}/slots/blue"));

    let starts = sandbox.vendors.starts("dev");
    assert_eq!(starts.keys().collect::<Vec<_>>(), ["mindwell-dev-worker", "mindwell-dev-worker/Blue"]);
    assert!(starts.values().all(|starts| *starts == 2), "{starts:?}");
    assert_eq!(self::starts(&sandbox), 2, "the first one's own start and its change");
    let instances = sandbox.arm("GET", &format!("{WORKER}/instances"), None).await.expect(200);
    let container = &instances.body["value"][0]["properties"]["containers"]["main"]["name"];
    assert_eq!(*container, "mindwell-dev-worker_2_b3d4e5f6");
    assert!(sandbox.vendors.starts("staging").is_empty());
}

#[tokio::test]
async fn a_site_that_there_is_not_or_that_there_is_already_is_refused() {
    let sandbox = running(0).await;
    let set = |what: &str, value: Value| {
        let request = json!({"system": "app_service", "environment": "dev", "what": what, "value": value});
        apply(&sandbox.vendors, &request)
    };
    set("slot", json!("blue")).unwrap();
    assert_eq!(set("slot", json!("blue")).unwrap_err(), "there is a site mindwell-dev-api/blue already");
    assert!(set("app", json!("mindwell-dev-api-blue")).is_err(), "its host name would be the slot's");
    let nowhere = json!({"app": "other", "slot": "x", "name": "A", "value": "b"});
    for what in ["setting", "connection_string"] {
        assert_eq!(set(what, nowhere.clone()).unwrap_err(), "there is no site other/x");
    }
    assert!(set("slot", json!({"app": "other", "slot": "x"})).is_err());
    assert!(set("stopped", json!("yes")).is_err());
}

#[tokio::test]
async fn a_connection_string_is_shown_where_it_is_and_keeps_its_type() {
    let sandbox = running(0).await;
    sandbox.set("app_service", "slot", json!("blue"));
    for site in [json!({}), json!({"slot": "blue"})] {
        for (name, kind) in [("Database", json!(null)), ("Cache", json!("RedisCache"))] {
            let mut value = site.clone();
            value["name"] = json!(name);
            value["value"] = json!("x");
            value["type"] = kind;
            sandbox.set("app_service", "connection_string", value);
        }
    }
    sandbox.set(
        "app_service",
        "connection_string",
        json!({"slot": "blue", "name": "Database", "value": "y"}),
    );
    sandbox.set(
        "app_service",
        "connection_string",
        json!({"slot": "blue", "name": "Database", "value": "y"}),
    );
    sandbox.set("app_service", "connection_string", json!({"slot": "blue", "name": "Cache", "value": null}));
    let copies = sandbox.vendors.copies("dev");
    let shown: Vec<_> = copies
        .iter()
        .filter(|(id, _)| id.contains("/connectionstrings/"))
        .map(|(id, copy)| (id.as_str(), copy.value.as_deref().unwrap(), copy.versions))
        .collect();
    assert_eq!(
        shown,
        [
            ("azure_app_service:mindwell-dev-api/blue/connectionstrings/Database", "y", 2),
            ("azure_app_service:mindwell-dev-api/connectionstrings/Cache", "x", 1),
            ("azure_app_service:mindwell-dev-api/connectionstrings/Database", "x", 1),
        ]
    );
    let list = format!("{APP}/config/connectionstrings/list");
    let listed = sandbox.arm("POST", &list, None).await.expect(200).body["properties"].clone();
    assert_eq!(listed["Database"]["type"], "PostgreSQL");
    assert_eq!(listed["Cache"]["type"], "RedisCache");
    settle(&sandbox).await;
    let before = starts(&sandbox);
    let path = format!("{APP}/config/connectionstrings");
    sandbox.arm("PUT", &path, Some(json!({"properties": listed}))).await.expect(200);
    settle(&sandbox).await;
    assert_eq!(starts(&sandbox), before, "the same strings again restart nothing");
}

#[tokio::test]
async fn connection_strings_are_another_resource() {
    let sandbox = running(0).await;
    let entry = json!({"main": {"value": "postgresql://x", "type": "PostgreSQL"}});
    let path = format!("{APP}/config/connectionstrings");
    sandbox.arm("PUT", &path, Some(json!({"properties": entry}))).await.expect(200);
    let listed = sandbox.arm("POST", &format!("{path}/list"), None).await.expect(200);
    assert_eq!(listed.body["properties"], entry);
    settle(&sandbox).await;
    assert_eq!(sandbox.apps.latest()["POSTGRESQLCONNSTR_main"], "postgresql://x");
}

#[tokio::test]
async fn the_site_says_where_its_scm_site_is() {
    let sandbox = running(0).await;
    let site = sandbox.arm("GET", APP, None).await.expect(200).body;
    let hosts = site["properties"]["hostNameSslStates"].as_array().unwrap();
    let scm = hosts.iter().find(|host| host["hostType"] == "Repository").unwrap();
    assert_eq!(scm["name"], "mindwell-dev-api.scm.localhost:8445");
    assert_eq!(site["properties"]["defaultHostName"], "127.0.0.1:8000");
    let policy = format!("{APP}/basicPublishingCredentialsPolicies/scm");
    assert_eq!(sandbox.arm("GET", &policy, None).await.expect(200).body["properties"]["allow"], false);
    let instances = sandbox.arm("GET", &format!("{APP}/instances"), None).await.expect(200);
    let instance = &instances.body["value"][0]["properties"];
    assert_eq!(instance["state"], "READY");
    assert_eq!(instance["containers"]["main"]["name"], "mindwell-dev-api_1_b3d4e5f6");
    for what in ["web", "logs"] {
        let config = sandbox.arm("GET", &format!("{APP}/config/{what}"), None).await.expect(200);
        assert_eq!(config.body["name"], what);
    }
    let profile = sandbox.arm("POST", &format!("{APP}/publishxml"), None).await.expect(200);
    assert!(profile.text.contains("publishMethod=\"FTP\"") && profile.text.contains("userPWD=\"REDACTED\""));
    sandbox.arm("GET", "/Microsoft.Web/sites/nothing", None).await.expect(404);
}

async fn stream(site: &Site, token: &str) -> reqwest::Response {
    let request = site.request("GET", "/logstream").header("host", "mindwell-dev-api.scm.localhost:8445");
    request.bearer_auth(token).send().await.unwrap()
}

async fn read_until(response: &mut reqwest::Response, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let chunk = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await;
        let chunk = chunk.expect("the line never came").unwrap().expect("the stream has ended");
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    seen
}

#[tokio::test]
async fn the_log_stream_shows_what_was_and_follows() {
    let sandbox = running(0).await;
    let site = serve(sandbox.vendors.app_service.clone().router()).await;
    let token = sandbox.vendors.sign_in.token_for("https://appservice.azure.com/.default");
    let mut response = stream(&site, &token).await;
    assert_eq!(response.status(), 200);
    let seen = read_until(&mut response, "long ago").await;
    assert!(seen.contains("Welcome, you are now connected to log-streaming service."));
    assert!(seen.contains("1970-01-01T00:00:00.000000000Z started long ago\n"));
    sandbox.apps.print("password authentication failed for user \"mindwelladmin\"");
    read_until(&mut response, "Z password authentication failed for user \"mindwelladmin\"\n").await;
    let arm = sandbox.vendors.sign_in.token_for("https://management.azure.com/.default");
    assert_eq!(stream(&site, &arm).await.status(), 200);
    let vault = sandbox.vendors.sign_in.token_for("https://vault.azure.net/.default");
    assert_eq!(stream(&site, &vault).await.status(), 401);
}

#[tokio::test]
async fn the_scm_site_is_known_by_its_host() {
    let sandbox = running(0).await;
    let site = serve(sandbox.vendors.app_service.clone().router()).await;
    let token = sandbox.vendors.sign_in.token_for("https://appservice.azure.com/.default");
    let ask = async |host: &str, path: &str| {
        answer(site.request("GET", path).header("host", host).bearer_auth(&token)).await.status
    };
    assert_eq!(ask("nothing.scm.localhost", "/logstream").await, 404);
    assert_eq!(ask("mindwell-dev-api.scm.localhost", "/nothing").await, 404);
    assert_eq!(ask("mindwell-dev-api.scm.localhost", "/api/logs/docker").await, 200);
}

#[tokio::test]
async fn the_log_files_are_listed_shown_and_packed() {
    let sandbox = running(0).await;
    let site = serve(sandbox.vendors.app_service.clone().router()).await;
    let token = sandbox.vendors.sign_in.token_for("https://appservice.azure.com/.default");
    let ask = async |path: &str| {
        let request = site.request("GET", path).header("host", "mindwell-dev-api.scm.localhost");
        answer(request.bearer_auth(&token)).await.expect(200)
    };
    let listed = ask("/api/logs/docker").await.body[0].clone();
    let (_, path) = listed["href"].as_str().unwrap().split_once("scm.localhost:8445").unwrap();
    assert!(ask(path).await.text.contains("started long ago\n"));
    for path in ["/dump", "/api/dump", "/api/logs/docker/zip"] {
        let archive = ask(path).await;
        assert_eq!(archive.header("content-type"), "application/zip");
        assert!(archive.text.starts_with("PK") && archive.text.contains("started long ago\n"));
    }
}

#[tokio::test]
async fn publishing_credentials_open_the_scm_site_only_where_the_policy_allows_it() {
    let sandbox = running(0).await;
    let list = format!("{APP}/config/publishingcredentials/list");
    let shown = sandbox.arm("POST", &list, None).await.expect(200).body["properties"].clone();
    assert_eq!(shown["publishingUserName"], "$mindwell-dev-api");
    let password = shown["publishingPassword"].as_str().unwrap();
    let site = serve(sandbox.vendors.app_service.clone().router()).await;
    let ask = async |password: &str| {
        let request =
            site.request("GET", "/api/logs/docker").header("host", "mindwell-dev-api.scm.localhost");
        answer(request.basic_auth("$mindwell-dev-api", Some(password))).await.status
    };
    assert_eq!(ask(password).await, 401);
    sandbox.set("app_service", "basic_auth", json!(true));
    assert_eq!(ask(password).await, 200);
    assert_eq!(ask("another").await, 401);
    let profile = sandbox.arm("POST", &format!("{APP}/publishxml"), None).await.expect(200);
    assert!(profile.text.contains(password));
    // Another site's and a slot's are their own.
    sandbox.set("app_service", "slot", json!("blue"));
    let slots = format!("{APP}/slots/blue/config/publishingcredentials/list");
    let slots = sandbox.arm("POST", &slots, None).await.expect(200).body["properties"].clone();
    assert_eq!(slots["publishingUserName"], "$mindwell-dev-api__blue");
    assert_ne!(slots["publishingPassword"], password);
}

#[tokio::test]
async fn starts_take_their_time() {
    let latency = Latency { operation: Duration::ZERO, app_start: Duration::from_secs(2) };
    let sandbox = Sandbox::with(latency, "ghp_test");
    let begun = tokio::time::Instant::now();
    sandbox.vendors.app_service.start_all().await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let mut after = settings(&sandbox).await;
    after["LOG_LEVEL"] = json!("debug");
    put(&sandbox, &after).await.expect(200);
    assert_eq!(starts(&sandbox), 1, "the restart is asynchronous");
    let path = format!("{APP}/config/appsettings/list");
    let ask = async || sandbox.arm("POST", &path, None).await;
    until(ask, |_| starts(&sandbox) == 2).await;
}
