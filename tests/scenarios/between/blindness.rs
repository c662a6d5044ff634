//! What a gateway sees: everything that passes it is kept, with the masks of WebSocket taken off, and searched for what
//! nobody but the two ends may know.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually};
use umbra_tests::front::Conversation;
use umbra_tests::netns::isolate;
use umbra_tests::scratch::scenario;

use super::site::{Offloaded, said};

const MESSAGE: &str = "The moon is made of green cheese.";
const PARAMETER: &str = "umbra.proxy.no_proxy";
const VALUE: &str = "never-to-be-seen.example.com";
const TYPED: &str = "rosebud";
const REASON: &str = "to look for the sledge";

/// The events of the key of a character, as RFB carries them.
fn key_events(character: u8) -> Vec<u8> {
    [1, 0]
        .map(|down| [4, down, 0, 0, 0, 0, 0, character])
        .concat()
}

fn has_label(conversation: &Conversation, label: &str) -> bool {
    let field = format!("umbra-device: {label}").to_lowercase();
    String::from_utf8_lossy(&conversation.request)
        .to_lowercase()
        .contains(&field)
}

#[tokio::test]
async fn what_passes_a_gateway_tells_it_nothing() {
    scenario(async |scratch| {
        isolate()?;
        let Offloaded {
            site, relay, front, ..
        } = &Offloaded::start(scratch, std::net::Ipv4Addr::LOCALHOST).await?;
        let device = site.new_device(1, site.device_config(), None).await?;
        let key = site.console.one_time_key().await?;
        let front = front.to_string();
        let words = ["enroll", "--address", &front, "--fingerprint"];
        let rest = [site.server.fingerprint(), "--key-file", "-"];
        let output = device
            .output(&[&words[..], &rest[..]].concat(), &key)
            .await?;
        ensure!(output.status.success(), "{}", said(&output));
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some(site.gateway.name())).await?;

        // Things happen that are nobody's business.
        site.send_message(&name, MESSAGE).await?;
        let setting = format!("{PARAMETER}={VALUE}");
        site.console
            .tell(&["devices", "settings", &name, &setting], "")
            .await?;
        eventually("the setting to arrive", SOON, || async {
            let get = ["registry", "get", PARAMETER];
            let value = device
                .tell(&get, "")
                .await
                .map_err(|error| error.to_string())?;
            if value.contains(VALUE) {
                Ok(())
            } else {
                Err(value)
            }
        })
        .await?;
        let mut shadow = site.console.shadow(&name, &["--reason", REASON]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text(TYPED).await?;
        eventually("the keys to arrive", SOON, || async {
            match site.desktop.typed() {
                typed if typed == TYPED => Ok(()),
                other => Err(other),
            }
        })
        .await?;
        let screen = viewer.greeting().name.clone();
        viewer.leave().await?;
        let ended = shadow.ended().await?;
        let session = ended
            .get("session")
            .and_then(Value::as_str)
            .context("no session")?;
        site.console.ended_session(session).await?;
        let status = device.status().await?.to_string();
        ensure!(status.contains(MESSAGE), "{status}");

        let all = relay.conversations();
        ensure!(relay.is_complete());
        // What must be found, so that not finding anything means something.
        let on = |path: &str| -> Vec<&Conversation> {
            all.iter().filter(|one| one.path == path).collect()
        };
        let (links, uplinks, tunnels) = (on("/usg/endpoint"), on("/usg/uplink"), on("/usg/tunnel"));
        ensure!(links.len() >= 2 && !uplinks.is_empty() && tunnels.len() == 2);
        ensure!(links.iter().any(|link| has_label(link, &name)), "no label");
        for (conversations, alpn) in [(&links, &b"umbra/1"[..]), (&uplinks, b"umbra-uplink/1")] {
            for one in conversations {
                // TLS begins with a ClientHello, which names its protocol in clear.
                ensure!(one.to_server.starts_with(&[0x16, 3]), "{:?}", one.path);
                ensure!(one.contains(alpn), "{:?}", one.path);
            }
        }
        let screens = tunnels.iter().map(|one| one.to_client.len()).max();
        ensure!(screens > Some(10_000), "{screens:?}");
        ensure!(
            tunnels
                .iter()
                .any(|one| one.to_server.starts_with(&[0x16, 3]))
        );
        ensure!(
            tunnels
                .iter()
                .any(|one| one.to_client.starts_with(&[0x16, 3]))
        );

        // What must not.
        let password = std::fs::read_to_string(site.server.password_file())?;
        let mut secrets: Vec<(&str, Vec<u8>)> = vec![
            ("the key", key.clone().into_bytes()),
            ("the key as it is typed", key.replace('-', "").into_bytes()),
            ("a command", MESSAGE.into()),
            ("part of a command", "green cheese".into()),
            ("a parameter's name", PARAMETER.into()),
            ("a parameter's value", VALUE.into()),
            ("a message's kind", "\"type\":\"".into()),
            ("the session", session.into()),
            ("the reason", REASON.into()),
            ("the preface with ticket and password", "UMBRA/1 ".into()),
            ("a ticket", "eyJhbGciOiJFZERTQSI".into()),
            ("the administrator's password", password.trim().into()),
            ("RFB's greeting", "RFB 003.00".into()),
            ("the screen's name", screen.clone().into_bytes()),
        ];
        secrets.extend(
            TYPED
                .bytes()
                .map(|key| ("a key that was typed", key_events(key))),
        );
        for (what, secret) in &secrets {
            ensure!(secret.len() >= 8, "{what} is too short to be looked for");
            for one in &all {
                ensure!(!one.contains(secret), "{what} was seen on {}", one.path);
            }
        }
        Ok(())
    })
    .await;
}
