//! What the device maker's programs do: the one that shows the person who sees the screen, and those behind the commands `update`
//! and `message`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use umbra_tests::eventually::{eventually, eventually_is};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, PATIENCE, World};

/// A program in the shell's language, as a parameter has it.
fn program(script: &str) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&["/bin/sh", "-c", script])?)
}

/// What an indicator has written down, a line for each that it read.
struct Notes(PathBuf);

impl Notes {
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a line with these words.
    async fn wait_for(&self, words: &str) -> anyhow::Result<String> {
        let what = format!("the indicator to hear {words}");
        let found = eventually(&what, PATIENCE, async || {
            let lines = self.lines();
            let found = lines
                .iter()
                .rev()
                .find(|line| line.contains(words))
                .cloned();
            found.ok_or_else(|| format!("{lines:?}"))
        });
        Ok(found.await?)
    }
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

async fn wait_for_warning(device: &Device<'_>, words: &str) -> anyhow::Result<()> {
    let what = format!("the status to warn of {words:?}");
    let probe = || async {
        let status = device.status().await.map_err(|error| error.to_string())?;
        let warning = status
            .pointer("/warnings/indicator")
            .and_then(Value::as_str);
        match warning {
            Some(warning) if warning.contains(words) => Ok(()),
            _ => Err(status.to_string()),
        }
    };
    Ok(eventually(&what, PATIENCE, probe).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_person_sees_who_sees_the_screen_and_can_end_it_from_there() {
    scenario(async |scratch| {
        let (heard, pids, press) = (
            scratch.path("heard"),
            scratch.path("pids"),
            scratch.path("press"),
        );
        // Writes down what it reads; says what it finds in a file; a helper shows whether its whole group ends.
        let script = format!(
            "sleep 1000 & echo $$ $! >>'{pids}'; (while :; do [ -e '{press}' ] && cat '{press}' && rm '{press}'; sleep 0.1; done) & \
             while read line; do echo \"$line\" >>'{heard}'; done; wait",
            pids = pids.display(),
            press = press.display(),
            heard = heard.display(),
        );
        let world = World::start_with(
            scratch,
            &[
                ("umbra.indicator.program", &program(&script)?),
                ("umbra.indicator.required", "true"),
                ("userinterface.vncserver.indicatorposition", "\"top-left\""),
            ],
        )
        .await?;
        let notes = Notes(heard);
        ensure!(!pids.exists(), "it runs although nobody sees the screen");

        let mut shadow = world.shadow("till; $(reboot)").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;
        let line = notes.wait_for("till; $(reboot)").await?;
        let line: Value = serde_json::from_str(&line).context("one line of JSON")?;
        ensure!(
            line.get("position").and_then(Value::as_str) == Some("top-left")
                && line.get("disconnect") == Some(&Value::Bool(true))
                && line.pointer("/sessions/0/since").and_then(Value::as_i64) > Some(1_700_000_000),
            "{line}"
        );
        let id = line.pointer("/sessions/0/id").and_then(Value::as_str);
        let id = id.context("no session")?.to_owned();

        // It dies: the session goes on, people are told, and there is another.
        let first = std::fs::read_to_string(&pids)?;
        let leader = first.split(' ').next().context("no process")?;
        kill(Pid::from_raw(leader.parse()?), Signal::SIGKILL)?;
        wait_for_warning(&world.device, "signal 9").await?;
        eventually_is("the indicator to be started again", PATIENCE, || {
            match std::fs::read_to_string(&pids) {
                Ok(text) if text.lines().count() == 2 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        viewer.refresh().await?;

        // What it says of others, or wrongly, ends nothing; what it says of this one does.
        std::fs::write(scratch.path("next"), format!("disconnect {}\nend\ndisconnect {id}\n", "0".repeat(32)))?;
        std::fs::rename(scratch.path("next"), &press)?;
        viewer.until_closed().await?;
        let ended = shadow.ended().await?;
        ensure!(
            ended.get("code").and_then(Value::as_str) == Some("ended_by_user"),
            "{ended}"
        );
        let text = std::fs::read_to_string(&pids)?;
        let all: Vec<&str> = text.split_whitespace().collect();
        eventually_is("the indicator to be gone with its helpers", PATIENCE, || {
            let left: Vec<_> = all.iter().filter(|pid| is_running(pid)).collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?} run"))
            }
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_indicator_a_session_goes_on_and_is_told_of_unless_one_is_required() {
    scenario(async |scratch| {
        let missing = serde_json::to_string(&[scratch.path("missing")])?;
        let world = World::start_with(scratch, &[("umbra.indicator.program", &missing)]).await?;
        let shadow = world.shadow("look").await?;
        shadow.view().await?.refresh().await?;
        wait_for_warning(&world.device, "umbra.indicator.program").await?;
        drop(shadow);
        world.device.set("umbra.indicator.required", "true").await?;
        let name = world.device_name().await?;
        let mut shadow = world.console.begin_shadow(&name, &[])?;
        let (status, said) = shadow.finished().await?;
        ensure!(
            !status.success()
                && said.contains("indicator_unavailable")
                && !said.contains("listening"),
            "{said}"
        );
        world
            .console
            .wait_for_audit("session.ended", "indicator_unavailable")
            .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn update_and_message_run_the_device_makers_programs_and_answer_for_them() {
    scenario(async |scratch| {
        let (shown, next) = (scratch.path("shown"), scratch.path("broken"));
        let message = format!("cat >'{}'", shown.display());
        let update = format!(
            "if [ -e '{}' ]; then echo no room left >&2; exit 3; fi; echo version 2 is in place",
            next.display()
        );
        let world = World::start_with(
            scratch,
            &[
                ("umbra.message.program", &program(&message)?),
                ("umbra.update.command", &program(&update)?),
            ],
        )
        .await?;
        let name = world.device_name().await?;
        let trace = scratch.path("was-here");
        let text = format!("We restart at 8; $(touch {0}) `touch {0}`", trace.display());
        let said = ["devices", "command", &name, "message", &text, "--wait"];
        let answer = world.console.tell(&said, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done"),
            "{answer}"
        );
        ensure!(
            std::fs::read_to_string(&shown)?.trim_end() == text,
            "another text"
        );
        ensure!(!trace.exists(), "an administrator's text was run");

        let update = ["devices", "command", &name, "update", "--wait"];
        let answer = world.console.tell(&update, "").await?;
        ensure!(
            answer.get("state").and_then(Value::as_str) == Some("done")
                && answer.to_string().contains("version 2 is in place"),
            "{answer}"
        );
        std::fs::write(&next, "")?;
        let failed = world.console.output(&update, "").await?;
        let told = String::from_utf8_lossy(&failed.stdout).into_owned();
        ensure!(
            !failed.status.success()
                && told.contains("exit status 3")
                && told.contains("no room left"),
            "{told}"
        );
        Ok(())
    })
    .await;
}
