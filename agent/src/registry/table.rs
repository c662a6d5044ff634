//! Every parameter that this agent knows, once: name, kind, default, who may set it, and one sentence about it. The
//! documentation is made from this table, and nothing outside it is ever accepted.

use umbra_protocol::settings::Value;

use super::kind::Kind;

/// Who may set a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The image maker, somebody on the device, and the server.
    Anywhere,
    /// The image maker and somebody on the device; never the server. What runs a program, opens a socket or gives rights is
    /// of this kind.
    LocalOnly,
}

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The registry that administrators of the field know.
    Field,
    /// Umbra.
    Umbra,
}

/// A default, as a constant.
#[derive(Clone, Copy, Debug)]
pub enum Constant {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(&'static str),
    /// Several texts.
    List(&'static [&'static str]),
}

impl Constant {
    /// The default as a value.
    pub fn value(self) -> Value {
        match self {
            Constant::Bool(value) => Value::Bool(value),
            Constant::Int(value) => Value::Int(value),
            Constant::Text(text) => Value::Text(text.to_owned()),
            Constant::List(items) => {
                Value::List(items.iter().map(|item| (*item).to_owned()).collect())
            }
        }
    }
}

/// A parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Dotted name. A `%` stands for a number from 0 to 7.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it holds unless somebody says otherwise.
    pub default: Constant,
    /// Who may say otherwise.
    pub who: Who,
    /// Whether its value is never shown.
    pub secret: bool,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// Whose name it is.
    pub source: Source,
}

/// Instances of a name with a `%`.
pub(super) const INSTANCES: u8 = 8;

const fn field(name: &'static str, kind: Kind, default: Constant, doc: &'static str) -> Parameter {
    Parameter {
        name,
        kind,
        default,
        who: Who::Anywhere,
        secret: false,
        doc,
        source: Source::Field,
    }
}

const fn ours(
    name: &'static str,
    kind: Kind,
    default: Constant,
    who: Who,
    doc: &'static str,
) -> Parameter {
    Parameter {
        name,
        kind,
        default,
        who,
        secret: false,
        doc,
        source: Source::Umbra,
    }
}

const fn secret(parameter: Parameter) -> Parameter {
    Parameter {
        secret: true,
        ..parameter
    }
}

use Constant::{Bool, Int, List, Text};
use Who::{Anywhere, LocalOnly};

/// All parameters, by topic.
pub static TABLE: &[Parameter] = &[
    field(
        "network.vncserver.enabled",
        Kind::Bool,
        Bool(false),
        "Whether shadowing is accepted at all.",
    ),
    field(
        "network.vncserver.port",
        Kind::Int {
            min: 0,
            max: 65_535,
        },
        Int(5_900),
        "TCP port on which shadowing is accepted; 0 takes any free port.",
    ),
    field(
        "network.vncserver.secure_mode",
        Kind::Bool,
        Bool(true),
        "Only encrypted sessions with a ticket of the server; when off, a plain VNC viewer is passed through as well.",
    ),
    field(
        "network.vncserver.promptuser",
        Kind::Bool,
        Bool(true),
        "Whether the person at the device is asked before anybody sees the screen.",
    ),
    field(
        "network.vncserver.remoteinput",
        Kind::Bool,
        Bool(true),
        "Whether operators may use keyboard and pointer; when off, they only see.",
    ),
    secret(field(
        "network.vncserver.crypt_password",
        Kind::Text { max: 8 },
        Text(""),
        "Password for plain VNC viewers while secure mode is off, 8 characters at most; empty asks for none.",
    )),
    field(
        "network.vncserver.instances",
        Kind::Int { min: 1, max: 16 },
        Int(2),
        "How many sessions may run at the same time.",
    ),
    field(
        "network.vncserver.shared",
        Kind::Bool,
        Bool(true),
        "Whether several operators may see the screen at the same time; when off, one.",
    ),
    field(
        "network.vncserver.showconnectedicon",
        Kind::Bool,
        Bool(true),
        "Whether the person at the device sees an indicator while somebody sees the screen (umbra.indicator.program shows it).",
    ),
    field(
        "network.vncserver.showdisconnectbtn",
        Kind::Bool,
        Bool(true),
        "Whether the person at the device can end a session from that indicator.",
    ),
    field(
        "userinterface.vncserver.indicatorposition",
        Kind::Choice(&[
            "top-left",
            "top",
            "top-right",
            "left",
            "center",
            "right",
            "bottom-left",
            "bottom",
            "bottom-right",
        ]),
        Text("bottom-right"),
        "Where on the screen the indicator is shown.",
    ),
    field(
        "system.remotemanager.allow_remote_management",
        Kind::Bool,
        Bool(true),
        "Whether the device keeps a link to its server.",
    ),
    field(
        "system.remotemanager.connector%.type",
        Kind::Choice(&["ums", "icg"]),
        Text("ums"),
        "Kind of the way to the server: directly (ums) or through a gateway (icg).",
    ),
    field(
        "system.remotemanager.connector%.address",
        Kind::Host,
        Text(""),
        "Host name or IP address; empty means that this connector is not used.",
    ),
    field(
        "system.remotemanager.connector%.port",
        Kind::Int {
            min: 1,
            max: 65_535,
        },
        Int(8_443),
        "TCP port of this connector.",
    ),
    field(
        "system.remotemanager.connectorranking",
        Kind::Choice(&["all", "ums", "icg"]),
        Text("all"),
        "Which connectors are tried: all in their order, only the direct ones, or only gateways.",
    ),
    field(
        "system.remotemanager.reconnect_interval",
        Kind::Int { min: 1, max: 3_600 },
        Int(90),
        "Longest pause between two attempts to reach the server, in seconds.",
    ),
    field(
        "system.remotemanager.connect_timeout",
        Kind::Int { min: 1, max: 300 },
        Int(45),
        "How long one attempt to reach the server may take, in seconds.",
    ),
    field(
        "system.remotemanager.enable_icg",
        Kind::Bool,
        Bool(false),
        "Whether the device goes through a gateway. On: gateways are tried first. Off: only direct ways. While nobody has set it, \
         all ways are tried, and a direct one is taken as soon as the server answers there.",
    ),
    field(
        "system.remotemanager.icg_try_ums_connect",
        Kind::Bool,
        Bool(false),
        "Whether a device whose gateway is switched on still takes a direct way when the server answers there.",
    ),
    field(
        "system.icg.websocket.pingpong_interval",
        Kind::Int { min: 5, max: 3_600 },
        Int(120),
        "Seconds of silence after which the connection to a gateway is checked with a ping.",
    ),
    field(
        "system.icg.websocket.network_timeout",
        Kind::Int { min: 1, max: 300 },
        Int(30),
        "Seconds without an answer to that ping after which the connection to a gateway is given up.",
    ),
    ours(
        "umbra.icg.bundle_file",
        Kind::File,
        Text(""),
        LocalOnly,
        "File with the public root certificates (PEM) that count in place of Mozilla's, which are built in and count while this \
         is empty. A gateway's own certificate may come from them, and a server's at the first contact when no fingerprint is \
         given; afterwards the server is checked against its pinned root in any case.",
    ),
    ours(
        "umbra.enrolment.require_fingerprint",
        Kind::Bool,
        Bool(false),
        LocalOnly,
        "When on, a server is never taken on the word of a public certification authority: the fingerprint of its root \
         certificate has to be given.",
    ),
    ours(
        "umbra.discovery.dns",
        Kind::Bool,
        Bool(true),
        LocalOnly,
        "Whether a device without a server asks DNS for one: the TXT record igel-cloud-gateway, then the name igelrmserver.",
    ),
    ours(
        "umbra.discovery.dhcp",
        Kind::Bool,
        Bool(true),
        LocalOnly,
        "Whether a device without a server reads option 224 of its DHCP leases.",
    ),
    ours(
        "umbra.discovery.domain",
        Kind::Host,
        Text(""),
        LocalOnly,
        "The domain whose TXT record and whose igelrmserver are asked for; when empty, the search domains of the network.",
    ),
    ours(
        "umbra.proxy.mode",
        Kind::Choice(&["none", "manual", "environment"]),
        Text("none"),
        LocalOnly,
        "Whether the device reaches server and gateways through a proxy: not at all, through the one of umbra.proxy.host, or as \
         the agent's environment says (https_proxy, all_proxy, no_proxy).",
    ),
    ours(
        "umbra.proxy.type",
        Kind::Choice(&["http", "socks5"]),
        Text("http"),
        Anywhere,
        "What the proxy speaks: HTTP with CONNECT, or SOCKS5.",
    ),
    ours(
        "umbra.proxy.host",
        Kind::Host,
        Text(""),
        Anywhere,
        "Host name or IP address of the proxy.",
    ),
    ours(
        "umbra.proxy.port",
        Kind::Int {
            min: 1,
            max: 65_535,
        },
        Int(3_128),
        Anywhere,
        "TCP port of the proxy.",
    ),
    ours(
        "umbra.proxy.user",
        Kind::Text { max: 128 },
        Text(""),
        Anywhere,
        "User name for the proxy; empty means that it asks for none.",
    ),
    secret(ours(
        "umbra.proxy.password",
        Kind::Text { max: 128 },
        Text(""),
        Anywhere,
        "Password for the proxy.",
    )),
    ours(
        "umbra.proxy.no_proxy",
        Kind::Text { max: 1_024 },
        Text(""),
        Anywhere,
        "Hosts that are reached without the proxy, separated by commas: names (with all below), addresses, networks such as \
         10.0.0.0/8, each also with a port.",
    ),
    ours(
        "umbra.proxy.ca_file",
        Kind::File,
        Text(""),
        LocalOnly,
        "File with the root certificates (PEM) of a proxy that opens TLS; a gateway's certificate may come from them. What \
         device and server say to each other stays closed to such a proxy.",
    ),
    ours(
        "umbra.vncserver.upstream",
        Kind::Upstream,
        Text("spawn"),
        LocalOnly,
        "Where the VNC server is: spawn starts umbra.vncserver.command for each session, tcp:127.0.0.1:PORT and unix:/PATH \
         connect to one that runs.",
    ),
    ours(
        "umbra.vncserver.command",
        Kind::Program { optional: false },
        List(&[
            "/usr/bin/x11vnc",
            "-inetd",
            "-quiet",
            "-norc",
            "-nopw",
            "-shared",
        ]),
        LocalOnly,
        "The VNC server that is started for each session, with its arguments; it speaks RFB on its standard input and output.",
    ),
    ours(
        "umbra.vncserver.environment",
        Kind::Environment,
        List(&["DISPLAY=:0"]),
        LocalOnly,
        "Environment variables of that VNC server, NAME=VALUE; it gets no others.",
    ),
    ours(
        "umbra.vncserver.listen",
        Kind::Addresses,
        List(&["::"]),
        LocalOnly,
        "IP addresses on which shadowing is accepted; :: means all, those of IPv4 included. Without any, no port is open, and \
         shadowing is accepted through a gateway only.",
    ),
    ours(
        "umbra.vncserver.tls12",
        Kind::Bool,
        Bool(false),
        LocalOnly,
        "Whether consoles that know TLS 1.2 only are let in on the port, with strong suites; when off, everybody speaks TLS 1.3. \
         What is said in TLS 1.2 can be read once quantum computers break elliptic curves.",
    ),
    ours(
        "umbra.session.idle_limit",
        Kind::Int {
            min: 0,
            max: 86_400,
        },
        Int(3_600),
        Anywhere,
        "Seconds without a byte in either direction after which a session ends; 0 means never.",
    ),
    ours(
        "umbra.session.total_limit",
        Kind::Int {
            min: 0,
            max: 604_800,
        },
        Int(43_200),
        Anywhere,
        "Seconds after which a session ends in any case; 0 means never.",
    ),
    ours(
        "umbra.consent.timeout",
        Kind::Int { min: 5, max: 600 },
        Int(30),
        Anywhere,
        "Seconds that the person at the device has for an answer; no answer is a no.",
    ),
    ours(
        "umbra.consent.unattended",
        Kind::Choice(&["deny", "allow"]),
        Text("deny"),
        Anywhere,
        "What happens when a person must be asked and nobody is there to ask.",
    ),
    ours(
        "umbra.consent.required",
        Kind::Bool,
        Bool(false),
        LocalOnly,
        "When on, the person at the device is always asked: the server can neither switch the question off nor allow \
         unattended access.",
    ),
    ours(
        "umbra.consent.program",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that asks the person at the device, with its arguments; when empty, only “umbra-agent consent” answers.",
    ),
    ours(
        "umbra.indicator.program",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that shows the person at the device who sees the screen, with its arguments. It runs while a session does, \
         gets one line of JSON on its standard input at every change, and may write “disconnect SESSION”; when empty, \
         nothing is shown.",
    ),
    ours(
        "umbra.indicator.required",
        Kind::Bool,
        Bool(false),
        LocalOnly,
        "When on, no session begins before that program runs, and the server can't switch the indicator off.",
    ),
    ours(
        "umbra.message.program",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that shows a message of the administrators to the person at the device, with its arguments; it gets the \
         text on its standard input.",
    ),
    ours(
        "umbra.update.command",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that updates the device, with its arguments, run as the agent's user; when empty, root is asked for it \
         (`umbra.hands.update_command`).",
    ),
    ours(
        "umbra.confinement",
        Kind::Bool,
        Bool(true),
        LocalOnly,
        "When on, the agent gives up privileges, files and system calls that it doesn't need; read when it starts.",
    ),
    ours(
        "umbra.control.group",
        Kind::Text { max: 64 },
        Text(""),
        LocalOnly,
        "Members of this group may change parameters, enrol, answer questions and end sessions on the device, as root may; \
         empty means root only.",
    ),
    ours(
        "umbra.power.reboot_command",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that restarts the device, with its arguments, run as the agent's user; when empty, root is asked for it \
         (`umbra.hands.reboot_command`).",
    ),
    ours(
        "umbra.power.shutdown_command",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that switches the device off, with its arguments, run as the agent's user; when empty, root is asked for it \
         (`umbra.hands.shutdown_command`).",
    ),
    ours(
        "umbra.hands.reboot_command",
        Kind::Program { optional: true },
        List(&["/usr/bin/systemctl", "reboot"]),
        LocalOnly,
        "Program that root runs when the agent asks for a restart; read from the image's own file alone.",
    ),
    ours(
        "umbra.hands.shutdown_command",
        Kind::Program { optional: true },
        List(&["/usr/bin/systemctl", "poweroff"]),
        LocalOnly,
        "Program that root runs when the agent asks to be switched off; read from the image's own file alone.",
    ),
    ours(
        "umbra.hands.update_command",
        Kind::Program { optional: true },
        List(&[]),
        LocalOnly,
        "Program that root runs when the agent asks for an update; read from the image's own file alone. When empty, the \
         command “update” fails.",
    ),
    ours(
        "umbra.log.level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        Text("info"),
        Anywhere,
        "How much the agent writes to its journal.",
    ),
];

/// The parameter of this name, whose `%` may be a number.
pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    TABLE.iter().find(|parameter| {
        let Some((before, after)) = parameter.name.split_once('%') else {
            return parameter.name == name;
        };
        name.strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|number| {
                number.len() == 1
                    && number.as_bytes()[0].is_ascii_digit()
                    && number.as_bytes()[0] - b'0' < INSTANCES
            })
    })
}

/// Every name there is, with numbers for each `%`.
pub(super) fn names() -> impl Iterator<Item = (String, &'static Parameter)> {
    TABLE.iter().flat_map(|parameter| {
        let instances = if parameter.name.contains('%') {
            INSTANCES
        } else {
            1
        };
        (0..instances)
            .map(move |number| (parameter.name.replace('%', &number.to_string()), parameter))
    })
}

/// The name that is most like this one, if any is like it.
pub(super) fn nearest(name: &str) -> Option<String> {
    let name: String = name.chars().take(100).collect();
    // A last part that was remembered without the rest is found as well.
    let by_end = names()
        .map(|(known, _)| known)
        .find(|known| name.len() > 3 && (known.ends_with(&format!(".{name}"))));
    by_end.or_else(|| {
        names()
            .map(|(known, _)| (distance(&name, &known), known))
            .min()
            .filter(|(distance, known)| *distance <= known.len() / 3)
            .map(|(_, known)| known)
    })
}

/// How many letters have to be changed, added or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_accepted_by_its_own_rule_and_every_name_is_there_once() {
        let mut seen = std::collections::BTreeSet::new();
        for parameter in TABLE {
            assert!(
                seen.insert(parameter.name),
                "{} is there twice",
                parameter.name
            );
            if let Err(wanted) = parameter.kind.check(&parameter.default.value()) {
                panic!("the default of {} is not {wanted}", parameter.name);
            }
            assert!(
                parameter.doc.ends_with('.'),
                "{} has no sentence",
                parameter.name
            );
        }
        assert!(seen.len() > 25);
    }

    #[test]
    fn whatever_runs_a_program_or_opens_a_socket_is_out_of_the_servers_reach() {
        for parameter in TABLE {
            let dangerous = matches!(
                parameter.kind,
                Kind::Program { .. }
                    | Kind::Environment
                    | Kind::Upstream
                    | Kind::Addresses
                    | Kind::File
            );
            if dangerous || parameter.name == "umbra.control.group" {
                assert_eq!(parameter.who, Who::LocalOnly, "{}", parameter.name);
            }
        }
    }

    #[test]
    fn numbered_names_are_found_up_to_the_last_number() {
        assert!(find("system.remotemanager.connector0.address").is_some());
        assert!(find("system.remotemanager.connector7.address").is_some());
        for odd in [
            "system.remotemanager.connector8.address",
            "system.remotemanager.connector%.address",
            "system.remotemanager.connector.address",
            "system.remotemanager.connector00.address",
            "network.vncserver",
            "",
        ] {
            assert!(find(odd).is_none(), "{odd}");
        }
        assert!(names().all(|(name, _)| find(&name).is_some()));
    }

    #[test]
    fn a_misspelt_name_is_recognised() {
        assert_eq!(
            nearest("network.vncserver.enable").as_deref(),
            Some("network.vncserver.enabled")
        );
        assert_eq!(
            nearest("network.vnc_server.secure_mod").as_deref(),
            Some("network.vncserver.secure_mode")
        );
        assert_eq!(
            nearest("enable_icg").as_deref(),
            Some("system.remotemanager.enable_icg")
        );
        assert_eq!(nearest("something else altogether"), None);
        assert_eq!(nearest(&"x".repeat(100_000)), None);
    }
}
