//! The setup assistant on the device: it carries out what the pure machine of `umbra-setup` asks for, and draws it in a terminal, as
//! plain lines, or as JSON for another face. It must never keep the key, never leave a terminal in disorder, and never be at work
//! twice on one device.

pub mod device;
pub mod driver;
pub mod json;
pub mod keep;
pub mod plain;
pub mod real;
pub mod sticks;
pub mod terminal;

pub use device::Device;
pub use driver::{Face, run};
pub use real::ThisDevice;
