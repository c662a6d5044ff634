//! Registry parameters as they travel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The value of a parameter. Which kind and range a parameter has is the registry table's business, on the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Grows with every change.
    pub revision: u64,
    /// Dotted names and values; they go before what was set on the device.
    pub values: BTreeMap<String, Value>,
}

/// The device has taken over a set of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsApplied {
    /// Which revision.
    pub revision: u64,
    /// Parameters that the device refused, each with a sentence; the others are in force.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
}
