//! What an environment's providers share, read from its part of the file: the database, the
//! password's form, the vendors' settings, the files beside the configuration.

use std::time::Duration;

use pgrotate_core::Secret;
use pgrotate_core::census::Times;
use pgrotate_core::database_url::{DatabaseUrl, Target};
use pgrotate_core::password::{Policy, PolicyError};
use pgrotate_core::plan::Retirement;
use pgrotate_core::value::UrlTemplate;
use pgrotate_providers::shared::{DatabaseTls, TlsMode, Vendors};
use serde::Deserialize;

use super::de;
use super::problem::{Problem, Problems, wrong};
use super::tree::{Node, Span, Table, Value};

/// The keys that can stand at the top of the file.
pub(super) const TOP: &[&str] = &[
    "project",
    "confirm",
    "credentials_file",
    "ca_file",
    "evidence",
    "environments",
    "database",
    "password",
    "azure",
    "github",
    "aws",
    "onepassword",
    "vault",
    "authority",
    "sinks",
    "consumers",
    "checks",
    "records",
    "vantages",
    "census",
    "strategy",
    "roles",
    "proven_first",
    "proven_within",
];

/// The form of a URL that can't be read, unless the file has another.
const URL: &str = "postgresql://{user}:{password}@{host}:{port}/{name}";

/// A text with its place.
#[derive(Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Span,
}

/// Everything but the providers.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) target: Target,
    /// Where the host stands.
    pub(super) target_at: Span,
    pub(super) tls: DatabaseTls,
    /// The CA file of the database alone.
    pub(super) tls_file: Option<Placed<String>>,
    pub(super) policy: Policy,
    pub(super) url: UrlTemplate,
    pub(super) vendors: Vendors,
    /// How long is looked who is logged in, and waited for them.
    pub(super) times: Times,
    /// The second role, where two take turns.
    pub(super) roles: Option<Roles>,
    pub(super) ca_file: Option<Placed<String>>,
    pub(super) credentials_file: Option<Placed<String>>,
    /// What is odd and stops nothing.
    pub(super) warning: Option<String>,
}

impl Settings {
    /// Takes what belongs here out of an environment's file.
    pub(super) fn read(file: &mut Table, problems: &mut Problems) -> Option<Self> {
        let vendors = Vendors {
            azure: section(file, "azure", problems),
            github: section(file, "github", problems),
            aws: section(file, "aws", problems),
            onepassword: section(file, "onepassword", problems),
        };
        let policy = match file.take("password") {
            Some(value) => problems.keep(policy(&value)),
            None => Some(Policy::default()),
        };
        let times = match file.take("census") {
            Some(value) => problems.keep(times(&value)),
            None => Some(Times::default()),
        };
        let strategy = [file.take("strategy"), file.take("roles")];
        let [ca_file, credentials_file] = ["ca_file", "credentials_file"]
            .map(|key| file.take(key).and_then(|value| problems.keep(placed(&value))));
        let database = file.take("database").ok_or_else(|| {
            Problem::new("the table [database] is missing")
                .help("it says where the role logs in: host, name, user, and port if it is not 5432")
        });
        let database = problems.keep(database.and_then(|value| Database::read(&value)))?;
        let roles = problems.keep(Roles::read(strategy, &database.target.user));
        Some(Self {
            target: database.target,
            target_at: database.target_at,
            tls: database.tls,
            tls_file: database.tls_file,
            warning: driver_warning(&database.sample),
            url: database.url,
            policy: policy?,
            vendors,
            times: times?,
            roles: roles?,
            ca_file,
            credentials_file,
        })
    }
}

/// Two login roles that take turns, the first being `user` of `[database]`.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    /// The name of the second one.
    pub(super) twin: String,
    /// The group that owns what both make.
    pub(super) owner: String,
    pub(super) retirement: Retirement,
    /// Where it says that they take turns.
    pub(super) at: Span,
}

/// `[roles]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RolesForm {
    twin: Option<String>,
    owner: Option<String>,
    #[serde(default)]
    retire: RetireForm,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RetireForm {
    #[default]
    Password,
    NoLogin,
}

impl Roles {
    fn read([strategy, roles]: [Option<Value>; 2], user: &str) -> Result<Option<Self>, Problem> {
        const STRATEGIES: &[&str] = &["in_place", "alternating"];
        let named: Option<String> = strategy.as_ref().map(de::read).transpose()?;
        match (named.as_deref(), strategy, roles) {
            (None | Some("in_place"), _, None) => Ok(None),
            (None | Some("in_place"), _, Some(roles)) => {
                Err(Problem::new("a second role is for the strategy \"alternating\"")
                    .at(&roles.at, "")
                    .help("strategy = \"alternating\", at the top of the file"))
            }
            (Some("alternating"), Some(strategy), roles) => {
                Self::of(&strategy, roles.as_ref(), user).map(Some)
            }
            (Some(other), strategy, _) => {
                let problem = Problem::no_such("strategy", other, STRATEGIES);
                Err(strategy.map_or(problem.clone(), |own| problem.or_at(&own.at)))
            }
        }
    }

    fn of(strategy: &Value, roles: Option<&Value>, user: &str) -> Result<Self, Problem> {
        let form: RolesForm = roles.map(de::read).transpose()?.unwrap_or_default();
        let own = Self {
            twin: form.twin.unwrap_or_else(|| format!("{user}_b")),
            owner: form.owner.unwrap_or_else(|| format!("{user}_owner")),
            retirement: match form.retire {
                RetireForm::Password => Retirement::Password,
                RetireForm::NoLogin => Retirement::NoLogin,
            },
            at: strategy.at.clone(),
        };
        let names = [user, own.twin.as_str(), own.owner.as_str()];
        // PostgreSQL cuts longer names silently (NAMEDATALEN).
        if let Some(long) = names.iter().find(|name| name.is_empty() || name.len() > 63) {
            let at = roles.map_or(&own.at, |roles| &roles.at);
            return Err(
                Problem::new(format!("{long:?} is no role's name: 1 to 63 bytes are wanted")).at(at, "")
            );
        }
        if names[0] == names[1] || names[2] == names[0] || names[2] == names[1] {
            let at = roles.map_or(&own.at, |roles| &roles.at);
            return Err(Problem::new(
                "the two roles and the group that owns what they make need a name each",
            )
            .at(at, ""));
        }
        Ok(own)
    }
}

/// A vendor's settings; the defaults where there are none.
fn section<T: Default + for<'de> Deserialize<'de>>(
    file: &mut Table,
    key: &str,
    problems: &mut Problems,
) -> T {
    file.take(key).and_then(|value| problems.keep(de::read(&value))).unwrap_or_default()
}

/// A copy of a table, to take things out of.
pub(super) fn own(value: &Value) -> Result<Table, Problem> {
    match &value.node {
        Node::Table(table) => Ok(table.clone()),
        _ => Err(wrong("a table", value)),
    }
}

/// A value with its place.
pub(super) fn placed<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<Placed<T>, Problem> {
    Ok(Placed { value: de::read(value)?, at: value.at.clone() })
}

/// `[password]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordForm {
    length: Option<usize>,
    symbols: Option<String>,
}

fn policy(value: &Value) -> Result<Policy, Problem> {
    let form: PasswordForm = de::read(value)?;
    let length = form.length.unwrap_or_else(|| Policy::default().length());
    Policy::new(length, form.symbols.as_deref().unwrap_or_default()).map_err(|error| {
        let key = if matches!(error, PolicyError::Symbol(_)) { "symbols" } else { "length" };
        Problem::new(error.to_string()).at(place(value, key), "")
    })
}

/// `[census]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CensusForm {
    window: Option<String>,
    adoption: Option<String>,
}

fn times(value: &Value) -> Result<Times, Problem> {
    let form: CensusForm = de::read(value)?;
    let usual = Times::default();
    let read = |key: &str, text: Option<String>, usual: Duration| match text {
        None => Ok(usual),
        Some(text) => time(&text).map_err(|problem| problem.at(place(value, key), "")),
    };
    Ok(Times {
        window: read("window", form.window, usual.window)?,
        adoption: read("adoption", form.adoption, usual.adoption)?,
    })
}

/// A time such as 90s, 10m or 7d.
pub(super) fn time(text: &str) -> Result<Duration, Problem> {
    let span: Option<jiff::Span> = text.parse().ok();
    let time = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    time.and_then(|time| Duration::try_from(time).ok()).ok_or_else(|| {
        Problem::new(format!("{text:?} is no time")).help("a time such as 90s, 10m, 2h or 7d is wanted")
    })
}

/// Where a key's value stands, or else the table.
fn place<'a>(table: &'a Value, key: &str) -> &'a Span {
    match &table.node {
        Node::Table(own) => own.get(key).map_or(&table.at, |value| &value.at),
        _ => &table.at,
    }
}

/// `[database]`, as far as serde reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseOptions {
    host: String,
    #[serde(default = "default_port")]
    port: u16,
    name: String,
    user: String,
    tls: Option<DatabaseTls>,
}

fn default_port() -> u16 {
    5432
}

struct Database {
    target: Target,
    target_at: Span,
    tls: DatabaseTls,
    tls_file: Option<Placed<String>>,
    url: UrlTemplate,
    /// A URL as the template gives it, with a password that is none.
    sample: Secret,
}

impl Database {
    fn read(value: &Value) -> Result<Self, Problem> {
        let mut table = own(value)?;
        let url = table.take("url");
        let rest = Value { node: Node::Table(table.clone()), at: value.at.clone() };
        let options: DatabaseOptions = de::read(&rest).map_err(|problem| problem.beside(&table, &["url"]))?;
        for (key, text) in [("host", &options.host), ("name", &options.name), ("user", &options.user)] {
            if text.is_empty() {
                return Err(Problem::new(format!("`{key}` is empty")).at(place(value, key), ""));
            }
        }
        let target_at = place(value, "host").clone();
        if options.host.contains(['/', '@', ':', ' ']) && options.host.parse::<std::net::Ipv6Addr>().is_err()
        {
            let problem = Problem::new("a host name is wanted here").at(&target_at, "");
            return Err(problem.help("without scheme, user, port and path; those are keys of their own"));
        }
        let target =
            Target { host: options.host, port: options.port, database: options.name, user: options.user };
        let (url, url_at): (String, &Span) = match &url {
            Some(own) => (de::read(own)?, &own.at),
            None => (URL.to_owned(), &target_at),
        };
        let url =
            UrlTemplate::parse(&url, &target).map_err(|error| Problem::new(error.message).at(url_at, ""))?;
        let tls = options.tls.unwrap_or(DatabaseTls { mode: TlsMode::default(), ca_file: None });
        let tls_file = tls.ca_file.as_ref().map(|file| Placed {
            value: file.to_string_lossy().into_owned(),
            at: place(value, "tls").clone(),
        });
        let sample = url.render(&target, &Secret::new("sample"));
        Ok(Self { target, target_at, tls, tls_file, url, sample })
    }
}

/// What is odd about the URL's TLS parameters.
fn driver_warning(sample: &Secret) -> Option<String> {
    let url = DatabaseUrl::parse(sample).expect("a template is read only if what it gives is a URL");
    url.driver_warning().map(|warning| format!("database.url: {warning}"))
}
