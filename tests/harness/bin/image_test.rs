//! The thin client in an emulator as a program; `cargo xtask image` builds the image and starts it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use umbra_tests::machine::Processor;
use umbra_tests::netns::isolate;
use umbra_tests::thin_client::{Errand, Image, Wish, run};

const USAGE: &str = "umbra-image-test: boots the example thin client in QEMU, with server and gateway on this machine

Usage: umbra-image-test stay|once|test|cuts --arch x86_64|aarch64 --kernel FILE --initramfs FILE --root FILE --out FILE.png

`cargo xtask image boot` and `cargo xtask image test` build all that and start this program.
";

fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Option<Wish>> {
    let errand = match given.next().as_deref() {
        None | Some("--help" | "-h") => return Ok(None),
        Some("stay") => Errand::Stay,
        Some("once") => Errand::Once,
        Some("test") => Errand::Test,
        Some("cuts") => Errand::Cuts,
        Some(other) => bail!("{other:?} is nothing that can be done; --help says what is"),
    };
    let (mut processor, mut kernel, mut initramfs, mut root, mut out) =
        (None, None, None, None, None);
    while let Some(flag) = given.next() {
        let value = given
            .next()
            .with_context(|| format!("{flag} needs a value"))?;
        let path = || Some(PathBuf::from(&value));
        match flag.as_str() {
            "--arch" => {
                processor =
                    Some(Processor::named(&value).with_context(|| {
                        format!("{value:?} is no processor that is known here")
                    })?);
            }
            "--kernel" => kernel = path(),
            "--initramfs" => initramfs = path(),
            "--root" => root = path(),
            "--out" => out = path(),
            other => bail!("{other:?} is not understood; --help lists what is"),
        }
    }
    let image = Image {
        processor: processor.context("--arch is missing")?,
        kernel: kernel.context("--kernel is missing")?,
        initramfs: initramfs.context("--initramfs is missing")?,
        root: root.context("--root is missing")?,
    };
    Ok(Some(Wish {
        image,
        errand,
        out: out.context("--out is missing")?,
    }))
}

fn shown() -> anyhow::Result<()> {
    let Some(wish) = parse(std::env::args().skip(1))? else {
        return Ok(std::io::stdout().lock().write_all(USAGE.as_bytes())?);
    };
    // The server also offers the address that the device has behind the emulator: nobody is to look for it in the network around.
    // Who stays to look on needs the machine's own loopback.
    if wish.errand != Errand::Stay && nix::unistd::geteuid().is_root() {
        isolate()?;
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut asked = signal(SignalKind::terminate())?;
        let stop = async {
            // Whoever can't wait for one of them need not wait for the other.
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = asked.recv() => {}
            }
        };
        run(&wish, std::io::stdout(), stop).await
    })
}

fn main() -> ExitCode {
    match shown() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr().lock(), "umbra-image-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}
