//! What Key Vault's errors mean.

use std::fmt;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use pgrotate_core::{Error, Kind};
use reqwest::StatusCode;
use serde::Deserialize;

use crate::azure::{explain, quoted_after, show_code};
use crate::http::{Effect, kind_of, retry_of, told_wait, with_retry};

/// Why a disabled secret is left alone.
pub(super) const DISABLED: &str =
    "its latest version is disabled; writing a new one would quietly put the secret back into use";

/// Which secret.
pub(crate) struct Place {
    pub(crate) vault: String,
    pub(crate) secret: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the vault {}", self.secret, self.vault)
    }
}

impl Place {
    pub(super) fn recover_command(&self) -> String {
        format!("az keyvault secret recover --vault-name {} --name {}", self.vault, self.secret)
    }

    pub(super) fn enable_command(&self) -> String {
        let Self { vault, secret } = self;
        format!(
            "find out who disabled it and why; then az keyvault secret set-attributes --vault-name {vault} \
             --name {secret} --enabled true"
        )
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Failure,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    code: Option<String>,
    message: Option<String>,
    innererror: Option<Box<Failure>>,
}

impl Failure {
    /// The innermost code: `Forbidden` alone says too little.
    fn deepest(&self) -> &str {
        match &self.innererror {
            Some(inner) if inner.code.is_some() => inner.deepest(),
            _ => self.code.as_deref().unwrap_or_default(),
        }
    }
}

fn answer(error: &azure_core::Error) -> Option<(u16, &RawResponse)> {
    match error.kind() {
        ErrorKind::HttpResponse { status, raw_response: Some(response), .. } => {
            Some((u16::from(*status), response.as_ref()))
        }
        _ => None,
    }
}

fn failure(response: &RawResponse) -> Failure {
    serde_json::from_slice::<Body>(response.body()).map(|body| body.error).unwrap_or_default()
}

/// The vendor's code for an error; empty if there was no answer.
pub(super) fn code(error: &azure_core::Error) -> String {
    answer(error).map(|(_, response)| failure(response).deepest().to_owned()).unwrap_or_default()
}

/// What an error means.
pub(crate) fn classify(error: &azure_core::Error, effect: Effect, operation: &str, place: &Place) -> Error {
    let Some((status, response)) = answer(error) else {
        let out = explain(error, effect, operation);
        // A vault that does not exist has no host name either.
        return if out.to_string().contains("no such host name") {
            out.hint("is the vault's name right? see [azure] key_vault_suffix for another cloud's domain")
        } else {
            out
        };
    };
    let failure = failure(response);
    let message = failure.message.as_deref().unwrap_or_default();
    let headers = response.headers();
    let after = told_wait(|name| headers.get_optional_str(&HeaderName::from_static(name)));
    let error = |kind| Error::new(kind, operation);
    match (status, failure.deepest()) {
        (401, _) => error(Kind::Unauthenticated)
            .because("the vault does not accept the token")
            .hint("is the vault in the tenant that you are signed in to?")
            .later(after),
        (403, code) => forbidden(error(Kind::Forbidden), code, message, place),
        (404, code) => error(Kind::NotFound)
            .because(format!("the vault has no such secret{}", show_code(code)))
            .hint("is `secret` right? it may have been deleted a moment ago"),
        (409, "ObjectIsDeletedButRecoverable") => error(Kind::BadState)
            .because("the secret is deleted, and its name stays taken until it is recovered")
            .hint(place.recover_command()),
        // Right after a recovery was reported done; nothing was written.
        (409, code) => error(Kind::Busy)
            .because(format!("the vault is busy with this secret{}", show_code(code)))
            .later(after.or(Some(Duration::from_secs(5)))),
        (429, _) => error(Kind::Throttled).because("the vault has had too many requests").later(after),
        (_, code) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let words = format!("the vault answers {}{}", status.as_u16(), show_code(code));
            let error = error(kind_of(status)).because(words);
            let error = match status.is_client_error() {
                true => error.hint("Key Vault's list of error codes says what this one means"),
                false => error,
            };
            with_retry(error, retry_of(status, effect, after))
        }
    }
}

fn forbidden(error: Error, code: &str, message: &str, place: &Place) -> Error {
    let vault = &place.vault;
    match code {
        "ForbiddenByRbac" => {
            let action = quoted_after(message, "Action: '").map_or_else(String::new, |action| format!(" {action}"));
            error.because(format!("this identity lacks the right{action} on the vault's secrets")).hint(format!(
                "give it the role \"Key Vault Secrets Officer\" on {vault}; Owner and Contributor do not include it, and \
                 a new assignment needs some minutes to work"
            ))
        }
        "AccessDenied" | "ForbiddenByPolicy" => error
            .because("the vault's access policies do not allow it")
            .hint(format!("az keyvault set-policy --name {vault} --secret-permissions get list set --object-id ID")),
        "ForbiddenByFirewall" => error
            .because("the vault's firewall does not let this machine's address in")
            .hint(format!("run where the vault can be reached, or: az keyvault network-rule add --name {vault} --ip-address IP")),
        "ForbiddenByConnection" => error
            .because("the vault is open to private connections alone")
            .hint("run inside of the vault's network"),
        "SecretDisabled" => error.because("this version is disabled").hint(place.enable_command()),
        other => error.because(format!("the vault refuses it{}", show_code(other))).hint(format!(
            "give this identity the role \"Key Vault Secrets Officer\" on {vault}"
        )),
    }
}
