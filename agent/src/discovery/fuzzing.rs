//! What fuzz targets reach of what is private here. It exists only while fuzzing.

use std::net::IpAddr;

use umbra_carrier::address::HostPort;

use super::dns::{self, Data, Wanted};
use super::{dhcp, names, resolver, txt};

/// What one record of an answer says: whose it is, and a text, an address, or an alias.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub owner: String,
    /// Text of a TXT record.
    pub text: Option<Vec<u8>>,
    /// Address.
    pub address: Option<IpAddr>,
    /// Alias.
    pub alias: Option<String>,
}

/// The kinds of records that are asked for, by number.
fn wanted(kind: u8) -> Wanted {
    match kind % 3 {
        0 => Wanted::Txt,
        1 => Wanted::V4,
        _ => Wanted::V6,
    }
}

/// Reads a DNS answer to a question of this kind.
pub fn dns_answer(message: &[u8], kind: u8, limit: usize) -> Option<Vec<Record>> {
    let answer = dns::answer(message, wanted(kind), limit)?;
    let plain = |(owner, data)| {
        let (mut text, mut address, mut alias) = (None, None, None);
        match data {
            Data::Txt(bytes) => text = Some(bytes),
            Data::Address(ip) => address = Some(ip),
            Data::Alias(name) => alias = Some(name),
        }
        Record {
            owner,
            text,
            address,
            alias,
        }
    };
    Some(answer.records.into_iter().map(plain).collect())
}

/// Writes the question for a name.
pub fn dns_question(name: &str, kind: u8) -> Option<Vec<u8>> {
    dns::question(7, name, wanted(kind))
}

/// Whether a name is one that can be asked for.
pub fn is_name(name: &str) -> bool {
    resolver::is_name(name)
}

/// What a gateway's TXT record says, among its own kind and among others; an error is a sentence.
#[allow(clippy::type_complexity)]
pub fn gateway_record(
    record: &[u8],
) -> (Result<HostPort, String>, Option<Result<HostPort, String>>) {
    let said = |error: txt::TxtError| error.to_string();
    (
        txt::read(record).map_err(said),
        txt::read_among_others(record).map(|read| read.map_err(said)),
    )
}

/// How DHCP clients write their leases.
#[derive(Clone, Copy, Debug)]
pub enum Lease {
    /// `OPTION_224=HEX`.
    Assignments,
    /// `lease { option unknown-224 …; }`.
    Blocks,
    /// The DHCP message itself.
    Message,
    /// The option's value alone.
    Value,
}

/// The server that a lease of this form names, if it names one; an error is a sentence.
pub fn lease(form: Lease, bytes: &[u8]) -> Option<Result<HostPort, String>> {
    let form = match form {
        Lease::Assignments => dhcp::Form::Assignments,
        Lease::Blocks => dhcp::Form::Blocks,
        Lease::Message => dhcp::Form::Message,
        Lease::Value => dhcp::Form::Value,
    };
    dhcp::value(form, bytes).map(|value| dhcp::server(&value))
}

/// How many servers and search domains a resolv.conf names.
pub fn resolv_conf(text: &str) -> (usize, usize) {
    resolver::Resolver::parse(text).sizes()
}

/// What a hosts file says of a name.
pub fn hosts(text: &str, name: &str) -> Vec<std::net::IpAddr> {
    names::in_hosts(text, name)
}
