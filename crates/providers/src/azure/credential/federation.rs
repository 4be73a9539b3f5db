//! Workload identities: a token that somebody else has issued, as proof towards Entra.
//!
//! Kubernetes puts the token into a file and renews it there. A GitHub job that has the permission
//! `id-token: write` asks GitHub for one, at an address and with a token of its own that are in its
//! environment; without the permission there is neither.

use std::path::Path;

use async_trait::async_trait;
use azure_identity::ClientAssertion;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::SIGN_IN;
use super::source::Issued;
use crate::http::{self, Effect};
use crate::shared;

/// A token that speaks for an application. It is fetched anew for each sign-in: it lives shorter
/// than what it is exchanged for.
#[derive(Clone, Debug)]
pub(super) struct Assertion(Secret);

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(
        &self,
        _options: Option<azure_core::http::ClientMethodOptions<'_>>,
    ) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}

impl Issued {
    /// Words for who this is.
    pub(super) const fn who(&self) -> &'static str {
        match self {
            Self::File(_) => "the workload identity of AZURE_FEDERATED_TOKEN_FILE",
            Self::Actions { .. } => "the workload identity of this GitHub job",
        }
    }

    /// Gets the token. `audience` is Entra's name in this cloud.
    pub(super) async fn assertion(&self, http: &reqwest::Client, audience: &str) -> Result<Assertion> {
        let token = match self {
            Self::File(path) => from_file(path)?,
            Self::Actions { url, token } => from_github(http, url, token, audience).await?,
        };
        Ok(Assertion(token))
    }
}

impl Assertion {
    /// What a federated credential has to say to match, as the words of a hint. Who issued a token
    /// for whom is no secret; the token is, and none of it is repeated but these names.
    pub(super) fn wanted(&self) -> Option<String> {
        let claims = URL_SAFE_NO_PAD.decode(self.0.expose().split('.').nth(1)?).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let audience = claims["aud"].as_str().or_else(|| claims["aud"][0].as_str())?;
        let [issuer, subject] = ["iss", "sub"].map(|name| claims[name].as_str());
        let named = [issuer?, subject?, audience];
        let plain = |text: &str| text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic() && c != '\'');
        named.iter().all(|text| plain(text)).then(|| {
            let [issuer, subject, audience] = named;
            format!("the token has issuer {issuer}, subject {subject}, audience {audience}")
        })
    }
}

fn from_file(path: &str) -> Result<Secret> {
    let refuse = |why: String| {
        Error::new(Kind::Unauthenticated, SIGN_IN)
            .because(format!("AZURE_FEDERATED_TOKEN_FILE: its token file can't be used: {path}: {why}"))
            .hint("whoever runs this (a cluster's workload identity, a CI system) has to put a token there")
    };
    let text = shared::read_small_text(Path::new(path)).map_err(|error| refuse(shared::why(&error)))?;
    let token = text.trim();
    if token.is_empty() { Err(refuse("it is empty".into())) } else { Ok(Secret::new(token)) }
}

/// GitHub's answer.
#[derive(Deserialize)]
struct IdToken {
    value: azure_core::credentials::Secret,
}

async fn from_github(http: &reqwest::Client, url: &Url, token: &Secret, audience: &str) -> Result<Secret> {
    let operation = "get an id token from GitHub";
    let lost = |error: reqwest::Error| http::unanswered(&error, Effect::Reads, operation);
    let request = http.get(url.clone()).query(&[("audience", audience)]).bearer_auth(token.expose());
    let response = request.header("accept", "application/json").send().await.map_err(lost)?;
    let status = response.status();
    if !status.is_success() {
        let error = Error::new(http::kind_of(status), operation)
            .because(format!("GitHub answers {}", status.as_u16()));
        let error = match status.as_u16() {
            401 | 403 => error.hint(
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN is good only while its job runs, and the job needs `permissions: id-token: write`",
            ),
            _ => error,
        };
        let retry = http::retry_of(status, Effect::Reads, http::retry_after(&response));
        return Err(http::with_retry(error, retry).during(SIGN_IN));
    }
    let body = Zeroizing::new(response.bytes().await.map_err(lost)?.to_vec());
    let answer: IdToken = serde_json::from_slice(&body).map_err(|_| {
        Error::new(Kind::Corrupt, SIGN_IN).because("GitHub's answer holds no id token").later(None)
    })?;
    Ok(Secret::new(answer.value.secret()))
}
