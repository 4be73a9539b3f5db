use serde_json::{Value, json};

use super::super::testing::{Answer, Sandbox, answer, serve};

async fn ask(sandbox: &Sandbox, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let site = serve(sandbox.vendors.jira.clone().router()).await;
    let request = site.request(method, path).basic_auth("rotation@mindwell.example", Some(token));
    answer(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

#[tokio::test]
async fn comments_are_made_and_listed_in_pages() {
    let sandbox = Sandbox::new();
    let path = "/rest/api/2/issue/OPS-12/comment";
    for number in 1..=3 {
        let body = json!({"body": format!("run {number}: dev rotated")});
        let made = ask(&sandbox, "jira-token", "POST", path, Some(body)).await.expect(201);
        assert!(made.body["id"].is_string());
    }
    let page =
        ask(&sandbox, "jira-token", "GET", &format!("{path}?startAt=1&maxResults=1"), None).await.expect(200);
    assert_eq!(
        (&page.body["startAt"], &page.body["maxResults"], &page.body["total"]),
        (&json!(1), &json!(1), &json!(3))
    );
    assert_eq!(page.body["comments"][0]["body"], "run 2: dev rotated");
    let comments = sandbox.vendors.comments("dev");
    assert_eq!(comments.len(), 3);
    assert_eq!((&comments[0]["system"], &comments[0]["ticket"]), (&json!("jira"), &json!("OPS-12")));
}

#[tokio::test]
async fn strangers_and_unknown_issues_are_refused() {
    let sandbox = Sandbox::new();
    let path = "/rest/api/2/issue/OPS-12/comment";
    ask(&sandbox, "wrong", "GET", path, None).await.expect(401);
    let missing =
        ask(&sandbox, "jira-token", "GET", "/rest/api/2/issue/OPS-99/comment", None).await.expect(404);
    assert_eq!(
        missing.body["errorMessages"][0],
        "Issue does not exist or you do not have permission to see it."
    );
    let empty = ask(&sandbox, "jira-token", "POST", path, Some(json!({"body": ""}))).await.expect(400);
    assert!(empty.body["errors"]["comment"].is_string());
    assert_eq!(sandbox.vendors.comments("dev").len(), 0);
    ask(&sandbox, "jira-token", "GET", "/rest/api/2/issue/OPS-12", None).await.expect(200);
    let myself = ask(&sandbox, "jira-token", "GET", "/rest/api/2/myself", None).await.expect(200);
    assert_eq!(myself.body["emailAddress"], "rotation@mindwell.example");
}
