//! The control link: one conversation with one device. What is said when is decided in `machine`, without a socket or a
//! clock; `driver` carries bytes and asks `desk`, which knows the database.

mod clones;
mod desk;
pub mod driver;
pub mod machine;
mod origin;
mod seats;
mod welcome;

pub use origin::{Origin, Via};
pub use seats::{Seat, Seats};
