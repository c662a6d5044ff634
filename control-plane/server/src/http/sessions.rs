//! Shadowing sessions.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::Deserialize;
use umbra_protocol::api::{NewSession, Problem, SessionInfo, SessionOffer};
use umbra_protocol::{RefusalCode, SessionId, limits};

use super::auth::Operator;
use super::body::{Json, Path, Query};
use super::devices::the_one;
use super::problem::Fault;
use super::{Peer, Shared};
use crate::server::{Server, log_failure};
use crate::sessions::{self as offering, Asker, OfferError};
use crate::store::sessions;

/// Which sessions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// Only of this device: a device ID, a unit ID or a name.
    device: Option<String>,
    /// At most so many, 200 if nothing is said, 1,000 at most.
    limit: Option<u32>,
}

/// Reading goes on when nothing can be written.
async fn expire(server: &Server) {
    if let Err(error) = offering::expire(server).await {
        log_failure("offers could not expire", &error);
    }
}

/// The newest sessions, newest first.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "sessions", security(("token" = [])), params(Search),
    responses((status = 200, body = Vec<SessionInfo>)))]
pub(super) async fn list(
    State(server): Shared,
    Query(Search { device, limit }): Query<Search>,
) -> Result<Json<Vec<SessionInfo>>, Fault> {
    expire(&server).await;
    let mut connection = server.store.read().await?;
    let row = match device {
        Some(name) => Some(the_one(&mut connection, &name).await?.row),
        None => None,
    };
    let limit = limit.unwrap_or(200).min(1_000);
    Ok(Json(sessions::list(&mut connection, row, limit).await?))
}

/// Asks for a session. The device has to be online.
#[utoipa::path(post, path = "/api/v1/sessions", tag = "sessions", security(("token" = [])), request_body = NewSession,
    responses((status = 201, body = SessionOffer), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn offer(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Extension(Peer(source)): Extension<Peer>,
    Json(wanted): Json<NewSession>,
) -> Result<(StatusCode, Json<SessionOffer>), Fault> {
    if wanted.reason.len() > limits::SENTENCE {
        return Err(Fault::invalid(format!(
            "A reason has at most {} bytes.",
            limits::SENTENCE
        )));
    }
    let device = {
        let mut connection = server.store.read().await?;
        the_one(&mut connection, &wanted.device).await?
    };
    let asker = Asker {
        user: &operator.user,
        display_name: &operator.display_name,
        source,
    };
    match offering::offer(&server, &asker, &device, &wanted).await {
        Ok(offer) => Ok((StatusCode::CREATED, Json(offer))),
        Err(OfferError::Offline { last_seen }) => {
            let since = match last_seen {
                Some(at) => format!(
                    "it was last heard of {}",
                    umbra_carrier::x509::date_text(at)
                ),
                None => "it has never connected".to_owned(),
            };
            Err(Fault::new(
                StatusCode::CONFLICT,
                "device_offline",
                format!(
                    "“{}” is offline: {since}. Check its power and network; the session can be started when it is back.",
                    device.name
                ),
            ))
        }
        Err(OfferError::Disabled) => Err(Fault::new(
            StatusCode::CONFLICT,
            RefusalCode::ShadowingDisabled,
            format!("Shadowing is switched off on “{}”.", device.name),
        )),
        Err(OfferError::TooMany) => Err(Fault::new(
            StatusCode::CONFLICT,
            "too_many_offers",
            format!(
                "Too many sessions with “{}” have been offered: wait a minute.",
                device.name
            ),
        )),
        Err(OfferError::Gateway { gateway, source }) => Err(Fault::new(
            StatusCode::CONFLICT,
            offering::GATEWAY_UNAVAILABLE,
            format!(
                "“{}” is linked through the gateway “{gateway}”, and could not be met there: {source}. Try again in a \
                 minute; “umbra gateways show {gateway}” tells more.",
                device.name
            ),
        )),
        Err(OfferError::Store(error)) => Err(error.into()),
    }
}

fn parse(text: &str) -> Result<SessionId, Fault> {
    text.parse().map_err(|_| Fault::unknown("session"))
}

/// One session.
#[utoipa::path(get, path = "/api/v1/sessions/{session}", tag = "sessions", security(("token" = [])),
    params(("session" = String, Path, description = "Session ID")),
    responses((status = 200, body = SessionInfo), (status = 404, body = Problem)))]
pub(super) async fn find(
    State(server): Shared,
    Path(id): Path<String>,
) -> Result<Json<SessionInfo>, Fault> {
    let id = parse(&id)?;
    expire(&server).await;
    let mut connection = server.store.read().await?;
    let found = sessions::show(&mut connection, id).await?;
    found.map(Json).ok_or_else(|| Fault::unknown("session"))
}

/// Ends a session, or withdraws one that has not begun.
#[utoipa::path(delete, path = "/api/v1/sessions/{session}", tag = "sessions", security(("token" = [])),
    params(("session" = String, Path, description = "Session ID")),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn end(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let id = parse(&id)?;
    if offering::end(&server, &operator.user, &operator.display_name, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Fault::unknown("session"))
    }
}
