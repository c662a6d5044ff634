//! Servers that are not the one that was meant, that are not there, and that go away in the middle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig};

use super::*;

/// Relays connections on this address; after as many bytes of the server's as it is told to let through, it is gone.
async fn relay(
    at: &str,
    server: SocketAddr,
    letting: Arc<AtomicU64>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((at, 0)).await?;
    let address = listener.local_addr()?;
    // It ends with the scenario's runtime.
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let letting = letting.load(Ordering::Relaxed);
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(server).await?;
                let (from_client, mut to_client) = client.split();
                let (from_server, mut to_server) = upstream.split();
                let (mut from_client, mut from_server) = (from_client, from_server.take(letting));
                tokio::select! {
                    up = tokio::io::copy(&mut from_client, &mut to_server) => {
                        up?;
                        to_server.shutdown().await?;
                        tokio::io::copy(&mut from_server, &mut to_client).await
                    }
                    down = tokio::io::copy(&mut from_server, &mut to_client) => down,
                }
            });
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_key_or_device_is_sent_to_a_server_with_another_fingerprint() {
    scenario(async |scratch| {
        let (mut server, console) = site(scratch).await?;
        let relay = FaultProxy::start(server.address()).await?;
        let (device, id) = running(scratch, "device").await?;
        let (key_id, key) = key(&console, &[]).await?;
        let wrong = server
            .fingerprint()
            .replace(|c: char| c.is_ascii_digit(), "0");
        ensure!(
            wrong != server.fingerprint(),
            "a fingerprint without a digit"
        );
        relay.record();
        let address = relay.address().to_string();
        let output = enroll(&device, &address, &wrong, &key).await?;
        let told = refused(
            &output,
            PERMISSION,
            &[
                "[wrong_fingerprint]",
                "Nothing was sent",
                &wrong,
                server.fingerprint(),
            ],
        )?;
        ensure!(!told.contains(&key), "the key is in: {told}");
        let passed = relay.recording();
        ensure!(
            passed.to_client.len() > 500,
            "the server was not even asked"
        );
        // Two first messages, each with a share of 1,216 bytes, and the reason for hanging up; the device's certificate alone has about 500.
        ensure!(
            passed.to_server.len() < 600 + 2 * 1_216,
            "{} bytes were sent",
            passed.to_server.len()
        );
        ensure!(audited(&console, "device.enrolled", "ok").await?.is_empty());
        let tried = server.program().lines();
        ensure!(
            !tried.iter().any(|line| line.contains("device.enrolled")),
            "{tried:?}"
        );
        ensure!(text(&key_on_file(&console, &key_id).await?, "/state") == "active");
        still_alone(&device, &id).await?;
        // The same key with the right fingerprint.
        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        device.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_in_the_servers_certificate_is_told_with_those_that_are() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let all = Arc::new(AtomicU64::new(u64::MAX));
        let elsewhere = relay("127.0.0.2", server.address(), all).await?;
        let (device, id) = running(scratch, "device").await?;
        let (key_id, key) = key(&console, &[]).await?;
        let output = enroll(&device, &elsewhere.to_string(), server.fingerprint(), &key).await?;
        refused(
            &output,
            PERMISSION,
            &[
                "[wrong_name]",
                "127.0.0.2",
                "localhost",
                "127.0.0.1",
                "Nothing was sent",
            ],
        )?;
        ensure!(text(&key_on_file(&console, &key_id).await?, "/state") == "active");
        still_alone(&device, &id).await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_is_something_else_is_told_and_a_later_try_works() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        let relay = FaultProxy::start(server.address()).await?;
        let (device, id) = running(scratch, "device").await?;
        let (_, key) = key(&console, &[]).await?;

        relay.set(Fault::Refuse);
        let address = relay.address().to_string();
        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        refused(
            &output,
            UNAVAILABLE,
            &["[unreachable]", &address, "try again"],
        )?;
        still_alone(&device, &id).await?;

        let greeter = TcpListener::bind("127.0.0.1:0").await?;
        let other = greeter.local_addr()?.to_string();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = greeter.accept().await {
                caller.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await?;
                let mut heard = Vec::new();
                caller.take(4096).read_to_end(&mut heard).await?;
            }
            std::io::Result::Ok(())
        });
        let output = enroll(&device, &other, server.fingerprint(), &key).await?;
        refused(&output, TRY_AGAIN, &["[tls]", &other, "TLS"])?;
        still_alone(&device, &id).await?;

        relay.set(Fault::Pass);
        let output = enroll(&device, &address, server.fingerprint(), &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        device.wait_until_online().await?;
        ensure!(audited(&console, "device.enrolled", "ok").await?.len() == 1);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_line_breaks_the_same_key_takes_the_device_on_at_the_next_try() {
    scenario(async |scratch| {
        let (server, console) = site(scratch).await?;
        // How much the server says in all, from a device that nothing happens to.
        let measure = FaultProxy::start(server.address()).await?;
        measure.record();
        let other = Device::new(scratch, "other", DeviceConfig::default())?;
        let (_, first) = key(&console, &[]).await?;
        let output = enroll(
            &other,
            &measure.address().to_string(),
            server.fingerprint(),
            &first,
        )
        .await?;
        ensure!(output.status.success(), "{}", said(&output));
        let whole = u64::try_from(measure.recording().to_client.len())?;

        let letting = Arc::new(AtomicU64::new(0));
        let address = relay("127.0.0.1", server.address(), Arc::clone(&letting)).await?;
        let (device, id) = running(scratch, "device").await?;
        let (key_id, key) = key(&console, &[]).await?;
        let used = async || -> anyhow::Result<bool> {
            Ok(text(&key_on_file(&console, &key_id).await?, "/state") == "used")
        };
        let mut lost_answers = 0;
        for eighths in [0, 2, 4, 6, 7] {
            letting.store(whole * eighths / 8, Ordering::Relaxed);
            let output = enroll(&device, &address.to_string(), server.fingerprint(), &key).await?;
            let told = refused(&output, TRY_AGAIN, &[])?;
            ensure!(
                told.contains("[connection_lost]") || told.contains("[tls]"),
                "{told}"
            );
            still_alone(&device, &id).await?;
            if used().await? {
                lost_answers += 1;
                ensure!(told.contains("same key"), "nobody says what to do: {told}");
            }
        }
        ensure!(
            lost_answers > 0,
            "the server's answer was never the thing that was lost"
        );
        letting.store(u64::MAX, Ordering::Relaxed);
        let output = enroll(&device, &address.to_string(), server.fingerprint(), &key).await?;
        ensure!(output.status.success(), "{}", said(&output));
        let status = device.wait_for_stage("online").await?;
        ensure!(text(&status, "/identity/device_id") == id, "{status}");
        let on_file = devices(&console).await?;
        ensure!(on_file.len() == 2, "{on_file:?}");
        let lines = audited(&console, "device.enrolled", "ok").await?;
        let last = lines.first().context("no line")?;
        ensure!(
            text(last, "/detail") == "the same answer again",
            "{lines:?}"
        );
        ensure!(lines.len() == 2 + lost_answers, "{lines:?}");
        Ok(())
    })
    .await;
}
