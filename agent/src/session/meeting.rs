//! The first seconds with a caller: who it is and how it speaks. Whoever is not to be talked to is gone afterwards, and has not
//! got a byte unless it spoke TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, info};
use umbra_carrier::io::boxed;
use umbra_protocol::SessionId;
use umbra_protocol::secret::Secret;
use umbra_protocol::session::{CallerRefused, Permissions, Presented, SessionRequest};
use umbra_protocol::{Refusal, RefusalCode};
use umbra_vnc_proxy::Preface;
use umbra_vnc_proxy::device_end;
use umbra_vnc_proxy::first_bytes::{Opening, sniff};
use umbra_vnc_proxy::preface::Dialect;

use super::caller::{ANSWER_DEADLINE, Arrival, Line, Origin};
use super::machine::{Caller, Turned};
use super::{Shared, Trust, lock, tickets};

/// From the first packet to the end of the preface.
const STRANGER_DEADLINE: Duration = Duration::from_secs(10);
/// A TLS client speaks at once; who is silent this long is a plain viewer that waits to be greeted.
const SILENCE_OF_A_VIEWER: Duration = Duration::from_millis(1_500);

/// Finds out who calls. Whoever is not to be talked to is gone afterwards, without a byte where it did not speak TLS.
pub(super) async fn meet(
    shared: &Arc<Shared>,
    arrival: Arrival,
    from: &Origin,
) -> Option<(Caller, Line, Dialect)> {
    let deadline = Instant::now() + STRANGER_DEADLINE;
    let (stream, tls12) = match arrival {
        // Nobody greets a plain viewer through a tunnel, nor speaks TLS 1.2, whatever the parameters say about the port.
        Arrival::Tunnel(stream) => (stream, false),
        Arrival::Port(stream) => match at_the_port(shared, stream, from).await? {
            AtThePort::Tls(stream) => (boxed(stream), shared.registry.snapshot().vnc.tls12),
            AtThePort::Viewer(stream) => {
                return Some((plain(from)?, Line::Plain(stream), Dialect::Legacy));
            }
        },
    };
    let Some(trust) = lock(&shared.trust).clone() else {
        debug!(%from, "a caller came before the device had an identity");
        return None;
    };
    let config = if tls12 { &trust.with_tls12 } else { &trust.tls };
    let said = async {
        let mut tls = device_end::accept_tls(stream, Arc::clone(config), deadline)
            .await
            .map_err(|error| error.to_string())?;
        let preface = device_end::read_preface(&mut tls, deadline)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((tls, preface))
    };
    let (mut tls, preface) = match said.await {
        Ok(said) => said,
        Err(error) => {
            debug!(%from, error, "a caller went no further");
            return None;
        }
    };
    let dialect = preface.dialect();
    match known(shared, &trust, preface) {
        Ok(caller) => Some((caller, Line::Tls(Box::new(tls)), dialect)),
        Err(refusal) => {
            info!(%from, code = %refusal.code, "a caller was refused");
            report(shared, from, refusal.clone());
            let turned = Turned::from(refusal);
            let deadline = Instant::now() + ANSWER_DEADLINE;
            // Whether it hears it changes nothing.
            let _ = device_end::answer_refused(
                &mut tls,
                dialect,
                &turned.code,
                &turned.sentence,
                deadline,
            )
            .await;
            None
        }
    }
}

/// What spoke, or waited, at the device's port.
enum AtThePort {
    Tls(TcpStream),
    /// A plain viewer that may be greeted.
    Viewer(TcpStream),
}

async fn at_the_port(shared: &Arc<Shared>, stream: TcpStream, from: &Origin) -> Option<AtThePort> {
    let secure_mode = shared.registry.snapshot().vnc.secure_mode;
    let wait = if secure_mode {
        STRANGER_DEADLINE
    } else {
        SILENCE_OF_A_VIEWER
    };
    match sniff(&stream, wait).await {
        Opening::Tls => Some(AtThePort::Tls(stream)),
        Opening::PlainViewer if !secure_mode => Some(AtThePort::Viewer(stream)),
        Opening::PlainViewer => {
            info!(%from, "a plain viewer was not greeted: only encrypted sessions are accepted");
            let sentence =
                "A plain VNC viewer was not greeted: only encrypted sessions are accepted.";
            report(
                shared,
                from,
                Refusal::new(RefusalCode::SecureModeRequired, sentence),
            );
            None
        }
        Opening::Garbage => {
            debug!(%from, "a caller spoke neither TLS nor RFB");
            None
        }
        Opening::Closed => None,
    }
}

/// Tells the server whom the device turned away by itself, if the link stands.
fn report(shared: &Shared, from: &Origin, refusal: Refusal) {
    if let Some(link) = shared.current_link() {
        let from = from.to_string();
        link.tell(CallerRefused { from, refusal });
    }
}

fn known(shared: &Shared, trust: &Trust, preface: Preface) -> Result<Caller, Refusal> {
    match preface {
        Preface::Ticket { ticket, password } => {
            let presented = Presented::Ticket {
                ticket: ticket.clone(),
                password: Secret::new(password.expose()),
            };
            let mut seen = lock(&shared.seen);
            let ticket = tickets::check(&ticket, &trust.ticket_keys, trust.bearer, &mut seen)?;
            Ok(Caller::Ticket {
                ticket: Box::new(ticket),
                presented,
            })
        }
        Preface::LegacyPassword(password) => Ok(Caller::Legacy {
            presented: Presented::LegacyPassword {
                password: Secret::new(password.expose()),
            },
        }),
    }
}

fn plain(from: &Origin) -> Option<Caller> {
    let mut id = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id).ok()?;
    Some(Caller::Plain {
        request: SessionRequest {
            session: SessionId::from_bytes(id),
            operator: format!("A viewer at {from}"),
            reason: String::new(),
            permissions: Permissions {
                control: true,
                clipboard: true,
            },
        },
    })
}
