//! Why a session ended and what it moved: one value for the peer (a stable code), the person at the device, the operator, and the
//! record. A reason is set once, by whoever noticed first, and never guessed afterwards.

use std::io;
use std::time::Duration;

use crate::input_filter::Violation;
use crate::upstream::UpstreamError;
use crate::viewer_handshake::ViewerError;

/// Who or what stopped a running session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// An administrator, at the management server.
    Administrator,
    /// The person at the device.
    User,
    /// The rule about how many sessions may run at a time.
    InstancePolicy,
    /// A changed setting that doesn't allow this session any more.
    Settings,
    /// This program is stopping.
    Shutdown,
}

/// Why a session ended.
#[derive(Debug)]
pub enum EndReason {
    /// The viewer closed.
    ViewerClosed,
    /// The device closed, in order.
    DeviceClosed,
    /// The local VNC server closed.
    VncServerClosed,
    /// The connection to the local VNC server broke.
    VncServerLost(io::Error),
    /// The connection between console and device broke without a farewell.
    PeerVanished,
    /// No byte moved for the permitted time.
    IdleLimit,
    /// The session reached its permitted length.
    TotalLimit,
    /// Somebody stopped it.
    Stopped(StopCause),
    /// The viewer sent what the input filter can't let through.
    InputViolation(Violation),
    /// The viewer broke the RFB handshake.
    ViewerMisbehaved(ViewerError),
    /// The viewer didn't finish the handshake in time.
    ViewerSilent,
    /// The local VNC server could not be used.
    Upstream(UpstreamError),
    /// The device refused.
    Refused {
        /// Stable code.
        code: String,
        /// The device's sentence.
        sentence: String,
    },
}

/// What a session was, once it is over.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub reason: EndReason,
    /// Bytes moved from the console's end to the device's.
    pub bytes_to_device: u64,
    /// Bytes moved from the device's end to the console's.
    pub bytes_to_console: u64,
    /// From the beginning of `serve` or `bridge` to the end.
    pub duration: Duration,
}

impl StopCause {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Administrator => "ended_by_administrator",
            Self::User => "ended_by_user",
            Self::InstancePolicy => "ended_by_instance_policy",
            Self::Settings => "ended_by_settings",
            Self::Shutdown => "ended_by_shutdown",
        }
    }
}

impl EndReason {
    /// Stable code for the peer and the record.
    pub fn code(&self) -> &str {
        match self {
            Self::ViewerClosed => "viewer_closed",
            Self::DeviceClosed => "device_closed",
            Self::VncServerClosed => "vnc_server_closed",
            Self::VncServerLost(_) => "vnc_server_lost",
            Self::PeerVanished => "peer_vanished",
            Self::IdleLimit => "idle_limit",
            Self::TotalLimit => "total_limit",
            Self::Stopped(cause) => cause.code(),
            Self::InputViolation(_) => "input_violation",
            Self::ViewerMisbehaved(_) => "viewer_misbehaved",
            Self::ViewerSilent => "viewer_silent",
            Self::Upstream(error) => error.code(),
            Self::Refused { code, .. } => code,
        }
    }

    /// What the person at the device is told.
    pub fn for_person(&self) -> &'static str {
        match self {
            Self::ViewerClosed => {
                "The helpdesk has ended the session. Your screen is no longer being shown."
            }
            Self::DeviceClosed => "The session has ended. Your screen is no longer being shown.",
            Self::VncServerClosed | Self::VncServerLost(_) | Self::Upstream(_) => {
                "The program that shows this screen has stopped. The session has ended; the helpdesk can start another."
            }
            Self::PeerVanished => {
                "The connection to the helpdesk was lost. Your screen is no longer being shown."
            }
            Self::IdleLimit => {
                "Nothing happened for a while, so the session was ended. Your screen is no longer being shown."
            }
            Self::TotalLimit => "The session reached its permitted length and was ended.",
            Self::Stopped(StopCause::Administrator) => "An administrator has ended the session.",
            Self::Stopped(StopCause::User) => {
                "You have ended the session. Your screen is no longer being shown."
            }
            Self::Stopped(StopCause::InstancePolicy) => {
                "Another session was started, so this one was ended."
            }
            Self::Stopped(StopCause::Settings) => {
                "A changed setting doesn't allow the session any more; it was ended."
            }
            Self::Stopped(StopCause::Shutdown) => {
                "The shadowing service is being restarted or stopped, so the session was ended."
            }
            Self::InputViolation(_) | Self::ViewerMisbehaved(_) => {
                "The helpdesk's program sent something that is not allowed, so the session was ended."
            }
            Self::ViewerSilent => {
                "The helpdesk's program did not respond, so the session was ended."
            }
            Self::Refused { .. } => "The session was refused. Your screen was not shown.",
        }
    }

    /// What the operator at the console is told.
    pub fn for_operator(&self) -> String {
        match self {
            Self::ViewerClosed => "The viewer closed the session.".to_owned(),
            Self::DeviceClosed => "The device ended the session.".to_owned(),
            Self::VncServerClosed => "The VNC server on the device closed the session.".to_owned(),
            Self::VncServerLost(error) => {
                format!("The connection to the VNC server on the device broke ({error}). Try again; if it stays so, look at the device's log.")
            }
            Self::PeerVanished => {
                "The connection was cut without a farewell. Check the network between here and the device, then try again.".to_owned()
            }
            Self::IdleLimit => "No data moved for the permitted time, so the session was ended.".to_owned(),
            Self::TotalLimit => "The session reached its permitted length and was ended.".to_owned(),
            Self::Stopped(StopCause::Administrator) => "An administrator ended the session.".to_owned(),
            Self::Stopped(StopCause::User) => "The person at the device ended the session.".to_owned(),
            Self::Stopped(StopCause::InstancePolicy) => {
                "The device allows only so many sessions at a time and ended this one for another.".to_owned()
            }
            Self::Stopped(StopCause::Settings) => "A changed setting doesn't allow this session any more; it was ended.".to_owned(),
            Self::Stopped(StopCause::Shutdown) => "The device's agent is being restarted, or the device is going down. Begin the session again in a moment.".to_owned(),
            Self::InputViolation(violation) => {
                format!("The session was ended: {violation}. With limited permissions only known messages pass; try another viewer.")
            }
            Self::ViewerMisbehaved(error) => format!("The session was ended: {error}. Try another viewer."),
            Self::ViewerSilent => "The viewer did not finish the handshake in time. Try again or use another viewer.".to_owned(),
            Self::Upstream(error) => error.for_operator(),
            Self::Refused { code, sentence } => format!("The device refused: {sentence} ({code})"),
        }
    }
}
