//! What the link finds when it turns to the rest of the agent, and what the agent's parts share. It hands on; it decides nothing
//! about the link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::watch;
use tracing::{info, warn};
use umbra_carrier::alpn;
use umbra_carrier::tls::{ServerTrust, device_config};
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::hello::{Hello, Intent, TicketKey, TrustAnchors, Welcome};
use umbra_protocol::ids::ServerRoot;
use umbra_protocol::link::CertificateFiled;
use umbra_protocol::refusal::clip;
use umbra_protocol::session::SessionTunnel;
use umbra_protocol::settings::{Settings, SettingsApplied};
use umbra_protocol::{FromDevice, Refusal, RefusalCode, Remedy, RunId};

use super::pulse::Pulse;
use super::{Config, dates, unusable};
use crate::commands::{Commands, proposal};
use crate::enrolment::{Enrolled, roots};
use crate::facts;
use crate::identity::{self, DeviceIdentity};
use crate::link::driver::Over;
use crate::link::events::{Delivery, LinkStatus};
use crate::link::trouble::sentence;
use crate::link::{Approach, LinkHandle, Network, Trouble, Way, Ways, World};
use crate::os::Os;
use crate::registry::Registry;
use crate::session::Sessions;
use crate::status::{self, Board, Moment, Server, Stage};

/// A gateway waits no longer for the two ends of a session.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(30);
/// How much of why one way does not work is told where there are several.
const SHARE: usize = 200;

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
    pub(super) pulse: Pulse,
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
    /// The way that led to a welcome last; what else is dialled goes over the same one.
    over: Option<Way>,
    /// All ways, and why some did not work last.
    seen: Vec<(Way, Option<Trouble>)>,
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
            over: None,
            seen: Vec::new(),
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
    fn learn(
        &mut self,
        anchors: Option<TrustAnchors>,
        device_name: Option<String>,
        over: Option<&Over>,
    ) {
        let mut learnt = self.enrolled().clone();
        if let Some(over) = over {
            learnt.last_good = Some(over.way.connector());
            if !over.names.is_empty() {
                learnt.server_names.clone_from(&over.names);
            }
        }
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

    /// The device's end of a rendezvous, at the gateway that the link goes through.
    fn tunnel(&self, tunnel: SessionTunnel) {
        let session = tunnel.session;
        let way = self
            .over
            .clone()
            .filter(|way| way.kind == ConnectorKind::Icg);
        let Some(way) = way else {
            warn!(%session, "a session waits at a gateway, and the link goes through none");
            return;
        };
        let approach = match self.approach() {
            Ok(approach) => approach,
            Err(trouble) => {
                warn!(%session, cause = trouble.sentence, "the way to the gateway is not usable");
                return;
            }
        };
        let host = way.address.host().to_owned();
        let patience =
            Duration::from_secs(u64::from(tunnel.expires_in_seconds)).min(TUNNEL_PATIENCE);
        let dial = async move {
            approach
                .tunnel(&way, &tunnel, patience)
                .await
                .map_err(|error| error.trouble(&way))
        };
        self.agent.sessions.tunnel(session, host, dial);
    }

    /// What people may see of each way, and a warning where it is not the one that somebody has decided on.
    fn picture(&self, in_use: Option<&Way>) -> (Vec<status::Way>, Option<String>) {
        let snapshot = self.agent.registry.snapshot();
        let network = Network::new(&snapshot.network).ok();
        let ways = self
            .seen
            .iter()
            .map(|(way, trouble)| status::Way {
                kind: way.word().to_owned(),
                address: way.address.to_string(),
                proxy: network
                    .as_ref()
                    .and_then(|network| network.proxy_name(way.address.host(), way.address.port())),
                in_use: in_use.is_some_and(|used| used.is_same_place(way)),
                code: trouble.as_ref().map(|trouble| trouble.code.clone()),
                trouble: trouble.as_ref().map(|trouble| trouble.sentence.clone()),
            })
            .collect();
        (ways, in_use.and_then(|used| self.second_best(used)))
    }

    /// A sentence where the device goes another way than somebody has decided.
    fn second_best(&self, used: &Way) -> Option<String> {
        let ways = self.ways();
        let wanted = ways.preferred.filter(|_| ways.decided)?;
        if used.kind == wanted {
            return None;
        }
        let (way, trouble) = self.seen.iter().find_map(|(way, trouble)| {
            Some((way, trouble.as_ref()?)).filter(|_| way.kind == wanted)
        })?;
        Some(format!(
            "The device can't go {}: {} It goes {} for now, and keeps trying.",
            way.described(),
            trouble.sentence,
            used.described()
        ))
    }

    /// Why no way works, where there are several.
    fn all_troubles(&self) -> Option<String> {
        let failed: Vec<String> = self
            .seen
            .iter()
            .filter_map(|(way, trouble)| {
                let mut told = trouble.as_ref()?.sentence.clone();
                told.truncate(told.floor_char_boundary(SHARE));
                Some(format!("{way}: {}", told.trim_end_matches('.')))
            })
            .collect();
        (failed.len() > 1).then(|| format!("No way to the server works. {}.", failed.join(". ")))
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

    fn ways(&self) -> Ways {
        self.enrolled()
            .ways(&self.agent.registry.snapshot().manager)
    }

    fn approach(&self) -> Result<Approach, Trouble> {
        let snapshot = self.agent.registry.snapshot();
        let enrolled = self.enrolled().clone();
        let pinned = enrolled.roots().map_err(|error| unusable(&error))?;
        let server = pinned
            .first()
            .map(|root| ServerRoot::of_certificate(root))
            .ok_or_else(|| Trouble::lasting("bad_roots", "No root of the server is pinned."))?;
        Ok(Approach {
            network: Network::new(&snapshot.network)?,
            tls: self.config_for(&enrolled.anchors)?,
            trust: ServerTrust::PinnedRoots(pinned),
            dates: dates(&self.agent.config.clock),
            server: Some(server),
            label: self.agent.identity.borrow().unit_id().to_string(),
            names: enrolled.names(&snapshot.manager),
        })
    }

    fn awake(&self) {
        self.agent.pulse.beat();
    }

    fn adopt(&mut self, connectors: Vec<Connector>, names: Vec<String>) -> Result<(), String> {
        let mut next = self
            .enrolled()
            .moved(connectors)
            .map_err(|error| sentence(&error))?;
        if !names.is_empty() {
            next.server_names = names;
        }
        let config = &self.agent.config;
        // Not in force before it is on the disk: after a power cut there is the old list or the new one.
        next.store(&config.paths, &config.files)
            .map_err(|error| sentence(&error))?;
        *self.enrolled() = next;
        Ok(())
    }

    fn welcomed(&mut self, welcome: Welcome, over: &Over) -> Vec<FromDevice> {
        self.over = Some(over.way.clone());
        self.learn(Some(welcome.anchors), Some(welcome.device_name), Some(over));
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
            Delivery::SessionTunnel(tunnel) => self.tunnel(tunnel),
            Delivery::SessionEnd(end) => self.agent.sessions.end_by_server(&end),
            Delivery::RecordFiled(session) => self.agent.sessions.filed(session),
            Delivery::Anchors(anchors) => self.learn(Some(anchors), None, None),
            Delivery::CertificateFiled(filed) => self.certificate_filed(filed),
            Delivery::Refused(refusal) => self.refused(&refusal),
        }
        Vec::new()
    }

    fn ways_seen(&mut self, ways: Vec<(Way, Option<Trouble>)>) {
        self.seen = ways;
        let online = self.agent.board.now().stage == Stage::Online;
        let in_use = self.over.clone().filter(|_| online);
        let (ways, warning) = self.picture(in_use.as_ref());
        self.agent.board.update(|status| {
            status.ways = ways;
            status.warn("way", warning);
        });
    }

    fn status(&mut self, link: LinkStatus, way: Option<&Way>) {
        let enrolled = self.enrolled().clone();
        let server = Server {
            address: enrolled.server_address(),
            device_name: enrolled.device_name,
        };
        let online = matches!(link, LinkStatus::Online { .. });
        let troubles = self.all_troubles();
        let (ways, warning) = self.picture(way.filter(|_| online));
        let allowed = self.agent.registry.snapshot().manager.allowed;
        self.agent.board.update(|status| {
            status.ways = ways;
            status.warn("way", warning);
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
                    status.connector = way.map(ToString::to_string);
                }
                LinkStatus::Waiting { trouble, until } => {
                    let stage = match trouble.remedy {
                        Remedy::Retry => Stage::Waiting,
                        Remedy::AskPerson | Remedy::Stop => Stage::Refused,
                    };
                    let cause = troubles
                        .filter(|_| trouble.of_way)
                        .unwrap_or(trouble.sentence);
                    status.go_because(stage, cause);
                    status.code = Some(trouble.code);
                    let wait = until.as_secs().saturating_sub(crate::clock::uptime());
                    status.next_attempt = Some(Moment::in_seconds(wait));
                }
            }
        });
    }
}
