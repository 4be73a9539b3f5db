//! Deny assignments: what managed applications and deployment stacks forbid, whatever roles somebody has.
//!
//! They name principals and leave some out. Whether this identity belongs to a group can't be seen from here.
//! (Authorization REST reference, "Deny Assignments - List For Resource"; `atScope()` gives those at the resource and
//! above it. Every principal is the id of zeros.)

use pgrotate_core::Result;
use pgrotate_core::provider::{Finding, Severity};
use reqwest::Url;
use serde::Deserialize;

use super::{API_VERSION, Action, Need, Permission, ask_once, shown};
use crate::azure::{Account, below};
use crate::shared::Shared;

const EVERYBODY: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Deserialize)]
pub(super) struct Denials {
    value: Vec<Denial>,
}

#[derive(Deserialize)]
struct Denial {
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    deny_assignment_name: Option<String>,
    permissions: Option<Vec<Permission>>,
    scope: Option<String>,
    do_not_apply_to_child_scopes: Option<bool>,
    principals: Option<Vec<Principal>>,
    exclude_principals: Option<Vec<Principal>>,
    condition: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Principal {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Whether somebody is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meant {
    No,
    Perhaps,
    Yes,
}

fn meant(principals: Option<&Vec<Principal>>, who: Option<&str>) -> Meant {
    let one = |principal: &Principal| match (&principal.kind, who) {
        _ if principal.id == EVERYBODY => Meant::Yes,
        (_, Some(who)) if principal.id.eq_ignore_ascii_case(who) => Meant::Yes,
        // A user or a service principal is somebody else.
        (Some(kind), Some(_)) if !kind.to_ascii_lowercase().contains("group") => Meant::No,
        _ => Meant::Perhaps,
    };
    principals.into_iter().flatten().map(one).max().unwrap_or(Meant::No)
}

impl Properties {
    /// Whether it forbids the action to this identity on the resource.
    fn forbids(&self, action: &Action, resource: &str, who: Option<&str>) -> Meant {
        let elsewhere = self.do_not_apply_to_child_scopes == Some(true)
            && self.scope.as_deref().is_some_and(|scope| !scope.eq_ignore_ascii_case(resource));
        let covers = self.permissions.iter().flatten().any(|permission| permission.covers(action));
        if elsewhere || !covers {
            return Meant::No;
        }
        let named = meant(self.principals.as_ref(), who);
        match (named, meant(self.exclude_principals.as_ref(), who)) {
            (Meant::No, _) | (_, Meant::Yes) => Meant::No,
            (Meant::Yes, Meant::No) if self.condition.as_deref().is_none_or(str::is_empty) => Meant::Yes,
            _ => Meant::Perhaps,
        }
    }
}

pub(super) async fn in_the_way(
    shared: &Shared,
    account: &Account,
    resource: &Url,
    need: &Need<'_>,
) -> Result<Vec<Finding>> {
    let mut url = below(resource, &["providers", "Microsoft.Authorization", "denyAssignments"], API_VERSION);
    url.query_pairs_mut().append_pair("$filter", "atScope()");
    let Some(denials) = ask_once::<Denials>(shared, account, url, "read the deny assignments").await? else {
        let what = "whether a deny assignment forbids changes can't be seen";
        let mend =
            "give this identity the right to Microsoft.Authorization/denyAssignments/read, as Reader has it";
        return Ok(vec![Finding::new(Severity::Unseen, need.subject, what).mend(mend)]);
    };
    let who = account.caller().await;
    Ok(judge(&denials, need, resource.path(), who.as_deref()))
}

fn judge(denials: &Denials, need: &Need<'_>, resource: &str, who: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (denial, action) in denials.value.iter().flat_map(|own| need.actions.iter().map(move |to| (own, to)))
    {
        let denial = &denial.properties;
        let name = shown(denial.deny_assignment_name.as_deref().unwrap_or_default());
        let finding = match denial.forbids(action, resource, who) {
            Meant::No => continue,
            Meant::Perhaps => Finding::new(
                Severity::Unseen,
                need.subject,
                format!(
                    "whether the deny assignment{name} forbids {} to this identity can't be seen",
                    action.name
                ),
            ),
            Meant::Yes => Finding::new(
                action.severity,
                need.subject,
                format!("the deny assignment{name} forbids {}", action.name),
            ),
        };
        let mend = format!(
            "no role helps against it: whoever made it has to leave out this identity{}",
            who.map_or_else(String::new, |who| format!(", whose object id is {who}"))
        );
        findings.push(finding.why(&action.why).mend(mend));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SERVER: &str =
        "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg";
    const ME: &str = "11111111-0000-0000-0000-000000000001";

    fn severity(mut properties: Value, who: Option<&str>) -> Option<Severity> {
        let denies = json!([{"actions": ["*/write"], "notActions": ["Microsoft.Web/*"], "dataActions": []}]);
        properties.as_object_mut().unwrap().entry("permissions").or_insert(denies);
        let denials = serde_json::from_value(json!({"value": [{"properties": properties}]})).unwrap();
        let actions = [Action::control("Microsoft.DBforPostgreSQL/flexibleServers/write", "")];
        let need = Need { subject: "server", actions: &actions, role: "Contributor" };
        judge(&denials, &need, SERVER, who).pop().map(|found| found.severity)
    }

    fn principal(id: &str, kind: &str) -> Value {
        json!([{"id": id, "type": kind}])
    }

    #[test]
    fn whom_it_means_decides() {
        let other = "22222222-0000-0000-0000-000000000002";
        let everybody = || principal(EVERYBODY, "SystemDefined");
        let one = |principals: Value, exclude: Value| {
            severity(json!({"principals": principals, "excludePrincipals": exclude}), Some(ME))
        };
        assert_eq!(one(everybody(), json!([])), Some(Severity::Blocks));
        assert_eq!(one(everybody(), Value::Null), Some(Severity::Blocks));
        assert_eq!(one(everybody(), principal(ME, "ServicePrincipal")), None);
        assert_eq!(one(everybody(), principal(other, "User")), Some(Severity::Blocks));
        assert_eq!(one(everybody(), principal(other, "Group")), Some(Severity::Unseen));
        assert_eq!(one(principal(ME, "ServicePrincipal"), json!([])), Some(Severity::Blocks));
        assert_eq!(one(principal(other, "ServicePrincipal"), json!([])), None);
        assert_eq!(one(principal(other, "Group"), json!([])), Some(Severity::Unseen));
        let nobody_knows = json!({"principals": principal(other, "User")});
        assert_eq!(severity(nobody_knows, None), Some(Severity::Unseen), "who asks is not known");
    }

    #[test]
    fn what_and_where_it_forbids_decides() {
        let of = |more: Value| {
            let mut properties = json!({"principals": principal(EVERYBODY, "SystemDefined")});
            properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            severity(properties, Some(ME))
        };
        assert_eq!(of(json!({"permissions": [{"actions": ["Microsoft.Web/*"]}]})), None);
        assert_eq!(of(json!({"permissions": [{"dataActions": ["*"]}]})), None);
        let above = "/subscriptions/sub/resourceGroups/rg";
        assert_eq!(of(json!({"scope": above})), Some(Severity::Blocks));
        assert_eq!(of(json!({"scope": above, "doNotApplyToChildScopes": true})), None);
        assert_eq!(of(json!({"scope": SERVER, "doNotApplyToChildScopes": true})), Some(Severity::Blocks));
        assert_eq!(of(json!({"condition": "@Resource[x]"})), Some(Severity::Unseen));
    }
}
