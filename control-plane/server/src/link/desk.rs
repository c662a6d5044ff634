//! What one link asks of the rest of the server: challenges, welcomes, filing. It knows the database and who is online,
//! and nothing of sockets. Failures of the database become refusals; the device tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use umbra_carrier::x509::CertificateFacts;
use umbra_protocol::command::{CommandProgress, CommandResult, CommandState};
use umbra_protocol::enrolment::Challenge;
use umbra_protocol::first_auth::ROUNDS;
use umbra_protocol::hello::{Hello, Welcome, feature};
use umbra_protocol::ids::{from_hex, to_hex};
use umbra_protocol::link::{
    CertificateFiled, CertificateProposed, ResultFiled, possession_message,
};
use umbra_protocol::session::{RecordFiled, SessionVerdict, SessionVerify, Verdict};
use umbra_protocol::{FromServer, Refusal, RefusalCode, UnitId};

use super::Origin;
use super::clones;
use super::machine::{Reply, Report, Task};
use crate::audit::{self, Actor, Line};
use crate::enrolment::{self, Binding};
use crate::hub::{Attachment, News};
use crate::random;
use crate::server::{Server, log_failure};
use crate::sessions;
use crate::settings;
use crate::store::devices::{self, DeviceCertificate, Removal, Row, Standing};
use crate::store::{StoreError, commands};

/// One device's place at the server.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) server: Arc<Server>,
    pub(super) origin: Origin,
    pub(super) certificate: DeviceCertificate,
    exporter: [u8; 32],
    pub(super) device: Option<Device>,
    pub(super) attachment: Option<Attachment>,
}

const MINUTE: Duration = Duration::from_secs(60);
/// How often a device's progress with commands is written down at most. Devices say it once a second.
const PROGRESS_A_MINUTE: u32 = 90;

/// The device that was welcomed, and what it has been told.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) row: Row,
    pub(super) unit: UnitId,
    pub(super) settings_sent: u64,
    pub(super) last_command: i64,
    /// Since when progress is counted, and how often it was written down since.
    pub(super) progress: (Instant, u32),
    pub(super) last_heard: Arc<AtomicI64>,
}

impl Desk {
    pub(super) fn new(
        server: Arc<Server>,
        origin: Origin,
        certificate: DeviceCertificate,
        exporter: [u8; 32],
    ) -> Self {
        Self {
            server,
            origin,
            certificate,
            exporter,
            device: None,
            attachment: None,
        }
    }

    /// The way to the hub, once, after the welcome.
    pub(super) fn take_attachment(&mut self) -> Option<Attachment> {
        self.attachment.take()
    }

    /// Something was heard of the device.
    pub(super) fn heard(&self) {
        if let Some(device) = &self.device {
            device
                .last_heard
                .store(self.server.clock.now(), Ordering::Relaxed);
        }
    }

    /// The link is over.
    pub(super) async fn leave(&self) {
        let Some(device) = &self.device else { return };
        let seen = [(device.row, device.last_heard.load(Ordering::Relaxed))];
        let noted = async {
            let mut tx = self.server.store.begin().await?;
            devices::note_seen(&mut tx, &seen).await?;
            tx.commit().await.map_err(StoreError::from)
        };
        if let Err(error) = noted.await {
            log_failure("the end of a link could not be noted", &error);
        }
    }

    /// Does a task.
    pub(super) async fn perform(&mut self, task: Task) -> Reply {
        match task {
            Task::Challenge(hello, version) => self.challenge(&hello, version).await,
            Task::Enrol {
                facts,
                nonce,
                enrol,
            } => {
                let binding = Binding {
                    exporter: &self.exporter,
                    certificate: &self.certificate,
                    nonce: &nonce,
                    peer: &self.origin.text(),
                    source: self.origin.source(),
                    gateway: self.origin.gateway().map(AsRef::as_ref),
                };
                match enrolment::answer(&self.server, &binding, &facts, &enrol).await {
                    Ok(enrolled) => Reply::Enrolled(enrolled),
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            Task::Probe(hello, version) => match self.probe(&hello, version).await {
                Ok(reply) => reply,
                Err(error) => internal("a device could not be looked up", &error),
            },
            Task::Open(hello, version) => match self.open(&hello, version).await {
                Ok(reply) => reply,
                Err(error) => internal("a device could not be welcomed", &error),
            },
            Task::File(report) => match self.file(report).await {
                Ok(reply) => reply,
                Err(error) => internal("a device's report could not be filed", &error),
            },
        }
    }

    async fn challenge(&self, hello: &Hello, version: u16) -> Reply {
        let source = self.origin.source();
        if let Err(seconds) = self.server.proofs.check(&source, Instant::now()) {
            let refusal = Refusal::new(
                RefusalCode::Throttled,
                "Too many wrong first-authentication keys came from this address; the device waits.",
            );
            let unit = &hello.device.unit_id;
            let line = Line::new(Actor::Device(unit.clone()), "device.enrolled", unit);
            let line = line
                .refused(refusal.code)
                .detail(format!("from {}", self.origin.text()));
            self.server.note_stranger(line).await;
            return Reply::Refused(refusal.retry_after(seconds));
        }
        Reply::Challenge(Challenge {
            version,
            nonce: random::hex::<32>(),
            salt: to_hex(&self.server.key_salt),
            rounds: ROUNDS,
        })
    }

    /// Says whether a link would stand, and changes nothing: the link that the device has stays the one in use.
    async fn probe(&self, hello: &Hello, version: u16) -> Result<Reply, StoreError> {
        let mut connection = self.server.store.read().await?;
        let standing = devices::standing(&mut connection, self.certificate.fingerprint).await?;
        let row = match standing {
            Standing::Current(row) | Standing::Proposed(row) => row,
            Standing::Removed | Standing::Unknown => {
                drop(connection);
                return Ok(Reply::Refused(self.stranger(hello, standing).await?));
            }
        };
        let device = devices::by_row(&mut connection, row).await?;
        let welcome = self.welcome(version, device.name);
        Ok(Reply::Welcome(welcome, Vec::new()))
    }

    pub(super) fn welcome(&self, version: u16, device_name: String) -> Welcome {
        let server = &self.server;
        Welcome {
            version,
            features: [feature::COMMAND_PROGRESS, feature::SERVER_HEARTBEATS]
                .map(str::to_owned)
                .to_vec(),
            heartbeat_seconds: u32::try_from(server.heartbeat.as_secs()).unwrap_or(u32::MAX),
            server_time: server.clock.now(),
            device_name,
            anchors: server.authority.anchors(),
        }
    }

    pub(super) async fn stranger(
        &self,
        hello: &Hello,
        standing: Standing,
    ) -> Result<Refusal, StoreError> {
        let fingerprint = self.certificate.fingerprint;
        let mut connection = self.server.store.read().await?;
        if standing == Standing::Removed {
            let noted = devices::refused_before(&mut connection, fingerprint).await?;
            drop(connection);
            if !noted {
                self.note_removed(hello).await?;
            }
            return Ok(removed());
        }
        let replaced = devices::by_replaced_key(&mut connection, &self.certificate).await?;
        if let Some(row) = replaced {
            let noted = devices::refused_before(&mut connection, fingerprint).await?;
            drop(connection);
            // Once for each key: a copy comes back without end.
            if !noted {
                let mut tx = self.server.store.begin().await?;
                let (now, peer) = (self.server.clock.now(), self.origin.text());
                clones::refuse(&mut tx, now, row, &self.certificate, &peer).await?;
                tx.commit().await?;
            }
            return Ok(clones::refusal());
        }
        let known = match devices::by_unit(&mut connection, &hello.device.unit_id).await? {
            Some(row) => Some(row),
            None => devices::by_key(&mut connection, self.certificate.device_id).await?,
        };
        let Some(row) = known else {
            return Ok(Refusal::new(
                RefusalCode::UnknownDevice,
                "This server has no such device on file: it has to be taken on with a first-authentication key.",
            ));
        };
        let noted = devices::by_row(&mut connection, row).await?.conflict == Some(fingerprint);
        drop(connection);
        // Strangers may not make the database write without end.
        if noted || !self.server.strangers_line().0 {
            return Ok(enrolment::mismatch(fingerprint));
        }
        let mut tx = self.server.store.begin().await?;
        let now = self.server.clock.now();
        let peer = self.origin.text();
        let (refusal, _) =
            enrolment::conflict(&mut tx, now, row, &self.certificate, &hello.device, &peer).await?;
        tx.commit().await?;
        Ok(refusal)
    }

    /// A removed device came back: on record once, however often it tries.
    async fn note_removed(&self, hello: &Hello) -> Result<(), StoreError> {
        let now = self.server.clock.now();
        let mut tx = self.server.store.begin().await?;
        if devices::note_refused(&mut tx, now, self.certificate.fingerprint).await? {
            let actor = Actor::Device(hello.device.unit_id.clone());
            let line = Line::new(actor, "device.removed_refused", self.certificate.device_id)
                .refused(removed().code)
                .detail(format!(
                    "it was removed and came back from {}; a new key would take it on again",
                    self.origin.text()
                ));
            audit::append(&mut tx, now, line).await?;
        }
        tx.commit().await.map_err(StoreError::from)
    }

    async fn file(&mut self, report: Report) -> Result<Reply, StoreError> {
        let server = Arc::clone(&self.server);
        let Some(device) = &self.device else {
            return Err(StoreError::Unreadable("a report before the welcome".into()));
        };
        let (row, unit) = (device.row, &device.unit);
        match report {
            Report::Applied(applied) => {
                let mut tx = server.store.begin().await?;
                devices::note_applied(&mut tx, row, &applied).await?;
                tx.commit().await?;
                Ok(Reply::Filed(Vec::new()))
            }
            Report::Progress(progress) => {
                self.note_progress(&progress).await?;
                Ok(Reply::Filed(Vec::new()))
            }
            Report::Result(result) => {
                self.file_result(row, unit, &result).await?;
                Ok(Reply::Filed(vec![ResultFiled { id: result.id }.into()]))
            }
            Report::Verify(SessionVerify {
                question,
                presented,
            }) => {
                let verdict = match sessions::verdict(&server, row, unit, &presented).await {
                    Ok(verdict) => verdict,
                    Err(error) => {
                        log_failure("a session could not be judged", &error);
                        Verdict::Refused(Refusal::new(
                            RefusalCode::Internal,
                            "The server cannot use its database: try again later.",
                        ))
                    }
                };
                let verdict = SessionVerdict { question, verdict };
                Ok(Reply::Filed(vec![verdict.into()]))
            }
            Report::Started(started) => {
                sessions::started(&server, row, unit, &started).await?;
                Ok(Reply::Filed(Vec::new()))
            }
            Report::Record(record) => {
                sessions::record(&server, row, unit, &record).await?;
                let session = record.session;
                Ok(Reply::Filed(vec![RecordFiled { session }.into()]))
            }
            Report::TurnedAway(refused) => {
                let line = Line::new(Actor::Device(unit.clone()), "caller.refused", refused.from)
                    .refused(refused.refusal.code)
                    .detail(refused.refusal.sentence);
                // Strangers cause these: they share the strangers' room.
                server.note_stranger(line).await;
                Ok(Reply::Filed(Vec::new()))
            }
            Report::Proposed(proposed) => self.proposed(row, unit, &proposed).await,
            Report::Leave => {
                let now = server.clock.now();
                let mut tx = server.store.begin().await?;
                devices::remove(&mut tx, now, row, Removal::ByDevice).await?;
                let line = Line::new(
                    Actor::Device(unit.clone()),
                    "device.left",
                    self.certificate.device_id,
                );
                audit::append(&mut tx, now, line).await?;
                tx.commit().await?;
                Ok(Reply::Left)
            }
        }
    }

    /// More than devices say is not worth the database's time.
    async fn note_progress(&mut self, progress: &CommandProgress) -> Result<(), StoreError> {
        let Some(device) = &mut self.device else {
            return Ok(());
        };
        if device.progress.0.elapsed() >= MINUTE {
            device.progress = (Instant::now(), 0);
        }
        device.progress.1 += 1;
        if device.progress.1 > PROGRESS_A_MINUTE {
            return Ok(());
        }
        let now = self.server.clock.now();
        let mut tx = self.server.store.begin().await?;
        commands::note_progress(&mut tx, now, device.row, progress).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn file_result(
        &self,
        row: Row,
        unit: &UnitId,
        result: &CommandResult,
    ) -> Result<(), StoreError> {
        let now = self.server.clock.now();
        let mut tx = self.server.store.begin().await?;
        if commands::finish(&mut tx, now, row, result).await? {
            let line = Line::new(Actor::Device(unit.clone()), "command.ended", result.id)
                .detail(format!("{}: {}", in_words(result.state), result.sentence));
            audit::append(&mut tx, now, line).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn proposed(
        &self,
        row: Row,
        unit: &UnitId,
        proposed: &CertificateProposed,
    ) -> Result<Reply, StoreError> {
        let server = &self.server;
        let next = match read_proposed(&self.certificate.der, proposed) {
            Ok(next) => next,
            Err(sentence) => {
                return Ok(Reply::Refused(Refusal::new(
                    RefusalCode::Malformed,
                    format!("The proposed certificate was not accepted: {sentence}."),
                )));
            }
        };
        let now = server.clock.now();
        let mut tx = server.store.begin().await?;
        let taken = match devices::standing(&mut tx, next.fingerprint).await? {
            Standing::Current(other) | Standing::Proposed(other) => other != row,
            Standing::Removed => true,
            Standing::Unknown => devices::by_key(&mut tx, next.device_id)
                .await?
                .is_some_and(|other| other != row),
        };
        let actor = Actor::Device(unit.clone());
        let line = Line::new(actor, "device.certificate_proposed", next.device_id);
        if taken {
            let code = RefusalCode::CertificateMismatch;
            audit::append(&mut tx, now, line.refused(code)).await?;
            tx.commit().await?;
            return Ok(Reply::Refused(Refusal::new(
                code,
                "The proposed certificate or its key belongs to another device.",
            )));
        }
        let filed = CertificateFiled {
            fingerprint: next.fingerprint,
            device_id: next.device_id,
        };
        if next.fingerprint != self.certificate.fingerprint {
            devices::propose(&mut tx, now, row, &next).await?;
            audit::append(&mut tx, now, line.detail(next.fingerprint)).await?;
        }
        tx.commit().await?;
        Ok(Reply::Filed(vec![filed.into()]))
    }

    /// What to tell the device about something new.
    pub(super) async fn news(&mut self, news: News) -> Vec<FromServer> {
        match self.try_news(news).await {
            Ok(messages) => messages,
            Err(error) => {
                // It is in the database: the device hears of it at its next link.
                log_failure("news for a device could not be read", &error);
                Vec::new()
            }
        }
    }

    async fn try_news(&mut self, news: News) -> Result<Vec<FromServer>, StoreError> {
        let Some(device) = &mut self.device else {
            return Ok(Vec::new());
        };
        match news {
            News::Settings => {
                let mut connection = self.server.store.read().await?;
                let settings = settings::of_device(&mut connection, device.row).await?;
                if settings.revision == device.settings_sent {
                    return Ok(Vec::new());
                }
                device.settings_sent = settings.revision;
                Ok(vec![settings.into()])
            }
            News::Commands => {
                let mut connection = self.server.store.read().await?;
                let waiting =
                    commands::waiting(&mut connection, device.row, device.last_command).await?;
                if let Some((number, _)) = waiting.last() {
                    device.last_command = *number;
                }
                Ok(waiting
                    .into_iter()
                    .map(|(_, command)| command.into())
                    .collect())
            }
            News::Session(request) => Ok(vec![request.into()]),
            News::Tunnel(tunnel) => Ok(vec![tunnel.into()]),
            News::EndSession(end) => Ok(vec![end.into()]),
        }
    }
}

fn internal(what: &str, error: &StoreError) -> Reply {
    log_failure(what, error);
    Reply::Refused(Refusal::new(
        RefusalCode::Internal,
        "The server cannot use its database; the device tries again.",
    ))
}

pub(super) fn removed() -> Refusal {
    Refusal::new(
        RefusalCode::DeviceRemoved,
        "An administrator removed this device: it has to be taken on again with a first-authentication key.",
    )
}

/// Reads a proposed certificate and checks that the device has its key.
fn read_proposed(
    old: &[u8],
    proposed: &CertificateProposed,
) -> Result<DeviceCertificate, &'static str> {
    const UNREADABLE: &str = "it cannot be read";
    let der =
        CertificateDer::from_pem_slice(proposed.certificate.as_bytes()).map_err(|_| UNREADABLE)?;
    let facts = CertificateFacts::read(&der).map_err(|_| UNREADABLE)?;
    if facts.is_ca == Some(true) {
        return Err("it is a certificate authority's");
    }
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| UNREADABLE)?;
    let key = &parsed.public_key().subject_public_key.data;
    let signature = decode_hex(&proposed.proof).ok_or("its proof is not hexadecimal")?;
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, key)
        .verify(&possession_message(old, &der), &signature)
        .map_err(|_| "the device did not prove that it has its key (ECDSA P-256)")?;
    DeviceCertificate::read(&der).map_err(|_| UNREADABLE)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| {
            std::str::from_utf8(pair)
                .ok()
                .and_then(from_hex::<1>)
                .map(|[byte]| byte)
        })
        .collect()
}

/// How a command ended, as the audit has it.
fn in_words(state: CommandState) -> &'static str {
    match state {
        CommandState::Done => "done",
        CommandState::Failed => "failed",
        CommandState::Interrupted => "interrupted",
    }
}
