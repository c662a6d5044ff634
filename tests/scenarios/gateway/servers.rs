//! Two servers that share a gateway: each has its own devices, its own administrators, and its own misfortunes.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::desktop::{Desktop, DesktopConfig, Listen};
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, Device, DeviceConfig, Server, ServerConfig};

use super::site::Site;

/// The devices that an administrator sees.
async fn devices(console: &Console<'_>) -> anyhow::Result<Vec<String>> {
    let all = console.tell(&["devices"], "").await?;
    let names = all.as_array().context("no list")?.iter();
    let names = names.filter_map(|device| device.get("unit_id").and_then(Value::as_str));
    Ok(names.map(str::to_owned).collect())
}

async fn message(console: &Console<'_>, name: &str) -> anyhow::Result<()> {
    let command = ["devices", "command", "--wait", name, "message", "Hello."];
    let answer = console.tell(&command, "").await?;
    ensure!(answer["state"].as_str() == Some("done"), "{answer}");
    Ok(())
}

/// Types into a screen that is being shadowed.
async fn typed(desktop: &Desktop, text: &str) -> anyhow::Result<()> {
    eventually_is("the keys to arrive", SOON, || match desktop.typed() {
        typed if typed == text => Ok(()),
        other => Err(other),
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_two_servers_reach_their_own_through_one_gateway_and_the_loss_of_one_is_not_the_others()
 {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (first, ours) = site.device(scratch, None).await?;
        site.wait_for_way(&ours, Some("icg")).await?;

        // The gateway's certificate comes from the first server: the second one is told of that root.
        let root = site.server.state().join("root.crt");
        let config = ServerConfig {
            name: "other-server".into(),
            ..ServerConfig::default()
        };
        let mut other = Server::start(scratch, config).await?;
        let console = Console::new(scratch, "other-console");
        console
            .log_in(&other, "admin", &other.password_file())
            .await?;
        site.gateway.serve_also(&console, &root).await?;
        site.gateway.wait_until_attached(&console, true).await?;
        site.gateway
            .wait_until_attached(&site.console, true)
            .await?;
        // One more for the first server, although the second one is empty.
        let third = site.new_device(3, site.device_config(), None).await?;
        let at = site.gateway.external().to_string();
        let more = site.take_on_at(&third, &at).await?;

        let screen = Desktop::start(DesktopConfig {
            listen: Listen::Unix(scratch.path("other.sock")),
            ..DesktopConfig::default()
        })
        .await?;
        let mut config = DeviceConfig::with_desktop(&screen);
        config
            .set_text("system.remotemanager.connectorranking", "icg")
            .set_text("umbra.proxy.ca_file", &root.display().to_string());
        let mut second = Device::new(scratch, "second", config)?;
        crate::enrolment::network_card(second.root(), "00:e0:c5:00:00:02")?;
        second.start()?;
        second
            .enrol_at(
                site.gateway.external(),
                other.fingerprint(),
                &console.one_time_key().await?,
            )
            .await?;
        second.wait_until_online().await?;
        let theirs = second.unit_id().await?;
        ensure!(ours != theirs, "two devices with one label prove nothing");

        // Each server has its own, and nothing of the other's.
        let mut all = devices(&site.console).await?;
        all.sort();
        let mut expected = [ours.clone(), more.clone()];
        expected.sort();
        ensure!(all == expected, "{all:?}");
        ensure!(devices(&console).await? == std::slice::from_ref(&theirs));
        message(&site.console, &ours).await?;
        message(&console, &theirs).await?;
        let near = site.console.shadow(&ours, &["--reason", "one"]).await?;
        let far = console.shadow(&theirs, &["--reason", "two"]).await?;
        let (mut here, mut there) = (near.view().await?, far.view().await?);
        here.type_text("ours").await?;
        there.type_text("theirs").await?;
        typed(&site.desktop, "ours").await?;
        typed(&screen, "theirs").await?;

        // One server dies: its device waits, the other's device does not even notice.
        let since = first.status().await?;
        other.program().kill();
        let status = second.wait_for_stage("waiting").await?;
        ensure!(status["code"].as_str() == Some("no_server"), "{status}");
        message(&site.console, &ours).await?;
        here.refresh().await?;
        let now = first.status().await?;
        ensure!(
            since["since"].is_u64() && since["since"] == now["since"],
            "the link of the other server's device was touched: {since} became {now}"
        );
        // A session that has begun needs no server.
        there.refresh().await?;
        other.start_again().await?;
        second.wait_until_online().await?;
        message(&console, &theirs).await?;

        // The same the other way round.
        site.server.program().kill();
        first.wait_for_stage("waiting").await?;
        message(&console, &theirs).await?;
        for (viewer, mut shadow) in [(here, near), (there, far)] {
            viewer.leave().await?;
            shadow.ended().await?;
        }
        Ok(())
    })
    .await;
}
