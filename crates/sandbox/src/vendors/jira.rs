//! Jira's comments on an issue, version 2 of its interface: plain text bodies.
//!
//! Simplified: of an issue there is little more than its comments, and `visibility` is kept but restricts nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Call, empty, lock, reply};
use super::{Environment, World};

/// The largest page of comments.
const PAGE_MAX: usize = 5000;

/// A Jira site.
pub(crate) struct Jira {
    base: String,
    email: String,
    token: String,
    /// Comments by issue; an issue is there if it has an entry.
    issues: Mutex<BTreeMap<String, Vec<Value>>>,
}

impl Jira {
    /// A site with issues OPS-1 to OPS-12.
    pub(crate) fn new(world: &World) -> Self {
        Self {
            base: world.endpoints.jira.clone(),
            email: world.credentials.jira_email.clone(),
            token: world.credentials.jira_token.clone(),
            issues: Mutex::new((1..=12).map(|number| (format!("OPS-{number}"), Vec::new())).collect()),
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// The comments that name an environment, oldest first.
    pub(crate) fn comments(&self, environment: &Environment) -> Vec<Value> {
        let issues = lock(&self.issues);
        let all =
            issues.iter().flat_map(|(key, comments)| comments.iter().map(move |comment| (key, comment)));
        let mut found: Vec<Value> = all
            .filter(|(_, comment)| environment.is_named_in(comment["body"].as_str().unwrap_or_default()))
            .map(|(key, comment)| {
                json!({"at": comment["created"], "system": "jira", "ticket": key, "body": comment["body"]})
            })
            .collect();
        found.sort_by(|one, other| one["at"].as_str().cmp(&other["at"].as_str()));
        found
    }

    fn author(&self) -> Value {
        json!({
            "self": format!("{}/rest/api/2/user?accountId=5b10a2844c20165700ede21g", self.base),
            "accountId": "5b10a2844c20165700ede21g",
            "displayName": "Rotation",
            "emailAddress": self.email,
            "active": true,
            "timeZone": "Europe/Berlin",
            "accountType": "atlassian",
        })
    }

    fn comment(&self, key: &str, id: usize, request: &Value) -> Value {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string();
        let mut comment = json!({
            "self": format!("{}/rest/api/2/issue/{key}/comment/{id}", self.base),
            "id": id.to_string(),
            "author": self.author(),
            "body": request["body"],
            "updateAuthor": self.author(),
            "created": now,
            "updated": now,
            "jsdPublic": true,
        });
        if request["visibility"].is_object() {
            comment["visibility"] = request["visibility"].clone();
        }
        comment
    }

    fn list(&self, call: &Call, comments: &[Value]) -> Value {
        let start = call.query_number("startAt").unwrap_or(0);
        let size = call.query_number("maxResults").unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let shown: Vec<&Value> = comments.iter().skip(start).take(size).collect();
        json!({"startAt": start, "maxResults": size, "total": comments.len(), "comments": shown})
    }
}

/// Jira's errors: sentences, and texts by field.
fn failure(status: u16, messages: &[&str], errors: Value) -> Response {
    reply(status, json!({"errorMessages": messages, "errors": errors}))
}

async fn serve(State(service): State<Arc<Jira>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    let presented = call.basic();
    if presented.as_ref() != Some(&(service.email.clone(), service.token.clone())) {
        let text = "Client must be authenticated to access this resource.";
        return failure(401, &[text], json!({}));
    }
    let mut issues = lock(&service.issues);
    let total: usize = issues.values().map(Vec::len).sum();
    let missing =
        || failure(404, &["Issue does not exist or you do not have permission to see it."], json!({}));
    match (call.method.as_str(), call.segments().as_slice()) {
        ("GET", ["rest", "api", "2", "myself"]) => reply(200, service.author()),
        ("GET", ["rest", "api", "2", "issue", key]) => match issues.get(*key) {
            Some(comments) => {
                let fields = json!({
                    "summary": "Rotate the PostgreSQL admin password",
                    "comment": service.list(&call, comments),
                });
                reply(200, json!({"id": "10001", "key": key, "fields": fields}))
            }
            None => missing(),
        },
        ("GET", ["rest", "api", "2", "issue", key, "comment"]) => match issues.get(*key) {
            Some(comments) => reply(200, service.list(&call, comments)),
            None => missing(),
        },
        ("POST", ["rest", "api", "2", "issue", key, "comment"]) => {
            let Some(comments) = issues.get_mut(*key) else { return missing() };
            let Ok(request) = call.json() else {
                return failure(400, &["There was an error parsing JSON."], json!({}));
            };
            if request["body"].as_str().is_none_or(str::is_empty) {
                return failure(400, &[], json!({"comment": "Comment body can not be empty!"}));
            }
            let comment = service.comment(key, 10_001 + total, &request);
            comments.push(comment.clone());
            reply(201, comment)
        }
        _ => empty(404),
    }
}

#[cfg(test)]
mod tests;
