//! Whether the name of a server leads to an address, asked as the agent asks it.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;
use umbra_carrier::address::HostPort;

use super::Check;
use crate::link::Network;

const ID: &str = "dns";
const DEADLINE: Duration = Duration::from_secs(5);
/// Addresses that are named.
const SHOWN: usize = 4;

pub(super) async fn check(address: &HostPort, network: &Network) -> Check {
    let (host, port) = (address.host(), address.port());
    if host.parse::<IpAddr>().is_ok() {
        return Check::skipped(
            ID,
            format!("{host} is an address, so no name is looked up."),
        );
    }
    if let Some(proxy) = network.proxy_name(host, port) {
        return Check::skipped(
            ID,
            format!("The proxy {proxy} looks up the name “{host}”, not this device."),
        );
    }
    let advice = "Check the name with your administrator, then the name servers that this device uses (/etc/resolv.conf).";
    match timeout(DEADLINE, network.dialer.names.addresses(host, port)).await {
        Err(_) => Check::bad(
            ID,
            format!(
                "No name server said within {} seconds where “{host}” is.",
                DEADLINE.as_secs()
            ),
            "Check the network cable, and the name servers that this device uses (/etc/resolv.conf).",
        ),
        Ok(Err(error)) => Check::bad(
            ID,
            format!("The name “{host}” leads nowhere: {error}."),
            advice,
        ),
        Ok(Ok(found)) => {
            let mut addresses: Vec<String> =
                found.iter().map(|found| found.ip().to_string()).collect();
            addresses.dedup();
            if addresses.is_empty() {
                return Check::bad(ID, format!("The name “{host}” leads nowhere."), advice);
            }
            let more = addresses.len().saturating_sub(SHOWN);
            addresses.truncate(SHOWN);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            Check::good(
                ID,
                format!("The name “{host}” leads to {}{more}.", addresses.join(", ")),
            )
        }
    }
}
