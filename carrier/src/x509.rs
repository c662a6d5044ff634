//! What a certificate says, in plain values. Certificates come from strangers: size is bounded, nothing here panics, and
//! every text is made safe for a log, a terminal and a dialog. Reading a certificate never means trusting it.

pub(crate) mod der;
pub(crate) mod names;

use std::fmt::Write as _;
use std::net::IpAddr;

use rustls::pki_types::SignatureVerificationAlgorithm;

use self::der::Cursor;
use self::names::GeneralName;
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

/// The common name in a certificate's subject, unchanged: nothing for showing. `None` where there is none.
///
/// # Errors
/// [`CertificateError`] for what is too large or no certificate.
pub fn common_name(der: &[u8]) -> Result<Option<String>, CertificateError> {
    bounded(der)?;
    let shape = der::shape(der).ok_or(CertificateError::Unreadable)?;
    Ok(names::attribute(shape.subject, names::COMMON_NAME))
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
        Self::of_shape(&shape).ok_or(CertificateError::Unreadable)
    }

    fn of_shape(shape: &der::Shape<'_>) -> Option<Self> {
        let (key, key_is_usable) = describe_key(shape.public_key)?;
        let (signature, signature_is_weak) = describe_signature(shape.signature_algorithm)?;
        let (not_before, not_after) = der::validity(shape.validity)?;
        let version = match shape.version {
            [] => 0,
            version => der::number(version)?,
        };
        let self_signed = shape.subject == shape.issuer
            && match signed_by(shape, shape.public_key) {
                Signed::Yes | Signed::UnknownAlgorithm => true,
                Signed::No => false,
            };
        let mut facts = Self {
            subject: printable(&names::directory(shape.subject)?, MAX_TEXT),
            issuer: printable(&names::directory(shape.issuer)?, MAX_TEXT),
            serial: hex(shape.serial, MAX_TEXT),
            not_before,
            not_after,
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
            version: version.saturating_add(1),
            names: Vec::new(),
        };
        let mut rest = Cursor(shape.rest);
        // Unique identifiers of issuer and subject, which nobody uses.
        for number in [1, 2] {
            let _ = rest.read(der::numbered(number));
        }
        if let Some(extensions) = rest.read(der::numbered_structure(3)) {
            let mut outer = Cursor(extensions.content);
            let mut all = Cursor(outer.read(der::SEQUENCE)?.content);
            while !all.0.is_empty() {
                facts.note(all.read(der::SEQUENCE)?.content)?;
            }
            if !outer.0.is_empty() {
                return None;
            }
        }
        rest.0.is_empty().then_some(facts)
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

    /// Takes over what an extension says. One that can't be read says nothing; one that is none makes the certificate unreadable.
    fn note(&mut self, extension: &[u8]) -> Option<()> {
        let mut parts = Cursor(extension);
        let id = der::identifier(parts.read(der::OBJECT_IDENTIFIER)?.content)?;
        let critical = match parts.read(der::BOOLEAN) {
            Some(critical) => critical.content != [0],
            None => false,
        };
        let content = parts.read(der::OCTET_STRING)?.content;
        if !parts.0.is_empty() {
            return None;
        }
        let _ = match id.as_str() {
            "2.5.29.15" => self.note_key_usage(content),
            "2.5.29.17" => self.note_names(content),
            "2.5.29.19" => self.note_basic_constraints(content),
            "2.5.29.30" => self.note_limits(content),
            "2.5.29.37" => self.note_purposes(content),
            _ => None,
        };
        if critical && !KNOWN_EXTENSIONS.contains(&id.as_str()) {
            self.unknown_critical.push(printable(&id, MAX_TEXT));
        }
        Some(())
    }

    fn note_key_usage(&mut self, content: &[u8]) -> Option<()> {
        // Behind the number of unused bits, the first byte's highest bit is the first usage; the sixth is to sign certificates.
        let bits = Cursor(content).read(der::BIT_STRING)?.content;
        self.may_sign_certificates = Some(bits.get(1).is_some_and(|first| first & 0x04 != 0));
        Some(())
    }

    fn note_basic_constraints(&mut self, content: &[u8]) -> Option<()> {
        let mut parts = Cursor(Cursor(content).read(der::SEQUENCE)?.content);
        let is_ca = parts.read(der::BOOLEAN);
        let path_len = match parts.read(der::INTEGER) {
            Some(length) => Some(der::number(length.content)?),
            None => None,
        };
        if !parts.0.is_empty() {
            return None;
        }
        self.is_ca = Some(is_ca.is_some_and(|is_ca| is_ca.content != [0]));
        self.path_len = path_len;
        Some(())
    }

    fn note_purposes(&mut self, content: &[u8]) -> Option<()> {
        let purposes = Cursor(Cursor(content).read(der::SEQUENCE)?.content);
        let purposes: Vec<String> = purposes
            .filter_map(|purpose| der::identifier(purpose.content))
            .collect();
        let named = |id: &str| purposes.iter().any(|purpose| purpose == id);
        self.may_be_server = Some(named("1.3.6.1.5.5.7.3.1"));
        self.may_be_client = Some(named("1.3.6.1.5.5.7.3.2"));
        Some(())
    }

    fn note_limits(&mut self, content: &[u8]) -> Option<()> {
        let mut parts = Cursor(Cursor(content).read(der::SEQUENCE)?.content);
        let mut described = Vec::new();
        for (number, word) in [(0, "only"), (1, "not")] {
            if let Some(subtrees) = parts.read(der::numbered_structure(number)) {
                described.extend(describe_limits(subtrees.content, word));
            }
        }
        self.name_limits = Some(if described.is_empty() {
            "nothing in particular".to_owned()
        } else {
            described.join("; ")
        });
        Some(())
    }

    fn note_names(&mut self, content: &[u8]) -> Option<()> {
        for name in Cursor(Cursor(content).read(der::SEQUENCE)?.content) {
            self.note_name(&GeneralName::read(&name));
        }
        Some(())
    }

    fn note_name(&mut self, name: &GeneralName<'_>) {
        let shown = match name {
            GeneralName::Dns(name) => {
                self.names.push(AltName::Dns((*name).to_owned()));
                printable(name, MAX_TEXT)
            }
            GeneralName::Ip(bytes) => match ip(bytes) {
                Some(address) => {
                    self.names.push(AltName::Ip(address));
                    address.to_string()
                }
                None => format!("IP address of {} bytes", bytes.len()),
            },
            GeneralName::Mail(name) => format!("mail:{}", printable(name, MAX_TEXT)),
            GeneralName::Uri(name) => format!("URI:{}", printable(name, MAX_TEXT)),
            GeneralName::Directory(name) => {
                format!("name:{}", printable(name, MAX_TEXT))
            }
            GeneralName::Other => "other kind of name".to_owned(),
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

/// One side of name constraints in words; nothing for an empty one.
fn describe_limits(subtrees: &[u8], word: &str) -> Option<String> {
    let mut shown = Vec::new();
    let mut more = 0usize;
    for subtree in Cursor(subtrees) {
        let Some(base) = Cursor(subtree.content).next() else {
            continue;
        };
        if shown.len() < LIMITS_SHOWN {
            shown.push(describe_limit(&GeneralName::read(&base)));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    (!shown.is_empty()).then(|| format!("{word} {}", shown.join(", ")))
}

fn describe_limit(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::Dns(name) => printable(name, MAX_TEXT),
        GeneralName::Ip(bytes) => {
            let (address, mask) = bytes.split_at(bytes.len() / 2);
            match (ip(address), ip(mask)) {
                (Some(address), Some(mask)) => format!("{address} with the mask {mask}"),
                (None, _) | (_, None) => format!("an IP network of {} bytes", bytes.len()),
            }
        }
        GeneralName::Directory(name) => {
            format!("name:{}", printable(name, MAX_TEXT))
        }
        GeneralName::Mail(name) => format!("mail:{}", printable(name, MAX_TEXT)),
        GeneralName::Uri(name) => format!("URI:{}", printable(name, MAX_TEXT)),
        GeneralName::Other => "another kind of name".to_owned(),
    }
}

/// The key in words, and whether *ring* and webpki take it.
fn describe_key(spki: &[u8]) -> Option<(String, bool)> {
    let key = der::public_key(spki)?;
    let mut algorithm = Cursor(key.algorithm);
    let id = der::identifier(algorithm.read(der::OBJECT_IDENTIFIER)?.content)?;
    let curve = algorithm.read(der::OBJECT_IDENTIFIER);
    let curve = curve.and_then(|curve| der::identifier(curve.content));
    let modulus = || {
        let mut numbers = Cursor(Cursor(key.bits).read(der::SEQUENCE)?.content);
        let modulus = numbers.read(der::INTEGER)?.content;
        numbers.read(der::INTEGER).map(|_| modulus)
    };
    Some(match id.as_str() {
        "1.2.840.113549.1.1.1" => match modulus() {
            Some(modulus) => {
                let bits = rsa_bits(modulus);
                (format!("RSA {bits}"), (2048..=8192).contains(&bits))
            }
            None => ("RSA, unreadable".to_owned(), false),
        },
        "1.2.840.10045.2.1" => match curve.as_deref() {
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
    })
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
fn describe_signature(algorithm: &[u8]) -> Option<(String, bool)> {
    let id = der::identifier(Cursor(algorithm).read(der::OBJECT_IDENTIFIER)?.content)?;
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
            let text = format!("an unknown algorithm ({})", printable(other, MAX_TEXT));
            return Some((text, false));
        }
    };
    Some((text.to_owned(), weak))
}
