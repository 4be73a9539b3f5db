//! A message to people on call, by an incoming webhook: a recorder.
//!
//! Slack's form, a Teams card, or plain JSON. The URL is the credential: it is kept in a
//! variable and never shown. A webhook can't be asked what it has posted, so a message that may
//! have been posted is not posted again.
//!
//! Quirks:
//! - Slack answers 200 and `ok`; a webhook that was removed answers 403, 404 or 410.
//! - Teams (a Workflows URL) answers 202: accepted, and the flow can still fail. The connectors
//!   of Office 365, at `webhook.office.com`, were retired in May 2026.

mod by_hand;

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Finding, Recorder, Severity, Story};
use pgrotate_core::{Error, Kind, Result};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{self, Effect};
use crate::shared::Shared;

/// The kind in the configuration.
const KIND: &str = "webhook";
/// How many versions a message names. Teams takes 28 KB.
const VERSIONS: usize = 20;

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The form of the message.
    pub format: Format,
    /// The variable that holds the URL.
    pub url_variable: String,
}

/// The form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Slack, Mattermost and others that take Slack's form.
    Slack,
    /// A Teams workflow that posts an adaptive card.
    Teams,
    /// The story as one JSON object.
    Json,
}

/// An incoming webhook.
pub struct Webhook {
    id: String,
    format: Format,
    variable: String,
    shared: Arc<Shared>,
}

impl Webhook {
    /// Looks the URL up only when it is needed.
    ///
    /// # Errors
    /// When something else, such as the URL itself, stands where a variable's name belongs.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let id = name.unwrap_or_else(|| KIND.to_owned());
        let Options { format, url_variable: variable } = options;
        if !is_variable(&variable) {
            // Not repeated: it may be the URL, or a part of it.
            return Err(Error::new(Kind::Config, format!("use the webhook {id}"))
                .because("`url_variable` is no name of a variable: letters, digits and `_`, no digit first")
                .hint("put the URL into a variable of the environment, and that variable's name here"));
        }
        Ok(Self { id, format, variable, shared })
    }

    fn operation(&self) -> String {
        format!("post to the webhook {}", self.id)
    }

    fn url(&self) -> Result<Url> {
        let otherwise = "make an incoming webhook in the chat's settings";
        let url =
            self.shared.credentials.need(&self.variable, &format!("the webhook {}", self.id), otherwise)?;
        http::endpoint(url.expose()).map_err(|error| {
            error.during(self.operation()).hint(format!("{} has to hold its URL", self.variable))
        })
    }

    async fn accept(&self, answer: Response) -> Result<Outcome> {
        let status = answer.status();
        if !status.is_success() {
            return Err(self.classify(status, http::retry_after(&answer)));
        }
        match self.format {
            Format::Teams => {
                let note =
                    "the workflow has accepted the message; whether it is posted can't be seen from here";
                Ok(Outcome::changed().note(note))
            }
            Format::Slack if answer.text().await.is_ok_and(|body| body.trim() != "ok") => {
                Ok(Outcome::changed().note("the answer is not Slack's `ok`: is it a webhook for this form?"))
            }
            Format::Slack | Format::Json => Ok(Outcome::changed()),
        }
    }

    pub(crate) fn classify(&self, status: StatusCode, after: Option<std::time::Duration>) -> Error {
        let error = Error::new(http::kind_of(status), self.operation()).because(match status {
            StatusCode::TOO_MANY_REQUESTS => "the other side asks for fewer messages (429)".to_owned(),
            _ => format!("refused with {}", status.as_u16()),
        });
        let error = match status.as_u16() {
            401 | 403 | 404 | 410 => {
                error.hint(format!("make a new webhook and put its URL into {}", self.variable))
            }
            400 | 413 | 422 => error.hint("does `format` fit what listens there?"),
            _ => error,
        };
        http::with_retry(error, http::retry_of(status, Effect::Writes, after))
    }
}

/// Whether a text is a name that a shell would take for a variable.
fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first == '_' || first.is_ascii_alphabetic())
        && characters.all(|character| character == '_' || character.is_ascii_alphanumeric())
}

#[async_trait]
impl Recorder for Webhook {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        let url = self.url()?;
        if url.host_str().is_some_and(|host| host.ends_with("webhook.office.com")) {
            let what = "connectors of Office 365 were retired in May 2026";
            let mend = format!("make a workflow in Teams and put its URL into {}", self.variable);
            return Ok(vec![Finding::new(Severity::Warning, &self.id, what).mend(mend)]);
        }
        Ok(Vec::new())
    }

    async fn record(&self, story: &Story, again: bool) -> Result<Outcome> {
        if again {
            return Ok(Outcome::unseen(
                "may have been posted before; it is not repeated, and can't be looked up",
            ));
        }
        let message = match self.format {
            Format::Slack => slack(story),
            Format::Teams => teams(story),
            Format::Json => plain(story),
        };
        match http::send(self.shared.http.post(self.url()?).json(&message)).await {
            Ok(answer) => self.accept(answer).await,
            Err(error) => Err(http::unanswered(&error, Effect::Writes, self.operation())),
        }
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

/// The news in one sentence. The run's id makes a second one recognisable.
fn sentence(story: &Story) -> String {
    let Story { environment, target, operator, run, .. } = story;
    let mut text = match story.takes_back {
        None => format!(
            "The PostgreSQL password of {target} ({environment}) was rotated by {operator}; run {run}"
        ),
        Some(other) => format!(
            "The PostgreSQL password of {target} ({environment}) was taken back by {operator} to the one from before \
             the run {other}; run {run}"
        ),
    };
    if let Some(ticket) = &story.ticket {
        write!(text, ", ticket {ticket}").expect("writing to a String can't fail");
    }
    text.push('.');
    text
}

/// What is worth a line of its own.
fn facts(story: &Story) -> Vec<(String, String)> {
    let mut facts = vec![
        ("Proven at".to_owned(), story.proven_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()),
        ("Took".to_owned(), seconds(story.started_at.duration_until(story.proven_at).as_secs_f64())),
    ];
    if let Some(window) = story.window_ms {
        let words = match window {
            0 => "at no moment".to_owned(),
            window => seconds(f64::from(u32::try_from(window).unwrap_or(u32::MAX)) / 1e3),
        };
        facts.push(("Without login at most".into(), words));
    }
    facts.extend(
        story.versions.iter().take(VERSIONS).map(|(copy, version)| (copy.to_string(), version.to_string())),
    );
    if story.versions.len() > VERSIONS {
        facts.push(("and".into(), format!("{} more copies", story.versions.len() - VERSIONS)));
    }
    facts
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn slack(story: &Story) -> Value {
    // Slack reads these three as the beginning of a link, a mention or an entity.
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let sentence = escape(&sentence(story));
    let lines: Vec<String> =
        facts(story).iter().map(|(name, value)| format!("*{}:* {}", escape(name), escape(value))).collect();
    json!({
        "text": sentence,
        "blocks": [
            { "type": "section", "text": { "type": "mrkdwn", "text": sentence } },
            // A text of a section may have 3,000 characters.
            { "type": "section", "text": { "type": "mrkdwn", "text": shortened(&lines.join("\n"), 2_900) } },
        ],
    })
}

fn teams(story: &Story) -> Value {
    let facts: Vec<Value> =
        facts(story).into_iter().map(|(title, value)| json!({ "title": title, "value": value })).collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [
                    { "type": "TextBlock", "text": sentence(story), "weight": "Bolder", "wrap": true },
                    { "type": "FactSet", "facts": facts },
                ],
            },
        }],
    })
}

/// Everything that is known, for programs.
fn plain(story: &Story) -> Value {
    let mut message = serde_json::to_value(story).unwrap_or_default();
    message["event"] = "password_rotated".into();
    message["text"] = sentence(story).into();
    message
}

fn shortened(text: &str, length: usize) -> String {
    let end = text.floor_char_boundary(length);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

#[cfg(test)]
mod tests {
    use pgrotate_core::Retry;
    use pgrotate_core::journal;

    use super::*;
    use crate::fake::{self, Fake, Reply};
    use crate::shared::Vendors;

    const VARIABLE: &str = "PGROTATE_TEST_WEBHOOK";

    fn webhook(format: Format, url: &str) -> Webhook {
        let options = Options { format, url_variable: VARIABLE.into() };
        let credentials = if url.is_empty() { String::new() } else { format!("{VARIABLE}={url}") };
        Webhook::new(Some("on-call".into()), options, fake::shared(Vendors::default(), &credentials)).unwrap()
    }

    async fn answered(
        format: Format,
        answer: impl Fn() -> Reply + Send + Sync + 'static,
    ) -> (Result<Outcome>, usize) {
        let fake = Fake::start(move |_| answer()).await;
        let result = webhook(format, &format!("{}/services/hunter2", fake.url))
            .record(&fake::story(Some("OPS-12")), false)
            .await;
        assert!(!format!("{result:?}").contains("hunter2"), "the URL is a credential");
        (result, fake.calls().len())
    }

    /// What comes of a Slack message that is answered with 200 and this text.
    async fn slack_says(body: &'static str) -> Result<Outcome> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/services/hunter2", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(move || async move { body });
        tokio::spawn(async move { axum::serve(listener, router).await });
        webhook(Format::Slack, &url).record(&fake::story(None), false).await
    }

    #[tokio::test]
    async fn each_form_has_its_own_good_answer() {
        assert_eq!(slack_says("ok").await, Ok(Outcome::changed()));
        assert_eq!(answered(Format::Json, || Reply::empty(204)).await, (Ok(Outcome::changed()), 1));
        let fake = Fake::start(|_| Reply::empty(200)).await;
        webhook(Format::Json, &fake.url).record(&story(), false).await.unwrap();
        assert_eq!((fake.calls()[0].line().as_str(), fake.calls()[0].json()), ("POST /", plain(&story())));
        let accepted = answered(Format::Teams, || Reply::empty(202)).await.0.unwrap();
        assert!(accepted.effect == journal::Effect::Changed && accepted.notes[0].contains("can't be seen"));
        let odd = slack_says("<html>").await.unwrap();
        assert!(odd.notes[0].contains("not Slack's"));
    }

    #[tokio::test]
    async fn a_message_that_may_have_been_posted_is_not_repeated() {
        for answer in [|| Reply::hang_up(), || Reply::empty(502)] {
            let (result, calls) = answered(Format::Slack, answer).await;
            assert_eq!((result.unwrap_err().retry(), calls), (Retry::Unknown, 1));
        }
        // The executor comes back with `again`, and the webhook stays silent.
        let fake = Fake::start(|_| Reply::empty(200)).await;
        let outcome = webhook(Format::Slack, &fake.url).record(&fake::story(None), true).await.unwrap();
        assert_eq!((outcome.effect, fake.calls().len()), (journal::Effect::Unseen, 0));
    }

    #[tokio::test]
    async fn a_refusal_says_what_to_do() {
        let error = answered(Format::Slack, || Reply::empty(403)).await.0.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Forbidden, Retry::Never));
        assert!(error.hints()[0].contains(VARIABLE));
        let error =
            answered(Format::Slack, || Reply::empty(429).header("retry-after", "7")).await.0.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Throttled, Retry::Later { after_ms: Some(7_000) }));
        let nobody =
            webhook(Format::Json, "http://127.0.0.1:1/hunter2").record(&fake::story(None), false).await;
        assert_eq!(nobody.as_ref().unwrap_err().retry(), Retry::Later { after_ms: None });
        assert!(!format!("{nobody:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_missing_or_useless_url_is_found_before() {
        let missing = webhook(Format::Slack, "").check(None).await.unwrap_err();
        assert!(missing.hints()[0].contains(VARIABLE));
        for bad in ["http://hooks.example.com/hunter2", "hunter2"] {
            let error = webhook(Format::Slack, bad).check(None).await.unwrap_err();
            assert!(error.hints().iter().any(|hint| hint.contains(VARIABLE)));
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let retired =
            webhook(Format::Teams, "https://x.webhook.office.com/hunter2").check(None).await.unwrap();
        assert_eq!(retired[0].severity, Severity::Warning);
        assert_eq!(
            webhook(Format::Slack, "https://hooks.slack.com/services/a/b/c").check(None).await,
            Ok(Vec::new())
        );
    }

    #[test]
    fn only_a_variables_name_is_taken_and_nothing_else_is_repeated() {
        let new = |variable: &str| {
            let options = Options { format: Format::Slack, url_variable: variable.into() };
            Webhook::new(None, options, fake::shared(Vendors::default(), "")).err()
        };
        for good in ["ONCALL_WEBHOOK_URL", "_", "a1"] {
            assert_eq!(new(good), None, "{good}");
        }
        for bad in [
            "https://hooks.slack.com/hunter2",
            "hooks.slack.com/services/hunter2",
            "hunter2-",
            "$hunter2",
            "hunter2=x",
            "hunter2\n",
            "1hunter2",
            "hünter2",
        ] {
            let refused = new(bad).unwrap();
            assert_eq!((refused.kind(), refused.hints().len()), (Kind::Config, 1));
            let shown = format!("{refused} {refused:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("hünter2"), "{shown}");
        }
        assert!(new("").is_some());
    }

    fn story() -> Story {
        Story { operator: "ada <@U1> & co".into(), ..fake::story(Some("OPS-12")) }
    }

    #[test]
    fn slack_form() {
        insta::assert_json_snapshot!(slack(&story()), @r##"
        {
          "blocks": [
            {
              "text": {
                "text": "The PostgreSQL password of mindwelladmin@db.example.com:5432/mindwell_app (dev) was rotated by ada &lt;@U1&gt; &amp; co; run 01ARZ3NDEKTSV4RRFFQ69G5FAV, ticket OPS-12.",
                "type": "mrkdwn"
              },
              "type": "section"
            },
            {
              "text": {
                "text": "*Proven at:* 2026-01-01 00:01:00 UTC\n*Took:* 60.0 s\n*Without login at most:* 2.3 s\n*aws_secrets_manager:x:* abc\n*azure_key_vault:database-url:* https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef",
                "type": "mrkdwn"
              },
              "type": "section"
            }
          ],
          "text": "The PostgreSQL password of mindwelladmin@db.example.com:5432/mindwell_app (dev) was rotated by ada &lt;@U1&gt; &amp; co; run 01ARZ3NDEKTSV4RRFFQ69G5FAV, ticket OPS-12."
        }
        "##);
    }

    #[test]
    fn teams_form() {
        insta::assert_json_snapshot!(teams(&story()), @r##"
        {
          "attachments": [
            {
              "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "body": [
                  {
                    "text": "The PostgreSQL password of mindwelladmin@db.example.com:5432/mindwell_app (dev) was rotated by ada <@U1> & co; run 01ARZ3NDEKTSV4RRFFQ69G5FAV, ticket OPS-12.",
                    "type": "TextBlock",
                    "weight": "Bolder",
                    "wrap": true
                  },
                  {
                    "facts": [
                      {
                        "title": "Proven at",
                        "value": "2026-01-01 00:01:00 UTC"
                      },
                      {
                        "title": "Took",
                        "value": "60.0 s"
                      },
                      {
                        "title": "Without login at most",
                        "value": "2.3 s"
                      },
                      {
                        "title": "aws_secrets_manager:x",
                        "value": "abc"
                      },
                      {
                        "title": "azure_key_vault:database-url",
                        "value": "https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef"
                      }
                    ],
                    "type": "FactSet"
                  }
                ],
                "type": "AdaptiveCard",
                "version": "1.4"
              },
              "contentType": "application/vnd.microsoft.card.adaptive",
              "contentUrl": null
            }
          ],
          "type": "message"
        }
        "##);
    }

    #[test]
    fn plain_form() {
        insta::assert_json_snapshot!(plain(&story()), @r##"
        {
          "environment": "dev",
          "event": "password_rotated",
          "operator": "ada <@U1> & co",
          "proven_at": "2026-01-01T00:01:00Z",
          "run": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
          "started_at": "2026-01-01T00:00:00Z",
          "target": "mindwelladmin@db.example.com:5432/mindwell_app",
          "text": "The PostgreSQL password of mindwelladmin@db.example.com:5432/mindwell_app (dev) was rotated by ada <@U1> & co; run 01ARZ3NDEKTSV4RRFFQ69G5FAV, ticket OPS-12.",
          "ticket": "OPS-12",
          "versions": {
            "aws_secrets_manager:x": "abc",
            "azure_key_vault:database-url": "https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef"
          },
          "window_ms": 2300
        }
        "##);
    }

    #[test]
    fn a_message_stays_small() {
        let mut story = fake::story(None);
        for index in 0..500 {
            story
                .versions
                .insert(format!("azure_key_vault:{index}").as_str().into(), "v".repeat(150).as_str().into());
        }
        assert!(slack(&story)["blocks"][1]["text"]["text"].as_str().unwrap().len() < 3_000);
        assert!(teams(&story).to_string().len() < 28_000);
    }
}
