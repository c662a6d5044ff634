//! What the command line means: valid values only, and all mistakes told at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::addresses::Network;
use crate::cli::{KeystoreArgs, RunArgs};

/// Longest time for tunnels to go on after the signal to stop.
const DRAIN_MOST: u64 = 3_600;

/// Where certificate, key and servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    /// The gateway's certificate and those above it.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The uplink certificates of its servers.
    pub servers: PathBuf,
}

impl From<KeystoreArgs> for Keystore {
    fn from(args: KeystoreArgs) -> Self {
        let file = |given: Option<PathBuf>, name| given.unwrap_or_else(|| args.keystore.join(name));
        Self {
            chain: file(args.chain, "chain.pem"),
            key: file(args.key, "key.pem"),
            servers: file(args.servers, "servers.pem"),
        }
    }
}

/// Where connections without TLS are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plaintext {
    /// Address and port.
    pub listen: SocketAddr,
    /// From where.
    pub from: Vec<Network>,
}

/// All that a gateway is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Certificate, key and servers.
    pub keystore: Keystore,
    /// Address and port with TLS.
    pub listen: SocketAddr,
    /// Address and port for Prometheus.
    pub metrics: SocketAddr,
    /// The port without TLS, if there is one.
    pub plaintext: Option<Plaintext>,
    /// Reverse proxies that are believed.
    pub trusted: Vec<Network>,
    /// How long tunnels go on after the signal to stop.
    pub drain: Duration,
}

/// All mistakes of a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the command line has mistakes:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Config {
    /// From the words of a person.
    ///
    /// # Errors
    /// All [`Mistakes`].
    pub fn new(args: RunArgs) -> Result<Self, Mistakes> {
        let mut mistakes = Vec::new();
        let listen = address("--listen", &args.listen, &mut mistakes);
        let metrics = address("--metrics-listen", &args.metrics_listen, &mut mistakes);
        let plain = args
            .listen_plaintext
            .as_ref()
            .map(|text| address("--listen-plaintext", text, &mut mistakes));
        let from = networks("--plaintext-from", &args.plaintext_from, &mut mistakes);
        let mut trusted = networks("--trusted-proxy", &args.trusted_proxy, &mut mistakes);
        let drain = args.drain_seconds.parse().ok().filter(|s| *s <= DRAIN_MOST);
        if drain.is_none() {
            mistakes.push(format!(
                "--drain-seconds “{}”: give a whole number from 0 to {DRAIN_MOST}",
                args.drain_seconds.escape_debug()
            ));
        }
        match (&plain, args.plaintext_from.is_empty()) {
            (Some(_), true) => mistakes.push(
                "--listen-plaintext: say with --plaintext-from where the reverse proxy is; nobody else may connect without TLS"
                    .to_owned(),
            ),
            (None, false) => mistakes.push(
                "--plaintext-from: without --listen-plaintext there is no port for it".to_owned(),
            ),
            (Some(_), false) | (None, true) => {}
        }
        let (Some(listen), Some(metrics), Some(drain), true) =
            (listen, metrics, drain, mistakes.is_empty())
        else {
            return Err(Mistakes(mistakes));
        };
        trusted.extend(from.iter().copied());
        Ok(Self {
            keystore: args.keystore.into(),
            listen,
            metrics,
            plaintext: plain.flatten().map(|listen| Plaintext { listen, from }),
            trusted,
            drain: Duration::from_secs(drain),
        })
    }
}

fn address(option: &str, text: &str, mistakes: &mut Vec<String>) -> Option<SocketAddr> {
    let address = SocketAddr::from_str(text).ok();
    if address.is_none() {
        mistakes.push(format!(
            "{option} “{}”: give an address and a port, like [::]:8443 or 192.0.2.7:8443",
            text.escape_debug()
        ));
    }
    address
}

fn networks(option: &str, texts: &[String], mistakes: &mut Vec<String>) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(error) => mistakes.push(format!("{option}: {error}")),
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parse(words: &[&str]) -> Result<Config, Mistakes> {
        let cli = Cli::try_parse_from(["umbra-gateway", "run"].iter().chain(words)).unwrap();
        match cli.command {
            Command::Run(args) => Config::new(args),
            Command::Check(_) => panic!("“run” was said"),
        }
    }

    #[test]
    fn nothing_said_means_the_usual_folder_and_ports_and_no_plaintext() {
        let config = parse(&[]).unwrap();
        assert_eq!(
            config.keystore.chain.to_str(),
            Some("/etc/umbra-gateway/chain.pem")
        );
        assert_eq!(config.listen.to_string(), "[::]:8443");
        assert_eq!(config.metrics.to_string(), "127.0.0.1:9464");
        assert_eq!(config.plaintext, None);
        assert!(config.trusted.is_empty());
        assert_eq!(config.drain, Duration::from_secs(10));
    }

    #[test]
    fn single_files_win_over_the_folder() {
        let config = parse(&["--keystore", "/k", "--key", "/elsewhere/k.pem"]).unwrap();
        assert_eq!(config.keystore.key.to_str(), Some("/elsewhere/k.pem"));
        assert_eq!(config.keystore.servers.to_str(), Some("/k/servers.pem"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = parse(&[
            "--listen=here",
            "--metrics-listen=9464",
            "--drain-seconds=forever",
            "--listen-plaintext=127.0.0.1:8080",
            "--trusted-proxy=10/8",
        ])
        .unwrap_err();
        assert_eq!(mistakes.0.len(), 5, "{mistakes}");
        for option in [
            "--listen “here”",
            "--metrics-listen “9464”",
            "--drain-seconds “forever”",
            "--trusted-proxy: “10/8”",
            "--plaintext-from",
        ] {
            assert!(
                mistakes.to_string().contains(option),
                "{option}: {mistakes}"
            );
        }
    }

    #[test]
    fn a_plaintext_port_needs_its_proxy_and_trusts_it() {
        let config = parse(&[
            "--listen-plaintext=127.0.0.1:8080",
            "--plaintext-from=127.0.0.0/8",
        ])
        .unwrap();
        assert_eq!(config.trusted, config.plaintext.unwrap().from);
        assert!(parse(&["--plaintext-from=127.0.0.0/8"]).is_err());
    }
}
