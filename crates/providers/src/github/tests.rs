//! Against a server in this process that answers as GitHub documents it.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::fake::{Fake, Reply, shared};
use crate::shared::{GithubSettings, Vendors};

fn vendors(api: &str) -> Vendors {
    Vendors {
        github: GithubSettings { api: api.to_owned(), ..GithubSettings::default() },
        ..Vendors::default()
    }
}

async fn api(answer: impl Fn() -> Reply + Send + Sync + 'static) -> (Fake, Api) {
    let fake = Fake::start(move |_| answer()).await;
    let api = Api::new(&shared(vendors(&format!("{}/api/v3/", fake.url)), "GH_TOKEN=ghp_canary")).unwrap();
    (fake, api)
}

async fn error(answer: impl Fn() -> Reply + Send + Sync + 'static) -> Error {
    let (_fake, api) = api(answer).await;
    api.get(&["user"], &[], "look").await.unwrap_err()
}

#[tokio::test]
async fn every_request_carries_what_github_asks_for() {
    let (fake, api) = api(|| {
        Reply::json(200, &json!({"updated_at": "2026-01-01T00:00:05Z"}))
            .header("date", "Thu, 01 Jan 2026 00:00:06 GMT")
            .header("x-oauth-scopes", "repo, admin:org")
    })
    .await;
    let segments = ["repos", "o", "r", "environments", "team/dev 1", "secrets"];
    let answer = api.get(&segments, &[("per_page", "1")], "look").await.unwrap();
    assert_eq!(answer.time("updated_at").unwrap(), "2026-01-01T00:00:05Z".parse().unwrap());
    assert_eq!(answer.date.unwrap(), "2026-01-01T00:00:06Z".parse().unwrap());
    assert_eq!(answer.scopes.unwrap(), ["repo", "admin:org"]);
    let call = &fake.calls()[0];
    assert_eq!(call.path, "/api/v3/repos/o/r/environments/team%2Fdev%201/secrets?per_page=1");
    assert_eq!(call.header("x-github-api-version"), Some("2022-11-28"));
    assert_eq!(call.header("accept"), Some("application/vnd.github+json"));
    assert!(call.header("user-agent").unwrap().starts_with("pgrotate/"));
    assert!(call.header("authorization").unwrap().starts_with("Bearer "));
}

#[tokio::test]
async fn the_primary_limit_ends_when_github_says() {
    let limited = error(|| {
        Reply::json(403, &json!({"message": "API rate limit exceeded"}))
            .header("date", "Thu, 01 Jan 2026 00:00:00 GMT")
            .header("x-ratelimit-remaining", "0")
            .header("x-ratelimit-reset", "1767225690")
    })
    .await;
    assert_eq!((limited.kind(), limited.retry()), (Kind::Throttled, Retry::Later { after_ms: Some(91_000) }));
    let over = error(|| {
        Reply::empty(429)
            .header("date", "Thu, 01 Jan 2026 00:02:00 GMT")
            .header("x-ratelimit-remaining", "0")
            .header("x-ratelimit-reset", "1767225690")
    })
    .await;
    assert_eq!(over.retry(), Retry::Later { after_ms: Some(1000) }, "a reset in the past");
}

#[tokio::test]
async fn the_secondary_limit_is_told_by_its_text_or_its_header() {
    let text = json!({"message": "You have exceeded a secondary rate limit. canary"});
    let silent = error(move || Reply::json(403, &text).header("x-ratelimit-remaining", "4000")).await;
    assert_eq!((silent.kind(), silent.retry()), (Kind::Throttled, Retry::Later { after_ms: Some(60_000) }));
    assert!(!format!("{silent:?}").contains("canary"));
    let told = error(|| Reply::empty(403).header("retry-after", "7")).await;
    assert_eq!(told.retry(), Retry::Later { after_ms: Some(7000) });
}

#[tokio::test]
async fn a_missing_right_is_named_as_the_endpoint_wants_it() {
    let body = json!({"message": "Resource not accessible by personal access token"});
    let fine = error(move || {
        Reply::json(403, &body)
            .header("x-accepted-github-permissions", "secrets=write,actions=read; contents=read")
    })
    .await;
    assert_eq!((fine.kind(), fine.retry()), (Kind::Forbidden, Retry::Never));
    assert!(fine.hints()[0].contains("secrets=write and actions=read or contents=read"), "{fine:?}");
    let classic = error(|| Reply::empty(403).header("x-accepted-oauth-scopes", "repo")).await;
    assert!(classic.hints()[0].contains("scopes repo"));
}

#[tokio::test]
async fn single_sign_on_is_explained_without_its_ticket() {
    let sso = "required; url=https://github.com/orgs/mindwell/sso?authorization_request=canary";
    let error = error(move || Reply::empty(403).header("x-github-sso", sso)).await;
    assert!(error.hints()[0].ends_with("at https://github.com/orgs/mindwell/sso"), "{error:?}");
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn what_is_hidden_moved_refused_or_broken() {
    for (status, kind) in [
        (401, Kind::Unauthenticated),
        (404, Kind::NotFound),
        (410, Kind::NotFound),
        (301, Kind::BadState),
        (400, Kind::Rejected),
    ] {
        let error = error(move || Reply::empty(status).header("location", "https://example.com")).await;
        assert_eq!((error.kind(), error.retry()), (kind, Retry::Never), "{status}");
    }
    let body =
        json!({"message": "canary", "errors": [{"code": "invalid", "value": "canary"}, {"code": "canary"}]});
    let invalid = error(move || Reply::json(422, &body)).await;
    assert_eq!(invalid.to_string(), "cannot look: GitHub does not accept what was sent (invalid)");
    assert_eq!(error(|| Reply::empty(502)).await.retry(), Retry::Later { after_ms: None });
    let (_fake, api) = api(|| Reply::empty(502)).await;
    let write = api.write(Method::PUT, &["x"], &json!({}), "write").await.unwrap_err();
    assert_eq!(write.retry(), Retry::Unknown, "a write may have happened");
}

#[tokio::test]
async fn gh_is_asked_once_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let cli = folder.path().join("gh");
    let script = "#!/bin/sh\n[ \"$1 $2 $3\" = 'auth token --hostname' ] || exit 1\necho x >> \"$0.asked\"\necho gho_canary\n";
    std::fs::write(&cli, script).unwrap();
    std::fs::set_permissions(&cli, std::fs::Permissions::from_mode(0o700)).unwrap();
    let base = Url::parse("https://ghe.example.test/api/v3").unwrap();
    let shared = shared(vendors(base.as_str()), "");
    if shared.credentials.get("GH_TOKEN").or(shared.credentials.get("GITHUB_TOKEN")).is_some() {
        return;
    }
    let (one, two) = futures::join!(token::find(&shared, &base, &cli), token::find(&shared, &base, &cli));
    assert_eq!((one.unwrap(), two.unwrap()), (Secret::new("gho_canary"), Secret::new("gho_canary")));
    assert_eq!(std::fs::read_to_string(folder.path().join("gh.asked")).unwrap(), "x\n");

    let other = Url::parse("https://other.example.test/").unwrap();
    let missing = token::find(&shared, &other, &folder.path().join("none")).await.unwrap_err();
    assert!(missing.hints()[0].contains("gh auth login --hostname other.example.test"), "{missing:?}");
}

#[test]
fn the_pages_host_follows_from_the_apis() {
    let host = |api: &str| Api::new(&shared(vendors(api), "")).unwrap().web_host();
    assert_eq!(host("https://api.github.com"), "github.com");
    assert_eq!(host("https://ghe.example.com/api/v3"), "ghe.example.com");
    assert_eq!(host("http://127.0.0.1:8443"), "127.0.0.1:8443");
    assert!(Api::new(&shared(vendors("http://ghe.example.com"), "")).is_err());
}

/// A proxy in between can put anything there.
#[tokio::test]
async fn of_a_header_only_a_list_of_rights_is_repeated() {
    let long = "secrets=write,".repeat(20);
    for wanted in [long.as_str(), "look at <https://example.com>"] {
        let wanted = wanted.to_owned();
        let reply = move || Reply::empty(403).header("x-accepted-github-permissions", &wanted);
        let found = error(reply).await;
        assert!(found.hints()[0].starts_with("give the token the right"), "{found:?}");
    }
    let page =
        || Reply::empty(403).header("x-github-sso", format!("required; url=https://{}", "a".repeat(300)));
    assert!(!error(page).await.hints()[0].contains("aaaa"));
}

#[test]
fn what_a_missing_scope_hides_is_told_from_what_is_not_there() {
    let lacked = |held: Option<&str>, accepted: &str| {
        let mut headers = HeaderMap::new();
        if let Some(held) = held {
            headers.insert("x-oauth-scopes", held.parse().unwrap());
        }
        headers.insert("x-accepted-oauth-scopes", accepted.parse().unwrap());
        lacked_scope(&headers)
    };
    assert_eq!(lacked(Some(""), "repo").as_deref(), Some("repo"));
    assert_eq!(lacked(Some("gist, read:org"), "admin:org, repo").as_deref(), Some("admin:org"));
    assert_eq!(lacked(Some("gist, repo"), "repo"), None);
    assert_eq!(lacked(Some("gist"), ""), None, "the endpoint wants none");
    assert_eq!(lacked(None, "repo"), None, "a token without scopes");
}
