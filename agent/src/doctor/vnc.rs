//! Whether there is a VNC server behind the agent: connects to it, or starts it, and waits for its greeting.

use std::time::Duration;

use tokio::time::Instant;

use super::{Check, Patient};

const ID: &str = "vnc-server";
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn check(patient: &Patient<'_>) -> Check {
    if let Some(check) = patient.out_of_sight(ID) {
        return check;
    }
    let snapshot = patient.snapshot();
    if !snapshot.vnc.enabled {
        return Check::skipped(
            ID,
            "Shadowing is switched off (network.vncserver.enabled), so no VNC server is needed.",
        );
    }
    let advice =
        "Check umbra.vncserver.upstream, umbra.vncserver.command and umbra.vncserver.environment.";
    let connected = match snapshot.vnc.vnc_server() {
        Ok(server) => server.connect(Instant::now() + DEADLINE).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(server) => {
            server.close().await;
            Check::good(ID, "The VNC server answers with its greeting.")
        }
        Err(error) => Check::bad(ID, super::chain(&error), advice),
    }
}
