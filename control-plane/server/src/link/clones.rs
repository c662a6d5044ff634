//! Two machines with one key: a disk was copied. The server notices that they take turns, tells the administrators, and has the
//! key replaced; whichever machine gets the new one is the device from then on, and the others are told what to do.

use umbra_protocol::command::{Action, Command};
use umbra_protocol::{CommandId, Refusal, RefusalCode};

use crate::audit::{self, Actor, Line};
use crate::random;
use crate::store::devices::{self, DeviceCertificate, DeviceOnFile, Row};
use crate::store::{Change, StoreError, commands};

/// A device's machines take turns. Said, and acted upon, once until the key is another one or an administrator has looked
/// into it.
pub(super) async fn suspect(
    tx: &mut Change,
    now: i64,
    device: &DeviceOnFile,
    peer: &str,
) -> Result<(), StoreError> {
    if !devices::suspect_clone(tx, now, device.row).await? {
        return Ok(());
    }
    let line = Line::new(
        Actor::Device(device.unit_id.clone()),
        "device.clone_suspected",
        device.certificate.device_id,
    );
    let before = device.peer_address.as_deref().unwrap_or("unknown");
    let detail = format!(
        "two machines take turns under one key, from {before} and from {peer}: a disk was copied; the first to come gets a new key"
    );
    audit::append(tx, now, line.detail(detail)).await?;
    let waiting = commands::waiting(tx, device.row, 0).await?;
    if waiting
        .iter()
        .any(|(_, command)| command.action == Action::Rekey)
    {
        return Ok(());
    }
    let command = Command {
        id: CommandId::from_bytes(random::bytes()),
        action: Action::Rekey,
    };
    commands::add(tx, now, &Actor::Server.to_string(), device.row, &command).await?;
    let line = Line::new(Actor::Server, "command.given", command.id).detail(format!(
        "{} to {} ({})",
        command.action.name(),
        device.name,
        device.unit_id
    ));
    audit::append(tx, now, line).await
}

/// A machine has the key that a new one replaced.
pub(super) async fn refuse(
    tx: &mut Change,
    now: i64,
    row: Row,
    certificate: &DeviceCertificate,
    peer: &str,
) -> Result<(), StoreError> {
    if !devices::note_refused(tx, now, certificate.fingerprint).await? {
        return Ok(());
    }
    let device = devices::by_row(tx, row).await?;
    let line = Line::new(
        Actor::Device(device.unit_id),
        "device.copy_refused",
        certificate.device_id,
    )
    .refused(refusal().code)
    .detail(format!(
        "a machine at {peer} has the key that a new one replaced: it needs an identity of its own"
    ));
    audit::append(tx, now, line).await
}

/// What such a machine is told.
pub(super) fn refusal() -> Refusal {
    Refusal::new(
        RefusalCode::CertificateMismatch,
        "The key of this device was replaced on another machine: this one is a copy of it, or was set back to an old state. \
         Give it an identity of its own with “umbra-agent identity --replace --new-unit-id”, start its agent again, and have it taken on \
         with a new first-authentication key.",
    )
}
