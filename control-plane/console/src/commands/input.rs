//! What comes from files and from people: secrets that must not stand on a command line, and certificates.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use umbra_protocol::Secret;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::surroundings::Person;

/// The longest file that holds one secret.
const SECRET_FILE_MAX: u64 = 64 * 1024;

/// The first bytes of a file, or of the standard input for `-`, and what to call it.
pub(super) fn bytes_from(
    file: &Path,
    limit: u64,
    person: &mut dyn Person,
) -> Result<(String, Zeroizing<Vec<u8>>), Failure> {
    let (name, read) = if file == Path::new("-") {
        (
            "the standard input".to_owned(),
            person.standard_input(limit),
        )
    } else {
        let mut bytes = Vec::new();
        let read = File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        (file.display().to_string(), read.map(|_| bytes))
    };
    let bytes = read.map_err(|source| Failure::File {
        file: name.clone(),
        doing: "read",
        source,
    })?;
    Ok((name, Zeroizing::new(bytes)))
}

/// The first line of a file, or of the standard input for `-`.
pub(super) fn secret_from(
    file: &Path,
    what: &str,
    person: &mut dyn Person,
) -> Result<Secret, Failure> {
    let (name, bytes) = bytes_from(file, SECRET_FILE_MAX, person)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Failure::Usage(format!("{name} holds no text")))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::Usage(format!(
            "the first line of {name} is empty; it should be the {what}"
        )));
    }
    Ok(Secret::new(line))
}

/// The certificate in a PEM text.
pub(crate) fn certificate(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// A certificate as PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut column = 0;
    for chunk in certificate.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(if place <= chunk.len() {
                char::from(ALPHABET[digit])
            } else {
                '='
            });
        }
        column += 4;
        if column == 64 {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_survives_being_written_as_pem() {
        for length in [1usize, 2, 3, 47, 48, 49, 500, 501, 502] {
            let der: Vec<u8> = (0..length)
                .map(|n| u8::try_from(n * 7 % 256).expect("a byte"))
                .collect();
            let written = pem(&CertificateDer::from(der.clone()));
            assert_eq!(
                certificate(&written).expect("reads back").as_ref(),
                der,
                "{length} bytes"
            );
            assert!(written.lines().all(|line| line.len() <= 64));
        }
        assert_eq!(certificate("no certificate"), None);
    }
}
