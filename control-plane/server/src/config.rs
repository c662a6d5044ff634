//! What the command line means, checked once: after this module every value is usable. All mistakes are told together.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use umbra_carrier::address::HostPort;
use umbra_carrier::proxy::{Credentials, NoProxy, ProxyKind, ProxySettings};
use umbra_protocol::limits;

use crate::cli::{RunArgs, StartArgs};
use crate::files;
use crate::server::Endpoint;

/// The port that devices try if nothing is said.
pub const DEFAULT_PORT: u16 = 8443;

/// Mistakes on the command line, all of them.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

/// How this server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder.
    pub state: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Under which names and addresses it is reached; empty if nothing was said.
    hosts: Vec<String>,
    /// Where devices reach it from outside.
    public: Option<HostPort>,
    /// Where the first password goes, unless to standard output.
    pub first_password_file: Option<PathBuf>,
    /// Between two heartbeats of a device.
    pub heartbeat: Duration,
    /// The way to the gateways.
    pub gateway_proxy: ProxySettings,
}

impl Config {
    /// What `init` needs.
    pub fn for_start(args: StartArgs) -> Result<Self, ConfigError> {
        Self::read(args, limits::HEARTBEAT.as_secs(), None, None)
    }

    /// What `run` needs.
    pub fn for_run(args: RunArgs) -> Result<Self, ConfigError> {
        let credentials = args.gateway_proxy_credentials.as_deref();
        Self::read(
            args.start,
            args.heartbeat,
            args.gateway_proxy.as_deref(),
            credentials,
        )
    }

    fn read(
        args: StartArgs,
        heartbeat: u64,
        proxy: Option<&str>,
        credentials: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let gateway_proxy = read_proxy(proxy, credentials).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            ProxySettings::none()
        });
        let hosts = read_hosts(&args.hosts, &mut mistakes);
        let public = args.public_address.as_deref().and_then(|text| {
            HostPort::parse(text, DEFAULT_PORT)
                .map_err(|error| mistakes.push(format!("--public-address {text}: {error}")))
                .ok()
        });
        let bounds = limits::HEARTBEAT_MIN.as_secs()..=limits::HEARTBEAT_MAX.as_secs();
        if !bounds.contains(&heartbeat) {
            mistakes.push(format!(
                "--heartbeat {heartbeat}: seconds from {} to {} are accepted",
                bounds.start(),
                bounds.end()
            ));
        }
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        Ok(Self {
            state: args.state.state,
            listen: args.listen,
            hosts,
            public,
            first_password_file: args.first_password_file,
            heartbeat: Duration::from_secs(heartbeat),
            gateway_proxy,
        })
    }

    /// Names and addresses for the server certificate. `own` are the host's name and addresses.
    pub fn certificate_hosts(&self, own: &[String]) -> Vec<String> {
        let public = self.public.iter().map(|public| public.host().to_owned());
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut all: Vec<String> = Vec::new();
        for host in public
            .chain(self.hosts.clone())
            .chain(self.listen_host())
            .chain(own.iter().cloned())
            .chain(local)
        {
            if !all.contains(&host) {
                all.push(host);
            }
        }
        all
    }

    /// Where devices reach this server, best first; never empty. `port` is the one that it listens on.
    pub fn endpoints(&self, own: &[String], port: u16) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = Vec::new();
        let mut push = |host: String, port| {
            let endpoint = Endpoint { host, port };
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        };
        if let Some(public) = &self.public {
            push(public.host().to_owned(), public.port());
        }
        for host in &self.hosts {
            push(host.clone(), port);
        }
        if self.public.is_none() && self.hosts.is_empty() {
            match self.listen_host() {
                Some(host) => push(host, port),
                None => own.iter().for_each(|host| push(host.clone(), port)),
            }
        }
        if all.is_empty() {
            all.push(Endpoint {
                host: "localhost".into(),
                port,
            });
        }
        // As many as one message to a device holds.
        all.truncate(16);
        all
    }

    /// The one address that it listens on, unless it listens on all.
    fn listen_host(&self) -> Option<String> {
        let address: IpAddr = self.listen.ip();
        (!address.is_unspecified()).then(|| address.to_string())
    }
}

/// The proxy for the way to the gateways. Its password is not on the command line, which everybody can read.
fn read_proxy(url: Option<&str>, credentials: Option<&Path>) -> Result<ProxySettings, String> {
    let Some(url) = url else {
        return Ok(ProxySettings::none());
    };
    let wrong = |error: &dyn std::fmt::Display| format!("--gateway-proxy: {error}");
    let settings = ProxySettings::from_url(url, NoProxy::default()).map_err(|e| wrong(&e))?;
    let Some(proxy) = settings.proxy() else {
        return Err(wrong(&"the URL names no proxy"));
    };
    if proxy.credentials.is_some() {
        return Err(wrong(
            &"everybody on this machine can read the command line: write user name and password to a file, and name \
              it with --gateway-proxy-credentials",
        ));
    }
    let Some(file) = credentials else {
        return Ok(settings);
    };
    let text = files::read_private(file)
        .map_err(|error| format!("--gateway-proxy-credentials: {error}"))?;
    let (user, password) = text
        .lines()
        .next()
        .and_then(|line| line.split_once(':'))
        .ok_or("--gateway-proxy-credentials: the file's first line is not USER:PASSWORD")?;
    let credentials = Some(Credentials::new(user, password));
    let (host, port) = (proxy.host.clone(), proxy.port);
    Ok(match proxy.kind {
        ProxyKind::Http => ProxySettings::http(host, port, credentials, NoProxy::default()),
        ProxyKind::Socks5 => ProxySettings::socks5(host, port, credentials, NoProxy::default()),
    })
}

/// Checks names and addresses, and says what is wrong with which.
pub fn read_hosts(texts: &[String], mistakes: &mut Vec<String>) -> Vec<String> {
    let mut hosts = Vec::new();
    for text in texts {
        match HostPort::new(text.trim(), DEFAULT_PORT) {
            Ok(host) => hosts.push(host.host().to_ascii_lowercase()),
            Err(error) => mistakes.push(format!("--host {text}: {error}")),
        }
    }
    hosts
}

/// The host's name and its addresses in the network, best first.
pub fn own_hosts() -> Vec<String> {
    let mut hosts = Vec::new();
    let name = nix::unistd::gethostname().ok();
    if let Some(name) = name.and_then(|name| name.into_string().ok())
        && HostPort::new(&name, DEFAULT_PORT).is_ok()
    {
        hosts.push(name.to_ascii_lowercase());
    }
    // Without addresses the name has to do.
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    for address in interfaces.filter_map(|interface| interface.address) {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
        let Some(ip) = v4.or(v6) else { continue };
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !ip.is_loopback() && !link_local && !hosts.contains(&ip.to_string()) {
            hosts.push(ip.to_string());
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(arguments: &[&str]) -> Result<Config, ConfigError> {
        let all = ["umbra-server", "run", "--state", "/s"]
            .iter()
            .chain(arguments);
        let Command::Run(args) = Cli::try_parse_from(all).expect("parses").command else {
            panic!("not run");
        };
        Config::for_run(args)
    }

    fn hosts(endpoints: &[Endpoint]) -> Vec<(&str, u16)> {
        endpoints
            .iter()
            .map(|endpoint| (endpoint.host.as_str(), endpoint.port))
            .collect()
    }

    #[test]
    fn devices_are_told_the_public_address_first_and_then_the_named_hosts() {
        let own = ["box".to_owned(), "192.0.2.9".to_owned()];
        let plain = config(&[]).expect("fine");
        assert_eq!(
            hosts(&plain.endpoints(&own, 8443)),
            [("box", 8443), ("192.0.2.9", 8443)]
        );
        let loopback = config(&["--listen", "127.0.0.1:0"]).expect("fine");
        assert_eq!(
            hosts(&loopback.endpoints(&own, 4711)),
            [("127.0.0.1", 4711)]
        );
        let named = config(&[
            "--host",
            "A.example.com",
            "--public-address",
            "out.example.com:443",
        ])
        .expect("fine");
        assert_eq!(
            hosts(&named.endpoints(&own, 8443)),
            [("out.example.com", 443), ("a.example.com", 8443)]
        );
        let certificate = named.certificate_hosts(&own);
        for name in [
            "out.example.com",
            "a.example.com",
            "box",
            "localhost",
            "::1",
        ] {
            assert!(certificate.contains(&name.to_owned()), "{name}");
        }
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let error = config(&[
            "--host",
            "a b",
            "--public-address",
            "http://x",
            "--heartbeat",
            "90",
        ])
        .expect_err("three mistakes")
        .to_string();
        for part in ["--host a b", "--public-address", "--heartbeat 90"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
