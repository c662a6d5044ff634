//! Real handshakes between rustls and rustls, in memory: with both groups, with a peer that knows only curves, and with shares that are none.
//! The interoperation with OpenSSL is a scenario (`posture`).

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{
    PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SignatureVerificationAlgorithm,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, ServerConfig,
    ServerConnection,
};
use umbra_key_exchange::{X25519MLKEM768, hacl_provider, provider, ring_provider};

struct Ends {
    client: ClientConnection,
    server: ServerConnection,
}

impl Ends {
    fn new(client: CryptoProvider, server: CryptoProvider) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["device.test".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let server = ServerConfig::builder_with_provider(server.into())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))?;
        let client = ClientConfig::builder_with_provider(client.into())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            client: ClientConnection::new(
                Arc::new(client),
                ServerName::try_from("device.test")?.to_owned(),
            )?,
            server: ServerConnection::new(Arc::new(server))?,
        })
    }

    /// Passes messages until both are through; gives how many bytes each has sent.
    fn shake(&mut self) -> anyhow::Result<(usize, usize)> {
        let (mut from_client, mut from_server) = (0, 0);
        for _ in 0..10 {
            if !self.client.is_handshaking() && !self.server.is_handshaking() {
                return Ok((from_client, from_server));
            }
            let mut wire = Vec::new();
            while self.client.wants_write() {
                from_client += self.client.write_tls(&mut wire)?;
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                self.server.read_tls(&mut rest)?;
                self.server.process_new_packets()?;
            }
            wire.clear();
            while self.server.wants_write() {
                from_server += self.server.write_tls(&mut wire)?;
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                self.client.read_tls(&mut rest)?;
                self.client.process_new_packets()?;
            }
        }
        anyhow::bail!("the handshake does not end")
    }

    fn group(&self) -> Option<NamedGroup> {
        let (client, server) = (
            self.client.negotiated_key_exchange_group()?.name(),
            self.server.negotiated_key_exchange_group()?.name(),
        );
        (client == server).then_some(client)
    }
}

#[test]
fn two_programs_of_ours_agree_with_both_halves_at_once() -> anyhow::Result<()> {
    let mut ends = Ends::new(provider(), provider())?;
    let (from_client, from_server) = ends.shake()?;
    ensure!(ends.group() == Some(NamedGroup::X25519MLKEM768));
    ensure!(ends.client.handshake_kind() == Some(HandshakeKind::Full));
    let secret = |label: &[u8]| -> anyhow::Result<[[u8; 32]; 2]> {
        Ok([
            ends.client.export_keying_material([0; 32], label, None)?,
            ends.server.export_keying_material([0; 32], label, None)?,
        ])
    };
    let [client, server] = secret(b"one")?;
    ensure!(client == server && client != secret(b"other")?[0]);
    ensure!(
        from_client > 1_216 && from_server > 1_120,
        "{from_client} and {from_server} bytes hold no such shares"
    );
    Ok(())
}

#[test]
fn a_peer_that_knows_only_curves_costs_no_round_trip() -> anyhow::Result<()> {
    for (client, server) in [
        (provider(), default_provider()),
        (default_provider(), provider()),
    ] {
        let mut ends = Ends::new(client, server)?;
        ends.shake()?;
        ensure!(ends.group() == Some(NamedGroup::X25519));
        ensure!(ends.client.handshake_kind() == Some(HandshakeKind::Full));
    }
    Ok(())
}

#[test]
fn no_two_handshakes_share_anything() -> anyhow::Result<()> {
    let [one, other] = [X25519MLKEM768.start()?, X25519MLKEM768.start()?];
    let halves = |share: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let (lattice, curve) = share.split_at_checked(1_184)?;
        Some((lattice.to_vec(), curve.to_vec()))
    };
    let one = halves(one.pub_key()).context("too short")?;
    let other = halves(other.pub_key()).context("too short")?;
    ensure!(one.0 != other.0 && one.1 != other.1 && one.1.len() == 32);
    let answers = [
        X25519MLKEM768.start_and_complete(&[&one.0[..], &one.1].concat())?,
        X25519MLKEM768.start_and_complete(&[&one.0[..], &one.1].concat())?,
    ];
    ensure!(answers[0].pub_key[..1_088] != answers[1].pub_key[..1_088]);
    ensure!(answers[0].pub_key[1_088..] != answers[1].pub_key[1_088..]);
    ensure!(answers[0].secret.secret_bytes() != answers[1].secret.secret_bytes());
    ensure!(answers[0].secret.secret_bytes().len() == 64);
    Ok(())
}

/// Whatever stands in a share, an answer is an error or a secret, never a panic; and no answer is given to a share that is none.
#[test]
fn shares_of_another_length_and_keys_that_are_none_are_refused() -> anyhow::Result<()> {
    let started = X25519MLKEM768.start()?;
    let good = started.pub_key().to_vec();
    ensure!(X25519MLKEM768.start_and_complete(&good).is_ok());
    for length in [0, 1, 31, 32, 1_183, 1_184, 1_215, 1_217, 5_000] {
        let mut share = good.clone();
        share.resize(length, 7);
        ensure!(
            X25519MLKEM768.start_and_complete(&share).is_err(),
            "{length} bytes"
        );
    }
    // Coefficients that aren't below the modulus: FIPS 203, section 7.2, has them refused.
    let mut share = good.clone();
    share[..1_152].fill(0xff);
    ensure!(X25519MLKEM768.start_and_complete(&share).is_err());
    // A point of small order: the curve's half would be known to everybody.
    let mut share = good;
    share[1_184..].fill(0);
    ensure!(X25519MLKEM768.start_and_complete(&share).is_err());
    for length in [0, 32, 1_088, 1_119, 1_121] {
        ensure!(
            X25519MLKEM768.start()?.complete(&vec![7; length]).is_err(),
            "{length} bytes"
        );
    }
    Ok(())
}

/// Implicit rejection: an altered answer gives another secret, so that the handshake's next message can't be read.
#[test]
fn an_altered_answer_gives_a_secret_that_nobody_has() -> anyhow::Result<()> {
    for place in [0, 1_087, 1_088, 1_119] {
        let client = X25519MLKEM768.start()?;
        let answer = X25519MLKEM768.start_and_complete(client.pub_key())?;
        let mut share = answer.pub_key.clone();
        share[place] ^= 1;
        let secret = client.complete(&share)?;
        ensure!(
            secret.secret_bytes() != answer.secret.secret_bytes(),
            "byte {place}"
        );
    }
    Ok(())
}

#[test]
fn the_curve_of_devices_and_that_of_everybody_else_are_the_same() -> anyhow::Result<()> {
    let makers = [hacl_provider, ring_provider];
    for (client, server) in [(0, 1), (1, 0), (0, 0)] {
        let [client, server] = [client, server].map(|maker: usize| {
            let mut provider = makers[maker]();
            // Agreed on with P-256 alone, and signed with it: certificate and handshake.
            let wanted = NamedGroup::secp256r1;
            provider.kx_groups.retain(|group| group.name() == wanted);
            provider
        });
        let mut ends = Ends::new(client, server)?;
        ends.shake()?;
        ensure!(ends.group() == Some(NamedGroup::secp256r1));
    }
    Ok(())
}

#[test]
fn a_device_verifies_what_everybody_else_verifies() {
    let [ours, rings] = [hacl_provider(), ring_provider()].map(|provider| {
        let known = provider.signature_verification_algorithms;
        let of = |algorithms: &[&dyn SignatureVerificationAlgorithm]| -> Vec<String> {
            let names = algorithms.iter().map(|algorithm| {
                let (key, signature) =
                    (algorithm.public_key_alg_id(), algorithm.signature_alg_id());
                format!("{key:?} {signature:?}")
            });
            names.collect()
        };
        let schemes: Vec<_> = known
            .mapping
            .iter()
            .map(|(scheme, algorithms)| (*scheme, of(algorithms)))
            .collect();
        (of(known.all), schemes)
    });
    assert_eq!(ours, rings);
}
