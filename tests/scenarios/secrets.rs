//! Where the secrets of a complete run are, and where they are not: whatever could be shown to somebody (logs, process lists, environments,
//! files of others), and the memory of the agent once it needs them no more.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::rfb_client::{Options, RfbClient};
use umbra_tests::scratch::scenario;
use umbra_tests::tunnel::dial;
use umbra_tests::world::{Offer, PATIENCE, World};

/// What nobody else may learn, and in which files it has its place.
struct Secret {
    what: &'static str,
    bytes: Vec<u8>,
    at_home: Vec<PathBuf>,
}

impl Secret {
    fn new(
        what: &'static str,
        bytes: impl Into<Vec<u8>>,
        at_home: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let bytes = bytes.into().trim_ascii().to_vec();
        ensure!(bytes.len() >= 12, "{what} is too short to be looked for");
        Ok(Self {
            what,
            bytes,
            at_home: at_home.to_vec(),
        })
    }

    /// A private key, by a line from the middle of its PEM text.
    fn private_key(what: &'static str, path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        // A certificate may stand before it.
        let inside = text
            .split_once("PRIVATE KEY-----")
            .map(|(_, inside)| inside);
        let line = inside.and_then(|inside| inside.lines().find(|line| line.len() > 32));
        let line = line.with_context(|| format!("{} is no private key", path.display()))?;
        Self::new(what, line, &[path.to_owned()])
    }

    fn is_in(&self, place: &[u8]) -> bool {
        place
            .windows(self.bytes.len())
            .any(|window| window == self.bytes)
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut open, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Name, command line and environment of every process that this scenario has started.
fn process_list() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let parent = format!("PPid:\t{}", std::process::id());
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        // Processes end while they are looked at.
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        if !status.lines().any(|line| line == parent) {
            continue;
        }
        let of = |what: &str| std::fs::read(path.join(what)).unwrap_or_default();
        let name = String::from_utf8_lossy(&of("comm")).trim().to_owned();
        seen.push((name, [of("cmdline"), of("environ")].concat()));
    }
    Ok(seen)
}

/// All that a process has written into its memory and could write into a core file.
fn memory(pid: u32) -> anyhow::Result<Vec<u8>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut file = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            continue;
        };
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').context("a range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        // A part that the kernel keeps to itself can't be read, and isn't in a core file either.
        if (&mut file).take(to - from).read_to_end(&mut part).is_ok() {
            all.extend(part);
        }
    }
    Ok(all)
}

/// A session from its offer to its end.
async fn session(world: &World<'_>) -> anyhow::Result<Offer> {
    let name = world.device_name().await?;
    let offer = world.console.offer(&world.server, &name, false).await?;
    let mut tunnel = dial(world.device.shadow_address().await?, PATIENCE).await?;
    tunnel.say(offer.preface().as_bytes()).await?;
    ensure!(tunnel.line(PATIENCE).await? == "UMBRA/1 ok");
    let mut viewer = RfbClient::start(tunnel.into_stream(), &Options::default()).await?;
    viewer.refresh().await?;
    Ok(offer)
}

/// Everything that was secret in this run.
fn secrets(world: &World<'_>, key: &str, offer: &Offer) -> anyhow::Result<Vec<Secret>> {
    let mut all = vec![
        // The console keeps it until it is handed over.
        Secret::new(
            "the first-authentication key",
            key,
            &[world.console.config().with_extension("keys.json")],
        )?,
        Secret::new("the session's password", &*offer.password, &[])?,
        Secret::new("the session's ticket", &*offer.ticket, &[])?,
        Secret::new(
            "the administrator's password",
            std::fs::read(world.server.password_file())?,
            &[world.server.password_file()],
        )?,
        Secret::new(
            "the console's token",
            world.console.token().context("nobody is logged in")?,
            &[world.console.config().to_owned()],
        )?,
        Secret::private_key(
            "the device's private key",
            &world.device.root().join("wfs/umbra/device.key"),
        )?,
    ];
    let before = all.len();
    for path in files(world.server.state())? {
        let text = std::fs::read(&path)?;
        if text.starts_with(b"-----BEGIN") && text.windows(12).any(|part| part == b" PRIVATE KEY") {
            all.push(Secret::private_key("a private key of the server", &path)?);
        }
    }
    ensure!(all.len() > before, "the server has no private key");
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_complete_run_is_found_where_others_look() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let key = {
            // A second time, so that the key of a taking-on is known here: with it the device comes back as the one that it was.
            let key = world.console.one_time_key().await?;
            world.device.tell(&["leave"], "").await?;
            world.device.enrol(&world.server, &key).await?;
            world.device.wait_until_online().await?;
            key
        };
        let offer = session(&world).await?;
        let mut shadow = world.shadow("a look").await?;
        shadow.view().await?.refresh().await?;
        let secrets = secrets(&world, &key, &offer)?;

        // While all of it runs.
        let processes = process_list()?;
        // Device, server and console, whatever their files are called.
        ensure!(
            processes.len() >= 3,
            "only {} programs run",
            processes.len()
        );
        for (name, words) in &processes {
            for secret in &secrets {
                ensure!(
                    !secret.is_in(words),
                    "{} is in the process list, at {name}",
                    secret.what
                );
            }
        }

        let pid = world.device.program().context("no agent runs")?.pid();
        shadow.program().signal(nix::sys::signal::Signal::SIGINT);
        shadow.finished().await?;
        world.console.ended_session(&offer.session).await?;

        // What the console was asked to print is the business of whoever asked.
        let own = |path: &Path| {
            path.starts_with(scratch.path("log")) && {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                name.starts_with("console") || name.starts_with("umbra.")
            }
        };
        let all = files(scratch.root())?;
        ensure!(all.len() > 10, "only {all:?}");
        for path in all.iter().filter(|path| !own(path)) {
            let content = std::fs::read(path)?;
            for secret in secrets
                .iter()
                .filter(|secret| !secret.at_home.contains(path))
            {
                ensure!(
                    !secret.is_in(&content),
                    "{} is in {}",
                    secret.what,
                    path.display()
                );
            }
        }
        for secret in &secrets {
            for home in &secret.at_home {
                ensure!(
                    secret.is_in(&std::fs::read(home)?),
                    "{} is not at home",
                    secret.what
                );
            }
        }

        // What a core file of the agent would tell once the taking-on and the session are over: a key may be good for many devices. The
        // device's own key is in use.
        let used = [
            ("the key as it was typed", key.clone()),
            ("the key as it is reckoned with", key.replace('-', "")),
            ("the session's password", offer.password.clone()),
            ("the session's ticket", offer.ticket.clone()),
        ];
        for (what, text) in used {
            let secret = Secret::new(what, text, &[])?;
            eventually_is(
                &format!("{what} to leave the agent's memory"),
                SOON,
                || match memory(pid) {
                    Ok(all) if !secret.is_in(&all) => Ok(()),
                    Ok(_) => Err("it is still there".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
            )
            .await?;
        }
        let device = world.device_name().await?;
        ensure!(
            memory(pid)?
                .windows(device.len())
                .any(|part| part == device.as_bytes()),
            "not even the device's name is in the agent's memory: the search itself does not work"
        );
        Ok(())
    })
    .await;
}
