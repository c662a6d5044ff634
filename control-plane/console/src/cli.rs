//! The command line as a person types it. Passwords, keys and tokens have no place in it: everybody on the machine can
//! read the argument list of a running program.

mod keys;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use umbra_carrier::address::HostPort;
use umbra_protocol::api::Role;
use umbra_protocol::settings::Value;
use umbra_protocol::{Fingerprint, SessionId};

pub use self::keys::{
    ExportArgs, FormatArg, KeysArgs, KeysCommand, MailArgs, NewKeyArgs, SmtpTlsArg,
};
use self::values::{address, assignment, limit, loopback, span};

/// The port of a server where none is named.
pub const DEFAULT_PORT: u16 = 8443;

macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0    done; for shadow: the session ran and ended in order
  1    refused, or failed
  2    the command line is wrong
  3    nobody is logged in, or the log-in has ended
  4    the device is offline
  5    a server or a device is not the one it should be (another certificate)
  6    the server can't be reached
  130  interrupted (Ctrl-C)"
    };
}

/// Everything on the command line.
#[derive(Debug, Parser)]
#[command(
    name = "umbra",
    version,
    about = "The helpdesk's command line: log in, list devices, make keys, shadow a screen",
    after_help = concat!("\
Examples:
  umbra login ums.example.com
  umbra devices
  umbra shadow till-5 --reason \"ticket 4711\"

Files:
  ~/.config/umbra/config.json (or below $XDG_CONFIG_HOME) keeps servers, their pinned root certificates and who is
  logged in. --config or UMBRA_CONFIG name another file.

", exit_codes!()),
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Print the server's answer as one JSON document instead of a table
    #[arg(long, global = true)]
    pub json: bool,
    /// The server; that of the last log-in when not given
    #[arg(long, global = true, value_name = "HOST[:PORT]", value_parser = address)]
    pub server: Option<HostPort>,
    /// Keep servers and log-ins in this file [default: $UMBRA_CONFIG, or config.json in ~/.config/umbra]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in to a server, and pin its root certificate at the first time
    Login(LoginArgs),
    /// Log out: the server and this machine forget the log-in
    Logout,
    /// Say which account is logged in, and where
    Whoami,
    /// List devices, or look after one
    #[command(
        after_help = "Examples:\n  umbra devices\n  umbra devices lobby\n  umbra devices show till-5\n  umbra devices command till-5 reboot --wait"
    )]
    Devices(DevicesArgs),
    /// Gateways: make, look after and remove them, and move devices to them
    Gateways(GatewaysArgs),
    /// First-authentication keys: what new devices present at their first contact
    Keys(KeysArgs),
    /// See and operate the screen of a device, in any VNC viewer
    Shadow(ShadowArgs),
    /// List shadowing sessions, or look at or end one
    #[command(
        after_help = "Examples:\n  umbra sessions --device till-5\n  umbra sessions show 0123456789abcdef0123456789abcdef\n  umbra sessions end 0123456789abcdef0123456789abcdef"
    )]
    Sessions(SessionsArgs),
    /// Show the audit log, newest first
    #[command(after_help = "Example:\n  umbra audit --limit 50")]
    Audit(AuditArgs),
    /// Show or change what holds for every device
    #[command(after_help = "Examples:\n  umbra policy\n  umbra policy --enforce-secure-mode on")]
    Policy(PolicyArgs),
    /// Operator accounts
    Accounts(AccountsArgs),
}

/// `umbra login`.
#[derive(Debug, Args)]
#[command(after_help = "\
The first time, the fingerprint of the server's root certificate is shown with one of its four parts missing; type
that part from what the server's administrator gave to you. With --fingerprint nothing is asked.

Examples:
  umbra login ums.example.com --user anna
  umbra login 192.0.2.10:8443 --user robot --password-file /run/secrets/umbra --fingerprint P1-P2-P3-P4")]
pub struct LoginArgs {
    /// The server; port 8443 unless given
    #[arg(value_name = "HOST[:PORT]", value_parser = address)]
    pub host: Option<HostPort>,
    /// Account name; asked for when not given
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Read the password from the first line of a file, or of the standard input (-)
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<PathBuf>,
    /// Trust the server only if its root certificate has this SHA-256 fingerprint
    #[arg(long, value_name = "P1-P2-P3-P4")]
    pub fingerprint: Option<Fingerprint>,
}

/// `umbra devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// List only devices with this text in name, unit ID, device ID, system or address
    pub query: Option<String>,
    /// What to do with one device.
    #[command(subcommand)]
    pub command: Option<DevicesCommand>,
}

/// What to do with one device. `DEVICE` is a name, a unit ID or a device ID.
#[derive(Debug, Subcommand)]
pub enum DevicesCommand {
    /// Everything that is known of a device
    #[command(after_help = "Example:\n  umbra devices show 00E0C51C9C32")]
    Show {
        /// Name, unit ID or device ID
        device: String,
    },
    /// Give a device another name
    #[command(after_help = "Example:\n  umbra devices rename 00E0C51C9C32 till-5")]
    Rename {
        /// Name, unit ID or device ID
        device: String,
        /// The new name
        name: String,
    },
    /// Take a device off the file: it needs a new key to come back
    #[command(after_help = "Example:\n  umbra devices remove till-5")]
    Remove {
        /// Name, unit ID or device ID
        device: String,
    },
    /// File the new certificate that a device presents (after it was re-imaged)
    #[command(after_help = "\
Both certificates are shown and the answer is asked for. Without anybody to ask, name the new one with --fingerprint.

Example:
  umbra devices accept-certificate till-5")]
    AcceptCertificate {
        /// Name, unit ID or device ID
        device: String,
        /// Accept this certificate without asking; refused if the device presents another one
        #[arg(long, value_name = "P1-P2-P3-P4")]
        fingerprint: Option<Fingerprint>,
    },
    /// Refuse the new certificate that somebody presents under a device's unit ID: the device's own stays
    #[command(after_help = "\
It is not offered again, and who has it stays out. Without --fingerprint, the one that is presented now is refused.

Example:
  umbra devices refuse-certificate till-5")]
    RefuseCertificate {
        /// Name, unit ID or device ID
        device: String,
        /// Refuse this certificate; an error if another one is presented
        #[arg(long, value_name = "P1-P2-P3-P4")]
        fingerprint: Option<Fingerprint>,
    },
    /// Say that a device is no clone, after you have looked into it
    #[command(after_help = "\
Two machines that take turns under one key are reported as clones, and the key is replaced. If they still take turns, the device
is reported again.

Example:
  umbra devices not-cloned till-5")]
    NotCloned {
        /// Name, unit ID or device ID
        device: String,
    },
    /// Show or change the parameters that the server decides for a device
    #[command(after_help = "\
A VALUE is true, false, a whole number, a text, or a list like [\"a\",\"b\"]. A text that looks like one of the others
is put in double quotes: 'NAME=\"5900\"'.

Examples:
  umbra devices settings till-5
  umbra devices settings till-5 network.vncserver.promptuser=false
  umbra devices settings till-5 --unset network.vncserver.promptuser")]
    Settings {
        /// Name, unit ID or device ID
        device: String,
        /// Parameters to set
        #[arg(value_name = "NAME=VALUE", value_parser = assignment)]
        set: Vec<(String, Value)>,
        /// Leave a parameter to the device again (may be repeated)
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
    },
    /// List the newest commands to a device, and how far they are
    #[command(after_help = "Example:\n  umbra devices commands till-5")]
    Commands {
        /// Name, unit ID or device ID
        device: String,
    },
    /// Give a device a command; it runs when the device is online
    #[command(
        after_help = "Examples:\n  umbra devices command till-5 reboot\n  umbra devices command till-5 message \"We restart at noon.\" --wait"
    )]
    Command {
        /// Name, unit ID or device ID
        device: String,
        /// Wait for the device's answer
        #[arg(long, global = true)]
        wait: bool,
        /// How long to wait at most
        #[arg(long, global = true, value_name = "TIME", default_value = "5min", value_parser = span)]
        timeout: Duration,
        /// The command.
        #[command(subcommand)]
        action: ActionArg,
    },
}

/// What a device can be told to do.
#[derive(Debug, Subcommand)]
pub enum ActionArg {
    /// Restart the device
    Reboot,
    /// Switch the device off
    Shutdown,
    /// Update the device's system, in the way that its maker has laid down on it
    Update,
    /// Show a text to the person at the device
    Message {
        /// The text
        text: String,
    },
    /// Report what the device is and what runs on it
    Inventory,
    /// Make a new certificate for the key that the device has
    Renew,
    /// Make a new key and a certificate for it
    Rekey,
}

/// `umbra gateways`.
#[derive(Debug, Args)]
pub struct GatewaysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: GatewaysCommand,
}

/// What to do with gateways. An address is `HOST` or `HOST:PORT`; the port is 8443 unless said.
#[derive(Debug, Subcommand)]
pub enum GatewaysCommand {
    /// List gateways, and whether the server is attached to them
    #[command(after_help = "Example:\n  umbra gateways list")]
    List,
    /// Everything that is known of a gateway
    #[command(after_help = "Example:\n  umbra gateways show dmz")]
    Show {
        /// Its name
        name: String,
    },
    /// Make a gateway, and write what it needs to a folder: chain.pem, key.pem, servers.pem
    #[command(after_help = "\
The folder is the gateway's keystore: copy it to the gateway's machine as /etc/umbra-gateway, by a way on which nobody
else can read it, and start umbra-gateway there. The key is not kept by the server.

Examples:
  umbra gateways create dmz --address gw.internal --external gw.example.com --out dmz
  umbra gateways create cloud --address gw.example.com:443 --host 203.0.113.5 --limit 2000 --out cloud
  umbra gateways create own --address gw.example.com --root our-root.pem --out own")]
    Create {
        /// Its name: letters, digits, dots, dashes
        name: String,
        /// Where the server, and consoles in its network, reach the gateway
        #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
        address: HostPort,
        /// Where devices, and consoles outside, reach it [default: the same]
        #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
        external: Option<HostPort>,
        /// A further name or address for its certificate (may be repeated)
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        /// How many devices it may connect [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// The gateway has a chain of its own, which ends with a root certificate in this PEM file
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        /// The folder to make; one that exists must be empty
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Change where a gateway is reached, or how many devices it may connect
    #[command(
        after_help = "Examples:\n  umbra gateways set dmz --limit 500\n  umbra gateways set dmz --limit none\n  umbra gateways set dmz --external gw2.example.com"
    )]
    Set {
        /// Its name
        name: String,
        /// Where the server, and consoles in its network, reach the gateway
        #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
        address: Option<HostPort>,
        /// Where devices, and consoles outside, reach it
        #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
        external: Option<HostPort>,
        /// How many devices it may connect
        #[arg(long, value_name = "N|none", value_parser = limit)]
        limit: Option<Limit>,
    },
    /// Take a gateway off the file; devices that are linked through it are cut off
    #[command(after_help = "Example:\n  umbra gateways remove dmz")]
    Remove {
        /// Its name
        name: String,
    },
    /// Make a new certificate and key for a gateway, with its present addresses
    #[command(
        after_help = "The present one stays good until it ends.\n\nExample:\n  umbra gateways certificate dmz --out dmz-new"
    )]
    Certificate {
        /// Its name
        name: String,
        /// The folder to make; one that exists must be empty
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Move devices to a gateway; each keeps its ways unless the new one works
    #[command(
        after_help = "Examples:\n  umbra gateways move till-5 till-6 --to dmz\n  umbra gateways move till-5 --to cloud --timeout 30s"
    )]
    Move {
        /// Names, unit IDs or device IDs
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
        /// The gateway's name
        #[arg(long, value_name = "GATEWAY")]
        to: String,
        /// How long to wait for the devices' answers
        #[arg(long, value_name = "TIME", default_value = "2min", value_parser = span)]
        timeout: Duration,
    },
    /// Take their gateways away from devices that are linked directly
    #[command(after_help = "Example:\n  umbra gateways detach till-5")]
    Detach {
        /// Names, unit IDs or device IDs
        #[arg(required = true, value_name = "DEVICE")]
        devices: Vec<String>,
        /// How long to wait for the devices' answers
        #[arg(long, value_name = "TIME", default_value = "2min", value_parser = span)]
        timeout: Duration,
    },
}

/// How many devices; none for any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u32>);

/// `umbra shadow`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
The viewer starts only once the device has let us in: before that, its user may have to agree. With --json, one line
of JSON is printed per event: listening (with --listen), and ended.

Examples:
  umbra shadow till-5 --reason \"ticket 4711\"
  umbra shadow till-5 --view-only --viewer \"vncviewer -FullScreen {host}::{port}\"
  umbra shadow till-5 --listen 127.0.0.1:0

", exit_codes!()))]
pub struct ShadowArgs {
    /// Name, unit ID or device ID
    pub device: String,
    /// The viewer to start; {host} and {port} stand for where it finds the screen, or 127.0.0.1::PORT is appended
    /// [default: the first installed one]
    #[arg(long, value_name = "COMMAND", conflicts_with = "listen")]
    pub viewer: Option<String>,
    /// Start no viewer: wait on this loopback address for one of your own (port 0: any free one)
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub listen: Option<std::net::SocketAddr>,
    /// Why, for the person at the device and the audit log
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// See only: no keyboard, pointer or clipboard reaches the device
    #[arg(long)]
    pub view_only: bool,
    /// Your clipboard doesn't reach the device
    #[arg(long)]
    pub no_clipboard: bool,
}

/// `umbra sessions`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// Only sessions with this device
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Only the newest so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// What to do with one session.
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
}

/// What to do with one session.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// Everything that is known of a session
    Show {
        /// The session's ID
        id: SessionId,
    },
    /// End a session
    End {
        /// The session's ID
        id: SessionId,
    },
}

/// `umbra audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only the newest so many entries
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// `umbra policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Only encrypted shadowing, whatever a device is set to
    #[arg(long, value_name = "on|off")]
    pub enforce_secure_mode: Option<Switch>,
    /// How many devices all gateways together may connect
    #[arg(long, value_name = "N|none", value_parser = limit)]
    pub gateway_connections: Option<Limit>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It holds.
    On,
    /// It doesn't hold.
    Off,
}

/// `umbra accounts`.
#[derive(Debug, Args)]
pub struct AccountsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AccountsCommand,
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountsCommand {
    /// List accounts
    #[command(after_help = "Example:\n  umbra accounts list")]
    List,
    /// Make an account; its password is asked for
    #[command(
        after_help = "Example:\n  umbra accounts add bob --display-name \"Bob (helpdesk)\" --role operator"
    )]
    Add {
        /// Account name: letters, digits, dots, dashes
        user: String,
        /// Name that people at the devices see [default: the account name]
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
        /// What the account may do
        #[arg(long, value_enum, default_value_t = RoleArg::Operator)]
        role: RoleArg,
        /// Read the password from the first line of a file, or of the standard input (-)
        #[arg(long, value_name = "FILE|-")]
        password_file: Option<PathBuf>,
    },
    /// Remove an account; its log-ins end
    #[command(after_help = "Example:\n  umbra accounts remove bob")]
    Remove {
        /// Account name
        user: String,
    },
    /// Set an account's password; its log-ins end, and the new password is asked for
    #[command(after_help = "Example:\n  umbra accounts password bob")]
    Password {
        /// Account name; the one that is logged in when not given
        user: Option<String>,
        /// Read the password from the first line of a file, or of the standard input (-)
        #[arg(long, value_name = "FILE|-")]
        password_file: Option<PathBuf>,
    },
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Everything
    Administrator,
    /// See devices, shadow, send messages and reboots
    Operator,
    /// Read everything, change nothing
    Auditor,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Administrator => Self::Administrator,
            RoleArg::Operator => Self::Operator,
            RoleArg::Auditor => Self::Auditor,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent_in_itself() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn walk(command: &mut clap::Command, path: &str, without: &mut Vec<String>) {
            let names: Vec<String> = command
                .get_subcommands()
                .map(|c| c.get_name().to_owned())
                .collect();
            if names.is_empty() {
                let help = command.render_help().to_string();
                assert!(
                    command.get_about().is_some(),
                    "{path} says nothing about itself"
                );
                if !help.contains("Example") {
                    without.push(path.to_owned());
                }
            }
            for name in names {
                let sub = command.find_subcommand_mut(&name).expect("listed");
                walk(sub, &format!("{path} {name}"), without);
            }
        }
        let mut command = Cli::command();
        command.build();
        let mut without = Vec::new();
        walk(&mut command, "umbra", &mut without);
        // What takes no arguments, and the parts of a command whose own help has the examples.
        without.retain(|path| {
            !["umbra logout", "umbra whoami"].contains(&path.as_str())
                && !path.starts_with("umbra sessions ")
                && !path.starts_with("umbra devices command ")
        });
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn no_option_takes_a_secret() {
        let mut names = Vec::new();
        fn walk(command: &clap::Command, names: &mut Vec<String>) {
            names.extend(
                command
                    .get_arguments()
                    .filter_map(|arg| arg.get_long().map(str::to_owned)),
            );
            command.get_subcommands().for_each(|sub| walk(sub, names));
        }
        walk(&Cli::command(), &mut names);
        assert!(names.contains(&"password-file".to_owned()));
        for forbidden in ["password", "token", "key", "chosen", "secret"] {
            assert!(
                !names.contains(&forbidden.to_owned()),
                "--{forbidden} would show a secret to everybody"
            );
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            "umbra --json --server ums devices show x",
            "umbra devices --json show x --server ums",
            "umbra devices show x --json --server ums:8443",
        ] {
            let cli = parse(line).expect(line);
            assert!(cli.json, "{line}");
            assert_eq!(
                cli.server.expect("a server").to_string(),
                "ums:8443",
                "{line}"
            );
            let Command::Devices(DevicesArgs {
                query: None,
                command: Some(DevicesCommand::Show { device }),
            }) = cli.command
            else {
                panic!("{line} is understood otherwise");
            };
            assert_eq!(device, "x");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "umbra keys create --mass --unit 00E0C51C9C32",
            "umbra keys create --quota 5",
            "umbra keys create --chosen-file k",
            "umbra keys create --count 0",
            "umbra keys create --count 1001",
            "umbra keys create --count 2 --export -",
            "umbra keys create --one-time 2 --mass",
            "umbra keys create --one-time 2 --count 3",
            "umbra keys create --mass --units-from f",
            "umbra keys export --key-file k --mass",
            "umbra keys export 0123456789abcdef --unit A",
            "umbra keys export 0123456789abcdef --key-file k",
            "umbra keys export --smtp mail.example.com",
            "umbra keys export --to a@example.com --smtp mail.example.com",
            "umbra keys export --from a@example.com",
            "umbra keys export --smtp-tls tls",
            "umbra keys export --to a@b.c --from a@b.c --smtp m --smtp-user u",
            "umbra keys export --to a@b.c --from a@b.c --smtp m --out f",
            "umbra keys export --format pdf",
            "umbra shadow x --viewer v --listen 127.0.0.1:0",
            "umbra shadow x --listen 0.0.0.0:5901",
            "umbra shadow x --listen 5901",
            "umbra login https://ums.example.com",
            "umbra devices settings x network",
            "umbra keys create --expires 7",
            "umbra sessions show 12",
            "umbra login ums --fingerprint 0123",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn waiting_for_a_command_can_be_said_before_and_after_it() {
        for line in [
            "umbra devices command x --wait reboot",
            "umbra devices command x reboot --wait",
        ] {
            let Command::Devices(DevicesArgs {
                command: Some(DevicesCommand::Command { wait, .. }),
                ..
            }) = parse(line).expect(line).command
            else {
                panic!("{line} is understood otherwise");
            };
            assert!(wait, "{line}");
        }
    }
}
