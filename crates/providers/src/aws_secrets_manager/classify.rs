//! AWS's errors in this program's words. Messages are searched and never shown.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use pgrotate_core::{Error, Kind};

use crate::http::told_wait;

/// A request to Secrets Manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Describe,
    Get,
    Put,
}

impl Request {
    fn verb(self) -> &'static str {
        match self {
            Self::Describe => "look at",
            Self::Get => "read",
            Self::Put => "write",
        }
    }

    /// The permission that it needs.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::Describe => "secretsmanager:DescribeSecret",
            Self::Get => "secretsmanager:GetSecretValue",
            Self::Put => "secretsmanager:PutSecretValue",
        }
    }

    fn kms_action(self) -> &'static str {
        if self == Self::Put { "kms:GenerateDataKey and kms:Decrypt" } else { "kms:Decrypt" }
    }

    /// Marks a failure that may have come after the effect. A repeat of a write carries the same
    /// token and so has no second one.
    fn perhaps(self, error: Error, after: Option<Duration>) -> Error {
        if self == Self::Put { error.unknown() } else { error.later(after) }
    }
}

/// The codes of too many requests: those of the SDK's own list.
const THROTTLED: [&str; 11] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "RequestThrottled",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
];

/// The codes of credentials that AWS does not accept.
const REFUSED: [&str; 10] = [
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
];

/// Turns an SDK error into ours.
pub(crate) fn classify<E>(error: &SdkError<E, HttpResponse>, request: Request, secret: &str) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let operation = format!("{} the AWS secret {secret}", request.verb());
    match error {
        SdkError::ServiceError(context) => {
            let headers = context.raw().headers();
            let answer = Answer {
                code: error.code().unwrap_or_default(),
                message: error.message().unwrap_or_default(),
                status: context.raw().status().as_u16(),
                after: told_wait(|name| headers.get(name)),
            };
            answered(&answer, request, operation, secret)
        }
        SdkError::ResponseError(_) => {
            let error = Error::new(Kind::Corrupt, operation).because("AWS's answer makes no sense");
            request.perhaps(error, None)
        }
        _ => unanswered(error, request, operation),
    }
}

/// An error that AWS sent.
struct Answer<'a> {
    code: &'a str,
    message: &'a str,
    status: u16,
    after: Option<Duration>,
}

fn answered(answer: &Answer<'_>, request: Request, operation: String, secret: &str) -> Error {
    let new = |kind| Error::new(kind, operation.clone());
    let says = |word: &str| answer.message.to_ascii_lowercase().contains(word);
    match answer.code {
        code if THROTTLED.contains(&code) || answer.status == 429 => {
            new(Kind::Throttled).because("AWS asks for fewer requests").later(answer.after)
        }
        code if REFUSED.contains(&code) => new(Kind::Unauthenticated)
            .because(format!("AWS does not accept the credentials ({code})"))
            .hint("sign in again (`aws sso login`, `aws configure`), and is this machine's clock right?"),
        "ResourceNotFoundException" => {
            new(Kind::NotFound).because("there is no such secret in this account and region").hint(
                "correct `secret`, or `region` and `profile` under [aws]; pgrotate does not create secrets",
            )
        }
        // Secrets Manager reports a missing right on the key as this, or as a denied access.
        "EncryptionFailure" | "DecryptionFailure" | "KMSAccessDeniedException" => {
            kms(new(Kind::BadState), request)
        }
        "AccessDeniedException" | "AccessDenied" if says("kms") => kms(new(Kind::Forbidden), request),
        "AccessDeniedException" | "AccessDenied" => new(Kind::Forbidden)
            .because(format!("{} is not allowed", request.action()))
            .hint(format!("allow {} on the secret to the role or user in use", request.action())),
        "InvalidRequestException" if says("delet") => new(Kind::BadState)
            .because("the secret is scheduled for deletion")
            .hint(format!("aws secretsmanager restore-secret --secret-id {secret}")),
        "InvalidRequestException" if says("replica") => new(Kind::BadState)
            .because("this is a replica, which takes its value from the primary secret")
            .hint("name the primary's region in the configuration"),
        "InvalidRequestException" => new(Kind::BadState)
            .because(
                "the secret is in a state that does not allow this; it may be managed by another service",
            )
            .hint(format!(
                "aws secretsmanager describe-secret --secret-id {secret} shows it as OwningService"
            )),
        "InvalidParameterException" | "ValidationException" => new(Kind::Rejected)
            .because("AWS does not accept what was sent (InvalidParameterException)")
            .hint("is `secret` a name, or a whole ARN? a value has 64 KB at most"),
        "ResourceExistsException" => {
            new(Kind::Conflict).because("a version of this run exists and holds another value")
        }
        "LimitExceededException" => new(Kind::Rejected)
            .because("the secret has as many versions as AWS keeps")
            .hint("AWS drops old versions after a day; try again then"),
        _ if answer.status >= 500 => {
            let error = new(Kind::ServerFault).because(format!("AWS answered {}", answer.status));
            request.perhaps(error, answer.after)
        }
        "" => new(Kind::Rejected)
            .because(format!("AWS answered {}", answer.status))
            .hint("is it AWS that answers there? look at `endpoint` under [aws], and at proxies"),
        code => new(Kind::Rejected)
            .because(format!("AWS answered {}", plain(code)))
            .hint("AWS's reference of Secrets Manager, Common Errors, says what it means"),
    }
}

fn kms(error: Error, request: Request) -> Error {
    error
        .because("the KMS key of the secret can't be used")
        .hint(format!("the key must be enabled, and its policy allow {}", request.kms_action()))
}

/// A code is a word; whatever is none is not repeated.
fn plain(code: &str) -> &str {
    let word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if word { code } else { "an error without a name" }
}

fn unanswered<E>(error: &SdkError<E, HttpResponse>, request: Request, operation: String) -> Error
where
    E: std::error::Error + 'static,
{
    if let Some(refused) = cause::<Error>(error) {
        return refused.clone().during(operation);
    }
    if let Some(found) = cause::<CredentialsError>(error) {
        return credentials(found, operation);
    }
    // Only searched: the chain's words are the SDK's own.
    let text = words(error);
    if text.contains("certificate") || text.contains("invalid peer") {
        return Error::new(Kind::Unreachable, operation)
            .because("AWS Secrets Manager: its certificate is not trusted")
            .hint("name the CA's file in the configuration: ca_file = \"…\"");
    }
    let timed_out = matches!(error, SdkError::TimeoutError(_))
        || matches!(error, SdkError::DispatchFailure(failure) if failure.is_timeout());
    let error = match timed_out {
        true => Error::new(Kind::TimedOut, operation).because("AWS Secrets Manager: no answer in time"),
        false => Error::new(Kind::Unreachable, operation)
            .because("AWS Secrets Manager: no connection, or it broke before the answer was complete"),
    };
    request.perhaps(error, None)
}

fn credentials(found: &CredentialsError, operation: String) -> Error {
    let error = Error::new(Kind::Unauthenticated, operation);
    let hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `profile` under [aws] to one that ~/.aws/config has, or sign in with `aws sso login`";
    match found {
        CredentialsError::CredentialsNotLoaded(_) => error.because("there are no AWS credentials").hint(hint),
        CredentialsError::InvalidConfiguration(_) => {
            error.because("the AWS configuration files can't be used").hint("aws configure list")
        }
        CredentialsError::ProviderTimedOut(_) => {
            error.because("whoever gives the AWS credentials does not answer").later(None)
        }
        _ => error.because("the AWS credentials could not be fetched").hint(hint),
    }
}

/// The first cause of this type.
fn cause<'e, T: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
