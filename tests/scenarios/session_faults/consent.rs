//! The person at the device: asked by a program or on the command line, saying yes, no or nothing, or not there at all.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Device, PATIENCE, World};

use super::{audited, failed_shadow, failure, healthy, refused_record, text, untouched};

/// The console's exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Waits until so many questions wait for the person, and gives them.
async fn questions(device: &Device<'_>, count: usize) -> anyhow::Result<Vec<Value>> {
    let what = format!("{count} questions to the person");
    let probe = || async {
        let status = device.status().await.map_err(|error| error.to_string())?;
        let questions = status.get("consents").and_then(Value::as_array).cloned();
        match questions {
            Some(questions) if questions.len() == count => Ok(questions),
            _ => Err(status.to_string()),
        }
    };
    Ok(eventually(&what, PATIENCE, probe).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_program_that_asks_the_person_says_decides() {
    scenario(async |scratch| {
        let script = scratch.path("ask");
        let program = serde_json::to_string(&[&script])?;
        let parameters = [
            ("network.vncserver.promptuser", "true"),
            ("umbra.consent.program", &program[..]),
            ("umbra.consent.timeout", "5"),
        ];
        let world = World::start_with(scratch, &parameters).await?;
        let told = scratch.path("told");
        let trace = scratch.path("was-here");
        let answer = |words: &str| -> anyhow::Result<()> {
            let next = scratch.path("ask-next");
            let ask = format!(
                "#!/bin/sh\nprintf '%s|%s|%s' \"$UMBRA_OPERATOR\" \"$UMBRA_REASON\" \"$UMBRA_PERMISSION\" >'{}'\n{words}\n",
                told.display()
            );
            std::fs::write(&next, ask)?;
            std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755))?;
            Ok(std::fs::rename(&next, &script)?)
        };
        let cases = [
            ("exit 1", "consent_denied", "said no"),
            ("exit 7", "nobody_to_ask", "nobody is there"),
            ("kill -9 $$", "nobody_to_ask", "nobody is there"),
            ("exec sleep 600", "consent_timeout", "did not answer in time"),
        ];
        for (words, code, sentence) in cases {
            answer(words)?;
            failed_shadow(&world).await?.ensure(code, sentence)?;
            refused_record(&world.console, code).await?;
            audited(&world.console, "session.ended", code, code).await?;
        }
        std::fs::remove_file(&script)?;
        failed_shadow(&world)
            .await?
            .ensure("nobody_to_ask", "nobody is there")?;
        untouched(&world)?;
        questions(&world.device, 0).await?;

        answer("exit 0")?;
        let reason = format!("$(touch {0}) `touch {0}` ; touch {0}", trace.display());
        let shadow = world.shadow(&reason).await?;
        shadow.view().await?.refresh().await?;
        let heard = std::fs::read_to_string(&told)?;
        ensure!(
            heard.ends_with(&format!("|{reason}|control")) && !heard.starts_with('|'),
            "the person was told {heard:?}"
        );
        ensure!(!trace.exists(), "an operator's reason was run");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_person_answers_on_the_command_line_while_the_operator_waits() {
    scenario(async |scratch| {
        let parameters = [("network.vncserver.promptuser", "true")];
        let world = World::start_with(scratch, &parameters).await?;
        let name = world.device_name().await?;

        let mut shadow = world
            .console
            .begin_shadow(&name, &["--reason", "till is stuck"])?;
        let asked = questions(&world.device, 1).await?;
        ensure!(text(&asked[0], "reason") == "till is stuck", "{asked:?}");
        let waiting = "waiting for the user at the device";
        shadow.program().wait_for_line(waiting, PATIENCE).await?;
        untouched(&world)?;
        world.device.tell(&["consent", "accept"], "").await?;
        shadow.wait_until_open().await?;
        shadow.view().await?.refresh().await?;
        shadow.program().kill();

        let mut shadow = world.console.begin_shadow(&name, &[])?;
        let asked = questions(&world.device, 1).await?;
        let session = text(&asked[0], "session");
        world.device.tell(&["consent", "deny", session], "").await?;
        failure(&mut shadow)
            .await?
            .ensure("consent_denied", "said no")?;
        refused_record(&world.console, "consent_denied").await?;
        // Nobody asks any more, and who answers all the same is told so.
        questions(&world.device, 0).await?;
        let late = world.device.output(&["consent", "accept"], "").await?;
        let said = String::from_utf8_lossy(&late.stderr).into_owned();
        ensure!(
            !late.status.success() && said.contains("nobody asks"),
            "{said}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_there_the_device_decides_as_it_is_set() {
    scenario(async |scratch| {
        let parameters = [
            ("network.vncserver.promptuser", "true"),
            ("umbra.consent.timeout", "5"),
        ];
        let world = World::start_with(scratch, &parameters).await?;
        failed_shadow(&world)
            .await?
            .ensure("nobody_to_ask", "nobody is there")?;
        refused_record(&world.console, "nobody_to_ask").await?;
        untouched(&world)?;
        world
            .device
            .set("umbra.consent.unattended", "allow")
            .await?;
        healthy(&world).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_gives_up_takes_the_question_away_from_the_person() {
    scenario(async |scratch| {
        let parameters = [
            ("network.vncserver.promptuser", "true"),
            ("umbra.consent.timeout", "600"),
        ];
        let world = World::start_with(scratch, &parameters).await?;
        let name = world.device_name().await?;
        let mut shadow = world.console.begin_shadow(&name, &[])?;
        questions(&world.device, 1).await?;
        shadow.program().signal(Signal::SIGINT);
        let (status, said) = shadow.finished().await?;
        ensure!(status.code() == Some(INTERRUPTED), "{status}: {said}");
        questions(&world.device, 0).await?;
        let probe = || async {
            let record = super::newest_session(&world.console)
                .await
                .map_err(|error| error.to_string())?;
            match text(&record, "state") {
                "refused" => Ok(record),
                _ => Err(record.to_string()),
            }
        };
        let record = eventually("the session's record", PATIENCE, probe).await?;
        ensure!(!text(&record, "end_sentence").is_empty(), "{record}");
        untouched(&world)?;
        world
            .device
            .tell(
                &["registry", "set", "network.vncserver.promptuser", "false"],
                "",
            )
            .await
            .context("the question cannot be switched off")?;
        healthy(&world).await
    })
    .await;
}
