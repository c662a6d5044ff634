//! Whether a proxy is used for an address, and whether something answers where it shall be. What it says to a request is told
//! with the server's check.

use std::time::Duration;

use umbra_carrier::address::HostPort;
use umbra_carrier::tcp;

use super::Check;
use crate::link::{Network, Trouble};

const ID: &str = "proxy";
const DEADLINE: Duration = Duration::from_secs(5);
const ADVICE: &str = "Look at the parameters below umbra.proxy.";

pub(super) async fn check(address: &HostPort, network: &Network) -> Check {
    let (host, port) = (address.host(), address.port());
    let Some(proxy) = network.dialer.proxy.proxy_for(host, port) else {
        let sentence = match network.dialer.proxy.proxy() {
            None => "No proxy is used.".to_owned(),
            Some(proxy) => format!("{address} is excepted from the proxy {}.", proxy.name()),
        };
        return Check::good(ID, sentence);
    };
    match tcp::connect(&proxy.host, proxy.port, network.dialer.names, DEADLINE).await {
        Ok(_) => Check::good(
            ID,
            format!(
                "The proxy {} is used for {address}, and something answers there.",
                proxy.name()
            ),
        ),
        Err(error) => Check::bad(
            ID,
            format!(
                "The proxy {} can't be reached: {}.",
                proxy.name(),
                super::chain(&error)
            ),
            "Check the proxy's address (umbra.proxy.host, umbra.proxy.port), or whether one is needed at all (umbra.proxy.mode).",
        ),
    }
}

/// The parameters make no sense together.
pub(super) fn unusable(trouble: &Trouble) -> Check {
    Check::bad(ID, trouble.sentence.clone(), ADVICE)
}
