//! The configuration file: found, read, checked as a whole, and turned into rotations.
//!
//! The way of a file through the submodules: `tree` (TOML with places), `environments` (their
//! names and variables), `templates` (names filled in, one environment at a time), `settings` and
//! `binding` (what it means, up to the providers), `sharing` (what no two may have in common).
//! Everything that is wrong is collected as a `problem` and reported at once, for all
//! environments, before anything else happens. `source` keeps credentials that somebody wrote
//! into the file out of those reports.

mod binding;
mod de;
mod environments;
mod evidence;
mod files;
mod order;
mod problem;
mod registry;
mod settings;
mod sharing;
mod source;
mod templates;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use miette::Report;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::keyring::Keyring;
use pgrotate_core::past::Past;
use pgrotate_core::plan::Retirement;
use pgrotate_core::provider::{Seat, Verifier};
use pgrotate_core::rotation::{Rotation, Surroundings, Twin};
use pgrotate_core::{Environment, FingerprintKey};
use pgrotate_evidence::{Signer, Trusted};
use pgrotate_providers::Shared;
use pgrotate_providers::azure::Accounts;
use pgrotate_providers::budget::Budgets;
use pgrotate_providers::clocks::Clocks;
use pgrotate_providers::credentials::Credentials;
use pgrotate_providers::http::Client;
use pgrotate_providers::looks::Looks;
use pgrotate_providers::shared;

use binding::{Parts, Tables};
use environments::Named;
use evidence::Evidence;
pub(crate) use evidence::trust;
use order::Order;
use problem::{Problem, Problems};
use registry::{Providers, Registry};
use settings::{Placed, Roles, Settings, TOP};
use sharing::Claims;
use source::Source;
use templates::Names;
use tree::Table;

/// The name of the file where none is named.
const FILE: &str = "pgrotate.toml";
/// The variable that names another one.
const VARIABLE: &str = "PGROTATE_CONFIG";

/// What a rotation needs that no file can say.
pub(crate) struct Deps {
    /// Marks passwords.
    pub(crate) key: FingerprintKey,
    /// The door to time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The door to chance.
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// A configuration without mistakes.
pub(crate) struct Config {
    source: Source,
    /// The folder from which relative paths count.
    base: PathBuf,
    project: String,
    /// The environments whose rotation has to be confirmed by the plan's hash, if the file names them.
    confirm: Option<Vec<String>>,
    evidence: Evidence,
    /// Which environment has to be rotated before which, and how long ago at most.
    order: Order,
    drafts: Vec<Draft>,
    warnings: Vec<String>,
    /// Azure's sign-ins, by the files that they depend on: credentials and CA.
    azure: Mutex<BTreeMap<[Option<String>; 2], Accounts>>,
    /// What the vendors allow is for all environments together.
    budgets: Budgets,
    registry: &'static dyn Registry,
}

/// One environment, bound to the outside.
struct Bound<'a> {
    draft: &'a Draft,
    shared: Arc<Shared>,
    parts: Parts,
    twin: Option<BoundTwin>,
}

/// Its second role, where two take turns.
struct BoundTwin {
    shared: Arc<Shared>,
    parts: Parts,
    owner: String,
    retirement: Retirement,
}

/// One environment, read and checked, and not yet bound to the outside.
struct Draft {
    environment: Environment,
    settings: Settings,
    tables: Tables,
}

impl Config {
    /// Finds the file: the one that is named, else the one that the environment names, else the
    /// one in the working folder.
    ///
    /// # Errors
    /// When there is none, with the places where it could be.
    pub(crate) fn find(explicit: Option<PathBuf>) -> Result<PathBuf, Report> {
        find(explicit, std::env::var_os(VARIABLE), Path::new(FILE))
    }

    /// Reads and checks the whole file, for all environments.
    ///
    /// # Errors
    /// Everything that is wrong with it, each mistake with its place.
    pub(crate) fn load(path: &Path) -> Result<Self, Report> {
        let text = shared::read_small_text(path).map_err(|error| unreadable(path, &shared::why(&error)))?;
        Self::parse(path, text.to_string())
    }

    /// The same for a text that is not in the file yet.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn parse(path: &Path, text: String) -> Result<Self, Report> {
        Self::parse_with(path, text, &Providers)
    }

    fn parse_with(path: &Path, text: String, registry: &'static dyn Registry) -> Result<Self, Report> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let source = Source::new(path, text);
        let mut problems = Problems::default();
        let Read { project, confirm, order, evidence, drafts } = read(&source, &mut problems);
        let mut warnings: Vec<String> =
            drafts.iter().filter_map(|draft| draft.settings.warning.clone()).collect();
        warnings.dedup();
        let config = Self {
            source,
            base,
            project,
            confirm,
            order,
            evidence,
            drafts,
            warnings,
            azure: Mutex::default(),
            budgets: Budgets::default(),
            registry,
        };
        config.check(&mut problems);
        problems.report(&config.source)?;
        Ok(config)
    }

    /// Builds every environment's providers once, to see that they can be built and that no two
    /// environments meet. That needs no I/O, so it costs next to nothing.
    fn check(&self, problems: &mut Problems) {
        let bound: Vec<_> = self.drafts.iter().map(|draft| self.try_out(draft, problems)).collect();
        problems.outside();
        let mut claims = Claims::default();
        for (draft, parts) in std::iter::zip(&self.drafts, &bound) {
            if let Some(parts) = parts {
                claims.add(draft.environment.as_str(), &draft.settings, parts);
            }
        }
        claims.settle(problems);
    }

    fn try_out(&self, draft: &Draft, problems: &mut Problems) -> Option<Parts> {
        problems.within(draft.environment.as_str());
        let own = &draft.settings.credentials_file;
        // One for each environment may be missing on this machine until its environment's turn.
        if let Some(file) = own.as_ref().filter(|file| !self.source.text[file.at.clone()].contains('{')) {
            problems.keep(files::credentials(&self.base, Some(file)));
        }
        let http = files::client(None).map_err(|error| files::problem(&error));
        let shared = self.shared(draft, problems.keep(http)?, Arc::new(Standstill));
        let parts = binding::bind(&draft.tables, self.registry, &Arc::new(shared), problems)?;
        sharing::names(&parts, problems);
        if draft.settings.roles.is_some() {
            draft.tables.for_turns(problems);
        }
        Some(parts)
    }

    /// What an environment's providers share, without the files that the configuration names.
    fn shared(&self, draft: &Draft, http: Client, clock: Arc<dyn Clock>) -> Shared {
        let settings = &draft.settings;
        Shared {
            environment: draft.environment.clone(),
            target: settings.target.clone(),
            takes_turns: settings.roles.is_some(),
            database_tls: settings.tls.clone(),
            credentials: Credentials::from_environment(),
            http,
            ca: None,
            vendors: settings.vendors.clone(),
            azure: Accounts::default(),
            budgets: self.budgets.clone(),
            looks: Looks::default(),
            clocks: Clocks::default(),
            base: self.base.clone(),
            clock,
        }
    }

    /// Binds one environment to the outside.
    ///
    /// # Errors
    /// When it is not in the file, or a file that the configuration names can't be read.
    pub(crate) fn rotation(&self, environment: &Environment, deps: Deps) -> Result<Rotation, Report> {
        let mut problems = Problems::default();
        let bound = self.bound(environment, &deps, &mut problems);
        problems.report(&self.source)?;
        let Bound { draft, shared, parts, twin } = bound.expect("what has no problem is bound");
        let closes = twin.as_ref().is_some_and(|twin| twin.retirement == Retirement::NoLogin);
        let authority = match &twin {
            Some(twin) if closes => self.registry.by_twin(&twin.shared, &shared),
            _ => parts.authority.value,
        };
        let twin = twin.map(|twin| self.twin(environment, &shared, twin));
        let copies: Vec<_> = parts.copies.into_iter().map(|own| own.value).collect();
        Ok(Rotation {
            environment: environment.clone(),
            target: shared.target.clone(),
            twin,
            policy: draft.settings.policy.clone(),
            url: draft.settings.url.clone(),
            vault: parts.vault.value,
            authority,
            verifier: self.registry.verifier(&shared),
            wholes: Rotation::locks(&copies),
            copies,
            consumers: parts.consumers.into_iter().map(|own| own.value).collect(),
            verifications: parts.verifications.into_iter().map(|own| own.value).collect(),
            soak: None,
            back: None,
            repair: None,
            recorders: parts.recorders.into_iter().map(|own| own.value).collect(),
            around: Surroundings {
                census: self.registry.census(&shared),
                times: draft.settings.times,
                elsewhere: self.elsewhere(environment, &shared, Seat::First),
                vantages: parts.vantages.into_iter().map(|own| own.value).collect(),
                past: Past::default(),
                overheard: Some(shared),
            },
            key: deps.key,
            clock: deps.clock,
            entropy: deps.entropy,
            keyring: Keyring::default(),
        })
    }

    /// The second role, with everything that is bound to it.
    fn twin(&self, environment: &Environment, first: &Arc<Shared>, bound: BoundTwin) -> Twin {
        let BoundTwin { shared, parts, owner, retirement } = bound;
        Twin {
            target: shared.target.clone(),
            authority: match retirement {
                Retirement::Password => parts.authority.value,
                Retirement::NoLogin => self.registry.by_twin(first, &shared),
            },
            verifier: self.registry.verifier(&shared),
            census: self.registry.census(&shared),
            elsewhere: self.elsewhere(environment, &shared, Seat::Second),
            vantages: parts.vantages.into_iter().map(|own| own.value).collect(),
            pair: self.registry.pair([first, &shared], &owner, retirement),
            retirement,
        }
    }

    /// The servers of the other environments. Where one's CA can't be read, its server can't be asked, and the try says so.
    fn elsewhere(
        &self,
        own: &Environment,
        shared: &Shared,
        seat: Seat,
    ) -> Vec<(Environment, Box<dyn Verifier>)> {
        let others = self.drafts.iter().filter(|draft| draft.environment != *own);
        let verifier = |draft: &Draft| {
            let ca = files::certificate(&self.base, draft.settings.ca_file.as_ref()).unwrap_or_default();
            let mut other = self.shared(draft, shared.http.clone(), Arc::clone(&shared.clock));
            if let (Seat::Second, Some(roles)) = (seat, &draft.settings.roles) {
                other.target.user.clone_from(&roles.twin);
            }
            self.registry.verifier(&Arc::new(Shared { ca, ..other }))
        };
        others.map(|draft| (draft.environment.clone(), verifier(draft))).collect()
    }

    /// The environment that has to be rotated before this one, and how long ago at most.
    pub(crate) fn first(&self, environment: &Environment) -> Option<(Environment, Duration)> {
        self.order.first(environment)
    }

    fn bound(&self, environment: &Environment, deps: &Deps, problems: &mut Problems) -> Option<Bound<'_>> {
        let names: Vec<&str> = self.drafts.iter().map(|draft| draft.environment.as_str()).collect();
        let draft = self.drafts.iter().find(|draft| draft.environment == *environment);
        let draft = draft.ok_or_else(|| Problem::no_such("environment", environment.as_str(), &names));
        let draft = problems.keep(draft)?;
        let settings = &draft.settings;
        let ca = problems.keep(files::certificate(&self.base, settings.ca_file.as_ref()))?;
        problems.keep(files::certificate(&self.base, settings.tls_file.as_ref()))?;
        let credentials =
            problems.keep(files::credentials(&self.base, settings.credentials_file.as_ref()))?;
        let http = files::client(ca.as_deref()).map_err(|error| match &settings.ca_file {
            Some(file) => files::problem(&error).at(&file.at, "named here"),
            None => files::problem(&error),
        });
        let shared = self.shared(draft, problems.keep(http)?, Arc::clone(&deps.clock));
        let shared = Arc::new(Shared { credentials, ca, azure: self.accounts(settings), ..shared });
        let parts = binding::bind(&draft.tables, self.registry, &shared, problems)?;
        let twin = match &settings.roles {
            Some(roles) => Some(self.bound_twin(draft, &shared, roles, problems)?),
            None => None,
        };
        Some(Bound { draft, shared, parts, twin })
    }

    /// The same tables for the second role: what is bound to a role is bound once more.
    fn bound_twin(
        &self,
        draft: &Draft,
        first: &Shared,
        roles: &Roles,
        problems: &mut Problems,
    ) -> Option<BoundTwin> {
        let shared = self.shared(draft, first.http.clone(), Arc::clone(&first.clock));
        let (credentials, ca) = (first.credentials.clone(), first.ca.clone());
        let mut shared = Shared { credentials, ca, azure: first.azure.clone(), ..shared };
        shared.target.user.clone_from(&roles.twin);
        let shared = Arc::new(shared);
        let parts = binding::bind(&draft.tables, self.registry, &shared, problems)?;
        Some(BoundTwin { shared, parts, owner: roles.owner.clone(), retirement: roles.retirement })
    }

    /// Azure's sign-ins for an environment. Those with the same files sign in once.
    fn accounts(&self, settings: &Settings) -> Accounts {
        let file = |file: &Option<Placed<String>>| file.as_ref().map(|file| file.value.clone());
        let key = [file(&settings.credentials_file), file(&settings.ca_file)];
        self.azure.lock().expect("no holder of this lock panics").entry(key).or_default().clone()
    }

    /// The environments, in the order of the file.
    pub(crate) fn environments(&self) -> Vec<Environment> {
        self.drafts.iter().map(|draft| draft.environment.clone()).collect()
    }

    /// Whether a rotation has to be confirmed by its plan's hash: those that the file names, else production by its
    /// usual names.
    pub(crate) fn asks_for_hash(&self, environment: &Environment) -> bool {
        match &self.confirm {
            Some(named) => named.iter().any(|name| name == environment.as_str()),
            None => {
                let name = environment.as_str().to_ascii_lowercase();
                name.split(['-', '_']).any(|part| matches!(part, "prod" | "production" | "prd" | "live"))
            }
        }
    }

    /// The key that signs evidence, if the file names one.
    ///
    /// # Errors
    /// When it can't be used.
    pub(crate) fn signer(&self) -> Result<Option<Signer>, Report> {
        self.said(self.evidence.signer(&self.base))
    }

    /// Adds the keys whose signatures under evidence count as well.
    ///
    /// # Errors
    /// When one can't be read.
    pub(crate) fn trust(&self, trusted: &mut Trusted) -> Result<(), Report> {
        self.said(self.evidence.trust(&self.base, trusted))
    }

    fn said<T>(&self, result: Result<T, Problem>) -> Result<T, Report> {
        let mut problems = Problems::default();
        let kept = problems.keep(result);
        problems.report(&self.source)?;
        Ok(kept.expect("what has no problem is there"))
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.source.path
    }

    /// The project's name.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// What is odd and stops nothing.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn find(explicit: Option<PathBuf>, variable: Option<OsString>, usual: &Path) -> Result<PathBuf, Report> {
    let variable = variable.filter(|path| !path.is_empty()).map(PathBuf::from);
    match explicit.or(variable) {
        // A pipe is as good as a file: --config <(command).
        Some(named) if named.exists() && !named.is_dir() => Ok(named),
        Some(named) => Err(unreadable(&named, "there is no such file")),
        None if usual.is_file() => Ok(usual.to_owned()),
        None => Err(unreadable(usual, "there is no such file")),
    }
}

fn unreadable(path: &Path, why: &str) -> Report {
    miette::miette!(
        help = "name it with `--config FILE` or PGROTATE_CONFIG, or work in the folder that has a pgrotate.toml; \
                `pgrotate init` writes one",
        "cannot read the configuration {}: {why}",
        path.display()
    )
}

/// What a file says as far as that goes without providers.
#[derive(Default)]
struct Read {
    project: String,
    confirm: Option<Vec<String>>,
    evidence: Evidence,
    order: Order,
    drafts: Vec<Draft>,
}

fn read(source: &Source, problems: &mut Problems) -> Read {
    let file = tree::parse(&source.text).map_err(|error| {
        let problem = Problem::new(format!("this is no TOML: {}", error.message()));
        error.span().map_or(problem.clone(), |at| problem.at(&at, ""))
    });
    let Some(mut file) = problems.keep(file) else { return Default::default() };
    let project = problems.keep(project(&mut file)).unwrap_or_default();
    let environments = environments::read(&mut file, problems);
    let confirm = file.take("confirm").and_then(|value| problems.keep(confirm(&value, &environments)));
    let order = problems.keep(order::read(&mut file, &environments)).unwrap_or_default();
    let evidence = Evidence::read(&mut file, problems);
    let ready = environments.iter().filter(|own| own.complete(&environments));
    let drafts = ready.filter_map(|own| Draft::read(&file, own, source, problems)).collect();
    problems.outside();
    Read { project, confirm, order, evidence, drafts }
}

/// `confirm = ["prod"]`
fn confirm(value: &tree::Value, environments: &[Named]) -> Result<Vec<String>, Problem> {
    let names: Vec<String> = de::read(value)?;
    let known: Vec<&str> = environments.iter().map(|own| own.environment.as_str()).collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(stranger) => Err(Problem::no_such("environment", stranger, &known).or_at(&value.at)),
        None => Ok(names),
    }
}

fn project(file: &mut Table) -> Result<String, Problem> {
    let value = file.take("project").ok_or_else(|| {
        Problem::new("`project` is missing")
            .help("a name for what the environments belong to: project = \"…\"")
    })?;
    match de::read::<String>(&value)? {
        empty if empty.trim().is_empty() => Err(Problem::new("`project` is empty").at(&value.at, "")),
        name => Ok(name),
    }
}

impl Draft {
    fn read(file: &Table, named: &Named, source: &Source, problems: &mut Problems) -> Option<Self> {
        problems.within(named.environment.as_str());
        let names = Names { text: &source.text, variables: &named.variables };
        let mut file = names.fill(file, problems)?;
        let tables = Tables::read(&mut file, problems);
        let settings = Settings::read(&mut file, problems);
        for entry in file.entries() {
            problems.add(Problem::unknown_key(&entry.key, TOP).at(&entry.at, ""));
        }
        Some(Self { environment: named.environment.clone(), settings: settings?, tables })
    }
}

/// A clock for providers that are built only to see whether they can be.
struct Standstill;

#[async_trait]
impl Clock for Standstill {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _duration: Duration) {}
}
