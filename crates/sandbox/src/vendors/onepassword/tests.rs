use serde_json::{Value, json};

use super::super::testing::{Sandbox, answer, serve};

/// The path of dev's item.
async fn item_path(sandbox: &Sandbox) -> String {
    let vaults =
        sandbox.connect("GET", "/v1/vaults?filter=name%20eq%20%22MindWell%22", None).await.expect(200);
    let vault = vaults.body[0]["id"].as_str().unwrap().to_owned();
    let filter = "title%20eq%20%22MindWell%20dev%20Postgres%20Admin%22";
    let items = sandbox.connect("GET", &format!("/v1/vaults/{vault}/items?filter={filter}"), None).await;
    let items = items.expect(200).body;
    assert_eq!(items.as_array().unwrap().len(), 1);
    assert!(items[0]["fields"].is_null(), "lists don't show fields");
    format!("/v1/vaults/{vault}/items/{}", items[0]["id"].as_str().unwrap())
}

async fn item(sandbox: &Sandbox, path: &str) -> Value {
    sandbox.connect("GET", path, None).await.expect(200).body
}

fn field<'a>(item: &'a Value, label: &str) -> &'a Value {
    let fields = item["fields"].as_array().unwrap();
    fields.iter().find(|field| field["label"] == label).expect("a field of this label")
}

#[tokio::test]
async fn a_patch_changes_one_value_and_the_version() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let before = item(&sandbox, &path).await;
    assert_eq!(field(&before, "username")["value"], "mindwelladmin");
    assert!(!before["urls"].as_array().unwrap().is_empty());
    let operations = json!([{"op": "replace", "path": "/fields/password/value", "value": "new"}]);
    let after = sandbox.connect("PATCH", &path, Some(operations)).await.expect(200).body;
    let mut expected = before.clone();
    expected["version"] = json!(before["version"].as_u64().unwrap() + 1);
    expected["updatedAt"] = after["updatedAt"].clone();
    expected["fields"][1]["value"] = json!("new");
    assert_eq!(after, expected);
    assert_eq!(item(&sandbox, &path).await, expected);
    let copy = &sandbox.vendors.copies("dev")["onepassword:MindWell dev Postgres Admin"];
    assert_eq!((copy.value.as_deref(), copy.version.as_str()), (Some("new"), "4"));
}

#[tokio::test]
async fn fields_are_added_with_and_without_an_id_and_removed() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let operations = json!([
        {"op": "add", "path": "/fields", "value": {"label": "pending", "type": "concealed", "value": "one"}},
        {"op": "add", "path": "/fields", "value": {"id": "previous", "label": "previous", "value": "two"}},
        {"op": "add", "path": "/fields/previous/label", "value": "before that"},
        {"op": "remove", "path": "/tags/0"},
    ]);
    let after = sandbox.connect("PATCH", &path, Some(operations)).await.expect(200).body;
    let pending = field(&after, "pending");
    assert_eq!(pending["type"], "CONCEALED");
    let id = pending["id"].as_str().unwrap();
    assert_eq!(id.len(), 26);
    assert_eq!(field(&after, "before that")["id"], "previous");
    assert_eq!(after["tags"], json!(["dev"]));
    let remove = json!([{"op": "remove", "path": format!("/fields/{id}")}]);
    let after = sandbox.connect("PATCH", &path, Some(remove)).await.expect(200).body;
    assert!(after["fields"].as_array().unwrap().iter().all(|field| field["id"] != id));
}

#[tokio::test]
async fn an_empty_patch_changes_nothing() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let before = item(&sandbox, &path).await;
    let same = sandbox.connect("PATCH", &path, Some(json!([]))).await.expect(200);
    assert_eq!(same.body, before);
    sandbox.set("onepassword", "read_only", json!(true));
    sandbox.connect("PATCH", &path, Some(json!([]))).await.expect(403);
    item(&sandbox, &path).await;
}

#[tokio::test]
async fn a_patch_is_applied_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let before = item(&sandbox, &path).await;
    let good = json!({"op": "replace", "path": "/fields/password/value", "value": "new"});
    for bad in [
        json!({"op": "replace", "path": "/fields/nothing/value", "value": "x"}),
        json!({"op": "remove", "path": "/fields/nothing"}),
        json!({"op": "copy", "from": "/title", "path": "/tags/0"}),
        json!({"op": "test", "path": "/title", "value": "x"}),
        json!({"op": "replace", "path": "/version", "value": 1}),
        json!({"op": "replace", "path": "title", "value": "x"}),
        json!({"op": "add", "path": "/fields", "value": {"id": "password", "value": "twice"}}),
        json!({"op": "add", "path": "/fields", "value": {"purpose": "PASSWORD", "value": "second"}}),
        json!({"op": "add", "path": "/fields", "value": {"type": "SECRET", "value": "x"}}),
        json!({"op": "add", "path": "/fields", "value": {"section": {"id": "nothing"}, "value": "x"}}),
        json!({"op": "add", "path": "/title"}),
    ] {
        let refused = sandbox.connect("PATCH", &path, Some(json!([good, bad]))).await.expect(400);
        assert_eq!(refused.body["status"], 400);
        assert!(refused.body["message"].is_string());
        assert_eq!(item(&sandbox, &path).await, before, "after {bad}");
    }
    sandbox.connect("PATCH", &path, Some(json!({"op": "add"}))).await.expect(400);
}

#[tokio::test]
async fn a_put_loses_what_it_leaves_out() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let mut given = item(&sandbox, &path).await;
    given["fields"] = json!([{"id": "password", "type": "CONCEALED", "purpose": "PASSWORD", "value": "x"}]);
    given.as_object_mut().unwrap().remove("urls");
    let after = sandbox.connect("PUT", &path, Some(given.clone())).await.expect(200).body;
    assert_eq!(after["fields"].as_array().unwrap().len(), 1);
    assert!(after["urls"].is_null());
    assert_eq!(after["version"], 4);
    given["id"] = json!("another");
    sandbox.connect("PUT", &path, Some(given)).await.expect(400);
}

#[tokio::test]
async fn items_are_made_and_removed() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let (items, _) = path.rsplit_once('/').unwrap();
    let vault = items.split('/').nth(3).unwrap();
    let given = json!({
        "vault": {"id": vault},
        "title": "New",
        "category": "PASSWORD",
        "fields": [{"type": "CONCEALED", "purpose": "PASSWORD", "label": "password", "value": "x"}],
    });
    let made = sandbox.connect("POST", items, Some(given)).await.expect(200).body;
    assert_eq!(made["version"], 1);
    assert_eq!(made["fields"][0]["id"].as_str().unwrap().len(), 26);
    let path = format!("{items}/{}", made["id"].as_str().unwrap());
    sandbox.connect("DELETE", &path, None).await.expect(204);
    let gone = sandbox.connect("GET", &path, None).await.expect(404);
    assert_eq!(gone.body["status"], 404);
    sandbox.connect("POST", items, Some(json!({"title": "no vault"}))).await.expect(400);
}

#[tokio::test]
async fn titles_may_match_nothing_or_twice() {
    let sandbox = Sandbox::new();
    let path = item_path(&sandbox).await;
    let (items, _) = path.rsplit_once('/').unwrap();
    let count = async || {
        let filter = "title%20eq%20%22MindWell%20dev%20Postgres%20Admin%22";
        let found = sandbox.connect("GET", &format!("{items}?filter={filter}"), None).await.expect(200);
        found.body.as_array().unwrap().len()
    };
    sandbox.set("onepassword", "ambiguous", Value::Null);
    assert_eq!(count().await, 2);
    sandbox.set("onepassword", "missing", Value::Null);
    sandbox.set("onepassword", "archived", Value::Null);
    assert_eq!(count().await, 0);
    sandbox.connect("GET", &format!("{items}?filter=title%20co%20%22x%22"), None).await.expect(400);
}

#[tokio::test]
async fn strangers_are_sent_away() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.onepassword.clone().router()).await;
    let refused = answer(site.request("GET", "/v1/vaults").bearer_auth("wrong")).await.expect(401);
    assert_eq!(refused.body, json!({"status": 401, "message": "Invalid token signature"}));
    let other = format!("/v1/vaults/{}/items", sandbox.vendors.onepassword.other_vault);
    assert!(sandbox.connect("GET", &other, None).await.expect(403).text.contains("is not in scope"));
    let unknown = format!("/v1/vaults/{}/items", "a".repeat(26));
    sandbox.connect("GET", &unknown, None).await.expect(404);
    assert_eq!(answer(site.request("GET", "/heartbeat")).await.expect(200).text, ".");
    let health = answer(site.request("GET", "/health")).await.expect(200);
    assert_eq!(health.body["dependencies"][0]["status"], "ACTIVE");
}
