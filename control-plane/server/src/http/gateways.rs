//! Gateways on file, and which devices go through them. A gateway's key is in the answer that made it, and nowhere
//! afterwards.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use rustls::pki_types::CertificateDer;
use umbra_carrier::address::HostPort;
use umbra_carrier::tls::{
    DatePolicy, EnvelopeTrust, ServerTrust, certificates_from_pem, envelope_config,
};
use umbra_protocol::api::{
    CommandInfo, DeviceGateway, Gateway, GatewayChange, GatewayKeystore, NewGateway, Problem,
};
use umbra_protocol::command::Action;
use umbra_protocol::gateway::DEFAULT_PORT;
use umbra_protocol::limits;

use super::Shared;
use super::auth::Operator;
use super::body::{Json, Path};
use super::commands::give;
use super::devices::the_one;
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::ca::{CaError, Issued, to_pem};
use crate::gateways::connector;
use crate::server::{Server, log_failure};
use crate::store::gateways::{self, GatewayOnFile};

/// Most gateways of one server.
const MOST: usize = 256;
/// Most further names of one gateway.
const HOSTS: usize = 32;
/// Most roots of one gateway's own chain.
const ROOTS: usize = 4;

/// A gateway as consoles see it.
fn shown(server: &Server, gateway: &GatewayOnFile) -> Gateway {
    let status = server.gateways.status(gateway.row);
    let waiting = "The server is about to connect to it.".to_owned();
    Gateway {
        name: gateway.name.clone(),
        internal: gateway.internal.to_string(),
        external: gateway.external.to_string(),
        limit: gateway.limit,
        attached: status.attached,
        since: status.since,
        trouble: status
            .trouble
            .or_else(|| (!status.attached).then_some(waiting)),
        version: status.version,
        devices: server.hub.through(&gateway.name),
        certificate_until: gateway.certificate_until,
    }
}

fn unknown() -> Fault {
    Fault::unknown("gateway")
}

/// All gateways, oldest first.
#[utoipa::path(get, path = "/api/v1/gateways", tag = "gateways", security(("token" = [])),
    responses((status = 200, body = Vec<Gateway>)))]
pub(super) async fn list(State(server): Shared) -> Result<Json<Vec<Gateway>>, Fault> {
    let mut connection = server.store.read().await?;
    let all = gateways::list(&mut connection).await?;
    let shown = all.iter().map(|gateway| shown(&server, gateway));
    Ok(Json(shown.collect()))
}

/// One gateway.
#[utoipa::path(get, path = "/api/v1/gateways/{name}", tag = "gateways", security(("token" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = Gateway), (status = 404, body = Problem)))]
pub(super) async fn find(
    State(server): Shared,
    Path(name): Path<String>,
) -> Result<Json<Gateway>, Fault> {
    let mut connection = server.store.read().await?;
    let found = gateways::find(&mut connection, &name).await?;
    found
        .map(|gateway| Json(shown(&server, &gateway)))
        .ok_or_else(unknown)
}

/// Makes a gateway. The answer is the only time that its key leaves the server.
#[utoipa::path(post, path = "/api/v1/gateways", tag = "gateways", security(("token" = [])), request_body = NewGateway,
    responses((status = 201, body = GatewayKeystore), (status = 403, body = Problem), (status = 409, body = Problem),
    (status = 422, body = Problem)))]
pub(super) async fn make(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Json(wanted): Json<NewGateway>,
) -> Result<(StatusCode, Json<GatewayKeystore>), Fault> {
    if !super::is_user_name(&wanted.name) {
        return Err(Fault::invalid(
            "A gateway's name has 1 to 64 letters, digits, dots and dashes.",
        ));
    }
    let internal = address("internal address", &wanted.internal)?;
    let external = match &wanted.external {
        Some(external) => address("external address", external)?,
        None => internal.clone(),
    };
    if wanted.limit == Some(0) {
        return Err(Fault::invalid("A gateway's limit is at least 1."));
    }
    let now = server.clock.now();
    let mut gateway = gateways::NewGateway {
        name: wanted.name,
        internal,
        external,
        hosts: hosts(&wanted.hosts)?,
        limit: wanted.limit,
        roots: wanted.root.as_deref().map_or(Ok(Vec::new()), roots)?,
        certificate_until: None,
    };
    let issued = if gateway.roots.is_empty() {
        let on_file = GatewayOnFile {
            row: 0,
            name: gateway.name.clone(),
            internal: gateway.internal.clone(),
            external: gateway.external.clone(),
            hosts: gateway.hosts.clone(),
            limit: None,
            roots: Vec::new(),
            certificate_until: None,
        };
        Some(issue(&server, &on_file.certificate_hosts(), now)?)
    } else {
        None
    };
    gateway.certificate_until = issued.as_ref().map(|issued| issued.until);
    let mut tx = server.store.begin().await?;
    if gateways::list(&mut tx).await?.len() >= MOST {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "too_many_gateways",
            format!("One server has at most {MOST} gateways."),
        ));
    }
    if !gateways::add(&mut tx, now, &operator.user, &gateway).await? {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "gateway_exists",
            format!("There is a gateway “{}” already.", gateway.name),
        ));
    }
    let line = Line::new(operator.actor(), "gateway.created", &gateway.name);
    let detail = format!("{}, outside {}", gateway.internal, gateway.external);
    audit::append(&mut tx, now, line.detail(detail)).await?;
    tx.commit().await?;
    server.gateways.reload(&server.store).await?;
    Ok((StatusCode::CREATED, Json(keystore(&server, issued))))
}

/// Changes a gateway; what is absent stays. Its certificate stays as well: one for a new address has to be made.
#[utoipa::path(patch, path = "/api/v1/gateways/{name}", tag = "gateways", security(("token" = [])),
    params(("name" = String, Path, description = "Its name")), request_body = GatewayChange,
    responses((status = 200, body = Gateway), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 422, body = Problem)))]
pub(super) async fn change(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(change): Json<GatewayChange>,
) -> Result<Json<Gateway>, Fault> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let before = gateways::find(&mut tx, &name).await?.ok_or_else(unknown)?;
    let mut after = before.clone();
    if let Some(internal) = &change.internal {
        after.internal = address("internal address", internal)?;
    }
    if let Some(external) = &change.external {
        after.external = address("external address", external)?;
    }
    if let Some(limit) = change.limit {
        after.limit = (limit > 0).then_some(limit);
    }
    if after != before {
        gateways::change(&mut tx, &after).await?;
        let line = Line::new(operator.actor(), "gateway.changed", &after.name);
        let limit = after
            .limit
            .map_or("none".to_owned(), |limit| limit.to_string());
        let detail = format!(
            "{}, outside {}, limit {limit}",
            after.internal, after.external
        );
        audit::append(&mut tx, now, line.detail(detail)).await?;
        tx.commit().await?;
        server.gateways.reload(&server.store).await?;
    }
    Ok(Json(shown(&server, &after)))
}

/// Takes a gateway off the file. Devices that are linked through it are cut off, and need another way.
#[utoipa::path(delete, path = "/api/v1/gateways/{name}", tag = "gateways", security(("token" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn remove(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Fault> {
    let mut tx = server.store.begin().await?;
    let gateway = gateways::find(&mut tx, &name).await?.ok_or_else(unknown)?;
    gateways::remove(&mut tx, gateway.row).await?;
    let line = Line::new(operator.actor(), "gateway.removed", &gateway.name);
    let line = line.detail(&gateway.internal);
    audit::append(&mut tx, server.clock.now(), line).await?;
    tx.commit().await?;
    server.gateways.reload(&server.store).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new keystore for a gateway, with the names that it has now. The present certificate stays good until it ends.
#[utoipa::path(post, path = "/api/v1/gateways/{name}/certificate", tag = "gateways", security(("token" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 201, body = GatewayKeystore), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem)))]
pub(super) async fn certificate(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<GatewayKeystore>), Fault> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let mut gateway = gateways::find(&mut tx, &name).await?.ok_or_else(unknown)?;
    let issued = if gateway.roots.is_empty() {
        Some(issue(&server, &gateway.certificate_hosts(), now)?)
    } else {
        None
    };
    gateway.certificate_until = issued.as_ref().map(|issued| issued.until);
    gateways::change(&mut tx, &gateway).await?;
    let line = Line::new(operator.actor(), "gateway.certificate_made", &gateway.name);
    audit::append(&mut tx, now, line).await?;
    tx.commit().await?;
    server.gateways.reload(&server.store).await?;
    Ok((StatusCode::CREATED, Json(keystore(&server, issued))))
}

/// Moves a device to a gateway, or takes its gateways away. The device keeps its ways unless the new one works; the
/// command's result says how it went.
#[utoipa::path(put, path = "/api/v1/devices/{device}/gateway", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")), request_body = DeviceGateway,
    responses((status = 201, body = CommandInfo), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem)))]
pub(super) async fn set_of_device(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(DeviceGateway { gateway }): Json<DeviceGateway>,
) -> Result<(StatusCode, Json<CommandInfo>), Fault> {
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    let mut connectors = server.direct();
    let (action, to) = match &gateway {
        Some(gateway) => {
            let gateway = gateways::find(&mut tx, gateway)
                .await?
                .ok_or_else(unknown)?;
            connectors.insert(0, connector(&gateway));
            ("device.gateway_set", gateway.name)
        }
        None => {
            // From anywhere else, it could be the last that is heard of it.
            let online = server.hub.find(device.row);
            let code = "device_not_direct";
            let refused = |detail| Err(Fault::new(StatusCode::CONFLICT, code, detail));
            match online.map(|online| online.gateway) {
                Some(None) => {}
                Some(Some(gateway)) => {
                    return refused(format!(
                        "“{}” is linked through the gateway “{gateway}”: its gateways can only be taken away while it is \
                         linked directly, in the server's network.",
                        device.name
                    ));
                }
                None => {
                    return refused(format!(
                        "“{}” is offline: its gateways can only be taken away while it is linked directly, in the \
                         server's network.",
                        device.name
                    ));
                }
            }
            ("device.gateway_removed", String::new())
        }
    };
    let line = Line::new(operator.actor(), action, device.certificate.device_id);
    let detail = format!("{} ({}) {to}", device.name, device.unit_id);
    audit::append(&mut tx, server.clock.now(), line.detail(detail.trim())).await?;
    give(
        &server,
        tx,
        operator,
        &device,
        Action::Connectors { connectors },
    )
    .await
}

fn address(what: &str, text: &str) -> Result<HostPort, Fault> {
    HostPort::parse(text, DEFAULT_PORT)
        .map_err(|error| Fault::invalid(format!("The gateway's {what} cannot be used: {error}.")))
}

fn hosts(texts: &[String]) -> Result<Vec<String>, Fault> {
    if texts.len() > HOSTS {
        return Err(Fault::invalid(format!(
            "A gateway has at most {HOSTS} further names."
        )));
    }
    texts
        .iter()
        .map(|text| {
            HostPort::new(text.trim(), DEFAULT_PORT)
                .map(|host| host.host().to_ascii_lowercase())
                .map_err(|error| {
                    Fault::invalid(format!("“{text}” cannot be a name of it: {error}."))
                })
        })
        .collect()
}

/// Reads the roots of a gateway's own chain: one certificate or a few, fit to be roots.
fn roots(pem: &str) -> Result<Vec<String>, Fault> {
    let wrong = |why: &dyn std::fmt::Display| {
        Fault::invalid(format!(
            "The gateway's root certificate cannot be used: {why}."
        ))
    };
    let certificates = certificates_from_pem(pem).map_err(|error| wrong(&error))?;
    if certificates.is_empty() || certificates.len() > ROOTS {
        return Err(wrong(&format!(
            "1 to {ROOTS} certificates are accepted, and there are {}",
            certificates.len()
        )));
    }
    let trust = EnvelopeTrust::pinned(ServerTrust::PinnedRoots(certificates.clone()));
    envelope_config(trust, DatePolicy::Enforce).map_err(|error| wrong(&error))?;
    let text = |certificate: &CertificateDer<'_>| to_pem("CERTIFICATE", certificate);
    let texts: Vec<String> = certificates.iter().map(text).collect();
    if texts
        .iter()
        .any(|text| text.len() > limits::CERTIFICATE_PEM)
    {
        return Err(wrong(&"it is far larger than such a certificate can be"));
    }
    Ok(texts)
}

fn issue(server: &Server, hosts: &[String], now: i64) -> Result<Issued, Fault> {
    match server.authority.issue(hosts, now) {
        Ok(Some(issued)) => Ok(issued),
        Ok(None) => Err(Fault::new(
            StatusCode::CONFLICT,
            "no_authority",
            "This server uses an imported chain and does not have its authority's key, so it cannot make a certificate for \
             a gateway: give the gateway a chain of its own, and name that chain's root certificate here.",
        )),
        Err(error) => Err(not_issued(&error)),
    }
}

fn not_issued(error: &CaError) -> Fault {
    log_failure("a gateway's certificate could not be made", error);
    Fault::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "The gateway's certificate could not be made; the server's log says why. Nothing was changed.",
    )
}

fn keystore(server: &Server, issued: Option<Issued>) -> GatewayKeystore {
    let (chain, key) = issued.map(|issued| (issued.chain, issued.key)).unzip();
    GatewayKeystore {
        servers: server.authority.uplink_pem(),
        chain,
        key,
    }
}
