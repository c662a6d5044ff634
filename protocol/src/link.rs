//! Small talk on the link: heartbeats, goodbyes, certificates, leaving.

use serde::Serialize;

use crate::fingerprint::Fingerprint;
use crate::ids::{CommandId, DeviceId};

/// A heartbeat of the device or its echo; the number is echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Beat {
    /// Counts up on each link.
    pub number: u64,
}

crate::json::object!(Beat { number;  });

/// A heartbeat of the server or its echo, with devices that have [`feature::SERVER_HEARTBEATS`] only; the number is echoed.
///
/// [`feature::SERVER_HEARTBEATS`]: crate::hello::feature::SERVER_HEARTBEATS
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ServerBeat {
    /// Counts up on each link.
    pub number: u64,
}

crate::json::object!(ServerBeat { number;  });

/// The server has filed the result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResultFiled {
    /// Which command.
    pub id: CommandId,
}

crate::json::object!(ResultFiled { id;  });

/// The sender is about to close the link in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Goodbye {
    /// Why.
    pub sentence: String,
    /// Seconds after which the sender suggests to come back; the receiver clamps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

crate::json::object!(Goodbye { sentence; retry_after_seconds });

/// The device proposes its next certificate over the link that the present one authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateProposed {
    /// The new certificate, PEM.
    pub certificate: String,
    /// Signature with the new key over [`possession_message`], hexadecimal (ECDSA P-256, SHA-256, ASN.1).
    pub proof: String,
}

crate::json::object!(CertificateProposed { certificate, proof;  });

/// The server accepts both certificates until the device connects with the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateFiled {
    /// SHA-256 of the new certificate.
    pub fingerprint: Fingerprint,
    /// The device's ID from now on (a new key makes a new ID).
    pub device_id: DeviceId,
}

crate::json::object!(CertificateFiled { fingerprint, device_id;  });

/// The bytes that a device signs with its new key, to prove that it has it.
pub fn possession_message(old_certificate: &[u8], new_certificate: &[u8]) -> Vec<u8> {
    let mut message = b"umbra certificate possession v1\0".to_vec();
    message.extend_from_slice(Fingerprint::of_certificate(old_certificate).as_bytes());
    message.extend_from_slice(Fingerprint::of_certificate(new_certificate).as_bytes());
    message
}
