//! The on-call message by incoming webhook, in the form of Slack, of a Teams workflow, or as plain JSON.
//! `[[records]] kind = "webhook"`.
//!
//! A webhook can't be asked whether a message arrived. So a message is sent at most once: when an earlier try may have
//! arrived, it is reported as *unseen* and not repeated. The webhook's URL is a credential; the configuration names the
//! variable that holds it.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Finding, Recorder, Severity, Story};
use pgrotate_core::{Error, Kind, Result, Retry};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{self, Effect, kind_of, retry_after, retry_of, unanswered, with_retry};
use crate::shared::Shared;

/// `[[records]] kind = "webhook"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The form of the message.
    pub format: Format,
    /// The variable that holds the URL.
    pub url_variable: String,
}

/// The form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Slack's incoming webhooks, and everything that takes their form.
    Slack,
    /// A Teams workflow that posts an adaptive card.
    Teams,
    /// The story as a JSON object.
    Json,
}

/// One webhook.
pub struct Webhook {
    id: String,
    options: Options,
    shared: Arc<Shared>,
}

impl Webhook {
    /// Binds the recorder.
    ///
    /// # Errors
    /// When the variable's name is a URL: then the credential itself stands in the configuration.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        if options.url_variable.contains("://") {
            return Err(Error::new(Kind::Config, "use a URL in `url_variable`")
                .because("a webhook's URL is a credential, and credentials never stand in the configuration")
                .hint("put the URL into a variable and write the variable's name here"));
        }
        Ok(Self { id: name.unwrap_or_else(|| "webhook".to_owned()), options, shared })
    }

    fn url(&self) -> Result<Url> {
        let purpose = format!("the webhook {}", self.id);
        let text =
            self.shared.credentials.need(&self.options.url_variable, &purpose, "make an incoming webhook")?;
        http::endpoint(text.expose())
            .map_err(|error| error.during(format!("use the URL in {}", self.options.url_variable)))
    }

    fn message(&self, story: &Story) -> Value {
        match self.options.format {
            Format::Slack => json!({ "text": text(story) }),
            Format::Teams => json!({ "type": "message", "attachments": [card(story)] }),
            Format::Json => json!({ "event": "password_rotated", "text": text(story), "rotation": story }),
        }
    }
}

#[async_trait]
impl Recorder for Webhook {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        Ok(match self.url() {
            Ok(_) => Vec::new(),
            Err(error) => {
                let finding = Finding::new(Severity::Blocks, self.id.as_str(), error.to_string());
                vec![finding.mend(error.hints().join("; "))]
            }
        })
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        if again {
            return Ok(Outcome::unseen(
                "the message may have been posted by an earlier try; it is not repeated",
            ));
        }
        let operation = format!("post to the webhook {}", self.id);
        let request = self.shared.http.post(self.url()?).json(&self.message(story));
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(unanswered(&error, Effect::Writes, operation)),
        };
        match response.status() {
            StatusCode::ACCEPTED => {
                Ok(Outcome::changed().note("accepted; whether the workflow then posts it can't be seen"))
            }
            status if status.is_success() => Ok(Outcome::changed()),
            status => {
                Err(classify(status, retry_of(status, Effect::Writes, retry_after(&response)), operation))
            }
        }
    }
}

fn classify(status: StatusCode, retry: Retry, operation: String) -> Error {
    let error = Error::new(kind_of(status), operation).because(format!("it answers {}", status.as_u16()));
    let error = match status.as_u16() {
        403 | 404 | 410 => {
            error.hint("the webhook may have been removed; make a new one and store its URL in the variable")
        }
        _ => error,
    };
    with_retry(error, retry)
}

/// The message in words. It has ids and times, never a value.
fn text(story: &Story) -> String {
    let ticket = story.ticket.as_ref().map(|ticket| format!(", ticket {ticket}")).unwrap_or_default();
    let ids: String = story.secret_ids().map(|(copy, version)| format!("\n{copy}: {version}")).collect();
    format!(
        "The PostgreSQL password of {} was rotated and proven ({}), by {}{ticket}, run {}.{ids}",
        story.environment, story.target, story.operator, story.run
    )
}

fn card(story: &Story) -> Value {
    let fact = |title: &str, value: String| json!({ "title": title, "value": value });
    let mut facts = vec![
        fact("environment", story.environment.to_string()),
        fact("operator", story.operator.clone()),
        fact("run", story.run.to_string()),
        fact("proven at", format!("{:.0}", story.proven_at)),
    ];
    facts.extend(story.ticket.iter().map(|ticket| fact("ticket", ticket.clone())));
    facts.extend(story.secret_ids().map(|(copy, version)| fact(copy.as_str(), version.to_string())));
    json!({
        "contentType": "application/vnd.microsoft.card.adaptive",
        "content": {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                { "type": "TextBlock", "weight": "bolder", "wrap": true, "text": format!("PostgreSQL password of {} rotated", story.environment) },
                { "type": "FactSet", "facts": facts },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use pgrotate_core::journal::Effect as Did;

    use super::*;
    use crate::fake;
    use crate::shared::Vendors;

    const URL: &str = "PGROTATE_TEST_WEBHOOK";

    fn webhook(format: &str, url: &str) -> Webhook {
        let options = serde_json::from_value(json!({ "format": format, "url_variable": URL })).unwrap();
        Webhook::new(
            Some("on-call".into()),
            options,
            fake::shared(Vendors::default(), &format!("{URL}={url}\n")),
        )
        .unwrap()
    }

    fn story() -> Story {
        let at = "2026-11-23T22:36:01Z".parse().unwrap();
        Story {
            run: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            environment: "dev".into(),
            operator: "ana".into(),
            ticket: Some("OPS-12".into()),
            started_at: at,
            proven_at: at,
            target: "admin@db:5432/app".into(),
            versions: [("azure_key_vault:url".into(), "https://v/secrets/url/1".into())].into(),
            window_ms: Some(1200),
        }
    }

    async fn answering(status: u16) -> String {
        let router =
            Router::new().route("/hook", post(move || async move { StatusCode::from_u16(status).unwrap() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/hook?sig=hunter2")
    }

    #[test]
    fn each_form_tells_the_story() {
        for format in ["slack", "teams", "json"] {
            let message = webhook(format, "https://hooks.example.com/x").message(&story()).to_string();
            for part in ["dev", "ana", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "OPS-12", "https://v/secrets/url/1"] {
                assert!(message.contains(part), "{format}: {part} is missing in {message}");
            }
        }
    }

    #[tokio::test]
    async fn what_may_have_arrived_is_not_sent_again() {
        let outcome = webhook("slack", "http://127.0.0.1:1/").record(&story(), true).await.unwrap();
        assert_eq!(outcome.effect, Did::Unseen);
    }

    #[tokio::test]
    async fn answers_are_told_apart_and_the_url_stays_secret() {
        assert_eq!(
            webhook("slack", &answering(200).await).record(&story(), false).await.unwrap().effect,
            Did::Changed
        );
        assert_eq!(
            webhook("teams", &answering(202).await).record(&story(), false).await.unwrap().notes.len(),
            1
        );
        for (status, retry) in
            [(404, Retry::Never), (500, Retry::Unknown), (429, Retry::Later { after_ms: None })]
        {
            let error = webhook("slack", &answering(status).await).record(&story(), false).await.unwrap_err();
            assert_eq!(error.retry(), retry, "{status}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn a_missing_url_is_found_before_and_a_url_in_the_file_is_refused() {
        let findings = webhook("slack", "").check(None).await.unwrap();
        assert!(findings[0].what.contains(URL), "{findings:?}");
        let options = serde_json::from_value(
            json!({ "format": "slack", "url_variable": "https://hooks.example.com/x" }),
        )
        .unwrap();
        assert!(Webhook::new(None, options, fake::shared(Vendors::default(), "")).is_err());
    }
}
