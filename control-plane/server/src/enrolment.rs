//! Taking a device on: the proof of a first-authentication key, then key and device filed in one transaction. Whoever
//! does not prove the key learns nothing about it, not even whether it exists.

use std::time::Instant;

use sqlx::SqliteConnection;
use umbra_protocol::api::{KeyInfo, KeyKind, KeyState};
use umbra_protocol::enrolment::{Enrol, Enrolled};
use umbra_protocol::first_auth::{Transcript, Verifier};
use umbra_protocol::hello::DeviceFacts;
use umbra_protocol::{Fingerprint, Refusal, RefusalCode};

use crate::audit::{self, Actor, Line};
use crate::server::{Server, log_failure};
use crate::settings;
use crate::store::devices::{self, DeviceCertificate, Row, Standing};
use crate::store::{Change, StoreError, keys};
use crate::throttle::Source;

/// What binds a proof to its connection.
#[derive(Debug)]
pub struct Binding<'a> {
    /// From the TLS exporter.
    pub exporter: &'a [u8; 32],
    /// The certificate that the device presented.
    pub certificate: &'a DeviceCertificate,
    /// The nonce of the challenge.
    pub nonce: &'a str,
    /// From where the device comes, as text.
    pub peer: &'a str,
    /// From where the device comes, for counting failures.
    pub source: Source,
    /// The gateway that it came through.
    pub gateway: Option<&'a str>,
}

/// How the filing went.
#[derive(Debug)]
enum Filing {
    Filed(Row),
    Refused(Refusal),
}

/// Answers a device's proof.
pub async fn answer(
    server: &Server,
    binding: &Binding<'_>,
    facts: &DeviceFacts,
    enrol: &Enrol,
) -> Result<Enrolled, Refusal> {
    match try_answer(server, binding, facts, enrol).await {
        Ok(answer) => answer,
        Err(error) => {
            log_failure("a device could not be taken on", &error);
            Err(Refusal::new(
                RefusalCode::Internal,
                "The server cannot write to its database; the device tries again.",
            ))
        }
    }
}

async fn try_answer(
    server: &Server,
    binding: &Binding<'_>,
    facts: &DeviceFacts,
    enrol: &Enrol,
) -> Result<Result<Enrolled, Refusal>, StoreError> {
    let transcript = Transcript::new(
        binding.exporter,
        &binding.certificate.der,
        enrol.key_id,
        &facts.unit_id,
        binding.nonce,
        &enrol.nonce,
    );
    let known = {
        let mut connection = server.store.read().await?;
        keys::verifier(&mut connection, enrol.key_id).await?
    };
    let verifier: &Verifier = known.as_ref().unwrap_or(&server.nobodys_key);
    let right = verifier.client_proof_is_right(&enrol.proof, &transcript);
    if !right || known.is_none() {
        return Ok(Err(not_accepted(server, binding, facts).await));
    }
    server.proofs.forgive(&binding.source);
    let mut tx = server.store.begin().await?;
    let filing = file(&mut tx, server.clock.now(), binding, facts, enrol).await?;
    let answer = match filing {
        Filing::Filed(row) => {
            let device = devices::by_row(&mut tx, row).await?;
            Ok(Enrolled {
                proof: verifier.server_proof(&transcript),
                device_id: binding.certificate.device_id,
                device_name: device.name,
                anchors: server.authority.anchors(),
                connectors: server.connectors(binding.gateway),
            })
        }
        Filing::Refused(refusal) => Err(refusal),
    };
    tx.commit().await?;
    Ok(answer)
}

async fn not_accepted(server: &Server, binding: &Binding<'_>, facts: &DeviceFacts) -> Refusal {
    server.proofs.fail(&binding.source, Instant::now());
    let refusal = Refusal::new(
        RefusalCode::KeyNotAccepted,
        "The first-authentication key is not one of this server's: check it for typing errors, or ask the administrator \
         for a new one.",
    );
    let line = Line::new(
        Actor::Device(facts.unit_id.clone()),
        "device.enrolled",
        &facts.unit_id,
    );
    let line = line
        .refused(refusal.code)
        .detail(format!("from {}", binding.peer));
    server.note_stranger(line).await;
    refusal
}

async fn file(
    tx: &mut Change,
    now: i64,
    binding: &Binding<'_>,
    facts: &DeviceFacts,
    enrol: &Enrol,
) -> Result<Filing, StoreError> {
    let certificate = binding.certificate;
    let Some(key) = keys::find(tx, now, enrol.key_id).await? else {
        // Keys are never deleted, and this one was there a moment ago.
        return Err(StoreError::Unreadable("a key that has vanished".into()));
    };
    let line = || {
        Line::new(
            Actor::Device(facts.unit_id.clone()),
            "device.enrolled",
            certificate.device_id,
        )
    };
    let standing = devices::standing(tx, certificate.fingerprint).await?;
    // The same device with the same key: its disk did not keep our first answer.
    if let Standing::Current(row) | Standing::Proposed(row) = standing
        && !matches!(key.state, KeyState::Revoked | KeyState::Disabled)
        && keys::use_by(tx, key.id, certificate.fingerprint).await? == Some(row)
    {
        devices::note_facts(tx, now, row, facts, binding.peer).await?;
        audit::append(tx, now, line().detail("the same answer again")).await?;
        return Ok(Filing::Filed(row));
    }
    let refusal = match key_refusal(tx, &key, facts).await? {
        Some(refusal) => Some(refusal),
        None => removed_refusal(tx, &key, standing, certificate, facts).await?,
    };
    if let Some(refusal) = refusal {
        let line = line()
            .refused(refusal.code)
            .detail(format!("key {} from {}", key.id, binding.peer));
        audit::append(tx, now, line).await?;
        return Ok(Filing::Refused(refusal));
    }
    let row = match standing {
        Standing::Current(row) | Standing::Proposed(row) => row,
        Standing::Removed | Standing::Unknown => {
            let known = match devices::by_unit(tx, &facts.unit_id).await? {
                Some(row) => Some(row),
                None => devices::by_key(tx, certificate.device_id).await?,
            };
            if let Some(row) = known {
                let refusal = conflict(tx, now, row, certificate, facts, binding.peer).await?;
                return Ok(Filing::Refused(refusal.0));
            }
            let row = devices::add(tx, now, facts, certificate, key.id).await?;
            settings::begin(tx, row).await?;
            row
        }
    };
    devices::note_facts(tx, now, row, facts, binding.peer).await?;
    keys::note_use(
        tx,
        now,
        key.id,
        certificate.fingerprint,
        &facts.unit_id,
        row,
    )
    .await?;
    let detail = if key.tag.is_empty() {
        format!("key {} from {}", key.id, binding.peer)
    } else {
        format!("key {} ({}) from {}", key.id, key.tag, binding.peer)
    };
    audit::append(tx, now, line().detail(detail)).await?;
    Ok(Filing::Filed(row))
}

/// Why this key does not take this device on. Only somebody who has proved the key is told.
async fn key_refusal(
    tx: &mut SqliteConnection,
    key: &KeyInfo,
    facts: &DeviceFacts,
) -> Result<Option<Refusal>, StoreError> {
    let refuse = |code, sentence: &str| Ok(Some(Refusal::new(code, sentence)));
    match key.state {
        KeyState::Revoked => {
            return refuse(
                RefusalCode::KeyRevoked,
                "This first-authentication key was revoked: ask the administrator for a new one.",
            );
        }
        KeyState::Disabled => {
            return refuse(
                RefusalCode::KeyDisabled,
                "This first-authentication key is disabled at the moment: ask the administrator to enable it, or for another one.",
            );
        }
        KeyState::Expired => {
            return refuse(
                RefusalCode::KeyExpired,
                "The time of this first-authentication key is over: ask the administrator for a new one.",
            );
        }
        KeyState::Used => match key.kind {
            KeyKind::OneTime => {
                return refuse(
                    RefusalCode::KeyUsed,
                    "This one-time key was used before: ask the administrator for a new one.",
                );
            }
            KeyKind::Mass => {
                return refuse(
                    RefusalCode::KeyQuota,
                    "This first-authentication key has taken on as many devices as it may: ask the administrator.",
                );
            }
            // Which of its units is asking is looked at below.
            KeyKind::Bound => {}
        },
        KeyState::Active => {}
    }
    if key.kind == KeyKind::Bound {
        if !key.units.contains(&facts.unit_id) {
            return refuse(
                RefusalCode::KeyForOtherUnit,
                "This first-authentication key is for other devices: ask the administrator for one for this unit ID.",
            );
        }
        if keys::used_by_unit(tx, key.id, &facts.unit_id).await? {
            return refuse(
                RefusalCode::KeyUsed,
                "This key was used before for this unit ID: ask the administrator for a new one.",
            );
        }
    }
    Ok(None)
}

/// Why this key does not bring back a device that was removed: a key of many uses that still lies in its image would do so at its
/// next start.
async fn removed_refusal(
    tx: &mut SqliteConnection,
    key: &KeyInfo,
    standing: Standing,
    certificate: &DeviceCertificate,
    facts: &DeviceFacts,
) -> Result<Option<Refusal>, StoreError> {
    let is_on_file = match standing {
        Standing::Current(_) | Standing::Proposed(_) => true,
        Standing::Removed | Standing::Unknown => false,
    };
    if is_on_file
        || !keys::used_before_removal(tx, key.id, certificate.fingerprint, &facts.unit_id).await?
    {
        return Ok(None);
    }
    Ok(Some(Refusal::new(
        RefusalCode::DeviceRemoved,
        "An administrator removed this device, and this key had taken it on before: ask the administrator for a new key.",
    )))
}

/// Somebody presents another certificate than that on file: noted for the administrator, refused to the device. Says
/// also whether it is news.
pub async fn conflict(
    tx: &mut Change,
    now: i64,
    row: Row,
    certificate: &DeviceCertificate,
    facts: &DeviceFacts,
    peer: &str,
) -> Result<(Refusal, bool), StoreError> {
    let news = devices::note_conflict(tx, row, certificate.fingerprint, &certificate.der).await?;
    let refusal = mismatch(certificate.fingerprint);
    if news {
        let line = Line::new(
            Actor::Device(facts.unit_id.clone()),
            "device.certificate_conflict",
            certificate.device_id,
        )
        .refused(refusal.code)
        .detail(format!(
            "certificate {} from {peer}",
            certificate.fingerprint
        ));
        audit::append(tx, now, line).await?;
    }
    Ok((refusal, news))
}

/// What a device is told whose certificate is not the one on file.
pub fn mismatch(presented: Fingerprint) -> Refusal {
    Refusal::new(
        RefusalCode::CertificateMismatch,
        format!(
            "The server has another certificate on file for this unit ID. If this device was installed anew, the \
             administrator can accept its certificate, which begins with {}.",
            presented.parts()[0]
        ),
    )
}
