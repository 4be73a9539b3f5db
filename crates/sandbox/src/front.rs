//! What stands before an application at its public address, as App Service's front ends do: each request goes to the
//! instance that is the present one when it arrives, and none notices that instances change.
//!
//! Every request has a connection of its own to the instance. A kept one could be closed by an instance that ends in
//! the very moment in which the next request goes out on it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use reqwest::Client;
use tokio::sync::mpsc;

use crate::error::{Context, Result};
use crate::listener::Bound;
use crate::process::direct_client_builder;

/// The public address of one application.
pub(crate) struct Front {
    port: u16,
    present: Arc<Present>,
}

/// Ends when the last request that went to an instance has been answered.
pub(crate) struct Requests(mpsc::Receiver<Infallible>);

/// Where requests go now.
struct Present {
    client: Client,
    instance: Mutex<Option<Instance>>,
}

/// An instance that takes requests; each of them holds a clone for as long as it lasts.
#[derive(Clone)]
struct Instance {
    base: String,
    _lasts: mpsc::Sender<Infallible>,
}

impl Front {
    /// A front on any free port, without an instance behind it.
    pub(crate) async fn open() -> Result<Self> {
        let client = direct_client_builder().pool_max_idle_per_host(0).build();
        let client = client.context(|| "cannot make an HTTP client".into())?;
        let present = Arc::new(Present { client, instance: Mutex::default() });
        let bound = Bound::new().await?;
        let port = bound.port();
        bound.serve_unrecorded(Router::new().fallback(answer).with_state(present.clone()));
        Ok(Self { port, present })
    }

    /// Its port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// From now on requests go to the instance on this port of the loopback.
    pub(crate) fn lead_to(&self, port: u16) -> Requests {
        let (lasts, requests) = mpsc::channel(1);
        let instance = Instance { base: format!("http://127.0.0.1:{port}"), _lasts: lasts };
        self.present.change(Some(instance));
        Requests(requests)
    }

    /// From now on there is nobody to answer.
    pub(crate) fn close(&self) {
        self.present.change(None);
    }
}

impl Requests {
    /// Waits for the answers that are under way.
    pub(crate) async fn answered(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Present {
    fn change(&self, instance: Option<Instance>) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = instance;
    }

    fn instance(&self) -> Option<Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(State(present): State<Arc<Present>>, request: Request) -> Response<Body> {
    let Some(instance) = present.instance() else { return unavailable() };
    match pass_on(&present.client, &instance.base, request).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!("an application: {}", error.chain());
            unavailable()
        }
    }
}

/// What App Service answers for an application that doesn't run.
fn unavailable() -> Response<Body> {
    let mut response = Response::new(Body::from("Service Unavailable"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

async fn pass_on(client: &Client, base: &str, request: Request) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.context(|| "a request broke off".into())?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let (status, headers, body) =
        forward(client, parts.method, &format!("{base}{path}"), parts.headers, body).await?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Sends a request on, and gives the answer. Both are passed on whole, so their framing is left to each connection.
pub(crate) async fn forward(
    client: &Client,
    method: Method,
    url: &str,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, HeaderMap, Bytes)> {
    for framing in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        headers.remove(framing);
    }
    // The caller's own Host stays: who is behind may tell services apart by it.
    let answer = client.request(method, url).headers(headers).body(body).send().await;
    let answer = answer.context(|| "it does not answer".into())?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let body = answer.bytes().await.context(|| "its answer broke off".into())?;
    Ok((status, headers, body))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::{get, post};
    use tokio::sync::Notify;

    use super::*;

    /// An instance that says its name at once, or when it is told to.
    async fn instance(name: &'static str, told: Arc<Notify>) -> u16 {
        let slow = get(async move || {
            told.notified().await;
            name
        });
        let echo = post(async move |body: String| (StatusCode::CREATED, format!("{name} {body}")));
        let bound = Bound::new().await.unwrap();
        let port = bound.port();
        bound.serve_unrecorded(Router::new().route("/slow", slow).route("/", echo));
        port
    }

    async fn front() -> Front {
        // Only the first of a process succeeds; the others find it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Front::open().await.unwrap()
    }

    async fn ask(front: &Front, path: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", front.port());
        let client = direct_client_builder().build().unwrap();
        let request = if path == "/" { client.post(url).body("hears") } else { client.get(url) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn requests_go_to_the_present_instance_and_what_is_under_way_ends_where_it_began() {
        let told = Arc::new(Notify::new());
        let (old, new) = (instance("old", told.clone()).await, instance("new", told.clone()).await);
        let front = front().await;
        assert_eq!(ask(&front, "/").await.0, 503);
        let mut at_old = front.lead_to(old);
        assert_eq!(ask(&front, "/").await, (201, "old hears".into()));

        let (slow, ()) = tokio::join!(ask(&front, "/slow"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut at_new = front.lead_to(new);
            assert_eq!(ask(&front, "/").await, (201, "new hears".into()));
            let early = tokio::time::timeout(Duration::from_millis(50), at_old.answered()).await;
            assert!(early.is_err(), "a request is still under way");
            told.notify_one();
            at_old.answered().await;
            front.close();
            at_new.answered().await;
        });
        assert_eq!(slow, (200, "old".into()));
        assert_eq!(ask(&front, "/").await.0, 503);
    }

    #[tokio::test]
    async fn an_instance_that_is_gone_is_not_available() {
        let front = front().await;
        let _requests = front.lead_to(1);
        assert_eq!(ask(&front, "/").await.0, 503);
    }
}
