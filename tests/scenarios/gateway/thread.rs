//! The whole thread: enrolled, online and shadowed with nothing but a gateway in reach.

use anyhow::ensure;
use serde_json::Value;
use umbra_tests::eventually::{SOON, eventually_is};
use umbra_tests::netns::{Island, isolate};
use umbra_tests::scratch::scenario;

use super::site::Site;

#[tokio::test]
async fn a_device_without_a_way_to_its_server_is_seen_and_operated_through_the_gateway() {
    scenario(async |scratch| {
        isolate()?;
        let island = Island::new(scratch, 1).await?;
        island.refuse_inbound(scratch).await?;
        let site = Site::start_for(scratch, &island).await?;
        let (device, name) = site.device(scratch, Some(&island)).await?;
        site.wait_for_way(&name, Some("icg")).await?;

        let reason = ["--reason", "behind seven walls"];
        let mut shadow = site.console.shadow(&name, &reason).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        viewer.type_text("over there").await?;
        eventually_is("the keys to arrive", SOON, || {
            match site.desktop.typed().as_str() {
                "over there" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        site.desktop.freeze(true);
        let there = site.desktop.framebuffer();
        ensure!(
            viewer.follow_until(SOON, |seen| *seen == there).await?,
            "{:?}",
            viewer.image().difference(&there, 0)
        );
        viewer.leave().await?;
        let ended = shadow.ended().await?;
        let (status, said) = shadow.finished().await?;
        ensure!(status.success(), "{status}: {said}");
        let session = ended.get("session").and_then(Value::as_str);
        let record = site
            .console
            .ended_session(session.unwrap_or_default())
            .await?;
        let bytes = record.get("bytes_to_console").and_then(Value::as_u64);
        ensure!(
            record.get("reason").and_then(Value::as_str) == Some("behind seven walls")
                && bytes > Some(0),
            "{record}"
        );
        let status = device.status().await?;
        ensure!(
            status.get("stage").and_then(Value::as_str) == Some("online"),
            "{status}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_managed_through_the_gateway_as_it_is_directly() {
    scenario(async |scratch| {
        let site = Site::start(scratch).await?;
        let (device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        let command = ["devices", "command", "--wait", &name, "message", "Hello."];
        let answer = site.console.tell(&command, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        let setting = "network.vncserver.remoteinput=false";
        site.console
            .tell(&["devices", "settings", &name, setting], "")
            .await?;
        let name = "network.vncserver.remoteinput";
        let get = ["registry", "get", name, "--json"];
        umbra_tests::eventually::eventually("the setting to arrive", SOON, || async {
            let said = device.tell(&get, "").await.map_err(|e| e.to_string())?;
            let entries: Value = serde_json::from_str(&said).map_err(|e| e.to_string())?;
            if entries.pointer("/0/value") == Some(&Value::Bool(false)) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_and_a_killed_server_come_back_to_a_device_that_comes_back_by_itself() {
    scenario(async |scratch| {
        let mut site = Site::start(scratch).await?;
        let (_device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        site.gateway.program().kill();
        site.wait_until_offline(&name).await?;
        site.gateway.start_again().await?;
        site.wait_for_way(&name, Some("icg")).await?;
        site.server.start_again().await?;
        site.gateway
            .wait_until_attached(&site.console, true)
            .await?;
        site.wait_for_way(&name, Some("icg")).await?;
        Ok(())
    })
    .await;
}
