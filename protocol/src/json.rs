//! JSON, read in two steps: the text becomes values of one kind, and those become what they mean. So the reader of the text is in a
//! program once instead of once for each type, and whatever is told apart by a field (`type`, `action`, …) is read like the rest.
//!
//! A value takes at most some 20 times the bytes of its text; whoever reads limits the text. How deep values may be nested is
//! serde_json's limit (128). An object is never read from a list of its values.

// Whatever else a value is, it is not what was expected.
#![expect(clippy::wildcard_enum_match_arm)]

use std::fmt;
use std::vec::IntoIter;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected,
    IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::Error;

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

/// The fields of an object, to be taken by their names.
pub struct Fields(Vec<(String, Json)>);

impl Fields {
    /// Reads an object by the function that takes its fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read<'de, D: Deserializer<'de>, T>(
        reader: D,
        take: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, D::Error> {
        Self::of(Json::deserialize(reader)?)
            .and_then(|mut fields| take(&mut fields))
            .map_err(D::Error::custom)
    }

    #[inline(never)]
    fn of(value: Json) -> Result<Self, Error> {
        match value {
            Json::Object(fields) => Ok(Self(fields)),
            other => Err(other.instead_of(&"an object")),
        }
    }

    #[inline(never)]
    fn find(&mut self, name: &str) -> Result<Option<Json>, Error> {
        let Some(place) = self.0.iter().position(|(other, _)| other == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(place);
        if self.0.iter().any(|(other, _)| other == name) {
            return Err(Error::custom(format_args!("duplicate field `{name}`")));
        }
        Ok(Some(value))
    }

    #[inline(never)]
    fn expect(&mut self, name: &str) -> Result<Json, Error> {
        self.find(name)?
            .ok_or_else(|| Error::custom(format_args!("missing field `{name}`")))
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// It is not there, is there twice, or is something else.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Error> {
        T::deserialize(self.expect(name)?)
    }

    /// A field that may be missing.
    ///
    /// # Errors
    /// It is there twice, or is something else.
    pub fn take_or_default<T: DeserializeOwned + Default>(
        &mut self,
        name: &str,
    ) -> Result<T, Error> {
        match self.find(name)? {
            Some(value) => T::deserialize(value),
            None => Ok(T::default()),
        }
    }

    /// A field that must be a text.
    ///
    /// # Errors
    /// It is not there, is there twice, or is something else.
    #[inline(never)]
    pub fn take_text(&mut self, name: &str) -> Result<String, Error> {
        self.expect(name)?.text(&"a string")
    }

    /// All that was not taken yet.
    #[must_use]
    pub fn rest(&mut self) -> Json {
        Json::Object(std::mem::take(&mut self.0))
    }

    /// Holds an object to the fields that were taken.
    ///
    /// # Errors
    /// There is another one.
    #[inline(never)]
    pub fn nothing_else(&self) -> Result<(), Error> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::custom(format_args!("unknown field `{name}`"))),
        }
    }
}

/// None of the words that a field may hold.
#[must_use]
#[inline(never)]
pub fn unknown_word(word: &str) -> Error {
    Error::custom(format_args!("unknown variant `{word}`"))
}

/// How an object is read into a structure: the fields that must be there; the fields that may be missing. Fields that it doesn't have
/// are passed over. It takes a fraction of the code of what serde derives.
#[macro_export]
macro_rules! object {
    ($name:ident { $($must:ident),*; $($may:ident),* }) => {
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
                $crate::json::Fields::read(reader, |_fields| {
                    Ok(Self {
                        $($must: _fields.take(stringify!($must))?,)*
                        $($may: _fields.take_or_default(stringify!($may))?,)*
                    })
                })
            }
        }
    };
}

/// How one of several is read that has nothing behind its name.
#[macro_export]
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ }) => {
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
                match <String as ::serde::Deserialize>::deserialize(reader)?.as_str() {
                    $($word => Ok(Self::$variant),)+
                    other => Err(<D::Error as ::serde::de::Error>::custom($crate::json::unknown_word(other))),
                }
            }
        }
    };
}

pub use {object, words};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Named(String),
        Placed { x: i16, y: Option<u8> },
        Pair(bool, u64),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(i64);

    #[derive(Clone, Debug, PartialEq, Serialize)]
    struct Everything {
        kind: Kind,
        wrapped: Wrapped,
        list: Vec<Kind>,
        pair: (u8, String),
        map: BTreeMap<String, Option<bool>>,
        nothing: Option<Box<Kind>>,
    }

    crate::json::object!(Everything { kind, wrapped, list, pair, map; nothing });

    #[derive(Clone, Copy, Debug, PartialEq, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        One,
        OrTheOther,
    }

    crate::json::words!(Word { One = "one", OrTheOther = "or_the_other" });

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in [Word::One, Word::OrTheOther] {
            let text = serde_json::to_vec(&word).expect("serialises");
            assert_eq!(from_slice::<Word>(&text).expect("reads"), word);
        }
        assert_eq!(wrong::<Word>(r#""another""#), "unknown variant `another`");
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Plain),
            any::<String>().prop_map(Kind::Named),
            any::<(i16, Option<u8>)>().prop_map(|(x, y)| Kind::Placed { x, y }),
            any::<(bool, u64)>().prop_map(|(yes, number)| Kind::Pair(yes, number)),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            kind in kind(), number: i64, list in proptest::collection::vec(kind(), 0..5), pair: (u8, String),
            map: BTreeMap<String, Option<bool>>, nothing in proptest::option::of(kind()),
        ) {
            let value = Everything { kind, wrapped: Wrapped(number), list, pair, map, nothing: nothing.map(Box::new) };
            let text = serde_json::to_vec(&value).expect("serialises");
            prop_assert_eq!(from_slice::<Everything>(&text).expect("reads"), value);
        }

        #[test]
        fn a_text_is_a_value_where_serde_json_says_so(text in "[\\[\\]{}\",:0-9eE.+\\- \\\\untrefalsu]{0,24}") {
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(from_slice::<Json>(text.as_bytes()).is_ok(), theirs);
        }
    }

    fn wrong<T: DeserializeOwned>(text: &str) -> String {
        let read = from_slice::<T>(text.as_bytes());
        read.err().expect("a mistake").to_string()
    }

    #[derive(Debug, PartialEq)]
    struct Small {
        name: String,
        count: u8,
        note: String,
    }

    crate::json::object!(Small { name, count; note });

    #[test]
    fn fields_may_be_missing_only_where_that_is_said_and_others_are_passed_over() {
        let small: Small = from_slice(br#"{"new":[1,{}],"count":3,"name":"n"}"#).expect("reads");
        let expected = Small {
            name: "n".into(),
            count: 3,
            note: String::new(),
        };
        assert_eq!(small, expected);
        assert_eq!(wrong::<Small>(r#"{"count":3}"#), "missing field `name`");
        assert_eq!(
            wrong::<Small>(r#"{"name":"n","count":3,"name":"m"}"#),
            "duplicate field `name`"
        );
        assert_eq!(
            wrong::<Small>(r#"{"name":"n","count":"3"}"#),
            r#"invalid type: string "3", expected u8"#
        );
        assert_eq!(
            wrong::<Small>(r#"{"name":"n","count":300}"#),
            "invalid value: integer `300`, expected u8"
        );
    }

    #[test]
    fn a_list_of_values_is_no_object() {
        assert!(wrong::<Small>(r#"["n",3,""]"#).contains("expected an object"));
        assert!(wrong::<Kind>(r#"{"placed":[1,2]}"#).contains("invalid type: sequence"));
        // A pair is a list, and nothing else.
        assert_eq!(wrong::<(u8, u8)>("[1,2,3]"), "1 values too many");
    }

    #[test]
    fn one_of_several_is_what_its_name_says() {
        assert!(wrong::<Kind>(r#""named""#).contains("something behind it"));
        assert!(wrong::<Kind>(r#"{"plain":1}"#).contains("nothing behind it"));
        assert!(wrong::<Kind>(r#""other""#).contains("unknown variant `other`"));
        assert!(wrong::<Kind>(r#"{"plain":null,"named":"n"}"#).contains("invalid type: map"));
    }

    #[test]
    fn values_are_not_nested_without_end() {
        let text = "[".repeat(100_000);
        assert!(wrong::<Json>(&text).contains("recursion limit"));
    }
}
