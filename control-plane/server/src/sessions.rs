//! Shadowing sessions: the offer to a console, the one answer to the device that asks about it, and the record of its
//! end. A ticket is good for one question, on the link of the device that it was made for, and by this server's clock.

use std::net::IpAddr;

use sqlx::SqliteConnection;
use umbra_protocol::api::{NewSession, Rendezvous, SessionOffer, SessionState};
use umbra_protocol::refusal::clip;
use umbra_protocol::session::{
    Presented, SessionEnd, SessionRecord, SessionRequest, SessionStarted, SessionTunnel, Verdict,
};
use umbra_protocol::ticket::{self, Ticket};
use umbra_protocol::{Refusal, RefusalCode, Secret, SessionId, UnitId, limits};

use crate::audit::{self, Actor, Line};
use crate::ca::to_pem;
use crate::gateways::{self, ForWhom, MeetingError};
use crate::hub::{News, Online};
use crate::random;
use crate::server::Server;
use crate::store::devices::{DeviceOnFile, Row};
use crate::store::sessions::{self, SessionOnFile};
use crate::store::{StoreError, devices};

/// Open offers to one device; more are a mistake or an attack on the person in front of it.
const OPEN_OFFERS: u32 = 16;

/// How long after its ticket's end an allowed session may be without a word of the device, in seconds: longer than a person may have for an
/// answer (`umbra.consent.timeout`) and the device for its way back to the server.
const SILENCE: i64 = 15 * 60;

/// Why no session is offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The device has no link.
    #[error("the device is offline")]
    Offline {
        /// When something was last heard of it.
        last_seen: Option<i64>,
    },
    /// The device accepts no shadowing.
    #[error("the device accepts no shadowing")]
    Disabled,
    /// Too many offers are open.
    #[error("too many sessions are offered")]
    TooMany,
    /// The device is met at a gateway, and that does not work.
    #[error("there is no meeting at the gateway")]
    Gateway {
        /// The gateway.
        gateway: String,
        /// Why.
        #[source]
        source: MeetingError,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

/// Who asks for a session.
#[derive(Debug)]
pub struct Asker<'a> {
    /// Account.
    pub user: &'a str,
    /// What the person at the device reads.
    pub display_name: &'a str,
    /// From where the request comes.
    pub source: IpAddr,
}

/// Offers a session: files it, tells the device, and hands the console what it needs.
pub async fn offer(
    server: &Server,
    asker: &Asker<'_>,
    device: &DeviceOnFile,
    wanted: &NewSession,
) -> Result<SessionOffer, OfferError> {
    let Some(online) = server.hub.find(device.row) else {
        return Err(refuse_offer(server, asker, device, offline(device)).await?);
    };
    let through = online.gateway.as_deref();
    let shadowing = match through {
        Some(_) => online.facts.shadowing || online.facts.shadow_port.is_some(),
        None => online.facts.shadow_port.is_some(),
    };
    if !shadowing {
        return Err(refuse_offer(server, asker, device, OfferError::Disabled).await?);
    }
    let now = server.clock.now();
    let lifetime = if wanted.legacy {
        limits::LEGACY_PASSWORD_LIFETIME
    } else {
        limits::TICKET_LIFETIME
    };
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    let request = SessionRequest {
        session: SessionId::from_bytes(random::bytes()),
        operator: asker.display_name.to_owned(),
        reason: umbra_protocol::refusal::clip(wanted.reason.clone()),
        permissions: wanted.permissions,
    };
    let expires_at = now + i64::from(seconds);
    let (ticket, password) = if wanted.legacy {
        (None, random::uuid())
    } else {
        let ticket = server.authority.signer.sign(&Ticket {
            session: request.session,
            device: online.certificate.device_id,
            certificate: online.certificate.fingerprint,
            operator: request.operator.clone(),
            permissions: request.permissions,
            nonce: random::hex::<16>(),
            iat: now,
            exp: expires_at,
        });
        (Some(Secret::new(ticket)), Secret::new(random::hex::<16>()))
    };
    let mut tx = server.store.begin().await?;
    if sessions::open_offer_count(&mut tx, now, device.row).await? >= OPEN_OFFERS {
        return Err(OfferError::TooMany);
    }
    let filed = sessions::NewSession {
        request: request.clone(),
        device: device.row,
        device_id: online.certificate.device_id,
        user: asker.user.to_owned(),
        ticket_hash: ticket.as_ref().map(|text| random::digest(text.reveal())),
        password_hash: random::digest(password.reveal()),
        expires_at,
    };
    sessions::add(&mut tx, now, &filed).await?;
    let line = Line::new(
        Actor::Account(asker.user.to_owned()),
        "session.offered",
        request.session,
    );
    let detail = format!("{} ({}): {}", device.name, device.unit_id, request.reason);
    audit::append(&mut tx, now, line.detail(detail)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let addresses = shadow_addresses(&online);
    let session = request.session;
    let mut told = vec![News::Session(request)];
    let mut rendezvous = None;
    if let Some(name) = through {
        match meeting(server, asker, device.row, session, name).await {
            Ok((tunnel, console)) => {
                told.push(News::Tunnel(tunnel));
                rendezvous = Some(console);
            }
            Err(source) => {
                let gateway = name.to_owned();
                let error = OfferError::Gateway { gateway, source };
                return Err(take_back(server, asker, device, session, error).await?);
            }
        }
    }
    if told
        .into_iter()
        .any(|news| server.hub.tell(device.row, news).is_err())
    {
        server.gateways.withdraw(session);
        return Err(take_back(server, asker, device, session, offline(device)).await?);
    }
    Ok(SessionOffer {
        session,
        device_certificate: to_pem("CERTIFICATE", &online.certificate.der),
        device_name: device.name.clone(),
        addresses,
        rendezvous,
        ticket: ticket.unwrap_or(Secret::new("")),
        password,
        expires_in_seconds: seconds,
    })
}

/// A rendezvous at the gateway that the device's link goes through: what each end is told about it.
async fn meeting(
    server: &Server,
    asker: &Asker<'_>,
    device: Row,
    session: SessionId,
    name: &str,
) -> Result<(SessionTunnel, Rendezvous), MeetingError> {
    let gateway = server
        .gateways
        .find(name)
        .ok_or(MeetingError::NotAttached)?;
    let whom = ForWhom { session, device };
    let meeting = server.gateways.meet(gateway.row, whom).await?;
    let tunnel = SessionTunnel {
        session,
        token: meeting.device,
        expires_in_seconds: meeting.expires_in_seconds,
    };
    let roots = if gateway.roots.is_empty() {
        vec![server.authority.root_pem.clone()]
    } else {
        gateway.roots.clone()
    };
    let console = Rendezvous {
        gateway: gateway.name.clone(),
        addresses: gateways::addresses_for(&gateway, asker.source),
        roots,
        token: meeting.console,
    };
    Ok((tunnel, console))
}

/// A session that was filed will not begin.
async fn take_back(
    server: &Server,
    asker: &Asker<'_>,
    device: &DeviceOnFile,
    session: SessionId,
    error: OfferError,
) -> Result<OfferError, StoreError> {
    let sentence = match &error {
        OfferError::Gateway { gateway, source } => {
            format!("There was no meeting at the gateway “{gateway}”: {source}.")
        }
        OfferError::Offline { .. } => "The device went offline.".to_owned(),
        OfferError::Disabled | OfferError::TooMany | OfferError::Store(_) => error.to_string(),
    };
    let mut tx = server.store.begin().await?;
    let now = server.clock.now();
    sessions::refuse(&mut tx, now, session, code_of(&error), &clip(sentence)).await?;
    tx.commit().await?;
    refuse_offer(server, asker, device, error).await
}

/// The two ends of a session did not meet at their gateway: it will not begin, unless it has already.
pub async fn not_met(
    server: &Server,
    whom: ForWhom,
    code: &'static str,
    sentence: &str,
) -> Result<(), StoreError> {
    let ForWhom { session, device } = whom;
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    if !sessions::refuse(&mut tx, now, session, code, &clip(sentence.to_owned())).await? {
        return Ok(());
    }
    let line = Line::new(Actor::Server, "session.not_met", session).refused(code);
    audit::append(&mut tx, now, line.detail(sentence)).await?;
    tx.commit().await?;
    let sentence = clip(sentence.to_owned());
    // A device that is offline forgets the session by itself.
    let _ = server
        .hub
        .tell(device, News::EndSession(SessionEnd { session, sentence }));
    Ok(())
}

fn offline(device: &DeviceOnFile) -> OfferError {
    OfferError::Offline {
        last_seen: device.last_seen,
    }
}

async fn refuse_offer(
    server: &Server,
    asker: &Asker<'_>,
    device: &DeviceOnFile,
    error: OfferError,
) -> Result<OfferError, StoreError> {
    let code = code_of(&error);
    let actor = Actor::Account(asker.user.to_owned());
    let line = Line::new(actor, "session.offered", device.certificate.device_id).refused(code);
    let mut tx = server.store.begin().await?;
    audit::append(&mut tx, server.clock.now(), line.detail(&device.name)).await?;
    tx.commit().await?;
    Ok(error)
}

fn code_of(error: &OfferError) -> &'static str {
    match error {
        OfferError::Offline { .. } => "device_offline",
        OfferError::Disabled => RefusalCode::ShadowingDisabled.as_str(),
        OfferError::Gateway { .. } => GATEWAY_UNAVAILABLE,
        OfferError::TooMany | OfferError::Store(_) => RefusalCode::Busy.as_str(),
    }
}

/// The code of an offer that failed at a gateway.
pub const GATEWAY_UNAVAILABLE: &str = "gateway_unavailable";

/// Where shadowing reaches a device, best first: from where its link comes, then what it says itself.
pub fn shadow_addresses(online: &Online) -> Vec<String> {
    let Some(port) = online
        .facts
        .shadow_port
        .filter(|_| online.gateway.is_none())
    else {
        // Behind a gateway, its addresses mean nothing here.
        return Vec::new();
    };
    addresses(
        Some(&online.peer.ip().to_canonical().to_string()),
        &online.facts.addresses,
        port,
    )
}

/// `HOST:PORT` for each address, without repetition.
pub fn addresses(peer: Option<&str>, own: &[String], port: u16) -> Vec<String> {
    let mut all = Vec::new();
    for address in peer.into_iter().chain(own.iter().map(String::as_str)) {
        // A device may say anything; only addresses are passed on.
        let Ok(address) = address.parse::<std::net::IpAddr>() else {
            continue;
        };
        let text = std::net::SocketAddr::new(address, port).to_string();
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// Answers a device that asks about somebody who presented a ticket or a password.
pub async fn verdict(
    server: &Server,
    row: Row,
    unit: &UnitId,
    presented: &Presented,
) -> Result<Verdict, StoreError> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let found = look_up(server, &mut tx, presented).await?;
    let verdict = match &found {
        Ok((session, password)) => judge(&mut tx, now, row, session, password).await?,
        Err(refusal) => Verdict::Refused(refusal.clone()),
    };
    let subject = match &found {
        Ok((session, _)) => session.request.session.to_string(),
        Err(_) => unit.to_string(),
    };
    let line = Line::new(Actor::Device(unit.clone()), "session.verified", subject);
    let line = match &verdict {
        Verdict::Allowed(request) => line.detail(&request.operator),
        Verdict::Refused(refusal) => line.refused(refusal.code),
    };
    audit::append(&mut tx, now, line).await?;
    tx.commit().await?;
    Ok(verdict)
}

/// The session that is meant, with the hash of the password that was presented.
async fn look_up(
    server: &Server,
    tx: &mut SqliteConnection,
    presented: &Presented,
) -> Result<Result<(SessionOnFile, String), Refusal>, StoreError> {
    match presented {
        Presented::Ticket { ticket, password } => {
            let Ok(read) = ticket::verify(ticket, &[server.authority.signer.public()]) else {
                return Ok(Err(invalid()));
            };
            let found = sessions::find(tx, read.session).await?;
            let hash = random::digest(ticket);
            Ok(found
                .filter(|session| session.ticket_hash.as_deref() == Some(hash.as_str()))
                .map(|session| (session, random::digest(password.reveal())))
                .ok_or_else(invalid))
        }
        Presented::LegacyPassword { password } => {
            let hash = random::digest(password.reveal());
            let found = sessions::by_legacy_password(tx, &hash).await?;
            Ok(found.map(|session| (session, hash)).ok_or_else(|| {
                Refusal::new(
                    RefusalCode::PasswordWrong,
                    "This password is not one of this server's: start the session anew from the console.",
                )
            }))
        }
    }
}

fn invalid() -> Refusal {
    Refusal::new(
        RefusalCode::TicketInvalid,
        "This ticket is not one of this server's: start the session anew from the console.",
    )
}

async fn judge(
    tx: &mut SqliteConnection,
    now: i64,
    row: Row,
    session: &SessionOnFile,
    password: &str,
) -> Result<Verdict, StoreError> {
    let id = session.request.session;
    let refused = |code, sentence: &str| Verdict::Refused(Refusal::new(code, sentence));
    if session.device != row {
        // The offer stays open for the device that it was made for.
        return Ok(refused(
            RefusalCode::TicketForOtherDevice,
            "This ticket is for another device.",
        ));
    }
    match session.state {
        SessionState::Offered => {}
        SessionState::Refused
            if session.end_code.as_deref() == Some(RefusalCode::SessionWithdrawn.as_str()) =>
        {
            return Ok(refused(
                RefusalCode::SessionWithdrawn,
                "The session was withdrawn.",
            ));
        }
        SessionState::Refused
            if session.end_code.as_deref() == Some(RefusalCode::TicketExpired.as_str()) =>
        {
            return Ok(refused(RefusalCode::TicketExpired, EXPIRED));
        }
        SessionState::Allowed
        | SessionState::Running
        | SessionState::Ended
        | SessionState::Refused => {
            return Ok(refused(
                RefusalCode::TicketUsed,
                "This ticket was used before: start the session anew from the console.",
            ));
        }
    }
    let refusal = if now >= session.expires_at {
        Some(Refusal::new(RefusalCode::TicketExpired, EXPIRED))
    } else if !umbra_protocol::secret::same_bytes(
        password.as_bytes(),
        session.password_hash.as_bytes(),
    ) {
        Some(Refusal::new(
            RefusalCode::PasswordWrong,
            "The session password is wrong: start the session anew from the console.",
        ))
    } else {
        None
    };
    if let Some(refusal) = refusal {
        sessions::refuse(tx, now, id, refusal.code.as_str(), &refusal.sentence).await?;
        return Ok(Verdict::Refused(refusal));
    }
    sessions::allow(tx, id).await?;
    Ok(Verdict::Allowed(session.request.clone()))
}

const EXPIRED: &str = "The ticket's time is over: start the session anew from the console.";

/// Notes that the viewer sees the screen.
pub async fn started(
    server: &Server,
    row: Row,
    unit: &UnitId,
    started: &SessionStarted,
) -> Result<(), StoreError> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    if sessions::start(&mut tx, now, row, started.session).await? {
        let actor = Actor::Device(unit.clone());
        let line = Line::new(actor, "session.started", started.session);
        audit::append(&mut tx, now, line).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Files a record, whenever it comes. Also a record that is already here, or of no session of this device, is taken
/// off the device: it would send it for ever.
pub async fn record(
    server: &Server,
    row: Row,
    unit: &UnitId,
    record: &SessionRecord,
) -> Result<(), StoreError> {
    let now = server.clock.now();
    let actor = Actor::Device(unit.clone());
    let mut tx = server.store.begin().await?;
    let line = match sessions::find(&mut tx, record.session).await? {
        Some(session) if session.device == row => {
            let (state, started_at) = outcome(&session, record, now);
            let first = sessions::finish(&mut tx, now, record, state, started_at).await?;
            first.then(|| {
                let sentence = format!("{}: {}", record.code, record.sentence);
                let line = Line::new(actor, "session.ended", record.session).detail(sentence);
                // Nobody saw anything: the line says why, where somebody looks for refusals.
                if state == SessionState::Refused {
                    line.refused(umbra_protocol::refusal::clip(record.code.clone()))
                } else {
                    line
                }
            })
        }
        Some(_) | None => Some(
            Line::new(actor, "session.ended", record.session)
                .refused("unknown_session")
                .detail("a record of no session of this device"),
        ),
    };
    if let Some(line) = line {
        audit::append(&mut tx, now, line).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Whether a session ended or never began, and when it began.
fn outcome(
    session: &SessionOnFile,
    record: &SessionRecord,
    now: i64,
) -> (SessionState, Option<i64>) {
    if session.started_at.is_some() {
        return (SessionState::Ended, session.started_at);
    }
    // The word that it began was lost with the link, if bytes of the screen have flowed.
    if record.bytes_to_console > 0 {
        let length = i64::try_from(record.duration_ms / 1_000).unwrap_or(i64::MAX);
        return (SessionState::Ended, Some(now.saturating_sub(length)));
    }
    (SessionState::Refused, None)
}

/// Ends a session because an operator wants it: withdrawn before it began, or ended by the device.
pub async fn end(
    server: &Server,
    user: &str,
    display_name: &str,
    id: SessionId,
) -> Result<bool, StoreError> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let Some(session) = sessions::find(&mut tx, id).await? else {
        return Ok(false);
    };
    match session.state {
        // Nothing is known of it; the device may be showing its screen, and must hear that this is to end.
        SessionState::Refused if session.end_code.as_deref() == Some(sessions::DEVICE_SILENT) => {
            sessions::note_end_asked(&mut tx, id, user).await?;
        }
        SessionState::Ended | SessionState::Refused => return Ok(true),
        SessionState::Offered => {
            let code = RefusalCode::SessionWithdrawn.as_str();
            let sentence = format!("{display_name} withdrew the session before it began.");
            sessions::refuse(&mut tx, now, id, code, &sentence).await?;
            server.gateways.withdraw(id);
        }
        SessionState::Allowed | SessionState::Running => {
            sessions::note_end_asked(&mut tx, id, user).await?;
        }
    }
    let line = Line::new(Actor::Account(user.to_owned()), "session.end_asked", id);
    audit::append(&mut tx, now, line).await?;
    tx.commit().await?;
    let news = News::EndSession(SessionEnd {
        session: id,
        sentence: umbra_protocol::refusal::clip(format!("{display_name} ended the session.")),
    });
    // A device that is offline keeps its session; its record comes with the next link.
    let _ = server.hub.tell(session.device, news);
    Ok(true)
}

/// Offers whose time is over become refused, and so do allowed sessions of which the device has not said anything for long: it was
/// killed before it noted the session, or what it said was lost.
pub async fn expire(server: &Server) -> Result<(), StoreError> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let code = RefusalCode::TicketExpired.as_str();
    for id in sessions::expire(&mut tx, now, code, "Nobody presented the ticket in time.").await? {
        let line = Line::new(Actor::Server, "session.expired", id).refused(code);
        audit::append(&mut tx, now, line).await?;
    }
    let sentence = "The device did not say in time what became of this session.";
    for id in sessions::give_up(&mut tx, now, now - SILENCE, sentence).await? {
        let line = Line::new(Actor::Server, "session.expired", id).refused(sessions::DEVICE_SILENT);
        audit::append(&mut tx, now, line).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Notes of whom something was heard, so that a crash does not forget it.
pub async fn note_seen(server: &Server) -> Result<(), StoreError> {
    let seen = server.hub.last_heard();
    if seen.is_empty() {
        return Ok(());
    }
    let mut tx = server.store.begin().await?;
    devices::note_seen(&mut tx, &seen).await?;
    tx.commit().await?;
    Ok(())
}
