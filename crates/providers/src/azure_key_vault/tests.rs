//! One test for each quirk of Key Vault.

use axum::response::Response;
use pgrotate_core::Retry;
use pgrotate_core::journal::Effect as Did;
use serde_json::{Value, json};

use super::*;
use crate::azure::testing::{Fake, Seen as Request, Wanted, empty, refusal, reply, run, with_header};

const OLD: &str = "postgresql+psycopg://admin:old@db:5432/app?x=1";
const NEW: &str = "postgresql+psycopg://admin:n%2Fw@db:5432/app?x=1";

fn copy(fake: &Fake) -> Copy {
    let options = Options {
        vault: "kv-test".into(),
        secret: "database-url".into(),
        subscription: None,
        resource_group: None,
    };
    Copy::new(None, options, fake.shared()).unwrap()
}

fn id(version: &str, port: &str) -> String {
    format!("https://kv-test.vault.localhost:{port}/secrets/database-url/{version}")
}

fn port(request: &Request) -> String {
    request.host.rsplit(':').next().unwrap().to_owned()
}

fn bundle(request: &Request, version: &str, value: &str) -> Value {
    json!({
        "value": value,
        "id": id(version, &port(request)),
        "contentType": "text/plain",
        "attributes": {"enabled": true, "created": 1_690_000_000, "updated": 1_690_000_001, "recoveryLevel": "Recoverable"},
        "tags": {"owner": "platform"},
    })
}

fn challenge() -> Response {
    let header = r#"Bearer authorization="https://login.localhost/t", resource="https://vault.azure.net""#;
    with_header(
        refusal(401, "Unauthorized", "AKV10000: Request is missing a token"),
        "www-authenticate",
        header,
    )
}

fn inner(status: u16, code: &str, inner: &str) -> Response {
    let message = "Caller hunter2\r\nAction: 'Microsoft.KeyVault/vaults/secrets/setSecret/action'\r\nAssignment: (not found)";
    reply(status, json!({"error": {"code": code, "message": message, "innererror": {"code": inner}}}))
}

/// A vault that challenges and then answers as told.
async fn vault(mut answer: impl FnMut(&Request) -> Response + Send + 'static) -> Fake {
    Fake::start(move |request| if request.authorization.is_empty() { challenge() } else { answer(request) })
        .await
}

/// A vault with one secret that can be read and written.
async fn working() -> Fake {
    let mut value = OLD.to_owned();
    let mut version = 1;
    vault(move |request| {
        if request.method == "PUT" {
            value = request.json()["value"].as_str().unwrap().to_owned();
            version += 1;
        }
        reply(200, bundle(request, &format!("v{version}"), &value))
    })
    .await
}

#[tokio::test]
async fn a_new_version_keeps_everything_but_the_value() {
    let fake = working().await;
    let copy = copy(&fake);
    let wanted = Wanted::new(copy.id(), "{database_url}", "n/w");
    let outcome = copy.publish(&wanted.update()).await.unwrap();
    assert_eq!(outcome.effect, Did::Changed);
    assert_eq!(outcome.version, Some(VersionId::new(id("v2", &fake.port.to_string()))));
    let put = fake.seen().into_iter().find(|request| request.method == "PUT").unwrap();
    let expected = json!({
        "value": NEW,
        "contentType": "text/plain",
        "tags": {"owner": "platform", "pgrotate-run": run().to_string()},
    });
    assert_eq!(put.json(), expected);
    assert_eq!(fake.tokens(), ["https://vault.azure.net/.default"], "the vault says which audience it wants");
    // The challenge, then one read and one write.
    assert_eq!(
        fake.lines(),
        ["GET /secrets/database-url/", "GET /secrets/database-url/", "PUT /secrets/database-url"]
    );
    let again = copy.publish(&wanted.update()).await.unwrap();
    assert_eq!((again.effect, again.version), (Did::AlreadyDone, outcome.version));
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn a_lifetime_is_given_again() {
    let fake = vault(|request| {
        let mut body = bundle(request, "v1", if request.method == "PUT" { NEW } else { OLD });
        body["attributes"]["exp"] = json!(1_690_000_000 + 90 * 86_400);
        reply(200, body)
    })
    .await;
    let copy = copy(&fake);
    let wanted = Wanted::new(copy.id(), "{database_url}", "n/w");
    let outcome = copy.publish(&wanted.update()).await.unwrap();
    assert!(outcome.notes[0].contains("expires"), "{:?}", outcome.notes);
    let put = fake.seen().into_iter().find(|request| request.method == "PUT").unwrap();
    assert_eq!(put.json()["attributes"], json!({"exp": 1_700_000_000 + 90 * 86_400}));
}

#[tokio::test]
async fn a_lost_answer_is_never_replayed() {
    let fake =
        vault(
            |request| {
                if request.method == "PUT" { empty(503) } else { reply(200, bundle(request, "v1", OLD)) }
            },
        );
    let fake = fake.await;
    let copy = copy(&fake);
    let wanted = Wanted::new(copy.id(), "{password}", "hunter2");
    let error = copy.publish(&wanted.update()).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Unknown);
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("PUT")).count(), 1);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_the_vault_stored_must_be_what_was_sent() {
    let fake = vault(|request| reply(200, bundle(request, "v1", OLD))).await;
    let copy = copy(&fake);
    let wanted = Wanted::new(copy.id(), "{database_url}", "n/w");
    let error = copy.publish(&wanted.update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Corrupt, Retry::Unknown));
}

#[tokio::test]
async fn a_deleted_name_blocks_and_a_free_one_does_not() {
    for (deleted, severity) in [(200, Severity::Blocks), (404, Severity::Warning), (403, Severity::Unseen)] {
        let fake = vault(move |request| {
            if request.path.starts_with("/deletedsecrets/") {
                return if deleted == 200 {
                    reply(200, bundle(request, "v1", ""))
                } else {
                    refusal(deleted, "SecretNotFound", "")
                };
            }
            refusal(404, "SecretNotFound", "A secret with (name/id) was not found")
        })
        .await;
        let found = copy(&fake).check().await.unwrap();
        assert!(matches!(found.seen.content, Content::Absent));
        assert_eq!(found.findings[0].severity, severity, "{:?}", found.findings);
        if severity == Severity::Blocks {
            let mend = found.findings[0].mend.as_deref().unwrap();
            assert_eq!(mend, "az keyvault secret recover --vault-name kv-test --name database-url");
        }
    }
}

#[tokio::test]
async fn a_disabled_secret_is_left_alone() {
    let fake = vault(|_| inner(403, "Forbidden", "SecretDisabled")).await;
    let copy = copy(&fake);
    let found = copy.check().await.unwrap();
    assert_eq!(found.findings[0].severity, Severity::Blocks);
    let wanted = Wanted::new(copy.id(), "{password}", "n/w");
    assert_eq!(copy.publish(&wanted.update()).await.unwrap_err().kind(), Kind::BadState);
    assert!(fake.lines().iter().all(|line| line.starts_with("GET")));
}

#[tokio::test]
async fn each_refusal_says_what_helps() {
    for (status, outer, code, kind, helps) in [
        (403, "Forbidden", "ForbiddenByRbac", Kind::Forbidden, "Key Vault Secrets Officer"),
        (403, "Forbidden", "AccessDenied", Kind::Forbidden, "set-policy"),
        (403, "Forbidden", "ForbiddenByFirewall", Kind::Forbidden, "network-rule"),
        (409, "Conflict", "ObjectIsDeletedButRecoverable", Kind::BadState, "secret recover"),
    ] {
        let fake = vault(move |request| match request.method.as_str() {
            "PUT" => inner(status, outer, code),
            _ => refusal(404, "SecretNotFound", ""),
        })
        .await;
        let copy = copy(&fake);
        let wanted = Wanted::new(copy.id(), "{password}", "n/w");
        let error = copy.publish(&wanted.update()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Never), "{code}");
        assert!(error.hints().join(" ").contains(helps), "{code}: {:?}", error.hints());
        assert!(!format!("{error:?}").contains("hunter2"));
        if code == "ForbiddenByRbac" {
            assert!(error.to_string().contains("setSecret/action"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_name_that_is_still_coming_back_is_waited_for() {
    let fake = vault(|request| match request.method.as_str() {
        "PUT" => inner(409, "Conflict", "ObjectIsBeingRecovered"),
        _ => refusal(404, "SecretNotFound", ""),
    })
    .await;
    let copy = copy(&fake);
    let wanted = Wanted::new(copy.id(), "{password}", "n/w");
    let error = copy.publish(&wanted.update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Busy, Retry::Later { after_ms: Some(5000) }));
    let throttled = vault(|_| with_header(refusal(429, "Throttled", ""), "retry-after", "7")).await;
    let error = self::copy(&throttled).inspect().await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Throttled, Retry::Later { after_ms: Some(7000) }));
}

#[tokio::test]
async fn only_the_version_before_is_disabled() {
    let fake = working().await;
    let copy = copy(&fake);
    let port = fake.port.to_string();
    let outcome = copy.retire(&VersionId::new(id("v0", &port))).await.unwrap();
    assert_eq!(outcome.effect, Did::Changed);
    let patch = fake.seen().pop().unwrap();
    assert_eq!(
        (patch.line().as_str(), patch.json()),
        ("PATCH /secrets/database-url/v0", json!({"attributes": {"enabled": false}}))
    );

    let latest = copy.retire(&VersionId::new(id("v1", &port))).await.unwrap();
    assert_eq!(latest.effect, Did::Skipped);
    let foreign = id("v0", &port).replace("database-url", "smtp-password");
    assert_eq!(copy.retire(&VersionId::new(foreign)).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("PATCH")).count(), 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_at_the_next_try() {
    let fake = Fake::start(|request| match request.authorization.as_str() {
        "" | "Bearer token-1" => challenge(),
        _ => reply(200, bundle(request, "v1", OLD)),
    })
    .await;
    let copy = copy(&fake);
    let error = copy.inspect().await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unauthenticated, Retry::Later { after_ms: None }));
    let seen = copy.inspect().await.unwrap();
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new(OLD)));
    assert_eq!(seen.updated_at, Timestamp::from_second(1_690_000_001).ok());
}

#[tokio::test]
async fn the_right_to_write_is_called_unseen() {
    let found = copy(&working().await).check().await.unwrap();
    assert!(found.findings.iter().all(|finding| finding.severity == Severity::Unseen));
    assert!(found.findings[0].mend.as_deref().unwrap().contains("Secrets Officer"));
    assert!(found.seen.version.unwrap().as_str().ends_with("/secrets/database-url/v1"));
}

#[test]
fn names_cannot_lead_elsewhere() {
    for (vault, secret) in [("kv.evil", "s"), ("kv", "a/b"), ("", "s"), ("kv", "s?x"), ("kv@h", "s")] {
        assert!(plain_name("vault", vault, 24).is_err() || plain_name("secret", secret, 127).is_err());
    }
}

/// A vault as the resource manager has it, with what roles allow at it and at the secret.
async fn governed(
    properties: Value,
    at_vault: &'static [&'static str],
    at_secret: Option<&'static str>,
) -> Fake {
    vault(move |request| match request.path.rsplit("/providers/").next().unwrap() {
        "Microsoft.Authorization/permissions" if request.path.contains("/secrets/database-url/") => {
            match at_secret {
                Some(action) => reply(200, json!({"value": [{"dataActions": [action]}]})),
                None => refusal(404, "NotFound", ""),
            }
        }
        "Microsoft.Authorization/permissions" => {
            reply(200, json!({"value": [{"actions": ["*"], "dataActions": at_vault}]}))
        }
        "Microsoft.Authorization/denyAssignments" => reply(200, json!({"value": []})),
        "Microsoft.KeyVault/vaults/kv-test" => reply(200, json!({"properties": properties})),
        _ => reply(200, bundle(request, "v1", OLD)),
    })
    .await
}

fn governed_copy(fake: &Fake) -> Copy {
    let options =
        json!({"vault": "kv-test", "secret": "database-url", "subscription": "sub", "resource_group": "rg"});
    Copy::new(None, serde_json::from_value(options).unwrap(), fake.shared()).unwrap()
}

const READ: &str = "Microsoft.KeyVault/vaults/secrets/getSecret/action";
const WRITE: &str = "Microsoft.KeyVault/vaults/secrets/setSecret/action";

#[tokio::test]
async fn what_roles_allow_is_seen_at_the_vault_and_at_the_secret() {
    let all: &[&str] = &["Microsoft.KeyVault/vaults/secrets/*"];
    for (at_vault, at_secret, severity) in [
        (all, None, None),
        (&[READ][..], Some(READ), Some(Severity::Blocks)),
        (&[READ][..], Some("*"), None),
        (&[READ][..], None, Some(Severity::Unseen)),
        (&[][..], Some("*"), None),
    ] {
        let fake = governed(json!({"enableRbacAuthorization": true}), at_vault, at_secret).await;
        let found = governed_copy(&fake).check().await.unwrap().findings;
        let write: Vec<_> = found.iter().filter(|found| found.what.contains(WRITE)).collect();
        assert_eq!(
            write.first().map(|found| found.severity),
            severity,
            "{at_vault:?} {at_secret:?}: {found:?}"
        );
        assert!(
            write.iter().all(|found| found.mend.as_deref().unwrap().contains("Key Vault Secrets Officer"))
        );
        let at_secret =
            fake.lines().iter().filter(|line| line.contains("/secrets/database-url/prov")).count();
        assert_eq!(at_secret, usize::from(at_vault != all), "asked about only where it matters");
    }
}

#[tokio::test]
async fn a_right_that_only_retiring_needs_is_missed_only_then() {
    let fake = governed(json!({"enableRbacAuthorization": true}), &[READ, WRITE], Some(READ)).await;
    let copy = governed_copy(&fake);
    assert_eq!(copy.check().await.unwrap().findings, []);
    let found = copy.check_retirement().await.unwrap();
    assert!(found.len() == 1 && found[0].what.contains("update/action"), "{found:?}");
    assert_eq!(found[0].severity, Severity::Blocks);
}

#[tokio::test]
async fn what_access_policies_allow_is_seen_as_far_as_it_can_be() {
    let me = "11111111-0000-0000-0000-000000000001";
    let policy = |who: &str, rights: &[&str]| json!({"objectId": who, "permissions": {"secrets": rights}});
    let fake = working().await;
    // The stand-in's tokens do not say whose they are.
    let copy = copy(&fake);
    let judged = |policies: Value, who: Option<&str>| {
        let policies: Vec<super::resource::Policy> = serde_json::from_value(policies).unwrap();
        copy.judge_policies(&policies, &super::resource::SET, who).map(|found| found.severity)
    };
    assert_eq!(judged(json!([policy(me, &["Get", "Set"])]), Some(me)), None);
    assert_eq!(judged(json!([policy(&me.to_uppercase(), &["all"])]), Some(me)), None);
    assert_eq!(judged(json!([policy(me, &["get"])]), Some(me)), Some(Severity::Blocks));
    assert_eq!(
        judged(json!([policy(me, &["get"]), policy("g", &["set"])]), Some(me)),
        Some(Severity::Unseen)
    );
    assert_eq!(judged(json!([policy(me, &["set"])]), None), Some(Severity::Unseen), "who asks is not known");
    assert_eq!(judged(json!([{"objectId": me}]), Some(me)), Some(Severity::Blocks));
    assert_eq!(judged(json!([]), Some(me)), Some(Severity::Blocks));
}

#[tokio::test]
async fn a_date_that_is_over_is_worth_a_warning() {
    // It is 1,700,000,000 here.
    for (attributes, says) in [
        (json!({"exp": 1_699_999_999}), Some("expired on 2023-11-14")),
        (json!({"exp": 1_700_000_001}), None),
        (json!({"nbf": 1_800_000_000}), Some("not to be used before 2027-01-15")),
        (json!({"nbf": 1_600_000_000}), None),
    ] {
        let fake = vault(move |request| {
            let mut body = bundle(request, "v1", OLD);
            body["attributes"].as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
            reply(200, body)
        })
        .await;
        let found = copy(&fake).check().await.unwrap().findings;
        let warned = found.iter().find(|found| found.severity == Severity::Warning);
        assert_eq!(warned.map(|found| found.what.contains(says.unwrap_or_default())), says.map(|_| true));
    }
}

#[test]
fn subscription_and_resource_group_go_together() {
    let of = |subscription: Option<&str>, group: Option<&str>| {
        Group::new(subscription.map(str::to_owned), group.map(str::to_owned))
    };
    assert!(of(None, None).unwrap().is_none() && of(Some("s"), Some("g")).unwrap().is_some());
    for half in [of(Some("s"), None), of(None, Some("g")), of(Some("s/x"), Some("g"))] {
        assert_eq!(half.err().unwrap().kind(), Kind::Config);
    }
}
