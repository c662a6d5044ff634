//! Objects by the names of their fields, and the macros that read structures and words with them.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::Error;

use super::Json;

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
