//! Issue comments, and the workflow runs that still hold yesterday's secrets.

use axum::response::Response;
use serde_json::{Value, json};

use super::super::call::{Call, now_text, reply, with_header};
use super::secrets::slice;
use super::{Failure, Hub, Outcome, site, user};

/// A comment on an issue.
pub(super) struct Comment {
    pub(super) id: u64,
    pub(super) body: String,
    repository: String,
    number: u64,
    at: String,
}

impl Comment {
    /// The comment as the control interface shows it.
    pub(super) fn for_control(&self) -> Value {
        json!({
            "at": self.at,
            "system": "github",
            "ticket": format!("{}#{}", self.repository, self.number),
            "body": self.body,
        })
    }

    fn resource(&self, base: &str) -> Value {
        let site = site(base);
        let repository = &self.repository;
        json!({
            "id": self.id,
            "node_id": "IC_kwDOKlJtAs5d",
            "url": format!("{base}/repos/{repository}/issues/comments/{}", self.id),
            "html_url": format!("{site}/{repository}/issues/{}#issuecomment-{}", self.number, self.id),
            "issue_url": format!("{base}/repos/{repository}/issues/{}", self.number),
            "body": self.body,
            "user": user(base),
            "created_at": self.at,
            "updated_at": self.at,
            "author_association": "MEMBER",
            "performed_via_github_app": null,
        })
    }
}

/// A call to an issue; `rest` is what follows its number.
pub(super) fn serve(
    hub: &mut Hub,
    call: &Call,
    base: &str,
    repository: &str,
    number: &str,
    rest: &[&str],
) -> Outcome {
    let number: u64 = number.parse().map_err(|_| Failure::not_found())?;
    let key = (repository.to_owned(), number);
    if hub.issues_disabled {
        return Err(Failure::new(410, "Issues has been disabled in this repository."));
    }
    let comments = hub.issues.get_mut(&key).ok_or_else(Failure::not_found)?;
    match (call.method.as_str(), rest) {
        ("GET", []) => Ok(reply(200, issue(base, repository, number, comments.len()))),
        ("GET", ["comments"]) => {
            let all: Vec<Value> = comments.iter().map(|comment| comment.resource(base)).collect();
            let (shown, links) = slice(call, base, &all);
            let answer = reply(200, json!(shown));
            Ok(match links {
                Some(links) => with_header(answer, "link", &links),
                None => answer,
            })
        }
        ("POST", ["comments"]) => {
            let request = call.json().map_err(|_| Failure::new(400, "Problems parsing JSON"))?;
            let body = request["body"].as_str().filter(|body| !body.trim().is_empty()).ok_or_else(|| {
                let mut failure = Failure::new(422, "Validation Failed");
                failure.errors =
                    Some(json!([{"resource": "IssueComment", "code": "missing_field", "field": "body"}]));
                failure
            })?;
            hub.comments_made += 1;
            let comment = Comment {
                id: 3_000_000_000 + hub.comments_made,
                body: body.to_owned(),
                repository: repository.to_owned(),
                number,
                at: now_text(),
            };
            let resource = comment.resource(base);
            comments.push(comment);
            let location = resource["url"].as_str().unwrap_or_default().to_owned();
            Ok(with_header(reply(201, resource), "location", &location))
        }
        _ => Err(Failure::not_found()),
    }
}

fn issue(base: &str, repository: &str, number: u64, comments: usize) -> Value {
    let site = site(base);
    let url = format!("{base}/repos/{repository}/issues/{number}");
    json!({
        "id": 2_000_000_000 + number,
        "number": number,
        "url": url,
        "comments_url": format!("{url}/comments"),
        "html_url": format!("{site}/{repository}/issues/{number}"),
        "title": "Rotate the PostgreSQL admin password",
        "state": "open",
        "locked": false,
        "comments": comments,
        "user": user(base),
    })
}

/// A workflow run as a list shows it.
pub(super) fn run(base: &str, id: u64, status: &str, environment: &str) -> Value {
    let site = site(base);
    let url = format!("{base}/repos/mindwell/backend/actions/runs/{id}");
    json!({
        "id": id,
        "name": format!("deploy {environment}"),
        "status": status,
        "conclusion": null,
        "event": "push",
        "head_branch": "main",
        "run_number": id - 8_999_999,
        "url": url,
        "html_url": format!("{site}/mindwell/backend/actions/runs/{id}"),
        "created_at": now_text(),
    })
}

/// The runs, by the status that was asked for.
pub(super) fn runs(hub: &Hub, call: &Call) -> Response {
    let wanted = call.query("status");
    let runs: Vec<Value> =
        hub.runs.iter().filter(|run| wanted.is_none_or(|status| run["status"] == status)).cloned().collect();
    super::secrets::page(call, "", "workflow_runs", &runs)
}
