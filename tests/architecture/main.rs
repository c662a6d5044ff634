//! Rules between crates.
