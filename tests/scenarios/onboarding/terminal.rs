//! The setup assistant as a person sees it: in a terminal of 80 by 24, in both languages, with the keyboard alone. Its screens are
//! kept as text in `tests/snapshots/setup`; `UMBRA_WRITE_SNAPSHOTS=1` writes them anew.

use std::path::Path;

use anyhow::Context as _;
use umbra_tests::program::product_words;
use umbra_tests::scratch::{Scratch, scenario};

use super::device_and_stick;
use super::screen::{Terminal, compare, settled};
use crate::site::Site;

/// What stands on the screens of one language.
struct Words {
    language: &'static str,
    choose: &'static [&'static str],
    found: &'static str,
    checked: &'static str,
    key: &'static str,
    ready: &'static str,
}

const ENGLISH: Words = Words {
    language: "en",
    choose: &["Enter"],
    found: "found on a USB stick",
    checked: "The connection works.",
    key: "Step 5 of 7",
    ready: "Connection ready",
};

const GERMAN: Words = Words {
    language: "de",
    choose: &["Down", "Enter"],
    found: "USB-Stick",
    checked: "Die Verbindung funktioniert.",
    key: "Schritt 5 von 7",
    ready: "Verbindung bereit",
};

async fn walk(scratch: &Scratch, words: Words) -> anyhow::Result<()> {
    let site = Site::start(scratch).await?;
    let device = device_and_stick(scratch, &site).await?;
    let stick = scratch.path("stick");
    let text = |path: &Path| path.to_str().map(str::to_owned).context("no path");
    let (root, stick) = (text(device.root())?, text(&stick)?);
    let agent = product_words("umbra-agent")?;
    let agent: Vec<String> = agent
        .iter()
        .map(|word| text(word))
        .collect::<Result<_, _>>()?;
    let arguments = [
        "--root",
        &root,
        "setup",
        "--face",
        "terminal",
        "--language",
        "en",
        "--media",
        &stick,
    ];
    let program: Vec<&str> = agent.iter().map(String::as_str).chain(arguments).collect();
    let terminal = Terminal::start(scratch, words.language, &program).await?;
    // A device is called what its host is called.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let changing = [
        (site.gateway.external().to_string(), "GATEWAY"),
        (stick, "/media/stick"),
        (format!("name: {}", host.trim()), "name: HOST"),
    ];
    let see = async |name: &str, there: &[&str]| {
        let screen = terminal.screen(there).await?;
        compare(
            &format!("{}-{name}", words.language),
            &settled(&screen, &changing),
        )
    };
    see("1-language", &["Deutsch"]).await?;
    for key in words.choose {
        terminal.press(&[key]).await?;
    }
    see("2-address", &[words.found]).await?;
    // Back to the list, and up to what the stick holds.
    terminal.press(&["BTab"]).await?;
    terminal.press(&["Up"]).await?;
    terminal.press(&["Enter"]).await?;
    see("3-check", &[words.checked]).await?;
    terminal.press(&["Enter"]).await?;
    see("5-key", &[words.key]).await?;
    terminal.press(&["Enter"]).await?;
    see("7-ready", &[words.ready]).await?;
    terminal.press(&["Enter"]).await?;
    device.wait_until_online().await?;
    let name = device.unit_id().await?;
    site.wait_for_way(&name, Some("icg")).await?;
    Ok(())
}

#[tokio::test]
async fn the_assistant_leads_to_a_connection_that_is_ready_in_english() {
    scenario(async |scratch| walk(scratch, ENGLISH).await).await;
}

#[tokio::test]
async fn the_assistant_leads_to_a_connection_that_is_ready_in_german() {
    scenario(async |scratch| walk(scratch, GERMAN).await).await;
}
