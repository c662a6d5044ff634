//! The toggle, live: `system.remotemanager.enable_icg` off and on again on a running device, with a command that is given in
//! between and must arrive once.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Story;
use crate::eventually::eventually;
use crate::world::{Console, Device, PATIENCE};

/// The parameter.
const TOGGLE: &str = "system.remotemanager.enable_icg";
/// What the person at the device reads.
const TEXT: &str = "Your way is changing.";

/// Switches the device from the gateway to the direct way and back.
pub(super) async fn there_and_back<W: Write>(
    story: &mut Story<W>,
    console: &Console<'_>,
    device: &Device<'_>,
    name: &str,
) -> anyhow::Result<()> {
    wait_for_way(console, name, Some("icg")).await?;
    story.step("the server has the device behind the gateway “icg”")?;
    let begun = Instant::now();
    device.set(TOGGLE, "false").await?;
    let message = ["devices", "command", "--wait", name, "message", TEXT];
    let (answer, switched) = tokio::join!(
        console.tell(&message, ""),
        wait_for_way(console, name, None)
    );
    switched?;
    story.step(&format!(
        "{TOGGLE} is off; icg → direct took {:.2} s, and a message for the person at the device was given meanwhile",
        begun.elapsed().as_secs_f64()
    ))?;
    let begun = Instant::now();
    device.set(TOGGLE, "true").await?;
    wait_for_way(console, name, Some("icg")).await?;
    story.step(&format!(
        "direct → icg took {:.2} s",
        begun.elapsed().as_secs_f64()
    ))?;
    arrived_once(device, &answer?).await?;
    story.step("the message arrived, once, and its result is on file")
}

/// Waits until the server has the device online behind this gateway, or directly.
async fn wait_for_way(
    console: &Console<'_>,
    name: &str,
    gateway: Option<&str>,
) -> anyhow::Result<()> {
    let what = format!("{name} to be online behind {gateway:?}");
    eventually(&what, PATIENCE, || async {
        let shown = console
            .tell(&["devices", "show", name], "")
            .await
            .map_err(|error| error.to_string())?;
        let online = shown.get("online").and_then(Value::as_bool) == Some(true);
        if online && shown.get("gateway").and_then(Value::as_str) == gateway {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    })
    .await?;
    Ok(())
}

async fn arrived_once(device: &Device<'_>, answer: &Value) -> anyhow::Result<()> {
    let state = answer.get("state").and_then(Value::as_str);
    ensure!(state == Some("done"), "the message's result: {answer}");
    let status = device.status().await?;
    let messages = status
        .get("messages")
        .and_then(Value::as_array)
        .context("the status names no messages")?;
    let shown = messages
        .iter()
        .filter(|message| message.to_string().contains(TEXT))
        .count();
    ensure!(shown == 1, "the message was shown {shown} times: {status}");
    Ok(())
}
