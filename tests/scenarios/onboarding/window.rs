//! The setup assistant in its window, on a screen of its own, with the keyboard alone and by what can be seen: real pixels from the
//! X server, judged by what must be on them. What happens behind the window is read from the views that the agent sends it, and
//! from the device's disk. `UMBRA_WRITE_SNAPSHOTS=1` puts the pictures into `docs/images`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use umbra_tests::eventually::{eventually, eventually_is};
use umbra_tests::image::{Image, Rect};
use umbra_tests::program::{Program, product, product_words, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::PATIENCE;
use umbra_tests::x11::XServer;

use super::device_and_stick;
use crate::site::Site;

/// The colour of the default button, of what is chosen and of the steps that are done.
const ACCENT: u32 = 0x0B_57_A6;
/// The colour of the sign of a problem.
const PROBLEM: u32 = 0xA3_1B_12;
/// The colour of the sign of an information.
const INFORMATION: u32 = 0x0B_4F_9E;
/// The card on which everything stands.
const CARD: u32 = 0xFF_FF_FF;
/// Pictures for people are small.
const PICTURE_MAX: u64 = 100 * 1024;

/// The window on its screen, before an agent that keeps a copy of what it shows.
struct Desk<'s> {
    scratch: &'s Scratch,
    screen: XServer,
    views: PathBuf,
    agents: PathBuf,
    agent: PathBuf,
}

impl<'s> Desk<'s> {
    async fn start(
        scratch: &'s Scratch,
        root: &Path,
        (width, height): (u16, u16),
    ) -> anyhow::Result<Self> {
        let desk = Self {
            scratch,
            screen: XServer::xvfb(scratch, width, height).await?,
            views: scratch.path("views"),
            agents: scratch.path("agents"),
            agent: scratch.path("agent-of-window"),
        };
        // Its process ID is the agent's own, so that a test can end it, and see that it has ended.
        let agent: Vec<String> = product_words("umbra-agent")?
            .iter()
            .map(|word| format!("'{}'", word.display()))
            .collect();
        let script = format!(
            "#!/bin/sh\ncd '{}' || exit\nmkfifo pipe.$$ || exit\ntee -a '{}' <pipe.$$ &\necho $$ >>'{}'\nexec {} --root '{}' \"$@\" >pipe.$$\n",
            scratch.root().display(),
            desk.views.display(),
            desk.agents.display(),
            agent.join(" "),
            root.display(),
        );
        std::fs::write(&desk.agent, script)?;
        std::fs::set_permissions(&desk.agent, std::fs::Permissions::from_mode(0o700))?;
        Ok(desk)
    }

    /// Opens the window over the whole screen.
    fn open(&self, agent: &Path, language: &str) -> anyhow::Result<Program> {
        let mut command = Command::new(product("umbra-setup-window")?);
        command
            .env("DISPLAY", self.screen.display())
            .env("XAUTHORITY", self.screen.authority())
            .env("HOME", self.scratch.folder("home")?)
            // No processor of pictures: the same on every machine.
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("WAYLAND_SOCKET")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .arg("--agent")
            .arg(agent)
            .args(["--", "--language", language, "--media", "stick"]);
        Ok(Program::start(self.scratch, "setup-window", &mut command)?)
    }

    async fn xdotool(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut command = self.screen.command("xdotool")?;
        let output = run(
            self.scratch,
            "xdotool",
            command.args(words),
            b"",
            Duration::from_secs(30),
        )
        .await?;
        ensure!(output.status.success(), "xdotool {words:?}: {output:?}");
        Ok(())
    }

    async fn press(&self, keys: &[&str]) -> anyhow::Result<()> {
        let mut words = vec!["key", "--delay", "60"];
        words.extend(keys);
        self.xdotool(&words).await
    }

    /// Moves the focus by one, and waits until that is to be seen: two keys between two pictures are one to the window.
    async fn move_focus(&self, key: &str) -> anyhow::Result<()> {
        let before = self.see("a screen", |_| Ok(())).await?;
        self.press(&[key]).await?;
        self.see("the focus to move", |image| {
            ensure!(*image != before, "it is where it was");
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Puts a text onto the clipboard, for as long as the owner lives.
    fn copy(&self, text: &[u8]) -> anyhow::Result<Program> {
        let file = self.scratch.path("copied");
        std::fs::write(&file, text)?;
        let mut command = self.screen.command("xclip")?;
        // It stays: its own copy of itself in the background would outlive the test.
        command
            .args(["-quiet", "-selection", "clipboard", "-i"])
            .arg(file);
        Ok(Program::start(self.scratch, "xclip", &mut command)?)
    }

    async fn type_text(&self, text: &str) -> anyhow::Result<()> {
        self.xdotool(&["type", "--delay", "25", text]).await
    }

    /// The last view that the window was given, once it is like this.
    async fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let last = || -> Result<Value, String> {
            let all = std::fs::read_to_string(&self.views).map_err(|error| error.to_string())?;
            let whole = all.rfind('\n').map_or("", |end| &all[..end]);
            let line = whole.lines().last().unwrap_or_default();
            let view: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            if is(&view) {
                Ok(view)
            } else {
                Err(line.to_owned())
            }
        };
        Ok(eventually_is(what, PATIENCE, last).await?)
    }

    /// This step, with something to press.
    async fn step(&self, step: &str, action: &str) -> anyhow::Result<Value> {
        let what = format!("“{action}” at the step {step}");
        self.until(&what, |view| {
            let actions = view["actions"].as_array().into_iter().flatten();
            let can = |there: &&Value| {
                there["id"].as_str() == Some(action) && there["enabled"].as_bool() == Some(true)
            };
            view["step"].as_str() == Some(step) && actions.filter(can).count() == 1
        })
        .await
    }

    /// What the screen shows, once it is like this and twice the same.
    async fn see(
        &self,
        what: &str,
        is: impl Fn(&Image) -> anyhow::Result<()>,
    ) -> anyhow::Result<Image> {
        let last = std::cell::RefCell::new(Image::new(0, 0));
        let seen = eventually(what, PATIENCE, async || {
            let now = self.screen.screenshot(self.scratch).await?;
            let before = last.replace(now.clone());
            is(&now)?;
            ensure!(now == before, "it still changes");
            Ok(now)
        })
        .await;
        if seen.is_err() {
            let kept = self.scratch.path("last-seen.png");
            last.borrow().save_png(&kept)?;
        }
        seen.map_err(anyhow::Error::from)
    }

    /// The agents that were started, in their order.
    fn agents(&self) -> Vec<u32> {
        let list = std::fs::read_to_string(&self.agents).unwrap_or_default();
        list.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    async fn started(&self, count: usize) -> anyhow::Result<u32> {
        let what = format!("{count} agents to be started");
        Ok(eventually_is(&what, PATIENCE, || match self.agents() {
            pids if pids.len() == count => pids.last().copied().ok_or_else(Vec::new),
            pids => Err(pids),
        })
        .await?)
    }
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn gone(pid: u32) -> anyhow::Result<()> {
    eventually_is("the agent of the window to end", PATIENCE, || {
        if lives(pid) { Err(pid) } else { Ok(()) }
    })
    .await?;
    Ok(())
}

/// How many pixels of a part of the picture have about this colour.
fn count(image: &Image, part: Rect, colour: u32) -> usize {
    (part.y..part.y + part.height)
        .flat_map(|y| {
            let row = image.row(y);
            &row[usize::from(part.x)..usize::from(part.x + part.width)]
        })
        .filter(|pixel| {
            [0, 8, 16]
                .iter()
                .all(|shift| ((**pixel >> shift) as u8).abs_diff((colour >> shift) as u8) <= 6)
        })
        .count()
}

fn whole(image: &Image) -> Rect {
    Rect::new(0, 0, image.width(), image.height())
}

/// How many bars at the top of the picture say that a step is reached.
fn bars(image: &Image) -> usize {
    let runs = |y: u16| {
        let row = image.row(y);
        let long = row.chunk_by(|one, other| one == other);
        long.filter(|run| run[0] == ACCENT && run.len() > 40)
            .count()
    };
    (0..image.height() / 8).map(runs).max().unwrap_or(0)
}

/// A window with a card, text on it, a default button at its lower right, and this many steps reached.
fn is_screen(image: &Image, steps: usize) -> anyhow::Result<()> {
    let (width, height) = (image.width(), image.height());
    let pixels = usize::from(width) * usize::from(height);
    ensure!(image.colours(64) == 64, "hardly any colours");
    let card = count(image, whole(image), CARD);
    ensure!(card > pixels / 3, "no card: {card} white pixels");
    ensure!(bars(image) == steps, "{} bars are filled", bars(image));
    // The heading: dark pixels, and mostly none.
    let heading = Rect::new(width / 10, 104, width / 2, 44);
    let ink = count(image, heading, 0x10_18_21);
    ensure!(
        (100..8000).contains(&ink),
        "{ink} dark pixels in the heading"
    );
    let button = Rect::new(width / 2, height - height / 4, width / 2, height / 4);
    let filled = count(image, button, ACCENT);
    ensure!(filled > 2500, "no default button: {filled} pixels of it");
    Ok(())
}

/// Compares with the picture in the documentation, or makes it. Addresses, ports and fingerprints are others each time, so a small
/// share of the pixels may be.
fn compare(name: &str, now: &Image, share: f64) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    let file = folder.join(format!("setup-window-{name}.png"));
    if std::env::var_os("UMBRA_WRITE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(&folder)?;
        now.save_png(&file)?;
    }
    let hint = || format!("{}: UMBRA_WRITE_SNAPSHOTS=1 writes it", file.display());
    let size = std::fs::metadata(&file).with_context(hint)?.len();
    ensure!(size <= PICTURE_MAX, "{name} has {size} bytes");
    let kept = Image::load_png(&file).with_context(hint)?;
    let apart = kept
        .difference(now, 48)
        .with_context(|| format!("{name} has another size"))?;
    ensure!(
        apart.differing_share < share,
        "{name} looks different ({apart:?}); {}",
        hint()
    );
    Ok(())
}

/// What differs between the languages.
struct Words {
    language: &'static str,
    choose: &'static [&'static str],
}

/// The language and then the address: the way that both walks begin.
async fn to_the_address(desk: &Desk<'_>, words: &Words) -> anyhow::Result<Value> {
    let language = words.language;
    // Nothing is under the pointer that would show it.
    desk.xdotool(&["mousemove", "4", "4"]).await?;
    desk.step("language", "next").await?;
    desk.see("the first screen", |image| is_screen(image, 1))
        .await?;
    desk.press(words.choose).await?;
    desk.until("the language", |view| {
        view["language"].as_str() == Some(language)
    })
    .await?;
    desk.press(&["Return"]).await?;
    let offered = desk
        .until("an offer of what is on the stick", |view| {
            let offers = &view["items"][0]["options"][0]["id"];
            view["step"].as_str() == Some("address") && offers.as_str() == Some("found-0")
        })
        .await?;
    ensure!(
        offered["items"][0]["selected"].as_str() == Some("typed"),
        "it was chosen unasked: {offered}"
    );
    desk.see("the offer", |image| {
        let there = count(image, whole(image), INFORMATION);
        ensure!(there > 200, "no sign of the offer: {there} pixels");
        is_screen(image, 2)?;
        compare(&format!("{language}-2-address"), image, 0.03)
    })
    .await?;
    Ok(offered)
}

#[tokio::test]
async fn the_window_leads_to_a_connection_that_is_ready_in_english() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let device = device_and_stick(scratch, &site).await?;
        let desk = Desk::start(scratch, device.root(), (1024, 768)).await?;
        let mut window = desk.open(&desk.agent, "en")?;
        let words = Words {
            language: "en",
            choose: &["Up"],
        };
        to_the_address(&desk, &words).await?;

        // By hand: a wrong turn, the address, the part that is missing, the key.
        desk.type_text("not an address").await?;
        desk.press(&["Return"]).await?;
        desk.until("a word about the address", |view| {
            view["notice"]["tone"].as_str() == Some("problem")
        })
        .await?;
        desk.see("the word about the address", |image| {
            let there = count(image, whole(image), PROBLEM);
            ensure!(there > 200, "no sign of a problem: {there} pixels");
            Ok(())
        })
        .await?;
        desk.press(&["ctrl+a"]).await?;
        desk.type_text(&site.gateway.external().to_string()).await?;
        desk.press(&["Return"]).await?;
        desk.step("check", "next").await?;
        desk.see("the check", |image| {
            is_screen(image, 3)?;
            compare("en-3-check", image, 0.03)
        })
        .await?;
        let kept = std::fs::read_to_string(device.root().join("wfs/umbra/setup.json"))?;
        ensure!(kept.contains("\"checking\":true"), "{kept}");
        desk.press(&["Return"]).await?;
        let asked = desk.step("fingerprint", "back").await?;
        desk.see("the fingerprint", |image| {
            is_screen(image, 4)?;
            // Which part is missing is chance, and moves the lines.
            compare("en-4-fingerprint", image, 0.08)
        })
        .await?;
        desk.type_text(&missing(&asked, site.server.fingerprint())?)
            .await?;
        desk.press(&["Return"]).await?;
        desk.step("key", "back").await?;
        let empty = desk.see("the key", |image| is_screen(image, 5)).await?;
        let key = site.console.one_time_key().await?;
        desk.type_text(&key).await?;
        let dots = "•".repeat(key.chars().count());
        desk.until("the key as dots", |view| {
            view["items"][0]["text"].as_str() == Some(&*dots)
        })
        .await?;
        let hidden = desk
            .see("the hidden key", |image| {
                ensure!(*image != empty, "nothing was typed");
                is_screen(image, 5)
            })
            .await?;
        desk.press(&["F2"]).await?;
        desk.until("the key in clear", |view| {
            view["items"][0]["text"].as_str() == Some(&*key)
        })
        .await?;
        desk.see("the key", |image| {
            let apart = hidden.difference(image, 48).context("another size")?;
            ensure!(apart.differing_share > 0.001, "{apart:?}");
            Ok(())
        })
        .await?;
        desk.press(&["F2", "Return"]).await?;
        desk.step("ready", "finish").await?;
        desk.see("the end", |image| is_screen(image, 7)).await?;
        desk.press(&["Return"]).await?;
        let status = window.wait(PATIENCE).await?;
        ensure!(status.success(), "{status}");
        let log = std::fs::read_to_string(scratch.path("log/setup-window.log"))?;
        ensure!(!log.contains(&key), "the key is in the window's log");
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

/// The part of the fingerprint that the screen does not show.
fn missing(view: &Value, fingerprint: &str) -> anyhow::Result<String> {
    let items = view["items"].as_array().context("no items")?;
    let shown = |part: &str| {
        items.iter().any(|item| {
            let value = item["value"].as_str().unwrap_or_default().replace(' ', "");
            value.eq_ignore_ascii_case(part)
        })
    };
    let missing: Vec<&str> = fingerprint.split('-').filter(|part| !shown(part)).collect();
    ensure!(
        missing.len() == 1,
        "not exactly one part is missing: {view}"
    );
    Ok(missing[0].to_lowercase())
}

#[tokio::test]
async fn the_window_leads_to_a_connection_that_is_ready_in_german() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let device = device_and_stick(scratch, &site).await?;
        let desk = Desk::start(scratch, device.root(), (1024, 768)).await?;
        let mut window = desk.open(&desk.agent, "en")?;
        let words = Words {
            language: "de",
            choose: &["Down"],
        };
        to_the_address(&desk, &words).await?;

        // What is on the stick: from the line back to the list, and up to the first of it.
        desk.move_focus("shift+Tab").await?;
        desk.press(&["Up"]).await?;
        desk.until("the stick to be chosen", |view| {
            view["items"][0]["selected"].as_str() == Some("found-0")
        })
        .await?;
        desk.press(&["Return"]).await?;
        desk.step("check", "next").await?;
        desk.see("the check", |image| {
            is_screen(image, 3)?;
            compare("de-3-check", image, 0.03)
        })
        .await?;
        desk.press(&["Return"]).await?;
        // The credentials name the root and hold the key: nothing has to be compared or typed.
        let asked = desk.step("key", "next").await?;
        let dots = asked["items"][0]["text"].as_str().unwrap_or_default();
        ensure!(
            !dots.is_empty() && dots.chars().all(|c| c == '•'),
            "{asked}"
        );
        desk.see("the key", |image| {
            is_screen(image, 5)?;
            compare("de-5-key", image, 0.03)
        })
        .await?;
        // Back and on again.
        desk.press(&["Escape"]).await?;
        desk.step("address", "next").await?;
        desk.press(&["Return"]).await?;
        desk.step("check", "next").await?;
        desk.press(&["Return"]).await?;
        desk.step("key", "next").await?;
        desk.see("the key", |image| is_screen(image, 5)).await?;
        desk.press(&["Return"]).await?;
        desk.step("ready", "finish").await?;
        desk.see("the end", |image| is_screen(image, 7)).await?;
        desk.press(&["Return"]).await?;
        let status = window.wait(PATIENCE).await?;
        ensure!(status.success(), "{status}");
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn credentials_pasted_into_the_window_with_the_keyboard_are_taken_as_a_whole() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let device = device_and_stick(scratch, &site).await?;
        let credentials = std::fs::read(scratch.path("stick").join("icg.xml"))?;
        let lines = credentials.iter().filter(|byte| **byte == b'\n').count();
        ensure!(lines > 3, "a text of {lines} lines is no text");
        let desk = Desk::start(scratch, device.root(), (1024, 768)).await?;
        let mut window = desk.open(&desk.agent, "en")?;
        desk.step("language", "next").await?;
        desk.see("the first screen", |image| is_screen(image, 1))
            .await?;
        desk.press(&["Return"]).await?;
        desk.step("address", "next").await?;
        desk.see("the address", |image| is_screen(image, 2)).await?;

        // Another program of the screen has the text, as where a person has copied it.
        let _owner = desk.copy(&credentials)?;
        // Once the owner is there: what is asked for before is empty.
        eventually("the text to be on the clipboard", PATIENCE, async || {
            let mut command = desk.screen.command("xclip")?;
            command.args(["-selection", "clipboard", "-o"]);
            let output = run(
                scratch,
                "xclip-out",
                &mut command,
                b"",
                Duration::from_secs(30),
            )
            .await?;
            ensure!(output.stdout == credentials, "{output:?}");
            Ok(())
        })
        .await?;
        desk.press(&["ctrl+v"]).await?;
        desk.until("the word about the text", |view| {
            view["step"].as_str() == Some("address")
                && view["notice"]["tone"]
                    .as_str()
                    .is_some_and(|tone| tone != "problem")
        })
        .await?;
        desk.press(&["Return"]).await?;
        desk.step("check", "next").await?;
        desk.see("the check", |image| is_screen(image, 3)).await?;
        desk.press(&["Return"]).await?;
        // They name the root and hold the key: nothing has to be compared or typed.
        let asked = desk.step("key", "next").await?;
        let dots = asked["items"][0]["text"].as_str().unwrap_or_default();
        ensure!(
            !dots.is_empty() && dots.chars().all(|c| c == '•'),
            "{asked}"
        );
        desk.see("the key", |image| is_screen(image, 5)).await?;
        desk.press(&["Return"]).await?;
        desk.step("ready", "finish").await?;
        desk.see("the end", |image| is_screen(image, 7)).await?;
        desk.press(&["Return"]).await?;
        let status = window.wait(PATIENCE).await?;
        ensure!(status.success(), "{status}");
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

/// The screen that says that the assistant is gone: a sign of a problem, buttons, no steps.
fn has_stopped(image: &Image) -> anyhow::Result<()> {
    let there = count(image, whole(image), PROBLEM);
    ensure!(there > 200, "no sign of a problem: {there} pixels");
    is_screen(image, 0)
}

#[tokio::test]
async fn a_window_says_what_became_of_its_assistant_and_leaves_none_behind() {
    scenario(async |scratch| {
        let root = scratch.folder("device")?;
        // The smallest screen there is.
        let desk = Desk::start(scratch, &root, (800, 600)).await?;

        // No agent at all: said in words, and Esc closes.
        let mut window = desk.open(Path::new("/nowhere/umbra-agent"), "en")?;
        desk.see("that there is no agent", has_stopped).await?;
        desk.press(&["Escape"]).await?;
        ensure!(window.wait(PATIENCE).await?.code() == Some(1));

        // One that is killed: said, and Enter starts another.
        let mut window = desk.open(&desk.agent, "en")?;
        let first = desk.started(1).await?;
        desk.step("language", "next").await?;
        desk.see("the first screen", |image| is_screen(image, 1))
            .await?;
        kill(first, Signal::SIGKILL)?;
        desk.see("that the agent is gone", has_stopped).await?;
        desk.press(&["Return"]).await?;
        let second = desk.started(2).await?;
        desk.see("the first screen again", |image| is_screen(image, 1))
            .await?;
        ensure!(lives(second) && !lives(first));

        // A second window: told, and ended with the agent's own code.
        let mut other = desk.open(&desk.agent, "en")?;
        desk.until("that another is at work", |view| {
            view["step"].as_str() == Some("taken")
        })
        .await?;
        desk.see("that another is at work", |image| is_screen(image, 0))
            .await?;
        desk.press(&["Return"]).await?;
        ensure!(other.wait(PATIENCE).await?.code() == Some(75));

        // However a window ends, its agent ends with it.
        window.kill();
        gone(second).await?;
        // And a person who leaves is asked first.
        let mut window = desk.open(&desk.agent, "en")?;
        let last = desk.started(4).await?;
        desk.see("the first screen", |image| is_screen(image, 1))
            .await?;
        desk.press(&["Escape"]).await?;
        desk.step("leave", "leave").await?;
        desk.see("the question", |image| is_screen(image, 0))
            .await?;
        desk.move_focus("shift+Tab").await?;
        desk.move_focus("shift+Tab").await?;
        desk.press(&["Return"]).await?;
        ensure!(window.wait(PATIENCE).await?.code() == Some(1));
        ensure!(!lives(last), "the window did not wait for its agent");
        Ok(())
    })
    .await;
}

fn kill(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    Ok(nix::sys::signal::kill(pid, signal)?)
}
