//! The vault as a resource of the resource manager: whether it goes by roles or by access policies, and so what this
//! identity may do in it. The data plane itself says that only at the write.
//!
//! (Key Vault REST reference, "Vaults - Get"; "Provide access to Key Vault keys, certificates, and secrets with Azure
//! role-based access control", which allows roles at one secret too.)

use std::sync::Arc;

use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Result};
use reqwest::Url;
use serde::Deserialize;

use super::Copy;
use crate::azure::{self, Account, Action, Call, Need, below, checked_name};

const API_VERSION: &str = "2023-07-01";
const OPERATION: &str = "read the vault's properties";
const ROLE: &str = "Key Vault Secrets Officer";

/// Where the vault is in the resource manager.
pub(super) struct Group {
    subscription: String,
    resource_group: String,
}

/// Something that is done in the vault: its name in access policies, its data action, and what it is for.
pub(super) struct Right(&'static str, &'static str, &'static str);

const GET: Right = Right("get", "getSecret/action", "the run reads a secret before and after it writes it");
pub(super) const SET: Right =
    Right("set", "setSecret/action", "without it the new password can't be written");
const UPDATE: Right =
    Right("set", "update/action", "without it the version before can't be disabled, as `retire` wants it");

impl Right {
    fn action(&self) -> Action {
        Action::data(format!("Microsoft.KeyVault/vaults/secrets/{}", self.1), self.2)
    }
}

#[derive(Deserialize)]
struct Vault {
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    enable_rbac_authorization: Option<bool>,
    access_policies: Option<Vec<Policy>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Policy {
    object_id: String,
    permissions: Permissions,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Permissions {
    secrets: Option<Vec<String>>,
}

impl Policy {
    fn allows(&self, right: &Right) -> bool {
        let fits = |own: &String| own.eq_ignore_ascii_case("all") || own.eq_ignore_ascii_case(right.0);
        self.permissions.secrets.iter().flatten().any(fits)
    }
}

impl Group {
    /// Both or neither are configured.
    pub(super) fn new(subscription: Option<String>, resource_group: Option<String>) -> Result<Option<Self>> {
        match (subscription, resource_group) {
            (Some(subscription), Some(resource_group)) => {
                checked_name("subscription", &subscription)?;
                checked_name("resource_group", &resource_group)?;
                Ok(Some(Self { subscription, resource_group }))
            }
            (None, None) => Ok(None),
            _ => Err(Error::new(Kind::Config, "find the vault in the resource manager")
                .because("of `subscription` and `resource_group` there is only one")
                .hint("name both, or neither")),
        }
    }

    fn vault(&self, account: &Account, vault: &str) -> Url {
        account.resource(&self.subscription, &self.resource_group, &["Microsoft.KeyVault", "vaults", vault])
    }
}

impl Copy {
    /// What stands in the way of reading and writing.
    pub(super) async fn hindrances(&self) -> Result<Vec<Finding>> {
        self.lacks(&[GET, SET]).await
    }

    /// What stands in the way of disabling a version.
    pub(super) async fn hindrances_to_retire(&self) -> Result<Vec<Finding>> {
        match self.group {
            Some(_) => self.lacks(&[UPDATE]).await,
            None => Ok(Vec::new()),
        }
    }

    async fn lacks(&self, rights: &[Right]) -> Result<Vec<Finding>> {
        let Some(group) = &self.group else {
            let what = "whether this identity may write secrets shows only at the write";
            let mend = format!(
                "it needs the role \"{ROLE}\" on {}; with `subscription` and `resource_group` beside `vault` it can \
                 be seen before",
                self.place.vault
            );
            return Ok(vec![Finding::new(Severity::Unseen, self.id.as_str(), what).mend(mend)]);
        };
        let account = azure::account(&self.shared)?;
        let resource = group.vault(&account, &self.place.vault);
        let (vault, by_roles) =
            futures::join!(self.vault(&account, &resource), self.lacks_roles(&account, &resource, rights));
        let vault = match vault {
            Ok(vault) => vault,
            Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::NotFound) => {
                return Ok(vec![self.hidden(&error, &resource)]);
            }
            Err(error) => return Err(error),
        };
        // The interface calls what it leaves out false.
        if vault.properties.enable_rbac_authorization == Some(true) {
            return by_roles;
        }
        let who = account.caller().await;
        let policies = vault.properties.access_policies.as_deref().unwrap_or_default();
        Ok(rights.iter().filter_map(|right| self.judge_policies(policies, right, who.as_deref())).collect())
    }

    async fn vault(&self, account: &Account, resource: &Url) -> Result<Arc<Vault>> {
        let url = below(resource, &[], API_VERSION);
        let question = format!("look at {url}");
        let ask = async { account.send(Call::get(url), OPERATION).await?.json::<Vault>(OPERATION) };
        self.shared.looks.once(question, ask).await
    }

    fn hidden(&self, error: &Error, resource: &Url) -> Finding {
        let what = format!(
            "whether this identity may write secrets shows only at the write: {}",
            error.causes().join(": ")
        );
        let mend = match error.kind() {
            Kind::NotFound => "correct `subscription` or `resource_group` of the vault".to_owned(),
            _ => format!(
                "it needs the role \"{ROLE}\" on the vault; to see that before, it needs Reader too: {}",
                azure::grant("Reader", None, resource)
            ),
        };
        Finding::new(Severity::Unseen, self.id.as_str(), what).mend(mend)
    }

    /// What roles do not allow. One may have been given for this secret alone, which is asked about only where that
    /// matters.
    async fn lacks_roles(&self, account: &Account, vault: &Url, rights: &[Right]) -> Result<Vec<Finding>> {
        let actions: Vec<Action> = rights.iter().map(Right::action).collect();
        let need = Need { subject: self.id.as_str(), actions: &actions, role: ROLE };
        let found = azure::hindrances(&self.shared, account, vault, &need).await?;
        let missing = azure::not_allowed(&self.shared, account, vault, &actions).await?.unwrap_or_default();
        if missing.is_empty() {
            return Ok(found);
        }
        let mut secret = vault.clone();
        secret
            .path_segments_mut()
            .expect("an https URL has a path")
            .extend(["secrets", self.place.secret.as_str()]);
        let still = azure::not_allowed(&self.shared, account, &secret, &actions).await?;
        let wrong = |finding: &Finding| missing.iter().any(|name| finding.what.contains(name));
        Ok(found
            .into_iter()
            .filter_map(|mut finding| match &still {
                _ if !wrong(&finding) => Some(finding),
                Some(still) => still.iter().any(|name| finding.what.contains(name)).then_some(finding),
                None => {
                    finding.severity = finding.severity.min(Severity::Unseen);
                    finding.what.push_str(" at the vault; whether it is there for this secret can't be seen");
                    Some(finding)
                }
            })
            .collect())
    }

    pub(super) fn judge_policies(
        &self,
        policies: &[Policy],
        right: &Right,
        who: Option<&str>,
    ) -> Option<Finding> {
        let own = |policy: &&Policy| who.is_some_and(|who| policy.object_id.eq_ignore_ascii_case(who));
        if policies.iter().filter(own).any(|policy| policy.allows(right)) {
            return None;
        }
        let Right(name, _, why) = right;
        let vault = &self.place.vault;
        let mend = format!(
            "az keyvault set-policy --name {vault} --secret-permissions get list set --object-id {}",
            who.unwrap_or("OBJECT-ID")
        );
        // A policy may be a group's, and who belongs to it can't be seen.
        let finding = match policies.iter().any(|policy| policy.allows(right)) {
            true => {
                let what = format!(
                    "the vault's access policies do not give \"{name}\" to this identity itself; whether it belongs to \
                     a group that has it can't be seen"
                );
                Finding::new(Severity::Unseen, self.id.as_str(), what)
            }
            false => {
                let what = format!("the vault's access policies give \"{name}\" for secrets to nobody");
                Finding::new(Severity::Blocks, self.id.as_str(), what)
            }
        };
        Some(finding.why(*why).mend(mend))
    }
}
