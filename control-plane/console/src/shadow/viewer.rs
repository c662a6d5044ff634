//! The program that shows the screen: any VNC viewer, found on this machine or named by the operator. No shell takes part
//! in starting it, and it gets nothing but a loopback port: no ticket, no password.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

/// Viewers that are looked for, best first, each with the arguments that it understands.
const KNOWN: &[(&str, &[&str])] = &[
    ("vncviewer", &["{host}::{port}"]),
    ("xtigervncviewer", &["{host}::{port}"]),
    ("xvncviewer", &["{host}::{port}"]),
    ("remmina", &["-c", "vnc://{host}:{port}"]),
    ("gvncviewer", &["{host}:{display}"]),
    ("krdc", &["vnc://{host}:{port}"]),
    ("vinagre", &["{host}::{port}"]),
];

/// Why no viewer can be started.
#[derive(Debug, thiserror::Error)]
pub enum ViewerError {
    /// No known viewer is installed.
    #[error(
        "no VNC viewer was found on this machine: install one (vncviewer, remmina…), name yours with --viewer, or use --listen"
    )]
    NoneFound,
    /// The command of `--viewer` can't be split.
    #[error("the viewer's command line can't be read: {0}")]
    BadCommand(&'static str),
    /// It doesn't start.
    #[error("the viewer {program} can't be started")]
    NotStarted {
        /// Which program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A viewer's program and arguments, in which `{host}`, `{port}` and `{display}` stand for where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    words: Vec<String>,
}

impl Viewer {
    /// The command that a person wrote. Words are split at spaces; quotes and backslashes keep them together, as in a
    /// shell, and nothing else of a shell's is understood.
    ///
    /// # Errors
    /// [`ViewerError::BadCommand`].
    pub fn parse(command: &str) -> Result<Self, ViewerError> {
        let mut words = split(command).map_err(ViewerError::BadCommand)?;
        if words.first().is_none_or(String::is_empty) {
            return Err(ViewerError::BadCommand("it is empty"));
        }
        if !words.iter().skip(1).any(|word| {
            ["{port}", "{display}"]
                .iter()
                .any(|place| word.contains(place))
        }) {
            words.push("{host}::{port}".to_owned());
        }
        Ok(Self { words })
    }

    /// The first known viewer in these folders (the value of `PATH`).
    ///
    /// # Errors
    /// [`ViewerError::NoneFound`].
    pub fn find(path: Option<&OsStr>) -> Result<Self, ViewerError> {
        let folders: Vec<PathBuf> = path
            .map(|path| std::env::split_paths(path).collect())
            .unwrap_or_default();
        KNOWN
            .iter()
            .find_map(|(name, arguments)| {
                // An empty entry of PATH would mean the current folder, where anybody's file may lie.
                let program = folders
                    .iter()
                    .filter(|f| f.is_absolute())
                    .map(|f| f.join(name))
                    .find(|p| is_executable(p))?;
                let words = std::iter::once(program.to_string_lossy().into_owned())
                    .chain(arguments.iter().map(|word| (*word).to_owned()))
                    .collect();
                Some(Self { words })
            })
            .ok_or(ViewerError::NoneFound)
    }

    /// The program's name.
    pub fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Program and arguments for a screen at this address.
    pub fn words(&self, screen: SocketAddr) -> Vec<String> {
        let host = screen.ip().to_string();
        let port = screen.port().to_string();
        let display = (i32::from(screen.port()) - 5_900).to_string();
        let fill = |word: &String| {
            word.replace("{host}", &host)
                .replace("{port}", &port)
                .replace("{display}", &display)
        };
        // The program's own name is taken as it is.
        self.words
            .iter()
            .take(1)
            .cloned()
            .chain(self.words.iter().skip(1).map(fill))
            .collect()
    }

    /// Starts it. It runs in a process group of its own, so that Ctrl-C ends the session in order first.
    ///
    /// # Errors
    /// [`ViewerError::NotStarted`].
    pub fn start(&self, screen: SocketAddr) -> Result<Child, ViewerError> {
        Command::new(self.program())
            .args(self.words(screen).iter().skip(1))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| ViewerError::NotStarted {
                program: self.program().to_owned(),
                source,
            })
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Splits a command line at spaces outside quotes.
fn split(command: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = command.chars();
    while let Some(c) = characters.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some(c @ ('"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a double quote is not closed"),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a double quote is not closed"),
                    }
                }
            }
            '\\' => match characters.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("nothing follows the last backslash"),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen() -> SocketAddr {
        "127.0.0.1:40123".parse().expect("an address")
    }

    fn words(command: &str) -> Vec<String> {
        Viewer::parse(command).expect(command).words(screen())
    }

    #[test]
    fn commands_are_split_as_people_expect_and_no_shell_takes_part() {
        for (command, expected) in [
            ("vncviewer", vec!["vncviewer", "127.0.0.1::40123"]),
            (
                "  vncviewer  -Shared ",
                vec!["vncviewer", "-Shared", "127.0.0.1::40123"],
            ),
            ("v {host} {port}", vec!["v", "127.0.0.1", "40123"]),
            (
                "v vnc://{host}:{port}/x",
                vec!["v", "vnc://127.0.0.1:40123/x"],
            ),
            ("v --display={display}", vec!["v", "--display=34223"]),
            (
                "'/opt/my viewer/v' \"a b\" c\\ d '' {port}",
                vec!["/opt/my viewer/v", "a b", "c d", "", "40123"],
            ),
            (
                r#"v "say \"hi\" \n" {port}"#,
                vec!["v", r#"say "hi" \n"#, "40123"],
            ),
            (
                "v $(id) ; rm -rf * | `x` {port}",
                vec!["v", "$(id)", ";", "rm", "-rf", "*", "|", "`x`", "40123"],
            ),
            (
                "v --title={host}",
                vec!["v", "--title=127.0.0.1", "127.0.0.1::40123"],
            ),
        ] {
            assert_eq!(words(command), expected, "{command}");
        }
    }

    #[test]
    fn commands_that_cannot_be_meant_are_refused() {
        for bad in ["", "   ", "''", "v 'a", "v \"a", "v \"a\\", "v \\"] {
            assert!(
                matches!(Viewer::parse(bad), Err(ViewerError::BadCommand(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_best_known_viewer_is_found_only_where_it_can_be_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .expect("changed");
        };
        let found =
            || Viewer::find(Some(folder.path().as_os_str())).map(|viewer| viewer.words(screen()));
        assert!(matches!(found(), Err(ViewerError::NoneFound)));
        place("vncviewer", 0o644);
        place("gvncviewer", 0o755);
        let gvncviewer = folder.path().join("gvncviewer").display().to_string();
        assert_eq!(
            found().expect("found"),
            [gvncviewer, "127.0.0.1:34223".to_owned()]
        );
        place("remmina", 0o755);
        assert_eq!(
            found().expect("found")[1..],
            ["-c", "vnc://127.0.0.1:40123"]
        );
        assert!(matches!(
            Viewer::find(Some(OsStr::new(""))),
            Err(ViewerError::NoneFound)
        ));
        assert!(matches!(Viewer::find(None), Err(ViewerError::NoneFound)));
    }
}
