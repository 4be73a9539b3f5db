//! A secret in Azure Key Vault, as a copy.
//!
//! Each write is a new version with an id of its own, the Secret Id. A version inherits nothing
//! from the one before, so content type, tags and lifetime are sent again; a tag `pgrotate-run`
//! tells which run wrote it.
//!
//! Needs on the vault the role *Key Vault Secrets Officer* (or a custom one with
//! `Microsoft.KeyVault/vaults/secrets/getSecret/action`, `setSecret/action`, `readMetadata/action`,
//! and `update/action` for `retire`); on a vault with access policies: get, set, list. *Owner* and
//! *Contributor* of the vault give none of these.
//!
//! To tell before the write whether the right to write is there, the vault has to be found in the resource manager: by
//! `subscription` and `resource_group`, with the role *Reader*.
//!
//! Can't: make an older version the latest again (a rollback is a new version).
//!
//! Quirks (Key Vault REST reference, "Set Secret", "About secrets"):
//! - a set is not idempotent: the same value makes another version. `azure_core` would replay a PUT
//!   whose answer was lost, so its retries are off; a repeat reads first.
//! - the name of a deleted secret stays taken until it is recovered or purged, and is free only some
//!   time after a recovery has been reported done.
//! - the first request goes out without token and body, to learn from the vault's challenge for
//!   which audience it wants one.

mod by_hand;
pub(crate) mod failure;
mod resource;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::RequestContent;
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_secrets::ResourceId;
use azure_security_keyvault_secrets::models::{
    Secret as Model, SecretAttributes, SecretClientUpdateSecretPropertiesOptions, SetSecretParameters,
    UpdateSecretPropertiesParameters,
};
use jiff::Timestamp;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Capabilities, Content, Finding, Inspection, Seen, Severity, Sink};
use pgrotate_core::value::{Template, Update};
use pgrotate_core::{CopyId, Error, Kind, Result, Secret, VersionId};
use serde::Deserialize;

use self::failure::{Place, classify};
use self::resource::Group;
use crate::azure::{self, VaultClient};
use crate::http::Effect;
use crate::shared::Shared;

/// The tag that names the run.
const RUN_TAG: &str = "pgrotate-run";
/// As many tags can a version have.
const TAGS_MAX: usize = 15;

/// `kind = "azure_key_vault"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The vault's name, without the domain.
    pub vault: String,
    /// The secret's name.
    pub secret: String,
    /// The subscription that the vault is in, to see there what this identity may do in it.
    #[serde(default)]
    pub subscription: Option<String>,
    /// The resource group that the vault is in.
    #[serde(default)]
    pub resource_group: Option<String>,
}

/// One secret of one vault.
pub struct Copy {
    id: CopyId,
    place: Place,
    url: String,
    group: Option<Group>,
    shared: Arc<Shared>,
}

/// The latest version, as far as it can be seen.
enum Latest {
    /// It is there.
    Version(Box<Model>),
    /// It is there, and switched off.
    Disabled,
    /// There is no such secret.
    Absent,
}

impl Copy {
    /// Binds the copy. Nothing is asked of Azure yet.
    ///
    /// # Errors
    /// When vault or secret can't have such a name.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let Options { vault, secret, subscription, resource_group } = options;
        plain_name("vault", &vault, 24)?;
        plain_name("secret", &secret, 127)?;
        let group = Group::new(subscription, resource_group)?;
        let suffix = &shared.vendors.azure.key_vault_suffix;
        let url = vault_url(&vault, suffix);
        shared.azure.declare(location(&vault, &secret, suffix));
        Ok(Self {
            id: CopyId::new(format!("azure_key_vault:{}", name.as_ref().unwrap_or(&secret))),
            place: Place { vault, secret },
            url,
            group,
            shared,
        })
    }

    fn client(&self) -> Result<Arc<VaultClient>> {
        azure::account(&self.shared)?.secrets(&self.url)
    }

    /// The error of a call, in our words. A refused token is dropped, so that the next try brings
    /// a fresh one.
    fn failure(&self, error: &azure_core::Error, effect: Effect, operation: &str) -> Error {
        let error = classify(error, effect, operation, &self.place);
        if error.kind() == Kind::Unauthenticated
            && let Ok(account) = azure::account(&self.shared)
        {
            account.forget_tokens();
        }
        error
    }

    async fn latest(&self) -> Result<Latest> {
        let operation = format!("read the secret {}", self.place);
        match self.client()?.first(|client| client.get_secret(&self.place.secret, None)).await {
            Ok(response) => {
                let model = response.into_model().map_err(|_| corrupt(&operation))?;
                Ok(Latest::Version(Box::new(model)))
            }
            Err(error) => match failure::code(&error).as_str() {
                "SecretNotFound" => Ok(Latest::Absent),
                "SecretDisabled" => Ok(Latest::Disabled),
                _ => Err(self.failure(&error, Effect::Reads, &operation)),
            },
        }
    }

    fn seen_of(&self, latest: Latest) -> Result<Seen> {
        match latest {
            Latest::Version(model) => self.seen(*model),
            Latest::Disabled => Ok(Seen { content: Content::Unseen, version: None, updated_at: None }),
            Latest::Absent => Ok(Seen { content: Content::Absent, version: None, updated_at: None }),
        }
    }

    /// What stands in the way of the secret as it is.
    async fn judge(&self, latest: &Latest) -> Result<Vec<Finding>> {
        let found = |severity, what: String| Finding::new(severity, self.id.as_str(), what);
        match latest {
            Latest::Absent => Ok(vec![self.absent().await?]),
            Latest::Disabled => Ok(vec![
                found(Severity::Blocks, failure::DISABLED.to_owned()).mend(self.place.enable_command()),
            ]),
            Latest::Version(model) => {
                let dates = model.attributes.as_ref().and_then(|attributes| self.judge_dates(attributes));
                let full = model
                    .tags
                    .as_ref()
                    .is_some_and(|tags| tags.len() >= TAGS_MAX && !tags.contains_key(RUN_TAG));
                let full = full.then(|| {
                    let what = format!("it has {TAGS_MAX} tags, so `{RUN_TAG}` finds no place");
                    found(Severity::Note, what)
                        .why("the new version will not say which run has made it")
                        .mend("take one of its tags away, if that matters")
                });
                Ok(dates.into_iter().chain(full).collect())
            }
        }
    }

    /// Key Vault gives a value whatever its dates; those who read it may not.
    fn judge_dates(&self, attributes: &SecretAttributes) -> Option<Finding> {
        let now = self.shared.clock.now().as_second();
        let over = attributes.expires.filter(|expires| expires.unix_timestamp() <= now);
        let early = attributes.not_before.filter(|from| from.unix_timestamp() > now);
        let what = match (over, early) {
            (Some(at), _) => format!("its latest version expired on {}", at.date()),
            (None, Some(at)) => format!("its latest version is not to be used before {}", at.date()),
            (None, None) => return None,
        };
        let (why, mend) = match over {
            Some(_) => (
                "whoever heeds that does not use it: is it still this secret that applications read?",
                "the run's version lives as long as this one was to live",
            ),
            None => (
                "somebody prepared it for later, and the run's version is to be used at once",
                "find out who did, and for what",
            ),
        };
        Some(Finding::new(Severity::Warning, self.id.as_str(), what).why(why).mend(mend))
    }

    fn seen(&self, model: Model) -> Result<Seen> {
        let version = model.id.map(VersionId::new);
        let updated = model.attributes.and_then(|attributes| attributes.updated);
        let updated_at = updated.and_then(|at| Timestamp::from_second(at.unix_timestamp()).ok());
        let value = model.value.ok_or_else(|| corrupt(&format!("read the secret {}", self.place)))?;
        Ok(Seen { content: Content::Value(Secret::new(value)), version, updated_at })
    }

    /// What a missing secret means: a new one can be made, unless its name is still taken.
    async fn absent(&self) -> Result<Finding> {
        let found = |severity, what: String| Finding::new(severity, self.id.as_str(), what);
        match self.client()?.get().get_deleted_secret(&self.place.secret, None).await {
            Ok(_) => Ok(found(
                Severity::Blocks,
                "it is deleted, and its name stays taken until it is recovered".into(),
            )
            .mend(self.place.recover_command())),
            Err(error) if error.http_status().is_some_and(|status| status == 404) => {
                let what = "there is no such secret yet; the run would make it".to_owned();
                Ok(found(Severity::Warning, what).mend("is the name right?"))
            }
            Err(error) => {
                let error = self.failure(&error, Effect::Reads, "read whether the secret is deleted");
                if error.kind() != Kind::Forbidden {
                    return Err(error);
                }
                let what =
                    "there is no such secret, and whether its name is taken by a deleted one can't be seen";
                Ok(found(Severity::Unseen, what.into()).mend("this needs the right to list secrets"))
            }
        }
    }

    /// The request for a new version that is like the present one in all but its value.
    fn next_version(&self, update: &Update<'_>, value: &Secret, present: Option<Model>) -> Next {
        let (content_type, tags, attributes) = match present {
            Some(model) => (model.content_type, model.tags, model.attributes),
            None => (None, None, None),
        };
        let mut tags: HashMap<String, String> = tags.unwrap_or_default();
        let mut notes = Vec::new();
        if tags.len() < TAGS_MAX || tags.contains_key(RUN_TAG) {
            tags.insert(RUN_TAG.to_owned(), update.run.to_string());
        } else {
            notes.push(format!("the secret has {TAGS_MAX} tags, so `{RUN_TAG}` found no place"));
        }
        let expires = attributes.and_then(|attributes| self.same_lifetime(&attributes));
        if let Some(expires) = expires {
            notes.push(format!(
                "it expires on {}, after as long a life as the version before",
                expires.date()
            ));
        }
        let secret_attributes =
            expires.map(|expires| SecretAttributes { expires: Some(expires), ..SecretAttributes::default() });
        let value = Some(value.expose().to_owned());
        Next {
            parameters: SetSecretParameters { content_type, tags: Some(tags), secret_attributes, value },
            notes,
        }
    }

    /// A policy may want secrets to expire, and the date of the version before would soon be over.
    fn same_lifetime(&self, attributes: &SecretAttributes) -> Option<OffsetDateTime> {
        let life = attributes.expires? - attributes.created?;
        OffsetDateTime::from_unix_timestamp(self.shared.clock.now().as_second()).ok()?.checked_add(life)
    }

    async fn set(&self, next: Next, value: &Secret) -> Result<Outcome> {
        let operation = format!("write the secret {}", self.place);
        let content: RequestContent<SetSecretParameters> =
            next.parameters.try_into().map_err(|_| Error::internal("a secret can't be written as JSON"))?;
        let sent = self.client()?.get().set_secret(&self.place.secret, content, None).await;
        let response = sent.map_err(|error| self.failure(&error, Effect::Writes, &operation))?;
        let model: Model = response.into_model().map_err(|_| corrupt(&operation).unknown())?;
        // The answer shows what has been stored.
        let Seen { content, version, .. } = self.seen(model).map_err(Error::unknown)?;
        if !matches!(content, Content::Value(stored) if stored == *value) {
            return Err(corrupt(&operation).unknown());
        }
        Ok(next.notes.into_iter().fold(Outcome::changed().version(version), Outcome::note))
    }
}

/// A new version that is about to be written.
struct Next {
    parameters: SetSecretParameters,
    notes: Vec<String>,
}

#[async_trait]
impl Sink for Copy {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        let Place { vault, secret } = &self.place;
        location(vault, secret, &self.shared.vendors.azure.key_vault_suffix)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { read_back: true, version_ids: true, reports_time: true }
    }

    async fn check(&self) -> Result<Inspection> {
        let look = async {
            let latest = self.latest().await?;
            let found = self.judge(&latest).await?;
            Ok::<_, Error>((self.seen_of(latest)?, found))
        };
        let (look, hindrances) = futures::join!(look, self.hindrances());
        azure::inspection(look, hindrances?, None)
    }

    async fn check_retirement(&self) -> Result<Vec<Finding>> {
        self.hindrances_to_retire().await
    }

    async fn inspect(&self) -> Result<Seen> {
        self.seen_of(self.latest().await?)
    }

    async fn publish(&self, update: &Update<'_>) -> Result<Outcome> {
        let present = match self.latest().await? {
            Latest::Version(model) => Some(*model),
            Latest::Absent => None,
            // Somebody took it out of use since the check. A new version would undo that.
            Latest::Disabled => {
                return Err(Error::new(Kind::BadState, format!("write the secret {}", self.place))
                    .because(failure::DISABLED)
                    .hint(self.place.enable_command()));
            }
        };
        let old = present.as_ref().and_then(|model| model.value.as_deref()).map(Secret::new);
        let value = update.value(old.as_ref())?;
        if old.as_ref() == Some(&value) {
            let version = present.and_then(|model| model.id).map(VersionId::new);
            return Ok(Outcome::already_done().version(version));
        }
        self.set(self.next_version(update, &value, present), &value).await
    }

    async fn retire(&self, previous: &VersionId) -> Result<Outcome> {
        let operation = format!("disable the version before of the secret {}", self.place);
        let version = self.own_version(previous, &operation)?;
        // Only what is no longer current: the latest version is the one that everybody reads.
        if let Latest::Version(latest) = self.latest().await?
            && latest.id.as_deref().and_then(|id| id.parse::<ResourceId>().ok()?.version)
                == Some(version.clone())
        {
            return Ok(Outcome::skipped("it is the latest version again"));
        }
        let disabled = SecretAttributes { enabled: Some(false), ..SecretAttributes::default() };
        let parameters =
            UpdateSecretPropertiesParameters { secret_attributes: Some(disabled), ..Default::default() };
        let content: RequestContent<UpdateSecretPropertiesParameters> =
            parameters.try_into().map_err(|_| Error::internal("attributes can't be written as JSON"))?;
        let options =
            SecretClientUpdateSecretPropertiesOptions { secret_version: Some(version), ..Default::default() };
        match self.client()?.get().update_secret_properties(&self.place.secret, content, Some(options)).await
        {
            Ok(_) => Ok(Outcome::changed().version(Some(previous.clone()))),
            Err(error) if failure::code(&error) == "SecretNotFound" => {
                Ok(Outcome::skipped("the version before no longer exists"))
            }
            // Disabling twice is the same as disabling once, so a lost answer is simply repeated.
            Err(error) => Err(self.failure(&error, Effect::Writes, &operation)),
        }
    }

    fn by_hand(&self, template: &Template) -> Vec<Instruction> {
        self.instructions(template)
    }
}

impl Copy {
    /// The version of an id, if it is one of this very secret.
    fn own_version(&self, id: &VersionId, operation: &str) -> Result<String> {
        let parsed: Option<ResourceId> = id.as_str().parse().ok();
        let own = parsed.filter(|parsed| {
            parsed.vault_url.eq_ignore_ascii_case(&self.url)
                && parsed.name.eq_ignore_ascii_case(&self.place.secret)
        });
        own.and_then(|parsed| parsed.version).ok_or_else(|| {
            Error::new(Kind::Conflict, operation).because("its Secret Id belongs to another secret")
        })
    }
}

/// Where a secret is. Settings of applications that point at it say so in the same words.
pub(crate) fn location(vault: &str, secret: &str, suffix: &str) -> String {
    format!("{}/secrets/{secret}", vault_url(vault, suffix)).to_ascii_lowercase()
}

fn vault_url(vault: &str, suffix: &str) -> String {
    format!("https://{vault}.{suffix}")
}

fn corrupt(operation: &str) -> Error {
    Error::new(Kind::Corrupt, operation).because("Key Vault's answer does not have the documented form")
}

/// Vaults and secrets have names of letters, digits and hyphens.
fn plain_name(option: &str, name: &str, length_max: usize) -> Result<()> {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
    if (1..=length_max).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("use {name:?} as `{option}`"))
        .because(format!("Key Vault's names are 1 to {length_max} letters, digits and hyphens"))
        .hint("give the name alone, without domain or URL"))
}
