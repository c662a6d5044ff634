//! The parameters that the server decides for a device.

use axum::extract::{Extension, State};
use umbra_protocol::api::{DeviceSettings, Problem};
use umbra_protocol::limits;
use umbra_protocol::settings::Value;

use super::Shared;
use super::auth::Operator;
use super::body::{Json, Path};
use super::devices::the_one;
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::hub::News;
use crate::settings as in_force;
use crate::store::devices;

/// What the administrators decided for this device, without what the policy says for all.
#[utoipa::path(get, path = "/api/v1/devices/{device}/settings", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")),
    responses((status = 200, body = DeviceSettings), (status = 404, body = Problem)))]
pub(super) async fn find(
    State(server): Shared,
    Path(name): Path<String>,
) -> Result<Json<DeviceSettings>, Fault> {
    let mut connection = server.store.read().await?;
    let device = the_one(&mut connection, &name).await?;
    let own = devices::own_settings(&mut connection, device.row).await?;
    Ok(Json(DeviceSettings { values: own.values }))
}

/// Replaces what the administrators decided for this device.
#[utoipa::path(put, path = "/api/v1/devices/{device}/settings", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")), request_body = DeviceSettings,
    responses((status = 200, body = DeviceSettings), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn set(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(wanted): Json<DeviceSettings>,
) -> Result<Json<DeviceSettings>, Fault> {
    check(&wanted)?;
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    in_force::set(&mut tx, device.row, &wanted.values).await?;
    let names: Vec<&str> = wanted.values.keys().map(String::as_str).collect();
    // Values may be secrets of the site; their names are enough.
    let line = Line::new(
        operator.actor(),
        "device.settings_set",
        device.certificate.device_id,
    );
    audit::append(&mut tx, server.clock.now(), line.detail(names.join(" "))).await?;
    tx.commit().await?;
    // A device that is offline gets them at its next link.
    let _ = server.hub.tell(device.row, News::Settings);
    Ok(Json(wanted))
}

/// Which parameters exist is the device's business; here only what no device can read is refused.
fn check(wanted: &DeviceSettings) -> Result<(), Fault> {
    // One place is kept for what the policy adds.
    if wanted.values.len() >= limits::SETTINGS {
        return Err(Fault::invalid(format!(
            "At most {} parameters can be set.",
            limits::SETTINGS - 1
        )));
    }
    let mut total = 0;
    for (name, value) in &wanted.values {
        let named = !name.is_empty()
            && name.len() <= limits::LABEL
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'%'));
        if !named {
            return Err(Fault::invalid(format!(
                "“{}” is no parameter's name.",
                name.escape_debug().take(80).collect::<String>()
            )));
        }
        let size = match value {
            Value::Bool(_) | Value::Int(_) => 8,
            Value::Text(text) => text.len(),
            Value::List(texts) => texts.iter().map(|text| text.len() + 1).sum(),
        };
        if size > limits::PARAMETER_TEXT {
            return Err(Fault::invalid(format!(
                "The value of {name} is longer than {} bytes.",
                limits::PARAMETER_TEXT
            )));
        }
        total += size + name.len() + 16;
    }
    if total > limits::FRAME / 2 {
        return Err(Fault::invalid(
            "The parameters together are larger than one message to a device.",
        ));
    }
    Ok(())
}
