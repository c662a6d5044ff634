//! A device whose clock starts in 1970, as one without a battery does, until the network's time sets it.

use umbra_tests::eventually::eventually_is;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{DeviceConfig, desktop};

use super::*;
use crate::enrolment::{site, text};
use crate::state::libfaketime;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_while_the_agent_works_costs_neither_link_nor_session_nor_identity() {
    scenario(async |scratch| {
        let screen = desktop(scratch).await?;
        let (server, console) = site(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        let clock = device.root().join("clock");
        std::fs::write(&clock, "@1970-01-01 00:00:05\n")?;
        for (name, value) in [
            ("LD_PRELOAD", libfaketime()?.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            device.set_environment(name, value);
        }
        device.start()?;
        device
            .enrol(&server, &console.one_time_key().await?)
            .await?;
        let before = device.wait_for_stage("online").await?;
        ensure!(
            text(&before, "/warnings/clock").contains("clock can't be right"),
            "{before}"
        );
        let shadow = console.shadow(&device.unit_id().await?, &[]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;

        let set = clock.with_extension("set");
        std::fs::write(&set, "+0\n")?;
        std::fs::rename(&set, &clock)?;
        let told = umbra_tests::eventually::eventually("the warning to go", PATIENCE, async || {
            let status = device.status().await.map_err(|error| error.to_string())?;
            match text(&status, "/warnings/clock").as_str() {
                "" if status["stage"] == "online" => Ok(status),
                _ => Err(status.to_string()),
            }
        });
        let after = told.await?;
        ensure!(after["identity"] == before["identity"], "{after}");
        viewer.type_text("still here").await?;
        eventually_is("the keys to arrive", PATIENCE, || {
            match screen.typed().as_str() {
                "still here" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        // What was made in 1970 is good today.
        device.restart_hard()?;
        let again = device.wait_for_stage("online").await?;
        ensure!(again["identity"] == before["identity"], "{again}");
        ensure!(again["warnings"] == serde_json::json!({}), "{again}");
        let shadow = console.shadow(&device.unit_id().await?, &[]).await?;
        shadow.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}
