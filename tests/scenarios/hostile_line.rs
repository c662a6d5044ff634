//! The worst lines on which the product still has to do its work: half a second of delay with one packet in twenty lost and others
//! out of order, and 64 kbit/s.

use std::time::{Duration, Instant};

use anyhow::ensure;
use umbra_tests::eventually::eventually_is;
use umbra_tests::netns::{Island, Line, isolate};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::PATIENCE;

use crate::site::Site;

/// The longest from a key press to the device's screen on such a line.
const INPUT: Duration = Duration::from_secs(15);

/// A device at the end of a line is taken on through the gateway, managed, and operated.
async fn works_over(scratch: &Scratch, line: Line) -> anyhow::Result<()> {
    isolate()?;
    let island = Island::far(scratch, 1, line).await?;
    let site = Site::start_for(scratch, &island).await?;
    let (device, name) = site.device(scratch, Some(&island)).await?;
    site.wait_for_way(&name, Some("icg")).await?;
    site.send_message(&name, "Far away.").await?;
    let mut shadow = site.console.shadow(&name, &["--reason", "far"]).await?;
    let mut viewer = shadow.view().await?;
    let began = Instant::now();
    viewer.type_text("far").await?;
    eventually_is("the keys to arrive", PATIENCE, || {
        match site.desktop.typed().as_str() {
            "far" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await?;
    let took = began.elapsed();
    ensure!(took < INPUT, "a key press took {took:?}");
    // Not faster than light: the line is what it was made for.
    let least = Duration::from_millis(u64::from(line.delay));
    ensure!(took >= least, "a key press took {took:?}");
    viewer.leave().await?;
    shadow.ended().await?;
    let (status, said) = shadow.finished().await?;
    ensure!(status.success(), "{status}: {said}");
    device.wait_until_online().await?;
    Ok(())
}

#[tokio::test]
async fn over_half_a_second_of_delay_with_losses_a_device_is_taken_on_managed_and_operated() {
    scenario(async |scratch| {
        let line = Line {
            delay: 250,
            jitter: 100,
            loss: 5,
            rate: 1_000_000,
        };
        works_over(scratch, line).await
    })
    .await;
}

#[tokio::test]
async fn over_64_kbit_a_second_a_device_is_taken_on_managed_and_operated() {
    scenario(async |scratch| {
        let line = Line {
            delay: 50,
            jitter: 0,
            loss: 0,
            rate: 8_000,
        };
        works_over(scratch, line).await
    })
    .await;
}
