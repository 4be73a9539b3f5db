//! Everything that could stop a secret from being written, or from being used afterwards.

use futures::future::join_all;
use pgrotate_core::provider::{Finding, Inspection, Severity};
use pgrotate_core::{Kind, Result};
use serde_json::Value;

use super::{GithubActions, Scope, seen};
use crate::github::{Answer, is_hidden};

/// Looking for shadows costs a request for each environment; more than this is not cheap.
const ENVIRONMENTS_MAX: usize = 5;

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
        let mut findings = access?;
        let key = key.map_err(|error| match (&self.scope, error.kind()) {
            (Scope::Environment { environment, .. }, Kind::NotFound) => {
                error.hint(format!("is there an environment \"{environment}\" in the repository?"))
            }
            _ => error,
        })?;
        let metadata = metadata?;
        findings.extend(self.judge_token(&key));
        findings.extend(self.judge_absence(metadata.is_none()));
        findings.extend(runs?);
        findings.extend(shadows?);
        Ok(Inspection { seen: seen(metadata.as_ref()), findings, identity: None })
    }

    fn finding(&self, severity: Severity, what: impl Into<String>) -> Finding {
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
        match &key.scopes {
            Some(held) if held.iter().any(|held| held == scope) => None,
            Some(_) => Some(
                self.finding(Severity::Blocks, format!("the token lacks the scope {scope}"))
                    .mend(format!("gh auth refresh --scopes {scope}, or a token with that scope in GH_TOKEN")),
            ),
            None => Some(self.finding(
                Severity::Unseen,
                format!("GitHub does not tell before a write whether this token may write; it needs \"{permission}\""),
            )),
        }
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

    async fn look_at_repository(&self) -> Result<Vec<Finding>> {
        let Some(path) = self.repository() else { return Ok(Vec::new()) };
        let operation = format!("look at the repository {}/{}", path[1], path[2]);
        let answer = self.api.look(&path, &[], &operation).await?;
        let mut findings = Vec::new();
        if answer.body["archived"] == true {
            let archived =
                self.finding(Severity::Blocks, "the repository is archived, so nothing in it can change");
            findings
                .push(archived.mend("take the copy out of the configuration, or unarchive the repository"));
        }
        // Apps have permissions instead of a role.
        if answer.may_write("secrets").is_none() && answer.body["permissions"]["push"] == false {
            let role = self.finding(Severity::Blocks, "the token's account may not write to the repository");
            findings.push(role.mend("give the account at least the role Write on it"));
        }
        Ok(findings)
    }

    /// Runs that have read the old password, or will have.
    async fn look_at_runs(&self) -> Result<Option<Finding>> {
        let Some([repos, owner, name]) = self.repository() else {
            let what =
                "runs that are already queued in the organisation's repositories keep the old password";
            return Ok(Some(self.finding(Severity::Unseen, what)));
        };
        // An environment's secrets are read when a job starts: a queued run will see the new one.
        let states: &[&str] = match self.scope {
            Scope::Environment { .. } => &["in_progress"],
            _ => &["queued", "in_progress"],
        };
        let path = [repos, owner, name, "actions", "runs"];
        let counts = join_all(states.iter().map(async |state| {
            let answer = self
                .api
                .look(&path, &[("status", *state), ("per_page", "1")], "list the repository's runs")
                .await?;
            Ok(answer.body["total_count"].as_u64().unwrap_or(0))
        }));
        let counts: Result<Vec<u64>> = counts.await.into_iter().collect();
        match counts {
            Ok(counts) => Ok(match counts.iter().sum::<u64>() {
                0 => None,
                count => {
                    let what = format!("{count} workflow run(s) are on their way with the old password");
                    let mend = "let them finish first, or run again what fails";
                    Some(self.finding(Severity::Warning, what).mend(mend))
                }
            }),
            Err(error) if is_hidden(&error) => {
                let what = "whether workflow runs are on their way with the old password can't be seen";
                Ok(Some(self.finding(Severity::Unseen, what).mend("give the token \"Actions: read\"")))
            }
            Err(error) => Err(error),
        }
    }

    /// Environments with a secret of the same name, which wins over the repository's.
    async fn look_for_shadows(&self) -> Result<Option<Finding>> {
        let Scope::Repository { owner, name } = &self.scope else { return Ok(None) };
        let unseen = || {
            let what = "whether an environment has a secret of the same name, which would win, can't be seen";
            Ok(Some(self.finding(Severity::Unseen, what)))
        };
        let list = ["repos", owner, name, "environments"];
        let operation = "list the repository's environments";
        let answer = match self.api.look(&list, &[("per_page", "100")], operation).await {
            Ok(answer) => answer,
            Err(error) if is_hidden(&error) => return unseen(),
            Err(error) => return Err(error),
        };
        let all = answer.body["environments"].as_array().map_or(&[][..], Vec::as_slice);
        if all.len() > ENVIRONMENTS_MAX {
            return unseen();
        }
        let names = all.iter().filter_map(|environment| environment["name"].as_str());
        let found = join_all(names.map(async |environment| {
            let path = ["repos", owner, name, "environments", environment, "secrets"];
            let operation = "look for an environment's secret of the same name";
            let list = self.api.look(&path, &[("per_page", "100")], operation).await?;
            let secrets = list.body["secrets"].as_array().map_or(&[][..], Vec::as_slice);
            let same = |secret: &Value| {
                secret["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(&self.secret))
            };
            Ok(secrets.iter().any(same).then_some(environment))
        }));
        let found: Result<Vec<Option<&str>>> = found.await.into_iter().collect();
        let found = match found {
            Ok(found) => found,
            Err(error) if is_hidden(&error) => return unseen(),
            Err(error) => return Err(error),
        };
        let winners: Vec<&str> = found.into_iter().flatten().collect();
        if winners.is_empty() {
            return Ok(None);
        }
        let what = format!(
            "jobs of the environment {} read a secret of their own with this name",
            winners.join(", ")
        );
        let mend = "add that one to the configuration too: environment = \"…\"";
        Ok(Some(self.finding(Severity::Warning, what).mend(mend)))
    }
}
