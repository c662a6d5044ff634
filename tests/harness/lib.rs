//! What scenarios are made of: a test desktop, a measuring viewer, faults, certificates, child processes and real X
//! servers. The harness never fakes a part of the product: it starts the programs that ship and talks to them from
//! outside.

pub mod bench;
pub mod control_link;
pub mod demo;
pub mod desktop;
pub mod eventually;
pub mod fault_proxy;
mod frames;
pub mod front;
pub mod image;
pub mod machine;
pub mod netns;
pub mod pki;
pub mod program;
pub mod python;
pub mod rfb;
pub mod rfb_client;
pub mod scratch;
pub mod soak;
pub mod thin_client;
pub mod tunnel;
pub mod two_slots;
pub mod units;
pub mod websocket;
pub mod world;
pub mod x11;
