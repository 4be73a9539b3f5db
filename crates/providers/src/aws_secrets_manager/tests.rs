//! The official SDK against a server in this process that follows AWS's service description.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pgrotate_core::Retry;
use pgrotate_core::journal::Effect;
use pgrotate_core::provider::Severity;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Call, Fake, Job, Reply, shared};
use crate::shared::{AwsSettings, Vendors};

const SECRET: &str = "mindwell/dev/postgres/admin-password";

/// One secret with its versions.
struct World {
    /// Version id and value, oldest first.
    versions: Vec<(String, String)>,
    /// Which of them is AWSCURRENT.
    current: usize,
    /// What DescribeSecret adds.
    described: Value,
    /// How many reads after a write still show the version before.
    lag: usize,
    stale: usize,
    /// Whether the next write's answer gets lost, after its effect.
    loses: bool,
    /// What somebody else writes right after each of our writes.
    rival: Option<&'static str>,
    /// What to answer to this operation instead.
    error: Option<(&'static str, u16, Value)>,
    /// What IAM's simulator says of an action, where it may be asked; else it is allowed. A `?` is a condition.
    verdicts: Option<BTreeMap<&'static str, &'static str>>,
    /// The secret's own policy.
    policy: Option<&'static str>,
    /// The state of its key, if that may be asked.
    key: Option<&'static str>,
}

impl World {
    fn holding(value: &str) -> Self {
        Self {
            versions: vec![("old-version-0000000000000000000000".into(), value.into())],
            current: 0,
            described: json!({}),
            lag: 0,
            stale: 0,
            loses: false,
            rival: None,
            error: None,
            verdicts: None,
            policy: None,
            key: Some("Enabled"),
        }
    }

    fn failing(operation: &'static str, status: u16, code: &str, message: &str) -> Self {
        let body = json!({"__type": format!("com.amazonaws.secretsmanager#{code}"), "message": message});
        Self { error: Some((operation, status, body)), ..Self::holding("old") }
    }
}

struct Stage {
    fake: Fake,
    world: Arc<Mutex<World>>,
}

impl Stage {
    async fn of(world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let held = Arc::clone(&world);
        let fake = Fake::start(move |call| answer(call, &mut held.lock().unwrap())).await;
        Self { fake, world }
    }

    fn sink(&self, json_key: Option<&str>) -> AwsSecretsManager {
        let options = Options { secret: SECRET.into(), json_key: json_key.map(str::to_owned) };
        AwsSecretsManager::new(None, options, shared(vendors(&self.fake.url), CREDENTIALS)).unwrap()
    }

    /// The operations that were called, and forgets them.
    fn operations(&self) -> Vec<String> {
        let calls = self.fake.calls();
        self.fake.take_lines();
        calls.iter().map(operation).collect()
    }

    fn current(&self) -> (String, String) {
        let world = self.world.lock().unwrap();
        world.versions[world.current].clone()
    }
}

const CREDENTIALS: &str = "AWS_ACCESS_KEY_ID=AKIDEXAMPLE\nAWS_SECRET_ACCESS_KEY=key-canary";

fn vendors(endpoint: &str) -> Vendors {
    let aws =
        AwsSettings { region: Some("eu-central-1".into()), endpoint: Some(endpoint.into()), profile: None };
    Vendors { aws, ..Vendors::default() }
}

fn operation(call: &Call) -> String {
    match call.header("x-amz-target") {
        Some(target) => target.rsplit('.').next().unwrap().to_owned(),
        None => call.body.strip_prefix("Action=").unwrap().split('&').next().unwrap().to_owned(),
    }
}

const CALLER: &str = "arn:aws:sts::123456789012:assumed-role/rotation/ada";
const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x-AbCdEf";

/// What STS, IAM and KMS say.
fn around(operation: &str, call: &Call, world: &World) -> Option<Reply> {
    let signed = call.header("authorization").unwrap_or_default();
    let scope =
        |service: &str| format!("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/{service}/aws4_request");
    match operation {
        "GetCallerIdentity" => {
            assert!(signed.starts_with(&scope("eu-central-1/sts")), "{signed}");
            let (name, space) = ("GetCallerIdentity", "sts.amazonaws.com/doc/2011-06-15");
            Some(xml(name, space, &format!("<Arn>{CALLER}</Arn><Account>123456789012</Account>")))
        }
        "SimulatePrincipalPolicy" => {
            assert!(signed.starts_with(&scope("us-east-1/iam")), "{signed}");
            let asked: BTreeMap<String, String> =
                url::form_urlencoded::parse(call.body.as_bytes()).into_owned().collect();
            assert_eq!(asked["PolicySourceArn"], "arn:aws:iam::123456789012:role/rotation");
            let Some(verdicts) = &world.verdicts else {
                let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code></Error></ErrorResponse>";
                return Some(Reply::text(403, body));
            };
            let members: String = (1..)
                .map_while(|number| asked.get(&format!("ActionNames.member.{number}")))
                .map(|action| {
                    let verdict = verdicts.get(action.as_str()).unwrap_or(&"allowed");
                    let (verdict, missing) = match verdict.strip_suffix('?') {
                        Some(verdict) => (verdict, "<member>aws:SourceVpc</member>"),
                        None => (*verdict, ""),
                    };
                    format!(
                        "<member><EvalActionName>{action}</EvalActionName><EvalDecision>{verdict}</EvalDecision>\
                         <MissingContextValues>{missing}</MissingContextValues></member>"
                    )
                })
                .collect();
            let results = format!("<EvaluationResults>{members}</EvaluationResults>");
            Some(xml("SimulatePrincipalPolicy", "iam.amazonaws.com/doc/2010-05-08", &results))
        }
        "DescribeKey" => {
            assert!(signed.starts_with(&scope("eu-central-1/kms")), "{signed}");
            Some(match world.key {
                Some(state) => Reply::json(200, &json!({"KeyMetadata": {"KeyId": "k", "KeyState": state}})),
                None => Reply::json(400, &json!({"__type": "AccessDeniedException", "Message": "no"})),
            })
        }
        "GetResourcePolicy" => Some(match world.policy {
            Some(policy) => Reply::json(200, &json!({"ARN": ARN, "Name": SECRET, "ResourcePolicy": policy})),
            None => Reply::json(200, &json!({"ARN": ARN, "Name": SECRET})),
        }),
        _ => None,
    }
}

fn xml(operation: &str, space: &str, result: &str) -> Reply {
    let text = format!(
        "<{operation}Response xmlns=\"https://{space}/\"><{operation}Result>{result}</{operation}Result>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{operation}Response>"
    );
    Reply::text(200, &text)
}

fn answer(call: &Call, world: &mut World) -> Reply {
    let operation = operation(call);
    if let Some(reply) = around(&operation, call, world) {
        return reply;
    }
    if let Some((failing, status, body)) = &world.error
        && *failing == operation
    {
        return Reply::json(*status, body).header("retry-after", "3");
    }
    let body = call.json();
    assert_eq!(body["SecretId"], SECRET);
    match operation.as_str() {
        "DescribeSecret" => {
            let mut described = json!({"ARN": ARN, "Name": SECRET});
            described.as_object_mut().unwrap().extend(world.described.as_object().unwrap().clone());
            Reply::json(200, &described)
        }
        "GetSecretValue" => get(world),
        "PutSecretValue" => put(&body, world),
        other => panic!("{other}"),
    }
}

fn get(world: &mut World) -> Reply {
    let mut shown = world.current;
    if world.stale > 0 {
        world.stale -= 1;
        shown = 0;
    }
    match world.versions.get(shown) {
        Some((id, value)) => Reply::json(
            200,
            &json!({"Name": SECRET, "VersionId": id, "SecretString": value, "VersionStages": ["AWSCURRENT"], "CreatedDate": 1_735_689_600.5}),
        ),
        None => Reply::json(
            400,
            &json!({"__type": "ResourceNotFoundException", "Message": "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT"}),
        ),
    }
}

fn put(body: &Value, world: &mut World) -> Reply {
    let token = body["ClientRequestToken"].as_str().unwrap();
    assert!((32..=64).contains(&token.len()));
    let value = body["SecretString"].as_str().unwrap();
    match world.versions.iter().position(|(id, _)| id == token) {
        Some(known) if world.versions[known].1 != value => {
            return Reply::json(400, &json!({"__type": "ResourceExistsException", "message": "canary"}));
        }
        Some(_) => {}
        None => {
            world.versions.push((token.into(), value.into()));
            world.current = world.versions.len() - 1;
            world.stale = world.lag;
            if let Some(rival) = world.rival {
                write_by_somebody(world, rival);
            }
        }
    }
    if std::mem::take(&mut world.loses) {
        return Reply::hang_up();
    }
    let known = world.versions.iter().position(|(id, _)| id == token).unwrap();
    let stages = if known == world.current { vec!["AWSCURRENT"] } else { Vec::new() };
    Reply::json(
        200,
        &json!({"Name": SECRET, "VersionId": token, "VersionStages": if stages.is_empty() { json!(["AWSPREVIOUS"]) } else { json!(stages) }}),
    )
}

fn write_by_somebody(world: &mut World, value: &str) {
    let id = format!("somebodys-version-{:014}", world.versions.len());
    world.versions.push((id, value.into()));
    world.current = world.versions.len() - 1;
}

#[tokio::test]
async fn a_new_value_is_one_version_named_by_our_token() {
    let stage = Stage::of(World::holding("old")).await;
    let sink = stage.sink(None);
    assert_eq!(sink.id().as_str(), format!("aws_secrets_manager:{SECRET}"));
    let job = Job::new(sink.id(), "{password}", "new-canary");
    let outcome = sink.publish(&job.update()).await.unwrap();
    let token = job.update().request_token();
    assert_eq!(outcome, Outcome::changed().version(Some(VersionId::new(token.clone()))));
    assert_eq!(stage.current(), (token, "new-canary".into()));
    assert_eq!(stage.operations(), ["GetSecretValue", "PutSecretValue"]);

    let again = sink.publish(&job.update()).await.unwrap();
    assert_eq!((again.effect, again.version), (Effect::AlreadyDone, outcome.version));
    assert_eq!(stage.operations(), ["GetSecretValue"]);
    let seen = sink.inspect().await.unwrap();
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new("new-canary")));
    assert_eq!(seen.updated_at, Some("2025-01-01T00:00:00.5Z".parse().unwrap()));
}

#[tokio::test]
async fn a_lost_answer_leads_to_a_read_and_not_to_a_second_version() {
    let stage = Stage::of(World { loses: true, ..World::holding("old") }).await;
    let sink = stage.sink(None);
    let job = Job::new(sink.id(), "{password}", "new");
    let error = sink.publish(&job.update()).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Unknown);
    assert_eq!(
        stage.operations(),
        ["GetSecretValue", "PutSecretValue"],
        "the SDK does not repeat it by itself"
    );
    // The first read after it may even be a stale one.
    stage.world.lock().unwrap().stale = 1;
    let again = sink.publish(&job.update()).await.unwrap();
    assert_eq!(again.version, Some(VersionId::new(job.update().request_token())));
    assert_eq!(stage.world.lock().unwrap().versions.len(), 2);
}

#[tokio::test]
async fn a_slow_store_gets_no_second_version() {
    let stage = Stage::of(World { lag: 1, ..World::holding("old") }).await;
    let sink = stage.sink(None);
    let job = Job::new(sink.id(), "{password}", "new");
    sink.publish(&job.update()).await.unwrap();
    // The next look still sees the old value, so the run publishes again.
    let again = sink.publish(&job.update()).await.unwrap();
    assert_eq!(again.version, Some(VersionId::new(job.update().request_token())));
    assert_eq!(stage.operations().iter().filter(|operation| *operation == "PutSecretValue").count(), 2);
    assert_eq!(stage.world.lock().unwrap().versions.len(), 2);
}

#[tokio::test]
async fn what_somebody_wrote_after_this_run_is_written_over_under_a_second_token() {
    let stage = Stage::of(World::holding("old")).await;
    let sink = stage.sink(None);
    let job = Job::new(sink.id(), "{password}", "new");
    sink.publish(&job.update()).await.unwrap();
    write_by_somebody(&mut stage.world.lock().unwrap(), "theirs");
    stage.operations();
    let outcome = sink.publish(&job.update()).await.unwrap();
    assert_eq!(stage.current().1, "new");
    assert_eq!(outcome.version, Some(VersionId::new(stage.current().0)));
    assert!(outcome.notes[0].contains("somebody else wrote"));
    assert_ne!(stage.current().0, job.update().request_token(), "that one is spent");
}

#[tokio::test]
async fn a_rival_that_always_wins_is_reported() {
    let stage = Stage::of(World { rival: Some("theirs"), ..World::holding("old") }).await;
    let sink = stage.sink(None);
    let error = sink.publish(&Job::new(sink.id(), "{password}", "new").update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Later { after_ms: None }));
    let puts = stage.operations().iter().filter(|operation| *operation == "PutSecretValue").count();
    assert_eq!(puts, WRITES_MAX);
}

const RDS: &str = "{\n  \"username\": \"mindwelladmin\",\n  \"password\": \"old\", \"port\": 5432 }";

#[tokio::test]
async fn one_key_changes_and_the_rest_of_the_json_does_not() {
    let stage = Stage::of(World::holding(RDS)).await;
    let sink = stage.sink(Some("password"));
    let job = Job::new(sink.id(), "{password}", "new");
    sink.publish(&job.update()).await.unwrap();
    assert_eq!(stage.current().1, RDS.replace("old", "new"));
    // Somebody changes another key and puts the old password back: the token is spent on
    // another text, which AWS refuses.
    write_by_somebody(&mut stage.world.lock().unwrap(), "{\"password\":\"old\",\"more\":1}");
    sink.publish(&job.update()).await.unwrap();
    assert_eq!(stage.current().1, "{\"password\":\"new\",\"more\":1}");
}

#[tokio::test]
async fn a_json_value_is_never_replaced_by_a_bare_one() {
    let stage = Stage::of(World::holding(RDS)).await;
    let sink = stage.sink(None);
    let error = sink.publish(&Job::new(sink.id(), "{password}", "new").update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Never));
    assert_eq!(stage.operations(), ["GetSecretValue"]);
    assert_eq!(
        blocking(World::holding(RDS), None).await,
        ["it holds a JSON object, which a bare value would replace"]
    );
}

#[tokio::test]
async fn a_secret_without_a_value_gets_one() {
    let stage = Stage::of(World { versions: Vec::new(), ..World::holding("") }).await;
    let sink = stage.sink(None);
    let inspection = sink.check().await.unwrap();
    assert!(matches!(inspection.seen.content, Content::Absent));
    assert!(inspection.findings.iter().any(|finding| finding.severity == Severity::Warning));
    sink.publish(&Job::new(sink.id(), "{password}", "new").update()).await.unwrap();
    assert_eq!(stage.current().1, "new");
    let empty = World { versions: Vec::new(), ..World::holding("") };
    assert_eq!(blocking(empty, Some("password")).await.len(), 1, "no JSON to change a key in");
}

/// What blocks in a world.
async fn blocking(world: World, json_key: Option<&str>) -> Vec<String> {
    let inspection = Stage::of(world).await.sink(json_key).check().await.unwrap();
    let findings = inspection.findings.into_iter();
    findings.filter(|finding| finding.severity == Severity::Blocks).map(|finding| finding.what).collect()
}

#[tokio::test]
async fn check_looks_twice_and_says_what_it_can_not_see() {
    let stage = Stage::of(World::holding("old")).await;
    let inspection = stage.sink(None).check().await.unwrap();
    assert!(matches!(inspection.seen.content, Content::Value(value) if value == Secret::new("old")));
    assert_eq!(inspection.identity.as_deref(), Some(ARN));
    let [caller, unseen] = &inspection.findings[..] else { panic!("{:?}", inspection.findings) };
    assert!(caller.severity == Severity::Note && caller.what.contains(CALLER), "{caller:?}");
    assert!(
        unseen.severity == Severity::Unseen && unseen.what.contains("secretsmanager:PutSecretValue"),
        "{unseen:?}"
    );
    assert!(
        unseen.mend.as_ref().unwrap().contains("iam:SimulatePrincipalPolicy on arn:aws:iam::"),
        "{unseen:?}"
    );
    let mut asked = stage.operations();
    asked.sort();
    let wanted = [
        "DescribeSecret",
        "GetCallerIdentity",
        "GetResourcePolicy",
        "GetSecretValue",
        "SimulatePrincipalPolicy",
    ];
    assert_eq!(asked, wanted);
}

/// What is found beside who we are, where IAM's simulator may be asked.
async fn simulated(verdicts: &[(&'static str, &'static str)], world: World) -> Vec<(Severity, String)> {
    let world = World { verdicts: Some(verdicts.iter().copied().collect()), ..world };
    let findings = Stage::of(world).await.sink(None).check().await.unwrap().findings;
    let others = findings.into_iter().filter(|finding| finding.severity != Severity::Note);
    others.map(|finding| (finding.severity, finding.what)).collect()
}

#[tokio::test]
async fn what_the_identity_may_do_is_asked_before() {
    use Severity::{Blocks, Unseen, Warning};
    const PUT: &str = "secretsmanager:PutSecretValue";
    let severities = async |verdict, world| {
        let found = simulated(&[(PUT, verdict)], world).await;
        found.into_iter().map(|(severity, _)| severity).collect::<Vec<_>>()
    };
    let plain = || World::holding("old");
    let policy = |policy| World { policy: Some(policy), ..World::holding("old") };
    let allows = r#"{"Statement": [{"Effect": "Allow", "Action": "*"}]}"#;
    let denies = r#"{"Statement": [{"Effect": "Deny", "Action": "secretsmanager:Put*"}]}"#;
    assert_eq!(severities("allowed", plain()).await, []);
    assert_eq!(severities("explicitDeny", plain()).await, [Blocks]);
    assert_eq!(severities("explicitDeny", policy(allows)).await, [Blocks]);
    assert_eq!(severities("implicitDeny", plain()).await, [Blocks]);
    assert_eq!(severities("implicitDeny", policy(allows)).await, [Unseen], "the secret's own may allow it");
    assert_eq!(severities("implicitDeny?", plain()).await, [Unseen], "a condition may be met");
    let foreign = json!({"ARN": "arn:aws:secretsmanager:eu-central-1:999999999999:secret:x-AbCdEf"});
    let foreign = World { described: foreign, ..plain() };
    assert_eq!(severities("implicitDeny", foreign).await, [Unseen], "another account has a say");
    assert_eq!(severities("allowed", policy(denies)).await, [Warning]);
    assert_eq!(severities("perhaps", plain()).await, [Unseen]);
}

#[tokio::test]
async fn a_key_of_ones_own_has_to_be_usable() {
    use Severity::{Blocks, Unseen};
    let keyed = |key| World { described: json!({"KmsKeyId": "0000-1111"}), key, ..World::holding("old") };
    assert_eq!(simulated(&[], keyed(Some("Enabled"))).await, []);
    for state in ["Disabled", "PendingDeletion"] {
        let found = simulated(&[], keyed(Some(state))).await;
        let what = format!("the KMS key of the secret is in the state {state}");
        assert_eq!(found, [(Blocks, what)]);
    }
    assert_eq!(simulated(&[], keyed(None)).await[0].0, Unseen);
    let lacking = [("kms:Decrypt", "explicitDeny"), ("kms:GenerateDataKey", "implicitDeny")];
    let found = simulated(&lacking, keyed(Some("Enabled"))).await;
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [Unseen, Blocks], "{found:?}");
    // The key explains best why the value can't be read.
    let mut unreadable = World::failing("GetSecretValue", 400, "DecryptionFailure", "no");
    unreadable.described = json!({"KmsKeyId": "arn:aws:kms:eu-central-1:123456789012:key/0000"});
    unreadable.key = Some("PendingDeletion");
    assert_eq!(simulated(&[], unreadable).await.len(), 1);
}

#[tokio::test]
async fn what_would_stop_or_undo_the_write_blocks() {
    let described = |described: Value| World { described, ..World::holding("old") };
    for (world, what) in [
        (described(json!({"RotationEnabled": true})), "AWS's own rotation is switched on"),
        (described(json!({"OwningService": "rds"})), "managed by rds"),
        (described(json!({"PrimaryRegion": "us-east-1"})), "replica"),
    ] {
        let blocks = blocking(world, None).await;
        assert!(blocks.len() == 1 && blocks[0].contains(what), "{blocks:?}");
    }
    let mut deleted = World::failing("GetSecretValue", 400, "InvalidRequestException", "marked for deletion");
    deleted.described = json!({"DeletedDate": 1_735_689_600.0});
    assert_eq!(blocking(deleted, None).await, ["the secret is scheduled for deletion"]);
    for (value, key) in [("text", "password"), ("{}", "password"), ("{\"password\":1}", "password")] {
        assert_eq!(blocking(World::holding(value), Some(key)).await.len(), 1, "{value}");
    }
}

#[tokio::test]
async fn what_a_person_should_know_is_said() {
    let described = json!({
        "RotationEnabled": false,
        "PrimaryRegion": "eu-central-1",
        "VersionIdsToStages": {"a": ["AWSCURRENT"], "b": ["AWSPENDING"]},
        "ReplicationStatus": [{"Region": "eu-west-1", "Status": "InSync"}, {"Region": "us-east-1", "Status": "Failed"}],
    });
    let stage = Stage::of(World { described, ..World::holding("old") }).await;
    let findings = stage.sink(None).check().await.unwrap().findings;
    let severities: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
    use Severity::{Note, Unseen, Warning};
    assert_eq!(severities, [Warning, Note, Warning, Note, Unseen], "{findings:?}");
}

#[tokio::test]
async fn errors_are_told_apart_and_never_repeated() {
    use Kind::*;
    let (never, later, unknown) = (Retry::Never, Retry::Later { after_ms: Some(3000) }, Retry::Unknown);
    for (status, code, message, kind, retry) in [
        (400, "ThrottlingException", "canary", Throttled, later),
        (429, "Whatever", "canary", Throttled, later),
        (400, "AccessDeniedException", "canary is not authorized", Forbidden, never),
        (400, "AccessDeniedException", "canary: Access to KMS is not allowed", Forbidden, never),
        (400, "EncryptionFailure", "canary", BadState, never),
        (400, "ResourceNotFoundException", "canary", NotFound, never),
        (400, "InvalidRequestException", "canary was marked for deletion", BadState, never),
        (400, "InvalidRequestException", "canary is a replica", BadState, never),
        (400, "LimitExceededException", "canary", Rejected, never),
        (400, "InvalidParameterException", "canary", Rejected, never),
        (400, "ExpiredTokenException", "canary", Unauthenticated, never),
        (400, "UnrecognizedClientException", "canary", Unauthenticated, never),
        (500, "InternalServiceError", "canary", ServerFault, unknown),
        (503, "canary canary", "canary", ServerFault, unknown),
    ] {
        let stage = Stage::of(World::failing("PutSecretValue", status, code, message)).await;
        let sink = stage.sink(None);
        let error =
            sink.publish(&Job::new(sink.id(), "{password}", "new-canary").update()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (kind, retry), "{code}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(stage.operations().len(), 2, "the SDK repeats nothing by itself: {code}");
    }
    let denied = Stage::of(World::failing("DescribeSecret", 400, "AccessDeniedException", "")).await;
    let error = denied.sink(None).check().await.unwrap_err();
    assert!(error.to_string().contains("secretsmanager:DescribeSecret is not allowed"), "{error}");
    let kms =
        Stage::of(World::failing("GetSecretValue", 400, "AccessDeniedException", "Access to KMS")).await;
    assert!(kms.sink(None).inspect().await.unwrap_err().hints()[0].contains("kms:Decrypt"));
    let fault = Stage::of(World::failing("GetSecretValue", 500, "InternalServiceError", "")).await;
    let retry = fault.sink(None).inspect().await.unwrap_err().retry();
    assert_eq!(retry, Retry::Later { after_ms: Some(3000) }, "a read had no effect");
}

#[tokio::test]
async fn nobody_there_and_bytes_are_explained() {
    let options = || Options { secret: SECRET.into(), json_key: None };
    let nobody = shared(vendors("http://127.0.0.1:1"), CREDENTIALS);
    let error = AwsSecretsManager::new(None, options(), nobody).unwrap().inspect().await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Later { after_ms: None }));
    let fake = Fake::start(|_| Reply::json(200, &json!({"VersionId": "v", "SecretBinary": "AAAA"}))).await;
    let bytes = AwsSecretsManager::new(None, options(), shared(vendors(&fake.url), CREDENTIALS)).unwrap();
    assert_eq!(bytes.inspect().await.unwrap_err().kind(), Kind::BadState);
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused() {
    let options = Options { secret: SECRET.into(), json_key: None };
    let plain = shared(vendors("http://192.0.2.1:4566"), CREDENTIALS);
    assert!(AwsSecretsManager::new(None, options.clone(), Arc::clone(&plain)).is_err());
    // However the SDK came by such an endpoint, nothing is sent there.
    let connection = client::connect(&plain, SECRET).await.unwrap();
    let sink = AwsSecretsManager {
        id: CopyId::from("aws_secrets_manager:x"),
        options,
        shared: plain,
        connection: OnceCell::new_with(Some(connection)),
    };
    let error = sink.inspect().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config, "{error:?}");
    assert!(error.to_string().contains("plain http"), "{error}");
}

#[test]
fn the_region_of_an_arn_counts_where_none_is_configured() {
    let arn = "arn:aws:secretsmanager:eu-north-1:123456789012:secret:x-AbCdEf";
    let region =
        |vendors: Vendors, secret: &str| client::region(&shared(vendors, "AWS_REGION=eu-west-3"), secret);
    assert_eq!(region(vendors("x"), arn).unwrap().as_ref(), "eu-central-1");
    assert_eq!(region(Vendors::default(), arn).unwrap().as_ref(), "eu-north-1");
    if std::env::var("AWS_REGION").is_err() {
        assert_eq!(region(Vendors::default(), SECRET).unwrap().as_ref(), "eu-west-3");
    }
    let sink = |name: Option<&str>, key: Option<&str>| {
        let options = Options { secret: SECRET.into(), json_key: key.map(str::to_owned) };
        AwsSecretsManager::new(name.map(str::to_owned), options, shared(vendors("http://localhost"), ""))
            .unwrap()
    };
    let (one, two) = (sink(None, Some("a")), sink(Some("named"), Some("b")));
    assert_eq!(one.whole(), two.whole(), "written one after the other");
    assert_ne!(one.location(), two.location());
    assert_eq!(two.id().as_str(), "aws_secrets_manager:named");
}
