//! Against a server in this process that gives tokens as GitHub documents it.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use pgrotate_core::Retry;
use serde_json::json;

use super::*;
use crate::fake::{Call, Fake, Reply, shared};
use crate::github::testing::key;
use crate::shared::{GithubSettings, Vendors};

fn api(url: &str, installation_id: Option<u64>) -> Api {
    let github = GithubSettings { api: url.to_owned(), app_id: Some("123".into()), installation_id };
    let key = format!("GH_TOKEN=unused\nGITHUB_APP_PRIVATE_KEY={}\n", key().replace('\n', "\\n"));
    Api::new(&shared(Vendors { github, ..Vendors::default() }, &key)).unwrap()
}

/// GitHub with installation 7, whose tokens are counted and good for so many seconds.
fn github(call: &Call, made: &AtomicU64, seconds: i64) -> Reply {
    let proof = call.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    match call.line().as_str() {
        "GET /repos/o/r/installation" | "GET /orgs/o/installation" => {
            assert_eq!(proof.split('.').count(), 3);
            Reply::json(200, &json!({"id": 7, "account": {"login": "o"}}))
        }
        "POST /app/installations/7/access_tokens" => {
            assert_eq!(proof.split('.').count(), 3);
            let number = made.fetch_add(1, Ordering::SeqCst) + 1;
            // The clock of these tests stands still.
            let expires_at = Timestamp::from_second(1_767_225_600 + seconds).unwrap();
            let permissions = json!({"secrets": "write", "metadata": "read", "actions": "read"});
            let granted = json!({"token": format!("ghs_{number}"), "expires_at": expires_at, "permissions": permissions});
            Reply::json(201, &granted)
        }
        _ => Reply::json(200, &json!({"token": proof})),
    }
}

async fn started(seconds: i64) -> Fake {
    let made = AtomicU64::new(0);
    Fake::start(move |call| github(call, &made, seconds)).await
}

#[tokio::test]
async fn one_token_serves_all_of_an_owners_and_tells_its_permissions() {
    let fake = started(3600).await;
    let (one, two) = (api(&fake.url, None), api(&fake.url, None));
    let (first, second) = futures::join!(
        one.get(&["repos", "o", "r"], &[], "look"),
        two.get(&["orgs", "O", "actions", "secrets"], &[], "look")
    );
    let answer = first.unwrap();
    assert_eq!((answer.text("token"), second.unwrap().text("token")), (Some("ghs_1"), Some("ghs_1")));
    assert_eq!(answer.may_write("secrets"), Some(true));
    assert_eq!(answer.may_write("actions"), Some(false), "to read is not to write");
    assert_eq!(answer.may_write("environments"), Some(false));
    let lines = fake.take_lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].ends_with("/installation") && lines[1].ends_with("/access_tokens"), "{lines:?}");
}

#[tokio::test]
async fn a_token_about_to_end_is_made_anew_without_another_look_up() {
    let fake = started(290).await;
    let api = api(&fake.url, None);
    for token in ["ghs_1", "ghs_2"] {
        let answer = api.get(&["repos", "o", "r"], &[], "look").await.unwrap();
        assert_eq!(answer.text("token"), Some(token));
    }
    let look_ups = fake.take_lines().iter().filter(|line| line.ends_with("/installation")).count();
    assert_eq!(look_ups, 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let made = AtomicU64::new(0);
    let fake = Fake::start(move |call| match call.header("authorization") {
        Some("Bearer ghs_1") => Reply::empty(401),
        _ => github(call, &made, 3600),
    })
    .await;
    let one = api(&fake.url, Some(7));
    let body = json!({"value": 1});
    let answer = one.write(Method::PUT, &["repos", "o", "r", "x"], &body, "write").await.unwrap();
    assert_eq!(answer.text("token"), Some("ghs_2"));
    let bodies: Vec<String> =
        fake.calls().into_iter().filter(|call| call.method == "PUT").map(|call| call.body).collect();
    assert_eq!(bodies, [r#"{"value":1}"#, r#"{"value":1}"#]);

    let made = AtomicU64::new(0);
    let never = Fake::start(move |call| match call.method.as_str() {
        "GET" => Reply::empty(401),
        _ => github(call, &made, 3600),
    })
    .await;
    let error = api(&never.url, Some(7)).get(&["repos", "o", "r"], &[], "look").await.unwrap_err();
    assert!(error.to_string().contains("just given to the App"), "{error}");
    assert_eq!(never.take_lines().iter().filter(|line| line.starts_with("GET")).count(), 2);
}

#[tokio::test]
async fn what_stops_an_app_is_said() {
    for (status, message, installation_id, said, hint) in [
        (401, "A JSON web token could not be decoded", None, "App's proof", "private key"),
        (
            401,
            "'Expiration time' claim ('exp') is too far in the future",
            None,
            "too old or too early",
            "clock",
        ),
        (404, "Integration not found", None, "no such App", "app_id"),
        (404, "Not Found", None, "not installed on o/r", "Install App"),
        (404, "Not Found", Some(9), "no such installation", "installation_id"),
        (403, "This installation has been suspended", Some(9), "suspended", "settings"),
    ] {
        let fake =
            Fake::start(move |_| Reply::json(status, &json!({"message": format!("{message} hunter2")})))
                .await;
        let error = api(&fake.url, installation_id).get(&["repos", "o", "r"], &[], "look").await.unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
        assert!(error.hints().join(" ").contains(hint), "{hint}: {error:?}");
        assert_eq!(error.retry(), Retry::Never, "{said}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let fake = Fake::start(|_| Reply::empty(502)).await;
    let error = api(&fake.url, None).get(&["repos", "o", "r"], &[], "look").await.unwrap_err();
    assert_eq!(error.retry(), Retry::Later { after_ms: None });
    let error = api(&fake.url, None).get(&["user"], &[], "look").await.unwrap_err();
    assert!(error.hints()[0].contains("installation_id"), "{error:?}");
}

#[tokio::test]
async fn a_permission_that_an_installation_lacks_stops_a_check_and_is_named() {
    use crate::github_actions::{GithubActions, Options};
    use pgrotate_core::provider::{Severity, Sink as _};
    let cases = [
        (json!({"repository": "o/r", "secret": "X"}), "secrets", "\"Secrets: write\""),
        (
            json!({"repository": "o/r", "environment": "dev", "secret": "X"}),
            "environments",
            "\"Environments: write\"",
        ),
        (
            json!({"organization": "o", "secret": "X"}),
            "organization_secrets",
            "\"organisation Secrets: write\"",
        ),
    ];
    for (options, permission, named) in cases {
        for held in ["read", "write"] {
            let fake = Fake::start(move |call| match call.method.as_str() {
                "POST" => {
                    let granted = json!({"token": "ghs_1", "expires_at": "2026-01-01T01:00:00Z",
                        "permissions": {permission: held}});
                    Reply::json(201, &granted)
                }
                _ => Reply::json(200, &json!({"permissions": {"push": false}})),
            })
            .await;
            let options: Options = serde_json::from_value(options.clone()).unwrap();
            let shared = Arc::clone(&api(&fake.url, Some(7)).shared);
            let inspection = GithubActions::new(None, options, shared).unwrap().check().await.unwrap();
            let blocks: Vec<&str> = inspection
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Blocks)
                .map(|finding| finding.what.as_str())
                .collect();
            match held {
                "read" => assert!(blocks.len() == 1 && blocks[0].contains(named), "{blocks:?}"),
                _ => assert_eq!(blocks, [""; 0], "{permission}"),
            }
        }
    }
}
