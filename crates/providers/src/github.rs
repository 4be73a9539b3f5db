//! GitHub's REST API: what `github_actions` and `github_issue` share.
//!
//! Where `app_id` is configured, the program is an installation of that GitHub App. Else tokens
//! come from `GH_TOKEN`, then `GITHUB_TOKEN`, then `gh auth token`, which is asked once per process;
//! for a GitHub Enterprise server `GH_ENTERPRISE_TOKEN` and `GITHUB_ENTERPRISE_TOKEN` come first, as
//! with `gh`.
//!
//! Of GitHub's answers:
//! - 404 is "absent" as well as "hidden from you", and nobody can tell the two apart.
//! - 403 and 429 are both used for limits. The primary one is told by `x-ratelimit-remaining: 0`
//!   and ends at `x-ratelimit-reset`; the secondary one by its text, and then `retry-after` or
//!   at least a minute has to pass.
//! - `X-OAuth-Scopes` lists what a classic token holds; other tokens get no such header. What an
//!   installation may do stands in the answer that gives its token, and nowhere else.
//!   `X-Accepted-GitHub-Permissions` is what the *endpoint* wants and says nothing about the token.
//! - A token's first letters say what kind it is ("GitHub's token formats"), and
//!   `GitHub-Authentication-Token-Expiration` when a personal one ends.
//! - A renamed repository answers with a redirect, which is reported and not followed.

mod app;
pub(crate) mod installation;
#[cfg(test)]
mod testing;
mod token;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use pgrotate_core::{Error, Kind, Result, Retry, Secret};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde_json::Value;
use tokio::sync::OnceCell;

use self::app::Permissions;
use self::installation::Place;
pub(crate) use self::token::TokenKind;
use crate::http::{self, Effect};
use crate::shared::Shared;

/// The version that the answers are written against; supported until March 2028 at least.
const API_VERSION: &str = "2022-11-28";
/// How long to stay away after a secondary limit that names no time.
const SECONDARY_PAUSE: Duration = Duration::from_secs(60);

/// A GitHub, with the token for it.
pub(crate) struct Api {
    base: Url,
    shared: Arc<Shared>,
    token: OnceCell<Secret>,
    cli: PathBuf,
}

/// An answer that is no error.
#[derive(Debug)]
pub(crate) struct Answer {
    /// GitHub's own time when it answered.
    pub(crate) date: Option<Timestamp>,
    /// What a classic token holds; `None` with every other kind.
    pub(crate) scopes: Option<Vec<String>>,
    /// What an App's installation may do; `None` with every other kind.
    permissions: Option<Permissions>,
    /// Whose token asked.
    pub(crate) kind: TokenKind,
    /// When that token ends, where GitHub tells: of personal ones that end.
    pub(crate) ends_at: Option<Timestamp>,
    /// The body; `null` where there is none.
    pub(crate) body: Value,
}

impl Answer {
    /// A text in the body.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.body[key].as_str()
    }

    /// Whether an App's installation has a permission (`secrets`, `issues`) for writing; `None` where
    /// the request was somebody else's.
    pub(crate) fn may_write(&self, permission: &str) -> Option<bool> {
        let held = self.permissions.as_ref()?.get(permission).map(String::as_str);
        Some(matches!(held, Some("write" | "admin")))
    }

    /// A time in the body.
    pub(crate) fn time(&self, key: &str) -> Option<Timestamp> {
        self.text(key)?.parse().ok()
    }
}

impl Api {
    /// The configured GitHub. Sends nothing and needs no token yet.
    ///
    /// # Errors
    /// When the endpoint can't be used.
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Self> {
        let base = http::endpoint(&shared.vendors.github.api)?;
        Ok(Self { base, shared: Arc::clone(shared), token: OnceCell::new(), cli: PathBuf::from("gh") })
    }

    /// GitHub's CLI as a command of a shell, told which GitHub is meant where it is another one.
    pub(crate) fn by_hand(&self) -> String {
        match &*self.web_host() {
            "github.com" => "gh".to_owned(),
            host => format!("GH_HOST={} gh", crate::by_hand::word(host)),
        }
    }

    /// The host name of this GitHub's pages, with a port if it has one.
    pub(crate) fn web_host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            None if host == "api.github.com" => "github.com".to_owned(),
            None => host.to_owned(),
            Some(port) => format!("{host}:{port}"),
        }
    }

    /// Reads something.
    ///
    /// # Errors
    /// As [`Api::classify`] has it.
    pub(crate) async fn get(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
        operation: &str,
    ) -> Result<Answer> {
        let request = self.request(Method::GET, segments).query(query);
        self.send(request, segments, Effect::Reads, operation).await
    }

    /// Reads something that several copies want to know, once.
    ///
    /// # Errors
    /// As [`Api::classify`] has it.
    pub(crate) async fn look(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
        operation: &str,
    ) -> Result<Arc<Answer>> {
        let question = format!("{} {segments:?} {query:?}", self.base);
        self.shared.looks.once(question, self.get(segments, query, operation)).await
    }

    /// Reads something that may be absent.
    ///
    /// # Errors
    /// As [`Api::classify`] has it, but for 404.
    pub(crate) async fn find(&self, segments: &[&str], operation: &str) -> Result<Option<Answer>> {
        match self.get(segments, &[], operation).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes something.
    ///
    /// # Errors
    /// As [`Api::classify`] has it.
    pub(crate) async fn write(
        &self,
        method: Method,
        segments: &[&str],
        body: &Value,
        operation: &str,
    ) -> Result<Answer> {
        let request = self.request(method, segments).json(body);
        self.send(request, segments, Effect::Writes, operation).await
    }

    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        // Each segment is encoded as one: an environment's name may have a slash.
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(segments);
        self.shared.http.request(method, url)
    }

    /// Who asks: a token, and what it may do where that is known.
    async fn holder(&self, place: Option<&Place<'_>>) -> Result<(Secret, Option<Permissions>)> {
        if let Some(app) = &self.shared.vendors.github.app_id {
            let installed = self.installed(app, place).await?;
            return Ok((installed.token, Some(installed.permissions)));
        }
        let found = self.token.get_or_try_init(|| token::find(&self.shared, &self.base, &self.cli)).await?;
        Ok((found.clone(), None))
    }

    /// Sends a request. One that an installation's token was refused for, because it ended early
    /// or was revoked, is sent once more with a new one: nothing has happened.
    async fn exchange(
        &self,
        request: RequestBuilder,
        place: Option<&Place<'_>>,
        unanswered: impl Fn(reqwest::Error) -> Error,
    ) -> Result<(Response, Option<Permissions>, TokenKind)> {
        let request = request
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION);
        let again = request.try_clone();
        let (token, permissions) = self.holder(place).await?;
        let response = http::send(request.bearer_auth(token.expose())).await.map_err(&unanswered)?;
        let (Some(app), Some(again), 401) =
            (&self.shared.vendors.github.app_id, again, response.status().as_u16())
        else {
            return Ok((response, permissions, TokenKind::of(&token)));
        };
        self.forget_installed(app, place, &token).await;
        let (token, permissions) = self.holder(place).await?;
        let response = http::send(again.bearer_auth(token.expose())).await.map_err(unanswered)?;
        Ok((response, permissions, TokenKind::of(&token)))
    }

    async fn send(
        &self,
        request: RequestBuilder,
        segments: &[&str],
        effect: Effect,
        operation: &str,
    ) -> Result<Answer> {
        let unanswered = |error: reqwest::Error| http::unanswered(&error, effect, operation);
        let place = Place::of(segments);
        let shared = &self.shared;
        let _permit = shared.budgets.github(&*shared.clock, self.base.authority(), effect).await;
        let (response, permissions, kind) = self.exchange(request, place.as_ref(), unanswered).await?;
        shared.clocks.hear_header("GitHub", header(response.headers(), "date"), shared.clock.now());
        if !response.status().is_success() {
            return Err(self.classify(response, effect, operation).await);
        }
        let date = date(response.headers());
        let scopes = header(response.headers(), "x-oauth-scopes").map(list);
        let ends_at = header(response.headers(), "github-authentication-token-expiration").and_then(end);
        let body = response.bytes().await.map_err(unanswered)?;
        let body = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).map_err(|_| {
                let error = Error::new(Kind::Corrupt, operation).because("GitHub's answer is no JSON");
                if effect == Effect::Writes { error.unknown() } else { error.later(None) }
            })?,
        };
        Ok(Answer { date, scopes, permissions, kind, ends_at, body })
    }

    /// GitHub's errors. The body is searched for its kind of limit and never shown.
    pub(crate) async fn classify(&self, response: Response, effect: Effect, operation: &str) -> Error {
        let (status, headers) = (response.status(), response.headers().clone());
        let now = date(&headers).unwrap_or_else(|| self.shared.clock.now());
        let after = http::retry_after(&response);
        let body = response.text().await.unwrap_or_default();
        if let Some(error) = limited(status.as_u16(), &headers, &body, after, now, operation) {
            return error;
        }
        let error = Error::new(http::kind_of(status), operation);
        let error = match status.as_u16() {
            301 | 302 | 307 | 308 => Error::new(Kind::BadState, operation)
                .because("GitHub says that it has been renamed or moved")
                .hint("write its present name in the configuration"),
            401 if self.shared.vendors.github.app_id.is_some() => error
                .because("GitHub does not accept the token that it has just given to the App")
                .hint("look at the App's installation: it may have been suspended or removed"),
            401 => error.because("GitHub does not accept the token").hint(
                "it may be expired or revoked: renew GH_TOKEN, GITHUB_TOKEN or `gh auth login`, whichever is in use",
            ),
            404 if lacked_scope(&headers).is_some() => {
                let scope = lacked_scope(&headers).unwrap_or_default();
                error
                    .because(format!("the token lacks the scope {scope}, and GitHub shows it nothing here"))
                    .hint(format!("gh auth refresh --scopes {scope}, or a token with that scope in GH_TOKEN"))
            }
            403 => forbidden(error, &headers),
            404 | 410 => error
                .because("GitHub has none, or does not show it to this token")
                .hint("correct the name in the configuration, or give the token access to it"),
            422 => error
                .because(format!("GitHub does not accept what was sent{}", complaints(&body)))
                .hint("is the name one that GitHub allows? letters, digits and `_`, and not beginning with GITHUB_"),
            number @ 400..=499 => error.because(format!("GitHub refuses the request ({number})")).hint(format!(
                "does this GitHub speak the API version {API_VERSION}? an old Enterprise server may not, and a proxy in \
                 between may damage requests"
            )),
            number => error.because(format!("GitHub answered {number}")),
        };
        http::with_retry(error, http::retry_of(status, effect, after))
    }
}

/// The error of a request that came too often, if it is one.
fn limited(
    status: u16,
    headers: &HeaderMap,
    body: &str,
    after: Option<Duration>,
    now: Timestamp,
    operation: &str,
) -> Option<Error> {
    if status != 403 && status != 429 {
        return None;
    }
    let error = Error::new(Kind::Throttled, operation);
    if header(headers, "x-ratelimit-remaining") == Some("0") {
        let reset = header(headers, "x-ratelimit-reset").and_then(|second| second.parse().ok());
        let reset = reset.and_then(|second| Timestamp::from_second(second).ok());
        let wait = reset.map_or(SECONDARY_PAUSE, |reset| reset.duration_since(now).unsigned_abs());
        let late = reset.is_some_and(|reset| reset <= now);
        // A second on top: both times are cut to whole seconds.
        let wait = if late { Duration::from_secs(1) } else { wait + Duration::from_secs(1) };
        return Some(error.because("the token's requests of this hour are used up").later(Some(wait)));
    }
    let secondary = body.contains("secondary rate limit") || body.contains("abuse detection");
    if secondary || status == 429 || after.is_some() {
        let wait = after.unwrap_or(SECONDARY_PAUSE);
        return Some(error.because("GitHub asks for fewer requests at a time").later(Some(wait)));
    }
    None
}

/// The scope that a token with scopes would need here, where it has none of those that would do.
fn lacked_scope(headers: &HeaderMap) -> Option<String> {
    let held = list(header(headers, "x-oauth-scopes")?);
    let accepted = header(headers, "x-accepted-oauth-scopes").filter(|text| is_list(text)).map(list)?;
    let lacks = !accepted.iter().any(|scope| held.contains(scope));
    accepted.into_iter().next().filter(|_| lacks)
}

fn forbidden(error: Error, headers: &HeaderMap) -> Error {
    if let Some(sso) = header(headers, "x-github-sso") {
        // The query of the address is a ticket of its own, so only its path is shown.
        let page = sso.split("url=").nth(1).and_then(|url| url.split(['?', ';', ' ']).next());
        let page = page.filter(|page| page.starts_with("https://") && page.len() <= MOST_OF_A_HEADER);
        return error.because("the organisation wants the token to be authorised for single sign-on").hint(
            format!(
                "authorise it under Configure SSO in your token settings{}",
                page.map_or_else(String::new, |page| format!(", or at {page}"))
            ),
        );
    }
    let error = error.because("the token does not have the right to do this");
    match header(headers, "x-accepted-github-permissions") {
        Some(wanted) if is_list(wanted) => {
            // A comma stands for "and", a semicolon for "or".
            let all = |set: &str| set.split(',').map(str::trim).collect::<Vec<_>>().join(" and ");
            let wanted: Vec<String> = wanted.split(';').map(all).collect();
            error.hint(format!("this call wants a token with {}", wanted.join(" or ")))
        }
        _ => match header(headers, "x-accepted-oauth-scopes") {
            Some(wanted) if is_list(wanted) => {
                error.hint(format!("this call wants a classic token with one of the scopes {wanted}"))
            }
            _ => error.hint(
                "give the token the right: a classic one needs the scope `repo`, any other the permission that GitHub's \
                 documentation names for this call",
            ),
        },
    }
}

/// The most that is repeated of a header, in bytes.
const MOST_OF_A_HEADER: usize = 200;

/// Whether a header is a list of rights as GitHub names them, and nothing that somebody in between has put there.
fn is_list(text: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_:=,; -".contains(letter);
    (1..=MOST_OF_A_HEADER).contains(&text.len()) && text.chars().all(fits)
}

/// GitHub's own words for what it does not accept, from its closed list of codes.
fn complaints(body: &str) -> String {
    const CODES: [&str; 6] =
        ["missing", "missing_field", "invalid", "already_exists", "unprocessable", "custom"];
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let errors = body["errors"].as_array().map_or(&[][..], Vec::as_slice);
    let codes: BTreeMap<&str, ()> = errors
        .iter()
        .filter_map(|error| CODES.into_iter().find(|code| error["code"] == *code))
        .map(|code| (code, ()))
        .collect();
    if codes.is_empty() {
        return String::new();
    }
    format!(" ({})", codes.into_keys().collect::<Vec<_>>().join(", "))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(header(headers, "date")?).ok()
}

/// The end of a token: `2026-12-01 10:00:00 UTC`, or with an offset such as `+0100`.
fn end(text: &str) -> Option<Timestamp> {
    let text = text.replace("UTC", "+0000");
    Timestamp::strptime("%Y-%m-%d %H:%M:%S %z", text).ok()
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|scope| scope.trim().to_owned()).filter(|scope| !scope.is_empty()).collect()
}

/// Whether an error is one that a check turns into "can't be seen": the right is missing, or
/// the thing is hidden.
pub(crate) fn is_hidden(error: &Error) -> bool {
    matches!(error.kind(), Kind::Forbidden | Kind::NotFound) && error.retry() == Retry::Never
}

#[cfg(test)]
mod tests;
