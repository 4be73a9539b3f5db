//! Accounts and repositories as GitHub shows them.

use serde_json::{Value, json};

use super::super::call::now_text;
use super::{Caller, Hub, OWNER, USER};

/// Where people read what programs find under `base`.
pub(super) fn site(base: &str) -> &str {
    base.strip_suffix("/api/v3").unwrap_or(base)
}

/// The token's user.
pub(super) fn user(base: &str) -> Value {
    account(base, USER, 41_000_001, "User")
}

/// An account with every field that the schema requires.
fn account(base: &str, login: &str, id: u64, kind: &str) -> Value {
    let site = site(base);
    let url = format!("{base}/users/{login}");
    let mut account = json!({
        "login": login,
        "id": id,
        "node_id": "U_kgDOAnGcAQ",
        "avatar_url": format!("{site}/avatars/{login}"),
        "gravatar_id": "",
        "url": url,
        "html_url": format!("{site}/{login}"),
        "type": kind,
        "site_admin": false,
    });
    for part in [
        "followers",
        "following",
        "gists",
        "starred",
        "subscriptions",
        "orgs",
        "repos",
        "events",
        "received_events",
    ] {
        let name = if part == "orgs" { "organizations_url".to_owned() } else { format!("{part}_url") };
        account[name] = json!(format!("{url}/{part}"));
    }
    account
}

/// A repository with what the caller may do in it.
pub(super) fn repository_resource(base: &str, hub: &Hub, caller: Caller, full_name: &str, id: u64) -> Value {
    let (owner, name) = full_name.split_once('/').unwrap_or((OWNER, full_name));
    // An App has permissions and no role.
    let person = caller != Caller::Installation;
    let (site, writes) = (site(base), person && !hub.reader && !hub.denied.contains("secrets=write"));
    json!({
        "id": id,
        "node_id": "R_kgDOKlJtAQ",
        "name": name,
        "full_name": full_name,
        "private": true,
        "visibility": "private",
        "owner": {"login": owner, "id": 42_000_001, "node_id": "O_kgDOAoDeQQ", "type": "Organization"},
        "html_url": format!("{site}/{full_name}"),
        "url": format!("{base}/repos/{full_name}"),
        "fork": false,
        "archived": hub.archived,
        "disabled": false,
        "has_issues": !hub.issues_disabled,
        "default_branch": "main",
        "updated_at": now_text(),
        "permissions": {"admin": writes, "maintain": writes, "push": writes, "triage": person, "pull": person},
    })
}

/// What the schema calls a minimal repository: its addresses, by name and what follows the repository's own.
const ADDRESSES: [(&str, &str); 36] = [
    ("archive", "{archive_format}{/ref}"),
    ("assignees", "assignees{/user}"),
    ("blobs", "git/blobs{/sha}"),
    ("branches", "branches{/branch}"),
    ("collaborators", "collaborators{/collaborator}"),
    ("comments", "comments{/number}"),
    ("commits", "commits{/sha}"),
    ("compare", "compare/{base}...{head}"),
    ("contents", "contents/{+path}"),
    ("contributors", "contributors"),
    ("deployments", "deployments"),
    ("downloads", "downloads"),
    ("events", "events"),
    ("forks", "forks"),
    ("git_commits", "git/commits{/sha}"),
    ("git_refs", "git/refs{/sha}"),
    ("git_tags", "git/tags{/sha}"),
    ("hooks", "hooks"),
    ("issue_comment", "issues/comments{/number}"),
    ("issue_events", "issues/events{/number}"),
    ("issues", "issues{/number}"),
    ("keys", "keys{/key_id}"),
    ("labels", "labels{/name}"),
    ("languages", "languages"),
    ("merges", "merges"),
    ("milestones", "milestones{/number}"),
    ("notifications", "notifications{?since,all,participating}"),
    ("pulls", "pulls{/number}"),
    ("releases", "releases{/id}"),
    ("stargazers", "stargazers"),
    ("statuses", "statuses/{sha}"),
    ("subscribers", "subscribers"),
    ("subscription", "subscription"),
    ("tags", "tags"),
    ("teams", "teams"),
    ("trees", "git/trees{/sha}"),
];

/// A repository in a list of others.
pub(super) fn minimal_repository(base: &str, name: &str, id: u64) -> Value {
    let full_name = format!("{OWNER}/{name}");
    let url = format!("{base}/repos/{full_name}");
    let mut repository = json!({
        "id": id,
        "node_id": "R_kgDOKlJtAQ",
        "name": name,
        "full_name": full_name,
        "private": true,
        "owner": account(base, OWNER, 42_000_001, "Organization"),
        "html_url": format!("{}/{full_name}", site(base)),
        "description": null,
        "fork": false,
        "url": url,
    });
    for (part, below) in ADDRESSES {
        repository[format!("{part}_url")] = json!(format!("{url}/{below}"));
    }
    repository
}
