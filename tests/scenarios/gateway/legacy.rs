//! Consoles of the field, which know no tickets, in front of a device that is behind a gateway: they present their one-time
//! password through a rendezvous as they do on the direct way. The console here is of another make.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::DuplexStream;
use umbra_tests::rfb_client::{Options, RfbClient};
use umbra_tests::scratch::scenario;
use umbra_tests::tunnel::{Tunnel, over};
use umbra_tests::websocket::{WebSocketError, connect};
use umbra_tests::world::{Meeting, Offer, PATIENCE};

use super::site::Site;

fn gateway_of(meeting: &Meeting) -> anyhow::Result<SocketAddr> {
    let first = meeting.addresses.first().context("no address")?;
    Ok(first.parse()?)
}

/// One end of a rendezvous.
async fn end_of(meeting: &Meeting, side: &str) -> anyhow::Result<Result<DuplexStream, String>> {
    let bearer = format!("Bearer {}", meeting.token);
    let headers = [("Authorization", bearer.as_str()), ("Umbra-Side", side)];
    let gateway = gateway_of(meeting)?;
    let subprotocol = "umbra.tunnel.1";
    match connect(gateway, "/usg/tunnel", subprotocol, &headers, PATIENCE).await {
        Ok(stream) => Ok(Ok(stream)),
        Err(WebSocketError::Refused { status: 403, body }) => Ok(Err(body)),
        Err(error) => Err(error.into()),
    }
}

/// A console's end, with TLS to the device in it.
async fn tunnel(offer: &Offer) -> anyhow::Result<Tunnel> {
    let meeting = offer.meeting.as_ref().context("no rendezvous")?;
    let stream = end_of(meeting, "console").await?;
    let stream = stream.map_err(|refusal| anyhow::anyhow!("the gateway refused: {refusal}"))?;
    let gateway = gateway_of(meeting)?;
    Ok(over(Box::new(stream), gateway.ip(), PATIENCE).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_of_the_field_reach_a_device_behind_a_gateway_with_their_one_time_password_once() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let (_device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let offered = async || site.console.offer(&site.server, &name, true).await;

        // Somebody guesses: nothing is said to them, and a token is good once, whatever came of it.
        let offer = offered().await?;
        let mut stranger = tunnel(&offer).await?;
        let guess = "PROCYCMD PW_00000000-0000-4000-8000-000000000000";
        stranger.say(guess.as_bytes()).await?;
        let heard = stranger.rest(PATIENCE).await?;
        ensure!(heard.is_empty(), "{:?}", String::from_utf8_lossy(&heard));
        ensure!(site.desktop.connections() == 0, "the screen was bothered");
        let meeting = offer.meeting.as_ref().context("no rendezvous")?;
        let again = end_of(meeting, "console").await?;
        let refusal = again.err().context("a token worked twice")?;
        ensure!(
            refusal.contains("tunnel_used") && refusal.contains("sentence"),
            "{refusal}"
        );

        let offer = offered().await?;
        ensure!(
            offer.addresses.is_empty() && offer.ticket.is_empty() && offer.password.len() == 36,
            "not what such a console understands: {} addresses, a password of {} characters",
            offer.addresses.len(),
            offer.password.len()
        );
        let mut tunnel = tunnel(&offer).await?;
        let named = CertificateDer::from_pem_slice(offer.certificate.as_bytes())?;
        ensure!(
            tunnel.certificate() == Some(&named),
            "the device shows another certificate than the server names"
        );
        let preface = format!("PROCYCMD PW_{}", offer.password);
        tunnel.say(preface.as_bytes()).await?;
        let mut viewer = RfbClient::start(tunnel.into_stream(), &Options::default()).await?;
        viewer.refresh().await?;
        viewer.type_text("old console").await?;
        viewer.refresh().await?;
        ensure!(
            site.desktop.typed() == "old console",
            "{}",
            site.desktop.typed()
        );
        viewer.leave().await?;
        let record = site.console.ended_session(&offer.session).await?;
        ensure!(
            record["bytes_to_console"].as_u64() > Some(0),
            "nothing of the session is on record: {record}"
        );
        Ok(())
    })
    .await;
}
