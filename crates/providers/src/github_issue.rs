//! A comment on a GitHub issue, as a recorder, for tickets like `owner/repo#12` or an issue's
//! address.
//!
//! *Needs* a token that may comment there: a classic one with the scope `repo`, another one with
//! *Issues: write*.
//!
//! GitHub posts a repeated comment twice, so each of ours carries its run in a mark that pages
//! don't show, and the issue's comments are looked through before posting. A comment that a
//! person pastes the mark into counts as ours.

mod by_hand;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Finding, Recorder, Severity, Story};
use pgrotate_core::{Result, RunId};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::github::Api;
use crate::shared::Shared;
use crate::ticket;

/// The kind's name in the configuration.
const KIND: &str = "github_issue";
/// How far this machine's clock may be ahead of GitHub's.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(1);
/// An issue with more comments than this since the run began is no ticket.
const PAGES_MAX: u32 = 20;

/// There is nothing to choose: the ticket says where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// Comments on the GitHub issue that the ticket names.
pub struct GithubIssue {
    id: String,
    api: Api,
}

/// An issue, or a pull request, which is one too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issue {
    owner: String,
    name: String,
    number: String,
}

impl Issue {
    /// Reads a ticket, if it names an issue of the GitHub with these pages.
    fn parse(ticket: &str, web_host: &str) -> Option<Self> {
        let ticket = ticket.trim();
        let (owner, name, number) = match ticket.split_once("://") {
            Some(("https" | "http", address)) => {
                let path = address.strip_prefix(web_host)?.strip_prefix('/')?;
                let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
                match path.split('/').collect::<Vec<_>>()[..] {
                    [owner, name, "issues" | "pull", number] => (owner, name, number),
                    _ => return None,
                }
            }
            Some(_) => return None,
            None => {
                let (repository, number) = ticket.split_once('#')?;
                let (owner, name) = repository.split_once('/')?;
                (owner, name, number)
            }
        };
        let named = |text: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            text.bytes().all(known) && text.bytes().any(|byte| byte != b'.')
        };
        let counted = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (named(owner) && named(name) && counted).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            number: number.to_owned(),
        })
    }

    fn path<'i>(&'i self, rest: &[&'i str]) -> Vec<&'i str> {
        [&["repos", &self.owner, &self.name, "issues", &self.number], rest].concat()
    }
}

impl std::fmt::Display for Issue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}#{}", self.owner, self.name, self.number)
    }
}

impl GithubIssue {
    /// Makes the recorder.
    ///
    /// # Errors
    /// When GitHub's endpoint can't be used.
    pub fn new(name: Option<String>, _options: Options, shared: Arc<Shared>) -> Result<Self> {
        Ok(Self { id: name.unwrap_or_else(|| KIND.to_owned()), api: Api::new(&shared)? })
    }

    fn issue(&self, ticket: Option<&str>) -> Option<Issue> {
        Issue::parse(ticket?, &self.api.web_host())
    }

    /// Whether the run's comment is there. Only those since the run began are looked through.
    async fn is_told(&self, issue: &Issue, story: &Story) -> Result<bool> {
        let path = issue.path(&["comments"]);
        let since = format!("{:.0}", story.started_at - CLOCKS_APART);
        let mark = mark(story.run);
        for page in 1..=PAGES_MAX {
            let page = page.to_string();
            let query = [("since", since.as_str()), ("per_page", "100"), ("page", &page)];
            let answer = self.api.get(&path, &query, &format!("read the comments of {issue}")).await?;
            let comments = answer.body.as_array().map_or(&[][..], Vec::as_slice);
            let ours = |comment: &Value| comment["body"].as_str().is_some_and(|body| body.contains(&mark));
            if comments.iter().any(ours) {
                return Ok(true);
            }
            if comments.len() < 100 {
                break;
            }
        }
        Ok(false)
    }
}

/// The mark that pages don't show.
fn mark(run: RunId) -> String {
    format!("<!-- pgrotate {run} -->")
}

/// The comment in Markdown. Texts stand in code spans, so that nothing in them is taken for
/// markup or for a person to be called.
fn comment(story: &Story) -> String {
    let line = |(name, text): (String, String)| match text.starts_with("https://") {
        true => format!("- {name}: <{}>\n", text.replace(['<', '>', ' '], "")),
        false => format!("- {name}: `{}`\n", text.replace(['`', '\n', '\r'], " ")),
    };
    let lines: String = ticket::facts(story).into_iter().map(line).collect();
    format!("**{}.**\n\n{lines}\n{}\n", ticket::headline(story), mark(story.run))
}

#[async_trait]
impl Recorder for GithubIssue {
    fn id(&self) -> &str {
        &self.id
    }

    fn takes(&self, ticket: &str) -> bool {
        self.issue(Some(ticket)).is_some()
    }

    async fn check(&self, ticket: Option<&str>) -> Result<Vec<Finding>> {
        let Some(issue) = self.issue(ticket) else { return Ok(Vec::new()) };
        let answer = self.api.get(&issue.path(&[]), &[], &format!("find the ticket {issue}")).await?;
        let mut findings =
            vec![Finding::new(Severity::Note, &self.id, format!("the ticket {issue} will get a comment"))];
        if answer.may_write("issues") == Some(false) {
            let lacks = "the App's installation lacks the permission \"Issues: write\"";
            findings.push(
                Finding::new(Severity::Blocks, &self.id, lacks)
                    .mend("add it in the App's settings, and have an owner accept it in the installation"),
            );
        }
        if answer.body["locked"] == true {
            let locked = Finding::new(Severity::Warning, &self.id, format!("the ticket {issue} is locked"));
            findings.push(
                locked.mend("only people with write access may comment on it; is the token's one of them?"),
            );
        }
        Ok(findings)
    }

    async fn record(&self, story: &Story, _again: bool) -> Result<Outcome> {
        let Some(issue) = self.issue(story.ticket.as_deref()) else {
            return Ok(Outcome::skipped("the run has no ticket that is a GitHub issue"));
        };
        // Looked for on the first try too: a resumed run may have been told by another machine.
        if self.is_told(&issue, story).await? {
            return Ok(Outcome::already_done().note(format!("{issue} has the comment")));
        }
        let body = json!({ "body": comment(story) });
        let operation = format!("comment on {issue}");
        self.api.write(Method::POST, &issue.path(&["comments"]), &body, &operation).await?;
        Ok(Outcome::changed().note(format!("commented on {issue}")))
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pgrotate_core::journal::Effect;
    use pgrotate_core::{Kind, Retry};

    use super::*;
    use crate::fake::{Fake, OTHER_RUN, RUN, Reply, run, shared};
    use crate::shared::{GithubSettings, Vendors};

    const COMMENTS: &str = "/repos/mindwell/ops/issues/12/comments";

    /// An issue tracker with one issue. It loses the answer to its first post where told so.
    async fn tracker(first: Vec<String>, loses: bool) -> (Fake, GithubIssue) {
        let (comments, loses) = (Mutex::new(first), Mutex::new(loses));
        let fake = Fake::start(move |call| {
            let mut comments = comments.lock().unwrap();
            let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
            match (call.method.as_str(), path) {
                ("GET", "/repos/mindwell/ops/issues/12") => Reply::json(200, &json!({"locked": true})),
                ("GET", COMMENTS) => {
                    assert!(query.starts_with("since=2025-12-31T23%3A00%3A00Z&"), "{query}");
                    let page: usize = query.split("&page=").nth(1).unwrap().parse().unwrap();
                    let shown = comments.iter().skip((page - 1) * 100).take(100);
                    Reply::json(200, &shown.map(|body| json!({ "body": body })).collect())
                }
                ("POST", COMMENTS) => {
                    comments.push(call.json()["body"].as_str().unwrap().to_owned());
                    match std::mem::take(&mut *loses.lock().unwrap()) {
                        true => Reply::hang_up(),
                        false => Reply::json(201, &json!({"id": 1})),
                    }
                }
                _ => Reply::empty(404),
            }
        })
        .await;
        let github = GithubSettings { api: fake.url.clone(), ..GithubSettings::default() };
        let shared = shared(Vendors { github, ..Vendors::default() }, "GH_TOKEN=x");
        (fake, GithubIssue::new(None, Options {}, shared).unwrap())
    }

    fn story(ticket: &str) -> Story {
        crate::fake::story(Some(ticket))
    }

    #[tokio::test]
    async fn a_comment_is_posted_once() {
        let (fake, recorder) = tracker(vec![format!("<!-- pgrotate {OTHER_RUN} -->")], false).await;
        let outcome = recorder.record(&story("mindwell/ops#12"), false).await.unwrap();
        assert_eq!(outcome.effect, Effect::Changed);
        let body = fake.calls()[1].json()["body"].as_str().unwrap().to_owned();
        insta::assert_snapshot!(body, @r"
        **The PostgreSQL password of dev has been rotated.**

        - Environment: `dev`
        - Role: `mindwelladmin@db.example.com:5432/mindwell_app`
        - Run: `01ARZ3NDEKTSV4RRFFQ69G5FAV`
        - Operator: `ada`
        - Started: `2026-01-01T00:00:00Z`
        - Proven: `2026-01-01T00:01:00Z`
        - No new logins for at most: `2.3 s`
        - Secret Id of azure_key_vault:database-url: <https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef>

        <!-- pgrotate 01ARZ3NDEKTSV4RRFFQ69G5FAV -->
        ");
        fake.take_lines();
        let again = recorder.record(&story("mindwell/ops#12"), false).await.unwrap();
        assert_eq!((again.effect, fake.take_lines().len()), (Effect::AlreadyDone, 1));
    }

    #[tokio::test]
    async fn a_lost_answer_does_not_post_twice() {
        let (_fake, recorder) = tracker(Vec::new(), true).await;
        let error = recorder.record(&story("mindwell/ops#12"), false).await.unwrap_err();
        assert_eq!(error.retry(), Retry::Unknown);
        let again = recorder.record(&story("mindwell/ops#12"), true).await.unwrap();
        assert_eq!(again.effect, Effect::AlreadyDone);
    }

    #[tokio::test]
    async fn the_mark_is_found_on_a_later_page() {
        let mut comments = vec!["noise".to_owned(); 100];
        comments.push(format!("x {}", mark(run())));
        let (fake, recorder) = tracker(comments, false).await;
        let outcome = recorder.record(&story("mindwell/ops#12"), false).await.unwrap();
        assert_eq!((outcome.effect, fake.take_lines().len()), (Effect::AlreadyDone, 2));
    }

    #[tokio::test]
    async fn other_tickets_are_left_to_others() {
        let (fake, recorder) = tracker(Vec::new(), false).await;
        for ticket in [None, Some("OPS-12"), Some("https://mindwell.atlassian.net/browse/OPS-12")] {
            assert_eq!(recorder.check(ticket).await.unwrap(), []);
            assert!(!ticket.is_some_and(|ticket| recorder.takes(ticket)), "{ticket:?}");
            let outcome = recorder.record(&crate::fake::story(ticket), false).await.unwrap();
            assert_eq!(outcome.effect, Effect::Skipped, "{ticket:?}");
        }
        assert!(fake.calls().is_empty());
    }

    #[tokio::test]
    async fn check_looks_the_ticket_up() {
        let (_fake, recorder) = tracker(Vec::new(), false).await;
        assert!(recorder.takes("mindwell/ops#12"));
        let findings = recorder.check(Some("mindwell/ops#12")).await.unwrap();
        let severities: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Note, Severity::Warning], "it is locked");
        let error = recorder.check(Some("mindwell/ops#13")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn tickets_are_read_in_both_forms() {
        let parse = |ticket: &str| Issue::parse(ticket, "github.com").map(|issue| issue.to_string());
        for good in [
            "mindwell/ops#12",
            " mindwell/ops#12 ",
            "https://github.com/mindwell/ops/issues/12",
            "https://github.com/mindwell/ops/issues/12/?x=1#issuecomment-5",
            "https://github.com/mindwell/ops/pull/12",
        ] {
            assert_eq!(parse(good).as_deref(), Some("mindwell/ops#12"), "{good}");
        }
        for other in [
            "OPS-12",
            "ops#12",
            "a/b/c#1",
            "mindwell/ops#",
            "mindwell/ops#1x",
            "../ops#1",
            "https://github.com.example.com/mindwell/ops/issues/12",
            "https://example.com/mindwell/ops/issues/12",
            "https://github.com/mindwell/ops/wiki/12",
            "ftp://github.com/mindwell/ops/issues/12",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_in_the_comment_is_taken_for_markup() {
        let mut story = story("a/b#1");
        story.operator = "@everyone `x`\n# <b>".into();
        let body = comment(&story);
        assert!(body.contains("- Operator: `@everyone  x  # <b>`\n"), "{body}");
        assert!(body.ends_with(&format!("<!-- pgrotate {RUN} -->\n")));
    }
}
