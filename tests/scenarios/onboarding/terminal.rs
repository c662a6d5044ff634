//! The setup assistant as a person sees it: in a terminal of 80 by 24, in both languages, with the keyboard alone. Its screens are
//! kept as text in `tests/snapshots/setup`; `UMBRA_WRITE_SNAPSHOTS=1` writes them anew.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};
use umbra_tests::eventually::eventually;
use umbra_tests::program::product;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, PATIENCE};

use crate::site::Site;

/// A terminal that nobody looks at: a tmux of the scenario's own, with one program in it.
struct Terminal {
    socket: PathBuf,
    _server: Child,
}

impl Terminal {
    async fn start(scratch: &Scratch, name: &str, program: &[&str]) -> anyhow::Result<Self> {
        let socket = scratch.root().join(format!("{name}.tmux"));
        let server = tmux(&socket)
            .arg("-D")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("tmux does not start")?;
        let terminal = Self {
            socket,
            _server: server,
        };
        let mut words = vec!["new-session", "-d", "-x", "80", "-y", "24", "--"];
        words.extend(program);
        eventually("tmux", PATIENCE, async || {
            terminal.tell(&words).await.map(|_| ())
        })
        .await?;
        Ok(terminal)
    }

    async fn tell(&self, words: &[&str]) -> anyhow::Result<String> {
        // Never a server of its own accord: that one would outlive the scenario.
        let output = tmux(&self.socket)
            .arg("-N")
            .args(words)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await??;
        ensure!(
            output.status.success(),
            "tmux {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn press(&self, keys: &[&str]) -> anyhow::Result<()> {
        let mut words = vec!["send-keys"];
        words.extend(keys);
        self.tell(&words).await.map(|_| ())
    }

    /// The screen once all of this stands on it, nothing runs any more, and it is twice the same.
    async fn screen(&self, words: &[&str]) -> anyhow::Result<String> {
        let last = std::cell::RefCell::new(String::new());
        eventually("a screen", PATIENCE, async || {
            let now = self.tell(&["capture-pane", "-p"]).await?;
            let before = last.replace(now.clone());
            ensure!(now == before, "it still changes");
            ensure!(!now.contains(" …"), "something still runs:\n{now}");
            for word in words {
                ensure!(now.contains(word), "no “{word}” on it:\n{now}");
            }
            Ok(now)
        })
        .await
        .map_err(anyhow::Error::from)
    }
}

fn tmux(socket: &Path) -> Command {
    let mut command = Command::new("tmux");
    command
        .env_remove("TMUX")
        .env("LC_ALL", "C.UTF-8")
        .args(["-u", "-f", "/dev/null", "-S"])
        .arg(socket);
    command
}

/// What differs from run to run, in words that stay.
fn settled(screen: &str, changing: &[(String, &str)]) -> String {
    let mut lines = Vec::new();
    for line in screen.trim_end().lines() {
        let mut line = line.to_owned();
        for (from, to) in changing {
            line = line.replace(from, to);
        }
        lines.push(without_fingerprint(line.trim_end()));
    }
    lines.join("\n") + "\n"
}

/// Each group of a fingerprint as zeros.
fn without_fingerprint(line: &str) -> String {
    let digits = |word: &str| {
        word.len() == 4
            && word
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
    };
    let words: Vec<&str> = line
        .split(' ')
        .map(|word| if digits(word) { "0000" } else { word })
        .collect();
    words.join(" ")
}

fn compare(name: &str, screen: &str) -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("snapshots/setup")
        .join(format!("{name}.txt"));
    if std::env::var_os("UMBRA_WRITE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(file.parent().context("no folder")?)?;
        std::fs::write(&file, screen)?;
    }
    let kept = std::fs::read_to_string(&file)
        .with_context(|| format!("{}: UMBRA_WRITE_SNAPSHOTS=1 writes it", file.display()))?;
    ensure!(
        kept == screen,
        "{} has changed (UMBRA_WRITE_SNAPSHOTS=1 writes it anew); it is now:\n{screen}",
        file.display()
    );
    Ok(())
}

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
    let mut config = site.device_config();
    // What this machine's own network says is not the scenario's business.
    config
        .set("umbra.discovery.dns", "false")
        .set("umbra.discovery.dhcp", "false");
    let mut device = Device::new(scratch, "device", config)?;
    device.start()?;
    device.wait_until_up().await?;
    let stick = scratch.root().join("stick");
    std::fs::create_dir(&stick)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("no path");
    let file = text(&stick.join("icg.xml"))?;
    let export = ["keys", "export", "--format", "xml", "--out", &file];
    site.console.tell(&export, "").await?;

    let (agent, root, stick) = (
        text(&product("umbra-agent")?)?,
        text(device.root())?,
        text(&stick)?,
    );
    let program = [
        &*agent,
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
