//! Whether shadowing is accepted on its port, or could be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Check, Patient};

const ID: &str = "shadowing-port";
const DEADLINE: Duration = Duration::from_secs(3);

pub(super) async fn check(patient: &Patient<'_>) -> Check {
    if let Some(check) = patient.out_of_sight(ID) {
        return check;
    }
    let snapshot = patient.snapshot();
    if !snapshot.vnc.enabled {
        return Check::skipped(ID, "Shadowing is switched off (network.vncserver.enabled).");
    }
    let address = snapshot
        .vnc
        .listen
        .first()
        .copied()
        .unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    if let Some(port) = patient
        .status
        .as_ref()
        .and_then(|status| status.shadow_port)
    {
        let answered = timeout(
            DEADLINE,
            TcpStream::connect(SocketAddr::new(loopback(address), port)),
        )
        .await;
        return match answered {
            Ok(Ok(_)) if snapshot.vnc.tls12 => Check::warning(
                ID,
                format!(
                    "Shadowing is accepted on port {port}, also from consoles that know TLS 1.2 only (umbra.vncserver.tls12 is on)."
                ),
                "Switch it off once all of yours know TLS 1.3.",
            ),
            Ok(Ok(_)) => Check::good(ID, format!("Shadowing is accepted on port {port}.")),
            Ok(Err(_)) | Err(_) => Check::bad(
                ID,
                format!(
                    "The agent says that it accepts shadowing on port {port}, but nobody answers there."
                ),
                "A firewall on this device may be in the way.",
            ),
        };
    }
    let port = snapshot.vnc.port;
    match TcpListener::bind(SocketAddr::new(address, port)).await {
        Ok(_) => Check::warning(
            ID,
            format!("Port {port} is free, but the agent does not accept shadowing at the moment."),
            "It does so once it runs and a server has taken this device on.",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::bad(
            ID,
            format!("Another program has port {port}."),
            "Stop that VNC server, or let it listen on a loopback port of its own and set umbra.vncserver.upstream.",
        ),
        Err(error) => Check::bad(
            ID,
            format!("Port {port} can't be listened on: {error}."),
            "Check network.vncserver.port and umbra.vncserver.listen.",
        ),
    }
}

/// Where an address of our own is reached from this machine.
fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}
