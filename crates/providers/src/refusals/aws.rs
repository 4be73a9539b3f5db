//! AWS Secrets Manager, by the SDK.

use pgrotate_core::provider::Sink;
use pgrotate_core::{Error, Kind};
use serde_json::{Value, json};

use super::{CANARY, LATER, NEVER, Page, Play, Row, UNKNOWN, after, row};
use crate::aws_secrets_manager::{AwsSecretsManager, Options};
use crate::fake::{Call, Fake, Job, Reply, shared};
use crate::shared::{AwsSettings, Vendors};

const SECRET: &str = "mindwell/dev/postgres/admin-password";

fn sink(fake: &Fake) -> AwsSecretsManager {
    let aws =
        AwsSettings { region: Some("eu-central-1".into()), endpoint: Some(fake.url.clone()), profile: None };
    let credentials = "AWS_ACCESS_KEY_ID=AKIDEXAMPLE\nAWS_SECRET_ACCESS_KEY=key\n";
    let options = Options { secret: SECRET.into(), json_key: None };
    AwsSecretsManager::new(None, options, shared(Vendors { aws, ..Vendors::default() }, credentials)).unwrap()
}

/// An error in AWS's form, in one of the spellings of its type.
fn aws(status: u16, kind: &str, message: &str) -> Play {
    let message = format!("{message} {CANARY}");
    Play::new(status, json!({"__type": kind, "message": message, "Message": message}))
}

fn refused(kind: &str, message: &str) -> Play {
    aws(400, kind, message)
}

fn rows() -> Vec<Row> {
    let throttled = || refused("ThrottlingException", "Rate exceeded");
    let spelt = "com.amazonaws.secretsmanager#ResourceNotFoundException:http://internal.amazon.com/coral/";
    let absent = "Secrets Manager can't find the specified secret.";
    let denied = "User: arn:aws:iam::1:user/x is not authorized to perform: secretsmanager:PutSecretValue";
    let key = "Access to KMS is not allowed";
    let deleted = "You can't perform this operation on the secret because it was marked for deletion.";
    let managed = "You can't perform this operation on a secret managed by another service.";
    let replica = "Operation not permitted on a replica secret.";
    let bad = |code, message| row(code, refused(code, message), Kind::BadState, NEVER);
    let stranger = |code| row(code, refused(code, "no"), Kind::Unauthenticated, NEVER);
    vec![
        row("ResourceNotFoundException", refused("ResourceNotFoundException", absent), Kind::NotFound, NEVER),
        row("ResourceNotFoundException, spelt in full", refused(spelt, absent), Kind::NotFound, NEVER),
        row(
            "InvalidRequestException: deleted",
            refused("InvalidRequestException", deleted),
            Kind::BadState,
            NEVER,
        ),
        row(
            "InvalidRequestException: replica",
            refused("InvalidRequestException", replica),
            Kind::BadState,
            NEVER,
        ),
        row(
            "InvalidRequestException: managed",
            refused("InvalidRequestException", managed),
            Kind::BadState,
            NEVER,
        ),
        bad("EncryptionFailure", "Secrets Manager can't encrypt the protected secret text"),
        bad("DecryptionFailure", "Secrets Manager can't decrypt the protected secret text"),
        row("AccessDeniedException", refused("AccessDeniedException", denied), Kind::Forbidden, NEVER),
        row(
            "AccessDeniedException of the key",
            refused("AccessDeniedException", key),
            Kind::Forbidden,
            NEVER,
        ),
        row("LimitExceededException", refused("LimitExceededException", "quota"), Kind::Rejected, NEVER),
        row("InvalidParameterException", refused("InvalidParameterException", "no"), Kind::Rejected, NEVER),
        stranger("UnrecognizedClientException"),
        stranger("ExpiredTokenException"),
        stranger("InvalidSignatureException"),
        row("400 ThrottlingException", throttled(), Kind::Throttled, LATER),
        row(
            "400 ThrottlingException with Retry-After",
            throttled().header("retry-after", "2"),
            Kind::Throttled,
            after(2000),
        ),
        row("429", aws(429, "TooManyRequestsException", ""), Kind::Throttled, LATER),
        row(
            "429 without a name, with Retry-After",
            Play::new(429, json!({"echo": CANARY})).header("retry-after", "4"),
            Kind::Throttled,
            after(4000),
        ),
        row("an error that nobody knows", refused("SomethingNewException", ""), Kind::Rejected, NEVER),
        row("an error without a name", Play::new(400, json!({"echo": CANARY})), Kind::Rejected, NEVER),
    ]
}

fn current() -> Value {
    json!({"Name": SECRET, "VersionId": "old-version-0000000000000000000000", "SecretString": "old",
        "VersionStages": ["AWSCURRENT"]})
}

async fn error_of(operation: &'static str, play: Play) -> (Error, usize) {
    let named =
        move |call: &Call| call.header("x-amz-target").is_some_and(|target| target.ends_with(operation));
    let fake = Fake::start(move |call: &Call| match named(call) {
        true => play.reply(),
        false => Reply::json(200, &current()),
    })
    .await;
    let sink = sink(&fake);
    let error = match operation {
        "DescribeSecret" => sink.check().await.unwrap_err(),
        _ => sink.publish(&Job::new(sink.id(), "{password}", CANARY).update()).await.unwrap_err(),
    };
    (error, fake.calls().iter().filter(|call| named(call)).count())
}

#[tokio::test]
async fn a_write_that_aws_refuses() {
    let mut page = Page::default();
    let faults = [
        row("InternalServiceError", aws(500, "InternalServiceError", ""), Kind::ServerFault, UNKNOWN),
        row("503 without a name", Play::new(503, json!({"echo": CANARY})), Kind::ServerFault, UNKNOWN),
    ];
    for row in rows().into_iter().chain(faults) {
        let (error, writes) = error_of("PutSecretValue", row.play).await;
        page.error(&format!("PutSecretValue: {}", row.what), &error, row.kind, row.retry);
        assert_eq!(writes, 1, "{}: the SDK repeated a write", row.what);
    }
    insta::assert_snapshot!("aws_write", page.0);
}

/// The token of the run is spent on another value, again and again: somebody else always wins.
#[tokio::test]
async fn a_token_that_is_spent_on_another_value() {
    let mut page = Page::default();
    let exists =
        refused("ResourceExistsException", "You can't use ClientRequestToken because that value is in use");
    let (error, writes) = error_of("PutSecretValue", exists).await;
    page.error("PutSecretValue: ResourceExistsException", &error, Kind::Conflict, LATER);
    assert_eq!(writes, 2, "once by the run's token, once by one that follows from the present version");
    insta::assert_snapshot!("aws_token", page.0);
}

#[tokio::test]
async fn a_read_that_aws_refuses() {
    let mut page = Page::default();
    let fault =
        || row("InternalServiceError", aws(500, "InternalServiceError", ""), Kind::ServerFault, LATER);
    for operation in ["GetSecretValue", "DescribeSecret"] {
        for row in rows().into_iter().chain([fault()]) {
            let (error, reads) = error_of(operation, row.play).await;
            page.error(&format!("{operation}: {}", row.what), &error, row.kind, row.retry);
            assert_eq!(reads, 1, "{}", row.what);
        }
    }
    insta::assert_snapshot!("aws_read", page.0);
}

#[tokio::test]
async fn what_check_finds_before_it_could_go_wrong() {
    let mut page = Page::default();
    let described = json!({"Name": SECRET, "RotationEnabled": true, "OwningService": "rds", "PrimaryRegion": "us-east-1",
        "DeletedDate": 1_767_225_600, "VersionIdsToStages": {"v": ["AWSPENDING"]},
        "ReplicationStatus": [{"Region": "eu-west-1", "Status": "Failed", "StatusMessage": CANARY},
            {"Region": "eu-west-2", "Status": "InSync"}]});
    let fake = Fake::start(move |call: &Call| match call.header("x-amz-target") {
        Some(target) if target.ends_with("DescribeSecret") => Reply::json(200, &described),
        _ => Reply::json(
            200,
            &json!({"VersionId": "v", "SecretString": format!("{{\"password\": \"{CANARY}\"}}")}),
        ),
    })
    .await;
    for finding in sink(&fake).check().await.unwrap().findings {
        page.finding("everything is wrong", &finding);
    }
    let fake = Fake::start(move |call: &Call| match call.header("x-amz-target") {
        Some(target) if target.ends_with("DescribeSecret") => Reply::json(200, &json!({"Name": SECRET})),
        _ => Reply::json(
            200,
            &json!({"VersionId": "v", "SecretString": format!("{{\"password\": \"{CANARY}\"}}")}),
        ),
    })
    .await;
    for finding in sink(&fake).check().await.unwrap().findings {
        page.finding("it holds a JSON object", &finding);
    }
    insta::assert_snapshot!("aws_findings", page.0);
}
