//! Crowds, noise and lies at the two ports of the product: port 5900 of a device and the server's. Strangers are told
//! nothing, cost a bounded amount for a bounded time, and whoever has business there is served meanwhile.

mod control_link;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use umbra_tests::eventually::eventually;
use umbra_tests::fault_proxy::{Fault, FaultProxy};
use umbra_tests::program::Program;
use umbra_tests::scratch::scenario;
use umbra_tests::tunnel::{Tunnel, dial};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World};

/// How many strangers are a crowd.
const CROWD: usize = 200;
/// How many strangers a device keeps at a time.
const PLACES: usize = 64;
/// Sockets that come and go besides: the session's, those of the command line.
const OTHERS: usize = 8;
/// How much memory a crowd may take of a program, in KiB.
const MORE_MEMORY: u64 = 16 * 1024;
/// How long a stranger may stay at most; the programs' own limits are well below.
const SHOWN_OUT: Duration = Duration::from_secs(40);

pub(crate) fn resident(program: Option<&mut Program>) -> anyhow::Result<u64> {
    program
        .and_then(|program| program.resident_kib())
        .context("the program is gone")
}

fn sockets(program: Option<&mut Program>) -> anyhow::Result<usize> {
    program
        .and_then(|program| program.sockets())
        .context("the program is gone")
}

pub(crate) fn bounded(before: u64, now: u64) -> anyhow::Result<()> {
    ensure!(
        now < before + MORE_MEMORY,
        "{before} KiB became {now} KiB of memory"
    );
    Ok(())
}

/// Everything that a stranger hears until the connection ends, however it ends.
async fn heard(mut stranger: impl AsyncRead + Unpin) -> anyhow::Result<Vec<u8>> {
    let mut heard = Vec::new();
    let reading = async {
        let mut chunk = [0; 4096];
        while let Ok(count) = stranger.read(&mut chunk).await
            && count > 0
            && heard.len() < 1 << 20
        {
            heard.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(SHOWN_OUT, reading)
        .await
        .context("a stranger may stay for ever")?;
    Ok(heard)
}

/// A crowd that shook hands and says nothing more.
async fn crowd_with_tls(address: SocketAddr) -> anyhow::Result<Vec<Tunnel>> {
    let mut dialling = JoinSet::new();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        // A few at a time: those who come too fast may be shown out before the handshake is through.
        if dialling.len() >= 16
            && let Some(tunnel) = dialling.join_next().await
        {
            crowd.push(tunnel??);
        }
        dialling.spawn(dial(address, PATIENCE));
    }
    while let Some(tunnel) = dialling.join_next().await {
        crowd.push(tunnel??);
    }
    Ok(crowd)
}

async fn all_shown_out(crowd: Vec<Tunnel>) -> anyhow::Result<()> {
    for tunnel in crowd {
        let heard = heard(tunnel.into_stream()).await?;
        ensure!(
            heard.is_empty(),
            "a stranger was told {:?}",
            String::from_utf8_lossy(&heard)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_shook_hands_and_says_nothing_keeps_no_operator_out() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let address = world.device.shadow_address().await?;
        // What the first sessions need once is not the crowd's.
        world.shadow("first").await?.view().await?.refresh().await?;
        let before = resident(world.device.program())?;
        let sockets = sockets(world.device.program())?;
        let crowd = crowd_with_tls(address).await?;
        bounded(before, resident(world.device.program())?)?;
        let shadow = world.shadow("in spite of the crowd").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        bounded(before, resident(world.device.program())?)?;
        let now = self::sockets(world.device.program())?;
        ensure!(
            now <= sockets + PLACES + OTHERS,
            "{} strangers are kept",
            now - sockets
        );
        ensure!(
            world.desktop.active() == 1,
            "strangers are at the VNC server"
        );
        all_shown_out(crowd).await?;
        viewer.follow().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_of_noise_is_not_listened_to_whether_raw_or_inside_of_tls() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let device = world.device.shadow_address().await?;
        let server = world.server.address();
        world.shadow("first").await?.view().await?.refresh().await?;
        let before = [
            resident(world.device.program())?,
            resident(Some(world.server.program()))?,
        ];
        let mut noise = vec![0; 1 << 20];
        SystemRandom::new()
            .fill(&mut noise)
            .map_err(|_| anyhow::anyhow!("no random numbers"))?;
        // As it comes, and as a TLS handshake of which only the first bytes are right.
        let mut almost = noise.clone();
        almost[..6].copy_from_slice(&[22, 3, 1, 0x40, 0, 1]);
        for address in [device, server] {
            for words in [&noise, &almost] {
                let mut stranger = TcpStream::connect(address).await?;
                let (from, mut to) = stranger.split();
                // Whoever is shown the door in the middle of it cannot finish.
                let (said, heard) = tokio::join!(to.write_all(words), heard(from));
                drop(said);
                let heard = heard?;
                // An alert at most.
                ensure!(
                    heard.len() <= 64 && !heard.starts_with(b"RFB"),
                    "{address} told a stranger {} bytes",
                    heard.len()
                );
            }
            let (from, mut to) = tokio::io::split(dial(address, PATIENCE).await?.into_stream());
            let saying = async {
                let said = to.write_all(&noise).await;
                drop(said);
            };
            let ((), heard) = tokio::join!(saying, heard(from));
            let heard = heard?;
            // The server may say that this is no request.
            let said = String::from_utf8_lossy(&heard);
            let limit = if address == server { 1024 } else { 0 };
            ensure!(heard.len() <= limit, "{address} told a stranger {said:?}");
            ensure!(!said.contains("RFB"), "{address} told a stranger {said:?}");
        }
        bounded(before[0], resident(world.device.program())?)?;
        bounded(before[1], resident(Some(world.server.program()))?)?;
        let shadow = world.shadow("afterwards").await?;
        shadow.view().await?.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_words_that_trickle_in_are_cut_off_and_use_no_ticket_up() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let name = world.device_name().await?;
        let offer = world.console.offer(&world.server, &name, false).await?;
        let preface = offer.preface();
        let relay = FaultProxy::start(world.device.shadow_address().await?).await?;
        let tunnel = dial(relay.address(), PATIENCE).await?;
        let (from, mut to) = tokio::io::split(tunnel.into_stream());
        // They would take a minute.
        relay.set(Fault::Slow(u32::try_from(preface.len() / 60)?));
        to.write_all(preface.as_bytes()).await?;
        to.flush().await?;
        let heard = heard(from).await?;
        ensure!(
            heard.is_empty(),
            "a dawdler was told {:?}",
            String::from_utf8_lossy(&heard)
        );
        ensure!(
            world.desktop.connections() == 0,
            "the VNC server was bothered"
        );
        // Said at once, the same words are good.
        let mut tunnel = dial(world.device.shadow_address().await?, PATIENCE).await?;
        tunnel.say(preface.as_bytes()).await?;
        ensure!(tunnel.line(PATIENCE).await? == "UMBRA/1 ok");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_in_the_middle_of_the_first_words_is_forgotten() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let name = world.device_name().await?;
        let address = world.device.shadow_address().await?;
        let offer = world.console.offer(&world.server, &name, false).await?;
        let preface = offer.preface();
        for end in [0, 3, preface.len() / 2, preface.len() - 1] {
            // Who came before and still may speak stays longer than who has said that nothing more comes.
            let mut patient = dial(address, PATIENCE).await?;
            let mut stream = dial(address, PATIENCE).await?.into_stream();
            stream.write_all(&preface.as_bytes()[..end]).await?;
            stream.shutdown().await?;
            let heard = tokio::select! {
                biased;
                heard = heard(stream) => heard?,
                _ = patient.rest(SHOWN_OUT) => bail!("after {end} bytes and the end, the device waited for more"),
            };
            ensure!(
                heard.is_empty(),
                "after {end} bytes: {:?}",
                String::from_utf8_lossy(&heard)
            );
        }
        ensure!(
            world.desktop.connections() == 0,
            "the VNC server was bothered"
        );
        let mut tunnel = dial(address, PATIENCE).await?;
        tunnel.say(preface.as_bytes()).await?;
        ensure!(tunnel.line(PATIENCE).await? == "UMBRA/1 ok");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_server_keeps_no_device_and_no_operator_out() {
    scenario(async |scratch| {
        let mut server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let desktop = umbra_tests::world::desktop(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&desktop))?;
        device.start()?;
        let key = console.one_time_key().await?;
        let before = resident(Some(server.program()))?;
        let mut silent = Vec::new();
        for _ in 0..CROWD {
            silent.push(TcpStream::connect(server.address()).await?);
        }
        let greeted = crowd_with_tls(server.address()).await?;
        bounded(before, resident(Some(server.program()))?)?;

        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let late = Console::new(scratch, "late");
        late.log_in(&server, "admin", &server.password_file())
            .await?;
        let status = device.status().await?;
        let name = status
            .pointer("/identity/unit_id")
            .and_then(serde_json::Value::as_str)
            .context("no name")?;
        let shadow = late.shadow(name, &[]).await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        for stranger in silent {
            ensure!(
                heard(stranger).await?.is_empty(),
                "a silent stranger was told something"
            );
        }
        all_shown_out(greeted).await?;
        viewer.refresh().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_some_time_is_not_shown_out_by_more_callers_than_places_who_come_and_go() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let name = world.device_name().await?;
        let address = world.device.shadow_address().await?;
        let offer = world.console.offer(&world.server, &name, false).await?;
        let mut slow = dial(address, PATIENCE).await?;
        // One after another, so that they never take more than one place.
        for _ in 0..2 * PLACES {
            let mut stranger = TcpStream::connect(address).await?;
            stranger.write_all(b"good day").await?;
            ensure!(
                heard(stranger).await?.is_empty(),
                "a stranger was told something"
            );
        }
        slow.say(offer.preface().as_bytes()).await?;
        let answer = slow.line(PATIENCE).await.unwrap_or_default();
        ensure!(
            answer == "UMBRA/1 ok",
            "shown out although nobody else was there: {answer:?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whom_the_server_vouched_for_is_no_stranger_while_the_person_is_asked() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let device = &world.device;
        device.set("network.vncserver.promptuser", "true").await?;
        let name = world.device_name().await?;
        let address = device.shadow_address().await?;
        let mut shadow = world.console.begin_shadow(&name, &[])?;
        let asked = || async {
            let status = device.status().await.map_err(|error| error.to_string())?;
            match status.pointer("/consents/0") {
                Some(_) => Ok(()),
                None => Err(status.to_string()),
            }
        };
        eventually("the person to be asked", PATIENCE, asked).await?;
        let crowd = crowd_with_tls(address).await?;
        device
            .tell(&["consent", "accept"], "")
            .await
            .context("the crowd took the question away")?;
        shadow.wait_until_open().await?;
        shadow.view().await?.refresh().await?;
        drop(crowd);
        Ok(())
    })
    .await;
}
