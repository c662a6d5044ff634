//! The gateway: a blind rendezvous in a DMZ or a cloud. Devices, servers and consoles connect to it, and it moves their
//! bytes between them. It never reads what they say to each other, keeps no file, and can be lost at any moment.

pub mod accept;
pub mod addresses;
mod chance;
pub mod cli;
pub mod config;
pub mod devices;
pub mod ending;
mod farewell;
pub mod gateway;
pub mod http;
pub mod keystore;
pub mod metrics;
mod relay;
mod reload;
pub mod rendezvous;
pub mod run;
pub mod shutdown;
pub mod status;
pub mod timing;
pub mod uplink;
