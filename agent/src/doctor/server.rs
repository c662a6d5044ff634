//! Whether the server can be reached: TCP, then TLS, then its certificates against the pinned root. Nothing is sent to it.

use std::time::Duration;

use umbra_carrier::address::HostPort;
use umbra_carrier::diagnosis::{self, Expectation};
use umbra_carrier::tls::fetch_chain;
use umbra_carrier::{diagnosis::Finding, tcp};
use umbra_protocol::Fingerprint;

use super::{Check, Patient};
use crate::clock::Clock;
use crate::enrolment::Enrolled;

const ID: &str = "server";
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let Ok(Some(enrolled)) = &patient.enrolled else {
        return vec![Check::skipped(
            ID,
            "Without an enrolment there is no server to look for.",
        )];
    };
    let ways = enrolled.ways(&patient.snapshot().manager);
    if ways.is_empty() {
        return vec![Check::bad(
            ID,
            "The parameters leave no way to the server.",
            "Look at system.remotemanager.connectorranking and system.remotemanager.enable_icg.",
        )];
    }
    let mut checks = Vec::new();
    for way in ways {
        checks.push(check(&way, enrolled, patient.clock).await);
    }
    checks
}

async fn check(way: &HostPort, enrolled: &Enrolled, clock: &Clock) -> Check {
    let stream = match tcp::connect(way.host(), way.port(), DEADLINE).await {
        Ok(stream) => stream,
        Err(error) => {
            return Check::bad(
                ID,
                format!("{way}: {}.", super::chain(&error)),
                "Check the network cable, the address and firewalls between here and there.",
            );
        }
    };
    let chain = match fetch_chain(stream, way.host(), DEADLINE).await {
        Ok(chain) => chain,
        Err(error) => {
            return Check::bad(
                ID,
                format!("{way} answers, but {}.", super::chain(&error)),
                "Something between here and there may answer in the server's place; ask your administrator.",
            );
        }
    };
    let pinned = enrolled.roots().unwrap_or_default();
    let ours = |root: &[u8]| chain.iter().any(|presented| presented.as_ref() == root);
    let mut chain_to_root = chain.clone();
    // A server need not present the root that is pinned here.
    if let ([root], false) = (pinned.as_slice(), pinned.iter().any(|root| ours(root))) {
        chain_to_root.push(root.clone());
    }
    let expected = pinned
        .iter()
        .find(|root| chain_to_root.iter().any(|presented| presented == *root))
        .or(pinned.first());
    let expectation = Expectation {
        host: Some(way.host()),
        root_fingerprint: expected.map(|root| *Fingerprint::of_certificate(root).as_bytes()),
        now: clock.believable(),
    };
    let findings = diagnosis::diagnose(&chain_to_root, &expectation);
    match diagnosis::first_failure(&findings) {
        Some(Finding {
            sentence, advice, ..
        }) => Check::bad(ID, format!("{way}: {sentence}"), advice.clone()),
        None => Check::good(
            ID,
            format!("{way} answers with the certificates that are pinned."),
        ),
    }
}
