//! What `umbra` remembers between two calls: servers, their pinned root certificates and the tokens of who is logged in.
//! The file is its owner's alone (0600), is replaced as a whole or not at all, and never holds a password.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use umbra_carrier::address::HostPort;
use umbra_protocol::Secret;
use umbra_protocol::api::Role;

use crate::text::printable;

/// Larger files are not ours.
const FILE_MAX: u64 = 1024 * 1024;

/// Why the remembered things can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither `--config` nor a home folder.
    #[error("there is no home folder to keep the configuration in: name a file with --config FILE")]
    NoHome,
    /// The file can't be read.
    #[error("the configuration {} can't be read", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read or change it.
    #[error("the configuration {} is open to other users of this machine: close it with chmod 600", .path.display())]
    Open {
        /// Which file.
        path: PathBuf,
    },
    /// It isn't what this program writes.
    #[error("the configuration {} is not one of this program's ({mistake}): correct it, or remove it and log in again", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        mistake: String,
    },
    /// It can't be written.
    #[error("the configuration {} can't be written", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The remembered things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server of the last log-in, as `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What is known of each server, by `HOST:PORT`.
    #[serde(default)]
    pub servers: BTreeMap<String, KnownServer>,
}

/// A server that was logged in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownServer {
    /// The root certificate that its chain must end in, PEM.
    pub root: String,
    /// The account of the last log-in.
    pub user: String,
    /// Who is logged in; nobody after a log-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<StoredLogin>,
}

/// A log-in that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredLogin {
    /// The bearer token.
    pub token: Secret,
    /// Display name of the operator.
    pub display_name: String,
    /// What the account may do.
    pub role: Role,
    /// When the token ends, by this machine's clock.
    pub expires_at: i64,
}

/// Where the file is: `--config`, else `UMBRA_CONFIG`, else `umbra/config.json` in the user's configuration folder.
///
/// # Errors
/// [`ConfigError::NoHome`].
pub fn locate(
    option: Option<&Path>,
    environment: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<PathBuf, ConfigError> {
    let set = |name: &str| {
        environment(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = option.map(Path::to_owned).or_else(|| set("UMBRA_CONFIG")) {
        return Ok(path);
    }
    // The XDG rules: a path there that isn't absolute is ignored.
    let folder = set("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .ok_or(ConfigError::NoHome)?;
    Ok(folder.join("umbra/config.json"))
}

/// The file, and the only way to what is in it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    /// The file at this path; it need not exist yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the file; nothing where there is none.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let unreadable = |source| ConfigError::Read {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return Err(unreadable(error)),
        };
        if file.metadata().map_err(unreadable)?.permissions().mode() & 0o077 != 0 {
            return Err(ConfigError::Open {
                path: self.path.clone(),
            });
        }
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.take(FILE_MAX)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        serde_json::from_slice(&bytes).map_err(|error| ConfigError::Damaged {
            path: self.path.clone(),
            mistake: printable(&error.to_string()),
        })
    }

    /// Changes the file: reads it, applies the change and replaces it, while no other call of this program does the same.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file; it is as it was then.
    pub fn change(&self, change: impl FnOnce(&mut Config)) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Write {
            path: self.path.clone(),
            source,
        };
        let folder = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(self.path.with_added_extension("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut config = self.load()?;
        change(&mut config);
        let mut text = zeroize::Zeroizing::new(
            serde_json::to_vec_pretty(&config).map_err(|e| failed(e.into()))?,
        );
        text.push(b'\n');
        write_private(&self.path, &text).map_err(failed)
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Puts bytes into a file that only its owner may read, as a whole or not at all.
///
/// # Errors
/// What the system reports; an older file is as it was then.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut neighbour = std::ffi::OsString::from(".");
    neighbour.push(name);
    neighbour.push(format!(".{}", std::process::id()));
    let neighbour = folder.join(neighbour);
    let written = (|| {
        // Left behind by a process of the same number that was killed.
        match fs::remove_file(&neighbour) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&neighbour)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&neighbour, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&neighbour);
    }
    written
}

impl Config {
    /// Which server is meant: the named one, else that of the last log-in.
    pub fn choose(&self, named: Option<&HostPort>) -> Option<String> {
        named
            .map(ToString::to_string)
            .or_else(|| self.server.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_told_on_its_line_whatever_is_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        write_private(&path, b"{\"\x7fservers\":\"[}").expect("written");
        let told = ConfigFile::at(path)
            .load()
            .expect_err("damaged")
            .to_string();
        assert!(told.contains("\\u{7f}servers"), "{told:?}");
        assert!(!told.contains(char::is_control), "{told:?}");
    }

    fn known() -> KnownServer {
        KnownServer {
            root: "-----BEGIN CERTIFICATE-----".into(),
            user: "anna".into(),
            login: Some(StoredLogin {
                token: Secret::new("t0ken"),
                display_name: "Anna".into(),
                role: Role::Operator,
                expires_at: 7,
            }),
        }
    }

    fn keep(file: &ConfigFile) {
        file.change(|config| {
            config.server = Some("ums:8443".into());
            config.servers.insert("ums:8443".into(), known());
        })
        .expect("the file is written");
    }

    #[test]
    fn what_is_kept_is_found_again_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/umbra/config.json");
        let file = ConfigFile::at(path.clone());
        assert_eq!(file.load().expect("no file is no error"), Config::default());
        keep(&file);
        let config = file.load().expect("the file is there");
        assert_eq!(config.servers["ums:8443"], known());
        assert_eq!(config.choose(None), Some("ums:8443".into()));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a folder")), 0o700);
        let names: Vec<_> = fs::read_dir(path.parent().expect("a folder"))
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        assert_eq!(names.len(), 2, "only the file and its lock stay: {names:?}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        let file = ConfigFile::at(path.clone());
        keep(&file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(file.load(), Err(ConfigError::Open { .. })));
    }

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        write_private(&path, b"{\"servers\":{},\"colour\":1}").expect("written");
        let file = ConfigFile::at(path.clone());
        let error = file
            .change(|_| {})
            .expect_err("unknown keys are errors")
            .to_string();
        assert!(
            error.contains("config.json") && error.contains("colour"),
            "{error}"
        );
        assert_eq!(
            fs::read(&path).expect("there"),
            b"{\"servers\":{},\"colour\":1}"
        );
    }

    #[test]
    fn changes_of_two_calls_at_once_are_both_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = ConfigFile::at(folder.path().join("config.json"));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let file = file.clone();
                scope.spawn(move || {
                    file.change(|config| {
                        config.servers.insert(format!("s{number}:8443"), known());
                    })
                    .expect("written");
                });
            }
        });
        assert_eq!(file.load().expect("there").servers.len(), 8);
    }

    #[test]
    fn the_place_follows_option_environment_and_folders_in_this_order() {
        let environment = |names: &'static [(&'static str, &'static str)]| {
            move |name: &str| {
                names
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| value.into())
            }
        };
        let all = &[
            ("UMBRA_CONFIG", "/u"),
            ("XDG_CONFIG_HOME", "/x"),
            ("HOME", "/h"),
        ];
        assert_eq!(
            locate(Some(Path::new("/o")), environment(all)).expect("a place"),
            Path::new("/o")
        );
        assert_eq!(
            locate(None, environment(all)).expect("a place"),
            Path::new("/u")
        );
        assert_eq!(
            locate(None, environment(&all[1..])).expect("a place"),
            Path::new("/x/umbra/config.json")
        );
        let relative = &[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")];
        assert_eq!(
            locate(None, environment(relative)).expect("a place"),
            Path::new("/h/.config/umbra/config.json")
        );
        assert!(matches!(
            locate(None, environment(&[])),
            Err(ConfigError::NoHome)
        ));
    }
}
