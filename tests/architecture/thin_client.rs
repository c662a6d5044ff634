//! The example image says what the agent understands, and its indicator does what the agent expects of one. That it boots is
//! another matter: `cargo xtask image test`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use umbra_agent::paths::Paths;
use umbra_agent::registry::Registry;

fn rootfs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/thin-client/rootfs")
}

#[test]
fn the_example_images_parameters_are_read_without_a_complaint() -> anyhow::Result<()> {
    let registry = Registry::open_quietly(&Paths::new(rootfs()));
    ensure!(registry.problems().is_empty(), "{:?}", registry.problems());
    let indicator = registry.snapshot().indicator.clone();
    let program = indicator.program.first().context("no indicator")?;
    ensure!(indicator.shown && indicator.required);
    let file = rootfs().join(program.trim_start_matches('/'));
    let mode = std::fs::metadata(&file)?.permissions().mode();
    ensure!(mode & 0o111 == 0o111, "{} cannot be run", file.display());
    Ok(())
}

/// Gives the example's indicator these lines, with a stand-in for what draws the bar, which notes its arguments and is “clicked”
/// when there is a file “click”. Gives what the bar was told and what the agent would hear.
fn indicator(lines: &[&str], click: bool) -> anyhow::Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let bar = folder.path().join("xmessage");
    let (noted, clicked) = (folder.path().join("noted"), folder.path().join("click"));
    let script = format!(
        "#!/bin/sh\nprintf '%s|' \"$@\" >>'{noted}'\necho >>'{noted}'\n[ ! -e '{clicked}' ] || exit 10\nexec sleep 60\n",
        noted = noted.display(),
        clicked = clicked.display(),
    );
    std::fs::write(&bar, script)?;
    std::fs::set_permissions(&bar, std::fs::Permissions::from_mode(0o755))?;
    if click {
        std::fs::write(&clicked, "")?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(rootfs().join("usr/lib/thin-client/indicator"))
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    for (number, line) in lines.iter().enumerate() {
        writeln!(input, "{line}")?;
        let shown = |text: &str| text.lines().count() > number;
        for _ in 0..2000 {
            if line.contains("operator")
                && !shown(&std::fs::read_to_string(&noted).unwrap_or_default())
            {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut said = String::new();
    if click {
        output.read_line(&mut said)?;
    }
    drop(input);
    output.read_to_string(&mut said)?;
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    let noted = std::fs::read_to_string(&noted).unwrap_or_default();
    Ok((noted, said))
}

#[test]
fn the_example_indicator_names_who_sees_the_screen_and_ends_nothing_by_itself() -> anyhow::Result<()>
{
    let one = r#"{"sessions":[{"id":"00ff","operator":"Anna \"A\"; $(reboot) O'Neill","reason":"\"id\":\"11\"","since":1}],"position":"bottom-left","disconnect":false}"#;
    let two = r#"{"sessions":[{"id":"00ff","operator":"Anna","reason":"","since":1},{"id":"22","operator":"Bob","reason":"","since":2}],"position":"top","disconnect":true}"#;
    let (bars, said) = indicator(
        &[
            one,
            two,
            r#"{"sessions":[],"position":"top","disconnect":true}"#,
        ],
        false,
    )?;
    let bars: Vec<&str> = bars.lines().collect();
    ensure!(bars.len() == 2, "{bars:?}");
    ensure!(
        bars[0].contains("|+0-0|")
            && bars[0].contains(r#"seen by Anna \"A\"; $(reboot) O'Neill|"#)
            && !bars[0].contains("End"),
        "{bars:?}"
    );
    ensure!(
        bars[1].contains("seen by Anna and 1 more|") && bars[1].contains("End:10"),
        "{bars:?}"
    );
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

#[test]
fn the_button_of_the_example_indicator_ends_the_session_that_it_names() -> anyhow::Result<()> {
    let line = r#"{"sessions":[{"id":"00ff","operator":"Anna","reason":"x","since":1}],"position":"top","disconnect":true}"#;
    let (_, said) = indicator(&[line], true)?;
    ensure!(said == "disconnect 00ff\n", "{said:?}");
    Ok(())
}
