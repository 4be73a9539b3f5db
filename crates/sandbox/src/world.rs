//! Everything that a sandbox runs, made in the one order that works: servers first, because the copies hold their
//! ports and passwords; then the vendors with those copies; then the applications, whose settings the vendors hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use futures::future::{BoxFuture, try_join_all};

use crate::app_key;
use crate::application::{Application, Applications};
use crate::ca::Authority;
use crate::config::{Example, Place, Places};
use crate::error::{Context, Error, Result};
use crate::listener::{Bound, Route};
use crate::moto::{self, Moto};
use crate::postgres::{self, Cluster, Installation};
use crate::premises::Premises;
use crate::process::Launcher;
use crate::recorder::{self, Recorder};
use crate::secrets::{alphanumeric, password};
use crate::vendors::{self, Copy, Credentials, Endpoints, Federation, Latency, ServerControl, Vendors};

/// What a sandbox is asked to be.
pub(crate) struct Options {
    /// Where its configuration goes.
    pub(crate) dir: PathBuf,
    /// The environments, in order.
    pub(crate) environments: Vec<String>,
    /// Whether the vendors take their time.
    pub(crate) typical: bool,
    /// The example's folder.
    pub(crate) example: PathBuf,
    /// The repository, where the virtual environments are.
    pub(crate) repository: PathBuf,
    /// Whether whole requests are kept.
    pub(crate) record_bodies: bool,
    /// Whether the first passwords have `/`, `+` and `=`.
    pub(crate) base64_passwords: bool,
}

/// A running sandbox.
pub(crate) struct World {
    /// The environments, in order.
    pub(crate) environments: Vec<Environment>,
    /// The vendors' stand-ins.
    pub(crate) vendors: Vendors,
    /// AWS.
    pub(crate) moto: Moto,
    /// All requests, and the faults.
    pub(crate) recorder: Arc<Recorder>,
    /// How long the vendors' own work takes.
    pub(crate) latency: Latency,
    config: PathBuf,
    _premises: Premises,
}

/// One running environment.
pub(crate) struct Environment {
    /// Its name.
    pub(crate) name: String,
    /// Its PostgreSQL.
    pub(crate) cluster: Arc<Cluster>,
    /// Its application.
    pub(crate) application: Arc<Application>,
    env_file: PathBuf,
}

/// What an environment begins with.
struct Seed {
    name: String,
    subscription: String,
    password: String,
}

/// What environments are started with.
struct Tools<'a> {
    launcher: &'a Arc<Launcher>,
    installation: Installation,
    premises: &'a Premises,
    authority: &'a Authority,
    service: PathBuf,
}

/// The sockets, bound before the vendors are made: their answers name them.
struct Listeners {
    azure: Bound,
    github: Bound,
    identity: Bound,
    aws: Bound,
    onepassword: Bound,
    messages: Bound,
}

impl World {
    /// Starts everything; ready when it returns.
    pub(crate) async fn start(options: &Options, launcher: Arc<Launcher>) -> Result<Self> {
        let example = Example::load(&options.example)?;
        let seeds = seeds(&options.environments, options.base64_passwords, &example.subscriptions())?;
        let service = options.example.join("services/backend");
        let service = service.canonicalize().context(|| format!("cannot find {}", service.display()))?;
        let moto_program = moto::program(&options.repository)?;
        let installation = Installation::find()?;
        let premises = Premises::claim(&options.dir, seeds.len(), launcher.guard())?;
        let authority = Authority::new()?;
        let pace = if options.typical { Duration::from_millis(100) } else { Duration::ZERO };
        let recorder = Arc::new(Recorder::new(pace, options.record_bodies));
        let latency = latency(options.typical);
        let listeners = Listeners::bind().await?;
        let credentials = credentials(example.text("azure", "tenant")?)?;
        premises.write(&premises.path("ca.pem"), authority.pem())?;
        premises.write(&premises.path("credentials.env"), &listeners.credentials_file(&credentials)?)?;

        let tools =
            Tools { launcher: &launcher, installation, premises: &premises, authority: &authority, service };
        let aws_log = premises.path("logs/moto.log");
        let region = example.text("aws", "region")?.to_owned();
        // moto takes longest to start and needs nothing of the others.
        let moto = start_moto(&launcher, &moto_program, &region, &aws_log, &seeds);
        let environments = try_join_all(seeds.iter().map(|seed| tools.start_environment(seed)));
        let app_key_file = premises.path("github-app.pem");
        let app_key = app_key::make(&launcher, &app_key_file);
        let rest = async {
            let (environments, app_key) = futures::try_join!(environments, app_key)?;
            let credentials = Credentials { github_app_key: app_key, ..credentials };
            let config = example.adapt(&listeners.places(&premises, &tools.service, &environments))?;
            premises.write(&premises.path("pgrotate.toml"), &config)?;
            premises.write(&premises.path("sign-in.env"), &listeners.other_ways(&premises, &credentials))?;
            let vendors = Vendors::new(&listeners.vendors(&seeds, &environments, credentials, latency));
            let token = vendors.federation.service_account_token();
            premises.write(&premises.path("federated-token"), &token)?;
            vendors.app_service.start_all().await;
            for environment in &environments {
                let healthy = environment.application.check_health().await;
                healthy.context(|| format!("the application of {} is not healthy", environment.name))?;
            }
            Ok((environments, vendors))
        };
        let (moto, (environments, vendors)) = futures::try_join!(moto, rest)?;
        listeners.serve(&authority, &recorder, &vendors, &moto)?;
        let config = premises.path("pgrotate.toml");
        Ok(Self { environments, vendors, moto, recorder, latency, config, _premises: premises })
    }

    /// The configuration's path.
    pub(crate) fn config_path(&self) -> &Path {
        &self.config
    }
}

impl Environment {
    /// The name of its secret in AWS, by the runbook.
    pub(crate) fn aws_secret(&self) -> String {
        aws_secret(&self.name)
    }

    /// What its agent's file holds now. A file has no versions; the time of its last change stands for one.
    pub(crate) fn env_file_copy(&self) -> Copy {
        let text = std::fs::read_to_string(&self.env_file).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix("DATABASE_URL="));
        let changed = std::fs::metadata(&self.env_file).and_then(|meta| meta.modified()).ok();
        let changed = changed.and_then(|time| jiff::Timestamp::try_from(time).ok());
        Copy {
            value: value.map(str::to_owned),
            version: changed.map(|time| time.to_string()).unwrap_or_default(),
            versions: usize::from(value.is_some()),
        }
    }
}

impl Tools<'_> {
    async fn start_environment(&self, seed: &Seed) -> Result<Environment> {
        let Seed { name, password, .. } = seed;
        let home = self.premises.scratch(&format!("{name}-home"));
        // Before the cluster: a missing virtual environment is told at once.
        let app_log = self.premises.path(&format!("logs/app-{name}.log"));
        let application = Application::new(self.launcher.clone(), &self.service, &home, &app_log).await?;
        let folders = postgres::Folders {
            cluster: self.premises.scratch(name),
            log: self.premises.path(&format!("logs/postgres-{name}.log")),
        };
        let leaf = self.authority.leaf(&[])?;
        let cluster = Cluster::start(self.launcher, &self.installation, &folders, &leaf, password).await;
        let cluster = cluster.context(|| format!("no PostgreSQL for {name}"))?;
        let env_file = self.premises.path(&format!("agents/{name}/.config/mindwell/{name}.env"));
        self.premises.write(&env_file, &env_file_text(name, &postgres::url(cluster.port(), password)))?;
        Ok(Environment { name: name.clone(), cluster, application: Arc::new(application), env_file })
    }
}

impl Listeners {
    async fn bind() -> Result<Self> {
        Ok(Self {
            azure: Bound::new().await?,
            github: Bound::new().await?,
            identity: Bound::new().await?,
            aws: Bound::new().await?,
            onepassword: Bound::new().await?,
            messages: Bound::new().await?,
        })
    }

    fn places<'a>(&self, premises: &Premises, service: &'a Path, environments: &[Environment]) -> Places<'a> {
        let places = environments.iter().map(|environment| Place {
            name: environment.name.clone(),
            postgres_port: environment.cluster.port(),
            app_url: format!("http://{}", environment.application.host()),
        });
        Places {
            environments: places.collect(),
            folder: premises.path(""),
            service,
            azure: self.azure.port(),
            github: self.github.port(),
            aws: self.aws.port(),
            onepassword: self.onepassword.port(),
            messages: self.messages.port(),
        }
    }

    fn vendors(
        &self,
        seeds: &[Seed],
        environments: &[Environment],
        credentials: Credentials,
        latency: Latency,
    ) -> vendors::World {
        let on = |name: &str, bound: &Bound| format!("https://{name}:{}", bound.port());
        let described: Vec<vendors::Environment> =
            seeds.iter().zip(environments).map(|(seed, environment)| environment.described(seed)).collect();
        let servers =
            described.iter().zip(environments).map(|(named, real)| (named.server(), real.cluster.clone()));
        let apps =
            described.iter().zip(environments).map(|(named, real)| (named.app(), real.application.clone()));
        vendors::World {
            endpoints: Endpoints {
                sign_in: on("localhost", &self.azure),
                resource_manager: on("localhost", &self.azure),
                key_vault: on("vault.localhost", &self.azure),
                scm: on("scm.localhost", &self.azure),
                github: on("localhost", &self.github),
                jira: on("localhost", &self.messages),
            },
            credentials,
            latency,
            servers: Arc::new(Servers(servers.collect())),
            apps: Arc::new(Applications(apps.collect())),
            environments: described,
        }
    }

    /// What callers need, as variables: pgrotate reads this file, a shell may source it.
    fn credentials_file(&self, credentials: &Credentials) -> Result<String> {
        let webhook = format!("https://localhost:{}{}", self.messages.port(), credentials.slack_path);
        let variables = [
            ("AZURE_TENANT_ID", credentials.tenant.clone()),
            ("AZURE_CLIENT_ID", credentials.client_id.clone()),
            ("AZURE_CLIENT_SECRET", credentials.client_secret.clone()),
            ("AZURE_AUTHORITY_HOST", format!("https://localhost:{}", self.azure.port())),
            ("GH_TOKEN", credentials.github_token.clone()),
            ("OP_CONNECT_TOKEN", credentials.connect_token.clone()),
            ("AWS_ACCESS_KEY_ID", format!("AKIA{}", alphanumeric(16)?.to_uppercase())),
            ("AWS_SECRET_ACCESS_KEY", alphanumeric(40)?),
            ("ONCALL_WEBHOOK_URL", webhook),
            ("JIRA_EMAIL", credentials.jira_email.clone()),
            ("JIRA_API_TOKEN", credentials.jira_token.clone()),
        ];
        Ok(variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect())
    }

    /// The variables of the ways to sign in that `credentials.env` has not: a test takes from here what it wants to
    /// see used.
    fn other_ways(&self, premises: &Premises, credentials: &Credentials) -> String {
        let identity = format!("http://127.0.0.1:{}", self.identity.port());
        let file = |name: &str| premises.path(name).display().to_string();
        let variables = [
            ("AZURE_FEDERATED_TOKEN_FILE", file("federated-token")),
            (
                "ACTIONS_ID_TOKEN_REQUEST_URL",
                Federation::job_url(&format!("https://localhost:{}", self.github.port())),
            ),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", credentials.job_token.clone()),
            ("IDENTITY_ENDPOINT", format!("{identity}/msi/token")),
            ("IDENTITY_HEADER", credentials.identity_header.clone()),
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", identity.clone()),
            ("GITHUB_APP_ID", vendors::APP_ID.to_string()),
            ("GITHUB_APP_PRIVATE_KEY_FILE", file("github-app.pem")),
        ];
        variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    fn serve(
        self,
        authority: &Authority,
        recorder: &Arc<Recorder>,
        vendors: &Vendors,
        moto: &Moto,
    ) -> Result<()> {
        let leaf = authority.leaf(&["vault.localhost", "*.vault.localhost", "*.scm.localhost"])?;
        let tls = leaf.server_config()?;
        let recorder = || recorder.clone();
        self.azure.serve(Some(tls.clone()), recorder(), azure_route(vendors));
        self.github.serve(Some(tls.clone()), recorder(), github_route(vendors));
        let identity = vendors.managed_identity.clone().router();
        self.identity.serve(None, recorder(), only("managed_identity", identity));
        self.aws.serve(None, recorder(), only("aws", moto.router(vendors.aws.clone())));
        self.onepassword.serve(None, recorder(), only("onepassword", vendors.onepassword.clone().router()));
        self.messages.serve(Some(tls), recorder(), messages_route(vendors));
        Ok(())
    }
}

impl Environment {
    /// Itself, as the vendors are told of it.
    fn described(&self, seed: &Seed) -> vendors::Environment {
        let database_url = postgres::url(self.cluster.port(), &seed.password);
        vendors::Environment {
            name: self.name.clone(),
            subscription: seed.subscription.clone(),
            postgres_host: "localhost".into(),
            postgres_user: postgres::USER.into(),
            password: seed.password.clone(),
            database_url,
            app_host: self.application.host(),
            app_settings: BTreeMap::new(),
        }
    }
}

/// The real clusters, by the name of their server resource.
struct Servers(BTreeMap<String, Arc<Cluster>>);

impl ServerControl for Servers {
    fn set_password<'a>(
        &'a self,
        server: &'a str,
        user: &'a str,
        password: &'a str,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        Box::pin(async move {
            let cluster = self.0.get(server).ok_or_else(|| format!("there is no server {server}"))?;
            cluster.set_password(user, password).await.map_err(|error| error.chain())
        })
    }
}

/// Azure has one listener: the name that a caller asks for tells the services apart.
fn azure_route(vendors: &Vendors) -> Route {
    let sign_in = vendors.sign_in.clone().router();
    let resource_manager = vendors.resource_manager.clone().router();
    let key_vault = vendors.key_vault.clone().router();
    let scm = vendors.app_service.clone().router();
    Box::new(move |parts: &Parts| {
        let host = recorder::host(parts).to_ascii_lowercase();
        let name = host.split(':').next().unwrap_or_default();
        let first = parts.uri.path().split('/').nth(1).unwrap_or_default().to_ascii_lowercase();
        if name.ends_with(".vault.localhost") {
            ("key_vault", key_vault.clone())
        } else if name.ends_with(".scm.localhost") {
            ("app_service", scm.clone())
        } else if ["subscriptions", "providers", "tenants", "metadata"].contains(&first.as_str()) {
            ("resource_manager", resource_manager.clone())
        } else {
            ("sign_in", sign_in.clone())
        }
    })
}

/// Who gives jobs their id tokens has another host at GitHub.
fn github_route(vendors: &Vendors) -> Route {
    let github = vendors.github.clone().router();
    let jobs = vendors.federation.clone().router();
    Box::new(move |parts: &Parts| {
        let is_job = parts.uri.path().contains("//idtoken/");
        if is_job { ("github_jobs", jobs.clone()) } else { ("github", github.clone()) }
    })
}

fn messages_route(vendors: &Vendors) -> Route {
    let jira = vendors.jira.clone().router();
    let webhook = vendors.webhook.clone().router();
    Box::new(move |parts: &Parts| {
        let is_jira = parts.uri.path().starts_with("/rest/");
        if is_jira { ("jira", jira.clone()) } else { ("webhook", webhook.clone()) }
    })
}

fn latency(typical: bool) -> Latency {
    let seconds = |seconds| if typical { Duration::from_secs(seconds) } else { Duration::ZERO };
    Latency { operation: seconds(5), app_start: seconds(2) }
}

fn only(system: &'static str, router: axum::Router) -> Route {
    Box::new(move |_: &Parts| (system, router.clone()))
}

async fn start_moto(
    launcher: &Launcher,
    program: &Path,
    region: &str,
    log: &Path,
    seeds: &[Seed],
) -> Result<Moto> {
    let moto = Moto::start(launcher, program, region, log).await?;
    for seed in seeds {
        moto.create_secret(&aws_secret(&seed.name), &seed.password).await?;
    }
    Ok(moto)
}

fn seeds(names: &[String], base64: bool, subscriptions: &BTreeMap<String, String>) -> Result<Vec<Seed>> {
    let mut seeds: Vec<Seed> = Vec::new();
    for name in names {
        let Some(subscription) = subscriptions.get(name) else {
            let known = subscriptions.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::new(format!("there is no environment {name}; the example has {known}")));
        };
        if seeds.iter().any(|seed| seed.name == *name) {
            return Err(Error::new(format!("the environment {name} is named twice")));
        }
        seeds.push(Seed {
            name: name.clone(),
            subscription: subscription.clone(),
            password: password(postgres::USER, base64)?,
        });
    }
    Ok(seeds)
}

fn credentials(tenant: &str) -> Result<Credentials> {
    Ok(Credentials {
        tenant: tenant.to_owned(),
        client_id: "00000000-0000-0000-0000-0000000000c1".into(),
        client_secret: alphanumeric(40)?,
        identity_header: alphanumeric(32)?,
        job_token: alphanumeric(64)?,
        // A classic token: it can be asked for its scopes.
        github_token: format!("ghp_{}", alphanumeric(36)?),
        // Not known before the key is made.
        github_app_key: Vec::new(),
        connect_token: alphanumeric(64)?,
        slack_path: format!("/services/T0MINDWELL/B0ONCALL/{}", alphanumeric(24)?),
        teams_signature: alphanumeric(43)?,
        jira_email: "rotation@mindwell.example".into(),
        jira_token: alphanumeric(40)?,
    })
}

/// An agent's file with lines that a rotation has to leave alone.
fn env_file_text(environment: &str, url: &str) -> String {
    format!(
        "# The agents of {environment}; read once, when the runner starts.\n\
         LANG=C.UTF-8\n\
         \n\
         ACTIONS_RUNNER_HOOK_JOB_STARTED=/opt/runner/started.sh\n\
         DATABASE_URL={url}\n\
         REPORT_URL=https://reports.mindwell.example/?a=b&c=\"d\"#e\n"
    )
}

fn aws_secret(environment: &str) -> String {
    format!("mindwell/{environment}/postgres/admin-password")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_repeated_environments_are_refused_with_what_there_is() {
        let known = BTreeMap::from([("dev".to_owned(), "1".to_owned()), ("prod".to_owned(), "2".to_owned())]);
        let refused = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            seeds(&names, false, &known).err().map(|error| error.to_string())
        };
        assert_eq!(refused(&["prod", "dev"]), None);
        assert_eq!(refused(&["qa"]).unwrap(), "there is no environment qa; the example has dev, prod");
        assert_eq!(refused(&["dev", "dev"]).unwrap(), "the environment dev is named twice");
    }
}
