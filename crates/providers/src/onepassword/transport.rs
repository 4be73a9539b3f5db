//! The ways to 1Password: what the vault of record needs of each, and which one is taken.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::provider::Finding;
use pgrotate_core::{Error, Kind, Result};
use serde_json::Value;

use super::cli::Cli;
use super::connect::Connect;
use super::item::{Goal, Item};
use crate::shared::{OnepasswordVia, Shared};

/// Where an item is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) vault: String,
    pub(super) item: String,
}

/// A way to 1Password. `choice` is the field that holds the password, as configured.
#[async_trait]
pub(super) trait Transport: Send + Sync {
    /// Finds a vault and an item, each by id or exact name.
    async fn place(&self, vault: &str, item: &str) -> Result<Place>;

    /// The item with all its fields.
    async fn item(&self, place: &Place, choice: Option<&str>) -> Result<Item>;

    /// Brings the item to the goals in one write, and gives what it is then.
    async fn reach(&self, place: &Place, before: &Item, goals: &[Goal], choice: Option<&str>)
    -> Result<Item>;

    /// The item, if it could be looked at, and what stands in the way of a write. Changes nothing.
    async fn probe(
        &self,
        place: &Place,
        choice: Option<&str>,
        subject: &str,
    ) -> Result<(Option<Item>, Vec<Finding>)>;
}

/// The configured way, or the one that there are credentials for, if there is one.
pub(super) fn way(shared: &Shared) -> Option<OnepasswordVia> {
    let settings = &shared.vendors.onepassword;
    let given = |variable: &str| shared.credentials.get(variable).is_some();
    settings.via.or_else(|| {
        if settings.connect.is_some() || given("OP_CONNECT_HOST") {
            return Some(OnepasswordVia::Connect);
        }
        given("OP_SERVICE_ACCOUNT_TOKEN").then_some(OnepasswordVia::Cli)
    })
}

/// Takes the configured way, or the one that there are credentials for. Sends nothing.
///
/// # Errors
/// When there is none, or what it needs is missing.
pub(super) fn choose(shared: &Arc<Shared>, op: &Path) -> Result<Box<dyn Transport>> {
    match way(shared) {
        Some(OnepasswordVia::Connect) => Ok(Box::new(Connect::new(shared)?)),
        Some(OnepasswordVia::Cli) => Ok(Box::new(Cli::new(shared, op)?)),
        None => Err(Error::new(Kind::Unauthenticated, "reach 1Password")
            .because("there is neither a Connect server nor a service account")
            .hint("for Connect set `connect` under [onepassword], or OP_CONNECT_HOST, and OP_CONNECT_TOKEN")
            .hint("for the CLI set OP_SERVICE_ACCOUNT_TOKEN")),
    }
}

/// Whether a text has the form of 1Password's ids.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The id of the one thing of this exact name. What is archived doesn't count.
///
/// # Errors
/// When there is none or more than one.
pub(super) fn only(all: &Value, key: &str, name: &str, what: &str) -> Result<String> {
    let error = |kind| Error::new(kind, format!("find the {what} \"{name}\" in 1Password"));
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    let named: Vec<&Value> = all.iter().filter(|one| one[key] == name).collect();
    let live: Vec<&str> = named
        .iter()
        .filter(|one| one["state"].as_str().unwrap_or_default().is_empty())
        .filter_map(|one| one["id"].as_str())
        .collect();
    match live[..] {
        [id] => Ok(id.to_owned()),
        [] if named.is_empty() => Err(error(Kind::NotFound)
            .because("there is none of this name that the token may see")
            .hint(format!("correct `{what}` in the configuration, or give the token access to the vault"))
            .hint(format!("an archived {what} is not among them: restore it in 1Password, if that is it"))),
        [] => Err(error(Kind::BadState).because("it is archived or deleted").hint("restore it in 1Password")),
        _ => Err(error(Kind::Ambiguous)
            .because(format!("there are {} of this name: {}", live.len(), live.join(", ")))
            .hint(format!("name one by its id in the configuration: {what} = \"{}\"", live[0]))),
    }
}
