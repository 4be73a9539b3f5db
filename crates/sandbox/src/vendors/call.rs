//! One request, read whole, in the form that the stand-ins match on: method and path segments.
//!
//! The stand-ins dispatch with `match` on segments instead of a router's patterns: Azure's paths ignore case, GitHub's
//! stand under two prefixes, and an encoded slash inside a segment has to stay inside it.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

/// No vendor takes more than this in one request; GitHub's 48 KB secrets and Jira's comments are the largest.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A request.
pub(crate) struct Call {
    /// The method.
    pub(crate) method: Method,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body's bytes.
    pub(crate) body: Bytes,
    /// The path as it came.
    pub(crate) path: String,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    host: String,
}

impl Call {
    /// Reads a request to its end.
    pub(crate) async fn read(request: Request) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
        let path = parts.uri.path().to_owned();
        let host = parts
            .headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
            .or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            method: parts.method,
            headers: parts.headers,
            body,
            segments: path.split('/').skip(1).map(percent_decode).collect(),
            query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            path,
            host,
        })
    }

    /// The decoded segments of the path. A slash at the end yields an empty last segment, as it makes another path.
    pub(crate) fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// A parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A numeric parameter of the query.
    pub(crate) fn query_number(&self, name: &str) -> Option<usize> {
        self.query(name).and_then(|value| value.parse().ok())
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The name before the first dot of the host that was asked: a vault's or a site's.
    pub(crate) fn host_label(&self) -> &str {
        self.host.split('.').next().unwrap_or_default()
    }

    /// The token of an `Authorization: Bearer` header; GitHub's older `token` form too.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token")).then(|| token.trim())
    }

    /// User and password of an `Authorization: Basic` header.
    pub(crate) fn basic(&self) -> Option<(String, String)> {
        let (scheme, encoded) = self.header("authorization")?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// A field of a form body.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(&self.body)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// A stand-in's state. Each change is made whole under the lock, so that a panic elsewhere leaves nothing half-done.
pub(crate) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer with a JSON body.
pub(crate) fn reply(status: u16, body: Value) -> Response {
    (status_code(status), Json(body)).into_response()
}

/// An answer without a body.
pub(crate) fn empty(status: u16) -> Response {
    status_code(status).into_response()
}

/// An answer with a plain text body.
pub(crate) fn text(status: u16, body: &'static str) -> Response {
    (status_code(status), body).into_response()
}

/// The answer with one header more.
pub(crate) fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    let value = HeaderValue::from_str(value).expect("the stand-ins write header values in plain ASCII");
    response.headers_mut().insert(HeaderName::from_static(name), value);
    response
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("the stand-ins name real status codes")
}

/// `bytes` random bytes in hexadecimal: what versions, request ids and key ids look like.
pub(crate) fn random_hex(bytes: usize) -> String {
    random_bytes(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A random GUID.
pub(crate) fn random_guid() -> String {
    let hex = random_hex(16);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A random id in the 26 lower-case characters of 1Password.
pub(crate) fn random_id26() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    random_bytes(26).iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// Bytes from the operating system's randomness.
pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// Now, to the second, as GitHub and 1Password write it.
pub(crate) fn now_text() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn percent_decode(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| segment.get(at + 1..at + 3)).flatten();
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_encoded_slash_stays_inside_its_segment() {
        let request = Request::builder()
            .uri("/repos/o/r/environments/qa%2Feu/secrets?per_page=5&q=a%20b")
            .header("host", "KV-Dev.vault.localhost:8443")
            .body(axum::body::Body::empty())
            .unwrap();
        let call = Call::read(request).await.unwrap();
        assert_eq!(call.segments(), ["repos", "o", "r", "environments", "qa/eu", "secrets"]);
        assert_eq!(call.query_number("per_page"), Some(5));
        assert_eq!(call.query("q"), Some("a b"));
        assert_eq!(call.host_label(), "kv-dev");
    }

    #[test]
    fn damaged_escapes_are_kept_as_they_are() {
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%41"), "%zzA");
    }

    #[test]
    fn ids_have_the_vendors_shapes() {
        assert_eq!(random_hex(16).len(), 32);
        assert_eq!(random_id26().len(), 26);
        assert_eq!(random_guid().split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
