//! Managed identities: what an App Service and a virtual machine are told of who they are.
//!
//! Both interfaces are plain HTTP, for they exist inside the machine alone. Both ask for a header that no browser and
//! no naive proxy sends; App Service's is a secret of the app's present start.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::azure_sign_in::{AzureSignIn, TOKEN_SECONDS};
use super::call::{Call, lock, reply};

/// The identity of the sandbox's machine.
pub(crate) struct ManagedIdentity {
    sign_in: Arc<AzureSignIn>,
    header: String,
    /// Whether there is one.
    assigned: Mutex<bool>,
}

impl ManagedIdentity {
    /// An identity that is the service principal's, so that it has its rights.
    pub(crate) fn new(sign_in: Arc<AzureSignIn>, header: &str) -> Self {
        Self { sign_in, header: header.to_owned(), assigned: Mutex::new(true) }
    }

    /// The HTTP interfaces: `/msi/token` as an App Service's, `/metadata/…` as a virtual machine's.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// Takes the identity away, or gives it back.
    pub(super) fn assign(&self, assigned: bool) {
        *lock(&self.assigned) = assigned;
    }

    fn is_assigned(&self, call: &Call) -> bool {
        let named = call.query("client_id");
        *lock(&self.assigned) && named.is_none_or(|client| client == self.sign_in.client_id())
    }

    fn app_service(&self, call: &Call) -> Response {
        let refused = |status: u16, message: &str| {
            reply(
                status,
                json!({"statusCode": status, "message": message, "correlationId": super::call::random_guid()}),
            )
        };
        if call.header("x-identity-header") != Some(&self.header) {
            return refused(401, "The request is not authorized.");
        }
        if call.query("api-version") != Some("2019-08-01") {
            return refused(400, "The api-version is missing or not supported.");
        }
        let Some(token) = call.query("resource").and_then(|resource| self.sign_in.token_of(resource)) else {
            return refused(400, "The resource is not known in the tenant.");
        };
        if !self.is_assigned(call) {
            let text = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
            return refused(400, text);
        }
        let mut answer = self.answer(call, &token);
        answer["expires_on"] = json!((Timestamp::now().as_second() + TOKEN_SECONDS).to_string());
        reply(200, answer)
    }

    fn metadata(&self, call: &Call) -> Response {
        let refused =
            |error: &str, text: &str| reply(400, json!({"error": error, "error_description": text}));
        if call.header("metadata") != Some("true") {
            return refused("bad_request_102", "Required metadata header not specified");
        }
        if call.header("x-forwarded-for").is_some() {
            return refused("bad_request_102", "The request came through a proxy");
        }
        if call.query("api-version").is_none() {
            return refused("invalid_request", "Required query variable 'api-version' is missing");
        }
        let Some(token) = call.query("resource").and_then(|resource| self.sign_in.token_of(resource)) else {
            return refused(
                "invalid_resource",
                "AADSTS500011: The resource principal was not found in the tenant.",
            );
        };
        if !self.is_assigned(call) {
            return refused("invalid_request", "Identity not found");
        }
        let now = Timestamp::now().as_second();
        let mut answer = self.answer(call, &token);
        for (name, value) in [
            ("expires_in", TOKEN_SECONDS),
            ("ext_expires_in", TOKEN_SECONDS),
            ("expires_on", now + TOKEN_SECONDS),
            ("not_before", now),
        ] {
            answer[name] = json!(value.to_string());
        }
        reply(200, answer)
    }

    fn answer(&self, call: &Call, token: &str) -> Value {
        json!({
            "access_token": token,
            "client_id": self.sign_in.client_id(),
            "resource": call.query("resource"),
            "token_type": "Bearer",
        })
    }
}

async fn serve(State(service): State<Arc<ManagedIdentity>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    match (call.method.as_str(), call.segments().as_slice()) {
        ("GET", ["msi", "token"]) => service.app_service(&call),
        ("GET", ["metadata", "identity", "oauth2", "token"]) => service.metadata(&call),
        _ => reply(404, json!({"error": "not_found"})),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Sandbox, answer, serve};

    #[tokio::test]
    async fn both_ask_for_their_header_and_know_the_own_identity() {
        let sandbox = Sandbox::new();
        let site = serve(sandbox.vendors.managed_identity.clone().router()).await;
        let app = "/msi/token?api-version=2019-08-01&resource=https://vault.azure.net";
        let machine =
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";
        for (path, header, value, refusal) in
            [(app, "x-identity-header", "identity-header", 401), (machine, "metadata", "true", 400)]
        {
            answer(site.request("GET", path)).await.expect(refusal);
            let given = answer(site.request("GET", path).header(header, value)).await.expect(200);
            assert!(
                given.body["expires_on"].as_str().unwrap().parse::<i64>().is_ok(),
                "a text: {}",
                given.text
            );
            assert_eq!(given.body["access_token"].as_str().unwrap().split('.').count(), 3);
            let named = |client: &str| {
                site.request("GET", &format!("{path}&client_id={client}")).header(header, value)
            };
            answer(named("client")).await.expect(200);
            answer(named("other")).await.expect(400);
            sandbox.set("sign_in", "identity", serde_json::json!(false));
            answer(site.request("GET", path).header(header, value)).await.expect(400);
            sandbox.set("sign_in", "identity", serde_json::json!(true));
        }
    }
}
