//! Devices outside the company network: a device with no way to its server but a gateway is enrolled, managed and shadowed
//! through it; the gateway may die, and the way may change, at any time.

mod by_hand;
mod care;
mod company;
mod flood;
mod herd;
mod legacy;
mod lines;
mod metrics;
mod server_proxy;
mod servers;
mod site;
mod thread;
mod twins;
mod ways;
