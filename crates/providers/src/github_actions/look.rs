//! Everything that could stop a secret from being written, or from being used afterwards.

use futures::future::join_all;
use jiff::SignedDuration;
use pgrotate_core::provider::{Content, Finding, Inspection, Seen, Severity};
use pgrotate_core::{Error, Kind, Result};
use serde_json::Value;

use super::{GithubActions, Scope, seen};
use crate::github::{Answer, TokenKind, is_hidden};

/// How many of the runs on their way are named, by status.
const RUNS_NAMED: usize = 5;
/// A token that ends sooner may end during a run.
const TOO_SHORT: SignedDuration = SignedDuration::from_mins(15);
/// A token that ends sooner should be renewed before somebody has to resume a run.
const SHORT: SignedDuration = SignedDuration::from_hours(72);

impl GithubActions {
    /// Looks at the secret, at its surroundings, and at what the token may do.
    pub(super) async fn look(&self) -> Result<Inspection> {
        let (key, metadata, access, runs, shadows) = futures::join!(
            self.known_key(),
            self.metadata(),
            self.look_at_repository(),
            self.look_at_runs(),
            self.look_for_shadows(),
        );
        // A repository that can't be read explains best why its key can't.
        let (mut findings, identity) = access?;
        let key = match key {
            Ok(key) => key,
            // Why it can't be read has been found.
            Err(_) if findings.iter().any(|finding| finding.severity == Severity::Blocks) => {
                let seen = Seen { content: Content::Unseen, version: None, updated_at: None };
                return Ok(Inspection { seen, findings, identity });
            }
            Err(error) => return Err(self.without_key(error)),
        };
        let metadata = metadata?;
        findings.extend(self.judge_token(&key));
        findings.extend(self.judge_end(&key));
        findings.extend(self.judge_absence(metadata.is_none()));
        findings.extend(runs?);
        findings.extend(shadows?);
        findings.extend(self.look_at_audience(metadata.as_ref()).await?);
        Ok(Inspection { seen: seen(metadata.as_ref()), findings, identity })
    }

    fn without_key(&self, error: Error) -> Error {
        match (&self.scope, error.kind()) {
            (Scope::Environment { environment, .. }, Kind::NotFound) => {
                error.hint(format!("is there an environment \"{environment}\" in the repository?"))
            }
            _ => error,
        }
    }

    pub(super) fn finding(&self, severity: Severity, what: impl Into<String>) -> Finding {
        Finding::new(severity, self.id.as_str(), what)
    }

    /// A classic token tells what it holds, and of an App's installation it is known; nothing tells
    /// what another one may write.
    fn judge_token(&self, key: &Answer) -> Option<Finding> {
        let (scope, permission, granted) = match self.scope {
            Scope::Repository { .. } => ("repo", "Secrets: write", "secrets"),
            Scope::Environment { .. } => ("repo", "Environments: write", "environments"),
            Scope::Organization { .. } => {
                ("admin:org", "organisation Secrets: write", "organization_secrets")
            }
        };
        match key.may_write(granted) {
            Some(true) => return None,
            Some(false) => {
                let lacks = format!("the App's installation lacks the permission \"{permission}\"");
                return Some(
                    self.finding(Severity::Blocks, lacks).mend(
                        "add it in the App's settings, and have an owner accept it in the installation",
                    ),
                );
            }
            None => {}
        }
        let named = key.kind.named();
        match &key.scopes {
            Some(held) if held.iter().any(|held| held == scope) => None,
            Some(_) => {
                let mend = match key.kind {
                    TokenKind::OAuth => format!("gh auth refresh --scopes {scope}"),
                    TokenKind::Classic => format!("put a token with the scope {scope} in GH_TOKEN"),
                    _ => format!("gh auth refresh --scopes {scope}, or a token with that scope in GH_TOKEN"),
                };
                Some(
                    self.finding(Severity::Blocks, format!("the {named} lacks the scope {scope}")).mend(mend),
                )
            }
            None => {
                let what = format!("GitHub does not tell before a write whether this {named} may write");
                let mend = match key.kind {
                    TokenKind::Installation => format!(
                        "its App needs \"{permission}\"; a workflow's own GITHUB_TOKEN can never have that"
                    ),
                    _ => format!("it needs \"{permission}\""),
                };
                Some(self.finding(Severity::Unseen, what).mend(mend))
            }
        }
    }

    /// A token that ends before the run does leaves it half-way.
    fn judge_end(&self, key: &Answer) -> Option<Finding> {
        let ends_at = key.ends_at?;
        let left = ends_at.duration_since(self.shared.clock.now());
        let severity = match left {
            _ if left < TOO_SHORT => Severity::Blocks,
            _ if left < SHORT => Severity::Warning,
            _ => return None,
        };
        let what = format!("the {} ends on {}", key.kind.named(), ends_at.strftime("%Y-%m-%d %H:%M UTC"));
        let why = "a run that is interrupted until then could not be finished with it";
        Some(self.finding(severity, what).why(why).mend("renew it first"))
    }

    fn judge_absence(&self, absent: bool) -> Option<Finding> {
        if !absent {
            return None;
        }
        let what = "there is no secret of this name";
        Some(match self.scope {
            Scope::Organization { .. } => self
                .finding(Severity::Blocks, what)
                .mend("create it once by hand: pgrotate does not choose which repositories may read it"),
            _ => self
                .finding(Severity::Warning, format!("{what}; the rotation will create it"))
                .mend("is the name right?"),
        })
    }

    fn repository(&self) -> Option<[&str; 3]> {
        match &self.scope {
            Scope::Repository { owner, name } | Scope::Environment { owner, name, .. } => {
                Some(["repos", owner, name])
            }
            Scope::Organization { .. } => None,
        }
    }

    /// The repository's state, and what GitHub calls it: a number, which no other repository ever gets.
    async fn look_at_repository(&self) -> Result<(Vec<Finding>, Option<String>)> {
        let Some(path) = self.repository() else { return Ok((Vec::new(), None)) };
        let operation = format!("look at the repository {}/{}", path[1], path[2]);
        let answer = self.api.look(&path, &[], &operation).await?;
        let mut findings = Vec::new();
        if answer.body["archived"] == true {
            let archived =
                self.finding(Severity::Blocks, "the repository is archived, so nothing in it can change");
            findings
                .push(archived.mend("take the copy out of the configuration, or unarchive the repository"));
        }
        if answer.body["disabled"] == true {
            let disabled = self.finding(Severity::Blocks, "GitHub has disabled the repository");
            findings.push(disabled.mend("its page on GitHub says why, and whom to ask"));
        }
        // Apps have permissions instead of a role.
        if answer.may_write("secrets").is_none() && answer.body["permissions"]["push"] == false {
            let role = self.finding(Severity::Blocks, "the token's account may not write to the repository");
            findings.push(role.mend("give the account at least the role Write on it"));
        }
        let identity = answer.body["id"].as_u64().zip(answer.text("full_name"));
        let identity = identity.map(|(id, name)| format!("{} repository {id} ({name})", self.api.web_host()));
        Ok((findings, identity))
    }

    /// Runs that have read the old password, or will have.
    async fn look_at_runs(&self) -> Result<Option<Finding>> {
        let Some([repos, owner, name]) = self.repository() else {
            let what =
                "runs that are already queued in the organisation's repositories keep the old password";
            return Ok(Some(self.finding(Severity::Unseen, what)));
        };
        // An environment's secrets are read when a job starts: a queued run will see the new one. A run that waits for
        // an approval or for another one to end has been queued long before.
        let states: &[&str] = match self.scope {
            Scope::Environment { .. } => &["in_progress"],
            _ => &["queued", "in_progress", "waiting", "pending"],
        };
        let path = [repos, owner, name, "actions", "runs"];
        let most = RUNS_NAMED.to_string();
        let answers = join_all(states.iter().map(async |state| {
            let query = [("status", *state), ("per_page", &most)];
            self.api.look(&path, &query, "list the repository's runs").await
        }));
        let answers: Result<Vec<_>> = answers.await.into_iter().collect();
        match answers {
            Ok(answers) => {
                Ok(self.judge_runs(&answers.iter().map(|answer| &answer.body).collect::<Vec<_>>()))
            }
            Err(error) if is_hidden(&error) => {
                let what = "whether workflow runs are on their way with the old password can't be seen";
                Ok(Some(self.finding(Severity::Unseen, what).mend("give the token \"Actions: read\"")))
            }
            Err(error) => Err(error),
        }
    }

    fn judge_runs(&self, lists: &[&Value]) -> Option<Finding> {
        let count: u64 = lists.iter().filter_map(|list| list["total_count"].as_u64()).sum();
        if count == 0 {
            return None;
        }
        let runs = lists.iter().flat_map(|list| list["workflow_runs"].as_array().into_iter().flatten());
        let named: Vec<String> = runs.take(RUNS_NAMED).filter_map(named).collect();
        let more = if count > named.len() as u64 && !named.is_empty() { ", …" } else { "" };
        let names = if named.is_empty() { String::new() } else { format!(": {}{more}", named.join(", ")) };
        let what = format!("{count} workflow run(s) are on their way with the old password{names}");
        let why = "what they do with it after the change is refused, and shows as their failure";
        let mend = "let them finish first, or run again what fails";
        Some(self.finding(Severity::Warning, what).why(why).mend(mend))
    }
}

/// A run as people find it: `deploy #12 (queued)`. The name is somebody's text, so only a little of it is shown.
fn named(run: &Value) -> Option<String> {
    let text = |key: &str| run[key].as_str();
    let name: String = text("name")?.chars().filter(|letter| !letter.is_control()).take(60).collect();
    Some(format!("{name} #{} ({})", run["run_number"].as_u64()?, text("status")?))
}
