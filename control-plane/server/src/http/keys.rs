//! First-authentication keys. Their text is in the answer that made them, and nowhere afterwards.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use umbra_protocol::KeyId;
use umbra_protocol::api::{KeyChange, KeyInfo, KeyState, KeyUse, MadeKey, NewKeys, Problem};

use super::Shared;
use super::auth::Operator;
use super::body::{Json, Path};
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::keys as making;
use crate::store::keys;

/// All keys, newest first, without their text.
#[utoipa::path(get, path = "/api/v1/keys", tag = "keys", security(("token" = [])),
    responses((status = 200, body = Vec<KeyInfo>)))]
pub(super) async fn list(State(server): Shared) -> Result<Json<Vec<KeyInfo>>, Fault> {
    let mut connection = server.store.read().await?;
    Ok(Json(keys::list(&mut connection, server.clock.now()).await?))
}

/// Makes keys.
#[utoipa::path(post, path = "/api/v1/keys", tag = "keys", security(("token" = [])), request_body = NewKeys,
    responses((status = 201, body = Vec<MadeKey>), (status = 403, body = Problem), (status = 409, body = Problem),
    (status = 422, body = Problem)))]
pub(super) async fn make(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Json(wanted): Json<NewKeys>,
) -> Result<(StatusCode, Json<Vec<MadeKey>>), Fault> {
    let now = server.clock.now();
    let salt = server.key_salt;
    let made = tokio::task::spawn_blocking(move || making::make(&wanted, &salt, now))
        .await
        .map_err(|_| {
            Fault::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The keys could not be made: try again.",
            )
        })?
        .map_err(|error| Fault::invalid(format!("The keys were not made: {error}.")))?;
    let mut tx = server.store.begin().await?;
    let mut answer = Vec::with_capacity(made.len());
    for making::Made { made, stored } in made {
        if !keys::add(&mut tx, now, &operator.user, &stored).await? {
            return Err(Fault::new(
                StatusCode::CONFLICT,
                "key_exists",
                "This key was chosen before: choose another one.",
            ));
        }
        let line = Line::new(operator.actor(), "key.created", made.id);
        let kind = format!("{:?}", stored.kind).to_lowercase();
        let detail = format!("{kind} {}", stored.tag);
        audit::append(&mut tx, now, line.detail(detail.trim())).await?;
        answer.push(made);
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

fn parse(text: &str) -> Result<KeyId, Fault> {
    text.parse().map_err(|_| Fault::unknown("key"))
}

/// One key, without its text.
#[utoipa::path(get, path = "/api/v1/keys/{key}", tag = "keys", security(("token" = [])),
    params(("key" = String, Path, description = "Key ID")),
    responses((status = 200, body = KeyInfo), (status = 404, body = Problem)))]
pub(super) async fn find(
    State(server): Shared,
    Path(id): Path<String>,
) -> Result<Json<KeyInfo>, Fault> {
    let mut connection = server.store.read().await?;
    let found = keys::find(&mut connection, server.clock.now(), parse(&id)?).await?;
    found.map(Json).ok_or_else(|| Fault::unknown("key"))
}

/// The devices that came in with a key, the latest first.
#[utoipa::path(get, path = "/api/v1/keys/{key}/uses", tag = "keys", security(("token" = [])),
    params(("key" = String, Path, description = "Key ID")),
    responses((status = 200, body = Vec<KeyUse>), (status = 404, body = Problem)))]
pub(super) async fn uses(
    State(server): Shared,
    Path(id): Path<String>,
) -> Result<Json<Vec<KeyUse>>, Fault> {
    let id = parse(&id)?;
    let mut connection = server.store.read().await?;
    if keys::find(&mut connection, server.clock.now(), id)
        .await?
        .is_none()
    {
        return Err(Fault::unknown("key"));
    }
    Ok(Json(keys::uses(&mut connection, id).await?))
}

/// Disables a key, or enables it again. Devices that it took on stay.
#[utoipa::path(patch, path = "/api/v1/keys/{key}", tag = "keys", security(("token" = [])), request_body = KeyChange,
    params(("key" = String, Path, description = "Key ID")),
    responses((status = 200, body = KeyInfo), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem)))]
pub(super) async fn change(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
    Json(wanted): Json<KeyChange>,
) -> Result<Json<KeyInfo>, Fault> {
    let (id, now) = (parse(&id)?, server.clock.now());
    let mut tx = server.store.begin().await?;
    let known = keys::find(&mut tx, now, id).await?;
    let known = known.ok_or_else(|| Fault::unknown("key"))?;
    if known.state == KeyState::Revoked {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "key_revoked",
            "This key was revoked, which is for good: make another one.",
        ));
    }
    let KeyChange { enabled } = wanted;
    keys::set_enabled(&mut tx, now, id, enabled).await?;
    let action = if enabled {
        "key.enabled"
    } else {
        "key.disabled"
    };
    audit::append(&mut tx, now, Line::new(operator.actor(), action, id)).await?;
    let changed = keys::find(&mut tx, now, id).await?;
    tx.commit().await?;
    changed.map(Json).ok_or_else(|| Fault::unknown("key"))
}

/// Revokes a key. Devices that it took on stay.
#[utoipa::path(delete, path = "/api/v1/keys/{key}", tag = "keys", security(("token" = [])),
    params(("key" = String, Path, description = "Key ID")),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn revoke(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    let (id, now) = (parse(&id)?, server.clock.now());
    let mut tx = server.store.begin().await?;
    if keys::find(&mut tx, now, id).await?.is_none() {
        return Err(Fault::unknown("key"));
    }
    keys::revoke(&mut tx, now, id).await?;
    let line = Line::new(operator.actor(), "key.revoked", id);
    audit::append(&mut tx, now, line).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
