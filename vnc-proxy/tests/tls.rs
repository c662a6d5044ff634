//! The promise: the console talks to exactly the device that the server named, over TLS 1.3, whatever its certificate looks like.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lab::{ByteByByte, Identity, read, read_to_end, soon, tls_pair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncWriteExt, duplex};
use tokio::time::Instant;
use umbra_vnc_proxy::Fingerprint;
use umbra_vnc_proxy::console_end::{self, ConsoleError};
use umbra_vnc_proxy::device_end::{self, DeviceEndError};
use umbra_vnc_proxy::tls::{
    TlsError, console_client_config, device_server_config, device_server_config_with_tls12,
};

async fn handshake(
    shown: Arc<rustls::ServerConfig>,
    expected: Arc<rustls::ClientConfig>,
) -> Result<(), ConsoleError> {
    let (console, device) = duplex(4096);
    let (console, device) = tokio::join!(
        async {
            let mut stream = console_end::connect(console, expected, soon()).await?;
            stream.write_all(b"ping").await.expect("sent");
            stream.flush().await.expect("sent");
            assert_eq!(&read::<4>(&mut stream).await, b"pong");
            Ok(())
        },
        async {
            let mut stream = device_end::accept_tls(device, shown, soon()).await?;
            // A console that refuses the certificate says so after the device has finished its part.
            let mut ping = [0; 4];
            if tokio::io::AsyncReadExt::read_exact(&mut stream, &mut ping)
                .await
                .is_ok()
            {
                assert_eq!(&ping, b"ping");
                stream.write_all(b"pong").await.expect("sent");
                stream.flush().await.expect("sent");
            }
            Ok::<_, DeviceEndError>(())
        },
    );
    drop(device);
    console
}

#[tokio::test]
async fn the_exact_certificate_is_accepted_and_data_flows() {
    let identity = Identity::modern();
    handshake(identity.server_config(), identity.client_config())
        .await
        .expect("accepted");
}

#[tokio::test]
async fn a_version_1_certificate_without_name_or_extension_is_accepted() {
    let identity = Identity::plain();
    // The reason for a verifier of our own: the usual parser refuses such a certificate.
    let key = rustls::crypto::ring::sign::any_supported_type(&identity.key).expect("a key");
    assert!(
        CertifiedKey::new(vec![identity.certificate.clone()], key)
            .keys_match()
            .is_err()
    );
    handshake(identity.server_config(), identity.client_config())
        .await
        .expect("accepted");
}

#[tokio::test]
async fn another_certificate_is_refused_with_both_fingerprints() {
    let (expected, shown) = (Identity::modern(), Identity::modern());
    let refused = handshake(shown.server_config(), expected.client_config()).await;
    let Err(ConsoleError::AnotherCertificate(mismatch)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(mismatch.expected, Fingerprint::of(&expected.certificate));
    assert_eq!(mismatch.shown, Fingerprint::of(&shown.certificate));
    let sentence = ConsoleError::AnotherCertificate(mismatch).to_string();
    assert!(
        sentence.contains(&mismatch.shown.to_string())
            && sentence.contains(&mismatch.expected.to_string())
    );
}

#[tokio::test]
async fn the_right_certificate_without_its_key_is_refused() {
    for expected in [Identity::modern(), Identity::plain()] {
        let other = Identity::modern();
        let key = rustls::crypto::ring::sign::any_supported_type(&other.key).expect("a key");
        let stolen = CertifiedKey::new(vec![expected.certificate.clone()], key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let thief = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(stolen)));
        let refused = handshake(Arc::new(thief), expected.client_config()).await;
        assert!(
            matches!(refused, Err(ConsoleError::Handshake(_))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_device_cannot_vouch_for_another_certificate() {
    let device_key = rcgen::KeyPair::generate().expect("a key");
    let device_params = rcgen::CertificateParams::new(vec!["device".to_owned()]).expect("a name");
    let device = device_params
        .self_signed(&device_key)
        .expect("a certificate");
    let issuer = rcgen::Issuer::from_params(&device_params, &device_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["device".to_owned()]).expect("a name");
    let vouched = params.signed_by(&key, &issuer).expect("a certificate");
    let chain = vec![vouched.der().clone(), device.der().clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let shown = device_server_config(chain, key).expect("a usable identity");
    let expected = console_client_config(device.der().clone()).expect("a usable certificate");
    let refused = handshake(shown, expected).await;
    assert!(
        matches!(refused, Err(ConsoleError::AnotherCertificate(_))),
        "{refused:?}"
    );
}

/// A stranger that trusts everybody and knows what ring knows of one version: what it agrees on with a device, bytes both ways included.
async fn stranger(
    shown: Arc<rustls::ServerConfig>,
    version: &'static rustls::SupportedProtocolVersion,
    suites: Option<Vec<rustls::SupportedCipherSuite>>,
) -> io::Result<rustls::CipherSuite> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = suites.unwrap_or(provider.cipher_suites);
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let (console, device) = duplex(4096);
    tokio::spawn(async move {
        let mut stream = device_end::accept_tls(device, shown, soon()).await?;
        let ping = read::<4>(&mut stream).await;
        // More than one record has room for.
        stream.write_all(&ping.repeat(20_000)).await.expect("sent");
        stream.flush().await.expect("sent");
        Ok::<_, DeviceEndError>(())
    });
    let name = rustls::pki_types::ServerName::try_from("device").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, console).await?;
    stream.write_all(b"ping").await?;
    stream.flush().await?;
    let mut echoed = vec![0; 80_000];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut echoed).await?;
    assert!(echoed.chunks(4).all(|four| four == b"ping"));
    let (_, tls) = stream.get_ref();
    assert_eq!(tls.protocol_version(), Some(version.version));
    Ok(tls.negotiated_cipher_suite().expect("a suite").suite())
}

#[tokio::test]
async fn tls_1_2_is_spoken_by_a_device_that_is_told_to_and_by_no_other() {
    let identity = Identity::plain();
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    let refused = stranger(identity.server_config(), tls12, None).await;
    assert!(refused.is_err(), "{refused:?}");
    let told = device_server_config_with_tls12(
        vec![identity.certificate.clone()],
        identity.key.clone_key(),
    )
    .expect("a usable identity");
    assert!(
        told.require_ems,
        "a connection's secret must be its own (RFC 7627)"
    );
    // Whoever knows TLS 1.3 speaks that with it, and our consoles know nothing else.
    assert!(stranger(Arc::clone(&told), tls13, None).await.is_ok());
    handshake(Arc::clone(&told), identity.client_config())
        .await
        .expect("accepted");

    let mut spoken = Vec::new();
    for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
        if suite.tls13().is_none()
            && let Ok(agreed) = stranger(Arc::clone(&told), tls12, Some(vec![*suite])).await
        {
            spoken.push(agreed);
        }
    }
    assert_eq!(
        spoken,
        [
            rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ]
    );
}

/// Takes every certificate for the right one.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn unusable_material_is_refused_before_anybody_connects() {
    let (one, other) = (Identity::modern(), Identity::modern());
    let mixed = device_server_config(vec![one.certificate.clone()], other.key.clone_key());
    assert!(matches!(mixed, Err(TlsError::KeyMismatch)), "{mixed:?}");
    let none = device_server_config(Vec::new(), one.key.clone_key());
    assert!(matches!(none, Err(TlsError::NoCertificate)));
    let nonsense = console_client_config(b"nonsense".to_vec().into());
    assert!(matches!(nonsense, Err(TlsError::BadCertificate)));
}

#[tokio::test]
async fn the_handshake_succeeds_byte_by_byte() {
    let identity = Identity::modern();
    let (console, device) = duplex(4096);
    let (console, device) = tokio::join!(
        console_end::connect(ByteByByte(console), identity.client_config(), soon()),
        device_end::accept_tls(ByteByByte(device), identity.server_config(), soon()),
    );
    console.expect("the console's handshake");
    device.expect("the device's handshake");
}

#[tokio::test]
async fn no_session_can_be_resumed() {
    let (mut console, mut device) = tls_pair().await;
    device.write_all(b"x").await.expect("sent");
    device.flush().await.expect("sent");
    read::<1>(&mut console).await;
    assert_eq!(console.get_ref().1.tls13_tickets_received(), 0);
    assert_eq!(
        console.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_dawdles_in_the_handshake_is_disconnected() {
    let (mut console, device) = duplex(4096);
    console
        .write_all(&[0x16, 3, 1, 2, 0, 1])
        .await
        .expect("half a hello");
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused =
        device_end::accept_tls(device, Identity::modern().server_config(), deadline).await;
    assert!(matches!(refused, Err(DeviceEndError::HandshakeTimedOut)));
    assert!(Instant::now().duration_since(deadline) < Duration::from_secs(1));
}

#[tokio::test]
async fn a_caller_that_speaks_no_tls_gets_no_byte_of_rfb() {
    for said in [
        &b"RFB 003.008\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16; 600],
    ] {
        let (mut caller, device) = duplex(4096);
        caller.write_all(said).await.expect("sent");
        let refused =
            device_end::accept_tls(device, Identity::modern().server_config(), soon()).await;
        assert!(
            matches!(refused, Err(DeviceEndError::Handshake(_))),
            "{said:?}"
        );
        let heard = read_to_end(&mut caller).await.expect("closed");
        assert!(!heard.windows(3).any(|part| part == b"RFB"));
        assert!(heard.len() <= 7, "an alert at most");
    }
}

/// The field's certificates have RSA keys of 4096 bits, which only the openssl program makes here.
#[tokio::test]
async fn an_rsa_certificate_of_the_field_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |args: &str| {
        let status = std::process::Command::new("openssl")
            .args(args.split(' '))
            .current_dir(folder.path())
            .output();
        assert!(status.expect("openssl runs").status.success(), "{args}");
    };
    run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -outform DER -out key.der");
    run("req -new -key key.der -subj /C=DE/L=Bremen/O=IGEL -sha512 -out request.pem");
    run(
        "x509 -req -in request.pem -signkey key.der -sha512 -days 8000 -outform DER -out certificate.der",
    );
    let file = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let key: PrivateKeyDer<'static> =
        rustls::pki_types::PrivatePkcs1KeyDer::from(file("key.der")).into();
    let identity = Identity {
        certificate: file("certificate.der").into(),
        key: key.clone_key(),
    };
    // A device of the field is no program of ours: it signs with what ours don't have.
    let signing = rustls::crypto::ring::sign::any_supported_type(&key).expect("a usable key");
    let certified = CertifiedKey::new(vec![identity.certificate.clone()], signing);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let device = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a protocol version")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    handshake(Arc::new(device), identity.client_config())
        .await
        .expect("accepted");
}
