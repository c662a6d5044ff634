//! Child processes of a scenario: started with a log of their own, watched for lines, and ended by their process ID
//! when the scenario ends, however it ends. Nothing is ever ended by name.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::{NotReached, eventually_is};
use crate::scratch::Scratch;

/// How many lines are kept in memory; the file has them all.
const LINES_KEPT: usize = 5000;
/// The longest line kept; the rest of it counts as the next one.
const LONGEST_LINE: u64 = 64 * 1024;

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It isn't where it should be.
    #[error("{name} is not there: {path} does not exist (build it, or name it in {variable})")]
    Missing {
        /// The program.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// The variable that may name it.
        variable: String,
    },
    /// It could not be started.
    #[error("{name} could not be started")]
    Start {
        /// The program.
        name: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It ended when it should have gone on, or did not end when it should have.
    #[error("{name} did not do what was expected of it")]
    State {
        /// The program.
        name: String,
        /// What was seen.
        #[source]
        cause: NotReached,
    },
    /// A log file or a pipe failed.
    #[error("the log of {name} failed")]
    Log {
        /// The program.
        name: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// Finds a program of the product: where `UMBRA_…_BIN` says, or beside the test's own executable.
pub fn product(name: &str) -> Result<PathBuf, ProgramError> {
    let variable = variable(name, "BIN");
    let path = match std::env::var_os(&variable) {
        Some(path) => PathBuf::from(path),
        None => beside_us(name),
    };
    match path.is_file() {
        true => Ok(path),
        false => Err(ProgramError::Missing {
            name: name.to_owned(),
            path,
            variable,
        }),
    }
}

fn variable(name: &str, what: &str) -> String {
    let short =
        name.strip_prefix("umbra-")
            .unwrap_or(if name == "umbra" { "console" } else { name });
    format!("UMBRA_{}_{what}", short.to_uppercase().replace('-', "_"))
}

/// The words that start a program of the product: its path, behind an emulator where it is made for another processor.
/// `UMBRA_…_RUNNER` may name what to start it with instead.
pub fn product_words(name: &str) -> Result<Vec<PathBuf>, ProgramError> {
    let path = product(name)?;
    let runner = std::env::var_os(variable(name, "RUNNER")).map(PathBuf::from);
    let runner = match runner {
        Some(runner) => Some(runner),
        None => foreign(&path).map_err(|cause| ProgramError::Start {
            name: name.to_owned(),
            cause,
        })?,
    };
    Ok(runner.into_iter().chain([path]).collect())
}

/// A command that starts a program of the product.
pub fn product_command(name: &str) -> Result<Command, ProgramError> {
    let words = product_words(name)?;
    let (first, rest) = words
        .split_first()
        .map_or((Path::new(name), &[][..]), |(first, rest)| {
            (first.as_path(), rest)
        });
    let mut command = Command::new(first);
    command.args(rest);
    Ok(command)
}

/// What runs programs of the processor that an ELF file is for, if that isn't this machine's: Debian's `qemu-user-static`.
pub(crate) fn foreign(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut header = [0; 20];
    std::fs::File::open(path)?.read_exact(&mut header)?;
    let processor = match (&header[..4], u16::from_le_bytes([header[18], header[19]])) {
        (b"\x7fELF", 62) => "x86_64",
        (b"\x7fELF", 183) => "aarch64",
        // A script, or nothing that is known here: the system will say.
        (_, _) => return Ok(None),
    };
    let ours = processor == std::env::consts::ARCH;
    Ok((!ours).then(|| format!("qemu-{processor}-static").into()))
}

/// Whether a program is loaded by another one, as those that developers build are.
pub fn is_dynamic(path: &Path) -> std::io::Result<bool> {
    let file = std::fs::read(path)?;
    let number = |at: usize, width: usize| {
        let bytes = file.get(at..at + width).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    const INTERPRETER: usize = 3;
    Ok((0..count).any(|part| number(table + part * size, 4) == INTERPRETER))
}

/// Test executables lie in `deps`, one below the programs; programs lie beside each other.
fn beside_us(name: &str) -> PathBuf {
    let us = std::env::current_exe().unwrap_or_default();
    let folder = us.parent().unwrap_or(Path::new("."));
    let folder = if folder.file_name() == Some(OsStr::new("deps")) {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    folder.join(name)
}

#[derive(Default)]
struct Said {
    lines: VecDeque<String>,
    /// Pipes that are still open.
    open: usize,
}

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    said: Arc<Mutex<Said>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts a program; what it says goes to its log in the scenario's folder. Standard input is closed.
    pub fn start(
        scratch: &Scratch,
        name: &str,
        command: &mut Command,
    ) -> Result<Self, ProgramError> {
        Self::start_with_input(scratch, name, command, Stdio::null())
    }

    /// The same with something as its standard input.
    pub fn start_with_input(
        scratch: &Scratch,
        name: &str,
        command: &mut Command,
        input: Stdio,
    ) -> Result<Self, ProgramError> {
        command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let log_failed = |cause| ProgramError::Log {
            name: name.to_owned(),
            cause,
        };
        let mut log = std::fs::File::create(scratch.log(name)).map_err(log_failed)?;
        writeln!(log, "$ {command:?}").map_err(log_failed)?;
        let mut child = command.spawn().map_err(|cause| ProgramError::Start {
            name: name.to_owned(),
            cause,
        })?;
        let said = Arc::new(Mutex::new(Said::default()));
        let mut readers = Vec::new();
        let pipes = [
            child
                .stdout
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child
                .stderr
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        for pipe in pipes.into_iter().flatten() {
            let log = log.try_clone().map_err(log_failed)?;
            lock(&said).open += 1;
            let said = Arc::clone(&said);
            readers.push(std::thread::spawn(move || read_lines(pipe, log, &said)));
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            status: None,
            said,
            readers,
        })
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines it has said so far (the last few thousand).
    pub fn lines(&self) -> Vec<String> {
        lock(&self.said).lines.iter().cloned().collect()
    }

    /// Waits for a line that contains `text`, and gives it.
    pub async fn wait_for_line(
        &mut self,
        text: &str,
        limit: Duration,
    ) -> Result<String, ProgramError> {
        let what = format!("{} to say {text:?}", self.name);
        let name = self.name.clone();
        let reached = eventually_is(&what, limit, || {
            // Asked before the lines are looked at: what it says last may come in between.
            let over = self.exited().is_some() && lock(&self.said).open == 0;
            let found = lock(&self.said)
                .lines
                .iter()
                .find(|line| line.contains(text))
                .cloned();
            match found {
                Some(line) => Ok(Ok(line)),
                None if over => Ok(Err(self.state())),
                None => Err(self.state()),
            }
        })
        .await
        .and_then(|line| {
            line.map_err(|last| NotReached {
                what: what.clone(),
                limit,
                last,
            })
        });
        reached.map_err(|cause| ProgramError::State { name, cause })
    }

    /// The exit status, once it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus, ProgramError> {
        let what = format!("{} to end", self.name);
        let name = self.name.clone();
        let status =
            eventually_is(&what, limit, || self.exited().ok_or_else(|| self.state())).await;
        status.map_err(|cause| ProgramError::State { name, cause })
    }

    /// Waits until it has ended by itself and all that it said was read.
    pub async fn wait_for_all(
        &mut self,
        limit: Duration,
    ) -> Result<(ExitStatus, Vec<String>), ProgramError> {
        let status = self.wait(limit).await?;
        let what = format!("the output of {} to end", self.name);
        let open = || match lock(&self.said).open {
            0 => Ok(()),
            open => Err(open),
        };
        let read = eventually_is(&what, limit, open).await;
        let name = self.name.clone();
        read.map_err(|cause| ProgramError::State { name, cause })?;
        Ok((status, self.lines()))
    }

    /// Sends a signal; nothing happens when it has ended already.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            // It may have ended since; then the signal has no one to go to, and the ID is still ours until it is waited for.
            let _ = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), signal));
        }
    }

    /// Ends it at once, in the middle of whatever it does, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            // Only fails when it has ended since.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, ProgramError> {
        self.signal(Signal::SIGTERM);
        self.wait(limit).await
    }

    /// Its resident memory in KiB, while it runs.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    }

    /// How many sockets it has open, while it runs.
    pub fn sockets(&self) -> Option<usize> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?;
        let sockets = files
            .flatten()
            // What was closed in the meantime is none.
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .filter(|file| file.to_string_lossy().starts_with("socket:"));
        Some(sockets.count())
    }

    fn state(&mut self) -> String {
        let state = match self.exited() {
            Some(status) => format!("ended with {status}"),
            None => "running".into(),
        };
        let last = lock(&self.said).lines.back().cloned().unwrap_or_default();
        format!("{state}, last line {last:?}")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        // Its own children may hold the pipes open, so only what is read already is waited for.
        for reader in self.readers.drain(..) {
            if reader.is_finished() {
                let _ = reader.join();
            }
        }
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_lines(pipe: Box<dyn Read + Send>, mut log: std::fs::File, said: &Mutex<Said>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while matches!(pipe.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line), Ok(count) if count > 0)
    {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // A log that cannot be written must not block the program.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut said = lock(said);
        if said.lines.len() == LINES_KEPT {
            said.lines.pop_front();
        }
        said.lines.push_back(text);
        line.clear();
    }
    lock(said).open -= 1;
}

/// Runs a program to its end within a limit, with its output apart; also added to the log of
/// this name in the scenario's folder.
pub async fn run(
    scratch: &Scratch,
    name: &str,
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> Result<Output, ProgramError> {
    use tokio::io::AsyncWriteExt as _;

    let log_failed = |cause| ProgramError::Log {
        name: name.to_owned(),
        cause,
    };
    let mut log = scratch.append(name).map_err(log_failed)?;
    writeln!(log, "$ {command:?}").map_err(log_failed)?;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new(name)));
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|cause| ProgramError::Start {
            name: name.to_owned(),
            cause,
        })?;
    let mut stdin = child.stdin.take();
    let whole = async {
        if let Some(mut stdin) = stdin.take() {
            // A program that doesn't want the input may close it.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(limit, whole).await {
        Ok(output) => output.map_err(log_failed)?,
        Err(_) => {
            let what = format!("{name} to end");
            let cause = NotReached {
                what,
                limit,
                last: "running".into(),
            };
            return Err(ProgramError::State {
                name: name.to_owned(),
                cause,
            });
        }
    };
    for part in [&output.stdout, &output.stderr] {
        log.write_all(part).map_err(log_failed)?;
    }
    writeln!(log, "({})", output.status).map_err(log_failed)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::SOON;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Whether a process runs; one that only waits to be counted out does not.
    fn lives(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    #[test]
    fn a_program_of_another_processor_is_started_by_an_emulator() {
        let scratch = Scratch::new().expect("a folder");
        let us = std::env::current_exe().expect("a path");
        let mut file = std::fs::read(&us).expect("this test");
        assert_eq!(foreign(&us).expect("readable"), None);
        assert!(is_dynamic(&us).expect("readable"));
        let (other, emulator) = match std::env::consts::ARCH {
            "x86_64" => (183, "qemu-aarch64-static"),
            _ => (62, "qemu-x86_64-static"),
        };
        file[18] = other;
        let path = scratch.path("other");
        std::fs::write(&path, &file).expect("written");
        assert_eq!(foreign(&path).expect("readable"), Some(emulator.into()));
        std::fs::write(&path, "#!/bin/sh\necho none of both\n").expect("written");
        assert_eq!(foreign(&path).expect("readable"), None);
        assert!(!is_dynamic(&path).expect("readable"));
    }

    #[tokio::test]
    async fn lines_are_waited_for_and_logged() {
        let scratch = Scratch::new().expect("a folder");
        let mut program = Program::start(
            &scratch,
            "talker",
            &mut shell("echo one; echo two >&2; exec sleep 60"),
        )
        .expect("starts");
        assert_eq!(
            program.wait_for_line("tw", SOON).await.expect("says it"),
            "two"
        );
        assert_eq!(
            program.wait_for_line("one", SOON).await.expect("says it"),
            "one"
        );
        assert!(scratch.logs().contains("\ntwo\n"), "{}", scratch.logs());
        assert!(program.resident_kib().expect("runs") > 0);
        assert_eq!(program.sockets(), Some(0));
    }

    #[tokio::test]
    async fn a_program_that_ends_before_its_line_fails_at_once_and_says_how_it_ended() {
        let scratch = Scratch::new().expect("a folder");
        let mut program = Program::start(&scratch, "quitter", &mut shell("echo farewell; exit 7"))
            .expect("starts");
        let failed = program
            .wait_for_line("ready", Duration::from_secs(3600))
            .await
            .expect_err("ended");
        let shown = format!("{:#}", anyhow::Error::from(failed));
        assert!(
            shown.contains("exit status: 7") && shown.contains("farewell"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn all_that_a_program_said_is_there_once_it_has_ended() {
        let scratch = Scratch::new().expect("a folder");
        let script = "(sleep 0.2; echo late) & echo early; exit 5";
        let mut program = Program::start(&scratch, "talker", &mut shell(script)).expect("starts");
        let (status, said) = program.wait_for_all(SOON).await.expect("ends");
        assert_eq!(
            (status.code(), said),
            (Some(5), vec!["early".to_owned(), "late".to_owned()])
        );
    }

    #[tokio::test]
    async fn a_program_is_gone_when_it_is_dropped() {
        let scratch = Scratch::new().expect("a folder");
        let program =
            Program::start(&scratch, "sleeper", &mut shell("exec sleep 60")).expect("starts");
        let pid = program.pid();
        assert!(lives(pid));
        drop(program);
        assert!(!lives(pid));
    }

    #[tokio::test]
    async fn asking_to_end_gives_the_program_its_say() {
        let scratch = Scratch::new().expect("a folder");
        let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
        let mut program = Program::start(&scratch, "orderly", &mut shell(script)).expect("starts");
        program.wait_for_line("ready", SOON).await.expect("ready");
        assert_eq!(program.terminate(SOON).await.expect("ends").code(), Some(3));
    }

    #[tokio::test]
    async fn output_input_and_status_of_a_run_come_back() {
        let scratch = Scratch::new().expect("a folder");
        let mut command = shell("cat; echo no >&2; exit 4");
        let output = run(&scratch, "cat", &mut command, b"given", SOON)
            .await
            .expect("runs");
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_slice()),
            (&b"given"[..], &b"no\n"[..])
        );
        assert_eq!(output.status.code(), Some(4));
        assert!(scratch.logs().contains("given"));
    }

    #[tokio::test]
    async fn a_run_beyond_its_limit_is_ended() {
        let scratch = Scratch::new().expect("a folder");
        let note = scratch.path("pid");
        let mut command = shell("echo $$ >\"$0\"; exec sleep 60");
        command.arg(&note);
        let failed = run(
            &scratch,
            "sleeper",
            &mut command,
            b"",
            Duration::from_secs(1),
        )
        .await
        .expect_err("too long");
        assert!(matches!(failed, ProgramError::State { .. }), "{failed}");
        let pid: u32 = std::fs::read_to_string(note)
            .expect("started")
            .trim()
            .parse()
            .expect("a process ID");
        eventually_is("the program to be gone", SOON, || {
            if lives(pid) { Err(pid) } else { Ok(()) }
        })
        .await
        .expect("gone");
    }

    #[test]
    fn a_missing_program_is_named_with_what_would_help() {
        let missing = product("umbra-nothing").expect_err("missing").to_string();
        assert!(
            missing.contains("umbra-nothing") && missing.contains("UMBRA_NOTHING_BIN"),
            "{missing}"
        );
    }
}
