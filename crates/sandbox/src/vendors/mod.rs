//! The vendors' HTTP interfaces, one file each: what `pgrotate` and the vendors' own tools talk to in the sandbox.
//!
//! Each stand-in is a struct with its state and a `router`; the sandbox binds the listeners, says where they are
//! ([`Endpoints`]) and puts recording and faults around the routers. What a stand-in can't do itself, changing a
//! real server's password and running a real application, it asks of [`ServerControl`] and [`AppControl`].
//!
//! | listener | router | host names it answers to |
//! | --- | --- | --- |
//! | sign-in | [`AzureSignIn::router`] | any |
//! | resource manager | [`ResourceManager::router`], App Service's resources included | any |
//! | key vault | [`KeyVault::router`] | `{vault}.` before the host of [`Endpoints::key_vault`] |
//! | App Service's SCM site | [`AppService::router`] | `{app}.` before the host of [`Endpoints::scm`] |
//! | managed identity, plain HTTP | [`ManagedIdentity::router`] | any |
//! | id tokens of GitHub's jobs, on GitHub's listener | [`Federation::router`] | any |
//! | GitHub, 1Password Connect, webhooks, Jira | `router` of each | any |

mod app_service;
mod aws;
mod azure_access;
mod azure_arm;
mod azure_sign_in;
mod call;
mod control;
mod federation;
mod github;
mod jira;
mod key_vault;
mod managed_identity;
mod onepassword;
mod resource_manager;
mod webhook;

#[cfg(test)]
mod testing;

pub(crate) use app_service::AppService;
pub(crate) use aws::Aws;
pub(crate) use azure_sign_in::AzureSignIn;
pub(crate) use control::apply;
pub(crate) use federation::Federation;
pub(crate) use github::{APP_ID, GitHub};
pub(crate) use jira::Jira;
pub(crate) use key_vault::KeyVault;
pub(crate) use managed_identity::ManagedIdentity;
pub(crate) use onepassword::OnePassword;
pub(crate) use resource_manager::ResourceManager;
pub(crate) use webhook::Webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;

use self::azure_access::AzureAccess;

/// The real PostgreSQL servers behind the server resources.
pub(crate) trait ServerControl: Send + Sync {
    /// Sets the password of role `user` on the cluster behind the server resource `server`
    /// (`pgflex-mindwell-dev`); the stand-in has checked the password against Azure's rules.
    fn set_password<'a>(
        &'a self,
        server: &'a str,
        user: &'a str,
        password: &'a str,
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// The real applications behind the App Service sites.
pub(crate) trait AppControl: Send + Sync {
    /// Starts the application of site `app` (`mindwell-dev-api`) with `settings` in its environment, in place of the
    /// process that runs; resolves once it runs. The stand-in has waited [`Latency::app_start`] before.
    fn start<'a>(
        &'a self,
        app: &'a str,
        settings: BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// How often the application has been started: its container's name tells.
    fn starts(&self, app: &str) -> u64;

    /// The recent lines of the application's output, oldest first, and those to come; taken under one lock, so that
    /// no line is missed or seen twice.
    fn follow(&self, app: &str) -> (Vec<LogLine>, broadcast::Receiver<LogLine>);
}

/// One line of an application's output.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    /// When it was printed.
    pub(crate) at: Timestamp,
    /// The line without its end.
    pub(crate) text: String,
}

/// How long the vendors take for what isn't answered at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// The server's long-running operation, from its acceptance to `Succeeded`.
    pub(crate) operation: Duration,
    /// An application's start, before its process is started.
    pub(crate) app_start: Duration,
}

/// Where the sandbox's listeners are: base URLs without a slash at the end.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    /// Azure's sign-in service.
    pub(crate) sign_in: String,
    /// Azure Resource Manager.
    pub(crate) resource_manager: String,
    /// Key Vault without a vault's name: `https://vault.localhost:PORT`.
    pub(crate) key_vault: String,
    /// App Service's SCM sites without an application's name: `https://scm.localhost:PORT`.
    pub(crate) scm: String,
    /// GitHub, for the links in its answers.
    pub(crate) github: String,
    /// Jira, for the links in its answers.
    pub(crate) jira: String,
}

/// What the callers have to prove themselves with.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// Azure's tenant.
    pub(crate) tenant: String,
    /// The service principal.
    pub(crate) client_id: String,
    /// The service principal's secret.
    pub(crate) client_secret: String,
    /// What an App Service's processes prove themselves with towards its identity.
    pub(crate) identity_header: String,
    /// What a GitHub job proves itself with to get an id token.
    pub(crate) job_token: String,
    /// GitHub's token: `ghp_…` is a classic one with scopes, anything else a fine-grained one.
    pub(crate) github_token: String,
    /// The public key of the GitHub App, in PKCS#1's form.
    pub(crate) github_app_key: Vec<u8>,
    /// 1Password Connect's token.
    pub(crate) connect_token: String,
    /// The path of the on-call webhook in Slack's form, `/services/T…/B…/…`.
    pub(crate) slack_path: String,
    /// The signature in the query of the Teams workflow's URL.
    pub(crate) teams_signature: String,
    /// Jira's user.
    pub(crate) jira_email: String,
    /// Jira's token.
    pub(crate) jira_token: String,
}

/// One environment of the runbook, as it is before the first rotation.
#[derive(Clone)]
pub(crate) struct Environment {
    /// `dev`, `staging`, `prod`.
    pub(crate) name: String,
    /// The Azure subscription's id.
    pub(crate) subscription: String,
    /// Where the real server listens; the server resource's domain name.
    pub(crate) postgres_host: String,
    /// The administrator's role.
    pub(crate) postgres_user: String,
    /// The password that the server has now.
    pub(crate) password: String,
    /// The URL with that password that copies hold now.
    pub(crate) database_url: String,
    /// The application's host and port, the site's default host name.
    pub(crate) app_host: String,
    /// What App Service has to pass to the application beside `DATABASE_URL` (a port, a path).
    pub(crate) app_settings: BTreeMap<String, String>,
}

impl Environment {
    /// The resource group of all its Azure resources.
    pub(crate) fn resource_group(&self) -> String {
        format!("rg-mindwell-{}", self.name)
    }

    /// The server resource.
    pub(crate) fn server(&self) -> String {
        format!("pgflex-mindwell-{}", self.name)
    }

    /// The key vault.
    pub(crate) fn vault(&self) -> String {
        format!("kv-mindwell-{}", self.name)
    }

    /// The App Service site.
    pub(crate) fn app(&self) -> String {
        format!("mindwell-{}-api", self.name)
    }

    /// Whether a text speaks of this environment: its name as a word of its own, as in `pgflex-mindwell-dev`.
    pub(crate) fn is_named_in(&self, text: &str) -> bool {
        text.split(|character: char| !character.is_ascii_alphanumeric())
            .any(|word| word.eq_ignore_ascii_case(&self.name))
    }
}

/// Everything that the stand-ins are made from.
pub(crate) struct World {
    /// The environments, in their order.
    pub(crate) environments: Vec<Environment>,
    /// Where the listeners are.
    pub(crate) endpoints: Endpoints,
    /// What callers prove themselves with.
    pub(crate) credentials: Credentials,
    /// How long things take.
    pub(crate) latency: Latency,
    /// The real servers.
    pub(crate) servers: Arc<dyn ServerControl>,
    /// The real applications.
    pub(crate) apps: Arc<dyn AppControl>,
}

/// All stand-ins, for the wiring and the control interface.
pub(crate) struct Vendors {
    /// Azure's sign-in service.
    pub(crate) sign_in: Arc<AzureSignIn>,
    /// Those whose tokens the sign-in service trusts.
    pub(crate) federation: Arc<Federation>,
    /// The identity of the machine.
    pub(crate) managed_identity: Arc<ManagedIdentity>,
    /// Azure Resource Manager.
    pub(crate) resource_manager: Arc<ResourceManager>,
    /// Key Vault's data plane.
    pub(crate) key_vault: Arc<KeyVault>,
    /// App Service.
    pub(crate) app_service: Arc<AppService>,
    /// What AWS says beside moto.
    pub(crate) aws: Arc<Aws>,
    /// GitHub.
    pub(crate) github: Arc<GitHub>,
    /// 1Password Connect.
    pub(crate) onepassword: Arc<OnePassword>,
    /// Chat webhooks.
    pub(crate) webhook: Arc<Webhook>,
    /// Jira.
    pub(crate) jira: Arc<Jira>,
    environments: Vec<Environment>,
}

/// What the control interface shows of one copy of the password or the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The value that a reader would get now; none if there is none.
    pub(crate) value: Option<String>,
    /// The present version's name, where the vendor has versions; a counter else.
    pub(crate) version: String,
    /// How many versions there have been.
    pub(crate) versions: usize,
}

impl Vendors {
    /// Makes all stand-ins, seeded with the environments. Nothing runs yet: [`AppService::start_all`] starts the
    /// applications.
    pub(crate) fn new(world: &World) -> Self {
        let federation = Arc::new(Federation::new(&world.credentials.job_token));
        let sign_in = Arc::new(AzureSignIn::new(world, federation.clone()));
        let managed_identity =
            Arc::new(ManagedIdentity::new(sign_in.clone(), &world.credentials.identity_header));
        let access = Arc::new(AzureAccess::default());
        let key_vault = Arc::new(KeyVault::new(world, sign_in.clone(), access.clone()));
        let app_service =
            Arc::new(AppService::new(world, sign_in.clone(), access.clone(), key_vault.clone()));
        let resource_manager = Arc::new(ResourceManager::new(
            world,
            sign_in.clone(),
            access.clone(),
            key_vault.clone(),
            app_service.clone(),
        ));
        Self {
            sign_in,
            federation,
            managed_identity,
            resource_manager,
            key_vault,
            app_service,
            aws: Arc::default(),
            github: Arc::new(GitHub::new(world)),
            onepassword: Arc::new(OnePassword::new(world)),
            webhook: Arc::new(Webhook::new(world)),
            jira: Arc::new(Jira::new(world)),
            environments: world.environments.clone(),
        }
    }

    /// The copies of one environment by id (`azure_key_vault:database-url`), those of AWS and of the env file not
    /// among them.
    pub(crate) fn copies(&self, environment: &str) -> BTreeMap<String, Copy> {
        let Some(environment) = self.environment(environment) else { return BTreeMap::new() };
        let mut copies = BTreeMap::new();
        copies.extend(self.onepassword.copies(environment));
        copies.extend(self.key_vault.copies(environment));
        copies.extend(self.app_service.copies(environment));
        copies.extend(self.github.copies(environment));
        copies
    }

    /// What lies beside an environment's copies and is nobody's business in a rotation, by system.
    pub(crate) fn neighbours(&self, environment: &str) -> BTreeMap<&'static str, Value> {
        let Some(environment) = self.environment(environment) else { return BTreeMap::new() };
        BTreeMap::from([
            ("azure_app_service", self.app_service.neighbours(environment)),
            ("azure_key_vault", self.key_vault.neighbours(environment)),
            ("onepassword", self.onepassword.neighbours(environment)),
        ])
    }

    /// How often the slots of an environment's application, and its further applications, have been started.
    pub(crate) fn starts(&self, environment: &str) -> BTreeMap<String, u64> {
        self.environment(environment)
            .map(|environment| self.app_service.starts(environment))
            .unwrap_or_default()
    }

    /// The chat messages that name an environment, oldest first: `{"at","form","text"}`.
    pub(crate) fn messages(&self, environment: &str) -> Vec<Value> {
        self.environment(environment)
            .map(|environment| self.webhook.messages(environment))
            .unwrap_or_default()
    }

    /// The ticket comments that name an environment, GitHub's first: `{"at","system","ticket","body"}`.
    pub(crate) fn comments(&self, environment: &str) -> Vec<Value> {
        let Some(environment) = self.environment(environment) else { return Vec::new() };
        let mut comments = self.github.comments(environment);
        comments.extend(self.jira.comments(environment));
        comments
    }

    fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments.iter().find(|environment| environment.name == name)
    }
}
