//! Questions to the services around Secrets Manager: who we are (STS), what we may do (IAM), how the key is (KMS).
//!
//! Three questions in all, so they are signed and sent here, over the shared HTTP client, instead of by three more SDKs.
//! They are asked for a check only and answered within seconds or not at all: what they would tell is *unseen* then.
//!
//! Where a service is: its variable of the SDK (`AWS_ENDPOINT_URL_STS`, `_IAM`, `_KMS`), else `[aws] endpoint` if that
//! is this machine (whoever stands in for AWS there stands in for all of it), else `AWS_ENDPOINT_URL`, else AWS.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_xml::decode::{Document, ScopedDecoder, try_data};
use jiff::Timestamp;
use pgrotate_core::{Error, Kind, Result};
use reqwest::Url;
use serde_json::Value;

use crate::clocks;
use crate::http::{self, Effect};
use crate::shared::Shared;

/// How long a question may take that a rotation does not depend on.
const PATIENCE: Duration = Duration::from_secs(3);
const QUERY: &str = "application/x-www-form-urlencoded";

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Sts,
    Iam,
    Kms,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Iam => "iam",
            Self::Kms => "kms",
        }
    }
}

/// Who asks, and where.
pub(super) struct Asker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) credentials: SharedCredentialsProvider,
    pub(super) region: String,
}

/// What IAM's simulator says of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) action: String,
    /// `allowed`, `explicitDeny` or `implicitDeny`.
    pub(super) verdict: String,
    /// Whether it depends on something that the simulator was not told.
    pub(super) uncertain: bool,
}

impl Asker<'_> {
    /// The ARN of the identity; everybody may ask for that.
    ///
    /// # Errors
    /// When there is no answer that could be read.
    pub(super) async fn caller(&self) -> Result<String> {
        let operation = "ask AWS who we are";
        let body = "Action=GetCallerIdentity&Version=2011-06-15".to_owned();
        let said = self.send(Service::Sts, None, body, operation).await?;
        arn_of(&said).ok_or_else(|| senseless(operation))
    }

    /// What the identity's own policies say of these actions on one resource.
    ///
    /// # Errors
    /// [`Kind::Forbidden`] where asking itself is not allowed; when there is no answer that could be read.
    pub(super) async fn simulate(
        &self,
        principal: &str,
        actions: &[&str],
        resource: &str,
    ) -> Result<Vec<Decision>> {
        let operation = "ask AWS what the identity may do";
        let said = self.send(Service::Iam, None, simulation(principal, actions, resource), operation).await?;
        decisions_of(&said).ok_or_else(|| senseless(operation))
    }

    /// A key's state, as `DescribeKey` has it: `Enabled`, `Disabled`, `PendingDeletion`.
    ///
    /// # Errors
    /// [`Kind::Forbidden`] where asking is not allowed; when there is no answer that could be read.
    pub(super) async fn key_state(&self, key: &str) -> Result<String> {
        let operation = "ask AWS about the KMS key";
        let body = serde_json::json!({ "KeyId": key }).to_string();
        let said = self.send(Service::Kms, Some("TrentService.DescribeKey"), body, operation).await?;
        let said: Value = serde_json::from_str(&said).map_err(|_| senseless(operation))?;
        let state = said["KeyMetadata"]["KeyState"].as_str().filter(|state| is_word(state));
        state.map(str::to_owned).ok_or_else(|| senseless(operation))
    }

    async fn send(
        &self,
        service: Service,
        target: Option<&str>,
        body: String,
        operation: &str,
    ) -> Result<String> {
        let (url, region) = self.place(service)?;
        let mut request = self.shared.http.post(url.clone()).timeout(PATIENCE);
        let media = if target.is_some() { "application/x-amz-json-1.1" } else { QUERY };
        let mut headers = vec![("content-type", media)];
        headers.extend(target.map(|target| ("x-amz-target", target)));
        for (name, value) in self.signature(service, &url, &region, &headers, &body, operation).await? {
            request = request.header(name, value);
        }
        request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let lost = |error: reqwest::Error| http::unanswered(&error, Effect::Reads, operation);
        let response = request.body(body).send().await.map_err(lost)?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        self.shared.clocks.hear_header(clocks::AWS, date, self.shared.clock.now());
        let status = response.status();
        let said = response.text().await.map_err(lost)?;
        match status.is_success() {
            true => Ok(said),
            // The code is searched for and not shown: only these two mean something to us.
            false if said.contains("AccessDenied") => Err(Error::new(Kind::Forbidden, operation)),
            false if said.contains("NoSuchEntity") => Err(Error::new(Kind::NotFound, operation)),
            false => Err(Error::new(http::kind_of(status), operation)
                .because(format!("AWS answered {}", status.as_u16()))),
        }
    }

    /// The headers that sign a request.
    async fn signature(
        &self,
        service: Service,
        url: &Url,
        region: &str,
        headers: &[(&'static str, &str)],
        body: &str,
        operation: &str,
    ) -> Result<Vec<(String, String)>> {
        let no = || Error::new(Kind::Unauthenticated, operation).because("the request can't be signed");
        let credentials = self.credentials.provide_credentials().await.map_err(|_| no())?;
        let identity = credentials.into();
        let since = self.shared.clock.now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service.name())
            .time(SystemTime::UNIX_EPOCH + since)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| no())?;
        let body = SignableBody::Bytes(body.as_bytes());
        let request = SignableRequest::new("POST", url.as_str(), headers.iter().copied(), body);
        let signed = sign(request.map_err(|_| no())?, &parameters.into()).map_err(|_| no())?;
        let signed = signed.output().headers();
        Ok(signed.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A service's address, and the region that its requests are signed for.
    fn place(&self, service: Service) -> Result<(Url, String)> {
        let own = own_place(service, &self.region);
        let variable = |name: &str| self.shared.credentials.plain(name);
        let stand_in = || {
            let configured = self.shared.vendors.aws.endpoint.clone()?;
            let url = Url::parse(&configured).ok()?;
            let here = http::is_localhost(url.host_str()?) || url.host_str()?.starts_with("127.");
            here.then_some(configured)
        };
        let named = variable(&format!("AWS_ENDPOINT_URL_{}", service.name().to_ascii_uppercase()));
        let placed = named.or_else(stand_in).or_else(|| variable("AWS_ENDPOINT_URL"));
        Ok((http::endpoint(&placed.unwrap_or(own.0))?, own.1))
    }
}

/// The form of a question to the simulator.
fn simulation(principal: &str, actions: &[&str], resource: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", "SimulatePrincipalPolicy").append_pair("Version", "2010-05-08");
    form.append_pair("PolicySourceArn", principal).append_pair("ResourceArns.member.1", resource);
    for (number, action) in (1..).zip(actions) {
        form.append_pair(&format!("ActionNames.member.{number}"), action);
    }
    form.finish()
}

/// AWS's own address of a service for a region (AWS, "AWS service endpoints"). IAM is one for each partition.
fn own_place(service: Service, region: &str) -> (String, String) {
    let (suffix, iam, home) = match region {
        _ if region.starts_with("cn-") => ("amazonaws.com.cn", "iam.cn-north-1", "cn-north-1"),
        _ if region.starts_with("us-gov-") => ("amazonaws.com", "iam.us-gov", "us-gov-west-1"),
        _ => ("amazonaws.com", "iam", "us-east-1"),
    };
    match service {
        Service::Iam => (format!("https://{iam}.{suffix}"), home.to_owned()),
        other => (format!("https://{}.{region}.{suffix}", other.name()), region.to_owned()),
    }
}

fn senseless(operation: &str) -> Error {
    Error::new(Kind::Corrupt, operation).because("AWS's answer makes no sense")
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `GetCallerIdentityResult/Arn`.
fn arn_of(said: &str) -> Option<String> {
    let mut document = Document::new(said);
    let mut arn = None;
    within(&mut document.root_element().ok()?, "GetCallerIdentityResult", &mut |result| {
        within(result, "Arn", &mut |tag| arn = text(tag));
    });
    let odd = |letter: char| letter.is_control() || letter.is_whitespace();
    arn.filter(|arn| arn.starts_with("arn:") && arn.len() <= 2048 && !arn.contains(odd))
}

/// `SimulatePrincipalPolicyResult/EvaluationResults/member`, each with its action and decision.
fn decisions_of(said: &str) -> Option<Vec<Decision>> {
    let mut document = Document::new(said);
    let mut decisions = Vec::new();
    within(&mut document.root_element().ok()?, "SimulatePrincipalPolicyResult", &mut |result| {
        within(result, "EvaluationResults", &mut |list| {
            within(list, "member", &mut |member| decisions.push(decision_of(member)));
        });
    });
    // An answer without any would let everything pass.
    (!decisions.is_empty()).then_some(decisions)
}

fn decision_of(member: &mut ScopedDecoder<'_, '_>) -> Decision {
    let mut decision = Decision::default();
    while let Some(mut tag) = member.next_tag() {
        match tag.start_el().local() {
            "EvalActionName" => decision.action = text(&mut tag).unwrap_or_default(),
            "EvalDecision" => decision.verdict = text(&mut tag).unwrap_or_default(),
            "MissingContextValues" => decision.uncertain = tag.next_tag().is_some(),
            _ => {}
        }
    }
    decision
}

/// Goes through the elements of this name.
fn within(parent: &mut ScopedDecoder<'_, '_>, name: &str, act: &mut dyn FnMut(&mut ScopedDecoder<'_, '_>)) {
    while let Some(mut tag) = parent.next_tag() {
        if tag.start_el().local() == name {
            act(&mut tag);
        }
    }
}

fn text(tag: &mut ScopedDecoder<'_, '_>) -> Option<String> {
    try_data(tag).ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As AWS documents it (IAM API Reference, "`SimulatePrincipalPolicy`", examples), shortened.
    const SIMULATED: &str = r#"<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
  <SimulatePrincipalPolicyResult>
    <IsTruncated>false</IsTruncated>
    <EvaluationResults>
      <member>
        <MatchedStatements>
          <member>
            <SourcePolicyId>SimulatePrincipalPolicy_p</SourcePolicyId>
            <EndPosition><Column>4</Column><Line>11</Line></EndPosition>
          </member>
        </MatchedStatements>
        <MissingContextValues/>
        <EvalResourceName>arn:aws:secretsmanager:eu-central-1:123456789012:secret:x-AbCdEf</EvalResourceName>
        <EvalDecision>allowed</EvalDecision>
        <EvalActionName>secretsmanager:PutSecretValue</EvalActionName>
      </member>
      <member>
        <MatchedStatements/>
        <MissingContextValues><member>aws:PrincipalTag/team</member></MissingContextValues>
        <EvalResourceName>*</EvalResourceName>
        <EvalDecision>implicitDeny</EvalDecision>
        <EvalActionName>kms:Decrypt</EvalActionName>
      </member>
    </EvaluationResults>
  </SimulatePrincipalPolicyResult>
  <ResponseMetadata><RequestId>1cdb5b0a-4c15-11e5-b121-bd8c7EXAMPLE</RequestId></ResponseMetadata>
</SimulatePrincipalPolicyResponse>"#;

    #[test]
    fn answers_are_read_as_aws_documents_them() {
        let decision = |action: &str, verdict: &str, uncertain| Decision {
            action: action.into(),
            verdict: verdict.into(),
            uncertain,
        };
        let wanted = [
            decision("secretsmanager:PutSecretValue", "allowed", false),
            decision("kms:Decrypt", "implicitDeny", true),
        ];
        assert_eq!(decisions_of(SIMULATED).unwrap(), wanted);
        let caller = |arn: &str| {
            arn_of(&format!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
                 <Arn>{arn}</Arn><UserId>AIDA</UserId><Account>1</Account></GetCallerIdentityResult>\
                 </GetCallerIdentityResponse>"
            ))
        };
        let arn = "arn:aws:sts::123456789012:assumed-role/rotation/session";
        assert_eq!(caller(arn).as_deref(), Some(arn));
        assert_eq!(caller("whoever\n"), None);
        for nonsense in ["", "{}", "<a>", "<SimulatePrincipalPolicyResponse/>"] {
            assert_eq!((arn_of(nonsense), decisions_of(nonsense)), (None, None), "{nonsense}");
        }
    }

    #[test]
    fn each_partition_has_places_of_its_own() {
        let place = |service, region| own_place(service, region).0;
        assert_eq!(place(Service::Sts, "eu-central-1"), "https://sts.eu-central-1.amazonaws.com");
        assert_eq!(place(Service::Kms, "cn-north-1"), "https://kms.cn-north-1.amazonaws.com.cn");
        assert_eq!(place(Service::Iam, "cn-northwest-1"), "https://iam.cn-north-1.amazonaws.com.cn");
        assert_eq!(place(Service::Iam, "us-gov-east-1"), "https://iam.us-gov.amazonaws.com");
        let global = ("https://iam.amazonaws.com".to_owned(), "us-east-1".to_owned());
        assert_eq!(own_place(Service::Iam, "eu-central-1"), global);
    }
}
