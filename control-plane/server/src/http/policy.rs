//! What holds for every device.

use axum::extract::{Extension, State};
use umbra_protocol::api::{Policy, Problem};

use super::Shared;
use super::auth::Operator;
use super::body::Json;
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::hub::News;
use crate::settings;
use crate::store::meta;

/// What holds for every device.
#[utoipa::path(get, path = "/api/v1/policy", tag = "server", security(("token" = [])),
    responses((status = 200, body = Policy)))]
pub(super) async fn find(State(server): Shared) -> Result<Json<Policy>, Fault> {
    let mut connection = server.store.read().await?;
    Ok(Json(meta::policy(&mut connection).await?))
}

/// Sets what holds for every device; devices that are online hear of it at once.
#[utoipa::path(put, path = "/api/v1/policy", tag = "server", security(("token" = [])), request_body = Policy,
    responses((status = 200, body = Policy), (status = 403, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn set(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Json(policy): Json<Policy>,
) -> Result<Json<Policy>, Fault> {
    if policy.gateway_connections == Some(0) {
        return Err(Fault::invalid(
            "At least 1 device may connect through gateways; leave the limit out for any number.",
        ));
    }
    let mut tx = server.store.begin().await?;
    let before = meta::policy(&mut tx).await?;
    let settings = before.enforce_secure_mode != policy.enforce_secure_mode;
    let gateways = before.gateway_connections != policy.gateway_connections;
    settings::set_policy(&mut tx, policy).await?;
    let now = server.clock.now();
    if settings {
        let line = Line::new(operator.actor(), "policy.set", "enforce_secure_mode");
        let line = line.detail(policy.enforce_secure_mode);
        audit::append(&mut tx, now, line).await?;
    }
    if gateways {
        let line = Line::new(operator.actor(), "policy.set", "gateway_connections");
        let limit = policy.gateway_connections;
        let line = line.detail(limit.map_or("any number".to_owned(), |limit| limit.to_string()));
        audit::append(&mut tx, now, line).await?;
    }
    tx.commit().await?;
    if settings {
        server.hub.tell_all(&News::Settings);
    }
    if gateways {
        server.gateways.reload(&server.store).await?;
    }
    Ok(Json(policy))
}
