//! The Connect server's HTTP interface, as far as it is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::item::{Goal, Item, Patch, wipe};
use super::transport::{self, Place, Transport};
use crate::http::{self, Effect};
use crate::shared::Shared;

/// How long a server that has just started may need to know its tokens.
const WARM_UP: Duration = Duration::from_secs(1);

/// A Connect server with a token for it.
pub(super) struct Connect {
    base: Url,
    token: Secret,
    shared: Arc<Shared>,
    /// Whether the server has accepted the token once.
    greeted: AtomicBool,
}

impl Connect {
    /// Finds the server and the token. Sends nothing.
    ///
    /// # Errors
    /// When one of them is not configured, or the server would be reached by plain HTTP.
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self> {
        let configured = shared.vendors.onepassword.connect.clone();
        let host = configured.or_else(|| shared.credentials.plain("OP_CONNECT_HOST")).ok_or_else(|| {
            Error::new(Kind::Config, "reach 1Password Connect")
                .because("nobody says where the Connect server is")
                .hint("set `connect` under [onepassword] in the configuration, or OP_CONNECT_HOST")
        })?;
        let text = host.trim_end_matches('/');
        let base = http::endpoint(text.strip_suffix("/v1").unwrap_or(text))?;
        let token = shared.credentials.need(
            "OP_CONNECT_TOKEN",
            "1Password Connect",
            "issue an access token for the Connect server, with read and write on the vault",
        )?;
        Ok(Self { base, token, shared: Arc::clone(shared), greeted: AtomicBool::new(false) })
    }

    async fn find(&self, segments: &[&str], key: &str, name: &str, what: &str) -> Result<String> {
        let operation = format!("find the {what} \"{name}\" in 1Password");
        let filter = format!("{key} eq {}", Value::from(name));
        let request = || self.request(Method::GET, segments).query(&[("filter", &filter)]);
        let mut answer = self.json(request, Effect::Reads, &operation).await?;
        let found = transport::only(&answer, key, name, what);
        wipe(&mut answer);
        found
    }

    /// Changes the item in one piece, and answers what it is now.
    async fn patch(&self, place: &Place, patch: &Patch, choice: Option<&str>) -> Result<Item> {
        // An empty patch leaves the item as it is, so a lost answer to it does no harm.
        let effect = if patch.is_empty() { Effect::Reads } else { Effect::Writes };
        let request = || self.request(Method::PATCH, &segments(place)).json(patch.document());
        let document = self.json(request, effect, "change the item in 1Password").await?;
        Ok(Item::new(document, choice.map(str::to_owned)))
    }

    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().push("v1").extend(segments);
        self.shared.http.request(method, url).bearer_auth(self.token.expose())
    }

    async fn json(
        &self,
        request: impl Fn() -> RequestBuilder,
        effect: Effect,
        operation: &str,
    ) -> Result<Value> {
        let mut response = self.send(&request, effect, operation).await?;
        // Servers before 1.7.2 could refuse the first token they saw after their start.
        if response.status() == StatusCode::UNAUTHORIZED && !self.greeted.load(Ordering::Relaxed) {
            self.greeted.store(true, Ordering::Relaxed);
            self.shared.clock.sleep(WARM_UP).await;
            response = self.send(&request, effect, operation).await?;
        }
        if !response.status().is_success() {
            return Err(classify(response, effect, operation).await);
        }
        self.greeted.store(true, Ordering::Relaxed);
        let body = response.bytes().await.map_err(|error| http::unanswered(&error, effect, operation))?;
        serde_json::from_slice(&body).map_err(|_| {
            let error = Error::new(Kind::Corrupt, operation).because("the answer is no JSON");
            if effect == Effect::Writes { error.unknown() } else { error.later(None) }
        })
    }

    async fn send(
        &self,
        request: &impl Fn() -> RequestBuilder,
        effect: Effect,
        operation: &str,
    ) -> Result<Response> {
        let response =
            http::send(request()).await.map_err(|error| http::unanswered(&error, effect, operation))?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        self.shared.clocks.hear_header("the Connect server", date, self.shared.clock.now());
        Ok(response)
    }
}

#[async_trait]
impl Transport for Connect {
    async fn place(&self, vault: &str, item: &str) -> Result<Place> {
        let vault = match transport::is_id(vault) {
            true => vault.to_owned(),
            false => self.find(&["vaults"], "name", vault, "vault").await?,
        };
        let item = match transport::is_id(item) {
            true => item.to_owned(),
            false => self.find(&["vaults", &vault, "items"], "title", item, "item").await?,
        };
        Ok(Place { vault, item })
    }

    async fn item(&self, place: &Place, choice: Option<&str>) -> Result<Item> {
        let request = || self.request(Method::GET, &segments(place));
        let document = self.json(request, Effect::Reads, "read the item in 1Password").await?;
        Ok(Item::new(document, choice.map(str::to_owned)))
    }

    async fn reach(
        &self,
        place: &Place,
        before: &Item,
        goals: &[Goal],
        choice: Option<&str>,
    ) -> Result<Item> {
        self.patch(place, &before.patch(goals)?, choice).await
    }

    async fn probe(
        &self,
        place: &Place,
        choice: Option<&str>,
        subject: &str,
    ) -> Result<(Option<Item>, Vec<Finding>)> {
        match self.patch(place, &Patch::nothing(), choice).await {
            Ok(item) => Ok((Some(item), Vec::new())),
            Err(error) if error.kind() == Kind::Rejected => {
                let what = "whether the item may be changed can't be told before: this Connect server takes no empty change";
                Ok((None, vec![Finding::new(Severity::Unseen, subject, what)]))
            }
            Err(error) => Err(error),
        }
    }
}

fn segments(place: &Place) -> [&str; 4] {
    ["vaults", &place.vault, "items", &place.item]
}

/// Connect's errors: `{status, message}`. The message is searched and never shown.
pub(crate) async fn classify(response: Response, effect: Effect, operation: &str) -> Error {
    let status = response.status();
    let after = http::retry_after(&response);
    let message = response.text().await.unwrap_or_default();
    if message.contains("item version") {
        // Somebody wrote between our read and our write: look again.
        return Error::new(Kind::Conflict, operation)
            .because("somebody else changed the item at the same moment")
            .unknown();
    }
    let error = Error::new(http::kind_of(status), operation);
    let error = match status.as_u16() {
        401 => error
            .because("Connect does not accept the token in OP_CONNECT_TOKEN")
            .hint("is it of this Connect server, and not revoked or expired?"),
        403 => error
            .because("the token does not have the right to do this in the vault")
            .hint("give the Connect token read and write access to the vault"),
        404 => error.because("Connect does not know the vault or the item").hint(
            "a text of 26 small letters and digits is taken for an id; and the token sees only its own vaults",
        ),
        400 => error
            .because("Connect refuses the request as invalid")
            .hint("the Connect server's log says why; pgrotate is written for its version 1.7"),
        429 => error.because("Connect asks for fewer requests"),
        number @ 402..=499 => error
            .because(format!("Connect answered {number}"))
            .hint("is it a Connect server that answers at `connect` under [onepassword]?"),
        number => error.because(format!("Connect answered {number}")),
    };
    http::with_retry(error, http::retry_of(status, effect, after))
}
