//! Commands to a device: they wait for it if it is offline.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use umbra_protocol::api::{CommandInfo, NewCommand, Problem};
use umbra_protocol::command::{Action, Command};
use umbra_protocol::{CommandId, limits};

use super::Shared;
use super::auth::{Operator, forbid};
use super::body::{Json, Path};
use super::devices::the_one;
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::http::Access;
use crate::hub::News;
use crate::random;
use crate::server::Server;
use crate::store::devices::DeviceOnFile;
use crate::store::{Change, commands};

/// Most commands that wait for one device.
const WAITING: u32 = 100;
/// Most commands in one answer.
const SHOWN: u32 = 200;

/// Who may give a command.
fn access(action: &Action) -> Access {
    match action {
        Action::Reboot | Action::Message { .. } => Access::Operators,
        Action::Shutdown
        | Action::Update
        | Action::Inventory
        | Action::Renew
        | Action::Rekey
        | Action::Connectors { .. } => Access::Administrators,
    }
}

/// The newest commands to a device, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{device}/commands", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")),
    responses((status = 200, body = Vec<CommandInfo>), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(server): Shared,
    Path(name): Path<String>,
) -> Result<Json<Vec<CommandInfo>>, Fault> {
    let mut connection = server.store.read().await?;
    let device = the_one(&mut connection, &name).await?;
    Ok(Json(
        commands::list(&mut connection, device.row, SHOWN).await?,
    ))
}

/// Gives a command. Operators may send messages and reboots, administrators everything.
#[utoipa::path(post, path = "/api/v1/devices/{device}/commands", tag = "devices", security(("token" = [])),
    params(("device" = String, Path, description = "Device ID, unit ID or name")), request_body = NewCommand,
    responses((status = 201, body = CommandInfo), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn add(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(name): Path<String>,
    Json(NewCommand { action }): Json<NewCommand>,
) -> Result<(StatusCode, Json<CommandInfo>), Fault> {
    if !access(&action).allows(operator.role) {
        return Err(forbid(&server, &operator, "command", action.name()).await);
    }
    if let Action::Message { text } = &action
        && (text.trim().is_empty() || text.len() > limits::PARAMETER_TEXT)
    {
        return Err(Fault::invalid(format!(
            "A message has 1 to {} bytes.",
            limits::PARAMETER_TEXT
        )));
    }
    if matches!(action, Action::Connectors { .. }) {
        return Err(Fault::invalid(
            "Ways to the server are not given as a command: move the device to a gateway, or take its gateways away.",
        ));
    }
    let mut tx = server.store.begin().await?;
    let device = the_one(&mut tx, &name).await?;
    give(&server, tx, operator, &device, action).await
}

/// Files a command in a transaction that was begun, ends it, and tells the device.
pub(super) async fn give(
    server: &Server,
    mut tx: Change,
    operator: Operator,
    device: &DeviceOnFile,
    action: Action,
) -> Result<(StatusCode, Json<CommandInfo>), Fault> {
    let now = server.clock.now();
    let command = Command {
        id: CommandId::from_bytes(random::bytes()),
        action,
    };
    if device.commands_waiting >= WAITING {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "too_many_commands",
            format!(
                "{WAITING} commands wait for this device already: they go out when it is online."
            ),
        ));
    }
    commands::add(&mut tx, now, &operator.user, device.row, &command).await?;
    let line = Line::new(operator.actor(), "command.given", command.id);
    let detail = format!(
        "{} to {} ({})",
        command.action.name(),
        device.name,
        device.unit_id
    );
    audit::append(&mut tx, now, line.detail(detail)).await?;
    tx.commit().await?;
    // A device that is offline gets it at its next link.
    let _ = server.hub.tell(device.row, News::Commands);
    let info = CommandInfo {
        id: command.id,
        action: command.action.name().into(),
        created_at: now,
        created_by: operator.user,
        state: None,
        sentence: None,
        facts: Default::default(),
        progress: None,
    };
    Ok((StatusCode::CREATED, Json(info)))
}
