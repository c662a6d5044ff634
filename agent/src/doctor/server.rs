//! Whether the server can be reached, on each way: through the proxy if there is one, to the server itself or to a gateway and
//! through it, then its certificates against the pinned root. Nothing is sent to it.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use umbra_carrier::address::HostPort;
use umbra_carrier::alpn;
use umbra_carrier::diagnosis::{self, Expectation};
use umbra_carrier::dial::DialError;
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::proxy::ProxyError;
use umbra_carrier::tls::{DatePolicy, ServerTrust, TlsError, device_config, fetch_chain};
use umbra_carrier::ws::WsError;
use umbra_protocol::enrolment::ConnectorKind;
use umbra_protocol::ids::ServerRoot;

use super::{Check, Patient, Verdict, chain, dns, proxy};
use crate::enrolment::Enrolled;
use crate::link::approach::ApproachError;
use crate::link::{Approach, Network, Way};

const ID: &str = "server";
const GATEWAY: &str = "gateway";
const DEADLINE: Duration = Duration::from_secs(10);
const NETWORK: &str = "Check the network cable, the address and firewalls between here and there.";

pub(super) async fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let Ok(Some(enrolled)) = &patient.enrolled else {
        return vec![Check::skipped(
            ID,
            "Without an enrolment there is no server to look for.",
        )];
    };
    let snapshot = patient.snapshot();
    let ways = enrolled.ways(&snapshot.manager).list;
    if ways.is_empty() {
        return vec![Check::bad(
            ID,
            "The parameters leave no way to the server.",
            "Look at system.remotemanager.connectorranking and system.remotemanager.enable_icg.",
        )];
    }
    let network = match Network::new(&snapshot.network) {
        Ok(network) => network,
        Err(trouble) => {
            return vec![proxy::unusable(&trouble)];
        }
    };
    let mut checks = Vec::new();
    for way in &ways {
        let by = network
            .proxy_name(way.address.host(), way.address.port())
            .map_or(String::new(), |proxy| format!(" (by the proxy {proxy})"));
        let place = format!("{}{by}", way.address);
        checks.push(dns::check(&way.address, &network).await.at(&way.address));
        checks.push(proxy::check(&way.address, &network).await.at(&way.address));
        checks.extend(match way.kind {
            ConnectorKind::Ums => direct(way, &place, enrolled, patient, &network).await,
            ConnectorKind::Icg => through(way, &place, enrolled, patient, &network).await,
        });
    }
    checks
}

async fn direct(
    way: &Way,
    place: &str,
    enrolled: &Enrolled,
    patient: &Patient<'_>,
    network: &Network,
) -> Vec<Check> {
    let (host, port) = (way.address.host(), way.address.port());
    let stream = match network.dialer.tcp(host, port, DEADLINE).await {
        Ok(stream) => stream,
        Err(error) => return vec![not_reached(ID, place, &error).at(&way.address)],
    };
    look(ID, stream, (host, &way.address), place, enrolled, patient).await
}

async fn through(
    way: &Way,
    place: &str,
    enrolled: &Enrolled,
    patient: &Patient<'_>,
    network: &Network,
) -> Vec<Check> {
    let bad = |sentence: String, advice: &str| {
        vec![Check::bad(GATEWAY, sentence, advice).at(&way.address)]
    };
    let names = enrolled.names(&patient.snapshot().manager);
    let approach = match approach(enrolled, patient, network, names.clone()) {
        Some(approach) => approach,
        None => {
            return bad(
                "The pinned root certificates can't be used.".to_owned(),
                "Enrol the device again.",
            );
        }
    };
    let carrier = match approach.carrier(way, DEADLINE).await {
        Ok(carrier) => carrier,
        Err(ApproachError::Dial(error)) => {
            return vec![not_reached(GATEWAY, place, &error).at(&way.address)];
        }
        Err(
            error @ (ApproachError::Trust(_)
            | ApproachError::Settings(_)
            | ApproachError::Server(_)
            | ApproachError::Closed(_)),
        ) => {
            return bad(
                format!("{place}: {}.", super::chain(&error).trim_end_matches('.')),
                "Look at umbra.proxy.ca_file and umbra.icg.bundle_file, or ask your administrator.",
            );
        }
    };
    let name = names.first().map_or(way.address.host(), String::as_str);
    let place = format!("the gateway {place} lets the device through; the server behind it");
    let about = (name, &way.address);
    look(GATEWAY, boxed(carrier), about, &place, enrolled, patient).await
}

fn approach(
    enrolled: &Enrolled,
    patient: &Patient<'_>,
    network: &Network,
    names: Vec<String>,
) -> Option<Approach> {
    let roots = enrolled.roots().ok()?;
    let server = ServerRoot::of_certificate(roots.first()?);
    let trust = ServerTrust::PinnedRoots(roots);
    let dates = if patient.clock.believable().is_some() {
        DatePolicy::Enforce
    } else {
        DatePolicy::Ignore
    };
    Some(Approach {
        network: network.clone(),
        // The device's own certificate stays here: the check goes no further than the server's.
        tls: device_config(None, trust.clone(), dates, alpn::CONTROL_LINK).ok()?,
        trust,
        dates,
        server: Some(server),
        label: "doctor".to_owned(),
        names,
    })
}

pub(super) fn not_reached(id: &str, place: &str, error: &DialError) -> Check {
    let advice = match error {
        DialError::Connect(_) => NETWORK,
        DialError::Proxy(ProxyError::Unreachable { .. }) => {
            "Check the proxy's address (umbra.proxy.host, umbra.proxy.port)."
        }
        DialError::Proxy(_) => {
            "Ask the administrator of the proxy, and look at the parameters below umbra.proxy."
        }
        DialError::Tls(TlsError::WrongService) | DialError::WebSocket(WsError::NotWebSocket) => {
            "What answers there may be no gateway: compare address and port with your administrator."
        }
        DialError::Tls(_) => {
            "If a proxy opens TLS on purpose, name its root certificates in umbra.proxy.ca_file; public ones in \
             umbra.icg.bundle_file."
        }
        DialError::WebSocket(_) => {
            "The gateway works and says no for now; the agent tries again by itself."
        }
    };
    Check::bad(
        id,
        format!("{place}: {}.", super::chain(error).trim_end_matches('.')),
        advice,
    )
}

/// Whether the certificates that the server presents come from a root that is pinned, and everything else about them.
async fn look(
    id: &str,
    stream: BoxIo,
    (name, address): (&str, &HostPort),
    place: &str,
    enrolled: &Enrolled,
    patient: &Patient<'_>,
) -> Vec<Check> {
    let chain: Vec<CertificateDer<'static>> = match fetch_chain(stream, name, DEADLINE).await {
        Ok(chain) => chain,
        Err(error) => {
            let check = Check::bad(
                id,
                format!("{place} answers, but {}.", super::chain(&error)),
                "Something between here and there may answer in the server's place; ask your administrator.",
            );
            return vec![check.at(address)];
        }
    };
    let pinned = enrolled.roots().unwrap_or_default();
    let expectation = Expectation {
        host: Some(name),
        root_fingerprint: None,
        now: patient.clock.believable(),
    };
    let findings = diagnosis::diagnose_with_roots(&chain, &pinned, &expectation);
    let mut summary = chain::summary(id, place, &findings);
    if summary.verdict == Verdict::Good {
        summary.sentence = format!("{place} answers with the certificates that are pinned.");
    }
    let mut checks = vec![summary.at(address)];
    checks.extend(chain::listed(&findings, address));
    checks
}
