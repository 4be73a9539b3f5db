//! One key of a JSON object, read and replaced in its text: every other byte stays as it is,
//! so key order, spacing and numbers come out as somebody once wrote them.

use std::ops::Range;

use pgrotate_core::Secret;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// Why a key can't be read or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The text is no JSON object.
    NotAnObject,
    /// The object has no such key.
    Missing,
    /// The object has the key more than once; readers disagree about which one counts.
    Twice,
    /// The key holds something else than a text.
    NotText,
}

impl Trouble {
    /// In words.
    pub(super) fn words(self, key: &str) -> String {
        match self {
            Self::NotAnObject => "it does not hold a JSON object".to_owned(),
            Self::Missing => format!("its JSON has no key \"{key}\""),
            Self::Twice => format!("its JSON has the key \"{key}\" more than once"),
            Self::NotText => format!("the key \"{key}\" of its JSON does not hold a text"),
        }
    }
}

/// Whether a text is a JSON object.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The text that a key holds.
pub(super) fn get(text: &str, key: &str) -> Result<Secret, Trouble> {
    let value = find(text, key)?;
    let value: Zeroizing<String> =
        serde_json::from_str(&text[value]).map(Zeroizing::new).map_err(|_| Trouble::NotText)?;
    Ok(Secret::new(value.as_str()))
}

/// The object with another text in the key.
pub(super) fn replace(text: &str, key: &str, new: &Secret) -> Result<Secret, Trouble> {
    let value = find(text, key)?;
    if !text[value.clone()].starts_with('"') {
        return Err(Trouble::NotText);
    }
    let new = Zeroizing::new(serde_json::to_string(new.expose()).expect("a text can be written as JSON"));
    let mut whole = Zeroizing::new(String::with_capacity(text.len() + new.len()));
    whole.push_str(&text[..value.start]);
    whole.push_str(&new);
    whole.push_str(&text[value.end..]);
    Ok(Secret::new(whole.as_str()))
}

/// Where the key's value stands.
fn find(text: &str, key: &str) -> Result<Range<usize>, Trouble> {
    if !is_object(text) {
        return Err(Trouble::NotAnObject);
    }
    let mut found = None;
    let mut at = after_space(text, after_space(text, 0) + 1);
    while text.as_bytes()[at] != b'}' {
        let name = at..end_of_string(text, at);
        let colon = after_space(text, name.end);
        let start = after_space(text, colon + 1);
        let value = start..end_of_value(text, start);
        // An escaped spelling is the same key.
        if serde_json::from_str::<String>(&text[name]).is_ok_and(|name| name == key)
            && found.replace(value.clone()).is_some()
        {
            return Err(Trouble::Twice);
        }
        at = after_space(text, value.end);
        if text.as_bytes()[at] == b',' {
            at = after_space(text, at + 1);
        }
    }
    found.ok_or(Trouble::Missing)
}

// What follows walks through text that serde_json has found to be well-formed, so the
// punctuation that it looks for is there.

fn after_space(text: &str, from: usize) -> usize {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    from + text.as_bytes()[from..].iter().take_while(|byte| space(byte)).count()
}

fn end_of_string(text: &str, start: usize) -> usize {
    let mut escaped = false;
    let rest = &text.as_bytes()[start + 1..];
    let length = rest.iter().take_while(|byte| {
        let ends = **byte == b'"' && !escaped;
        escaped = **byte == b'\\' && !escaped;
        !ends
    });
    start + 1 + length.count() + 1
}

fn end_of_value(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match bytes[at] {
            b'"' => at = end_of_string(text, at),
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => (at, depth) = (at + 1, depth - 1),
            b',' if depth == 0 => return at,
            b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => at += 1,
        }
        if depth == 0 && matches!(bytes[at - 1], b'"' | b'}' | b']') {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_other_byte_stays() {
        let text = "{ \"z\" : 1.50e1,\n\t\"password\":\"o\\\"ld\\u0041\" , \"a\":{\"password\":[\"}\",{}]},\"n\":null}\n";
        assert_eq!(get(text, "password"), Ok(Secret::new("o\"ldA")));
        let new = replace(text, "password", &Secret::new("n\"\\ew")).unwrap();
        assert_eq!(
            new.expose(),
            "{ \"z\" : 1.50e1,\n\t\"password\":\"n\\\"\\\\ew\" , \"a\":{\"password\":[\"}\",{}]},\"n\":null}\n"
        );
    }

    #[test]
    fn what_can_not_be_replaced_is_told() {
        let replaced = |text: &str| replace(text, "k", &Secret::new("x")).map(|new| new.expose().to_owned());
        for (text, trouble) in [
            ("secret", Trouble::NotAnObject),
            ("[\"k\"]", Trouble::NotAnObject),
            ("{\"k\":\"v\"} x", Trouble::NotAnObject),
            ("{}", Trouble::Missing),
            ("{\"K\":\"v\",\"o\":{\"k\":\"v\"}}", Trouble::Missing),
            ("{\"k\":1}", Trouble::NotText),
            ("{\"k\":null}", Trouble::NotText),
            ("{\"k\":{\"k\":\"v\"}}", Trouble::NotText),
            ("{\"k\":\"v\",\"\\u006b\":\"v\"}", Trouble::Twice),
        ] {
            assert_eq!(replaced(text), Err(trouble), "{text}");
            assert_eq!(get(text, "k"), Err(trouble), "{text}");
        }
        assert_eq!(replaced("{\"\\u006b\":\"v\"}").unwrap(), "{\"\\u006b\":\"x\"}");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever stands around it, exactly the one key changes.
        #[test]
        fn only_the_key_changes(
            others in prop::collection::btree_map("[a-z\"\\\\{}, ]{0,4}", json(), 0..5),
            old in ".{0,12}",
            new in ".{0,12}",
            pretty in any::<bool>(),
        ) {
            let mut map: serde_json::Map<String, Value> = others.into_iter().collect();
            map.insert("password".into(), Value::from(old.clone()));
            let before = Value::Object(map);
            let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) };
            let text = text.unwrap();
            prop_assert_eq!(get(&text, "password"), Ok(Secret::new(old)));
            let after = replace(&text, "password", &Secret::new(new.clone())).unwrap();
            let mut expected = before;
            expected["password"] = Value::from(new);
            prop_assert_eq!(serde_json::from_str::<Value>(after.expose()).unwrap(), expected);
        }
    }
}
