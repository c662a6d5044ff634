//! A control link spoken by hand: for scenarios in which somebody lies to a server about who he is, or says what no device says. Knows
//! the words of the beginning only.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{PATIENCE, Server};

/// The largest frame before the welcome.
pub const BEFORE_WELCOME: u32 = 16 * 1024;
/// The largest frame after it.
pub const AFTER_WELCOME: u32 = 256 * 1024;
/// How long a server may keep silent; its own limits are well below.
const ANSWER: Duration = Duration::from_secs(40);

/// A certificate with its key.
pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A certificate that no server has on file.
pub fn unknown() -> anyhow::Result<Identity> {
    let made = rcgen::generate_simple_self_signed(["STRANGER".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((made.cert.der().clone(), key.into()))
}

fn root_below(folder: &Path) -> anyhow::Result<CertificateDer<'static>> {
    let places = ["root.crt", "tls/root.crt", "ca/root.crt"];
    let found = places
        .into_iter()
        .map(|place| folder.join(place))
        .find(|path| path.is_file());
    Ok(CertificateDer::from_pem_file(
        found.context("no root certificate")?,
    )?)
}

/// A control link spoken by hand.
pub struct Link(TlsStream<TcpStream>);

impl Link {
    /// To a server of the scenario.
    pub async fn dial(server: &Server<'_>, identity: Option<Identity>) -> anyhow::Result<Self> {
        Self::dial_at(server.address(), server.state(), identity).await
    }

    /// To the server that listens there and has its root in this folder.
    pub async fn dial_at(
        address: SocketAddr,
        state: &Path,
        identity: Option<Identity>,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root_below(state)?)?;
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"umbra/1".to_vec()];
        let connecting = async {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::from(address.ip());
            TlsConnector::from(Arc::new(config))
                .connect(name, tcp)
                .await
        };
        Ok(Self(timeout(PATIENCE, connecting).await??))
    }

    /// The stream below it.
    pub fn into_stream(self) -> TlsStream<TcpStream> {
        self.0
    }

    /// What binds words to this connection.
    pub fn exporter(&self, label: &[u8]) -> anyhow::Result<[u8; 32]> {
        let tls = self.0.get_ref().1;
        Ok(tls.export_keying_material([0; 32], label, None)?)
    }

    /// Sends a frame that announces another length than it has.
    pub async fn announce(&mut self, length: u32, body: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(&length.to_be_bytes()).await?;
        self.0.write_all(body).await?;
        Ok(self.0.flush().await?)
    }

    /// Sends a frame.
    pub async fn say(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.announce(u32::try_from(body.len())?, body).await
    }

    /// The next message.
    pub async fn hear(&mut self) -> anyhow::Result<Value> {
        let reading = async {
            let length = self.0.read_u32().await?;
            ensure!(length <= AFTER_WELCOME, "a frame of {length} bytes");
            let mut body = vec![0; length as usize];
            self.0.read_exact(&mut body).await?;
            Ok(serde_json::from_slice(&body)?)
        };
        timeout(ANSWER, reading)
            .await
            .context("the server says nothing")?
    }

    /// The next message is a refusal with this code and a sentence.
    pub async fn is_refused(&mut self, code: &str) -> anyhow::Result<()> {
        let said = self.hear().await?;
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
        ensure!(
            text("type") == "refusal" && text("code") == code,
            "{code} expected, but {said}"
        );
        ensure!(
            text("sentence").contains(' ') && !text("sentence").contains("::"),
            "no sentence: {said}"
        );
        Ok(())
    }

    /// The server ends the connection without another word.
    pub async fn ends(mut self) -> anyhow::Result<()> {
        let mut rest = Vec::new();
        let mut limited = (&mut self.0).take(1 << 20);
        let reading = limited.read_to_end(&mut rest);
        // However it ends: a reset is an end as well.
        drop(
            timeout(ANSWER, reading)
                .await
                .context("a stranger may stay for ever")?,
        );
        ensure!(rest.is_empty(), "{} bytes followed", rest.len());
        Ok(())
    }
}

/// The first words of a device with this label.
pub fn hello(versions: &[u16], unit: &str) -> Vec<u8> {
    let facts = json!({
        "unit_id": unit, "name": "stranger", "os": "none", "agent_version": "0", "architecture": "none",
        "secure_mode": true,
    });
    json!({"type": "hello", "versions": versions, "intent": "link", "device": facts})
        .to_string()
        .into_bytes()
}
