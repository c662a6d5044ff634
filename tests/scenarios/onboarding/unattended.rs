//! Devices that are brought in without anybody at them: the first of the places where an administrator may have laid something
//! ready, and what happens when it is wrong.

use std::path::Path;

use anyhow::ensure;
use umbra_protocol::credentials::{Credentials, Endpoint};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig, Server};

use crate::enrolment::{refused, said, site};

const WORDS: [&str; 2] = ["enroll", "--unattended"];
const DATA: i32 = 65;
const UNAVAILABLE: i32 = 69;

/// Credentials with a gateway that nobody answers at, and then the server.
pub(crate) fn credentials(server: &Server<'_>, key: &str) -> anyhow::Result<Credentials> {
    let address = server.address_for_devices();
    let endpoint = |host: String, port| -> anyhow::Result<Endpoint> {
        Ok(Endpoint {
            host,
            port,
            root_fingerprint: server.fingerprint().parse()?,
        })
    };
    Ok(Credentials {
        // Nothing listens on a port that no program may have without being asked.
        endpoints: vec![
            endpoint("127.0.0.1".into(), 1)?,
            endpoint(address.ip().to_string(), address.port())?,
        ],
        key: FirstAuthKey::parse(key)?,
    })
}

fn put(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, bytes)
}

#[tokio::test]
async fn a_file_in_the_image_brings_a_device_in_past_an_address_that_does_not_answer() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
        device.start()?;
        device.wait_until_up().await?;
        let output = device.output(&WORDS, "").await?;
        refused(&output, UNAVAILABLE, &["nothing was laid ready"])?;
        let key = console.one_time_key().await?;
        let file = device.root().join("usr/share/umbra/icg.xml");
        let xml = credentials(&server, &key)?.to_xml();
        // Cut short, and far too large: told, and the key is not used up.
        put(&file, &xml.as_bytes()[..xml.len() / 2])?;
        refused(&device.output(&WORDS, "").await?, DATA, &["icg.xml"])?;
        put(&file, &vec![b'x'; 10 * 1024 * 1024])?;
        refused(&device.output(&WORDS, "").await?, DATA, &["icg.xml"])?;
        put(&file, xml.as_bytes())?;
        let output = device.output(&WORDS, "").await?;
        ensure!(output.status.success(), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in [
            "usr/share/umbra/icg.xml",
            "127.0.0.1:1",
            "Trying the next one",
        ] {
            ensure!(told.contains(word), "“{word}” is missing in: {told}");
        }
        ensure!(!told.contains(&key), "the key is in: {told}");
        device.wait_until_online().await?;
        // At the next start there is nothing to do.
        let told = device.tell(&WORDS, "").await?;
        ensure!(told.contains("already belongs to"), "{told}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_kernels_command_line_brings_a_device_in() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let address = server.address_for_devices().to_string();
        let mut by_kernel = Device::new(scratch, "kernel", DeviceConfig::default())?;
        by_kernel.start()?;
        by_kernel.wait_until_up().await?;
        let key = console.one_time_key().await?;
        let line = format!(
            "quiet umbra.address={address} umbra.fingerprint={} umbra.key={key} ro\n",
            server.fingerprint()
        );
        put(&by_kernel.root().join("proc/cmdline"), line.as_bytes())?;
        let told = by_kernel.tell(&WORDS, "").await?;
        ensure!(told.contains("the kernel's command line"), "{told}");
        ensure!(!told.contains(&key), "the key is in: {told}");
        by_kernel.wait_until_online().await?;
        Ok(())
    })
    .await;
}
