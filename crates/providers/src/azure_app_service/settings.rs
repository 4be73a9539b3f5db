//! All settings of a site, which are read and written together.

use std::collections::BTreeMap;

use pgrotate_core::{Result, Secret};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::Site;
use crate::azure::{Account, Call, json_text};

/// Names and values. Most values are somebody else's secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<String, Secret>);

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Settings;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("texts by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Settings, A::Error> {
                let mut settings = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    settings.insert(name, Secret::new(value));
                }
                Ok(Settings(settings))
            }
        }

        deserializer.deserialize_map(Values)
    }
}

#[derive(Deserialize)]
struct Resource {
    properties: Settings,
}

impl Settings {
    /// Reads all settings of a site.
    pub(super) async fn list(site: &Site, account: &Account) -> Result<Self> {
        let operation = format!("list the settings of the application {}", site.name());
        let url = site.url(account, &["config", "appsettings", "list"]);
        let answer = account.send(Call::list(url), &operation).await?;
        answer.json::<Resource>(&operation).map(|resource| resource.properties)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// A name that differs in case alone, which a person may have meant.
    pub(super) fn like(&self, name: &str) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|own| *own != name && own.eq_ignore_ascii_case(name))
    }

    /// The same with one setting changed or added.
    pub(super) fn with(&self, name: &str, value: &Secret) -> Self {
        let mut changed = self.clone();
        changed.0.insert(name.to_owned(), value.clone());
        changed
    }

    /// The body of a request that replaces all settings by these.
    pub(super) fn body(&self) -> Zeroizing<Vec<u8>> {
        let length: usize = self.0.iter().map(|(name, value)| name.len() + 2 * value.len() + 16).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(length + 32));
        text.extend_from_slice(br#"{"properties":{"#);
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(serde_json::Value::from(name.as_str()).to_string().as_bytes());
            text.push(b':');
            text.extend_from_slice(json_text(value).as_bytes());
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
    }
}
