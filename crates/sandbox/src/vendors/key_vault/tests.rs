use serde_json::json;

use super::super::testing::{KEY_VAULT, Sandbox, answer, serve, until};

#[tokio::test]
async fn without_a_token_the_vault_says_where_to_get_one_and_nothing_else() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.key_vault.clone().router()).await;
    // No api-version either: the challenge comes first.
    let bare =
        site.request("PUT", "/secrets/database-url").header("host", "kv-mindwell-dev.vault.localhost:8444");
    let challenged = answer(bare).await.expect(401);
    assert_eq!(challenged.body["error"]["code"], "Unauthorized");
    let expected = format!(
        "Bearer authorization=\"https://login.localhost:8442/00000000-0000-0000-0000-0000000000aa\", \
         resource=\"{KEY_VAULT}\""
    );
    assert_eq!(challenged.header("www-authenticate"), expected);
}

#[tokio::test]
async fn a_token_for_the_resource_manager_is_refused() {
    let sandbox = Sandbox::new();
    let token = sandbox.vendors.sign_in.token_for("https://management.azure.com/.default");
    let site = serve(sandbox.vendors.key_vault.clone().router()).await;
    let request = site
        .request("GET", "/secrets/database-url?api-version=7.5")
        .header("host", "kv-mindwell-dev.vault.localhost")
        .bearer_auth(token);
    let refused = answer(request).await.expect(401);
    assert!(refused.body["error"]["message"].as_str().unwrap().starts_with("AKV10022"));
}

#[tokio::test]
async fn every_set_is_a_new_version_and_inherits_nothing() {
    let sandbox = Sandbox::new();
    let before = sandbox.vault("GET", "/secrets/postgres-admin-password", None).await.expect(200);
    assert_eq!(before.body["contentType"], "text/plain");
    let body = json!({"value": "same", "tags": {"run": "1"}});
    let one = sandbox.vault("PUT", "/secrets/postgres-admin-password", Some(body.clone())).await.expect(200);
    let two = sandbox.vault("PUT", "/secrets/postgres-admin-password", Some(body)).await.expect(200);
    assert_ne!(one.body["id"], two.body["id"]);
    assert!(one.body["contentType"].is_null());
    let id = two.body["id"].as_str().unwrap();
    let version = id
        .strip_prefix("https://kv-mindwell-dev.vault.localhost:8444/secrets/postgres-admin-password/")
        .unwrap();
    assert_eq!(version.len(), 32);
    // The tools write an empty version for the latest.
    let latest = sandbox.vault("GET", "/secrets/postgres-admin-password/", None).await.expect(200);
    assert_eq!(latest.body["id"], id);
    assert_eq!(latest.body["tags"]["run"], "1");
    assert!(latest.body["attributes"]["created"].as_i64().unwrap() > 1_700_000_000);
    let first = before.body["id"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let old = sandbox.vault("GET", &format!("/secrets/postgres-admin-password/{first}"), None).await;
    assert_eq!(old.expect(200).body["value"], "Seed-dev-1");
    assert_eq!(sandbox.vendors.copies("dev")["azure_key_vault:postgres-admin-password"].versions, 3);
}

#[tokio::test]
async fn lists_of_versions_come_in_pages_and_without_values() {
    let sandbox = Sandbox::new();
    for value in ["a", "b", "c", "d"] {
        sandbox.vault("PUT", "/secrets/database-url", Some(json!({"value": value}))).await.expect(200);
    }
    let first = sandbox.vault("GET", "/secrets/database-url/versions?maxresults=2", None).await.expect(200);
    assert_eq!(first.body["value"].as_array().unwrap().len(), 2);
    assert!(first.body["value"][0]["value"].is_null());
    let mut seen: Vec<String> = Vec::new();
    let mut page = first.body;
    loop {
        seen.extend(page["value"].as_array().unwrap().iter().map(|item| item["id"].to_string()));
        let Some(next) = page["nextLink"].as_str() else { break };
        let path = next.strip_prefix("https://kv-mindwell-dev.vault.localhost:8444").unwrap();
        page = sandbox.vault("GET", path, None).await.expect(200).body;
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    sandbox.vault("GET", "/secrets/database-url/versions?maxresults=26", None).await.expect(400);
}

#[tokio::test]
async fn attributes_change_and_the_value_does_not() {
    let sandbox = Sandbox::new();
    let id =
        sandbox.vault("GET", "/secrets/database-url", None).await.body["id"].as_str().unwrap().to_owned();
    let version = id.rsplit('/').next().unwrap();
    let path = format!("/secrets/database-url/{version}");
    let change = json!({"attributes": {"enabled": false, "exp": 2_000_000_000}, "value": "ignored"});
    let changed = sandbox.vault("PATCH", &path, Some(change)).await.expect(200);
    assert!(changed.body["value"].is_null());
    assert_eq!(changed.body["attributes"]["exp"], 2_000_000_000);
    let refused = sandbox.vault("GET", "/secrets/database-url", None).await.expect(403);
    assert_eq!(refused.body["error"]["innererror"]["code"], "SecretDisabled");
    sandbox.vault("PATCH", &path, Some(json!({"attributes": {"enabled": true}}))).await.expect(200);
    let value = sandbox.vault("GET", "/secrets/database-url", None).await.expect(200);
    assert!(value.body["value"].as_str().unwrap().starts_with("postgresql"));
}

#[tokio::test]
async fn a_deleted_name_is_taken_until_it_has_come_back() {
    let sandbox = Sandbox::slow(3000);
    sandbox.vault("GET", "/deletedsecrets/database-url", None).await.expect(404);
    sandbox.set("key_vault", "deleted", json!("database-url"));
    let missing = sandbox.vault("GET", "/secrets/database-url", None).await.expect(404);
    assert_eq!(missing.body["error"]["code"], "SecretNotFound");
    let put = || sandbox.vault("PUT", "/secrets/database-url", Some(json!({"value": "new"})));
    let taken = put().await.expect(409);
    assert_eq!(taken.body["error"]["code"], "Conflict");
    assert_eq!(taken.body["error"]["innererror"]["code"], "ObjectIsDeletedButRecoverable");
    let deleted = sandbox.vault("GET", "/deletedsecrets/database-url", None).await.expect(200);
    assert!(deleted.body["scheduledPurgeDate"].as_i64() > deleted.body["deletedDate"].as_i64());
    sandbox.vault("POST", "/deletedsecrets/database-url/recover", None).await.expect(200);
    let coming = put().await.expect(409);
    assert_eq!(coming.body["error"]["innererror"]["code"], "ObjectIsBeingRecovered");
    until(async || put().await, |answer| answer.status == 200).await;
    assert_eq!(sandbox.vendors.copies("dev")["azure_key_vault:database-url"].versions, 2);
}

#[tokio::test]
async fn rights_come_from_roles_or_from_access_policies() {
    let sandbox = Sandbox::new();
    let set = "Microsoft.KeyVault/vaults/secrets/setSecret/action";
    sandbox.set("resource_manager", "deny", json!([set]));
    let put = || sandbox.vault("PUT", "/secrets/database-url", Some(json!({"value": "new"})));
    let refused = put().await.expect(403);
    assert_eq!(refused.body["error"]["innererror"]["code"], "ForbiddenByRbac");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("Assignment: (not found)"));
    sandbox.set("resource_manager", "deny", json!([]));
    sandbox.set("key_vault", "access_policy", json!(["get", "list"]));
    assert_eq!(put().await.expect(403).body["error"]["innererror"]["code"], "AccessDenied");
    sandbox.set("key_vault", "access_policy", json!(["get", "list", "set"]));
    put().await.expect(200);
    sandbox.set("key_vault", "firewall", json!(true));
    assert_eq!(put().await.expect(403).body["error"]["innererror"]["code"], "ForbiddenByFirewall");
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let sandbox = Sandbox::new();
    let token = sandbox.vendors.sign_in.token_for("https://vault.azure.net/.default");
    let site = serve(sandbox.vendors.key_vault.clone().router()).await;
    let without = site
        .request("GET", "/secrets/database-url")
        .header("host", "kv-mindwell-dev.vault.localhost")
        .bearer_auth(&token);
    assert_eq!(answer(without).await.expect(400).body["error"]["code"], "BadParameter");
    sandbox.vault("PUT", "/secrets/under_score", Some(json!({"value": "x"}))).await.expect(400);
    sandbox.vault("PUT", "/secrets/database-url", Some(json!({"text": "x"}))).await.expect(400);
    let long = "x".repeat(25 * 1024 + 1);
    sandbox.vault("PUT", "/secrets/database-url", Some(json!({"value": long}))).await.expect(400);
    sandbox.vault("GET", "/secrets/nothing", None).await.expect(404);
    assert_eq!(sandbox.vendors.copies("dev")["azure_key_vault:database-url"].versions, 1);
}
