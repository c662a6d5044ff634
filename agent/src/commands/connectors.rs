//! Other ways to the server, as a transaction: the first one must lead to a welcome before any other is given up. Whatever goes
//! wrong before that changes nothing on the device.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use umbra_protocol::Remedy;
use umbra_protocol::enrolment::{Connector, ConnectorKind};

use crate::enrolment::is_allowed;
use crate::link::{LinkHandle, Trouble, Way};
use crate::registry::Manager;

/// How often the first way is tried; a gateway may just be starting.
const ATTEMPTS: u32 = 3;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(3);
/// For all attempts together.
const DEADLINE: Duration = Duration::from_secs(60);

/// Has the device take these ways. The answer is a sentence, for good and for bad.
pub(super) async fn change(
    manager: &Manager,
    connectors: Vec<Connector>,
    link: &LinkHandle,
) -> Result<String, String> {
    let first = check(manager, &connectors)?;
    let names = tokio::time::timeout(DEADLINE, prove(&first, link))
        .await
        .unwrap_or_else(|_| {
            Err(Trouble::passing(
                "timed_out",
                "The server did not answer there in time.",
            ))
        })
        .map_err(|trouble| {
            format!(
                "The device stays as it is: it can't go {}: {trouble}",
                first.described()
            )
        })?;
    link.adopt(connectors, names).await.map_err(|sentence| {
        format!("The device stays as it is: its new ways could not be written down: {sentence}")
    })?;
    Ok(format!(
        "The device goes {} from now on.",
        first.described()
    ))
}

fn check(manager: &Manager, connectors: &[Connector]) -> Result<Way, String> {
    for connector in connectors {
        if Way::of(connector).is_none() {
            return Err(format!(
                "The device stays as it is: “{}” is neither a host name nor an address.",
                connector.address
            ));
        }
        let unreadable = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).is_err();
        if connector.roots.iter().any(unreadable) {
            return Err(format!(
                "The device stays as it is: a certificate for {} can't be read.",
                connector.address
            ));
        }
    }
    let first = connectors
        .first()
        .and_then(Way::of)
        .ok_or("The device stays as it is: no way to the server was named.")?;
    if !is_allowed(manager, first.kind) {
        let why = match first.kind {
            ConnectorKind::Icg => {
                "gateways are switched off (system.remotemanager.enable_icg or connectorranking)"
            }
            ConnectorKind::Ums => {
                "only gateways are allowed (system.remotemanager.connectorranking)"
            }
        };
        return Err(format!(
            "The device stays as it is: its parameters say that {why}."
        ));
    }
    Ok(first)
}

async fn prove(way: &Way, link: &LinkHandle) -> Result<Vec<String>, Trouble> {
    let mut attempt = 1;
    loop {
        match link.prove(way.clone()).await {
            Err(trouble) if attempt < ATTEMPTS && trouble.remedy == Remedy::Retry => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
