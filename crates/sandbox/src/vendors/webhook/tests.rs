use serde_json::{Value, json};

use super::super::testing::{Answer, Sandbox, answer, serve};

async fn post(sandbox: &Sandbox, path: &str, body: Value) -> Answer {
    let site = serve(sandbox.vendors.webhook.clone().router()).await;
    answer(site.request("POST", path).json(&body)).await
}

#[tokio::test]
async fn slack_says_ok_in_plain_text() {
    let sandbox = Sandbox::new();
    let path = "/services/T0/B0/key";
    let said = post(&sandbox, path, json!({"text": "rotated dev, run 1"})).await.expect(200);
    assert_eq!(said.text, "ok");
    assert_eq!(post(&sandbox, path, json!({"channel": "x"})).await.expect(400).text, "no_text");
    assert_eq!(
        post(&sandbox, "/services/T0/B0/other", json!({"text": "x"})).await.expect(403).text,
        "invalid_token"
    );
    let messages = sandbox.vendors.messages("dev");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["form"], "slack");
    assert_eq!(messages[0]["text"], "rotated dev, run 1");
    assert_eq!(sandbox.vendors.messages("staging").len(), 0);
}

#[tokio::test]
async fn a_teams_workflow_accepts_a_signed_card() {
    let sandbox = Sandbox::new();
    let path = "/workflows/abc/triggers/manual/paths/invoke?api-version=2016-06-01&sp=x&sv=1.0&sig=";
    let block = json!({"type": "TextBlock", "text": "rotated kv-mindwell-staging"});
    let card = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {"type": "AdaptiveCard", "body": [block]},
        }],
    });
    let accepted = post(&sandbox, &format!("{path}signature"), card.clone()).await.expect(202);
    assert_eq!(accepted.text, "");
    let refused = post(&sandbox, &format!("{path}wrong"), card).await.expect(401);
    assert_eq!(refused.body["error"]["code"], "DirectApiAuthorizationRequired");
    post(&sandbox, &format!("{path}signature"), json!({"text": "x"})).await.expect(400);
    assert_eq!(sandbox.vendors.messages("staging").len(), 1);
}

#[tokio::test]
async fn plain_json_may_name_its_environment() {
    let sandbox = Sandbox::new();
    let body = json!({"environment": "staging", "summary": "developer of dev did it"});
    post(&sandbox, "/hooks/on-call", body).await.expect(204);
    assert_eq!(sandbox.vendors.messages("staging").len(), 1);
    assert_eq!(sandbox.vendors.messages("dev").len(), 0, "its own field counts, not the words");
    post(&sandbox, "/hooks/on-call", json!({"summary": "developer tools"})).await.expect(204);
    assert_eq!(sandbox.vendors.messages("dev").len(), 0, "a part of a word is not the name");
    post(&sandbox, "/elsewhere", json!({})).await.expect(404);
}
