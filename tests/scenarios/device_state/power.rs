//! A SIGKILL at each single step of writing: the program is stopped at the first, the second, the third … call of the
//! system by which it changes a file, until there is none left at which it could be.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Output;

use anyhow::{Context as _, ensure};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, DeviceConfig};

use super::*;
use crate::enrolment::{audited, devices, enroll, keys, site};

/// More steps than any of it has; the loops end long before.
const STEPS: usize = 60;

/// Runs the agent's command line and kills it at a step: the `number`th call of this system call.
async fn killed_at(
    scratch: &Scratch,
    call: &str,
    number: usize,
    root: &Path,
    arguments: &[&str],
    input: &str,
) -> anyhow::Result<Option<Output>> {
    let inject = format!("inject={call}:signal=SIGKILL:when={number}");
    let trace = format!("trace={call}");
    let log = scratch.path("strace").display().to_string();
    let wrapper = ["strace", "-f", "-o", &log, "-e", &trace, "-e", &inject];
    let output = agent_under(scratch, &wrapper, root, arguments, input).await?;
    // strace ends as what it watched did.
    let killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
    Ok((!killed).then_some(output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_step_of_making_the_identity_costs_no_identity_that_was_whole() {
    scenario(async |scratch| {
        let mut kills = BTreeMap::new();
        for call in ["write", "fsync", "rename", "fchmod", "mkdir", "flock"] {
            for number in 1..=STEPS {
                let name = format!("{call}-{number}");
                let device = Device::new(scratch, &name, DeviceConfig::default())?;
                let ran =
                    killed_at(scratch, call, number, device.root(), &["identity"], "").await?;
                let before = whole_pair(scratch, device.root()).await?;
                if ran.is_none() {
                    *kills.entry(call).or_insert(0) += 1;
                }
                let id = identity(&device).await.with_context(|| name.clone())?;
                let after = whole_pair(scratch, device.root()).await?;
                let after = after.with_context(|| format!("no whole pair after {name}"))?;
                if let Some(before) = before {
                    ensure!(before == after, "{name} cost the identity");
                }
                ensure!(
                    identity(&device).await? == id,
                    "{name}: another one each time"
                );
                if let Some(output) = ran {
                    ensure!(output.status.success(), "{name}: {}", said(&output));
                    break;
                }
                ensure!(number < STEPS, "{call} never ends");
            }
        }
        let enough = |call, least| kills.get(call).is_some_and(|count| *count >= least);
        ensure!(
            enough("write", 3) && enough("fsync", 4) && enough("rename", 4),
            "{kills:?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_step_of_replacing_the_identity_leaves_the_old_or_the_new_one() {
    scenario(async |scratch| {
        // On a device that a server knows: there, key and certificate that do not belong together are for a person to mend.
        let (server, console) = site(scratch).await?;
        let device = Device::new(scratch, "device", DeviceConfig::default())?;
        let address = server.address().to_string();
        let key = console.one_time_key().await?;
        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let (mut kept, mut replaced) = (0, 0);
        for call in ["write", "fsync", "rename", "unlink"] {
            for number in 1..=STEPS {
                let old = whole_pair(scratch, device.root())
                    .await?
                    .context("no pair")?;
                let replace = ["identity", "--replace"];
                let ran = killed_at(scratch, call, number, device.root(), &replace, "").await?;
                let id = identity(&device)
                    .await
                    .with_context(|| format!("{call} {number}"))?;
                let new = whole_pair(scratch, device.root()).await?;
                let new = new.with_context(|| format!("no whole pair after {call} {number}"))?;
                ensure!(
                    identity(&device).await? == id,
                    "{call} {number}: another one each time"
                );
                if let Some(output) = ran {
                    ensure!(output.status.success() && new != old, "{}", said(&output));
                    break;
                }
                *(if new == old { &mut kept } else { &mut replaced }) += 1;
                ensure!(number < STEPS, "{call} never ends");
            }
        }
        ensure!(kept > 3 && replaced > 2, "{kept} kept, {replaced} replaced");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_step_of_being_taken_on_costs_neither_identity_nor_key() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut keys = keys(&console, &["--count", "60"]).await?.into_iter();
        let address = server.address().to_string();
        let (mut alone, mut enrolled, mut taken_on) = (0, 0, 0);
        let mut last = None;
        for call in ["write", "fsync", "rename", "sendto", "writev"] {
            for number in 1..=STEPS {
                let name = format!("{call}-{number}");
                let device = Device::new(scratch, &name, DeviceConfig::default())?;
                let id = identity(&device).await?;
                let (_, key) = keys.next().context("too few keys")?;
                let arguments = [
                    "enroll",
                    "--address",
                    &address,
                    "--fingerprint",
                    server.fingerprint(),
                    "--key-file",
                    "-",
                ];
                let root = device.root().to_owned();
                let ran = killed_at(scratch, call, number, &root, &arguments, &key).await?;
                let kept = root.join("wfs/umbra/enrolment.json").exists();
                ensure!(identity(&device).await? == id, "{name} cost the identity");
                let again = device.output(&arguments, &key).await?;
                if kept {
                    // What was written down was written as a whole: it is read, and says who the server is.
                    let told = said(&again);
                    ensure!(told.contains("already belongs to"), "{name}: {told}");
                } else {
                    ensure!(again.status.success(), "{name}: {}", said(&again));
                }
                taken_on += 1;
                last = Some(device);
                if let Some(output) = ran {
                    ensure!(output.status.success(), "{name}: {}", said(&output));
                    break;
                }
                *(if kept { &mut enrolled } else { &mut alone }) += 1;
                ensure!(number < STEPS, "{call} never ends");
            }
        }
        ensure!(
            alone > 4 && enrolled > 1,
            "{alone} alone, {enrolled} enrolled"
        );
        ensure!(devices(&console).await?.len() == taken_on);
        let lines = audited(&console, "device.enrolled", "ok").await?;
        let again = lines
            .iter()
            .filter(|line| line["detail"] == "the same answer again");
        ensure!(
            again.count() > 0,
            "no cut was between the server's answer and the disk"
        );
        let mut last = last.context("no device")?;
        last.start()?;
        last.wait_until_online().await?;
        Ok(())
    })
    .await;
}
