//! The seam between the configuration and the providers, so that tests can bring their own.

use std::sync::Arc;

use pgrotate_core::plan::Retirement;
use pgrotate_core::provider::{
    Authority, Census, Consumer, Pair, Recorder, Sink, Vantage, Vault, Verification, Verifier,
};
use pgrotate_providers::postgres::{PostgresCensus, PostgresLogin, PostgresPair, PostgresTwin};
use pgrotate_providers::{BuildError, Shared, registry};

use super::de::Input;
use super::problem::Problem;

/// What somebody wrote about one provider.
pub(super) struct Wish<'a> {
    /// Which one.
    pub(super) kind: &'a str,
    /// Its name, where it shall not name itself.
    pub(super) name: Option<String>,
    /// Everything else.
    pub(super) options: Input<'a>,
}

/// A provider, or why there is none.
pub(super) type Built<T> = Result<Box<T>, BuildError<Problem>>;

/// Turns wishes into providers, without any I/O.
pub(super) trait Registry: Send + Sync {
    /// The kinds of each role.
    fn kinds(&self, role: Role) -> &'static [&'static str];
    fn vault(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Vault>;
    fn authority(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Authority>;
    fn sink(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Sink>;
    fn consumer(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Consumer>;
    fn verification(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Verification>;
    fn recorder(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Recorder>;
    fn vantage(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Vantage>;
    /// What knows who is logged in, as far as anything does.
    fn census(&self, shared: &Arc<Shared>) -> Option<Box<dyn Census>>;
    /// Both roles of an environment, where they take turns.
    fn pair(&self, [first, second]: [&Arc<Shared>; 2], owner: &str, retirement: Retirement) -> Box<dyn Pair> {
        let closes = retirement == Retirement::NoLogin;
        let (first, second) = (Arc::clone(first), Arc::clone(second));
        Box::new(PostgresPair::new(first, second, owner.to_owned(), closes))
    }
    /// What changes the password of one role as the other one.
    fn by_twin(&self, by: &Arc<Shared>, whose: &Arc<Shared>) -> Box<dyn Authority> {
        Box::new(PostgresTwin::new(Arc::clone(by), whose.target.user.clone()))
    }
    /// What proves a password. There is one way, so nobody has to wish for it.
    fn verifier(&self, shared: &Arc<Shared>) -> Box<dyn Verifier>;
}

/// The roles that tables of the configuration fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Vault,
    Authority,
    Sink,
    Consumer,
    Verification,
    Recorder,
    Vantage,
}

impl Role {
    /// The keys that every table of the role can have.
    pub(super) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Sink => &["kind", "name", "value", "retire"],
            Self::Consumer => &["kind", "name", "waits_for", "sessions"],
            _ => &["kind", "name"],
        }
    }

    /// What one is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Vault => "vault of record",
            Self::Authority => "authority",
            Self::Sink => "sink",
            Self::Consumer => "consumer",
            Self::Verification => "check",
            Self::Recorder => "record",
            Self::Vantage => "vantage",
        }
    }
}

/// The providers of the program.
pub(super) struct Providers;

impl Registry for Providers {
    fn kinds(&self, role: Role) -> &'static [&'static str] {
        match role {
            Role::Vault => registry::VAULTS,
            Role::Authority => registry::AUTHORITIES,
            Role::Sink => registry::SINKS,
            Role::Consumer => registry::CONSUMERS,
            Role::Verification => registry::VERIFICATIONS,
            Role::Recorder => registry::RECORDERS,
            Role::Vantage => registry::VANTAGES,
        }
    }

    fn vault(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Vault> {
        registry::vault(wish.kind, wish.name, wish.options, shared)
    }

    fn authority(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Authority> {
        registry::authority(wish.kind, wish.name, wish.options, shared)
    }

    fn sink(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Sink> {
        registry::sink(wish.kind, wish.name, wish.options, shared)
    }

    fn consumer(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Consumer> {
        registry::consumer(wish.kind, wish.name, wish.options, shared)
    }

    fn verification(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Verification> {
        registry::verification(wish.kind, wish.name, wish.options, shared)
    }

    fn recorder(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Recorder> {
        registry::recorder(wish.kind, wish.name, wish.options, shared)
    }

    fn vantage(&self, wish: Wish<'_>, shared: &Arc<Shared>) -> Built<dyn Vantage> {
        registry::vantage(wish.kind, wish.name, wish.options, shared)
    }

    fn census(&self, shared: &Arc<Shared>) -> Option<Box<dyn Census>> {
        Some(Box::new(PostgresCensus::new(Arc::clone(shared))))
    }

    fn verifier(&self, shared: &Arc<Shared>) -> Box<dyn Verifier> {
        Box::new(PostgresLogin::new(Arc::clone(shared)))
    }
}
