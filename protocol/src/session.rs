//! Shadowing sessions on the link: announced, verified once, started, ended, recorded.

use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::SessionId;
use crate::json::{Fields, unknown_word};
use crate::refusal::Refusal;
use crate::secret::Secret;

/// What an operator may do in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Permissions {
    /// Keyboard and pointer reach the device.
    pub control: bool,
    /// The operator's clipboard reaches the device.
    pub clipboard: bool,
}

crate::json::object!(Permissions { control, clipboard;  });

/// The server tells the device that a session is coming.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionRequest {
    /// Which session.
    pub session: SessionId,
    /// Display name of the operator.
    pub operator: String,
    /// Why, as the operator said it.
    #[serde(default)]
    pub reason: String,
    /// What the operator may do.
    pub permissions: Permissions,
}

crate::json::object!(SessionRequest { session, operator, permissions; reason });

/// The device's end of a rendezvous: the console of an announced session waits at the gateway that this link goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionTunnel {
    /// For which session.
    pub session: SessionId,
    /// The device's one-time token for the gateway.
    pub token: Secret,
    /// Seconds until the gateway gives the rendezvous up.
    pub expires_in_seconds: u32,
}

crate::json::object!(SessionTunnel { session, token, expires_in_seconds;  });

/// The device asks about somebody who presented a ticket or a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionVerify {
    /// Pairs the question with its verdict; unique on this link.
    pub question: u64,
    /// What was presented.
    #[serde(flatten)]
    pub presented: Presented,
}

/// What a console presented inside the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "presented", rename_all = "snake_case")]
pub enum Presented {
    /// A ticket, whose signature the device has checked, and the session password.
    Ticket {
        /// Compact ticket.
        ticket: String,
        /// Session password.
        password: Secret,
    },
    /// The one-time password of the field's older consoles (`PROCYCMD PW_<uuid>`).
    LegacyPassword {
        /// The UUID as text.
        password: Secret,
    },
}

/// The server's answer, given once per ticket and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionVerdict {
    /// Which question.
    pub question: u64,
    /// Yes or no.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Yes or no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The session may begin as described.
    Allowed(SessionRequest),
    /// The session may not begin.
    Refused(Refusal),
}

/// A session has begun: the viewer sees the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStarted {
    /// Which session.
    pub session: SessionId,
}

crate::json::object!(SessionStarted { session;  });

/// The server wants a session to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionEnd {
    /// Which session.
    pub session: SessionId,
    /// Why, for the person at the device.
    pub sentence: String,
}

crate::json::object!(SessionEnd { session, sentence;  });

/// What is kept of a session. The device sends it until the server has received it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionRecord {
    /// Which session.
    pub session: SessionId,
    /// Stable code of the end: that of `vnc-proxy`'s outcome, or a refusal code.
    pub code: String,
    /// The end as a sentence for the operator.
    pub sentence: String,
    /// Milliseconds from the permission to the end, by the device's monotonic clock.
    pub duration_ms: u64,
    /// Bytes from the console to the device's VNC server.
    pub bytes_to_device: u64,
    /// Bytes from the device's VNC server to the console.
    pub bytes_to_console: u64,
}

crate::json::object!(SessionRecord { session, code, sentence, duration_ms, bytes_to_device, bytes_to_console;  });

/// The device turned a caller away without asking the server: its ticket was forged, used before or for another device, or
/// it wanted an unprotected session. For the audit log; said once, if the link stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallerRefused {
    /// The caller's IP address, as text.
    pub from: String,
    /// What the caller was told, or would have been.
    pub refusal: Refusal,
}

crate::json::object!(CallerRefused { from, refusal;  });

/// The server has filed a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecordFiled {
    /// Of which session.
    pub session: SessionId,
}

crate::json::object!(RecordFiled { session;  });

impl<'de> Deserialize<'de> for SessionVerify {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, |fields| {
            Ok(Self {
                question: fields.take("question")?,
                presented: match fields.take_text("presented")?.as_str() {
                    "ticket" => Presented::Ticket {
                        ticket: fields.take_text("ticket")?,
                        password: fields.take("password")?,
                    },
                    "legacy_password" => Presented::LegacyPassword {
                        password: fields.take("password")?,
                    },
                    other => return Err(unknown_word(other)),
                },
            })
        })
    }
}

impl<'de> Deserialize<'de> for SessionVerdict {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Fields::read(reader, |fields| {
            Ok(Self {
                question: fields.take("question")?,
                verdict: match fields.take_text("verdict")?.as_str() {
                    "allowed" => Verdict::Allowed(Deserialize::deserialize(fields.rest())?),
                    "refused" => Verdict::Refused(Deserialize::deserialize(fields.rest())?),
                    other => return Err(unknown_word(other)),
                },
            })
        })
    }
}
