//! People on the device who are not root: they may look, and nothing else.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;
use umbra_tests::scratch::scenario;

use super::*;
use crate::enrolment::{PERMISSION, enroll_words, key, readable, running, site, taken_on, text};

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_rights_reads_the_status_and_changes_nothing_and_never_sees_the_key() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        // Folders above the device's own are everybody's, as / is.
        std::fs::set_permissions(scratch.root(), std::fs::Permissions::from_mode(0o755))?;
        let (device, id) = running(scratch, "device").await?;
        taken_on(&server, &console, &device, &id).await?;
        let nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let root = device.root().to_owned();
        let ask = async |arguments: &[&str], input: &str| {
            agent_under(scratch, &nobody, &root, arguments, input).await
        };

        let looked = ask(&["status", "--json"], "").await?;
        ensure!(looked.status.success(), "{}", said(&looked));
        let status: serde_json::Value = serde_json::from_slice(&looked.stdout)?;
        ensure!(text(&status, "/stage") == "online", "{status}");
        let get = ["registry", "get", "network.vncserver.instances"];
        let looked = ask(&get, "").await?;
        ensure!(looked.status.success(), "{}", said(&looked));
        let certificate = ask(&["cert", "show", "--pem"], "").await?;
        ensure!(certificate.status.success(), "{}", said(&certificate));

        let (_, spare) = key(&console, &[]).await?;
        let address = server.address().to_string();
        let enroll = enroll_words(&address, server.fingerprint());
        let changes: [(&[&str], &str); 6] = [
            (
                &["registry", "set", "network.vncserver.enabled", "false"],
                "",
            ),
            (&["registry", "set", "umbra.control.group", "nogroup"], ""),
            (&["registry", "reset", "network.vncserver.enabled"], ""),
            (&["leave"], ""),
            (&enroll, &spare),
            (&["end-session", "0123456789abcdef0123456789abcdef"], ""),
        ];
        for (arguments, input) in changes {
            let output = ask(arguments, input).await?;
            ensure!(
                output.status.code() == Some(PERMISSION),
                "{arguments:?}: {}",
                said(&output)
            );
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            readable(&told)?;
            ensure!(told.contains("root"), "{told}");
        }
        // Nor with a second agent, or on the files themselves.
        for arguments in [&["run"][..], &["identity"], &["identity", "--replace"]] {
            let output = ask(arguments, "").await?;
            ensure!(!output.status.success(), "{arguments:?}: {}", said(&output));
            readable(&String::from_utf8_lossy(&output.stderr))?;
        }
        for file in ["wfs/umbra/device.key", "wfs/umbra/enrolment.json"] {
            let mut cat = Command::new(nobody[0]);
            cat.args(&nobody[1..]).arg("cat").arg(root.join(file));
            let output = run(scratch, "cat", &mut cat, b"", PATIENCE).await?;
            ensure!(
                !output.status.success() && output.stdout.is_empty(),
                "{file} can be read"
            );
        }
        let checked = ask(&["doctor"], "").await?;
        let report = String::from_utf8_lossy(&checked.stdout).into_owned();
        ensure!(
            report.contains("identity") && !report.contains("PRIVATE"),
            "{report}"
        );

        let after = device.status().await?;
        ensure!(
            after["identity"] == status["identity"] && after["stage"] == "online",
            "{after}"
        );
        ensure!(after["shadow_port"] == status["shadow_port"], "{after}");
        let group = device
            .tell(&["registry", "get", "umbra.control.group", "--json"], "")
            .await?;
        ensure!(!group.contains("nogroup"), "{group}");
        Ok(())
    })
    .await;
}
