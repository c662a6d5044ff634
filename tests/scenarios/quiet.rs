//! A device that nobody looks at sleeps, and misses nothing by it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use umbra_tests::eventually::eventually;
use umbra_tests::netns::{Island, isolate};
use umbra_tests::program::product_words;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{ServerConfig, World, WorldError};

/// One world with this many seconds between two heartbeats.
async fn world(scratch: &Scratch, heartbeat: u32) -> Result<World<'_>, WorldError> {
    let config = ServerConfig {
        heartbeat,
        ..ServerConfig::default()
    };
    World::start_under(scratch, config).await
}

/// How often each thread of a process has gone to sleep by itself.
fn sleeps(pid: u32) -> anyhow::Result<BTreeMap<OsString, u64>> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        // Threads end while they are looked at.
        let Ok(status) = std::fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.context("the kernel counts")?.trim().parse()?;
        threads.insert(task.file_name(), count);
    }
    Ok(threads)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_wakes_up_for_its_servers_heartbeats_and_for_nothing_else() {
    scenario(async |scratch| {
        const HEARTBEATS: u32 = 6;
        const APART: u32 = 4;
        ensure!(
            product_words("umbra-agent")?.len() == 1,
            "an emulator has threads of its own"
        );
        let mut world = world(scratch, APART).await?;
        let program = world.device.program().context("no agent runs")?;
        // What belongs to the start is over with the first two.
        tokio::time::sleep(2 * Duration::from_secs(APART.into())).await;
        let before = sleeps(program.pid())?;
        tokio::time::sleep(HEARTBEATS * Duration::from_secs(APART.into())).await;
        let after = sleeps(program.pid())?;
        let woken: u64 = after
            .iter()
            .map(|(thread, count)| count - before.get(thread).unwrap_or(&0))
            .sum();
        ensure!(
            (u64::from(HEARTBEATS - 1)..=u64::from(HEARTBEATS + 3)).contains(&woken),
            "woken {woken} times in {HEARTBEATS} heartbeats"
        );
        world.device.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_new_address_is_told_to_the_server_at_once() {
    scenario(async |scratch| {
        isolate()?;
        let world = world(scratch, 40).await?;
        let since = async || {
            let status = world.device.status().await.ok()?;
            let online = status.get("stage")?.as_str()? == "online";
            online.then(|| status.get("since").cloned()).flatten()
        };
        let before = since().await.context("it is online")?;
        let island = Island::new(scratch, 1).await?;
        // With the next heartbeat it would look in any case.
        let before_that = Duration::from_secs(35);
        eventually(
            "the device to come back",
            before_that,
            async || match since().await {
                Some(now) if now != before => Ok(()),
                now => Err(format!("{now:?}")),
            },
        )
        .await?;
        let name = world.device_name().await?;
        let offer = world.console.offer(&world.server, &name, false).await?;
        let address = format!("{}:", island.site());
        ensure!(
            offer
                .addresses
                .iter()
                .any(|told| told.starts_with(&address)),
            "{:?}",
            offer.addresses
        );
        Ok(())
    })
    .await;
}
