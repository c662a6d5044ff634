//! Strangers at the server's port: older TLS, garbage, silence, crowds. They get nothing, cost little, and whoever has
//! business there is served as if they were not there.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use umbra_tests::program::run;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, PATIENCE, Server, ServerConfig};
use umbra_tests::x11::installed;

/// How many strangers come at once: more than the server keeps, even if only some of them stay.
const CROWD: u32 = 900;
/// How many strangers the server keeps at a time.
const PLACES: usize = 512;
/// Sockets that come and go besides.
const OTHERS: usize = 8;

async fn s_client(scratch: &Scratch, server: &Server<'_>, more: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(installed("openssl")?);
    command
        .args(["s_client", "-connect", &server.address().to_string()])
        .args(more);
    let output = run(scratch, "s_client", &mut command, b"", PATIENCE).await?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_speaks_tls_1_3_and_nothing_older() {
    scenario(async |scratch| {
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let modern = s_client(scratch, &server, &["-tls1_3"]).await?;
        ensure!(modern.contains("TLSv1.3, Cipher is TLS_"), "{modern}");
        for older in ["-tls1_2", "-tls1_1", "-tls1"] {
            let said = s_client(scratch, &server, &[older, "-cipher", "ALL:@SECLEVEL=0"]).await?;
            ensure!(
                said.contains("Cipher is (NONE)") && said.contains("alert"),
                "{older} was not refused: {said}"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_keeps_nobody_out_and_takes_bounded_memory() {
    scenario(async |scratch| {
        let mut server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let before = server.program().resident_kib().unwrap_or(0);
        let sockets = server.program().sockets().unwrap_or(0);
        let mut crowd = Vec::new();
        for number in 0..CROWD {
            let mut stranger = TcpStream::connect(server.address()).await?;
            // Some say nothing, some begin a handshake, some say what no protocol knows.
            let words: &[u8] = match number % 3 {
                0 => b"",
                1 => &[22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3],
                _ => b"RFB 003.008\n\xFF\xFF\xFF\xFF garbage",
            };
            // One that was shown the door already is no matter.
            let _ = stranger.write_all(words).await;
            crowd.push(stranger);
        }
        console.tell(&["devices"], "").await?;
        let now = server.program().resident_kib().unwrap_or(u64::MAX);
        ensure!(now < before + 32 * 1024, "{before} KiB became {now} KiB");
        let kept = server.program().sockets().unwrap_or(usize::MAX);
        ensure!(
            kept <= sockets + PLACES + OTHERS,
            "{kept} sockets are open, {sockets} before"
        );
        for mut stranger in crowd {
            let mut heard = Vec::new();
            // Garbage is answered with an alert at most, silence ends at the deadline.
            let reading =
                tokio::time::timeout(Duration::from_secs(40), stranger.read_to_end(&mut heard))
                    .await;
            ensure!(reading.is_ok(), "a stranger may stay for ever");
            ensure!(
                heard.len() <= 64,
                "a stranger was told {} bytes",
                heard.len()
            );
        }
        console.tell(&["devices"], "").await?;
        Ok(())
    })
    .await;
}
