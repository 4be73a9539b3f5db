//! Which specification speaks about a request, and the verdict.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::botocore::Service;
use super::differences::Difference;
use super::exchange::{Answer, Exchange};
use super::openapi::{Document, Operation};
use super::schema::judged;
use super::unspecified::Unspecified;

/// The vendors' specifications.
pub(crate) struct Specifications {
    documents: Vec<(&'static [&'static str], Document)>,
    services: Vec<Service>,
}

/// By what a request was judged, and found good.
pub(crate) enum Verdict {
    /// By this operation of a specification, but for these named differences.
    Specified(String, Vec<&'static Difference>),
    /// By an expectation of our own.
    Unspecified(&'static Unspecified),
}

/// Where the specifications are: `PGROTATE_SPECS`, else beside the repository. Relative paths count from the
/// repository's root.
pub(crate) fn folder() -> PathBuf {
    let named = std::env::var_os("PGROTATE_SPECS").filter(|folder| !folder.is_empty());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    repository.join(named.map_or_else(|| PathBuf::from("../shared/specs"), PathBuf::from))
}

impl Specifications {
    /// Reads them; `None` where the folder is not there. One that is not whole fails.
    pub(crate) fn load() -> Option<Self> {
        let folder = folder();
        if !folder.is_dir() {
            return None;
        }
        let read = |name: &str| -> Value {
            let path = folder.join(name);
            let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let azure: &[&str] = &["resource_manager"];
        Some(Self {
            documents: vec![
                (
                    azure,
                    Document::new(read("azure-postgresql-flexibleservers-2026-10-01.derived.json"), "", true),
                ),
                (azure, Document::new(read("azure-web-webapps-2025-05-01.derived.json"), "", true)),
                (
                    azure,
                    Document::new(read("azure-authorization-permissions-2022-04-01.derived.json"), "", true),
                ),
                (
                    &["key_vault"],
                    Document::new(read("azure-keyvault-secrets-2026-04-01.derived.json"), "", false),
                ),
                (&["github"], Document::new(read("github-actions-secrets.trimmed.json"), "", false)),
                (&["github"], Document::new(read("github-issue-comment.trimmed.json"), "", false)),
                (&["onepassword"], Document::new(read("1password-connect-1.7.1.openapi.json"), "v1", false)),
            ],
            services: vec![
                Service::new(read("aws-secretsmanager-2017-10-17.trimmed.json")),
                Service::new(read("aws-sts.trimmed.json")),
                Service::new(read("aws-iam-simulateprincipalpolicy.trimmed.json")),
            ],
        })
    }

    /// Judges a request. `earlier` are those before it.
    pub(crate) fn judge(&self, exchange: &Exchange, earlier: &[Exchange]) -> Result<Verdict, Vec<String>> {
        let mut complaints = headers(exchange);
        let verdict = if let Some((service, operation)) = self.service(exchange) {
            complaints.extend(service.judge(operation, exchange));
            Verdict::Specified(operation.to_owned(), Vec::new())
        } else if let Some(operation) = self.operation(exchange) {
            let (found, differences) = operation.judge(exchange);
            complaints.extend(found);
            Verdict::Specified(operation.id().to_owned(), differences)
        } else if let Some(kind) = Unspecified::of(exchange) {
            complaints.extend(kind.judge(exchange, earlier));
            Verdict::Unspecified(kind)
        } else {
            complaints
                .push("it is no operation that is specified, and none of the named exceptions".to_owned());
            return Err(complaints);
        };
        if complaints.is_empty() { Ok(verdict) } else { Err(complaints) }
    }

    /// Judges the answer to a request; gives the named differences that it needed.
    pub(crate) fn judge_answer(&self, exchange: &Exchange) -> Result<Vec<&'static Difference>, Vec<String>> {
        let Some(answer) = &exchange.answer else { return Err(vec!["there is no answer".to_owned()]) };
        let (complaints, differences) = if let Some((service, operation)) = self.service(exchange) {
            (service.judge_answer(operation, answer), Vec::new())
        } else if let Some(operation) = self.operation(exchange) {
            operation
                .judge_answer(answer)
                .unwrap_or_else(|| (undescribed(&exchange.system, answer), Vec::new()))
        } else if let Some(kind) = Unspecified::of(exchange) {
            (kind.judge_answer(exchange), Vec::new())
        } else {
            (Vec::new(), Vec::new())
        };
        let challenge = challenge(exchange, answer);
        let complaints: Vec<String> = complaints.into_iter().chain(challenge).collect();
        if complaints.is_empty() { Ok(differences) } else { Err(complaints) }
    }

    fn service(&self, exchange: &Exchange) -> Option<(&Service, &str)> {
        let mut all = self.services.iter().filter(|_| exchange.system == "aws");
        all.find_map(|service| Some((service, service.operation(exchange)?)))
    }

    fn operation(&self, exchange: &Exchange) -> Option<Operation<'_>> {
        let mut all =
            self.documents.iter().filter(|(systems, _)| systems.contains(&exchange.system.as_str()));
        all.find_map(|(_, document)| document.operation(exchange))
    }
}

/// Headers that a vendor wants with every request and no specification lists.
fn headers(exchange: &Exchange) -> Vec<String> {
    let header = |name: &str| exchange.message.header(name).unwrap_or_default();
    let bearer = header("authorization").starts_with("Bearer ");
    let mut complaints = Vec::new();
    let mut want = |right: bool, what: &str| complaints.extend((!right).then(|| what.to_owned()));
    match exchange.system.as_str() {
        // GitHub, "Getting started with the REST API".
        "github" => {
            want(bearer, "the token is missing");
            want(!header("user-agent").is_empty(), "User-Agent is missing");
            want(
                header("accept") == "application/vnd.github+json",
                "Accept is not application/vnd.github+json",
            );
            want(
                ["2022-11-28", "2026-03-10"].contains(&header("x-github-api-version")),
                "X-GitHub-Api-Version is none that GitHub supports",
            );
        }
        // The first request asks without token and body for which audience a token is wanted.
        "key_vault" if header("authorization").is_empty() => {
            want(exchange.message.text().is_empty(), "a body goes out before the vault has said who it is");
        }
        "resource_manager" | "key_vault" | "onepassword" | "app_service" => {
            want(bearer, "the token is missing")
        }
        "jira" => want(
            bearer || header("authorization").starts_with("Basic "),
            "neither a token nor user and password are there",
        ),
        // Signed, or as the operation has it.
        "aws" => {}
        // Who signs in has no token yet, and a webhook's is in its path.
        "sign_in" | "webhook" => {
            want(header("authorization").is_empty(), "there is a token where none belongs")
        }
        _ => {}
    }
    complaints
}

/// What an answer has against it that its specification leaves open.
fn undescribed(system: &str, answer: &Answer) -> Vec<String> {
    let schema = match system {
        // GitHub, "Troubleshooting the REST API": every operation can answer so.
        "github" => {
            r#"{"type": "object", "required": ["message", "documentation_url"], "properties":
                {"message": {"type": "string"}, "documentation_url": {"type": "string"}, "status": {"type": "string"},
                 "errors": {"type": "array"}}, "additionalProperties": false}"#
        }
        // Azure Resource Manager, "Common error response".
        "resource_manager" => {
            r#"{"type": "object", "required": ["error"], "properties":
                {"error": {"type": "object", "required": ["code", "message"]}}}"#
        }
        _ => return vec![format!("the status {} is not described", answer.status)],
    };
    let schema = serde_json::from_str(schema).unwrap();
    match answer.status {
        400..=599 => {
            answer.message.json().map_or_else(|complaint| vec![complaint], |body| judged(&schema, &body))
        }
        other => vec![format!("the status {other} is not described")],
    }
}

/// Key Vault's challenge names authority and resource.
fn challenge(exchange: &Exchange, answer: &Answer) -> Option<String> {
    if exchange.system != "key_vault" || exchange.message.header("authorization").is_some() {
        return None;
    }
    let text = answer.message.header("www-authenticate").unwrap_or_default();
    let right = answer.status == 401
        && text.starts_with("Bearer ")
        && text.contains("authorization=\"https://")
        && text.contains("resource=\"https://");
    (!right).then(|| "a request without token was not answered with a challenge".to_owned())
}
