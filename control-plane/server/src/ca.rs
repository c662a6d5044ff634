//! The server's own certificates: a private root made at the first start, the server certificate that it signs, and the
//! key that signs session tickets. The root's key never leaves its file; a key is never used with a certificate that it
//! does not belong to, because each pair is one file, replaced in one step.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use umbra_carrier::tls::{IdentityError, TlsIdentity};
use umbra_carrier::x509::{CertificateError, CertificateFacts, GATEWAY_MARK};
use umbra_protocol::hello::TrustAnchors;
use umbra_protocol::ids::{from_hex, to_hex};
use umbra_protocol::ticket::TicketSigner;
use umbra_protocol::{Fingerprint, Secret};
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::random;

const DAY: i64 = 24 * 60 * 60;
/// The root lives as long as the devices that pin it.
const ROOT_DAYS: i64 = 3_653;
const SERVER_DAYS: i64 = 365;
/// A server certificate with less time left is made anew at the start.
const RENEW_DAYS: i64 = 60;

/// Why the certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error("a file of the server's certificates cannot be used")]
    File(#[from] FileError),
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not belong together or are damaged.
    #[error("{} cannot be used", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// A certificate of the chain is damaged.
    #[error("{} holds a certificate that cannot be used", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The ticket key is damaged.
    #[error("{} holds no ticket key: restore it from a backup, or remove it to have a new one made", path.display())]
    TicketKey {
        /// Which file.
        path: PathBuf,
    },
}

/// What the server shows to its peers, and what they are told to trust.
#[derive(Debug)]
pub struct Authority {
    /// Server certificate, intermediates, root, with the server's key.
    pub identity: TlsIdentity,
    /// SHA-256 of the root.
    pub root_fingerprint: Fingerprint,
    /// The root, PEM.
    pub root_pem: String,
    /// Signs session tickets.
    pub signer: TicketSigner,
    /// What this server shows to its gateways, which know this very certificate.
    pub uplink: TlsIdentity,
    files: CaFiles,
}

/// A chain and a key that were just made for somebody else; the key is kept nowhere.
#[derive(Debug)]
pub struct Issued {
    /// Its certificate and the root, PEM.
    pub chain: String,
    /// Its key, PEM.
    pub key: Secret,
    /// Until when the certificate is valid.
    pub until: i64,
}

impl Authority {
    /// The uplink certificate, PEM.
    pub fn uplink_pem(&self) -> String {
        to_pem("CERTIFICATE", self.uplink.certificate())
    }

    /// Makes a certificate for a server under these names; nothing, where an imported chain without its CA's key is in use.
    pub fn issue(&self, hosts: &[String], now: i64) -> Result<Option<Issued>, CaError> {
        if !self.files.authority.exists() {
            return Ok(None);
        }
        let authority = files::read_private(&self.files.authority)?;
        let Made {
            certificate,
            root,
            key,
        } = make_signed(&authority, hosts, Bearer::Gateway, now)?;
        Ok(Some(Issued {
            chain: to_pem("CERTIFICATE", &certificate) + &to_pem("CERTIFICATE", &root),
            key: Secret::new(key.serialize_pem()),
            until: now + SERVER_DAYS * DAY,
        }))
    }

    /// What devices are told to trust.
    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors {
            roots: vec![self.root_pem.clone()],
            ticket_keys: vec![self.signer.public()],
        }
    }
}

/// Where the pieces are.
#[derive(Clone, Debug)]
pub struct CaFiles {
    /// Root certificate and its key; only this server reads it.
    pub authority: PathBuf,
    /// The server's chain and key.
    pub server: PathBuf,
    /// The root certificate for everybody.
    pub root: PathBuf,
    /// Key for session tickets.
    pub ticket: PathBuf,
    /// Certificate and key for uplinks to gateways.
    pub uplink: PathBuf,
}

impl CaFiles {
    /// The files in the server's folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            authority: folder.join("authority.pem"),
            server: folder.join("server.pem"),
            root: folder.join("root.crt"),
            ticket: folder.join("ticket.key"),
            uplink: folder.join("uplink.pem"),
        }
    }
}

/// Whether [`open`] would make a new server certificate now.
pub fn is_due(files: &CaFiles, hosts: &[String], now: i64) -> Result<bool, CaError> {
    Ok(files.authority.exists() && !still_good(files, hosts, now)?)
}

/// Reads the certificates; makes what is missing, and a new server certificate where the present one ends soon or does
/// not cover `hosts`.
pub fn open(files: &CaFiles, hosts: &[String], now: i64) -> Result<Authority, CaError> {
    // An imported chain is used as it is: only its owner can make another.
    let imported = files.server.exists() && !files.authority.exists();
    if !imported {
        if !files.authority.exists() {
            tracing::info!("making the private root certificate");
            files::write(&files.authority, make_root(now)?.as_bytes(), 0o600)?;
        }
        if !files.server.exists() || !still_good(files, hosts, now)? {
            tracing::info!("making the server certificate");
            let authority = files::read_private(&files.authority)?;
            files::write(
                &files.server,
                make_server(&authority, hosts, now)?.as_bytes(),
                0o600,
            )?;
        }
    }
    let identity = read_identity(&files.server)?;
    let root = identity.chain().last().unwrap_or(identity.certificate());
    let root_fingerprint = Fingerprint::of_certificate(root);
    let root_pem = to_pem("CERTIFICATE", root);
    if files::read(&files.root).is_ok_and(|text| text.as_str() == root_pem) {
        tracing::debug!("the root certificate file is up to date");
    } else {
        files::write(&files.root, root_pem.as_bytes(), 0o644)?;
    }
    Ok(Authority {
        root_fingerprint,
        root_pem,
        signer: ticket_signer(&files.ticket)?,
        uplink: uplink_identity(&files.uplink, now)?,
        files: files.clone(),
        identity,
    })
}

/// Reads a chain and its key from one private file.
pub fn read_identity(path: &Path) -> Result<TlsIdentity, CaError> {
    let pem = files::read_private(path)?;
    TlsIdentity::from_pem(&pem, &pem).map_err(|source| CaError::Identity {
        path: path.to_owned(),
        source,
    })
}

fn still_good(files: &CaFiles, hosts: &[String], now: i64) -> Result<bool, CaError> {
    let identity = read_identity(&files.server)?;
    let facts =
        CertificateFacts::read(identity.certificate()).map_err(|source| CaError::Certificate {
            path: files.server.clone(),
            source,
        })?;
    let covered = hosts
        .iter()
        .all(|host| facts.san.iter().any(|name| name.eq_ignore_ascii_case(host)));
    Ok(covered && facts.not_before <= now && facts.not_after > now + RENEW_DAYS * DAY)
}

fn ticket_signer(path: &Path) -> Result<TicketSigner, CaError> {
    if path.exists() {
        let text = files::read_private(path)?;
        let bytes = hex_bytes(text.trim()).and_then(|bytes| TicketSigner::from_pkcs8(&bytes));
        return bytes.ok_or_else(|| CaError::TicketKey {
            path: path.to_owned(),
        });
    }
    let (signer, pkcs8) = TicketSigner::generate();
    files::write(
        path,
        Zeroizing::new(to_hex(&pkcs8) + "\n").as_bytes(),
        0o600,
    )?;
    Ok(signer)
}

/// The certificate for uplinks: made once, because every gateway was told of this very one.
fn uplink_identity(path: &Path, now: i64) -> Result<TlsIdentity, CaError> {
    if !path.exists() {
        tracing::info!("making the certificate for uplinks to gateways");
        files::write(path, make_uplink(now)?.as_bytes(), 0o600)?;
    }
    read_identity(path)
}

fn make_uplink(now: i64) -> Result<Zeroizing<String>, CaError> {
    let mut params = params("umbra uplink", now, ROOT_DAYS);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(one_text(&[certificate.der()], &key))
}

fn hex_bytes(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let pairs = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| {
            std::str::from_utf8(pair)
                .ok()
                .and_then(from_hex::<1>)
                .map(|[byte]| byte)
        })
        .collect();
    bytes.map(Zeroizing::new)
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Certificates begin a day early: the clocks of devices are not exact.
fn params(name: &str, now: i64, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(now - DAY);
    params.not_after = at(now + days * DAY);
    let mut serial = random::bytes::<16>();
    // A positive number without leading zeros.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// A new root: certificate and key as one PEM text.
fn make_root(now: i64) -> Result<Zeroizing<String>, CaError> {
    // The name tells apart the roots of several servers.
    let mut params = params(
        &format!("Umbra root {}", random::hex::<4>()),
        now,
        ROOT_DAYS,
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(one_text(&[certificate.der()], &key))
}

/// A new server certificate signed by the root: chain, root and key as one PEM text.
fn make_server(authority: &str, hosts: &[String], now: i64) -> Result<Zeroizing<String>, CaError> {
    let made = make_signed(authority, hosts, Bearer::Server, now)?;
    Ok(one_text(&[&made.certificate, &made.root], &made.key))
}

struct Made {
    certificate: CertificateDer<'static>,
    root: CertificateDer<'static>,
    key: KeyPair,
}

/// A new certificate for a server under these names, signed by the root.
/// Whose certificate it is going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearer {
    Server,
    /// Marked, so that nobody takes it for a server's.
    Gateway,
}

fn make_signed(
    authority: &str,
    hosts: &[String],
    bearer: Bearer,
    now: i64,
) -> Result<Made, CaError> {
    let unreadable = |_| rcgen::Error::CouldNotParseCertificate;
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(unreadable)?;
    let root_key = PrivateKeyDer::from_pem_slice(authority.as_bytes())
        .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    let issuer = Issuer::from_ca_cert_der(&root, KeyPair::try_from(&root_key)?)?;
    let name = hosts.first().map_or("localhost", String::as_str);
    // A common name has 64 characters at most; the names that count are the alternative ones.
    let name: String = name.chars().take(64).collect();
    let mut params = params(&name, now, SERVER_DAYS);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    if bearer == Bearer::Gateway {
        let mark = SanType::URI(GATEWAY_MARK.try_into()?);
        params.subject_alt_names.push(mark);
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?.der().clone();
    drop(issuer);
    Ok(Made {
        certificate,
        root,
        key,
    })
}

fn one_text(chain: &[&CertificateDer<'_>], key: &KeyPair) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for certificate in chain {
        text.push_str(&to_pem("CERTIFICATE", certificate));
    }
    text.push_str(&Zeroizing::new(key.serialize_pem()));
    text
}

/// DER as PEM.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, digit) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(digit);
    }
    text + &format!("\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn hosts() -> Vec<String> {
        ["server.example.com", "192.0.2.7", "2001:db8::7"]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn a_first_start_makes_a_root_for_ten_years_and_a_server_certificate_for_every_host() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CaFiles::in_folder(folder.path());
        let authority = open(&files, &hosts(), NOW).expect("made");
        let chain = authority.identity.chain();
        assert_eq!(chain.len(), 2);
        let server = CertificateFacts::read(&chain[0]).expect("readable");
        let root = CertificateFacts::read(&chain[1]).expect("readable");
        assert_eq!(server.san, hosts());
        assert_eq!(server.is_ca, Some(false));
        assert_eq!(server.may_be_server, Some(true));
        assert_eq!((root.is_ca, root.path_len), (Some(true), Some(1)));
        assert_eq!(root.may_sign_certificates, Some(true));
        assert!(root.self_signed);
        assert_eq!(root.not_after, NOW + ROOT_DAYS * DAY);
        assert_eq!(
            authority.root_fingerprint,
            Fingerprint::of_certificate(&chain[1])
        );
    }

    #[test]
    fn a_second_start_keeps_everything_and_a_new_host_keeps_the_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CaFiles::in_folder(folder.path());
        let first = open(&files, &hosts(), NOW).expect("made");
        let second = open(&files, &hosts(), NOW + DAY).expect("read");
        assert_eq!(first.identity.chain(), second.identity.chain());
        assert_eq!(first.signer.public(), second.signer.public());
        let mut more = hosts();
        more.push("other.example.com".into());
        let third = open(&files, &more, NOW).expect("made anew");
        assert_eq!(third.root_fingerprint, first.root_fingerprint);
        assert_ne!(third.identity.chain()[0], first.identity.chain()[0]);
        let late = open(&files, &more, NOW + 320 * DAY).expect("renewed");
        assert_eq!(late.root_fingerprint, first.root_fingerprint);
        assert_ne!(late.identity.chain()[0], third.identity.chain()[0]);
    }

    #[test]
    fn a_damaged_or_exposed_key_is_refused_and_never_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let files = CaFiles::in_folder(folder.path());
        open(&files, &hosts(), NOW).expect("made");
        files::write(&files.ticket, b"", 0o600).expect("written");
        assert!(matches!(
            open(&files, &hosts(), NOW),
            Err(CaError::TicketKey { .. })
        ));
        std::fs::remove_file(&files.ticket).expect("removed");
        std::fs::set_permissions(&files.server, std::fs::Permissions::from_mode(0o644))
            .expect("exposed");
        assert!(matches!(
            open(&files, &hosts(), NOW),
            Err(CaError::File(FileError::Exposed { .. }))
        ));
    }

    #[test]
    fn pem_reads_back_at_every_length() {
        for length in 1..200u8 {
            let der: Vec<u8> = (0..length).collect();
            let pem = to_pem("CERTIFICATE", &der);
            let back = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
            assert_eq!(back.as_ref(), der);
        }
    }

    #[test]
    fn the_uplink_certificate_is_made_once_for_its_owner_only_and_signs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CaFiles::in_folder(folder.path());
        let first = open(&files, &hosts(), NOW).expect("made");
        let later = open(&files, &hosts(), NOW + 300 * DAY).expect("opened");
        assert_eq!(first.uplink_pem(), later.uplink_pem());
        let facts = CertificateFacts::read(first.uplink.certificate()).expect("readable");
        assert_eq!(facts.is_ca, Some(false));
        assert_eq!(facts.may_be_client, Some(true));
        assert_eq!(facts.may_be_server, Some(false));
        assert!(facts.self_signed);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&files.uplink)
                .expect("there")
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_gateways_certificate_covers_its_names_comes_from_the_root_and_signs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CaFiles::in_folder(folder.path());
        let authority = open(&files, &hosts(), NOW).expect("made");
        let names = ["gw.example.com".to_owned(), "10.0.0.5".to_owned()];
        let issued = authority.issue(&names, NOW).expect("made").expect("ours");
        let identity =
            TlsIdentity::from_pem(&issued.chain, issued.key.reveal()).expect("belongs together");
        assert_eq!(identity.chain().len(), 2);
        assert_eq!(
            Fingerprint::of_certificate(&identity.chain()[1]),
            authority.root_fingerprint
        );
        let facts = CertificateFacts::read(identity.certificate()).expect("readable");
        assert_eq!(facts.san[..2], names);
        assert!(facts.is_gateway());
        assert_eq!(facts.is_ca, Some(false));
        assert_eq!(facts.may_be_server, Some(true));
        assert_eq!(facts.may_be_client, Some(false));
        assert_eq!(facts.not_after, issued.until);
    }

    #[test]
    fn a_server_with_an_imported_chain_issues_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CaFiles::in_folder(folder.path());
        open(&files, &hosts(), NOW).expect("made");
        std::fs::remove_file(&files.authority).expect("removed");
        let imported = open(&files, &hosts(), NOW).expect("opened");
        assert!(imported.issue(&hosts(), NOW).expect("looked").is_none());
    }
}
