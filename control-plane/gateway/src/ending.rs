//! What clients are told when they may not come in, and when they have to go.

use std::ops::RangeInclusive;

use hyper::StatusCode;
use umbra_protocol::gateway::{self as wire, TunnelEnd};
use umbra_protocol::{Refusal, RefusalCode, Remedy};

use crate::chance;

/// Devices that come back per second, by the pauses that they are told.
const BACK_PER_SECOND: usize = 20;
/// Devices whose server is gone come back within so many seconds, depending on how many they are. Even a few give the
/// server time to attach again: who comes too early waits longer.
const BACK_AFTER_LOSS: RangeInclusive<u32> = 10..=30;
/// The same, where the server has attached anew already.
const BACK_TO_NEWER: RangeInclusive<u32> = 2..=30;
/// The same, after a drain.
const BACK_AFTER_RESTART: RangeInclusive<u32> = 10..=300;
/// When devices that had to make room may come back, in seconds.
const ROOM_AGAIN: RangeInclusive<u32> = 2..=10;
/// When devices beyond the limit may ask again, in seconds.
const LIMIT_AGAIN: RangeInclusive<u32> = 60..=180;

/// A request that is refused before the upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status of the answer.
    pub status: StatusCode,
    /// Its body.
    pub refusal: Refusal,
}

impl Rejection {
    /// A request that can't be understood.
    pub fn malformed(sentence: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            refusal: Refusal::new(RefusalCode::Malformed, sentence),
        }
    }
}

/// The end of a connection, as its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Code of the Close frame.
    pub close: u16,
    /// What it says.
    pub refusal: Refusal,
}

impl Ending {
    fn new(close: u16, code: RefusalCode, sentence: &str) -> Self {
        Self {
            close,
            refusal: Refusal::new(code, sentence),
        }
    }

    fn later(mut self, seconds: u32) -> Self {
        self.refusal = self.refusal.retry_after(seconds);
        self
    }

    /// The server did not admit the device in time.
    pub fn not_admitted() -> Self {
        Self::new(
            wire::CLOSE_POLICY,
            RefusalCode::TooSlow,
            "The server did not accept this device in time.",
        )
    }

    /// The uplink is lost, and with it so many devices.
    pub fn server_gone(devices: usize) -> Self {
        Self::new(
            wire::CLOSE_TRY_AGAIN,
            RefusalCode::NoServer,
            "The server's connection to the gateway was lost.",
        )
        .later(back(devices, BACK_AFTER_LOSS))
    }

    /// The server has attached anew, and so many devices have to follow it.
    pub fn server_anew(devices: usize) -> Self {
        Self::new(
            wire::CLOSE_TRY_AGAIN,
            RefusalCode::NoServer,
            "The server has replaced its connection to the gateway.",
        )
        .later(back(devices, BACK_TO_NEWER))
    }

    /// The gateway goes down, and so many devices have to come back.
    pub fn restart(devices: usize) -> Self {
        Self::new(
            wire::CLOSE_RESTART,
            RefusalCode::ShuttingDown,
            "The gateway is going down or restarting.",
        )
        .later(back(devices, BACK_AFTER_RESTART))
    }

    /// Others need the room.
    pub fn busy() -> Self {
        Self::new(
            wire::CLOSE_TRY_AGAIN,
            RefusalCode::Busy,
            "The gateway has too many new connections at the moment.",
        )
        .later(chance::seconds(ROOM_AGAIN))
    }

    /// The server has as many devices as it wants.
    pub fn over_limit() -> Self {
        Self::new(
            wire::CLOSE_TRY_AGAIN,
            RefusalCode::ConnectionLimit,
            "The gateway serves as many devices as the server allows.",
        )
        .later(chance::seconds(LIMIT_AGAIN))
    }

    /// The server sends the device away.
    pub fn dropped(refusal: Refusal) -> Self {
        let close = match refusal.code.remedy() {
            Remedy::Retry => wire::CLOSE_TRY_AGAIN,
            Remedy::AskPerson | Remedy::Stop => wire::CLOSE_POLICY,
        };
        Self { close, refusal }
    }
}

/// When one of so many devices may come back: all of them spread evenly over a time that is between these bounds.
fn back(devices: usize, longest: RangeInclusive<u32>) -> u32 {
    let wanted = u32::try_from(devices / BACK_PER_SECOND).unwrap_or(u32::MAX);
    chance::seconds(1..=wanted.clamp(*longest.start(), *longest.end()))
}

/// How a tunnel ended, for a person.
pub fn tunnel_end(end: TunnelEnd) -> &'static str {
    match end {
        TunnelEnd::ClosedByDevice => "The device ended the connection.",
        TunnelEnd::ClosedByConsole => "The console ended the connection.",
        TunnelEnd::ConnectionLost => "The connection to one of the two ends was lost.",
        TunnelEnd::Idle => "Nothing was sent in either direction for too long.",
        TunnelEnd::Expired => "The other end did not come in time.",
        TunnelEnd::Withdrawn => "The server ended the session.",
        TunnelEnd::ShuttingDown => "The gateway is going down or restarting.",
        TunnelEnd::NotOpened => {
            "The gateway can't open this tunnel: there are too many, or its tokens were used before."
        }
        TunnelEnd::Unknown => "The tunnel ended.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many pauses.
    fn longest(ending: impl Fn() -> Ending) -> u32 {
        let pauses = (0..2_000).filter_map(|_| ending().refusal.retry_after_seconds);
        pauses.max().unwrap_or_default()
    }

    #[test]
    fn few_devices_are_back_soon_and_many_spread_over_more_time() {
        assert_eq!(longest(|| Ending::server_anew(5)), 2);
        assert_eq!(longest(|| Ending::server_anew(200)), 10);
        assert_eq!(longest(|| Ending::server_anew(30_000)), 30);
        assert_eq!(longest(|| Ending::server_gone(5)), 10);
        assert_eq!(longest(|| Ending::server_gone(30_000)), 30);
        assert_eq!(longest(|| Ending::restart(5)), 10);
        assert_eq!(longest(|| Ending::restart(400)), 20);
        assert!(longest(|| Ending::restart(30_000)) > 280);
    }
}
