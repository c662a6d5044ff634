//! What the link finds when it turns to the rest of the agent, and what the agent's parts share. It hands on; it decides nothing
//! about the link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;
use tokio::sync::watch;
use tracing::{info, warn};
use umbra_carrier::address::HostPort;
use umbra_carrier::alpn;
use umbra_carrier::tls::{ServerTrust, device_config};
use umbra_protocol::enrolment::ConnectorKind;
use umbra_protocol::hello::{Hello, Intent, TicketKey, TrustAnchors, Welcome};
use umbra_protocol::link::CertificateFiled;
use umbra_protocol::refusal::clip;
use umbra_protocol::settings::{Settings, SettingsApplied};
use umbra_protocol::{FromDevice, Refusal, RefusalCode, Remedy, RunId};

use super::{Config, dates, unusable};
use crate::commands::{Commands, proposal};
use crate::enrolment::{Enrolled, roots};
use crate::facts;
use crate::identity::{self, DeviceIdentity};
use crate::link::events::{Delivery, LinkStatus};
use crate::link::trouble::sentence;
use crate::link::{LinkHandle, Trouble, World};
use crate::os::Os;
use crate::registry::Registry;
use crate::session::Sessions;
use crate::status::{Board, Moment, Server, Stage};

/// What the agent's parts share. Clones are one agent.
#[derive(Clone)]
pub(super) struct Agent {
    pub(super) config: Config,
    pub(super) os: Arc<dyn Os>,
    pub(super) board: Board,
    pub(super) registry: Registry,
    pub(super) identity: Arc<watch::Sender<DeviceIdentity>>,
    pub(super) sessions: Sessions,
    pub(super) commands: Commands,
    /// This run of the agent, for the server: two that take turns are two machines with one key.
    pub(super) this_run: Option<RunId>,
}

impl Agent {
    /// What callers are checked against from now on.
    pub(super) fn trust(&self, ticket_keys: Vec<TicketKey>) {
        let identity = self.identity.borrow().clone();
        if let Err(error) = self.sessions.trust(&identity, ticket_keys) {
            warn!(%error, "shadowing is not possible");
            self.board
                .update(|status| status.warn("identity", Some(sentence(&error))));
        }
    }

    /// What the device says first.
    pub(super) fn hello(&self) -> Hello {
        let snapshot = self.registry.snapshot();
        let identity = self.identity.borrow().clone();
        let device = facts::of_device(&identity, self.os.as_ref(), &snapshot, self.sessions.port());
        Hello {
            run: self.this_run,
            ..facts::hello(device, Intent::Link, snapshot.server_revision)
        }
    }
}

/// The rest of the agent, as the link sees it.
pub(super) struct Management {
    agent: Agent,
    enrolled: Mutex<Enrolled>,
    link: watch::Receiver<Option<LinkHandle>>,
}

impl Management {
    /// For a device that was taken on. The link's handle is set once it is there.
    pub(super) fn new(
        agent: Agent,
        enrolled: Enrolled,
    ) -> (Self, watch::Sender<Option<LinkHandle>>) {
        let (sender, link) = watch::channel(None);
        let management = Self {
            agent,
            enrolled: Mutex::new(enrolled),
            link,
        };
        (management, sender)
    }

    fn enrolled(&self) -> MutexGuard<'_, Enrolled> {
        // Replaced as a whole: a panic in between leaves nothing half-made.
        self.enrolled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config_for(&self, anchors: &TrustAnchors) -> Result<Arc<ClientConfig>, Trouble> {
        let identity = self.agent.identity.borrow().tls_identity();
        let roots = roots(anchors).map_err(|error| unusable(&error))?;
        device_config(
            Some(&identity),
            ServerTrust::PinnedRoots(roots),
            dates(&self.agent.config.clock),
            alpn::CONTROL_LINK,
        )
        .map_err(|error| unusable(&error))
    }

    /// Keeps what the server says about itself, if a device that keeps it can come back.
    fn learn(&mut self, anchors: Option<TrustAnchors>, device_name: Option<String>) {
        let mut learnt = self.enrolled().clone();
        if let Some(anchors) = anchors {
            if anchors.ticket_keys.is_empty() || self.config_for(&anchors).is_err() {
                warn!(
                    "the server named roots or ticket keys that can't be used; the present ones stay"
                );
            } else {
                learnt.anchors = anchors;
            }
        }
        if let Some(name) = device_name {
            // The codec holds names to a label's length.
            learnt.device_name = clip(name);
        }
        self.keep(learnt);
    }

    fn keep(&mut self, learnt: Enrolled) {
        if learnt == *self.enrolled() {
            return;
        }
        let config = &self.agent.config;
        let problem = learnt
            .store(&config.paths, &config.files)
            .err()
            .map(|error| sentence(&error));
        if let Some(problem) = &problem {
            warn!(
                problem,
                "what the server said about itself could not be kept"
            );
        }
        self.agent
            .board
            .update(|status| status.warn("enrolment", problem));
        // In force in any case: after the next start the device learns it again.
        self.agent.trust(learnt.anchors.ticket_keys.clone());
        *self.enrolled() = learnt;
    }

    fn settings(&self, settings: Settings) -> Vec<FromDevice> {
        let revision = settings.revision;
        let applied = self.agent.registry.apply_server(revision, settings.values);
        let problem = applied.as_ref().err().map(|error| {
            format!(
                "The server's settings could not be taken over: {}",
                sentence(error)
            )
        });
        self.agent
            .board
            .update(|status| status.warn("settings", problem.clone()));
        match applied {
            Ok(refused) => {
                info!(
                    revision,
                    refused = refused.len(),
                    "the server's settings are in force"
                );
                vec![SettingsApplied { revision, refused }.into()]
            }
            Err(_) => {
                warn!(problem, "settings were not taken over");
                Vec::new()
            }
        }
    }

    fn certificate_filed(&mut self, filed: CertificateFiled) {
        let config = &self.agent.config;
        let present = self.agent.identity.borrow().clone();
        let next = match identity::pending_next(&config.paths, &present) {
            Ok(Some(next)) if next.fingerprint() == filed.fingerprint => next,
            Ok(_) => return,
            Err(error) => {
                warn!(
                    error = sentence(&error),
                    "the new certificate can't be read"
                );
                return;
            }
        };
        match identity::promote_next(&config.paths, &config.files) {
            Ok(identity) => {
                info!(certificate = %next.fingerprint(), "the device uses its new certificate");
                self.agent
                    .board
                    .update(|status| status.identity = Some(identity.facts()));
                self.agent.identity.send_replace(identity);
                let learnt = Enrolled {
                    device_id: filed.device_id,
                    ..self.enrolled().clone()
                };
                self.agent.trust(learnt.anchors.ticket_keys.clone());
                self.keep(learnt);
                if let Some(link) = self.link() {
                    link.relink("The device has a new certificate; it comes back with it at once.");
                }
            }
            Err(error) => {
                warn!(
                    error = sentence(&error),
                    "the new certificate could not be taken into use"
                );
                self.agent
                    .board
                    .update(|status| status.warn("identity", Some(sentence(&error))));
            }
        }
    }

    /// The server will not do something; of all that the device says, only a proposed certificate has to be taken back.
    fn refused(&self, refusal: &Refusal) {
        warn!(code = refusal.code.as_str(), "the server refuses something");
        let config = &self.agent.config;
        let present = self.agent.identity.borrow().clone();
        let about_certificates = [RefusalCode::Malformed, RefusalCode::CertificateMismatch];
        if about_certificates.contains(&refusal.code)
            && let Ok(Some(_)) = identity::pending_next(&config.paths, &present)
        {
            if let Err(error) = identity::discard_next(&config.paths, &config.files) {
                warn!(
                    error = sentence(&error),
                    "the refused certificate could not be removed"
                );
            }
            self.agent
                .commands
                .certificate_refused(&clip(refusal.to_string()));
        }
    }

    fn link(&self) -> Option<LinkHandle> {
        self.link.borrow().clone()
    }
}

impl World for Management {
    fn hello(&self) -> Hello {
        self.agent.hello()
    }

    fn connectors(&self) -> Vec<HostPort> {
        self.enrolled()
            .ways(&self.agent.registry.snapshot().manager)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Trouble> {
        let anchors = self.enrolled().anchors.clone();
        self.config_for(&anchors)
    }

    fn welcomed(&mut self, welcome: Welcome) -> Vec<FromDevice> {
        self.learn(Some(welcome.anchors), Some(welcome.device_name));
        let mut due: Vec<FromDevice> = self
            .agent
            .sessions
            .unfiled()
            .into_iter()
            .map(FromDevice::from)
            .collect();
        due.extend(
            self.agent
                .commands
                .unfiled()
                .into_iter()
                .map(FromDevice::from),
        );
        // A certificate whose filing was cut off is proposed again.
        let present = self.agent.identity.borrow().clone();
        let pending = identity::pending_next(&self.agent.config.paths, &present);
        if let Ok(Some(next)) = pending
            && let Ok(proposal) = proposal(&present, &next)
        {
            due.push(proposal.into());
        }
        due
    }

    fn deliver(&mut self, delivery: Delivery) -> Vec<FromDevice> {
        match delivery {
            Delivery::Settings(settings) => return self.settings(settings),
            Delivery::Command(command) => {
                if let Some(link) = self.link() {
                    let result = self.agent.commands.take(command, &link);
                    return result.into_iter().map(FromDevice::from).collect();
                }
            }
            Delivery::ResultFiled(id) => self.agent.commands.filed(id),
            Delivery::SessionRequest(request) => self.agent.sessions.announce(request),
            Delivery::SessionTunnel(tunnel) => {
                warn!(session = %tunnel.session, "a session waits at a gateway, and this agent cannot go there");
            }
            Delivery::SessionEnd(end) => self.agent.sessions.end_by_server(&end),
            Delivery::RecordFiled(session) => self.agent.sessions.filed(session),
            Delivery::Anchors(anchors) => self.learn(Some(anchors), None),
            Delivery::CertificateFiled(filed) => self.certificate_filed(filed),
            Delivery::Refused(refusal) => self.refused(&refusal),
        }
        Vec::new()
    }

    fn status(&mut self, link: LinkStatus, connector: Option<&HostPort>) {
        let enrolled = self.enrolled().clone();
        let server = Server {
            address: HostPort::new(&enrolled.host, enrolled.port)
                .map_or(enrolled.host, |address| address.to_string()),
            device_name: enrolled.device_name,
        };
        let allowed = self.agent.registry.snapshot().manager.allowed;
        self.agent.board.update(|status| {
            status.server = Some(server);
            match link {
                LinkStatus::Offline if allowed => {}
                LinkStatus::Offline => status.go(Stage::ManagementOff),
                // While an attempt runs, people still want to know why the last one failed.
                LinkStatus::Connecting
                    if matches!(status.stage, Stage::Waiting | Stage::Refused) =>
                {
                    status.next_attempt = None;
                }
                LinkStatus::Connecting => status.go(Stage::Connecting),
                LinkStatus::Online { device_name } => {
                    status.go(Stage::Online);
                    if let Some(server) = &mut status.server {
                        server.device_name = clip(device_name);
                    }
                    status.connector = connector
                        .map(|way| format!("{} {way}", kind_of(&enrolled.connectors, way)));
                }
                LinkStatus::Waiting { trouble, until } => {
                    let stage = match trouble.remedy {
                        Remedy::Retry => Stage::Waiting,
                        Remedy::AskPerson | Remedy::Stop => Stage::Refused,
                    };
                    status.go_because(stage, trouble.sentence);
                    status.code = Some(trouble.code);
                    let wait = until.as_secs().saturating_sub(crate::clock::uptime());
                    status.next_attempt = Some(Moment::in_seconds(wait));
                }
            }
        });
    }
}

fn kind_of(connectors: &[umbra_protocol::enrolment::Connector], way: &HostPort) -> &'static str {
    let found = connectors
        .iter()
        .find(|connector| connector.address == way.host() && connector.port == way.port());
    match found.map(|connector| connector.kind) {
        Some(ConnectorKind::Icg) => "icg",
        Some(ConnectorKind::Ums) | None => "ums",
    }
}
