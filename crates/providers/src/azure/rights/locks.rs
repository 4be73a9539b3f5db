//! Management locks. A read-only one forbids every change of the resource, and reads that are made with POST, such as
//! that of an application's settings; one against deletion forbids nothing that a run does.
//!
//! Asked of a resource, Azure lists the locks at it, above it and below it. (Management Locks REST reference, "List At
//! Resource Level"; the Java library's `listForResource` says which those are.)

use pgrotate_core::Result;
use pgrotate_core::provider::{Finding, Severity};
use reqwest::Url;
use serde::Deserialize;

use super::{Need, ask_once, shown};
use crate::azure::{Account, below};
use crate::shared::Shared;

const API_VERSION: &str = "2016-09-01";

#[derive(Deserialize)]
pub(super) struct Locks {
    value: Vec<Lock>,
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    level: String,
}

impl Lock {
    /// What is locked, as the lock's id begins.
    fn scope(&self) -> Option<String> {
        let id = self.id.to_ascii_lowercase();
        id.find("/providers/microsoft.authorization/locks").map(|end| id[..end].to_owned())
    }

    /// Whether it is at the resource or above it. One below is nothing to the resource; of one that does not say
    /// where it is the worst is assumed.
    fn holds(&self, resource: &str) -> bool {
        let resource = resource.to_ascii_lowercase();
        self.scope().is_none_or(|scope| {
            resource.strip_prefix(&scope).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn place(&self) -> &'static str {
        match self.scope().map(|scope| scope.split('/').skip(1).count()) {
            Some(2) => " on the subscription",
            Some(4) => " on the resource group",
            _ => "",
        }
    }

    fn mend(&self) -> String {
        let fits = |character: char| character.is_ascii_alphanumeric() || "/-_.()".contains(character);
        match self.id.is_empty() || !self.id.chars().all(fits) {
            true => "`az lock list` shows it; somebody has to lift it for the rotation".to_owned(),
            false => format!("somebody has to lift it for the rotation: az lock delete --ids {}", self.id),
        }
    }
}

pub(super) async fn in_the_way(
    shared: &Shared,
    account: &Account,
    resource: &Url,
    need: &Need<'_>,
) -> Result<Vec<Finding>> {
    let url = below(resource, &["providers", "Microsoft.Authorization", "locks"], API_VERSION);
    let locks = ask_once::<Locks>(shared, account, url, "read the management locks").await?;
    Ok(match locks {
        Some(locks) => judge(&locks, resource.path(), need.subject),
        None => {
            let what = "whether a management lock forbids changes can't be seen";
            let mend = "give this identity the right to Microsoft.Authorization/locks/read, as Reader has it";
            vec![Finding::new(Severity::Unseen, need.subject, what).mend(mend)]
        }
    })
}

fn judge(locks: &Locks, resource: &str, subject: &str) -> Vec<Finding> {
    let read_only = |lock: &&Lock| lock.properties.level.eq_ignore_ascii_case("ReadOnly");
    let finding = |lock: &Lock| {
        let what = format!("the read-only lock{}{} forbids changes", shown(&lock.name), lock.place());
        let why = "Azure would refuse the change, and reads of secrets with it";
        Finding::new(Severity::Blocks, subject, what).why(why).mend(lock.mend())
    };
    let own = locks.value.iter().filter(read_only).filter(|lock| lock.holds(resource));
    own.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Web/sites/api";

    fn found(scope: &str, level: &str) -> Option<String> {
        let id = format!("{scope}/providers/Microsoft.Authorization/locks/keep");
        let list = serde_json::json!({"value": [{"id": id, "name": "keep", "properties": {"level": level}}]});
        let found = judge(&serde_json::from_value(list).unwrap(), SITE, "x").pop()?;
        assert!(found.mend.unwrap().ends_with(&id));
        Some(found.what)
    }

    #[test]
    fn a_read_only_lock_counts_at_the_resource_and_above_it() {
        let said = |scope: &str| found(scope, "ReadOnly");
        assert_eq!(said(SITE).unwrap(), "the read-only lock \"keep\" forbids changes");
        assert!(said("/subscriptions/SUB").unwrap().contains("on the subscription"));
        assert!(said("/subscriptions/sub/resourcegroups/RG").unwrap().contains("on the resource group"));
        assert_eq!(said(&format!("{SITE}/slots/blue")), None, "below it");
        assert_eq!(said(&format!("{SITE}2")), None, "beside it");
        assert_eq!(found(SITE, "CanNotDelete"), None);
    }

    #[test]
    fn of_a_lock_that_does_not_say_where_it_is_the_worst_is_assumed() {
        let locks = serde_json::from_str(r#"{"value":[{"properties":{"level":"readonly"}}]}"#).unwrap();
        let found = judge(&locks, SITE, "x");
        assert_eq!(found[0].what, "the read-only lock forbids changes");
        assert!(found[0].mend.as_deref().unwrap().contains("az lock list"));
    }
}
