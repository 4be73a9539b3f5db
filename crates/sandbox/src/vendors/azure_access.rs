//! What the service principal may do in Azure, by environment: one role's actions, what has been taken away from it, a
//! deny assignment, and a management lock. The services enforce it, and the interfaces for permissions, deny
//! assignments and locks show it, so that a check made there and the call made later agree, as they do in Azure.

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

/// Azure's id for every principal.
const EVERYBODY: &str = "00000000-0000-0000-0000-000000000000";
/// A group that the service principal does not belong to.
const GROUP: &str = "7e1c0000-0000-4000-8000-000000000002";
/// The deny assignment's id.
pub(crate) const DENIAL: &str = "7e1c0000-0000-4000-8000-000000000003";

/// The rules of all environments.
#[derive(Default)]
pub(crate) struct AzureAccess {
    rules: Mutex<BTreeMap<String, Rules>>,
}

#[derive(Default)]
struct Rules {
    denied: Vec<String>,
    denial: Option<Denial>,
    lock: Option<Lock>,
}

/// A deny assignment on the environment's resource group: it outweighs roles, and the permissions interface knows
/// nothing of it.
#[derive(Clone)]
pub(crate) struct Denial {
    /// Patterns of both planes.
    pub(crate) actions: Vec<String>,
    /// To whom: everybody, a group that the service principal does not belong to, or everybody but it.
    pub(crate) whom: Whom,
}

/// Whom a deny assignment means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Everybody.
    Everybody,
    /// Another group.
    Group,
    /// Everybody but the service principal.
    Others,
}

/// A management lock.
#[derive(Clone)]
pub(crate) struct Lock {
    /// `ReadOnly` or `CanNotDelete`.
    pub(crate) level: String,
    /// What it locks, with everything below, as the path of a resource, a group or a subscription.
    pub(crate) scope: String,
}

impl Lock {
    fn holds(&self, scope: &str) -> bool {
        below(scope, &self.scope)
    }
}

/// Whether a scope is another one or below it.
fn below(scope: &str, of: &str) -> bool {
    let (scope, of) = (scope.to_ascii_lowercase(), of.to_ascii_lowercase());
    scope.strip_prefix(&of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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

    /// Makes a deny assignment, or removes it.
    pub(crate) fn set_denial(&self, environment: &str, denial: Option<Denial>) {
        lock(&self.rules).entry(environment.to_owned()).or_default().denial = denial;
    }

    /// Whether a deny assignment forbids an action that a role allows.
    pub(crate) fn forbids(&self, environment: &str, action: &str) -> bool {
        let denial = self.denial(environment).filter(|denial| denial.whom == Whom::Everybody);
        denial.is_some_and(|denial| denial.actions.iter().any(|pattern| matches(pattern, action)))
    }

    /// The answer of the interface for deny assignments; `scope` is that of the environment's resource group, and
    /// `object_id` the service principal's.
    pub(crate) fn denials(&self, environment: &str, scope: &str, object_id: &str) -> Value {
        let shown = self.denial(environment).map(|denial| {
            let (data, control): (Vec<String>, Vec<String>) =
                denial.actions.into_iter().partition(|action| is_data(action));
            let everybody = json!({"id": EVERYBODY, "type": "SystemDefined"});
            let (principal, excluded) = match denial.whom {
                Whom::Everybody => (everybody, json!([])),
                Whom::Group => (json!({"id": GROUP, "type": "Group"}), json!([])),
                Whom::Others => (everybody, json!([{"id": object_id, "type": "ServicePrincipal"}])),
            };
            json!({
                "id": format!("{scope}/providers/Microsoft.Authorization/denyAssignments/{DENIAL}"),
                "type": "Microsoft.Authorization/denyAssignments",
                "name": DENIAL,
                "properties": {
                    "denyAssignmentName": "keep as it is",
                    "permissions": [{
                        "actions": control, "notActions": [], "dataActions": data, "notDataActions": [],
                    }],
                    "scope": scope,
                    "doNotApplyToChildScopes": false,
                    "principals": [principal],
                    "excludePrincipals": excluded,
                    "isSystemProtected": true,
                },
            })
        });
        json!({"value": shown.into_iter().collect::<Vec<_>>()})
    }

    fn denial(&self, environment: &str) -> Option<Denial> {
        lock(&self.rules).get(environment).and_then(|rules| rules.denial.clone())
    }

    /// Puts a management lock somewhere, or removes it.
    pub(crate) fn set_lock(&self, environment: &str, wanted: Option<Lock>) {
        lock(&self.rules).entry(environment.to_owned()).or_default().lock = wanted;
    }

    /// The scope of a read-only lock that forbids changes of what is there, and reads of it that are made with POST.
    pub(crate) fn locked(&self, environment: &str, scope: &str) -> Option<String> {
        let own = lock(&self.rules).get(environment).and_then(|rules| rules.lock.clone());
        own.filter(|lock| lock.level == "ReadOnly" && lock.holds(scope)).map(|lock| lock.scope)
    }

    /// The answer of the interface for locks: those at, above and below a scope.
    pub(crate) fn locks(&self, environment: &str, scope: &str) -> Value {
        let own = lock(&self.rules).get(environment).and_then(|rules| rules.lock.clone());
        let own = own.filter(|lock| lock.holds(scope) || below(&lock.scope, scope));
        let shown = own.map(|lock| {
            json!({
                "id": format!("{}/providers/Microsoft.Authorization/locks/keep", lock.scope),
                "type": "Microsoft.Authorization/locks",
                "name": "keep",
                "properties": {"level": lock.level, "notes": "set in the sandbox"},
            })
        });
        json!({"value": shown.into_iter().collect::<Vec<_>>()})
    }

    /// The answer of the permissions interface.
    pub(crate) fn permissions(&self, environment: &str) -> Value {
        let (data, control): (Vec<String>, Vec<String>) =
            self.denied(environment).into_iter().partition(|action| is_data(action));
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

fn is_data(action: &str) -> bool {
    action.to_ascii_lowercase().starts_with(DATA_PREFIX)
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
    fn only_a_read_only_lock_forbids_changes_and_only_below_it() {
        let access = AzureAccess::default();
        let group = "/subscriptions/s/resourceGroups/rg";
        let site = format!("{group}/providers/Microsoft.Web/sites/api");
        let set = |level: &str, scope: &str| {
            access.set_lock("dev", Some(Lock { level: level.into(), scope: scope.into() }));
        };
        set("CanNotDelete", group);
        assert_eq!(access.locked("dev", &site), None);
        set("ReadOnly", group);
        assert_eq!(access.locked("dev", &site.to_lowercase()).as_deref(), Some(group));
        assert_eq!(access.locked("prod", &site), None);
        set("ReadOnly", &site);
        assert_eq!(access.locked("dev", &format!("{site}2")), None);
        assert!(access.locked("dev", &format!("{site}/config/appsettings")).is_some());
        let listed = |scope: &str| access.locks("dev", scope)["value"].as_array().unwrap().len();
        assert_eq!([listed(group), listed(&site), listed(&format!("{site}2"))], [1, 1, 0]);
    }

    #[test]
    fn a_deny_assignment_outweighs_the_role_for_those_whom_it_means() {
        let access = AzureAccess::default();
        let write = "Microsoft.DBforPostgreSQL/flexibleServers/write";
        for (whom, forbidden) in [(Whom::Everybody, true), (Whom::Group, false), (Whom::Others, false)] {
            access.set_denial("dev", Some(Denial { actions: vec!["*/flexibleServers/write".into()], whom }));
            assert!(access.allows("dev", write), "the permissions do not show it");
            assert_eq!(access.forbids("dev", write), forbidden);
            assert!(!access.forbids("dev", "Microsoft.Web/sites/config/write"));
        }
    }
}
