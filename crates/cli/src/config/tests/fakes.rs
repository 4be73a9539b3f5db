//! Providers that only know who and where they are, and a registry of them.

use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{
    Activation, Authority, Capabilities, Census, Change, Consumer, Evidence, Finding, Inspection, Login,
    Recorder, Seen, Sink, Story, Survey, Vantage, Vault, VaultState, Verification, Verifier,
};
use pgrotate_core::value::Update;
use pgrotate_core::{CopyId, Error, Kind, Result, RunId, Secret, VersionId};
use pgrotate_providers::{BuildError, Shared};
use serde::Deserialize;

use crate::config::registry::{Built, Registry, Role, Wish};

/// The options of every fake; each role uses some of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Options {
    place: String,
    resource_group: Option<String>,
    attempts: Option<u8>,
    dialect: Option<Dialect>,
    loud: Option<bool>,
    environment: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Dialect {
    Verbatim,
    Shell,
}

/// A provider of any role.
struct Fake {
    id: CopyId,
    place: String,
}

impl Fake {
    fn build(
        wish: Wish<'_>,
        known: &'static str,
        kinds: &'static [&'static str],
    ) -> Result<Box<Self>, BuildError<crate::config::problem::Problem>> {
        if wish.kind != known {
            return Err(BuildError::UnknownKind(kinds));
        }
        let options = Options::deserialize(wish.options).map_err(BuildError::Options)?;
        if options.place == "nowhere" {
            let error = Error::new(Kind::Config, "use this place").because("there is no such thing");
            return Err(BuildError::Provider(error.hint("name another one")));
        }
        let name =
            wish.name.unwrap_or_else(|| options.place.rsplit('/').next().unwrap_or_default().to_owned());
        Ok(Box::new(Self { id: CopyId::new(format!("{known}:{name}")), place: options.place }))
    }
}

/// The fakes' registry.
pub(super) struct Fakes;

impl Registry for Fakes {
    fn kinds(&self, role: Role) -> &'static [&'static str] {
        match role {
            Role::Vault => &["safe"],
            Role::Authority => &["server"],
            Role::Sink => &["store"],
            Role::Consumer => &["app"],
            Role::Verification => &["command"],
            Role::Recorder => &["diary"],
            Role::Vantage => &[],
        }
    }

    fn vault(&self, wish: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Vault> {
        Ok(Fake::build(wish, "safe", self.kinds(Role::Vault))?)
    }

    fn authority(&self, wish: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Authority> {
        Ok(Fake::build(wish, "server", self.kinds(Role::Authority))?)
    }

    fn sink(&self, wish: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Sink> {
        Ok(Fake::build(wish, "store", self.kinds(Role::Sink))?)
    }

    fn consumer(&self, wish: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Consumer> {
        Ok(Fake::build(wish, "app", self.kinds(Role::Consumer))?)
    }

    fn verification(&self, wish: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Verification> {
        Ok(Fake::build(wish, "command", self.kinds(Role::Verification))?)
    }

    fn recorder(&self, wish: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Recorder> {
        Ok(Fake::build(wish, "diary", self.kinds(Role::Recorder))?)
    }

    fn vantage(&self, _: Wish<'_>, _: &Arc<Shared>) -> Built<dyn Vantage> {
        Err(BuildError::UnknownKind(&[]))
    }

    fn census(&self, _: &Arc<Shared>) -> Option<Box<dyn Census>> {
        None
    }

    fn verifier(&self, shared: &Arc<Shared>) -> Box<dyn Verifier> {
        Box::new(Fake { id: CopyId::from("verifier:"), place: shared.target.to_string() })
    }
}

const UNUSED: &str = "a configuration is read without calling anybody";

#[async_trait]
impl Vault for Fake {
    fn id(&self) -> &CopyId {
        &self.id
    }
    fn location(&self) -> String {
        self.place.clone()
    }
    async fn check(&self) -> Result<Survey> {
        unreachable!("{UNUSED}")
    }
    async fn read(&self) -> Result<VaultState> {
        unreachable!("{UNUSED}")
    }
    async fn stage(&self, _: RunId, _: &Secret) -> Result<()> {
        unreachable!("{UNUSED}")
    }
    async fn promote(&self, _: RunId, _: &Secret, _: Option<&str>) -> Result<Option<VersionId>> {
        unreachable!("{UNUSED}")
    }
    async fn lay_aside(&self, _: RunId, _: &Secret) -> Result<()> {
        unreachable!("{UNUSED}")
    }
    async fn discard(&self, _: RunId) -> Result<()> {
        unreachable!("{UNUSED}")
    }
}

#[async_trait]
impl Authority for Fake {
    fn describe(&self) -> String {
        self.id.to_string()
    }
    fn location(&self) -> String {
        self.place.clone()
    }
    async fn check(&self, _: &Secret) -> Result<Vec<Finding>> {
        unreachable!("{UNUSED}")
    }
    async fn install(&self, _: &Change<'_>) -> Result<Outcome> {
        unreachable!("{UNUSED}")
    }
}

#[async_trait]
impl Verifier for Fake {
    async fn login(&self, _: &Secret) -> Result<Login> {
        unreachable!("{UNUSED}")
    }
}

#[async_trait]
impl Sink for Fake {
    fn id(&self) -> &CopyId {
        &self.id
    }
    fn location(&self) -> String {
        self.place.clone()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    async fn check(&self) -> Result<Inspection> {
        unreachable!("{UNUSED}")
    }
    async fn inspect(&self) -> Result<Seen> {
        unreachable!("{UNUSED}")
    }
    async fn publish(&self, _: &Update<'_>) -> Result<Outcome> {
        unreachable!("{UNUSED}")
    }
    async fn retire(&self, _: &VersionId) -> Result<Outcome> {
        unreachable!("{UNUSED}")
    }
}

#[async_trait]
impl Consumer for Fake {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    async fn check(&self) -> Result<Vec<Finding>> {
        unreachable!("{UNUSED}")
    }
    async fn activate(&self, _: &Activation<'_>) -> Result<Outcome> {
        unreachable!("{UNUSED}")
    }
}

#[async_trait]
impl Verification for Fake {
    fn id(&self) -> &str {
        self.id.as_str().strip_prefix("command:").unwrap_or_default()
    }
    async fn verify(&self, _: &Evidence<'_>) -> Result<Outcome> {
        unreachable!("{UNUSED}")
    }
}

#[async_trait]
impl Recorder for Fake {
    fn id(&self) -> &str {
        self.id.as_str()
    }
    async fn check(&self, _: Option<&str>) -> Result<Vec<Finding>> {
        unreachable!("{UNUSED}")
    }
    async fn record(&self, _: &Story, _: bool) -> Result<Outcome> {
        unreachable!("{UNUSED}")
    }
}
