//! The setup assistant in a terminal of 80 by 24. Its screens are kept as text in `tests/snapshots/setup`;
//! `UMBRA_WRITE_SNAPSHOTS=1` writes them anew.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use umbra_tests::eventually::{eventually, eventually_is};
use umbra_tests::scratch::Scratch;
use umbra_tests::world::PATIENCE;

/// A terminal that nobody looks at: a tmux of the scenario's own, with one program in it.
pub(super) struct Terminal {
    socket: PathBuf,
    _server: Child,
}

impl Terminal {
    pub(super) async fn start(
        scratch: &Scratch,
        name: &str,
        program: &[&str],
    ) -> anyhow::Result<Self> {
        let socket = scratch.root().join(format!("{name}.tmux"));
        let server = tmux(&socket)
            .arg("-D")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("tmux does not start")?;
        let terminal = Self {
            socket,
            _server: server,
        };
        // Paths on its screens are named from here: they look the same wherever the scenario runs.
        let here = scratch.root().to_str().context("no path")?;
        let mut words = vec![
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "-c",
            here,
            "--",
        ];
        words.extend(program);
        eventually("tmux", PATIENCE, async || {
            terminal.tell(&words).await.map(|_| ())
        })
        .await?;
        Ok(terminal)
    }

    async fn tell(&self, words: &[&str]) -> anyhow::Result<String> {
        // Never a server of its own accord: that one would outlive the scenario.
        let output = tmux(&self.socket)
            .arg("-N")
            .args(words)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await??;
        ensure!(
            output.status.success(),
            "tmux {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(super) async fn press(&self, keys: &[&str]) -> anyhow::Result<()> {
        let mut words = vec!["send-keys"];
        words.extend(keys);
        self.tell(&words).await.map(|_| ())
    }

    /// As if it were typed; nothing in it is the name of a key.
    pub(super) async fn type_in(&self, text: &str) -> anyhow::Result<()> {
        self.tell(&["send-keys", "-l", "--", text])
            .await
            .map(|_| ())
    }

    /// As terminals hand over what was copied elsewhere.
    pub(super) async fn paste(&self, text: &str) -> anyhow::Result<()> {
        self.tell(&["set-buffer", "--", text]).await?;
        self.tell(&["paste-buffer", "-p", "-r"]).await.map(|_| ())
    }

    /// Empties the line that has the focus.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        self.press(&["End"]).await?;
        self.tell(&["send-keys", "-N", "90", "BSpace"]).await?;
        Ok(())
    }

    /// The program's process.
    pub(super) async fn process(&self) -> anyhow::Result<Pid> {
        let said = self.tell(&["display-message", "-p", "#{pane_pid}"]).await?;
        Ok(Pid::from_raw(said.trim().parse()?))
    }

    /// As when the power fails: nothing is written any more.
    pub(super) async fn cut(&self) -> anyhow::Result<()> {
        let process = self.process().await?;
        kill(process, Signal::SIGKILL)?;
        gone(process).await
    }

    /// The screen once all of this stands on it, nothing runs any more, and it is twice the same.
    pub(super) async fn screen(&self, words: &[&str]) -> anyhow::Result<String> {
        let last = std::cell::RefCell::new(String::new());
        eventually("a screen", PATIENCE, async || {
            let now = self.tell(&["capture-pane", "-p"]).await?;
            let before = last.replace(now.clone());
            ensure!(now == before, "it still changes");
            ensure!(!now.contains(" …"), "something still runs:\n{now}");
            for word in words {
                ensure!(now.contains(word), "no “{word}” on it:\n{now}");
            }
            Ok(now)
        })
        .await
        .map_err(anyhow::Error::from)
    }
}

fn tmux(socket: &Path) -> Command {
    let mut command = Command::new("tmux");
    command
        .env_remove("TMUX")
        .env("LC_ALL", "C.UTF-8")
        .args(["-u", "-f", "/dev/null", "-S"])
        .arg(socket);
    command
}

/// What differs from run to run, in words that stay.
pub(super) fn settled(screen: &str, changing: &[(String, &str)]) -> String {
    let mut lines = Vec::new();
    for line in screen.trim_end().lines() {
        let mut line = line.to_owned();
        for (from, to) in changing {
            line = line.replace(from, to);
        }
        lines.push(without_fingerprint(line.trim_end()));
    }
    lines.join("\n") + "\n"
}

/// Each group of a fingerprint as zeros, and seconds that are counted down.
fn without_fingerprint(line: &str) -> String {
    let digits = |word: &str| {
        word.len() == 4
            && word
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
    };
    let mut words: Vec<&str> = line
        .split(' ')
        .map(|word| if digits(word) { "0000" } else { word })
        .collect();
    for at in 1..words.len() {
        let number = words[at - 1];
        if words[at].starts_with("second") || words[at].starts_with("Sekunde") {
            words[at - 1] = if number.len() == 2 { "00" } else { number };
        }
    }
    words.join(" ")
}

pub(super) fn compare(name: &str, screen: &str) -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("snapshots/setup")
        .join(format!("{name}.txt"));
    if std::env::var_os("UMBRA_WRITE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(file.parent().context("no folder")?)?;
        std::fs::write(&file, screen)?;
    }
    let kept = std::fs::read_to_string(&file)
        .with_context(|| format!("{}: UMBRA_WRITE_SNAPSHOTS=1 writes it", file.display()))?;
    ensure!(
        kept == screen,
        "{} has changed (UMBRA_WRITE_SNAPSHOTS=1 writes it anew); it is now:\n{screen}",
        file.display()
    );
    Ok(())
}

/// Waits until the process has ended, whether or not tmux has noticed yet.
pub(super) async fn gone(process: Pid) -> anyhow::Result<()> {
    let place = format!("/proc/{process}/stat");
    eventually_is("the end of the assistant", PATIENCE, || {
        let state = std::fs::read_to_string(&place).unwrap_or_default();
        match state.rsplit_once(") ") {
            Some((_, rest)) if !rest.starts_with(['Z', 'X']) => Err(state),
            Some(_) | None => Ok(()),
        }
    })
    .await
    .map_err(anyhow::Error::from)
}
