//! What goes wrong around a shadowing session, told from all sides: the operator reads one sentence with its code, the
//! server's log has its line, the device's screen was not touched where nobody was let in, and the next session works.

mod consent;
mod ends;
mod impostor;
mod outages;
mod ways_in;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::tunnel::dial;
use umbra_tests::world::{Console, Device, PATIENCE, World};

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// How `umbra shadow` failed.
struct Failed {
    exit: Option<i32>,
    code: String,
    detail: String,
}

impl Failed {
    /// What an operator reads is a sentence, of the stable code and no program's inner words.
    fn ensure(&self, code: &str, words: &str) -> anyhow::Result<()> {
        ensure!(
            self.code == code && self.detail.contains(words),
            "{code} with {words:?} expected, but {}: {}",
            self.code,
            self.detail
        );
        ensure!(
            self.detail.contains(' ') && !self.detail.contains("Error"),
            "no sentence: {}",
            self.detail
        );
        Ok(())
    }
}

/// Waits for the end of a console that never got to a viewer.
async fn failure(shadow: &mut umbra_tests::world::Shadow) -> anyhow::Result<Failed> {
    let (status, said) = shadow.finished().await?;
    ensure!(!status.success(), "it worked: {said}");
    ensure!(
        !said.contains("\"listening\""),
        "a port was opened for a viewer: {said}"
    );
    let problem = said
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|problem| problem.get("detail").is_some())
        .with_context(|| format!("no problem document in {said}"))?;
    Ok(Failed {
        exit: status.code(),
        code: text(&problem, "code").to_owned(),
        detail: text(&problem, "detail").to_owned(),
    })
}

/// Shadows in vain.
async fn failed_shadow(world: &World<'_>) -> anyhow::Result<Failed> {
    let name = world.device_name().await?;
    failure(&mut world.console.begin_shadow(&name, &[])?).await
}

/// The next operator is served.
async fn healthy(world: &World<'_>) -> anyhow::Result<()> {
    let shadow = world.shadow("afterwards").await?;
    let mut viewer = shadow.view().await?;
    viewer.refresh().await?;
    Ok(())
}

/// Nothing has reached the screen.
fn untouched(world: &World<'_>) -> anyhow::Result<()> {
    ensure!(
        world.desktop.connections() == 0,
        "somebody was at the VNC server: {:?}",
        world.desktop.events()
    );
    Ok(())
}

/// Presents first words to the device; gives its answer, after which it must have closed if that was a refusal.
async fn present(device: &Device<'_>, preface: &str) -> anyhow::Result<String> {
    let mut tunnel = dial(device.shadow_address().await?, PATIENCE).await?;
    tunnel.say(preface.as_bytes()).await?;
    let answer = tunnel.line(PATIENCE).await?;
    if answer.starts_with("UMBRA/1 refused") {
        let rest = tunnel.rest(PATIENCE).await?;
        ensure!(rest.is_empty(), "{} bytes followed the refusal", rest.len());
    }
    Ok(answer)
}

fn refused_with(answer: &str, code: &str) -> anyhow::Result<()> {
    let sentence = answer.strip_prefix(&format!("UMBRA/1 refused {code} "));
    ensure!(
        sentence.is_some_and(|sentence| sentence.ends_with('.') && sentence.contains(' ')),
        "{code} with a sentence expected, but {answer:?}"
    );
    Ok(())
}

/// The audit log has a line of this action and outcome; its detail holds these words.
async fn audited(
    console: &Console<'_>,
    action: &str,
    outcome: &str,
    words: &str,
) -> anyhow::Result<()> {
    let audit = console.tell(&["audit"], "").await?;
    let lines = audit.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = lines.iter().any(|line| {
        text(line, "action") == action
            && text(line, "outcome") == outcome
            && text(line, "detail").contains(words)
    });
    ensure!(found, "no {action}, {outcome}, {words:?} in {audit}");
    Ok(())
}

/// The server's record of the newest session.
async fn newest_session(console: &Console<'_>) -> anyhow::Result<Value> {
    let sessions = console.tell(&["sessions"], "").await?;
    let newest = sessions.pointer("/0").cloned();
    newest.with_context(|| format!("no session in {sessions}"))
}

/// Waits until the server has filed how a session that never began was refused.
async fn refused_record(console: &Console<'_>, code: &str) -> anyhow::Result<()> {
    let probe = || async {
        let record = newest_session(console)
            .await
            .map_err(|error| error.to_string())?;
        if text(&record, "state") == "refused" && text(&record, "end_code") == code {
            Ok(())
        } else {
            Err(record.to_string())
        }
    };
    let what = format!("the session's record to say {code}");
    Ok(umbra_tests::eventually::eventually(&what, PATIENCE, probe).await?)
}
