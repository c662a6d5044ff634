//! How a device is taken on: challenge, proof of the first-authentication key, and what it gets in return.
//!
//! The proofs are those of SCRAM (RFC 5802) with a transcript that is bound to the TLS connection
//! ([`crate::first_auth`]), so that nobody between the two ends can use or learn the key.

use serde::Serialize;

use crate::hello::TrustAnchors;
use crate::ids::{DeviceId, KeyId};

/// The server's answer to a hello with the intent to enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Challenge {
    /// The version that both speak from now on.
    pub version: u16,
    /// 32 random bytes, 64 hexadecimal digits.
    pub nonce: String,
    /// The server's salt for stretching keys, 32 hexadecimal digits.
    pub salt: String,
    /// Rounds of stretching, within [`crate::limits::STRETCH_ROUNDS`].
    pub rounds: u32,
}

crate::json::object!(Challenge { version, nonce, salt, rounds;  });

/// The device's proof that it knows a first-authentication key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enrol {
    /// Which key.
    pub key_id: KeyId,
    /// 32 random bytes, 64 hexadecimal digits.
    pub nonce: String,
    /// The client's proof, 64 hexadecimal digits.
    pub proof: String,
}

crate::json::object!(Enrol { key_id, nonce, proof;  });

/// The device is taken on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enrolled {
    /// The server's proof that it knows the key too, 64 hexadecimal digits. The device checks it before it believes the
    /// rest.
    pub proof: String,
    /// The device's ID as the server files it.
    pub device_id: DeviceId,
    /// The name that the server files the device under.
    pub device_name: String,
    /// What to trust from now on.
    pub anchors: TrustAnchors,
    /// Where to connect from now on, best first.
    pub connectors: Vec<Connector>,
}

crate::json::object!(Enrolled { proof, device_id, device_name, anchors, connectors;  });

/// One way to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connector {
    /// Directly, or through a gateway.
    pub kind: ConnectorKind,
    /// Host name or IP address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// PEM roots that the gateway's own certificate may come from, beside the server's roots. It protects no more than the
    /// envelope: what the two ends say to each other is checked against the server's roots alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
}

crate::json::object!(Connector { kind, address, port; roots });

/// The kinds of connector, with the field's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorKind {
    /// Directly to the management server.
    Ums,
    /// Through a gateway.
    Icg,
}

crate::json::words!(ConnectorKind { Ums = "ums", Icg = "icg" });
