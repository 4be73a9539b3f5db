//! The file's text, and the form of it that may be shown.
//!
//! An error shows the lines around its place. Somebody may have written a credential into one
//! of them, which is a mistake that must not become a leak: every value that could be one is
//! covered before the text can get into an error, byte for byte, so that the places stay right.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::NamedSource;

use super::tree::Span;

/// The configuration file.
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) text: String,
    shown: NamedSource<Arc<str>>,
}

impl Source {
    /// Takes the text of a file.
    pub(super) fn new(path: &Path, text: String) -> Self {
        let shown: Arc<str> = covered(&text).into();
        Self { path: path.to_owned(), text, shown: NamedSource::new(path.to_string_lossy(), shown) }
    }

    /// The number of the line of a place.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    /// The text as it may be shown.
    pub(super) fn shown(&self) -> NamedSource<Arc<str>> {
        self.shown.clone()
    }
}

/// Whether a key's name says that its value is a credential.
pub(super) fn names_a_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let last = key.rsplit('_').next().unwrap_or_default();
    matches!(last, "password" | "pgpassword" | "passwd" | "pwd" | "passphrase" | "token" | "pat" | "apikey")
        || ["client_secret", "secret_key", "api_key", "access_key", "private_key", "connection_string"]
            .iter()
            .any(|end| key.ends_with(end))
}

/// Covers everything that could be a credential. Works on the bare text, because a file that
/// can't be parsed is shown too.
fn covered(text: &str) -> String {
    let mut spans: Vec<Span> = Vec::new();
    for (at, _) in text.match_indices('=') {
        let (key, value) = (key_before(&text[..at]), value_after(text, at + 1));
        let content = &text[value.clone()];
        let credential = names_a_credential(key) && !content.contains("{password}");
        // What is called `value` is harmless only as a template.
        if credential || (key == "value" && !content.contains('{')) {
            spans.push(value);
        }
    }
    spans.extend(text.match_indices("://").filter_map(|(at, _)| url_password(text, at + 3)));
    let mut bytes = text.as_bytes().to_vec();
    for byte in spans.into_iter().flatten() {
        if bytes[byte] != b'\n' {
            bytes[byte] = b'*';
        }
    }
    String::from_utf8(bytes).expect("whole characters were replaced by ASCII")
}

/// The key in front of an equals sign, without its quotes.
fn key_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t']).trim_end_matches(['"', '\'']);
    let word = |part: char| part.is_ascii_alphanumeric() || part == '_' || part == '-';
    &text[text.trim_end_matches(word).len()..]
}

/// The value behind an equals sign, without its quotes. Nothing, for an inline table: its own
/// keys are looked at by themselves.
fn value_after(text: &str, from: usize) -> Span {
    let rest = text[from..].trim_start_matches([' ', '\t']);
    let start = text.len() - rest.len();
    let line = rest.find('\n').unwrap_or(rest.len());
    for (quote, limit) in [("\"\"\"", rest.len()), ("'''", rest.len()), ("\"", line), ("'", line)] {
        if let Some(inner) = rest.strip_prefix(quote) {
            let length = inner.find(quote).unwrap_or(limit - quote.len());
            return start + quote.len()..start + quote.len() + length.min(limit - quote.len());
        }
    }
    start..start + if rest.starts_with('{') { 0 } else { line }
}

/// The password of a URL whose authority begins here, unless it is a template's variable. A URL
/// that is not complete may end in the middle of its password; what could be a port is none.
fn url_password(text: &str, from: usize) -> Option<Span> {
    let url = text[from..].split(|end: char| end.is_whitespace() || end == '"' || end == '\'').next()?;
    let variable = |part: &str| {
        let name = part.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        name.is_some_and(|name| name.chars().all(|part| part.is_ascii_lowercase() || part == '_'))
    };
    let (end, port) = match url.rfind('@') {
        Some(at) => (at, None),
        None if url.starts_with('[') => return None,
        None => (url.len(), url.split(['/', '?', '#']).next()?.split_once(':').map(|(_, port)| port)),
    };
    let colon = url[..end].find(':')?;
    let harmless = variable(&url[colon + 1..end])
        || port.is_some_and(|port| variable(port) || port.chars().all(|digit| digit.is_ascii_digit()));
    (!harmless).then_some(from + colon + 1..from + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_credential_is_covered_byte_for_byte() {
        for (text, shown) in [
            ("password = \"hünter2\"\nhost = \"db\"", "password = \"********\"\nhost = \"db\""),
            ("# api-token='hunter2' x", "# api-token='*******' x"),
            ("\"password\" = hunter2 # x\nuser = \"a\"", "\"password\" = ***********\nuser = \"a\""),
            ("token = \"\"\"\nhunter2\n\"\"\" # x", "token = \"\"\"\n*******\n\"\"\" # x"),
            ("token = \"hunter2\nx = 1", "token = \"*******\nx = 1"),
            ("token = ", "token = "),
            ("token = \"", "token = \""),
            ("value = \"hunter2\"", "value = \"*******\""),
            ("u = 'https://x.example/?token=hunter2'", "u = 'https://x.example/?token=********"),
            ("url = \"postgres://me:hun/ter2@db/app\"", "url = \"postgres://me:********@db/app\""),
            ("url = \"postgres://me:hunter2", "url = \"postgres://me:*******"),
            ("e = { PGPASSWORD = \"hunter2\", A = \"b\" }", "e = { PGPASSWORD = \"*******\", A = \"b\" }"),
        ] {
            assert_eq!(covered(text), shown);
            assert_eq!(covered(text).len(), text.len());
        }
    }

    #[test]
    fn what_is_none_stays_readable() {
        for text in [
            "password = { length = 32 }",
            "[password]\nlength = 32",
            "value = \"{databse_url}\"",
            "secret = \"postgres-admin-password\"",
            "environment = { PGPASSWORD = \"{password}\" }",
            "url = \"postgresql://{user}:{password}@{host}:{port}/{name}?sslmode=require\"",
            "connect = \"http://localhost:8080\"",
            "connect = \"http://localhost:8080/x?y:z\"",
            "connect = \"http://[::1]:8080\"",
            "connect = \"http://localhost:{port}/v1\"",
            "url_variable = \"ONCALL_WEBHOOK_URL\"",
        ] {
            assert_eq!(covered(text), text);
        }
    }
}
