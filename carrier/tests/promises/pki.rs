//! A certificate authority for one test, and both ends of a handshake over a pipe in memory.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use umbra_carrier::alpn;
use umbra_carrier::tls::{
    Accepted, DatePolicy, ServerTrust, TlsError, TlsIdentity, accept_by_alpn, connect_tls,
    device_config, http_acceptor_config, link_acceptor_config,
};
use umbra_carrier::x509::sha256;

pub(crate) type Der = CertificateDer<'static>;

/// Long enough that only simulated time ever gets there.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Authority {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
    pub(crate) der: Der,
}

pub(crate) struct Leaf {
    pub(crate) der: Der,
    pub(crate) key: KeyPair,
}

pub(crate) fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    params
}

pub(crate) fn authority_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn server_params(names: &[&str]) -> CertificateParams {
    let mut params = named("the server");
    params.subject_alt_names = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap()
    .subject_alt_names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::self_signed(authority_params(name))
    }

    pub(crate) fn self_signed(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    pub(crate) fn authority(&self, name: &str) -> Self {
        self.authority_with(authority_params(name))
    }

    pub(crate) fn authority_with(&self, params: CertificateParams) -> Self {
        let leaf = self.sign(&params);
        Self {
            params,
            key: leaf.key,
            der: leaf.der,
        }
    }

    pub(crate) fn server(&self, names: &[&str]) -> Leaf {
        self.sign(&server_params(names))
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().clone();
        Leaf { der, key }
    }

    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    pub(crate) fn trust(&self) -> ServerTrust {
        ServerTrust::RootFingerprint(self.fingerprint())
    }

    pub(crate) fn pinned(&self) -> ServerTrust {
        ServerTrust::PinnedRoots(vec![self.der.clone()])
    }
}

pub(crate) fn self_signed(params: &CertificateParams) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    Leaf { der, key }
}

impl Leaf {
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// This certificate's identity, with `above` presented behind it.
    pub(crate) fn identity(&self, above: &[&Der]) -> TlsIdentity {
        let chain = [&self.der]
            .into_iter()
            .chain(above.iter().copied())
            .cloned()
            .collect();
        TlsIdentity::new(chain, self.key_der()).unwrap()
    }
}

/// A device's certificate: self-signed, no CA.
pub(crate) fn device() -> Leaf {
    let mut params = named("device 0011223344");
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    self_signed(&params)
}

pub(crate) fn http_client(trust: ServerTrust) -> Arc<ClientConfig> {
    device_config(None, trust, DatePolicy::Enforce, alpn::HTTP).unwrap()
}

pub(crate) fn undated_client(trust: ServerTrust) -> Arc<ClientConfig> {
    device_config(None, trust, DatePolicy::Ignore, alpn::HTTP).unwrap()
}

pub(crate) type ClientSide = Result<tokio_rustls::client::TlsStream<DuplexStream>, TlsError>;
pub(crate) type ServerSide = Result<Accepted<DuplexStream>, TlsError>;

/// Both ends of a handshake with a server of this identity.
pub(crate) async fn handshake(
    server: &TlsIdentity,
    client: Arc<ClientConfig>,
    name: &str,
) -> (ClientSide, ServerSide) {
    handshake_with(
        link_acceptor_config(server),
        http_acceptor_config(server),
        client,
        name,
    )
    .await
}

pub(crate) async fn handshake_with(
    link: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> (ClientSide, ServerSide) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    tokio::join!(
        connect_tls(near, client, name, LONG),
        accept_by_alpn(far, link, http, LONG)
    )
}

/// Why the client refuses a server that presents `leaf` and `above` under the name `server.test`.
pub(crate) async fn refusal(leaf: &Leaf, above: &[&Der], trust: ServerTrust) -> TlsError {
    let (client, server) =
        handshake(&leaf.identity(above), http_client(trust), "server.test").await;
    // Whoever is refused learns so: the server must not take the connection for a good one.
    match server {
        Err(TlsError::PeerRefusedOurCertificate | TlsError::PeerRefused { .. }) => {}
        Ok(_) | Err(_) => panic!("the server's side: {server:?}"),
    }
    client.expect_err("the server must be refused")
}

/// The client takes the server, and bytes pass in both directions.
pub(crate) async fn accepted(leaf: &Leaf, above: &[&Der], client: Arc<ClientConfig>, name: &str) {
    let (client, server) = handshake(&leaf.identity(above), client, name).await;
    let mut client = client.expect("the server must be accepted");
    let Ok(Accepted::Http(mut server)) = server else {
        panic!("the server's side: {server:?}")
    };
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"pong");
}

/// The same certificate, with another algorithm said to have made its signature.
pub(crate) fn with_signature_algorithm(certificate: &Der, algorithm: &[u8]) -> Der {
    // Certificate, then the signed part: both with lengths of two bytes, as in all certificates of this size.
    let signed_end = 8 + usize::from(u16::from_be_bytes([certificate[6], certificate[7]]));
    let algorithm_end = signed_end + 2 + usize::from(certificate[signed_end + 1]);
    let content = [
        &certificate[4..signed_end],
        &[0x30, u8::try_from(algorithm.len()).unwrap()],
        algorithm,
        &certificate[algorithm_end..],
    ]
    .concat();
    let mut whole = vec![0x30, 0x82];
    whole.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    whole.extend(content);
    whole.into()
}

/// As [`with_signature_algorithm`], and said in the signed part too, as in an honest certificate.
pub(crate) fn with_algorithm_throughout(certificate: &Der, algorithm: &[u8]) -> Der {
    let ecdsa = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let at = certificate
        .windows(ecdsa.len())
        .position(|bytes| bytes == ecdsa)
        .unwrap();
    let grown = u16::try_from(algorithm.len() - 10).unwrap();
    let length = u16::from_be_bytes([certificate[6], certificate[7]]) + grown;
    let whole = [
        &certificate[..6],
        &length.to_be_bytes(),
        &certificate[8..at],
        &[0x30, u8::try_from(algorithm.len()).unwrap()],
        algorithm,
        &certificate[at + ecdsa.len()..],
    ]
    .concat();
    with_signature_algorithm(&whole.into(), algorithm)
}

/// RSA with SHA-1.
pub(crate) const SHA1: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0];

/// ECDSA with SHA-224, which nothing here supports and nobody calls weak.
pub(crate) const SHA224: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1];

/// A public key that was never made: enough to be certified.
pub(crate) struct OtherKey {
    pub(crate) bits: Vec<u8>,
    pub(crate) algorithm: &'static rcgen::SignatureAlgorithm,
}

impl rcgen::PublicKeyData for OtherKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl OtherKey {
    /// An RSA key with a modulus of this many bits.
    pub(crate) fn rsa(bits: usize) -> Self {
        let mut integer = vec![0, 0x80];
        integer.resize(bits / 8 + 1, 1);
        let length = u16::try_from(integer.len()).unwrap().to_be_bytes();
        let content = [&[2, 0x82][..], &length, &integer, &[2, 3, 1, 0, 1]].concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        Self {
            bits: [&[0x30, 0x82][..], &length, &content].concat(),
            algorithm: &rcgen::PKCS_RSA_SHA256,
        }
    }
}
