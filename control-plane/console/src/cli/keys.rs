//! `umbra keys` as a person types it. A key itself never stands on the command line: it is read from a file, or made.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use umbra_carrier::address::HostPort;
use umbra_protocol::{KeyId, UnitId};

use super::values::{mail_server, span};

/// `umbra keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
The server keeps nothing from which a key could be computed. Keys that were made here are therefore kept in a file that only
you may read (config.keys.json beside the configuration) until they are exported, used, expired or revoked. With
--dont-keep they are shown once and kept nowhere.")]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with first-authentication keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make keys and show them
    #[command(after_help = "\
A list of units (--units-from) has one unit ID per line, or in the first column of a CSV file; MAC addresses may be written with
colons or dashes. If any line is wrong, all mistakes are told and nothing is made.

Examples:
  umbra keys create                                 one key for one device
  umbra keys create --one-time 20 --expires 7d      twenty of them
  umbra keys create --unit 00E0C51C9C32             only this unit may use it
  umbra keys create --units-from floor3.csv         only the units of this list, each once
  umbra keys create --device till-5 --device till-6 only these devices, which are on file
  umbra keys create --mass --quota 500 --tag hq     one key for up to 500 devices
  umbra keys create --export till-5.txt             with host, port and fingerprint, ready to be handed over")]
    Create {
        /// What kind of keys.
        #[command(flatten)]
        keys: NewKeyArgs,
        /// Keys for one device each, whichever comes first: so many (this is what is made when nothing else is said)
        #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1",
            value_parser = clap::value_parser!(u32).range(1..=1_000),
            conflicts_with_all = ["unit", "units_from", "device", "mass", "count"])]
        one_time: Option<u32>,
        /// How many keys of that kind [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        count: Option<u32>,
        /// Write the credentials (where to connect, fingerprint, key) as text to a file that only you may read, or to the
        /// standard output (-)
        #[arg(long, value_name = "FILE|-", conflicts_with_all = ["count", "one_time"])]
        export: Option<PathBuf>,
        /// Keep the keys nowhere on this machine: they are shown this once
        #[arg(long)]
        dont_keep: bool,
    },
    /// List keys, without their text
    #[command(after_help = "\
KEPT says whether this machine still holds the key's text, so that it can be exported.

Example:
  umbra keys list")]
    List,
    /// Everything that is known of a key, and which devices came in with it
    #[command(after_help = "Example:\n  umbra keys show 0123456789abcdef")]
    Show {
        /// The key's ID, as umbra keys list shows it
        id: KeyId,
    },
    /// Let a key that was disabled open the door again
    #[command(after_help = "Example:\n  umbra keys enable 0123456789abcdef")]
    Enable {
        /// The key's ID, as umbra keys list shows it
        id: KeyId,
    },
    /// Keep a key from opening the door until it is enabled again
    #[command(after_help = "Example:\n  umbra keys disable 0123456789abcdef")]
    Disable {
        /// The key's ID, as umbra keys list shows it
        id: KeyId,
    },
    /// Make a key useless, for good
    #[command(after_help = "Example:\n  umbra keys revoke 0123456789abcdef")]
    Revoke {
        /// The key's ID, as umbra keys list shows it
        id: KeyId,
    },
    /// Hand over what a device needs: all gateways (or the server), their fingerprints, and a key
    #[command(after_help = "\
Which key: those named by ID, the one in --key-file, or the oldest that is kept on this machine and still good. If there is none,
or if the kind of key is said (--unit, --mass, ...), one is made. An exported key is kept no longer, unless --keep is given.

Formats:
  text  the layout of the clipboard, also for a file icg.txt
  xml   for a file icg.xml; a device finds icg.xml and icg.txt on a stick by itself
  html  a page to be printed, with a QR code of the text
  eml   an e-mail with the text, and icg.xml with it, to be opened and sent by a mail program
  csv   the keys as a table: all that are kept, or those named

With --smtp the e-mail is sent from here, over TLS only (STARTTLS; from the beginning at port 465).

Examples:
  umbra keys export | xclip
  umbra keys export --format xml --out /media/stick/icg.xml
  umbra keys export --format html --unit 00E0C51C9C32 --expires 2d --out till-5.html
  umbra keys export --format csv --out keys.csv
  umbra keys export --key-file key.txt
  umbra keys export --format eml --to \"anna@example.com;bob@example.com\" --out till-5.eml
  umbra keys export --to anna@example.com --from it@example.com --smtp mail.example.com:587 \\
      --smtp-user it --smtp-password-file /run/secrets/mail")]
    Export(Box<ExportArgs>),
}

/// `umbra keys export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Keys that are kept on this machine, by ID; several for csv only
    #[arg(value_name = "KEY", conflicts_with_all = NEW_KEY)]
    pub ids: Vec<KeyId>,
    /// As what [default: text; eml with --to]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Write a file that only you may read [default: the standard output]
    #[arg(long, value_name = "FILE|-", conflicts_with = "smtp")]
    pub out: Option<PathBuf>,
    /// Name the server itself, also where there are gateways
    #[arg(long)]
    pub direct: bool,
    /// Read the key from the first line of a file, or of the standard input (-)
    #[arg(long, value_name = "FILE|-", conflicts_with_all = NEW_KEY, conflicts_with = "ids")]
    pub key_file: Option<PathBuf>,
    /// Keep the key on this machine, for a further export
    #[arg(long)]
    pub keep: bool,
    /// Who gets the e-mail; several apart by semicolons
    #[arg(long, value_name = "ADDRESS[;ADDRESS]")]
    pub to: Option<String>,
    /// Who sends the e-mail
    #[arg(long, value_name = "ADDRESS", requires = "to")]
    pub from: Option<String>,
    /// How the e-mail is sent.
    #[command(flatten)]
    pub mail: MailArgs,
    /// What kind of key to make.
    #[command(flatten)]
    pub keys: NewKeyArgs,
}

/// How an e-mail is sent.
#[derive(Clone, Debug, Default, Args)]
pub struct MailArgs {
    /// Send the e-mail through this mail server; port 587 unless given
    #[arg(long, value_name = "HOST[:PORT]", value_parser = mail_server, requires = "to", requires = "from")]
    pub smtp: Option<HostPort>,
    /// When TLS begins [default: tls at port 465, else starttls]
    #[arg(long, value_enum, requires = "smtp")]
    pub smtp_tls: Option<SmtpTlsArg>,
    /// Trust the mail server if its certificate comes from a root in this PEM file [default: the public authorities]
    #[arg(long, value_name = "FILE", requires = "smtp")]
    pub smtp_ca: Option<PathBuf>,
    /// Log in to the mail server as
    #[arg(
        long,
        value_name = "NAME",
        requires = "smtp",
        requires = "smtp_password_file"
    )]
    pub smtp_user: Option<String>,
    /// Read the password from the first line of a file, or of the standard input (-)
    #[arg(long, value_name = "FILE|-", requires = "smtp_user")]
    pub smtp_password_file: Option<PathBuf>,
}

/// When TLS begins on the way to a mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SmtpTlsArg {
    /// After a first exchange in clear, and before anything else
    Starttls,
    /// From the first byte
    Tls,
}

/// As what credentials are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// The layout of the clipboard
    Text,
    /// `icg.xml`
    Xml,
    /// A page to be printed
    Html,
    /// An e-mail
    Eml,
    /// A table of keys
    Csv,
}

/// The options of [`NewKeyArgs`].
const NEW_KEY: [&str; 8] = [
    "unit",
    "units_from",
    "device",
    "mass",
    "chosen_file",
    "expires",
    "quota",
    "tag",
];

/// What kind of keys to make.
#[derive(Clone, Debug, Default, Args)]
pub struct NewKeyArgs {
    /// Only this unit may use the key (may be repeated)
    #[arg(long, value_name = "ID", conflicts_with = "mass")]
    pub unit: Vec<UnitId>,
    /// Only the units of this list may use the key, each once
    #[arg(long, value_name = "FILE.csv|-", conflicts_with = "mass")]
    pub units_from: Option<PathBuf>,
    /// Only this device may use the key, which is on file (name, unit ID or device ID; may be repeated)
    #[arg(long, value_name = "DEVICE", conflicts_with = "mass")]
    pub device: Vec<String>,
    /// One key for any number of devices
    #[arg(long)]
    pub mass: bool,
    /// Take the mass key that you made up from the first line of a file, or of the standard input (-)
    #[arg(long, value_name = "FILE|-", requires = "mass")]
    pub chosen_file: Option<PathBuf>,
    /// The key ends after this time, like 7d or 12h
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub expires: Option<Duration>,
    /// How many devices a mass key may take on
    #[arg(long, value_name = "N", requires = "mass", value_parser = clap::value_parser!(u32).range(1..))]
    pub quota: Option<u32>,
    /// A word for finding the key and its devices again
    #[arg(
        long,
        value_name = "TAG",
        default_value = "",
        hide_default_value = true
    )]
    pub tag: String,
}

impl NewKeyArgs {
    /// Whether anything of it was said.
    pub fn is_said(&self) -> bool {
        let Self {
            unit,
            units_from,
            device,
            mass,
            chosen_file,
            expires,
            quota,
            tag,
        } = self;
        !unit.is_empty()
            || units_from.is_some()
            || !device.is_empty()
            || *mass
            || chosen_file.is_some()
            || expires.is_some()
            || quota.is_some()
            || !tag.is_empty()
    }
}
