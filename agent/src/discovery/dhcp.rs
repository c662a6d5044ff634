//! Option 224 in the leases that the device's DHCP client has written down. Leases hold what any machine on the network may have
//! answered; they are read, bounded, and never written.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use umbra_carrier::address::HostPort;
use umbra_carrier::x509::printable;

use super::DEFAULT_PORT;
use crate::files;
use crate::paths::Paths;

/// The option that names the server.
const OPTION: u8 = 224;
/// Larger lease files are not read; dhclient's grow for months.
const FILE_MAX: usize = 512 * 1024;
/// More files than this in one directory are no leases of this device.
const FILES_MAX: usize = 16;

/// A server that a lease names, or why it can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The file, for people.
    pub(super) file: String,
    /// What it says.
    pub(super) server: Result<HostPort, String>,
}

/// How a kind of client writes its leases.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// `OPTION_224=HEX`: systemd-networkd, and what NetworkManager took over from it.
    Assignments,
    /// `lease { option unknown-224 …; }`: dhclient.
    Blocks,
    /// The DHCP message itself: dhcpcd.
    Message,
    /// The option's value alone: what a hook writes.
    Value,
}

/// Where leases are, and of which form. In a directory that several clients share, the ending of the name tells.
const PLACES: [(&str, &str, Form); 8] = [
    ("run/systemd/netif/leases", "", Form::Assignments),
    ("var/lib/NetworkManager", ".lease", Form::Assignments),
    ("var/lib/NetworkManager", ".lease", Form::Blocks),
    ("var/lib/dhcp", ".leases", Form::Blocks),
    ("var/lib/dhclient", "", Form::Blocks),
    ("var/lib/dhcpcd", ".lease", Form::Message),
    ("var/db/dhcpcd", ".lease", Form::Message),
    ("run/umbra-dhcp", "", Form::Value),
];

/// What the leases of this device say, each value once.
pub(super) fn leases(paths: &Paths) -> Vec<Lease> {
    let mut found: Vec<Lease> = Vec::new();
    for (directory, ending, form) in PLACES {
        for file in newest(&paths.root().join(directory), ending) {
            let Ok(Some(bytes)) = files::read(&file, FILE_MAX) else {
                continue;
            };
            let Some(value) = value(form, &bytes) else {
                continue;
            };
            let server = server(&value);
            let known = |lease: &Lease| lease.server == server;
            if !found.iter().any(known) {
                found.push(Lease {
                    file: printable(&format!("/{directory}/{}", name(&file)), 120),
                    server,
                });
            }
        }
    }
    found
}

fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// Plain files of a directory, the newest first.
fn newest(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .take(1_024)
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_bytes().ends_with(ending.as_bytes()))
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            metadata.is_file().then(|| {
                (
                    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    entry.path(),
                )
            })
        })
        .collect();
    files.sort();
    files.reverse();
    files.truncate(FILES_MAX);
    files.into_iter().map(|(_, path)| path).collect()
}

pub(super) fn value(form: Form, bytes: &[u8]) -> Option<Vec<u8>> {
    match form {
        Form::Assignments => assignment(bytes),
        Form::Blocks => block(bytes),
        Form::Message => message(bytes),
        Form::Value => Some(bytes.to_vec()),
    }
}

fn assignment(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let hex = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("OPTION_224="))?;
    from_hex(hex.trim(), None)
}

/// dhclient appends: what the last lease says counts, and if it says nothing, so be it.
fn block(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let last = text
        .rsplit("lease {")
        .next()
        .filter(|last| last.len() < text.len())?;
    let last = last.split('}').next()?;
    last.split(['\n', ';']).find_map(|statement| {
        let rest = statement.trim().strip_prefix("option ")?;
        let (name, value) = rest.trim().split_once(char::is_whitespace)?;
        let ours = ["unknown-224", "option-224", "igelrmserver"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        if !ours {
            return None;
        }
        let value = value.trim();
        match value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
        {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => from_hex(value, Some(':')),
        }
    })
}

/// The option in a DHCP message (RFC 2131); parts of it are joined (RFC 3396).
fn message(bytes: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 236;
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    let mut rest = bytes.get(HEADER..)?.strip_prefix(&COOKIE)?;
    let mut value: Option<Vec<u8>> = None;
    while let Some((code, after)) = rest.split_first() {
        match *code {
            0 => rest = after,
            255 => break,
            code => {
                let (length, after) = after.split_first()?;
                let (data, after) = after.split_at_checked(usize::from(*length))?;
                if code == OPTION {
                    value.get_or_insert_default().extend(data);
                }
                rest = after;
            }
        }
    }
    value
}

fn from_hex(text: &str, between: Option<char>) -> Option<Vec<u8>> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).ok();
    match between {
        Some(between) => text.split(between).map(byte).collect(),
        None => {
            if !text.is_ascii() || !text.len().is_multiple_of(2) {
                return None;
            }
            (0..text.len() / 2)
                .map(|index| byte(&text[2 * index..2 * index + 2]))
                .collect()
        }
    }
}

/// The server that the option's value names: `HOST` or `HOST:PORT`.
pub(super) fn server(value: &[u8]) -> Result<HostPort, String> {
    let shown = printable(&String::from_utf8_lossy(value), 80);
    let text = std::str::from_utf8(value).map_err(|_| format!("“{shown}” is no text"))?;
    // Some servers end the text as C does.
    let text = text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace());
    HostPort::parse(text, DEFAULT_PORT).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Vec<Lease>) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, bytes) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, bytes).expect("written");
        }
        let found = leases(&Paths::new(root.path()));
        (root, found)
    }

    fn servers(files: &[(&str, &[u8])]) -> Vec<Result<String, String>> {
        let (_root, found) = device(files);
        found
            .into_iter()
            .map(|lease| lease.server.map(|server| server.to_string()))
            .collect()
    }

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn raw(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 236];
        bytes.extend([99, 130, 83, 99, 53, 1, 5, 0, 0]);
        for part in parts {
            bytes.extend([OPTION, u8::try_from(part.len()).expect("short")]);
            bytes.extend(*part);
        }
        bytes.push(255);
        bytes
    }

    #[test]
    fn the_option_is_read_from_the_leases_of_each_client() {
        let networkd = format!("ADDRESS=192.0.2.9\nOPTION_224={}\n", hex("ums.example.com"));
        let dhclient = "lease {\n option unknown-224 \"old.example.com\";\n}\nlease {\n  interface \"eth0\";\n  option \
                        unknown-224 \"dhclient.example.com:443\";\n}\n";
        let colons = "lease {\n option unknown-224 31:39:32:2e:30:2e:32:2e:35;\n}\n";
        let message = raw(&[b"dhcpcd.exam", b"ple.com\0"]);
        assert_eq!(
            servers(&[
                ("run/systemd/netif/leases/2", networkd.as_bytes()),
                ("var/lib/dhcp/dhclient.eth0.leases", dhclient.as_bytes()),
                (
                    "var/lib/NetworkManager/dhclient-1-eth0.lease",
                    colons.as_bytes()
                ),
                ("var/lib/dhcpcd/eth0.lease", &message),
                ("run/umbra-dhcp/eth0", b"hook.example.com\n"),
            ]),
            [
                Ok("ums.example.com:8443".to_owned()),
                Ok("192.0.2.5:8443".to_owned()),
                Ok("dhclient.example.com:443".to_owned()),
                Ok("dhcpcd.example.com:8443".to_owned()),
                Ok("hook.example.com:8443".to_owned()),
            ]
        );
    }

    #[test]
    fn a_later_lease_without_the_option_takes_an_earlier_one_back() {
        let text = b"lease {\n option unknown-224 \"old.example.com\";\n}\nlease {\n option routers 192.0.2.1;\n}\n";
        assert_eq!(servers(&[("var/lib/dhcp/dhclient.leases", text)]), []);
    }

    #[test]
    fn nonsense_is_explained_or_passed_over_and_never_steers_a_terminal() {
        let sly = format!("OPTION_224={}", hex("ums\u{1b}[31m"));
        let (_root, found) = device(&[("run/systemd/netif/leases/2", sly.as_bytes())]);
        let [
            Lease {
                server: Err(said),
                file,
            },
        ] = found.as_slice()
        else {
            panic!("{found:?}")
        };
        assert!(
            said.contains("isn't a host name") && !said.contains('\u{1b}'),
            "{said:?}"
        );
        assert_eq!(file, "/run/systemd/netif/leases/2");
        let endless = raw(&[&[b'a'; 255]]);
        for (path, bytes) in [
            ("run/systemd/netif/leases/2", b"OPTION_224=zz".as_slice()),
            (
                "run/systemd/netif/leases/2",
                "OPTION_224=\u{e4}\u{e4}".as_bytes(),
            ),
            ("run/systemd/netif/leases/2", &[0xff; 100]),
            ("var/lib/dhcpcd/eth0.lease", &endless[..300]),
            ("var/lib/dhcpcd/eth0.lease", b"short"),
            ("var/lib/dhcp/dhclient.leases", b"lease {"),
            ("var/lib/dhcp/dhclient.leases", b"option unknown-224 \"a\";"),
            ("run/umbra-dhcp/eth0", &[b'a'; 600 * 1024]),
        ] {
            assert_eq!(servers(&[(path, bytes)]), [], "{path}");
        }
    }

    #[test]
    fn of_many_leases_the_newest_count() {
        let root = tempfile::tempdir().expect("a folder");
        let hooks = root.path().join("run/umbra-dhcp");
        std::fs::create_dir_all(&hooks).expect("made");
        for number in 0..FILES_MAX + 4 {
            // Names and ages in opposite order.
            let path = hooks.join(format!("{:03}", 900 - number));
            std::fs::write(&path, format!("ums{number}.example.com")).expect("written");
            let seconds = u64::try_from(number).expect("few");
            let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = std::fs::File::options().write(true).open(&path);
            file.and_then(|file| file.set_modified(written))
                .expect("dated");
        }
        let found = leases(&Paths::new(root.path()));
        assert_eq!(found.len(), FILES_MAX);
        let newest = found[0].server.as_ref().expect("a server");
        assert_eq!(newest.host(), format!("ums{}.example.com", FILES_MAX + 3));
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().expect("a folder");
        let leases_at = root.path().join("run/umbra-dhcp");
        std::fs::create_dir_all(&leases_at).expect("made");
        let elsewhere = root.path().join("elsewhere");
        std::fs::write(&elsewhere, "ums.example.com").expect("written");
        std::os::unix::fs::symlink(&elsewhere, leases_at.join("eth0")).expect("linked");
        assert_eq!(leases(&Paths::new(root.path())), []);
    }
}
