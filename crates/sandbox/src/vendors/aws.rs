//! What surrounds Secrets Manager at AWS and is not moto's: IAM's simulator, rights that the caller lacks, and states
//! that moto does not know. Everything else is [moto](crate::moto)'s, before which this stands.
//!
//! Simplified: a right is lacked on every resource; a state is every secret's. An action that is denied is one that no
//! policy allows (`implicitDeny`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::call::{lock, random_hex};

/// A key of the caller's own.
const KEY: &str = "00000000-0000-0000-0000-00000000ca11";
/// Whoever calls moto.
const CALLER: &str = "arn:aws:sts::123456789012:user/moto";
/// How far off a signature may be.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Operations that need the key.
const WITH_KEY: [(&str, &str, &str); 2] =
    [("GetSecretValue", "DecryptionFailure", "decrypt"), ("PutSecretValue", "EncryptionFailure", "encrypt")];

/// The states, as the control interface sets them.
#[derive(Default)]
pub(crate) struct Aws(Mutex<State>);

#[derive(Default)]
struct State {
    denied: BTreeSet<String>,
    /// What `DescribeSecret` says beside what moto says.
    described: Map<String, Value>,
    /// The state of a key of the caller's own, if secrets have one.
    key: Option<String>,
    /// The secrets' own policy.
    policy: Option<String>,
    /// How far AWS's clock is ahead of this machine's.
    clock_ahead: SignedDuration,
}

impl Aws {
    /// Puts AWS into a state that a test wants to see handled.
    pub(crate) fn set(&self, what: &str, value: &Value) -> Result<(), String> {
        let mut state = lock(&self.0);
        let text = || value.as_str().map(str::to_owned);
        match what {
            "deny" => {
                let actions = value
                    .as_array()
                    .ok_or("deny takes a list such as [\"secretsmanager:PutSecretValue\"]")?;
                state.denied =
                    actions.iter().filter_map(|action| action.as_str().map(str::to_owned)).collect();
            }
            "described" => state.described = value.as_object().cloned().unwrap_or_default(),
            "key" => state.key = text(),
            "policy" => state.policy = text(),
            "clock_ahead_s" => {
                let seconds = value.as_i64().ok_or("clock_ahead_s takes seconds")?;
                state.clock_ahead = SignedDuration::from_secs(seconds);
            }
            other => return Err(format!("aws can't set {other:?}")),
        }
        Ok(())
    }

    /// The answer to a request, where it is not moto's to give.
    pub(crate) fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Option<Response<Body>> {
        let state = lock(&self.0);
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let mut answer = match target {
            _ if state.clock_ahead.abs() > SKEW => Some(skewed(target.is_some())),
            Some(target) => state.answer_json(target),
            None => state.answer_query(body),
        }?;
        state.date(answer.headers_mut());
        Some(answer)
    }

    /// Dates an answer of moto's by AWS's clock.
    pub(crate) fn date(&self, headers: &mut HeaderMap) {
        lock(&self.0).date(headers);
    }

    /// What AWS says beside moto in the answer to this operation.
    pub(crate) fn complete(&self, target: &str, members: &mut Map<String, Value>) {
        let state = lock(&self.0);
        if !target.ends_with(".DescribeSecret") || !members.contains_key("ARN") {
            return;
        }
        members.extend(state.described.clone());
        if state.key.is_some() {
            members.insert("KmsKeyId".into(), json!(KEY));
        }
    }
}

impl State {
    fn date(&self, headers: &mut HeaderMap) {
        let now = Timestamp::now() + self.clock_ahead;
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(date) = HeaderValue::from_str(&date)
            && !self.clock_ahead.is_zero()
        {
            headers.insert(header::DATE, date);
        }
    }

    fn answer_json(&self, target: &str) -> Option<Response<Body>> {
        let (service, operation) = target.rsplit_once('.')?;
        let prefix = if service == "TrentService" { "kms" } else { "secretsmanager" };
        let action = format!("{prefix}:{operation}");
        if self.denied.contains(&action) {
            let message = format!(
                "User: {CALLER} is not authorized to perform: {action} because no identity-based policy allows the \
                 {action} action"
            );
            return Some(failure("AccessDeniedException", &message));
        }
        if prefix == "kms" {
            return (operation == "DescribeKey").then(|| self.key.as_deref().map(key)).flatten();
        }
        if operation == "GetResourcePolicy" {
            return self.policy.as_deref().map(policy);
        }
        let (_, error, verb) = WITH_KEY.into_iter().find(|(name, ..)| *name == operation)?;
        if self.described.contains_key("DeletedDate") {
            let message =
                "You can't perform this operation on the secret because it was marked for deletion.";
            return Some(failure("InvalidRequestException", message));
        }
        let broken = self.key.as_deref().is_some_and(|state| state != "Enabled");
        let message =
            format!("Secrets Manager can't {verb} the protected secret text using the provided KMS key.");
        broken.then(|| failure(error, &message))
    }

    /// The query protocol: of it only IAM's simulator, which moto does not have.
    fn answer_query(&self, body: &[u8]) -> Option<Response<Body>> {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        if form.get("Action").map(String::as_str) != Some("SimulatePrincipalPolicy") {
            return None;
        }
        if self.denied.contains("iam:SimulatePrincipalPolicy") {
            let message = format!("User: {CALLER} is not authorized to perform: iam:SimulatePrincipalPolicy");
            return Some(xml(
                StatusCode::FORBIDDEN,
                &format!(
                    "<ErrorResponse xmlns=\"{IAM}\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{message}</Message>\
                 </Error><RequestId>{}</RequestId></ErrorResponse>",
                    request_id()
                ),
            ));
        }
        let resource = form.get("ResourceArns.member.1").map_or("*", String::as_str);
        let actions = (1..).map_while(|number| form.get(&format!("ActionNames.member.{number}")));
        let results: String = actions
            .map(|action| {
                let verdict = if self.denied.contains(action) { "implicitDeny" } else { "allowed" };
                format!(
                    "<member><MatchedStatements/><MissingContextValues/><EvalResourceName>{resource}</EvalResourceName>\
                     <EvalDecision>{verdict}</EvalDecision><EvalActionName>{action}</EvalActionName></member>"
                )
            })
            .collect();
        Some(xml(
            StatusCode::OK,
            &format!(
                "<SimulatePrincipalPolicyResponse xmlns=\"{IAM}\"><SimulatePrincipalPolicyResult>\
             <IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults>\
             </SimulatePrincipalPolicyResult><ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata>\
             </SimulatePrincipalPolicyResponse>",
                request_id()
            ),
        ))
    }
}

/// The namespace of IAM's answers.
const IAM: &str = "https://iam.amazonaws.com/doc/2010-05-08/";

fn request_id() -> String {
    let random = random_hex(16);
    format!("{}-{}-{}-{}-{}", &random[..8], &random[8..12], &random[12..16], &random[16..20], &random[20..])
}

/// What is signed too early or too late is refused, in the words of each protocol.
fn skewed(json: bool) -> Response<Body> {
    let message = "Signature expired: it is now more than 5 min. from the time of the request.";
    if json {
        return failure("InvalidSignatureException", message);
    }
    xml(
        StatusCode::FORBIDDEN,
        &format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>{message}</Message></Error>\
         <RequestId>{}</RequestId></ErrorResponse>",
            request_id()
        ),
    )
}

/// `DescribeKey`'s answer.
fn key(state: &str) -> Response<Body> {
    let metadata = json!({
        "AWSAccountId": "123456789012",
        "KeyId": KEY,
        "Arn": format!("arn:aws:kms:eu-central-1:123456789012:key/{KEY}"),
        "Enabled": state == "Enabled",
        "KeyState": state,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyManager": "CUSTOMER",
        "Origin": "AWS_KMS",
    });
    json_answer(StatusCode::OK, &json!({ "KeyMetadata": metadata }))
}

fn policy(policy: &str) -> Response<Body> {
    let arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:of-all-AbCdEf";
    json_answer(StatusCode::OK, &json!({"ARN": arn, "Name": "of-all", "ResourcePolicy": policy}))
}

fn failure(kind: &str, message: &str) -> Response<Body> {
    json_answer(StatusCode::BAD_REQUEST, &json!({"__type": kind, "Message": message}))
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    answer(status, "application/x-amz-json-1.1", body.to_string())
}

fn xml(status: StatusCode, body: &str) -> Response<Body> {
    answer(status, "text/xml", body.to_owned())
}

fn answer(status: StatusCode, media: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(aws: &Aws, target: Option<&'static str>, body: &str) -> Option<(u16, String)> {
        let mut headers = HeaderMap::new();
        if let Some(target) = target {
            headers.insert("x-amz-target", HeaderValue::from_static(target));
        }
        let answer = aws.answer(&headers, body.as_bytes())?;
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    const SIMULATE: &str = "Action=SimulatePrincipalPolicy&PolicySourceArn=x&ResourceArns.member.1=r&\
                            ActionNames.member.1=secretsmanager%3APutSecretValue&ActionNames.member.2=kms%3ADecrypt";

    #[tokio::test]
    async fn what_is_nobodys_business_here_is_motos() {
        let aws = Aws::default();
        assert_eq!(asked(&aws, Some("secretsmanager.GetSecretValue"), "{}").await, None);
        assert_eq!(asked(&aws, None, "Action=GetCallerIdentity").await, None);
        assert!(aws.set("nothing", &json!(1)).is_err());
    }

    #[tokio::test]
    async fn what_is_denied_is_simulated_and_refused() {
        let aws = Aws::default();
        let (status, simulated) = asked(&aws, None, SIMULATE).await.unwrap();
        assert_eq!((status, simulated.matches(">allowed<").count()), (200, 2), "{simulated}");
        aws.set("deny", &json!(["secretsmanager:PutSecretValue"])).unwrap();
        let (_, simulated) = asked(&aws, None, SIMULATE).await.unwrap();
        assert!(simulated.contains(
            "<EvalDecision>implicitDeny</EvalDecision><EvalActionName>secretsmanager:PutSecretValue<"
        ));
        let (status, refused) = asked(&aws, Some("secretsmanager.PutSecretValue"), "{}").await.unwrap();
        assert!(status == 400 && refused.contains("AccessDeniedException"), "{refused}");
        aws.set("deny", &json!(["iam:SimulatePrincipalPolicy"])).unwrap();
        assert_eq!(asked(&aws, None, SIMULATE).await.unwrap().0, 403);
    }

    #[tokio::test]
    async fn a_key_that_is_disabled_is_shown_and_keeps_values_shut() {
        let aws = Aws::default();
        aws.set("key", &json!("Disabled")).unwrap();
        let mut members = Map::from_iter([("ARN".to_owned(), json!("a"))]);
        aws.complete("secretsmanager.DescribeSecret", &mut members);
        assert_eq!(members["KmsKeyId"], KEY);
        let described = asked(&aws, Some("TrentService.DescribeKey"), "{}").await.unwrap().1;
        assert!(described.contains(r#""KeyState":"Disabled""#), "{described}");
        let shut = asked(&aws, Some("secretsmanager.GetSecretValue"), "{}").await.unwrap();
        assert!(shut.0 == 400 && shut.1.contains("DecryptionFailure"), "{shut:?}");
        aws.set("key", &json!("Enabled")).unwrap();
        assert_eq!(asked(&aws, Some("secretsmanager.GetSecretValue"), "{}").await, None);
    }
}
