//! The names in certificates: those of directories (subject and issuer) and the alternative ones. Each becomes a text; none is
//! safe to show before [`printable`](super::printable) has seen it.

use std::fmt::Write as _;

use super::der::{self, Cursor};

const NUMERIC: u8 = 0x12;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const ASCII: u8 = 0x16;
const UNIVERSAL: u8 = 0x1c;
const TWO_BYTES: u8 = 0x1e;

/// How attributes are called that have a short name.
const SHORT: [(&str, &str); 22] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "givenName"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "Email"),
];

/// The common name's and the organization's attribute.
pub(crate) const COMMON_NAME: &str = "2.5.4.3";
pub(crate) const ORGANIZATION: &str = "2.5.4.10";

/// One attribute of a directory's name.
struct Attribute {
    /// Whether it belongs to the one before it.
    joined: bool,
    id: String,
    value: String,
}

/// A directory's name, like `CN=server.example.com, O=Example`, from its whole element; `None` for a damaged one.
pub(crate) fn directory(name: &[u8]) -> Option<String> {
    let mut text = String::new();
    for attribute in attributes(name)? {
        if !text.is_empty() {
            text.push_str(if attribute.joined { " + " } else { ", " });
        }
        let short = SHORT.iter().find(|(id, _)| *id == attribute.id);
        text.push_str(short.map_or(attribute.id.as_str(), |(_, short)| short));
        text.push('=');
        text.push_str(&attribute.value);
    }
    Some(text)
}

/// The first attribute of a kind in a directory's name.
pub(crate) fn attribute(name: &[u8], id: &str) -> Option<String> {
    let mut all = attributes(name)?.into_iter();
    all.find(|attribute| attribute.id == id)
        .map(|attribute| attribute.value)
}

fn attributes(name: &[u8]) -> Option<Vec<Attribute>> {
    let mut outer = Cursor(name);
    let mut sets = Cursor(outer.read(der::SEQUENCE)?.content);
    let mut all = Vec::new();
    while !sets.0.is_empty() {
        let mut set = Cursor(sets.read(der::SET)?.content);
        let mut joined = false;
        while !set.0.is_empty() {
            let mut pair = Cursor(set.read(der::SEQUENCE)?.content);
            let id = der::identifier(pair.read(der::OBJECT_IDENTIFIER)?.content)?;
            let value = pair.next()?;
            let value = text(value.tag, value.content);
            all.push(Attribute { joined, id, value });
            joined = true;
        }
    }
    Some(all)
}

/// A value as text; in hexadecimal digits, if it is none.
fn text(tag: u8, content: &[u8]) -> String {
    let text = match tag {
        NUMERIC | UTF8 | PRINTABLE | ASCII => std::str::from_utf8(content).ok().map(str::to_owned),
        TELETEX => Some(content.iter().copied().map(char::from).collect()),
        TWO_BYTES if content.len().is_multiple_of(2) => {
            let units = content.chunks_exact(2);
            let units = units.map(|unit| u16::from(unit[0]) << 8 | u16::from(unit[1]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        UNIVERSAL if content.len().is_multiple_of(4) => content
            .chunks_exact(4)
            .map(|unit| {
                let number = unit
                    .iter()
                    .fold(0, |sum, &byte| (sum << 8) | u32::from(byte));
                char::from_u32(number)
            })
            .collect(),
        _ => None,
    };
    text.unwrap_or_else(|| {
        content.iter().fold(String::new(), |mut digits, byte| {
            // Writing to a string can't fail.
            let _ = write!(digits, "{byte:02x}");
            digits
        })
    })
}

/// An alternative name, or one in name constraints.
pub(crate) enum GeneralName<'a> {
    Mail(&'a str),
    Dns(&'a str),
    Directory(String),
    Uri(&'a str),
    Ip(&'a [u8]),
    Other,
}

impl<'a> GeneralName<'a> {
    pub(crate) fn read(element: &der::Element<'a>) -> Self {
        const MAIL: u8 = der::numbered(1);
        const DNS: u8 = der::numbered(2);
        const DIRECTORY: u8 = der::numbered_structure(4);
        const URI: u8 = der::numbered(6);
        const IP: u8 = der::numbered(7);
        let text = std::str::from_utf8(element.content);
        match (element.tag, text) {
            (MAIL, Ok(text)) => Self::Mail(text),
            (DNS, Ok(text)) => Self::Dns(text),
            (URI, Ok(text)) => Self::Uri(text),
            (IP, _) => Self::Ip(element.content),
            (DIRECTORY, _) => directory(element.content).map_or(Self::Other, Self::Directory),
            _ => Self::Other,
        }
    }
}
