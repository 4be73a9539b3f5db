//! Which rights are missing, asked of Azure before they are needed.
//!
//! `Microsoft.Authorization/permissions` tells what the caller's roles add up to. It does not know
//! locks, deny assignments, conditions and policies; those show only when something is changed.

use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Kind, Result};
use reqwest::Url;
use serde::Deserialize;

use super::{Account, Call, below};
use crate::shared::Shared;

const API_VERSION: &str = "2022-04-01";
const OPERATION: &str = "read which rights this identity has";

#[derive(Deserialize)]
struct Permissions {
    value: Vec<Permission>,
    #[serde(default, rename = "nextLink")]
    next_link: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Permission {
    actions: Vec<String>,
    not_actions: Vec<String>,
}

impl Permission {
    fn allows(&self, action: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, action));
        any(&self.actions) && !any(&self.not_actions)
    }
}

/// Findings for those of the actions that the caller may not do to a resource. Azure is asked once for each
/// resource, whoever wants to know.
///
/// # Errors
/// When nobody answers.
pub(crate) async fn missing_rights(
    shared: &Shared,
    account: &Account,
    resource: &Url,
    actions: &[impl AsRef<str>],
    subject: &str,
) -> Result<Vec<Finding>> {
    let url = below(resource, &["providers", "Microsoft.Authorization", "permissions"], API_VERSION);
    let question = format!("rights on {resource}");
    let ask = async { account.send(Call::get(url), OPERATION).await?.json::<Permissions>(OPERATION) };
    let permissions = match shared.looks.once(question, ask).await {
        Ok(permissions) => permissions,
        Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::NotFound) => {
            let what =
                "which rights this identity has can't be read; a missing one shows only when it is needed";
            return Ok(vec![Finding::new(Severity::Unseen, subject, what)]);
        }
        Err(error) => return Err(error),
    };
    Ok(judge(&permissions, actions, subject))
}

fn judge(permissions: &Permissions, actions: &[impl AsRef<str>], subject: &str) -> Vec<Finding> {
    let missing = actions
        .iter()
        .map(AsRef::as_ref)
        .filter(|action: &&str| !permissions.value.iter().any(|own| own.allows(action)));
    let finding = |action: &str| match &permissions.next_link {
        // What stands on the next page may grant it.
        Some(link) if !link.is_empty() => Finding::new(
            Severity::Unseen,
            subject,
            format!("whether the right to {action} is there can't be seen"),
        ),
        _ => Finding::new(Severity::Blocks, subject, format!("the right to {action} is missing")).mend(
            format!("give this identity a role with {action}; a new assignment needs some minutes to work"),
        ),
    };
    missing.map(finding).collect()
}

/// Azure's rule: `*` stands for any characters, and case does not count.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == action };
    let Some(mut rest) = action.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = tail.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &str = "Microsoft.DBforPostgreSQL/flexibleServers/write";

    fn permissions(text: &str) -> Permissions {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn wildcards_match_as_azures_do() {
        for (pattern, fits) in [
            ("*", true),
            ("*/write", true),
            ("microsoft.dbforpostgresql/*", true),
            ("Microsoft.DBforPostgreSQL/*/write", true),
            ("Microsoft.DBforPostgreSQL/flexibleServers/write", true),
            ("*/read", false),
            ("Microsoft.Web/*", false),
            ("Microsoft.DBforPostgreSQL/flexibleServers/writer", false),
            ("*write*write", false),
        ] {
            assert_eq!(matches(pattern, WRITE), fits, "{pattern}");
        }
    }

    #[test]
    fn what_one_role_excludes_another_may_still_grant() {
        let reader_only = permissions(r#"{"value":[{"actions":["*"],"notActions":["*/write"]}]}"#);
        let found = judge(&reader_only, &[WRITE], "server");
        assert_eq!(found[0].severity, Severity::Blocks);
        assert!(found[0].what.contains(WRITE));
        let both = permissions(
            r#"{"value":[{"actions":["*"],"notActions":["*/write"]},{"actions":["*/flexibleServers/*"]}]}"#,
        );
        assert_eq!(judge(&both, &[WRITE], "server"), []);
    }

    #[test]
    fn an_unread_page_is_no_missing_right() {
        let cut = permissions(r#"{"value":[],"nextLink":"https://management.azure.com/next"}"#);
        assert_eq!(judge(&cut, &[WRITE], "server")[0].severity, Severity::Unseen);
    }
}
