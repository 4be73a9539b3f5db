//! AWS's service descriptions, as botocore has them: JSON 1.1 by `X-Amz-Target`, and the query protocol.

use serde_json::{Map, Value, json};

use super::exchange::{Answer, Exchange};
use super::schema::judged;

/// Errors of every JSON service, which no operation lists (AWS, "Common error types").
const COMMON_ERRORS: [&str; 6] = [
    "AccessDeniedException",
    "ThrottlingException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "ValidationException",
];

/// One service.
pub(crate) struct Service {
    root: Value,
    schemas: Map<String, Value>,
}

impl Service {
    /// Takes a description.
    pub(crate) fn new(root: Value) -> Self {
        let shapes = root["shapes"].as_object().unwrap();
        let schemas = shapes.iter().map(|(name, shape)| (name.clone(), schema(shape))).collect();
        Self { root, schemas }
    }

    /// The operation that a request names, if it is one of this service.
    pub(crate) fn operation(&self, exchange: &Exchange) -> Option<&str> {
        let metadata = &self.root["metadata"];
        let name = match metadata["protocol"].as_str().unwrap() {
            "json" => {
                let (prefix, name) = exchange.message.header("x-amz-target")?.rsplit_once('.')?;
                (metadata["targetPrefix"] == prefix).then(|| name.to_owned())?
            }
            "query" => field(&exchange.message.form(), "Action")?.to_owned(),
            other => panic!("the protocol {other:?} is not read"),
        };
        self.root["operations"].as_object().unwrap().get_key_value(&name).map(|(name, _)| name.as_str())
    }

    /// What a request has against the operation.
    pub(crate) fn judge(&self, operation: &str, exchange: &Exchange) -> Vec<String> {
        let node = &self.root["operations"][operation];
        let mut complaints = Vec::new();
        if node["http"]["method"] != exchange.method.as_str()
            || node["http"]["requestUri"] != exchange.path.as_str()
        {
            complaints.push("method or path is not the operation's".to_owned());
        }
        if !exchange.raw_query.is_empty() {
            complaints.push("there is a query where none is described".to_owned());
        }
        let signed = exchange
            .message
            .header("authorization")
            .is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 "));
        if !signed && node["authtype"] != "none" {
            complaints.push("it is not signed".to_owned());
        }
        if signed && exchange.message.header("x-amz-date").is_none() {
            complaints.push("the header x-amz-date is missing".to_owned());
        }
        match self.root["metadata"]["jsonVersion"].as_str() {
            Some(version) => self.json(&node["input"], version, exchange, &mut complaints),
            None => self.query(&node["input"], exchange, &mut complaints),
        }
        complaints
    }

    fn json(&self, input: &Value, version: &str, exchange: &Exchange, complaints: &mut Vec<String>) {
        let media = format!("application/x-amz-json-{version}");
        if exchange.message.media_type() != media {
            complaints.push(format!("the media type is not {media}"));
        }
        match exchange.message.json() {
            Ok(body) => complaints.extend(self.input(input, &body)),
            Err(complaint) => complaints.push(complaint),
        }
    }

    fn query(&self, input: &Value, exchange: &Exchange, complaints: &mut Vec<String>) {
        if exchange.message.media_type() != "application/x-www-form-urlencoded" {
            complaints.push("the media type is not that of a form".to_owned());
        }
        let mut pairs = exchange.message.form();
        if field(&pairs, "Version") != self.root["metadata"]["apiVersion"].as_str() {
            complaints.push("Version is not the service's".to_owned());
        }
        pairs.retain(|(name, _)| name != "Action" && name != "Version");
        if let Some(name) = input["shape"].as_str() {
            let body = self.unfold(name, "", &mut pairs).unwrap_or_else(|| json!({}));
            complaints.extend(self.input(input, &body));
        }
        // What is left belongs to no member.
        complaints.extend(pairs.iter().map(|(name, _)| format!("the member {name} is unknown")));
    }

    fn input(&self, input: &Value, body: &Value) -> Vec<String> {
        let Some(name) = input["shape"].as_str() else { return Vec::new() };
        let mut complaints = self.against(name, body);
        let members = self.root["shapes"][name]["members"].as_object().unwrap().iter();
        // SDKs make such a token; a program that sends the request itself has to as well.
        let tokens = members.filter(|(_, member)| member["idempotencyToken"] == true);
        complaints.extend(
            tokens.filter(|(name, _)| body.get(name).is_none()).map(|(name, _)| format!("{name} is missing")),
        );
        complaints
    }

    fn against(&self, shape: &str, value: &Value) -> Vec<String> {
        judged(&json!({"$defs": self.schemas, "$ref": format!("#/$defs/{shape}")}), value)
    }

    /// `Name=…`, `List.member.1=…`, `Structure.Name=…` as a document. Takes what it has used.
    fn unfold(&self, shape: &str, prefix: &str, pairs: &mut Vec<(String, String)>) -> Option<Value> {
        let node = &self.root["shapes"][shape];
        let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        match node["type"].as_str().unwrap() {
            "structure" => {
                let members = node["members"].as_object().unwrap().iter();
                let found = members.filter_map(|(name, member)| {
                    let value = self.unfold(member["shape"].as_str().unwrap(), &below(name), pairs)?;
                    Some((name.clone(), value))
                });
                let found: Map<String, Value> = found.collect();
                (!found.is_empty()).then_some(Value::Object(found))
            }
            "list" => {
                let member = node["member"]["shape"].as_str().unwrap();
                let of = |index: usize| below(&format!("member.{index}"));
                let found: Vec<Value> =
                    (1..).map_while(|index| self.unfold(member, &of(index), pairs)).collect();
                (!found.is_empty()).then_some(Value::Array(found))
            }
            scalar => {
                let place = pairs.iter().position(|(name, _)| name == prefix)?;
                let (_, text) = pairs.remove(place);
                let plain = matches!(scalar, "integer" | "long" | "boolean" | "double" | "float");
                let read = plain.then(|| serde_json::from_str(&text).ok()).flatten();
                Some(read.unwrap_or(Value::String(text)))
            }
        }
    }

    /// What an answer has against the operation.
    pub(crate) fn judge_answer(&self, operation: &str, answer: &Answer) -> Vec<String> {
        let node = &self.root["operations"][operation];
        let Some(version) = self.root["metadata"]["jsonVersion"].as_str() else {
            return self.judge_xml(operation, answer);
        };
        if answer.message.media_type() != format!("application/x-amz-json-{version}") {
            return vec!["the media type is not the service's".to_owned()];
        }
        let Ok(body) = answer.message.json() else { return vec!["the answer is no JSON".to_owned()] };
        if answer.status == 200 {
            let Some(shape) = node["output"]["shape"].as_str() else { return Vec::new() };
            return self.against(shape, &body);
        }
        let kind = body["__type"].as_str().unwrap_or_default();
        // `prefix#Name:url` in its longest form (botocore, parsers.py).
        let kind = kind.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
        let listed = node["errors"].as_array().unwrap().iter().any(|error| error["shape"] == kind);
        match listed || COMMON_ERRORS.contains(&kind) {
            true => Vec::new(),
            false => vec!["__type names no error of the operation".to_owned()],
        }
    }

    /// The frame of an answer of the query protocol, and that its result has what it must have.
    fn judge_xml(&self, operation: &str, answer: &Answer) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut want = |right: bool, what: String| complaints.extend((!right).then_some(what));
        want(answer.message.media_type() == "text/xml", "the media type is not text/xml".to_owned());
        let text = answer.message.text();
        if answer.status != 200 {
            let framed = text.contains("<ErrorResponse") && text.contains("<Code>");
            want(framed, "it is no ErrorResponse with a Code".to_owned());
            return complaints;
        }
        let output = &self.root["operations"][operation]["output"];
        let (wrapper, shape) = (output["resultWrapper"].as_str().unwrap(), output["shape"].as_str().unwrap());
        let space = self.root["metadata"]["xmlNamespace"].as_str().unwrap();
        want(
            text.contains(&format!("<{operation}Response xmlns=\"{space}\">")),
            format!("the root is not {operation}Response in the service's namespace"),
        );
        let result = text.split(&format!("<{wrapper}>")).nth(1).unwrap_or_default();
        want(!result.is_empty(), format!("there is no {wrapper}"));
        let known = self.root["shapes"][shape]["members"].as_object().unwrap();
        let first = result.trim_start().strip_prefix('<').and_then(|rest| rest.split(['>', '/']).next());
        let first = first.unwrap_or_default();
        want(known.contains_key(first), format!("{wrapper} begins with {first:?}, which it does not have"));
        complaints
    }
}

fn field<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    pairs.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

/// A shape as JSON Schema.
fn schema(shape: &Value) -> Value {
    let of = |member: &Value| json!({"$ref": format!("#/$defs/{}", member["shape"].as_str().unwrap())});
    let kind = shape["type"].as_str().unwrap();
    let mut out = match kind {
        "structure" => {
            let members = shape["members"].as_object().unwrap();
            let properties: Map<String, Value> =
                members.iter().map(|(name, member)| (name.clone(), of(member))).collect();
            let required = shape.get("required").cloned().unwrap_or_else(|| json!([]));
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
        }
        "list" => json!({"type": "array", "items": of(&shape["member"])}),
        "map" => json!({"type": "object", "additionalProperties": of(&shape["value"])}),
        "string" | "blob" => json!({"type": "string"}),
        "boolean" => json!({"type": "boolean"}),
        "integer" | "long" => json!({"type": "integer"}),
        // JSON 1.1 has times as seconds since 1970.
        "double" | "float" | "timestamp" => json!({"type": "number"}),
        other => panic!("the type {other:?} is not understood"),
    };
    let (least, most) = match kind {
        "list" => ("minItems", "maxItems"),
        "integer" | "long" | "double" | "float" => ("minimum", "maximum"),
        _ => ("minLength", "maxLength"),
    };
    for (own, name) in [("min", least), ("max", most), ("pattern", "pattern"), ("enum", "enum")] {
        // The length of a blob is that of its bytes and not of their text.
        if let Some(value) = shape.get(own).filter(|_| kind != "blob") {
            out[name] = value.clone();
        }
    }
    out
}
