//! What all resources of Azure Resource Manager have in common: paths, errors, and the checks before a handler runs.

use std::sync::Arc;

use axum::response::Response;
use serde_json::json;

use super::azure_access::AzureAccess;
use super::azure_sign_in::AzureSignIn;
use super::call::{Call, reply};
use super::{Environment, World};

/// An error in Azure Resource Manager's form.
#[derive(Debug)]
pub(crate) struct ArmFailure {
    status: u16,
    code: String,
    text: String,
}

impl ArmFailure {
    /// An error. The code may be empty: PostgreSQL's provider answers so when the server is busy.
    pub(crate) fn new(status: u16, code: &str, text: String) -> Self {
        Self { status, code: code.to_owned(), text }
    }

    /// A resource that isn't there; `kind` is `Microsoft.Web/sites`.
    pub(crate) fn resource_not_found(kind: &str, name: &str, group: &str) -> Self {
        let text = format!(
            "The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to \
             https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::new(404, "ResourceNotFound", text)
    }

    /// A path that no provider serves.
    pub(crate) fn no_such_path(call: &Call) -> Self {
        let text = format!("No HTTP resource was found that matches the request URI '{}'.", call.path);
        Self::new(404, "InvalidResourceType", text)
    }

    /// The answer to the caller.
    pub(crate) fn into_response(self) -> Response {
        reply(self.status, json!({"error": {"code": self.code, "message": self.text}}))
    }
}

/// A call to a resource inside a resource group, its token checked.
pub(crate) struct ArmCall<'a> {
    /// The call.
    pub(crate) call: &'a Call,
    /// The environment whose resource group it is.
    pub(crate) environment: &'a Environment,
    /// The group's name as the caller spelt it.
    pub(crate) group: &'a str,
    /// What follows the provider's namespace, as the caller spelt it.
    pub(crate) rest: &'a [&'a str],
}

impl ArmCall<'_> {
    /// What follows the namespace in lower case, for matching: Azure's paths ignore case.
    pub(crate) fn lower(&self) -> Vec<String> {
        self.rest.iter().map(|segment| segment.to_ascii_lowercase()).collect()
    }

    /// The scope that the call is about.
    pub(crate) fn scope(&self) -> &str {
        self.call.path.trim_end_matches('/')
    }
}

/// The gate before every handler: rights and locks.
pub(crate) struct ArmGate {
    sign_in: Arc<AzureSignIn>,
    access: Arc<AzureAccess>,
}

impl ArmGate {
    /// The gate of one tenant.
    pub(crate) fn new(sign_in: Arc<AzureSignIn>, access: Arc<AzureAccess>) -> Self {
        Self { sign_in, access }
    }

    /// Refuses an action that the caller may not do. `changes` says that a read-only lock forbids it too, which holds
    /// for reads made with POST as well.
    pub(crate) fn admit(
        &self,
        environment: &str,
        action: &str,
        scope: &str,
        changes: bool,
    ) -> Result<(), ArmFailure> {
        if !self.access.allows(environment, action) {
            let text = format!(
                "The client '{}' with object id '{}' does not have authorization to perform action '{action}' over \
                 scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your \
                 credentials.",
                self.sign_in.client_id(),
                self.sign_in.object_id()
            );
            return Err(ArmFailure::new(403, "AuthorizationFailed", text));
        }
        if self.access.forbids(environment, action) {
            let text = format!(
                "The client '{}' with object id '{}' has permission to perform action '{action}' on scope '{scope}'; \
                 however, the access is denied because of the deny assignment with name 'keep as it is' and Id \
                 '{}' at the scope of the resource group.",
                self.sign_in.client_id(),
                self.sign_in.object_id(),
                super::azure_access::DENIAL
            );
            return Err(ArmFailure::new(403, "DenyAssignmentAuthorizationFailed", text));
        }
        if changes && let Some(locked) = self.access.locked(environment, scope) {
            let text = format!(
                "The scope '{scope}' cannot perform write operation because following scope(s) are locked: '{locked}'. \
                 Please remove the lock and try again."
            );
            return Err(ArmFailure::new(409, "ScopeLocked", text));
        }
        Ok(())
    }
}

/// The environment of a subscription and resource group.
pub(crate) fn environment_of<'a>(
    environments: &'a [Environment],
    subscription: &str,
    group: &str,
) -> Result<&'a Environment, ArmFailure> {
    if !environments.iter().any(|environment| environment.subscription.eq_ignore_ascii_case(subscription)) {
        let text = format!("The subscription '{subscription}' could not be found.");
        return Err(ArmFailure::new(404, "SubscriptionNotFound", text));
    }
    environments
        .iter()
        .find(|environment| {
            environment.subscription.eq_ignore_ascii_case(subscription)
                && environment.resource_group().eq_ignore_ascii_case(group)
        })
        .ok_or_else(|| {
            ArmFailure::new(
                404,
                "ResourceGroupNotFound",
                format!("Resource group '{group}' could not be found."),
            )
        })
}

/// The id of an environment's resource group.
pub(crate) fn group_id(environment: &Environment) -> String {
    format!("/subscriptions/{}/resourceGroups/{}", environment.subscription, environment.resource_group())
}

/// The id of a resource in an environment's group; `path` is `Microsoft.Web/sites/mindwell-dev-api`.
pub(crate) fn resource_id(environment: &Environment, path: &str) -> String {
    format!("{}/providers/{path}", group_id(environment))
}

/// The region's two spellings: a resource says the first, a polling URL the second.
pub(crate) const REGION: (&str, &str) = ("West Europe", "westeurope");

/// The environments' subscriptions, without repetition.
pub(crate) fn subscriptions(world: &World) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for environment in &world.environments {
        if !ids.contains(&environment.subscription) {
            ids.push(environment.subscription.clone());
        }
    }
    ids
}
