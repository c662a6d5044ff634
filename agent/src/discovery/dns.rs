//! The bytes of DNS: one question, and what of its answer a device wants to know. Whatever is read comes from strangers: every length is
//! checked, and a name only ever follows pointers backwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::resolver::is_name;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Txt,
    V4,
    V6,
}

impl Wanted {
    fn kind(self) -> u16 {
        match self {
            Wanted::Txt => 16,
            Wanted::V4 => 1,
            Wanted::V6 => 28,
        }
    }
}

/// An alias, whatever was asked for.
const CNAME: u16 = 5;
/// The internet.
const CLASS: u16 = 1;

/// What is in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Txt(Vec<u8>),
    Address(IpAddr),
    Alias(String),
}

/// A record of an answer: whose, and what.
pub(super) type Record = (String, Data);

/// What stands in front of the question.
pub(super) const HEADER: usize = 12;
/// The longest name, its lengths included.
const NAME_MAX: usize = 255;

pub(super) const NO_ERROR: u8 = 0;
pub(super) const SERVER_FAILURE: u8 = 2;
pub(super) const NO_SUCH_NAME: u8 = 3;
pub(super) const REFUSED: u8 = 5;

/// An answer.
pub(super) struct Answer {
    /// How it went.
    pub(super) code: u8,
    /// The aliases and what was wanted, in their order.
    pub(super) records: Vec<Record>,
}

/// A question under this number; the server is to look further than into its own zones.
pub(super) fn question(id: u16, name: &str, wanted: Wanted) -> Option<Vec<u8>> {
    const RECURSION_DESIRED: u8 = 0x01;
    let mut message = id.to_be_bytes().to_vec();
    message.extend([RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok();
        message.push(length.filter(|length| (1..=63).contains(length))?);
        message.extend(label.bytes());
    }
    message.push(0);
    if message.len() > HEADER + NAME_MAX {
        return None;
    }
    message.extend(wanted.kind().to_be_bytes());
    message.extend(CLASS.to_be_bytes());
    Some(message)
}

/// Reads an answer and at most `limit` of its records; `None` for what is none.
pub(super) fn answer(message: &[u8], wanted: Wanted, limit: usize) -> Option<Answer> {
    let code = message.get(3)? & 0x0f;
    let (questions, answers) = (short(message, 4)?, short(message, 6)?);
    let mut at = HEADER;
    for _ in 0..questions {
        name(message, &mut at)?;
        at += 4;
    }
    // One that ends in its question has no answers.
    message.get(..at)?;
    let mut records = Vec::new();
    for _ in 0..usize::from(answers).min(limit) {
        let owner = name(message, &mut at)?;
        let (kind, class) = (short(message, at)?, short(message, at + 2)?);
        let length = usize::from(short(message, at + 8)?);
        let start = at + 10;
        at = start + length;
        let content = message.get(start..at)?;
        if class != CLASS {
            continue;
        }
        let data = if kind == CNAME {
            let mut from = start;
            let target = name(message, &mut from)?;
            if from != at {
                return None;
            }
            target.map(Data::Alias)
        } else if kind == wanted.kind() {
            Some(match wanted {
                Wanted::Txt => Data::Txt(strings(content)?),
                Wanted::V4 => Data::Address(Ipv4Addr::from(*whole::<4>(content)?).into()),
                Wanted::V6 => Data::Address(Ipv6Addr::from(*whole::<16>(content)?).into()),
            })
        } else {
            None
        };
        if let (Some(owner), Some(data)) = (owner, data) {
            records.push((owner, data));
        }
    }
    Some(Answer { code, records })
}

fn short(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(*whole(bytes)?))
}

fn whole<const N: usize>(bytes: &[u8]) -> Option<&[u8; N]> {
    bytes.try_into().ok()
}

/// The strings of a TXT record, joined.
fn strings(mut content: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    while let Some((&length, rest)) = content.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(length))?;
        joined.extend(string);
        content = rest;
    }
    Some(joined)
}

/// The name that stands there, in lower case, and moves behind it. `None` where there is none; `Some(None)` for one that nobody could ask for.
fn name(message: &[u8], at: &mut usize) -> Option<Option<String>> {
    const POINTER: u8 = 0xc0;
    let mut text = Vec::new();
    let mut from = *at;
    let mut after = None;
    loop {
        let length = *message.get(from)?;
        match length & POINTER {
            0 if length == 0 => {
                *at = after.unwrap_or(from + 1);
                let text = String::from_utf8(text).ok();
                let text = text.map(|text| text.to_ascii_lowercase());
                return Some(text.filter(|text| is_name(text)));
            }
            0 => {
                let start = from + 1;
                from = start + usize::from(length);
                let label = message.get(start..from)?;
                if !text.is_empty() {
                    text.push(b'.');
                }
                text.extend(label);
                if text.len() > NAME_MAX {
                    return None;
                }
            }
            POINTER => {
                let to = usize::from(short(message, from)? & 0x3fff);
                after = after.or(Some(from + 2));
                // Only what stands further ahead can be pointed to: each round goes back, or has made the text longer.
                if to >= from {
                    return None;
                }
                from = to;
            }
            _ => return None,
        }
    }
}
