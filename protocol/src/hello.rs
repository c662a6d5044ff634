//! The first words on the link.

use serde::Serialize;

use crate::ids::{RunId, UnitId};

/// Abilities that not every build of this version has, by the names that both ends tell each other.
pub mod feature {
    /// The server wants to hear how far a command is.
    pub const COMMAND_PROGRESS: &str = "command_progress";
    /// Of a device: it answers the server's heartbeats. Of a server that was told so: it sends them, so that the device only wakes up
    /// to answer and sends none of its own.
    pub const SERVER_HEARTBEATS: &str = "server_heartbeats";
}

/// What a device wants of this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// To be taken on with a first-authentication key.
    Enrol,
    /// To keep its control link.
    Link,
    /// To find out whether this way works: the server checks the device as for a link and welcomes it, but the link that
    /// the device has elsewhere stays the one in use, and nothing else is said. Both ends close then.
    Probe,
}

crate::json::words!(Intent { Enrol = "enrol", Link = "link", Probe = "probe" });

/// The device's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// Protocol versions that the device speaks.
    pub versions: Vec<u16>,
    /// Optional abilities by name; unknown names are ignored.
    #[serde(default)]
    pub features: Vec<String>,
    /// What this connection is for.
    pub intent: Intent,
    /// What the device knows of itself.
    pub device: DeviceFacts,
    /// Revision of the server's settings that are in force on the device; 0 when there are none.
    #[serde(default)]
    pub settings_revision: u64,
    /// Which run of the agent this is, for a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

crate::json::object!(Hello { versions, intent, device; features, settings_revision, run });

/// What a device tells about itself. All of it is the device's word, none of it is identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceFacts {
    /// Label that people read on the device.
    pub unit_id: UnitId,
    /// Host name.
    pub name: String,
    /// Operating system and its version.
    pub os: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Processor architecture, such as `x86_64`.
    pub architecture: String,
    /// Whether shadowing is accepted, through a gateway if not on a port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadowing: bool,
    /// Port on which the device accepts shadowing, unless it accepts none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_port: Option<u16>,
    /// Addresses of the device on its networks, as text.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether only encrypted shadowing is accepted.
    pub secure_mode: bool,
}

crate::json::object!(DeviceFacts { unit_id, name, os, agent_version, architecture, secure_mode; shadowing, shadow_port, addresses });

/// One PEM root certificate or more, and the keys that sign session tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustAnchors {
    /// PEM root certificates of the server; the device pins them.
    pub roots: Vec<String>,
    /// Keys that sign session tickets.
    pub ticket_keys: Vec<TicketKey>,
}

crate::json::object!(TrustAnchors { roots, ticket_keys;  });

/// A public key that verifies session tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TicketKey {
    /// Its name in the ticket's header.
    pub kid: String,
    /// Ed25519 public key, 64 hexadecimal digits (RFC 8032).
    pub ed25519: String,
}

crate::json::object!(TicketKey { kid, ed25519;  });

/// The server's answer to a hello with the intent to link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Welcome {
    /// The version that both speak from now on.
    pub version: u16,
    /// Optional abilities of the server by name.
    #[serde(default)]
    pub features: Vec<String>,
    /// Seconds between two heartbeats, whoever sends them; the device clamps it to its own bounds.
    pub heartbeat_seconds: u32,
    /// The server's clock, seconds since 1970. Information, not authority.
    pub server_time: i64,
    /// The name that the administrators gave to the device.
    pub device_name: String,
    /// What to trust from now on.
    pub anchors: TrustAnchors,
}

crate::json::object!(Welcome { version, heartbeat_seconds, server_time, device_name, anchors; features });
