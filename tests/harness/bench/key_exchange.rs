//! What it costs to agree on keys that quantum computers do not open.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::Wish;
use super::report::{OURS, Quantity, Section, less};
use crate::program::run;
use crate::scratch::Scratch;

const ABOUT: &str = "TLS 1.3 handshakes in memory (ECDSA P-256 certificate, no resumption), the processor's time at each end counted apart \
(`key-exchange/examples/handshakes.rs`). `umbra` is X25519MLKEM768 as every program of the product does it, the client's share for X25519 \
alone included; beside it the same with the small P-256 of devices, which signs and verifies at both ends here, and the same TLS library with X25519 \
and nothing else.";

/// With the P-256 of devices.
const DEVICE: &str = "with a device's P-256";
/// Without the second half.
const CURVE: &str = "X25519 alone";

const UP: Quantity = less("bytes from the client", "bytes");
const DOWN: Quantity = less("bytes from the server", "bytes");
const CLIENT: Quantity = less("CPU per handshake at the client", "µs");
const SERVER: Quantity = less("CPU per handshake at the server", "µs");

pub(super) async fn measure(
    wish: &Wish,
    scratch: &Scratch,
    say: &impl Fn(&str),
) -> anyhow::Result<Section> {
    let program = wish
        .handshakes
        .as_deref()
        .context("the program that shakes hands was not named")?;
    let mut section = Section::new("key-exchange", ABOUT);
    let rounds = wish.pick(5, 15);
    for round in 1..=rounds {
        say(&format!("    round {round} of {rounds}"));
        let mut candidates = [(OURS, "hybrid"), (DEVICE, "device"), (CURVE, "x25519")];
        candidates.rotate_left(round % 3);
        for (name, group) in candidates {
            let [up, down, client, server] =
                handshakes(scratch, program, group, wish.pick(1000, 5000)).await?;
            section.note(&UP, name, up);
            section.note(&DOWN, name, down);
            section.note(&CLIENT, name, client);
            section.note(&SERVER, name, server);
        }
    }
    Ok(section.finished())
}

/// What the program says of so many handshakes with this key exchange.
async fn handshakes(
    scratch: &Scratch,
    program: &Path,
    group: &str,
    count: u32,
) -> anyhow::Result<[f64; 4]> {
    let mut command = Command::new(program);
    command.args([group, &count.to_string()]);
    let output = run(scratch, group, &mut command, b"", super::peers::START * 6).await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{group}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    figures(&said)
}

fn figures(said: &str) -> anyhow::Result<[f64; 4]> {
    let figures: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
    let figures = figures.ok().and_then(|figures| figures.try_into().ok());
    figures.with_context(|| format!("not four figures: {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_figures_are_read_and_nothing_else() {
        let read = figures("1500\t2000\t310.25\t120.50\n").expect("four");
        assert_eq!(read, [1500.0, 2000.0, 310.25, 120.5]);
        for wrong in ["", "1\t2\t3", "1\t2\t3\t4\t5", "a\tb\tc\td"] {
            assert!(figures(wrong).is_err(), "{wrong}");
        }
    }
}
