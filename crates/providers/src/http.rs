//! The HTTP client that all providers share: rustls with the system's trust store and the
//! configured CA, no redirects, time limits, no proxy between this machine and itself, and
//! errors that never repeat a URL or a body.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use pgrotate_core::{Error, Kind, Result, Retry};
pub use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{NoProxy, Proxy, RequestBuilder, Response, StatusCode, Url, redirect};
pub use rustls::ClientConfig as TlsConfig;

use crate::requests;

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole request. What takes longer is polled.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What is never reached through a proxy, in the form of `NO_PROXY`: plain HTTP is possible to
/// these, and through a proxy a password would leave the machine readable. The last are the
/// link-local addresses at which clouds tell a machine who it is: another machine would answer
/// for itself.
const DIRECT: &str = "localhost,localhost.,127.0.0.0/8,::1,169.254.0.0/16";

/// The program's name and version, as every request carries it.
pub const USER_AGENT: &str = concat!("pgrotate/", env!("CARGO_PKG_VERSION"));

/// Makes ring the cryptography of every rustls client in this process that does not say
/// otherwise. Gives whether this call did it.
pub fn install_crypto() -> bool {
    rustls::crypto::ring::default_provider().install_default().is_ok()
}

/// TLS with the system's roots and, beside them, the certificates of a PEM file.
///
/// # Errors
/// When the PEM text has no certificate that can be read.
pub fn tls_config(extra_ca: Option<&[u8]>) -> Result<TlsConfig> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    // A machine without a trust store can still talk to what the configured CA vouches for.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = extra_ca {
        let refuse =
            || Error::new(Kind::Config, "read the CA file").because("it has no certificate in PEM form");
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| refuse())?;
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(refuse());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Builds a client with connections of its own. They end with its last clone, and with them their buffers, which have
/// held what went over them.
///
/// # Errors
/// When it can't be built.
pub fn client(tls: TlsConfig) -> Result<Client> {
    client_behind(tls, |name| std::env::var(name).ok())
}

/// The same, with the proxies that these variables name.
fn client_behind(tls: TlsConfig, variable: impl Fn(&str) -> Option<String>) -> Result<Client> {
    let builder = builder_behind(tls, variable);
    builder.build().map_err(|_| Error::internal("the HTTP client could not be built"))
}

fn builder_behind(tls: TlsConfig, variable: impl Fn(&str) -> Option<String>) -> reqwest::ClientBuilder {
    // Without `no_proxy`, reqwest adds the environment's proxies where none is given.
    let builder = proxies(variable)
        .into_iter()
        .fold(Client::builder().no_proxy(), |builder, proxy| builder.proxy(proxy));
    builder
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .dns_resolver(Arc::new(Resolver))
}

/// The proxies that the environment asks for, by the rules that reqwest has for them itself, and
/// for no host of this machine.
fn proxies(variable: impl Fn(&str) -> Option<String>) -> Vec<Proxy> {
    // In a CGI program HTTP_PROXY is a header of whoever makes the request.
    if variable("REQUEST_METHOD").is_some() {
        return Vec::new();
    }
    let either = |upper: &str, lower: &str| variable(upper).or_else(|| variable(lower));
    let direct = match either("NO_PROXY", "no_proxy") {
        Some(more) => format!("{DIRECT},{more}"),
        None => DIRECT.to_owned(),
    };
    let named = |make: fn(String) -> reqwest::Result<Proxy>, url: Option<String>| {
        let proxy = make(url.filter(|url| !url.is_empty())?).ok()?;
        Some(proxy.no_proxy(NoProxy::from_string(&direct)))
    };
    let all = [
        named(Proxy::http, either("HTTP_PROXY", "http_proxy")),
        named(Proxy::https, either("HTTPS_PROXY", "https_proxy")),
        // The first that fits a request counts: this one is for what is left.
        named(Proxy::all, either("ALL_PROXY", "all_proxy")),
    ];
    all.into_iter().flatten().collect()
}

/// Resolves names under `.localhost` to loopback, as RFC 6761 wants it and not every system
/// does, and all others as the system does.
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().trim_end_matches('.').to_owned();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = if is_localhost(&host) {
                vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)]
            } else {
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect()
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether a name, in lower case, is one of this machine by RFC 6761.
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Reads an endpoint, and refuses plain HTTP except to loopback: a password would travel
/// readable.
///
/// # Errors
/// When it is no URL, carries user-info, or is plain HTTP to another machine.
pub fn endpoint(text: &str) -> Result<Url> {
    let refuse = |why: &str| Error::new(Kind::Config, "use a configured endpoint").because(why.to_owned());
    let url = Url::parse(text).map_err(|_| refuse("it is no URL"))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => is_localhost(name),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err(refuse("credentials don't belong in it"))
        }
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(refuse("plain http is possible only to this machine itself").hint("write https://")),
        _ => Err(refuse("it is neither https nor http")),
    }
}

/// Sends a request, and notes what the other side calls it.
///
/// # Errors
/// When it gets no answer.
pub(crate) async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let request = request?;
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await?;
    let asked = requests::Asked::by_http(method.as_str(), &path);
    requests::note(&asked, |name| response.headers().get(name)?.to_str().ok());
    Ok(response)
}

/// Whether a request that got no answer may have had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only reads: it may be repeated at will.
    Reads,
    /// It changes something.
    Writes,
}

/// Turns a failure to get an answer into words, without the URL that reqwest would repeat.
pub fn unanswered(error: &reqwest::Error, effect: Effect, operation: impl Into<String>) -> Error {
    let host = error.url().and_then(Url::host_str).unwrap_or("the server").to_owned();
    let (kind, cause) = if error.is_connect() {
        let text = chain(error);
        if text.contains("certificate") || text.contains("invalid peer") {
            (Kind::Unreachable, format!("{host}: its certificate is not trusted"))
        } else if text.contains("dns error") || text.contains("lookup address") {
            (Kind::Unreachable, format!("{host}: no such host name"))
        } else {
            (Kind::Unreachable, format!("{host}: no connection"))
        }
    } else if error.is_timeout() {
        (Kind::TimedOut, format!("{host}: no answer in time"))
    } else {
        (Kind::Unreachable, format!("{host}: the connection broke before the answer was complete"))
    };
    let untrusted = cause.contains("not trusted");
    let error_out = Error::new(kind, operation).because(cause);
    match effect {
        _ if untrusted => error_out.hint("name the CA's file in the configuration: ca_file = \"…\""),
        // Nothing was sent on a connection that was never made.
        _ if error.is_connect() => error_out.later(None),
        Effect::Reads => error_out.later(None),
        Effect::Writes => error_out.unknown(),
    }
}

/// The words of an error and its causes. Only searched, never shown.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// The kind that a status means where the vendor says nothing better.
pub fn kind_of(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 => Kind::Unauthenticated,
        403 => Kind::Forbidden,
        404 | 410 => Kind::NotFound,
        409 | 412 => Kind::Conflict,
        408 => Kind::TimedOut,
        429 => Kind::Throttled,
        500.. => Kind::ServerFault,
        _ => Kind::Rejected,
    }
}

/// Whether to try again after a status, where the vendor says nothing better. A failure inside
/// the other side may come after the effect.
pub fn retry_of(status: StatusCode, effect: Effect, after: Option<Duration>) -> Retry {
    let after_ms = after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    match (status.as_u16(), effect) {
        (429, _) => Retry::Later { after_ms },
        (503, _) if after.is_some() => Retry::Later { after_ms },
        (408 | 500.., Effect::Reads) => Retry::Later { after_ms },
        (408 | 500.., Effect::Writes) => Retry::Unknown,
        _ => Retry::Never,
    }
}

/// How long an answer asks to wait.
pub fn retry_after(response: &Response) -> Option<Duration> {
    told_wait(|name| response.headers().get(name)?.to_str().ok())
}

/// The same of headers, whoever's client has read them: the milliseconds of Microsoft's services, else `Retry-After`
/// in seconds or as a date. A date counts from the other side's own clock, where it tells that; one that is past
/// means at once.
pub(crate) fn told_wait<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Option<Duration> {
    let number = |name| header(name)?.trim().parse::<u64>().ok();
    let millis = number("retry-after-ms").or_else(|| number("x-ms-retry-after-ms"));
    if let Some(told) = millis.map(Duration::from_millis) {
        return Some(told);
    }
    if let Some(told) = number("retry-after").map(Duration::from_secs) {
        return Some(told);
    }
    let date = |name| DateTimeParser::new().parse_timestamp(header(name)?.trim()).ok();
    let until = date("retry-after")?;
    let now = date("date").unwrap_or_else(Timestamp::now);
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

/// Applies a retry answer to an error.
pub fn with_retry(error: Error, retry: Retry) -> Error {
    match retry {
        Retry::Never => error,
        Retry::Later { after_ms } => error.later(after_ms.map(Duration::from_millis)),
        Retry::Unknown => error.unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Reply};

    #[test]
    fn plain_http_is_for_loopback() {
        for good in [
            "https://api.github.com",
            "http://localhost:8080",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://a.localhost",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "http://example.com",
            "ftp://localhost",
            "localhost:8080",
            "https://user:pw@example.com",
            "http://localhost.example.com",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_stays_on_this_machine_goes_through_no_proxy() {
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            let proxy = Fake::start(|_| Reply::empty(204)).await;
            let own = Fake::start(|_| Reply::empty(200)).await;
            let client = client_behind(tls_config(None).unwrap(), |name| match name {
                "NO_PROXY" => Some("direct.invalid".into()),
                _ => (name == variable).then(|| proxy.url.clone()),
            })
            .unwrap();
            let port = own.url.rsplit(':').next().unwrap();
            for host in ["localhost", "LOCALHOST", "a.b.localhost", "127.0.0.1"] {
                let answer = client.get(format!("http://{host}:{port}/")).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{variable} {host}");
            }
            // Nobody listens there, which a proxy would not know.
            for host in ["127.8.9.10", "[::1]", "direct.invalid"] {
                assert!(client.get(format!("http://{host}:{port}/")).send().await.is_err(), "{host}");
            }
            assert_eq!(proxy.calls().len(), 0, "{variable}");
            for host in ["example.invalid", "notlocalhost", "localhost.example.invalid"] {
                let answer = client.get(format!("http://{host}/")).send().await.unwrap();
                assert_eq!(answer.status(), 204, "{variable} {host}");
            }
            assert_eq!((proxy.calls().len(), own.calls().len()), (3, 4), "{variable}");
        }
    }

    #[tokio::test]
    async fn what_a_cloud_tells_a_machine_of_itself_goes_through_no_proxy() {
        let proxy = Fake::start(|_| Reply::empty(204)).await;
        let named = |name: &str| (name == "HTTP_PROXY").then(|| proxy.url.clone());
        // A socket of the loopback reaches the proxy, and no other machine: nothing leaves this one.
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client =
            builder_behind(tls_config(None).unwrap(), named).local_address(loopback).build().unwrap();
        for (host, asked) in [("169.254.169.254", 0), ("169.254.129.2", 0), ("169.255.0.1", 1)] {
            let answer = client.get(format!("http://{host}/")).send().await;
            assert_eq!((answer.is_ok(), proxy.calls().len()), (asked == 1, asked), "{host}");
        }
    }

    #[tokio::test]
    async fn https_to_others_goes_through_its_proxy() {
        let proxy = Fake::start(|_| Reply::empty(403)).await;
        let client = client_behind(tls_config(None).unwrap(), |name| {
            (name == "HTTPS_PROXY").then(|| proxy.url.clone())
        })
        .unwrap();
        client.get("https://127.0.0.1:1/").send().await.unwrap_err();
        client.get("http://example.invalid/").send().await.unwrap_err();
        assert_eq!(proxy.calls().len(), 0);
        client.get("https://example.invalid/").send().await.unwrap_err();
        assert_eq!(proxy.calls()[0].method, "CONNECT");
    }

    #[test]
    fn a_proxy_that_is_none_is_left_out() {
        let count = |pairs: &[(&str, &str)]| {
            let value = |name: &str| pairs.iter().find(|(own, _)| *own == name).map(|(_, v)| v.to_string());
            proxies(value).len()
        };
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[("HTTP_PROXY", ""), ("HTTPS_PROXY", "http://")]), 0);
        assert_eq!(count(&[("HTTP_PROXY", "proxy:3128"), ("ALL_PROXY", "http://proxy")]), 2);
        assert_eq!(count(&[("HTTP_PROXY", "proxy:3128"), ("REQUEST_METHOD", "GET")]), 0);
    }

    #[tokio::test]
    async fn an_unanswered_request_never_shows_its_url() {
        let client = client(tls_config(None).unwrap()).unwrap();
        let error = client.get("http://127.0.0.1:1/hook?sig=hunter2").send().await.unwrap_err();
        let shown = unanswered(&error, Effect::Writes, "post");
        assert!(!format!("{shown} {shown:?}").contains("hunter2"));
        assert_eq!(shown.retry(), Retry::Later { after_ms: None }, "nothing was sent, so nothing happened");
    }

    #[test]
    fn every_form_of_waiting_is_understood() {
        let told = |headers: &[(&str, &'static str)]| {
            told_wait(|name| headers.iter().find(|(own, _)| *own == name).map(|(_, text)| *text))
        };
        let now = ("date", "Thu, 01 Jan 2026 00:00:00 GMT");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(told(&[("retry-after", "7")]), seconds(7));
        assert_eq!(told(&[("retry-after", " 7 ")]), seconds(7));
        assert_eq!(
            told(&[("retry-after-ms", "250"), ("retry-after", "7")]),
            Some(Duration::from_millis(250))
        );
        assert_eq!(told(&[("x-ms-retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        assert_eq!(told(&[("retry-after", "Thu, 01 Jan 2026 00:01:30 GMT"), now]), seconds(90));
        assert_eq!(told(&[("retry-after", "Wed, 31 Dec 2025 23:59:59 GMT"), now]), seconds(0), "it is past");
        assert_eq!(told(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")]), seconds(0), "by our own clock");
        for nonsense in ["", "soon", "-1", "1.5", "Thu, 99 Jan 2026 00:00:00 GMT"] {
            assert_eq!(told(&[("retry-after", nonsense), now]), None, "{nonsense:?}");
        }
        assert_eq!(told(&[now]), None);
    }

    #[test]
    fn a_fault_inside_the_other_side_may_come_after_the_effect() {
        assert_eq!(retry_of(StatusCode::INTERNAL_SERVER_ERROR, Effect::Writes, None), Retry::Unknown);
        assert_eq!(retry_of(StatusCode::FORBIDDEN, Effect::Writes, None), Retry::Never);
        let told = retry_of(StatusCode::TOO_MANY_REQUESTS, Effect::Writes, Some(Duration::from_secs(2)));
        assert_eq!(told, Retry::Later { after_ms: Some(2000) });
    }
}
