use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::super::testing::{ARM, Answer, KEY_VAULT, Sandbox, answer, serve};

const TENANT: &str = "00000000-0000-0000-0000-0000000000aa";

async fn token(sandbox: &Sandbox, fields: &[(&str, &str)]) -> Answer {
    let site = serve(sandbox.vendors.sign_in.clone().router()).await;
    let mut form = vec![("grant_type", "client_credentials"), ("client_id", "client")];
    form.extend(fields);
    answer(site.request("POST", &format!("/{TENANT}/oauth2/v2.0/token")).form(&form)).await
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_for_whom() {
    let sandbox = Sandbox::new();
    let given = token(
        &sandbox,
        &[("client_secret", "client-secret"), ("scope", "https://management.azure.com/.default")],
    )
    .await
    .expect(200);
    assert_eq!(given.body["token_type"], "Bearer");
    let claims = claims(given.body["access_token"].as_str().unwrap());
    assert_eq!(claims["aud"], "https://management.azure.com");
    assert_eq!(claims["tid"], TENANT);
    assert_eq!(claims["appid"], "client");
    assert_eq!(claims["oid"], sandbox.vendors.sign_in.object_id());
    assert!(claims["exp"].as_i64().unwrap() > jiff::Timestamp::now().as_second());
}

#[tokio::test]
async fn the_sandboxs_own_addresses_are_audiences_too() {
    let sandbox = Sandbox::new();
    for scope in [
        format!("{ARM}/.default"),
        format!("{ARM}//.default"),
        format!("{KEY_VAULT}/.default"),
        "https://management.core.windows.net//.default".to_owned(),
        "https://appservice.azure.com/.default".to_owned(),
        "https://vault.azure.net/.default openid offline_access".to_owned(),
    ] {
        token(&sandbox, &[("client_secret", "client-secret"), ("scope", &scope)]).await.expect(200);
    }
    let unknown =
        token(&sandbox, &[("client_secret", "client-secret"), ("scope", "https://graph.example/.default")]);
    assert_eq!(unknown.await.expect(400).body["error"], "invalid_resource");
}

#[tokio::test]
async fn a_wrong_secret_is_named_as_azure_names_it() {
    let sandbox = Sandbox::new();
    let scope = ("scope", "https://management.azure.com/.default");
    let refused = token(&sandbox, &[("client_secret", "wrong"), scope]).await.expect(401);
    assert_eq!(refused.body["error"], "invalid_client");
    assert_eq!(refused.body["error_codes"][0], 7_000_215);
    assert!(refused.body["error_description"].as_str().unwrap().starts_with("AADSTS7000215: "));
    assert!(!refused.text.contains("wrong"));
    let without = token(&sandbox, &[scope]).await.expect(401);
    assert_eq!(without.body["error_codes"][0], 7_000_218);
}

#[tokio::test]
async fn unknown_tenants_clients_and_grants_are_told_apart() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.sign_in.clone().router()).await;
    let post = |tenant: &str, form: &[(&str, &str)]| {
        let request = site.request("POST", &format!("/{tenant}/oauth2/v2.0/token")).form(form);
        answer(request)
    };
    let grant = ("grant_type", "client_credentials");
    assert_eq!(post("elsewhere", &[grant]).await.expect(400).body["error_codes"][0], 90002);
    assert_eq!(
        post(TENANT, &[grant, ("client_id", "x")]).await.expect(400).body["error"],
        "unauthorized_client"
    );
    assert_eq!(post(TENANT, &[]).await.expect(400).body["error"], "invalid_request");
    let password = post(TENANT, &[("grant_type", "password")]).await.expect(400);
    assert_eq!(password.body["error"], "unsupported_grant_type");
}

#[tokio::test]
async fn an_assertion_has_to_be_one_that_the_application_trusts() {
    let sandbox = Sandbox::new();
    let scope = ("scope", "https://vault.azure.net/.default");
    let trusted = sandbox.vendors.federation.service_account_token();
    token(&sandbox, &[("client_assertion", &trusted), scope]).await.expect(200);
    let made_up = token(&sandbox, &[("client_assertion", "e30.e30.c2ln"), scope]).await.expect(401);
    assert_eq!(made_up.body["error_codes"][0], 700_211);
    sandbox.set("sign_in", "assertions_expired", serde_json::json!(true));
    let late = token(&sandbox, &[("client_assertion", &trusted), scope]).await.expect(401);
    assert_eq!(late.body["error_codes"][0], 700_024);
}

#[tokio::test]
async fn a_secrets_time_can_be_over() {
    let sandbox = Sandbox::new();
    let fields = [("client_secret", "client-secret"), ("scope", "https://vault.azure.net/.default")];
    sandbox.set("sign_in", "secret_expired", serde_json::json!(true));
    assert_eq!(token(&sandbox, &fields).await.expect(401).body["error_codes"][0], 7_000_222);
    sandbox.set("sign_in", "secret_expired", serde_json::json!(false));
    token(&sandbox, &fields).await.expect(200);
}

#[tokio::test]
async fn tools_find_their_way_by_discovery() {
    let sandbox = Sandbox::new();
    let site = serve(sandbox.vendors.sign_in.clone().router()).await;
    let found =
        answer(site.request("GET", &format!("/{TENANT}/v2.0/.well-known/openid-configuration"))).await;
    let endpoint = format!("https://login.localhost:8442/{TENANT}/oauth2/v2.0/token");
    assert_eq!(found.expect(200).body["token_endpoint"], endpoint);
    let instance =
        answer(site.request("GET", "/common/discovery/instance?api-version=1.1")).await.expect(200);
    assert_eq!(instance.body["metadata"][0]["aliases"][0], "login.localhost:8442");
}
