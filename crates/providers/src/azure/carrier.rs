//! The program's own HTTP client as the transport of Microsoft's crates: its CA, its resolver, no
//! redirects. Their built-in one would make a client with settings of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Bytes;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};

use pgrotate_core::env::Clock;

use crate::budget::Budgets;
use crate::http::{self, Effect};
use crate::shared::Shared;

/// Carries requests.
pub(super) struct Carrier {
    http: reqwest::Client,
    timeout: Duration,
    budgets: Budgets,
    clock: Arc<dyn Clock>,
}

impl Carrier {
    pub(super) fn new(shared: &Shared, timeout: Duration) -> Self {
        let (http, budgets, clock) = (shared.http.clone(), shared.budgets.clone(), Arc::clone(&shared.clock));
        Self { http, timeout, budgets, clock }
    }
}

/// Microsoft's trait wants it.
impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

#[async_trait]
impl HttpClient for Carrier {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let method = reqwest::Method::from_bytes(request.method().as_ref().as_bytes())
            .map_err(|error| Error::new(ErrorKind::Other, error))?;
        let effect = if method.is_safe() { Effect::Reads } else { Effect::Writes };
        self.budgets.azure(&*self.clock, request.url(), effect).await;
        let mut outgoing = self.http.request(method, request.url().clone()).timeout(self.timeout);
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let outgoing = outgoing.body(Bytes::from(request.body()));
        let response = http::send(outgoing).await.map_err(failure)?;
        let status = response.status().as_u16().into();
        let mut headers = Headers::new();
        for (name, value) in response.headers() {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        let body = response.bytes().await.map_err(failure)?;
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

/// Keeps the cause, from which [`explain`](super::explain) tells whether anything was sent.
fn failure(error: reqwest::Error) -> Error {
    let kind = if error.is_connect() { ErrorKind::Connection } else { ErrorKind::Io };
    Error::with_error(kind, error, "no complete answer")
}
