//! Why a stage ended the check: the stable word for programs, the sentences for people, and what they mean, so that they can be told
//! in another language. Nothing here falls back to a general word without having been looked at.

use umbra_carrier::address::HostPort;
use umbra_carrier::diagnosis::{Check, Finding};
use umbra_carrier::dial::DialError;
use umbra_carrier::proxy::{Proxy, ProxyError};
use umbra_carrier::tcp::ConnectError;
use umbra_carrier::tls::TlsError;
use umbra_carrier::ws::WsError;
use umbra_protocol::{RefusalCode, Remedy};
use umbra_setup::{Code, Stage};

use super::{CHECK_NETWORK, ReachError};
use crate::link::approach::ApproachError;
use crate::link::trouble::sentence;

/// No TCP connection, to the address or to the proxy.
pub(super) fn of_connection(
    address: &HostPort,
    proxy: Option<&Proxy>,
    error: ConnectError,
) -> ReachError {
    let meaning = of_tcp(&error);
    let error = DialError::Connect(error);
    let (place, said) = match proxy {
        Some(proxy) => {
            let name = proxy.name();
            let said = format!("The proxy {name} can't be reached: {}", sentence(&error));
            (name, said)
        }
        None => (address.to_string(), sentence(&error)),
    };
    let meaning = match proxy {
        Some(_) => Code::ProxyUnreachable,
        None => meaning,
    };
    ReachError::new(
        (Stage::Tcp, error.code()),
        (
            meaning,
            &[
                ("place", &place),
                ("host", address.host()),
                ("proxy", &place),
            ],
        ),
        said,
        CHECK_NETWORK,
    )
}

fn of_tcp(error: &ConnectError) -> Code {
    match error {
        ConnectError::NameNotFound { .. } => Code::NameNotFound,
        ConnectError::Refused { .. } => Code::TcpRefused,
        ConnectError::Unreachable { .. } | ConnectError::Io { .. } => Code::TcpUnreachable,
        ConnectError::TimedOut { .. } => Code::TcpTimeout,
    }
}

/// No way through the proxy.
pub(super) fn of_proxy(error: &ProxyError) -> ReachError {
    let (meaning, name) = of_proxy_error(error);
    ReachError::new(
        (Stage::Proxy, error.code()),
        (meaning, &[("proxy", name), ("place", name)]),
        sentence(error),
        "Ask the administrator of the proxy, and look at the parameters below umbra.proxy.",
    )
}

fn of_proxy_error(error: &ProxyError) -> (Code, &str) {
    match error {
        ProxyError::Unreachable { proxy, .. } => (Code::ProxyUnreachable, proxy),
        ProxyError::CredentialsNeeded { proxy }
        | ProxyError::CredentialsRefused { proxy }
        | ProxyError::CredentialsUnusable { proxy } => (Code::ProxyCredentials, proxy),
        ProxyError::Refused { proxy, .. } => (Code::ProxyRefused, proxy),
        ProxyError::TargetUnreachable { proxy, .. } => (Code::ProxyTargetUnreachable, proxy),
        ProxyError::Garbage { proxy } => (Code::ProxyGarbage, proxy),
        ProxyError::Closed { proxy } | ProxyError::Io { proxy, .. } => (Code::ProxyClosed, proxy),
        ProxyError::TimedOut { proxy } => (Code::ProxyTimeout, proxy),
        ProxyError::BadTarget { target } => (Code::BadAddress, target),
    }
}

/// What was found in the certificates, with what is to be said before it.
pub(super) fn of_finding(
    stage: Stage,
    before: &str,
    address: &HostPort,
    finding: &Finding,
) -> ReachError {
    let mut said = sentence_of(&finding.sentence);
    if let Some(subject) = &finding.subject
        && !said.contains(subject.as_str())
    {
        said = format!("{said} (Certificate: “{subject}”.)");
    }
    let subject = finding.subject.as_deref().unwrap_or("–");
    let values = [("subject", subject), ("host", address.host())];
    ReachError::new(
        (stage, finding.check.id()),
        (of_check(finding.check), &values),
        format!("{before}{said}"),
        &finding.advice,
    )
}

fn of_check(check: Check) -> Code {
    match check {
        Check::ChainLength => Code::ChainLength,
        Check::Readable => Code::ChainUnreadable,
        Check::ChainOrder => Code::ChainOrder,
        Check::ChainComplete => Code::ChainIncomplete,
        Check::Unrelated => Code::ChainUnrelated,
        Check::RootFingerprint => Code::ChainRoot,
        Check::Clock => Code::ChainClock,
        Check::CaFlag => Code::ChainCaFlag,
        Check::KeyUsage => Code::ChainKeyUsage,
        Check::PathLength => Code::ChainPathLength,
        Check::EndCertificate => Code::ChainEnd,
        Check::DistinctNames => Code::ChainNames,
        Check::Version => Code::ChainVersion,
        Check::CriticalExtensions => Code::ChainExtensions,
        Check::Signature => Code::ChainSignature,
        Check::SignatureAlgorithm => Code::ChainAlgorithm,
        Check::PublicKey => Code::ChainKey,
        Check::Validity => Code::ChainValidity,
        Check::Lifetime => Code::ChainLifetime,
        Check::Purpose => Code::ChainPurpose,
        Check::AlternativeNames => Code::ChainNoHost,
        Check::Host => Code::ChainHost,
        Check::NameConstraints => Code::ChainConstraints,
        Check::Verification => Code::ChainRefused,
    }
}

/// Nothing to compare.
pub(super) fn no_root(stage: Stage, address: &HostPort) -> ReachError {
    ReachError::new(
        (stage, "root-not-presented"),
        (Code::NoRoot, &[]),
        format!(
            "No public authority vouches for {address}, and the server does not present its root certificate, so there is no \
             fingerprint to compare."
        ),
        "The administrator has to add the root certificate to the server's certificates.",
    )
}

/// No TLS.
pub(super) fn of_tls(address: &HostPort, error: &TlsError) -> ReachError {
    const COMPARE: &str = "It may be a web server or something else: compare address and port with your administrator.";
    let meaning = of_tls_error(error);
    let (word, said, advice) = if meaning == Code::TlsSilent {
        (
            "silent",
            format!("{address} accepts the connection and then says nothing."),
            "What listens there may be no server or gateway: compare address and port with your administrator. A firewall that holds \
             TLS back looks like that, too.",
        )
    } else if meaning == Code::TlsClosed {
        (
            "closed",
            format!("{address} accepts the connection and closes it as soon as TLS begins."),
            "What listens there may be no server or gateway: compare address and port with your administrator.",
        )
    } else if meaning == Code::NotTls {
        (
            "not_tls",
            format!("What answers at {address} does not speak TLS."),
            COMPARE,
        )
    } else if meaning == Code::WrongService {
        (
            "wrong_service",
            format!("{address}: {}", sentence(error)),
            COMPARE,
        )
    } else {
        (
            "tls",
            format!("{address}: {}", sentence(error)),
            "Something between here and there may answer in the server's place; ask your administrator.",
        )
    };
    let values = [("place", &*address.to_string())];
    ReachError::new((Stage::Tls, word), (meaning, &values), said, advice)
}

fn of_tls_error(error: &TlsError) -> Code {
    match error {
        TlsError::TimedOut => Code::TlsSilent,
        TlsError::Closed => Code::TlsClosed,
        TlsError::NotTls => Code::NotTls,
        TlsError::WrongService | TlsError::ProtocolTooOld | TlsError::NothingInCommon => {
            Code::WrongService
        }
        TlsError::FingerprintMismatch { .. }
        | TlsError::RootNotPresented
        | TlsError::UnknownRoot
        | TlsError::IssuerMissing { .. }
        | TlsError::NotCa { .. }
        | TlsError::MayNotSign { .. }
        | TlsError::PathTooLong
        | TlsError::ChainTooLong { .. }
        | TlsError::EndIsCa { .. }
        | TlsError::IsGateway { .. }
        | TlsError::SignatureWrong
        | TlsError::SignatureNotAccepted
        | TlsError::WrongPurpose { .. }
        | TlsError::CertificateRefused(_)
        | TlsError::CertificateUnreadable
        | TlsError::WrongName { .. }
        | TlsError::Expired { .. }
        | TlsError::NotYetValid { .. }
        | TlsError::KeyNotProven
        | TlsError::PeerRefusedOurCertificate
        | TlsError::PeerWantsCertificate
        | TlsError::NoCertificate
        | TlsError::NotKnown
        | TlsError::PeerRefused { .. }
        | TlsError::BadName { .. }
        | TlsError::RulesBroken(_)
        | TlsError::Io(_) => Code::Tls,
    }
}

/// The gateway leads nowhere.
pub(super) fn of_gateway(address: &HostPort, error: &ApproachError) -> ReachError {
    let place = address.to_string();
    let (word, advice, meaning, name) = match error {
        ApproachError::Dial(DialError::WebSocket(error)) => {
            let advice = match error {
                WsError::Refused { .. } => {
                    "The gateway works and says no for now. Try again in a while, or ask your administrator."
                }
                WsError::NotWebSocket
                | WsError::WrongProtocol
                | WsError::BadRequest { .. }
                | WsError::TooLarge
                | WsError::TimedOut
                | WsError::Closed
                | WsError::Io(_) => {
                    "What answers there may be a web server and no gateway, or something in between lets no WebSocket pass: compare \
                     address and port with your administrator."
                }
            };
            (error.code(), advice, of_web_socket(error), place.as_str())
        }
        ApproachError::Dial(DialError::Connect(inner)) => {
            let word = match error {
                ApproachError::Dial(error) => error.code(),
                ApproachError::Trust(_)
                | ApproachError::Settings(_)
                | ApproachError::Server(_)
                | ApproachError::Closed(_) => "gateway",
            };
            (word, CHECK_NETWORK, of_tcp(inner), place.as_str())
        }
        ApproachError::Dial(DialError::Proxy(error)) => {
            let (meaning, name) = of_proxy_error(error);
            (error.code(), CHECK_NETWORK, meaning, name)
        }
        ApproachError::Dial(DialError::Tls(TlsError::TimedOut)) => {
            ("timeout", CHECK_NETWORK, Code::TlsSilent, place.as_str())
        }
        ApproachError::Dial(DialError::Tls(error)) => {
            if error.concerns_certificates() {
                let meaning = Code::GatewayCertificate;
                ("tls_certificate", CHECK_NETWORK, meaning, place.as_str())
            } else {
                ("tls", CHECK_NETWORK, Code::GatewayTls, place.as_str())
            }
        }
        ApproachError::Settings(trouble) => (
            trouble.code.as_str(),
            "Look at umbra.proxy.ca_file and umbra.icg.bundle_file.",
            Code::Settings,
            place.as_str(),
        ),
        ApproachError::Trust(_) | ApproachError::Server(_) | ApproachError::Closed(_) => (
            "gateway",
            "Ask your administrator about the gateway.",
            Code::GatewayClosed,
            place.as_str(),
        ),
    };
    ReachError::new(
        (Stage::Gateway, word),
        (
            meaning,
            &[("place", &place), ("proxy", name), ("host", address.host())],
        ),
        format!("The gateway {address}: {}", sentence(error)),
        advice,
    )
}

/// What a gateway says no with is a stranger's word: only what passes by itself is
/// taken from it, and nothing that speaks for the server.
pub(crate) fn of_web_socket(error: &WsError) -> Code {
    match error {
        WsError::Refused { code, .. } => {
            let word = code.as_deref().unwrap_or_default();
            let known = RefusalCode::ALL.iter().find(|known| known.as_str() == word);
            match known {
                Some(code) if code.remedy() == Remedy::Retry => Code::Refusal(*code),
                Some(_) | None => Code::GatewayRefused,
            }
        }
        WsError::NotWebSocket
        | WsError::WrongProtocol
        | WsError::BadRequest { .. }
        | WsError::TooLarge => Code::GatewayNone,
        WsError::TimedOut | WsError::Closed => Code::GatewayClosed,
        WsError::Io(_) => Code::GatewayLost,
    }
}

/// The server behind the gateway.
pub(super) fn of_server(address: &HostPort, error: &ApproachError) -> ReachError {
    let (word, meaning, said) = match error {
        ApproachError::Server(TlsError::TimedOut) => (
            "silent",
            Code::ServerSilent,
            format!("The gateway {address} opens a way, but the server behind it says nothing."),
        ),
        ApproachError::Server(_)
        | ApproachError::Dial(_)
        | ApproachError::Trust(_)
        | ApproachError::Settings(_)
        | ApproachError::Closed(_) => (
            "server",
            Code::ServerFailed,
            format!("Behind the gateway {address}: {}", sentence(error)),
        ),
    };
    let values = [("place", &*address.to_string())];
    ReachError::new(
        (Stage::Server, word),
        (meaning, &values),
        said,
        "The gateway works, but its server does not answer. Try again in a while, or ask your administrator.",
    )
}

fn sentence_of(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    let mut text = first.unwrap_or_default() + letters.as_str();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}
