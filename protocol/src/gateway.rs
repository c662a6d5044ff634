//! What a gateway is told and what it tells: paths, headers, the control stream of the uplink, the head of a device's
//! stream, close reasons. Nothing of what devices, servers and consoles say to each other *through* a gateway is here:
//! a gateway never reads that.
//!
//! ```text
//! server                                              gateway
//!   (WebSocket, inner mutual TLS, yamux; stream 1 is the control stream: length + JSON)
//!   attach {versions, server_root, limit} ────────────►
//!                                                      ◄── attached {version} | refused
//!                        (per device a stream opened by the gateway: StreamHead, then the device's bytes)
//!   admit {stream} | drop {stream, code, …} ──────────►
//!   rendezvous {id, device, console, …} ──────────────►
//!                                                      ◄── rendezvous_ready … rendezvous_ended
//!   ping / limit / withdraw ──────────────────────────► ◄── pong / rejected / draining
//! ```

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, count_within, text_within};
use crate::ids::{RendezvousId, ServerRoot, TokenHash};
use crate::limits;
use crate::link::Beat;
use crate::message::{Limited, message_set, small};
use crate::refusal::{Refusal, RefusalCode};

/// Where a device connects.
pub const PATH_ENDPOINT: &str = "/usg/endpoint";
/// Where a server connects.
pub const PATH_UPLINK: &str = "/usg/uplink";
/// Where both ends of a rendezvous connect.
pub const PATH_TUNNEL: &str = "/usg/tunnel";
/// Where monitoring asks.
pub const PATH_CHECK_STATUS: &str = "/usg/check-status";
/// The port of a gateway unless another one is said.
pub const DEFAULT_PORT: u16 = 8443;

/// The WebSocket subprotocol of a device's link.
pub const SUBPROTOCOL_LINK: &str = "umbra.link.1";
/// The WebSocket subprotocol of a server's uplink.
pub const SUBPROTOCOL_UPLINK: &str = "umbra.uplink.1";
/// The WebSocket subprotocol of one end of a rendezvous.
pub const SUBPROTOCOL_TUNNEL: &str = "umbra.tunnel.1";

/// Request header: which server a device wants, a [`ServerRoot`]. Without it, any attached server will do.
pub const HEADER_SERVER: &str = "umbra-server";
/// Request header: a label for logs, at most [`LABEL`] printable characters. It is no identity.
pub const HEADER_DEVICE: &str = "umbra-device";
/// Request header: which end of a rendezvous this is, a [`TunnelSide`]. The token is a bearer token.
pub const HEADER_SIDE: &str = "umbra-side";

/// Versions of the uplink that this build speaks, best first.
pub const VERSIONS: &[u16] = &[1];
/// Largest WebSocket frame and message, in bytes.
pub const WEBSOCKET_MESSAGE: usize = 64 * 1024;
/// Largest message on the control stream of an uplink, in bytes.
pub const FRAME: usize = 16 * 1024;
/// Largest head of a device's stream, in bytes.
pub const STREAM_HEAD: usize = 1024;
/// Longest label of a device, in bytes.
pub const LABEL: usize = 64;
/// Longest reason in a WebSocket close frame, in bytes.
pub const CLOSE_REASON: usize = 123;
/// Largest body of a refusal before the upgrade, in bytes.
pub const REFUSAL_BODY: usize = 1024;
/// Longest token that is looked at, in bytes.
pub const TOKEN: usize = 128;

/// How long a server that connected may take until it has attached.
pub const ATTACH_DEADLINE: Duration = Duration::from_secs(15);
/// How often the server pings on the control stream.
pub const HEARTBEAT: Duration = Duration::from_secs(20);
/// Silence of this length at either end of the control stream: the uplink is dead.
pub const SILENCE: Duration = Duration::from_secs(45);
/// How long a device's stream may wait for the server's `admit`.
pub const ADMIT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the server waits for `rendezvous_ready`.
pub const READY_DEADLINE: Duration = Duration::from_secs(5);
/// Shortest and longest life of a rendezvous that is not paired, in seconds; what a server asks is clamped to it.
pub const RENDEZVOUS_SECONDS: RangeInclusive<u32> = 1..=30;

/// WebSocket close code: the other side does not keep to the WebSocket protocol.
pub const CLOSE_PROTOCOL: u16 = 1002;
/// WebSocket close code: a text frame, where only binary ones are spoken.
pub const CLOSE_UNSUPPORTED: u16 = 1003;
/// WebSocket close code: not admitted.
pub const CLOSE_POLICY: u16 = 1008;
/// WebSocket close code: a message beyond [`WEBSOCKET_MESSAGE`].
pub const CLOSE_TOO_LARGE: u16 = 1009;
/// WebSocket close code: the gateway restarts; the reason says when to come back.
pub const CLOSE_RESTART: u16 = 1012;
/// WebSocket close code: try again later, for instance because the server's uplink was lost.
pub const CLOSE_TRY_AGAIN: u16 = 1013;

message_set! {
    /// What a server says on the control stream.
    ToGateway {
        /// Its first message.
        Attach(Attach) = "attach",
        /// How many devices it wants at most.
        Limit(Limit) = "limit",
        /// A device on a stream is one of the server's.
        Admit(Admit) = "admit",
        /// A device on a stream shall be turned away.
        Drop(DropStream) = "drop",
        /// Two ends will come and shall be joined.
        Rendezvous(OpenRendezvous) = "rendezvous",
        /// They will not come after all, or shall be parted.
        Withdraw(Withdraw) = "withdraw",
        /// A heartbeat.
        Ping(Beat) = "ping",
    }
}

message_set! {
    /// What a gateway says on the control stream.
    FromGateway {
        /// The uplink stands.
        Attached(Attached) = "attached",
        /// The uplink does not stand, or ends.
        Refused(Refusal) = "refused",
        /// Both ends of a rendezvous may come.
        RendezvousReady(RendezvousReady) = "rendezvous_ready",
        /// A rendezvous is over.
        RendezvousEnded(RendezvousEnded) = "rendezvous_ended",
        /// The gateway is about to go down.
        Draining(Draining) = "draining",
        /// The echo of a heartbeat.
        Pong(Beat) = "pong",
        /// A device was turned away before it had a stream.
        Rejected(Rejected) = "rejected",
    }
}

/// A server's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attach {
    /// Versions of the uplink that the server speaks.
    pub versions: Vec<u16>,
    /// Its root certificate's hash: devices name it to reach this server.
    pub server_root: ServerRoot,
    /// A label for logs.
    pub server_name: String,
    /// How many devices it wants at most; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

crate::json::object!(Attach { versions, server_root, server_name; limit });

/// How many devices the server wants on this gateway from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The number; `None`: no limit. Devices that are connected stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}

crate::json::object!(Limit { ; devices });

/// The device on this stream is known to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Admit {
    /// The number from the stream's head.
    pub stream: u64,
}

crate::json::object!(Admit { stream;  });

/// The device on this stream shall go, and is told why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropStream {
    /// The number from the stream's head.
    pub stream: u64,
    /// Why, and when to come back.
    #[serde(flatten)]
    pub refusal: Refusal,
}

/// Two ends will come with these tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OpenRendezvous {
    /// Chosen by the server.
    pub id: RendezvousId,
    /// The hash of the device's token.
    pub device: TokenHash,
    /// The hash of the console's token.
    pub console: TokenHash,
    /// After so many seconds an end that is still alone is sent away; clamped to [`RENDEZVOUS_SECONDS`].
    pub expires_in_seconds: u32,
}

crate::json::object!(OpenRendezvous { id, device, console, expires_in_seconds;  });

/// A rendezvous that is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Withdraw {
    /// Which one.
    pub id: RendezvousId,
}

crate::json::object!(Withdraw { id;  });

/// The uplink stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The version that is spoken from now on.
    pub version: u16,
    /// The gateway's own version, for people.
    pub gateway_version: String,
    /// How many devices of any server are connected.
    pub connections: u32,
}

crate::json::object!(Attached { version, gateway_version, connections;  });

/// Both ends may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RendezvousReady {
    /// Which one.
    pub id: RendezvousId,
}

crate::json::object!(RendezvousReady { id;  });

/// A rendezvous is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RendezvousEnded {
    /// Which one.
    pub id: RendezvousId,
    /// How it ended.
    pub code: TunnelEnd,
    /// One sentence for a person.
    pub sentence: String,
    /// Bytes that went to the device.
    pub bytes_to_device: u64,
    /// Bytes that went to the console.
    pub bytes_to_console: u64,
}

crate::json::object!(RendezvousEnded { id, code, sentence, bytes_to_device, bytes_to_console;  });

/// How a rendezvous ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelEnd {
    /// The device closed its end.
    ClosedByDevice,
    /// The console closed its end.
    ClosedByConsole,
    /// One end's connection was lost.
    ConnectionLost,
    /// Nothing moved for too long.
    Idle,
    /// One end or both did not come in time.
    Expired,
    /// The server withdrew it.
    Withdrawn,
    /// The gateway is going down.
    ShuttingDown,
    /// The gateway has too many open ones, or the server reused an ID or a token.
    NotOpened,
    /// A code from a newer gateway.
    #[serde(other)]
    Unknown,
}

impl TunnelEnd {
    /// The code as written on the wire and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClosedByDevice => "closed_by_device",
            Self::ClosedByConsole => "closed_by_console",
            Self::ConnectionLost => "connection_lost",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::ShuttingDown => "shutting_down",
            Self::NotOpened => "not_opened",
            Self::Unknown => "unknown",
        }
    }
}

/// The gateway is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Draining {
    /// When it is worth to come back.
    pub retry_after_seconds: u32,
}

crate::json::object!(Draining { retry_after_seconds;  });

/// A device was turned away before it had a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// What the device called itself.
    pub label: String,
    /// Why.
    pub code: RefusalCode,
}

crate::json::object!(Rejected { label, code;  });

/// Which end of a rendezvous somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelSide {
    /// The device.
    Device,
    /// The console.
    Console,
}

impl TunnelSide {
    /// The value of [`HEADER_SIDE`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Console => "console",
        }
    }

    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Self::Device => Self::Console,
            Self::Console => Self::Device,
        }
    }
}

impl std::fmt::Display for TunnelSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text is neither `device` nor `console`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the end of a rendezvous is “device” or “console”")]
pub struct NotASide;

impl FromStr for TunnelSide {
    type Err = NotASide;
    fn from_str(text: &str) -> Result<Self, NotASide> {
        [Self::Device, Self::Console]
            .into_iter()
            .find(|side| side.as_str() == text)
            .ok_or(NotASide)
    }
}

/// What the gateway says first on a device's stream; the device's own bytes follow. Framed like the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamHead {
    /// The number by which `admit` and `drop` name the stream.
    pub stream: u64,
    /// Where the device connected from.
    pub from: IpAddr,
    /// What the device calls itself, possibly nothing. Not identity.
    #[serde(default)]
    pub label: String,
}

crate::json::object!(StreamHead { stream, from; label });

impl StreamHead {
    /// As it goes over the wire, without the length.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a number, an address and a text are always JSON")
    }

    /// Reads a head of at most [`STREAM_HEAD`] bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`], [`DecodeError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > STREAM_HEAD {
            return Err(DecodeError::TooLarge {
                size: bytes.len(),
                limit: STREAM_HEAD,
            });
        }
        let head: Self = crate::json::from_slice(bytes)
            .map_err(|error| DecodeError::Malformed(crate::refusal::clip(error.to_string())))?;
        text_within("label", &head.label, LABEL).map_err(DecodeError::Malformed)?;
        Ok(head)
    }
}

impl ServerRoot {
    /// Of a root certificate, DER.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self::from_bytes(sha256(der))
    }
}

/// The hash by which a gateway knows a one-time token.
pub fn token_hash(token: &str) -> TokenHash {
    TokenHash::from_bytes(sha256(token.as_bytes()))
}

/// The highest version of the uplink that both sides speak.
pub fn agree(offered: &[u16]) -> Option<u16> {
    VERSIONS
        .iter()
        .copied()
        .filter(|version| offered.contains(version))
        .max()
}

/// What a device calls itself, made safe for logs: printable ASCII, at most [`LABEL`] of it.
pub fn label(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .take(LABEL)
        .collect()
}

/// The reason in a close frame: `code: sentence`, with ` retry=SECONDS` behind the code where there is a hint. At most
/// [`CLOSE_REASON`] bytes.
pub fn close_reason(refusal: &Refusal) -> String {
    let code = refusal.code;
    let mut reason = match refusal.retry_after_seconds {
        Some(seconds) => format!("{code} retry={seconds}: {}", refusal.sentence),
        None => format!("{code}: {}", refusal.sentence),
    };
    let mut end = reason.len().min(CLOSE_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

/// Reads what [`close_reason`] wrote; `None` for a reason of another form, as reverse proxies write them.
pub fn read_close_reason(reason: &str) -> Option<Refusal> {
    let (head, sentence) = reason.split_once(": ")?;
    let (code, retry) = match head.split_once(" retry=") {
        Some((code, seconds)) => (code, Some(seconds.parse().ok()?)),
        None => (head, None),
    };
    let plausible = |c: char| c.is_ascii_lowercase() || c == '_';
    if code.is_empty() || !code.chars().all(plausible) {
        return None;
    }
    let code = RefusalCode::ALL
        .iter()
        .copied()
        .find(|known| known.as_str() == code)
        .unwrap_or(RefusalCode::Unknown);
    let refusal = Refusal::new(code, sentence);
    Some(match retry {
        Some(seconds) => refusal.retry_after(seconds),
        None => refusal,
    })
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

small!(
    Limit,
    Admit,
    OpenRendezvous,
    Withdraw,
    RendezvousReady,
    Draining
);

impl Limited for Attach {
    fn check(&self) -> Result<(), String> {
        count_within("versions", self.versions.len(), 32, "entries")?;
        text_within("server_name", &self.server_name, limits::LABEL)
    }
}

impl Limited for DropStream {
    fn check(&self) -> Result<(), String> {
        self.refusal.check()
    }
}

impl Limited for Attached {
    fn check(&self) -> Result<(), String> {
        text_within("gateway_version", &self.gateway_version, limits::LABEL)
    }
}

impl Limited for RendezvousEnded {
    fn check(&self) -> Result<(), String> {
        text_within("sentence", &self.sentence, limits::SENTENCE)
    }
}

impl Limited for Rejected {
    fn check(&self) -> Result<(), String> {
        text_within("label", &self.label, LABEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_fits_its_frame_and_reads_back() {
        let refusal =
            Refusal::new(RefusalCode::ShuttingDown, "The gateway restarts.").retry_after(17);
        assert_eq!(
            close_reason(&refusal),
            "shutting_down retry=17: The gateway restarts."
        );
        assert_eq!(read_close_reason(&close_reason(&refusal)), Some(refusal));
        let long = Refusal::new(RefusalCode::NoServer, "ä".repeat(200));
        assert!(close_reason(&long).len() <= CLOSE_REASON);
        let read = read_close_reason(&close_reason(&long)).expect("reads");
        assert_eq!(read.code, RefusalCode::NoServer);
        assert_eq!(read.retry_after_seconds, None);
    }

    #[test]
    fn a_reason_that_is_none_of_ours_is_told_apart_and_a_newer_code_is_not() {
        for foreign in [
            "",
            "bye",
            "Error: upstream",
            "no_server retry=x: y",
            ": nothing",
        ] {
            assert_eq!(read_close_reason(foreign), None, "{foreign}");
        }
        let newer = read_close_reason("warp_core_breach: Run.").expect("reads");
        assert_eq!(newer.code, RefusalCode::Unknown);
    }

    #[test]
    fn a_label_keeps_no_control_character_and_an_end() {
        assert_eq!(label("TC-1\u{1b}[2J\nä"), "TC-1?[2J??");
        assert_eq!(label(&"x".repeat(500)).len(), LABEL);
    }

    #[test]
    fn the_token_itself_is_not_in_its_hash() {
        // SHA-256 of "abc", from the standard.
        assert_eq!(
            token_hash("abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_head_reads_back_and_an_oversized_or_odd_one_does_not() {
        let head = StreamHead {
            stream: 7,
            from: IpAddr::from([192, 0, 2, 1]),
            label: "TC-1".into(),
        };
        assert_eq!(StreamHead::decode(&head.encode()).expect("reads"), head);
        assert!(matches!(
            StreamHead::decode(&[b' '; STREAM_HEAD + 1]),
            Err(DecodeError::TooLarge { .. })
        ));
        for odd in [
            r#"{"stream":-1,"from":"192.0.2.1"}"#,
            r#"{"stream":1,"from":"nowhere"}"#,
            "[]",
        ] {
            assert!(StreamHead::decode(odd.as_bytes()).is_err(), "{odd}");
        }
        let long = StreamHead {
            label: "x".repeat(LABEL + 1),
            ..head
        };
        assert!(StreamHead::decode(&long.encode()).is_err());
    }

    #[test]
    fn sides_read_what_they_print_and_nothing_else() {
        for side in [TunnelSide::Device, TunnelSide::Console] {
            assert_eq!(side.as_str().parse(), Ok(side));
            assert_eq!(
                serde_json::to_string(&side).expect("serialises"),
                format!("\"{side}\"")
            );
        }
        assert!("Device".parse::<TunnelSide>().is_err());
    }

    #[test]
    fn the_ends_of_a_tunnel_are_spelt_as_on_the_wire() {
        for end in [
            TunnelEnd::ClosedByDevice,
            TunnelEnd::ClosedByConsole,
            TunnelEnd::ConnectionLost,
            TunnelEnd::Idle,
            TunnelEnd::Expired,
            TunnelEnd::Withdrawn,
            TunnelEnd::ShuttingDown,
            TunnelEnd::NotOpened,
        ] {
            let json = serde_json::to_string(&end).expect("serialises");
            assert_eq!(json, format!("\"{}\"", end.as_str()));
            assert_eq!(
                serde_json::from_str::<TunnelEnd>(&json).expect("reads"),
                end
            );
        }
    }
}
