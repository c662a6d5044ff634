//! A VNC server started for one session, with a socket as its standard input and output. It gets no shell, no inherited
//! environment and no terminal; it is ended with the session, with all that it has started, and reaped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::text::one_line_of;
use crate::upstream::Program;

/// How much of what the program says is kept for the message about its end.
const SAID_MAX: usize = 4096;
/// How much of that is shown.
const SHOWN_MAX: usize = 300;
/// How long the program may take to end by itself once its connection is closed.
const GRACE: Duration = Duration::from_secs(2);
/// How long what it has said is waited for once it has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// The search path of a program that is given none.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A running program and the end of what it has said.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Before the child: the group is killed while the child's entry in the process table still keeps its number from others.
    group: Group,
    child: Child,
    stderr: Option<ChildStderr>,
    said: VecDeque<u8>,
}

impl Spawned {
    /// Starts the program; returns our end of its connection.
    pub(crate) fn start(program: &Program) -> io::Result<(UnixStream, Self)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let output = theirs.try_clone()?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .env_clear()
            .env("PATH", PATH)
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts can be ended with it.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let group = Group(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
        );
        let stderr = child.stderr.take();
        // The command held the program's end of the connection too: it must go, or we'd never see the program close it.
        drop(command);
        Ok((
            ours,
            Self {
                group,
                child,
                stderr,
                said: VecDeque::new(),
            },
        ))
    }

    /// Keeps the last of what the program says, for as long as it is awaited.
    pub(crate) async fn listen(&mut self) -> Infallible {
        self.hear().await;
        std::future::pending().await
    }

    async fn hear(&mut self) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let mut part = [0; 512];
        while let Ok(count @ 1..) = stderr.read(&mut part).await {
            self.said.extend(&part[..count]);
            let excess = self.said.len().saturating_sub(SAID_MAX);
            self.said.drain(..excess);
        }
        self.stderr = None;
    }

    /// Waits a moment for the program to end by itself, then kills it, and what it has left running in either case; reaps it. Our
    /// end of its connection must be closed before. Returns the last that it said.
    pub(crate) async fn end(self) -> String {
        // Boxed: it is large, and the task of each session that goes on would hold room for it.
        Box::pin(self.end_group()).await
    }

    async fn end_group(mut self) -> String {
        let group = std::mem::replace(&mut self.group, Group(None));
        let leader = group.0;
        let ending = async {
            while leader.is_some_and(is_running) {
                sleep(LOOK).await;
            }
        };
        let listening = async {
            self.hear().await;
            std::future::pending().await
        };
        let _ = timeout(GRACE, async {
            tokio::select! {
                () = ending => {},
                () = listening => {},
            }
        })
        .await;
        drop(group);
        let status = self.child.wait().await;
        // What has left the group may hold on to its standard error: it is not listened to for long.
        let _ = timeout(LAST_WORDS, self.hear()).await;
        let said: Vec<u8> = self.said.into();
        let tail = &said[said.len().saturating_sub(SHOWN_MAX)..];
        let said = one_line_of(tail, SHOWN_MAX);
        debug!(?status, said, "the VNC server's program has ended");
        said
    }
}

/// Whether a child has not ended yet. It is not reaped by looking.
fn is_running(child: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::Pid(child), look), Ok(WaitStatus::StillAlive))
}

/// The program and what it has started, which end with this. To be dropped before the program is reaped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails only where nothing is left to be ended.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}
