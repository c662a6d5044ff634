//! What a handshake costs with each key exchange: both ends in one process, each message passed as soon as it is there, and the time that the
//! processor spends at each end. `handshakes hybrid|device|x25519 COUNT` prints, tab-separated: bytes from client, bytes from server, and the client's
//! and the server's time for one handshake in µs. The benchmark starts it (`cargo xtask bench --only key-exchange`).

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::kx_group::X25519;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, SideData,
};
use umbra_key_exchange::{hacl_provider, ring_provider};

/// Handshakes that are not counted: whatever is made once is made in them.
const UNCOUNTED: usize = 20;

struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// What one handshake cost, or several.
#[derive(Default)]
struct Cost {
    from_client: usize,
    from_server: usize,
    at_client: Duration,
    at_server: Duration,
}

fn configs(provider: CryptoProvider) -> anyhow::Result<Configs> {
    let provider = Arc::new(provider);
    // ECDSA with P-256, as devices and servers have it.
    let made = rcgen::generate_simple_self_signed(["device.test".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    Ok(Configs {
        client: client.into(),
        server: server.into(),
    })
}

fn spent() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What an end has to say, onto the wire; how many bytes that were.
fn say<Side>(end: &mut ConnectionCommon<Side>, wire: &mut Vec<u8>) -> std::io::Result<usize> {
    wire.clear();
    let mut said = 0;
    while end.wants_write() {
        said += end.write_tls(wire)?;
    }
    Ok(said)
}

/// What is on the wire, to the other end.
fn hear<Side: SideData>(end: &mut ConnectionCommon<Side>, mut wire: &[u8]) -> anyhow::Result<()> {
    while !wire.is_empty() {
        end.read_tls(&mut wire)?;
        end.process_new_packets()?;
    }
    Ok(())
}

fn shake(configs: &Configs, cost: &mut Cost) -> anyhow::Result<()> {
    let name = ServerName::try_from("device.test")?;
    let mut now = spent()?;
    let mut client = ClientConnection::new(Arc::clone(&configs.client), name)?;
    let mut lap = |at: &mut Duration| {
        let before = std::mem::replace(&mut now, spent()?);
        *at += now.saturating_sub(before);
        Ok::<(), anyhow::Error>(())
    };
    lap(&mut cost.at_client)?;
    let mut server = ServerConnection::new(Arc::clone(&configs.server))?;
    lap(&mut cost.at_server)?;
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        cost.from_client += say(&mut client, &mut wire)?;
        lap(&mut cost.at_client)?;
        hear(&mut server, &wire)?;
        cost.from_server += say(&mut server, &mut wire)?;
        lap(&mut cost.at_server)?;
        hear(&mut client, &wire)?;
        lap(&mut cost.at_client)?;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [group, count] = &arguments[..] else {
        bail!("usage: handshakes hybrid|device|x25519 COUNT");
    };
    let mut provider = ring_provider();
    match group.as_str() {
        "hybrid" => {}
        // The same, with the signatures of a device at both ends.
        "device" => provider = hacl_provider(),
        "x25519" => provider.kx_groups = vec![X25519],
        other => bail!("{other:?} is neither hybrid, device nor x25519"),
    }
    let count: u32 = count.parse().context("COUNT is a number from 1")?;
    let configs = configs(provider)?;
    for _ in 0..UNCOUNTED {
        shake(&configs, &mut Cost::default())?;
    }
    let mut cost = Cost::default();
    for _ in 0..count {
        shake(&configs, &mut cost)?;
    }
    let each = |all: Duration| all.as_secs_f64() * 1e6 / f64::from(count);
    let bytes = |all: usize| all as f64 / f64::from(count);
    writeln!(
        std::io::stdout(),
        "{:.0}\t{:.0}\t{:.2}\t{:.2}",
        bytes(cost.from_client),
        bytes(cost.from_server),
        each(cost.at_client),
        each(cost.at_server),
    )?;
    Ok(())
}
