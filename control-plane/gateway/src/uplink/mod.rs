//! The servers' uplinks: the conversation on the control stream, and the streams of devices beside it.

pub mod driver;
pub mod machine;
