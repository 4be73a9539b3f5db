//! The two tables of a site that hold values, its settings and its connection strings: each is read and written as a
//! whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgrotate_core::{Result, Secret};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::Site;
use crate::azure::{Account, Answer, Call, json_text};

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Names and values.
    Settings,
    /// Names, values and types.
    ConnectionStrings,
}

impl Table {
    /// What one row is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Settings => "setting",
            Self::ConnectionStrings => "connection string",
        }
    }

    /// Its name in Azure's URLs.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Settings => "appsettings",
            Self::ConnectionStrings => "connectionstrings",
        }
    }

    /// The option that names a row of it.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Settings => "setting",
            Self::ConnectionStrings => "connection_string",
        }
    }

    /// Where App Service says which of its rows stay with their slot.
    pub(super) fn sticky(self) -> &'static str {
        match self {
            Self::Settings => "appSettingNames",
            Self::ConnectionStrings => "connectionStringNames",
        }
    }

    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Settings => Self::ConnectionStrings,
            Self::ConnectionStrings => Self::Settings,
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    value: Secret,
    /// The type of a connection string.
    kind: Option<String>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Row;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or a text with its type")
            }

            fn visit_str<E>(self, value: &str) -> std::result::Result<Row, E> {
                Ok(Row { value: Secret::new(value), kind: None })
            }

            fn visit_string<E>(self, value: String) -> std::result::Result<Row, E> {
                Ok(Row { value: Secret::new(value), kind: None })
            }

            // What is not known here would be lost when the table is written back.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Row, A::Error> {
                let (mut value, mut kind) = (None, None);
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "value" => value = Some(Secret::new(map.next_value::<String>()?)),
                        "type" => kind = Some(map.next_value::<String>()?),
                        _ => return Err(A::Error::custom("a part that is not known here")),
                    }
                }
                let value = value.ok_or_else(|| A::Error::missing_field("value"))?;
                let kind = kind.ok_or_else(|| A::Error::missing_field("type"))?;
                Ok(Row { value, kind: Some(kind) })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// All rows of a table. Most values are somebody else's secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Settings(BTreeMap<String, Row>);

#[derive(Deserialize)]
struct Resource {
    properties: Settings,
}

impl Settings {
    /// Reads a table.
    pub(super) async fn list(site: &Site, account: &Account, table: Table) -> Result<Self> {
        let operation = listing(site, table);
        let url = site.url(account, &["config", table.path(), "list"]);
        let answer = account.send(Call::list(url), &operation).await.map_err(|error| site.explain(error))?;
        answer.json::<Resource>(&operation).map(|resource| resource.properties)
    }

    /// The same, asked once for all that look at it: for checks.
    pub(super) async fn look(site: &Site, account: &Account, table: Table) -> Result<Arc<Self>> {
        let question = format!("{} of {}", table.path(), site.location());
        site.shared.looks.once(question, Self::list(site, account, table)).await
    }

    /// The table that an answer shows, if it shows one.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        answer.json::<Resource>("").ok().map(|resource| resource.properties)
    }

    /// The values by their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, row)| (name.as_str(), &row.value))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name).map(|row| &row.value)
    }

    /// A name that differs in case alone, which a person may have meant.
    pub(super) fn like(&self, name: &str) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|own| *own != name && own.eq_ignore_ascii_case(name))
    }

    /// The same with one value changed or added. What is changed keeps its type.
    pub(super) fn with(&self, name: &str, value: &Secret) -> Self {
        let mut changed = self.clone();
        let kind = self.0.get(name).and_then(|row| row.kind.clone());
        changed.0.insert(name.to_owned(), Row { value: value.clone(), kind });
        changed
    }

    /// The body of a request that replaces the table by this one.
    pub(super) fn body(&self) -> Zeroizing<Vec<u8>> {
        let length: usize = self.0.iter().map(|(name, row)| name.len() + 2 * row.value.len() + 64).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(length + 32));
        text.extend_from_slice(br#"{"properties":{"#);
        for (index, (name, row)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
            text.push(b':');
            row.write(&mut text);
        }
        text.extend_from_slice(b"}}");
        text
    }

    /// The names, one left out, under which the two hold different things.
    pub(super) fn differences<'a>(&'a self, other: &'a Self, leave_out: &str) -> Vec<&'a str> {
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let different = |name: &&String| *name != leave_out && self.0.get(*name) != other.0.get(*name);
        names.filter(different).map(String::as_str).collect()
    }
}

impl Row {
    fn write(&self, text: &mut Vec<u8>) {
        let value = json_text(&self.value);
        match &self.kind {
            None => text.extend_from_slice(value.as_bytes()),
            Some(kind) => {
                text.extend_from_slice(br#"{"value":"#);
                text.extend_from_slice(value.as_bytes());
                text.extend_from_slice(br#","type":"#);
                text.extend_from_slice(serde_json::Value::from(kind.as_str()).to_string().as_bytes());
                text.push(b'}');
            }
        }
    }
}

/// The words for reading a table.
pub(super) fn listing(site: &Site, table: Table) -> String {
    format!("list the {}s of the application {}", table.noun(), site.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_value_survives_the_way_back() {
        let text = r#"{"A":"p%41q\"'\\$HOME `x` {y} é=&#+ /\n\u0001","B":"","a b":"@Microsoft.KeyVault(x)"}"#;
        let read = settings(text);
        #[derive(Deserialize)]
        struct Body {
            properties: Settings,
        }
        let again: Body = serde_json::from_slice(&read.body()).unwrap();
        assert_eq!(again.properties, read);
        assert_eq!(&settings("{}").body()[..], br#"{"properties":{}}"#);
    }

    #[test]
    fn differences_are_named_without_values() {
        let (one, other) =
            (settings(r#"{"A":"hunter2","B":"1","C":"1"}"#), settings(r#"{"A":"hunter3","B":"2","D":"1"}"#));
        assert_eq!(one.differences(&other, "A"), ["B", "C", "D"]);
        assert_eq!(one.differences(&one, "A"), Vec::<&str>::new());
        assert!(!format!("{one:?}").contains("hunter2"));
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_rather_than_damaged() {
        assert!(serde_json::from_str::<Settings>(r#"{"A":1}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"A":null}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"A":{"value":"x"}}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"A":{"value":"x","type":"Custom","more":1}}"#).is_err());
    }

    #[test]
    fn a_connection_string_keeps_its_type() {
        let read = settings(r#"{"A":{"type":"PostgreSQL","value":"x\"y"},"B":{"value":"","type":"Custom"}}"#);
        let body = read.with("A", &Secret::new("new")).body();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = r#"{"A":{"value":"new","type":"PostgreSQL"},"B":{"value":"","type":"Custom"}}"#;
        assert_eq!(body["properties"], serde_json::from_str::<serde_json::Value>(expected).unwrap());
    }
}
