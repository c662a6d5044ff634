//! Makes the device's key and certificate, and reads them back. The certificate is an end-entity one: with `CA:TRUE` peers would
//! refuse it, and whoever trusts it must never trust what it signs.

use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use umbra_carrier::x509::{CertificateFacts, common_name, spki};
use umbra_key_exchange::p256::KeyPair;
use umbra_protocol::Fingerprint;
use umbra_protocol::ids::{DeviceId, UnitId};
use zeroize::Zeroizing;

use super::IdentityError;
use super::der;
use crate::clock::{Clock, YEAR};

/// How long a certificate is valid. Its server pins it and decides when it is renewed; an expiry by surprise helps nobody.
const VALID_YEARS: i64 = 20;

/// A private key, PKCS#8.
pub(super) struct Key {
    pub(super) pem: Zeroizing<String>,
    pub(super) pair: KeyPair,
    /// The public key as it stands in certificates (SubjectPublicKeyInfo).
    pub(super) public: Vec<u8>,
}

impl Key {
    pub(super) fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate().map_err(|_| IdentityError::Making)?;
        let pem = Zeroizing::new(der::pem("PRIVATE KEY", &pair.to_pkcs8()));
        Self::read(&pem).map_err(|_| IdentityError::Making)
    }

    /// Reads a PEM file's text; the error says what is wrong with it.
    pub(super) fn read(pem: &str) -> Result<Self, &'static str> {
        if pem.trim().is_empty() {
            return Err("it is empty");
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "it holds no “-----BEGIN PRIVATE KEY-----” block that can be read")?;
        let pair = KeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_| "its key is damaged, or not an ECDSA P-256 key")?;
        Ok(Self {
            pem: Zeroizing::new(pem.to_owned()),
            public: der::p256_public_key(pair.public()),
            pair,
        })
    }

    pub(super) fn device_id(&self) -> DeviceId {
        DeviceId::from_bytes(sha256(&self.public))
    }

    /// A self-signed certificate for this key.
    pub(super) fn certify(
        &self,
        unit_id: &UnitId,
        clock: &Clock,
    ) -> Result<Certificate, IdentityError> {
        let mut serial = [0; 16];
        SystemRandom::new()
            .fill(&mut serial)
            .map_err(|_| IdentityError::Making)?;
        // A serial number is positive and never begins with a zero byte.
        serial[0] = (serial[0] & 0x7f) | 0x40;
        let (not_before, not_after) = validity(clock);
        let name = dns_name(unit_id);
        let signed = der::Certificate {
            serial: &serial,
            common_name: unit_id.as_str(),
            dns_name: &name,
            not_before,
            not_after,
            public_key: &self.public,
        }
        .to_be_signed()
        .ok_or(IdentityError::Making)?;
        let signature = self.pair.sign(&signed).map_err(|_| IdentityError::Making)?;
        let certificate = der::pem("CERTIFICATE", &der::signed(&signed, &signature));
        Certificate::read(&certificate).map_err(|_| IdentityError::Making)
    }
}

/// Validity begins with the build of this program, which lies in every device's past, however wrong its clock is now. It ends
/// long after now, where now can be believed.
fn validity(clock: &Clock) -> (i64, i64) {
    let build = clock.build_date();
    let now = clock.believable().unwrap_or(build).max(build);
    (build, now + VALID_YEARS * YEAR)
}

/// The unit ID as a DNS name: no underscores in those, and no dots or dashes at the ends.
fn dns_name(unit_id: &UnitId) -> String {
    let name = unit_id.as_str().to_ascii_lowercase().replace('_', "-");
    let labels: Vec<&str> = name
        .split('.')
        .map(|label| label.trim_matches('-'))
        .filter(|label| !label.is_empty())
        .collect();
    if labels.is_empty() {
        "device".to_owned()
    } else {
        labels.join(".")
    }
}

/// A certificate that could be read.
pub(super) struct Certificate {
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
    pub(super) public: Vec<u8>,
    /// From the common name, where that is a unit ID.
    pub(super) unit_id: Option<UnitId>,
    pub(super) fingerprint: Fingerprint,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Certificate {
    pub(super) fn device_id(&self) -> DeviceId {
        DeviceId::from_bytes(sha256(&self.public))
    }

    /// Reads a PEM file's text; the error says what is wrong with it.
    pub(super) fn read(pem: &str) -> Result<Self, &'static str> {
        if pem.trim().is_empty() {
            return Err("it is empty");
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "it holds no “-----BEGIN CERTIFICATE-----” block that can be read")?;
        let no = |_| "it holds no X.509 certificate";
        let facts = CertificateFacts::read(&der).map_err(no)?;
        let unit_id = common_name(&der).map_err(no)?;
        let unit_id = unit_id.and_then(|name| name.parse().ok());
        let public = spki(&der).map_err(no)?.to_vec();
        Ok(Self {
            pem: pem.to_owned(),
            fingerprint: Fingerprint::of_certificate(&der),
            der: der.into_owned(),
            public,
            unit_id,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    fn made(clock: &Clock) -> (Key, Certificate) {
        let key = Key::generate().expect("a key");
        let unit_id = "00E0C5A1B2C3".parse().expect("a unit ID");
        let certificate = key.certify(&unit_id, clock).expect("a certificate");
        (key, certificate)
    }

    #[test]
    fn the_certificate_is_an_end_entity_for_both_sides_of_tls_and_names_the_unit() {
        let (key, certificate) = made(&Clock::system());
        let (_, parsed) = X509Certificate::from_der(&certificate.der).expect("it parses");
        assert_eq!(parsed.version(), x509_parser::x509::X509Version::V3);
        let basic = parsed
            .basic_constraints()
            .expect("readable")
            .expect("present");
        assert!(!basic.value.ca);
        let usage = parsed.key_usage().expect("readable").expect("present");
        assert!(usage.value.digital_signature() && !usage.value.key_cert_sign());
        let extended = parsed
            .extended_key_usage()
            .expect("readable")
            .expect("present");
        assert!(extended.value.server_auth && extended.value.client_auth);
        let names = &parsed
            .subject_alternative_name()
            .expect("readable")
            .expect("present")
            .value
            .general_names;
        assert!(
            matches!(names.as_slice(), [GeneralName::DNSName("00e0c5a1b2c3")]),
            "{names:?}"
        );
        assert_eq!(
            certificate.unit_id.as_ref().map(UnitId::as_str),
            Some("00E0C5A1B2C3")
        );
        assert_eq!(certificate.public, key.public);
        let public = ring::signature::UnparsedPublicKey::new(
            &ring::signature::ECDSA_P256_SHA256_ASN1,
            &parsed.public_key().subject_public_key.data,
        );
        let signed = parsed.tbs_certificate.as_ref();
        public
            .verify(signed, &parsed.signature_value.data)
            .expect("signed by its own key");
    }

    #[test]
    fn wrong_clocks_leave_a_certificate_that_is_valid_on_the_real_day() {
        let build = Clock::system().build_date();
        for wrong in [0, -5, build - 400 * 86_400, 4_070_908_800, i64::MAX] {
            let (_, certificate) = made(&Clock::fixed(wrong));
            assert_eq!(certificate.not_before, build, "clock {wrong}");
            assert!(
                certificate.not_after > build + 19 * YEAR
                    && certificate.not_after < build + 21 * YEAR
            );
        }
        let (_, late) = made(&Clock::fixed(build + 10 * YEAR));
        assert!(late.not_before == build && late.not_after > build + 29 * YEAR);
    }

    #[test]
    fn no_two_certificates_of_one_key_have_the_same_serial_number() {
        let key = Key::generate().expect("a key");
        let unit_id = "A".parse().expect("a unit ID");
        let clock = Clock::system();
        let [one, two] = [0, 1].map(|_| key.certify(&unit_id, &clock).expect("a certificate"));
        assert_ne!(one.fingerprint, two.fingerprint);
        assert_eq!(one.public, two.public);
    }

    #[test]
    fn every_unit_id_has_a_dns_name() {
        for (unit_id, name) in [
            ("AB_C", "ab-c"),
            ("-.-", "device"),
            ("_", "device"),
            (".A.-B", "a.b"),
        ] {
            let unit_id: UnitId = unit_id.parse().expect("a unit ID");
            assert_eq!(dns_name(&unit_id), name);
            let key = Key::generate().expect("a key");
            key.certify(&unit_id, &Clock::system())
                .expect("a certificate");
        }
    }

    #[test]
    fn damaged_files_are_told_apart() {
        let (key, certificate) = made(&Clock::system());
        let key_error = |text: &str| Key::read(text).err().expect("refused");
        assert_eq!(key_error("\n"), "it is empty");
        assert!(key_error("rubbish").contains("BEGIN PRIVATE KEY"));
        assert!(key_error(&certificate.pem).contains("BEGIN PRIVATE KEY"));
        let cut = &key.pem[..key.pem.len() / 2];
        assert!(key_error(cut).contains("BEGIN PRIVATE KEY"));
        assert_eq!(Certificate::read("").err(), Some("it is empty"));
        assert!(Certificate::read(&key.pem).is_err());
        let half = &certificate.der[..certificate.der.len() / 2];
        let wrapped = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            base64(half)
        );
        assert_eq!(
            Certificate::read(&wrapped).err(),
            Some("it holds no X.509 certificate")
        );
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |n: u32| char::from(DIGITS[usize::try_from(n & 63).expect("small")]);
        bytes
            .chunks_exact(3)
            .flat_map(|c| {
                let n = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
                [18, 12, 6, 0].map(|shift| digit(n >> shift))
            })
            .collect()
    }
}
