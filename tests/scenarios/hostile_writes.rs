//! A disk that fails in the middle, and a server that dies there: at the first, the second, the third … call of the system by which a
//! program changes a file. What was answered for holds, and what failed changes nothing. Power cuts on the device are in
//! `device_state/power`.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use umbra_tests::program::Program;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server};

use crate::device_state::{agent_under, identity, whole_pair};
use crate::enrolment::{said, site};

/// More steps than any of it has; the loops end long before.
const STEPS: usize = 80;
/// How many keys are made while something goes wrong.
const KEYS: usize = 2;

/// What goes wrong at which call, in strace's words.
fn inject(call: &str, fault: &str, number: usize) -> [String; 2] {
    [
        format!("trace={call}"),
        format!("inject={call}:{fault}:when={number}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_any_step_leaves_a_device_its_old_or_its_new_identity() {
    scenario(async |scratch| {
        let device = Device::new(scratch, "device", DeviceConfig::default())?;
        identity(&device).await?;
        let log = scratch.path("strace").display().to_string();
        let (mut kept, mut replaced) = (0, 0);
        for (call, error) in [
            ("write", "ENOSPC"),
            ("write", "EIO"),
            ("fsync", "EIO"),
            ("rename", "EIO"),
            ("openat", "ENOSPC"),
            ("fchmod", "EIO"),
        ] {
            for number in 1..=STEPS {
                ensure!(number < STEPS, "{call} never ends");
                let at = format!("{call} {number} fails with {error}");
                let old = whole_pair(scratch, device.root())
                    .await?
                    .context("no pair")?;
                let [trace, fault] = inject(call, &format!("error={error}"), number);
                let wrapper = ["strace", "-f", "-o", &log, "-e", &trace, "-e", &fault];
                let words = ["identity", "--replace"];
                let output = agent_under(scratch, &wrapper, device.root(), &words, "").await?;
                let happened = std::fs::read_to_string(&log)?.contains("(INJECTED)");
                let told = said(&output);
                ensure!(
                    output.status.code().is_some() && !told.contains("panicked"),
                    "{at}: {told}"
                );
                let id = identity(&device).await.with_context(|| at.clone())?;
                let new = whole_pair(scratch, device.root()).await?;
                let new = new.with_context(|| format!("no whole pair after {at}: {told}"))?;
                ensure!(
                    identity(&device).await? == id,
                    "{at}: another one each time"
                );
                *(if new == old { &mut kept } else { &mut replaced }) += 1;
                if !happened {
                    ensure!(output.status.success(), "{at}: {told}");
                    break;
                }
                ensure!(
                    !output.status.success() || new != old,
                    "{at}, and the agent says that all is well: {told}"
                );
            }
        }
        ensure!(
            kept > 10 && replaced > 6,
            "{kept} kept, {replaced} replaced"
        );
        Ok(())
    })
    .await;
}

/// Something that goes wrong in the server once, at one of its calls, from now on.
async fn arm(
    scratch: &Scratch,
    server: &mut Server<'_>,
    call: &str,
    fault: &str,
    number: usize,
) -> anyhow::Result<Program> {
    let pid = server.program().pid().to_string();
    let [trace, fault] = inject(call, fault, number);
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &pid, "-e", &trace, "-e", &fault]);
    let mut strace = Program::start(scratch, "strace", &mut command)?;
    strace.wait_for_line("attached", PATIENCE).await?;
    Ok(strace)
}

/// Makes keys one by one; gives the IDs of those that the server answered for, and how often it said no.
async fn make_keys(
    server: &Server<'_>,
    console: &Console<'_>,
) -> anyhow::Result<(BTreeSet<String>, Vec<u16>)> {
    let body = json!({"kind": "one_time", "count": 1});
    let (mut made, mut refused) = (BTreeSet::new(), Vec::new());
    for _ in 0..KEYS {
        // Nobody may be there any more.
        match console
            .call(server, "POST", "/api/v1/keys", Some(&body))
            .await
        {
            Ok((201, answer)) => made.extend(ids(&answer)),
            Ok((status, _)) => refused.push(status),
            Err(_) => break,
        }
    }
    Ok((made, refused))
}

/// The IDs of keys in an answer, however deep.
fn ids(answer: &Value) -> Vec<String> {
    match answer {
        Value::Array(all) => all.iter().flat_map(ids).collect(),
        Value::Object(all) => {
            let own = ["key_id", "id"]
                .iter()
                .find_map(|name| all.get(*name)?.as_str());
            match own {
                Some(own) => vec![own.to_owned()],
                None => all.values().flat_map(ids).collect(),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// All keys that the server has, and its audit log without a gap.
async fn on_file(console: &Console<'_>) -> anyhow::Result<BTreeSet<String>> {
    let list = console.tell(&["keys", "list"], "").await?;
    let audit = console.tell(&["audit"], "").await?;
    let mut numbers: Vec<i64> = audit
        .as_array()
        .context("no log")?
        .iter()
        .filter_map(|line| line["number"].as_i64().or_else(|| line["id"].as_i64()))
        .collect();
    numbers.sort_unstable();
    ensure!(
        !numbers.is_empty() && numbers.windows(2).all(|two| two[1] == two[0] + 1),
        "the audit log has gaps: {numbers:?}"
    );
    Ok(ids(&list).into_iter().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_at_any_step_of_writing_has_kept_what_it_answered_for() {
    scenario(async |scratch| {
        let (mut server, console) = site(scratch).await?;
        let (mut before, mut kills) = (on_file(&console).await?, 0);
        let (mut whole, mut lost) = (0, 0);
        for call in ["pwrite64", "fsync,fdatasync"] {
            for number in 1..=STEPS {
                ensure!(number < STEPS, "{call} never ends");
                let mut strace = arm(scratch, &mut server, call, "signal=SIGKILL", number).await?;
                let (made, _) = make_keys(&server, &console).await?;
                let is_over = made.len() == KEYS;
                if is_over {
                    strace.terminate(PATIENCE).await?;
                } else {
                    server.program().wait(PATIENCE).await?;
                    kills += 1;
                }
                server.start_again().await?;
                let now = on_file(&console).await?;
                let at = format!("after {call} {number}");
                ensure!(now.is_superset(&before), "{at} older keys are gone");
                ensure!(
                    now.is_superset(&made),
                    "{at} a key that was answered for is gone"
                );
                let more = now.len() - before.len() - made.len();
                ensure!(more <= 1, "{at} there are {more} keys more");
                *(if more == 1 { &mut whole } else { &mut lost }) += 1;
                before = now;
                if is_over {
                    break;
                }
            }
        }
        ensure!(
            kills > 6 && lost > 2,
            "{kills} kills: {whole} whole, {lost} lost"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_fails_at_any_step_says_no_and_goes_on() {
    scenario(async |scratch| {
        let (mut server, console) = site(scratch).await?;
        let mut before = on_file(&console).await?;
        let mut failures = 0;
        for (call, error) in [
            ("pwrite64", "ENOSPC"),
            ("pwrite64", "EIO"),
            ("fsync,fdatasync", "EIO"),
        ] {
            for number in 1..=STEPS {
                ensure!(number < STEPS, "{call} never ends");
                let at = format!("{call} {number} failed with {error}");
                let fault = format!("error={error}");
                let mut strace = arm(scratch, &mut server, call, &fault, number).await?;
                let (made, refused) = make_keys(&server, &console).await?;
                strace.terminate(PATIENCE).await?;
                ensure!(
                    server.program().exited().is_none(),
                    "the server ended: {at}"
                );
                ensure!(
                    refused.iter().all(|status| *status >= 500),
                    "{at}: {refused:?}"
                );
                let now = on_file(&console).await.with_context(|| at.clone())?;
                let expected: BTreeSet<String> = before.union(&made).cloned().collect();
                ensure!(now.is_superset(&expected), "a key is gone: {at}");
                // One that the server could not answer for may be there after all; more may not.
                ensure!(
                    now.len() - expected.len() <= refused.len(),
                    "{at}: {} keys more",
                    now.len() - expected.len()
                );
                before = now;
                failures += refused.len();
                // The next one works, without anybody having touched the server.
                console
                    .tell(&["keys", "create"], "")
                    .await
                    .with_context(|| at)?;
                before.extend(on_file(&console).await?);
                if refused.is_empty() {
                    break;
                }
            }
        }
        ensure!(failures > 6, "only {failures} failures");
        server.program().kill();
        server.start_again().await?;
        let now = on_file(&console).await?;
        ensure!(now == before, "{} keys became {}", before.len(), now.len());
        Ok(())
    })
    .await;
}
