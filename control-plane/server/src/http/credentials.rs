//! What a device needs to find and to trust this server.

use axum::extract::State;
use umbra_protocol::api::ServerCredentials;

use super::Shared;
use super::body::Json;

/// Host, port and root certificate of this server.
#[utoipa::path(get, path = "/api/v1/credentials", tag = "server", security(("token" = [])),
    responses((status = 200, body = ServerCredentials)))]
pub(super) async fn credentials(State(server): Shared) -> Json<ServerCredentials> {
    let first = server.endpoints.first();
    Json(ServerCredentials {
        host: first.map(|first| first.host.clone()).unwrap_or_default(),
        port: first.map(|first| first.port).unwrap_or_default(),
        root_fingerprint: server.authority.root_fingerprint,
        root_certificate: server.authority.root_pem.clone(),
    })
}
