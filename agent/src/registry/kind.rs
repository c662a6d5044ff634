//! What a parameter may hold. A value is checked once, when it enters; whatever the rest of the agent sees has passed here.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use umbra_protocol::limits;
use umbra_protocol::settings::Value;

/// Most entries of a list.
const LIST_MAX: usize = 64;
/// The longest path of a Unix socket that the system takes.
const SOCKET_PATH_MAX: usize = 107;

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A text of so many characters at most.
    Text {
        /// Most characters.
        max: usize,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A host name or IP address, or nothing.
    Host,
    /// A program by its absolute path, and its arguments.
    Program {
        /// Whether the list may be empty.
        optional: bool,
    },
    /// Environment variables, `NAME=VALUE`.
    Environment,
    /// IP addresses.
    Addresses,
    /// A file by its absolute path, or nothing.
    File,
    /// Where a VNC server is.
    Upstream,
}

/// Where the device's VNC server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Started for each session.
    Spawn,
    /// Listens on a loopback address.
    Tcp(SocketAddr),
    /// Listens on a Unix socket.
    Unix(std::path::PathBuf),
}

impl Upstream {
    /// Reads `spawn`, `tcp:127.0.0.1:5901` or `unix:/path`. Only loopback: the way to the VNC server is not encrypted.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "spawn" {
            return Some(Self::Spawn);
        }
        if let Some(address) = text.strip_prefix("tcp:") {
            let address: SocketAddr = address.parse().ok()?;
            return (address.ip().is_loopback() && address.port() > 0)
                .then_some(Self::Tcp(address));
        }
        let path = text.strip_prefix("unix:")?;
        let good = path.starts_with('/') && path.len() <= SOCKET_PATH_MAX;
        good.then(|| Self::Unix(Path::new(path).to_owned()))
    }
}

impl Kind {
    /// Checks a value; the error says what would be accepted, to stand behind "must be".
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let good = match (self, value) {
            (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Int { min, max }, Value::Int(number)) => (*min..=*max).contains(number),
            (Kind::Text { max }, Value::Text(text)) => {
                is_plain(text) && text.chars().count() <= *max
            }
            (Kind::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Kind::Host, Value::Text(text)) => {
                text.is_empty() || umbra_carrier::address::HostPort::new(text, 1).is_ok()
            }
            (Kind::Upstream, Value::Text(text)) => {
                is_plain(text) && Upstream::parse(text).is_some()
            }
            (Kind::File, Value::Text(text)) => {
                is_plain(text) && (text.is_empty() || text.starts_with('/'))
            }
            (Kind::Program { optional }, Value::List(items)) => {
                are_plain(items)
                    && items
                        .first()
                        .map_or(*optional, |program| is_program(program))
            }
            (Kind::Environment, Value::List(items)) => {
                are_plain(items) && items.iter().all(|item| is_variable(item))
            }
            (Kind::Addresses, Value::List(items)) => {
                items.len() <= LIST_MAX && items.iter().all(|item| item.parse::<IpAddr>().is_ok())
            }
            (
                Kind::Bool
                | Kind::Int { .. }
                | Kind::Text { .. }
                | Kind::Choice(_)
                | Kind::Host
                | Kind::Program { .. }
                | Kind::Environment
                | Kind::Addresses
                | Kind::File
                | Kind::Upstream,
                Value::Bool(_) | Value::Int(_) | Value::Text(_) | Value::List(_),
            ) => false,
        };
        if good { Ok(()) } else { Err(self.accepts()) }
    }

    /// What is accepted, in words.
    pub fn accepts(&self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Int { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Text { max } => {
                format!("a text of at most {max} characters, without control characters")
            }
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Host => "a host name or IP address, without port, or empty".to_owned(),
            Kind::Program { optional: true } => {
                "a list: a program by its absolute path, then its arguments; or an empty list"
                    .to_owned()
            }
            Kind::Program { optional: false } => {
                "a list: a program by its absolute path, then its arguments".to_owned()
            }
            Kind::Environment => "a list of NAME=VALUE".to_owned(),
            Kind::Addresses => "a list of IP addresses".to_owned(),
            Kind::File => "a file by its absolute path, or empty".to_owned(),
            Kind::Upstream => "spawn, tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:/PATH".to_owned(),
        }
    }

    /// Reads what somebody typed: one word for a plain value, any number for a list.
    pub fn parse(&self, words: &[String]) -> Result<Value, String> {
        let one = || match words {
            [word] => Ok(word.as_str()),
            [] | [_, _, ..] => Err(self.accepts()),
        };
        let value = match self {
            Kind::Bool => match one()? {
                "true" | "on" | "yes" => Value::Bool(true),
                "false" | "off" | "no" => Value::Bool(false),
                _ => return Err(self.accepts()),
            },
            Kind::Int { .. } => Value::Int(one()?.parse().map_err(|_| self.accepts())?),
            Kind::Text { .. } | Kind::Choice(_) | Kind::Host | Kind::File | Kind::Upstream => {
                Value::Text(one()?.to_owned())
            }
            // One empty word is how an empty list is typed.
            Kind::Program { .. } | Kind::Environment | Kind::Addresses if words == [""] => {
                Value::List(Vec::new())
            }
            Kind::Program { .. } | Kind::Environment | Kind::Addresses => {
                Value::List(words.to_vec())
            }
        };
        self.check(&value).map(|()| value)
    }

    /// One word for the documentation.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int { .. } => "number",
            Kind::Text { .. } | Kind::Choice(_) | Kind::Host | Kind::File | Kind::Upstream => {
                "text"
            }
            Kind::Program { .. } | Kind::Environment | Kind::Addresses => "list",
        }
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= limits::PARAMETER_TEXT && !text.chars().any(char::is_control)
}

fn are_plain(items: &[String]) -> bool {
    items.len() <= LIST_MAX && items.iter().all(|item| is_plain(item))
}

fn is_program(path: &str) -> bool {
    path.starts_with('/') && !path.ends_with('/')
}

fn is_variable(item: &str) -> bool {
    item.split_once('=').is_some_and(|(name, _)| {
        let letters = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        !name.is_empty() && name.bytes().all(letters) && !name.as_bytes()[0].is_ascii_digit()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn list(items: &[&str]) -> Value {
        Value::List(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn numbers_are_held_to_their_bounds_and_kinds_are_not_mixed() {
        let port = Kind::Int {
            min: 1,
            max: 65_535,
        };
        assert!(port.check(&Value::Int(1)).is_ok() && port.check(&Value::Int(65_535)).is_ok());
        for wrong in [
            Value::Int(0),
            Value::Int(65_536),
            Value::Int(i64::MIN),
            text("80"),
            Value::Bool(true),
        ] {
            assert_eq!(
                port.check(&wrong),
                Err("a whole number from 1 to 65535".to_owned()),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_vnc_server_is_only_looked_for_on_this_machine() {
        assert_eq!(Upstream::parse("spawn"), Some(Upstream::Spawn));
        assert!(matches!(
            Upstream::parse("tcp:[::1]:5901"),
            Some(Upstream::Tcp(_))
        ));
        assert!(matches!(
            Upstream::parse("unix:/run/vnc.sock"),
            Some(Upstream::Unix(_))
        ));
        for wrong in [
            "tcp:10.0.0.1:5900",
            "tcp:127.0.0.1:0",
            "tcp:127.0.0.1",
            "unix:vnc.sock",
            "unix:",
            "",
            "/x",
        ] {
            assert_eq!(Upstream::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn programs_are_absolute_and_nothing_holds_control_characters() {
        let program = Kind::Program { optional: false };
        assert!(
            program
                .check(&list(&["/usr/bin/x11vnc", "-inetd", "; rm"]))
                .is_ok()
        );
        for wrong in [
            list(&[]),
            list(&["x11vnc"]),
            list(&["/usr/bin/"]),
            list(&["/a", "b\nc"]),
            text("/a"),
        ] {
            assert!(program.check(&wrong).is_err(), "{wrong:?}");
        }
        assert!(Kind::Program { optional: true }.check(&list(&[])).is_ok());
        assert!(
            Kind::Environment
                .check(&list(&["DISPLAY=:0", "A="]))
                .is_ok()
        );
        for wrong in ["DISPLAY", "=x", "1A=x", "A B=x"] {
            assert!(Kind::Environment.check(&list(&[wrong])).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("/{n}")).collect();
        assert!(program.check(&Value::List(many)).is_err());
    }

    #[test]
    fn what_people_type_is_read_and_refused_with_what_would_be_accepted() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Kind::Bool.parse(&words("on")), Ok(Value::Bool(true)));
        assert_eq!(
            Kind::Bool.parse(&words("maybe")),
            Err("true or false".to_owned())
        );
        assert_eq!(
            Kind::Bool.parse(&words("true true")),
            Err("true or false".to_owned())
        );
        assert_eq!(
            Kind::Addresses.parse(&words(":: 0.0.0.0")),
            Ok(list(&["::", "0.0.0.0"]))
        );
        let empty = vec![String::new()];
        assert_eq!(
            Kind::Program { optional: true }.parse(&empty),
            Ok(list(&[]))
        );
        assert!(Kind::Program { optional: false }.parse(&empty).is_err());
        assert!(Kind::Choice(&["a", "b"]).parse(&words("c")).is_err());
        assert!(Kind::Host.parse(&words("server.example.com")).is_ok());
        assert!(Kind::Host.parse(&words("server.example.com:1")).is_err());
    }
}
