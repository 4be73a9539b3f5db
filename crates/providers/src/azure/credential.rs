//! Who signs in, and the tokens that came of it: one for each audience, fetched once even when
//! several providers want it at the same time.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::ClientOptions;
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions, Executor, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use pgrotate_core::env::Clock;
use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::Url;

use super::{client_options, sovereign};
use crate::credentials::Credentials;
use crate::http::{Effect, unanswered};
use crate::shared::Shared;

/// Time for a sign-in.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the Azure CLI, which is a Python program that may have to ask the network itself.
const CLI_TIMEOUT: Duration = Duration::from_secs(60);
/// How long before its end a token is replaced; the same as in Microsoft's crates.
const SPARE_SECONDS: i64 = 300;

const SIGN_IN: &str = "sign in to Azure";

/// Who signs in.
#[derive(Clone, Debug)]
enum Source {
    Principal { tenant: String, client: String, secret: Secret },
    Workload { tenant: String, client: String, token_file: PathBuf },
    Person { tenant: Option<String>, machine: Option<Machine> },
}

/// A managed identity: the one with this client id, or the machine's own.
#[derive(Clone, Debug)]
struct Machine {
    client: Option<String>,
}

type Slot = Arc<tokio::sync::Mutex<Option<AccessToken>>>;

/// The identity of an account.
pub(super) struct Credential {
    source: Result<Source>,
    options: ClientOptions,
    executor: Option<Arc<dyn Executor>>,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<String, Slot>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(hidden)")
    }
}

impl Credential {
    /// Looks who is configured. What is missing is said at the first use.
    pub(super) fn new(shared: &Shared, resource_manager: &Url) -> Result<Self> {
        let authority = match shared.credentials.plain("AZURE_AUTHORITY_HOST") {
            Some(host) => Some(authority(&host)?),
            None => sovereign(resource_manager.host_str().unwrap_or_default()).map(str::to_owned),
        };
        let mut options = client_options(&shared.http, TIMEOUT);
        options.cloud = authority.map(|authority_host| {
            let mut cloud = CustomConfiguration::default();
            cloud.authority_host = authority_host;
            Arc::new(CloudConfiguration::from(cloud))
        });
        Ok(Self {
            source: source(&shared.credentials, shared.vendors.azure.tenant.clone()),
            options,
            executor: None,
            clock: Arc::clone(&shared.clock),
            slots: Mutex::default(),
        })
    }

    /// A token for a scope.
    pub(super) async fn token(&self, scope: &str) -> Result<Secret> {
        self.access(scope).await.map(|access| Secret::new(access.token.secret()))
    }

    async fn access(&self, scope: &str) -> Result<AccessToken> {
        let slot = {
            let mut slots = self.slots.lock().expect("no holder of this lock panics");
            Arc::clone(slots.entry(scope.to_owned()).or_default())
        };
        // Whoever comes second waits here for the first one's token.
        let mut kept = slot.lock().await;
        let until = self.clock.now().as_second() + SPARE_SECONDS;
        if let Some(access) = kept.as_ref().filter(|access| access.expires_on.unix_timestamp() > until) {
            return Ok(access.clone());
        }
        let access = self.fetch(scope).await?;
        *kept = Some(access.clone());
        Ok(access)
    }

    /// Drops the token of a scope, after a service has refused it.
    pub(super) fn forget(&self, scope: &str) {
        self.slots.lock().expect("no holder of this lock panics").remove(scope);
    }

    /// Drops all tokens.
    pub(super) fn forget_all(&self) {
        self.slots.lock().expect("no holder of this lock panics").clear();
    }

    /// Gets a new token. Microsoft's credentials keep tokens too, so each is made anew: a token
    /// that was refused must not come back.
    async fn fetch(&self, scope: &str) -> Result<AccessToken> {
        match self.source.as_ref().map_err(Clone::clone)? {
            Source::Principal { tenant, client, secret } => {
                let options = ClientSecretCredentialOptions { client_options: self.options.clone() };
                let secret = azure_core::credentials::Secret::new(secret.expose().to_owned());
                let made = ClientSecretCredential::new(tenant, client.clone(), secret, Some(options));
                ask(made, scope, "the service principal of AZURE_CLIENT_ID").await
            }
            Source::Workload { tenant, client, token_file } => {
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions {
                        client_options: self.options.clone(),
                    },
                    client_id: Some(client.clone()),
                    tenant_id: Some(tenant.clone()),
                    token_file_path: Some(token_file.clone()),
                };
                let made = WorkloadIdentityCredential::new(Some(options));
                ask(made, scope, "the workload identity of AZURE_FEDERATED_TOKEN_FILE").await
            }
            Source::Person { tenant, machine } => {
                self.person_or_machine(tenant, machine.as_ref(), scope).await
            }
        }
    }

    async fn person_or_machine(
        &self,
        tenant: &Option<String>,
        machine: Option<&Machine>,
        scope: &str,
    ) -> Result<AccessToken> {
        let options = AzureCliCredentialOptions {
            tenant_id: tenant.clone(),
            executor: self.executor.clone(),
            ..Default::default()
        };
        let made =
            AzureCliCredential::new(Some(options)).map_err(|_| nobody("[azure] tenant is no tenant id"))?;
        let asked = tokio::time::timeout(CLI_TIMEOUT, made.get_token(&[scope], None)).await;
        let failure = match asked {
            Ok(Ok(access)) => return Ok(access),
            Ok(Err(error)) => nobody(why_not_the_cli(&error)),
            Err(_) => nobody("the Azure CLI does not answer").later(None),
        };
        let Some(machine) = machine else { return Err(failure) };
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: machine.client.clone().map(UserAssignedId::ClientId),
            client_options: self.options.clone(),
        };
        let made = ManagedIdentityCredential::new(Some(options));
        ask(made, scope, "this machine's managed identity")
            .await
            .map_err(|error| failure.causes().iter().fold(error, |error, cause| error.because(cause.clone())))
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

/// Finds out who signs in.
fn source(credentials: &Credentials, tenant: Option<String>) -> Result<Source> {
    let plain = |name: &str| credentials.plain(name);
    let tenant = tenant.or_else(|| plain("AZURE_TENANT_ID"));
    let client = plain("AZURE_CLIENT_ID");
    let needed = |value: Option<String>, name: &str, because_of: &str| {
        value.ok_or_else(|| {
            Error::new(Kind::Unauthenticated, SIGN_IN)
                .because(format!("{because_of} is set, and {name} is not"))
                .hint(format!("set {name}, or unset {because_of} to use the Azure CLI's login (`az login`)"))
        })
    };
    if let Some(secret) = credentials.get("AZURE_CLIENT_SECRET") {
        return Ok(Source::Principal {
            tenant: needed(tenant, "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET")?,
            client: needed(client, "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")?,
            secret,
        });
    }
    if let Some(file) = plain("AZURE_FEDERATED_TOKEN_FILE") {
        return Ok(Source::Workload {
            tenant: needed(tenant, "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE")?,
            client: needed(client, "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE")?,
            token_file: PathBuf::from(file),
        });
    }
    let hinted = ["AZURE_CLIENT_ID", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"];
    let machine = hinted.iter().any(|name| plain(name).is_some()).then_some(Machine { client });
    Ok(Source::Person { tenant, machine })
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

/// The error when nobody can sign in.
fn nobody(why: &str) -> Error {
    Error::new(Kind::Unauthenticated, SIGN_IN)
        .because(format!("no credentials are set in the environment, and {why}"))
        .hint("log in: az login")
        .hint(
            "or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or AZURE_FEDERATED_TOKEN_FILE)",
        )
}

/// The CLI's own words may hold anything, so only the two common cases are told apart.
fn why_not_the_cli(error: &azure_core::Error) -> &'static str {
    let text = error.to_string();
    match () {
        () if text.contains("not found on PATH") => "the Azure CLI (`az`) is not installed",
        () if text.contains("az login") => "the Azure CLI is not logged in, or its login has expired",
        () => "the Azure CLI gives no token (`az account get-access-token` shows why)",
    }
}

/// What a failed sign-in means.
fn classify(error: &azure_core::Error, who: &str) -> Error {
    let mut on_disk = false;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(lost) = cause.downcast_ref::<reqwest::Error>() {
            return unanswered(lost, Effect::Reads, SIGN_IN);
        }
        let answered = cause.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        if let Some(ErrorKind::HttpResponse { status, error_code, .. }) = answered {
            return entra(u16::from(*status), error_code.as_deref().unwrap_or_default(), who);
        }
        on_disk |= cause.is::<std::io::Error>();
        next = cause.source();
    }
    let why = if on_disk { "its token file can't be read" } else { "its settings can't be used" };
    Error::new(Kind::Unauthenticated, SIGN_IN).because(format!("{who}: {why}"))
}

/// What Entra's codes (`AADSTS…`) mean. Its text repeats names and times, never a reason that the
/// code does not give.
fn entra(status: u16, code: &str, who: &str) -> Error {
    let digits = !code.is_empty() && code.len() <= 32 && code.chars().all(|c| c.is_ascii_digit() || c == ',');
    let shown = if digits { format!("AADSTS{code}") } else { format!("status {status}") };
    let error = |kind, why: &str| Error::new(kind, SIGN_IN).because(format!("{who}: {why} ({shown})"));
    match code {
        "7000215" => error(Kind::Unauthenticated, "the secret is wrong")
            .hint("AZURE_CLIENT_SECRET holds the secret's value, not its id"),
        "7000222" => error(Kind::Unauthenticated, "the secret has expired")
            .hint("make a new one: az ad app credential reset --id APP"),
        "700016" => error(Kind::Unauthenticated, "the tenant does not know this application")
            .hint("look at AZURE_CLIENT_ID and AZURE_TENANT_ID"),
        "90002" | "900023" => error(Kind::Unauthenticated, "there is no such tenant")
            .hint("look at [azure] tenant or AZURE_TENANT_ID"),
        "70021" | "700211" | "700213" | "700027" => {
            error(Kind::Unauthenticated, "its federated token is not trusted")
                .hint("compare issuer, subject and audience with the application's federated credential")
        }
        "500011" => {
            error(Kind::Unauthenticated, "the tenant does not know the service that the token is for")
                .hint("look at [azure]: resource_manager, key_vault_suffix")
        }
        "53003" => error(Kind::Forbidden, "a conditional access policy forbids the sign-in"),
        _ if status == 429 || status >= 500 => {
            error(Kind::ServerFault, "the sign-in service has no answer now").later(None)
        }
        _ => error(Kind::Unauthenticated, "the sign-in is refused")
            .hint("az login, or look at AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"),
    }
}

#[cfg(test)]
mod tests;
