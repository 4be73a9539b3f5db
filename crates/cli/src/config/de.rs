//! From a place in the tree to what somebody wants to read there, through serde.
//!
//! Beside toml's own it does two things: its error is a [`Problem`], which keeps places and
//! names apart from the sentences, and a string can stand where a number or a truth value is
//! wanted, because a template (`port = "{pg_port}"`) can only stand in a string.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::problem::Problem;
use super::tree::{Entry, Node, Value};

/// Reads a value as what the caller wants it to be.
///
/// # Errors
/// Points at what does not fit.
pub(super) fn read<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, Problem> {
    T::deserialize(Input(value))
}

/// A value, as serde reads it.
#[derive(Clone, Copy)]
pub(crate) struct Input<'de>(pub(super) &'de Value);

impl<'de> Input<'de> {
    /// Gives what goes wrong inside a value its place, unless it has a better one.
    fn placed<T>(self, read: impl FnOnce(&'de Node) -> Result<T, Problem>) -> Result<T, Problem> {
        read(&self.0.node).map_err(|problem| problem.or_at(&self.0.at))
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.node {
            Node::Text(text) => self.placed(|_| match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_f64(number),
                _ => Err(Problem::invalid_type(Unexpected::Other("no number"), &visitor)),
            }),
            _ => self.deserialize_any(visitor),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            self.number(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Input<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.placed(|node| match node {
            Node::Text(text) => visitor.visit_borrowed_str(text),
            Node::Integer(number) => visitor.visit_i64(*number),
            Node::Float(number) => visitor.visit_f64(*number),
            Node::Boolean(yes) => visitor.visit_bool(*yes),
            Node::Date => Err(Problem::invalid_type(Unexpected::Other("a date"), &visitor)),
            Node::List(items) => visitor.visit_seq(Items(items.iter())),
            Node::Table(table) => visitor.visit_map(Entries { rest: Box::new(table.entries()), value: None }),
        })
    }

    numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.node {
            Node::Text(text) => self.placed(|_| match text.parse() {
                Ok(yes) => visitor.visit_bool(yes),
                Err(_) => Err(Problem::invalid_type(Unexpected::Other("neither"), &visitor)),
            }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.placed(|node| match node {
            Node::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Node::Table(table) => {
                let mut entries = table.entries();
                match (entries.next(), entries.next()) {
                    (Some(entry), None) => visitor.visit_enum(Variant(entry)),
                    _ => Err(Problem::invalid_type(Unexpected::Map, &visitor)),
                }
            }
            _ => Err(Problem::invalid_type(Unexpected::Other(self.0.described()), &visitor)),
        })
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        self.0.next().map(|item| seed.deserialize(Input(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'de> {
    rest: Box<dyn Iterator<Item = &'de Entry> + 'de>,
    value: Option<&'de Value>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.value = Some(&entry.value);
        let key = serde::de::value::BorrowedStrDeserializer::new(&entry.key);
        seed.deserialize(key).map(Some).map_err(|problem: Problem| problem.or_at(&entry.at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let value = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(Input(value))
    }
}

/// A choice that carries something: `{ choice = something }`.
struct Variant<'de>(&'de Entry);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Problem;
    type Variant = Input<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Input<'de>), Problem> {
        let name = serde::de::value::BorrowedStrDeserializer::new(&self.0.key);
        let chosen = seed.deserialize(name).map_err(|problem: Problem| problem.or_at(&self.0.at))?;
        Ok((chosen, Input(&self.0.value)))
    }
}

impl<'de> VariantAccess<'de> for Input<'de> {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        Err(Problem::invalid_type(Unexpected::Other(self.0.described()), &"nothing more"))
            .map_err(|problem: Problem| problem.or_at(&self.0.at))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Problem> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_any(visitor)
    }
}
