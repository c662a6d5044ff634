//! The two ends of a shadowing tunnel find each other by one-time tokens and are joined. What flows between them is TLS
//! of theirs, and never looked at.

pub mod desk;
pub mod driver;
pub mod machine;
