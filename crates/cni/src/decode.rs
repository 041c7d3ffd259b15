//! Decodes JSON as Go does: field names in any case, null as absent.
//!
//! containerd and nerdctl send `HostPort` where the specification says `hostPort`. Go accepts that and serde does not, so this
//! is a deserializer over a parsed [`Value`] that does. It also keeps the path to each value: configurations are written by
//! hand, and their authors need key and value in an error.
//!
//! Only the fields of structs match in any case. Fields of enum variants, and what serde buffers first (untagged enums,
//! `flatten`), must match exactly.

use crate::Error;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::Value;
use std::fmt::Display;

/// In a struct a field of this name (`#[serde(rename = "$extra")]`) gets all keys that match no other field.
pub(crate) const EXTRA: &str = "$extra";

/// Longest message, in bytes: the beginning of a long value is enough.
const CLIP: usize = 300;

/// `value` as a `T`. Fields of structs match in any case, and the exact spelling is preferred. Keys of maps are not changed. Null
/// counts as absent, and unknown keys are ignored. Code 7: `ipam.ranges[0][0].subnet: invalid address: 10.0.0.0/33`.
pub fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(Node(value)).map_err(|e| {
        Error::config(if e.path.is_empty() {
            e.msg
        } else {
            format!("{}: {}", e.path, e.msg)
        })
    })
}

/// A fault and the path to it. The path is built from the inside out while the calls return.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {msg}")]
struct Fault {
    path: String,
    msg: String,
}

impl de::Error for Fault {
    fn custom<T: Display>(msg: T) -> Self {
        Self {
            path: String::new(),
            msg: clip(msg.to_string()),
        }
    }
}

impl Fault {
    /// The same fault one level further out, where `value` is at `step`.
    fn at(mut self, step: &str, value: &Value) -> Self {
        if self.path.is_empty() {
            self.msg = with_value(self.msg, value);
        }
        if secret(step) {
            "a value that is not acceptable (not shown)".clone_into(&mut self.msg);
        }
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

/// serde's own messages have the value. Those of `FromStr` often do not.
fn with_value(msg: String, value: &Value) -> String {
    let bare = match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return msg,
    };
    if msg.contains(&bare) && !bare.is_empty() || msg.len() >= CLIP {
        return msg;
    }
    clip(format!("{msg}: {value}"))
}

/// Whether the value at `step` may be shown: runtimes log messages.
fn secret(step: &str) -> bool {
    let step = step.to_ascii_lowercase();
    ["token", "secret", "password"]
        .iter()
        .any(|word| step.contains(word))
}

fn clip(mut text: String) -> String {
    if text.len() > CLIP {
        text.truncate(text.floor_char_boundary(CLIP));
        text.push_str("...");
    }
    text
}

/// A JSON value being decoded.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, Fault> for Node<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Number(n) => n.deserialize_any(visitor).map_err(de::Error::custom),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Object(map) => visitor.visit_map(Fields::new(map.iter().map(pair).collect())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Object(map) if map.len() == 1 => {
                let fields = Fields::new(map.iter().map(pair).collect());
                visitor.visit_enum(MapAccessDeserializer::new(fields))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Object(map) = self.0 else {
            // Not forwarded: a derived struct would take a list for its fields in order.
            return Err(de::Error::invalid_type(self.unexpected(), &"an object"));
        };
        visitor.visit_map(Fields::of_struct(map, fields))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

impl Node<'_> {
    fn unexpected(&self) -> de::Unexpected<'_> {
        match self.0 {
            Value::Null => de::Unexpected::Unit,
            Value::Bool(flag) => de::Unexpected::Bool(*flag),
            Value::Number(_) => de::Unexpected::Other("number"),
            Value::String(text) => de::Unexpected::Str(text),
            Value::Array(_) => de::Unexpected::Seq,
            Value::Object(_) => de::Unexpected::Map,
        }
    }
}

/// A list and the position in it.
struct Items<'a> {
    items: &'a [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        let Some(value) = self.items.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        let fault = |e: Fault| e.at(&format!("[{index}]"), value);
        seed.deserialize(Node(value)).map(Some).map_err(fault)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

/// The value of a key. The value of [`EXTRA`] has the keys that match no field.
enum Slot<'a> {
    One(&'a Value),
    Rest(Vec<Entry<'a>>),
}

/// The key as the visitor knows it, the key as it was sent, the value.
type Entry<'a> = (&'a str, &'a str, Slot<'a>);

fn pair<'a>((key, value): (&'a String, &'a Value)) -> Entry<'a> {
    (key, key, Slot::One(value))
}

/// The entries of an object that are not visited yet.
struct Fields<'a> {
    entries: std::vec::IntoIter<Entry<'a>>,
    value: Option<(&'a str, Slot<'a>)>,
}

impl<'a> Fields<'a> {
    fn new(entries: Vec<Entry<'a>>) -> Self {
        Self {
            entries: entries.into_iter(),
            value: None,
        }
    }

    fn of_struct(map: &'a serde_json::Map<String, Value>, fields: &[&'static str]) -> Self {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        let mut rest = Vec::new();
        for (key, value) in map {
            let field = fields
                .iter()
                .find(|f| *f == key)
                .or_else(|| fields.iter().find(|f| f.eq_ignore_ascii_case(key)));
            match field {
                None => rest.push((key.as_str(), key.as_str(), Slot::One(value))),
                // A Go client sends null for an empty list, as for everything else that it lacks.
                Some(_) if value.is_null() => {}
                // Another key spells the field exactly.
                Some(field) if field != key && map.contains_key(*field) => {}
                // The same field in a third spelling.
                Some(field) if entries.iter().any(|(name, ..)| name == field) => {}
                Some(field) => entries.push((*field, key.as_str(), Slot::One(value))),
            }
        }
        if fields.contains(&EXTRA) {
            entries.push((EXTRA, EXTRA, Slot::Rest(rest)));
        }
        Self::new(entries)
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, sent, slot)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((sent, slot));
        let key: StrDeserializer<'_, Fault> = name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        match self.value.take() {
            Some((sent, Slot::One(value))) => {
                let fault = |e: Fault| e.at(sent, value);
                seed.deserialize(Node(value)).map_err(fault)
            }
            Some((_, Slot::Rest(rest))) => {
                seed.deserialize(MapAccessDeserializer::new(Fields::new(rest)))
            }
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}
