//! The control link: kept for ever, by one task, with everything that decides in a pure machine. It knows nothing of sessions
//! or commands beyond handing them on.

pub mod backoff;
pub mod driver;
pub mod events;
pub mod machine;
pub mod trouble;

pub use driver::{LinkHandle, World};
pub use events::LinkSettings;
pub use trouble::Trouble;
