//! What is said on the control socket: one JSON object per line, at most 64 KiB, a request and then its answer. `watch` is
//! answered with a line for each change until the caller leaves.

use serde::{Deserialize, Deserializer, Serialize};
use umbra_protocol::Secret;
use umbra_protocol::ids::SessionId;
use umbra_protocol::json::{Fields, unknown_word};

use crate::exit::Exit;
use crate::registry::Entry;
use crate::status::Status;

/// The longest request, in bytes, its line feed included.
pub const REQUEST_MAX: usize = 64 * 1024;
/// The longest answer, in bytes.
pub const RESPONSE_MAX: usize = 1024 * 1024;

/// What somebody on the device wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The status now. For anyone.
    Status {},
    /// The status now and whenever it changes. For anyone.
    Watch {},
    /// Parameters with their values, those whose name begins with `prefix`. For anyone; secrets are masked.
    RegistryList {
        /// Beginning of the names.
        prefix: String,
    },
    /// One parameter. For anyone; a secret is masked.
    RegistryGet {
        /// Full name.
        name: String,
    },
    /// Sets a parameter on the device.
    RegistrySet {
        /// Full name.
        name: String,
        /// As typed: one word, or several for a list.
        words: Vec<Secret>,
    },
    /// Forgets what was set on the device.
    RegistryReset {
        /// Full name.
        name: String,
    },
    /// Be taken on by a server.
    Enrol {
        /// `HOST` or `HOST:PORT`.
        address: String,
        /// What makes the server trustworthy.
        trust: TrustGiven,
        /// First-authentication key.
        key: Secret,
    },
    /// Forget the server.
    Leave {},
    /// The answer of the person at the device.
    Consent {
        /// Which session.
        session: SessionId,
        /// Yes or no.
        accept: bool,
    },
    /// End a running session.
    EndSession {
        /// Which session.
        session: SessionId,
    },
}

/// What makes a server trustworthy, as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustGiven {
    /// SHA-256 of its root certificate, as a person types it.
    Fingerprint(String),
    /// A public certification authority, and then the first-authentication key.
    PublicCa,
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, |fields| {
            let request = match fields.take_text("request")?.as_str() {
                "status" => Request::Status {},
                "watch" => Request::Watch {},
                "registry_list" => Request::RegistryList {
                    prefix: fields.take_or_default("prefix")?,
                },
                "registry_get" => Request::RegistryGet {
                    name: fields.take_text("name")?,
                },
                "registry_set" => Request::RegistrySet {
                    name: fields.take_text("name")?,
                    words: fields.take("words")?,
                },
                "registry_reset" => Request::RegistryReset {
                    name: fields.take_text("name")?,
                },
                "enrol" => Request::Enrol {
                    address: fields.take_text("address")?,
                    trust: fields.take("trust")?,
                    key: fields.take("key")?,
                },
                "leave" => Request::Leave {},
                "consent" => Request::Consent {
                    session: fields.take("session")?,
                    accept: fields.take("accept")?,
                },
                "end_session" => Request::EndSession {
                    session: fields.take("session")?,
                },
                other => return Err(unknown_word(other)),
            };
            fields.nothing_else()?;
            Ok(request)
        })
    }
}

impl Request {
    /// Whether the asker needs rights.
    pub fn changes_something(&self) -> bool {
        match self {
            Request::Status {}
            | Request::Watch {}
            | Request::RegistryList { .. }
            | Request::RegistryGet { .. } => false,
            Request::RegistrySet { .. }
            | Request::RegistryReset { .. }
            | Request::Enrol { .. }
            | Request::Leave {}
            | Request::Consent { .. }
            | Request::EndSession { .. } => true,
        }
    }
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// The status.
    Status(Box<Status>),
    /// Parameters.
    Registry {
        /// With their values.
        entries: Vec<Entry>,
        /// What is wrong with the files.
        problems: Vec<String>,
    },
    /// It is done.
    Done {
        /// What was done.
        sentence: String,
    },
    /// It was not done.
    Failed(Failure),
}

impl<'de> Deserialize<'de> for Response {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, |fields| {
            Ok(match fields.take_text("answer")?.as_str() {
                "status" => Response::Status(Deserialize::deserialize(fields.rest())?),
                "registry" => Response::Registry {
                    entries: fields.take("entries")?,
                    problems: fields.take("problems")?,
                },
                "done" => Response::Done {
                    sentence: fields.take_text("sentence")?,
                },
                "failed" => Response::Failed(Deserialize::deserialize(fields.rest())?),
                other => return Err(unknown_word(other)),
            })
        })
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened and what they can do.
    pub sentence: String,
    /// What it means, as a stable word, for those who tell it in another language; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

umbra_protocol::json::object!(Failure { code, sentence; reason });

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: ErrorCode, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: umbra_protocol::refusal::clip(sentence.into()),
            reason: String::new(),
        }
    }

    /// The same with what it means.
    pub fn because(self, reason: &str) -> Self {
        Self {
            reason: umbra_protocol::refusal::clip(reason.to_owned()),
            ..self
        }
    }
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request can't be read or holds something that is not accepted.
    Usage,
    /// There is no such thing (session, question).
    NotThere,
    /// The asker may not.
    Permission,
    /// The server refused; a person has to do something.
    Refused,
    /// Somebody is not there at the moment.
    Unavailable,
    /// Passing weather.
    TryAgain,
    /// The disk refused.
    Disk,
    /// Something inside the agent.
    Internal,
}

umbra_protocol::json::words!(ErrorCode { Usage = "usage", NotThere = "not_there", Permission = "permission", Refused = "refused", Unavailable = "unavailable", TryAgain = "try_again", Disk = "disk", Internal = "internal" });

impl ErrorCode {
    /// The exit code of a command line that hears this.
    pub fn exit(self) -> Exit {
        match self {
            ErrorCode::Usage => Exit::Usage,
            ErrorCode::NotThere | ErrorCode::Unavailable => Exit::Unavailable,
            ErrorCode::Permission | ErrorCode::Refused => Exit::Permission,
            ErrorCode::TryAgain => Exit::TryAgain,
            ErrorCode::Disk => Exit::Disk,
            ErrorCode::Internal => Exit::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_tagged_lines_and_unknown_fields_are_mistakes() {
        let json = serde_json::to_string(&Request::Status {}).expect("serialises");
        assert_eq!(json, r#"{"request":"status"}"#);
        let read: Request = serde_json::from_str(r#"{"request":"registry_list"}"#).expect("parses");
        assert_eq!(
            read,
            Request::RegistryList {
                prefix: String::new()
            }
        );
        assert!(serde_json::from_str::<Request>(r#"{"request":"status","extra":1}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"request":"nonsense"}"#).is_err());
    }

    #[test]
    fn a_printed_request_shows_no_key_and_no_password() {
        let set = Request::RegistrySet {
            name: "network.vncserver.crypt_password".into(),
            words: vec![Secret::new("hunter2")],
        };
        let enrol = Request::Enrol {
            address: "h".into(),
            trust: TrustGiven::Fingerprint("f".into()),
            key: Secret::new("hunter2"),
        };
        assert!(!format!("{set:?} {enrol:?}").contains("hunter2"));
    }
}
