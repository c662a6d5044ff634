//! Every wrong turn that a person can take in the setup assistant, in a terminal, in both languages: what is told, that nothing is
//! lost by a power cut or by leaving, and that in the end the connection is ready.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use umbra_tests::eventually::eventually;
use umbra_tests::front::{dnsmasq_with, own_names};
use umbra_tests::netns::isolate;
use umbra_tests::program::product_words;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, PATIENCE};

use super::screen::{Terminal, compare, gone, settled};
use crate::site::Site;

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// A key of the right form that no server knows.
const UNKNOWN_KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";
/// Which part of the fingerprint is asked for: the third.
const ASKED: usize = 2;

/// How the assistant comes to an early end.
#[derive(Clone, Copy)]
enum BreakOff {
    PowerCut,
    Keyboard,
    Button,
}

impl BreakOff {
    const ALL: [Self; 3] = [Self::PowerCut, Self::Keyboard, Self::Button];
}

/// A person in front of the assistant.
struct Person<'s> {
    scratch: &'s Scratch,
    language: &'static str,
    program: Vec<String>,
    progress: PathBuf,
    changing: Vec<(String, &'static str)>,
    terminals: usize,
    terminal: Terminal,
}

impl<'s> Person<'s> {
    async fn sit_down(
        scratch: &'s Scratch,
        site: &Site<'_>,
        device: &Device<'_>,
        language: &'static str,
        media: &[&str],
    ) -> anyhow::Result<Self> {
        let text = |path: PathBuf| path.to_str().map(str::to_owned).context("no path");
        let agent = product_words("umbra-agent")?.into_iter().map(text);
        let mut program = agent.collect::<anyhow::Result<Vec<String>>>()?;
        program.extend(["--root".to_owned(), text(device.root().to_owned())?]);
        let words = ["setup", "--face", "terminal", "--language", language];
        program.extend(words.map(str::to_owned));
        for medium in media {
            program.extend(["--media".to_owned(), (*medium).to_owned()]);
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
        let host = host.trim();
        let terminal = open(scratch, &format!("{language}-0"), &program).await?;
        Ok(Self {
            scratch,
            language,
            program,
            progress: device.root().join("wfs/umbra/setup.json"),
            changing: vec![
                (site.gateway.external().to_string(), "GATEWAY"),
                (format!("name: {host}"), "name: HOST"),
                (format!("Gerätename: {host}"), "Gerätename: HOST"),
            ],
            terminals: 0,
            terminal,
        })
    }

    /// What stands in this person's language.
    fn says<'a>(&self, english: &'a str, german: &'a str) -> &'a str {
        match self.language {
            "de" => german,
            _ => english,
        }
    }

    /// Waits for a screen with these words, holds it against the one that is kept, and gives it.
    async fn sees(&self, name: &str, words: &[&str]) -> anyhow::Result<String> {
        let screen = self.terminal.screen(words).await.context(name.to_owned())?;
        let file = format!("{}-wrong-{name}", self.language);
        compare(&file, &settled(&screen, &self.changing))?;
        Ok(screen)
    }

    async fn step(&self, number: usize) -> anyhow::Result<String> {
        let words = format!("{} {number} ", self.says("Step", "Schritt"));
        self.terminal.screen(&[&words]).await
    }

    async fn press(&self, key: &str) -> anyhow::Result<()> {
        self.terminal.press(&[key]).await
    }

    /// Types another line than before and goes on with it.
    async fn tries(&self, line: &str) -> anyhow::Result<()> {
        self.terminal.clear().await?;
        self.terminal.type_in(line).await?;
        self.press("Enter").await
    }

    /// Starts the assistant again after it has ended.
    async fn comes_back(&mut self) -> anyhow::Result<()> {
        self.terminals += 1;
        let name = format!("{}-{}", self.language, self.terminals);
        self.terminal = open(self.scratch, &name, &self.program).await?;
        Ok(())
    }

    /// The power fails, and comes back.
    async fn loses_power(&mut self) -> anyhow::Result<()> {
        self.terminal.cut().await?;
        self.comes_back().await
    }

    /// Leaves by the keyboard, and comes back.
    async fn leaves(&mut self) -> anyhow::Result<()> {
        let process = self.terminal.process().await?;
        self.press("C-c").await?;
        gone(process).await?;
        self.comes_back().await
    }

    /// Presses the button that leaves, stays at first, and comes back.
    async fn cancels(&mut self) -> anyhow::Result<()> {
        let process = self.terminal.process().await?;
        let before = self.terminal.screen(&["[ Cancel ]"]).await?;
        for answer in [["Enter"].as_slice(), &["Tab", "Enter"]] {
            let now = self.terminal.screen(&["[ Cancel ]"]).await?;
            ensure!(now == before, "staying changed something:\n{before}\n{now}");
            // The last button comes before the first thing on the screen.
            self.terminal.press(&["BTab", "Enter"]).await?;
            let question = ["Leave the setup?", "[>Stay<]  [ Leave ]"];
            self.terminal.screen(&question).await?;
            self.terminal.press(answer).await?;
        }
        gone(process).await?;
        self.comes_back().await
    }

    async fn breaks_off(&mut self, way: BreakOff) -> anyhow::Result<()> {
        match way {
            BreakOff::PowerCut => self.loses_power().await,
            BreakOff::Keyboard => self.leaves().await,
            BreakOff::Button => self.cancels().await,
        }
    }

    /// Changes what the assistant keeps, while none runs.
    fn rewrites(&self, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let mut kept: Value = serde_json::from_slice(&std::fs::read(&self.progress)?)?;
        change(&mut kept);
        std::fs::write(&self.progress, kept.to_string())?;
        Ok(())
    }

    fn kept(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.progress)?)
    }
}

async fn open(scratch: &Scratch, name: &str, program: &[String]) -> anyhow::Result<Terminal> {
    let words: Vec<&str> = program.iter().map(String::as_str).collect();
    Terminal::start(scratch, name, &words).await
}

/// A device in a network whose name server knows nothing.
async fn lost_device<'s>(scratch: &'s Scratch, site: &Site<'s>) -> anyhow::Result<Device<'s>> {
    let mut config = site.device_config();
    config
        .set("umbra.discovery.dns", "false")
        .set("umbra.discovery.dhcp", "false");
    let mut device = Device::new(scratch, "device", config)?;
    std::fs::create_dir_all(device.root().join("etc"))?;
    let text = format!("nameserver {RESOLVER}\n");
    std::fs::write(device.root().join("etc/resolv.conf"), text)?;
    device.start()?;
    device.wait_until_up().await?;
    Ok(device)
}

/// Sticks that hold nothing that could be used.
fn bad_sticks(scratch: &Scratch, whole: &str) -> anyhow::Result<[&'static str; 3]> {
    let names = ["stick-cut", "stick-huge", "stick-bomb"];
    let bomb =
        "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"x\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
    let contents = [
        whole[..whole.len() / 2].to_owned(),
        "x".repeat(10 * 1024 * 1024),
        bomb.to_owned(),
    ];
    for (name, content) in names.iter().zip(contents) {
        let folder = scratch.root().join(name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("icg.xml"), content)?;
    }
    Ok(names)
}

/// The keys that open no door: unknown, disabled, used up.
async fn bad_keys(site: &Site<'_>) -> anyhow::Result<[(&'static str, String); 3]> {
    let made = site.console.tell(&["keys", "create"], "").await?;
    let made = made.pointer("/0").unwrap_or(&made);
    let field = |name: &str| {
        made.get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .with_context(|| format!("no {name} in {made}"))
    };
    let (id, disabled) = (field("id")?, field("key")?);
    site.console.tell(&["keys", "disable", &id], "").await?;
    let used = site.console.one_time_key().await?;
    let other = site.new_device(9, site.device_config(), None).await?;
    other
        .enrol_at(site.gateway.external(), site.server.fingerprint(), &used)
        .await?;
    Ok([
        ("unknown", UNKNOWN_KEY.to_owned()),
        ("disabled", disabled),
        ("used", used),
    ])
}

/// The part of the fingerprint that is not on the screen, as somebody types it who is not used to it.
fn clumsily(part: &str) -> String {
    let lower = part.to_lowercase().replace('0', "O");
    let groups: Vec<&str> = [0, 4, 8, 12].iter().map(|at| &lower[*at..at + 4]).collect();
    format!(" {}:{} {}:{} ", groups[0], groups[1], groups[2], groups[3])
}

async fn wrong_addresses(person: &mut Person<'_>) -> anyhow::Result<()> {
    // Connections wait there for ever: nobody takes them in.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let place = silent.local_addr()?.to_string();
    person.changing.push((place.clone(), "SILENT"));
    let person = &*person;
    let empty = person.says("Type an address", "Geben Sie eine Adresse ein");
    person.press("Enter").await?;
    person.sees("address-empty", &[empty]).await?;
    person.tries("g\u{430}teway.example.com").await?;
    person.sees("address-homograph", &["xn--"]).await?;
    let none = person.says("names no gateway", "nennt kein Gateway");
    person.tries("somebody@nowhere.example").await?;
    person
        .sees("address-mail", &[none, "nowhere.example"])
        .await?;

    let checked = async |name: &str, address: &str, words: &[&str]| -> anyhow::Result<()> {
        person.tries(address).await?;
        let screen = person.sees(name, words).await?;
        ensure!(screen.contains("[x]"), "nothing failed:\n{screen}");
        person.press("Escape").await?;
        person.step(2).await?;
        Ok(())
    };
    let unknown = person.says("DNS knows no", "kennt das Netzwerk nicht");
    checked("check-unknown-name", "nowhere.example", &[unknown]).await?;
    let refused = person.says("refuses connections", "nimmt keine Verbindung an");
    checked("check-closed-port", "127.0.0.1:1", &[refused]).await?;
    let says_nothing = person.says("then says nothing", "sagt dann nichts");
    checked("check-silent", &place, &[says_nothing]).await?;
    drop(silent);
    Ok(())
}

/// From the address to the fingerprint, with the third part missing.
async fn to_the_fingerprint(person: &mut Person<'_>, site: &Site<'_>) -> anyhow::Result<()> {
    let root = site.server.fingerprint();
    let good = person.says("The connection works.", "Die Verbindung funktioniert.");
    let good = &[good];
    person.tries(&site.gateway.external().to_string()).await?;
    person.terminal.screen(good).await?;
    person.press("Enter").await?;
    person.step(4).await?;
    // Which part is missing was drawn by lot, and stays the same over a power cut.
    person.terminal.cut().await?;
    person.rewrites(|kept| kept["asked"] = json!([root, ASKED]))?;
    person.comes_back().await?;
    person.sees("check-good", good).await?;
    person.press("Enter").await?;
    person.step(4).await?;
    Ok(())
}

async fn wrong_parts(person: &mut Person<'_>, patient: bool) -> anyhow::Result<()> {
    person.tries("0123").await?;
    let short = person.says("This has 4.", "Das sind 4.");
    person.sees("part-short", &[short]).await?;
    let again = person.says("This is not part 3", "Das ist nicht Teil 3");
    for _ in 0..2 {
        person.tries("0000 1111 2222 3333").await?;
        person.terminal.screen(&[again]).await?;
    }
    person.sees("part-wrong", &[again]).await?;
    person.tries("0000 1111 2222 3333").await?;
    let third = person.says("Wrong 3 times", "3-mal falsch");
    person.sees("part-pause", &[third]).await?;
    // Neither a power cut nor leaving gets round the pause.
    person.loses_power().await?;
    person.step(3).await?;
    person.press("Enter").await?;
    let screen = person.terminal.screen(&[third]).await?;
    let seconds = |screen: &str| -> anyhow::Result<u32> {
        let words: Vec<&str> = screen.split_whitespace().collect();
        let at = words
            .iter()
            .position(|word| word.starts_with("second") || word.starts_with("Sekunde"));
        Ok(words[at.context("no seconds")? - 1].parse()?)
    };
    let first = seconds(&screen)?;
    ensure!((1..=30).contains(&first), "{first} seconds:\n{screen}");
    if patient {
        let over = person.says(
            "You can try again now.",
            "Sie können es jetzt wieder versuchen.",
        );
        eventually("the end of the pause", PATIENCE, async || {
            person.terminal.screen(&[over]).await.map(|_| ())
        })
        .await?;
        person.tries("0000 1111 2222 3333").await?;
        let screen = person
            .terminal
            .screen(&[person.says("Wrong 4 times", "4-mal falsch")])
            .await?;
        let next = seconds(&screen)?;
        ensure!(next > 30, "the pause does not grow: {next} seconds");
    }
    // A person would wait.
    person.terminal.cut().await?;
    person.rewrites(|kept| kept["wrong"] = json!(0))?;
    person.comes_back().await?;
    person.step(3).await?;
    person.press("Enter").await?;
    person.step(4).await?;
    Ok(())
}

async fn wrong_keys(person: &Person<'_>, keys: &[(&str, String)]) -> anyhow::Result<()> {
    let other = person.says("Other key", "Anderer Schlüssel");
    for (name, key) in keys {
        person.terminal.clear().await?;
        person.terminal.type_in(key).await?;
        let screen = person
            .terminal
            .screen(&[&"•".repeat(key.chars().count())])
            .await?;
        ensure!(
            !screen.contains(key.as_str()),
            "the key is to be seen:\n{screen}"
        );
        person.press("Enter").await?;
        person.sees(&format!("key-{name}"), &[other]).await?;
        person.press("Enter").await?;
        person.step(5).await?;
    }
    Ok(())
}

async fn walk(scratch: &Scratch, language: &'static str, patient: bool) -> anyhow::Result<()> {
    isolate()?;
    own_names(scratch)?.set_resolver(Some(RESOLVER))?;
    let _dns = dnsmasq_with(scratch, "dnsmasq", RESOLVER, &[], &[]).await?;
    let site = Site::start(scratch).await?;
    let device = lost_device(scratch, &site).await?;
    let keys = bad_keys(&site).await?;
    let key = site.console.one_time_key().await?;
    let whole = scratch.root().join("whole.xml");
    let file = whole.to_str().context("no path")?;
    let export = ["keys", "export", "--format", "xml", "--out", file];
    site.console.tell(&export, "").await?;
    let media = bad_sticks(scratch, &std::fs::read_to_string(&whole)?)?;

    let mut person = Person::sit_down(scratch, &site, &device, language, &media).await?;
    person.changing.push((key.clone(), "KEY"));
    person.step(1).await?;
    person.press("Enter").await?;
    let sticks = person
        .sees("address-sticks", &["stick-cut", "stick-huge", "stick-bomb"])
        .await?;
    ensure!(!sticks.contains("&c;"), "{sticks}");
    wrong_addresses(&mut person).await?;
    to_the_fingerprint(&mut person, &site).await?;
    wrong_parts(&mut person, patient).await?;
    let parts: Vec<&str> = site.server.fingerprint().split('-').collect();
    let Some(part) = parts.get(ASKED).filter(|_| parts.len() == 4) else {
        bail!("a fingerprint of other parts: {parts:?}");
    };
    person.tries(&clumsily(part)).await?;
    let right = person.says("The fingerprint is right.", "Der Fingerabdruck stimmt.");
    person.sees("part-right", &[right]).await?;

    wrong_keys(&person, &keys).await?;
    // The right one, as it is copied out of a letter.
    person.terminal.clear().await?;
    person.terminal.paste(&format!("  {key} \n")).await?;
    let hide = person.says("[F2: hide]", "[F2: verbergen]");
    let show = person.says("[F2: show]", "[F2: anzeigen]");
    let masked = person.terminal.screen(&[show, "•"]).await?;
    ensure!(!masked.contains(&key), "the key is to be seen:\n{masked}");
    person.press("F2").await?;
    person.sees("key-revealed", &[hide, &key]).await?;
    person.press("F2").await?;
    let masked = person.terminal.screen(&[show, "•"]).await?;
    ensure!(!masked.contains(&key), "the key is to be seen:\n{masked}");
    ensure!(!person.kept()?.contains(&key), "the key is on the disk");
    person.press("Enter").await?;
    person
        .sees(
            "ready",
            &[person.says("Connection ready", "Verbindung bereit")],
        )
        .await?;
    let process = person.terminal.process().await?;
    person.press("Enter").await?;
    gone(process).await?;
    device.wait_until_online().await?;
    let name = device.unit_id().await?;
    site.wait_for_way(&name, Some("icg")).await?;
    Ok(())
}

#[tokio::test]
async fn every_wrong_turn_is_told_in_english_and_ends_in_a_connection_that_is_ready() {
    scenario(async |scratch| walk(scratch, "en", true).await).await;
}

#[tokio::test]
async fn every_wrong_turn_is_told_in_german_and_ends_in_a_connection_that_is_ready() {
    scenario(async |scratch| walk(scratch, "de", false).await).await;
}

#[tokio::test]
async fn a_power_cut_and_leaving_cost_nothing_at_any_step_and_there_is_one_assistant_at_a_time() {
    scenario(async |scratch| {
        isolate()?;
        own_names(scratch)?.set_resolver(Some(RESOLVER))?;
        let site = Site::start(scratch).await?;
        let device = lost_device(scratch, &site).await?;
        let key = site.console.one_time_key().await?;
        let mut person = Person::sit_down(scratch, &site, &device, "en", &["no-stick"]).await?;
        let gateway = site.gateway.external().to_string();

        // The language: nothing was entered yet, so it begins anew.
        person.step(1).await?;
        person.loses_power().await?;
        person.step(1).await?;
        person.leaves().await?;
        person.step(1).await?;
        person.cancels().await?;
        person.step(1).await?;
        person.press("Escape").await?;
        person.sees("leave", &["Leave the setup?"]).await?;
        person.press("Escape").await?;
        person.step(1).await?;
        person.press("Enter").await?;

        // The address.
        person.step(2).await?;
        person.loses_power().await?;
        person
            .sees("resumed", &["Step 2 of 7", "goes on where it stopped"])
            .await?;
        person.leaves().await?;
        person.step(2).await?;
        person.cancels().await?;
        person.step(2).await?;
        person.press("Escape").await?;
        person.step(1).await?;
        person.press("Enter").await?;
        person.step(2).await?;

        // A second assistant meanwhile.
        let second = open(scratch, "second", &person.program).await?;
        let other = second.screen(&["Setup is running already"]).await?;
        let first = person.terminal.process().await?;
        let told: Vec<&str> = other.split_whitespace().collect();
        let told = told.join(" ");
        ensure!(told.contains(&format!("PID {first}.")), "{other}");
        let process = second.process().await?;
        second.press(&["Enter"]).await?;
        gone(process).await?;
        person.step(2).await?;

        // The check, while it runs: it begins anew.
        let silent = TcpListener::bind("127.0.0.1:0").await?;
        person.tries(&silent.local_addr()?.to_string()).await?;
        let held = timeout(PATIENCE, silent.accept()).await??;
        person.terminal.cut().await?;
        drop((held, silent));
        person.comes_back().await?;
        person
            .terminal
            .screen(&["Step 3 of 7", "refuses connections"])
            .await?;
        person.press("Escape").await?;
        person.step(2).await?;

        // The check.
        person.tries(&gateway).await?;
        person.terminal.screen(&["The connection works."]).await?;
        person.loses_power().await?;
        person
            .terminal
            .screen(&["Step 3 of 7", "The connection works."])
            .await?;
        for way in [BreakOff::Keyboard, BreakOff::Button] {
            person.breaks_off(way).await?;
            person
                .terminal
                .screen(&["Step 3 of 7", "The connection works."])
                .await?;
        }
        person.press("Escape").await?;
        let address = person.step(2).await?;
        ensure!(
            address.contains(&gateway),
            "what was typed is lost:\n{address}"
        );
        person.press("Enter").await?;
        person
            .terminal
            .screen(&["Step 3 of 7", "The connection works."])
            .await?;
        person.press("Enter").await?;

        // The fingerprint: the same part is missing afterwards.
        let asked = person.step(4).await?;
        for way in BreakOff::ALL {
            person.breaks_off(way).await?;
            person
                .terminal
                .screen(&["Step 3 of 7", "The connection works."])
                .await?;
            person.press("Enter").await?;
            let now = person.step(4).await?;
            ensure!(asked == now, "another part is missing:\n{asked}\n{now}");
        }
        person.press("Escape").await?;
        person.step(2).await?;
        person.press("Enter").await?;
        person
            .terminal
            .screen(&["Step 3 of 7", "The connection works."])
            .await?;
        person.press("Enter").await?;
        let shown = person.step(4).await?.replace(' ', "");
        let parts = site.server.fingerprint().split('-');
        let missing = parts
            .filter(|part| !shown.contains(part))
            .collect::<Vec<_>>();
        let [missing] = missing.as_slice() else {
            bail!("not exactly one part is missing:\n{shown}");
        };
        person.tries(missing).await?;

        // The key: it is never kept; what was compared is.
        for way in BreakOff::ALL {
            person.step(5).await?;
            person.terminal.type_in(UNKNOWN_KEY).await?;
            person.terminal.screen(&["•••••"]).await?;
            person.breaks_off(way).await?;
            ensure!(
                !person.kept()?.contains(UNKNOWN_KEY),
                "the key is on the disk"
            );
            person
                .terminal
                .screen(&["Step 3 of 7", "The connection works."])
                .await?;
            person.press("Enter").await?;
            let empty = person.step(5).await?;
            ensure!(!empty.contains('•'), "the key came back:\n{empty}");
        }
        person.press("Escape").await?;
        person.step(2).await?;
        person.press("Enter").await?;
        person
            .sees("check-compared", &["Step 3 of 7", "already"])
            .await?;
        person.press("Enter").await?;
        person.step(5).await?;

        // Logging on, refused.
        for way in BreakOff::ALL {
            person.tries(UNKNOWN_KEY).await?;
            person
                .terminal
                .screen(&["Step 6 of 7", "Other key"])
                .await?;
            person.breaks_off(way).await?;
            person
                .terminal
                .screen(&["Step 3 of 7", "The connection works."])
                .await?;
            person.press("Enter").await?;
            person.step(5).await?;
        }
        person.tries(UNKNOWN_KEY).await?;
        person
            .terminal
            .screen(&["Step 6 of 7", "Other key"])
            .await?;
        person.press("Escape").await?;
        person.step(5).await?;
        person.tries(&key).await?;
        person.terminal.screen(&["Connection ready"]).await?;
        // Even now, with nothing left to do.
        person.loses_power().await?;
        person.sees("belongs", &["Already set up"]).await?;
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}
