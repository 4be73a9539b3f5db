//! A GitHub App and its one installation, on the owner of everything here.
//!
//! The App's proofs are verified with its public key, as GitHub does; tokens of the installation end after an hour and
//! carry its permissions. Their form is the one that GitHub has given them in 2026: with a JWT inside, and long.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::super::call::{Call, random_hex, reply};
use super::{Failure, OWNER, Outcome, REPOSITORIES};

/// The App's id.
pub(crate) const ID: u64 = 1_204_901;
/// Its other name.
const CLIENT_ID: &str = "Iv23lisandboxpgrotate";
/// The installation's id.
const INSTALLATION: u64 = 61_000_007;
/// The longest time that GitHub lets a proof be good for.
const PROOF_SECONDS_MAX: i64 = 600;

/// The App.
pub(super) struct App {
    key: Vec<u8>,
    /// What the installation may do: `secrets` → `write`.
    permissions: BTreeMap<String, String>,
    removed: bool,
    suspended: bool,
    tokens: BTreeMap<String, Timestamp>,
}

impl App {
    /// With this public key, and every permission that the runbook needs.
    pub(super) fn new(key: &[u8]) -> Self {
        let permissions = [
            ("actions", "read"),
            ("environments", "write"),
            ("issues", "write"),
            ("metadata", "read"),
            ("organization_secrets", "write"),
            ("secrets", "write"),
        ];
        let permissions = permissions.map(|(name, level)| (name.to_owned(), level.to_owned()));
        Self {
            key: key.to_vec(),
            permissions: permissions.into(),
            removed: false,
            suspended: false,
            tokens: BTreeMap::new(),
        }
    }

    /// Whether a token is one of the installation's, and has not ended.
    pub(super) fn holds(&self, token: &str) -> bool {
        let alive = self.tokens.get(token).is_some_and(|end| *end > Timestamp::now());
        alive && !self.removed && !self.suspended
    }

    /// Whether the installation has what an endpoint wants: `secrets=write; administration=write` is one of both.
    pub(super) fn may(&self, wanted: &str, denied: &BTreeSet<String>) -> bool {
        wanted.is_empty()
            || wanted.split("; ").any(|one| {
                let (name, level) = one.split_once('=').unwrap_or((one, "read"));
                let held = self.permissions.get(name).map(String::as_str);
                !denied.contains(one) && (held == Some("write") || held == Some(level))
            })
    }

    /// Puts the App into a state that a test wants to see handled; says whether it has one of that name.
    pub(super) fn set(&mut self, what: &str, value: &Value) -> Result<bool, String> {
        let truth = || value.as_bool().ok_or_else(|| format!("{what} takes true or false"));
        match what {
            "app_permissions" => {
                let read = serde_json::from_value(value.clone());
                self.permissions = read.map_err(|_| "app_permissions takes names with levels".to_owned())?;
            }
            "app_removed" => self.removed = truth()?,
            "app_suspended" => self.suspended = truth()?,
            "app_tokens_expired" => self.tokens.clear(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The endpoints that the App itself uses; none for any other path.
    pub(super) fn serve(&mut self, call: &Call, path: &[&str], base: &str) -> Option<Outcome> {
        let read = call.method.as_str() == "GET";
        let known: fn(&mut Self, &[&str], &str) -> Outcome = match path {
            ["app"] if read => |app, _, base| Ok(reply(200, app.itself(base))),
            ["app", "installations"] if read => |app, _, base| {
                let all = if app.removed { Vec::new() } else { vec![app.installation(base)] };
                Ok(reply(200, json!(all)))
            },
            ["app", "installations", _] if read => |app, path, base| app.by_id(path[2], base),
            ["repos", _, _, "installation"] | ["orgs" | "users", _, "installation"] if read => Self::found,
            ["app", "installations", _, "access_tokens"] if call.method.as_str() == "POST" => Self::token,
            _ => return None,
        };
        Some(self.verify(call).and_then(|()| known(self, path, base)))
    }

    /// Checks the proof that a request carries.
    fn verify(&self, call: &Call) -> Result<(), Failure> {
        let undecodable = || Failure::new(401, "A JSON web token could not be decoded");
        let proof = call.bearer().ok_or_else(undecodable)?;
        let (signed, signature) = proof.rsplit_once('.').ok_or_else(undecodable)?;
        let (head, claims) = signed.split_once('.').ok_or_else(undecodable)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| undecodable());
        let read = |part: &str| serde_json::from_slice::<Value>(&bytes(part)?).map_err(|_| undecodable());
        let (head, claims) = (read(head)?, read(claims)?);
        let issuer =
            claims["iss"].as_str().map(str::to_owned).or_else(|| Some(claims["iss"].as_u64()?.to_string()));
        if issuer.is_none_or(|issuer| issuer != ID.to_string() && issuer != CLIENT_ID) {
            return Err(Failure::new(404, "Integration not found"));
        }
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.key);
        if head["alg"] != "RS256" || key.verify(signed.as_bytes(), &bytes(signature)?).is_err() {
            return Err(undecodable());
        }
        let now = Timestamp::now().as_second();
        match (claims["iat"].as_i64(), claims["exp"].as_i64()) {
            (Some(begin), _) if begin > now => Err(Failure::new(
                401,
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            )),
            (Some(_), Some(end)) if end > now + PROOF_SECONDS_MAX => {
                Err(Failure::new(401, "'Expiration time' claim ('exp') is too far in the future"))
            }
            (Some(_), Some(end)) if end > now => Ok(()),
            _ => Err(Failure::new(
                401,
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the \
                 assertion expires",
            )),
        }
    }

    fn itself(&self, base: &str) -> Value {
        json!({
            "id": ID,
            "client_id": CLIENT_ID,
            "slug": "pgrotate",
            "node_id": "A_kwHOAoDeQc4AEmKl",
            "name": "pgrotate",
            "owner": {"login": OWNER, "id": 42_000_001, "type": "Organization"},
            "external_url": super::site(base),
            "html_url": format!("{}/apps/pgrotate", super::site(base)),
            "permissions": self.permissions,
            "events": [],
        })
    }

    fn installation(&self, base: &str) -> Value {
        json!({
            "id": INSTALLATION,
            "app_id": ID,
            "client_id": CLIENT_ID,
            "app_slug": "pgrotate",
            "account": {"login": OWNER, "id": 42_000_001, "type": "Organization"},
            "target_id": 42_000_001,
            "target_type": "Organization",
            "repository_selection": "all",
            "access_tokens_url": format!("{base}/app/installations/{INSTALLATION}/access_tokens"),
            "permissions": self.permissions,
            "events": [],
            "suspended_at": self.suspended.then(super::now_text),
        })
    }

    fn by_id(&self, id: &str, base: &str) -> Outcome {
        if self.removed || id != INSTALLATION.to_string() {
            return Err(Failure::not_found());
        }
        Ok(reply(200, self.installation(base)))
    }

    /// The installation on a repository, an organisation or a user.
    fn found(&mut self, path: &[&str], base: &str) -> Outcome {
        let known = |name: &str| REPOSITORIES.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let here = match path {
            ["repos", owner, name, _] => owner.eq_ignore_ascii_case(OWNER) && known(name),
            ["orgs" | "users", owner, _] => owner.eq_ignore_ascii_case(OWNER),
            _ => false,
        };
        if here { self.by_id(&INSTALLATION.to_string(), base) } else { Err(Failure::not_found()) }
    }

    fn token(&mut self, path: &[&str], _base: &str) -> Outcome {
        if self.removed || path.get(2) != Some(&INSTALLATION.to_string().as_str()) {
            return Err(Failure::not_found());
        }
        if self.suspended {
            return Err(Failure::new(403, "This installation has been suspended"));
        }
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let claims = json!({"jti": random_hex(16), "sub": INSTALLATION}).to_string();
        let head = r#"{"alg":"RS256","typ":"JWT"}"#.to_owned();
        let token = format!("ghs_{ID}_{}.{}.{}", part(head), part(claims), random_hex(128));
        let end = Timestamp::now() + SignedDuration::from_hours(1);
        self.tokens.insert(token.clone(), end);
        let answer = json!({
            "token": token,
            "expires_at": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "permissions": self.permissions,
            "repository_selection": "all",
        });
        Ok(reply(201, answer))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::OnceLock;

    use ring::rand::SystemRandom;
    use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
    use rustls::pki_types::PrivatePkcs1KeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::super::super::call::lock;
    use super::super::super::testing::{Answer, Sandbox};
    use super::*;

    const TOKENS: &str = "/app/installations/61000007/access_tokens";
    const BACKEND: &str = "/repos/mindwell/backend";

    /// The private key of the App, as the sandbox makes it.
    fn app_key() -> &'static str {
        static KEY: OnceLock<String> = OnceLock::new();
        KEY.get_or_init(|| {
            let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output();
            String::from_utf8(made.expect("openssl is installed, as `make setup` sees to").stdout).unwrap()
        })
    }

    fn sandbox() -> Sandbox {
        let sandbox = Sandbox::new();
        let key = crate::app_key::public_part(app_key().as_bytes()).unwrap();
        lock(&sandbox.vendors.github.state).app.key = key;
        sandbox
    }

    /// A proof from so many seconds ago to so many from now.
    fn proof(issuer: &Value, ago: i64, ahead: i64) -> String {
        let der = PrivatePkcs1KeyDer::from_pem_slice(app_key().as_bytes()).unwrap();
        let key = RsaKeyPair::from_der(der.secret_pkcs1_der()).unwrap();
        let now = Timestamp::now().as_second();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({"iat": now - ago, "exp": now + ahead, "iss": issuer});
        let signed = format!("{}.{}", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn good() -> String {
        proof(&json!(ID.to_string()), 60, 540)
    }

    async fn token(sandbox: &Sandbox) -> String {
        let given = sandbox.github_as(&good(), "POST", TOKENS, None).await.expect(201);
        given.body["token"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_proof_is_checked_as_github_checks_it() {
        let sandbox = sandbox();
        let ask = async |proof: &str| -> Answer { sandbox.github_as(proof, "GET", "/app", None).await };
        for issuer in [json!(ID), json!(ID.to_string()), json!(CLIENT_ID)] {
            assert_eq!(ask(&proof(&issuer, 60, 540)).await.expect(200).body["slug"], "pgrotate");
        }
        let says = async |proof: &str, status: u16| -> String {
            ask(proof).await.expect(status).body["message"].as_str().unwrap().to_owned()
        };
        assert_eq!(says(&proof(&json!("7"), 60, 540), 404).await, "Integration not found");
        assert!(says(&proof(&json!(ID), 60, 700), 401).await.contains("too far in the future"));
        assert!(says(&proof(&json!(ID), 600, -1), 401).await.contains("must be a numeric value"));
        assert!(says(&proof(&json!(ID), -60, 540), 401).await.contains("'iat'"));
        let mut damaged = good();
        damaged.replace_range(damaged.len() - 8.., "AAAAAAAA");
        assert!(says(&damaged, 401).await.contains("could not be decoded"));
        assert!(says("pat", 401).await.contains("could not be decoded"), "a token is no proof");
    }

    #[tokio::test]
    async fn an_installations_token_has_its_permissions_and_ends() {
        let sandbox = sandbox();
        let found =
            sandbox.github_as(&good(), "GET", &format!("{BACKEND}/installation"), None).await.expect(200);
        assert_eq!(found.body["id"], INSTALLATION);
        sandbox.github_as(&good(), "GET", "/repos/mindwell/none/installation", None).await.expect(404);
        let token = token(&sandbox).await;
        assert!(token.starts_with("ghs_") && token.len() > 100);
        let key = format!("{BACKEND}/actions/secrets/public-key");
        let seen = sandbox.github_as(&token, "GET", &key, None).await.expect(200);
        assert_eq!(seen.header("x-accepted-github-permissions"), "secrets=read");
        assert_eq!(seen.header("x-oauth-scopes"), "");
        sandbox.set("github", "app_permissions", json!({"metadata": "read", "secrets": "read"}));
        sandbox.github_as(&token, "GET", &key, None).await.expect(200);
        let write = format!("{BACKEND}/actions/secrets/X");
        let refused = sandbox.github_as(&token, "PUT", &write, Some(json!({}))).await.expect(403);
        assert_eq!(refused.body["message"], "Resource not accessible by integration");
        sandbox.set("github", "app_tokens_expired", Value::Null);
        sandbox.github_as(&token, "GET", &key, None).await.expect(401);
    }

    #[tokio::test]
    async fn an_installation_can_be_suspended_or_removed() {
        let sandbox = sandbox();
        let token = token(&sandbox).await;
        sandbox.set("github", "app_suspended", json!(true));
        sandbox.github_as(&token, "GET", BACKEND, None).await.expect(401);
        let refused = sandbox.github_as(&good(), "POST", TOKENS, None).await.expect(403);
        assert!(refused.body["message"].as_str().unwrap().contains("suspended"));
        sandbox.set("github", "app_suspended", json!(false));
        sandbox.set("github", "app_removed", json!(true));
        sandbox.github_as(&good(), "POST", TOKENS, None).await.expect(404);
        sandbox.github_as(&good(), "GET", &format!("{BACKEND}/installation"), None).await.expect(404);
    }
}
