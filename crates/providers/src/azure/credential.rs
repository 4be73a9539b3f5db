//! Who signs in, and the tokens that came of it: one for each audience, fetched once even when
//! several providers want it at the same time.

pub(crate) mod failure;
mod federation;
mod machine;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::ClientOptions;
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, Executor,
};
use pgrotate_core::env::Clock;
use pgrotate_core::{Error, Kind, Result, Retry, Secret};
use reqwest::Url;

use self::failure::{classify, is_mistrust, nobody, why_not_the_cli};
use self::source::{App, Found, Issued, Source};
use super::{client_options, sovereign};
use crate::shared::Shared;

/// Time for a sign-in.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the Azure CLI, which is a Python program that may have to ask the network itself.
const CLI_TIMEOUT: Duration = Duration::from_secs(60);
/// How long before its end a token is replaced; the same as in Microsoft's crates.
const SPARE_SECONDS: i64 = 300;
/// How long a failure is not tried again: the providers that start together need one answer, and
/// too many wrong secrets would have the identity locked.
const FAILURE_SECONDS: i64 = 10;

const SIGN_IN: &str = "sign in to Azure";

/// What came of the last sign-in for a scope.
#[derive(Default)]
enum Kept {
    #[default]
    Nothing,
    Token(AccessToken),
    /// A failure that trying again would not change, and the second in which it was seen.
    Failure(i64, Error),
}

type Slot = Arc<tokio::sync::Mutex<Kept>>;

/// The tokens of one identity, by scope. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<HashMap<String, Slot>>>);

impl Tokens {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// The identity of an account.
pub(super) struct Credential {
    source: Result<Source>,
    options: ClientOptions,
    http: reqwest::Client,
    audience: &'static str,
    executor: Option<Arc<dyn Executor>>,
    clock: Arc<dyn Clock>,
    tokens: Tokens,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(hidden)")
    }
}

impl Credential {
    /// Looks who is configured. What is missing is said at the first use.
    pub(super) fn new(shared: &Shared, resource_manager: &Url, tokens: Tokens) -> Result<Self> {
        let authority = match shared.credentials.plain("AZURE_AUTHORITY_HOST") {
            Some(host) => Some(authority(&host)?),
            None => sovereign(resource_manager.host_str().unwrap_or_default()).map(str::to_owned),
        };
        let mut options = client_options(shared, TIMEOUT);
        options.cloud = authority.map(|authority_host| {
            let mut cloud = CustomConfiguration::default();
            cloud.authority_host = authority_host;
            Arc::new(CloudConfiguration::from(cloud))
        });
        Ok(Self {
            source: source::find(&shared.credentials, &shared.vendors.azure),
            options,
            http: shared.http.clone(),
            audience: exchange_audience(resource_manager),
            executor: None,
            clock: Arc::clone(&shared.clock),
            tokens,
        })
    }

    /// A token for a scope.
    pub(super) async fn token(&self, scope: &str) -> Result<Secret> {
        self.access(scope).await.map(|access| Secret::new(access.token.secret()))
    }

    async fn access(&self, scope: &str) -> Result<AccessToken> {
        let slot = Arc::clone(self.tokens.slots().entry(scope.to_owned()).or_default());
        // Whoever comes second waits here for the first one's token.
        let mut kept = slot.lock().await;
        let now = self.clock.now().as_second();
        match &*kept {
            Kept::Token(access) if access.expires_on.unix_timestamp() > now + SPARE_SECONDS => {
                return Ok(access.clone());
            }
            Kept::Failure(second, error) if (0..FAILURE_SECONDS).contains(&(now - second)) => {
                return Err(error.clone());
            }
            _ => {}
        }
        let fetched = self.fetch(scope).await;
        *kept = match &fetched {
            Ok(access) => Kept::Token(access.clone()),
            Err(error) if error.retry() == Retry::Never => Kept::Failure(now, error.clone()),
            Err(_) => Kept::Nothing,
        };
        fetched
    }

    /// Drops the token of a scope, after a service has refused it.
    pub(super) fn forget(&self, scope: &str) {
        self.drop_tokens(|of| of == scope);
    }

    /// Drops all tokens.
    pub(super) fn forget_all(&self) {
        self.drop_tokens(|_| true);
    }

    /// What failed was no token that a service could refuse, and one being fetched is new.
    fn drop_tokens(&self, which: impl Fn(&str) -> bool) {
        self.tokens.slots().retain(|scope, slot| {
            !which(scope) || !slot.try_lock().is_ok_and(|kept| matches!(*kept, Kept::Token(_)))
        });
    }

    /// Gets a new token. Microsoft's credentials keep tokens too, so each is made anew: a token
    /// that was refused must not come back.
    async fn fetch(&self, scope: &str) -> Result<AccessToken> {
        match self.source.as_ref().map_err(Clone::clone)? {
            Source::Principal { app, secret } => {
                let options = ClientSecretCredentialOptions { client_options: self.options.clone() };
                let secret = azure_core::credentials::Secret::new(secret.expose().to_owned());
                let made =
                    ClientSecretCredential::new(&app.tenant, app.client.clone(), secret, Some(options));
                ask(made, scope, "the service principal of AZURE_CLIENT_ID").await
            }
            Source::Workload { app, token } => self.exchange(app, token, scope).await,
            Source::Machine(machine) => machine.token(&self.http, scope).await,
            Source::Found(found) => self.found(found, scope).await,
        }
    }

    /// Exchanges somebody else's token for Entra's.
    async fn exchange(&self, app: &App, token: &Issued, scope: &str) -> Result<AccessToken> {
        let assertion = token.assertion(&self.http, self.audience).await?;
        let options = ClientAssertionCredentialOptions { client_options: self.options.clone() };
        let made = ClientAssertionCredential::new(
            app.tenant.clone(),
            app.client.clone(),
            assertion.clone(),
            Some(options),
        );
        ask(made, scope, token.who()).await.map_err(|error| match assertion.wanted() {
            Some(wanted) if is_mistrust(&error) => error.hint(wanted),
            _ => error,
        })
    }

    /// Asks the Azure CLI, then the machine.
    async fn found(&self, found: &Found, scope: &str) -> Result<AccessToken> {
        let mut cli = None;
        if found.cli {
            match self.ask_the_cli(found, scope).await {
                Ok(access) => return Ok(access),
                Err(why) => cli = Some(why),
            }
        }
        let mut machine = None;
        if let Some(identity) = &found.machine {
            let why = match identity.is_there().await {
                true => match identity.token(&self.http, scope).await {
                    Ok(access) => return Ok(access),
                    Err(error) => error,
                },
                false => Error::new(Kind::Unauthenticated, SIGN_IN).because(
                    "managed identity: IDENTITY_ENDPOINT is not set, and there is no metadata service of Azure's",
                ),
            };
            machine = Some(why);
        }
        Err(nobody(found, cli, machine))
    }

    /// A token of the CLI's, or why there is none.
    async fn ask_the_cli(&self, found: &Found, scope: &str) -> std::result::Result<AccessToken, String> {
        let options = AzureCliCredentialOptions {
            tenant_id: found.tenant.clone(),
            executor: self.executor.clone(),
            ..Default::default()
        };
        let made = AzureCliCredential::new(Some(options))
            .map_err(|_| "Azure CLI: [azure] tenant is no tenant id".to_owned())?;
        match tokio::time::timeout(CLI_TIMEOUT, made.get_token(&[scope], None)).await {
            Ok(asked) => asked.map_err(|error| why_not_the_cli(&error)),
            Err(_) => Err("Azure CLI: it does not answer".into()),
        }
    }
}

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let scope = scopes.first().copied().unwrap_or_default();
        // Our own words travel inside, and `explain` finds them again.
        self.access(scope).await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
    }
}

/// The sign-in service's address: `AZURE_AUTHORITY_HOST` may leave out the scheme.
fn authority(host: &str) -> Result<String> {
    let text = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
    super::tls_endpoint(&text).map_err(|error| error.during("use AZURE_AUTHORITY_HOST"))?;
    Ok(text)
}

/// Asks one of Microsoft's credentials for a token.
async fn ask<C: TokenCredential>(
    made: azure_core::Result<Arc<C>>,
    scope: &str,
    who: &str,
) -> Result<AccessToken> {
    let refused = |error: &azure_core::Error| classify(error, who);
    let credential = made.map_err(|error| refused(&error))?;
    credential.get_token(&[scope], None).await.map_err(|error| refused(&error))
}

/// Entra's name towards those whose tokens it takes, which each cloud has another of.
fn exchange_audience(resource_manager: &Url) -> &'static str {
    match sovereign(resource_manager.host_str().unwrap_or_default()) {
        Some("https://login.microsoftonline.us") => "api://AzureADTokenExchangeUSGov",
        Some(_) => "api://AzureADTokenExchangeChina",
        None => "api://AzureADTokenExchange",
    }
}

#[cfg(test)]
mod tests;
