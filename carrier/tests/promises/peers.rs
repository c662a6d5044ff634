//! What a client meets instead of its server: other services, silence, old protocols, thieves of certificates.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use umbra_carrier::alpn;
use umbra_carrier::tls::{
    Accepted, DatePolicy, TlsError, connect_tls, device_config, exporter, fetch_chain,
    http_acceptor_config, link_acceptor_config, presented_chain, provider,
};

use crate::pki::*;

/// A client's error when something that isn't our server reads the first message and answers `answer`.
async fn answered_with(answer: &[u8]) -> TlsError {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let root = Authority::root("root");
    let peer = async {
        let mut far = far;
        let mut first = [0; 64];
        far.read_exact(&mut first).await.unwrap();
        far.write_all(answer).await.unwrap();
        far
    };
    let (result, _far) = tokio::join!(
        connect_tls(near, http_client(root.trust()), "server.test", LONG),
        peer
    );
    result.expect_err("this is no TLS server of ours")
}

fn alert(description: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, description]
}

#[tokio::test(start_paused = true)]
async fn other_services_are_told_from_tls() {
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"RFB 003.008\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        &[0; 200],
    ];
    for answer in answers {
        let error = answered_with(answer).await;
        assert!(matches!(error, TlsError::NotTls), "{answer:?}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_tls_1_2_only_is_told_as_too_old() {
    let error = answered_with(&alert(70)).await;
    assert!(matches!(error, TlsError::ProtocolTooOld), "{error:?}");
    // A server hello of TLS 1.2 with TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256.
    let mut hello = vec![22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x2b, 0]);
    let error = answered_with(&hello).await;
    assert!(matches!(error, TlsError::ProtocolTooOld), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_alerts_of_servers_have_reasons_of_their_own() {
    let error = answered_with(&alert(40)).await;
    assert!(matches!(error, TlsError::NothingInCommon), "{error:?}");
    let error = answered_with(&alert(120)).await;
    assert!(matches!(error, TlsError::WrongService), "{error:?}");
    let error = answered_with(&alert(112)).await;
    assert!(
        matches!(error, TlsError::PeerRefused { alert: 112 }),
        "{error:?}"
    );
    let error = answered_with(&alert(49)).await;
    assert!(
        matches!(error, TlsError::PeerRefusedOurCertificate),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let (near, _far) = tokio::io::duplex(16 * 1024);
    let root = Authority::root("root");
    let begin = tokio::time::Instant::now();
    let result = connect_tls(near, http_client(root.trust()), "server.test", LONG).await;
    assert!(matches!(result, Err(TlsError::TimedOut)), "{result:?}");
    // Simulated time: exact.
    assert_eq!(begin.elapsed().as_secs(), LONG.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drips_bytes_doesn_t_move_the_deadline() {
    let (near, mut far) = tokio::io::duplex(16 * 1024);
    let root = Authority::root("root");
    let drip = tokio::spawn(async move {
        // A handshake record of 16,000 bytes, one byte per second.
        let bytes = [22, 3, 3, 0x3e, 0x80, 2]
            .into_iter()
            .chain(std::iter::repeat(0));
        for byte in bytes {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            if far.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let begin = tokio::time::Instant::now();
    let result = connect_tls(near, http_client(root.trust()), "server.test", LONG).await;
    assert!(matches!(result, Err(TlsError::TimedOut)), "{result:?}");
    assert_eq!(begin.elapsed().as_secs(), LONG.as_secs());
    drip.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_is_told_as_closed() {
    let (near, far) = tokio::io::duplex(16 * 1024);
    drop(far);
    let root = Authority::root("root");
    let result = connect_tls(near, http_client(root.trust()), "server.test", LONG).await;
    assert!(matches!(result, Err(TlsError::Closed)), "{result:?}");
}

fn server_presenting(chain: Vec<Der>, key: &Leaf) -> Arc<ServerConfig> {
    let key = provider()
        .key_provider
        .load_private_key(key.key_der())
        .unwrap();
    let certified = CertifiedKey::new(chain, key);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // Tickets would be written after a client that has only looked is gone.
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

#[tokio::test(start_paused = true)]
async fn a_stolen_certificate_without_its_key_is_refused() {
    let root = Authority::root("root");
    let (real, thief) = (root.server(&["server.test"]), root.server(&["server.test"]));
    let config = server_presenting(vec![real.der.clone(), root.der.clone()], &thief);
    let (client, _) = handshake_with(
        config.clone(),
        config.clone(),
        http_client(root.trust()),
        "server.test",
    )
    .await;
    assert!(matches!(client, Err(TlsError::KeyNotProven)), "{client:?}");
    // To look at a chain isn't enough to be fooled either.
    let (chain, _) = look(config).await;
    assert!(matches!(chain, Err(TlsError::KeyNotProven)), "{chain:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_certificate_is_told_as_unreadable() {
    let root = Authority::root("root");
    let leaf = root.server(&["server.test"]);
    let mut damaged = leaf.der.to_vec();
    damaged.truncate(damaged.len() - 10);
    let config = server_presenting(vec![damaged.into(), root.der.clone()], &leaf);
    let (client, _) = handshake_with(
        config.clone(),
        config,
        http_client(root.trust()),
        "server.test",
    )
    .await;
    assert!(
        matches!(client, Err(TlsError::CertificateUnreadable)),
        "{client:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tls_server_of_another_service_is_told_as_such() {
    let root = Authority::root("root");
    let leaf = root.server(&["server.test"]);
    let identity = leaf.identity(&[&root.der]);
    let device = device().identity(&[]);
    let client = || {
        device_config(
            Some(&device),
            root.trust(),
            DatePolicy::Enforce,
            alpn::CONTROL_LINK,
        )
        .unwrap()
    };
    // One that has ALPN for HTTP only, and one without any ALPN.
    let http = http_acceptor_config(&identity);
    let (result, _) = handshake_with(http.clone(), http, client(), "server.test").await;
    assert!(matches!(result, Err(TlsError::WrongService)), "{result:?}");
    let plain = server_presenting(vec![leaf.der.clone(), root.der.clone()], &leaf);
    let (result, _) = handshake_with(plain.clone(), plain.clone(), client(), "server.test").await;
    assert!(matches!(result, Err(TlsError::WrongService)), "{result:?}");
    // For HTTP, a server without ALPN is a usual one.
    let (result, _) = handshake_with(
        plain.clone(),
        plain,
        http_client(root.trust()),
        "server.test",
    )
    .await;
    assert!(result.is_ok(), "{result:?}");
}

async fn look(config: Arc<ServerConfig>) -> (Result<Vec<Der>, TlsError>, io::Result<Vec<u8>>) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let server = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(far).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        assert!(stream.get_ref().1.peer_certificates().is_none());
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await?;
        Ok(received)
    };
    tokio::join!(fetch_chain(near, "server.test", LONG), server)
}

#[tokio::test(start_paused = true)]
async fn looking_at_a_chain_takes_any_certificate_and_sends_nothing() {
    let root = Authority::root("root");
    let mut params = server_params(&["elsewhere.test"]);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let leaf = root.sign(&params);
    let stranger = Authority::root("stranger");
    let presented = vec![leaf.der.clone(), stranger.der.clone(), root.der.clone()];
    let (chain, received) = look(server_presenting(presented.clone(), &leaf)).await;
    assert_eq!(chain.expect("any chain may be looked at"), presented);
    // An orderly end, and not one byte before it.
    assert_eq!(received.expect("an orderly end"), b"");
}

#[tokio::test(start_paused = true)]
async fn looking_at_a_chain_ends_at_the_deadline() {
    let (near, _far) = tokio::io::duplex(16 * 1024);
    let result = fetch_chain(near, "server.test", LONG).await;
    assert!(matches!(result, Err(TlsError::TimedOut)), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_demands_a_certificate_gets_none_from_who_only_looks() {
    let root = Authority::root("root");
    let identity = root.server(&["server.test"]).identity(&[&root.der]);
    let mut config = Arc::unwrap_or_clone(link_acceptor_config(&identity));
    config.alpn_protocols.clear();
    let (chain, server) = look(Arc::new(config)).await;
    assert_eq!(chain.expect("the chain was presented").len(), 2);
    let error = TlsError::of_stream(&server.expect_err("no certificate came"));
    assert!(matches!(error, TlsError::NoCertificate), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn both_ends_compute_the_same_secret_and_another_connection_another_one() {
    let root = Authority::root("root");
    let identity = root.server(&["server.test"]).identity(&[&root.der]);
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let (client, server) = handshake(&identity, http_client(root.trust()), "server.test").await;
        let (Ok(client), Ok(Accepted::Http(server))) = (client, server) else {
            panic!("the handshake must work")
        };
        let (client, server) = (client.get_ref().1, server.get_ref().1);
        let secret = exporter(client, "EXPORTER-one").unwrap();
        assert_eq!(secret, exporter(server, "EXPORTER-one").unwrap());
        assert_ne!(secret, exporter(client, "EXPORTER-two").unwrap());
        assert_eq!(presented_chain(client), identity.chain());
        assert!(presented_chain(server).is_empty());
        secrets.push(secret);
    }
    assert_ne!(secrets[0], secrets[1]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_is_told_from_an_orderly_end() {
    let root = Authority::root("root");
    let identity = root.server(&["server.test"]).identity(&[&root.der]);
    let pair = || async {
        let (client, server) = handshake(&identity, http_client(root.trust()), "server.test").await;
        let (Ok(client), Ok(Accepted::Http(server))) = (client, server) else {
            panic!("the handshake must work")
        };
        (client, server)
    };
    let (client, server) = pair().await;
    let mut reader = umbra_carrier::framed::FrameReader::new(client);
    drop(server);
    let error = reader.next(100).await.expect_err("the farewell is missing");
    assert!(
        matches!(error, umbra_carrier::framed::FrameError::CutOff),
        "{error:?}"
    );
    let (client, server) = pair().await;
    let mut reader = umbra_carrier::framed::FrameReader::new(client);
    umbra_carrier::framed::FrameWriter::new(server)
        .close()
        .await
        .unwrap();
    assert_eq!(reader.next(100).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn bytes_changed_on_the_way_break_the_connection() {
    let root = Authority::root("root");
    let identity = root.server(&["server.test"]).identity(&[&root.der]);
    let (client, server) = handshake(&identity, http_client(root.trust()), "server.test").await;
    let (Ok(mut client), Ok(Accepted::Http(server))) = (client, server) else {
        panic!("the handshake must work")
    };
    let (mut wire, _): (DuplexStream, _) = server.into_inner();
    // An application record that nobody encrypted.
    wire.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
    wire.write_all(&[0; 20]).await.unwrap();
    let error = client
        .read(&mut [0; 10])
        .await
        .expect_err("nobody encrypted this");
    assert!(
        matches!(TlsError::of_stream(&error), TlsError::RulesBroken(_)),
        "{error:?}"
    );
}
