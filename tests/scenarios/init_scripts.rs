//! A device without systemd: the script for busybox, run by busybox as its only program, in a root folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::program::{Program, product, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::PATIENCE;
use umbra_tests::x11::installed;

use crate::enrolment::{enroll_words, said, site, text};

/// The number that the device's own list of users gives the agent's.
const UMBRA: &str = "61236";

/// A device whose processes and mounts are its own; all of them end with it.
struct Small<'s> {
    scratch: &'s Scratch,
    root: PathBuf,
    _holder: Program,
    first: String,
}

impl<'s> Small<'s> {
    async fn new(scratch: &'s Scratch) -> anyhow::Result<Self> {
        let root = scratch.folder("device")?;
        let lay = |path: &str, text: &str| -> anyhow::Result<()> {
            let to = root.join(path);
            std::fs::create_dir_all(to.parent().context("no folder")?)?;
            Ok(std::fs::write(to, text)?)
        };
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/install");
        let mut command = Command::new("sh");
        command.arg(image).arg("--root").arg(&root);
        command
            .args(["--init", "busybox", "--agent"])
            .arg(product("umbra-agent")?);
        let laid = run(scratch, "install", &mut command, b"", PATIENCE).await?;
        ensure!(laid.status.success(), "{}", said(&laid));
        lay(
            "etc/passwd",
            &format!("root:x:0:0::/:/bin/sh\numbra:x:{UMBRA}:{UMBRA}::/wfs/umbra:/bin/false\n"),
        )?;
        lay("etc/group", &format!("root:x:0:\numbra:x:{UMBRA}:\n"))?;
        lay(
            "usr/lib/umbra/registry.toml",
            "network.vncserver.enabled = true\nnetwork.vncserver.port = 0\numbra.vncserver.listen = [\"127.0.0.1\"]\n\
             system.remotemanager.reconnect_interval = 2\numbra.vncserver.upstream = \"tcp:127.0.0.1:1\"\n\
             umbra.hands.reboot_command = [\"/bin/touch\", \"/run/restarted\"]\n",
        )?;
        for folder in ["bin", "dev", "proc", "run", "wfs", "lib", "lib64"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::copy(installed("busybox")?, root.join("bin/busybox"))?;
        // What a developer's build of the agent is linked with; the one that ships needs none of it.
        let libraries = format!("{}-linux-gnu", std::env::consts::ARCH);
        std::fs::create_dir_all(root.join("lib").join(&libraries))?;
        let place = root.display();
        // The first process takes leave of those that end, as an init does.
        let script = format!(
            "set -e; mount --bind {place} {place}; mount --bind /lib64 {place}/lib64; \
             mount --bind /lib/{libraries} {place}/lib/{libraries}; mount -t proc proc {place}/proc; \
             mount --bind /dev {place}/dev; mount -t tmpfs none {place}/run; mount -t tmpfs none {place}/wfs; \
             chroot {place} /bin/busybox --install -s /bin; echo mounted; while sleep 0.1; do :; done"
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            &script,
        ]);
        let mut holder = Program::start(scratch, "device", &mut command)?;
        holder.wait_for_line("mounted", PATIENCE).await?;
        let children = format!("/proc/{0}/task/{0}/children", holder.pid());
        let first = std::fs::read_to_string(children)?.trim().to_owned();
        Ok(Self {
            scratch,
            root,
            _holder: holder,
            first,
        })
    }

    /// Runs something on the device, with nothing but what it has.
    async fn on(&self, words: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &self.first, "chroot"]);
        command
            .arg(&self.root)
            .args(["/bin/env", "-i", "PATH=/bin"])
            .args(words);
        Ok(run(
            self.scratch,
            "on-device",
            &mut command,
            input.as_bytes(),
            PATIENCE,
        )
        .await?)
    }

    async fn script(&self, what: &str) -> anyhow::Result<String> {
        let output = self.on(&["/etc/init.d/S60umbra-agent", what], "").await?;
        ensure!(output.status.success(), "{what}: {}", said(&output));
        Ok(said(&output))
    }

    async fn at(&self, stage: &str) -> anyhow::Result<Value> {
        let look = async || {
            let asked = self
                .on(&["/usr/bin/umbra-agent", "status", "--json"], "")
                .await;
            let asked = asked.map_err(|error| error.to_string())?;
            match serde_json::from_slice::<Value>(&asked.stdout) {
                Ok(status) if status["stage"] == stage => Ok(status),
                other => Err(format!("{other:?}: {}", said(&asked))),
            }
        };
        Ok(eventually(stage, PATIENCE, look).await?)
    }

    /// The agent's processes on the device: whose they are, and what they were told to do.
    async fn processes(&self) -> anyhow::Result<Vec<String>> {
        let look = "for p in /proc/[0-9]*; do set -- $(tr '\\0' ' ' <$p/cmdline 2>/dev/null); \
            case \"$1\" in */umbra-agent) echo \"$2 $(grep ^Uid: $p/status)\";; esac; done";
        let output = self.on(&["/bin/sh", "-c", look], "").await?;
        let told = String::from_utf8(output.stdout)?;
        let mut found: Vec<String> = told
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .take(3)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        found.sort();
        Ok(found)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_device_with_busybox_alone_the_agent_runs_as_its_own_user_and_root_does_the_rest() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let small = Small::new(scratch).await?;
        small.script("start").await?;
        small.at("not_enrolled").await?;
        let wanted = ["hands Uid: 0".to_owned(), format!("run Uid: {UMBRA}")];
        ensure!(
            small.processes().await? == wanted,
            "{:?}",
            small.processes().await?
        );

        let address = server.address().to_string();
        let enroll = enroll_words(&address, server.fingerprint());
        let words = [&["/usr/bin/umbra-agent"], &enroll[..]].concat();
        let output = small.on(&words, &console.one_time_key().await?).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let before = small.at("online").await?;
        let name = text(&before, "/identity/unit_id");
        // The agent may not restart the device; root's hands do, with the image's program.
        console
            .tell(&["devices", "command", &name, "reboot"], "")
            .await?;
        eventually("the device to be restarted", PATIENCE, async || {
            let look = small.on(&["/bin/ls", "/run/restarted"], "").await;
            match look {
                Ok(output) if output.status.success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;

        small.script("restart").await?;
        let after = small.at("online").await?;
        ensure!(after["identity"] == before["identity"], "{after}");
        ensure!(
            small.processes().await? == wanted,
            "{:?}",
            small.processes().await?
        );
        small.script("stop").await?;
        ensure!(
            small.processes().await?.is_empty(),
            "{:?}",
            small.processes().await?
        );

        // A partition that can only be read is no reason not to start.
        let remount = ["/bin/mount", "-o", "remount,ro", "/wfs"];
        let output = small.on(&remount, "").await?;
        ensure!(output.status.success(), "{}", said(&output));
        let told = small.script("start").await?;
        ensure!(told.contains("could not all be made"), "{told}");
        let again = small.at("online").await?;
        ensure!(again["identity"] == before["identity"], "{again}");
        Ok(())
    })
    .await;
}
