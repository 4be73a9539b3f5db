//! Starts the real thing: what `up` promises is there when it is ready, faults hit, and nothing is left afterwards.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

mod sandbox;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::sandbox::{Sandbox, azure_client, descendants, gone_within, login, plaintext_login, program};

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn every_copy_holds_the_password_that_the_server_takes() {
    let sandbox = Sandbox::up(&["--env", "dev,staging"]).await;
    let state = sandbox.state().await;
    let names: Vec<&String> = state.as_object().unwrap().keys().collect();
    assert_eq!(names, ["dev", "staging"]);
    for environment in ["dev", "staging"] {
        let state = &state[environment];
        let password = state["postgres"]["password"].as_str().unwrap();
        let port = state["postgres"]["port"].as_u64().unwrap();
        login(&sandbox, port, password).await.unwrap();
        let url = format!(
            "postgresql+asyncpg://mindwelladmin:{password}@localhost:{port}/mindwell_app?sslmode=require"
        );
        let upper = environment.to_uppercase();
        for (id, value) in [
            (format!("onepassword:MindWell {environment} Postgres Admin"), password),
            ("azure_key_vault:postgres-admin-password".into(), password),
            ("azure_key_vault:database-url".into(), &url),
            ("azure_app_service:DATABASE_URL".into(), &url),
            (format!("github_actions:{upper}_DATABASE_URL"), &url),
            (format!("github_actions:{upper}_POSTGRES_ADMIN_PASSWORD"), password),
            (format!("env_file:{environment}.env"), &url),
            (format!("aws_secrets_manager:mindwell/{environment}/postgres/admin-password"), password),
        ] {
            let copy = &state["copies"][&id];
            assert_eq!(copy["value"].as_str(), Some(value), "{id} of {environment}");
            assert!(copy["versions"].as_u64().unwrap() >= 1, "{id} of {environment}");
            assert!(!copy["version"].as_str().unwrap().is_empty(), "{id} of {environment}");
        }
        assert_eq!(state["copies"].as_object().unwrap().len(), 8, "the runbook's copies and nothing else");
        assert_eq!(state["app"]["starts"], 1);
        assert_eq!((&state["messages"], &state["comments"]), (&json!([]), &json!([])));
        assert_eq!(sandbox.health(state).await, 200);
    }
    let passwords: Vec<&Value> = names.iter().map(|name| &state[*name]["postgres"]["password"]).collect();
    assert_ne!(passwords[0], passwords[1], "each environment has a password of its own");
}

#[tokio::test]
async fn the_server_is_as_strict_as_azures() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let state = sandbox.state().await;
    let password = state["dev"]["postgres"]["password"].as_str().unwrap();
    let port = state["dev"]["postgres"]["port"].as_u64().unwrap();
    let admin = login(&sandbox, port, password).await.unwrap();
    let row = admin
        .query_one(
            "select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1), row.get::<_, bool>(2)), (false, true, true));
    let owner: String = admin
        .query_one(
            "select pg_get_userbyid(datdba)::text from pg_database where datname = 'mindwell_app'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(owner, "mindwelladmin");
    let wrong = login(&sandbox, port, "not-the-password").await.unwrap_err();
    assert_eq!(wrong.code(), Some(&SqlState::INVALID_PASSWORD));
    let plaintext = plaintext_login(port, password).await.unwrap_err();
    assert_eq!(plaintext.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "no TLS, no entry");
}

#[tokio::test]
async fn a_change_by_the_resource_manager_flips_the_login_and_leaves_no_password_behind() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let state = sandbox.state().await;
    let old = state["dev"]["postgres"]["password"].as_str().unwrap().to_owned();
    let port = state["dev"]["postgres"]["port"].as_u64().unwrap();
    let new = "Canary0Canary0Canary0Canary0Cana";
    let azure = azure_client(&sandbox).await;
    azure.change_password(new).await;

    login(&sandbox, port, new).await.unwrap();
    let refused = login(&sandbox, port, &old).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
    assert_eq!(sandbox.state().await["dev"]["postgres"]["password"], new);
    // Health opens a fresh connection with the URL that the application was started with.
    assert_eq!(sandbox.health(&state["dev"]).await, 503);

    let requests = sandbox.get("/_sandbox/requests").await;
    let patch = requests.as_array().unwrap().iter().find(|request| request["method"] == "PATCH").unwrap();
    assert_eq!((&patch["system"], &patch["status"]), (&json!("resource_manager"), &json!(202)));
    for log in ["logs/postgres-dev.log", "logs/app-dev.log", "logs/moto.log"] {
        let text = std::fs::read_to_string(sandbox.folder().join(log)).unwrap();
        assert!(!text.contains(new) && !text.contains(&old), "{log} holds a password");
    }
    let text = requests.to_string();
    assert!(!text.contains(new) && !text.contains(&old), "the record holds a password");
    assert!(
        std::fs::read_to_string(sandbox.folder().join("logs/app-dev.log"))
            .unwrap()
            .contains("InvalidPassword")
    );
}

#[tokio::test]
async fn an_application_restarts_with_its_new_settings_and_its_log_streams() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let azure = azure_client(&sandbox).await;
    let state = sandbox.state().await["dev"].take();
    let old = state["postgres"]["password"].as_str().unwrap();
    let new = "Restart0Restart0Restart0";
    azure.change_password(new).await;
    let mut settings = azure.app_settings().await;
    let url = settings["DATABASE_URL"].as_str().unwrap().replace(old, new);
    settings["DATABASE_URL"] = json!(url);
    azure.put_app_settings(&settings).await;

    let deadline = Instant::now() + Duration::from_secs(30);
    while sandbox.state().await["dev"]["app"]["starts"] != 2 {
        assert!(Instant::now() < deadline, "the application is not started again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sandbox.health(&state).await, 200);
    assert_eq!(sandbox.state().await["dev"]["copies"]["azure_app_service:DATABASE_URL"]["value"], json!(url));
    let log = azure.log_until("Uvicorn running").await;
    let line = log.lines().find(|line| line.contains("Context impl PostgresqlImpl")).unwrap();
    // As Azure's Linux stream: the time first, with nine decimals.
    let (time, _) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), &time[10..11], &time[19..20], &time[29..]), (30, "T", ".", "Z"), "{line}");
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
}

/// Changes a setting of the application and asks it on and on until it has started again: how often it answered with
/// which status.
async fn asked_over_a_restart(sandbox: &Sandbox, name: &str, value: &str) -> BTreeMap<u16, usize> {
    let azure = azure_client(sandbox).await;
    let state = sandbox.state().await["dev"].take();
    let starts = state["app"]["starts"].as_u64();
    let mut settings = azure.app_settings().await;
    settings[name] = json!(value);
    azure.put_app_settings(&settings).await;
    let mut answers = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while sandbox.state().await["dev"]["app"]["starts"].as_u64() == starts {
        assert!(Instant::now() < deadline, "the application is not started again");
        // Several at once, so that one is always under way.
        for status in futures::future::join_all((0..3).map(|_| sandbox.health(&state))).await {
            *answers.entry(status).or_default() += 1;
        }
    }
    answers
}

#[tokio::test]
async fn no_request_fails_over_a_restart_unless_overlapping_is_switched_off() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let overlapped = asked_over_a_restart(&sandbox, "LOG_LEVEL", "debug").await;
    assert_eq!(overlapped.keys().collect::<Vec<_>>(), [&200], "{overlapped:?}");
    assert!(overlapped[&200] >= 15, "{overlapped:?}");

    let apart = asked_over_a_restart(&sandbox, "WEBSITE_DISABLE_OVERLAPPED_RECYCLING", "1").await;
    assert!(apart.contains_key(&503), "{apart:?}");
    assert_eq!(sandbox.health(&sandbox.state().await["dev"]).await, 200);
}

#[tokio::test]
async fn an_instance_that_does_not_come_up_leaves_nobody_to_serve_until_the_next_start() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let state = sandbox.state().await["dev"].take();
    let url = state["copies"]["azure_app_service:DATABASE_URL"]["value"].as_str().unwrap();
    let answers = asked_over_a_restart(&sandbox, "DATABASE_URL", "no URL").await;
    assert!(answers.keys().all(|status| [200, 503].contains(status)), "{answers:?}");
    assert_eq!(sandbox.health(&state).await, 503);
    asked_over_a_restart(&sandbox, "DATABASE_URL", url).await;
    assert_eq!(sandbox.health(&state).await, 200);
}

#[tokio::test]
async fn each_kind_of_fault_hits_as_it_was_set() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let azure = azure_client(&sandbox).await;
    let secret = "postgres-admin-password";
    let versions = async || {
        sandbox.state().await["dev"]["copies"][format!("azure_key_vault:{secret}")]["versions"]
            .as_u64()
            .unwrap()
    };

    // The vendor never sees the request.
    sandbox.fault(json!({"method": "PUT", "path_contains": secret, "when": "before", "kind": "drop"})).await;
    assert!(azure.put_secret(secret, "one").await.is_err());
    assert_eq!(versions().await, 1);
    assert_eq!(azure.put_secret(secret, "one").await.unwrap().status(), 200, "it hits once");
    assert_eq!(versions().await, 2);

    // The effect has happened, and the caller can't know.
    sandbox.fault(json!({"path_contains": secret, "nth": 2, "when": "after", "kind": "drop"})).await;
    assert_eq!(azure.put_secret(secret, "two").await.unwrap().status(), 200);
    assert!(azure.put_secret(secret, "three").await.is_err());
    assert_eq!(versions().await, 4);

    let throttled = json!({"path_contains": secret, "when": "before", "kind": "status", "status": 429,
        "retry_after_s": 3, "times": 2});
    sandbox.fault(throttled).await;
    for _ in 0..2 {
        let answer = azure.put_secret(secret, "four").await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"].to_str().unwrap()),
            (429, &"3")
        );
    }
    assert_eq!(versions().await, 4);

    sandbox.fault(json!({"path_contains": secret, "when": "after", "kind": "delay", "delay_ms": 300})).await;
    let asked = Instant::now();
    assert_eq!(azure.put_secret(secret, "five").await.unwrap().status(), 200);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!(versions().await, 5);
}

#[tokio::test]
async fn a_held_request_waits_for_the_deletion_of_the_faults() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let azure = azure_client(&sandbox).await;
    sandbox.fault(json!({"method": "PUT", "when": "before", "kind": "hold"})).await;
    let held = tokio::spawn(async move { azure.put_secret("database-url", "held").await.unwrap().status() });
    let request = sandbox.wait_for_request(|request| request["method"] == "PUT").await;
    assert_eq!((&request["status"], &request["fault"]), (&Value::Null, &json!("hold")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!held.is_finished());
    assert_eq!(sandbox.state().await["dev"]["copies"]["azure_key_vault:database-url"]["versions"], 1);
    sandbox.clear_faults().await;
    assert_eq!(held.await.unwrap(), 200);
    let request = sandbox.wait_for_request(|request| request["method"] == "PUT").await;
    assert_eq!(request["status"], 200);
}

#[tokio::test]
async fn a_caller_that_dies_while_it_is_held_changes_nothing() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let azure = azure_client(&sandbox).await;
    sandbox.fault(json!({"method": "PUT", "when": "before", "kind": "hold"})).await;
    let held = tokio::spawn(async move { azure.put_secret("database-url", "held").await });
    sandbox.wait_for_request(|request| request["method"] == "PUT").await;
    held.abort();
    sandbox.wait_for_request(|request| request["abandoned"] == true).await;
    sandbox.clear_faults().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sandbox.state().await["dev"]["copies"]["azure_key_vault:database-url"]["versions"], 1);
}

#[tokio::test]
async fn a_late_request_arrives_after_its_callers_death() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    let azure = azure_client(&sandbox).await;
    let versions =
        async || sandbox.state().await["dev"]["copies"]["azure_key_vault:database-url"]["versions"].clone();
    sandbox.fault(json!({"method": "PUT", "when": "before", "kind": "hold", "late": true})).await;
    let held = tokio::spawn(async move { azure.put_secret("database-url", "held").await });
    sandbox.wait_for_request(|request| request["held"] == true).await;
    held.abort();
    sandbox.wait_for_request(|request| request["abandoned"] == true && request["held"] == true).await;
    assert_eq!(versions().await, 1);
    sandbox.clear_faults().await;
    sandbox.wait_for_request(|request| request["abandoned"] == true && request["held"].is_null()).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while versions().await != 2 {
        assert!(Instant::now() < deadline, "it never arrived");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let last = sandbox.get("/_sandbox/requests").await.as_array().unwrap().last().unwrap()["seq"].clone();
    let after = sandbox.get(&format!("/_sandbox/requests?after={last}")).await;
    assert_eq!(after, json!([]), "nothing has come since");
}

#[tokio::test]
async fn typical_latency_is_felt() {
    let sandbox = Sandbox::up(&["--env", "dev", "--latency", "typical"]).await;
    let azure = azure_client(&sandbox).await;
    let asked = Instant::now();
    azure.change_password("Typical0Typical0Typical0").await;
    assert!(asked.elapsed() >= Duration::from_secs(5), "the operation took {:?}", asked.elapsed());
    for request in sandbox.get("/_sandbox/requests").await.as_array().unwrap() {
        assert!(request["latency_ms"].as_u64().unwrap() >= 100, "{request}");
    }
}

#[tokio::test]
async fn a_fault_that_makes_no_sense_is_refused() {
    let sandbox = Sandbox::up(&["--env", "dev"]).await;
    for fault in
        [json!({"when": "before", "kind": "status"}), json!({"kind": "drop"}), json!({"when": "never"})]
    {
        let answer = sandbox.try_fault(&fault).await;
        assert_eq!(answer.status(), 400, "{fault}");
    }
    assert_eq!(sandbox.get("/_sandbox/faults").await, json!([]));
}

#[tokio::test]
async fn aws_is_recorded_and_can_fail_like_the_others() {
    let sandbox = Sandbox::up(&["--env", "dev", "--record-bodies"]).await;
    let endpoint = sandbox.config()["aws"]["endpoint"].as_str().unwrap().to_owned();
    let describe = async || {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        http.post(&endpoint)
            .header("x-amz-target", "secretsmanager.DescribeSecret")
            .header("content-type", "application/x-amz-json-1.1")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=a/20260101/eu-central-1/secretsmanager/aws4_request",
            )
            .body(json!({"SecretId": "mindwell/dev/postgres/admin-password"}).to_string())
            .send()
            .await
    };
    let answer: Value = describe().await.unwrap().json().await.unwrap();
    assert_eq!(answer["Name"], "mindwell/dev/postgres/admin-password");
    sandbox.fault(json!({"path_contains": "DescribeSecret", "when": "before", "kind": "drop"})).await;
    assert!(describe().await.is_err());
    let request = sandbox.wait_for_request(|request| request["system"] == "aws").await;
    assert_eq!((&request["operation"], &request["path"]), (&json!("DescribeSecret"), &json!("/")));
    let recording = sandbox.get("/_sandbox/recording").await.to_string();
    assert!(recording.contains("admin-password") && !recording.contains("Credential="), "{recording}");
}

#[tokio::test]
async fn nothing_is_left_after_sigterm() {
    let mut sandbox = Sandbox::up(&["--env", "dev"]).await;
    let traces = sandbox.traces();
    assert!(traces.processes.len() >= 4, "guard, PostgreSQL, application, moto: {:?}", traces.processes);
    sandbox.signal("TERM");
    assert!(sandbox.wait().success());
    // At once: an orderly end waits for its children.
    assert_eq!(traces.left(), Vec::<String>::new());
    let kept = sandbox.folder().join("pgrotate.toml");
    assert!(kept.exists(), "the user's folder stays");
}

#[tokio::test]
async fn nothing_is_left_after_sigkill() {
    let mut sandbox = Sandbox::up(&["--env", "dev"]).await;
    let traces = sandbox.traces();
    sandbox.signal("KILL");
    sandbox.wait();
    assert_eq!(gone_within(GRACE, || traces.left()).await, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_left_when_the_parent_dies() {
    let mut sandbox = Sandbox::up_below_a_shell(&["--env", "dev"]).await;
    let traces = sandbox.traces();
    let below = descendants(sandbox.pid());
    assert!(below.len() > 4, "the shell's child is the sandbox: {below:?}");
    sandbox.signal("KILL");
    sandbox.wait();
    assert_eq!(gone_within(GRACE, || traces.left()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_start_that_is_interrupted_leaves_nothing() {
    let mut sandbox = Sandbox::begin(&["--env", "dev"]);
    let scratch = sandbox.wait_for_scratch().await;
    let traces = sandbox.traces();
    sandbox.signal("TERM");
    sandbox.wait();
    assert_eq!(gone_within(GRACE, || traces.left()).await, Vec::<String>::new());
    assert!(!Path::new(&scratch).exists());
}

#[test]
fn a_folder_of_somebody_elses_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    let output = program().arg("up").arg("--dir").arg(folder.path()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("is not empty, and no sandbox has made it"), "{text}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.txt"]);
    assert!(output.stdout.is_empty());
}

#[test]
fn an_unknown_environment_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let output = program().args(["up", "--env", "qa", "--dir"]).arg(folder.path()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "error: there is no environment qa; the example has dev, prod, staging\n");
}
