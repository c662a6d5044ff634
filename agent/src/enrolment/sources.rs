//! Where a server's address, its fingerprint and the first-authentication key come from when nobody types them: the environment, a
//! credential of the service manager, the kernel's command line, a file in the image. They are read and checked here; nothing is
//! sent anywhere, and a key never gets into a message.

use std::path::{Path, PathBuf};

use umbra_carrier::address::{AddressError, HostPort};
use umbra_protocol::Secret;
use umbra_protocol::credentials::{Credentials, CredentialsError, FILE_MAX, shown_host};
use umbra_protocol::fingerprint::FingerprintError;
use umbra_protocol::first_auth::{FirstAuthKey, KeyError};
use zeroize::Zeroizing;

use super::Trust;
use crate::exit::Exit;
use crate::files::{self, FileError};
use crate::paths::Paths;

/// The port of a server or gateway unless something else is said.
const PORT: u16 = 8_443;
/// The kernel takes a few KiB.
const COMMAND_LINE_MAX: usize = 64 * 1024;
/// What the service manager calls the credentials.
pub const CREDENTIAL: &str = "umbra.credentials";

/// What was given in one place, as texts.
#[derive(Debug, Default)]
pub struct Given {
    /// `HOST` or `HOST:PORT`.
    pub address: Option<String>,
    /// SHA-256 of the root certificate.
    pub fingerprint: Option<String>,
    /// The first-authentication key.
    pub key: Option<Secret>,
    /// A file with the first-authentication key.
    pub key_file: Option<PathBuf>,
    /// A file with the administrator's credentials, text or XML.
    pub credentials: Option<PathBuf>,
}

/// Everything that is needed to be taken on.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Where it comes from, for people.
    pub from: String,
    /// Servers and gateways in their order. Where there are none, they have to be found.
    pub endpoints: Vec<(HostPort, Trust)>,
    /// What makes a server trustworthy that has to be found.
    pub trust: Trust,
    /// The first-authentication key.
    pub key: FirstAuthKey,
}

/// Why what was given can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Something is missing.
    #[error("{from}: {what} is missing")]
    Missing {
        /// Where.
        from: String,
        /// What.
        what: &'static str,
    },
    /// The address is none.
    #[error("{from}: {source}")]
    Address {
        /// Where.
        from: String,
        /// Why.
        source: AddressError,
    },
    /// A host in a file is none.
    #[error("{from}: the host {host} can't be used")]
    Host {
        /// Where.
        from: String,
        /// Which, safe to show.
        host: String,
        /// Why.
        #[source]
        source: AddressError,
    },
    /// The fingerprint is none.
    #[error("{from}: {source}")]
    Fingerprint {
        /// Where.
        from: String,
        /// Why.
        source: FingerprintError,
    },
    /// The key is none.
    #[error("{from}: {source}")]
    Key {
        /// Where.
        from: String,
        /// Why.
        source: KeyError,
    },
    /// The credentials can't be read.
    #[error("{from}: {source}")]
    Credentials {
        /// Where.
        from: String,
        /// Why.
        source: CredentialsError,
    },
    /// There is no such file.
    #[error("there is no file {}", files::shown(.0))]
    NoFile(PathBuf),
    /// The file can't be read.
    #[error(transparent)]
    File(FileError),
    /// Standard input can't be read.
    #[error("standard input can't be read")]
    Input(#[source] std::io::Error),
}

impl SourceError {
    /// How a program ends because of it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. }
            | Self::Address { .. }
            | Self::Fingerprint { .. }
            | Self::Key { .. } => Exit::Usage,
            Self::Host { .. } | Self::Credentials { .. } => Exit::Data,
            Self::NoFile(_) => Exit::Unavailable,
            Self::File(FileError::Permission { .. }) => Exit::Permission,
            Self::File(
                FileError::NotAFile { .. } | FileError::TooLarge { .. } | FileError::NotText { .. },
            ) => Exit::Data,
            Self::File(
                FileError::Full { .. } | FileError::ReadOnly { .. } | FileError::Other { .. },
            )
            | Self::Input(_) => Exit::Disk,
        }
    }
}

impl Given {
    /// What the environment says: `UMBRA_ADDRESS`, `UMBRA_FINGERPRINT`, `UMBRA_KEY_FILE`, `UMBRA_CREDENTIALS`.
    pub fn of_environment(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        Self {
            address: get("UMBRA_ADDRESS"),
            fingerprint: get("UMBRA_FINGERPRINT"),
            key: None,
            key_file: get("UMBRA_KEY_FILE").map(PathBuf::from),
            credentials: get("UMBRA_CREDENTIALS").map(PathBuf::from),
        }
    }

    /// What the kernel's command line says: `umbra.address=`, `umbra.fingerprint=`, `umbra.key=`, `umbra.credentials=`. The last of
    /// several counts, as the kernel itself has it; a value may stand in quotation marks.
    pub fn of_command_line(text: &str) -> Self {
        let mut given = Self::default();
        for (name, value) in words(text) {
            let value = Some(value).filter(|value| !value.is_empty());
            match name.as_str() {
                "umbra.address" => given.address = value,
                "umbra.fingerprint" => given.fingerprint = value,
                "umbra.key" => given.key = value.map(Secret::new),
                "umbra.credentials" => given.credentials = value.map(PathBuf::from),
                _ => {}
            }
        }
        given
    }

    /// Whether nothing at all was given.
    pub fn is_empty(&self) -> bool {
        self.address.is_none()
            && self.fingerprint.is_none()
            && self.key.is_none()
            && self.key_file.is_none()
            && self.credentials.is_none()
    }

    /// Reads what was given in this place. Without an address the server has to be found, where `finds` allows that; without a
    /// fingerprint a public certification authority has to vouch for it.
    ///
    /// # Errors
    /// [`SourceError`]
    pub fn read(self, from: &str, finds: bool) -> Result<Offer, SourceError> {
        let missing = |what| SourceError::Missing {
            from: from.to_owned(),
            what,
        };
        if let Some(file) = &self.credentials {
            return of_file(file, &format!("{from}, {}", files::shown(file)));
        }
        let trust = match &self.fingerprint {
            None => Trust::PublicCa,
            Some(text) => {
                Trust::Fingerprint(text.parse().map_err(|source| SourceError::Fingerprint {
                    from: from.to_owned(),
                    source,
                })?)
            }
        };
        let address = match &self.address {
            None if finds => None,
            None => return Err(missing("the address")),
            Some(text) => {
                Some(
                    HostPort::parse(text, PORT).map_err(|source| SourceError::Address {
                        from: from.to_owned(),
                        source,
                    })?,
                )
            }
        };
        let key = match (self.key, &self.key_file) {
            (Some(key), _) => key,
            (None, Some(file)) => {
                let bytes = read_file(file)?;
                Secret::new(String::from_utf8_lossy(&bytes).trim())
            }
            (None, None) => return Err(missing("the first-authentication key")),
        };
        let key = FirstAuthKey::parse(key.reveal()).map_err(|source| SourceError::Key {
            from: from.to_owned(),
            source,
        })?;
        Ok(Offer {
            from: from.to_owned(),
            endpoints: address
                .map(|address| (address, trust.clone()))
                .into_iter()
                .collect(),
            trust,
            key,
        })
    }
}

/// The first place on this device that says anything: the environment, the service manager's credential, the kernel's command line,
/// the files of the image. What is there and can't be used is an error, and not a reason to take the next.
///
/// # Errors
/// [`SourceError`]
pub fn unattended(
    paths: &Paths,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Option<Offer>, SourceError> {
    let environment = Given::of_environment(&get);
    if !environment.is_empty() {
        return environment.read("the environment", true).map(Some);
    }
    if let Some(directory) = get("CREDENTIALS_DIRECTORY") {
        let file = Path::new(&directory).join(CREDENTIAL);
        if file.exists() {
            return of_file(&file, "the service manager's credential umbra.credentials").map(Some);
        }
    }
    let command_line = paths.kernel_command_line();
    if let Some(bytes) = files::read(&command_line, COMMAND_LINE_MAX).map_err(SourceError::File)? {
        let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        let given = Given::of_command_line(&text);
        if !given.is_empty() {
            return given.read("the kernel's command line", true).map(Some);
        }
    }
    for file in paths.image_credentials() {
        if file.exists() {
            return of_file(&file, &files::shown(&file)).map(Some);
        }
    }
    Ok(None)
}

/// The administrator's credentials in a file, text or XML; `-` reads standard input.
fn of_file(file: &Path, from: &str) -> Result<Offer, SourceError> {
    let bytes = read_file(file)?;
    let credentials = Credentials::read(&bytes).map_err(|source| SourceError::Credentials {
        from: from.to_owned(),
        source,
    })?;
    let endpoints = credentials
        .endpoints
        .iter()
        .map(|endpoint| {
            let address = HostPort::new(&endpoint.host, endpoint.port);
            let address = address.map_err(|source| SourceError::Host {
                from: from.to_owned(),
                host: shown_host(&endpoint.host),
                source,
            })?;
            Ok((address, Trust::Fingerprint(endpoint.root_fingerprint)))
        })
        .collect::<Result<Vec<_>, SourceError>>()?;
    let Some((_, trust)) = endpoints.first().cloned() else {
        return Err(SourceError::Missing {
            from: from.to_owned(),
            what: "a server or gateway",
        });
    };
    Ok(Offer {
        from: from.to_owned(),
        endpoints,
        trust,
        key: credentials.key,
    })
}

/// At most one byte more than credentials may have: who reads them says that they are too large.
fn read_file(file: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    use std::io::Read as _;
    if file == Path::new("-") {
        let mut bytes = Zeroizing::new(Vec::new());
        let max = u64::try_from(FILE_MAX).unwrap_or(u64::MAX) + 1;
        std::io::stdin()
            .lock()
            .take(max)
            .read_to_end(&mut bytes)
            .map_err(SourceError::Input)?;
        return Ok(bytes);
    }
    // A person may well point to a link; only a device's own files are held to be plain.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    match files::read(&target, FILE_MAX) {
        Ok(Some(bytes)) => Ok(Zeroizing::new(bytes)),
        Ok(None) => Err(SourceError::NoFile(file.to_owned())),
        Err(error) => Err(SourceError::File(error)),
    }
}

/// The words of a command line that are assignments; quotation marks hold blanks together, as the kernel reads them.
fn words(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut word = Zeroizing::new(String::new());
    let mut quoted = false;
    for letter in text.chars().chain([' ']) {
        match letter {
            '"' => quoted = !quoted,
            letter if letter.is_whitespace() && !quoted => {
                if let Some((name, value)) = word.split_once('=') {
                    found.push((name.to_owned(), value.to_owned()));
                }
                word.clear();
            }
            letter => word.push(letter),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AB3DE-FGHJK-MNPQR-STVWX";
    const PRINT: &str = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";

    fn device() -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        (root, paths)
    }

    fn put(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn credentials(hosts: &[&str]) -> String {
        let endpoints = hosts
            .iter()
            .map(|host| umbra_protocol::credentials::Endpoint {
                host: (*host).to_owned(),
                port: 8_443,
                root_fingerprint: PRINT.parse().expect("a fingerprint"),
            });
        Credentials {
            endpoints: endpoints.collect(),
            key: FirstAuthKey::parse(KEY).expect("a key"),
        }
        .to_text()
        .to_string()
    }

    fn hosts(offer: &Offer) -> Vec<String> {
        offer
            .endpoints
            .iter()
            .map(|(address, _)| address.to_string())
            .collect()
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_file_that_is_named_after_terminal_codes_stays_on_its_line() {
        let (_root, paths) = device();
        for name in ["/run/a\u{1b}[2Jb", "/run/a\0b"] {
            put(
                &paths.kernel_command_line(),
                &format!("quiet umbra.credentials={name}\n"),
            );
            let told = unattended(&paths, nothing).expect_err("not there");
            let told = told.to_string();
            assert!(told.contains("/run/a\u{fffd}"), "{told:?}");
            assert!(!told.contains(char::is_control), "{told:?}");
        }
    }

    #[test]
    fn the_first_place_that_says_anything_is_taken_and_named() {
        let (root, paths) = device();
        assert!(unattended(&paths, nothing).expect("readable").is_none());
        let [by_person, by_maker] = paths.image_credentials();
        put(&by_maker, &credentials(&["maker.example"]));
        let offer = unattended(&paths, nothing).expect("good").expect("there");
        assert_eq!(hosts(&offer), ["maker.example:8443"]);
        assert!(
            offer.from.ends_with("/usr/share/umbra/icg.xml"),
            "{}",
            offer.from
        );
        put(
            &by_person,
            &credentials(&["person.example", "second.example"]),
        );
        let offer = unattended(&paths, nothing).expect("good").expect("there");
        assert_eq!(
            hosts(&offer),
            ["person.example:8443", "second.example:8443"]
        );
        let line = format!("quiet umbra.address=kernel.example:443 umbra.key={KEY} ro\n");
        put(&paths.kernel_command_line(), &line);
        let offer = unattended(&paths, nothing).expect("good").expect("there");
        assert_eq!(hosts(&offer), ["kernel.example:443"]);
        assert_eq!(offer.trust, Trust::PublicCa);
        let directory = root.path().join("credentials");
        put(
            &directory.join(CREDENTIAL),
            &credentials(&["manager.example"]),
        );
        let with_manager =
            |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.display().to_string());
        let offer = unattended(&paths, with_manager)
            .expect("good")
            .expect("there");
        assert_eq!(hosts(&offer), ["manager.example:8443"]);
        let key_file = root.path().join("key");
        put(&key_file, &format!(" {KEY}\n\n"));
        let environment = |name: &str| match name {
            "UMBRA_KEY_FILE" => Some(key_file.display().to_string()),
            "UMBRA_FINGERPRINT" => Some(PRINT.to_owned()),
            "UMBRA_ADDRESS" => Some(String::new()),
            _ => with_manager(name),
        };
        let offer = unattended(&paths, environment)
            .expect("good")
            .expect("there");
        assert_eq!(
            (offer.from.as_str(), hosts(&offer).len()),
            ("the environment", 0)
        );
        assert!(matches!(offer.trust, Trust::Fingerprint(_)));
    }

    #[test]
    fn what_is_there_and_wrong_is_told_and_no_reason_to_take_the_next() {
        let (_root, paths) = device();
        let [by_person, by_maker] = paths.image_credentials();
        put(&by_maker, &credentials(&["maker.example"]));
        for (text, word) in [
            ("<icg", "damaged"),
            ("", ""),
            (&*credentials(&["b\u{430}d.example"]), "xn--"),
        ] {
            put(&by_person, text);
            let error = unattended(&paths, nothing).expect_err("wrong");
            assert_eq!(error.exit(), Exit::Data, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        std::fs::remove_file(&by_person).expect("removed");
        for (line, word) in [
            ("umbra.address=x", "first-authentication key is missing"),
            (
                "umbra.address=https://x/ umbra.key=AB3DE-FGHJK-MNPQR-STVWX",
                "URL",
            ),
            (
                "umbra.fingerprint=00 umbra.key=AB3DE-FGHJK-MNPQR-STVWX",
                "four parts",
            ),
            ("umbra.address=x umbra.key=hunter2-s\u{e9}cret", ""),
        ] {
            put(&paths.kernel_command_line(), line);
            let error = unattended(&paths, nothing).expect_err("wrong").to_string();
            assert!(error.contains(word), "{line}: {error}");
            assert!(error.starts_with("the kernel's command line"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_command_line_is_read_as_the_kernel_reads_it() {
        let line = "a umbra.address=first umbra.address=\"second:1\" \"umbra.credentials=/a b/c\" umbra.fingerprint= xumbra.key=no";
        let given = Given::of_command_line(line);
        assert_eq!(given.address.as_deref(), Some("second:1"));
        assert_eq!(given.credentials.as_deref(), Some(Path::new("/a b/c")));
        assert!(given.fingerprint.is_none() && given.key.is_none());
        assert!(Given::of_command_line("quiet ro root=/dev/sda1").is_empty());
    }

    #[test]
    fn ten_megabytes_are_not_read_as_credentials() {
        let (_root, paths) = device();
        put(&paths.image_credentials()[0], &"x".repeat(10 * 1024 * 1024));
        let error = unattended(&paths, nothing).expect_err("too large");
        assert_eq!(error.exit(), Exit::Data, "{error}");
    }
}
