//! Disks that take nothing more, or nothing at all.

use anyhow::ensure;
use umbra_tests::program::{Program, product_words};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig};

use super::*;
use crate::enrolment::{enroll_words, key, key_on_file, keys, refused, site, text};

/// Starts the agent in a namespace.
fn agent_in(scratch: &Scratch, enter: &[&str], root: &Path) -> anyhow::Result<Program> {
    let (program, before) = enter.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(before).args(product_words("umbra-agent")?);
    command.arg("--root").arg(root).arg("run");
    Ok(Program::start(scratch, "agent-in-namespace", &mut command)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_costs_nothing_and_once_there_is_room_everything_works() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let device = Device::new(scratch, "device", DeviceConfig::default())?;
        let root = device.root().to_owned();
        let state = root.join("wfs");
        std::fs::create_dir(&state)?;
        let script = format!("mount -t tmpfs -o size=256k none {}", state.display());
        let (_holder, pid) = in_namespace(scratch, &script).await?;
        let enter = ["nsenter", "-m", "-t", &pid];
        let agent = async |arguments: &[&str], input: &str| {
            agent_under(scratch, &enter, &root, arguments, input).await
        };
        let shell = async |script: &str| -> anyhow::Result<String> {
            let mut command = Command::new("nsenter");
            let script = format!("cd {} && {{ {script}; }}", root.display());
            command.args(&enter[1..]).args(["sh", "-c", &script]);
            let output = run(scratch, "shell", &mut command, b"", PATIENCE).await?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let fill = "cat /dev/zero >wfs/filler 2>/dev/null; df --output=avail wfs | tail -1";
        let sums = "sha256sum wfs/ca-certs/* wfs/umbra/*.* ; ls -A wfs/umbra";

        // Without room there is no identity, and half of one isn't left behind.
        ensure!(shell(fill).await?.trim() == "0");
        refused(
            &agent(&["identity"], "").await?,
            DISK,
            &["disk is full", "Free some space"],
        )?;
        shell("rm wfs/filler").await?;
        let made = agent(&["identity"], "").await?;
        ensure!(made.status.success(), "{}", said(&made));
        let set = agent(&["registry", "set", "network.vncserver.instances", "3"], "").await?;
        ensure!(set.status.success(), "{}", said(&set));

        // Without room nobody is taken on, and the key is not lost.
        let (id, key) = key(&console, &[]).await?;
        let address = server.address().to_string();
        let enroll = enroll_words(&address, server.fingerprint());
        ensure!(shell(fill).await?.trim() == "0");
        let before = shell(sums).await?;
        let output = agent(&enroll, &key).await?;
        refused(&output, DISK, &["[not_stored]", "disk is full", "same key"])?;
        ensure!(
            shell(sums).await? == before,
            "something was changed: {}",
            shell(sums).await?
        );
        shell("rm wfs/filler").await?;
        let output = agent(&enroll, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        ensure!(text(&key_on_file(&console, &id).await?, "/state") == "used");

        // The agent is online, and does not do by halves what it cannot keep.
        let _running = agent_in(scratch, &enter, &root)?;
        device.wait_until_online().await?;
        shell(fill).await?;
        let before = shell(sums).await?;
        let set = ["registry", "set", "network.vncserver.instances", "4"];
        refused(&device.output(&set, "").await?, DISK, &["disk is full"])?;
        let get = ["registry", "get", "network.vncserver.instances", "--json"];
        let told = device.tell(&get, "").await?;
        ensure!(told.contains('3'), "what was refused is in force: {told}");
        ensure!(shell(sums).await? == before);
        let unit = text(&device.status().await?, "/identity/unit_id");
        let message = ["devices", "command", &unit, "message", "hello", "--wait"];
        let answer = console.output(&message, "").await?;
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        ensure!(answer.contains("disk is full"), "{answer}");
        shell("rm wfs/filler").await?;
        device.set("network.vncserver.instances", "4").await?;
        let answer = console.tell(&message, "").await?;
        ensure!(text(&answer, "/state") == "done", "{answer}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_system_with_one_writable_folder_is_all_that_a_device_needs() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let device = Device::new(scratch, "device", DeviceConfig::default())?;
        let root = device.root().to_owned();
        for folder in ["wfs", "run"] {
            std::fs::create_dir(root.join(folder))?;
        }
        // As on a device: the system read-only, /wfs from another partition, /run in memory.
        let place = root.display();
        let wfs = scratch.folder("partition")?;
        let script = format!(
            "mount --bind {place} {place}; mount -o remount,ro,bind {place}; \
             mount --bind {} {place}/wfs; mount --bind {} {place}/run",
            wfs.display(),
            scratch.folder("memory")?.display()
        );
        let (_holder, pid) = in_namespace(scratch, &script).await?;
        let enter = ["nsenter", "-m", "-t", &pid];
        let mut touch = Command::new("nsenter");
        touch.args(&enter[1..]).arg("touch").arg(root.join("usr/x"));
        let output = run(scratch, "touch", &mut touch, b"", PATIENCE).await?;
        ensure!(said(&output).contains("Read-only"), "{}", said(&output));

        let mut agent = agent_in(scratch, &enter, &root)?;
        let agent_cli = async |arguments: &[&str], input: &str| {
            agent_under(scratch, &enter, &root, arguments, input).await
        };
        let status = async || -> anyhow::Result<serde_json::Value> {
            let output = agent_cli(&["status", "--json"], "").await?;
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let at = async |stage: &str| {
            let look = async || match status().await {
                Ok(status) if status["stage"] == stage => Ok(status),
                other => Err(format!("{other:?}")),
            };
            umbra_tests::eventually::eventually(stage, PATIENCE, look).await
        };
        at("not_enrolled").await?;
        let address = server.address().to_string();
        let enroll = enroll_words(&address, server.fingerprint());
        let (_, key) = keys(&console, &[]).await?.remove(0);
        let output = agent_cli(&enroll, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let online = at("online").await?;
        ensure!(online["warnings"] == serde_json::json!({}), "{online}");
        let set = agent_cli(&["registry", "set", "network.vncserver.instances", "3"], "").await?;
        ensure!(set.status.success(), "{}", said(&set));
        ensure!(wfs.join("umbra/enrolment.json").exists());
        // It comes back from what lies in that one folder.
        agent.kill();
        let _agent = agent_in(scratch, &enter, &root)?;
        let again = at("online").await?;
        ensure!(again["identity"] == online["identity"], "{again}");
        Ok(())
    })
    .await;
}
