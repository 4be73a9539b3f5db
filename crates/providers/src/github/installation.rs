//! The tokens of an App's installations: one per owner, shared by everything in this process that
//! talks to the same GitHub, and made anew shortly before it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use futures::lock::Mutex;
use jiff::SignedDuration;
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::{Method, Response};
use serde_json::Value;
use zeroize::Zeroizing;

use super::app::{App, Installed};
use super::{API_VERSION, Api, date, limited};
use crate::http::{self, Effect};

const SIGN_IN: &str = "sign in to GitHub as an App";

/// How long before its end a token is replaced, so that it lasts for what it is fetched for.
const SPARE: SignedDuration = SignedDuration::from_mins(5);

/// What is known of an owner's installation.
#[derive(Default)]
struct Kept {
    installation: Option<u64>,
    installed: Option<Installed>,
}

type Slot = Arc<Mutex<Kept>>;

/// By GitHub, App, and owner or installation.
static KEPT: LazyLock<std::sync::Mutex<BTreeMap<[String; 3], Slot>>> = LazyLock::new(Default::default);

/// Whose installation a request needs.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    owner: &'a str,
    /// The path at which it is looked up.
    lookup: Vec<&'a str>,
}

impl<'a> Place<'a> {
    /// Of the path of a request.
    pub(crate) fn of(segments: &[&'a str]) -> Option<Self> {
        match segments {
            ["repos", owner, name, ..] => {
                Some(Self { owner, lookup: vec!["repos", owner, name, "installation"] })
            }
            ["orgs", owner, ..] => Some(Self { owner, lookup: vec!["orgs", owner, "installation"] }),
            _ => None,
        }
    }

    /// The place in words.
    fn named(&self) -> String {
        self.lookup[1..self.lookup.len() - 1].join("/")
    }
}

impl Api {
    /// A token of the installation that the App `id` has at a place.
    pub(super) async fn installed(&self, id: &str, place: Option<&Place<'_>>) -> Result<Installed> {
        let slot = self.slot(id, place);
        // Whoever comes second waits here for the first one's token.
        let mut kept = slot.lock().await;
        let now = self.shared.clock.now();
        if let Some(installed) =
            kept.installed.as_ref().filter(|installed| installed.expires_at > now + SPARE)
        {
            return Ok(installed.clone());
        }
        let resolve = |file: &str| self.shared.path(file).into_boxed_path();
        let assertion = App::new(id, &self.shared.credentials, resolve)?.assertion(now)?;
        let installation = match kept.installation.or(self.shared.vendors.github.installation_id) {
            Some(installation) => installation,
            None => self.look_up(&assertion, place).await?,
        };
        kept.installation = Some(installation);
        let number = installation.to_string();
        let path = ["app", "installations", &number, "access_tokens"];
        let body = self.as_app(Method::POST, &path, &assertion, place).await?;
        let installed = Installed::read(&body)?;
        kept.installed = Some(installed.clone());
        Ok(installed)
    }

    /// Drops a token, after GitHub has refused it.
    pub(super) async fn forget_installed(&self, id: &str, place: Option<&Place<'_>>, refused: &Secret) {
        let slot = self.slot(id, place);
        let mut kept = slot.lock().await;
        if kept.installed.as_ref().is_some_and(|installed| installed.token == *refused) {
            kept.installed = None;
        }
    }

    fn slot(&self, id: &str, place: Option<&Place<'_>>) -> Slot {
        let whose = match (self.shared.vendors.github.installation_id, place) {
            (Some(installation), _) => installation.to_string(),
            (None, place) => place.map_or(String::new(), |place| place.owner.to_ascii_lowercase()),
        };
        let mut kept = KEPT.lock().expect("no holder of this lock panics");
        Arc::clone(kept.entry([self.base.to_string(), id.to_owned(), whose]).or_default())
    }

    /// Which installation the App has at a place.
    async fn look_up(&self, assertion: &Secret, place: Option<&Place<'_>>) -> Result<u64> {
        let Some(place) = place else {
            return Err(Error::new(Kind::Config, SIGN_IN)
                .because("whose installation is meant does not follow from what is asked")
                .hint("set `installation_id` under [github]"));
        };
        let body = self.as_app(Method::GET, &place.lookup, assertion, Some(place)).await?;
        let found = serde_json::from_slice::<Value>(&body).ok().and_then(|found| found["id"].as_u64());
        found.ok_or_else(|| {
            Error::new(Kind::Corrupt, SIGN_IN).because("GitHub's answer names no installation").later(None)
        })
    }

    /// Sends a request as the App itself. Neither of them changes what anybody can see, so one
    /// without an answer is a read.
    async fn as_app(
        &self,
        method: Method,
        path: &[&str],
        assertion: &Secret,
        place: Option<&Place<'_>>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let lost = |error: reqwest::Error| http::unanswered(&error, Effect::Reads, SIGN_IN);
        let request = self
            .request(method, path)
            .bearer_auth(assertion.expose())
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION);
        let response = request.send().await.map_err(lost)?;
        if !response.status().is_success() {
            return Err(self.refused(response, place).await);
        }
        Ok(Zeroizing::new(response.bytes().await.map_err(lost)?.to_vec()))
    }

    /// What GitHub's refusal of an App means. The body is searched and never shown.
    pub(crate) async fn refused(&self, response: Response, place: Option<&Place<'_>>) -> Error {
        let (status, headers) = (response.status(), response.headers().clone());
        let now = date(&headers).unwrap_or_else(|| self.shared.clock.now());
        let after = http::retry_after(&response);
        let body = response.text().await.unwrap_or_default();
        let code = status.as_u16();
        if let Some(error) = limited(code, &headers, &body, after, now, SIGN_IN) {
            return error;
        }
        let error = Error::new(http::kind_of(status), SIGN_IN);
        let clock = ["'exp'", "'iat'", "Expiration time", "Issued at"].iter().any(|word| body.contains(word));
        let configured = self.shared.vendors.github.installation_id.is_some();
        let named = place.map_or_else(|| "its owner".to_owned(), Place::named);
        match code {
            401 if clock => error
                .because("GitHub finds the App's proof too old or too early")
                .hint("put this machine's clock right"),
            401 => error.because("GitHub does not accept the App's proof").hint(
                "is the private key one of the App that `app_id` under [github] names, and not revoked?",
            ),
            404 if body.contains("Integration not found") => error
                .because("GitHub knows no such App")
                .hint("`app_id` under [github] is the App ID or the client id in the App's settings"),
            404 if configured => error
                .because("the App has no such installation")
                .hint("correct `installation_id` under [github], or leave it out to have it looked up"),
            404 => error
                .because(format!("the App is not installed on {named}"))
                .hint(format!("install it (the App's page, \"Install App\") and give it access to {named}")),
            403 if body.contains("suspended") => error
                .because("the App's installation is suspended")
                .hint(format!("an owner of {named} can lift that in the settings, under GitHub Apps")),
            number => {
                let error = error.because(format!("GitHub answered {number}"));
                http::with_retry(error, http::retry_of(status, Effect::Reads, after))
            }
        }
    }
}

#[cfg(test)]
mod tests;
