//! Everything that could stop a secret from being written, or undo the write.

use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::types::StatusType;
use pgrotate_core::Result;
use pgrotate_core::provider::{Content, Finding, Inspection, Seen, Severity};

use super::classify::{Request, classify};
use super::{AwsSecretsManager, Stored, json_key};

impl AwsSecretsManager {
    /// Looks at the secret, at what AWS says about it, and at who we are, side by side; then at what that identity may
    /// do with it.
    pub(super) async fn look(&self) -> Result<Inspection> {
        let (described, stored, caller, policy) =
            futures::join!(self.describe(), self.stored(), self.caller(), self.own_policy());
        let described = described?;
        // With its account, its region, and a suffix that another secret of the name would not have.
        let identity = described.arn().map(str::to_owned);
        let unseen = || Seen { content: Content::Unseen, version: None, updated_at: None };
        let mut findings = self.judge(&described);
        if described.deleted_date().is_some() {
            return Ok(Inspection { seen: unseen(), findings, identity });
        }
        let (rights, key) =
            futures::join!(self.judge_rights(&described, caller, policy), self.look_at_key(&described));
        let key_is_bad = key.as_ref().is_some_and(|finding| finding.severity == Severity::Blocks);
        findings.extend(rights);
        findings.extend(key);
        let stored = match stored {
            // Why it can't be read has been found.
            Err(_) if key_is_bad => return Ok(Inspection { seen: unseen(), findings, identity }),
            stored => stored?,
        };
        findings.extend(self.judge_value(stored.as_ref()));
        // A value of the wrong form is a finding by now and not an error.
        let whole = stored.as_ref().map(|stored| (stored.version.clone(), stored.written_at));
        let seen = self.seen(stored).unwrap_or_else(|_| {
            let (version, updated_at) = whole.unzip();
            Seen { content: Content::Unseen, version, updated_at: updated_at.flatten() }
        });
        Ok(Inspection { seen, findings, identity })
    }

    async fn describe(&self) -> Result<DescribeSecretOutput> {
        let request = self.client().await?.describe_secret().secret_id(&self.options.secret);
        request.send().await.map_err(|error| classify(&error, Request::Describe, &self.options.secret))
    }

    pub(super) fn finding(&self, severity: Severity, what: impl Into<String>) -> Finding {
        Finding::new(severity, self.id.as_str(), what)
    }

    fn judge(&self, described: &DescribeSecretOutput) -> Vec<Finding> {
        let secret = &self.options.secret;
        let mut findings = Vec::new();
        let mut blocks = |what: &str, mend: String| {
            findings.push(self.finding(Severity::Blocks, what).mend(mend));
        };
        if described.deleted_date().is_some() {
            let mend = format!("aws secretsmanager restore-secret --secret-id {secret}");
            blocks("the secret is scheduled for deletion", mend);
        }
        if described.rotation_enabled() == Some(true) {
            let what = "AWS's own rotation is switched on and would replace the value again";
            let mend = format!("aws secretsmanager cancel-rotate-secret --secret-id {secret}");
            blocks(what, mend);
        }
        if let Some(service) = described.owning_service() {
            let mend = "let that service rotate it, and take the copy out of the configuration";
            blocks(&format!("the secret is managed by {service}"), mend.into());
        }
        let here = self.connection.get().map(|connection| connection.region.as_str());
        if let Some(primary) = described.primary_region()
            && here.is_some_and(|here| here != primary)
        {
            let mend = format!("name the primary's region in the configuration: region = \"{primary}\"");
            blocks("this is a replica, which can't be written", mend);
        }
        findings.extend(self.judge_surroundings(described));
        findings
    }

    /// What a person should know of versions and replicas.
    fn judge_surroundings(&self, described: &DescribeSecretOutput) -> Vec<Finding> {
        let mut findings = Vec::new();
        let halfway = described.version_ids_to_stages().is_some_and(|versions| {
            let stages = |label: &str, stages: &[String]| stages.iter().any(|stage| stage == label);
            versions.values().any(|all| stages("AWSPENDING", all) && !stages("AWSCURRENT", all))
        });
        if halfway {
            let what = "a version waits as AWSPENDING: a rotation of AWS's own was begun and not finished";
            findings.push(self.finding(Severity::Warning, what));
        }
        for replica in described.replication_status() {
            let region = replica.region().unwrap_or("another region");
            findings.push(match replica.status() {
                Some(StatusType::Failed) => {
                    self.finding(Severity::Warning, format!("its replica in {region} does not follow"))
                }
                _ => self.finding(Severity::Note, format!("its replica in {region} follows a moment later")),
            });
        }
        findings
    }

    fn judge_value(&self, stored: Option<&Stored>) -> Option<Finding> {
        let blocks = |what: String| self.finding(Severity::Blocks, what);
        match (&self.options.json_key, stored) {
            (None, None) => Some(self.finding(Severity::Warning, "the secret has no value yet")),
            (Some(_), None) => Some(
                blocks("the secret has no value yet, so no JSON in which a key could be changed".into())
                    .mend("put the JSON in once by hand"),
            ),
            (None, Some(stored)) => json_key::is_object(stored.text.expose()).then(|| {
                blocks("it holds a JSON object, which a bare value would replace".into())
                    .mend("name the key to change in the configuration: json_key = \"…\"")
            }),
            (Some(key), Some(stored)) => json_key::get(stored.text.expose(), key)
                .err()
                .map(|trouble| blocks(trouble.words(key)).mend("correct `json_key`, or the secret by hand")),
        }
    }
}
