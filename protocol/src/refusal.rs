//! Refusals: one stable code for the peer, one sentence for a person, and what the refused side should do next.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the refused side should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Passing weather: try again by itself, with backoff.
    Retry,
    /// Nothing changes until a person does something; try again seldom and say so visibly.
    AskPerson,
    /// Never try this same thing again.
    Stop,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $remedy:ident;)+) => {
        /// Stable refusal codes. A code that this build does not know is read as [`RefusalCode::Unknown`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalCode {
            $($(#[doc = $doc])+ $variant,)+
            /// A code from a newer peer.
            Unknown,
        }

        impl RefusalCode {
            /// All codes that this build knows, in the order of a device's life.
            pub const ALL: &'static [RefusalCode] = &[$(RefusalCode::$variant),+];

            /// The code as written on the wire, in logs and in the documentation.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(RefusalCode::$variant => $code,)+
                    RefusalCode::Unknown => "unknown",
                }
            }

            /// What the refused side should do.
            pub fn remedy(self) -> Remedy {
                match self {
                    $(RefusalCode::$variant => Remedy::$remedy,)+
                    RefusalCode::Unknown => Remedy::AskPerson,
                }
            }

            /// What the code means, as a clause for documentation.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(RefusalCode::$variant => concat!($($doc),+).trim_ascii(),)+
                    RefusalCode::Unknown => "a code from a newer peer",
                }
            }
        }
    };
}

codes! {
    /// No protocol version in common.
    UnsupportedVersion = "unsupported_version", AskPerson;
    /// A message that could not be read.
    Malformed = "malformed", AskPerson;
    /// A frame beyond the size limit.
    TooLarge = "too_large", AskPerson;
    /// A message of a type that the receiver does not know; the conversation goes on.
    UnknownMessage = "unknown_message", Retry;
    /// A known message at the wrong moment.
    UnexpectedMessage = "unexpected_message", Retry;
    /// The peer took too long for its next step.
    TooSlow = "too_slow", Retry;
    /// The server has too much to do right now.
    Busy = "busy", Retry;
    /// Too many failed attempts from this address.
    Throttled = "throttled", Retry;
    /// The server is going down or restarting.
    ShuttingDown = "shutting_down", Retry;
    /// Something failed inside the server.
    Internal = "internal", Retry;

    /// The first-authentication key is not one of this server's.
    KeyNotAccepted = "key_not_accepted", AskPerson;
    /// The one-time key was used before.
    KeyUsed = "key_used", AskPerson;
    /// The key's validity is over.
    KeyExpired = "key_expired", AskPerson;
    /// An administrator revoked the key.
    KeyRevoked = "key_revoked", AskPerson;
    /// An administrator disabled the key for the time being.
    KeyDisabled = "key_disabled", AskPerson;
    /// The key is bound to other unit IDs.
    KeyForOtherUnit = "key_for_other_unit", AskPerson;
    /// The key enrolled as many devices as it may.
    KeyQuota = "key_quota", AskPerson;

    /// The server has no such device on file.
    UnknownDevice = "unknown_device", AskPerson;
    /// The server has another certificate on file for this unit ID (re-imaged or cloned device).
    CertificateMismatch = "certificate_mismatch", AskPerson;
    /// An administrator removed the device.
    DeviceRemoved = "device_removed", AskPerson;
    /// A newer link of the same device took over.
    Superseded = "superseded", Retry;

    /// The ticket is not one of this server's, or it was altered.
    TicketInvalid = "ticket_invalid", Stop;
    /// The ticket's validity is over.
    TicketExpired = "ticket_expired", Stop;
    /// The ticket was used before.
    TicketUsed = "ticket_used", Stop;
    /// The ticket is for another device.
    TicketForOtherDevice = "ticket_for_other_device", Stop;
    /// The session password is wrong.
    PasswordWrong = "password_wrong", Stop;
    /// The first bytes inside the tunnel were no ticket and no password.
    NoPreface = "no_preface", Stop;
    /// The session was withdrawn before it began.
    SessionWithdrawn = "session_withdrawn", Stop;
    /// The device cannot ask its server at the moment.
    ServerUnreachable = "server_unreachable", Retry;
    /// As many sessions as the device allows are running.
    TooManySessions = "too_many_sessions", Retry;
    /// Shadowing is switched off on the device.
    ShadowingDisabled = "shadowing_disabled", AskPerson;
    /// The device only accepts encrypted connections.
    SecureModeRequired = "secure_mode_required", AskPerson;
    /// The user at the device said no.
    ConsentDenied = "consent_denied", AskPerson;
    /// The user at the device did not answer in time.
    ConsentTimeout = "consent_timeout", Retry;
    /// The user must be asked, and nobody is there to ask.
    NobodyToAsk = "nobody_to_ask", AskPerson;
    /// The device must show who sees its screen, and the program that does is not running.
    IndicatorUnavailable = "indicator_unavailable", AskPerson;
    /// The device's VNC server is not there.
    VncServerAbsent = "vnc_server_absent", AskPerson;
    /// The device's VNC server refused the connection.
    VncServerRefused = "vnc_server_refused", AskPerson;

    /// No server is attached to the gateway, or none with the root that the device named.
    NoServer = "no_server", Retry;
    /// The gateway serves as many devices as its server allows.
    ConnectionLimit = "connection_limit", Retry;
    /// The gateway knows no rendezvous for this token.
    TunnelUnknown = "tunnel_unknown", Stop;
    /// The token of the rendezvous was used before.
    TunnelUsed = "tunnel_used", Stop;
    /// The other end of the rendezvous did not come in time.
    TunnelExpired = "tunnel_expired", Stop;
    /// The token of the rendezvous is for the other end.
    TunnelWrongSide = "tunnel_wrong_side", Stop;
}

impl Serialize for RefusalCode {
    fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
        writer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RefusalCode {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        String::deserialize(reader).map(|code| Self::read(&code))
    }
}

impl RefusalCode {
    fn read(code: &str) -> Self {
        let known = Self::ALL.iter().find(|known| known.as_str() == code);
        known.copied().unwrap_or(RefusalCode::Unknown)
    }
}

impl std::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Stable code.
    pub code: RefusalCode,
    /// One sentence for a person: what happened and what they can do.
    pub sentence: String,
    /// Seconds after which the refusing side suggests another attempt; the receiver clamps it to its own bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

crate::json::object!(Refusal { code, sentence; retry_after_seconds });

impl Refusal {
    /// A refusal without a hint about when to come back. The sentence is cut at the limit.
    pub fn new(code: RefusalCode, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: clip(sentence.into()),
            retry_after_seconds: None,
        }
    }

    /// The same refusal with a hint about when to come back, in seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.sentence, self.code)
    }
}

/// Cuts a sentence to the limit and takes control characters out, so that it is safe on a terminal and in a log.
pub fn clip(sentence: String) -> String {
    let mut clean: String = sentence
        .chars()
        .map(|c| if unprintable(c) { ' ' } else { c })
        .collect();
    let mut end = clean.len().min(crate::limits::SENTENCE);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean.truncate(end);
    clean
}

/// Control characters, those that turn the direction of text or begin a line, and those that nobody sees: they could forge a log
/// line, a prompt or a name.
fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire_and_no_two_are_spelt_alike() {
        let mut seen = std::collections::HashSet::new();
        for code in RefusalCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} is spelt twice");
            let json = serde_json::to_string(code).expect("codes serialise");
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(
                serde_json::from_str::<RefusalCode>(&json).expect("codes parse"),
                *code
            );
        }
        assert!(seen.len() > 30);
    }

    #[test]
    fn a_code_from_a_newer_peer_is_read_and_asks_a_person() {
        let code: RefusalCode =
            serde_json::from_str("\"flux_capacitor\"").expect("unknown codes parse");
        assert_eq!(code, RefusalCode::Unknown);
        assert_eq!(code.remedy(), Remedy::AskPerson);
    }

    #[test]
    fn sentences_are_cut_at_a_character_and_lose_control_characters() {
        let long = "ä".repeat(1_000);
        let refusal = Refusal::new(RefusalCode::Busy, long);
        assert!(refusal.sentence.len() <= crate::limits::SENTENCE);
        assert_eq!(clip("a\u{1b}[2Jb\nc\u{202e}d".into()), "a [2Jb c d");
        assert_eq!(
            clip("a\u{61c}b\u{feff}c\u{e0041}d\u{200b}e\u{9b}f\u{0}g".into()),
            "a b c d e f g"
        );
        // Joiners belong to the scripts that need them.
        assert_eq!(clip("क्\u{200d}ष".into()), "क्\u{200d}ष");
    }
}
