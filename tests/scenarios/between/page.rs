//! The administrators' page against the gateway that runs; the snippets on it are held by the other scenarios of this folder.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use umbra_tests::eventually::SOON;
use umbra_tests::front::snippet;
use umbra_tests::netns::isolate;
use umbra_tests::scratch::scenario;

use super::site::Site;

async fn metrics(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = "GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await??;
    let (_, page) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(page.to_owned())
}

#[tokio::test]
async fn the_page_for_administrators_lists_every_number_that_a_gateway_gives() {
    scenario(async |scratch| {
        isolate()?;
        let site = Site::start(scratch).await?;
        let page = metrics(site.gateway.metrics()).await?;
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let given: BTreeSet<&str> = types
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let list = snippet("metrics")?;
        let listed: BTreeSet<&str> = list.text().lines().collect();
        ensure!(given.len() > 10, "{page}");
        ensure!(given == listed, "given {given:?}, listed {listed:?}");
        Ok(())
    })
    .await;
}
