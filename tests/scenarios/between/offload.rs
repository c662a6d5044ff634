//! nginx takes TLS off in front of the gateway, with the configuration of the administrators' page.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use umbra_tests::eventually::SOON;
use umbra_tests::netns::{Island, isolate};
use umbra_tests::scratch::scenario;

use super::site::{Offloaded, PLAINTEXT};

/// Asks the plaintext port for the status from an address of loopback.
async fn ask_from(from: Ipv4Addr) -> anyhow::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(SocketAddr::from(PLAINTEXT)).await?;
    let request = "GET /usg/check-status HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n";
    // It may be closed before it has read anything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn behind_an_nginx_that_takes_tls_off_a_device_is_taken_on_managed_and_seen() {
    scenario(async |scratch| {
        isolate()?;
        let island = Island::new(scratch, 1).await?;
        island.refuse_inbound(scratch).await?;
        let Offloaded {
            site, relay, front, ..
        } = &Offloaded::start(scratch, island.site()).await?;
        let device = site
            .new_device(1, site.device_config(), Some(&island))
            .await?;
        let name = site.take_on_at(&device, &front.to_string()).await?;
        site.send_message(&name, "Hello from behind nginx.").await?;
        site.see_and_operate(&name, "offloaded").await?;

        // Everything went this way: both ends of the tunnel, the device, the server.
        let conversations = relay.conversations();
        let on = |path: &str| conversations.iter().filter(|one| one.path == path).count();
        ensure!(on("/usg/tunnel") == 2, "{}", on("/usg/tunnel"));
        ensure!(on("/usg/endpoint") >= 2 && on("/usg/uplink") >= 1);
        // nginx said who it is that came.
        let address = format!("X-Forwarded-For: {}\r\n", island.own());
        let came = |one: &&umbra_tests::front::Conversation| one.contains(address.as_bytes());
        ensure!(conversations.iter().filter(came).count() >= 3);

        // The port without TLS is there for nginx only.
        let answer = ask_from(Ipv4Addr::LOCALHOST).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        let answer = ask_from(Ipv4Addr::new(127, 0, 0, 2)).await?;
        ensure!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        Ok(())
    })
    .await;
}
