//! Secrets of the same name that win over the copy: a job that reads one of them keeps the old password.
//!
//! GitHub, "Secrets", naming: an environment's secret takes precedence over a repository's, and that one over an
//! organisation's.

use futures::future::join_all;
use pgrotate_core::Result;
use pgrotate_core::provider::{Finding, Severity};
use serde_json::Value;

use super::{GithubActions, Scope};
use crate::github::{Answer, is_hidden};

/// Each store costs a request; more than this is not cheap.
const STORES_MAX: usize = 5;

impl GithubActions {
    /// Environments with a secret of the same name, which wins over the repository's.
    pub(super) async fn look_for_shadows(&self) -> Result<Vec<Finding>> {
        let Scope::Repository { owner, name: repository } = &self.scope else { return Ok(Vec::new()) };
        let path = ["repos", owner, repository, "environments"];
        let operation = "list the repository's environments";
        let answer = match self.api.look(&path, &[("per_page", "100")], operation).await {
            Ok(answer) => answer,
            Err(error) if is_hidden(&error) => return Ok(vec![self.unseen_shadows()]),
            Err(error) => return Err(error),
        };
        let all = answer.body["environments"].as_array().map_or(&[][..], Vec::as_slice);
        let mut names: Vec<&str> = all.iter().filter_map(|one| one["name"].as_str()).collect();
        // The one that is called as ours matters most.
        names.sort_by_key(|name| !self.is_own(name));
        let looked = names.iter().take(STORES_MAX).map(|name| self.shadow(owner, repository, name));
        let found: Result<Vec<Option<Finding>>> = join_all(looked).await.into_iter().collect();
        let mut findings: Vec<Finding> = match found {
            Ok(found) => found.into_iter().flatten().collect(),
            Err(error) if is_hidden(&error) => return Ok(vec![self.unseen_shadows()]),
            Err(error) => return Err(error),
        };
        findings.extend((names.len() > STORES_MAX).then(|| self.unseen_shadows()));
        Ok(findings)
    }

    /// Whether an environment of GitHub's is called as the one that is rotated.
    fn is_own(&self, environment: &str) -> bool {
        environment.eq_ignore_ascii_case(self.shared.environment.as_str())
    }

    fn unseen_shadows(&self) -> Finding {
        let what = "whether an environment has a secret of the same name, which would win, can't be seen";
        self.finding(Severity::Unseen, what)
            .why("jobs of that environment would go on with the old password")
            .mend("give the token \"Actions: read\" and \"Environments: read\", or look in the repository's settings")
    }

    /// What is to be said of one environment's secrets.
    async fn shadow(&self, owner: &str, repository: &str, environment: &str) -> Result<Option<Finding>> {
        let path = ["repos", owner, repository, "environments", environment, "secrets"];
        if self.shared.looks.is_claimed(&self.place_of(&path)) {
            return Ok(None);
        }
        let operation = "look for an environment's secret of the same name";
        if !self.is_among(&path, operation).await? {
            return Ok(None);
        }
        let what = format!(
            "jobs of the environment {environment} read a secret of their own with this name, which wins"
        );
        let finding = match self.is_own(environment) {
            true => self
                .finding(Severity::Blocks, what)
                .why("it is called as the environment that is rotated, and would keep the old password"),
            // A general name such as DATABASE_URL may mean another server there.
            false => self
                .finding(Severity::Warning, what)
                .why("if it holds this password too, it would keep the old one"),
        };
        Ok(Some(finding.mend(format!(
            "add that one to the configuration (environment = \"{environment}\"), or delete it there"
        ))))
    }

    /// Whether a store has a secret of this name. It is not asked for by its name: 404 would mean "none" as well as
    /// "hidden from you".
    async fn is_among(&self, secrets: &[&str], operation: &str) -> Result<bool> {
        let list = self.api.look(secrets, &[("per_page", "100")], operation).await?;
        let named = list.body["secrets"].as_array().map_or(&[][..], Vec::as_slice);
        let same = |secret: &Value| {
            secret["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(&self.secret))
        };
        Ok(named.iter().any(same))
    }

    /// Who may read an organisation's secret, and which of them have one of their own that wins.
    pub(super) async fn look_at_audience(&self, metadata: Option<&Answer>) -> Result<Vec<Finding>> {
        let (Scope::Organization { .. }, Some(metadata)) = (&self.scope, metadata) else {
            return Ok(Vec::new());
        };
        let unseen = || {
            let what = "whether a repository has a secret of the same name, which would win, can't be seen";
            self.finding(Severity::Unseen, what).why("its jobs would go on with the old password")
        };
        match metadata.text("visibility") {
            Some("selected") => {}
            Some("all") => {
                let what = "every repository of the organisation may read it, public ones too";
                let finding = self.finding(Severity::Warning, what);
                return Ok(vec![finding.mend("limit it to the repositories that need it"), unseen()]);
            }
            _ => return Ok(vec![unseen()]),
        }
        let path = self.scope.below(&[&self.secret, "repositories"]);
        let operation = self.operation("find the repositories of");
        let first = match self.api.look(&path, &[("per_page", "100"), ("page", "1")], &operation).await {
            Ok(first) => first,
            Err(error) if is_hidden(&error) => return Ok(vec![unseen()]),
            Err(error) => return Err(error),
        };
        let all = first.body["repositories"].as_array().map_or(&[][..], Vec::as_slice);
        if all.is_empty() {
            let finding = self.finding(Severity::Warning, "no repository may read it");
            return Ok(vec![
                finding.mend("select those that need it, or take the copy out of the configuration"),
            ]);
        }
        let names: Vec<&str> = all.iter().filter_map(|one| one["full_name"].as_str()).collect();
        let looked = names.iter().take(STORES_MAX).map(|name| self.own_secret_of(name));
        let found: Result<Vec<Option<Finding>>> = join_all(looked).await.into_iter().collect();
        match found {
            Ok(found) => {
                let more = (all.len() > STORES_MAX).then(unseen);
                Ok(found.into_iter().flatten().chain(more).collect())
            }
            Err(error) if is_hidden(&error) => Ok(vec![unseen()]),
            Err(error) => Err(error),
        }
    }

    /// A repository's own secret of this name.
    async fn own_secret_of(&self, full_name: &str) -> Result<Option<Finding>> {
        let Some((owner, name)) = full_name.split_once('/') else { return Ok(None) };
        let path = ["repos", owner, name, "actions", "secrets"];
        if self.shared.looks.is_claimed(&self.place_of(&path)) {
            return Ok(None);
        }
        let operation = "look for a repository's secret of the same name";
        if !self.is_among(&path, operation).await? {
            return Ok(None);
        }
        let what = format!("the repository {full_name} has a secret of its own with this name, which wins");
        let finding = self.finding(Severity::Warning, what);
        let why = "if it holds this password too, its jobs would keep the old one";
        Ok(Some(finding.why(why).mend(format!(
            "add that one to the configuration (repository = \"{full_name}\"), or delete it there"
        ))))
    }
}
