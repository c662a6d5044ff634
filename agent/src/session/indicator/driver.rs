//! Runs the program that shows who sees the screen, as the machine says: no shell, none of our environment, what it says bounded, and
//! ended with all that it has started. Not a word of what it says goes anywhere but to the machine.

use std::io;
use std::process::Stdio;
use std::sync::Weak;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::Standing;
use super::machine::{Input, Machine, Output};
use crate::commands::program::{Group, PATH, how};
use crate::session::Shared;
use crate::session::table::Ending;

/// How long the program may take to read a line.
const READING: Duration = Duration::from_secs(2);
/// Longest line of the program's that is understood; it holds a word and a session.
const LINE_MAX: usize = 128;
/// Topic of the warning.
const TOPIC: &str = "indicator";

/// Runs until the agent ends or its sessions are gone.
pub(in crate::session) async fn drive(shared: Weak<Shared>) {
    let Some(strong) = shared.upgrade() else {
        return;
    };
    let indicator = strong.indicator.clone();
    let mut registry = strong.registry.subscribe();
    let mut stopping = strong.stopping.subscribe();
    let (mut sessions, mut awaited) = (
        indicator.sessions.subscribe(),
        indicator.awaited.subscribe(),
    );
    let mut machine = Machine::new(strong.registry.snapshot().indicator.clone());
    drop(strong);
    let begun = Instant::now();
    let mut running: Option<Running> = None;
    let mut stopped = false;
    loop {
        let deadline = machine.next_deadline().map(|deadline| begun + deadline);
        let input = tokio::select! {
            changed = sessions.changed() => match changed {
                Ok(()) => wanted(&mut sessions, &mut awaited),
                Err(_) => return,
            },
            changed = awaited.changed() => match changed {
                Ok(()) => wanted(&mut sessions, &mut awaited),
                Err(_) => return,
            },
            changed = registry.changed() => match changed {
                Ok(()) => Input::Settings(registry.borrow_and_update().indicator.clone()),
                Err(_) => return,
            },
            changed = stopping.changed(), if !stopped => {
                stopped = changed.is_err() || *stopping.borrow();
                wanted(&mut sessions, &mut awaited)
            }
            heard = hear(&mut running) => heard,
            () = at(deadline) => Input::Tick,
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in machine.handle(input, begun.elapsed()) {
                match output {
                    Output::Start(program) => {
                        let environment = &shared.registry.snapshot().vnc.environment;
                        inputs.push(match Running::start(&program, environment) {
                            Ok(started) => {
                                running = Some(started);
                                Input::Started
                            }
                            Err(error) => Input::Failed(error.to_string()),
                        });
                    }
                    Output::Tell(line) => {
                        if let Some(program) = &mut running
                            && let Err(error) = program.tell(line).await
                        {
                            // Whoever does not read any more shows nothing.
                            debug!(%error, "the indicator does not read");
                            running = None;
                            inputs.push(Input::Failed("it does not read".to_owned()));
                        }
                    }
                    Output::Stop => running = None,
                    Output::End(session) => {
                        info!(%session, "the person ends a session from the indicator");
                        shared.change(|table| table.end(session, &Ending::User));
                    }
                    Output::Warn(problem) => {
                        if let Some(problem) = &problem {
                            warn!(problem, "the indicator is not shown");
                        }
                        shared.board.update(|status| status.warn(TOPIC, problem));
                    }
                }
            }
        }
        if !machine.is_running() {
            running = None;
        }
        indicator.standing.send_replace(if machine.is_running() {
            Standing::Running
        } else if machine.next_deadline().is_some() {
            Standing::Failed
        } else {
            Standing::Off
        });
        if stopped && sessions.borrow().is_empty() {
            return;
        }
    }
}

fn wanted(
    sessions: &mut watch::Receiver<Vec<super::Shown>>,
    awaited: &mut watch::Receiver<usize>,
) -> Input {
    Input::Wanted {
        sessions: sessions.borrow_and_update().clone(),
        awaited: *awaited.borrow_and_update() > 0,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn hear(running: &mut Option<Running>) -> Input {
    match running {
        Some(program) => program.hear().await,
        None => std::future::pending().await,
    }
}

/// The program while it runs; it ends with this, with all that it has started.
#[derive(Debug)]
struct Running {
    // First: the program's entry in the process table keeps the group's number from others.
    _group: Group,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    line: Vec<u8>,
    /// Lines that were heard and not passed on yet, the last first.
    lines: Vec<String>,
}

impl Running {
    fn start(command: &[String], environment: &[(String, String)]) -> io::Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| io::Error::other("no program is named"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            _group: Group::of(&child),
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
            line: Vec::new(),
            lines: Vec::new(),
        })
    }

    async fn tell(&mut self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        match timeout(READING, stdin.write_all(line.as_bytes())).await {
            Ok(told) => told,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The next line of the program's, or how it ended. May be given up and begun anew at any time.
    async fn hear(&mut self) -> Input {
        loop {
            if let Some(line) = self.lines.pop() {
                return Input::Said(line);
            }
            let mut part = [0; 256];
            let reading = async {
                match &mut self.stdout {
                    Some(stdout) => stdout.read(&mut part).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = reading => match read {
                    Ok(count @ 1..) => self.heard(&part[..count]),
                    Ok(0) | Err(_) => self.stdout = None,
                },
                ended = self.child.wait() => return Input::Failed(match ended {
                    Ok(status) => how(status),
                    Err(error) => error.to_string(),
                }),
            }
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    if line.len() <= LINE_MAX {
                        self.lines
                            .insert(0, String::from_utf8_lossy(&line).into_owned());
                    }
                }
                // One more than is understood tells a line that is too long.
                byte if self.line.len() <= LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        Running::start(&command, &[("DISPLAY".to_owned(), ":7".to_owned())]).expect("started")
    }

    async fn said(program: &mut Running) -> String {
        match timeout(Duration::from_secs(20), program.hear()).await {
            Ok(Input::Said(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn it_reads_lines_and_is_heard_in_lines_and_knows_nothing_of_our_environment() {
        let mut program = shell("read a; read b; echo \"$b\"; echo \"$a,$DISPLAY,$HOME\"; cat");
        program.tell("{\"one\":1}".into()).await.expect("told");
        program.tell("two".into()).await.expect("told");
        assert_eq!(said(&mut program).await, "two");
        assert_eq!(said(&mut program).await, "{\"one\":1},:7,");
    }

    #[tokio::test]
    async fn endless_lines_take_no_memory_and_the_next_one_is_understood() {
        let mut program = shell("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo next; cat");
        assert_eq!(said(&mut program).await, "next");
        assert!(program.line.capacity() <= 2 * LINE_MAX, "bounded");
    }

    #[tokio::test]
    async fn how_it_ended_is_told() {
        let ended = timeout(Duration::from_secs(20), shell("exit 3").hear()).await;
        assert_eq!(
            ended.expect("in time"),
            Input::Failed("exit status 3".into())
        );
    }

    #[tokio::test]
    async fn it_ends_with_all_that_it_has_started() {
        let mut program = shell("sleep 1000 & echo $!; cat");
        let helper = said(&mut program).await;
        drop(program);
        let stat = format!("/proc/{}/stat", helper.trim());
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
}
