//! Listeners on the loopback, with TLS or without.
//!
//! hyper is used directly and not through axum's own server, because there a service can't fail: an error is what
//! makes hyper close a connection without an answer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::error::{Context, Result};
use crate::recorder::Recorder;

/// Which system a request goes to, and its router.
pub(crate) type Route = Box<dyn Fn(&Parts) -> (&'static str, Router) + Send + Sync>;

/// A bound socket that does not answer yet: its port is needed before the vendors are made.
pub(crate) struct Bound {
    listener: TcpListener,
    port: u16,
}

impl Bound {
    /// Binds any free port of 127.0.0.1.
    pub(crate) async fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context(|| "cannot listen on 127.0.0.1".into())?;
        let port = listener.local_addr().context(|| "cannot tell the port".into())?.port();
        Ok(Self { listener, port })
    }

    /// The port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Answers every request, through the recorder.
    pub(crate) fn serve(self, tls: Option<Arc<ServerConfig>>, recorder: Arc<Recorder>, route: Route) {
        let site = Arc::new(Site { recorder, route });
        let acceptor = tls.map(TlsAcceptor::from);
        tokio::spawn(async move {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(connection(stream, acceptor.clone(), site.clone()));
                    }
                    // Out of descriptors, most likely: some have to be closed first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
    }

    /// Answers every request without recording it: the control interface.
    pub(crate) fn serve_unrecorded(self, router: Router) {
        tokio::spawn(async move {
            if let Err(error) = axum::serve(self.listener, router).await {
                tracing::error!("the control interface has ended: {error}");
            }
        });
    }
}

struct Site {
    recorder: Arc<Recorder>,
    route: Route,
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, site: Arc<Site>) {
    // Small answers are not to wait for the caller's acknowledgement.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => talk(stream, site).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => talk(stream, site).await,
            Err(error) => tracing::debug!("no TLS session: {error}"),
        },
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S, site: Arc<Site>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let site = site.clone();
        async move {
            let (parts, body) = request.into_parts();
            let (system, router) = (site.route)(&parts);
            site.recorder.clone().answer(system, router, hyper::Request::from_parts(parts, body)).await
        }
    });
    // No limit on how long a connection may be idle: a client's pooled one must not end in the middle of a test.
    let served =
        http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!("a connection ended: {error}");
    }
}
