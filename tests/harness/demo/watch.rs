//! One shadowing session of the demo without a person: see, type, compare, leave, and what is on record afterwards.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Story;
use super::screen::{Screen, same_as_at_the_source, type_and_see};
use crate::scratch::Scratch;
use crate::world::{Console, Shadow};

/// What is typed through the tunnel.
const TYPED: &str = "hello from the helpdesk";

/// Shadows the device and saves what was seen.
pub(super) async fn shadow_once<W: Write>(
    scratch: &Scratch,
    story: &mut Story<W>,
    screen: &Screen,
    console: &Console<'_>,
    device: &str,
    out: &Path,
) -> anyhow::Result<()> {
    let mut shadow = console.shadow(device, &["--reason", "demo"]).await?;
    let mut viewer = shadow.view().await?;
    viewer.refresh().await?;
    let size = (viewer.image().width(), viewer.image().height());
    story.step(&format!(
        "a viewer sees “{}”, {}x{} pixels, through both proxies",
        viewer.greeting().name,
        size.0,
        size.1
    ))?;

    type_and_see(screen, &mut viewer, TYPED).await?;
    story.step(&format!("the keys “{TYPED}” arrived at the device"))?;
    let apart = same_as_at_the_source(scratch, screen, &mut viewer).await?;
    viewer
        .save_png(out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    let percent = apart * 100.0;
    story.step(&format!(
        "what the viewer sees is what the device shows ({percent:.2} % of pixels differ): {}",
        out.display()
    ))?;

    viewer.leave().await?;
    let record = end(&mut shadow, console).await?;
    story.step(&format!("the session is over, and on record: {record}"))
}

/// The end of the session as the console tells it and as the server has it on record.
async fn end(shadow: &mut Shadow, console: &Console<'_>) -> anyhow::Result<String> {
    let ended = shadow.ended().await?;
    let (status, said) = shadow.finished().await?;
    if !status.success() {
        bail!("umbra shadow ended with {status}: {said}");
    }
    let id = ended
        .get("session")
        .and_then(Value::as_str)
        .context("the end names no session")?;
    let record = console.ended_session(id).await?;
    let text = |name: &str| {
        record
            .get(name)
            .map_or_else(String::new, |value| value.to_string().replace('"', ""))
    };
    Ok(format!(
        "by {}, reason “{}”, {} ms, {} bytes seen, {} bytes sent, ended with {}",
        text("user"),
        text("reason"),
        text("duration_ms"),
        text("bytes_to_console"),
        text("bytes_to_device"),
        text("end_code"),
    ))
}
