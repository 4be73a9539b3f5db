//! Bad states on demand: what the control interface does to the vendors.

use serde_json::Value;

use super::Vendors;

/// Puts a vendor into a state that a test wants to see handled:
/// `{"system": "key_vault", "environment": "dev", "what": "deleted", "value": "database-url"}`.
///
/// | system | what | value |
/// | --- | --- | --- |
/// | `resource_manager` | `state` | the server's state: `"Stopped"`, `"Updating"`, `"Ready"` |
/// | | `replica`, `password_auth` | `true` or `false` |
/// | | `property` | `{"pointer": "/properties/backup/backupRetentionDays", "value": 7}` |
/// | | `fail_next` | `{"code", "message", "applied"}`: how the next operation ends; `applied` changes the password all the same |
/// | | `deny` | the actions and data actions that the caller lacks, for Key Vault and App Service too |
/// | | `deny_assignment` | `{"actions", "whom"?}` for `"everybody"`, a `"group"` or the `"others"`; null removes it |
/// | | `lock` | `"ReadOnly"`, `"CanNotDelete"` or null: of the resource group, else `{"level", "at"}`, at the `"subscription"`, `"server"`, `"application"` or `"vault"` |
/// | | `tokens_expired` | null |
/// | `sign_in` | `secret_expired`, `assertions_expired` | `true` or `false` |
/// | | `job` | the subject of the GitHub job's id tokens |
/// | | `identity` | whether the machine has a managed identity |
/// | `key_vault` | `deleted`, `disabled`, `removed` | a secret's name: soft-deleted, latest version disabled, never been |
/// | | `recovered`, `enabled` | a secret's name: what undoes the first two |
/// | | `attributes` | `{"secret", "nbf"?, "exp"?}`: the latest version's dates in seconds |
/// | | `tags` | `{"secret", "tags"}`: those of the latest version |
/// | | `value` | `{"secret", "value"}`: a version made by somebody else |
/// | | `firewall` | `true` or `false` |
/// | | `access_policy` | the caller's secret permissions, or null for roles |
/// | `app_service` | `app` | the name of a further application, which begins with the configuration of the first |
/// | | `slot` | a slot's name, or `{"app", "slot"}` |
/// | | `slot_removed` | a slot's name, or `{"app", "slot"}` |
/// | | `setting` | `{"app"?, "slot"?, "name", "value"}`; null removes it |
/// | | `reference` | `{"app"?, "slot"?, "name"?, "secret", "version"?}`: the setting becomes a Key Vault reference |
/// | | `connection_string` | `{"app"?, "slot"?, "name", "value", "type"?}`; null removes it |
/// | | `basic_auth`, `stopped`, `logs_off` | `true` or `false` |
/// | | `sticky` | the names of the settings that stay with their slot |
/// | `github` | `deny` | permissions such as `"secrets=write"` |
/// | | `scopes` | those of the classic token |
/// | | `run` | the status of a workflow run that appears: `"queued"`, `"in_progress"` |
/// | | `runs_done` | null: no run is on its way any more |
/// | | `issues_disabled`, `archived` | `true` or `false` |
/// | | `token_ends` | when the token ends (`"2026-12-01 10:00:00 UTC"`), or null |
/// | | `role` | the account's in the repository: `"read"`, else it may write |
/// | | `environment_secret` | `{"environment", "name"}`: made; a null name removes all of that environment |
/// | | `clock_ahead_s` | how many seconds GitHub's clock is ahead |
/// | | `new_key` | null: the repository's key pair is renewed |
/// | | `removed` | a secret's name |
/// | | `organization_secret` | `{"name", "value", "visibility", "repositories"?}`: made or replaced; a copy if it begins with the environment's name |
/// | | `app_permissions` | those of the App's installation: `{"secrets": "write"}` |
/// | | `app_removed`, `app_suspended` | `true` or `false`: the App's installation |
/// | | `app_tokens_expired` | null: every token of the installation has ended |
/// | `aws` | `deny` | actions that no policy allows the caller, such as `"secretsmanager:PutSecretValue"` |
/// | | `described` | what `DescribeSecret` says beside: `{"RotationEnabled": true}`, `{"DeletedDate": 1.0}`; null |
/// | | `clock_ahead_s` | how many seconds AWS's clock is ahead; from 301 on it refuses what is signed |
/// | | `key` | the state of a key of the caller's own: `"Enabled"`, `"Disabled"`; null for AWS's |
/// | | `policy` | the secrets' own policy as a text, or null |
/// | `onepassword` | `ambiguous`, `missing`, `archived` | null: another item of the title; no item; archived |
/// | | `restored` | null: the items as they were before any of these |
/// | | `read_only` | `true` or `false` |
/// | | `password` | a value that somebody else puts into the item |
pub(crate) fn apply(vendors: &Vendors, request: &Value) -> Result<(), String> {
    let text = |name: &str| request[name].as_str().ok_or_else(|| format!("{name:?} is missing or no string"));
    let (system, what, wanted) = (text("system")?, text("what")?, text("environment")?);
    let environment =
        vendors.environment(wanted).ok_or_else(|| format!("there is no environment {wanted:?}"))?;
    let value = &request["value"];
    match system {
        "sign_in" => set_sign_in(vendors, what, value),
        "resource_manager" => vendors.resource_manager.set(environment, what, value),
        "key_vault" => vendors.key_vault.set(environment, what, value),
        "app_service" => vendors.app_service.set(environment, what, value),
        "github" => vendors.github.set(environment, what, value),
        "onepassword" => vendors.onepassword.set(environment, what, value),
        "aws" => vendors.aws.set(what, value),
        other => Err(format!("there is no system {other:?}")),
    }
}

fn set_sign_in(vendors: &Vendors, what: &str, value: &Value) -> Result<(), String> {
    let truth = || value.as_bool().ok_or_else(|| format!("{what} takes true or false"));
    match what {
        "secret_expired" => vendors.sign_in.expire_secret(truth()?),
        "identity" => vendors.managed_identity.assign(truth()?),
        _ => return vendors.federation.set(what, value),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Sandbox;
    use super::apply;

    #[tokio::test]
    async fn what_nobody_can_do_is_said() {
        let sandbox = Sandbox::new();
        let set = |system: &str, environment: &str, what: &str| {
            let request = json!({"system": system, "environment": environment, "what": what, "value": "x"});
            apply(&sandbox.vendors, &request)
        };
        assert_eq!(set("key_vault", "dev", "nothing"), Err("key_vault can't set \"nothing\"".to_owned()));
        assert_eq!(set("key_vault", "dev", "deleted"), Err("no such secret".to_owned()));
        assert_eq!(set("key_vault", "qa", "deleted"), Err("there is no environment \"qa\"".to_owned()));
        assert_eq!(set("nothing", "dev", "deleted"), Err("there is no system \"nothing\"".to_owned()));
        assert_eq!(set("aws", "dev", "deleted"), Err("aws can't set \"deleted\"".to_owned()));
        assert!(apply(&sandbox.vendors, &json!({})).is_err());
    }

    #[tokio::test]
    async fn each_environment_shows_its_own_copies() {
        let sandbox = Sandbox::new();
        let copies = sandbox.vendors.copies("dev");
        let ids: Vec<&str> = copies.keys().map(String::as_str).collect();
        // The settings and secrets beside them are no copies.
        assert_eq!(
            ids,
            [
                "azure_app_service:DATABASE_URL",
                "azure_key_vault:database-url",
                "azure_key_vault:postgres-admin-password",
                "github_actions:DEV_DATABASE_URL",
                "github_actions:DEV_POSTGRES_ADMIN_PASSWORD",
                "onepassword:MindWell dev Postgres Admin",
            ]
        );
        for (id, copy) in &copies {
            assert!(copy.value.as_ref().unwrap().contains("Seed-dev-1"), "{id}");
        }
        assert!(sandbox.vendors.copies("qa").is_empty());
    }
}
