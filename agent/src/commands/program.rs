//! Runs a program that the image's maker or somebody on the device has named: no shell, none of our environment, a deadline for
//! the program with all that it has started, and only the end of what it says is kept. What the server sends reaches it on its
//! standard input, never in its arguments.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use umbra_protocol::refusal::clip;

/// The search path of a program that is given none.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of what the program says is kept.
const SAID_MAX: usize = 4096;
/// How much of that is shown.
const SHOWN_MAX: usize = 300;
/// How much of what it has said is still taken up after its end; no pipe holds more.
const REST_MAX: u64 = 1024 * 1024;

/// A program, and what it gets.
pub(crate) struct Program<'a> {
    /// The program by its absolute path, and its arguments.
    pub(crate) command: &'a [String],
    /// Its environment, beside a search path.
    pub(crate) environment: &'a [(String, String)],
    /// What it reads.
    pub(crate) input: &'a str,
    /// How long it may take; it is ended then, with all that it has started.
    pub(crate) deadline: Duration,
    /// Hears each line while the program runs; what it takes is not kept as what the program said.
    pub(crate) takes: &'a Ear<'a>,
}

/// Hears a line, and says whether it takes it.
pub(crate) type Ear<'a> = dyn Fn(&str) -> bool + Sync + 'a;

/// Nobody listens while the program runs.
pub(crate) const DEAF: &Ear<'static> = &|_| false;

/// Why a program did not do what it is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// No program is named.
    #[error("no program is named")]
    Nameless,
    /// It could not be started.
    #[error("the program {program} can't be started")]
    Start {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It reported failure.
    #[error("the program {program} failed ({how}){}", words(.said))]
    Failed {
        /// Which program.
        program: String,
        /// How it ended.
        how: String,
        /// The last that it said.
        said: String,
    },
    /// It took too long.
    #[error("the program {program} was ended after {} seconds{}", .deadline.as_secs(), words(.said))]
    TooSlow {
        /// Which program.
        program: String,
        /// How long it was given.
        deadline: Duration,
        /// The last that it said.
        said: String,
    },
}

fn words(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!("; it said: {said}")
    }
}

/// Runs it to its end; returns the last that it said, as one line. Dropping the future ends the program.
pub(crate) async fn run(what: Program<'_>) -> Result<String, ProgramError> {
    let (program, arguments) = what.command.split_first().ok_or(ProgramError::Nameless)?;
    let not_started = |source| ProgramError::Start {
        program: program.clone(),
        source,
    };
    let (ears, out, err) = one_ear_for_both().map_err(not_started)?;
    let started = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(what.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        // A group of its own, so that what it has started can be ended with it.
        .process_group(0)
        .spawn();
    let mut child = started.map_err(not_started)?;
    let group = Group::of(&child);
    let mut said = Said {
        takes: what.takes,
        line: Vec::new(),
        kept: VecDeque::new(),
    };
    let ended = timeout(
        what.deadline,
        attend(&mut child, what.input, ears, &mut said),
    )
    .await;
    said.end_of_line();
    let said = said.kept;
    let Ok(ended) = ended else {
        drop(group);
        // Killed above: reaped here.
        let _ = child.wait().await;
        return Err(ProgramError::TooSlow {
            program: program.clone(),
            deadline: what.deadline,
            said: shown(said),
        });
    };
    group.forget();
    let status = ended.map_err(not_started)?;
    if status.success() {
        return Ok(shown(said));
    }
    Err(ProgramError::Failed {
        program: program.clone(),
        how: how(status),
        said: shown(said),
    })
}

/// One pipe for both ways in which a program speaks, so that what it said last is what is heard last.
fn one_ear_for_both() -> io::Result<(Receiver, Stdio, Stdio)> {
    let (ears, mouth) = io::pipe()?;
    let other = mouth.try_clone()?;
    let ears = Receiver::from_owned_fd(ears.into())?;
    Ok((ears, mouth.into(), other.into()))
}

async fn attend(
    child: &mut Child,
    input: &str,
    mut ears: Receiver,
    said: &mut Said<'_>,
) -> io::Result<ExitStatus> {
    let stdin = child.stdin.take();
    let telling = async {
        if let Some(mut stdin) = stdin {
            // A program that does not want to hear it is free to close its ears.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let hearing = async {
        let mut part = [0; SAID_MAX];
        while let Ok(count @ 1..) = ears.read(&mut part).await {
            said.hear(&part[..count]);
        }
    };
    let status = {
        let mut talk = std::pin::pin!(async { tokio::join!(telling, hearing) });
        tokio::select! {
            status = child.wait() => status?,
            _ = &mut talk => child.wait().await?,
        }
    };
    // All that it has said is there by now. The end of the pipe is not waited for: something that it left running may hold on
    // to it.
    if let Ok(rest) = ears.into_nonblocking_fd() {
        let mut rest = File::from(rest).take(REST_MAX);
        let mut part = [0; SAID_MAX];
        while let Ok(count @ 1..) = rest.read(&mut part) {
            said.hear(&part[..count]);
        }
    }
    Ok(status)
}

/// What a program has said: its end, but for the lines that somebody takes.
struct Said<'a> {
    takes: &'a Ear<'a>,
    line: Vec<u8>,
    kept: VecDeque<u8>,
}

impl Said<'_> {
    fn hear(&mut self, more: &[u8]) {
        for byte in more {
            self.line.push(*byte);
            // A line without an end is not waited for.
            if matches!(byte, b'\n' | b'\r') || self.line.len() == SAID_MAX {
                self.end_of_line();
            }
        }
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !(self.takes)(&String::from_utf8_lossy(&line)) {
            self.kept.extend(line);
            let excess = self.kept.len().saturating_sub(SAID_MAX);
            self.kept.drain(..excess);
        }
    }
}

fn shown(said: VecDeque<u8>) -> String {
    let said: Vec<u8> = said.into();
    let text = String::from_utf8_lossy(&said[said.len().saturating_sub(SHOWN_MAX)..]).into_owned();
    clip(text).trim().to_owned()
}

/// How a program ended.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it is not known how".to_owned(),
    }
}

/// A program and what it has started, which end with this.
#[derive(Debug)]
pub(crate) struct Group(Option<i32>);

impl Group {
    /// Of a program that was started as the first of its group.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()))
    }

    /// The program has ended by itself: whatever it has left running on purpose goes on.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // Fails only where nothing is left to be ended.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn play(
        command: &[String],
        input: &str,
        deadline: Duration,
    ) -> Result<String, ProgramError> {
        run(Program {
            command,
            environment: &[("DISPLAY".to_owned(), ":7".to_owned())],
            input,
            deadline,
            takes: DEAF,
        })
        .await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_program_gets_its_text_on_standard_input_and_an_environment_of_its_own() {
        let said = play(
            &shell("cat; echo; echo \"$DISPLAY,$HOME,$CARGO\""),
            "We restart; $(reboot)",
            LONG,
        )
        .await
        .expect("it works");
        assert_eq!(said, "We restart; $(reboot) :7,,");
    }

    #[tokio::test]
    async fn a_failure_is_told_with_the_last_words_made_harmless() {
        let error = play(
            &shell("head -c 100000 /dev/zero | tr '\\0' x; printf '\\033[2Jno room' >&2; exit 3"),
            "",
            LONG,
        )
        .await
        .expect_err("it fails");
        let told = error.to_string();
        assert!(told.contains("failed (exit status 3)"), "{told}");
        assert!(told.ends_with(" [2Jno room"), "{told}");
        assert!(told.len() < 500, "{told}");
        let error = play(&["/nowhere/update".to_owned()], "", LONG)
            .await
            .expect_err("missing");
        assert!(error.to_string().contains("can't be started"), "{error}");
        assert!(matches!(
            play(&[], "", LONG).await,
            Err(ProgramError::Nameless)
        ));
    }

    #[tokio::test]
    async fn what_is_said_in_two_ways_is_heard_in_the_order_in_which_it_was_said() {
        let script = "for i in $(seq 1 30); do echo $i; echo $i. >&2; done";
        let said = play(&shell(script), "", LONG).await.expect("it works");
        let expected: Vec<String> = (1..=30).map(|i| format!("{i} {i}.")).collect();
        assert_eq!(said, expected.join(" "));
    }

    #[tokio::test]
    async fn whoever_takes_too_long_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let child = folder.path().join("child");
        let script = format!(
            "sleep 1000 & echo $! > {}; echo begun; wait",
            child.display()
        );
        let error = play(&shell(&script), "", Duration::from_millis(500))
            .await
            .expect_err("too slow");
        assert!(
            matches!(&error, ProgramError::TooSlow { said, .. } if said == "begun"),
            "{error}"
        );
        let id = std::fs::read_to_string(&child).expect("it was started");
        let stat = format!("/proc/{}/stat", id.trim());
        let gone = async {
            // A zombie that nobody has reaped yet has ended all the same.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), gone)
            .await
            .expect("it was ended");
    }

    #[tokio::test]
    async fn lines_that_somebody_takes_are_heard_at_once_and_not_kept() {
        let heard = std::sync::Mutex::new(Vec::new());
        let takes = |line: &str| {
            let taken = line.starts_with('1');
            if taken {
                heard
                    .lock()
                    .expect("one thread")
                    .push(line.trim().to_owned());
            }
            taken
        };
        let command = shell("printf '10%% begun\\r11%% more\\nno room\\n12%% end'");
        let said = run(Program {
            command: &command,
            environment: &[],
            input: "",
            deadline: LONG,
            takes: &takes,
        });
        assert_eq!(said.await.expect("it works"), "no room");
        assert_eq!(
            *heard.lock().expect("one thread"),
            ["10% begun", "11% more", "12% end"]
        );
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_does_not_hold_us_up() {
        let said = play(&shell("sleep 20 & echo done"), "", LONG)
            .await
            .expect("it works");
        assert_eq!(said, "done");
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_is_not_waited_for() {
        let text = "x".repeat(1024 * 1024);
        play(&shell("exit 0"), &text, LONG).await.expect("it works");
    }
}
