//! A server that is found in the network: records of a real name server, a gateway behind them, and who has to vouch for it.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::ensure;
use umbra_tests::front::{dnsmasq_with, own_names};
use umbra_tests::netns::isolate;
use umbra_tests::pki::{Chain, Kind};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{GatewayConfig, OwnChain};

use crate::enrolment::{PERMISSION, refused, said};
use crate::site::{HOST, Site};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// The exit code for what is not there.
const UNAVAILABLE: i32 = 69;

/// The device's network: this name server, this search domain.
fn network(root: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root.join("etc"))?;
    let text = format!("nameserver {RESOLVER}\nsearch example.com\n");
    std::fs::write(root.join("etc/resolv.conf"), text)
}

#[tokio::test]
async fn a_gateway_is_found_by_its_record_and_the_device_taken_on_with_the_fingerprint_alone() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        names.set_resolver(Some(RESOLVER))?;
        let site = {
            let hosts = [(HOST, Ipv4Addr::LOCALHOST)];
            let _early = dnsmasq_with(scratch, "dnsmasq-early", RESOLVER, &hosts, &[]).await?;
            Site::named(scratch).await?
        };
        let (host, port) = (HOST, site.gateway.internal().port());
        // Garbage beside it, so much that the answer comes over TCP; and the text in two strings.
        let mut records: Vec<String> = (0..5)
            .map(|number| {
                format!(
                    "txt-record=igel-cloud-gateway.example.com,{number}{}",
                    "x".repeat(200)
                )
            })
            .collect();
        records.push(format!(
            "txt-record=igel-cloud-gateway.example.com,\"https://{host}\",\":{port}/usg/endpoint\""
        ));
        let hosts = [
            (HOST, Ipv4Addr::LOCALHOST),
            ("igelrmserver.example.com", Ipv4Addr::new(127, 0, 0, 99)),
        ];
        let _dns = dnsmasq_with(scratch, "dnsmasq", RESOLVER, &hosts, &records).await?;
        let device = site.new_device(1, site.device_config(), None).await?;

        // Without a network that says anything, nobody is asked.
        let words = [
            "enroll",
            "--discover",
            "--fingerprint",
            site.server.fingerprint(),
            "--key-file",
            "-",
        ];
        let key = site.console.one_time_key().await?;
        std::fs::create_dir_all(device.root().join("etc"))?;
        std::fs::write(device.root().join("etc/resolv.conf"), "# nothing\n")?;
        let output = device.output(&words, &key).await?;
        refused(&output, UNAVAILABLE, &["no server was found"])?;

        network(device.root())?;
        let output = device.output(&words, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in [
            format!("{host}:{port} is named by the TXT record igel-cloud-gateway of example.com"),
            "does not begin with https://".to_owned(),
            "knows a server by the name igelrmserver.example.com (127.0.0.99)".to_owned(),
        ] {
            ensure!(told.contains(&word), "“{word}” is missing in: {told}");
        }
        device.wait_until_online().await?;
        let name = device.unit_id().await?;
        site.wait_for_way(&name, Some(site.gateway.name())).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_the_network_says_is_not_believed_without_fingerprint_or_public_authority() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let device = site.new_device(1, site.device_config(), None).await?;
        let hooks = device.root().join("run/umbra-dhcp");
        std::fs::create_dir_all(&hooks)?;
        std::fs::write(
            hooks.join("eth0"),
            site.server.address_for_devices().to_string(),
        )?;
        let key = site.console.one_time_key().await?;
        // No public authority vouches for it.
        let words = ["enroll", "--discover", "--key-file", "-"];
        let output = device.output(&words, &key).await?;
        let told = refused(
            &output,
            PERMISSION,
            &["public certification authority", "[not_public]"],
        )?;
        ensure!(told.contains("Nothing was sent"), "{told}");
        // Another fingerprint than the server's.
        let wrong = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";
        let words = [
            "enroll",
            "--discover",
            "--fingerprint",
            wrong,
            "--key-file",
            "-",
        ];
        let output = device.output(&words, &key).await?;
        refused(&output, PERMISSION, &["[wrong_fingerprint]"])?;
        // The key was not used up by any of it.
        let right = [
            "enroll",
            "--discover",
            "--fingerprint",
            site.server.fingerprint(),
            "--key-file",
            "-",
        ];
        let output = device.output(&right, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            told.contains("option 224, in /run/umbra-dhcp/eth0"),
            "{told}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_public_authority_vouches_for_a_gateway_and_the_key_proves_the_server_behind_it() {
    scenario(async |scratch| {
        let public = Chain::new(Kind::Good, &["127.0.0.1", HOST])?;
        let folder = scratch.folder("public")?;
        let file = |name: &str| folder.join(name);
        std::fs::write(file("chain.pem"), public.presented_pem())?;
        std::fs::write(file("key.pem"), public.key_pem())?;
        std::fs::write(file("root.pem"), public.root_pem())?;
        let config = GatewayConfig {
            chain: Some(OwnChain {
                chain: file("chain.pem"),
                key: file("key.pem"),
                root: file("root.pem"),
            }),
            ..GatewayConfig::default()
        };
        let site = Site::start_with(scratch, config).await?;
        let address = site.gateway.external().to_string();
        let key = site.console.one_time_key().await?;
        let words = ["enroll", "--address", &address, "--key-file", "-"];

        // For a device that does not know the authority, the gateway is anybody.
        let stranger = site.new_device(1, site.device_config(), None).await?;
        let output = stranger.output(&words, &key).await?;
        refused(
            &output,
            PERMISSION,
            &["public certification authority", "[not_public]"],
        )?;

        let mut config = site.device_config();
        config.set_text(
            "umbra.icg.bundle_file",
            &file("root.pem").display().to_string(),
        );
        let device = site.new_device(2, config.clone(), None).await?;
        // A key of another server proves that the server behind the gateway is not the one that is meant.
        let output = device.output(&words, "AB3DE-FGHJK-MNPQR-STVWX").await?;
        ensure!(!output.status.success(), "{}", said(&output));
        let demanding = [
            "enroll",
            "--address",
            &address,
            "--key-file",
            "-",
            "--require-fingerprint",
        ];
        let output = device.output(&demanding, &key).await?;
        refused(
            &output,
            64,
            &["no fingerprint is given", "nothing was sent"],
        )?;
        let output = device.output(&words, &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        device.wait_until_online().await?;

        // Where the image asks for a fingerprint, nobody can do without.
        config.set("umbra.enrolment.require_fingerprint", "true");
        let strict = site.new_device(3, config, None).await?;
        let key = site.console.one_time_key().await?;
        let output = strict.output(&words, &key).await?;
        refused(&output, PERMISSION, &["[fingerprint_required]"])?;
        Ok(())
    })
    .await;
}
