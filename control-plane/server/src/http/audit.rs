//! The audit log, page by page.

use axum::extract::State;
use serde::Deserialize;
use umbra_protocol::api::AuditEntry;

use super::Shared;
use super::body::{Json, Query};
use super::problem::Fault;
use crate::audit;

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only lines with smaller numbers: the last number of the page before.
    before: Option<u64>,
    /// At most so many, 100 if nothing is said, 1,000 at most.
    limit: Option<u32>,
}

/// Lines of the audit log, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", security(("token" = [])), params(Page),
    responses((status = 200, body = Vec<AuditEntry>)))]
pub(super) async fn page(
    State(server): Shared,
    Query(Page { before, limit }): Query<Page>,
) -> Result<Json<Vec<AuditEntry>>, Fault> {
    let mut connection = server.store.read().await?;
    let limit = limit.unwrap_or(100).min(1_000);
    Ok(Json(audit::page(&mut connection, before, limit).await?))
}
