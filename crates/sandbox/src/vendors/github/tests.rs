use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::{PublicKey, aead::OsRng};
use serde_json::{Value, json};

use super::super::Latency;
use super::super::apply;
use super::super::testing::{Answer, Sandbox, answer, serve};

const SECRETS: &str = "/repos/mindwell/backend/actions/secrets";

/// A value sealed for the store whose public key stands at `path`.
async fn sealed(sandbox: &Sandbox, path: &str, value: &str) -> Value {
    let key = sandbox.github("GET", &format!("{path}/public-key"), None).await.expect(200).body;
    let bytes: [u8; 32] = STANDARD.decode(key["key"].as_str().unwrap()).unwrap().try_into().unwrap();
    let sealed = PublicKey::from(bytes).seal(&mut OsRng, value.as_bytes()).unwrap();
    json!({"encrypted_value": STANDARD.encode(sealed), "key_id": key["key_id"]})
}

async fn put(sandbox: &Sandbox, path: &str, name: &str, value: &str) -> Answer {
    let body = sealed(sandbox, path, value).await;
    sandbox.github("PUT", &format!("{path}/{name}"), Some(body)).await
}

#[tokio::test]
async fn a_put_is_opened_and_never_shown() {
    let sandbox = Sandbox::new();
    put(&sandbox, SECRETS, "DEV_DATABASE_URL", "postgresql://new").await.expect(204);
    put(&sandbox, SECRETS, "NEW_SECRET", "x").await.expect(201);
    let copy = &sandbox.vendors.copies("dev")["github_actions:DEV_DATABASE_URL"];
    assert_eq!(copy.value.as_deref(), Some("postgresql://new"));
    assert_eq!(copy.versions, 2);
    let shown = sandbox.github("GET", &format!("{SECRETS}/DEV_DATABASE_URL"), None).await.expect(200);
    assert_eq!(shown.body.as_object().unwrap().len(), 3, "name and two times: {}", shown.text);
    sandbox.github("GET", &format!("{SECRETS}/NOTHING"), None).await.expect(404);
    let other = &sandbox.vendors.copies("staging")["github_actions:STAGING_DATABASE_URL"];
    assert_eq!(other.versions, 1);
}

#[tokio::test]
async fn each_store_has_its_own_key() {
    let sandbox = Sandbox::new();
    let environment = "/repos/mindwell/backend/environments/dev/secrets";
    let for_repository = sealed(&sandbox, SECRETS, "value").await;
    let path = format!("{environment}/DATABASE_URL");
    sandbox.github("PUT", &path, Some(for_repository.clone())).await.expect(422);
    // The right key id doesn't help a value that was sealed for another key.
    let mut mixed = sealed(&sandbox, environment, "value").await;
    mixed["encrypted_value"] = for_repository["encrypted_value"].clone();
    let refused = sandbox.github("PUT", &path, Some(mixed)).await.expect(422);
    assert!(refused.body["message"].as_str().unwrap().contains("improperly encrypted"));
    put(&sandbox, environment, "DATABASE_URL", "value").await.expect(201);
    assert_eq!(
        sandbox.vendors.copies("dev")["github_actions:dev/DATABASE_URL"].value.as_deref(),
        Some("value")
    );
    let slash = "/repos/mindwell/backend/environments/qa%2Feu";
    assert_eq!(sandbox.github("GET", slash, None).await.expect(200).body["name"], "qa/eu");
    put(&sandbox, &format!("{slash}/secrets"), "DATABASE_URL", "value").await.expect(201);
    sandbox.github("GET", "/repos/mindwell/backend/environments/qa/eu", None).await.expect(404);
    let list = sandbox.github("GET", "/repos/mindwell/backend/environments", None).await.expect(200);
    let names: Vec<&str> = list.body["environments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"dev") && names.contains(&"qa/eu"), "{names:?}");
}

#[tokio::test]
async fn what_was_not_sealed_is_refused() {
    let sandbox = Sandbox::new();
    let path = format!("{SECRETS}/DEV_DATABASE_URL");
    let good = sealed(&sandbox, SECRETS, "value").await;
    for (field, value, text) in [
        ("key_id", json!("568250167242549743"), "key_id"),
        ("key_id", Value::Null, "\"key_id\" wasn't supplied"),
        ("encrypted_value", json!("not base64!"), "does not match"),
        (
            "encrypted_value",
            json!(STANDARD.encode("plain text, and longer than a key of 48 bytes")),
            "improperly",
        ),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let refused = sandbox.github("PUT", &path, Some(bad)).await.expect(422);
        assert!(refused.body["message"].as_str().unwrap().contains(text), "{}", refused.text);
    }
    sandbox.set("github", "new_key", Value::Null);
    sandbox.github("PUT", &path, Some(good)).await.expect(422);
    put(&sandbox, SECRETS, "1BAD", "x").await.expect(422);
    put(&sandbox, SECRETS, "GITHUB_TOKEN", "x").await.expect(422);
    assert_eq!(sandbox.vendors.copies("dev")["github_actions:DEV_DATABASE_URL"].versions, 1);
}

#[tokio::test]
async fn an_organisations_secret_says_who_may_use_it() {
    let sandbox = Sandbox::new();
    let path = "/orgs/mindwell/actions/secrets";
    let mut body = sealed(&sandbox, path, "value").await;
    sandbox.github("PUT", &format!("{path}/SHARED"), Some(body.clone())).await.expect(422);
    body["visibility"] = json!("selected");
    body["selected_repository_ids"] = json!([710_000_001]);
    sandbox.github("PUT", &format!("{path}/SHARED"), Some(body.clone())).await.expect(201);
    let repositories = format!("{path}/SHARED/repositories");
    let listed = sandbox.github("GET", &repositories, None).await.expect(200);
    assert_eq!(listed.body["repositories"][0]["full_name"], "mindwell/backend");
    body.as_object_mut().unwrap().remove("selected_repository_ids");
    sandbox.github("PUT", &format!("{path}/SHARED"), Some(body)).await.expect(204);
    let listed = sandbox.github("GET", &repositories, None).await.expect(200);
    assert_eq!(listed.body["total_count"], 0, "a list that is left out takes the access away");
    let inherited = sandbox.github("GET", "/repos/mindwell/backend/actions/organization-secrets", None).await;
    assert_eq!(inherited.expect(200).body["total_count"], 2);
}

#[tokio::test]
async fn an_organisations_secret_of_an_environments_name_is_a_copy() {
    let sandbox = Sandbox::new();
    let wanted =
        json!({"name": "DEV_SHARED", "value": "x", "visibility": "selected", "repositories": ["ops"]});
    sandbox.set("github", "organization_secret", wanted);
    assert_eq!(
        sandbox.vendors.copies("dev")["github_actions:mindwell/DEV_SHARED"].value.as_deref(),
        Some("x")
    );
    assert!(!sandbox.vendors.copies("staging").keys().any(|id| id.contains("SHARED")));
    let path = "/orgs/mindwell/actions/secrets/DEV_SHARED";
    assert_eq!(sandbox.github("GET", path, None).await.expect(200).body["visibility"], "selected");
    let listed = sandbox.github("GET", &format!("{path}/repositories"), None).await.expect(200);
    assert_eq!(listed.body["repositories"][0]["name"], "ops");
    let mut unknown = json!({"system": "github", "environment": "dev", "what": "organization_secret"});
    unknown["value"] =
        json!({"name": "A", "value": "x", "visibility": "selected", "repositories": ["nothing"]});
    assert_eq!(apply(&sandbox.vendors, &unknown).unwrap_err(), "there is no repository \"nothing\"");
    unknown["value"] = json!("A");
    assert!(apply(&sandbox.vendors, &unknown).is_err());
}

#[tokio::test]
async fn nobody_is_served_without_agent_or_token() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.github.clone().router()).await;
    let anonymous = answer(site.request("GET", SECRETS).bearer_auth("ghp_test")).await.expect(403);
    assert!(anonymous.text.contains("User-Agent header"));
    let wrong = sandbox.github_as("ghp_other", "GET", SECRETS, None).await.expect(401);
    assert_eq!(wrong.body["message"], "Bad credentials");
    assert_eq!(wrong.header("x-oauth-scopes"), "");
    let bare = answer(site.request("GET", SECRETS).header("user-agent", "tests")).await.expect(401);
    assert_eq!(bare.body["message"], "Requires authentication");
    let version = site.request("GET", "/user").header("user-agent", "tests").bearer_auth("ghp_test");
    answer(version.header("x-github-api-version", "2020-01-01")).await.expect(400);
}

#[tokio::test]
async fn a_classic_token_shows_its_scopes() {
    let sandbox = Sandbox::new();
    let shown = sandbox.github("GET", SECRETS, None).await.expect(200);
    assert_eq!(shown.header("x-oauth-scopes"), "admin:org, repo");
    assert_eq!(shown.header("x-accepted-oauth-scopes"), "repo");
    assert_eq!(shown.header("x-github-request-id").matches(':').count(), 3);
    assert_eq!(shown.header("x-ratelimit-limit"), "5000");
    sandbox.set("github", "scopes", json!(["read:org"]));
    sandbox.github("GET", SECRETS, None).await.expect(404);
    sandbox.github("GET", "/orgs/mindwell/actions/secrets", None).await.expect(403);
    sandbox.set("github", "scopes", json!(["repo"]));
    sandbox.set("github", "deny", json!(["secrets=write"]));
    put(&sandbox, SECRETS, "DEV_DATABASE_URL", "x").await.expect(403);
}

#[tokio::test]
async fn a_fine_grained_token_is_told_what_the_endpoint_wants() {
    let none = std::time::Duration::ZERO;
    let sandbox = Sandbox::with(Latency { operation: none, app_start: none }, "github_pat_test");
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        sandbox.github_as("github_pat_test", method, path, body).await
    };
    let key = ask("GET", &format!("{SECRETS}/public-key"), None).await.expect(200);
    assert_eq!(key.header("x-accepted-github-permissions"), "secrets=read");
    assert_eq!(key.header("x-oauth-scopes"), "");
    sandbox.set("github", "deny", json!(["secrets=write"]));
    let refused = ask("PUT", &format!("{SECRETS}/DEV_DATABASE_URL"), Some(json!({}))).await.expect(403);
    assert_eq!(refused.body["message"], "Resource not accessible by personal access token");
    assert_eq!(refused.header("x-accepted-github-permissions"), "secrets=write");
    ask("GET", &format!("{SECRETS}/public-key"), None).await.expect(200);
    let repository = ask("GET", "/repos/mindwell/backend", None).await.expect(200);
    assert_eq!(repository.body["permissions"]["push"], false);
}

#[tokio::test]
async fn everything_stands_under_the_enterprise_path_too() {
    let sandbox = Sandbox::new();
    for path in
        ["/user", "/rate_limit", "/repos/mindwell/backend", "/repos/Mindwell/Backend/actions/secrets", "/"]
    {
        sandbox.github("GET", path, None).await.expect(200);
        sandbox.github("GET", &format!("/api/v3{path}"), None).await.expect(200);
    }
    let secrets = "/api/v3/repos/mindwell/backend/actions/secrets";
    put(&sandbox, secrets, "DEV_DATABASE_URL", "x").await.expect(204);
    sandbox.github("GET", &format!("{SECRETS}/"), None).await.expect(404);
    sandbox.github("GET", "/repos/mindwell/nothing", None).await.expect(404);
    let comment =
        sandbox.github("POST", "/api/v3/repos/mindwell/ops/issues/12/comments", Some(json!({"body": "x"})));
    let comment = comment.await.expect(201).body;
    assert!(comment["html_url"].as_str().unwrap().starts_with("https://github.localhost:8446/mindwell/ops/"));
    assert!(comment["url"].as_str().unwrap().starts_with("https://github.localhost:8446/api/v3/repos/"));
    let question = json!({"query": "query UserCurrent{viewer{login}}"});
    let viewer = sandbox.github("POST", "/api/graphql", Some(question)).await.expect(200);
    assert_eq!(viewer.body["data"]["viewer"]["login"], "rotation-bot");
}

#[tokio::test]
async fn comments_are_kept_and_listed_in_pages() {
    let sandbox = Sandbox::new();
    let path = "/repos/mindwell/ops/issues/12/comments";
    for number in 1..=3 {
        let body = json!({"body": format!("run {number}: rotated pgflex-mindwell-dev")});
        let made = sandbox.github("POST", path, Some(body)).await.expect(201);
        assert_eq!(made.header("location"), made.body["url"]);
        let page = "https://github.localhost:8446/mindwell/ops/issues/12";
        assert_eq!(made.body["html_url"], format!("{page}#issuecomment-{}", made.body["id"]));
    }
    let first = sandbox.github("GET", &format!("{path}?per_page=2"), None).await.expect(200);
    assert_eq!(first.body.as_array().unwrap().len(), 2);
    let next = "<https://github.localhost:8446/repos/mindwell/ops/issues/12/comments?per_page=2&page=2>; rel=\"next\"";
    assert!(first.header("link").contains(next), "{}", first.header("link"));
    let second = sandbox.github("GET", &format!("{path}?per_page=2&page=2"), None).await.expect(200);
    assert_eq!(second.body.as_array().unwrap().len(), 1);
    assert!(!second.header("link").contains("next"));
    assert_eq!(sandbox.vendors.comments("dev").len(), 3);
    assert_eq!(sandbox.vendors.comments("dev")[0]["ticket"], "mindwell/ops#12");
    assert_eq!(sandbox.vendors.comments("staging").len(), 0);
    assert_eq!(
        sandbox.github("POST", path, Some(json!({}))).await.expect(422).body["errors"][0]["field"],
        "body"
    );
    let missing = "/repos/mindwell/ops/issues/99/comments";
    sandbox.github("POST", missing, Some(json!({"body": "x"}))).await.expect(404);
    sandbox.set("github", "issues_disabled", json!(true));
    sandbox.github("POST", path, Some(json!({"body": "x"}))).await.expect(410);
}

#[tokio::test]
async fn waiting_runs_are_listed_by_status() {
    let sandbox = Sandbox::new();
    sandbox.set("github", "run", json!("queued"));
    sandbox.set("github", "run", json!("in_progress"));
    let runs = async |query: &str| {
        let path = format!("/repos/mindwell/backend/actions/runs{query}");
        sandbox.github("GET", &path, None).await.expect(200).body
    };
    assert_eq!(runs("").await["total_count"], 2);
    let queued = runs("?status=queued").await;
    assert_eq!(queued["workflow_runs"][0]["status"], "queued");
    assert_eq!(queued["total_count"], 1);
}
