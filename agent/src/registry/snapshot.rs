//! All parameters at one moment, typed, for the rest of the agent.

use std::net::IpAddr;
use std::time::Duration;

use umbra_protocol::Secret;
use umbra_protocol::enrolment::{Connector, ConnectorKind};
use umbra_protocol::settings::Value;
use umbra_vnc_proxy::upstream;

use super::kind::Upstream;
use super::table;
use crate::link::{NetworkSettings, ProxyChoice};

/// All parameters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Shadowing.
    pub vnc: Vnc,
    /// The link.
    pub manager: Manager,
    /// The way out of the device's network.
    pub network: NetworkSettings,
    /// Where a device without a server looks for one.
    pub discovery: DiscoverySettings,
    /// Whether a fingerprint has to be given to be taken on.
    pub require_fingerprint: bool,
    /// Limits of sessions.
    pub session: SessionLimits,
    /// The question to the person at the device.
    pub consent: Consent,
    /// What tells the person at the device that somebody sees the screen.
    pub indicator: Indicator,
    /// The group that may change things on the device.
    pub control_group: Option<String>,
    /// Program and arguments that restart the device.
    pub reboot_command: Vec<String>,
    /// Program and arguments that switch the device off.
    pub shutdown_command: Vec<String>,
    /// Program and arguments that show a message to the person at the device; may be empty.
    pub message_program: Vec<String>,
    /// Program and arguments that update the device; may be empty.
    pub update_command: Vec<String>,
    /// Whether the agent gives up what it doesn't need when it starts.
    pub confinement: bool,
    /// What root does for the agent.
    pub hands: Hands,
    /// How much is logged: `error`, `warn`, `info`, `debug`, `trace`.
    pub log_level: String,
    /// Revision of the server's settings that are in force; 0 when there are none.
    pub server_revision: u64,
}

/// Programs that root runs when the agent asks for it, each with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hands {
    /// Restarts the device.
    pub reboot: Vec<String>,
    /// Switches the device off.
    pub shutdown: Vec<String>,
    /// Updates the device; may be empty.
    pub update: Vec<String>,
}

/// Shadowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vnc {
    /// Whether it is accepted at all.
    pub enabled: bool,
    /// Port; 0 for any free one.
    pub port: u16,
    /// Addresses to listen on. `::` is meant to take IPv4 as well; where there is no IPv6, listen on `0.0.0.0` instead.
    pub listen: Vec<IpAddr>,
    /// Only encrypted sessions.
    pub secure_mode: bool,
    /// Whether the port speaks TLS 1.2 besides 1.3.
    pub tls12: bool,
    /// Whether operators may use keyboard and pointer.
    pub remote_input: bool,
    /// Password for plain viewers, where there is one.
    pub password: Option<Secret>,
    /// Sessions at the same time: 1 if the screen is not shared.
    pub instances: usize,
    /// Where the VNC server is.
    pub upstream: Upstream,
    /// Program and arguments for [`Upstream::Spawn`].
    pub command: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
}

impl Vnc {
    /// Whether the agent starts the VNC server itself.
    pub fn is_spawned(&self) -> bool {
        self.upstream == Upstream::Spawn
    }

    /// The VNC server, for the proxy.
    ///
    /// # Errors
    /// Where the proxy's own rules are stricter than the table's.
    pub fn vnc_server(&self) -> Result<upstream::Upstream, upstream::UpstreamError> {
        match &self.upstream {
            Upstream::Tcp(address) => upstream::Upstream::tcp(*address),
            Upstream::Unix(path) => upstream::Upstream::unix(path),
            Upstream::Spawn => {
                let program = self.command.first().cloned().unwrap_or_default();
                let arguments = self.command.iter().skip(1).cloned().collect();
                upstream::Upstream::spawn(program, arguments, self.environment.clone())
            }
        }
    }
}

/// Which connectors are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranking {
    /// All, in their order.
    All,
    /// Only the direct ones.
    Ums,
    /// Only gateways.
    Icg,
}

/// Whether the device goes through gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateways {
    /// Nobody has said: all ways are tried, and a direct one is preferred where the server answers.
    Automatic,
    /// Somebody has switched them on: they are tried first.
    First,
    /// Somebody has switched them on, but wants the direct way where the server answers.
    Second,
    /// Somebody has switched them off.
    Off,
}

/// The link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Whether the device keeps a link.
    pub allowed: bool,
    /// Connectors that were configured, in their order; those from the enrolment are not in here.
    pub connectors: Vec<Connector>,
    /// Which connectors are tried.
    pub ranking: Ranking,
    /// Whether the device goes through gateways.
    pub gateways: Gateways,
    /// Longest pause between two attempts.
    pub reconnect_interval: Duration,
    /// How long one attempt may take.
    pub connect_timeout: Duration,
}

/// Where a device without a server looks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// Whether DNS is asked.
    pub dns: bool,
    /// Whether leases are read.
    pub dhcp: bool,
    /// The domain that is asked for; empty means the network's search domains.
    pub domain: String,
}

/// Limits of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// In any case.
    pub total: Option<Duration>,
}

/// What happens when nobody is there to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unattended {
    /// The session is refused.
    Deny,
    /// The session begins.
    Allow,
}

/// The question to the person at the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Whether it is asked.
    pub ask: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What happens when nobody is there to ask.
    pub unattended: Unattended,
    /// Program and arguments that ask; may be empty.
    pub program: Vec<String>,
}

/// What tells the person at the device that somebody sees the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indicator {
    /// Whether it is shown at all.
    pub shown: bool,
    /// Whether the person can end a session from it.
    pub disconnect: bool,
    /// Where on the screen.
    pub position: String,
    /// Program and arguments that show it; may be empty.
    pub program: Vec<String>,
    /// Whether no session may begin without it.
    pub required: bool,
}

/// Where values come from while a snapshot is made.
pub(super) struct Values<'a> {
    /// The value in force.
    pub(super) effective: &'a dyn Fn(&str) -> Option<Value>,
    /// The value in force if the server had none.
    pub(super) local: &'a dyn Fn(&str) -> Option<Value>,
    /// Revision of the server's settings.
    pub(super) revision: u64,
}

impl Values<'_> {
    fn value(&self, name: &str) -> Value {
        (self.effective)(name)
            .or_else(|| table::find(name).map(|parameter| parameter.default.value()))
            .unwrap_or(Value::Bool(false))
    }

    fn bool(&self, name: &str) -> bool {
        self.value(name) == Value::Bool(true)
    }

    fn number<N: TryFrom<i64> + Default>(&self, name: &str) -> N {
        match self.value(name) {
            Value::Int(number) => N::try_from(number).unwrap_or_default(),
            Value::Bool(_) | Value::Text(_) | Value::List(_) => N::default(),
        }
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.number(name))
    }

    fn limit(&self, name: &str) -> Option<Duration> {
        Some(self.seconds(name)).filter(|limit| !limit.is_zero())
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            Value::Bool(_) | Value::Int(_) | Value::List(_) => String::new(),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(items) => items,
            Value::Bool(_) | Value::Int(_) | Value::Text(_) => Vec::new(),
        }
    }

    fn connectors(&self) -> Vec<Connector> {
        (0..table::INSTANCES)
            .filter_map(|number| {
                let part = |part: &str| format!("system.remotemanager.connector{number}.{part}");
                let address = self.text(&part("address"));
                let kind = if self.text(&part("type")) == "icg" {
                    ConnectorKind::Icg
                } else {
                    ConnectorKind::Ums
                };
                let port = self.number(&part("port"));
                (!address.is_empty()).then_some(Connector {
                    kind,
                    address,
                    port,
                    roots: Vec::new(),
                })
            })
            .collect()
    }

    fn gateways(&self) -> Gateways {
        // Whether somebody has said it is more than what is in force: the default takes no side.
        match (self.effective)("system.remotemanager.enable_icg") {
            Some(Value::Bool(true)) if self.bool("system.remotemanager.icg_try_ums_connect") => {
                Gateways::Second
            }
            Some(Value::Bool(true)) => Gateways::First,
            Some(Value::Bool(false)) => Gateways::Off,
            Some(Value::Int(_) | Value::Text(_) | Value::List(_)) | None => Gateways::Automatic,
        }
    }

    fn network(&self) -> NetworkSettings {
        let proxy = match self.text("umbra.proxy.mode").as_str() {
            "manual" => ProxyChoice::Manual {
                socks5: self.text("umbra.proxy.type") == "socks5",
                host: self.text("umbra.proxy.host"),
                port: self.number("umbra.proxy.port"),
                user: self.text("umbra.proxy.user"),
                password: Some(self.text("umbra.proxy.password"))
                    .filter(|password| !password.is_empty())
                    .map(Secret::new),
                no_proxy: self.text("umbra.proxy.no_proxy"),
            },
            "environment" => ProxyChoice::Environment,
            _ => ProxyChoice::None,
        };
        NetworkSettings {
            proxy,
            ca_file: self.text("umbra.proxy.ca_file"),
            bundle_file: self.text("umbra.icg.bundle_file"),
            ping: self.seconds("system.icg.websocket.pingpong_interval"),
            silence: self.seconds("system.icg.websocket.network_timeout"),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let required = self.bool("umbra.consent.required");
        let unattended = if required {
            // What the server says about it does not count then.
            (self.local)("umbra.consent.unattended").unwrap_or(Value::Text("deny".to_owned()))
        } else {
            self.value("umbra.consent.unattended")
        };
        Snapshot {
            vnc: Vnc {
                enabled: self.bool("network.vncserver.enabled"),
                port: self.number("network.vncserver.port"),
                listen: self
                    .list("umbra.vncserver.listen")
                    .iter()
                    .filter_map(|text| text.parse().ok())
                    .collect(),
                secure_mode: self.bool("network.vncserver.secure_mode"),
                tls12: self.bool("umbra.vncserver.tls12"),
                remote_input: self.bool("network.vncserver.remoteinput"),
                password: Some(self.text("network.vncserver.crypt_password"))
                    .filter(|password| !password.is_empty())
                    .map(Secret::new),
                instances: if self.bool("network.vncserver.shared") {
                    self.number::<u16>("network.vncserver.instances")
                        .max(1)
                        .into()
                } else {
                    1
                },
                upstream: Upstream::parse(&self.text("umbra.vncserver.upstream"))
                    .unwrap_or(Upstream::Spawn),
                command: self.list("umbra.vncserver.command"),
                environment: self
                    .list("umbra.vncserver.environment")
                    .iter()
                    .filter_map(|item| item.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            },
            manager: Manager {
                allowed: self.bool("system.remotemanager.allow_remote_management"),
                connectors: self.connectors(),
                ranking: match self.text("system.remotemanager.connectorranking").as_str() {
                    "ums" => Ranking::Ums,
                    "icg" => Ranking::Icg,
                    _ => Ranking::All,
                },
                gateways: self.gateways(),
                reconnect_interval: self.seconds("system.remotemanager.reconnect_interval"),
                connect_timeout: self.seconds("system.remotemanager.connect_timeout"),
            },
            network: self.network(),
            discovery: DiscoverySettings {
                dns: self.bool("umbra.discovery.dns"),
                dhcp: self.bool("umbra.discovery.dhcp"),
                domain: self.text("umbra.discovery.domain"),
            },
            require_fingerprint: self.bool("umbra.enrolment.require_fingerprint"),
            session: SessionLimits {
                idle: self.limit("umbra.session.idle_limit"),
                total: self.limit("umbra.session.total_limit"),
            },
            consent: Consent {
                ask: required || self.bool("network.vncserver.promptuser"),
                timeout: self.seconds("umbra.consent.timeout"),
                unattended: if unattended == Value::Text("allow".to_owned()) {
                    Unattended::Allow
                } else {
                    Unattended::Deny
                },
                program: self.list("umbra.consent.program"),
            },
            indicator: Indicator {
                shown: self.bool("umbra.indicator.required")
                    || self.bool("network.vncserver.showconnectedicon"),
                disconnect: self.bool("network.vncserver.showdisconnectbtn"),
                position: self.text("userinterface.vncserver.indicatorposition"),
                program: self.list("umbra.indicator.program"),
                required: self.bool("umbra.indicator.required"),
            },
            control_group: Some(self.text("umbra.control.group")).filter(|group| !group.is_empty()),
            reboot_command: self.list("umbra.power.reboot_command"),
            shutdown_command: self.list("umbra.power.shutdown_command"),
            message_program: self.list("umbra.message.program"),
            update_command: self.list("umbra.update.command"),
            confinement: self.bool("umbra.confinement"),
            hands: Hands {
                reboot: self.list("umbra.hands.reboot_command"),
                shutdown: self.list("umbra.hands.shutdown_command"),
                update: self.list("umbra.hands.update_command"),
            },
            log_level: self.text("umbra.log.level"),
            server_revision: self.revision,
        }
    }
}
