//! Which way to sign in: what the configuration and the variables that Microsoft's own tools read
//! ask for.

use pgrotate_core::{Error, Kind, Result, Secret};
use reqwest::Url;

use super::SIGN_IN;
use super::machine::Machine;
use crate::credentials::Credentials;
use crate::http;
use crate::shared::{AzureSettings, AzureSignIn};

/// Who signs in.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A service principal with its secret.
    Principal { app: App, secret: Secret },
    /// An application that trusts whoever has issued a token.
    Workload { app: App, token: Issued },
    /// The identity of the App Service or machine, and nobody else.
    Machine(Machine),
    /// Whoever is logged in to the Azure CLI, then this machine.
    Found(Found),
}

/// An application in a tenant.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) tenant: String,
    pub(super) client: String,
}

/// Where the token is that somebody else has issued.
#[derive(Clone, Debug)]
pub(super) enum Issued {
    /// In a file, as Kubernetes gives it.
    File(String),
    /// GitHub gives it to the job that asks for it.
    Actions { url: Url, token: Secret },
}

/// What is left to try where nothing is configured.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The tenant for which the CLI is asked.
    pub(super) tenant: Option<String>,
    /// Whether the CLI is asked.
    pub(super) cli: bool,
    /// The machine's identity, if it is asked.
    pub(super) machine: Option<Machine>,
    /// The ways that are not configured, and what is missing for each.
    pub(super) missing: Vec<String>,
    /// Whether this runs in a GitHub job, which could have a token.
    pub(super) in_actions: bool,
}

/// Which ways count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    All,
    Only(AzureSignIn),
    /// Those that need no person, which the ecosystem calls `prod`.
    Unattended,
}

impl Choice {
    fn allows(self, way: AzureSignIn) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == way,
            Self::Unattended => way != AzureSignIn::Cli,
        }
    }
}

/// The variables, as the ways need them.
struct Wants<'a> {
    credentials: &'a Credentials,
    tenant: Option<String>,
    client: Option<String>,
    choice: Choice,
}

/// Finds out who signs in.
pub(super) fn find(credentials: &Credentials, settings: &AzureSettings) -> Result<Source> {
    let plain = |name: &str| credentials.plain(name);
    let wants = Wants {
        credentials,
        tenant: settings.tenant.clone().or_else(|| plain("AZURE_TENANT_ID")),
        client: plain("AZURE_CLIENT_ID"),
        choice: choice(settings.sign_in, plain("AZURE_TOKEN_CREDENTIALS"))?,
    };
    let mut missing = Vec::new();
    if let Some(source) = wants.principal(&mut missing)? {
        return Ok(source);
    }
    if let Some(source) = wants.workload(&mut missing)? {
        return Ok(source);
    }
    wants.rest(missing)
}

/// The configuration's choice, else that of the variable which Microsoft's libraries read.
fn choice(configured: Option<AzureSignIn>, variable: Option<String>) -> Result<Choice> {
    if let Some(way) = configured {
        return Ok(Choice::Only(way));
    }
    let Some(variable) = variable else { return Ok(Choice::All) };
    Ok(match variable.to_ascii_lowercase().as_str() {
        "dev" | "azureclicredential" => Choice::Only(AzureSignIn::Cli),
        "prod" => Choice::Unattended,
        "environmentcredential" => Choice::Only(AzureSignIn::ClientSecret),
        "workloadidentitycredential" => Choice::Only(AzureSignIn::WorkloadIdentity),
        "managedidentitycredential" => Choice::Only(AzureSignIn::ManagedIdentity),
        _ => {
            return Err(Error::new(Kind::Config, SIGN_IN)
                .because("AZURE_TOKEN_CREDENTIALS names no way that there is")
                .hint("unset it, or choose with `sign_in` under [azure]"));
        }
    })
}

impl Wants<'_> {
    fn plain(&self, name: &str) -> Option<String> {
        self.credentials.plain(name)
    }

    fn is_only(&self, way: AzureSignIn) -> bool {
        self.choice == Choice::Only(way)
    }

    /// The application, which `because_of` needs.
    fn app(&self, because_of: &str) -> Result<App> {
        let needed = |value: &Option<String>, name: &str| {
            value.clone().ok_or_else(|| {
                Error::new(Kind::Unauthenticated, SIGN_IN)
                    .because(format!("{because_of} is set, and {name} is not"))
                    .hint(format!(
                        "set {name}, or unset {because_of} to use the Azure CLI's login (`az login`)"
                    ))
            })
        };
        let tenant = needed(&self.tenant, "AZURE_TENANT_ID")?;
        let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
        if !tenant.chars().all(fits) {
            return Err(Error::new(Kind::Config, SIGN_IN)
                .because("the tenant is neither an id nor a domain")
                .hint("look at [azure] tenant or AZURE_TENANT_ID"));
        }
        Ok(App { tenant, client: needed(&self.client, "AZURE_CLIENT_ID")? })
    }

    fn principal(&self, missing: &mut Vec<String>) -> Result<Option<Source>> {
        if !self.choice.allows(AzureSignIn::ClientSecret) {
            return Ok(None);
        }
        if let Some(secret) = self.credentials.get("AZURE_CLIENT_SECRET") {
            return Ok(Some(Source::Principal { app: self.app("AZURE_CLIENT_SECRET")?, secret }));
        }
        missing.push(match self.plain("AZURE_CLIENT_CERTIFICATE_PATH") {
            Some(_) => {
                "client secret: AZURE_CLIENT_SECRET is not set, and certificates are not supported".into()
            }
            None => "client secret: AZURE_CLIENT_SECRET is not set".into(),
        });
        Ok(None)
    }

    fn workload(&self, missing: &mut Vec<String>) -> Result<Option<Source>> {
        if !self.choice.allows(AzureSignIn::WorkloadIdentity) {
            return Ok(None);
        }
        let is_only = self.is_only(AzureSignIn::WorkloadIdentity);
        if let Some(file) = self.plain("AZURE_FEDERATED_TOKEN_FILE") {
            let app = self.app("AZURE_FEDERATED_TOKEN_FILE")?;
            return Ok(Some(Source::Workload { app, token: Issued::File(file) }));
        }
        let url = self.plain("ACTIONS_ID_TOKEN_REQUEST_URL");
        let (Some(url), Some(token)) = (url, self.credentials.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")) else {
            missing.push(
                "workload identity: neither AZURE_FEDERATED_TOKEN_FILE nor ACTIONS_ID_TOKEN_REQUEST_URL is set"
                    .into(),
            );
            return Ok(None);
        };
        // A job may have the right to an id token for something else, and sign in by `azure/login`.
        if !is_only && (self.client.is_none() || self.tenant.is_none()) {
            let name = if self.client.is_none() { "AZURE_CLIENT_ID" } else { "AZURE_TENANT_ID" };
            missing.push(format!(
                "workload identity: this GitHub job may ask for a token, but {name} is not set"
            ));
            return Ok(None);
        }
        let app = self.app("ACTIONS_ID_TOKEN_REQUEST_URL")?;
        let url = http::endpoint(&url).map_err(|error| error.during("use ACTIONS_ID_TOKEN_REQUEST_URL"))?;
        Ok(Some(Source::Workload { app, token: Issued::Actions { url, token } }))
    }

    /// The ways that nothing has to be configured for.
    fn rest(&self, missing: Vec<String>) -> Result<Source> {
        let machine = match self.choice.allows(AzureSignIn::ManagedIdentity) {
            true => Some(Machine::find(self.credentials, self.client.clone())?),
            false => None,
        };
        if let Some(machine) = machine.as_ref().filter(|machine| {
            // The App Service says that it has one; only the machine's has to be looked for.
            machine.is_announced() || self.is_only(AzureSignIn::ManagedIdentity)
        }) {
            return Ok(Source::Machine(machine.clone()));
        }
        let in_actions = self.plain("GITHUB_ACTIONS").as_deref() == Some("true");
        Ok(Source::Found(Found {
            tenant: self.tenant.clone(),
            cli: self.choice.allows(AzureSignIn::Cli),
            machine,
            missing,
            in_actions,
        }))
    }
}
