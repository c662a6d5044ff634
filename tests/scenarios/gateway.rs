//! Devices outside the company network: a device with no way to its server but a gateway is enrolled, managed and shadowed
//! through it; the gateway may die, and the way may change, at any time.

mod care;
mod herd;
mod lines;
mod metrics;
mod site;
mod thread;
mod twins;
mod ways;
