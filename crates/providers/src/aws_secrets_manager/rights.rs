//! Whether the write would be allowed, as far as AWS tells before: IAM's simulator, the secret's own policy, the key.
//!
//! The simulator knows the identity's policies, not the secret's or the key's own, which may allow as well. So what the
//! identity's policies *deny* is certain, and what they only do not allow is certain where nothing else could.
//! Beyond both are the organisation's policies and conditions that the simulator is not told of.
//!
//! *Asks for* `iam:SimulatePrincipalPolicy` on the identity itself, `secretsmanager:GetResourcePolicy` and, with a
//! key of one's own, `kms:DescribeKey`. Whoever lacks one of them is told what could not be seen.

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Kind, Result};
use serde_json::Value;

use super::AwsSecretsManager;
use super::ask::{Asker, Decision};
use super::classify::Request;

/// What the key is needed for.
const KEY_ACTIONS: [&str; 2] = ["kms:GenerateDataKey", "kms:Decrypt"];
/// The states of a key that can't be used (AWS KMS, "Key states of AWS KMS keys").
const UNUSABLE: [&str; 5] =
    ["Disabled", "PendingDeletion", "PendingImport", "PendingReplicaDeletion", "Unavailable"];

/// What the secret's own policy says about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnPolicy {
    None,
    Some,
    /// One of its statements denies the write to somebody, or under some condition.
    Denies,
    Unseen,
}

impl AwsSecretsManager {
    /// Who signs the requests; asked once for all secrets.
    pub(super) async fn caller(&self) -> Result<String> {
        let asker = self.asker().await?;
        let profile = self.shared.vendors.aws.profile.as_deref().unwrap_or("-");
        let question = format!("AWS caller {profile} {}", asker.region);
        self.shared.looks.once(question, asker.caller()).await.map(|caller| (*caller).clone())
    }

    /// The secret's own policy, if it has one.
    pub(super) async fn own_policy(&self) -> OwnPolicy {
        let Ok(client) = self.client().await else { return OwnPolicy::Unseen };
        match client.get_resource_policy().secret_id(&self.options.secret).send().await {
            Ok(answer) => answer.resource_policy().map_or(OwnPolicy::None, read_policy),
            Err(error) if error.code() == Some("ResourceNotFoundException") => OwnPolicy::None,
            Err(_) => OwnPolicy::Unseen,
        }
    }

    /// What the identity may do with the secret and with its key.
    pub(super) async fn judge_rights(
        &self,
        described: &DescribeSecretOutput,
        caller: Result<String>,
        policy: OwnPolicy,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        if policy == OwnPolicy::Denies {
            let what = "the secret's own policy denies writes to somebody, or under some condition";
            let finding = self.finding(Severity::Warning, what);
            let secret = &self.options.secret;
            findings.push(
                finding
                    .why("whether it means this identity is not told before a write")
                    .mend(format!("aws secretsmanager get-resource-policy --secret-id {secret}")),
            );
        }
        let Ok(caller) = caller else {
            findings.push(self.unseen_rights("who the credentials belong to can't be seen", None));
            return findings;
        };
        findings.push(self.finding(Severity::Note, format!("AWS knows this identity as {caller}")));
        let (Some(arn), Some(principal)) = (described.arn(), principal_of(&caller)) else {
            findings.push(self.unseen_rights("IAM simulates nothing for this kind of identity", None));
            return findings;
        };
        let put = [Request::Put.action()];
        let (write, key) =
            futures::join!(self.simulate(&principal, &put, arn), self.simulate_key(&principal, described),);
        findings.extend(match write {
            Ok(decisions) => self.judge_write(&decisions, policy, account_of(arn) == account_of(&caller)),
            Err(finding) => Some(finding),
        });
        // Where nothing can be simulated it has been said.
        findings
            .extend(key.ok().into_iter().flatten().filter_map(|decision| self.judge_key_right(&decision)));
        findings
    }

    async fn simulate(
        &self,
        principal: &str,
        actions: &[&str],
        resource: &str,
    ) -> std::result::Result<Vec<Decision>, Finding> {
        let simulated = async { self.asker().await?.simulate(principal, actions, resource).await }.await;
        simulated.map_err(|error| match error.kind() {
            Kind::Forbidden => {
                let mend = format!("allow iam:SimulatePrincipalPolicy on {principal}");
                self.unseen_rights("the identity may not ask IAM what it may do", Some(mend))
            }
            // A role's path is not in its session's ARN.
            Kind::NotFound => self.unseen_rights("IAM does not find the identity by its name alone", None),
            _ => self.unseen_rights("IAM does not answer", None),
        })
    }

    async fn simulate_key(
        &self,
        principal: &str,
        described: &DescribeSecretOutput,
    ) -> std::result::Result<Vec<Decision>, Finding> {
        match own_key(described) {
            Some(key) => self.simulate(principal, &KEY_ACTIONS, &key).await,
            None => Ok(Vec::new()),
        }
    }

    fn unseen_rights(&self, because: &str, mend: Option<String>) -> Finding {
        let what = format!(
            "AWS does not tell before a write whether {} is allowed: {because}",
            Request::Put.action()
        );
        let finding = self.finding(Severity::Unseen, what);
        match mend {
            Some(mend) => finding.mend(mend),
            None => finding,
        }
    }

    fn judge_write(&self, decisions: &[Decision], policy: OwnPolicy, own_account: bool) -> Option<Finding> {
        let action = Request::Put.action();
        let decision = decisions.iter().find(|decision| decision.action == action);
        let verdict = decision.map_or("", |decision| decision.verdict.as_str());
        let certain = decision.is_some_and(|decision| !decision.uncertain);
        let mend = format!("allow {action} on the secret to the role or user in use");
        let blocks = |what: String| {
            let finding = self.finding(Severity::Blocks, what);
            Some(
                finding
                    .why("the copy would keep the old password after the server has the new one")
                    .mend(&mend),
            )
        };
        match (verdict, policy) {
            ("allowed", _) => None,
            ("explicitDeny", _) => blocks(format!("a policy of the identity denies {action}")),
            ("implicitDeny", OwnPolicy::None) if certain && own_account => {
                blocks(format!("no policy allows {action}"))
            }
            ("implicitDeny", _) => {
                let what = format!("no policy of the identity allows {action} without conditions");
                let finding = self.finding(Severity::Unseen, what);
                Some(
                    finding
                        .why("a condition, or the secret's own policy, may allow it all the same")
                        .mend(mend),
                )
            }
            _ => Some(self.unseen_rights("IAM's answer leaves it open", None)),
        }
    }

    fn judge_key_right(&self, decision: &Decision) -> Option<Finding> {
        let action = KEY_ACTIONS.into_iter().find(|action| decision.action == *action)?;
        let mend = format!("allow {action} on the secret's KMS key to the role or user in use");
        match decision.verdict.as_str() {
            "explicitDeny" => {
                let what =
                    format!("a policy of the identity denies {action}, which the secret's key is needed for");
                Some(self.finding(Severity::Blocks, what).mend(mend))
            }
            "implicitDeny" => {
                let what = format!("no policy of the identity allows {action}; the key's own policy may");
                Some(self.finding(Severity::Unseen, what).mend(mend))
            }
            _ => None,
        }
    }

    /// The state of a key of one's own. AWS's own keys are always there.
    pub(super) async fn look_at_key(&self, described: &DescribeSecretOutput) -> Option<Finding> {
        let key = described.kms_key_id()?;
        own_key(described)?;
        let asker = self.asker().await.ok()?;
        match asker.key_state(key).await {
            Ok(state) if UNUSABLE.contains(&state.as_str()) => {
                let what = format!("the KMS key of the secret is in the state {state}");
                let mend = match state.as_str() {
                    "Disabled" => format!("aws kms enable-key --key-id {key}"),
                    "PendingDeletion" => {
                        format!("aws kms cancel-key-deletion --key-id {key}, then enable it")
                    }
                    _ => "bring the key into the state Enabled, or give the secret another one".to_owned(),
                };
                let finding = self.finding(Severity::Blocks, what);
                Some(finding.why("nothing can be read or written that it encrypts").mend(mend))
            }
            Ok(_) => None,
            Err(_) => {
                let finding =
                    self.finding(Severity::Unseen, "the state of the secret's KMS key can't be seen");
                Some(
                    finding.mend(
                        "allow kms:DescribeKey on it; a value that can be read shows that it works now",
                    ),
                )
            }
        }
    }
}

/// A policy's word about writes. Whom a `Deny` means, and when, is not judged.
fn read_policy(policy: &str) -> OwnPolicy {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return OwnPolicy::Some };
    let several = |value: &Value| match value {
        Value::Array(all) => all.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let means_writes = |action: &Value| {
        let action = action.as_str().unwrap_or_default().to_ascii_lowercase();
        let wanted = Request::Put.action().to_ascii_lowercase();
        action.split_once('*').map_or(action == wanted, |(before, _)| wanted.starts_with(before))
    };
    let denies = |statement: &Value| {
        statement["Effect"] == "Deny"
            && (several(&statement["Action"]).iter().any(means_writes) || !statement["NotAction"].is_null())
    };
    match several(&policy["Statement"]).iter().any(denies) {
        true => OwnPolicy::Denies,
        false => OwnPolicy::Some,
    }
}

/// Whose policies are simulated: of a role's session the role, of a user the user. The root user and federated ones
/// have none that IAM could simulate.
fn principal_of(caller: &str) -> Option<String> {
    let mut parts = caller.splitn(6, ':');
    let (_, partition, _, _, account, name) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    match name.split_once('/')? {
        ("assumed-role", rest) => {
            let role = rest.split('/').next()?;
            Some(format!("arn:{partition}:iam::{account}:role/{role}"))
        }
        ("user" | "role", _) => Some(caller.to_owned()),
        _ => None,
    }
}

fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

/// The ARN of a key of one's own, if the secret has one whose ARN is known. AWS's own key for Secrets Manager needs no
/// rights within the account.
fn own_key(described: &DescribeSecretOutput) -> Option<String> {
    let key = described.kms_key_id()?;
    if key.starts_with("arn:") {
        return Some(key.to_owned());
    }
    if key.starts_with("alias/") {
        return None;
    }
    let parts: Vec<&str> = described.arn()?.split(':').collect();
    let ["arn", partition, _, region, account, ..] = parts[..] else { return None };
    Some(format!("arn:{partition}:kms:{region}:{account}:key/{key}"))
}

impl AwsSecretsManager {
    /// Who asks the services around Secrets Manager.
    async fn asker(&self) -> Result<Asker<'_>> {
        let connection = self.connection().await?;
        let (credentials, region) = (connection.credentials.clone(), connection.region.clone());
        Ok(Asker { shared: &self.shared, credentials, region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_session_stands_for_its_role() {
        for (caller, principal) in [
            ("arn:aws:sts::1:assumed-role/rotation/me", Some("arn:aws:iam::1:role/rotation")),
            ("arn:aws-cn:sts::1:assumed-role/rotation/me", Some("arn:aws-cn:iam::1:role/rotation")),
            ("arn:aws:iam::1:user/ops/ada", Some("arn:aws:iam::1:user/ops/ada")),
            ("arn:aws:iam::1:root", None),
            ("arn:aws:sts::1:federated-user/ada", None),
            ("arn:x", None),
        ] {
            assert_eq!(principal_of(caller).as_deref(), principal, "{caller}");
        }
    }

    #[test]
    fn a_policy_that_denies_writes_is_noticed() {
        let policy = |effect: &str, action: Value| {
            read_policy(&serde_json::json!({"Statement": [{"Effect": effect, "Action": action}]}).to_string())
        };
        for action in ["secretsmanager:PutSecretValue", "secretsmanager:Put*", "SecretsManager:*", "*"] {
            assert_eq!(policy("Deny", action.into()), OwnPolicy::Denies, "{action}");
            assert_eq!(policy("Allow", action.into()), OwnPolicy::Some, "{action}");
        }
        assert_eq!(
            policy("Deny", serde_json::json!(["a:B", "secretsmanager:PutSecretValue"])),
            OwnPolicy::Denies
        );
        assert_eq!(policy("Deny", "secretsmanager:DeleteSecret".into()), OwnPolicy::Some);
        assert_eq!(
            read_policy(r#"{"Statement": {"Effect": "Deny", "NotAction": "a:B"}}"#),
            OwnPolicy::Denies
        );
        assert_eq!(read_policy("{"), OwnPolicy::Some);
    }
}
