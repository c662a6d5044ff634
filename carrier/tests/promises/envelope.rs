//! The two layers of TLS around a gateway: the envelope with its further roots, and the uplink with its exact
//! certificates.

use std::sync::Arc;

use rcgen::IsCa;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::client::TlsStream;
use umbra_carrier::alpn;
use umbra_carrier::tls::{
    Accepted, DatePolicy, EnvelopeTrust, HostKind, ServerTrust, SwappableIdentity, TlsError,
    TlsIdentity, TrustError, accept_by_alpn, accept_tls, accept_uplink, certificates_from_pem,
    connect_tls, device_config, envelope_acceptor_config, envelope_config, http_acceptor_config,
    link_acceptor_config, probe_kind, uplink_acceptor_config, uplink_config,
};

use crate::pki::*;

async fn open(
    trust: EnvelopeTrust,
    server: &Arc<SwappableIdentity>,
) -> Result<TlsStream<DuplexStream>, TlsError> {
    let config = envelope_config(trust, DatePolicy::Enforce).unwrap();
    let (near, far) = duplex(16 * 1024);
    let (client, _) = tokio::join!(
        connect_tls(near, config, "gateway.test", LONG),
        accept_tls(far, envelope_acceptor_config(Arc::clone(server)), LONG)
    );
    client
}

fn gateway(root: &Authority) -> Arc<SwappableIdentity> {
    SwappableIdentity::new(&root.server(&["gateway.test"]).identity(&[&root.der]))
}

#[tokio::test]
async fn the_envelope_takes_the_pinned_a_further_and_a_public_root_and_no_other() {
    let [own, inspecting, public, stranger] =
        ["own", "inspecting", "public", "stranger"].map(Authority::root);
    let trust = || EnvelopeTrust {
        pinned: own.trust(),
        extra: vec![inspecting.der.clone()],
        bundle: vec![public.der.clone()],
        public: None,
    };
    for root in [&own, &inspecting, &public] {
        let stream = open(trust(), &gateway(root)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn::HTTP));
    }
    open(trust(), &gateway(&stranger))
        .await
        .expect_err("nobody's root");
    let only = || EnvelopeTrust::pinned(own.pinned());
    open(only(), &gateway(&own)).await.unwrap();
    let error = open(only(), &gateway(&public))
        .await
        .expect_err("not pinned");
    assert!(matches!(error, TlsError::UnknownRoot), "{error:?}");
}

#[tokio::test]
async fn a_chain_from_a_further_root_is_judged_in_full_and_told_in_its_own_terms() {
    let (own, inspecting) = (Authority::root("own"), Authority::root("inspecting"));
    let trust = || EnvelopeTrust {
        pinned: own.pinned(),
        extra: vec![inspecting.der.clone()],
        bundle: Vec::new(),
        public: None,
    };
    let elsewhere = inspecting.server(&["elsewhere.test"]).identity(&[]);
    let error = open(trust(), &SwappableIdentity::new(&elsewhere))
        .await
        .expect_err("another name");
    assert!(matches!(error, TlsError::WrongName { .. }), "{error:?}");
    let elsewhere = own.server(&["elsewhere.test"]).identity(&[]);
    let error = open(trust(), &SwappableIdentity::new(&elsewhere))
        .await
        .expect_err("another name");
    assert!(matches!(error, TlsError::WrongName { .. }), "{error:?}");
    let mut params = server_params(&["gateway.test"]);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let old = SwappableIdentity::new(&inspecting.sign(&params).identity(&[]));
    let error = open(trust(), &old).await.expect_err("expired");
    assert!(matches!(error, TlsError::Expired { .. }), "{error:?}");
    let config = envelope_config(trust(), DatePolicy::Ignore).unwrap();
    let (near, far) = duplex(16 * 1024);
    let (client, _) = tokio::join!(
        connect_tls(near, config, "gateway.test", LONG),
        accept_tls(far, envelope_acceptor_config(old), LONG)
    );
    client.unwrap();
}

#[tokio::test]
async fn a_further_root_has_to_be_one_and_a_bundle_may_hold_anything() {
    let own = Authority::root("own");
    let leaf = own.server(&["gateway.test"]);
    let damaged = Der::from(vec![1, 2, 3]);
    let extra = |der: &Der| EnvelopeTrust {
        extra: vec![der.clone()],
        ..EnvelopeTrust::pinned(own.pinned())
    };
    let error = envelope_config(extra(&leaf.der), DatePolicy::Enforce).expect_err("no CA");
    assert!(matches!(error, TrustError::NotCa { .. }), "{error:?}");
    envelope_config(extra(&damaged), DatePolicy::Enforce).expect_err("no certificate");
    let trust = EnvelopeTrust {
        bundle: vec![damaged, leaf.der.clone()],
        ..EnvelopeTrust::pinned(own.pinned())
    };
    open(trust, &gateway(&own)).await.unwrap();
    // Not even what it holds of the bundle's useless certificates makes it trusted.
    let stranger = Authority::root("stranger");
    let cert = stranger.server(&["gateway.test"]);
    let trust = EnvelopeTrust {
        bundle: vec![cert.der.clone()],
        ..EnvelopeTrust::pinned(own.pinned())
    };
    let identity = SwappableIdentity::new(&cert.identity(&[]));
    open(trust, &identity).await.expect_err("no root");
}

#[tokio::test]
async fn an_identity_is_exchanged_while_connections_stand() {
    let (first, second) = (Authority::root("first"), Authority::root("second"));
    let identity = gateway(&first);
    let trust = |root: &Authority| EnvelopeTrust::pinned(root.pinned());
    let (near, far) = duplex(16 * 1024);
    let config = envelope_config(trust(&first), DatePolicy::Enforce).unwrap();
    let (client, server) = tokio::join!(
        connect_tls(near, config, "gateway.test", LONG),
        accept_tls(far, envelope_acceptor_config(Arc::clone(&identity)), LONG)
    );
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let next = second.server(&["gateway.test"]).identity(&[]);
    identity.swap(&next);
    assert_eq!(identity.chain(), next.chain());
    assert!(!format!("{identity:?}").contains("PrivateKey"));
    open(trust(&second), &identity).await.unwrap();
    open(trust(&first), &identity)
        .await
        .expect_err("the old one is gone");
    client.write_all(b"still here").await.unwrap();
    client.flush().await.unwrap();
    let mut read = [0; 10];
    server.read_exact(&mut read).await.unwrap();
}

fn uplink() -> Leaf {
    let mut params = named("umbra uplink");
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    self_signed(&params)
}

struct Gateway {
    root: Authority,
    identity: TlsIdentity,
}

impl Gateway {
    fn new() -> Self {
        let root = Authority::root("root");
        let identity = root.server(&["gateway.test"]).identity(&[&root.der]);
        Self { root, identity }
    }

    /// Both ends' views; the server's only after the gateway's word has reached it.
    async fn link(
        &self,
        shown: &TlsIdentity,
        known: &[&Leaf],
    ) -> (Result<Der, TlsError>, Option<TlsError>) {
        let config = uplink_config(shown, self.root.trust(), DatePolicy::Enforce).unwrap();
        let known = known.iter().map(|leaf| leaf.der.clone()).collect();
        let acceptor = uplink_acceptor_config(&self.identity, known);
        let (near, far) = duplex(16 * 1024);
        let (server, gateway) = tokio::join!(
            connect_tls(near, config, "gateway.test", LONG),
            accept_uplink(far, acceptor, LONG)
        );
        let mut server = server.unwrap();
        match gateway {
            Ok((mut stream, certificate)) => {
                server.write_all(b"x").await.unwrap();
                server.flush().await.unwrap();
                stream.read_u8().await.unwrap();
                (Ok(certificate), None)
            }
            Err(error) => {
                let heard = server.read_u8().await.expect_err("refused");
                (Err(error), Some(TlsError::of_stream(&heard)))
            }
        }
    }
}

#[tokio::test]
async fn an_uplink_shows_exactly_one_of_the_known_certificates_and_the_gateway_learns_which() {
    let gateway = Gateway::new();
    let [first, second, stranger] = [uplink(), uplink(), uplink()];
    for known in [&first, &second] {
        let (taken, _) = gateway.link(&known.identity(&[]), &[&first, &second]).await;
        assert_eq!(taken.unwrap(), known.der);
    }
    for known in [&[&first, &second][..], &[]] {
        let (refused, heard) = gateway.link(&stranger.identity(&[]), known).await;
        let error = refused.expect_err("a stranger");
        assert!(matches!(error, TlsError::NotKnown), "{error:?}");
        assert!(
            matches!(heard, Some(TlsError::PeerRefusedOurCertificate)),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn a_known_certificate_vouches_for_nobody_and_is_worth_nothing_without_its_key() {
    let gateway = Gateway::new();
    // Even a known certificate that is a CA has no children here.
    let parent = Authority::root("umbra uplink");
    let mut params = named("child");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let child = parent.sign(&params);
    let known = Leaf {
        der: parent.der.clone(),
        key: rcgen::KeyPair::generate().unwrap(),
    };
    let (refused, _) = gateway
        .link(&child.identity(&[&parent.der]), &[&known])
        .await;
    assert!(matches!(refused, Err(TlsError::NotKnown)), "{refused:?}");

    let (known, thief) = (uplink(), uplink());
    let stolen = rustls::sign::CertifiedKey::new(
        vec![known.der.clone()],
        rustls::crypto::ring::sign::any_supported_type(&thief.key_der()).unwrap(),
    );
    let mut config = rustls::ClientConfig::builder_with_provider(umbra_carrier::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates({
            let mut roots = rustls::RootCertStore::empty();
            roots.add(gateway.root.der.clone()).unwrap();
            roots
        })
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
    config.alpn_protocols = vec![alpn::UPLINK.to_vec()];
    let acceptor = uplink_acceptor_config(&gateway.identity, vec![known.der.clone()]);
    let (near, far) = duplex(16 * 1024);
    let (_server, accepted) = tokio::join!(
        connect_tls(near, Arc::new(config), "gateway.test", LONG),
        accept_uplink(far, acceptor, LONG)
    );
    let error = accepted.expect_err("stolen");
    assert!(matches!(error, TlsError::KeyNotProven), "{error:?}");
}

#[tokio::test]
async fn an_uplink_is_asked_for_by_its_own_protocol() {
    let gateway = Gateway::new();
    let known = uplink();
    let identity = known.identity(&[]);
    // A client without ALPN, and one with another.
    for (alpn, fine) in [
        (&b""[..], false),
        (alpn::CONTROL_LINK, false),
        (alpn::UPLINK, true),
    ] {
        let mut config = device_config(
            Some(&identity),
            gateway.root.trust(),
            DatePolicy::Enforce,
            alpn,
        )
        .unwrap();
        if alpn.is_empty() {
            Arc::get_mut(&mut config).unwrap().alpn_protocols.clear();
        }
        let acceptor = uplink_acceptor_config(&gateway.identity, vec![known.der.clone()]);
        let (near, far) = duplex(16 * 1024);
        let (_server, accepted) = tokio::join!(
            connect_tls(near, config, "gateway.test", LONG),
            accept_uplink(far, acceptor, LONG)
        );
        assert_eq!(accepted.is_ok(), fine, "{accepted:?}");
        if !fine {
            assert!(
                matches!(accepted, Err(TlsError::WrongService)),
                "{accepted:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_envelope_is_never_shown_a_certificate() {
    let gateway = Gateway::new();
    let identity = SwappableIdentity::new(&gateway.identity);
    let config = envelope_config(
        EnvelopeTrust::pinned(gateway.root.trust()),
        DatePolicy::Enforce,
    )
    .unwrap();
    // This one asks for a certificate, as the envelope's acceptor never does.
    let acceptor = link_acceptor_config(&gateway.identity);
    let mut acceptor = Arc::unwrap_or_clone(acceptor);
    acceptor.alpn_protocols = vec![alpn::HTTP.to_vec()];
    let (near, far) = duplex(16 * 1024);
    let (_client, server) = tokio::join!(
        connect_tls(near, Arc::clone(&config), "gateway.test", LONG),
        accept_tls(far, Arc::new(acceptor), LONG)
    );
    assert!(matches!(server, Err(TlsError::NoCertificate)), "{server:?}");
    let (near, far) = duplex(16 * 1024);
    let (client, server) = tokio::join!(
        connect_tls(near, config, "gateway.test", LONG),
        accept_tls(far, envelope_acceptor_config(identity), LONG)
    );
    client.unwrap();
    assert!(server.unwrap().peer_certificates().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_acceptor_gives_up_at_its_deadline() {
    let gateway = Gateway::new();
    let (_silent, far) = duplex(1024);
    let error = accept_tls(
        far,
        envelope_acceptor_config(SwappableIdentity::new(&gateway.identity)),
        LONG,
    )
    .await;
    assert!(matches!(error, Err(TlsError::TimedOut)), "{error:?}");
    let (_silent, far) = duplex(1024);
    let error = accept_uplink(
        far,
        uplink_acceptor_config(&gateway.identity, Vec::new()),
        LONG,
    )
    .await;
    assert!(matches!(error, Err(TlsError::TimedOut)), "{error:?}");
}

#[tokio::test]
async fn a_server_and_a_gateway_are_told_apart_without_a_certificate_of_ours() {
    let Gateway { root, identity } = Gateway::new();
    let (near, far) = duplex(16 * 1024);
    let (link, http) = (
        link_acceptor_config(&identity),
        http_acceptor_config(&identity),
    );
    let (probed, accepted) = tokio::join!(
        probe_kind(near, "gateway.test", LONG),
        accept_by_alpn(far, link, http, LONG)
    );
    let (kind, chain) = probed.unwrap();
    assert_eq!((kind, chain.len()), (HostKind::Link, 2));
    assert_eq!(chain[1], root.der);
    assert!(!matches!(accepted, Ok(Accepted::Link(..))), "{accepted:?}");

    let (near, far) = duplex(16 * 1024);
    let acceptor = envelope_acceptor_config(SwappableIdentity::new(&identity));
    let (probed, accepted) = tokio::join!(
        // Whoever it is: the name isn't its own.
        probe_kind(near, "other.test", LONG),
        accept_tls(far, acceptor, LONG)
    );
    let (kind, chain) = probed.unwrap();
    assert_eq!((kind, chain.len()), (HostKind::Http, 2));
    let mut read = Vec::new();
    accepted.unwrap().read_to_end(&mut read).await.unwrap();
    assert!(read.is_empty());

    let (near, far) = duplex(16 * 1024);
    let acceptor = uplink_acceptor_config(&identity, Vec::new());
    let (probed, _) = tokio::join!(
        probe_kind(near, "gateway.test", LONG),
        accept_tls(far, acceptor, LONG)
    );
    assert!(matches!(probed, Err(TlsError::WrongService)), "{probed:?}");
}

#[test]
fn certificates_are_read_from_pem_in_their_order() {
    let (first, second) = (Authority::root("first"), Authority::root("second"));
    let pem = |authority: &Authority| authority.params.self_signed(&authority.key).unwrap().pem();
    let read = certificates_from_pem(&format!("# two\n{}\n{}", pem(&first), pem(&second))).unwrap();
    assert_eq!(read.len(), 2);
    let trust = ServerTrust::PinnedRoots(read);
    envelope_config(EnvelopeTrust::pinned(trust), DatePolicy::Enforce).unwrap();
    certificates_from_pem("nothing").expect_err("no certificate");
    certificates_from_pem(&first.key.serialize_pem()).expect_err("a key");
}
