//! The setup assistant on a device that runs, behind a gateway, as another face sees it: from credentials on a stick to a
//! connection that is ready, and by hand with wrong turns on the way.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use umbra_tests::program::product_command;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, PATIENCE};

use crate::site::Site;

/// An assistant that speaks JSON.
struct Assistant {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
    hears: ChildStdin,
    /// Everything that it showed.
    shown: Vec<Value>,
}

impl Assistant {
    fn start(device: &Device<'_>, stick: &Path) -> anyhow::Result<Self> {
        let mut child = Command::from(product_command("umbra-agent")?)
            .arg("--root")
            .arg(device.root())
            .args(["setup", "--face", "json", "--language", "en", "--media"])
            .arg(stick)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let says = child.stdout.take().context("no standard output")?;
        Ok(Self {
            says: BufReader::new(says).lines(),
            hears: child.stdin.take().context("no standard input")?,
            child,
            shown: Vec::new(),
        })
    }

    async fn say(&mut self, input: &Value) -> anyhow::Result<()> {
        let line = format!("{input}\n");
        timeout(PATIENCE, self.hears.write_all(line.as_bytes())).await??;
        Ok(())
    }

    async fn press(&mut self, action: &str) -> anyhow::Result<()> {
        self.say(&json!({"input": "press", "action": action})).await
    }

    async fn set(&mut self, entry: &str, text: &str) -> anyhow::Result<()> {
        self.say(&json!({"input": "set", "entry": entry, "text": text}))
            .await
    }

    /// The next view that is like this.
    async fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let looking = async {
            while let Some(line) = self.says.next_line().await? {
                let view: Value = serde_json::from_str(&line)?;
                self.shown.push(view.clone());
                if is(&view) {
                    return Ok(view);
                }
            }
            bail!("the assistant ended before {what}")
        };
        let seen = timeout(PATIENCE, looking).await;
        seen.unwrap_or_else(|_| bail!("no {what} in time"))
            .with_context(|| format!("last shown: {:?}", self.shown.last()))
    }

    /// Waits for this step with something to press.
    async fn step(&mut self, step: &str, action: &str) -> anyhow::Result<Value> {
        let what = format!("“{action}” at the step {step}");
        self.until(&what, |view| at(view, step) && can(view, action))
            .await
    }

    async fn finish(mut self) -> anyhow::Result<Vec<Value>> {
        self.press("finish").await?;
        let status = timeout(PATIENCE, self.child.wait()).await??;
        ensure!(status.success(), "{status}");
        Ok(self.shown)
    }
}

fn at(view: &Value, step: &str) -> bool {
    view["step"].as_str() == Some(step)
}

fn can(view: &Value, action: &str) -> bool {
    let actions = view["actions"].as_array().into_iter().flatten();
    actions
        .filter(|there| there["id"].as_str() == Some(action))
        .any(|there| there["enabled"].as_bool() == Some(true))
}

/// The part of a view with this ID.
fn item<'v>(view: &'v Value, id: &str) -> Option<&'v Value> {
    let items = view["items"].as_array()?;
    items.iter().find(|item| item["id"].as_str() == Some(id))
}

fn offers(view: &Value, option: &str) -> bool {
    let found = item(view, "found").and_then(|found| found["options"].as_array());
    let mut options = found.into_iter().flatten();
    options.any(|there| there["id"].as_str() == Some(option))
}

/// A device that runs behind the gateway and belongs to nobody.
async fn unconfigured<'s>(
    site: &Site<'s>,
    scratch: &'s umbra_tests::scratch::Scratch,
) -> anyhow::Result<Device<'s>> {
    let mut device = Device::new(scratch, "device", site.device_config())?;
    device.start()?;
    device.wait_until_up().await?;
    Ok(device)
}

#[tokio::test]
async fn credentials_on_a_stick_are_offered_and_bring_the_device_online() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let device = unconfigured(&site, scratch).await?;
        let stick = scratch.root().join("stick");
        std::fs::create_dir(&stick)?;
        let made = ["keys", "create", "--one-time", "5"];
        let made = site.console.tell(&made, "").await?;
        let file = stick.join("icg.xml");
        let file = file.to_str().context("no path")?;
        let export = ["keys", "export", "--format", "xml", "--out", file];
        site.console.tell(&export, "").await?;

        let mut assistant = Assistant::start(&device, &stick)?;
        assistant.step("language", "next").await?;
        assistant.press("next").await?;
        let offered = assistant
            .until("an offer of what is on the stick", |view| {
                offers(view, "found-0")
            })
            .await?;
        let chosen = item(&offered, "found").map(|found| &found["selected"]);
        ensure!(
            chosen.and_then(Value::as_str) != Some("found-0"),
            "it was chosen unasked: {offered}"
        );
        let choose = json!({"input": "choose", "choice": "found", "option": "found-0"});
        assistant.say(&choose).await?;
        assistant.press("next").await?;
        let checked = assistant.step("check", "next").await?;
        for stage in ["tcp", "tls", "chain", "gateway", "server"] {
            let state = item(&checked, stage).map(|line| &line["state"]);
            ensure!(
                state.and_then(Value::as_str) == Some("good"),
                "{stage}: {checked}"
            );
        }
        assistant.press("next").await?;
        // The credentials name the root and hold the key: nothing has to be compared or typed.
        let key = assistant.step("key", "next").await?;
        let dots = item(&key, "key").and_then(|key| key["text"].as_str());
        ensure!(
            dots.is_some_and(|dots| !dots.is_empty() && dots.chars().all(|c| c == '•')),
            "{key}"
        );
        assistant.press("next").await?;
        assistant.step("ready", "finish").await?;
        let shown = assistant.finish().await?;
        let steps: HashSet<&str> = shown
            .iter()
            .filter_map(|view| view["step"].as_str())
            .collect();
        ensure!(!steps.contains("fingerprint"), "{steps:?}");
        let shown = json!(shown).to_string();
        for key in made.as_array().context("no list of keys")? {
            let key = key["key"].as_str().context("no key")?;
            ensure!(!shown.contains(key), "a key was shown");
        }
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_person_finds_the_way_back_from_every_wrong_turn() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let device = unconfigured(&site, scratch).await?;
        let key = site.console.one_time_key().await?;
        let fingerprint = site.server.fingerprint().to_owned();
        let parts: Vec<&str> = fingerprint.split('-').collect();
        let mut assistant = Assistant::start(&device, scratch.root())?;
        assistant.step("language", "next").await?;
        assistant.press("next").await?;
        assistant.step("address", "next").await?;

        // No address at all, then one at which nobody listens.
        assistant.set("address", "not an address").await?;
        assistant.press("next").await?;
        assistant
            .until("a word about the address", |view| {
                at(view, "address") && !view["notice"].is_null()
            })
            .await?;
        assistant.set("address", "127.0.0.1:1").await?;
        assistant.press("next").await?;
        let failed = assistant.step("check", "again").await?;
        let tcp = item(&failed, "tcp").context("no line about the network")?;
        ensure!(tcp["state"].as_str() == Some("failed"), "{tcp}");
        assistant.press("back").await?;
        assistant.step("address", "next").await?;
        let gateway = site.gateway.external().to_string();
        assistant.set("address", &gateway).await?;
        assistant.press("next").await?;
        assistant.step("check", "next").await?;
        assistant.press("next").await?;

        // A wrong part, and then the missing one as people type it.
        let asked = assistant.step("fingerprint", "back").await?;
        let facts = asked["items"].as_array().context("no items")?;
        let shown = |part: &str| {
            facts.iter().any(|fact| {
                let value = fact["value"].as_str().unwrap_or_default().replace(' ', "");
                value.eq_ignore_ascii_case(part)
            })
        };
        let missing: Vec<&&str> = parts.iter().filter(|part| !shown(part)).collect();
        let [missing] = missing.as_slice() else {
            bail!("not exactly one part is missing: {asked}");
        };
        assistant.set("part", "0000 1111 2222 3333").await?;
        assistant.press("next").await?;
        assistant
            .until("a word about the part", |view| {
                at(view, "fingerprint") && !view["notice"].is_null()
            })
            .await?;
        let typed = missing.to_lowercase().replace('0', "O");
        assistant.set("part", &format!(" {typed} ")).await?;
        assistant.press("next").await?;

        // A key that the server does not know, and then the right one.
        assistant.step("key", "back").await?;
        assistant.set("key", "ABCDE-FGHJK-MNPQR-STVWX").await?;
        assistant.press("next").await?;
        let refused = assistant.step("log_on", "key").await?;
        ensure!(!refused["notice"].is_null(), "{refused}");
        assistant.press("key").await?;
        assistant.step("key", "back").await?;
        assistant.set("key", &format!("{key}\n")).await?;
        assistant.press("next").await?;
        assistant.step("ready", "finish").await?;
        assistant.finish().await?;
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}
