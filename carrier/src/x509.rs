//! What a certificate says, in plain values. Certificates come from strangers: size is bounded, nothing here panics, and
//! every text is made safe for a log, a terminal and a dialog. Reading a certificate never means trusting it.

pub(crate) mod der;

use std::fmt::Write as _;
use std::net::IpAddr;

use rustls::pki_types::SignatureVerificationAlgorithm;
use x509_parser::extensions::{GeneralName, GeneralSubtree, NameConstraints, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::tls::provider;

/// Larger certificates are not read.
pub const MAX_CERTIFICATE: usize = 64 * 1024;

/// Names, serial numbers and the like are shown up to this many characters.
const MAX_TEXT: usize = 200;

/// The extensions that a verification of this program understands; any other that is marked critical makes it refuse. In this
/// order: key usage, alternative names, basic constraints, name constraints, CRL distribution points, extended key usage,
/// timestamps of certificate transparency.
const KNOWN_EXTENSIONS: [&str; 7] = [
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.37",
    "1.3.6.1.4.1.11129.2.4.2",
];

/// How many limits of each kind are named.
const LIMITS_SHOWN: usize = 6;

/// Why a certificate can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More bytes than any honest certificate has.
    #[error("the certificate has {size} bytes, and no more than {MAX_CERTIFICATE} are read")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not a certificate, or a damaged one.
    #[error("the certificate can't be read: it is damaged, or no X.509 certificate")]
    Unreadable,
}

/// The SHA-256 of a certificate: its fingerprint.
pub fn sha256(der: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, der).as_ref());
    digest
}

/// The SHA-256 of a certificate's public key (SubjectPublicKeyInfo): what stays when the certificate is renewed.
///
/// # Errors
/// [`CertificateError`] for what is too large or no certificate.
pub fn spki_sha256(der: &[u8]) -> Result<[u8; 32], CertificateError> {
    Ok(sha256(spki(der)?))
}

/// A certificate's public key (SubjectPublicKeyInfo) as it stands in the certificate.
///
/// # Errors
/// [`CertificateError`] for what is too large or no certificate.
pub fn spki(der: &[u8]) -> Result<&[u8], CertificateError> {
    bounded(der)?;
    der::shape(der)
        .map(|shape| shape.public_key)
        .ok_or(CertificateError::Unreadable)
}

/// The alternative name (a URI) that marks the certificate of a gateway: whoever wants to speak with a server refuses it, though
/// it comes from the server's own root and may hold the server's names. Without the mark a gateway could pass for its server.
pub const GATEWAY_MARK: &str = "urn:umbra:gateway";

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// The subject's name, like `CN=server.example.com, O=Example`.
    pub subject: String,
    /// The issuer's name.
    pub issuer: String,
    /// The serial number in hexadecimal digits.
    pub serial: String,
    /// Valid from (seconds since 1970).
    pub not_before: i64,
    /// Valid until (seconds since 1970).
    pub not_after: i64,
    /// The CA flag; `None` without basic constraints.
    pub is_ca: Option<bool>,
    /// How many intermediate certificates may stand below this CA.
    pub path_len: Option<u32>,
    /// Whether the key usage allows to sign certificates; `None` without a key usage.
    pub may_sign_certificates: Option<bool>,
    /// Whether the extended key usage allows to be a TLS server; `None` without an extended key usage. “Any purpose” doesn't
    /// count: TLS wants the purpose by its name.
    pub may_be_server: Option<bool>,
    /// Whether the extended key usage allows to be a TLS client, by name too; `None` without an extended key usage.
    pub may_be_client: Option<bool>,
    /// The subject alternative names: host names and IP addresses as they are, others with their kind in front.
    pub san: Vec<String>,
    /// The key, like `ECDSA P-256` or `RSA 4096`.
    pub key: String,
    /// Whether TLS connections of this program can use such a key.
    pub key_is_usable: bool,
    /// The algorithm that the issuer signed with, like `ECDSA with SHA-256`.
    pub signature: String,
    /// Whether that algorithm rests on MD2, MD5 or SHA-1, which can be forged.
    pub signature_is_weak: bool,
    /// Whether subject and issuer are the same and the certificate's own key made the signature.
    pub self_signed: bool,
    /// The extensions that are marked critical and that TLS connections of this program don't know, by their object identifiers.
    pub unknown_critical: Vec<String>,
    /// The names that a CA certificate allows or forbids below it (name constraints), in words; `None` without such limits.
    pub name_limits: Option<String>,
    /// The version of X.509: 3 in every certificate that has extensions.
    pub version: u32,
    pub(crate) names: Vec<AltName>,
}

/// A subject alternative name that a host can be compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AltName {
    Dns(String),
    Ip(IpAddr),
}

impl CertificateFacts {
    /// Whether this is marked as a gateway's certificate.
    pub fn is_gateway(&self) -> bool {
        self.san
            .iter()
            .any(|name| name.strip_prefix("URI:") == Some(GATEWAY_MARK))
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// [`CertificateError`] for what is too large or no certificate.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        bounded(der)?;
        let shape = der::shape(der).ok_or(CertificateError::Unreadable)?;
        let (rest, certificate) = x509_parser::certificate::X509Certificate::from_der(der)
            .map_err(|_| CertificateError::Unreadable)?;
        if !rest.is_empty() {
            return Err(CertificateError::Unreadable);
        }
        let (key, key_is_usable) = describe_key(&certificate);
        let (signature, signature_is_weak) = describe_signature(&certificate);
        let self_signed = shape.subject == shape.issuer
            && match signed_by(&shape, shape.public_key) {
                Signed::Yes | Signed::UnknownAlgorithm => true,
                Signed::No => false,
            };
        let mut facts = Self {
            subject: printable(&certificate.subject().to_string(), MAX_TEXT),
            issuer: printable(&certificate.issuer().to_string(), MAX_TEXT),
            serial: hex(certificate.raw_serial(), MAX_TEXT),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            is_ca: None,
            path_len: None,
            may_sign_certificates: None,
            may_be_server: None,
            may_be_client: None,
            san: Vec::new(),
            key,
            key_is_usable,
            signature,
            signature_is_weak,
            self_signed,
            unknown_critical: Vec::new(),
            name_limits: None,
            version: certificate.version().0.saturating_add(1),
            names: Vec::new(),
        };
        for extension in certificate.extensions() {
            facts.note(extension.parsed_extension());
            let id = extension.oid.to_id_string();
            if extension.critical && !KNOWN_EXTENSIONS.contains(&id.as_str()) {
                facts.unknown_critical.push(printable(&id, MAX_TEXT));
            }
        }
        Ok(facts)
    }

    /// The name that people know the certificate by: the subject, or its key where the subject is empty.
    pub fn display_name(&self) -> String {
        if !self.subject.is_empty() {
            self.subject.clone()
        } else if let Some(first) = self.san.first() {
            first.clone()
        } else {
            format!("(no name, serial number {})", self.serial)
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser knows many extensions; these are the ones that count"
    )]
    fn note(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_ca = Some(constraints.ca);
                self.path_len = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => {
                self.may_sign_certificates = Some(usage.key_cert_sign())
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.may_be_server = Some(usage.server_auth);
                self.may_be_client = Some(usage.client_auth);
            }
            ParsedExtension::NameConstraints(limits) => {
                self.name_limits = Some(describe_limits(limits));
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    self.note_name(name);
                }
            }
            _ => {}
        }
    }

    fn note_name(&mut self, name: &GeneralName<'_>) {
        let shown = match name {
            GeneralName::DNSName(name) => {
                self.names.push(AltName::Dns((*name).to_owned()));
                printable(name, MAX_TEXT)
            }
            GeneralName::IPAddress(bytes) => match ip(bytes) {
                Some(address) => {
                    self.names.push(AltName::Ip(address));
                    address.to_string()
                }
                None => format!("IP address of {} bytes", bytes.len()),
            },
            GeneralName::RFC822Name(name) => format!("mail:{}", printable(name, MAX_TEXT)),
            GeneralName::URI(name) => format!("URI:{}", printable(name, MAX_TEXT)),
            GeneralName::DirectoryName(name) => {
                format!("name:{}", printable(&name.to_string(), MAX_TEXT))
            }
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => "other kind of name".to_owned(),
        };
        self.san.push(shown);
    }
}

/// Whether a certificate was signed by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    Yes,
    No,
    /// The algorithm is not one that TLS connections of this program accept, so nothing can be said.
    UnknownAlgorithm,
}

/// Whether the key in `spki` made the signature of a certificate.
pub(crate) fn signed_by(certificate: &der::Shape<'_>, spki: &[u8]) -> Signed {
    let Some(key) = der::public_key(spki) else {
        return Signed::UnknownAlgorithm;
    };
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.signature_alg_id().as_ref() == certificate.signature_algorithm
            && algorithm.public_key_alg_id().as_ref() == key.algorithm
    };
    match provider()
        .signature_verification_algorithms
        .all
        .iter()
        .find(fits)
    {
        Some(algorithm) => {
            match algorithm.verify_signature(key.bits, certificate.signed, certificate.signature) {
                Ok(()) => Signed::Yes,
                Err(_) => Signed::No,
            }
        }
        None => Signed::UnknownAlgorithm,
    }
}

/// A moment as people read it, in UTC.
pub fn date_text(unix: i64) -> String {
    let days = unix.div_euclid(86_400);
    let seconds = unix.rem_euclid(86_400);
    // Days since 1970 to a date of the Gregorian calendar, counted in years that begin in March, so that leap days come last.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        seconds / 3_600,
        seconds % 3_600 / 60
    )
}

/// A text from a stranger, safe to show: control characters, and those that change the direction of writing, are
/// replaced, and it ends after `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            shown.push('…');
            break;
        }
        let changes_direction = matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        shown.push(if character.is_control() || changes_direction {
            '\u{fffd}'
        } else {
            character
        });
    }
    shown
}

fn bounded(der: &[u8]) -> Result<(), CertificateError> {
    if der.len() > MAX_CERTIFICATE {
        Err(CertificateError::TooLarge { size: der.len() })
    } else {
        Ok(())
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn hex(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(limit / 2) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Name constraints in words.
fn describe_limits(limits: &NameConstraints<'_>) -> String {
    let list = |subtrees: &Option<Vec<GeneralSubtree<'_>>>, word: &str| {
        let subtrees = subtrees.as_deref().unwrap_or_default();
        (!subtrees.is_empty()).then(|| {
            let mut shown: Vec<String> = subtrees
                .iter()
                .take(LIMITS_SHOWN)
                .map(|subtree| describe_limit(&subtree.base))
                .collect();
            if let Some(more @ 1..) = subtrees.len().checked_sub(LIMITS_SHOWN) {
                shown.push(format!("{more} more"));
            }
            format!("{word} {}", shown.join(", "))
        })
    };
    let parts: Vec<String> = [
        list(&limits.permitted_subtrees, "only"),
        list(&limits.excluded_subtrees, "not"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "nothing in particular".to_owned()
    } else {
        parts.join("; ")
    }
}

fn describe_limit(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => printable(name, MAX_TEXT),
        GeneralName::IPAddress(bytes) => {
            let (address, mask) = bytes.split_at(bytes.len() / 2);
            match (ip(address), ip(mask)) {
                (Some(address), Some(mask)) => format!("{address} with the mask {mask}"),
                (None, _) | (_, None) => format!("an IP network of {} bytes", bytes.len()),
            }
        }
        GeneralName::DirectoryName(name) => {
            format!("name:{}", printable(&name.to_string(), MAX_TEXT))
        }
        GeneralName::RFC822Name(name) => format!("mail:{}", printable(name, MAX_TEXT)),
        GeneralName::URI(name) => format!("URI:{}", printable(name, MAX_TEXT)),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => "another kind of name".to_owned(),
    }
}

/// The key in words, and whether *ring* and webpki take it.
fn describe_key(certificate: &x509_parser::certificate::X509Certificate<'_>) -> (String, bool) {
    let key = certificate.public_key();
    let algorithm = key.algorithm.algorithm.to_id_string();
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    match algorithm.as_str() {
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                let bits = rsa_bits(rsa.modulus);
                (format!("RSA {bits}"), (2048..=8192).contains(&bits))
            }
            Ok(_) | Err(_) => ("RSA, unreadable".to_owned(), false),
        },
        "1.2.840.10045.2.1" => match curve.map(|curve| curve.to_id_string()).as_deref() {
            Some("1.2.840.10045.3.1.7") => ("ECDSA P-256".to_owned(), true),
            Some("1.3.132.0.34") => ("ECDSA P-384".to_owned(), true),
            Some("1.3.132.0.35") => ("ECDSA P-521".to_owned(), false),
            Some(other) => (
                format!("ECDSA on the curve {}", printable(other, MAX_TEXT)),
                false,
            ),
            None => ("ECDSA on an unnamed curve".to_owned(), false),
        },
        "1.3.101.112" => ("Ed25519".to_owned(), true),
        "1.3.101.113" => ("Ed448".to_owned(), false),
        "1.2.840.10040.4.1" => ("DSA".to_owned(), false),
        other => (
            format!("of an unknown kind ({})", printable(other, MAX_TEXT)),
            false,
        ),
    }
}

fn rsa_bits(modulus: &[u8]) -> usize {
    let significant = modulus
        .iter()
        .position(|&byte| byte != 0)
        .map_or(&[][..], |start| &modulus[start..]);
    significant.first().map_or(0, |&first| {
        let leading = usize::try_from(first.leading_zeros()).unwrap_or(0);
        significant.len() * 8 - leading
    })
}

/// The signature's algorithm in words, and whether it is a weak one.
fn describe_signature(
    certificate: &x509_parser::certificate::X509Certificate<'_>,
) -> (String, bool) {
    let id = certificate.signature_algorithm.algorithm.to_id_string();
    let (text, weak) = match id.as_str() {
        "1.2.840.113549.1.1.2" => ("RSA with MD2", true),
        "1.2.840.113549.1.1.4" => ("RSA with MD5", true),
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => ("RSA with SHA-1", true),
        "1.2.840.10040.4.3" => ("DSA with SHA-1", true),
        "1.2.840.10045.4.1" => ("ECDSA with SHA-1", true),
        "1.2.840.113549.1.1.10" => ("RSA-PSS", false),
        "1.2.840.113549.1.1.11" => ("RSA with SHA-256", false),
        "1.2.840.113549.1.1.12" => ("RSA with SHA-384", false),
        "1.2.840.113549.1.1.13" => ("RSA with SHA-512", false),
        "1.2.840.10045.4.3.2" => ("ECDSA with SHA-256", false),
        "1.2.840.10045.4.3.3" => ("ECDSA with SHA-384", false),
        "1.2.840.10045.4.3.4" => ("ECDSA with SHA-512", false),
        "1.3.101.112" => ("Ed25519", false),
        other => {
            return (
                format!("an unknown algorithm ({})", printable(other, MAX_TEXT)),
                false,
            );
        }
    };
    (text.to_owned(), weak)
}
