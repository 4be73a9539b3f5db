//! A comment on a Jira issue, as a recorder, for tickets like `OPS-12` or an issue's address.
//!
//! *Needs* `JIRA_EMAIL` and `JIRA_API_TOKEN` of an account with *Browse projects* and *Add
//! comments*.
//!
//! The interface is version 2, which takes plain text; version 3 wants documents. Jira posts a
//! repeated comment twice, so the newest comments are looked through for the run's line before
//! posting. Wrong credentials can make Jira treat a request as anonymous: what it then calls
//! absent may only be hidden.

mod by_hand;

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Finding, Recorder, Severity, Story};
use pgrotate_core::{Error, Kind, Result, RunId};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{self, Effect};
use crate::shared::Shared;
use crate::ticket;

/// The kind's name in the configuration.
const KIND: &str = "jira";
/// How many comments come at a time.
const PAGE: usize = 100;
/// An issue with more comments than this is no ticket.
const PAGES_MAX: usize = 20;

/// Which Jira.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The address of its pages, for instance `https://mindwell.atlassian.net`.
    pub url: String,
}

/// Comments on the Jira issue that the ticket names.
pub struct Jira {
    id: String,
    base: Url,
    shared: Arc<Shared>,
}

impl Jira {
    /// Makes the recorder.
    ///
    /// # Errors
    /// When the address can't be used.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let base = http::endpoint(options.url.trim_end_matches('/'))?;
        Ok(Self { id: name.unwrap_or_else(|| KIND.to_owned()), base, shared })
    }

    /// The issue's key, if the ticket is one of this Jira's.
    fn key(&self, ticket: Option<&str>) -> Option<String> {
        let ticket = ticket?.trim();
        let key = match ticket.contains("://") {
            true => {
                let rest = ticket.strip_prefix(self.base.as_str().trim_end_matches('/'))?;
                rest.strip_prefix("/browse/")?.split(['?', '#', '/']).next()?
            }
            false => ticket,
        };
        let (project, number) = key.split_once('-')?;
        let project_named = project.starts_with(|first: char| first.is_ascii_uppercase())
            && project.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        let counted = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (project_named && counted).then(|| key.to_owned())
    }

    fn request(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder> {
        let otherwise = "make an API token at id.atlassian.com";
        let user = self.shared.credentials.need("JIRA_EMAIL", "Jira", otherwise)?;
        let token = self.shared.credentials.need("JIRA_API_TOKEN", "Jira", otherwise)?;
        let mut url = self.base.clone();
        let mut path = url.path_segments_mut().expect("an http URL has a path");
        path.pop_if_empty().extend(["rest", "api", "2"]).extend(segments);
        drop(path);
        let request = self.shared.http.request(method, url).header("accept", "application/json");
        Ok(request.basic_auth(user.expose(), Some(token.expose())))
    }

    async fn send(&self, request: RequestBuilder, effect: Effect, operation: &str) -> Result<Value> {
        let unanswered = |error: reqwest::Error| http::unanswered(&error, effect, operation);
        let response = http::send(request).await.map_err(unanswered)?;
        if !response.status().is_success() {
            return Err(classify(&response, effect, operation));
        }
        let body = response.bytes().await.map_err(unanswered)?;
        serde_json::from_slice(&body).map_err(|_| {
            let error = Error::new(Kind::Corrupt, operation).because("Jira's answer is no JSON");
            if effect == Effect::Writes { error.unknown() } else { error.later(None) }
        })
    }

    /// Whether the run's comment is there, newest comments first.
    async fn is_told(&self, key: &str, run: RunId) -> Result<bool> {
        let line = line_of(run);
        let operation = format!("read the comments of {key}");
        let mut seen = 0;
        for _ in 0..PAGES_MAX {
            let query = [
                ("orderBy", "-created".to_owned()),
                ("startAt", seen.to_string()),
                ("maxResults", PAGE.to_string()),
            ];
            let request = self.request(Method::GET, &["issue", key, "comment"])?.query(&query);
            let answer = self.send(request, Effect::Reads, &operation).await?;
            let comments = answer["comments"].as_array().map_or(&[][..], Vec::as_slice);
            let ours = |comment: &Value| comment["body"].as_str().is_some_and(|body| body.contains(&line));
            if comments.iter().any(ours) {
                return Ok(true);
            }
            seen += comments.len();
            if comments.is_empty() || seen as u64 >= answer["total"].as_u64().unwrap_or(0) {
                break;
            }
        }
        Ok(false)
    }

    /// Whether the account may comment; `None` where Jira doesn't say.
    async fn may_comment(&self, key: &str) -> Result<Option<bool>> {
        let query = [("issueKey", key), ("permissions", "ADD_COMMENTS")];
        let request = self.request(Method::GET, &["mypermissions"])?.query(&query);
        match self.send(request, Effect::Reads, "ask Jira for permissions").await {
            Ok(answer) => Ok(answer["permissions"]["ADD_COMMENTS"]["havePermission"].as_bool()),
            Err(error) if error.retry() == pgrotate_core::Retry::Never => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The line by which the comment is recognised.
fn line_of(run: RunId) -> String {
    format!("Run: {run}")
}

/// The comment as plain text. `{noformat}` keeps Jira from reading markup into it; a brace in a
/// text would end that.
fn comment(story: &Story) -> String {
    let line =
        |(name, text): (String, String)| format!("{name}: {}\n", text.replace(['{', '}', '\n', '\r'], " "));
    let (links, plain): (Vec<_>, Vec<_>) =
        ticket::facts(story).into_iter().partition(|(_, text)| text.starts_with("https://"));
    let plain: String = plain.into_iter().map(line).collect();
    // Outside, so that Jira makes links of them.
    let links: String = links.into_iter().map(line).collect();
    format!("{}.\n{{noformat}}\n{plain}{{noformat}}\n{links}", ticket::headline(story))
}

/// Jira's errors. Bodies are not looked at.
pub(crate) fn classify(response: &Response, effect: Effect, operation: &str) -> Error {
    let status = response.status();
    let retry = http::retry_of(status, effect, http::retry_after(response));
    let captcha = response.headers().get("x-seraph-loginreason").is_some_and(|reason| {
        let reason = reason.as_bytes();
        reason.starts_with(b"AUTHENTICATION_DENIED") || reason.starts_with(b"AUTHENTICATED_FAILED")
    });
    let error = Error::new(http::kind_of(status), operation);
    let error = match status.as_u16() {
        401 | 403 if captcha => Error::new(Kind::Unauthenticated, operation)
            .because("Jira refuses this account's logins for now")
            .hint("sign in once with a browser, then look at JIRA_EMAIL and JIRA_API_TOKEN"),
        401 => error
            .because("Jira does not accept JIRA_EMAIL with JIRA_API_TOKEN")
            .hint("the token is the account's own, and may have expired"),
        403 => error
            .because("the account does not have the right to do this")
            .hint("give it Browse projects and Add comments in the project"),
        404 | 410 => error
            .because("Jira has none, or does not show it to this account")
            .hint("correct the ticket or `url`, or give the account Browse projects in the project"),
        300..=399 => {
            error.because("Jira sends to another address").hint("correct `url` in the configuration")
        }
        429 => error.because("Jira asks for fewer requests"),
        number => error.because(format!("Jira answered {number}")),
    };
    http::with_retry(error, retry)
}

#[async_trait]
impl Recorder for Jira {
    fn id(&self) -> &str {
        &self.id
    }

    fn takes(&self, ticket: &str) -> bool {
        self.key(Some(ticket)).is_some()
    }

    async fn check(&self, ticket: Option<&str>) -> Result<Vec<Finding>> {
        let Some(key) = self.key(ticket) else { return Ok(Vec::new()) };
        let operation = format!("find the ticket {key}");
        let request = self.request(Method::GET, &["issue", &key])?.query(&[("fields", "summary")]);
        let (found, may) =
            futures::join!(self.send(request, Effect::Reads, &operation), self.may_comment(&key));
        found?;
        let mut findings =
            vec![Finding::new(Severity::Note, &self.id, format!("the ticket {key} will get a comment"))];
        match may? {
            Some(true) => {}
            Some(false) => findings.push(
                Finding::new(Severity::Blocks, &self.id, format!("the account may not comment on {key}"))
                    .mend("give it Add comments in the project, or name another ticket"),
            ),
            None => findings.push(Finding::new(
                Severity::Unseen,
                &self.id,
                format!("whether the account may comment on {key} can't be told before"),
            )),
        }
        Ok(findings)
    }

    async fn record(&self, story: &Story, _again: bool) -> Result<Outcome> {
        let Some(key) = self.key(story.ticket.as_deref()) else {
            return Ok(Outcome::skipped("the run has no ticket of this Jira"));
        };
        if self.is_told(&key, story.run).await? {
            return Ok(Outcome::already_done().note(format!("{key} has the comment")));
        }
        let request = self.request(Method::POST, &["issue", &key, "comment"])?;
        let request = request.json(&json!({ "body": comment(story) }));
        self.send(request, Effect::Writes, &format!("comment on {key}")).await?;
        Ok(Outcome::changed().note(format!("commented on {key}")))
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pgrotate_core::Retry;
    use pgrotate_core::journal::Effect as Did;

    use super::*;
    use crate::fake::{Fake, Reply, run, shared};
    use crate::shared::Vendors;

    /// How a Jira with the issue OPS-12 behaves.
    struct World {
        comments: Vec<String>,
        /// Whether the answer to the next post gets lost.
        loses: bool,
        /// What it says to `mypermissions`; `None` for an older one that has none.
        may_comment: Option<bool>,
    }

    async fn jira(world: World) -> (Fake, Jira) {
        let world = Mutex::new(world);
        let fake = Fake::start(move |call| {
            let world = &mut *world.lock().unwrap();
            let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
            match (call.method.as_str(), path) {
                ("GET", "/jira/rest/api/2/issue/OPS-12") => Reply::json(200, &json!({"key": "OPS-12"})),
                ("GET", "/jira/rest/api/2/mypermissions") => match world.may_comment {
                    Some(may) => {
                        Reply::json(200, &json!({"permissions": {"ADD_COMMENTS": {"havePermission": may}}}))
                    }
                    None => Reply::empty(404),
                },
                ("GET", "/jira/rest/api/2/issue/OPS-12/comment") => {
                    let start = query.split("startAt=").nth(1).unwrap().split('&').next().unwrap();
                    let shown = world.comments.iter().rev().skip(start.parse().unwrap()).take(PAGE);
                    let shown: Vec<Value> = shown.map(|body| json!({ "body": body })).collect();
                    Reply::json(200, &json!({"total": world.comments.len(), "comments": shown}))
                }
                ("POST", "/jira/rest/api/2/issue/OPS-12/comment") => {
                    world.comments.push(call.json()["body"].as_str().unwrap().to_owned());
                    match std::mem::take(&mut world.loses) {
                        true => Reply::hang_up(),
                        false => Reply::json(201, &json!({"id": "1"})),
                    }
                }
                _ => Reply::empty(404),
            }
        })
        .await;
        let options = Options { url: format!("{}/jira/", fake.url) };
        let shared = shared(Vendors::default(), "JIRA_EMAIL=ada@example.com\nJIRA_API_TOKEN=canary");
        (fake, Jira::new(None, options, shared).unwrap())
    }

    fn quiet() -> World {
        World { comments: vec!["hello".into()], loses: false, may_comment: Some(true) }
    }

    fn story() -> Story {
        crate::fake::story(Some("OPS-12"))
    }

    #[tokio::test]
    async fn a_comment_is_posted_once() {
        let (fake, jira) = jira(quiet()).await;
        assert_eq!(jira.record(&story(), false).await.unwrap().effect, Did::Changed);
        let post = &fake.calls()[1];
        insta::assert_snapshot!(post.json()["body"].as_str().unwrap(), @r"
        The PostgreSQL password of dev has been rotated.
        {noformat}
        Environment: dev
        Role: mindwelladmin@db.example.com:5432/mindwell_app
        Run: 01ARZ3NDEKTSV4RRFFQ69G5FAV
        Operator: ada
        Started: 2026-01-01T00:00:00Z
        Proven: 2026-01-01T00:01:00Z
        No new logins for at most: 2.3 s
        {noformat}
        Secret Id of azure_key_vault:database-url: https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef
        ");
        assert!(post.header("authorization").unwrap().starts_with("Basic "));
        assert_eq!(jira.record(&story(), false).await.unwrap().effect, Did::AlreadyDone);
        assert_eq!(fake.calls().len(), 3);
    }

    #[tokio::test]
    async fn a_lost_answer_does_not_post_twice() {
        let (_fake, jira) = jira(World { loses: true, ..quiet() }).await;
        assert_eq!(jira.record(&story(), false).await.unwrap_err().retry(), Retry::Unknown);
        assert_eq!(jira.record(&story(), true).await.unwrap().effect, Did::AlreadyDone);
    }

    #[tokio::test]
    async fn an_old_comment_is_found_on_a_later_page() {
        let mut comments = vec![line_of(run())];
        comments.extend(vec!["noise".to_owned(); 150]);
        let (fake, jira) = jira(World { comments, ..quiet() }).await;
        assert_eq!(jira.record(&story(), false).await.unwrap().effect, Did::AlreadyDone);
        assert_eq!(fake.calls().len(), 2);
    }

    #[tokio::test]
    async fn check_finds_ticket_and_right() {
        let severities = async |may_comment| {
            let (_fake, jira) = jira(World { may_comment, ..quiet() }).await;
            assert!(jira.takes("OPS-12"));
            let findings = jira.check(Some("OPS-12")).await.unwrap();
            findings.into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(severities(Some(true)).await, [Severity::Note]);
        assert_eq!(severities(Some(false)).await, [Severity::Note, Severity::Blocks]);
        assert_eq!(severities(None).await, [Severity::Note, Severity::Unseen]);
        let (_fake, jira) = jira(quiet()).await;
        assert_eq!(jira.check(Some("OPS-13")).await.unwrap_err().kind(), Kind::NotFound);
    }

    #[tokio::test]
    async fn only_its_own_tickets_are_taken() {
        let (fake, jira) = jira(quiet()).await;
        let base = format!("{}/jira", fake.url);
        for own in
            ["OPS-12", " OPS-12", &format!("{base}/browse/OPS-12"), &format!("{base}/browse/OPS-12?x=1")]
        {
            assert_eq!(jira.key(Some(own)).as_deref(), Some("OPS-12"), "{own}");
        }
        for other in [
            "mindwell/ops#12",
            "ops-12",
            "OPS-",
            "-12",
            "OPS-1x",
            "https://example.com/browse/OPS-12",
            "OPS-12/../x",
        ] {
            assert_eq!(jira.key(Some(other)), None, "{other}");
        }
        assert_eq!(jira.check(None).await.unwrap(), []);
        assert_eq!(jira.record(&crate::fake::story(None), false).await.unwrap().effect, Did::Skipped);
        assert!(fake.calls().is_empty());
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let refused = async |status: u16, reason: Option<&'static str>| {
            let fake = Fake::start(move |_| {
                let reply = Reply::json(status, &json!({"errorMessages": ["canary"]}));
                match reason {
                    Some(reason) => reply.header("x-seraph-loginreason", reason),
                    None => reply.header("retry-after", "9"),
                }
            })
            .await;
            let shared = shared(Vendors::default(), "JIRA_EMAIL=a\nJIRA_API_TOKEN=b");
            let jira = Jira::new(None, Options { url: fake.url.clone() }, shared).unwrap();
            let error = jira.record(&story(), false).await.unwrap_err();
            assert!(!format!("{error:?}").contains("canary"));
            (error.kind(), error.retry())
        };
        assert_eq!(refused(401, None).await, (Kind::Unauthenticated, Retry::Never));
        assert_eq!(refused(403, None).await, (Kind::Forbidden, Retry::Never));
        assert_eq!(refused(403, Some("AUTHENTICATION_DENIED")).await, (Kind::Unauthenticated, Retry::Never));
        let told = Retry::Later { after_ms: Some(9000) };
        assert_eq!(refused(429, None).await, (Kind::Throttled, told));
        assert_eq!(refused(503, None).await, (Kind::ServerFault, told));
    }

    #[tokio::test]
    async fn missing_credentials_are_named() {
        let shared = shared(Vendors::default(), "");
        if shared.credentials.get("JIRA_EMAIL").is_some() {
            return;
        }
        let jira =
            Jira::new(Some("tickets".into()), Options { url: "https://x.atlassian.net".into() }, shared);
        let jira = jira.unwrap();
        assert_eq!(jira.id(), "tickets");
        assert!(jira.check(Some("OPS-1")).await.unwrap_err().to_string().contains("JIRA_EMAIL is not set"));
    }
}
