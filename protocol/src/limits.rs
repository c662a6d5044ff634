//! Sizes and times that both ends hold each other to. Anything larger or later is refused, whoever sends it.

use std::time::Duration;

/// Largest frame, in bytes, that a peer may send before it was welcomed (device) or answered (server).
pub const FRAME_BEFORE_WELCOME: usize = 16 * 1024;
/// Largest frame, in bytes, on a welcomed link.
pub const FRAME: usize = 256 * 1024;
/// Longest human sentence in a message, in bytes of UTF-8.
pub const SENTENCE: usize = 512;
/// Longest label (names of devices, operators, features), in bytes of UTF-8.
pub const LABEL: usize = 128;
/// Longest compact ticket, in bytes.
pub const TICKET: usize = 6 * 1024;
/// Longest session password, in bytes.
pub const PASSWORD: usize = 128;
/// Most settings in one message.
pub const SETTINGS: usize = 1_000;
/// Longest text value of one parameter, in bytes.
pub const PARAMETER_TEXT: usize = 4 * 1024;
/// Most PEM roots a server may name, and the longest of each in bytes.
pub const ROOTS: usize = 16;
/// Longest PEM certificate in a message, in bytes.
pub const CERTIFICATE_PEM: usize = 16 * 1024;
/// Most ticket keys that are valid at once.
pub const TICKET_KEYS: usize = 8;
/// Fewest and most rounds of key stretching a device accepts from a server.
pub const STRETCH_ROUNDS: std::ops::RangeInclusive<u32> = 10_000..=1_000_000;
/// Fewest characters of a first-authentication key that a person chose, after normalisation.
pub const CHOSEN_KEY_MIN: usize = 12;
/// Most characters of any first-authentication key.
pub const KEY_MAX: usize = 128;

/// How long a device that connected may take until its first whole message.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// How long either end waits for the other's next step of enrolment.
pub const ENROLMENT_STEP: Duration = Duration::from_secs(20);
/// How often the device sends a heartbeat unless the welcome says otherwise, and the bounds for what it may say.
pub const HEARTBEAT: Duration = Duration::from_secs(40);
/// Shortest heartbeat interval that a device accepts.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Longest heartbeat interval that a device accepts: with [`SILENCE_FACTOR`] a pulled cable shows within 90 s.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(42);
/// Silence of this many heartbeat intervals means that the peer is gone.
pub const SILENCE_FACTOR: u32 = 2;
/// Longest pause that a device accepts from a server's `retry_after_seconds`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a session ticket is valid after it was issued.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);
/// How long the one-time password of the field's older consoles is valid.
pub const LEGACY_PASSWORD_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long the device waits for the server's verdict on a session.
pub const VERDICT_DEADLINE: Duration = Duration::from_secs(10);
