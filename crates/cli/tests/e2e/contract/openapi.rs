//! An OpenAPI 3.0 document of a vendor: which operation a request means, and what the request and its answer have
//! against it.

use serde_json::Value;

use super::differences::{self, Difference};
use super::exchange::{Answer, Exchange, Message};
use super::schema::{self, Direction};

/// One document.
pub(crate) struct Document {
    root: Value,
    /// What stands before every path, beside the host.
    prefix: &'static str,
    /// Resource manager's paths have no case.
    folds_case: bool,
}

/// The operation that a request means.
pub(crate) struct Operation<'d> {
    document: &'d Document,
    item: &'d Value,
    node: &'d Value,
    /// The values of its path parameters.
    path: Vec<(String, String)>,
    /// By which of the named differences it was found.
    difference: Option<&'static Difference>,
}

impl Document {
    /// Takes a document; corrections that are named are applied to it.
    pub(crate) fn new(mut root: Value, prefix: &'static str, folds_case: bool) -> Self {
        differences::correct(&mut root);
        Self { root, prefix, folds_case }
    }

    /// The operation of a request; one with more fixed words in its path goes before one with fewer.
    pub(crate) fn operation(&self, exchange: &Exchange) -> Option<Operation<'_>> {
        let method = exchange.method.to_ascii_lowercase();
        let segments = self.below_prefix(exchange)?;
        let paths = self.root["paths"].as_object().unwrap();
        let mut found: Vec<(usize, Operation<'_>)> = Vec::new();
        for (template, item) in paths {
            let Some(node) = item.get(&method) else { continue };
            let id = node["operationId"].as_str().unwrap();
            let variants =
                differences::of(id).filter_map(|difference| Some((difference.path()?, difference)));
            let plain = std::iter::once((template.as_str(), None));
            for (template, difference) in
                plain.chain(variants.map(|(path, difference)| (path, Some(difference))))
            {
                if let Some((fixed, path)) = fits(template, &segments, self.folds_case) {
                    let empty = path.iter().find(|(_, value)| value.is_empty());
                    let allowed =
                        |name: &str| differences::of(id).find(|difference| difference.allows_empty(name));
                    let difference = match empty {
                        None => difference,
                        Some((name, _)) => match allowed(name) {
                            Some(difference) => Some(difference),
                            None => continue,
                        },
                    };
                    found.push((fixed, Operation { document: self, item, node, path, difference }));
                }
            }
        }
        found.into_iter().max_by_key(|(fixed, _)| *fixed).map(|(_, operation)| operation)
    }

    fn below_prefix(&self, exchange: &Exchange) -> Option<Vec<String>> {
        let mut segments = exchange.segments();
        for part in self.prefix.split('/').filter(|part| !part.is_empty()) {
            if segments.first().is_none_or(|first| first != part) {
                return None;
            }
            segments.remove(0);
        }
        Some(segments)
    }
}

/// The number of fixed words of a path template and the values of its parameters, if a path has its form.
pub(crate) fn fits(
    template: &str,
    segments: &[String],
    folds_case: bool,
) -> Option<(usize, Vec<(String, String)>)> {
    let template: Vec<&str> = template.trim_start_matches('/').split('/').collect();
    if template.len() != segments.len() {
        return None;
    }
    let (mut fixed, mut path) = (0, Vec::new());
    for (pattern, segment) in std::iter::zip(template, segments) {
        match pattern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => path.push((name.to_owned(), segment.clone())),
            None if pattern == segment || folds_case && pattern.eq_ignore_ascii_case(segment) => fixed += 1,
            None => return None,
        }
    }
    Some((fixed, path))
}

impl<'d> Operation<'d> {
    /// Its name in the document.
    pub(crate) fn id(&self) -> &'d str {
        self.node["operationId"].as_str().unwrap()
    }

    /// What a request has against it, and the named differences that it needed.
    pub(crate) fn judge(&self, exchange: &Exchange) -> (Vec<String>, Vec<&'static Difference>) {
        let mut differences: Vec<&'static Difference> = self.difference.into_iter().collect();
        let mut complaints = Vec::new();
        for (name, value) in self.path.iter().filter(|(_, value)| !value.is_empty()) {
            match self.parameters("path").find(|parameter| parameter["name"] == name.as_str()) {
                Some(parameter) => complaints.extend(self.parameter(parameter, value)),
                None => complaints.push(format!("the path parameter {name} is not described")),
            }
        }
        self.query(exchange, &mut complaints, &mut differences);
        for parameter in self.parameters("header") {
            let name = parameter["name"].as_str().unwrap();
            match exchange.message.header(name) {
                Some(value) => complaints.extend(self.parameter(parameter, value)),
                None if parameter["required"] == true => {
                    complaints.push(format!("the header {name} is missing"))
                }
                None => {}
            }
        }
        complaints.extend(self.body(&exchange.message));
        (complaints, differences)
    }

    fn parameters(&self, place: &'static str) -> impl Iterator<Item = &'d Value> + use<'d> {
        let of = |node: &'d Value| node["parameters"].as_array().into_iter().flatten();
        let all = of(self.item).chain(of(self.node)).inspect(|parameter| {
            assert!(parameter.get("$ref").is_none(), "parameters by reference are not read");
        });
        all.filter(move |parameter| parameter["in"] == place)
    }

    fn query(
        &self,
        exchange: &Exchange,
        complaints: &mut Vec<String>,
        differences: &mut Vec<&'static Difference>,
    ) {
        let sent = exchange.query();
        for (index, (name, value)) in sent.iter().enumerate() {
            let Some(parameter) =
                self.parameters("query").find(|parameter| parameter["name"] == name.as_str())
            else {
                complaints.push(format!("the query parameter {name} is unknown"));
                continue;
            };
            if sent[..index].iter().any(|(earlier, _)| earlier == name) {
                complaints.push(format!("the query parameter {name} is there twice"));
            }
            let own = self.parameter(parameter, value);
            let named = differences::of(self.id()).find(|difference| difference.allows(name, value));
            match named {
                Some(difference) if !own.is_empty() => differences.push(difference),
                _ => complaints.extend(own),
            }
        }
        for parameter in self.parameters("query").filter(|parameter| parameter["required"] == true) {
            if !sent.iter().any(|(name, _)| parameter["name"] == name.as_str()) {
                complaints.push(format!("the query parameter {} is missing", parameter["name"]));
            }
        }
    }

    /// What a parameter's text has against its schema.
    fn parameter(&self, parameter: &Value, text: &str) -> Vec<String> {
        let schema = &parameter["schema"];
        let value = match schema["type"].as_str() {
            Some("integer" | "number" | "boolean") => serde_json::from_str(text).unwrap_or(Value::from(text)),
            Some("array") => text.split(',').map(Value::from).collect(),
            _ => Value::from(text),
        };
        let found = schema::complaints(&self.document.root, schema, Direction::Request, &value);
        found.into_iter().map(|complaint| format!("parameter {}{complaint}", parameter["name"])).collect()
    }

    fn body(&self, message: &Message) -> Vec<String> {
        let described = &self.node["requestBody"];
        assert!(described.get("$ref").is_none(), "bodies by reference are not read");
        match (described["content"].as_object(), message.text().is_empty()) {
            (None, true) => Vec::new(),
            (None, false) => vec!["there is a body where none is described".to_owned()],
            (Some(_), true) if described["required"] == true => vec!["the body is missing".to_owned()],
            (Some(_), true) => Vec::new(),
            (Some(_), false) => {
                let (schema, value) = match described_content(&described["content"], message) {
                    Ok(found) => found,
                    Err(complaint) => return vec![complaint],
                };
                schema::complaints(&self.document.root, schema, Direction::Request, &value)
            }
        }
    }

    fn answered(&self, described: &Value, message: &Message) -> (Vec<String>, Vec<&'static Difference>) {
        let (schema, mut value) = match described_content(described, message) {
            Ok(found) => found,
            Err(complaint) => return (vec![complaint], Vec::new()),
        };
        let taken = differences::of(self.id()).filter(|difference| difference.take(&mut value)).collect();
        (schema::complaints(&self.document.root, schema, Direction::Response, &value), taken)
    }

    /// What an answer has against the operation; `None` where the document does not know its status.
    pub(crate) fn judge_answer(&self, answer: &Answer) -> Option<(Vec<String>, Vec<&'static Difference>)> {
        let responses = &self.node["responses"];
        let response = responses.get(answer.status.to_string()).or_else(|| responses.get("default"))?;
        let mut complaints = Vec::new();
        let mut differences = Vec::new();
        match response.get("content") {
            Some(content) => (complaints, differences) = self.answered(content, &answer.message),
            None if answer.message.text().is_empty() => {}
            // A default without content describes nothing at all.
            None if responses.get(answer.status.to_string()).is_none() => return None,
            None => match differences::of(self.id()).find(|difference| difference.allows_body(answer.status))
            {
                Some(difference) => differences.push(difference),
                None => complaints.push("there is a body where none is described".to_owned()),
            },
        }
        if self.node["x-ms-long-running-operation"] == true && answer.status == 202 {
            let places = ["azure-asyncoperation", "location"];
            if !places.iter().any(|name| answer.message.header(name).is_some()) {
                complaints.push("nothing says where to ask how far the operation is".to_owned());
            }
        }
        Some((complaints, differences))
    }
}

/// The schema of a body's media type, and the body.
fn described_content<'d>(described: &'d Value, message: &Message) -> Result<(&'d Value, Value), String> {
    let media = message.media_type();
    let described =
        described.get(media).ok_or_else(|| format!("the media type {media:?} is not described"))?;
    Ok((&described["schema"], message.json()?))
}
