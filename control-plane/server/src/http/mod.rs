//! The management API: every route in one table with who may use it, errors as problem documents. A route that is not
//! in the table does not exist; a role that is not named does not get in.

mod accounts;
pub use accounts::is_user_name;
mod audit;
mod auth;
mod body;
mod commands;
mod credentials;
mod devices;
mod gateways;
mod health;
mod keys;
mod login;
mod openapi;
mod policy;
mod problem;
mod sessions;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use umbra_protocol::api::Role;

pub use openapi::document;
pub use problem::Fault;

use crate::server::Server;

/// Largest body of a request.
const BODY: usize = 256 * 1024;
/// Longest time for a request, its body included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Making a thousand keys takes longer.
const PATIENCE_FOR_KEYS: Duration = Duration::from_secs(180);

/// From where a request came.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a log-in.
    Anyone,
    /// Every account.
    SignedIn,
    /// Administrators and operators.
    Operators,
    /// Administrators only.
    Administrators,
}

impl Access {
    /// Whether a role is enough.
    pub fn allows(self, role: Role) -> bool {
        match (self, role) {
            (Access::Anyone | Access::SignedIn, _) => true,
            (Access::Operators, Role::Administrator | Role::Operator) => true,
            (Access::Operators, Role::Auditor) => false,
            (Access::Administrators, Role::Administrator) => true,
            (Access::Administrators, Role::Operator | Role::Auditor) => false,
        }
    }
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its method.
    pub method: &'static str,
    /// Its path, with names in braces.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident => $handler:expr,)+) => {
        /// Every route and who may use it.
        pub const ROUTES: &[Route] = &[
            $(Route { method: stringify!($method), path: $path, access: Access::$access },)+
        ];

        fn handlers() -> Vec<(&'static str, MethodRouter<Arc<Server>>)> {
            vec![$(($path, $method($handler)),)+]
        }
    };
}

routes! {
    get "/healthz" Anyone => health::health,
    get "/api/v1/openapi.json" Anyone => openapi::openapi,
    post "/api/v1/login" Anyone => login::login,
    post "/api/v1/logout" SignedIn => login::logout,
    get "/api/v1/accounts" Administrators => accounts::list,
    post "/api/v1/accounts" Administrators => accounts::add,
    delete "/api/v1/accounts/{user}" Administrators => accounts::remove,
    put "/api/v1/accounts/{user}/password" SignedIn => accounts::set_password,
    get "/api/v1/devices" SignedIn => devices::list,
    get "/api/v1/devices/{device}" SignedIn => devices::find,
    patch "/api/v1/devices/{device}" Administrators => devices::change,
    delete "/api/v1/devices/{device}" Administrators => devices::remove,
    post "/api/v1/devices/{device}/certificate" Administrators => devices::accept_certificate,
    post "/api/v1/devices/{device}/certificate/refusal" Administrators => devices::refuse_certificate,
    delete "/api/v1/devices/{device}/clone-suspicion" Administrators => devices::clear_clone,
    get "/api/v1/devices/{device}/settings" SignedIn => settings::find,
    put "/api/v1/devices/{device}/settings" Administrators => settings::set,
    get "/api/v1/devices/{device}/commands" SignedIn => commands::list,
    post "/api/v1/devices/{device}/commands" Operators => commands::add,
    put "/api/v1/devices/{device}/gateway" Administrators => gateways::set_of_device,
    get "/api/v1/gateways" SignedIn => gateways::list,
    post "/api/v1/gateways" Administrators => gateways::make,
    get "/api/v1/gateways/{name}" SignedIn => gateways::find,
    patch "/api/v1/gateways/{name}" Administrators => gateways::change,
    delete "/api/v1/gateways/{name}" Administrators => gateways::remove,
    post "/api/v1/gateways/{name}/certificate" Administrators => gateways::certificate,
    get "/api/v1/keys" SignedIn => keys::list,
    post "/api/v1/keys" Administrators => keys::make,
    get "/api/v1/keys/{key}" SignedIn => keys::find,
    patch "/api/v1/keys/{key}" Administrators => keys::change,
    delete "/api/v1/keys/{key}" Administrators => keys::revoke,
    get "/api/v1/keys/{key}/uses" SignedIn => keys::uses,
    get "/api/v1/credentials" SignedIn => credentials::credentials,
    get "/api/v1/sessions" SignedIn => sessions::list,
    post "/api/v1/sessions" Operators => sessions::offer,
    get "/api/v1/sessions/{session}" SignedIn => sessions::find,
    delete "/api/v1/sessions/{session}" Operators => sessions::end,
    get "/api/v1/audit" SignedIn => audit::page,
    get "/api/v1/policy" SignedIn => policy::find,
    put "/api/v1/policy" Administrators => policy::set,
}

/// The API of a server.
pub fn router(server: Arc<Server>) -> Router {
    let mut router = Router::new();
    for (path, handler) in handlers() {
        router = router.route(path, handler);
    }
    router
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&server),
            auth::authorise,
        ))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(around))
        .with_state(server)
}

async fn not_found() -> Fault {
    Fault::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "There is nothing at this address.",
    )
}

async fn method_not_allowed() -> Fault {
    Fault::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This address does not take this method.",
    )
}

/// Around every request: a time limit, and headers that keep answers out of caches.
async fn around(request: Request, next: Next) -> Response {
    let keys = request.method() == Method::POST && request.uri().path() == "/api/v1/keys";
    let patience = if keys { PATIENCE_FOR_KEYS } else { PATIENCE };
    let mut response = match tokio::time::timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Fault::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "The request took too long: try again.",
        )
        .into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

type Shared = State<Arc<Server>>;

#[cfg(test)]
mod tests;
