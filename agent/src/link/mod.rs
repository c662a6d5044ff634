//! The control link: kept for ever, by one task, with everything that decides in a pure machine. It knows nothing of sessions
//! or commands beyond handing them on.

mod alarm;
pub mod approach;
pub mod backoff;
pub mod driver;
pub mod events;
mod heard;
pub mod machine;
mod moves;
pub mod network;
pub mod trouble;
pub mod way;

pub use approach::Approach;
pub use driver::{LinkHandle, World};
pub use events::LinkSettings;
pub use network::{Network, NetworkSettings, ProxyChoice};
pub use trouble::Trouble;
pub use way::{Way, Ways};
