//! The API's description for programs (OpenAPI 3.1), made from the same types and handlers that serve it.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    accounts, audit, commands, credentials, devices, gateways, health, keys, login, policy,
    sessions, settings,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Umbra management API", description = "Devices, keys, sessions and audit. Errors are problem documents (RFC 9457)."),
    paths(
        health::health, openapi, login::login, login::logout,
        accounts::list, accounts::add, accounts::remove, accounts::set_password,
        devices::list, devices::find, devices::change, devices::remove, devices::accept_certificate,
        devices::refuse_certificate, devices::clear_clone,
        settings::find, settings::set, commands::list, commands::add,
        gateways::list, gateways::make, gateways::find, gateways::change, gateways::remove, gateways::certificate,
        gateways::set_of_device,
        keys::list, keys::make, keys::find, keys::change, keys::revoke, keys::uses,
        credentials::credentials, sessions::list, sessions::offer, sessions::find, sessions::end,
        audit::page, policy::find, policy::set,
    ),
    modifiers(&Token)
)]
struct Api;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The description as JSON.
pub fn document() -> String {
    Api::openapi()
        .to_json()
        .expect("the description has string keys and no foreign types")
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "server", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}
