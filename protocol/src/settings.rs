//! Registry parameters as they travel.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::json::Json;

/// The value of a parameter. Which kind and range a parameter has is the registry table's business, on the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text; at most [`crate::limits::PARAMETER_TEXT`] bytes.
    Text(String),
    /// Several texts.
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Self::read(Json::deserialize(reader)?).ok_or_else(|| {
            D::Error::custom("a parameter is a word, a number, a text or a list of texts")
        })
    }
}

impl Value {
    fn read(value: Json) -> Option<Self> {
        match value {
            Json::Bool(value) => Some(Value::Bool(value)),
            Json::Natural(value) => i64::try_from(value).ok().map(Value::Int),
            Json::Negative(value) => Some(Value::Int(value)),
            Json::Text(value) => Some(Value::Text(value)),
            Json::List(values) => {
                let texts = values.into_iter().map(String::deserialize);
                texts.collect::<Result<_, _>>().ok().map(Value::List)
            }
            Json::Null | Json::Float(_) | Json::Object(_) => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
            Value::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// All parameters that the server decides for this device. Replaces the previous set as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Grows with every change.
    pub revision: u64,
    /// Dotted names and values; they go before what was set on the device.
    pub values: BTreeMap<String, Value>,
}

crate::json::object!(Settings { revision, values;  });

/// The device has taken over a set of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SettingsApplied {
    /// Which revision.
    pub revision: u64,
    /// Parameters that the device refused, each with a sentence; the others are in force.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
}

crate::json::object!(SettingsApplied { revision; refused });
