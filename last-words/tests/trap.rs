//! A real process that runs into an instruction that no processor has.
#![expect(
    unsafe_code,
    reason = "there is no safe way to write such an instruction"
)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};

const ASKED: &str = "LAST_WORDS_END";
const WHO: &str = "umbra-agent 1.2.3";

/// Where the end comes; its address is compared with what is told.
#[inline(never)]
extern "C" fn end() {
    // SAFETY: it ends the process, as is wanted.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2")
    };
    // SAFETY: likewise.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("brk #1")
    };
}

/// Not a test by itself: the process that the tests below start.
#[test]
fn process() {
    let Ok(how) = std::env::var(ASKED) else {
        return;
    };
    umbra_last_words::prepare(WHO);
    umbra_last_words::first(|| {
        // SAFETY: a text and its length.
        unsafe { libc::write(2, c"in order\n".as_ptr().cast(), 9) };
    });
    if how == "trap" {
        end();
    } else {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

fn started(how: &str) -> anyhow::Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["process", "--exact", "--nocapture"]);
    command
        .env(ASKED, how)
        .stderr(Stdio::piped())
        .stdout(Stdio::null());
    Ok(command.spawn()?)
}

fn told(output: &Output) -> anyhow::Result<String> {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut lines = told.lines().filter(|line| line.starts_with(WHO));
    let line = lines
        .next()
        .with_context(|| format!("nothing was told: {told}"))?;
    let (in_order, said) = (told.find("in order"), told.find(WHO));
    ensure!(in_order.is_some() && in_order < said, "{told}");
    ensure!(lines.next().is_none(), "told more than once: {told}");
    Ok(line.to_owned())
}

#[test]
fn the_place_is_told_and_the_program_ends_as_it_would_have() -> anyhow::Result<()> {
    let output = started("trap")?.wait_with_output()?;
    let signal = output.status.signal();
    ensure!(
        signal == Some(libc::SIGILL) || signal == Some(libc::SIGTRAP),
        "{:?}",
        output.status
    );
    let line = told(&output)?;
    let rest = line.split_once(": a mistake in the program ends it (at 0x");
    let (_, rest) = rest.with_context(|| line.clone())?;
    let (place, rest) = rest.split_once(')').with_context(|| line.clone())?;
    ensure!(
        rest.starts_with("; what it keeps on disk is whole"),
        "{line}"
    );
    // The same function lies at the same place of this file, wherever it was loaded.
    let place = usize::from_str_radix(place, 16)?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    // A sanitizer has memory below it.
    let file = std::env::current_exe()?;
    let file = file.to_str().context("the file's name is no text")?;
    let first = maps.lines().find(|line| line.ends_with(file));
    let first = first.context("the file is not in memory")?;
    let start = usize::from_str_radix(first.split('-').next().unwrap_or_default(), 16)?;
    let function = end as extern "C" fn() as usize - start;
    ensure!(
        (function..function + 64).contains(&place),
        "told {place:#x}, and the function is at {function:#x}"
    );
    Ok(())
}

#[test]
fn a_signal_that_somebody_sent_is_no_mistake_of_the_program() -> anyhow::Result<()> {
    let child = started("wait")?;
    let mut deadline = std::time::Duration::from_secs(30);
    // Until the handler is there: bit 3 of the caught signals is SIGILL.
    let caught = |id: u32| -> anyhow::Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(line.context("no signals")?.trim(), 16)?;
        Ok(caught & (1 << (libc::SIGILL - 1)) != 0)
    };
    let step = std::time::Duration::from_millis(5);
    while !caught(child.id())? && !deadline.is_zero() {
        deadline = deadline.saturating_sub(step);
        std::thread::sleep(step);
    }
    let mut kill = Command::new("kill");
    ensure!(
        kill.arg("-ILL")
            .arg(child.id().to_string())
            .status()?
            .success()
    );
    let output = child.wait_with_output()?;
    ensure!(
        output.status.signal() == Some(libc::SIGILL),
        "{:?}",
        output.status
    );
    let line = told(&output)?;
    ensure!(line.contains("another process ends it"), "{line}");
    Ok(())
}
