//! Managed identities: who an App Service or a virtual machine is, asked of Azure itself.
//!
//! Asked here and not by `azure_identity`, which reads the process's environment alone, knows no
//! `AZURE_POD_IDENTITY_AUTHORITY_HOST`, and whose errors don't tell a machine without an identity
//! from one outside Azure. Both interfaces are plain HTTP inside the machine or on its own link,
//! and never reached through a proxy: another machine would answer for itself.

use std::time::Duration;

use azure_core::credentials::AccessToken;
use azure_core::time::OffsetDateTime;
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::{Response, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::SIGN_IN;
use crate::credentials::Credentials;
use crate::http::{self, Effect};

/// The instance metadata service, the same on every virtual machine.
const METADATA_SERVICE: &str = "http://169.254.169.254";
/// Time for the metadata service to take a connection. It is near or not there at all.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Time for a token.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A managed identity: the one with this client id, or the machine's own.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    client: Option<String>,
    place: Place,
}

/// Who gives the token.
#[derive(Clone, Debug)]
enum Place {
    /// App Service, Functions and Container Apps.
    AppService { endpoint: Url, header: Secret },
    /// A virtual machine's metadata service.
    Metadata { endpoint: Url },
    /// A place of Azure's whose way is another one.
    Unknown,
}

/// What both answer. The time is a text at one and a number at others.
#[derive(Deserialize)]
struct Answer {
    access_token: azure_core::credentials::Secret,
    expires_on: serde_json::Value,
}

impl Machine {
    /// Reads what the place says of itself.
    pub(super) fn find(credentials: &Credentials, client: Option<String>) -> Result<Self> {
        let plain = |name: &str| credentials.plain(name);
        let place = match (plain("IDENTITY_ENDPOINT"), credentials.get("IDENTITY_HEADER")) {
            (Some(endpoint), Some(header)) => {
                Place::AppService { endpoint: near(&endpoint, "IDENTITY_ENDPOINT")?, header }
            }
            // Azure Arc and Service Fabric have their own ways, older App Services another name.
            (Some(_), None) => Place::Unknown,
            (None, _) => {
                let name = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
                let mut endpoint = near(plain(name).as_deref().unwrap_or(METADATA_SERVICE), name)?;
                endpoint.set_path("/metadata/identity/oauth2/token");
                Place::Metadata { endpoint }
            }
        };
        Ok(Self { client, place })
    }

    /// Whether the place says by itself that there is an identity.
    pub(super) fn is_announced(&self) -> bool {
        !matches!(self.place, Place::Metadata { .. })
    }

    /// Whether a metadata service takes connections.
    pub(super) async fn is_there(&self) -> bool {
        let Place::Metadata { endpoint } = &self.place else { return true };
        let Some(host) = endpoint.host_str() else { return false };
        let port = endpoint.port_or_known_default().unwrap_or(80);
        let connection = tokio::net::TcpStream::connect((host, port));
        matches!(tokio::time::timeout(PROBE_PATIENCE, connection).await, Ok(Ok(_)))
    }

    /// Gets a token for a scope.
    pub(super) async fn token(&self, http: &reqwest::Client, scope: &str) -> Result<AccessToken> {
        let (endpoint, version) = match &self.place {
            Place::AppService { endpoint, .. } => (endpoint, "2019-08-01"),
            Place::Metadata { endpoint } => (endpoint, "2018-02-01"),
            Place::Unknown => return Err(unsupported()),
        };
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let mut query = vec![("api-version", version), ("resource", resource)];
        query.extend(self.client.as_deref().map(|client| ("client_id", client)));
        let mut request =
            http.get(endpoint.clone()).query(&query).timeout(TIMEOUT).header("metadata", "true");
        if let Place::AppService { header, .. } = &self.place {
            request = request.header("x-identity-header", header.expose());
        }
        let lost = |error: reqwest::Error| http::unanswered(&error, Effect::Reads, SIGN_IN);
        let response = request.send().await.map_err(lost)?;
        if !response.status().is_success() {
            return Err(self.refused(&response));
        }
        let body = Zeroizing::new(response.bytes().await.map_err(lost)?.to_vec());
        read(&body)
    }

    /// Neither interface has codes that say more than the status.
    fn refused(&self, response: &Response) -> Error {
        let (status, after) = (response.status(), http::retry_after(response));
        let app_service = matches!(self.place, Place::AppService { .. });
        let error = Error::new(Kind::Unauthenticated, SIGN_IN);
        match (status.as_u16(), &self.client) {
            (400, Some(_)) => error
                .because("managed identity: the one of AZURE_CLIENT_ID is not assigned here (status 400)")
                .hint("assign it, or unset AZURE_CLIENT_ID to use the machine's own identity"),
            (400, None) => error
                .because("managed identity: there is none here (status 400)")
                .hint(if app_service {
                    "give the app one: az webapp identity assign"
                } else {
                    "give the machine one: az vm identity assign"
                })
                .hint("if it has user-assigned identities only, name one by its client id in AZURE_CLIENT_ID"),
            (401 | 403, _) if app_service => error
                .because(format!("managed identity: IDENTITY_HEADER is not accepted (status {})", status.as_u16()))
                .hint("both IDENTITY_ENDPOINT and IDENTITY_HEADER belong to the app's present start: take neither from elsewhere"),
            // The metadata service is being renewed, as Azure's pages have it.
            (404 | 410 | 429 | 500.., _) => Error::new(http::kind_of(status), SIGN_IN)
                .because(format!("managed identity: no answer now (status {})", status.as_u16()))
                .later(after),
            (number, _) => error.because(format!("managed identity: refused (status {number})")),
        }
    }
}

/// An address inside the machine or on its own link, or one that is reached by TLS.
fn near(text: &str, variable: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_link_local(),
        _ => false,
    });
    match url {
        Some(url) if url.scheme() == "http" && url.username().is_empty() && url.password().is_none() => {
            Ok(url)
        }
        _ => http::endpoint(text).map_err(|error| error.during(format!("use {variable}"))),
    }
}

fn unsupported() -> Error {
    Error::new(Kind::Unauthenticated, SIGN_IN)
        .because("managed identity: IDENTITY_ENDPOINT is set without IDENTITY_HEADER, as on Azure Arc, which is not supported")
        .hint("sign in otherwise: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or `sign_in = \"cli\"` under [azure]")
}

fn read(body: &[u8]) -> Result<AccessToken> {
    let senseless =
        || Error::new(Kind::Corrupt, SIGN_IN).because("managed identity: the answer makes no sense");
    let answer: Answer = serde_json::from_slice(body).map_err(|_| senseless())?;
    let expires_on = match &answer.expires_on {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let expires_on = expires_on.and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
    Ok(AccessToken::new(answer.access_token, expires_on.ok_or_else(senseless)?))
}
