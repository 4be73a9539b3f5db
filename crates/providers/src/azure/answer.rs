//! What the resource manager answers, and what its errors mean.

use std::time::Duration;

use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use pgrotate_core::{Error, Kind, Result};
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::http::{Effect, kind_of, retry_of, told_wait, unanswered, with_retry};

/// An answer of the resource manager.
pub(crate) struct Answer(RawResponse);

/// `{"error":{"code","message"}}`, and the form without the outer object that older parts of
/// App Service use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    /// The code; PostgreSQL's provider leaves it empty when the server is busy.
    #[serde(alias = "Code", deserialize_with = "text_or_nothing")]
    pub(crate) code: String,
    /// The text. Searched, never shown: it may echo what was sent.
    #[serde(alias = "Message", deserialize_with = "text_or_nothing")]
    pub(crate) message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FailureBody {
    Wrapped { error: Failure },
    Bare(Failure),
}

fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

impl Answer {
    pub(crate) fn new(response: RawResponse) -> Self {
        Self(response)
    }

    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.0.status().into()
    }

    /// Whether the call has been accepted.
    pub(crate) fn is_success(&self) -> bool {
        self.0.status().is_success()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &'static str) -> Option<&str> {
        self.0.headers().get_optional_str(&HeaderName::from_static(name))
    }

    /// How long the other side asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        told_wait(|name| self.header(name))
    }

    /// The body.
    ///
    /// # Errors
    /// When it does not have the expected form. The body itself is never repeated.
    pub(crate) fn json<T: DeserializeOwned>(&self, operation: &str) -> Result<T> {
        serde_json::from_slice(self.0.body()).map_err(|_| {
            Error::new(Kind::Corrupt, operation)
                .because("Azure's answer does not have the documented form")
                .hint("is an API version that is set under [azure] one that this pgrotate knows?")
        })
    }

    /// What the answer says about why the call failed.
    pub(crate) fn failure(&self) -> Failure {
        match serde_json::from_slice(self.0.body()) {
            Ok(FailureBody::Wrapped { error } | FailureBody::Bare(error)) => error,
            Err(_) => Failure::default(),
        }
    }

    /// The error of an answer that is not a success.
    pub(crate) fn classify(&self, effect: Effect, operation: &str) -> Error {
        let Failure { code, message } = self.failure();
        classify(self.status(), &code, &message, self.retry_after(), effect, operation)
    }
}

/// What an error of the resource manager means.
fn classify(
    status: u16,
    code: &str,
    message: &str,
    after: Option<Duration>,
    effect: Effect,
    operation: &str,
) -> Error {
    let error = |kind| Error::new(kind, operation);
    match (status, code) {
        (401, _) => error(Kind::Unauthenticated)
            .because("the resource manager does not accept the token")
            .hint("is the tenant the one of the subscription? `az account show` tells, [azure] tenant sets it")
            .later(after),
        (403, "RequestDisallowedByPolicy") => error(Kind::Forbidden)
            .because("an Azure Policy forbids it")
            .hint("`az policy assignment list` shows the assignments; somebody has to exempt the resource"),
        (403, "DenyAssignmentAuthorizationFailed") => error(Kind::Forbidden)
            .because("a deny assignment forbids it, whatever roles this identity has")
            .hint("whoever made the deny assignment has to leave out this identity"),
        (403, _) => forbidden(error(Kind::Forbidden), code, message),
        (404, "SubscriptionNotFound") => error(Kind::NotFound)
            .because("this identity sees no such subscription")
            .hint("look at `az account list`"),
        (404, "ResourceGroupNotFound") => error(Kind::NotFound)
            .because("there is no such resource group in the subscription")
            .hint("correct `resource_group` or `subscription`; `az group list` shows those that there are"),
        (404, _) => error(Kind::NotFound)
            .because(format!("Azure finds no such resource{}", show_code(code)))
            .hint("are subscription, resource group and name right? a resource without read access looks the same"),
        (409, "ScopeLocked") => error(Kind::BadState)
            .because("a management lock forbids it")
            .hint("`az lock list --resource-group GROUP` shows it; somebody has to lift it for the rotation"),
        // No effect: Azure does one operation on a resource at a time and refuses the second.
        (409, _) => error(Kind::Busy)
            .because(format!("Azure is busy with another operation on it{}", show_code(code)))
            .later(after),
        (429, _) => error(Kind::Throttled)
            .because("too many requests, or another operation on it is running")
            .later(after),
        _ => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let words = format!("Azure answers {}{}", status.as_u16(), show_code(code));
            let error = error(kind_of(status)).because(words);
            let error = match status.is_client_error() {
                true => error.hint("the resource's activity log in the portal tells more about what was refused"),
                false => error,
            };
            with_retry(error, retry_of(status, effect, after))
        }
    }
}

fn forbidden(error: Error, code: &str, message: &str) -> Error {
    let granted_late = "a new role assignment needs some minutes to work";
    match quoted_after(message, "perform action '") {
        Some(action) => error
            .because(format!("the right to {action} is missing"))
            .hint(format!("give this identity a role with {action}; {granted_late}")),
        None => error
            .because(format!("this identity may not do that{}", show_code(code)))
            .hint(format!("give it a role that allows it; {granted_late}")),
    }
}

/// The name of a right in a vendor's text, if it looks like one.
pub(crate) fn quoted_after(text: &str, before: &str) -> Option<String> {
    let rest = &text[text.find(before)? + before.len()..];
    let name = &rest[..rest.find('\'')?];
    let fits = |character: char| character.is_ascii_alphanumeric() || "./*".contains(character);
    (!name.is_empty() && name.len() <= 128 && name.chars().all(fits)).then(|| name.to_owned())
}

/// A vendor's code in brackets, if it is one and no free text.
pub(crate) fn show_code(code: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if code.is_empty() || code.len() > 64 || !code.chars().all(fits) {
        return String::new();
    }
    format!(" ({code})")
}

/// Turns an error of Microsoft's crates that is no answer into words: a failed sign-in, or a
/// request that got no answer.
pub(crate) fn explain(error: &azure_core::Error, effect: Effect, operation: &str) -> Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<Error>() {
            // The credential's own words; the request itself was never sent.
            return own.clone().during(operation);
        }
        if let Some(lost) = cause.downcast_ref::<reqwest::Error>() {
            return unanswered(lost, effect, operation);
        }
        next = cause.source();
    }
    let out =
        Error::new(Kind::Corrupt, operation).because("Microsoft's library does not understand the answer");
    if effect == Effect::Writes { out.unknown() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrotate_core::Retry;

    fn seen(status: u16, code: &str, message: &str) -> Error {
        classify(status, code, message, None, Effect::Writes, "change the server")
    }

    #[test]
    fn the_missing_right_is_named() {
        let error = seen(
            403,
            "AuthorizationFailed",
            "The client 'x' does not have authorization to perform action 'Microsoft.Web/sites/config/write' over scope '/s'",
        );
        assert_eq!(error.kind(), Kind::Forbidden);
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.to_string().contains("Microsoft.Web/sites/config/write"), "{error}");
    }

    #[test]
    fn a_text_of_the_vendor_is_never_repeated() {
        for (status, code) in [
            (400, "hunter2 is bad"),
            (403, "hunter2 !"),
            (404, "hunter2 "),
            (409, "hunter2\n"),
            (500, "'hunter2'"),
        ] {
            let error = seen(status, code, "perform action 'hunter2 with blanks' value hunter2");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn what_may_have_happened_is_told_from_what_has_not() {
        assert_eq!(seen(503, "", "").retry(), Retry::Unknown);
        assert_eq!(seen(409, "Conflict", "").retry(), Retry::Later { after_ms: None });
        assert_eq!(seen(429, "", "").kind(), Kind::Throttled);
        assert_eq!(seen(409, "ScopeLocked", "").retry(), Retry::Never);
    }

    #[test]
    fn both_forms_of_an_error_body_are_read() {
        let read = |text: &str| match serde_json::from_str(text).unwrap() {
            FailureBody::Wrapped { error } | FailureBody::Bare(error) => (error.code, error.message),
        };
        assert_eq!(read(r#"{"error":{"code":"A","message":"b"}}"#), ("A".into(), "b".into()));
        assert_eq!(read(r#"{"Code":"A","Message":null}"#), ("A".into(), String::new()));
        assert_eq!(read(r#"{"error":{"code":"","message":"busy"}}"#), (String::new(), "busy".into()));
    }
}
