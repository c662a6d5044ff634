//! Devices that send as much as they can over their links through the gateway: one that hears the answers, one that does not,
//! and strangers who never say who they are. They share an uplink with a device that does its work, which goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, split};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use umbra_tests::eventually::eventually_is;
use umbra_tests::scratch::scenario;
use umbra_tests::websocket::{WebSocketError, connect};
use umbra_tests::world::{Device, DeviceConfig, PATIENCE};

use super::metrics::Metrics;
use super::site::Site;

/// How much has to pass before it counts as a flood.
const FLOOD: u64 = 4 << 20;
/// What one who hears nothing may be heard: until all buffers on the way back are full of short answers, and no more.
const UNHEARD: u64 = 32 << 20;
/// How often the other one passes a quarter of a flood until a deaf one is at its end.
const ROUNDS: usize = 60;
/// What server or gateway may grow by, in KiB.
const GROWTH: u64 = 48 * 1024;

/// A device that does as it likes.
struct Flooder {
    name: String,
    gateway: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Flooder {
    /// With the identity of a device that was taken on.
    async fn of(site: &Site<'_>, device: &mut Device<'_>, name: &str) -> anyhow::Result<Self> {
        let certificate = CertificateDer::from_pem_file(device.certificate())?;
        let key = PrivateKeyDer::from_pem_file(device.root().join("wfs/umbra/device.key"))?;
        device.kill();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(
            site.server.state().join("root.crt"),
        )?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        tls.alpn_protocols = vec![b"umbra/1".to_vec()];
        Ok(Self {
            name: name.to_owned(),
            gateway: site.gateway.external(),
            tls: Arc::new(tls),
        })
    }

    /// A link on which it was welcomed.
    async fn link(&self) -> anyhow::Result<TlsStream<DuplexStream>> {
        let stream = endpoint(self.gateway).await?;
        let host = ServerName::from(self.gateway.ip());
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(host, stream);
        let mut link = timeout(PATIENCE, connecting).await??;
        let facts = json!({
            "unit_id": self.name, "name": self.name, "os": "none", "agent_version": "0", "architecture": "none",
            "secure_mode": true,
        });
        let hello = json!({"type": "hello", "versions": [1], "intent": "link", "device": facts});
        link.write_all(&frame(&hello)?).await?;
        link.flush().await?;
        let welcome = timeout(PATIENCE, async {
            let mut body = vec![0; usize::try_from(link.read_u32().await?)?];
            link.read_exact(&mut body).await?;
            anyhow::Ok(serde_json::from_slice::<Value>(&body)?)
        });
        let welcome = welcome.await??;
        ensure!(welcome["type"].as_str() == Some("welcome"), "{welcome}");
        Ok(link)
    }
}

async fn endpoint(gateway: SocketAddr) -> Result<DuplexStream, WebSocketError> {
    connect(gateway, "/usg/endpoint", "umbra.link.1", &[], PATIENCE).await
}

fn frame(message: &Value) -> anyhow::Result<Vec<u8>> {
    let body = message.to_string();
    let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
    frame.extend(body.as_bytes());
    Ok(frame)
}

/// What a flood consists of: messages that the server answers, small and large, known and unknown.
fn batch() -> anyhow::Result<Vec<u8>> {
    let mut batch = Vec::new();
    for number in 0..50 {
        batch.extend(frame(&json!({"type": "ping", "number": number}))?);
        batch.extend(frame(&json!({"type": "teleport", "to": "x".repeat(500)}))?);
    }
    batch.extend(frame(
        &json!({"type": "teleport", "to": "x".repeat(200_000)}),
    )?);
    Ok(batch)
}

/// Nothing but what is answered with as many bytes: who does not hear the answers soon fills all buffers on the way back.
fn questions() -> anyhow::Result<Vec<u8>> {
    let mut questions = Vec::new();
    for number in 0..5_000 {
        questions.extend(frame(&json!({"type": "ping", "number": number}))?);
    }
    Ok(questions)
}

/// Sends until the other side has enough; counts what it was rid of.
async fn flood(link: TlsStream<DuplexStream>, hears: bool, sent: &AtomicU64) -> anyhow::Result<()> {
    let batch = if hears { batch()? } else { questions()? };
    let (mut from, mut to) = split(link);
    let hearing = async {
        if !hears {
            std::future::pending::<()>().await;
        }
        let mut answers = vec![0; 64 * 1024];
        while from.read(&mut answers).await.is_ok_and(|count| count > 0) {}
    };
    let sending = async {
        for piece in batch.chunks(8 * 1024).cycle() {
            if to.write_all(piece).await.is_err() {
                break;
            }
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = hearing => {}
        () = sending => {}
    }
    Ok(())
}

/// One that comes in time and again without ever saying who it is.
async fn stranger(gateway: SocketAddr) {
    let noise = vec![0x16; 64 * 1024];
    loop {
        // The gateway may refuse it by now.
        if let Ok(mut stream) = endpoint(gateway).await {
            while stream.write_all(&noise).await.is_ok() {}
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_strangers_that_flood_their_lines_delay_nobody_and_cost_a_bounded_amount() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (_device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let mut flooders = Vec::new();
        for number in [1, 2] {
            let config = DeviceConfig::with_desktop(&site.desktop);
            let mut device = site.new_device(number, config, None).await?;
            let at = site.gateway.external().to_string();
            let name = site.take_on_at(&device, &at).await?;
            flooders.push(Flooder::of(&site, &mut device, &name).await?);
        }
        let deaf = flooders.pop().context("two")?;
        let greedy = flooders.pop().context("two")?;
        let before = [
            site.server.program().resident_kib().context("gone")?,
            site.gateway.program().resident_kib().context("gone")?,
        ];

        let (heard, unheard) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let (count, link) = (Arc::clone(&heard), greedy.link().await?);
        // All on one link: as long as it takes the answers, a flooder is slowed down and not cut off.
        tasks.spawn(async move {
            let _over = flood(link, true, &count).await;
        });
        let (count, link) = (Arc::clone(&unheard), deaf.link().await?);
        tasks.spawn(async move {
            let _over = flood(link, false, &count).await;
        });
        for _ in 0..4 {
            tasks.spawn(stranger(site.gateway.external()));
        }
        let passed = |more: u64| {
            let start = heard.load(Ordering::Relaxed);
            let heard = Arc::clone(&heard);
            move || match heard.load(Ordering::Relaxed) {
                now if now >= start + more => Ok(()),
                now => Err(format!("{} bytes", now - start)),
            }
        };
        eventually_is("a flood", PATIENCE, passed(FLOOD)).await?;

        // In the middle of it a device does what it always does, and the flood has gone on all the while.
        let meanwhile = passed(FLOOD / 4);
        for _ in 0..3 {
            site.send_message(&name, "Hello.").await?;
        }
        site.see_and_operate(&name, "dry feet").await?;
        eventually_is("the flood to go on", PATIENCE, meanwhile).await?;

        // Who does not hear is soon not heard any more, while the other one still is.
        let mut stopped = false;
        for _ in 0..ROUNDS {
            let taken = unheard.load(Ordering::Relaxed);
            eventually_is("the flood to go on", PATIENCE, passed(FLOOD / 4)).await?;
            stopped = unheard.load(Ordering::Relaxed) == taken;
            if stopped {
                break;
            }
        }
        let unheard = unheard.load(Ordering::Relaxed);
        ensure!(
            stopped && unheard < UNHEARD,
            "{unheard} bytes were taken from a deaf one"
        );
        let after = [
            site.server.program().resident_kib().context("gone")?,
            site.gateway.program().resident_kib().context("gone")?,
        ];
        let grown: Vec<u64> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| after.saturating_sub(*before))
            .collect();
        ensure!(
            grown.iter().all(|grown| *grown < GROWTH),
            "server and gateway grew by {grown:?} KiB"
        );
        let metrics = Metrics::read(site.gateway.metrics()).await?;
        ensure!(
            metrics.get("umbra_gateway_devices_waiting") <= 4.0,
            "{metrics:?}"
        );
        // Nobody was mistaken for somebody else, and all is quiet afterwards.
        tasks.shutdown().await;
        site.send_message(&name, "Good night.").await
    })
    .await;
}
