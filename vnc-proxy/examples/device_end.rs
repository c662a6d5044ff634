//! The device's end of the tunnel alone, as a program: every caller with a well-formed preface is let in. It exists to be measured and
//! profiled beside other proxies (`cargo xtask bench`), in the order in which the agent uses the library, and is shipped nowhere.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use umbra_vnc_proxy::accept::accept_forever;
use umbra_vnc_proxy::device_end::{self, SessionOptions};
use umbra_vnc_proxy::tls::device_server_config;
use umbra_vnc_proxy::upstream::Upstream;

const USAGE: &str = "device_end LISTEN VNC-SERVER CERTIFICATE.pem KEY.pem";
const DEADLINE: Duration = Duration::from_secs(20);

/// The agent's sessions also come through gateways, so it doesn't know what carries its streams either.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, vnc_server, certificate, key] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let config = device_server_config(
        vec![CertificateDer::from_pem_file(certificate)?],
        PrivateKeyDer::from_pem_file(key)?,
    )?;
    let upstream = Upstream::tcp(vnc_server.parse()?)?;
    // One thread, as in the agent.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(listen.parse()?, upstream, config))?;
    Ok(())
}

async fn serve(
    listen: SocketAddr,
    upstream: Upstream,
    config: Arc<ServerConfig>,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    writeln!(
        io::stdout().lock(),
        "listening on {}",
        listener.local_addr()?
    )?;
    accept_forever(&listener, std::future::pending(), |caller, from| {
        let (upstream, config) = (upstream.clone(), Arc::clone(&config));
        tokio::spawn(async move {
            if let Err(failure) = attend(caller, upstream, config).await {
                // Nobody is left to tell when stderr is closed.
                let _ = writeln!(io::stderr().lock(), "{from}: {failure}");
            }
        });
    })
    .await;
    Ok(())
}

async fn attend(
    caller: TcpStream,
    upstream: Upstream,
    config: Arc<ServerConfig>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + DEADLINE;
    let caller: Box<dyn Stream> = Box::new(caller);
    let mut tls = device_end::accept_tls(caller, config, deadline).await?;
    let preface = device_end::read_preface(&mut tls, deadline).await?;
    let options = SessionOptions::default();
    let connected = device_end::connect_upstream(&upstream, &options, deadline).await?;
    device_end::answer_ok(&mut tls, preface.dialect(), deadline).await?;
    device_end::serve(tls, connected, options, std::future::pending()).await;
    Ok(())
}
