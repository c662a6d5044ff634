//! The two things that this crate wants to know about a certificate: its fingerprint, and its public key. The field's
//! certificates may be X.509 v1 without any extension, which web-minded parsers refuse, so the few bytes of DER down to the
//! key are read here. It must never be used to decide whether a certificate is trustworthy.

use std::fmt;

use ring::digest;

/// SHA-256 of a certificate's DER, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of this certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(bytes)
    }

    /// The 32 bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bytes are not an X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not an X.509 certificate")]
pub struct NotACertificate;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_VERSION: u8 = 0xA0;

/// The SubjectPublicKeyInfo of a certificate, with its own header.
pub fn subject_public_key_info(certificate: &[u8]) -> Result<&[u8], NotACertificate> {
    let (outer, rest) = element(certificate, SEQUENCE)?;
    if !rest.is_empty() {
        return Err(NotACertificate);
    }
    let (mut fields, _) =
        element(outer.content, SEQUENCE).map(|(tbs, rest)| (tbs.content, rest))?;
    if fields.first() == Some(&EXPLICIT_VERSION) {
        fields = element(fields, EXPLICIT_VERSION)?.1;
    }
    // serial number, signature algorithm, issuer, validity, subject
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        fields = element(fields, tag)?.1;
    }
    Ok(element(fields, SEQUENCE)?.0.whole)
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

fn element(bytes: &[u8], tag: u8) -> Result<(Element<'_>, &[u8]), NotACertificate> {
    let [found, first, rest @ ..] = bytes else {
        return Err(NotACertificate);
    };
    if *found != tag {
        return Err(NotACertificate);
    }
    let (header, length) = match *first {
        short @ 0..=0x7F => (2, usize::from(short)),
        0x81 => (3, usize::from(*rest.first().ok_or(NotACertificate)?)),
        0x82 => match rest {
            [high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            [] | [_] => return Err(NotACertificate),
        },
        // Indefinite lengths are not DER, and no certificate has 64 KiB.
        _ => return Err(NotACertificate),
    };
    let whole = bytes.get(..header + length).ok_or(NotACertificate)?;
    Ok((
        Element {
            whole,
            content: &whole[header..],
        },
        &bytes[header + length..],
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["device".to_owned()])
            .expect("a name")
            .self_signed(&key)
            .expect("a certificate");
        (
            certificate.der().to_vec(),
            rcgen::PublicKeyData::subject_public_key_info(&key),
        )
    }

    #[test]
    fn the_public_key_is_found_in_a_modern_certificate() {
        let (der, spki) = sample();
        assert_eq!(subject_public_key_info(&der), Ok(spki.as_slice()));
    }

    #[test]
    fn a_truncated_or_lengthened_certificate_is_none() {
        let (mut der, _) = sample();
        assert_eq!(
            subject_public_key_info(&der[..der.len() - 1]),
            Err(NotACertificate)
        );
        der.push(0);
        assert_eq!(subject_public_key_info(&der), Err(NotACertificate));
    }

    #[test]
    fn a_fingerprint_is_shown_as_64_digits() {
        assert_eq!(
            Fingerprint::of(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_make_it_panic(bytes: Vec<u8>) {
            let _ = subject_public_key_info(&bytes);
        }

        #[test]
        fn a_damaged_certificate_never_makes_it_panic(at in 0usize..400, byte: u8) {
            let (mut der, _) = sample();
            let at = at % der.len();
            der[at] = byte;
            let _ = subject_public_key_info(&der);
        }
    }
}
