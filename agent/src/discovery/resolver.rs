//! A small resolver of the device's own, for records that the system's one doesn't ask for. It believes nothing: whatever comes
//! back is bounded, has to fit the question, and is handed on as a stranger's words.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};
use umbra_carrier::x509::printable;
use umbra_setup::{Code, Report};

use super::dns::{self, Data, Record, Wanted};
use crate::files;
use crate::link::trouble::sentence;
use crate::paths::Paths;

/// As many as the C library asks.
const SERVERS_MAX: usize = 3;
/// As many as are worth the person's time.
const SEARCH_MAX: usize = 4;
/// Larger than any honest resolv.conf.
const FILE_MAX: usize = 64 * 1024;
/// A name with a dot is whole unless resolv.conf says otherwise.
const DOTS: usize = 1;
/// How long one server has for an answer.
const TRY: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// Names behind names that are followed.
const ALIASES_MAX: usize = 8;
/// Questions that following them may take.
const QUESTIONS_MAX: usize = 4;
/// Records of an answer that are looked at.
const RECORDS_MAX: usize = 64;
/// The largest message that TCP can carry.
const MESSAGE_MAX: usize = 65_535;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    /// No server is named.
    #[error(
        "this network names no DNS server (/etc/resolv.conf); check the network, or give the address by hand"
    )]
    NoServer,
    /// Nobody answered.
    #[error(
        "no DNS server answered in time (asked: {servers}); check the network, or give the address by hand"
    )]
    Silence {
        /// Who was asked.
        servers: String,
    },
    /// Something answered that is no DNS.
    #[error(
        "the DNS server {server} answers “{name}” with something that can't be read; ask your administrator about that server"
    )]
    Garbage {
        /// Which server.
        server: SocketAddr,
        /// What was asked.
        name: String,
    },
    /// The server doesn't want to, or can't.
    #[error(
        "the DNS server {server} could not answer “{name}” ({word}); try again later, or ask your administrator"
    )]
    Refused {
        /// Which server.
        server: SocketAddr,
        /// What was asked.
        name: String,
        /// The server's reason.
        word: &'static str,
    },
    /// Names that lead to each other.
    #[error(
        "“{name}” is an alias (CNAME) that leads in a circle, so it has no end; your administrator has to correct the DNS zone"
    )]
    Circle {
        /// Where it began.
        name: String,
    },
    /// Too many aliases.
    #[error(
        "“{name}” is an alias (CNAME) of an alias, more than {ALIASES_MAX} in a row; your administrator has to correct the DNS zone"
    )]
    Endless {
        /// Where it began.
        name: String,
    },
    /// A name that can't be asked for.
    #[error("“{name}” is no name that DNS could know")]
    Name {
        /// The name.
        name: String,
    },
}

impl ResolveError {
    /// For people, in whatever language.
    pub(super) fn report(&self) -> Report {
        let said = sentence(self);
        match self {
            Self::NoServer => Report::new(Code::DnsNone, &[], said),
            Self::Silence { servers } => {
                Report::new(Code::DnsSilent, &[("servers", servers)], said)
            }
            Self::Garbage { server, .. } => {
                Report::new(Code::DnsGarbage, &[("server", &server.to_string())], said)
            }
            Self::Refused { server, word, .. } => {
                let values = [("server", &*server.to_string()), ("word", *word)];
                Report::new(Code::DnsRefused, &values, said)
            }
            Self::Circle { name } => Report::new(Code::DnsCircle, &[("name", name)], said),
            Self::Endless { name } => Report::new(Code::DnsEndless, &[("name", name)], said),
            Self::Name { name } => Report::new(Code::DnsName, &[("name", name)], said),
        }
    }
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with so many dots is whole.
    dots: usize,
}

impl Resolver {
    /// As the network says. Without a file, or with one that can't be read, the machine itself is asked, as the C library does.
    pub(super) fn read(paths: &Paths) -> Self {
        // On many systems it is a link.
        let path = paths.resolv_conf();
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        match files::read(&path, FILE_MAX) {
            Ok(Some(bytes)) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Ok(None) | Err(_) => Self::parse("nameserver 127.0.0.1"),
        }
    }

    /// Asks these servers.
    #[cfg(test)]
    pub(super) fn with(servers: Vec<SocketAddr>, search: &[&str]) -> Self {
        Self {
            servers,
            search: search.iter().map(|domain| (*domain).to_owned()).collect(),
            dots: DOTS,
        }
    }

    /// How many servers it asks, and in how many domains it searches.
    #[cfg(fuzzing)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.servers.len(), self.search.len())
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut servers = Vec::new();
        let mut search: Vec<String> = Vec::new();
        let mut dots = DOTS;
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    servers.extend(words.next().and_then(server_address));
                }
                // The last line of either kind counts.
                Some("search" | "domain") => {
                    search = words
                        .map(|domain| domain.trim_end_matches('.').to_ascii_lowercase())
                        .filter(|domain| is_name(domain))
                        .take(SEARCH_MAX)
                        .collect();
                }
                Some("options") => {
                    let mut told =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    dots = told.next_back().unwrap_or(dots);
                }
                Some(_) | None => {}
            }
        }
        servers.truncate(SERVERS_MAX);
        Self {
            servers,
            search,
            dots,
        }
    }

    /// The domains that this network completes names with.
    pub(super) fn search(&self) -> &[String] {
        &self.search
    }

    /// The TXT records of a name, each with its strings joined; none where the name or the record doesn't exist.
    pub(super) async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        let records = self.look_up(name, Wanted::Txt).await?;
        Ok(records
            .into_iter()
            .filter_map(|data| match data {
                Data::Txt(bytes) => Some(bytes),
                Data::Address(_) | Data::Alias(_) => None,
            })
            .collect())
    }

    /// The addresses of a name; none where there are none. Where one family can't be asked for, those of the other are enough.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let wanted = [Wanted::V4, Wanted::V6].map(|wanted| self.look_up(name, wanted));
        let [v4, v6] = wanted;
        let both: [_; 2] = tokio::join!(v4, v6).into();
        let mut worst = None;
        let mut addresses = Vec::new();
        for found in both {
            match found {
                Ok(records) => {
                    addresses.extend(records.into_iter().filter_map(|data| match data {
                        Data::Address(address) => Some(address),
                        Data::Txt(_) | Data::Alias(_) => None,
                    }))
                }
                Err(error) => worst = Some(error),
            }
        }
        match worst {
            Some(error) if addresses.is_empty() => Err(error),
            Some(_) | None => Ok(addresses),
        }
    }

    /// The names that a name may stand for, in the order in which they are tried: one with a dot at its end, or with enough of them inside, stands for
    /// itself, and others may be completed first.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names = Vec::new();
        if name.matches('.').count() < self.dots {
            names.extend(self.search.iter().map(|domain| format!("{name}.{domain}")));
        }
        names.push(name.to_owned());
        names
    }

    /// Follows aliases to the records that are wanted.
    async fn look_up(&self, name: &str, wanted: Wanted) -> Result<Vec<Data>, ResolveError> {
        if !is_name(name) {
            return Err(ResolveError::Name {
                name: printable(name, 80),
            });
        }
        let mut current = name.to_ascii_lowercase();
        let mut seen = BTreeSet::from([current.clone()]);
        for _ in 0..QUESTIONS_MAX {
            let records = self.ask(&current, wanted).await?;
            let asked = current.clone();
            loop {
                let own = |record: &&Record| record.0 == current;
                let found: Vec<Data> = records
                    .iter()
                    .filter(own)
                    .filter(|(_, data)| !matches!(data, Data::Alias(_)))
                    .map(|(_, data)| data.clone())
                    .collect();
                if !found.is_empty() {
                    return Ok(found);
                }
                let alias = records.iter().filter(own).find_map(|(_, data)| match data {
                    Data::Alias(target) => Some(target.clone()),
                    Data::Txt(_) | Data::Address(_) => None,
                });
                let Some(alias) = alias else {
                    break;
                };
                if !seen.insert(alias.clone()) {
                    return Err(ResolveError::Circle {
                        name: name.to_owned(),
                    });
                }
                if seen.len() > ALIASES_MAX {
                    return Err(ResolveError::Endless {
                        name: name.to_owned(),
                    });
                }
                current = alias;
            }
            if current == asked {
                return Ok(Vec::new());
            }
            // The server did not say what is behind the alias.
        }
        Err(ResolveError::Endless {
            name: name.to_owned(),
        })
    }

    /// Asks the servers in turns, until one answers.
    async fn ask(&self, name: &str, wanted: Wanted) -> Result<Vec<Record>, ResolveError> {
        if self.servers.is_empty() {
            return Err(ResolveError::NoServer);
        }
        let mut worst = None;
        for _ in 0..ROUNDS {
            for server in &self.servers {
                match self.ask_one(*server, name, wanted).await {
                    Ok(records) => return Ok(records),
                    Err(Some(error)) => worst = Some(error),
                    Err(None) => {}
                }
            }
        }
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        Err(worst.unwrap_or(ResolveError::Silence {
            servers: servers.join(", "),
        }))
    }

    /// Asks one server; its silence is an error without a word.
    async fn ask_one(
        &self,
        server: SocketAddr,
        name: &str,
        wanted: Wanted,
    ) -> Result<Vec<Record>, Option<ResolveError>> {
        let (id, question) = question(name, wanted).ok_or_else(|| {
            Some(ResolveError::Name {
                name: printable(name, 80),
            })
        })?;
        let garbage = || {
            Some(ResolveError::Garbage {
                server,
                name: name.to_owned(),
            })
        };
        let answer = over_udp(server, id, &question).await.ok().flatten();
        let mut message = answer.ok_or(None)?;
        if is_cut_short(&message) {
            message = match timeout(TRY, over_tcp(server, &question)).await {
                Ok(Ok(message)) => message,
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(garbage());
                }
                Ok(Err(_)) | Err(_) => return Err(None),
            };
        }
        read_answer(&message, wanted).map_err(|error| match error {
            Unusable::Garbage => garbage(),
            Unusable::Refused(word) => Some(ResolveError::Refused {
                server,
                name: name.to_owned(),
                word,
            }),
        })
    }
}

/// An address with the DNS port.
fn server_address(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    numeric(text, PORT)
}

/// An address that is written as such, with a zone where it needs one.
pub(super) fn numeric(text: &str, port: u16) -> Option<SocketAddr> {
    if let Some((address, zone)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = nix::net::if_::if_nametoindex(zone).ok()?;
        return Some(std::net::SocketAddrV6::new(address, port, 0, scope).into());
    }
    let address: IpAddr = text.parse().ok()?;
    Some(SocketAddr::new(address, port))
}

/// Whether it is a name that could be asked for.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// A question with a random number, so that nobody who doesn't see it can answer it.
fn question(name: &str, wanted: Wanted) -> Option<(u16, Vec<u8>)> {
    let mut random = [0; 2];
    SystemRandom::new().fill(&mut random).ok()?;
    let id = u16::from_be_bytes(random);
    Some((id, dns::question(id, name, wanted)?))
}

/// The answer to this question; what doesn't fit it is passed over until time is up.
async fn over_udp(server: SocketAddr, id: u16, question: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let end = Instant::now() + TRY;
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The system gives it a random port; once connected, nobody else's datagrams come through.
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await else {
            return Ok(None);
        };
        let message = &buffer[..received?];
        if fits(message, id, question) {
            return Ok(Some(message.to_vec()));
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(question);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    match question.first_chunk() {
        Some(id) if fits(&answer, u16::from_be_bytes(*id), question) => Ok(answer),
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether it says that it answers this very question.
fn fits(message: &[u8], id: u16, question: &[u8]) -> bool {
    let (Some(number), Some(flags)) = (message.first_chunk::<2>(), message.get(2)) else {
        return false;
    };
    let asked = question.get(dns::HEADER..).unwrap_or_default();
    let repeated = message.get(dns::HEADER..dns::HEADER + asked.len());
    let one_question = message.get(4..6) == Some(&[0, 1]);
    // Letters may come back in another case.
    u16::from_be_bytes(*number) == id
        && flags & 0x80 != 0
        && one_question
        && repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked))
}

fn is_cut_short(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

enum Unusable {
    Garbage,
    Refused(&'static str),
}

fn read_answer(message: &[u8], wanted: Wanted) -> Result<Vec<Record>, Unusable> {
    let answer = dns::answer(message, wanted, RECORDS_MAX).ok_or(Unusable::Garbage)?;
    match answer.code {
        dns::NO_ERROR => Ok(answer.records),
        dns::NO_SUCH_NAME => Ok(Vec::new()),
        dns::SERVER_FAILURE => Err(Unusable::Refused("it failed")),
        dns::REFUSED => Err(Unusable::Refused("it refuses")),
        _ => Err(Unusable::Refused("it does not know how")),
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
