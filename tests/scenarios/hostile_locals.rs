//! People with an account on a machine of the product and no rights there: on the device, the server's, the gateway's, and the
//! operator's. Everything is started with a umask that forbids nothing, so that what is private is so by the product's own doing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use nix::sys::stat::Mode;
use tokio::task::JoinSet;
use umbra_tests::program::{Program, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{PATIENCE, World};

use crate::site::Site;

/// The words that run a program as the user `nobody`.
const NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];
/// How many connections are a crowd at the agent's local socket.
const CROWD: usize = 300;
/// What of a crowd the agent keeps at a time, with what comes and goes besides.
const KEPT: usize = 40;

fn as_nobody(words: &[&str]) -> Command {
    let mut command = Command::new(NOBODY[0]);
    command.args(&NOBODY[1..]).args(words);
    command
}

async fn nobody(scratch: &Scratch, words: &[&str]) -> anyhow::Result<Output> {
    Ok(run(scratch, "nobody", &mut as_nobody(words), b"", PATIENCE).await?)
}

/// Lets everybody come as far as the folders that programs made themselves.
fn open_the_way(scratch: &Scratch) -> anyhow::Result<()> {
    std::fs::set_permissions(scratch.root(), std::fs::Permissions::from_mode(0o755))?;
    // Whatever is private from here on is so because a program said so.
    nix::sys::stat::umask(Mode::empty());
    Ok(())
}

/// What `find` gives somebody without rights.
async fn found(scratch: &Scratch, tests: &[&str]) -> anyhow::Result<BTreeSet<PathBuf>> {
    let root = scratch.root().display().to_string();
    let output = nobody(scratch, &[&["find", &root], tests].concat()).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(said.lines().map(PathBuf::from).collect())
}

/// Files that root finds in a folder of a program's own.
fn files(folder: &Path, all: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), all)?;
        } else {
            all.insert(entry.path());
        }
    }
    Ok(())
}

/// A process that somebody else may neither look into nor stop.
async fn out_of_reach(scratch: &Scratch, what: &str, pid: u32) -> anyhow::Result<()> {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let number = pid.to_string();
    let attempts: [&[&str]; 6] = [
        &["cat", &of("environ")],
        &["cat", &of("maps")],
        &["dd", &format!("if={}", of("mem")), "bs=1", "count=1"],
        &["ls", &of("fd/")],
        &["strace", "-p", &number, "-o", "/dev/null"],
        &["kill", "-TERM", &number],
    ];
    for words in attempts {
        let output = nobody(scratch, words).await?;
        ensure!(
            !output.status.success() && output.stdout.is_empty(),
            "{what}: {words:?} worked: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_account_without_rights_reads_no_secret_writes_nothing_and_reaches_no_process() {
    scenario(async |scratch| {
        open_the_way(scratch)?;
        let mut site = Site::start(scratch).await?;
        let (mut device, name) = site.device(scratch, None).await?;
        site.wait_for_way(&name, Some("icg")).await?;
        site.see_and_operate(&name, "seen").await?;
        // One more key that the console keeps for later.
        site.console.tell(&["keys", "create"], "").await?;

        let own = [
            device.root().join("wfs"),
            device.root().join("run"),
            site.server.state().to_owned(),
            site.gateway.keystore().to_owned(),
        ];
        let mut all = BTreeSet::new();
        for folder in &own {
            files(folder, &mut all)?;
        }
        let console = [
            site.console.config().to_owned(),
            site.console.config().with_extension("keys.json"),
        ];
        all.extend(console.iter().cloned());
        all.insert(site.server.password_file());
        let readable = found(scratch, &["-type", "f", "-readable"]).await?;
        let private = all.difference(&readable).count();
        ensure!(private > 8, "only {private} of {all:?} are private");
        for path in all.intersection(&readable) {
            // Certificates are everybody's; so is nothing else.
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} can be read", path.display()))?;
            ensure!(
                text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE"),
                "{} can be read: {text}",
                path.display()
            );
        }
        // A socket is written to and not into: the next scenario is about it.
        let writable = found(
            scratch,
            &["!", "-type", "s", "!", "-type", "l", "-writable"],
        )
        .await?;
        let planted: Vec<_> = writable
            .iter()
            .filter(|path| own.iter().any(|own| path.starts_with(own)) || all.contains(*path))
            .collect();
        ensure!(planted.is_empty(), "can be written to: {planted:?}");

        let agent = device.program().context("no agent")?.pid();
        out_of_reach(scratch, "the agent", agent).await?;
        let server = site.server.program().pid();
        out_of_reach(scratch, "the server", server).await?;
        let gateway = site.gateway.program().pid();
        out_of_reach(scratch, "the gateway", gateway).await?;
        site.see_and_operate(&name, "still there").await
    })
    .await;
}

#[tokio::test]
async fn a_crowd_of_one_user_at_the_agents_socket_keeps_root_out_of_nothing() {
    scenario(async |scratch| {
        open_the_way(scratch)?;
        let mut world = World::start(scratch).await?;
        let mut sockets = BTreeSet::new();
        files(&world.device.root().join("run"), &mut sockets)?;
        let socket = sockets
            .iter()
            .find(|path| path.extension().is_some_and(|end| end == "sock"))
            .or(sockets.iter().next())
            .context("the agent has no socket")?
            .display()
            .to_string();
        let before = world.device.program().and_then(|agent| agent.sockets());
        let before = before.context("no agent")?;
        // Half of them begin a line that never ends.
        let crowd = format!(
            "use IO::Socket::UNIX; $| = 1; $SIG{{PIPE}} = 'IGNORE'; \
             for (1 .. {CROWD}) {{ my $s = IO::Socket::UNIX->new('{socket}'); next unless $s; \
             syswrite $s, '{{\"a' x 500 if $_ % 2; push @all, $s }} \
             print \"ready \", scalar @all, \"\\n\"; sleep 600"
        );
        let mut crowd = Program::start(scratch, "crowd", &mut as_nobody(&["perl", "-e", &crowd]))?;
        let line = crowd.wait_for_line("ready", PATIENCE).await?;
        let came: usize = line.trim_start_matches("ready ").parse()?;
        ensure!(came == CROWD, "only {line} came");
        for round in ["true", "false", "true"] {
            world
                .device
                .set("network.vncserver.promptuser", round)
                .await?;
        }
        let status = world.device.status().await?;
        ensure!(status["stage"] == "online", "{status}");
        let kept = world.device.program().and_then(|agent| agent.sockets());
        let kept = kept.context("the agent is gone")?;
        ensure!(kept <= before + KEPT, "{before} sockets became {kept}");
        world
            .device
            .set("network.vncserver.promptuser", "false")
            .await?;
        world
            .shadow("in spite of it")
            .await?
            .view()
            .await?
            .refresh()
            .await?;
        Ok(())
    })
    .await;
}

/// Somebody who connects to a port of loopback and listens until it ends; says how much was heard.
fn eavesdropper(scratch: &Scratch, port: SocketAddr) -> anyhow::Result<Program> {
    let listen = format!(
        "use IO::Socket::INET; $| = 1; my $s = IO::Socket::INET->new('{port}') or die; \
         print \"connected\\n\"; my $all = 0; \
         while (my $n = sysread $s, my $part, 4096) {{ $all += $n }} print \"heard $all\\n\""
    );
    let mut command = as_nobody(&["perl", "-e", &listen]);
    Ok(Program::start(scratch, "eavesdropper", &mut command)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_operators_machine_gets_no_screen_however_early_he_comes() {
    scenario(async |scratch| {
        let world = World::start(scratch).await?;
        let shadow = world.shadow("a look").await?;
        let port = shadow.address().context("no port")?;
        // As many as there may be, and before the viewer: each is there before the next line runs.
        let mut early = Vec::new();
        for _ in 0..5 {
            let mut one = eavesdropper(scratch, port)?;
            one.wait_for_line("connected", PATIENCE).await?;
            early.push(one);
        }
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        let mut ends = JoinSet::new();
        for mut one in early {
            ends.spawn(async move { one.wait_for_line("heard", PATIENCE).await });
        }
        while let Some(heard) = ends.join_next().await {
            let heard = heard??;
            ensure!(heard == "heard 0", "another user {heard} bytes");
        }
        viewer.refresh().await?;
        Ok(())
    })
    .await;
}
