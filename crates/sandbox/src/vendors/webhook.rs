//! Chat webhooks in three forms, told apart by their path: Slack's incoming webhook, a Teams workflow, plain JSON.
//! What is posted is kept for the control interface.
//!
//! Simplified: Slack's blocks and Teams' cards aren't validated beyond being what they must be at the top.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::call::{Call, empty, lock, now_text, reply, text};
use super::{Environment, World};

/// The webhooks and what has been posted to them.
pub(crate) struct Webhook {
    slack_path: String,
    teams_signature: String,
    messages: Mutex<Vec<Message>>,
}

struct Message {
    at: String,
    form: &'static str,
    /// Every text in the message, line by line.
    text: String,
    /// The environment that a plain message names in its own field.
    environment: Option<String>,
}

impl Webhook {
    /// Webhooks that nobody has posted to.
    pub(crate) fn new(world: &World) -> Self {
        Self {
            slack_path: world.credentials.slack_path.clone(),
            teams_signature: world.credentials.teams_signature.clone(),
            messages: Mutex::default(),
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// The messages about an environment, oldest first.
    pub(crate) fn messages(&self, environment: &Environment) -> Vec<Value> {
        let about = |message: &&Message| match &message.environment {
            Some(name) => *name == environment.name,
            None => environment.is_named_in(&message.text),
        };
        let shown = |message: &Message| json!({"at": message.at, "form": message.form, "text": message.text});
        lock(&self.messages).iter().filter(about).map(shown).collect()
    }

    fn keep(&self, form: &'static str, body: &Value) {
        let mut texts = Vec::new();
        collect(body, &mut texts);
        let environment = body["environment"].as_str().map(str::to_owned);
        lock(&self.messages).push(Message { at: now_text(), form, text: texts.join("\n"), environment });
    }

    fn slack(&self, call: &Call) -> Response {
        let Ok(body) = call.json() else { return text(400, "invalid_payload") };
        if body["text"].as_str().is_none_or(str::is_empty) && !body["blocks"].is_array() {
            return text(400, "no_text");
        }
        self.keep("slack", &body);
        text(200, "ok")
    }

    fn teams(&self, call: &Call) -> Response {
        if call.query("sig") != Some(&self.teams_signature) {
            let error = json!({
                "code": "DirectApiAuthorizationRequired",
                "message": "The request must be authenticated only by Shared Access scheme.",
            });
            return reply(401, json!({"error": error}));
        }
        match call.json() {
            Ok(body) if body["attachments"].is_array() => {
                self.keep("teams", &body);
                empty(202)
            }
            _ => {
                let error =
                    json!({"code": "TriggerInputSchemaMismatch", "message": "attachments are required"});
                reply(400, json!({"error": error}))
            }
        }
    }

    fn plain(&self, call: &Call) -> Response {
        match call.json() {
            Ok(body) => {
                self.keep("json", &body);
                empty(204)
            }
            Err(_) => reply(400, json!({"error": "the body is not JSON"})),
        }
    }
}

/// Every string of a message: texts stand in different places in each form.
fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(entries) => entries.iter().for_each(|entry| collect(entry, texts)),
        Value::Object(fields) => fields.values().for_each(|entry| collect(entry, texts)),
        _ => {}
    }
}

async fn serve(State(service): State<Arc<Webhook>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    match (call.method.as_str(), call.segments().as_slice()) {
        ("POST", _) if call.path == service.slack_path => service.slack(&call),
        // A Slack URL is a credential: a wrong one is told no more than that.
        ("POST", ["services", ..]) => text(403, "invalid_token"),
        ("POST", ["workflows", _, "triggers", _, "paths", "invoke"]) => service.teams(&call),
        ("POST", ["hooks", ..]) => service.plain(&call),
        _ => empty(404),
    }
}

#[cfg(test)]
mod tests;
