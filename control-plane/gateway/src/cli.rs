//! The command line as a person types it. What the words mean is `config`'s business; nothing is checked here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The gateway of Umbra: joins devices, servers and consoles that all connect to it, and reads nothing of what they say.
#[derive(Debug, Parser)]
#[command(name = "umbra-gateway", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve devices, servers and consoles until a signal comes.
    Run(RunArgs),
    /// Look at certificates, key and servers, say all that is wrong with them, and end.
    Check(KeystoreArgs),
}

/// Where certificate, key and servers are.
#[derive(Debug, Clone, Args)]
pub struct KeystoreArgs {
    /// The folder with chain.pem, key.pem and servers.pem.
    #[arg(long, value_name = "DIR", default_value = "/etc/umbra-gateway")]
    pub keystore: PathBuf,
    /// The gateway's certificate, intermediates and root, instead of chain.pem in the folder.
    #[arg(long, value_name = "FILE")]
    pub chain: Option<PathBuf>,
    /// The gateway's private key, instead of key.pem in the folder.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The uplink certificates of the servers that may attach, instead of servers.pem in the folder.
    #[arg(long, value_name = "FILE")]
    pub servers: Option<PathBuf>,
}

/// What serving needs.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Where certificate, key and servers are.
    #[command(flatten)]
    pub keystore: KeystoreArgs,
    /// Address and port for devices, servers and consoles; port 0 takes any that is free.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8443")]
    pub listen: String,
    /// Address and port for Prometheus.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9464")]
    pub metrics_listen: String,
    /// How long running tunnels may go on after the signal to stop, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub drain_seconds: String,
    /// Another address and port, without TLS: only for a reverse proxy that offloads it.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_plaintext: Option<String>,
    /// Network from which connections without TLS are accepted, that is, where the reverse proxy is; may be repeated.
    #[arg(long, value_name = "CIDR")]
    pub plaintext_from: Vec<String>,
    /// Network of reverse proxies whose X-Forwarded-For is believed, besides --plaintext-from; may be repeated.
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<String>,
}
