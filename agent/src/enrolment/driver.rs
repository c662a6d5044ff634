//! Enrolment over the network: TCP, TLS to the root that a person vouched for, proofs, and the result on the disk. Neither the
//! device's certificate nor anything made from the key leaves before the server's root has the full fingerprint.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use umbra_carrier::address::HostPort;
use umbra_carrier::alpn;
use umbra_carrier::dial::DialError;
use umbra_carrier::framed::{FrameError, FrameReader, FrameWriter};
use umbra_carrier::tls::{
    self, DatePolicy, HostKind, PublicRoots, ServerTrust, TlsError, TlsIdentity, TrustError,
    device_config, probe_kind,
};
use umbra_protocol::enrolment::ConnectorKind;
use umbra_protocol::fingerprint::FingerprintError;
use umbra_protocol::first_auth::{EXPORTER_LABEL, FirstAuthKey};
use umbra_protocol::hello::Hello;
use umbra_protocol::ids::ServerRoot;
use umbra_protocol::{
    DecodeError, DeviceId, Fingerprint, FromDevice, FromServer, RefusalCode, Remedy, decode,
    encode, limits,
};

use super::machine::{Candidate, ConversationError, ExpectChallenge};
use super::{Enrolled, EnrolmentError};
use crate::control::TrustGiven;
use crate::files::Files;
use crate::link::approach::{ApproachError, Stream, comes_from_elsewhere, names_of};
use crate::link::trouble::sentence;
use crate::link::{Approach, Network, Trouble, Way};
use crate::paths::Paths;

/// How long it may take to find out what answers there.
const LOOK: Duration = Duration::from_secs(5);

/// What a person gives.
#[derive(Clone, Debug)]
pub struct EnrolRequest {
    /// Where the server is.
    pub address: HostPort,
    /// What makes it trustworthy.
    pub trust: Trust,
    /// The first-authentication key.
    pub key: FirstAuthKey,
}

/// What makes a server trustworthy before it has proven that it knows the first-authentication key. That proof is asked for in
/// any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// SHA-256 of its root certificate, in full.
    Fingerprint(Fingerprint),
    /// A public certification authority vouches for the address.
    PublicCa,
}

impl Trust {
    /// Reads what was given.
    ///
    /// # Errors
    /// What is wrong with the fingerprint.
    pub fn of(given: &TrustGiven) -> Result<Self, FingerprintError> {
        match given {
            TrustGiven::Fingerprint(text) => text.parse().map(Self::Fingerprint),
            TrustGiven::PublicCa => Ok(Self::PublicCa),
        }
    }

    /// As it is said to the running agent.
    pub fn given(&self) -> TrustGiven {
        match self {
            Self::Fingerprint(fingerprint) => TrustGiven::Fingerprint(fingerprint.to_string()),
            Self::PublicCa => TrustGiven::PublicCa,
        }
    }
}

/// What the device brings.
#[derive(Debug)]
pub struct Applicant<'a> {
    /// Certificate and key.
    pub identity: &'a TlsIdentity,
    /// The device's ID.
    pub device_id: DeviceId,
    /// What it says first, with the intent to enrol.
    pub hello: Hello,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The way out of the device's network.
    pub network: Network,
    /// Whether this device's clock can judge certificates.
    pub dates: DatePolicy,
    /// Whether a public authority's word is not enough on this device.
    pub require_fingerprint: bool,
}

/// How far it is, for the person who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The server is being connected to.
    Connecting,
    /// The server's root has the fingerprint; the key is being proven.
    Proving,
    /// The server has taken the device on; this is being written down.
    Storing,
}

/// Why the device was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No connection.
    #[error("the server {address} could not be reached")]
    Connect {
        /// Where it was looked for.
        address: HostPort,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The parameters of the way out make no sense.
    #[error("{}", .0.sentence)]
    Network(Trouble),
    /// A gateway is there, but it does not lead to the server.
    #[error("the gateway {address} does not lead to the server")]
    Gateway {
        /// Where it is.
        address: HostPort,
        /// Why.
        #[source]
        source: ApproachError,
    },
    /// No TLS, or not with this server.
    #[error("{}", tls_clause(.address, .source))]
    Tls {
        /// Where it was looked for.
        address: HostPort,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// No public authority vouches for what answers.
    #[error("no public certification authority vouches for {address}")]
    NotPublic {
        /// Where it was looked for.
        address: HostPort,
        /// Why not.
        #[source]
        source: TlsError,
    },
    /// A fingerprint has to be given on this device, and none was.
    #[error(
        "this device takes no server on the word of a public certification authority: the fingerprint of its root certificate \
         has to be given"
    )]
    FingerprintRequired,
    /// The server's roots are not those that its own certificate comes from.
    #[error("the server named root certificates that its own certificate does not come from")]
    OtherRoots(#[source] TlsError),
    /// The server took too long.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection to the server broke before the device was taken on")]
    Lost(#[source] FrameError),
    /// The server closed.
    #[error("the server closed the connection before the device was taken on")]
    Closed,
    /// The server's words can't be read.
    #[error("the server's answer can't be read")]
    Unreadable(#[source] DecodeError),
    /// The conversation ended without a result.
    #[error(transparent)]
    Conversation(ConversationError),
    /// The server's roots can't be pinned.
    #[error("the server named root certificates that can't be used")]
    Anchors(#[source] TrustError),
    /// The server's roots can't be read.
    #[error("the server named root certificates that can't be read")]
    AnchorsUnreadable,
    /// The result could not be kept.
    #[error("the server has taken this device on, but that could not be written down")]
    Store(#[source] EnrolmentError),
}

/// Not every end of a TLS set-up is about trust: who merely hangs up has shown nothing that could be trusted or not.
fn tls_clause(address: &HostPort, source: &TlsError) -> String {
    if source.concerns_certificates() {
        format!("the server {address} was not trusted")
    } else {
        format!("no protected connection to the server {address} came about")
    }
}

impl EnrolError {
    /// Stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::Connect {
                source: DialError::Proxy(source),
                ..
            } => source.code(),
            Self::Connect { .. } => "unreachable",
            Self::Network(trouble) => &trouble.code,
            // The same words as for the link later on.
            Self::Gateway {
                source: ApproachError::Dial(DialError::Tls(error)),
                ..
            } if error.concerns_certificates() => "gateway_certificate",
            Self::Gateway {
                source: ApproachError::Dial(DialError::Tls(_)),
                ..
            } => "gateway_tls",
            Self::Gateway {
                source: ApproachError::Dial(error),
                ..
            } => error.code(),
            Self::Gateway { .. } => "gateway_closed",
            Self::Tls { source, .. } => match tls_kind(source) {
                TlsKind::Fingerprint => "wrong_fingerprint",
                TlsKind::Name => "wrong_name",
                TlsKind::Dates => "certificate_dates",
                TlsKind::Other => "tls",
            },
            Self::NotPublic { .. } => "not_public",
            Self::FingerprintRequired => "fingerprint_required",
            Self::TimedOut => "timed_out",
            Self::Lost(_) | Self::Closed => "connection_lost",
            Self::Unreadable(_) => "malformed",
            Self::Conversation(ConversationError::Refused(refusal)) => refusal.code.as_str(),
            Self::Conversation(ConversationError::ServerNotProven) => "server_not_proven",
            Self::Conversation(ConversationError::Protocol(_)) => "protocol",
            Self::Anchors(_) | Self::AnchorsUnreadable | Self::OtherRoots(_) => "bad_roots",
            Self::Store(_) => "not_stored",
        }
    }

    /// Whether it passes by itself.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Connect { .. }
            | Self::Gateway { .. }
            | Self::TimedOut
            | Self::Lost(_)
            | Self::Closed => Remedy::Retry,
            Self::Network(trouble) => trouble.remedy,
            Self::Tls { source, .. } if source.concerns_certificates() => Remedy::AskPerson,
            Self::Tls { .. } => Remedy::Retry,
            Self::Conversation(ConversationError::Refused(refusal)) => refusal.code.remedy(),
            Self::NotPublic { .. }
            | Self::FingerprintRequired
            | Self::Unreadable(_)
            | Self::Conversation(
                ConversationError::ServerNotProven | ConversationError::Protocol(_),
            )
            | Self::Anchors(_)
            | Self::AnchorsUnreadable
            | Self::OtherRoots(_)
            | Self::Store(_) => Remedy::AskPerson,
        }
    }

    /// What happened and what the person can do, in one or two sentences.
    pub fn for_person(&self) -> String {
        let happened = match self {
            // Both fingerprints are in it, and the names of the certificate.
            Self::Tls { .. } | Self::Connect { .. } | Self::Gateway { .. } => sentence(self),
            Self::Network(trouble) => trouble.sentence.clone(),
            Self::Conversation(ConversationError::Refused(refusal)) => {
                // Its code stands at the end, after what the person can do.
                let told = refusal.sentence.trim_end_matches('.');
                format!("The server refused: {told}.")
            }
            Self::NotPublic { .. }
            | Self::FingerprintRequired
            | Self::TimedOut
            | Self::Lost(_)
            | Self::Closed
            | Self::Unreadable(_)
            | Self::Conversation(_)
            | Self::Anchors(_)
            | Self::AnchorsUnreadable
            | Self::OtherRoots(_)
            | Self::Store(_) => sentence(self),
        };
        match self.advice() {
            Some(advice) => format!("{happened} {advice}"),
            None => happened,
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Connect { .. } => Some("Check address, port and network, then try again."),
            Self::Network(_) => None,
            Self::Gateway {
                source: ApproachError::Dial(error),
                ..
            } if comes_from_elsewhere(error) => Some(
                "Nothing was sent to it. Compare address and fingerprint with your administrator; if something on the way opens \
                 TLS, umbra.proxy.ca_file has to name a file with its root certificate.",
            ),
            Self::Gateway { .. } => Some(
                "The first-authentication key was not used. Try again in a while, or ask your administrator about the gateway.",
            ),
            Self::Tls { source, .. } => match tls_kind(source) {
                TlsKind::Fingerprint => Some(
                    "Nothing was sent to it. Compare address and fingerprint with your administrator: another server may be \
                     answering.",
                ),
                TlsKind::Name => Some(
                    "Nothing was sent to it. Use one of the names in its certificate as the address.",
                ),
                TlsKind::Dates => Some(
                    "Nothing was sent to it. Check this device's clock first, then the server's certificate.",
                ),
                TlsKind::Other => None,
            },
            Self::TimedOut | Self::Lost(_) | Self::Closed => {
                Some("Try again with the same key: it counts only once for this device.")
            }
            Self::Conversation(ConversationError::Refused(refusal)) => advice(refusal.code),
            Self::Store(_) => Some(
                "Free some space or repair the disk, then enrol again with the same key: the server gives this device the \
                 same answer.",
            ),
            Self::NotPublic { .. } => Some(
                "Nothing was sent to it. It can be trusted by the fingerprint of its root certificate: ask your administrator for \
                 that.",
            ),
            Self::FingerprintRequired => {
                Some("Nothing was sent. Ask your administrator for the fingerprint.")
            }
            Self::Unreadable(_)
            | Self::Conversation(
                ConversationError::ServerNotProven | ConversationError::Protocol(_),
            )
            | Self::Anchors(_)
            | Self::AnchorsUnreadable
            | Self::OtherRoots(_) => None,
        }
    }
}

enum TlsKind {
    Fingerprint,
    Name,
    Dates,
    Other,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these reasons have an advice of their own"
)]
fn tls_kind(error: &TlsError) -> TlsKind {
    match error {
        TlsError::FingerprintMismatch { .. } | TlsError::RootNotPresented => TlsKind::Fingerprint,
        TlsError::WrongName { .. } => TlsKind::Name,
        TlsError::Expired { .. } | TlsError::NotYetValid { .. } => TlsKind::Dates,
        _ => TlsKind::Other,
    }
}

/// What the server's own sentence does not say: it names what to ask an administrator for.
fn advice(code: RefusalCode) -> Option<&'static str> {
    if code == RefusalCode::CertificateMismatch {
        return Some("Once that is done, enrol again with the same key.");
    }
    match code.remedy() {
        Remedy::Retry => Some("Try again in a while."),
        Remedy::AskPerson | Remedy::Stop => None,
    }
}

/// Has the device taken on by the server and keeps the result. `progress` hears each step as it begins.
pub async fn enroll(
    request: &EnrolRequest,
    applicant: Applicant<'_>,
    paths: &Paths,
    files: &Files,
    progress: &mut (dyn FnMut(Step) + Send),
) -> Result<Enrolled, EnrolError> {
    if applicant.require_fingerprint && request.trust == Trust::PublicCa {
        return Err(EnrolError::FingerprintRequired);
    }
    progress(Step::Connecting);
    let (stream, way) = connect(request, &applicant).await?;
    let server_names = names_of(&stream);
    let presented = tls::presented_chain(stream.get_ref().1);
    progress(Step::Proving);
    let answer = converse(request, &applicant, stream).await?;
    progress(Step::Storing);
    let enrolled = Enrolled {
        host: request.address.host().to_owned(),
        port: request.address.port(),
        kind: way.kind,
        device_id: answer.device_id,
        device_name: answer.device_name,
        connectors: answer.connectors,
        anchors: answer.anchors,
        server_names,
        last_good: Some(way.connector()),
    };
    let roots = enrolled
        .roots()
        .map_err(|_| EnrolError::AnchorsUnreadable)?;
    // Roots that can't be pinned would make a device that never comes back.
    device_config(
        Some(applicant.identity),
        ServerTrust::PinnedRoots(roots.clone()),
        applicant.dates,
        alpn::CONTROL_LINK,
    )
    .map_err(EnrolError::Anchors)?;
    // Nor would roots that are not this very server's.
    if request.trust == Trust::PublicCa {
        comes_from(&presented, roots, &enrolled, &applicant)?;
    }
    enrolled.store(paths, files).map_err(EnrolError::Store)?;
    Ok(enrolled)
}

/// To the server itself, or where that is not what answers, through the gateway that does.
async fn connect(
    request: &EnrolRequest,
    applicant: &Applicant<'_>,
) -> Result<(Stream, Way), EnrolError> {
    let authorities = applicant
        .network
        .public_roots()
        .map_err(EnrolError::Network)?;
    let trust = match &request.trust {
        Trust::Fingerprint(root) => ServerTrust::RootFingerprint(*root.as_bytes()),
        Trust::PublicCa => ServerTrust::PublicCa(authorities),
    };
    let approach = |inside: ServerTrust| {
        let tls = device_config(
            Some(applicant.identity),
            inside,
            applicant.dates,
            alpn::CONTROL_LINK,
        );
        tls.map(|tls| Approach {
            network: applicant.network.clone(),
            tls,
            trust: trust.clone(),
            dates: applicant.dates,
            server: match &request.trust {
                Trust::Fingerprint(root) => Some(ServerRoot::from_bytes(*root.as_bytes())),
                Trust::PublicCa => None,
            },
            label: applicant.hello.device.unit_id.to_string(),
            // Nothing is known yet but the root. That it is the server is proven by the first-authentication key, which nobody
            // else knows, for this very connection.
            names: Vec::new(),
        })
        .map_err(EnrolError::Anchors)
    };
    let mut way = Way {
        kind: ConnectorKind::Ums,
        address: request.address.clone(),
        roots: Vec::new(),
    };
    let connect_timeout = applicant.connect_timeout;
    let failed = match approach(trust.clone())?
        .connect(&way, connect_timeout)
        .await
    {
        Ok(stream) => return Ok((stream, way)),
        Err(error) => error,
    };
    if matches!(failed, ApproachError::Server(_)) && is_gateway(request, applicant).await {
        way.kind = ConnectorKind::Icg;
        // A public authority vouches for the gateway alone: nobody outside knows the server behind it. It has to prove that it knows
        // the key, for this very connection, before anything that it says is believed.
        let inside = match &request.trust {
            Trust::Fingerprint(_) => trust.clone(),
            Trust::PublicCa => ServerTrust::Unproven,
        };
        return match approach(inside)?.connect(&way, connect_timeout).await {
            Ok(stream) => Ok((stream, way)),
            Err(error) => Err(refused(request, error)),
        };
    }
    Err(refused(request, failed))
}

/// Whether the certificates that the server presented come from the roots that it named: otherwise the device would never find its
/// way back to it.
fn comes_from(
    presented: &[CertificateDer<'static>],
    roots: Vec<CertificateDer<'static>>,
    enrolled: &Enrolled,
    applicant: &Applicant<'_>,
) -> Result<(), EnrolError> {
    let name = match enrolled.kind {
        ConnectorKind::Ums => enrolled.host.as_str(),
        ConnectorKind::Icg => enrolled
            .server_names
            .first()
            .map_or(enrolled.host.as_str(), String::as_str),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    tls::vouched_for(
        presented,
        &PublicRoots::of_certificates(&roots),
        &name.replace('*', "server"),
        applicant.dates,
        now,
    )
    .map(|_| ())
    .map_err(EnrolError::OtherRoots)
}

/// Whether what answers there is no server, but may be a gateway. Nothing of the device is sent.
async fn is_gateway(request: &EnrolRequest, applicant: &Applicant<'_>) -> bool {
    let address = &request.address;
    let dialer = &applicant.network.dialer;
    let looked = async {
        let io = dialer
            .tcp(address.host(), address.port(), LOOK)
            .await
            .ok()?;
        probe_kind(io, address.host(), LOOK).await.ok()
    };
    matches!(looked.await, Some((HostKind::Http, _)))
}

fn refused(request: &EnrolRequest, error: ApproachError) -> EnrolError {
    let address = request.address.clone();
    let public = request.trust == Trust::PublicCa;
    match error {
        ApproachError::Server(source) | ApproachError::Dial(DialError::Tls(source))
            if public
                && matches!(
                    source,
                    TlsError::UnknownRoot | TlsError::IssuerMissing { .. }
                ) =>
        {
            EnrolError::NotPublic { address, source }
        }
        ApproachError::Server(source) => EnrolError::Tls { address, source },
        ApproachError::Trust(source) => EnrolError::Anchors(source),
        ApproachError::Settings(trouble) => EnrolError::Network(trouble),
        ApproachError::Dial(source @ (DialError::Connect(_) | DialError::Proxy(_))) => {
            EnrolError::Connect { address, source }
        }
        source @ (ApproachError::Dial(DialError::Tls(_) | DialError::WebSocket(_))
        | ApproachError::Closed(_)) => EnrolError::Gateway { address, source },
    }
}

async fn converse(
    request: &EnrolRequest,
    applicant: &Applicant<'_>,
    stream: Stream,
) -> Result<umbra_protocol::enrolment::Enrolled, EnrolError> {
    let tls_failed = |source| EnrolError::Tls {
        address: request.address.clone(),
        source,
    };
    let exporter = tls::exporter(stream.get_ref().1, EXPORTER_LABEL).map_err(tls_failed)?;
    let mut nonce = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut nonce).map_err(|_| {
        EnrolError::Conversation(ConversationError::Protocol(
            "this system gives no random bytes".into(),
        ))
    })?;
    let expect_challenge = ExpectChallenge::new(Candidate {
        key: request.key.clone(),
        unit_id: applicant.hello.device.unit_id.clone(),
        device_id: applicant.device_id,
        certificate: applicant.identity.certificate().to_vec(),
        exporter,
        nonce,
    });
    let (read, write) = tokio::io::split(stream);
    let mut reader = FrameReader::new(read);
    let mut writer = FrameWriter::new(write);

    say(&mut writer, &applicant.hello.clone().into()).await?;
    let challenge = hear(&mut reader).await?;
    // Stretching takes up to a second: not on the thread that carries sessions.
    let proven = tokio::task::spawn_blocking(move || expect_challenge.take(challenge)).await;
    let (proof, expect_enrolled) = proven
        .map_err(|_| EnrolError::Closed)?
        .map_err(EnrolError::Conversation)?;
    say(&mut writer, &proof.into()).await?;
    let answer = hear(&mut reader).await?;
    let enrolled = expect_enrolled
        .take(answer)
        .map_err(EnrolError::Conversation)?;
    // The farewell is a courtesy.
    let _ = timeout(Duration::from_secs(1), writer.close()).await;
    Ok(enrolled)
}

async fn say<W: tokio::io::AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    message: &FromDevice,
) -> Result<(), EnrolError> {
    match timeout(limits::ENROLMENT_STEP, writer.send(&encode(message))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(EnrolError::Lost(error)),
        Err(_) => Err(EnrolError::TimedOut),
    }
}

async fn hear<R: tokio::io::AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
) -> Result<FromServer, EnrolError> {
    // The answer to the proof holds roots and connectors: it may be as large as anything on a welcomed link.
    match timeout(limits::ENROLMENT_STEP, reader.next(limits::FRAME)).await {
        Ok(Ok(Some(frame))) => decode(&frame, limits::FRAME).map_err(EnrolError::Unreadable),
        Ok(Ok(None)) => Err(EnrolError::Closed),
        Ok(Err(error)) => Err(EnrolError::Lost(error)),
        Err(_) => Err(EnrolError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_merely_hangs_up_is_not_called_untrusted() {
        let told = |source| {
            let address = HostPort::parse("server.example.com", 8443).expect("an address");
            EnrolError::Tls { address, source }.to_string()
        };
        assert_eq!(
            told(TlsError::Closed),
            "no protected connection to the server server.example.com:8443 came about"
        );
        assert_eq!(
            told(TlsError::UnknownRoot),
            "the server server.example.com:8443 was not trusted"
        );
    }
}
