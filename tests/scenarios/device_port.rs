//! Port 5900 of a device towards strangers: it speaks TLS 1.3 with its own certificate and nothing else, greets no plain
//! viewer, waits for nobody for long, and serves those who have business there meanwhile.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_tests::eventually::eventually;
use umbra_tests::program::run;
use umbra_tests::rfb_client::{Options, RfbClient};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::tunnel::dial;
use umbra_tests::world::{PATIENCE, World};
use umbra_tests::x11::installed;

/// How long a stranger may stay at most; the device's own limit is well below.
const SHOWN_OUT: Duration = Duration::from_secs(40);

/// How many strangers the device keeps at a time.
const PLACES: usize = 64;
/// Sockets that come and go besides: the session's, those of the command line.
const OTHERS: usize = 8;

/// What the agent takes of the machine.
#[derive(Debug)]
struct Taken {
    memory: u64,
    sockets: usize,
}

fn taken(world: &mut World<'_>) -> anyhow::Result<Taken> {
    let agent = world.device.program().context("the agent is gone")?;
    Ok(Taken {
        memory: agent.resident_kib().context("the agent is gone")?,
        sockets: agent.sockets().context("the agent is gone")?,
    })
}

async fn heard(address: SocketAddr, words: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stranger = TcpStream::connect(address).await?;
    stranger.write_all(words).await?;
    let mut heard = Vec::new();
    let reading = tokio::time::timeout(SHOWN_OUT, stranger.read_to_end(&mut heard)).await;
    // A reset is an end as well.
    let _ = reading.context("the device lets a stranger stay")?;
    Ok(heard)
}

async fn said(scratch: &Scratch, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(installed(program)?);
    let output = run(scratch, program, command.args(arguments), b"", PATIENCE).await?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_viewer_is_never_greeted_in_secure_mode() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let address = world.device.shadow_address().await?;
        for words in [&b""[..], b"RFB 003.008\n"] {
            let heard = heard(address, words).await?;
            ensure!(
                heard.is_empty(),
                "a plain viewer was told {:?}",
                String::from_utf8_lossy(&heard)
            );
        }
        ensure!(
            world.desktop.connections() == 0,
            "the VNC server was bothered"
        );
        Ok(world
            .console
            .wait_for_audit("caller.refused", "secure_mode_required")
            .await?)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_viewers_pass_with_secure_mode_off_until_the_server_enforces_it() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        world
            .device
            .set("network.vncserver.secure_mode", "false")
            .await?;
        let address = world.device.shadow_address().await?;
        let viewer = eventually("a plain viewer to pass", PATIENCE, || async {
            let short = Options {
                limit: Duration::from_secs(5),
                ..Options::default()
            };
            RfbClient::connect(address, &short)
                .await
                .map_err(|error| error.to_string())
        });
        viewer.await?.refresh().await?;
        // Those who know what they do are not worse off for it.
        world
            .shadow("encrypted all the same")
            .await?
            .view()
            .await?
            .refresh()
            .await?;
        world
            .console
            .tell(&["policy", "--enforce-secure-mode", "on"], "")
            .await?;
        eventually("plain viewers to be left ungreeted", PATIENCE, || async {
            let heard = heard(address, b"")
                .await
                .map_err(|error| error.to_string())?;
            if heard.is_empty() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&heard).into_owned())
            }
        })
        .await?;
        world.shadow("still").await?.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_what_administrators_tools_expect() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let file = world.device.certificate().display().to_string();
        let name = world.device_name().await?;
        let text = said(
            scratch,
            "openssl",
            &["x509", "-in", &file, "-noout", "-text"],
        )
        .await?;
        for part in [
            &format!("CN = {name}")[..],
            "CA:FALSE",
            "TLS Web Server Authentication",
            "TLS Web Client Authentication",
        ] {
            ensure!(text.contains(part), "{part:?} is missing in {text}");
        }
        ensure!(
            text.to_lowercase()
                .contains(&format!("dns:{}", name.to_lowercase())),
            "no SAN in {text}"
        );
        let info = said(scratch, "x11vnc", &["-sslCertInfo", &file]).await?;
        ensure!(info.contains(&name), "x11vnc reads {info}");

        let address = world.device.shadow_address().await?.to_string();
        let shown = said(
            scratch,
            "openssl",
            &["s_client", "-connect", &address, "-tls1_3", "-showcerts"],
        )
        .await?;
        let filed = std::fs::read_to_string(&file)?;
        ensure!(
            shown.contains(filed.trim()),
            "another certificate is shown: {shown}"
        );
        ensure!(shown.contains("TLSv1.3"), "{shown}");
        ensure!(
            !shown.contains("RFB"),
            "RFB came before anybody was let in: {shown}"
        );
        let older = said(
            scratch,
            "openssl",
            &["s_client", "-connect", &address, "-tls1_2"],
        )
        .await?;
        ensure!(
            older.contains("Cipher is (NONE)") && older.contains("alert"),
            "TLS 1.2 was not refused: {older}"
        );
        ensure!(
            world.desktop.connections() == 0,
            "the VNC server was bothered"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_words_that_are_too_long_or_too_late_or_none_end_the_connection() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let address = world.device.shadow_address().await?;
        let endless = format!("UMBRA/1 {}", "A".repeat(64 * 1024));
        let trace = scratch.path("was-here");
        let shell = format!("PROCYCMD PW_$(touch {0});`touch {0}`\n", trace.display());
        for words in [
            endless,
            "GET / HTTP/1.1\r\n\r\n".into(),
            "\0\0\0\0\n".into(),
            shell,
            String::new(),
        ] {
            let begin: String = words.chars().take(20).collect();
            // Who says nothing stays until the deadline; who said something wrong later than that has to go before.
            let mut silent = dial(address, PATIENCE).await?;
            let mut tunnel = dial(address, PATIENCE).await?;
            // The device may close in the middle of so many words.
            let _ = tunnel.say(words.as_bytes()).await;
            let heard = if words.is_empty() {
                tunnel.rest(SHOWN_OUT).await
            } else {
                tokio::select! {
                    biased;
                    heard = tunnel.rest(SHOWN_OUT) => heard,
                    _ = silent.rest(SHOWN_OUT) => bail!("the device listened to {begin:?} up to its deadline"),
                }
            };
            let heard = heard.context("the device waits for ever")?;
            let heard = String::from_utf8_lossy(&heard);
            ensure!(!heard.contains("RFB"), "after {begin:?}: {heard:?}");
            ensure!(
                heard.len() < 1024,
                "after {begin:?}: {} bytes",
                heard.len()
            );
        }
        ensure!(!trace.exists(), "a stranger's words were run");
        ensure!(
            world.desktop.connections() == 0,
            "the VNC server was bothered"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_keeps_no_operator_out_and_takes_bounded_memory() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let address = world.device.shadow_address().await?;
        let before = taken(&mut world)?;
        let mut crowd = Vec::new();
        for number in 0..200u32 {
            let mut stranger = TcpStream::connect(address).await?;
            let words: &[u8] = match number % 4 {
                0 => b"",
                1 => &[22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3],
                2 => b"\x16\x03\x01\xFF\xFF garbage \xFF\xFF",
                _ => b"RFB 003.008\n",
            };
            // One that was shown the door already is no matter.
            let _ = stranger.write_all(words).await;
            crowd.push(stranger);
        }
        let shadow = world.shadow("in spite of the crowd").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        let now = taken(&mut world)?;
        ensure!(
            now.memory < 2 * before.memory + 16 * 1024,
            "{before:?} became {now:?}"
        );
        ensure!(
            now.sockets <= before.sockets + PLACES + OTHERS,
            "{} strangers are kept: {before:?} became {now:?}",
            now.sockets - before.sockets
        );
        for mut stranger in crowd {
            let mut heard = Vec::new();
            let reading = tokio::time::timeout(SHOWN_OUT, stranger.read_to_end(&mut heard)).await;
            ensure!(reading.is_ok(), "a stranger may stay for ever");
            ensure!(
                heard.len() <= 64,
                "a stranger was told {} bytes",
                heard.len()
            );
        }
        viewer.follow().await?;
        Ok(())
    })
    .await;
}
