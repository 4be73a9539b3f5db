//! The configuration as a tree in which everything knows its place in the file.
//!
//! It is toml's spanned tree in a form that templates can be filled into without losing the
//! places, and in the order of the file.

use toml::de::{DeTable, DeValue};

/// A place in the file, in bytes.
pub(super) type Span = std::ops::Range<usize>;

/// A value with its place. A table that has a header stands where its header stands.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) node: Node,
    pub(super) at: Span,
}

/// What a value is.
#[derive(Clone)]
pub(super) enum Node {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date or a time. Nothing in the configuration is one.
    Date,
    List(Vec<Value>),
    Table(Table),
}

/// A table, in the order of the file.
#[derive(Clone, Default)]
pub(super) struct Table(Vec<Entry>);

/// A key with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Span,
    pub(super) value: Value,
}

/// Reads a text as TOML.
///
/// # Errors
/// The first thing in it that is no TOML.
pub(super) fn parse(text: &str) -> Result<Table, toml::de::Error> {
    DeTable::parse(text).map(|table| self::table(table.into_inner()))
}

fn table(table: DeTable<'_>) -> Table {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| {
            let at = value.span();
            Entry {
                at: key.span(),
                key: key.into_inner().into_owned(),
                value: self::value(value.into_inner(), at),
            }
        })
        .collect();
    entries.sort_by_key(|entry| entry.at.start);
    Table(entries)
}

fn value(value: DeValue<'_>, at: Span) -> Value {
    let node = match value {
        DeValue::String(text) => Node::Text(text.into_owned()),
        // A number beyond 64 bits is beyond every range that is asked for, too.
        DeValue::Integer(number) => {
            Node::Integer(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX))
        }
        DeValue::Float(number) => Node::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Node::Boolean(yes),
        DeValue::Datetime(_) => Node::Date,
        DeValue::Array(items) => Node::List(
            items
                .into_iter()
                .map(|item| {
                    let at = item.span();
                    self::value(item.into_inner(), at)
                })
                .collect(),
        ),
        DeValue::Table(inner) => Node::Table(table(inner)),
    };
    Value { node, at }
}

impl Table {
    /// The entries, in the order of the file.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// Looks at a value.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// Takes a value out, so that what is left in the end is what nobody asked for.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let index = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(index).value)
    }

    /// The same table with other values.
    pub(super) fn map(&self, mut change: impl FnMut(&Entry) -> Value) -> Self {
        let entries = self.0.iter().map(|entry| Entry { value: change(entry), ..entry.clone() });
        Self(entries.collect())
    }
}

impl Value {
    /// What it is, in words.
    pub(super) fn described(&self) -> &'static str {
        match self.node {
            Node::Text(_) => "a string",
            Node::Integer(_) | Node::Float(_) => "a number",
            Node::Boolean(_) => "true or false",
            Node::Date => "a date",
            Node::List(_) => "a list",
            Node::Table(_) => "a table",
        }
    }
}
