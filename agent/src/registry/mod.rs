//! The device's parameters: one table in code, four layers of values (default, image, device, server), one typed snapshot for the
//! rest of the agent. What comes in from outside is checked against the table first; what the table keeps for the device is
//! never taken from the server.

mod docs;
mod file;
mod kind;
mod server;
mod snapshot;
mod table;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use umbra_protocol::settings::Value;

pub use docs::markdown;
pub use kind::{Kind, Upstream};
pub use snapshot::{
    Consent, DiscoverySettings, Gateways, Hands, Indicator, Manager, Ranking, SessionLimits,
    Snapshot, Unattended, Vnc,
};
pub use table::{Parameter, Source, TABLE, Who};

use crate::files::{self, FileError, Files};
use crate::paths::Paths;
use server::ServerLayer;

/// What is shown instead of a secret.
const MASK: &str = "********";

/// Why a parameter was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such name.
    #[error("there is no parameter “{name}”{}", meant(.nearest.as_deref()))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// Not what the parameter may hold.
    #[error("{name} must be {accepted}")]
    Value {
        /// Which parameter.
        name: String,
        /// What would be accepted.
        accepted: String,
    },
    /// The server wants to set what only the device may.
    #[error("{name} can only be set on the device itself")]
    LocalOnly {
        /// Which parameter.
        name: String,
    },
    /// The change could not be kept; nothing was changed.
    #[error("the change was not made")]
    File(#[source] FileError),
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!("; is “{name}” meant?"))
}

/// Where a value in force comes from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The table in code.
    Default,
    /// The image maker's file.
    Image,
    /// Set on the device.
    Device,
    /// Set by the server.
    Server,
}

umbra_protocol::json::words!(Layer { Default = "default", Image = "image", Device = "device", Server = "server" });

impl Layer {
    /// One word for people.
    pub fn word(self) -> &'static str {
        match self {
            Layer::Default => "default",
            Layer::Image => "image",
            Layer::Device => "device",
            Layer::Server => "server",
        }
    }
}

/// A parameter with its value in force, for people; a secret's value is masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Full name.
    pub name: String,
    /// Value in force.
    pub value: Value,
    /// Where it comes from.
    pub layer: Layer,
    /// What would be accepted.
    pub accepts: String,
    /// Whether only the device may set it.
    pub local_only: bool,
    /// What it does.
    pub doc: String,
}

umbra_protocol::json::object!(Entry { name, value, layer, accepts, local_only, doc;  });

impl Entry {
    /// What is in force and why, as a sentence.
    pub fn in_force(&self) -> String {
        let value = match &self.value {
            Value::Text(text) if text.is_empty() => "empty".to_owned(),
            Value::List(items) if items.is_empty() => "empty".to_owned(),
            Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_) => {
                self.value.to_string()
            }
        };
        let why = match self.layer {
            Layer::Default => "that is the default",
            Layer::Image => "the device's image says so",
            Layer::Device => "it was set on this device",
            Layer::Server => "the server decides this parameter, whatever is set on the device",
        };
        format!("{} is {value} now: {why}.", self.name)
    }
}

/// The registry. Clones are one registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

// Values may be secrets.
impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

struct Inner {
    paths: Paths,
    files: Files,
    /// Whether a copy of the last readable state is kept.
    keeps_copy: bool,
    state: Mutex<State>,
    sender: watch::Sender<Arc<Snapshot>>,
}

#[derive(Default)]
struct State {
    image: FileLayer,
    device: FileLayer,
    server: ServerLayer,
    /// Why the server's settings on the disk could not be read.
    server_problem: Option<String>,
}

/// A file's values, and by what it is recognised as unchanged.
#[derive(Default)]
struct FileLayer {
    values: BTreeMap<String, Value>,
    problems: Vec<String>,
    /// Lines that only another version of this program understands; they stay in the file.
    strange: Vec<String>,
    stamp: Option<Stamp>,
}

/// Device, inode, size and time of change.
type Stamp = (u64, u64, u64, i64, i64);

impl Registry {
    /// Reads all layers. It always comes up: what can't be read is told by [`Registry::problems`], and the last good state or
    /// the layer below holds.
    pub fn open(paths: &Paths, files: &Files) -> Self {
        Self::read(paths, files, true)
    }

    /// The programs that root runs for the agent, as the image's own file names them: what was set on the device or by the server
    /// counts for nothing here, since the agent can write that.
    pub fn of_the_image(paths: &Paths) -> Hands {
        let mut image = FileLayer::default();
        image.refresh(&paths.image_registry(), None);
        let state = State {
            image,
            ..State::default()
        };
        state.snapshot().hands.clone()
    }

    /// [`Registry::open`] for somebody who only looks: leaves nothing on the disk.
    pub fn open_quietly(paths: &Paths) -> Self {
        Self::read(paths, &Files::new(), false)
    }

    fn read(paths: &Paths, files: &Files, keeps_copy: bool) -> Self {
        let mut state = State::default();
        match ServerLayer::read(paths) {
            Ok(layer) => state.server = layer,
            Err(problem) => state.server_problem = Some(problem),
        }
        let inner = Inner {
            paths: paths.clone(),
            files: files.clone(),
            keeps_copy,
            sender: watch::Sender::new(Arc::new(state.snapshot())),
            state: Mutex::new(state),
        };
        let registry = Self {
            inner: Arc::new(inner),
        };
        registry.reload();
        registry
    }

    /// Reads the files again where they changed. Cheap where they did not.
    pub fn reload(&self) {
        let mut state = self.state();
        let paths = &self.inner.paths;
        state.image.refresh(&paths.image_registry(), None);
        self.refresh_device(&mut state);
        self.publish(&state);
    }

    fn refresh_device(&self, state: &mut State) {
        let paths = &self.inner.paths;
        let good = Good {
            path: &paths.registry_good(),
            files: Some(&self.inner.files).filter(|_| self.inner.keeps_copy),
        };
        state.device.refresh(&paths.registry(), Some(good));
    }

    /// All parameters now, typed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.sender.borrow())
    }

    /// All parameters now and whenever one changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.sender.subscribe()
    }

    /// What is wrong with the files, each as a sentence.
    pub fn problems(&self) -> Vec<String> {
        let state = self.state();
        let server = state.server_problem.iter().cloned();
        state
            .image
            .problems
            .iter()
            .chain(&state.device.problems)
            .cloned()
            .chain(server)
            .collect()
    }

    /// One parameter; a secret is masked.
    pub fn get(&self, name: &str) -> Result<Entry, RegistryError> {
        let parameter = known(name)?;
        Ok(self.state().entry(name, parameter))
    }

    /// All parameters, or those whose name begins with `prefix`; secrets are masked.
    pub fn list(&self, prefix: &str) -> Vec<Entry> {
        let state = self.state();
        table::names()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, parameter)| state.entry(&name, parameter))
            .collect()
    }

    /// Sets a parameter on the device, as somebody typed it. Says what is in force now, which the server may decide.
    pub fn set(&self, name: &str, words: &[String]) -> Result<Entry, RegistryError> {
        let parameter = known(name)?;
        let value = parameter
            .kind
            .parse(words)
            .map_err(|accepted| RegistryError::Value {
                name: name.to_owned(),
                accepted,
            })?;
        self.change(name, parameter, Some(value))
    }

    /// Forgets what was set on the device for a parameter.
    pub fn reset(&self, name: &str) -> Result<Entry, RegistryError> {
        self.change(name, known(name)?, None)
    }

    fn change(
        &self,
        name: &str,
        parameter: &Parameter,
        value: Option<Value>,
    ) -> Result<Entry, RegistryError> {
        self.reload();
        let mut state = self.state();
        let paths = &self.inner.paths;
        let mut values = state.device.values.clone();
        match value {
            Some(value) => values.insert(name.to_owned(), value),
            None => values.remove(name),
        };
        let write = || -> Result<(), FileError> {
            files::make_directory(&paths.kept(), 0o700)?;
            if !state.device.problems.is_empty() {
                // What somebody wrote by hand is not lost with the mistake in it.
                if let Some(bytes) = files::read(&paths.registry(), file::FILE_MAX)? {
                    self.inner
                        .files
                        .write(&paths.registry_broken(), &bytes, 0o600)?;
                }
            }
            let mut text = file::write(&values, &state.device.strange);
            if file::parse(&paths.registry(), &text).is_err() {
                // A name that contradicts one that is known here.
                text = file::write(&values, &[]);
            }
            self.inner
                .files
                .write(&paths.registry(), text.as_bytes(), 0o600)
        };
        write().map_err(RegistryError::File)?;
        state.device.stamp = None;
        self.refresh_device(&mut state);
        self.publish(&state);
        Ok(state.entry(name, parameter))
    }

    /// Takes over the server's settings as a whole and keeps them on the disk; an older revision than the present one changes
    /// nothing. Answers with the parameters that are refused, each with a sentence; all others are in force.
    ///
    /// # Errors
    /// [`RegistryError::File`] if they can't be kept; nothing has changed then.
    pub fn apply_server(
        &self,
        revision: u64,
        values: BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, String>, RegistryError> {
        let mut state = self.state();
        if revision < state.server.revision {
            return Ok(state.server.refused.clone());
        }
        let layer = ServerLayer::new(revision, values);
        layer
            .write(&self.inner.paths, &self.inner.files)
            .map_err(RegistryError::File)?;
        let refused = layer.refused.clone();
        state.server = layer;
        state.server_problem = None;
        self.publish(&state);
        Ok(refused)
    }

    /// Forgets all that the server decided, for a device that leaves it.
    ///
    /// # Errors
    /// [`RegistryError::File`] if the disk refuses; nothing has changed then.
    pub fn forget_server(&self) -> Result<(), RegistryError> {
        let mut state = self.state();
        self.inner
            .files
            .remove(&self.inner.paths.server_settings())
            .map_err(RegistryError::File)?;
        state.server = ServerLayer::default();
        state.server_problem = None;
        self.publish(&state);
        Ok(())
    }

    fn publish(&self, state: &State) {
        let new = state.snapshot();
        self.inner.sender.send_if_modified(|present| {
            let changed = **present != new;
            if changed {
                *present = Arc::new(new);
            }
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one assignment: a panic in between leaves nothing half-made.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a parameter of this name is a secret, so that its value belongs on no command line.
pub fn is_secret(name: &str) -> bool {
    table::find(name).is_some_and(|parameter| parameter.secret)
}

fn known(name: &str) -> Result<&'static Parameter, RegistryError> {
    table::find(name).ok_or_else(|| RegistryError::Unknown {
        name: name.escape_debug().take(100).collect(),
        nearest: table::nearest(name),
    })
}

impl State {
    fn effective(&self, name: &str) -> Option<(&Value, Layer)> {
        let server = self
            .server
            .values
            .get(name)
            .map(|value| (value, Layer::Server));
        server.or_else(|| self.local(name))
    }

    fn local(&self, name: &str) -> Option<(&Value, Layer)> {
        let device = self
            .device
            .values
            .get(name)
            .map(|value| (value, Layer::Device));
        device.or_else(|| {
            self.image
                .values
                .get(name)
                .map(|value| (value, Layer::Image))
        })
    }

    fn entry(&self, name: &str, parameter: &Parameter) -> Entry {
        let (value, layer) = self.effective(name).map_or_else(
            || (parameter.default.value(), Layer::Default),
            |(value, layer)| (value.clone(), layer),
        );
        let empty = value == Value::Text(String::new());
        Entry {
            name: name.to_owned(),
            value: if parameter.secret && !empty {
                Value::Text(MASK.to_owned())
            } else {
                value
            },
            layer,
            accepts: parameter.kind.accepts(),
            local_only: parameter.who == Who::LocalOnly,
            doc: parameter.doc.to_owned(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        snapshot::Values {
            effective: &|name| self.effective(name).map(|(value, _)| value.clone()),
            local: &|name| self.local(name).map(|(value, _)| value.clone()),
            revision: self.server.revision,
        }
        .snapshot()
    }
}

/// Where a copy of the last readable state is, and the way to write it, if it may be written.
#[derive(Clone, Copy)]
struct Good<'a> {
    path: &'a Path,
    files: Option<&'a Files>,
}

impl FileLayer {
    /// Reads the file if it is another than last time. With `good`, a copy of the last readable state is kept there and used
    /// where the file can't be read.
    fn refresh(&mut self, path: &Path, good: Option<Good<'_>>) {
        let stamp = stamp(path);
        if stamp.is_some() && stamp == self.stamp {
            return;
        }
        let first = self.stamp.is_none();
        self.stamp = stamp;
        let broken = match files::read_text(path, file::FILE_MAX) {
            Ok(None) => {
                self.values.clear();
                self.problems.clear();
                self.strange.clear();
                return;
            }
            Ok(Some(text)) => match file::parse(path, &text) {
                Ok(contents) => {
                    if let Some(Good {
                        path: copy,
                        files: Some(files),
                    }) = good
                        && contents.problems.is_empty()
                    {
                        keep_good(files, copy, &text);
                    }
                    self.values = contents.values;
                    self.problems = contents.problems;
                    self.strange = contents.strange;
                    return;
                }
                Err(problem) => problem,
            },
            Err(error) => error.to_string(),
        };
        let last_good = good
            .filter(|_| first && self.values.is_empty())
            .and_then(|good| {
                Some((
                    good.path,
                    files::read_text(good.path, file::FILE_MAX).ok()??,
                ))
            })
            .and_then(|(copy, text)| file::parse(copy, &text).ok());
        if let Some(contents) = last_good {
            self.values = contents.values;
            self.strange = contents.strange;
        }
        self.problems = vec![format!(
            "{broken}. The last readable state holds until this is mended."
        )];
    }
}

/// Best effort: the copy only matters if the file breaks later.
fn keep_good(files: &Files, copy: &Path, text: &str) {
    if matches!(files::read_text(copy, file::FILE_MAX), Ok(Some(kept)) if kept == text) {
        return;
    }
    let written = copy
        .parent()
        .map_or(Ok(()), |directory| files::make_directory(directory, 0o700))
        .and_then(|()| files.write(copy, text.as_bytes(), 0o600));
    if let Err(error) = written {
        tracing::debug!(%error, "no copy of the registry was kept");
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests;
