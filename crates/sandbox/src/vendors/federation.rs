//! Tokens that somebody else issues and Entra trusts: GitHub's for a job, a cluster's for a service account.
//!
//! Like the sign-in service's own they have the shape of a JWT and nothing signs them: who takes one asks here whether
//! it was issued. What Entra trusts stands in the application's federated credentials, and each part of it is compared
//! to the letter.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::call::{Call, lock, random_guid, random_hex, reply};

/// Who issues the tokens of GitHub's jobs.
const GITHUB: &str = "https://token.actions.githubusercontent.com";
/// The job's subject in the sandbox.
const JOB: &str = "repo:mindwell/backend:ref:refs/heads/main";
/// Who issues a cluster's.
const CLUSTER: &str =
    "https://germanywestcentral.oic.prod-aks.azure.com/00000000-0000-0000-0000-0000000000aa/";
/// The service account's subject.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:operations:pgrotate";
/// Entra's name towards both.
const EXCHANGE: &str = "api://AzureADTokenExchange";
/// How long a job's token is good.
const JOB_MINUTES: i64 = 5;
/// How long a service account's is; a cluster renews it long before, the sandbox does not.
const SERVICE_ACCOUNT_HOURS: i64 = 24;

/// The issuers.
pub(crate) struct Federation {
    job_token: String,
    state: Mutex<Issued>,
}

struct Issued {
    tokens: HashSet<String>,
    job: String,
    /// Whether time has run over all that has been issued.
    expired: bool,
}

/// Why Entra does not take a token: its code, and its text.
pub(super) type Mistrust = (u32, String);

impl Federation {
    /// Issuers that take this token for a job's.
    pub(crate) fn new(job_token: &str) -> Self {
        let issued = Issued { tokens: HashSet::new(), job: JOB.to_owned(), expired: false };
        Self { job_token: job_token.to_owned(), state: Mutex::new(issued) }
    }

    /// The address at which a job asks for its token, below a base URL, as GitHub writes it.
    pub(crate) fn job_url(base: &str) -> String {
        format!("{base}/18//idtoken/{}/{}?api-version=2.0", random_guid(), random_guid())
    }

    /// A token for a service account, as a cluster puts it into a file.
    pub(crate) fn service_account_token(&self) -> String {
        let life = SignedDuration::from_hours(SERVICE_ACCOUNT_HOURS);
        self.issue(CLUSTER, SERVICE_ACCOUNT, EXCHANGE, life)
    }

    /// The HTTP interface for jobs.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// Puts the issuers into a state that a test wants to see handled.
    pub(super) fn set(&self, what: &str, value: &Value) -> Result<(), String> {
        let mut state = lock(&self.state);
        match what {
            "job" => state.job = value.as_str().ok_or("job takes a subject")?.to_owned(),
            "assertions_expired" => {
                state.expired = value.as_bool().ok_or("assertions_expired takes true or false")?;
            }
            other => return Err(format!("sign_in can't set {other:?}")),
        }
        Ok(())
    }

    fn issue(&self, issuer: &str, subject: &str, audience: &str, life: SignedDuration) -> String {
        let now = Timestamp::now();
        let claims = json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience,
            "jti": random_guid(),
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": (now + life).as_second(),
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = json!({"typ": "JWT", "alg": "RS256", "kid": random_hex(20)});
        let token = format!("{}.{}.{}", encode(&head), encode(&claims), random_hex(256));
        lock(&self.state).tokens.insert(token.clone());
        token
    }

    /// Checks a token that speaks for an application, as Entra does.
    pub(super) fn check(&self, token: &str) -> Result<(), Mistrust> {
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
            .and_then(|claims| serde_json::from_slice::<Value>(&claims).ok())
            .ok_or_else(|| (50027, "JWT token is invalid or malformed.".to_owned()))?;
        let state = lock(&self.state);
        let says = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
        let (issuer, subject, audience) = (says("iss"), says("sub"), says("aud"));
        let nothing = |part: &str, value: &str| {
            format!("No matching federated identity record found for presented assertion {part} '{value}'.")
        };
        let trusted = match issuer.as_str() {
            GITHUB => JOB,
            CLUSTER => SERVICE_ACCOUNT,
            _ => return Err((700_211, nothing("issuer", &issuer))),
        };
        if !state.tokens.contains(token) {
            let text = "Client assertion failed signature validation.";
            return Err((700_027, text.to_owned()));
        }
        if subject != trusted {
            return Err((700_213, nothing("subject", &subject)));
        }
        if audience != EXCHANGE {
            return Err((700_212, nothing("audience", &audience)));
        }
        let now = Timestamp::now().as_second();
        let good = |name: &str| claims[name].as_i64().unwrap_or_default();
        if state.expired || now < good("nbf") || now >= good("exp") {
            let text = "Client assertion is not within its valid time range.";
            return Err((700_024, text.to_owned()));
        }
        Ok(())
    }
}

async fn serve(State(service): State<Arc<Federation>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    if call.method.as_str() != "GET" || call.query("api-version").is_none() {
        return reply(400, json!({"message": "The request is invalid."}));
    }
    if call.bearer() != Some(&service.job_token) {
        return reply(401, json!({"message": "Unauthorized"}));
    }
    // Without an audience it is the owner's address.
    let audience = call.query("audience").unwrap_or("https://github.com/mindwell");
    let job = lock(&service.state).job.clone();
    let token = service.issue(GITHUB, &job, audience, SignedDuration::from_mins(JOB_MINUTES));
    reply(200, json!({"count": token.len(), "value": token}))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, serve};
    use super::*;

    fn code(federation: &Federation, token: &str) -> Option<u32> {
        federation.check(token).err().map(|(code, _)| code)
    }

    #[test]
    fn every_part_of_a_token_is_compared() {
        let federation = Federation::new("job");
        let minute = SignedDuration::from_mins(1);
        let issue =
            |issuer: &str, subject: &str, audience: &str| federation.issue(issuer, subject, audience, minute);
        assert_eq!(code(&federation, &federation.service_account_token()), None);
        assert_eq!(code(&federation, &issue(GITHUB, JOB, EXCHANGE)), None);
        assert_eq!(code(&federation, &issue("https://issuer.example", JOB, EXCHANGE)), Some(700_211));
        assert_eq!(code(&federation, &issue(GITHUB, SERVICE_ACCOUNT, EXCHANGE)), Some(700_213));
        assert_eq!(code(&federation, &issue(GITHUB, JOB, "https://github.com/mindwell")), Some(700_212));
        let past = federation.issue(GITHUB, JOB, EXCHANGE, -minute);
        assert_eq!(code(&federation, &past), Some(700_024));
        let elsewhere = Federation::new("job").issue(GITHUB, JOB, EXCHANGE, minute);
        assert_eq!(code(&federation, &elsewhere), Some(700_027), "nobody here has issued it");
        assert_eq!(code(&federation, "e30.e30"), Some(700_211));
        assert_eq!(code(&federation, "no token"), Some(50027));
    }

    #[tokio::test]
    async fn a_job_gets_its_token_and_nobody_else() {
        let federation = Arc::new(Federation::new("job"));
        let site = serve(federation.clone().router()).await;
        let url = Federation::job_url("");
        let wanted = format!("{url}&audience=api%3A%2F%2FAzureADTokenExchange");
        let given = answer(site.request("GET", &wanted).bearer_auth("job")).await.expect(200);
        assert_eq!(code(&federation, given.body["value"].as_str().unwrap()), None);
        let other = answer(site.request("GET", &url).bearer_auth("job")).await.expect(200);
        assert_eq!(code(&federation, other.body["value"].as_str().unwrap()), Some(700_212));
        answer(site.request("GET", &wanted).bearer_auth("other")).await.expect(401);
        federation.set("job", &json!("repo:mindwell/backend:pull_request")).unwrap();
        let pull = answer(site.request("GET", &wanted).bearer_auth("job")).await.expect(200);
        assert_eq!(code(&federation, pull.body["value"].as_str().unwrap()), Some(700_213));
    }
}
