//! How the device gets out of its network: the proxy, the certificates that open the way, the heartbeat of a WebSocket. It is
//! read from the parameters at each attempt, so that a change needs no restart; a password never leaves it in clear text.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use umbra_carrier::dial::Dialer;
use umbra_carrier::proxy::{Credentials, NoProxy, ProxySettings};
use umbra_carrier::tls::{PublicRoots, certificates_from_pem};
use umbra_carrier::ws::Keepalive;
use umbra_protocol::Secret;

use super::trouble::{Trouble, sentence};
use crate::discovery::DeviceNames;
use crate::files;

/// A bundle of public roots has a few hundred KiB.
const PEM_MAX: usize = 4 * 1024 * 1024;

/// Which proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyChoice {
    /// None.
    None,
    /// As the parameters say.
    Manual {
        /// Whether it speaks SOCKS5 instead of HTTP.
        socks5: bool,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// The user's name; empty for no credentials.
        user: String,
        /// The password.
        password: Option<Secret>,
        /// Hosts that are reached without it.
        no_proxy: String,
    },
    /// As the environment of the agent says.
    Environment,
}

/// What the parameters say about the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSettings {
    /// The proxy.
    pub proxy: ProxyChoice,
    /// PEM file with the roots of whoever opens TLS on the way; empty for none.
    pub ca_file: String,
    /// PEM file with public roots; empty for those that are built in.
    pub bundle_file: String,
    /// After so much silence a WebSocket is pinged.
    pub ping: Duration,
    /// After so much more silence it is dead.
    pub silence: Duration,
}

/// The way out as it is used.
#[derive(Clone, Debug)]
pub struct Network {
    /// Connects, through the proxy where there is one.
    pub dialer: Dialer,
    /// The heartbeat of a WebSocket.
    pub keepalive: Keepalive,
    ca_file: String,
    bundle_file: String,
}

impl Network {
    /// Makes use of the parameters.
    ///
    /// # Errors
    /// Where they make no sense together; only a person can mend that.
    pub fn new(settings: &NetworkSettings) -> Result<Self, Trouble> {
        Ok(Self {
            dialer: Dialer::new(proxy(&settings.proxy)?, &DeviceNames),
            keepalive: Keepalive {
                interval: settings.ping,
                timeout: settings.silence,
            },
            ca_file: settings.ca_file.clone(),
            bundle_file: settings.bundle_file.clone(),
        })
    }

    /// The proxy on the way to this host, for people.
    pub fn proxy_name(&self, host: &str, port: u16) -> Option<String> {
        self.dialer
            .proxy
            .proxy_for(host, port)
            .map(|proxy| proxy.name())
    }

    /// Roots of whoever opens TLS on the way, and public ones.
    pub(super) fn authorities(&self) -> Result<Authorities, Trouble> {
        Ok(Authorities {
            opening: read(&self.ca_file, "umbra.proxy.ca_file")?,
            public: read(&self.bundle_file, "umbra.icg.bundle_file")?,
            built_in: self.bundle_file.is_empty().then(PublicRoots::built_in),
        })
    }

    /// The public certification authorities that count on this device: those that are built in, or those of the image's maker in
    /// their place.
    ///
    /// # Errors
    /// Where that file can't be used.
    pub fn public_roots(&self) -> Result<PublicRoots, Trouble> {
        let authorities = self.authorities()?;
        Ok(match authorities.built_in {
            Some(built_in) => built_in,
            None => PublicRoots::of_certificates(&authorities.public),
        })
    }
}

/// Further roots for the outer TLS of a way through a gateway.
pub(super) struct Authorities {
    pub(super) opening: Vec<CertificateDer<'static>>,
    pub(super) public: Vec<CertificateDer<'static>>,
    /// Those that are built in, where nothing is named in their place.
    pub(super) built_in: Option<PublicRoots>,
}

fn proxy(choice: &ProxyChoice) -> Result<ProxySettings, Trouble> {
    match choice {
        ProxyChoice::None => Ok(ProxySettings::none()),
        ProxyChoice::Environment => {
            ProxySettings::from_environment(|name| std::env::var(name).ok())
                .map_err(|error| Trouble::lasting("proxy_settings", sentence(&error)))
        }
        ProxyChoice::Manual { host, .. } if host.is_empty() => Err(Trouble::lasting(
            "proxy_settings",
            "A proxy shall be used (umbra.proxy.mode), but none is named: set umbra.proxy.host.",
        )),
        ProxyChoice::Manual {
            socks5,
            host,
            port,
            user,
            password,
            no_proxy,
        } => {
            let credentials = (!user.is_empty()).then(|| {
                let password = password.as_ref().map_or("", |password| password.reveal());
                Credentials::new(user.as_str(), password)
            });
            // Who names a proxy means it for everything that is not excepted by name.
            let exceptions = NoProxy::parse(no_proxy).with_loopback_proxied();
            Ok(if *socks5 {
                ProxySettings::socks5(host.as_str(), *port, credentials, exceptions)
            } else {
                ProxySettings::http(host.as_str(), *port, credentials, exceptions)
            })
        }
    }
}

fn read(file: &str, parameter: &str) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    let bad = |why: String| {
        Trouble::lasting(
            "ca_file",
            format!("The certificates in {file} ({parameter}) can't be used: {why}"),
        )
    };
    // A system's bundle is usually a link.
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| Path::new(file).to_owned());
    match files::read_text(&path, PEM_MAX) {
        Ok(Some(pem)) => certificates_from_pem(&pem).map_err(|error| bad(sentence(&error))),
        Ok(None) => Err(bad("there is no such file.".to_owned())),
        Err(error) => Err(bad(sentence(&error))),
    }
}
