//! A gateway's metrics as a monitoring system reads them: over HTTP, in Prometheus' text format.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use umbra_tests::eventually::SOON;

/// One reading: names (with their labels) and values.
#[derive(Debug)]
pub(super) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads them now.
    pub(super) async fn read(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await??;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, page) = answer.split_once("\r\n\r\n").context("no body")?;
        let values = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)));
        Ok(Self(values.collect()))
    }

    /// One value; nothing counts as none.
    pub(super) fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }
}
