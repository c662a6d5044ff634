//! A server's certificates, check by check. Nothing is sent to the server, and nothing that is found makes it trusted.

use std::time::Duration;

use umbra_carrier::address::HostPort;
use umbra_carrier::diagnosis::{self, Expectation, Finding};
use umbra_carrier::tls::fetch_chain;
use umbra_protocol::Fingerprint;

use super::server::not_reached;
use super::{Check, Verdict};
use crate::clock::Clock;
use crate::link::Network;

const ID: &str = "server";
const DEADLINE: Duration = Duration::from_secs(10);

/// What answers at an address, and its whole chain.
pub(super) async fn look(
    address: &HostPort,
    root: Option<Fingerprint>,
    network: &Network,
    clock: &Clock,
) -> Vec<Check> {
    let (host, port) = (address.host(), address.port());
    let place = match network.proxy_name(host, port) {
        Some(proxy) => format!("{address} (by the proxy {proxy})"),
        None => address.to_string(),
    };
    let stream = match network.dialer.tcp(host, port, DEADLINE).await {
        Ok(stream) => stream,
        Err(error) => return vec![not_reached(ID, &place, &error).at(address)],
    };
    let chain = match fetch_chain(stream, host, DEADLINE).await {
        Ok(chain) => chain,
        Err(error) => {
            let check = Check::bad(
                ID,
                format!("{place} answers, but {}.", super::chain(&error)),
                "Compare address and port with your administrator; another service may answer there.",
            );
            return vec![check.at(address)];
        }
    };
    let expectation = Expectation {
        host: Some(host),
        root_fingerprint: root.map(|root| *root.as_bytes()),
        now: clock.believable(),
    };
    let findings = diagnosis::diagnose(&chain, &expectation);
    let mut checks = vec![summary(ID, &place, &findings).at(address)];
    if root.is_none() && diagnosis::first_failure(&findings).is_none() {
        checks[0].sentence.push_str(
            " Whether it is the right one only its root's fingerprint says (--fingerprint).",
        );
    }
    checks.extend(listed(&findings, address));
    checks
}

/// The one sentence about a chain.
pub(super) fn summary(id: &str, place: &str, findings: &[Finding]) -> Check {
    match diagnosis::first_failure(findings) {
        Some(Finding {
            sentence, advice, ..
        }) => Check::bad(id, format!("{place}: {sentence}."), advice.clone()),
        None => Check::good(
            id,
            format!("{place} answers with certificates that are in order."),
        ),
    }
}

/// All findings, each as a check of its own: `chain.` and the diagnosis' own word.
pub(super) fn listed(findings: &[Finding], address: &HostPort) -> Vec<Check> {
    findings
        .iter()
        .map(|finding| {
            let verdict = match finding.verdict {
                diagnosis::Verdict::Pass => Verdict::Good,
                diagnosis::Verdict::Warn => Verdict::Warning,
                diagnosis::Verdict::Fail => Verdict::Bad,
            };
            let sentence = format!("{}.", finding.sentence.trim_end_matches('.'));
            Check {
                advice: (!finding.advice.is_empty()).then(|| finding.advice.clone()),
                certificate: finding.certificate.map(|index| index + 1),
                subject: finding.subject.clone(),
                field: (!finding.field.is_empty()).then(|| finding.field.to_owned()),
                ..Check::new(&format!("chain.{}", finding.check.id()), verdict, sentence)
            }
            .at(address)
        })
        .collect()
}
