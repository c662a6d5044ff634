//! The device program of Umbra, as a library: the binary is a doorway, and tests call what production calls.
//!
//! Modules stand in the order in which a device comes up. What a stage results in is what the next one is built from
//! (`identity::DeviceIdentity`, then the enrolment, the link, the permit of a session), so a wrong order does not compile.
//! `status` is the one way out to people; nothing here prints by itself.

// What everything stands on.
pub mod clock;
pub mod confine;
pub mod exit;
pub mod files;
mod numbered;
pub mod os;
pub mod paths;
mod task;

// Settings, and what people are told.
pub mod logging;
pub mod registry;
pub mod status;

// A device's life, stage by stage. Who it is.
pub mod facts;
pub mod identity;

// To whom it belongs: where to look, what answers there, and being taken on.
pub mod discovery;
pub mod enrolment;
pub mod reach;

// The way to its server.
pub mod link;

// What comes over that way.
pub mod commands;
pub mod hands;
pub mod session;

// From outside, on the device.
pub mod control;
pub mod doctor;

// With the person in front of it.
pub mod setup;

// All of it joined, and the door.
pub mod run;

pub mod cli;
