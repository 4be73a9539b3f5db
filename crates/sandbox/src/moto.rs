//! AWS Secrets Manager by moto, the Python library that AWS users test against, run as a server.
//!
//! moto speaks the real protocol and keeps the real versions and stages. Callers reach it through a proxy of ours, so
//! that their requests are recorded and faults can hit them like everybody else's. The proxy also brings answers into
//! AWS's own form where moto's differ: 400 for each of the caller's mistakes, no `null`, no
//! version without a label where only labelled ones are shown, the right media type.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use reqwest::Client;
use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::error::{Context, Error, Result};
use crate::front::forward;
use crate::process::{Launcher, Port, Process, direct_client, is_executable, wait_for_port};
use crate::vendors::{Aws, Copy};

/// Python starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running moto server.
pub(crate) struct Moto {
    base: String,
    region: String,
    client: Client,
    _port: Port,
}

impl Moto {
    /// Starts moto from a virtual environment.
    pub(crate) async fn start(launcher: &Launcher, program: &Path, region: &str, log: &Path) -> Result<Self> {
        let port = Port::reserve()?;
        let process = spawn(launcher, program, port.number(), log)?;
        let ready = wait_for_port(&process, port.number(), PATIENCE).await;
        ready.context(|| format!("moto does not start, see {}", log.display()))?;
        let base = format!("http://127.0.0.1:{}", port.number());
        Ok(Self { base, region: region.to_owned(), client: direct_client()?, _port: port })
    }

    /// Creates a secret that holds a plain string.
    pub(crate) async fn create_secret(&self, name: &str, value: &str) -> Result<()> {
        self.call("CreateSecret", &json!({"Name": name, "SecretString": value})).await.map(|_| ())
    }

    /// What a secret holds now.
    pub(crate) async fn copy(&self, name: &str) -> Result<Copy> {
        let current = self.call("GetSecretValue", &json!({"SecretId": name})).await?;
        let all = json!({"SecretId": name, "IncludeDeprecated": true, "MaxResults": 100});
        let versions = self.call("ListSecretVersionIds", &all).await?;
        let text = |key: &str| current[key].as_str().map(str::to_owned);
        Ok(Copy {
            value: text("SecretString"),
            version: text("VersionId").unwrap_or_default(),
            versions: versions["Versions"].as_array().map_or(0, Vec::len),
        })
    }

    /// The proxy before moto.
    pub(crate) fn router(&self, aws: Arc<Aws>) -> Router {
        Router::new().fallback(answer).with_state(Upstream {
            base: self.base.clone(),
            client: self.client.clone(),
            aws,
        })
    }

    async fn call(&self, operation: &str, input: &Value) -> Result<Value> {
        let failed = || format!("moto: {operation} failed");
        let scope = format!("Credential=sandbox/20260101/{}/secretsmanager/aws4_request", self.region);
        let response = self
            .client
            .post(&self.base)
            .header("x-amz-target", format!("secretsmanager.{operation}"))
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            // moto checks no signature; it reads the region from this header.
            .header(
                header::AUTHORIZATION,
                format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
            )
            .body(input.to_string())
            .send()
            .await
            .context(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(Error::new(format!("moto: {operation} was answered with {status}")));
        }
        response.json().await.context(failed)
    }
}

/// Where moto is: `PGROTATE_SANDBOX_VENV`, else the virtual environment that `make setup` makes.
pub(crate) fn program(repository: &Path) -> Result<PathBuf> {
    let environment = std::env::var_os("PGROTATE_SANDBOX_VENV")
        .map_or_else(|| repository.join("target/venv/sandbox"), PathBuf::from);
    let program = environment.join("bin/moto_server");
    if is_executable(&program) {
        return Ok(program);
    }
    Err(Error::new(format!("{} is missing: run `make setup`", program.display())))
}

fn spawn(launcher: &Launcher, program: &Path, port: u16, log: &Path) -> Result<Process> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let log = log.context(|| "cannot open moto's log".into())?;
    let also = log.try_clone().context(|| "cannot open moto's log".into())?;
    let mut command = launcher.command(program, Signal::KILL);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    command.stdout(Stdio::from(log)).stderr(Stdio::from(also));
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    Ok(launcher.spawn("moto", command, Signal::KILL)?.0)
}

#[derive(Clone)]
struct Upstream {
    base: String,
    client: Client,
    aws: Arc<Aws>,
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response<Body> {
    match answered(&upstream, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!("{}", error.chain());
            let mut response = Response::new(Body::from("moto does not answer"));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn answered(upstream: &Upstream, request: Request) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    // The recorder has read the body already, so its size is bounded.
    let body: Bytes =
        axum::body::to_bytes(body, usize::MAX).await.context(|| "a request broke off".into())?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if let Some(answer) = upstream.aws.answer(&parts.headers, &body) {
        return Ok(answer);
    }
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).map(str::to_owned);
    let url = format!("{}{path}", upstream.base);
    let answer = forward(&upstream.client, parts.method, &url, parts.headers, body).await;
    let (mut status, mut headers, mut body) = answer.context(|| "moto".into())?;
    upstream.aws.date(&mut headers);
    if let Some(target) = target
        && let Some(like_aws) = as_aws_answers(&body, |members| upstream.aws.complete(&target, members))
    {
        body = like_aws;
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        // `__type` says what is wrong; the status is 400 for all that the caller did.
        if status.is_client_error() {
            status = StatusCode::BAD_REQUEST;
        }
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A body as AWS itself has it: what has no value is left out, where moto writes `null`, and there are no members that
/// the service's description does not know. Of the versions only those with a staging label are described.
fn as_aws_answers(body: &[u8], complete: impl FnOnce(&mut Map<String, Value>)) -> Option<Bytes> {
    let mut members: Map<String, Value> = serde_json::from_slice(body).ok()?;
    members.retain(|name, value| !value.is_null() && name != "SecretVersionsToStages");
    if let Some(versions) = members.get_mut("VersionIdsToStages").and_then(Value::as_object_mut) {
        versions.retain(|_, labels| labels.as_array().is_none_or(|labels| !labels.is_empty()));
    }
    complete(&mut members);
    serde_json::to_vec(&members).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_form_of_aws() {
        let of = |body: &str| {
            as_aws_answers(body.as_bytes(), |_| {}).map(|body| String::from_utf8_lossy(&body).into_owned())
        };
        let moto = r#"{"Name": "n", "KmsKeyId": null, "SecretVersionsToStages": {"v": []}}"#;
        assert_eq!(of(moto).unwrap(), r#"{"Name":"n"}"#);
        assert_eq!(of("<html>"), None);
        let unlabelled = r#"{"VersionIdsToStages": {"a": ["AWSCURRENT"], "b": [], "c": ["AWSPREVIOUS"]}}"#;
        assert_eq!(
            of(unlabelled).unwrap(),
            r#"{"VersionIdsToStages":{"a":["AWSCURRENT"],"c":["AWSPREVIOUS"]}}"#
        );
    }
}
