//! Keys and signatures as they are written: DER, of which each has one form only.

use zeroize::Zeroizing;

use super::{POINT, PUBLIC, SCALAR};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// In a private key, its curve and its public key (RFC 5915).
const CURVE: u8 = 0xa0;
const PUBLIC_KEY: u8 = 0xa1;

/// id-ecPublicKey (1.2.840.10045.2.1) on the curve P-256 (1.2.840.10045.3.1.7), as RFC 5480 has it.
const ALGORITHM: &[u8] =
    b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// The curve alone.
const P256: &[u8] = ALGORITHM.split_at(9).1;

/// Takes a value with this tag off the front and gives its content. All values here are shorter than 256 bytes.
fn take<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, after) = rest.split_first()?;
    let (&first, after) = after.split_first()?;
    let (length, after) = match first {
        0..=0x7f => (first, after),
        0x81 => {
            let (&length, after) = after.split_first()?;
            // What fits into one byte is not written in two.
            (length >= 0x80).then_some((length, after))?
        }
        _ => return None,
    };
    let (content, after) = after.split_at_checked(usize::from(length))?;
    *rest = after;
    (found == tag).then_some(content)
}

/// A key as it is written.
pub(super) struct Written {
    pub(super) private: Zeroizing<[u8; SCALAR]>,
    /// The public key may be left out.
    pub(super) public: Option<[u8; PUBLIC]>,
}

/// Reads PKCS#8.
pub(super) fn read_key(mut pkcs8: &[u8]) -> Option<Written> {
    let mut outer = take(&mut pkcs8, SEQUENCE)?;
    let version = take(&mut outer, INTEGER)?;
    let algorithm = take(&mut outer, SEQUENCE)?;
    let mut wrapped = take(&mut outer, OCTET_STRING)?;
    let mut inner = take(&mut wrapped, SEQUENCE)?;
    let inner_version = take(&mut inner, INTEGER)?;
    let known = version == [0] && algorithm == ALGORITHM && inner_version == [1];
    if !known || ![pkcs8, outer, wrapped].iter().all(|rest| rest.is_empty()) {
        return None;
    }
    let mut private = Zeroizing::new([0; SCALAR]);
    let scalar = take(&mut inner, OCTET_STRING)?;
    private.copy_from_slice((scalar.len() == SCALAR).then_some(scalar)?);
    if inner.first() == Some(&CURVE) {
        let curve = take(&mut inner, CURVE)?;
        (curve == P256).then_some(())?;
    }
    let mut public = None;
    if inner.first() == Some(&PUBLIC_KEY) {
        let mut bits = take(&mut inner, PUBLIC_KEY)?;
        // Bits are counted from those that are missing in the last byte.
        let (&0, key) = take(&mut bits, BIT_STRING)?.split_first()? else {
            return None;
        };
        public = Some(key.try_into().ok()?);
        bits.is_empty().then_some(())?;
    }
    inner.is_empty().then_some(Written { private, public })
}

/// As ring, OpenSSL and others write it.
pub(super) fn write_key(private: &[u8; SCALAR], public: &[u8; PUBLIC]) -> Zeroizing<Vec<u8>> {
    // All of it has a fixed length, which is written where it stands.
    let mut key = Zeroizing::new(Vec::with_capacity(138));
    key.extend([SEQUENCE, 0x81, 135, INTEGER, 1, 0, SEQUENCE, 19]);
    key.extend(ALGORITHM);
    key.extend([OCTET_STRING, 109, SEQUENCE, 107, INTEGER, 1, 1]);
    key.extend([OCTET_STRING, 32]);
    key.extend(private);
    key.extend([PUBLIC_KEY, 68, BIT_STRING, 66, 0]);
    key.extend(public);
    key
}

/// Both numbers of a signature, one behind the other.
pub(super) fn read_signature(mut signature: &[u8]) -> Option<[u8; POINT]> {
    let mut numbers = take(&mut signature, SEQUENCE)?;
    let mut both = [0; POINT];
    for number in both.chunks_exact_mut(SCALAR) {
        let bytes = match take(&mut numbers, INTEGER)? {
            // Written as short as can be, and never negative: a zero stands only before what would be read as negative.
            [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => rest,
            bytes if bytes.first().is_some_and(|byte| (1..0x80).contains(byte)) => bytes,
            _ => return None,
        };
        let start = SCALAR.checked_sub(bytes.len())?;
        number[start..].copy_from_slice(bytes);
    }
    (signature.is_empty() && numbers.is_empty()).then_some(both)
}

/// Writes both numbers of a signature.
pub(super) fn write_signature(both: &[u8; POINT]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(POINT + 6);
    for number in both.chunks_exact(SCALAR) {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros.min(SCALAR - 1)..];
        let negative = number.first().is_some_and(|byte| *byte >= 0x80);
        let padding: &[u8] = if negative { &[0] } else { &[] };
        numbers.push(INTEGER);
        // At most 33.
        numbers.push((padding.len() + number.len()) as u8);
        numbers.extend(padding);
        numbers.extend(number);
    }
    let mut signature = vec![SEQUENCE, numbers.len() as u8];
    signature.extend(numbers);
    signature
}
