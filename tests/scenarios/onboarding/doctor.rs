//! `umbra-agent doctor` on a device that a server has taken on: all is well, and then one thing after another is not. The text and
//! the document say the same, the right check changes and no other, and the exit code is the documented one.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Output;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, DeviceConfig, World};

use crate::between::broken_proxies::Parrot;
use crate::device_state::{agent_under, in_namespace};
use crate::enrolment::{said, text};
use crate::state::libfaketime;

/// What docs/diagnosis.md says: 0 unless a check is bad.
const WELL: i32 = 0;
const NOT_WELL: i32 = 1;

/// The checks of a device and of the chain of its server, as docs/diagnosis.md lists them.
fn documented() -> (Vec<String>, Vec<String>) {
    let page = include_str!("../../../docs/diagnosis.md");
    let (device, chain) = page.split_once("## The chain").unwrap_or_default();
    let ids = |part: &str| -> Vec<String> {
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split_once('`'))
            .map(|(id, _)| id.to_owned())
            .collect()
    };
    (ids(device), ids(chain))
}

fn checks(output: &Output, exit: i32) -> anyhow::Result<Vec<Value>> {
    ensure!(output.status.code() == Some(exit), "{}", said(output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn named<'c>(checks: &'c [Value], id: &str) -> anyhow::Result<&'c Value> {
    let found = checks.iter().find(|check| check["id"] == id);
    found.with_context(|| format!("{id} is not listed"))
}

/// The checks that are worse than they should be.
fn troubled(checks: &[Value]) -> Vec<String> {
    let bad = |check: &&Value| check["verdict"] == "bad" || check["verdict"] == "warning";
    checks
        .iter()
        .filter(bad)
        .map(|check| text(check, "/id"))
        .collect()
}

/// A check says what is wrong, with all of these words, and what to do.
fn says(check: &Value, verdict: &str, words: &[&str]) -> anyhow::Result<()> {
    ensure!(text(check, "/verdict") == verdict, "{check}");
    for word in words {
        ensure!(
            text(check, "/sentence").contains(word),
            "“{word}” is missing in {check}"
        );
    }
    ensure!(text(check, "/advice").len() > 10, "no advice: {check}");
    Ok(())
}

async fn doctor(device: &Device<'_>, exit: i32) -> anyhow::Result<Vec<Value>> {
    checks(&device.output(&["doctor", "--json"], "").await?, exit)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_lists_every_check_of_a_device_that_is_well_and_names_the_one_that_is_not() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        world.device.wait_until_online().await?;
        let well = doctor(&world.device, WELL).await?;
        ensure!(troubled(&well).is_empty(), "{well:#?}");
        let (device, chain) = documented();
        ensure!(
            device.len() == 12 && chain.len() == 24,
            "{device:?} {chain:?}"
        );
        for id in device.iter().filter(|id| *id != "gateway") {
            named(&well, id)?;
        }
        // A pinned root takes the place of a fingerprint, and what is in order is one line.
        let of_chain = chain
            .iter()
            .filter(|id| named(&well, &format!("chain.{id}")).is_ok())
            .count();
        ensure!(of_chain >= 15, "{of_chain} checks of the chain: {well:#?}");
        let told = world.device.output(&["doctor"], "").await?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        for check in &well {
            let id = text(check, "/id");
            let line = told
                .lines()
                .find(|line| line.split_whitespace().nth(1) == Some(&id));
            ensure!(line.is_some(), "{id} is missing in {told}");
        }
        ensure!(told.ends_with("Nothing stands in the way.\n"), "{told}");

        // Nobody answers where the VNC server should be.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        world
            .device
            .set("umbra.vncserver.upstream", &format!("tcp:{free}"))
            .await?;
        let ill = doctor(&world.device, NOT_WELL).await?;
        ensure!(troubled(&ill) == ["vnc-server"], "{ill:#?}");
        says(named(&ill, "vnc-server")?, "bad", &[&free.to_string()])?;
        let told = world.device.output(&["doctor"], "").await?;
        ensure!(told.status.code() == Some(NOT_WELL), "{}", said(&told));
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        ensure!(
            told.contains(" BAD  vnc-server ")
                && told.contains("→ ")
                && told.contains("Mend what is marked"),
            "{told}"
        );
        world
            .device
            .tell(&["registry", "reset", "umbra.vncserver.upstream"], "")
            .await?;
        ensure!(troubled(&doctor(&world.device, WELL).await?).is_empty());

        // The folder for its state takes nothing.
        let root = world.device.root().to_owned();
        let wfs = root.join("wfs").display().to_string();
        let script = format!("mount --bind {wfs} {wfs}; mount -o remount,ro,bind {wfs}");
        let (_holder, pid) = in_namespace(scratch, &script).await?;
        let enter = ["nsenter", "-m", "-t", &pid];
        let output = agent_under(scratch, &enter, &root, &["doctor", "--json"], "").await?;
        let ill = checks(&output, NOT_WELL)?;
        ensure!(troubled(&ill) == ["state-writable"], "{ill:#?}");
        says(named(&ill, "state-writable")?, "bad", &["read-only"])?;

        // The server is gone.
        world.server.program().kill();
        let ill = doctor(&world.device, NOT_WELL).await?;
        ensure!(troubled(&ill).contains(&"server".to_owned()), "{ill:#?}");
        says(named(&ill, "server")?, "bad", &["refuses connections"])?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_a_wrong_clock_as_such_and_leaves_nothing_behind() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world.device.wait_until_online().await?;
        let preload = format!("LD_PRELOAD={}", libfaketime()?);
        let at = async |date: &str, exit: i32| {
            let date = format!("FAKETIME=@{date} 00:00:00");
            let wrapper = ["env", &preload, &date, "FAKETIME_DONT_FAKE_MONOTONIC=1"];
            let words = ["doctor", "--json"];
            let output = agent_under(scratch, &wrapper, world.device.root(), &words, "").await?;
            checks(&output, exit)
        };
        // So far off that nobody believes it: dates don't count, and the device works.
        for date in ["1970-01-02", "2099-12-30"] {
            let found = at(date, WELL).await?;
            let early_or_late = if date.starts_with("1970") {
                "before"
            } else {
                "after"
            };
            says(
                named(&found, "clock")?,
                "warning",
                &[&date[..4], early_or_late],
            )?;
            ensure!(
                !found.iter().any(|check| check["verdict"] == "bad")
                    && named(&found, "chain.validity").is_err(),
                "{found:#?}"
            );
        }
        // Believable, but years after the end of the server's certificate: the clock is named and not the certificate.
        let year = 1970 + std::time::UNIX_EPOCH.elapsed()?.as_secs() / 31_556_952;
        let found = at(&format!("{}-06-01", year + 5), NOT_WELL).await?;
        let server = named(&found, "server")?;
        says(
            server,
            "bad",
            &["the clock says", "the clock is probably fast by more than"],
        )?;
        says(named(&found, "chain.clock")?, "bad", &["clock"])?;
        // Looking changes nothing.
        ensure!(troubled(&doctor(&world.device, WELL).await?).is_empty());
        ensure!(!world.device.root().join("wfs/umbra/doctor-probe").exists());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_a_proxy_that_refuses_from_one_that_is_not_there() {
    scenario(async |scratch| {
        let parrot = Parrot::start(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::default())?;
        device.start()?;
        device.wait_until_up().await?;
        let proxy = async |port: u16| {
            for (name, value) in [
                ("umbra.proxy.host", "127.0.0.1"),
                ("umbra.proxy.port", &port.to_string()),
                ("umbra.proxy.mode", "manual"),
            ] {
                device.set(name, value).await?;
            }
            let words = ["doctor", "--address", "server.example.com:8443", "--json"];
            checks(&device.output(&words, "").await?, NOT_WELL)
        };
        let refused = proxy(parrot.address.port()).await?;
        ensure!(troubled(&refused) == ["server"], "{refused:#?}");
        let name = parrot.address.to_string();
        says(named(&refused, "server")?, "bad", &[&name, "403"])?;
        ensure!(
            text(named(&refused, "server")?, "/advice").contains("administrator of the proxy"),
            "{refused:#?}"
        );
        ensure!(text(named(&refused, "proxy")?, "/sentence").contains(&name));
        ensure!(text(named(&refused, "dns")?, "/verdict") == "skipped");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let absent = proxy(free.port()).await?;
        ensure!(troubled(&absent) == ["proxy", "server"], "{absent:#?}");
        says(named(&absent, "proxy")?, "bad", &[&free.to_string()])?;
        Ok(())
    })
    .await;
}
