//! JSON, read in two steps: the text becomes values of one kind, and those become what they mean. So the reader of the text is in a
//! program once instead of once for each type, and whatever is told apart by a field (`type`, `action`, …) is read like the rest.
//!
//! A value takes at most some 20 times the bytes of its text; whoever reads limits the text. How deep values may be nested is
//! serde_json's limit (128). An object is never read from a list of its values.

// Whatever else a value is, it is not what was expected.
#![expect(clippy::wildcard_enum_match_arm)]

mod fields;

use std::fmt;
use std::vec::IntoIter;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected,
    IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::Error;

pub use crate::{object, words};
pub use fields::{Fields, unknown_word};

/// Any value. It can't be printed: it may hold a secret.
pub enum Json {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number that is not negative.
    Natural(u64),
    /// A negative whole number.
    Negative(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in their order.
    List(Vec<Json>),
    /// Names and values in their order, names that come twice included.
    Object(Vec<(String, Json)>),
}

/// Reads a text.
///
/// # Errors
/// What is wrong with it, as a clause for developers.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    T::deserialize(parse(text)?)
}

#[inline(never)]
fn parse(text: &[u8]) -> Result<Json, Error> {
    serde_json::from_slice(text)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Natural(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Natural))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = object.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

impl Json {
    #[inline(never)]
    fn instead_of(&self, expected: &dyn Expected) -> Error {
        Error::invalid_type(
            match self {
                Json::Null => Unexpected::Other("null"),
                Json::Bool(value) => Unexpected::Bool(*value),
                Json::Natural(value) => Unexpected::Unsigned(*value),
                Json::Negative(value) => Unexpected::Signed(*value),
                Json::Float(value) => Unexpected::Float(*value),
                Json::Text(value) => Unexpected::Str(value),
                Json::List(_) => Unexpected::Seq,
                Json::Object(_) => Unexpected::Map,
            },
            expected,
        )
    }

    #[inline(never)]
    fn list(self, expected: &dyn Expected) -> Result<List, Error> {
        match self {
            Json::List(values) => Ok(List(values.into_iter())),
            other => Err(other.instead_of(expected)),
        }
    }

    #[inline(never)]
    fn object(self, expected: &dyn Expected) -> Result<Object, Error> {
        match self {
            Json::Object(fields) => Ok(Object {
                fields: fields.into_iter(),
                value: Json::Null,
            }),
            other => Err(other.instead_of(expected)),
        }
    }

    #[inline(never)]
    fn text(self, expected: &dyn Expected) -> Result<String, Error> {
        match self {
            Json::Text(text) => Ok(text),
            other => Err(other.instead_of(expected)),
        }
    }

    /// Which of several, and what belongs to it.
    #[inline(never)]
    fn variant(self, expected: &dyn Expected) -> Result<Variant, Error> {
        match self {
            Json::Text(name) => Ok(Variant { name, value: None }),
            Json::Object(mut fields) if fields.len() == 1 => match fields.pop() {
                Some((name, value)) => Ok(Variant {
                    name,
                    value: Some(value),
                }),
                None => Err(Error::custom("no variant")),
            },
            other => Err(other.instead_of(expected)),
        }
    }
}

macro_rules! as_any {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.deserialize_any(visitor)
        })+
    };
}

macro_rules! as_number {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self {
                Json::Natural(value) => visitor.visit_u64(value),
                Json::Negative(value) => visitor.visit_i64(value),
                other => Err(other.instead_of(&visitor)),
            }
        })+
    };
}

macro_rules! as_text {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let text = self.text(&visitor)?;
            visitor.visit_string(text)
        })+
    };
}

impl<'de> Deserializer<'de> for Json {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(value),
            Json::Natural(value) => visitor.visit_u64(value),
            Json::Negative(value) => visitor.visit_i64(value),
            Json::Float(value) => visitor.visit_f64(value),
            Json::Text(value) => visitor.visit_string(value),
            list @ Json::List(_) => list.deserialize_seq(visitor),
            object @ Json::Object(_) => object.deserialize_map(visitor),
        }
    }

    as_any!(deserialize_f32 deserialize_f64 deserialize_char deserialize_bytes deserialize_byte_buf deserialize_unit);
    as_number!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_u128);
    as_text!(deserialize_str deserialize_string);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Json::Bool(value) => visitor.visit_bool(value),
            other => Err(other.instead_of(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Json::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut list = self.list(&visitor)?;
        let value = visitor.visit_seq(&mut list)?;
        list.ended()?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _count: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _count: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let object = self.object(&visitor)?;
        visitor.visit_map(object)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = self.variant(&visitor)?;
        visitor.visit_enum(variant)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.text(&visitor)?;
        visitor.visit_str(&text)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

impl IntoDeserializer<'_, Error> for Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Values of a list that were not read yet.
struct List(IntoIter<Json>);

impl List {
    fn ended(&self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(Error::custom(format_args!("{more} values too many"))),
        }
    }
}

impl<'de> SeqAccess<'de> for &mut List {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        match self.0.next() {
            Some(value) => seed.deserialize(value).map(Some),
            None => Ok(None),
        }
    }
}

/// Fields of an object that were not read yet.
struct Object {
    fields: IntoIter<(String, Json)>,
    /// Of the field whose name was read.
    value: Json,
}

impl Object {
    #[inline(never)]
    fn next_name(&mut self) -> Option<String> {
        let (name, value) = self.fields.next()?;
        self.value = value;
        Some(name)
    }

    #[inline(never)]
    fn value(&mut self) -> Json {
        std::mem::replace(&mut self.value, Json::Null)
    }
}

impl<'de> MapAccess<'de> for Object {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        match self.next_name() {
            Some(name) => seed.deserialize(Json::Text(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.value())
    }
}

/// One of several, by its name.
struct Variant {
    name: String,
    value: Option<Json>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Content;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content), Error> {
        Ok((
            seed.deserialize(Json::Text(self.name))?,
            Content(self.value),
        ))
    }
}

/// What belongs to it.
struct Content(Option<Json>);

impl Content {
    #[inline(never)]
    fn nothing(self) -> Result<(), Error> {
        match self.0 {
            None | Some(Json::Null) => Ok(()),
            Some(_) => Err(Error::custom("a name with nothing behind it was expected")),
        }
    }

    #[inline(never)]
    fn something(self) -> Result<Json, Error> {
        self.0
            .ok_or_else(|| Error::custom("a name with something behind it was expected"))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.nothing()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.something()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _count: usize, visitor: V) -> Result<V::Value, Error> {
        self.something()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.something()?.deserialize_map(visitor)
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
