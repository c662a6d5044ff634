//! What stands between devices and gateways in the field: proxies that want credentials, that take TLS off or open it, load
//! balancers, name servers that change their mind, and a gateway that is evil. All of them are the real programs; each
//! scenario has a network of its own for them.

mod blindness;
pub(crate) mod broken_proxies;
mod evil;
mod inspection;
mod moving_names;
mod offload;
mod page;
mod passthrough;
mod proxies;
mod site;
mod websocket;
