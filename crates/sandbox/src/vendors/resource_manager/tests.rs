use serde_json::{Value, json};

use super::super::call::lock;
use super::super::testing::{ARM, Answer, SUBSCRIPTION, Sandbox, answer, serve, until};

const SERVER: &str = "/Microsoft.DBforPostgreSQL/flexibleServers/pgflex-mindwell-dev";
const NEW: &str = "Correct4Horse4Battery";

async fn change_password(sandbox: &Sandbox, password: &str) -> Answer {
    let body = json!({"properties": {"administratorLoginPassword": password}});
    sandbox.arm("PATCH", SERVER, Some(body)).await
}

async fn follow(sandbox: &Sandbox, url: &str) -> Answer {
    let token = sandbox.vendors.sign_in.token_for(&format!("{ARM}/.default"));
    let site = serve(sandbox.vendors.resource_manager.clone().router()).await;
    let path = url.strip_prefix(ARM).expect("a URL of the sandbox");
    answer(site.request("GET", path).bearer_auth(token)).await
}

async fn finished(sandbox: &Sandbox, accepted: &Answer) -> Answer {
    let url = accepted.header("azure-asyncoperation");
    until(async || follow(sandbox, url).await, |answer| answer.body["status"] != "InProgress").await
}

async fn server(sandbox: &Sandbox) -> Value {
    sandbox.arm("GET", SERVER, None).await.expect(200).body
}

#[tokio::test]
async fn a_password_change_is_an_operation_with_long_urls_and_no_retry_after() {
    let sandbox = Sandbox::slow(2000);
    let before = server(&sandbox).await;
    let accepted = change_password(&sandbox, NEW).await.expect(202);
    assert_eq!(accepted.body["operation"], "UpsertServerManagementOperationV2");
    assert!(accepted.body["startTime"].is_string());
    assert_eq!(accepted.header("retry-after"), "");
    for name in ["azure-asyncoperation", "location"] {
        let url = accepted.header(name);
        assert!((3000..3600).contains(&url.len()), "{name} has {} bytes", url.len());
        assert!(url.contains("/locations/westeurope/"), "the region is spelt as in URLs");
        for part in ["&t=", "&c=", "&s=", "&h="] {
            assert!(url.contains(part));
        }
    }
    assert_eq!(before["location"], "West Europe");
    assert_eq!(server(&sandbox).await["properties"]["state"], "Updating");
    let running = follow(&sandbox, accepted.header("azure-asyncoperation")).await.expect(200);
    assert_eq!(running.body["status"], "InProgress");
    assert_eq!(running.header("retry-after"), "");
    follow(&sandbox, accepted.header("location")).await.expect(202);
    assert_eq!(finished(&sandbox, &accepted).await.body["status"], "Succeeded");
    follow(&sandbox, accepted.header("location")).await.expect(200);
    let set = lock(&sandbox.servers.passwords).clone();
    assert_eq!(set, [("pgflex-mindwell-dev".into(), "mindwelladmin".into(), NEW.into())]);
    // Nothing else has changed, and the password is shown nowhere.
    let after = server(&sandbox).await;
    assert_eq!(after, before);
    assert!(!after.to_string().contains(NEW));
}

#[tokio::test]
async fn a_url_that_was_cut_is_not_the_operations() {
    let sandbox = Sandbox::new();
    let accepted = change_password(&sandbox, NEW).await.expect(202);
    let url = accepted.header("azure-asyncoperation");
    follow(&sandbox, &url[..2048]).await.expect(403);
    let bare = url.split("&t=").next().unwrap();
    follow(&sandbox, bare).await.expect(403);
}

#[tokio::test]
async fn a_busy_server_refuses_with_an_empty_code() {
    let sandbox = Sandbox::slow(3000);
    change_password(&sandbox, NEW).await.expect(202);
    let busy = change_password(&sandbox, NEW).await.expect(409);
    assert_eq!(busy.body["error"]["code"], "");
    let text = "Server pgflex-mindwell-dev is busy with other operations. Please try later";
    assert_eq!(busy.body["error"]["message"], text);
}

#[tokio::test]
async fn without_password_sign_in_a_change_succeeds_and_does_nothing() {
    let sandbox = Sandbox::new();
    sandbox.set("resource_manager", "password_auth", json!(false));
    let accepted = change_password(&sandbox, NEW).await.expect(202);
    assert_eq!(finished(&sandbox, &accepted).await.body["status"], "Succeeded");
    assert_eq!(lock(&sandbox.servers.passwords).len(), 0);
    assert_eq!(server(&sandbox).await["properties"]["authConfig"]["passwordAuth"], "Disabled");
}

#[tokio::test]
async fn passwords_follow_azures_rules() {
    let sandbox = Sandbox::new();
    let long = "Aa1".repeat(43);
    for bad in ["Short1a", "onlylowercase1", "Abc1mindefghijk", "xyzADMin1234567", &long] {
        let refused = change_password(&sandbox, bad).await.expect(400);
        assert!(!refused.text.contains(bad), "the answer repeats the password");
    }
    assert_eq!(server(&sandbox).await["properties"]["state"], "Ready");
    change_password(&sandbox, "with##@!Symbols").await.expect(202);
}

#[tokio::test]
async fn stopped_servers_and_replicas_are_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.set("resource_manager", "state", json!("Stopped"));
    assert_eq!(server(&sandbox).await["properties"]["state"], "Stopped");
    assert_eq!(change_password(&sandbox, NEW).await.expect(409).body["error"]["code"], "ServerIsNotReady");
    sandbox.set("resource_manager", "state", json!("Ready"));
    sandbox.set("resource_manager", "replica", json!(true));
    assert_eq!(server(&sandbox).await["properties"]["replicationRole"], "AsyncReplica");
    change_password(&sandbox, NEW).await.expect(400);
    assert_eq!(lock(&sandbox.servers.passwords).len(), 0);
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let sandbox = Sandbox::new();
    let before = server(&sandbox).await;
    let body = json!({
        "tags": {"environment": "dev"},
        "properties": {
            "administratorLogin": "somebodyelse",
            "state": "Stopped",
            "backup": {"backupRetentionDays": 7},
        },
    });
    let accepted = sandbox.arm("PATCH", SERVER, Some(body)).await.expect(202);
    finished(&sandbox, &accepted).await;
    let mut expected = before;
    expected["properties"]["backup"]["backupRetentionDays"] = json!(7);
    assert_eq!(server(&sandbox).await, expected);
    assert_eq!(lock(&sandbox.servers.passwords).len(), 0);
}

#[tokio::test]
async fn an_operation_can_fail_with_and_without_its_effect() {
    let sandbox = Sandbox::new();
    for (applied, count) in [(false, 0), (true, 1)] {
        let how = json!({"code": "InternalServerError", "message": "try again", "applied": applied});
        sandbox.set("resource_manager", "fail_next", how);
        let accepted = change_password(&sandbox, NEW).await.expect(202);
        let done = finished(&sandbox, &accepted).await;
        assert_eq!(done.body["status"], "Failed");
        assert_eq!(done.body["error"]["code"], "InternalServerError");
        assert_eq!(lock(&sandbox.servers.passwords).len(), count);
    }
    let accepted = change_password(&sandbox, NEW).await.expect(202);
    assert_eq!(finished(&sandbox, &accepted).await.body["status"], "Succeeded");
}

#[tokio::test]
async fn tokens_are_checked_before_anything_else() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.resource_manager.clone().router()).await;
    let bare = answer(site.request("GET", "/subscriptions?api-version=2022-12-01")).await.expect(401);
    assert_eq!(bare.body["error"]["code"], "AuthenticationFailed");
    assert!(bare.header("www-authenticate").starts_with("Bearer authorization_uri="));
    let vault = sandbox.vendors.sign_in.token_for("https://vault.azure.net/.default");
    let wrong = answer(site.request("GET", "/subscriptions?api-version=2022-12-01").bearer_auth(vault)).await;
    assert_eq!(wrong.expect(401).body["error"]["code"], "InvalidAuthenticationTokenAudience");
    let token = sandbox.vendors.sign_in.token_for(&format!("{ARM}/.default"));
    let request = || site.request("GET", "/subscriptions?api-version=2022-12-01").bearer_auth(&token);
    answer(request()).await.expect(200);
    let unversioned = answer(site.request("GET", "/subscriptions").bearer_auth(&token)).await.expect(400);
    assert_eq!(unversioned.body["error"]["code"], "MissingApiVersionParameter");
    sandbox.set("resource_manager", "tokens_expired", Value::Null);
    assert_eq!(answer(request()).await.expect(401).body["error"]["code"], "ExpiredAuthenticationToken");
}

#[tokio::test]
async fn what_is_missing_is_named_by_its_kind() {
    let sandbox = Sandbox::new();
    let path = "/Microsoft.DBforPostgreSQL/flexibleServers/nothing";
    assert_eq!(sandbox.arm("GET", path, None).await.expect(404).body["error"]["code"], "ResourceNotFound");
    let ask = async |path: String| {
        sandbox.arm_path("GET", &path, None).await.expect(404).body["error"]["code"].clone()
    };
    assert_eq!(
        ask(format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/nothing")).await,
        "ResourceGroupNotFound"
    );
    let inside = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/nothing/providers{SERVER}");
    assert_eq!(ask(inside).await, "ResourceGroupNotFound");
    assert_eq!(ask("/subscriptions/nothing".to_owned()).await, "SubscriptionNotFound");
}

#[tokio::test]
async fn paths_ignore_case_and_doubled_slashes() {
    let sandbox = Sandbox::new();
    let path = format!(
        "//subscriptions/{SUBSCRIPTION}/resourcegroups/RG-MindWell-Dev/providers/microsoft.dbforpostgresql/\
         flexibleservers/PGFLEX-mindwell-dev"
    );
    let found = sandbox.arm_path("GET", &path, None).await.expect(200);
    assert_eq!(found.body["name"], "pgflex-mindwell-dev");
}

#[tokio::test]
async fn a_missing_right_is_shown_and_refused() {
    let sandbox = Sandbox::new();
    let write = "Microsoft.DBforPostgreSQL/flexibleServers/write";
    let poll = "Microsoft.DBforPostgreSQL/locations/azureAsyncOperation/read";
    sandbox.set("resource_manager", "deny", json!([write]));
    let path = format!("{SERVER}/providers/Microsoft.Authorization/permissions");
    let shown = sandbox.arm("GET", &path, None).await.expect(200);
    assert_eq!(shown.body["value"][0]["notActions"], json!([write]));
    let refused = change_password(&sandbox, NEW).await.expect(403);
    assert_eq!(refused.body["error"]["code"], "AuthorizationFailed");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains(write));
    // The right that custom roles forget: the change is made and can't be followed.
    sandbox.set("resource_manager", "deny", json!([poll]));
    let accepted = change_password(&sandbox, NEW).await.expect(202);
    follow(&sandbox, accepted.header("azure-asyncoperation")).await.expect(403);
}

#[tokio::test]
async fn locks_are_listed_and_kept() {
    let sandbox = Sandbox::new();
    let locks = "/Microsoft.Authorization/locks";
    assert_eq!(sandbox.arm("GET", locks, None).await.expect(200).body["value"], json!([]));
    sandbox.set("resource_manager", "lock", json!("ReadOnly"));
    let listed = sandbox.arm("GET", locks, None).await.expect(200);
    assert_eq!(listed.body["value"][0]["properties"]["level"], "ReadOnly");
    assert_eq!(change_password(&sandbox, NEW).await.expect(409).body["error"]["code"], "ScopeLocked");
    let list = "/Microsoft.Web/sites/mindwell-dev-api/config/appsettings/list";
    assert_eq!(sandbox.arm("POST", list, None).await.expect(409).body["error"]["code"], "ScopeLocked");
    sandbox.arm("GET", SERVER, None).await.expect(200);
}

#[tokio::test]
async fn a_lock_can_be_anywhere_and_a_deny_assignment_outweighs_the_role() {
    let sandbox = Sandbox::new();
    let app = "/Microsoft.Web/sites/mindwell-dev-api";
    sandbox.set("resource_manager", "lock", json!({"level": "ReadOnly", "at": "application"}));
    let listed = async |of: &str| {
        let path = format!("{of}/providers/Microsoft.Authorization/locks");
        sandbox.arm("GET", &path, None).await.expect(200).body["value"].as_array().unwrap().len()
    };
    assert_eq!((listed(app).await, listed(SERVER).await), (1, 0));
    let list = format!("{app}/config/appsettings/list");
    assert_eq!(sandbox.arm("POST", &list, None).await.expect(409).body["error"]["code"], "ScopeLocked");
    change_password(&sandbox, NEW).await.expect(202);

    sandbox.set("resource_manager", "lock", Value::Null);
    let write = "Microsoft.DBforPostgreSQL/flexibleServers/write";
    sandbox.set("resource_manager", "deny_assignment", json!({"actions": [write]}));
    let path = format!("{SERVER}/providers/Microsoft.Authorization/denyAssignments");
    let shown = sandbox.arm("GET", &path, None).await.expect(200).body["value"][0]["properties"].clone();
    assert_eq!(shown["permissions"][0]["actions"], json!([write]));
    let permissions = format!("{SERVER}/providers/Microsoft.Authorization/permissions");
    let permissions = sandbox.arm("GET", &permissions, None).await.expect(200).body;
    assert_eq!(permissions["value"][0]["notActions"], json!([]), "it is not seen there");
    let refused = change_password(&sandbox, NEW).await.expect(403);
    assert_eq!(refused.body["error"]["code"], "DenyAssignmentAuthorizationFailed");
}

#[tokio::test]
async fn the_vault_says_whether_roles_or_policies_count() {
    let sandbox = Sandbox::new();
    let path = "/Microsoft.KeyVault/vaults/kv-mindwell-dev";
    let vault = sandbox.arm("GET", path, None).await.expect(200);
    assert_eq!(vault.body["properties"]["enableRbacAuthorization"], true);
    assert_eq!(vault.body["properties"]["vaultUri"], "https://kv-mindwell-dev.vault.localhost:8444/");
    sandbox.set("key_vault", "access_policy", json!(["get", "list"]));
    let vault = sandbox.arm("GET", path, None).await.expect(200).body["properties"].clone();
    assert_eq!(vault["enableRbacAuthorization"], false);
    assert_eq!(vault["accessPolicies"][0]["objectId"], sandbox.vendors.sign_in.object_id());
    assert_eq!(vault["accessPolicies"][0]["permissions"]["secrets"], json!(["get", "list"]));
    sandbox.arm("GET", "/Microsoft.KeyVault/vaults/kv-mindwell-staging", None).await.expect(404);
}

#[tokio::test]
async fn tools_find_the_clouds_addresses_and_what_is_in_it() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.resource_manager.clone().router()).await;
    let metadata = async |version: &str| {
        let path = format!("/metadata/endpoints?api-version={version}");
        answer(site.request("GET", &path)).await.expect(200).body
    };
    let old = metadata("2015-01-01").await;
    assert_eq!(old["authentication"]["loginEndpoint"], "https://login.localhost:8442");
    let list = metadata("2019-05-01").await;
    assert_eq!(list[0]["suffixes"]["keyVaultDns"], "vault.localhost:8444");
    let new = metadata("2022-09-01").await;
    assert_eq!(new["resourceManager"], ARM);
    assert_eq!(
        sandbox.arm_path("GET", "/tenants", None).await.expect(200).body["value"][0]["tenantType"],
        "AAD"
    );
    let all = sandbox.arm_path("GET", "/subscriptions", None).await.expect(200);
    assert_eq!(all.body["value"].as_array().unwrap().len(), 2);
    let groups = format!("/subscriptions/{SUBSCRIPTION}/resourcegroups");
    let groups = sandbox.arm_path("GET", &groups, None).await.expect(200);
    assert_eq!(groups.body["value"][0]["name"], "rg-mindwell-dev");
    let filter = "resourceType%20eq%20'Microsoft.KeyVault%2Fvaults'%20and%20name%20eq%20'kv-mindwell-dev'";
    let found = format!("/subscriptions/{SUBSCRIPTION}/resources?$filter={filter}");
    let found = sandbox.arm_path("GET", &found, None).await.expect(200).body;
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    assert_eq!(found["value"][0]["name"], "kv-mindwell-dev");
    let replicas = sandbox.arm("GET", &format!("{SERVER}/replicas"), None).await.expect(200);
    assert_eq!(replicas.body["value"], json!([]));
}
