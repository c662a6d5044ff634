//! What a device keeps: its identity and its server, with a disk that takes nothing from the start, and through a clock
//! that is decades wrong. Power cuts, step by step, are in `device_state`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use umbra_tests::program::{Program, product_words, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World};

/// Whether certificate and key of a device belong together, asked of a program that is not ours.
async fn pair_is_whole(scratch: &Scratch, device: &Device<'_>) -> anyhow::Result<bool> {
    let (certificate, key) = (
        device.certificate(),
        device.root().join("wfs/umbra/device.key"),
    );
    let certificate = certificate.display().to_string();
    let key = key.display().to_string();
    let public = async |arguments: &[&str]| -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new("openssl");
        Ok(
            run(scratch, "openssl", command.args(arguments), b"", PATIENCE)
                .await?
                .stdout,
        )
    };
    let of_certificate = public(&["x509", "-in", &certificate, "-noout", "-pubkey"]).await?;
    let of_key = public(&["pkey", "-in", &key, "-pubout"]).await?;
    Ok(!of_key.is_empty() && of_certificate == of_key)
}

/// The agent's name, as one types it into a shell.
fn agent_typed() -> anyhow::Result<String> {
    let words = product_words("umbra-agent")?;
    let words: Vec<String> = words
        .iter()
        .map(|word| word.display().to_string())
        .collect();
    Ok(words.join(" "))
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .permissions()
        .mode()
        & 0o777)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_made_once_and_its_key_is_the_owners_alone() {
    scenario(async |scratch| {
        let device = Device::new(scratch, "device", DeviceConfig::default())?;
        device.tell(&["identity"], "").await?;
        let first = std::fs::read(device.certificate())?;
        device.tell(&["identity"], "").await?;
        ensure!(
            std::fs::read(device.certificate())? == first,
            "the second start made another identity"
        );
        ensure!(
            pair_is_whole(scratch, &device).await?,
            "key and certificate do not belong together"
        );
        ensure!(mode(&device.root().join("wfs/umbra/device.key"))? == 0o600);
        ensure!(mode(&device.certificate())? == 0o644);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_is_told_and_costs_nothing_that_was_there() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let root = world.device.root().to_owned();
        world.device.kill();
        let certificate = std::fs::read(world.device.certificate())?;
        let enrolment = std::fs::read(root.join("wfs/umbra/enrolment.json"))?;
        let agent = agent_typed()?;
        // Every write fails as it does on a full disk.
        let full = |arguments: &str| {
            let mut command = Command::new("sh");
            let script = format!(
                "ulimit -f 0; trap '' XFSZ; exec {agent} --root {} {arguments}",
                root.display()
            );
            command.args(["-c", &script]);
            command
        };
        let mut agent = Program::start(scratch, "agent-full", &mut full("run"))?;
        world.device.wait_until_up().await?;
        world.device.wait_until_online().await?;
        let refused = world
            .device
            .output(&["registry", "set", "network.vncserver.instances", "3"], "")
            .await?;
        ensure!(
            !refused.status.success(),
            "a parameter was set that cannot have been kept"
        );
        let shadow = world.shadow("in spite of the disk").await?;
        shadow.view().await?.refresh().await?;
        agent.kill();
        ensure!(std::fs::read(world.device.certificate())? == certificate);
        ensure!(std::fs::read(root.join("wfs/umbra/enrolment.json"))? == enrolment);

        // A device that has no identity yet says so, and has one as soon as there is room.
        let fresh = Device::new(scratch, "fresh", DeviceConfig::default())?;
        let script = format!(
            "ulimit -f 0; trap '' XFSZ; exec {} --root {} identity",
            agent_typed()?,
            fresh.root().display()
        );
        let output = run(
            scratch,
            "identity-full",
            Command::new("sh").args(["-c", &script]),
            b"",
            PATIENCE,
        )
        .await?;
        ensure!(
            output.status.code() == Some(74),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        fresh.tell(&["identity"], "").await?;
        ensure!(pair_is_whole(scratch, &fresh).await?);
        Ok(())
    })
    .await;
}

/// The library that lets a program live at another time.
pub(crate) fn libfaketime() -> anyhow::Result<String> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime",
        "/usr/lib/aarch64-linux-gnu/faketime",
    ];
    let found = places
        .iter()
        .map(|place| format!("{place}/libfaketime.so.1"))
        .find(|path| Path::new(path).is_file());
    found.context("libfaketime is not installed: Debian's package libfaketime has it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_clock_is_decades_wrong_is_taken_on_and_shadowed() {
    scenario(async |scratch| {
        let screen = umbra_tests::world::desktop(scratch).await?;
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        for (name, date) in [
            ("old", "@1970-01-02 00:00:00"),
            ("young", "@2099-12-30 00:00:00"),
        ] {
            let mut device = Device::new(scratch, name, DeviceConfig::with_desktop(&screen))?;
            device.set_environment("LD_PRELOAD", &libfaketime()?);
            device.set_environment("FAKETIME", date);
            device.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            device.start()?;
            device
                .enrol(&server, &console.one_time_key().await?)
                .await
                .with_context(|| format!("in {date}"))?;
            device
                .wait_until_online()
                .await
                .with_context(|| format!("in {date}"))?;
            let shadow = console
                .shadow(&device.unit_id().await?, &[])
                .await
                .with_context(|| format!("in {date}"))?;
            shadow.view().await?.refresh().await?;
            // The same device with the right time is the same device.
            let certificate = std::fs::read(device.certificate())?;
            device.set_environment("FAKETIME", "+0");
            device.restart_hard()?;
            device.wait_until_up().await?;
            device
                .wait_until_online()
                .await
                .with_context(|| format!("back from {date}"))?;
            ensure!(
                std::fs::read(device.certificate())? == certificate,
                "the right time cost the identity"
            );
        }
        Ok(())
    })
    .await;
}
