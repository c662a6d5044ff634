//! A kernel without what the agent would like to have: the oldest that it is made for, and one on which Landlock and seccomp are
//! switched off.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use umbra_tests::program::{Program, product_words};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, DeviceConfig, desktop};

use crate::enrolment::{readable, site, text};

/// Runs a program on less of a kernel: every system call from `FIRST` on does not exist, as on Linux 4.10, and neither do seccomp's
/// (`LESS`, and by prctl). The filter is handed down to whatever the program starts.
const LESSER_KERNEL: &str = r#"
import ctypes, os, platform, struct, sys
FIRST, LESS, PRCTL, ARCH = {"x86_64": (332, 317, 157, 0xC000003E), "aarch64": (291, 277, 167, 0xC00000B7)}[platform.machine()]
ENOSYS, EINVAL, ALLOW, ERRNO = 38, 22, 0x7FFF0000, 0x00050000
LOAD, EQUAL, ATLEAST, RETURN = 0x20, 0x15, 0x35, 0x06
program = [
    (LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCH), (RETURN, 0, 0, ERRNO | ENOSYS),
    (LOAD, 0, 0, 0),
    (EQUAL, 0, 1, LESS), (RETURN, 0, 0, ERRNO | ENOSYS),
    (ATLEAST, 0, 1, FIRST), (RETURN, 0, 0, ERRNO | ENOSYS),
    (EQUAL, 0, 3, PRCTL), (LOAD, 0, 0, 16), (EQUAL, 0, 1, 22), (RETURN, 0, 0, ERRNO | EINVAL),
    (RETURN, 0, 0, ALLOW),
]
code = b"".join(struct.pack("HBBI", *line) for line in program)
buffer = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
filter = Program(len(program), ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

fn agent(scratch: &Scratch, root: &Path) -> anyhow::Result<Program> {
    let script = scratch.path("lesser-kernel.py");
    std::fs::write(&script, LESSER_KERNEL)?;
    let mut command = Command::new("python3");
    command.arg(script).args(product_words("umbra-agent")?);
    command.arg("--root").arg(root).arg("run");
    Ok(Program::start(scratch, "agent-on-less", &mut command)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_kernel_without_landlock_and_seccomp_a_device_is_shadowed_and_says_what_it_lacks() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        let (server, console) = site(scratch).await?;
        let device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        let _agent = agent(scratch, device.root())?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        let status = device.wait_for_stage("online").await?;
        let layers = status["confined"].as_array().context("no layers")?;
        for (layer, words) in [("files", "no Landlock"), ("system_calls", "this kernel")] {
            let found = layers.iter().find(|found| found["layer"] == layer);
            let found = found.with_context(|| format!("{layer} is missing in {status}"))?;
            ensure!(
                found["hold"] == "none" && found["lacking"] == true,
                "{found}"
            );
            let sentence = text(found, "/sentence");
            readable(&sentence)?;
            ensure!(sentence.contains(words), "{sentence}");
        }
        let report = device.tell(&["status"], "").await?;
        ensure!(report.contains("no Landlock"), "{report}");

        let shadow = console.shadow(&device.unit_id().await?, &[]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text("over there").await?;
        let arrived = || match screen.typed().as_str() {
            "over there" => Ok(()),
            other => Err(other.to_owned()),
        };
        umbra_tests::eventually::eventually_is("the keys", umbra_tests::world::PATIENCE, arrived)
            .await?;
        // What needs no new kernel is given up all the same.
        let privileges = layers.iter().find(|found| found["layer"] == "privileges");
        ensure!(
            privileges.context("no privileges")?["hold"] == "full",
            "{status}"
        );
        Ok(())
    })
    .await;
}
