//! The setup assistant, without a face and without a device: a pure machine that is told what a person did and what the device
//! found, and says what is shown and what is to be done. It opens no socket, reads no file and knows no clock; every text that a
//! person reads lies in the [`Catalogue`].
//!
//! A face (terminal, plain lines, window) draws a [`View`] and answers with an [`Input`]; both are what
//! `umbra-agent setup --face json` speaks, one JSON object per line. A driver carries out each [`Effect`] and reports with
//! [`Event`]s. See `docs/setup-assistant.md`.

pub mod address;
pub mod catalogue;
pub mod event;
pub mod machine;
pub mod report;
pub mod text;
pub mod view;

pub use catalogue::{Catalogue, Language};
pub use event::{
    Address, Again, Effect, Endpoint, Event, Found, Job, LogOnStage, Moment, Outcome, Plan,
    Progress, Reached, Source, Stage, Start, TakenOn, Trust,
};
pub use machine::{Machine, PROGRESS_VERSION, Rules, STICKS_EVERY};
pub use report::{Code, Report};
pub use view::{Action, Choice, Input, Item, Notice, State, Step, Tone, VIEW_VERSION, View};
