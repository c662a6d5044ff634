//! Whether a server can be reached, step by step and told as it happens, before there is any trust: nothing of the device is
//! sent, no certificate of its own and no key. What it finds out is for people to compare, and for nobody to believe.

pub(crate) mod failure;

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::timeout;
use umbra_carrier::address::HostPort;
use umbra_carrier::alpn;
use umbra_carrier::diagnosis::{self, Check, Expectation, Finding, Verdict};
use umbra_carrier::io::{BoxIo, boxed};
use umbra_carrier::proxy;
use umbra_carrier::tcp;
use umbra_carrier::tls::{
    DatePolicy, HostKind, ServerTrust, TlsError, device_config, probe_kind, vouched_for,
};
use umbra_carrier::x509::CertificateFacts;
use umbra_protocol::Fingerprint;
use umbra_protocol::credentials::shown_host;
use umbra_protocol::enrolment::ConnectorKind;
pub use umbra_setup::Stage;
use umbra_setup::{Code, Report};

use crate::clock::{Clock, date};
use crate::link::approach::ApproachError;
use crate::link::{Approach, Network, Way};

/// How long each stage has.
const DEADLINE: Duration = Duration::from_secs(10);
const CHECK_NETWORK: &str =
    "Check the network cable, the address and firewalls between here and there.";
const SET_CLOCK: &str = "Set the clock, or let a time server do it.";

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageState {
    /// It has begun.
    Running,
    /// All is well.
    Good,
    /// It does not apply.
    Skipped,
    /// It works in spite of something.
    Warning,
    /// It ends here.
    Failed,
}

/// What is told of a stage: once when it begins, and once when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// Which.
    pub stage: Stage,
    /// How far.
    pub state: StageState,
    /// What happens or happened, for people.
    pub sentence: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
    /// Both, with what they mean where that needs to be told in other languages.
    pub report: Report,
}

/// What answers at an address.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Where.
    pub address: HostPort,
    /// The server itself, or a gateway that leads to it.
    pub kind: ConnectorKind,
    /// SHA-256 of the root certificate that the server presents; nothing if it presents none. This is what a person compares.
    pub root_fingerprint: Option<Fingerprint>,
    /// The public authority that vouches for the address. Then no fingerprint need be compared: the first-authentication key proves
    /// the rest.
    pub public_ca: Option<String>,
    /// The server's certificates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Everything that was looked at in the certificates.
    pub findings: Vec<Finding>,
}

/// Why the server was not reached. The last report said the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ReachError {
    /// Where it ended.
    pub stage: Stage,
    /// Stable code.
    pub code: String,
    /// What happened, for people.
    pub sentence: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
    /// Both, and what they mean.
    pub report: Report,
}

/// Looks at what answers at `address`. Every stage is told to `stages`, in two reports at most; nobody need listen. Each stage has
/// a deadline, so it ends whatever the other side does; dropping the future ends it at once.
///
/// # Errors
/// [`ReachError`], with the stage at which it ended.
pub async fn check(
    address: &HostPort,
    network: &Network,
    clock: &Clock,
    stages: &mpsc::UnboundedSender<StageReport>,
) -> Result<Reached, ReachError> {
    check_within(address, network, clock, stages, DEADLINE).await
}

async fn check_within(
    address: &HostPort,
    network: &Network,
    clock: &Clock,
    stages: &mpsc::UnboundedSender<StageReport>,
    deadline: Duration,
) -> Result<Reached, ReachError> {
    let mut told = Told { stages, deadline };
    let stream = way_out(address, network, &mut told).await?;
    told.begin(Stage::Tls, format!("Setting up TLS with {address} …"));
    let (kind, chain) = match probe_kind(stream, address.host(), deadline).await {
        Ok(looked) => looked,
        Err(error) => return Err(told.failed(failure::of_tls(address, &error))),
    };
    told.good(Stage::Tls, format!("{address} speaks TLS 1.3."));
    told.begin(Stage::Chain, "Looking at the certificates …".to_owned());
    let judged = match judge(&chain, address, network, clock) {
        Ok(judged) => judged,
        Err(error) => return Err(told.failed(error)),
    };
    told.say(judged.report.clone());
    match kind {
        HostKind::Link => {
            let sentence = "No gateway is in between: the server itself answers.".to_owned();
            told.skipped(Stage::Gateway, sentence);
            told.begin(Stage::Server, "Looking for the server …".to_owned());
            told.good(Stage::Server, format!("A server answers at {address}."));
            Ok(Reached {
                address: address.clone(),
                kind: ConnectorKind::Ums,
                root_fingerprint: root_of(&chain),
                public_ca: judged.public_ca,
                chain,
                findings: judged.findings,
            })
        }
        HostKind::Http => {
            let envelope = root_of(&chain);
            through_gateway(
                address,
                network,
                clock,
                judged.public_ca,
                envelope,
                &mut told,
            )
            .await
        }
    }
}

/// From the gateway to the server behind it.
async fn through_gateway(
    address: &HostPort,
    network: &Network,
    clock: &Clock,
    public_ca: Option<String>,
    envelope: Option<Fingerprint>,
    told: &mut Told<'_>,
) -> Result<Reached, ReachError> {
    told.begin(
        Stage::Gateway,
        format!("Asking the gateway {address} for a way to its server …"),
    );
    let way = Way {
        kind: ConnectorKind::Icg,
        address: address.clone(),
        roots: Vec::new(),
    };
    let tls = device_config(
        None,
        ServerTrust::Unproven,
        DatePolicy::Ignore,
        alpn::CONTROL_LINK,
    );
    let tls = tls.expect("nothing is pinned that could be unfit");
    let approach = Approach {
        network: network.clone(),
        tls,
        // The gateway was looked at above; what it passes on is not believed anyway.
        trust: ServerTrust::Unproven,
        dates: DatePolicy::Ignore,
        server: None,
        label: String::new(),
        names: Vec::new(),
    };
    let carrier = match approach.carrier(&way, told.deadline).await {
        Ok(carrier) => carrier,
        Err(error) => return Err(told.failed(failure::of_gateway(address, &error))),
    };
    told.good(
        Stage::Gateway,
        format!("The gateway {address} lets this device through."),
    );
    told.begin(
        Stage::Server,
        "Looking for the server behind the gateway …".to_owned(),
    );
    let looked = Approach::look(carrier, address.host(), told.deadline).await;
    let chain = match looked {
        Ok((HostKind::Link, chain)) => chain,
        Ok((HostKind::Http, _)) => {
            let error = ApproachError::Server(TlsError::WrongService);
            return Err(told.failed(failure::of_server(address, &error)));
        }
        Err(error) => return Err(told.failed(failure::of_server(address, &error))),
    };
    let findings = diagnosis::diagnose(
        &chain,
        &Expectation {
            host: None,
            root_fingerprint: None,
            now: clock.believable(),
        },
    );
    if let Some(finding) = diagnosis::first_failure(&findings) {
        let before = format!("The server behind the gateway {address}: ");
        let error = failure::of_finding(Stage::Server, &before, address, finding);
        return Err(told.failed(error));
    }
    let root = root_of(&chain);
    match (&public_ca, root) {
        (None, None) => {
            return Err(told.failed(failure::no_root(Stage::Server, address)));
        }
        (None, Some(root)) if envelope != Some(root) => {
            let sentence = format!(
                "A server answers behind the gateway {address}, but the gateway's certificate comes from another root than the \
                 server's: something on the way may open TLS."
            );
            let advice = "If that is meant to be so, umbra.proxy.ca_file has to name a file with that root certificate. What device \
                          and server say to each other stays closed to it.";
            let place = address.to_string();
            told.say(StageReport {
                stage: Stage::Server,
                state: StageState::Warning,
                report: Report::new(
                    Code::GatewayOtherRoot,
                    &[("place", &place)],
                    joined(&sentence, advice),
                ),
                sentence,
                advice: advice.to_owned(),
            });
        }
        (Some(_), _) | (None, Some(_)) => {
            told.good(
                Stage::Server,
                format!("A server answers behind the gateway {address}."),
            );
        }
    }
    Ok(Reached {
        address: address.clone(),
        kind: ConnectorKind::Icg,
        root_fingerprint: root,
        public_ca,
        chain,
        findings,
    })
}

/// Name, TCP and proxy. With a proxy, the name and the connection are the proxy's, and the server's name is the proxy's business.
async fn way_out(
    address: &HostPort,
    network: &Network,
    told: &mut Told<'_>,
) -> Result<BoxIo, ReachError> {
    let proxy = network
        .dialer
        .proxy
        .proxy_for(address.host(), address.port());
    let (host, port) = proxy.map_or((address.host(), address.port()), |proxy| {
        (proxy.host.as_str(), proxy.port)
    });
    let whose = if proxy.is_some() { "the proxy " } else { "" };
    if host.contains(':') || host.parse::<IpAddr>().is_ok() {
        let behind = match proxy {
            Some(_) => format!(
                "The proxy {host} is named by its address; it looks up {} by itself.",
                address.host()
            ),
            None => format!("{host} is an address: no name has to be looked up."),
        };
        told.skipped(Stage::Name, behind);
    } else {
        told.begin(Stage::Name, format!("Looking up {whose}{host} …"));
        let found = timeout(told.deadline, network.dialer.names.addresses(host, port)).await;
        let first = match found {
            Ok(Ok(addresses)) => addresses.first().copied(),
            Ok(Err(_)) => None,
            Err(_) => {
                let error = ReachError::new(
                    (Stage::Name, "timeout"),
                    (Code::NameTimeout, &[("host", &shown_host(host))]),
                    format!("DNS did not say in time where {whose}{host} is."),
                    CHECK_NETWORK,
                );
                return Err(told.failed(error));
            }
        };
        let Some(first) = first else {
            let error = ReachError::new(
                (Stage::Name, "name_not_found"),
                (Code::NameNotFound, &[("host", &shown_host(host))]),
                format!("DNS knows no {whose}{}.", shown_host(host)),
                "Compare the name with your administrator, letter by letter, and check the network.",
            );
            return Err(told.failed(error));
        };
        let behind = match proxy {
            Some(_) => format!(" The proxy looks up {} by itself.", address.host()),
            None => String::new(),
        };
        let sentence = format!(
            "{}{host} is {}.{behind}",
            if proxy.is_some() { "The proxy " } else { "" },
            first.ip()
        );
        told.good(Stage::Name, sentence);
    }
    told.begin(
        Stage::Tcp,
        format!("Connecting to {whose}{host}, port {port} …"),
    );
    let stream = match tcp::connect(host, port, network.dialer.names, told.deadline).await {
        Ok(stream) => stream,
        Err(error) => {
            let error = failure::of_connection(address, proxy, error);
            return Err(told.failed(error));
        }
    };
    let sentence_of_tcp = match proxy {
        Some(proxy) => format!("The proxy {} accepts the connection.", proxy.name()),
        None => format!("{address} accepts the connection."),
    };
    told.good(Stage::Tcp, sentence_of_tcp);
    let Some(proxy) = proxy else {
        told.skipped(Stage::Proxy, "No proxy is used.".to_owned());
        return Ok(boxed(stream));
    };
    told.begin(
        Stage::Proxy,
        format!("Asking the proxy {} for a way to {address} …", proxy.name()),
    );
    match proxy::through(stream, proxy, address.host(), address.port(), told.deadline).await {
        Ok(tunnel) => {
            let sentence = format!("The proxy {} opens a way to {address}.", proxy.name());
            told.good(Stage::Proxy, sentence);
            Ok(boxed(tunnel))
        }
        Err(error) => {
            let error = failure::of_proxy(&error);
            Err(told.failed(error))
        }
    }
}

/// What the certificates say.
struct Judged {
    public_ca: Option<String>,
    findings: Vec<Finding>,
    report: StageReport,
}

fn judge(
    chain: &[CertificateDer<'static>],
    address: &HostPort,
    network: &Network,
    clock: &Clock,
) -> Result<Judged, ReachError> {
    let now = clock.believable();
    let dates = match now {
        Some(_) => DatePolicy::Enforce,
        None => DatePolicy::Ignore,
    };
    let findings = diagnosis::diagnose(
        chain,
        &Expectation {
            host: Some(address.host()),
            root_fingerprint: None,
            now,
        },
    );
    let roots = network.public_roots().map_err(|trouble| {
        ReachError::new(
            (Stage::Chain, &trouble.code),
            (Code::BundleFile, &[]),
            trouble.sentence,
            "Look at umbra.icg.bundle_file.",
        )
    })?;
    let vouched = vouched_for(chain, &roots, address.host(), dates, now.unwrap_or(0));
    let (state, advice) = match now {
        Some(_) => (StageState::Good, String::new()),
        None => (StageState::Warning, SET_CLOCK.to_owned()),
    };
    let but = match now {
        Some(_) => String::new(),
        None => format!(
            " But this device's clock says {}, which can't be right, so nobody looked at their dates.",
            date(clock.now())
        ),
    };
    let report = |sentence: String| {
        let sentence = format!("{sentence}{but}");
        let both = joined(&sentence, &advice);
        let report = match now {
            Some(_) => Report::from(both),
            None => Report::new(Code::ClockDoubtful, &[("date", &date(clock.now()))], both),
        };
        StageReport {
            stage: Stage::Chain,
            state,
            sentence,
            advice: advice.clone(),
            report,
        }
    };
    match vouched {
        Ok(public_ca) => Ok(Judged {
            report: report(format!(
                "The public certification authority “{public_ca}” vouches for {}.",
                address.host()
            )),
            public_ca: Some(public_ca),
            findings,
        }),
        Err(_) => {
            // A clock that is wrong by years makes every good certificate look bad: that comes first.
            let clock = findings
                .iter()
                .find(|finding| finding.check == Check::Clock && finding.verdict == Verdict::Fail);
            if let Some(finding) = clock.or(diagnosis::first_failure(&findings)) {
                return Err(failure::of_finding(Stage::Chain, "", address, finding));
            }
            if root_of(chain).is_none() {
                return Err(failure::no_root(Stage::Chain, address));
            }
            Ok(Judged {
                report: report(
                    "The certificates are in order. They come from a private authority.".to_owned(),
                ),
                public_ca: None,
                findings,
            })
        }
    }
}

/// The fingerprint of the root that is presented.
fn root_of(chain: &[CertificateDer<'static>]) -> Option<Fingerprint> {
    chain
        .iter()
        .rev()
        .find(|certificate| {
            CertificateFacts::read(certificate)
                .is_ok_and(|facts| facts.self_signed && facts.is_ca == Some(true))
        })
        .map(|root| Fingerprint::of_certificate(root))
}

impl ReachError {
    /// An error at a stage with a stable word, what it means, and how it is said.
    fn new(
        (stage, word): (Stage, &str),
        (code, values): (Code, &[(&'static str, &str)]),
        sentence: String,
        advice: &str,
    ) -> Self {
        Self {
            stage,
            code: word.to_owned(),
            report: Report::new(code, values, joined(&sentence, advice)),
            sentence,
            advice: advice.to_owned(),
        }
    }
}

fn joined(sentence: &str, advice: &str) -> String {
    match advice {
        "" => sentence.to_owned(),
        advice => format!("{sentence} {advice}"),
    }
}

/// Tells the stages to whoever listens.
struct Told<'a> {
    stages: &'a mpsc::UnboundedSender<StageReport>,
    /// How long each stage has.
    deadline: Duration,
}

impl Told<'_> {
    fn say(&mut self, report: StageReport) {
        // Nobody need listen.
        let _ = self.stages.send(report);
    }

    fn begin(&mut self, stage: Stage, sentence: String) {
        self.plain(stage, StageState::Running, sentence);
    }

    fn good(&mut self, stage: Stage, sentence: String) {
        self.plain(stage, StageState::Good, sentence);
    }

    fn skipped(&mut self, stage: Stage, sentence: String) {
        self.plain(stage, StageState::Skipped, sentence);
    }

    fn plain(&mut self, stage: Stage, state: StageState, sentence: String) {
        let advice = String::new();
        self.say(StageReport {
            stage,
            state,
            report: Report::from(sentence.as_str()),
            sentence,
            advice,
        });
    }

    fn failed(&mut self, error: ReachError) -> ReachError {
        self.say(StageReport {
            stage: error.stage,
            state: StageState::Failed,
            sentence: error.sentence.clone(),
            advice: error.advice.clone(),
            report: error.report.clone(),
        });
        error
    }
}

#[cfg(test)]
mod tests;
