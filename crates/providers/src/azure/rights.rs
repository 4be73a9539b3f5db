//! What stands in the way of doing something to a resource, asked of Azure before it is done: rights that are missing,
//! deny assignments, management locks.
//!
//! `Microsoft.Authorization/permissions` tells what the caller's roles add up to, those of the resource group and the
//! subscription included, and knows neither of the other two. Conditions of roles and Azure policies show only when
//! something is changed. (Authorization REST reference; "Understand Azure deny assignments"; "Lock your resources".)

mod denials;
mod locks;

use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Result};
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Account, Answer, Call, below};
use crate::shared::Shared;

const API_VERSION: &str = "2022-04-01";
const OPERATION: &str = "read which rights this identity has";

/// Something that a run will do to a resource.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    name: String,
    is_data: bool,
    severity: Severity,
    why: String,
}

impl Action {
    /// On the control plane. `why` says what the run needs it for.
    pub(crate) fn control(name: impl Into<String>, why: &str) -> Self {
        Self { name: name.into(), is_data: false, severity: Severity::Blocks, why: why.to_owned() }
    }

    /// On the data plane of a vault.
    pub(crate) fn data(name: impl Into<String>, why: &str) -> Self {
        Self { is_data: true, ..Self::control(name, why) }
    }

    /// The run can do without.
    #[must_use]
    pub(crate) fn at_most(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

/// Whoever wants to do something, with a built-in role that would do.
pub(crate) struct Need<'a> {
    pub(crate) subject: &'a str,
    pub(crate) actions: &'a [Action],
    pub(crate) role: &'a str,
}

#[derive(Deserialize)]
struct Permissions {
    value: Vec<Permission>,
    #[serde(default, rename = "nextLink")]
    next_link: Option<String>,
}

/// Part of a role, or of a deny assignment: patterns, and what is left out of them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Permission {
    #[serde(deserialize_with = "list_or_nothing")]
    actions: Vec<String>,
    #[serde(deserialize_with = "list_or_nothing")]
    not_actions: Vec<String>,
    #[serde(deserialize_with = "list_or_nothing")]
    data_actions: Vec<String>,
    #[serde(deserialize_with = "list_or_nothing")]
    not_data_actions: Vec<String>,
}

fn list_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

impl Permission {
    fn covers(&self, action: &Action) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, &action.name));
        match action.is_data {
            true => any(&self.data_actions) && !any(&self.not_data_actions),
            false => any(&self.actions) && !any(&self.not_actions),
        }
    }
}

/// Everything that stands in the way of the actions on a resource, asked at once. Azure is asked once for each
/// resource, whoever wants to know.
///
/// # Errors
/// When nobody answers.
pub(crate) async fn hindrances(
    shared: &Shared,
    account: &Account,
    resource: &Url,
    need: &Need<'_>,
) -> Result<Vec<Finding>> {
    let locked = async {
        // What is done inside of a vault is no business of its locks.
        if need.actions.iter().all(|action| action.is_data) {
            return Ok(Vec::new());
        }
        locks::in_the_way(shared, account, resource, need).await
    };
    let (missing, denied, locked) = futures::join!(
        missing_rights(shared, account, resource, need),
        denials::in_the_way(shared, account, resource, need),
        locked,
    );
    Ok([missing?, denied?, locked?].concat())
}

async fn missing_rights(
    shared: &Shared,
    account: &Account,
    resource: &Url,
    need: &Need<'_>,
) -> Result<Vec<Finding>> {
    let Some(permissions) = permissions(shared, account, resource).await? else {
        let what = "which rights this identity has can't be read";
        let why = "a missing one shows only when it is needed";
        let mend =
            "give this identity the right to Microsoft.Authorization/permissions/read, as Reader has it";
        return Ok(vec![Finding::new(Severity::Unseen, need.subject, what).why(why).mend(mend)]);
    };
    let who = account.caller().await;
    let grant = grant(need.role, who.as_deref(), resource);
    Ok(judge(&permissions, need.actions, need.subject, &grant))
}

/// Those of the actions that the caller's roles do not allow; nothing if that can't be seen.
pub(crate) async fn not_allowed<'a>(
    shared: &Shared,
    account: &Account,
    resource: &Url,
    actions: &'a [Action],
) -> Result<Option<Vec<&'a str>>> {
    Ok(permissions(shared, account, resource).await?.map(|permissions| {
        let missing = actions.iter().filter(|action| !permissions.allow(action));
        missing.map(|action| action.name.as_str()).collect()
    }))
}

async fn permissions(
    shared: &Shared,
    account: &Account,
    resource: &Url,
) -> Result<Option<std::sync::Arc<Permissions>>> {
    let url = below(resource, &["providers", "Microsoft.Authorization", "permissions"], API_VERSION);
    ask_once(shared, account, url, OPERATION).await
}

/// An answer about a resource that whoever lacks the right to it does without.
async fn ask_once<T: DeserializeOwned + Send + Sync + 'static>(
    shared: &Shared,
    account: &Account,
    url: Url,
    operation: &str,
) -> Result<Option<std::sync::Arc<T>>> {
    let question = format!("ask {url}");
    let ask = async {
        let answer: Result<Answer> = account.send(Call::get(url), operation).await;
        answer?.json::<T>(operation)
    };
    match shared.looks.once(question, ask).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_hidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer that is not understood hides as much as one that is refused; it is no reason against a run.
fn is_hidden(error: &Error) -> bool {
    matches!(error.kind(), Kind::Forbidden | Kind::NotFound | Kind::Rejected | Kind::Corrupt)
}

impl Permissions {
    fn allow(&self, action: &Action) -> bool {
        self.value.iter().any(|own| own.covers(action))
    }

    /// Whether what is not here may stand on the next page.
    fn is_cut(&self) -> bool {
        self.next_link.as_deref().is_some_and(|link| !link.is_empty())
    }
}

fn judge(permissions: &Permissions, actions: &[Action], subject: &str, grant: &str) -> Vec<Finding> {
    let missing = actions.iter().filter(|action| !permissions.allow(action));
    let finding = |Action { name, severity, why, .. }: &Action| match permissions.is_cut() {
        true => {
            let what = format!("whether the right to {name} is there can't be seen");
            Finding::new(Severity::Unseen, subject, what).why(why)
        }
        false => Finding::new(*severity, subject, format!("the right to {name} is missing")).why(why).mend(
            format!("give this identity a role with {name}, such as: {grant}; it needs some minutes to work"),
        ),
    };
    missing.map(finding).collect()
}

/// The command that gives a role.
pub(crate) fn grant(role: &str, who: Option<&str>, resource: &Url) -> String {
    let who = who.unwrap_or("OBJECT-ID");
    format!("az role assignment create --role \"{role}\" --assignee {who} --scope {}", resource.path())
}

/// A name that somebody gave in Azure, if it is such that it can be shown.
fn shown(name: &str) -> String {
    let fits = |character: char| character.is_alphanumeric() || " -_.()".contains(character);
    match !name.is_empty() && name.len() <= 90 && name.chars().all(fits) {
        true => format!(" \"{name}\""),
        false => String::new(),
    }
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

    fn judged(permissions: &Permissions) -> Vec<Finding> {
        judge(permissions, &[Action::control(WRITE, "it changes the password")], "server", "az")
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
        let found = judged(&reader_only);
        assert_eq!(found[0].severity, Severity::Blocks);
        assert!(found[0].what.contains(WRITE));
        let both = permissions(
            r#"{"value":[{"actions":["*"],"notActions":["*/write"]},{"actions":["*/flexibleServers/*"],"notActions":null}]}"#,
        );
        assert_eq!(judged(&both), []);
    }

    #[test]
    fn what_is_done_inside_of_a_vault_is_another_kind_of_right() {
        let owner = permissions(r#"{"value":[{"actions":["*"],"dataActions":["*/getSecret/action"]}]}"#);
        let of_vault = |name: &str| Action::data(format!("Microsoft.KeyVault/vaults/secrets/{name}"), "");
        assert!(owner.allow(&of_vault("getSecret/action")) && !owner.allow(&of_vault("setSecret/action")));
        let but = permissions(r#"{"value":[{"dataActions":["*"],"notDataActions":["*/setSecret/*"]}]}"#);
        assert!(but.allow(&of_vault("getSecret/action")) && !but.allow(&of_vault("setSecret/action")));
    }

    #[test]
    fn an_unread_page_is_no_missing_right() {
        let cut = permissions(r#"{"value":[],"nextLink":"https://management.azure.com/next"}"#);
        assert_eq!(judged(&cut)[0].severity, Severity::Unseen);
    }

    #[test]
    fn a_name_that_may_be_anything_is_not_repeated() {
        assert_eq!(shown("keep prod (ops)"), " \"keep prod (ops)\"");
        for odd in ["", "a\nb", "`rm`", "\u{1b}[31m", &"x".repeat(91)] {
            assert_eq!(shown(odd), "");
        }
    }
}
