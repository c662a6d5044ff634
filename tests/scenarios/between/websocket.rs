//! The gateway towards a WebSocket client that nobody of this project wrote: Python's `websockets`.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use umbra_tests::netns::isolate;
use umbra_tests::program::run;
use umbra_tests::python::script;
use umbra_tests::scratch::scenario;
use umbra_tests::world::PATIENCE;

use super::site::Site;

#[tokio::test]
async fn a_foreign_websocket_client_is_served_and_refused_as_the_standard_says() {
    scenario(async |scratch| {
        isolate()?;
        let site = Site::start(scratch).await?;
        let mut command = script(".test-env", "scenarios/between/websocket_client.py");
        command
            .arg(site.gateway.internal().to_string())
            .arg(site.gateway.keystore().join("chain.pem"));
        let output = run(scratch, "websockets", &mut command, b"", PATIENCE).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let seen: Value = serde_json::from_str(&said).context(said)?;
        let expected = [
            ("subprotocol", json!("umbra.link.1")),
            ("tls_through_fragments", json!(["TLSv1.3", "umbra/1"])),
            ("ping_of_125_bytes", json!("answered")),
            ("text_frame", json!(1003)),
            ("message_too_large", json!(1009)),
            ("fragments_too_large", json!(1009)),
            ("reserved_bits", json!(1002)),
            ("ping_of_126_bytes", json!(1002)),
            ("foreign_origin", json!([403, "malformed"])),
            ("own_origin", json!([403, "malformed"])),
            ("wrong_subprotocol", json!([400, "malformed"])),
            ("no_subprotocol", json!([400, "malformed"])),
            ("subprotocol_of_another_path", json!([400, "malformed"])),
            ("uplink_with_origin", json!([403, "malformed"])),
            ("unknown_server", json!([503, "no_server", true])),
            ("malformed_server", json!([400, "malformed"])),
            ("unknown_token", json!([403, "tunnel_unknown"])),
            ("no_token", json!([400, "malformed"])),
            ("no_side", json!([400, "malformed"])),
            ("elsewhere", json!([404, null])),
        ];
        for (name, value) in &expected {
            ensure!(
                seen.get(name) == Some(value),
                "{name}: {value} expected in {seen}"
            );
        }
        ensure!(
            seen.as_object()
                .is_some_and(|seen| seen.len() == expected.len()),
            "{seen}"
        );
        Ok(())
    })
    .await;
}
