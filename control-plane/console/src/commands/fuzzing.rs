//! What fuzz targets reach of what is private here. It exists only while fuzzing.

pub use super::keys::fuzzing::{addresses, mail, pouch, units};
