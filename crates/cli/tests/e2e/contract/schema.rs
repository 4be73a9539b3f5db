//! The vendors' schemas as JSON Schema, which a library then judges.
//!
//! OpenAPI 3.0 has a dialect of its own, and two things depend on who speaks: a `readOnly` property is never sent, a
//! `writeOnly` one never answered. Unknown properties are refused, though the documents don't say so: a misspelt one
//! is what a contract test is there to find. A keyword that is not understood here fails the test instead of being
//! skipped.

use serde_json::{Map, Value, json};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// What says nothing about which values are good.
const WORDS: [&str; 11] = [
    "description",
    "title",
    "example",
    "examples",
    "default",
    "deprecated",
    "nullable",
    "readOnly",
    "writeOnly",
    "externalDocs",
    "discriminator",
];
/// What means the same in both dialects.
const SAME: [&str; 15] = [
    "type",
    "enum",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
];

/// What a value has against a schema of an OpenAPI document. Never repeats a value.
pub(crate) fn complaints(
    document: &Value,
    schema: &Value,
    direction: Direction,
    instance: &Value,
) -> Vec<String> {
    let dialect = Dialect { document, direction };
    let mut components = Map::new();
    dialect.gather(schema, &mut components);
    judged(&json!({"$defs": components, "allOf": [dialect.convert(schema, true)]}), instance)
}

/// What a value has against a JSON Schema.
pub(crate) fn judged(schema: &Value, instance: &Value) -> Vec<String> {
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(schema)
        .unwrap_or_else(|error| panic!("a schema can't be used: {error}"));
    let said =
        |error: jsonschema::ValidationError<'_>| format!("{}: {}", error.instance_path(), error.masked());
    validator.iter_errors(instance).map(said).collect()
}

struct Dialect<'d> {
    document: &'d Value,
    direction: Direction,
}

impl Dialect<'_> {
    /// A schema in the other dialect; `closed` refuses properties that it does not name. What is part of a larger
    /// whole (`allOf`) stays open, because its neighbours name properties too.
    fn convert(&self, schema: &Value, closed: bool) -> Value {
        let Some(own) = schema.as_object() else { return schema.clone() };
        let mut out = Map::new();
        if let Some(target) = own.get("$ref").and_then(Value::as_str) {
            // In OpenAPI 3.0 a reference's neighbours don't count.
            out.insert("$ref".to_owned(), json!(target.replace("#/components/schemas/", "#/$defs/")));
        } else {
            for (keyword, value) in own {
                self.keyword(own, keyword, value, &mut out);
            }
        }
        if closed && self.is_closed(schema) {
            out.insert("unevaluatedProperties".to_owned(), json!(false));
        }
        match own.get("nullable") == Some(&json!(true)) && !own.contains_key("$ref") {
            true => json!({"anyOf": [out, {"type": "null"}]}),
            false => Value::Object(out),
        }
    }

    /// The components that a schema leads to.
    fn gather(&self, schema: &Value, components: &mut Map<String, Value>) {
        match schema {
            Value::Object(map) => {
                let name =
                    map.get("$ref").and_then(Value::as_str).and_then(|target| target.rsplit('/').next());
                if let Some(name) = name.filter(|name| !components.contains_key(*name)) {
                    let component = self.resolved(schema);
                    components.insert(name.to_owned(), self.convert(component, false));
                    self.gather(component, components);
                }
                map.values().for_each(|value| self.gather(value, components));
            }
            Value::Array(values) => values.iter().for_each(|value| self.gather(value, components)),
            _ => {}
        }
    }

    fn keyword(&self, own: &Map<String, Value>, keyword: &str, value: &Value, out: &mut Map<String, Value>) {
        let all = |closed: bool| -> Value {
            value.as_array().unwrap().iter().map(|schema| self.convert(schema, closed)).collect()
        };
        let converted = match keyword {
            "properties" => {
                let property = |(name, schema): (&String, &Value)| {
                    let converted =
                        if self.is_hidden(schema) { json!(false) } else { self.convert(schema, true) };
                    (name.clone(), converted)
                };
                Value::Object(value.as_object().unwrap().iter().map(property).collect())
            }
            "required" => {
                let shown = |name: &&Value| !self.is_hidden(&own["properties"][name.as_str().unwrap()]);
                value.as_array().unwrap().iter().filter(shown).cloned().collect()
            }
            "items" | "additionalProperties" => self.convert(value, true),
            "not" => self.convert(value, false),
            "allOf" | "anyOf" | "oneOf" => all(false),
            same if SAME.contains(&same) => value.clone(),
            words if WORDS.contains(&words) || words.starts_with("x-") => return,
            other => panic!("the keyword {other:?} is not understood"),
        };
        out.insert(keyword.to_owned(), converted);
    }

    /// Whether this side must not mention a property.
    fn is_hidden(&self, property: &Value) -> bool {
        let mark = match self.direction {
            Direction::Request => "readOnly",
            Direction::Response => "writeOnly",
        };
        property[mark] == true || property.get("$ref").is_some() && self.resolved(property)[mark] == true
    }

    /// Whether a schema names the properties that an object may have; one that names none leaves all open.
    fn is_closed(&self, schema: &Value) -> bool {
        let schema = self.resolved(schema);
        let parts: Vec<&Value> =
            ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema[key].as_array()).flatten().collect();
        let named = schema.get("properties").is_some() || parts.iter().any(|part| self.is_closed(part));
        let open = |part: &&Value| {
            let part = self.resolved(part);
            part.get("additionalProperties").is_some() || part["type"] == "object" && !self.is_closed(part)
        };
        schema.get("additionalProperties").is_none() && named && !parts.iter().any(open)
    }

    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        match schema["$ref"].as_str() {
            Some(target) => {
                let pointer = target.strip_prefix('#').unwrap();
                self.resolved(
                    self.document.pointer(pointer).unwrap_or_else(|| panic!("{target} leads nowhere")),
                )
            }
            None => schema,
        }
    }
}
