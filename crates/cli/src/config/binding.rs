//! From an environment's tables to its providers.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use pgrotate_core::CopyId;
use pgrotate_core::census::{Reconnect, Sessions};
use pgrotate_core::provider::{Authority, Consumer, Recorder, Vantage, Vault, Verification};
use pgrotate_core::rotation::{BoundConsumer, Copy};
use pgrotate_core::value::Template;
use pgrotate_providers::{BuildError, Shared};
use serde::Deserialize;
use wildmatch::WildMatch;

use super::de::{self, Input};
use super::files;
use super::problem::{Problem, Problems, wrong};
use super::registry::{Built, Registry, Role, Wish};
use super::settings::{Placed, own, placed};
use super::tree::{Node, Table, Value};

/// The tables that become providers.
#[derive(Clone)]
pub(super) struct Tables {
    vault: Option<Value>,
    authority: Option<Value>,
    sinks: Vec<Value>,
    consumers: Vec<Value>,
    checks: Vec<Value>,
    records: Vec<Value>,
    vantages: Vec<Value>,
}

impl Tables {
    /// Takes them out of an environment's file.
    pub(super) fn read(file: &mut Table, problems: &mut Problems) -> Self {
        let mut one = |key: &str, help: &str| {
            let value = file.take(key);
            if value.is_none() {
                problems.add(Problem::new(format!("the table [{key}] is missing")).help(help.to_owned()));
            }
            value
        };
        let vault = one("vault", "the vault of record: the one store whose word counts");
        let authority = one("authority", "the system that accepts or refuses the password: the server");
        let mut many = |key: &str| list(file.take(key), key, problems);
        Self {
            vault,
            authority,
            sinks: many("sinks"),
            consumers: many("consumers"),
            checks: many("checks"),
            records: many("records"),
            vantages: many("vantages"),
        }
    }
}

impl Tables {
    /// Two roles that take turns change their passwords by SQL: a resource manager knows one administrator.
    pub(super) fn for_turns(&self, problems: &mut Problems) {
        let Some(authority) = &self.authority else { return };
        let Node::Table(table) = &authority.node else { return };
        let Some(kind) = table.get("kind") else { return };
        if de::read::<String>(kind).is_ok_and(|kind| kind != "postgres") {
            let problem =
                Problem::new("two roles that take turns change their passwords by SQL").at(&kind.at, "");
            problems.add(problem.help("[authority] kind = \"postgres\", without further keys"));
        }
    }
}

fn list(value: Option<Value>, key: &str, problems: &mut Problems) -> Vec<Value> {
    match value {
        None => Vec::new(),
        Some(Value { node: Node::List(items), .. }) => items,
        Some(other) => {
            problems.add(wrong(&format!("a list of tables, each one headed [[{key}]],"), &other));
            Vec::new()
        }
    }
}

/// An environment's providers. Each one knows where it stands in the file.
pub(super) struct Parts {
    pub(super) vault: Placed<Box<dyn Vault>>,
    pub(super) authority: Placed<Box<dyn Authority>>,
    pub(super) copies: Vec<Placed<Copy>>,
    pub(super) consumers: Vec<Placed<BoundConsumer>>,
    pub(super) verifications: Vec<Placed<Box<dyn Verification>>>,
    pub(super) recorders: Vec<Placed<Box<dyn Recorder>>>,
    pub(super) vantages: Vec<Placed<Box<dyn Vantage>>>,
}

/// Builds the providers. What can't be built is noted, and the rest is built all the same, so
/// that one reading finds everything.
pub(super) fn bind(
    tables: &Tables,
    registry: &dyn Registry,
    shared: &Arc<Shared>,
    problems: &mut Problems,
) -> Option<Parts> {
    let binder = Binder { registry, shared };
    let vault = each(&tables.vault, problems, |table| {
        binder.build(Role::Vault, table, |wish| registry.vault(wish, shared))
    });
    let authority = each(&tables.authority, problems, |table| {
        binder.build(Role::Authority, table, |wish| registry.authority(wish, shared))
    });
    let copies = each(&tables.sinks, problems, |table| binder.copy(table));
    let consumers = each(&tables.consumers, problems, |table| binder.consumer(table));
    let verifications = each(&tables.checks, problems, |table| {
        binder.build(Role::Verification, table, |wish| registry.verification(wish, shared))
    });
    let recorders = each(&tables.records, problems, |table| {
        binder.build(Role::Recorder, table, |wish| registry.recorder(wish, shared))
    });
    let vantages = each(&tables.vantages, problems, |table| {
        binder.build(Role::Vantage, table, |wish| registry.vantage(wish, shared))
    });
    // What waits for a copy that can't be built is no second mistake.
    if copies.len() == tables.sinks.len() {
        awaited(&consumers, &copies, problems);
    }
    Some(Parts {
        vault: vault.into_iter().next()?,
        authority: authority.into_iter().next()?,
        copies,
        consumers: consumers.into_iter().map(|own| Placed { value: own.value.bound(), at: own.at }).collect(),
        verifications,
        recorders,
        vantages,
    })
}

fn each<'a, T>(
    tables: impl IntoIterator<Item = &'a Value>,
    problems: &mut Problems,
    build: impl Fn(&Value) -> Result<T, Problem>,
) -> Vec<Placed<T>> {
    let build =
        |table: &'a Value| problems.keep(build(table)).map(|value| Placed { value, at: table.at.clone() });
    tables.into_iter().filter_map(build).collect()
}

/// A consumer with the names of the copies that it waits for, not yet compared with those that
/// there are.
struct Waiting {
    consumer: Box<dyn Consumer>,
    waits_for: Vec<Placed<String>>,
    sessions: Option<Sessions>,
}

impl Waiting {
    fn bound(self) -> BoundConsumer {
        let waits_for = self.waits_for.into_iter().map(|copy| CopyId::new(copy.value)).collect();
        BoundConsumer { consumer: self.consumer, waits_for, sessions: self.sessions }
    }
}

fn awaited(consumers: &[Placed<Waiting>], copies: &[Placed<Copy>], problems: &mut Problems) {
    let known: Vec<&str> = copies.iter().map(|copy| copy.value.sink.id().as_str()).collect();
    for copy in consumers.iter().flat_map(|own| &own.value.waits_for) {
        if !known.contains(&copy.value.as_str()) {
            problems.add(Problem::no_such("copy", &copy.value, &known).or_at(&copy.at));
        }
    }
}

/// Whether the version before a rotation stays usable.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Retire {
    #[default]
    Keep,
    Disable,
}

/// `sessions = { application_name = "…" }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsForm {
    application_name: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    reconnect: ReconnectForm,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReconnectForm {
    #[default]
    Wait,
    Terminate,
}

fn sessions(value: &Value) -> Result<Sessions, Problem> {
    let form: SessionsForm = de::read(value)?;
    let net = |text: &String| -> Result<IpNet, Problem> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map_err(|_| {
            Problem::new(format!("{text:?} is neither an address nor a network"))
                .at(&value.at, "")
                .help("addresses = [\"10.0.0.0/8\", \"192.0.2.7\"]")
        })
    };
    Ok(Sessions {
        application_name: WildMatch::new(&form.application_name),
        addresses: form.addresses.iter().map(net).collect::<Result<_, _>>()?,
        optional: form.optional,
        reconnect: match form.reconnect {
            ReconnectForm::Wait => Reconnect::Wait,
            ReconnectForm::Terminate => Reconnect::Terminate,
        },
    })
}

struct Binder<'a> {
    registry: &'a dyn Registry,
    shared: &'a Arc<Shared>,
}

impl Binder<'_> {
    fn copy(&self, table: &Value) -> Result<Copy, Problem> {
        let (mut rest, at) = (own(table)?, &table.at);
        let retire: Retire = take(&mut rest, "retire")?.map_or_else(Retire::default, |own| own.value);
        let value = take::<String>(&mut rest, "value")?.ok_or_else(|| {
            let help =
                "what the copy holds: \"{password}\", \"{database_url}\", or a text around one of them";
            Problem::new("`value` is missing").at(at, "in this table").help(help)
        });
        let template = value.and_then(|value| {
            Template::parse(&value.value).map_err(|error| Problem::new(error.message).at(&value.at, ""))
        });
        let rest = Value { node: Node::Table(rest), at: at.clone() };
        let sink = self.build(Role::Sink, &rest, |wish| self.registry.sink(wish, self.shared))?;
        Ok(Copy { sink, template: template?, retire: retire == Retire::Disable })
    }

    fn consumer(&self, table: &Value) -> Result<Waiting, Problem> {
        let mut rest = own(table)?;
        let waits_for = match rest.take("waits_for") {
            Some(list) => match &list.node {
                Node::List(items) => items.iter().map(placed).collect::<Result<_, _>>()?,
                _ => return Err(wrong("a list", &list)),
            },
            None => Vec::new(),
        };
        let sessions = rest.take("sessions").map(|value| sessions(&value)).transpose()?;
        let rest = Value { node: Node::Table(rest), at: table.at.clone() };
        let consumer = self.build(Role::Consumer, &rest, |wish| self.registry.consumer(wish, self.shared))?;
        Ok(Waiting { consumer, waits_for, sessions })
    }

    /// Builds one provider from its table, without the keys that are none of its business.
    fn build<T: ?Sized>(
        &self,
        role: Role,
        table: &Value,
        make: impl FnOnce(Wish<'_>) -> Built<T>,
    ) -> Result<Box<T>, Problem> {
        let mut rest = own(table)?;
        let known = self.registry.kinds(role);
        let kind = take::<String>(&mut rest, "kind")?.ok_or_else(|| {
            let help = format!("there are: {}", known.join(", "));
            Problem::new("`kind` is missing").at(&table.at, "in this table").help(help)
        })?;
        let name = take(&mut rest, "name")?.map(|name| name.value);
        let options = Value { node: Node::Table(rest.clone()), at: table.at.clone() };
        make(Wish { kind: &kind.value, name, options: Input(&options) }).map_err(|error| match error {
            BuildError::UnknownKind(known) => {
                Problem::no_such(&format!("{} of the kind", role.noun()), &kind.value, known).or_at(&kind.at)
            }
            BuildError::Options(problem) => problem.beside(&rest, role.keys()),
            BuildError::Provider(error) => files::problem(&error).at(&table.at, ""),
        })
    }
}

fn take<T: for<'de> Deserialize<'de>>(table: &mut Table, key: &str) -> Result<Option<Placed<T>>, Problem> {
    table.take(key).map(|value| placed(&value)).transpose()
}
