//! What the service principal may do in Azure, by environment: one role's actions, what has been taken away from it,
//! and management locks. The services enforce it and the permissions interface shows it, so that a check made there
//! and the call made later agree, as they do in Azure.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::call::lock;

/// The control-plane actions of the role.
const ACTIONS: [&str; 8] = [
    "Microsoft.DBforPostgreSQL/flexibleServers/*",
    "Microsoft.DBforPostgreSQL/locations/*/read",
    "Microsoft.Web/sites/*",
    "Microsoft.Web/serverfarms/read",
    "Microsoft.KeyVault/vaults/read",
    "Microsoft.Resources/subscriptions/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Authorization/*/read",
];

/// The data-plane actions of the role: those of Key Vault Secrets Officer.
const DATA_ACTIONS: [&str; 1] = ["Microsoft.KeyVault/vaults/secrets/*"];

/// Data actions share this beginning; nothing on the control plane has it.
const DATA_PREFIX: &str = "microsoft.keyvault/vaults/secrets/";

/// The rules of all environments.
#[derive(Default)]
pub(crate) struct AzureAccess {
    rules: Mutex<BTreeMap<String, Rules>>,
}

#[derive(Default)]
struct Rules {
    denied: Vec<String>,
    lock_level: Option<String>,
}

impl AzureAccess {
    /// Whether the service principal may do `action` in an environment.
    pub(crate) fn allows(&self, environment: &str, action: &str) -> bool {
        let granted = ACTIONS.iter().chain(&DATA_ACTIONS).any(|pattern| matches(pattern, action));
        granted && !self.denied(environment).iter().any(|pattern| matches(pattern, action))
    }

    /// Takes these actions away, and gives back what was taken away before.
    pub(crate) fn deny(&self, environment: &str, actions: Vec<String>) {
        lock(&self.rules).entry(environment.to_owned()).or_default().denied = actions;
    }

    /// Puts a management lock (`ReadOnly`, `CanNotDelete`) on the environment's resource group, or removes it.
    pub(crate) fn set_lock(&self, environment: &str, level: Option<String>) {
        lock(&self.rules).entry(environment.to_owned()).or_default().lock_level = level;
    }

    /// Whether a read-only lock forbids changes, and reads that are made with POST.
    pub(crate) fn is_read_only(&self, environment: &str) -> bool {
        self.lock_level(environment).as_deref() == Some("ReadOnly")
    }

    /// The level of the environment's lock.
    pub(crate) fn lock_level(&self, environment: &str) -> Option<String> {
        lock(&self.rules).get(environment).and_then(|rules| rules.lock_level.clone())
    }

    /// The answer of the permissions interface.
    pub(crate) fn permissions(&self, environment: &str) -> Value {
        let (data, control): (Vec<String>, Vec<String>) = self
            .denied(environment)
            .into_iter()
            .partition(|action| action.to_ascii_lowercase().starts_with(DATA_PREFIX));
        json!({
            "value": [{
                "actions": ACTIONS,
                "notActions": control,
                "dataActions": DATA_ACTIONS,
                "notDataActions": data,
            }],
        })
    }

    fn denied(&self, environment: &str) -> Vec<String> {
        lock(&self.rules).get(environment).map(|rules| rules.denied.clone()).unwrap_or_default()
    }
}

/// Azure's rule: `*` stands for any characters, and case doesn't count.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| action.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    last.map_or(rest.is_empty(), |part| action.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_azure() {
        assert!(matches("Microsoft.Web/sites/*", "microsoft.web/SITES/config/list/action"));
        assert!(matches("Microsoft.Authorization/*/read", "Microsoft.Authorization/locks/read"));
        assert!(!matches("Microsoft.Authorization/*/read", "Microsoft.Authorization/locks/write"));
        assert!(!matches("Microsoft.KeyVault/vaults/read", "Microsoft.KeyVault/vaults/readMore"));
    }

    #[test]
    fn what_is_taken_away_is_shown_and_refused() {
        let access = AzureAccess::default();
        assert!(access.allows("dev", "Microsoft.DBforPostgreSQL/flexibleServers/write"));
        access.deny(
            "dev",
            vec![
                "Microsoft.DBforPostgreSQL/flexibleServers/write".into(),
                "Microsoft.KeyVault/vaults/secrets/setSecret/action".into(),
            ],
        );
        assert!(!access.allows("dev", "Microsoft.DBforPostgreSQL/flexibleServers/write"));
        assert!(!access.allows("dev", "Microsoft.KeyVault/vaults/secrets/setSecret/action"));
        assert!(access.allows("staging", "Microsoft.DBforPostgreSQL/flexibleServers/write"));
        let shown = access.permissions("dev");
        assert_eq!(
            shown["value"][0]["notActions"],
            json!(["Microsoft.DBforPostgreSQL/flexibleServers/write"])
        );
        assert_eq!(
            shown["value"][0]["notDataActions"],
            json!(["Microsoft.KeyVault/vaults/secrets/setSecret/action"])
        );
    }

    #[test]
    fn only_a_read_only_lock_forbids_changes() {
        let access = AzureAccess::default();
        access.set_lock("dev", Some("CanNotDelete".into()));
        assert!(!access.is_read_only("dev"));
        access.set_lock("dev", Some("ReadOnly".into()));
        assert!(access.is_read_only("dev"));
        assert!(!access.is_read_only("prod"));
    }
}
