//! What the server decided, as it lies on the disk: one JSON file with its revision, replaced as a whole.

use std::collections::BTreeMap;

use serde::Serialize;
use umbra_protocol::limits;
use umbra_protocol::settings::Value;

use super::table::Who;
use super::{RegistryError, known};
use crate::files::{self, FileError, Files};
use crate::paths::Paths;

/// The largest file of this kind.
const FILE_MAX: usize = 1024 * 1024;
/// Most refusals that are answered in words.
const REFUSALS_MAX: usize = 200;

/// The server's layer.
#[derive(Default, Serialize)]
pub(super) struct ServerLayer {
    pub(super) revision: u64,
    pub(super) values: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) refused: BTreeMap<String, String>,
}

umbra_protocol::json::object!(ServerLayer { revision, values; refused });

impl ServerLayer {
    /// Sorts what the server sent into what may be taken over and what is refused.
    pub(super) fn new(revision: u64, values: BTreeMap<String, Value>) -> Self {
        let mut layer = Self {
            revision,
            ..Self::default()
        };
        for (index, (name, value)) in values.into_iter().enumerate() {
            let allowed = if index < limits::SETTINGS {
                allowed(&name, &value).map_err(|error| error.to_string())
            } else {
                Err("there are more settings than one message may hold".to_owned())
            };
            match allowed {
                Ok(()) => {
                    layer.values.insert(name, value);
                }
                Err(sentence) if layer.refused.len() < REFUSALS_MAX => {
                    let name: String = name.chars().take(limits::LABEL / 4).collect();
                    layer.refused.insert(
                        umbra_protocol::refusal::clip(name),
                        umbra_protocol::refusal::clip(sentence),
                    );
                }
                Err(_) => {}
            }
        }
        layer
    }

    /// What was kept; nothing if nothing was. The error is a sentence.
    pub(super) fn read(paths: &Paths) -> Result<Self, String> {
        let path = paths.server_settings();
        let Some(bytes) = files::read(&path, FILE_MAX).map_err(|error| error.to_string())? else {
            return Ok(Self::default());
        };
        let kept: Self = umbra_protocol::json::from_slice(&bytes).map_err(|_| {
            format!(
                "{} can't be read; the server's settings are fetched anew when it is reached",
                path.display()
            )
        })?;
        // Another version of this program may have known other parameters.
        let mut layer = Self::new(kept.revision, kept.values);
        layer.refused.extend(kept.refused);
        Ok(layer)
    }

    pub(super) fn write(&self, paths: &Paths, files: &Files) -> Result<(), FileError> {
        files::make_directory(&paths.kept(), 0o700)?;
        // A plain struct of texts and numbers always serialises; an empty file would be read as broken, not as settings.
        let json = serde_json::to_vec(self).unwrap_or_default();
        files.write(&paths.server_settings(), &json, 0o600)
    }
}

fn allowed(name: &str, value: &Value) -> Result<(), RegistryError> {
    let parameter = known(name)?;
    if parameter.who == Who::LocalOnly {
        return Err(RegistryError::LocalOnly {
            name: name.to_owned(),
        });
    }
    parameter
        .kind
        .check(value)
        .map_err(|accepted| RegistryError::Value {
            name: name.to_owned(),
            accepted,
        })
}
