//! Whether the server works, for monitors and load balancers.

use axum::extract::State;
use serde::Serialize;

use super::Shared;
use super::body::Json;
use super::problem::Fault;
use crate::store::meta;

/// The server works.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
}

/// Whether the server answers and can read its database.
#[utoipa::path(get, path = "/healthz", tag = "server", responses(
    (status = 200, body = Health), (status = 503, body = umbra_protocol::api::Problem)))]
pub(super) async fn health(State(server): Shared) -> Result<Json<Health>, Fault> {
    let mut connection = server.store.read().await?;
    meta::policy(&mut connection).await?;
    Ok(Json(Health { status: "ok" }))
}
