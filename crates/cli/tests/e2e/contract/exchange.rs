//! A request with its answer, as the sandbox has recorded them.

use serde_json::Value;

/// A request and what came of it.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) system: String,
    pub(crate) method: String,
    /// The path as it was sent, percent signs and all.
    pub(crate) path: String,
    /// The query as it was sent; no question mark.
    pub(crate) raw_query: String,
    pub(crate) message: Message,
    /// `None` where there was no answer.
    pub(crate) answer: Option<Answer>,
}

/// An answer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) message: Message,
}

/// Headers and body.
#[derive(Clone, Default)]
pub(crate) struct Message {
    headers: Vec<(String, String)>,
    /// `None` for a stream, which is not kept.
    pub(crate) body: Option<String>,
}

impl Message {
    fn of(recorded: &Value) -> Self {
        let headers = recorded["headers"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            headers: headers.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
            body: recorded["body"].as_str().map(str::to_owned),
        }
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Sets a header, or takes it away.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// The body; empty for a stream.
    pub(crate) fn text(&self) -> &str {
        self.body.as_deref().unwrap_or_default()
    }

    /// The body's media type without its parameters.
    pub(crate) fn media_type(&self) -> &str {
        self.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_str(self.text()).map_err(|_| "the body is no JSON".to_owned())
    }

    /// The body as a form.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        pairs(self.text())
    }
}

impl Exchange {
    /// Reads one of the recording.
    pub(crate) fn of(recorded: &Value) -> Self {
        let text = |key: &str| recorded[key].as_str().unwrap().to_owned();
        let target = text("path");
        let (path, raw_query) = target.split_once('?').unwrap_or((&target, ""));
        let answer = &recorded["answer"];
        Self {
            system: text("system"),
            method: text("method"),
            path: path.to_owned(),
            raw_query: raw_query.to_owned(),
            message: Message::of(recorded),
            answer: answer.is_object().then(|| Answer {
                status: u16::try_from(answer["status"].as_u64().unwrap()).unwrap(),
                message: Message::of(answer),
            }),
        }
    }

    /// A request of a test's own.
    pub(crate) fn new(
        system: &str,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Self {
        let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            system: system.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            raw_query: raw_query.to_owned(),
            message: Message { headers: headers.iter().map(own).collect(), body: Some(body.to_owned()) },
            answer: None,
        }
    }

    /// The query, decoded.
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        pairs(&self.raw_query)
    }

    /// The path's segments, decoded.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.path.trim_start_matches('/').split('/').map(decoded).collect()
    }

    /// The request in one line without what could be secret.
    pub(crate) fn line(&self) -> String {
        let names: Vec<String> = self.query().into_iter().map(|(name, _)| name).collect();
        let target = self.message.header("x-amz-target").unwrap_or_default();
        let path = match self.system.as_str() {
            "webhook" => "/…",
            _ => &self.path,
        };
        format!("{} {} {path} {target}?{}", self.system, self.method, names.join("&"))
    }
}

/// The pairs of a query or a form.
fn pairs(text: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://localhost/?{text}")).unwrap();
    url.query_pairs().into_owned().collect()
}

/// A path segment without percent signs. A plus stands for itself there.
fn decoded(segment: &str) -> String {
    let segment = segment.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    pairs(&format!("v={segment}")).remove(0).1
}
