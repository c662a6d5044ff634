//! The partition with the device's state is not there, comes late, or can only be read.

use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{DeviceConfig, desktop};

use super::*;
use crate::enrolment::{enroll_words, readable, refused, site, text};

/// A device as it is on the road: its system can only be read, and where its state is mounted there is an empty folder, or none.
struct Road<'s> {
    device: Device<'s>,
    scratch: &'s Scratch,
    partition: PathBuf,
    /// The namespace of mounts, while the device is switched on.
    holder: Option<(Program, String)>,
}

impl<'s> Road<'s> {
    fn new(scratch: &'s Scratch, config: DeviceConfig) -> anyhow::Result<Self> {
        let device = Device::new(scratch, "device", config)?;
        std::fs::create_dir(device.root().join("run"))?;
        Ok(Self {
            device,
            scratch,
            partition: scratch.folder("partition")?,
            holder: None,
        })
    }

    fn mount(&self) -> String {
        let to = self.device.root().join("wfs");
        format!("mount --bind {} {}", self.partition.display(), to.display())
    }

    /// Switches it on, with something done to its mounts.
    async fn boot(&mut self, more: &str) -> anyhow::Result<Program> {
        let place = self.device.root().display().to_string();
        let memory = self.scratch.folder("memory")?;
        let script = format!(
            "mount --bind {place} {place}; mount -o remount,ro,bind {place}; \
             mount --bind {} {place}/run; {more}",
            memory.display()
        );
        let (holder, pid) = in_namespace(self.scratch, &script).await?;
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &pid]);
        command.args(product_words("umbra-agent")?);
        command.arg("--root").arg(self.device.root()).arg("run");
        self.holder = Some((holder, pid));
        Ok(Program::start(self.scratch, "agent", &mut command)?)
    }

    fn entered(&self) -> anyhow::Result<&str> {
        Ok(&self.holder.as_ref().context("switched off")?.1)
    }

    /// A command in there.
    async fn shell(&self, script: &str) -> anyhow::Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", self.entered()?, "sh", "-c", script]);
        let output = run(self.scratch, "shell", &mut command, b"", PATIENCE).await?;
        ensure!(output.status.success(), "{script}: {}", said(&output));
        Ok(())
    }

    async fn agent(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let enter = ["nsenter", "-m", "-t", self.entered()?];
        agent_under(self.scratch, &enter, self.device.root(), arguments, input).await
    }

    async fn at(&self, stage: &str) -> anyhow::Result<Value> {
        let look = async || {
            let output = self.agent(&["status", "--json"], "").await;
            let output = output.map_err(|error| error.to_string())?;
            match serde_json::from_slice::<Value>(&output.stdout) {
                Ok(status) if status["stage"] == stage => Ok(status),
                other => Err(format!("{other:?}")),
            }
        };
        Ok(eventually(stage, PATIENCE, look).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_partition_a_device_says_so_and_it_is_itself_again_as_soon_as_that_is_there() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        // An agent that starts no programs gives up most.
        let mut config = DeviceConfig::default();
        config.set_text("umbra.vncserver.upstream", "tcp:127.0.0.1:1");
        let mut road = Road::new(scratch, config)?;
        let address = server.address().to_string();
        let key = console.one_time_key().await?;
        let enroll = enroll_words(&address, server.fingerprint());
        let wfs = road.device.root().join("wfs");
        let shown = wfs.display().to_string();

        for there in [false, true] {
            if there {
                std::fs::create_dir(&wfs)?;
            }
            let _agent = road.boot("true").await?;
            let status = road.at("no_identity").await?;
            for place in ["/cause", "/warnings/disk"] {
                let told = text(&status, place);
                readable(&told)?;
                ensure!(
                    told.contains(&shown) && told.contains("read-only"),
                    "{place}: {status}"
                );
            }
            let output = road.agent(&enroll, &key).await?;
            ensure!(!output.status.success(), "{}", said(&output));
            readable(&String::from_utf8_lossy(&output.stderr))?;
            let doctor = road.agent(&["doctor"], "").await?;
            let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
            ensure!(doctor.contains(&shown), "{doctor}");
        }

        // It comes while the agent runs, and is empty: the device's first start.
        let agent = road.boot("true").await?;
        road.at("no_identity").await?;
        road.shell(&road.mount()).await?;
        let status = road.at("not_enrolled").await?;
        ensure!(status["warnings"] == serde_json::json!({}), "{status}");
        let output = road.agent(&enroll, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let before = road.at("online").await?;
        drop(agent);

        // And again, with all that makes this device itself.
        let _agent = road.boot("true").await?;
        road.at("no_identity").await?;
        road.shell(&road.mount()).await?;
        let after = road.at("online").await?;
        ensure!(after["identity"] == before["identity"], "{after}");
        ensure!(after["warnings"] == serde_json::json!({}), "{after}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_partition_that_can_only_be_read_a_device_works_and_keeps_nothing_by_halves() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        let (server, console) = site(scratch).await?;
        let mut road = Road::new(scratch, DeviceConfig::with_desktop(&screen))?;
        std::fs::create_dir(road.device.root().join("wfs"))?;
        let agent = road.boot(&road.mount()).await?;
        let address = server.address().to_string();
        road.at("not_enrolled").await?;
        let enroll = enroll_words(&address, server.fingerprint());
        let key = console.one_time_key().await?;
        let output = road.agent(&enroll, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let before = road.at("online").await?;
        drop(agent);

        let remount = format!(
            "mount -o remount,ro,bind {}/wfs",
            road.device.root().display()
        );
        let _agent = road.boot(&format!("{}; {remount}", road.mount())).await?;
        let after = road.at("online").await?;
        ensure!(after["identity"] == before["identity"], "{after}");
        let name = text(&after, "/identity/unit_id");
        let shadow = console.shadow(&name, &[]).await?;
        shadow.view().await?.refresh().await?;
        let set = ["registry", "set", "network.vncserver.instances", "4"];
        refused(&road.agent(&set, "").await?, DISK, &["read-only"])?;
        let get = ["registry", "get", "network.vncserver.instances"];
        let told = said(&road.agent(&get, "").await?);
        ensure!(!told.contains('4'), "what was refused is in force: {told}");
        let message = ["devices", "command", &name, "message", "hello", "--wait"];
        let answer = said(&console.output(&message, "").await?);
        ensure!(answer.contains("read-only"), "{answer}");
        drop(shadow);

        // Once it can be written again, all is well without a restart.
        road.shell(&remount.replace("ro,", "rw,")).await?;
        let output = road.agent(&set, "").await?;
        ensure!(output.status.success(), "{}", said(&output));
        let answer = console.tell(&message, "").await?;
        ensure!(text(&answer, "/state") == "done", "{answer}");
        Ok(())
    })
    .await;
}
