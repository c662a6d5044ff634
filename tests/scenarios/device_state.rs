//! Faults of what the device keeps: power cuts at each single step of writing it, disks that are full or read-only, files
//! that somebody damaged or another version wrote, a clock that cannot be right, and people on the device who may not.

mod clock;
mod damage;
mod disks;
mod network_cards;
mod partition;
mod people;
mod power;
mod versions;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::program::{Program, product_words, run};
use umbra_tests::scratch::Scratch;
use umbra_tests::world::{Device, PATIENCE};

use crate::enrolment::said;

/// The agent's exit codes, as its help states them.
const DATA: i32 = 65;
const DISK: i32 = 74;

/// The file with the device's private key.
fn key_file(root: &Path) -> PathBuf {
    root.join("wfs/umbra/device.key")
}

/// The public key of the pair on the disk, if key and certificate belong together; asked of a program that is not ours.
pub(crate) async fn whole_pair(scratch: &Scratch, root: &Path) -> anyhow::Result<Option<String>> {
    let certificate = root.join("wfs/ca-certs/tc_ca.crt");
    let of = async |arguments: [&str; 2], file: &Path| -> anyhow::Result<Option<String>> {
        let mut command = Command::new("openssl");
        command.args(arguments).arg("-in").arg(file);
        let which = if arguments[0] == "pkey" {
            "-pubout"
        } else {
            "-pubkey"
        };
        command.arg(which);
        let output = run(scratch, "openssl", &mut command, b"", PATIENCE).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.success() && text.contains("PUBLIC KEY")).then_some(text))
    };
    let key = of(["pkey", "-inform=PEM"], &key_file(root)).await?;
    let certificate = of(["x509", "-noout"], &certificate).await?;
    Ok(key.filter(|key| Some(key) == certificate.as_ref()))
}

/// What the agent says of the device's identity where no agent runs; it must have or make one.
pub(crate) async fn identity(device: &Device<'_>) -> anyhow::Result<String> {
    let told = device.tell(&["identity"], "").await?;
    let id = told.lines().find_map(|line| line.strip_prefix("device ID"));
    Ok(id.context(told.clone())?.trim().to_owned())
}

/// The agent's command line, run by another program: `strace`, `nsenter`, `setpriv`.
pub(crate) async fn agent_under(
    scratch: &Scratch,
    wrapper: &[&str],
    root: &Path,
    arguments: &[&str],
    input: &str,
) -> anyhow::Result<Output> {
    let (program, before) = wrapper.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(before).args(product_words("umbra-agent")?);
    command.arg("--root").arg(root).args(arguments);
    // Folders with libraries that only the tests have: each would be searched, and each look counts as a step of the agent.
    command.env_remove("LD_LIBRARY_PATH");
    let output = run(scratch, program, &mut command, input.as_bytes(), PATIENCE).await?;
    Ok(output)
}

/// The check with this ID of the device's self-check, as JSON.
async fn doctor(device: &Device<'_>, id: &str) -> anyhow::Result<(Option<i32>, Value)> {
    let output = device.output(&["doctor", "--json"], "").await?;
    let checks: Value = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    let found = checks
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["id"] == id));
    Ok((
        output.status.code(),
        found.context("no such check")?.clone(),
    ))
}

/// A folder that only this scenario's namespace of mounts sees as it is; it ends with the program that holds it.
pub(crate) async fn in_namespace(
    scratch: &Scratch,
    script: &str,
) -> anyhow::Result<(Program, String)> {
    let mut command = Command::new("unshare");
    let script = format!("set -e; {script}; echo mounted; exec sleep 600");
    command.args(["--mount", "sh", "-c", &script]);
    let mut holder = Program::start(scratch, "namespace", &mut command)?;
    holder.wait_for_line("mounted", PATIENCE).await?;
    let pid = holder.pid().to_string();
    ensure!(
        Path::new("/proc").join(&pid).exists(),
        "the namespace is gone"
    );
    Ok((holder, pid))
}
