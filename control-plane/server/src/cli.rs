//! The command line as a person types it. What the words mean is `config`'s business; nothing is checked here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The management server of Umbra.
#[derive(Debug, Parser)]
#[command(name = "umbra-server", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make certificates, database and the first administrator, and end. `run` does it as well where it is needed.
    Init(StartArgs),
    /// Serve devices and consoles until a signal comes.
    Run(RunArgs),
    /// Use a certificate chain of your own instead of the private one.
    ImportChain(ImportArgs),
    /// Operators' accounts, without a running server's help.
    Account(AccountArgs),
    /// Print the root certificate's fingerprint, as devices ask for it.
    Fingerprint(StateArgs),
    /// Copy the database to a file that does not exist yet. Keys and certificates are files beside it.
    Backup(BackupArgs),
}

/// Where the server keeps everything.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The server's folder.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// What a first start needs.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The server's folder.
    #[command(flatten)]
    pub state: StateArgs,
    /// Address and port to listen on; port 0 takes any that is free.
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Name or address under which this server is reached; may be repeated, best first. By default the host's name and
    /// its addresses.
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Where devices reach this server from outside, if that is another address or port.
    #[arg(long, value_name = "HOST:PORT")]
    pub public_address: Option<String>,
    /// Write the first administrator's password to this new file (mode 0600) instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub first_password_file: Option<PathBuf>,
}

/// What serving needs.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// What a first start needs.
    #[command(flatten)]
    pub start: StartArgs,
    /// Seconds between two heartbeats of a device, 1 to 42.
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    pub heartbeat: u64,
    /// Proxy for the way to the gateways: http://HOST:PORT or socks5://HOST:PORT; none if nothing is said.
    #[arg(long, value_name = "URL")]
    pub gateway_proxy: Option<String>,
    /// File with user name and password for that proxy: one line, USER:PASSWORD, for its owner only.
    #[arg(long, value_name = "FILE", requires = "gateway_proxy")]
    pub gateway_proxy_credentials: Option<PathBuf>,
}

/// Which chain to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The server's folder.
    #[command(flatten)]
    pub state: StateArgs,
    /// PEM file: server certificate, intermediates, root.
    #[arg(long, value_name = "FILE")]
    pub chain: PathBuf,
    /// PEM file: the server certificate's key, not encrypted.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Names or addresses that the certificate has to cover; may be repeated.
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Import it although the root is another one than that which devices on file have pinned: they will all have to be
    /// taken on again.
    #[arg(long)]
    pub replace_root: bool,
    /// Print the checks as JSON, for scripts.
    #[arg(long)]
    pub json: bool,
}

/// What to do with accounts.
#[derive(Debug, Args)]
pub struct AccountArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AccountCommand,
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account.
    Add {
        /// The server's folder.
        #[command(flatten)]
        state: StateArgs,
        /// Account name.
        user: String,
        /// Name that people at the devices see; the account's name if nothing is said.
        #[arg(long)]
        display_name: Option<String>,
        /// What the account may do.
        #[arg(long, value_enum, default_value_t = RoleArg::Operator)]
        role: RoleArg,
        /// Read the password from standard input instead of making one up.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Set an account's password and end its log-ins.
    Password {
        /// The server's folder.
        #[command(flatten)]
        state: StateArgs,
        /// Account name.
        user: String,
        /// Read the password from standard input instead of making one up.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Print all accounts.
    List {
        /// The server's folder.
        #[command(flatten)]
        state: StateArgs,
    },
}

/// What an account may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleArg {
    /// Everything.
    Administrator,
    /// See devices, shadow, send messages and reboots.
    Operator,
    /// Read everything, change nothing.
    Auditor,
}

/// Where to copy the database.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The server's folder.
    #[command(flatten)]
    pub state: StateArgs,
    /// The copy.
    pub file: PathBuf,
}
