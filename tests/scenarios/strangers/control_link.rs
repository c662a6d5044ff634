//! Liars on the control link: with a certificate of their own, with a device's, or with none. Each is refused with a
//! stable code and a sentence, and the server goes on.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use umbra_tests::control_link::{AFTER_WELCOME, BEFORE_WELCOME, Identity, Link, hello, unknown};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, Device, DeviceConfig, Server, ServerConfig, World, desktop};

use super::{bounded, heard, resident};

/// What a device has, to speak in its place.
fn of(device: &Device<'_>) -> anyhow::Result<Identity> {
    let certificate = CertificateDer::from_pem_file(device.certificate())?;
    let key = PrivateKeyDer::from_pem_file(device.root().join("wfs/umbra/device.key"))?;
    Ok((certificate, key))
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_are_refused_with_a_code_and_the_next_device_is_taken_on() {
    scenario(async |scratch| {
        let mut server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let before = resident(Some(server.program()))?;
        let nested = [
            b"{\"type\":\"hello\",\"versions\":".to_vec(),
            vec![b'['; 8000],
            vec![b']'; 8000],
            b"}".to_vec(),
        ]
        .concat();
        let many = json!({"type": "hello", "versions": vec![1; 2000]});
        let words: [(&str, Vec<u8>, &str); 9] = [
            (
                "a ping before hello",
                br#"{"type":"ping","number":1}"#.to_vec(),
                "unexpected_message",
            ),
            (
                "an unknown device",
                hello(&[1], "STRANGER"),
                "unknown_device",
            ),
            (
                "no version in common",
                hello(&[65535], "STRANGER"),
                "unsupported_version",
            ),
            ("deep JSON", nested, "malformed"),
            ("nothing but brackets", vec![b'['; 16_000], "malformed"),
            ("no JSON", b"\0\xFF\xFEgarbage".to_vec(), "malformed"),
            ("nothing at all", Vec::new(), "malformed"),
            (
                "a unit ID that climbs",
                hello(&[1], "../../etc/passwd"),
                "malformed",
            ),
            (
                "too many versions",
                many.to_string().into_bytes(),
                "malformed",
            ),
        ];
        for (what, body, code) in words {
            let mut link = Link::dial(&server, Some(unknown()?)).await?;
            let refused = async {
                link.say(&body).await?;
                link.is_refused(code).await?;
                link.ends().await
            };
            refused.await.with_context(|| format!("after {what}"))?;
        }
        // Only announced: nothing waits for what never comes.
        for length in [BEFORE_WELCOME + 1, u32::MAX] {
            let mut link = Link::dial(&server, Some(unknown()?)).await?;
            link.announce(length, b"{\"type\":").await?;
            link.is_refused("too_large").await?;
            link.ends().await?;
        }
        // What is not known yet may be known one day: the conversation goes on.
        let mut link = Link::dial(&server, Some(unknown()?)).await?;
        link.say(br#"{"type":"teleport","to":"mars"}"#).await?;
        link.is_refused("unknown_message").await?;
        link.say(&hello(&[1], "STRANGER")).await?;
        link.is_refused("unknown_device").await?;
        link.ends().await?;
        bounded(before, resident(Some(server.program()))?)?;

        let devices = console.tell(&["devices"], "").await?;
        ensure!(
            devices.as_array().is_some_and(Vec::is_empty),
            "a liar is on file: {devices}"
        );
        let screen = desktop(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        Ok(device.wait_until_online().await?)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dawdles_on_the_control_link_or_shows_no_certificate_is_sent_away() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let mut silent = Link::dial(&server, Some(unknown()?)).await?;
        let mut halting = Link::dial(&server, Some(unknown()?)).await?;
        halting.announce(100, b"{\"type\":\"hel").await?;
        // In TLS 1.3 a client learns only after its own part that the server is not content.
        if let Ok(nameless) = Link::dial(&server, None).await {
            let words = heard(nameless.into_stream()).await?;
            ensure!(
                words.is_empty(),
                "without a certificate: {} bytes",
                words.len()
            );
        }
        let (first, second) = tokio::join!(
            silent.is_refused("too_slow"),
            halting.is_refused("too_slow")
        );
        first.context("the silent one")?;
        second.context("the halting one")?;
        silent.ends().await?;
        halting.ends().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_talks_nonsense_on_its_link_is_refused_and_comes_back() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let name = world.device_name().await?;
        let identity = of(&world.device)?;
        world.device.kill();
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        let cases: [(&str, u32, &[u8], &str); 4] = [
            ("an oversize frame", AFTER_WELCOME + 1, b"{", "too_large"),
            ("deep JSON", 200_000, &deep, "malformed"),
            ("no JSON", 4, b"\xFF\xFF\xFF\xFF", "malformed"),
            (
                "a question without its parts",
                25,
                br#"{"type":"session_verify"}"#,
                "malformed",
            ),
        ];
        for (what, length, body, code) in cases {
            let identity = (identity.0.clone(), identity.1.clone_key());
            let mut link = Link::dial(&world.server, Some(identity)).await?;
            let refused = async {
                link.say(&hello(&[1], &name)).await?;
                let said = link.hear().await?;
                let kind = said.get("type").and_then(Value::as_str);
                ensure!(kind == Some("welcome"), "no welcome: {said}");
                link.announce(length, body).await?;
                // The server may have had something to say before it read that.
                let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
                loop {
                    let said = link.hear().await?;
                    let text = |name: &str| said.get(name).and_then(Value::as_str);
                    if text("type") == Some("refusal") {
                        ensure!(text("code") == Some(code), "{code} expected, but {said}");
                        return Ok(());
                    }
                    ensure!(tokio::time::Instant::now() < deadline, "only {said}");
                }
            };
            refused.await.with_context(|| format!("after {what}"))?;
            link.ends().await.with_context(|| format!("after {what}"))?;
        }
        world.device.start()?;
        world.device.wait_until_up().await?;
        world.device.wait_until_online().await?;
        let shadow = world.shadow("afterwards").await?;
        shadow.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}
