//! The devices' links: each is carried to its server over that server's uplink, as it is.

pub mod desk;
pub mod driver;
pub mod roster;
