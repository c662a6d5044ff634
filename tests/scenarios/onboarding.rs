//! A device's first contact: what the network says, what an administrator laid ready, what a person does, and what is never believed.

mod assistant;
mod discovery;
mod doctor;
mod hostile_names;
mod identity;
mod screen;
mod terminal;
pub(crate) mod unattended;
mod window;
mod wrong_turns;

use anyhow::Context as _;
use umbra_tests::scratch::Scratch;
use umbra_tests::world::Device;

use crate::site::Site;

/// A device that runs behind a gateway and belongs to nobody, and credentials on a stick.
async fn device_and_stick<'s>(scratch: &'s Scratch, site: &Site<'s>) -> anyhow::Result<Device<'s>> {
    let mut config = site.device_config();
    // What this machine's own network says is not the scenario's business.
    config
        .set("umbra.discovery.dns", "false")
        .set("umbra.discovery.dhcp", "false");
    let mut device = Device::new(scratch, "device", config)?;
    device.start()?;
    device.wait_until_up().await?;
    let stick = scratch.folder("stick")?;
    let file = stick.join("icg.xml");
    let path = file.to_str().context("no path")?;
    let export = ["keys", "export", "--format", "xml", "--out", path];
    site.console.tell(&export, "").await?;
    Ok(device)
}
