//! Programs that may have few files open, and more callers than that: accepting pauses, and whoever has business there is served as
//! soon as there is room.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;
use umbra_tests::eventually::eventually_is;
use umbra_tests::program::{Program, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::PATIENCE;

use crate::site::Site;

/// How many files a program may have open from now on.
const FILES: usize = 64;
/// How many callers come.
const CROWD: usize = 300;
/// The most lines that a program may write about having no file left to accept anybody with.
const LINES: usize = 20;
/// The most hundredths of a second of a processor that a program may spend on it.
const TICKS: u64 = 300;

fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The processor time that a process has taken, in hundredths of a second.
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name")?;
    let numbers: Vec<&str> = after_name.split_whitespace().collect();
    let of = |at: usize| anyhow::Ok(numbers.get(at).context("too short")?.parse::<u64>()?);
    Ok(of(11)? + of(12)?)
}

/// Takes the files away from a program and sends a crowd to its port until none is left; gives the crowd.
async fn besiege(
    scratch: &Scratch,
    program: &mut Program,
    port: SocketAddr,
) -> anyhow::Result<Vec<TcpStream>> {
    let pid = program.pid();
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={pid}"));
    command.arg(format!("--nofile={FILES}:{FILES}"));
    let output = run(scratch, "prlimit", &mut command, b"", PATIENCE).await?;
    ensure!(output.status.success(), "no limit was set");
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(TcpStream::connect(port).await?);
    }
    eventually_is("no file to be left", PATIENCE, || match open_files(pid) {
        Ok(open) if open >= FILES - 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    Ok(crowd)
}

/// One of the product's programs that listens.
#[derive(Clone, Copy)]
enum Listener {
    Device,
    Gateway,
    Server,
}

/// Takes the files away from one of the programs while the crowd is there, and sees all of them do their work afterwards.
async fn waits_and_serves_again(scratch: &Scratch, which: Listener) -> anyhow::Result<()> {
    let mut site = Site::start(scratch).await?;
    let (mut device, name) = site.device(scratch, None).await?;
    site.wait_for_way(&name, Some("icg")).await?;
    site.see_and_operate(&name, "before").await?;
    let port = match which {
        Listener::Device => device.shadow_address().await?,
        Listener::Gateway => site.gateway.internal(),
        Listener::Server => site.server.address(),
    };
    let program = match which {
        Listener::Device => device.program().context("no agent")?,
        Listener::Gateway => site.gateway.program(),
        Listener::Server => site.server.program(),
    };
    let (said, worked) = (program.lines().len(), ticks(program.pid())?);
    let crowd = besiege(scratch, program, port).await?;
    // The first of the crowd are shown out when their time is over; others come in after them and find no room either.
    for stranger in crowd.iter().take(8) {
        stranger.readable().await?;
    }
    ensure!(program.exited().is_none(), "{port} has ended");
    let mut told = program.lines().split_off(said);
    told.retain(|line| line.contains("(os error 24)"));
    ensure!(!told.is_empty(), "{port}: nothing was said of it");
    ensure!(told.len() <= LINES, "{} lines: {told:#?}", told.len());
    let worked = ticks(program.pid())? - worked;
    ensure!(worked < TICKS, "{worked} hundredths of a second of work");
    drop(crowd);
    // Whoever had no file for a connection of its own makes it now.
    site.gateway
        .wait_until_attached(&site.console, true)
        .await?;
    device.wait_until_online().await?;
    site.wait_for_way(&name, Some("icg")).await?;
    site.see_and_operate(&name, "after").await?;
    site.send_message(&name, "Still there?").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_file_left_waits_and_serves_again() {
    scenario(async |scratch| waits_and_serves_again(scratch, Listener::Device).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_file_left_waits_and_serves_again() {
    scenario(async |scratch| waits_and_serves_again(scratch, Listener::Gateway).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_file_left_waits_and_serves_again() {
    scenario(async |scratch| waits_and_serves_again(scratch, Listener::Server).await).await;
}
