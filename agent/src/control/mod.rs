//! Local control: a Unix socket on which the command line, a tray or a consent dialog asks and tells the running agent. Anyone on
//! the device may ask for the status; only root, the agent's own user and the configured group may change anything.

pub mod client;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod join;
pub mod rights;
pub mod server;
pub mod wire;

use tokio::sync::{mpsc, oneshot};
use umbra_carrier::address::HostPort;
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::ids::SessionId;

use crate::enrolment::Trust;

pub use server::{Context, ControlError, Listening, bind};
pub use wire::{ErrorCode, Failure, Request, Response, TrustGiven};

/// How many actions may wait for the agent's main loop.
pub const ACTIONS_WAITING: usize = 16;

/// How an action ended: a sentence for the person who asked, either way.
pub type Outcome = Result<String, Failure>;

/// What only the agent's main loop can do. It answers each one exactly once; an answer that is never given is told to the person
/// as "the agent is stopping".
#[derive(Debug)]
pub enum Action {
    /// Be taken on by a server.
    Enrol {
        /// Where it is.
        address: HostPort,
        /// What makes it trustworthy.
        trust: Trust,
        /// The first-authentication key.
        key: FirstAuthKey,
        /// For the answer.
        reply: oneshot::Sender<Outcome>,
    },
    /// Forget the server.
    Leave {
        /// For the answer.
        reply: oneshot::Sender<Outcome>,
    },
    /// The answer of the person at the device.
    Consent {
        /// Which session.
        session: SessionId,
        /// Yes or no.
        accept: bool,
        /// For the answer.
        reply: oneshot::Sender<Outcome>,
    },
    /// End a running session.
    EndSession {
        /// Which session.
        session: SessionId,
        /// For the answer.
        reply: oneshot::Sender<Outcome>,
    },
}

/// A channel for actions: the sender goes into [`Context`], the receiver into the agent's main loop.
pub fn actions() -> (mpsc::Sender<Action>, mpsc::Receiver<Action>) {
    mpsc::channel(ACTIONS_WAITING)
}
