//! How long things may take. Everything is what production uses, unless a test is impatient.

use std::time::Duration;

use umbra_carrier::ws::Keepalive;
use umbra_protocol::gateway;

use crate::devices::roster::Room;

/// Times, and room for strangers.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For a TLS handshake, and for the head of a request.
    pub handshake: Duration,
    /// For a server to attach.
    pub attach: Duration,
    /// For a server to admit a device.
    pub admit: Duration,
    /// How long a device may wait until there is room to wait for being admitted.
    pub queue: Duration,
    /// Silence after which a server is dead.
    pub silence: Duration,
    /// How long nothing may move in a tunnel.
    pub tunnel_idle: Duration,
    /// Pings on WebSockets, so that a pulled cable is found and no proxy in between closes a silent connection.
    pub keepalive: Keepalive,
    /// How often the keystore's files are looked at.
    pub reload: Duration,
    /// Room for devices that are not admitted.
    pub room: Room,
    /// Room for connections that are being set up, and for those of one source.
    pub door: (usize, usize),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            attach: gateway::ATTACH_DEADLINE,
            admit: gateway::ADMIT_DEADLINE,
            queue: Duration::from_secs(3),
            silence: gateway::SILENCE,
            tunnel_idle: Duration::from_secs(2 * 60 * 60),
            keepalive: Keepalive {
                interval: Duration::from_secs(25),
                timeout: Duration::from_secs(60),
            },
            reload: Duration::from_secs(2),
            room: Room::default(),
            door: (1_024, 256),
        }
    }
}
