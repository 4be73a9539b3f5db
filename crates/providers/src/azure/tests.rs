//! Signing in once, and what happens to calls on their way.

use std::sync::atomic::{AtomicUsize, Ordering};

use pgrotate_core::Retry;
use serde_json::json;

use super::testing::{Fake, reply};
use super::*;

fn url(account: &Account) -> Url {
    below(&account.resource("sub", "rg", &["Microsoft.Web", "sites", "api"]), &[], "1")
}

#[tokio::test]
async fn providers_that_start_together_sign_in_once() {
    let fake = Fake::start(|_| reply(200, json!({}))).await;
    let shared = fake.shared();
    let calls = (0..8).map(|_| async {
        let account = account(&shared).unwrap();
        account.send(Call::get(url(&account)), "look").await
    });
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let again = account(&shared).unwrap();
    assert_eq!(again.scm_authorization().await.unwrap().as_str(), "Bearer token-2");
    let arm = format!("https://localhost:{}/.default", fake.port);
    assert_eq!(fake.tokens(), [arm.as_str(), "https://appservice.azure.com/.default"]);
    let seen = fake.seen();
    assert!(seen.iter().all(|seen| seen.authorization == "Bearer token-1" && seen.query == "api-version=1"));
}

/// What one environment's connections have read goes with it.
#[tokio::test]
async fn environments_share_the_sign_in_and_no_connection() {
    let fake = Fake::start(|_| reply(200, json!({}))).await;
    let first = fake.shared();
    let second = Shared { azure: first.azure.clone(), ..Arc::into_inner(fake.shared()).unwrap() };
    let (one, other) = (account(&first).unwrap(), account(&second).unwrap());
    assert!(!Arc::ptr_eq(&one, &other) && Arc::ptr_eq(&one, &account(&first).unwrap()));
    for account in [&one, &other] {
        account.send(Call::get(url(account)), "look").await.unwrap();
    }
    assert_eq!((fake.tokens().len(), fake.seen().len()), (1, 2));
    let alive = Arc::downgrade(&one);
    drop((one, first));
    assert!(alive.upgrade().is_none(), "the account outlives its environment");
}

#[tokio::test]
async fn a_token_that_is_no_longer_accepted_is_replaced_once() {
    let fake = Fake::start(|seen| match seen.authorization.as_str() {
        "Bearer token-1" => reply(401, json!({"error": {"code": "ExpiredAuthenticationToken"}})),
        _ => reply(200, json!({})),
    })
    .await;
    let account = account(&fake.shared()).unwrap();
    account.send(Call::put(url(&account), Zeroizing::new(b"{}".to_vec())), "change").await.unwrap();
    assert_eq!(fake.tokens().len(), 2);
    assert_eq!(fake.seen().len(), 2);

    let never = Fake::start(|_| reply(401, json!({}))).await;
    let account = super::account(&never.shared()).unwrap();
    let error = account.send(Call::get(url(&account)), "look").await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert_eq!(never.seen().len(), 2);
}

#[tokio::test]
async fn nothing_is_replayed_by_the_pipeline() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let fake = Fake::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        reply(503, json!({"error": {"code": "ServiceUnavailable", "message": "hunter2"}}))
    })
    .await;
    let account = account(&fake.shared()).unwrap();
    let call = Call::patch(url(&account), Zeroizing::new(b"{\"p\":\"hunter2\"}".to_vec()));
    let error = account.send(call, "change the server").await.err().unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(error.retry(), Retry::Unknown, "a fault inside Azure may come after the effect");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_client_secret_is_said_without_azures_text() {
    let fake = Fake::start(|_| reply(200, json!({}))).await;
    let shared = fake.shared_with(fake.shared().clock.clone(), "AZURE_CLIENT_SECRET=wrong\n");
    let account = account(&shared).unwrap();
    let error = account.send(Call::get(url(&account)), "read the server").await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert_eq!(error.retry(), Retry::Never);
    let shown = format!("{error} {:?}", error.hints());
    assert!(shown.contains("AADSTS7000215") && shown.contains("AZURE_CLIENT_SECRET"), "{shown}");
    assert!(!shown.contains("hunter2") && fake.seen().is_empty());
}

#[tokio::test]
async fn a_service_that_is_not_there_can_be_tried_again() {
    let fake = Fake::start(|_| reply(200, json!({}))).await;
    let mut shared = Arc::into_inner(fake.shared()).unwrap();
    shared.vendors.azure.resource_manager = "https://localhost:1".into();
    let account = account(&shared).unwrap();
    let call = Call::post(url(&account));
    let error = account.send(call, "restart the app").await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(error.retry(), Retry::Later { after_ms: None }, "no connection, so nothing was sent");
}

#[tokio::test]
async fn tokens_go_to_the_resource_manager_alone() {
    let fake = Fake::start(|_| reply(200, json!({}))).await;
    let account = account(&fake.shared()).unwrap();
    let vouched = |text: &str| account.vouches_for(&Url::parse(text).unwrap());
    assert!(vouched("https://localhost:1/subscriptions/x?t=1"));
    assert!(vouched("https://127.0.0.1/x"));
    assert!(!vouched("http://localhost/x"));
    assert!(!vouched("https://management.azure.com.evil.example/x"));
    let mut shared = Arc::into_inner(fake.shared()).unwrap();
    shared.vendors.azure.resource_manager = "https://management.azure.com".into();
    let account = super::account(&shared).unwrap();
    let vouched = |text: &str| account.vouches_for(&Url::parse(text).unwrap());
    assert!(
        vouched("https://management.azure.com/x") && vouched("https://westeurope.management.azure.com/x")
    );
    assert!(!vouched("https://localhost/x") && !vouched("https://evilmanagement.azure.com/x"));
}

#[tokio::test]
async fn vaults_are_reached_over_tls_and_share_a_client() {
    let fake = Fake::start(|_| reply(200, json!({}))).await;
    let account = account(&fake.shared()).unwrap();
    assert!(account.secrets("http://kv.vault.localhost").is_err());
    let once = account.secrets("https://kv.vault.localhost").unwrap();
    assert!(Arc::ptr_eq(&once, &account.secrets("https://kv.vault.localhost").unwrap()));
    // Only these may ask for a token of another domain than their own.
    let local = |text: &str| is_loopback(&Url::parse(text).unwrap());
    assert!(local("https://kv.vault.localhost:1") && local("https://[::1]"));
    assert!(!local("https://kv.vault.azure.net") && !local("https://localhost.example"));
}

#[test]
fn names_are_single_segments() {
    assert!(checked_name("app", "mindwell-dev-api").is_ok());
    for name in ["", "..", ".", "a/b", "a?b", "a b", "kv.example/"] {
        assert!(checked_name("app", name).is_err(), "{name}");
    }
}
