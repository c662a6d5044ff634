//! Writes the one kind of certificate that a device makes, byte by byte (DER), and what stands around it in a file (PEM). It is no
//! general writer: everything that never varies is a constant here.

use std::fmt::Write as _;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The alternative name that is a DNS name.
const DNS_NAME: u8 = 0x82;
/// Where a certificate says its version, and where its extensions are.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// ecdsa-with-SHA256 (1.2.840.10045.4.3.2).
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// ecPublicKey (1.2.840.10045.2.1).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// The curve P-256 (1.2.840.10045.3.1.7).
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// commonName (2.5.4.3).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// The extensions (2.5.29.x): key usage, alternative name, basic constraints, extended key usage.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// The purposes (1.3.6.1.5.5.7.3.x): to be a TLS server, and a TLS client.
const SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// What varies from device to device.
pub(super) struct Certificate<'a> {
    /// Begins with a byte from 0x01 to 0x7f: a positive number in its shortest form.
    pub(super) serial: &'a [u8],
    pub(super) common_name: &'a str,
    pub(super) dns_name: &'a str,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// As [`p256_public_key`] makes it.
    pub(super) public_key: &'a [u8],
}

impl Certificate<'_> {
    /// The part that is signed; `None` for dates that no certificate can hold.
    pub(super) fn to_be_signed(&self) -> Option<Vec<u8>> {
        let name = element(
            SEQUENCE,
            &[&element(
                SET,
                &[&element(
                    SEQUENCE,
                    &[
                        &element(OBJECT_IDENTIFIER, &[COMMON_NAME]),
                        &element(UTF8, &[self.common_name.as_bytes()]),
                    ],
                )],
            )],
        );
        let (from, until) = (moment(self.not_before)?, moment(self.not_after)?);
        let dns_name = element(DNS_NAME, &[self.dns_name.as_bytes()]);
        let purposes = [SERVER, CLIENT].map(|purpose| element(OBJECT_IDENTIFIER, &[purpose]));
        let extensions = [
            extension(ALTERNATIVE_NAME, false, &element(SEQUENCE, &[&dns_name])),
            // The one bit that is set is the first: digitalSignature. Seven are unused.
            extension(KEY_USAGE, true, &element(BIT_STRING, &[&[7, 0x80]])),
            extension(
                EXTENDED_KEY_USAGE,
                false,
                &element(SEQUENCE, &[&purposes[0], &purposes[1]]),
            ),
            // Empty means: no CA.
            extension(BASIC_CONSTRAINTS, true, &element(SEQUENCE, &[])),
        ];
        let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
        Some(element(
            SEQUENCE,
            &[
                // Version 3 is written as 2.
                &element(VERSION, &[&element(INTEGER, &[&[2]])]),
                &element(INTEGER, &[self.serial]),
                &ecdsa_sha256(),
                &name,
                &element(SEQUENCE, &[&from, &until]),
                &name,
                self.public_key,
                &element(EXTENSIONS, &[&element(SEQUENCE, &extensions)]),
            ],
        ))
    }
}

/// A certificate of the signed part and its ECDSA signature.
pub(super) fn signed(to_be_signed: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = element(BIT_STRING, &[&[0], signature]);
    element(SEQUENCE, &[to_be_signed, &ecdsa_sha256(), &signature])
}

/// A point on the curve P-256 as certificates hold it (SubjectPublicKeyInfo).
pub(super) fn p256_public_key(point: &[u8]) -> Vec<u8> {
    let algorithm = element(
        SEQUENCE,
        &[
            &element(OBJECT_IDENTIFIER, &[EC_PUBLIC_KEY]),
            &element(OBJECT_IDENTIFIER, &[P256]),
        ],
    );
    let point = element(BIT_STRING, &[&[0], point]);
    element(SEQUENCE, &[&algorithm, &point])
}

/// A text with this label around it.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // Its whole length at once: growing would leave copies of a key behind in memory.
    let mut text = String::with_capacity(der.len().div_ceil(48) * 65 + 2 * label.len() + 40);
    // Writing to a string can't fail.
    let _ = writeln!(text, "-----BEGIN {label}-----");
    for line in der.chunks(48) {
        for bytes in line.chunks(3) {
            let mut all = [0; 3];
            all[..bytes.len()].copy_from_slice(bytes);
            let [first, second, third] = all;
            let digits = [
                first >> 2,
                (first & 0x03) << 4 | second >> 4,
                (second & 0x0f) << 2 | third >> 6,
                third & 0x3f,
            ];
            for (place, digit) in digits.into_iter().enumerate() {
                let used = place <= bytes.len();
                text.push(if used {
                    char::from(DIGITS[usize::from(digit)])
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

fn ecdsa_sha256() -> Vec<u8> {
    element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, &[ECDSA_SHA256])])
}

fn extension(id: &[u8], critical: bool, content: &[u8]) -> Vec<u8> {
    let critical = match critical {
        true => element(BOOLEAN, &[&[0xff]]),
        // What is not said is “no”.
        false => Vec::new(),
    };
    element(
        SEQUENCE,
        &[
            &element(OBJECT_IDENTIFIER, &[id]),
            &critical,
            &element(OCTET_STRING, &[content]),
        ],
    )
}

/// A date and time: in two digits of the year up to 2049, in four after that, as certificates have to.
fn moment(unix: i64) -> Option<Vec<u8>> {
    let date = crate::clock::calendar(unix)?;
    let time = unix.rem_euclid(86_400);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let rest = format!(
        "{:02}{:02}{hour:02}{minute:02}{second:02}Z",
        date.month, date.day
    );
    match date.year {
        year @ 1950..=2049 => {
            let text = format!("{:02}{rest}", year % 100);
            Some(element(UTC_TIME, &[text.as_bytes()]))
        }
        year => {
            let text = format!("{year:04}{rest}");
            Some(element(GENERALIZED_TIME, &[text.as_bytes()]))
        }
    }
}

/// An element of this tag that holds these parts, one behind the other.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().position(|byte| *byte != 0);
    let significant = &bytes[significant.unwrap_or(bytes.len() - 1)..];
    match significant {
        [short] if *short < 0x80 => out.push(*short),
        // A length has at most eight bytes.
        long => {
            out.push(0x80 | long.len().to_le_bytes()[0]);
            out.extend(long);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_and_a_long_element_say_their_length() {
        assert_eq!(element(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(element(UTF8, &[b"a", b"b"]), [0x0c, 2, b'a', b'b']);
        assert_eq!(element(UTF8, &[&[0; 127]])[..2], [0x0c, 127]);
        assert_eq!(element(UTF8, &[&[0; 128]])[..3], [0x0c, 0x81, 128]);
        assert_eq!(
            element(UTF8, &[&[0; 0x1234]])[..4],
            [0x0c, 0x82, 0x12, 0x34]
        );
    }

    #[test]
    fn moments_change_their_form_with_the_year_2050() {
        let text = |unix| moment(unix).map(|moment| (moment[0], moment[2..].to_vec()));
        let expected = |tag, text: &str| Some((tag, text.as_bytes().to_vec()));
        assert_eq!(text(0), expected(UTC_TIME, "700101000000Z"));
        assert_eq!(text(2_524_607_999), expected(UTC_TIME, "491231235959Z"));
        assert_eq!(
            text(2_524_608_000),
            expected(GENERALIZED_TIME, "20500101000000Z")
        );
        assert_eq!(text(i64::MAX), None);
    }

    #[test]
    fn what_is_written_as_pem_is_read_again() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;

        for length in (1..10).chain(46..52).chain([96, 300]) {
            let bytes: Vec<u8> = (0..length).map(|n: u16| n.to_le_bytes()[0]).collect();
            let text = pem("CERTIFICATE", &bytes);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            let read = CertificateDer::from_pem_slice(text.as_bytes()).expect("a block");
            assert_eq!(read.as_ref(), bytes.as_slice());
        }
    }
}
