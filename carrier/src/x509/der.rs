//! The outer shape of a certificate, read without an opinion on what is in it: where the signed part, the public key and
//! the signature are; and the few kinds of values that certificates are made of. Nothing here follows nesting by itself, so no
//! input can make it recurse.

/// The parts of a certificate that signatures are about.
pub(crate) struct Shape<'a> {
    /// The signed part with its tag and length.
    pub signed: &'a [u8],
    /// The signature's algorithm: the content of the sequence, as `webpki` compares it.
    pub signature_algorithm: &'a [u8],
    /// The signature's bytes.
    pub signature: &'a [u8],
    /// The public key (SubjectPublicKeyInfo) with its tag and length.
    pub public_key: &'a [u8],
    /// The issuer's name with its tag and length.
    pub issuer: &'a [u8],
    /// The subject's name with its tag and length.
    pub subject: &'a [u8],
    /// The version as it stands there, one less than people call it; empty in the first version.
    pub version: &'a [u8],
    /// The serial number's bytes.
    pub serial: &'a [u8],
    /// From when until when: the content of the sequence.
    pub validity: &'a [u8],
    /// What follows the public key.
    pub rest: &'a [u8],
}

/// A public key: its algorithm (content of the sequence) and the bytes of the key.
pub(crate) struct PublicKey<'a> {
    pub algorithm: &'a [u8],
    pub bits: &'a [u8],
}

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// What a structure of its own numbers, as a value and as a structure again.
pub(crate) const fn numbered(number: u8) -> u8 {
    0x80 | number
}
pub(crate) const fn numbered_structure(number: u8) -> u8 {
    0xa0 | number
}

/// Reads the shape; `None` for anything that isn't one certificate and nothing behind it.
pub(crate) fn shape(der: &[u8]) -> Option<Shape<'_>> {
    let mut outer = Cursor(der);
    let certificate = outer.read(SEQUENCE)?;
    if !outer.0.is_empty() {
        return None;
    }
    let mut parts = Cursor(certificate.content);
    let signed = parts.read(SEQUENCE)?;
    let signature_algorithm = parts.read(SEQUENCE)?;
    let signature = bits(parts.read(BIT_STRING)?.content)?;
    if !parts.0.is_empty() {
        return None;
    }
    let mut fields = Cursor(signed.content);
    let version = match fields.read(numbered_structure(0)) {
        Some(version) => Cursor(version.content).read(INTEGER)?.content,
        None => &[],
    };
    let serial = fields.read(INTEGER)?.content;
    fields.read(SEQUENCE)?; // signature algorithm once more
    let issuer = fields.read(SEQUENCE)?;
    let validity = fields.read(SEQUENCE)?.content;
    let subject = fields.read(SEQUENCE)?;
    let public_key = fields.read(SEQUENCE)?;
    Some(Shape {
        signed: signed.whole,
        signature_algorithm: signature_algorithm.content,
        signature,
        public_key: public_key.whole,
        issuer: issuer.whole,
        subject: subject.whole,
        version,
        serial,
        validity,
        rest: fields.0,
    })
}

/// Reads a SubjectPublicKeyInfo.
pub(crate) fn public_key(spki: &[u8]) -> Option<PublicKey<'_>> {
    let mut outer = Cursor(spki);
    let mut parts = Cursor(outer.read(SEQUENCE)?.content);
    let algorithm = parts.read(SEQUENCE)?.content;
    let bits = bits(parts.read(BIT_STRING)?.content)?;
    Some(PublicKey { algorithm, bits })
}

/// The bytes of a bit string without unused bits.
fn bits(content: &[u8]) -> Option<&[u8]> {
    match content.split_first() {
        Some((0, bytes)) => Some(bytes),
        Some((_, _)) | None => None,
    }
}

/// An object identifier as people write it; `None` for one that is damaged or has numbers beyond all use.
pub(crate) fn identifier(content: &[u8]) -> Option<String> {
    // The last byte of each number has its highest bit clear.
    if content.last()? & 0x80 != 0 {
        return None;
    }
    let mut text = String::new();
    let mut number: u64 = 0;
    for byte in content {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (number / 40).min(2);
            text = format!("{first}.{}", number - first * 40);
        } else {
            text.push_str(&format!(".{number}"));
        }
        number = 0;
    }
    Some(text)
}

/// A number that is not negative and not large.
pub(crate) fn number(content: &[u8]) -> Option<u32> {
    let (&first, rest) = content.split_first()?;
    if first & 0x80 != 0 || rest.len() > 4 || (rest.len() == 4 && first != 0) {
        return None;
    }
    Some(
        content
            .iter()
            .fold(0, |sum, &byte| (sum << 8) | u32::from(byte)),
    )
}

/// The two moments of a validity, in seconds since 1970.
pub(crate) fn validity(content: &[u8]) -> Option<(i64, i64)> {
    let mut moments = Cursor(content);
    let from = moments.next()?.moment()?;
    let until = moments.next()?.moment()?;
    moments.0.is_empty().then_some((from, until))
}

/// An element: its tag, and what is in it.
pub(crate) struct Element<'a> {
    pub tag: u8,
    whole: &'a [u8],
    pub content: &'a [u8],
}

impl Element<'_> {
    /// A moment in seconds since 1970, in either of its two forms. Certificates write it in UTC and with seconds.
    fn moment(&self) -> Option<i64> {
        let digits = self.content.strip_suffix(b"Z")?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = |range: std::ops::Range<usize>| {
            let digits = digits.get(range)?.iter();
            Some(digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
        };
        let (year, at) = match self.tag {
            UTC_TIME => match number(0..2)? {
                late @ 50.. => (1900 + late, 2),
                early => (2000 + early, 2),
            },
            GENERALIZED_TIME => (number(0..4)?, 4),
            _ => return None,
        };
        if digits.len() != at + 10 {
            return None;
        }
        let (month, day) = (number(at..at + 2)?, number(at + 2..at + 4)?);
        let (hour, minute) = (number(at + 4..at + 6)?, number(at + 6..at + 8)?);
        let second = number(at + 8..at + 10)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        // Counted in years that begin in March, so that leap days come last.
        let shifted_year = year - i64::from(month <= 2);
        let shifted_month = (month + 9) % 12;
        let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
        let leap_days = shifted_year.div_euclid(4) - shifted_year.div_euclid(100)
            + shifted_year.div_euclid(400);
        let days = shifted_year * 365 + leap_days + day_of_year - 719_468;
        Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
    }
}

/// Goes through elements that stand one behind the other.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next element, if it has this tag and is wholly there. Any other stays where it is.
    pub(crate) fn read(&mut self, tag: u8) -> Option<Element<'a>> {
        match self.0.first() {
            Some(found) if *found == tag => self.next(),
            Some(_) | None => None,
        }
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = Element<'a>;

    /// The next element, whatever it is, if it is wholly there.
    fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of more than one byte are in no certificate.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, content_and_rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // At most three bytes of length: a certificate is never larger than 64 KiB here.
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 3 || rest.len() < count {
                return None;
            }
            let (length_bytes, rest) = rest.split_at(count);
            (
                length_bytes
                    .iter()
                    .fold(0, |sum, &byte| (sum << 8) | usize::from(byte)),
                rest,
            )
        };
        if content_and_rest.len() < length {
            return None;
        }
        let (content, after) = content_and_rest.split_at(length);
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Element {
            tag,
            whole,
            content,
        })
    }
}
