//! The accepting side: one port for devices and HTTP, and strangers who send anything else.

use std::sync::Arc;

use rcgen::{BasicConstraints, CustomExtension, IsCa};
use rustls::ClientConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use umbra_carrier::alpn;
use umbra_carrier::tls::{
    Accepted, DatePolicy, ServerTrust, TlsError, TlsIdentity, accept_by_alpn, device_config,
    http_acceptor_config, link_acceptor_config, provider,
};

use crate::pki::*;

struct Server {
    root: Authority,
    identity: TlsIdentity,
}

fn server() -> Server {
    let root = Authority::root("root");
    let identity = root.server(&["server.test"]).identity(&[&root.der]);
    Server { root, identity }
}

impl Server {
    fn device_config(&self, device: Option<&TlsIdentity>) -> Arc<ClientConfig> {
        device_config(
            device,
            self.root.trust(),
            DatePolicy::Enforce,
            alpn::CONTROL_LINK,
        )
        .unwrap()
    }

    async fn link(&self, device: &Leaf) -> (ClientSide, ServerSide) {
        let config = self.device_config(Some(&device.identity(&[])));
        handshake(&self.identity, config, "server.test").await
    }

    /// What the accepting side says to bytes from a stranger who then waits.
    async fn says_to(&self, bytes: &[u8]) -> TlsError {
        let (mut near, far) = tokio::io::duplex(2 * 1024 * 1024);
        near.write_all(bytes).await.unwrap();
        let (link, http) = (
            link_acceptor_config(&self.identity),
            http_acceptor_config(&self.identity),
        );
        let error = accept_by_alpn(far, link, http, LONG)
            .await
            .expect_err("this is no client");
        drop(near);
        error
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_gets_the_link_and_the_server_its_exact_certificate() {
    let (server, device) = (server(), device());
    let (client, accepted) = server.link(&device).await;
    let client = client.expect("the device is taken");
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(alpn::CONTROL_LINK));
    let Ok(Accepted::Link(stream, certificate)) = accepted else {
        panic!("{accepted:?}")
    };
    assert_eq!(certificate, device.der);
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn::CONTROL_LINK));
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
}

#[tokio::test(start_paused = true)]
async fn devices_with_unusual_certificates_get_the_link() {
    let server = server();
    let mut ca = named("made by openssl req -x509");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut expired = named("expired");
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    // webpki refuses to parse a certificate with this one.
    let mut unknown = named("unknown critical extension");
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    unknown.custom_extensions.push(extension);
    assert!(webpki::EndEntityCert::try_from(&self_signed(&unknown).der).is_err());
    for params in [ca, expired, unknown, rcgen::CertificateParams::default()] {
        let device = self_signed(&params);
        let (_, accepted) = server.link(&device).await;
        let Ok(Accepted::Link(_, certificate)) = accepted else {
            panic!("{accepted:?}")
        };
        assert_eq!(certificate, device.der);
    }
}

fn presenting(server: &Server, certificate: Der, key: &Leaf) -> Arc<ClientConfig> {
    let key = provider()
        .key_provider
        .load_private_key(key.key_der())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.root.der.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            vec![certificate],
            key,
        ))));
    config.alpn_protocols = vec![alpn::CONTROL_LINK.to_vec()];
    Arc::new(config)
}

#[tokio::test(start_paused = true)]
async fn a_stolen_device_certificate_without_its_key_is_refused() {
    let (server, real, thief) = (server(), device(), device());
    let config = presenting(&server, real.der.clone(), &thief);
    let (_, accepted) = handshake(&server.identity, config, "server.test").await;
    assert!(
        matches!(accepted, Err(TlsError::KeyNotProven)),
        "{accepted:?}"
    );
    let config = presenting(&server, real.der.clone(), &real);
    let (_, accepted) = handshake(&server.identity, config, "server.test").await;
    assert!(matches!(accepted, Ok(Accepted::Link(..))), "{accepted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_with_garbage_for_a_certificate_is_refused() {
    let (server, real) = (server(), device());
    for garbage in [
        vec![],
        vec![0x30],
        vec![0xff; 300],
        real.der[..200].to_vec(),
        [&real.der[..], &[0]].concat(),
    ] {
        let config = presenting(&server, garbage.clone().into(), &real);
        let (_, accepted) = handshake(&server.identity, config, "server.test").await;
        let refused = matches!(
            accepted,
            Err(TlsError::CertificateUnreadable | TlsError::NotTls)
        );
        assert!(refused, "{} bytes: {accepted:?}", garbage.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_without_a_certificate_is_refused_and_learns_why() {
    let server = server();
    let (client, accepted) =
        handshake(&server.identity, server.device_config(None), "server.test").await;
    assert!(
        matches!(accepted, Err(TlsError::NoCertificate)),
        "{accepted:?}"
    );
    // In TLS 1.3 the refusal comes after the client's handshake.
    let mut client = client.expect("the client's handshake is complete");
    let error = client.read(&mut [0; 1]).await.expect_err("refused");
    assert!(
        matches!(TlsError::of_stream(&error), TlsError::PeerWantsCertificate),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn http_clients_get_http_with_and_without_alpn_and_are_asked_for_no_certificate() {
    let server = server();
    let device = device().identity(&[]);
    let mut plain = Arc::unwrap_or_clone(http_client(server.root.trust()));
    plain.alpn_protocols.clear();
    let mut browser = plain.clone();
    browser.alpn_protocols = vec![b"h2".to_vec(), alpn::HTTP.to_vec()];
    let with_certificate = device_config(
        Some(&device),
        server.root.trust(),
        DatePolicy::Enforce,
        alpn::HTTP,
    )
    .unwrap();
    for (config, agreed) in [
        (Arc::new(plain), None),
        (Arc::new(browser), Some(alpn::HTTP)),
        (with_certificate, Some(alpn::HTTP)),
    ] {
        let (client, accepted) = handshake(&server.identity, config, "server.test").await;
        assert!(client.is_ok(), "{client:?}");
        let Ok(Accepted::Http(stream)) = accepted else {
            panic!("{accepted:?}")
        };
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        assert!(stream.get_ref().1.peer_certificates().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_other_protocols_are_told_so() {
    let server = server();
    let mut config = Arc::unwrap_or_clone(http_client(server.root.trust()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (client, accepted) = handshake(&server.identity, Arc::new(config), "server.test").await;
    assert!(matches!(client, Err(TlsError::WrongService)), "{client:?}");
    assert!(
        matches!(accepted, Err(TlsError::WrongService)),
        "{accepted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_server_learns_that_its_certificate_was_refused() {
    let (server, device) = (server(), device().identity(&[]));
    let trust = ServerTrust::RootFingerprint([7; 32]);
    let config = device_config(
        Some(&device),
        trust,
        DatePolicy::Enforce,
        alpn::CONTROL_LINK,
    )
    .unwrap();
    let (client, accepted) = handshake(&server.identity, config, "server.test").await;
    assert!(
        matches!(client, Err(TlsError::FingerprintMismatch { .. })),
        "{client:?}"
    );
    // The device never presented its certificate to the stranger.
    assert!(
        matches!(accepted, Err(TlsError::PeerRefusedOurCertificate)),
        "{accepted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn garbage_is_no_tls() {
    let server = server();
    let mut random = Vec::new();
    let mut state: u64 = 1;
    while random.len() < 1_000_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        random.push(u8::try_from(state >> 56).unwrap());
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: server.test\r\n\r\n"[..],
        b"RFB 003.008\n",
        &[0; 4096],
        &random,
    ] {
        let error = server.says_to(bytes).await;
        assert!(matches!(error, TlsError::NotTls), "{error:?}");
    }
}

/// A client hello without the extension that announces TLS 1.3.
fn hello_of_tls_1_2() -> Vec<u8> {
    let mut extensions = vec![0, 10, 0, 4, 0, 2, 0, 23]; // supported groups: P-256
    extensions.extend([0, 13, 0, 4, 0, 2, 4, 3]); // signature algorithms: ECDSA P-256 with SHA-256
    extensions.extend([0, 11, 0, 2, 1, 0]); // point formats
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend(message);
    record
}

#[tokio::test(start_paused = true)]
async fn a_client_of_tls_1_2_is_told_as_too_old() {
    let error = server().says_to(&hello_of_tls_1_2()).await;
    assert!(matches!(error, TlsError::ProtocolTooOld), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_and_half_a_client_hello_end_at_the_deadline() {
    let server = server();
    let hello = hello_of_tls_1_2();
    for length in [0, 1, 5, hello.len() / 2, hello.len() - 1] {
        let begin = tokio::time::Instant::now();
        let error = server.says_to(&hello[..length]).await;
        assert!(matches!(error, TlsError::TimedOut), "{length}: {error:?}");
        assert_eq!(begin.elapsed().as_secs(), LONG.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_after_its_hello_ends_at_the_deadline() {
    let server = server();
    let config = server.device_config(Some(&device().identity(&[])));
    let name = rustls::pki_types::ServerName::try_from("server.test").unwrap();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let error = server.says_to(&hello).await;
    assert!(matches!(error, TlsError::TimedOut), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_is_told_as_closed() {
    let server = server();
    let (near, far) = tokio::io::duplex(1024);
    drop(near);
    let (link, http) = (
        link_acceptor_config(&server.identity),
        http_acceptor_config(&server.identity),
    );
    let result = accept_by_alpn(far, link, http, LONG).await;
    assert!(matches!(result, Err(TlsError::Closed)), "{result:?}");
}
