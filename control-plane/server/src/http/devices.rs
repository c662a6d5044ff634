//! Devices on file.

use std::sync::atomic::Ordering;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::Deserialize;
use sqlx::SqliteConnection;
use umbra_protocol::api::{AcceptCertificate, Device, DeviceChange, Problem};
use umbra_protocol::fingerprint::Fingerprint;
use umbra_protocol::{Refusal, RefusalCode, limits};

use super::Shared;
use super::auth::Operator;
use super::body::{Json, Path, Query};
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::enrolment::mismatch;
use crate::server::Server;
use crate::sessions::addresses;
use crate::store::devices::{self, DeviceCertificate, DeviceOnFile, Removal};

/// What to look for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Search {
    /// Part of a name, unit ID, operating system or address, or the beginning of a device ID.
    #[serde(default)]
    q: String,
}

/// The one device that a name in a path means.
pub(super) async fn the_one(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<DeviceOnFile, Fault> {
    let mut found = devices::named(connection, name).await?;
    match (found.pop(), found.len()) {
        (Some(device), 0) => Ok(device),
        (None, _) => Err(Fault::unknown("device")),
        (Some(_), more) => Err(Fault::new(
            StatusCode::CONFLICT,
            "ambiguous_device",
            format!(
                "{} devices have this name or this unit ID: use a device ID, as “umbra devices show” and “--json” tell it.",
                more + 1
            ),
        )),
    }
}

/// A device as consoles see it.
fn shown(server: &Server, device: DeviceOnFile) -> Device {
    let online = server.hub.find(device.row);
    let shadow_addresses = match (&online, device.shadow_port) {
        (Some(online), _) => crate::sessions::shadow_addresses(online),
        (None, Some(port)) => addresses(device.peer_address.as_deref(), &device.addresses, port),
        (None, None) => Vec::new(),
    };
    Device {
        id: device.certificate.device_id,
        unit_id: device.unit_id,
        name: device.name,
        online: online.is_some(),
        last_seen: online
            .as_ref()
            .map(|online| online.last_heard.load(Ordering::Relaxed))
            .or(device.last_seen),
        os: device.os,
        agent_version: device.agent_version,
        gateway: online
            .as_ref()
            .and_then(|online| online.gateway.as_deref().map(str::to_owned)),
        shadow_addresses,
        certificate: device.certificate.fingerprint,
        conflicting_certificate: device.conflict,
        clone_suspected_at: device.clone_suspected_at,
        copy_refused_at: device.copy_refused_at,
        settings_applied: device.settings_applied,
        settings_revision: device.settings_revision,
        settings_refused: device.settings_refused,
        commands_waiting: device.commands_waiting,
        enrolled_at: device.enrolled_at,
    }
}

/// Devices on file, by name.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", security(("token" = [])), params(Search),
    responses((status = 200, body = Vec<Device>)))]
pub(super) async fn list(
    State(server): Shared,
    Query(Search { q }): Query<Search>,
) -> Result<Json<Vec<Device>>, Fault> {
    let mut connection = server.store.read().await?;
    let found = devices::list(&mut connection, q.trim()).await?;
    Ok(Json(
        found
            .into_iter()
            .map(|device| shown(&server, device))
            .collect(),
    ))
}

/// One device.
#[utoipa::path(get, path = "/api/v1/devices/{device}", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")),
    responses((status = 200, body = Device), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn find(
    State(server): Shared,
    Path(name): Path<String>,
) -> Result<Json<Device>, Fault> {
    let mut connection = server.store.read().await?;
    let device = the_one(&mut connection, &name).await?;
    Ok(Json(shown(&server, device)))
}

/// Changes a device's name.
#[utoipa::path(patch, path = "/api/v1/devices/{device}", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")), request_body = DeviceChange,
    responses((status = 200, body = Device), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(DeviceChange { name: new }): Json<DeviceChange>,
) -> Result<Json<Device>, Fault> {
    let new = umbra_protocol::refusal::clip(new.trim().to_owned());
    if new.is_empty() || new.len() > limits::LABEL {
        return Err(Fault::invalid(format!(
            "A device's name has 1 to {} bytes.",
            limits::LABEL
        )));
    }
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    devices::rename(&mut tx, device.row, &new).await?;
    let line = Line::new(
        operator.actor(),
        "device.renamed",
        device.certificate.device_id,
    );
    let detail = format!("from {} to {new}", device.name);
    audit::append(&mut tx, server.clock.now(), line.detail(detail)).await?;
    let changed = devices::by_row(&mut tx, device.row).await?;
    tx.commit().await?;
    Ok(Json(shown(&server, changed)))
}

/// Takes a device off the file. It has to be taken on again with a key before it can link.
#[utoipa::path(delete, path = "/api/v1/devices/{device}", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn remove(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
) -> Result<StatusCode, Fault> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    devices::remove(&mut tx, now, device.row, Removal::ByAdministrator).await?;
    let line = Line::new(
        operator.actor(),
        "device.removed",
        device.certificate.device_id,
    );
    let detail = format!("{} ({})", device.name, device.unit_id);
    audit::append(&mut tx, now, line.detail(detail)).await?;
    tx.commit().await?;
    server.hub.end(
        device.row,
        Refusal::new(
            RefusalCode::DeviceRemoved,
            "An administrator removed this device.",
        ),
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Accepts the certificate of a conflict as the device's certificate. It has to be named, so that nobody can put
/// another one in its place meanwhile.
#[utoipa::path(post, path = "/api/v1/devices/{device}/certificate", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")), request_body = AcceptCertificate,
    responses((status = 200, body = Device), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn accept_certificate(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(AcceptCertificate { certificate }): Json<AcceptCertificate>,
) -> Result<Json<Device>, Fault> {
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    let next = presented(&mut tx, &device, certificate).await?;
    let taken = devices::by_key(&mut tx, next.device_id)
        .await?
        .is_some_and(|other| other != device.row);
    if taken {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "certificate_of_other_device",
            "Another device on file has this certificate's key.",
        ));
    }
    devices::replace_certificate(&mut tx, now, device.row, &next).await?;
    if next.device_id != device.certificate.device_id {
        devices::clear_clone(&mut tx, device.row).await?;
        server.hub.forget_runs(device.row);
    }
    let line = Line::new(
        operator.actor(),
        "device.certificate_accepted",
        next.device_id,
    );
    let detail = format!(
        "{} instead of {}",
        next.fingerprint, device.certificate.fingerprint
    );
    audit::append(&mut tx, now, line.detail(detail)).await?;
    let changed = devices::by_row(&mut tx, device.row).await?;
    tx.commit().await?;
    server
        .hub
        .end(device.row, mismatch(device.certificate.fingerprint));
    Ok(Json(shown(&server, changed)))
}

/// The certificate that somebody presents in place of a device's own, if it is this one.
async fn presented(
    connection: &mut SqliteConnection,
    device: &DeviceOnFile,
    certificate: Fingerprint,
) -> Result<DeviceCertificate, Fault> {
    devices::conflict(connection, device.row)
        .await?
        .and_then(|der| DeviceCertificate::read(&der).ok())
        .filter(|next| next.fingerprint == certificate)
        .ok_or_else(|| {
            Fault::new(
                StatusCode::CONFLICT,
                "no_such_conflict",
                "No device has presented this certificate under this unit ID (or another one since): look at the device \
                 again.",
            )
        })
}

/// Refuses the certificate that somebody presents in place of a device's own: it isn't offered again, and who has it stays out.
#[utoipa::path(post, path = "/api/v1/devices/{device}/certificate/refusal", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")), request_body = AcceptCertificate,
    responses((status = 200, body = Device), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn refuse_certificate(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(AcceptCertificate { certificate }): Json<AcceptCertificate>,
) -> Result<Json<Device>, Fault> {
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    let refused = presented(&mut tx, &device, certificate).await?;
    devices::refuse_conflict(&mut tx, device.row).await?;
    let line = Line::new(
        operator.actor(),
        "device.certificate_refused",
        device.certificate.device_id,
    );
    let detail = format!(
        "{} stays, {} is not taken in its place",
        device.certificate.fingerprint, refused.fingerprint
    );
    audit::append(&mut tx, server.clock.now(), line.detail(detail)).await?;
    let changed = devices::by_row(&mut tx, device.row).await?;
    tx.commit().await?;
    Ok(Json(shown(&server, changed)))
}

/// Says that a device is no clone, or no longer one. Should two machines still take turns under its key, or a copy with a replaced
/// key come again, it is marked again.
#[utoipa::path(delete, path = "/api/v1/devices/{device}/clone-suspicion", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")),
    responses((status = 200, body = Device), (status = 404, body = Problem)))]
pub(super) async fn clear_clone(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
) -> Result<Json<Device>, Fault> {
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    let suspected = devices::clear_clone(&mut tx, device.row).await?;
    if devices::forget_copies(&mut tx, device.row).await? || suspected {
        let line = Line::new(
            operator.actor(),
            "device.clone_cleared",
            device.certificate.device_id,
        );
        let detail = format!("{} ({})", device.name, device.unit_id);
        audit::append(&mut tx, server.clock.now(), line.detail(detail)).await?;
    }
    let changed = devices::by_row(&mut tx, device.row).await?;
    tx.commit().await?;
    server.hub.forget_runs(device.row);
    Ok(Json(shown(&server, changed)))
}
