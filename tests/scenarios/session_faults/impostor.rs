//! Somebody else at a device's address, with a certificate of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{
    Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World, desktop,
};

use super::{failed_shadow, healthy, refused_record, untouched};

/// The console's exit code for somebody who is not who they should be, as its help states it.
const NOT_TRUSTED: i32 = 5;

/// Serves as many connections as come until it is given up.
struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Relays connections, dialling from another address of this machine.
fn relay(listener: TcpListener, to: SocketAddr, from: [u8; 4]) -> Serving {
    Serving(tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::from((from, 0)))?;
                let mut server: TcpStream = socket.connect(to).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    }))
}

/// A TLS server with a certificate of its own; counts who came and what was said to it.
struct Impostor {
    callers: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
    _serving: Serving,
}

impl Impostor {
    async fn start(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
        let key = made.signing_key.serialize_der();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key).into(),
        )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await?;
        let (callers, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (came, said) = (Arc::clone(&callers), Arc::clone(&heard));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                let (acceptor, said) = (acceptor.clone(), Arc::clone(&said));
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(stream).await?;
                    let mut chunk = [0; 1024];
                    loop {
                        let count = tls.read(&mut chunk).await?;
                        if count == 0 {
                            return Ok::<_, std::io::Error>(());
                        }
                        said.fetch_add(count, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(Self {
            callers,
            heard,
            _serving: Serving(serving),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_at_a_devices_address_with_another_certificate_is_told_nothing() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        let front = TcpListener::bind("127.0.0.1:0").await?;
        let config = ServerConfig {
            public: Some(front.local_addr()?),
            ..ServerConfig::default()
        };
        let server = Server::start(scratch, config).await?;
        // The server sees the device at an address at which somebody else answers.
        let elsewhere = [127, 0, 0, 2];
        let _front = relay(front, server.address(), elsewhere);
        let console = Console::administrator(scratch, &server).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let real = device.shadow_address().await?;
        let world = World {
            desktop: screen,
            server,
            device,
            console,
        };
        let address = SocketAddr::from((elsewhere, real.port()));
        let impostor = Impostor::start(address, &world.device_name().await?).await?;
        let failed = failed_shadow(&world).await?;
        failed.ensure("another_certificate", "another certificate")?;
        ensure!(
            failed.exit == Some(NOT_TRUSTED),
            "exit code {:?}",
            failed.exit
        );
        let status = world.device.status().await?;
        let filed = status
            .pointer("/identity/certificate")
            .and_then(Value::as_str)
            .context("no certificate")?
            .replace('-', "")
            .to_lowercase();
        let detail = failed.detail.replace('-', "").to_lowercase();
        ensure!(detail.contains(&filed), "{filed} is not in {detail}");
        let fingerprints = detail
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .count();
        ensure!(fingerprints == 2, "not two fingerprints: {}", failed.detail);
        ensure!(
            impostor.callers.load(Ordering::SeqCst) > 0,
            "nobody came to the impostor"
        );
        ensure!(
            impostor.heard.load(Ordering::SeqCst) == 0,
            "the impostor was told something"
        );
        untouched(&world)?;
        // The offer is withdrawn, since nobody may use it any more.
        refused_record(&world.console, "session_withdrawn").await?;
        drop(impostor);
        // The device has its address back.
        let back = eventually("the address to be free", PATIENCE, || {
            TcpListener::bind(address)
        })
        .await?;
        let _back = relay(back, real, [127, 0, 0, 1]);
        healthy(&world).await
    })
    .await;
}
