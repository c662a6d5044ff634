//! What the agent costs a device while it has nothing to do. The budget is that of the program as it ships (static, small);
//! one that developers build is held to a bound of its own, so that a leak shows there as well.

use anyhow::{Context as _, ensure};
use umbra_tests::program::{is_dynamic, product, product_words};
use umbra_tests::scratch::scenario;
use umbra_tests::world::Device;

use crate::site::Site;

/// With one link to a gateway.
const SHIPPED_KIB: u64 = 4_000;
/// The same for one that carries everything for debugging and shares nothing with what ships but its source.
const BUILT_KIB: u64 = 40 * 1024;
/// What being taken on may leave behind until the next start.
const ENROLMENT_KIB: u64 = 1024;

fn resident(device: &mut Device<'_>) -> anyhow::Result<u64> {
    let program = device.program().context("no agent runs")?;
    program.resident_kib().context("the agent has ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_with_a_link_to_a_gateway_stays_within_its_memory() {
    scenario(async |scratch| {
        // What an emulator occupies says nothing.
        ensure!(
            product_words("umbra-agent")?.len() == 1,
            "memory can be measured on the agent's own processor only"
        );
        let budget = match is_dynamic(&product("umbra-agent")?)? {
            true => BUILT_KIB,
            false => SHIPPED_KIB,
        };
        let site = Site::start(scratch).await?;
        let (mut device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let enrolled = resident(&mut device)?;

        device.restart_hard()?;
        device.wait_until_online().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let started = resident(&mut device)?;
        tell(&format!(
            "resident with one link to a gateway: {started} KiB after a start, {enrolled} KiB after being taken on, of {budget}"
        ))?;
        ensure!(
            started <= budget,
            "{started} KiB with one link and nothing to do, of {budget}"
        );
        ensure!(
            enrolled <= budget + ENROLMENT_KIB,
            "being taken on left {enrolled} KiB, of {budget} and {ENROLMENT_KIB}"
        );
        Ok(())
    })
    .await;
}

/// A line for whoever reads what the tests said.
fn tell(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout().lock(), "{line}")
}
