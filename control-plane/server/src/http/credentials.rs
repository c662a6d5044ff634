//! What a device needs to find and to trust this server and its gateways.

use axum::extract::State;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use umbra_protocol::Fingerprint;
use umbra_protocol::api::{GatewayCredentials, ServerCredentials};

use super::Shared;
use super::body::Json;
use crate::server::Server;
use crate::store::gateways::GatewayOnFile;

/// Host, port and root certificate of this server, and of its gateways.
#[utoipa::path(get, path = "/api/v1/credentials", tag = "server", security(("token" = [])),
    responses((status = 200, body = ServerCredentials)))]
pub(super) async fn credentials(State(server): Shared) -> Json<ServerCredentials> {
    let first = server.endpoints.first();
    let mut gateways: Vec<GatewayCredentials> = server
        .gateways
        .wanted()
        .gateways
        .iter()
        .flat_map(|gateway| of_gateway(&server, gateway))
        .collect();
    gateways.sort_by_key(|gateway| !gateway.attached);
    Json(ServerCredentials {
        host: first.map(|first| first.host.clone()).unwrap_or_default(),
        port: first.map(|first| first.port).unwrap_or_default(),
        root_fingerprint: server.authority.root_fingerprint,
        root_certificate: server.authority.root_pem.clone(),
        gateways,
    })
}

/// One entry for each root that a device may find above the gateway's certificate.
fn of_gateway(server: &Server, gateway: &GatewayOnFile) -> Vec<GatewayCredentials> {
    let roots: Vec<Fingerprint> = if gateway.roots.is_empty() {
        vec![server.authority.root_fingerprint]
    } else {
        // They were checked when they were filed.
        gateway
            .roots
            .iter()
            .filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok())
            .map(|root| Fingerprint::of_certificate(&root))
            .collect()
    };
    let attached = server.gateways.status(gateway.row).attached;
    roots
        .into_iter()
        .map(|root_fingerprint| GatewayCredentials {
            name: gateway.name.clone(),
            host: gateway.external.host().to_owned(),
            port: gateway.external.port(),
            root_fingerprint,
            attached,
        })
        .collect()
}
