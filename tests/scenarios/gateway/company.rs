//! A gateway with a chain of the company's own authority, as OpenSSL makes it: root, intermediate, gateway. Whoever knows the
//! root gets through, whoever does not is told what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::program::{product, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{DeviceConfig, GatewayConfig, OwnChain, PATIENCE};

use super::site::Site;
use crate::enrolment::said;

async fn openssl(scratch: &Scratch, folder: &Path, words: &str) -> anyhow::Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(words.split(' '));
    let output = run(scratch, "openssl", &mut command, b"", PATIENCE).await?;
    ensure!(output.status.success(), "{words}: {}", said(&output));
    Ok(())
}

/// What each certificate of the chain is allowed.
const EXTENSIONS: &str = "\
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash

[intermediate]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid

[gateway]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:gateway.example.com, IP:127.0.0.1
authorityKeyIdentifier = keyid
";

/// A company's authority and what it signed for a gateway, in a folder of this name.
async fn company(scratch: &Scratch, name: &str) -> anyhow::Result<OwnChain> {
    let folder = scratch.folder(name)?;
    std::fs::write(folder.join("extensions.cnf"), EXTENSIONS)?;
    let new = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let sign = "x509 -req -extfile extensions.cnf -days 30";
    for words in [
        format!("{new} -keyout root.key -out root.csr -subj /O={name}/CN=Root"),
        format!("{sign} -extensions root -in root.csr -key root.key -out root.pem"),
        format!("{new} -keyout inter.key -out inter.csr -subj /O={name}/CN=Services"),
        format!(
            "{sign} -extensions intermediate -in inter.csr -CA root.pem -CAkey root.key -out inter.pem"
        ),
        format!("{new} -keyout key.pem -out leaf.csr -subj /O={name}/CN=gateway.example.com"),
        format!(
            "{sign} -extensions gateway -in leaf.csr -CA inter.pem -CAkey inter.key -out leaf.pem"
        ),
    ] {
        openssl(scratch, &folder, &words).await?;
    }
    let mut chain = String::new();
    for part in ["leaf.pem", "inter.pem", "root.pem"] {
        chain.push_str(&std::fs::read_to_string(folder.join(part))?);
    }
    let file = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(file("chain.pem"), chain)?;
    Ok(OwnChain {
        chain: file("chain.pem"),
        key: file("key.pem"),
        root: file("root.pem"),
    })
}

/// A device that was given this root before it was ever enrolled, or none.
fn knowing(site: &Site<'_>, root: Option<&Path>) -> DeviceConfig {
    let mut config = site.device_config();
    if let Some(root) = root {
        config.set_text("umbra.proxy.ca_file", &root.display().to_string());
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_gateway_with_the_companys_chain_a_device_is_taken_on_and_seen_and_a_wrong_root_is_told()
 {
    scenario(async |scratch| {
        let own = company(scratch, "company").await?;
        let foreign = company(scratch, "competitor").await?;
        let config = GatewayConfig {
            chain: Some(own.clone()),
            ..GatewayConfig::default()
        };
        let site = Site::start_with(scratch, config).await?;
        let mut check = Command::new(product("umbra-gateway")?);
        check
            .args(["check", "--keystore"])
            .arg(site.gateway.keystore());
        let output = run(scratch, "check", &mut check, b"", PATIENCE).await?;
        ensure!(output.status.success(), "{}", said(&output));

        // Those who know no root, or another company's with the same names, are told and send nothing.
        let at = site.gateway.external().to_string();
        for (number, root) in [(1, None), (2, Some(foreign.root.as_path()))] {
            let device = site.new_device(number, knowing(&site, root), None).await?;
            let refused = site.enrol(&device, &at).await?;
            let words = said(&refused);
            ensure!(
                !refused.status.success()
                    && words.contains("gateway_certificate")
                    && words.contains("umbra.proxy.ca_file")
                    && !words.contains("UnknownIssuer"),
                "with the root {root:?}: {words}"
            );
        }
        let devices = site.console.tell(&["devices"], "").await?;
        ensure!(devices.as_array().is_some_and(Vec::is_empty), "{devices}");

        let device = site
            .new_device(3, knowing(&site, Some(&own.root)), None)
            .await?;
        let name = site.take_on_at(&device, &at).await?;
        site.send_message(&name, "Hello.").await?;
        // The console knows the company's root from the server.
        site.see_and_operate(&name, "of the house").await?;
        // From now on the device knows it from the server, too.
        let mut device = device;
        device.install(&knowing(&site, None))?;
        device.restart_hard()?;
        device.wait_until_online().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_told_another_root_than_the_gateways_says_so_and_attaches_with_the_right_one()
 {
    scenario(async |scratch| {
        let own = company(scratch, "company").await?;
        let foreign = company(scratch, "competitor").await?;
        let config = GatewayConfig {
            chain: Some(own.clone()),
            ..GatewayConfig::default()
        };
        let site = Site::start_with(scratch, config).await?;
        // The same gateway under another name, with the wrong root.
        let address = site.gateway.internal().to_string();
        let known_as = async |name: &str, root: &Path| {
            let out = scratch.path(name).display().to_string();
            let root = root.display().to_string();
            let words = ["gateways", "create", name, "--address", &address];
            let rest = ["--root", &root, "--out", &out];
            site.console
                .tell(&[&words[..], &rest[..]].concat(), "")
                .await
        };
        known_as("wrong", &foreign.root).await?;
        eventually("the operator to be told", PATIENCE, || async {
            let shown = site.console.tell(&["gateways", "show", "wrong"], "").await;
            let shown = shown.map_err(|error| error.to_string())?;
            let trouble = shown.get("trouble").and_then(Value::as_str);
            let attached = shown.get("attached").and_then(Value::as_bool);
            match (attached, trouble) {
                (Some(false), Some(words))
                    if words.contains("certificate")
                        && words.contains(' ')
                        && !words.contains("Unknown") =>
                {
                    Ok(())
                }
                _ => Err(shown.to_string()),
            }
        })
        .await?;
        // What has nothing to do with it goes on.
        site.gateway
            .wait_until_attached(&site.console, true)
            .await?;
        Ok(())
    })
    .await;
}
