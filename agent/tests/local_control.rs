//! The program itself, seen from another user of the device: who may look, and who may not change anything.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use umbra_agent::exit::Exit;

/// `nobody`, on every system.
const STRANGER: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    child: Child,
    root: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        open(root.path());
        let child = umbra_agent(root.path(), &["run"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent starts");
        let running = Self { child, root };
        let until = Instant::now() + PATIENCE;
        while running.ask(&["status"]).status.code() != Some(0) {
            assert!(Instant::now() < until, "the agent never answered");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        umbra_agent(self.root.path(), arguments)
            .output()
            .expect("the program runs")
    }

    fn ask_as_stranger(&self, arguments: &[&str]) -> Output {
        let mut command = umbra_agent(self.root.path(), arguments);
        command
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .expect("the program runs")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn umbra_agent(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra-agent"));
    command.arg("--root").arg(root).args(arguments);
    command
}

/// Temporary folders are closed to others; a device's root is not.
fn open(folder: &Path) {
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("opened");
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn is(output: &Output, exit: Exit) -> bool {
    code(output) == Some(i32::from(exit.number()))
}

#[test]
fn another_user_sees_the_status_and_changes_nothing() {
    if !nix::unistd::Uid::effective().is_root() {
        // Only root can be two users.
        return;
    }
    let agent = Running::start();
    let status = agent.ask_as_stranger(&["status"]);
    assert!(is(&status, Exit::Ok), "{status:?}");
    let list = agent.ask_as_stranger(&["registry", "list"]);
    assert!(is(&list, Exit::Ok), "{list:?}");
    for change in [
        &["registry", "set", "umbra.control.group", "nogroup"][..],
        &["registry", "reset", "umbra.control.group"],
        &["leave"],
    ] {
        let refused = agent.ask_as_stranger(change);
        assert!(is(&refused, Exit::Permission), "{change:?}: {refused:?}");
    }
    let key = agent.root.path().join("wfs/umbra/device.key");
    let read = Command::new("/bin/cat")
        .arg(&key)
        .uid(STRANGER)
        .gid(STRANGER)
        .output()
        .expect("cat runs");
    assert!(
        !read.status.success() && read.stdout.is_empty(),
        "another user read the key"
    );
    // The same request counts once root has named the group.
    let group =
        nix::unistd::Group::from_gid(STRANGER.into()).expect("the list of groups can be read");
    let Some(group) = group else { return };
    assert!(is(
        &agent.ask(&["registry", "set", "umbra.control.group", &group.name]),
        Exit::Ok
    ));
    let allowed = agent.ask_as_stranger(&["registry", "set", "network.vncserver.port", "0"]);
    assert!(is(&allowed, Exit::Ok), "{allowed:?}");
}

#[test]
fn a_second_agent_on_the_same_device_is_refused_and_the_first_one_stays() {
    let agent = Running::start();
    let second = agent.ask(&["run"]);
    assert!(is(&second, Exit::Unavailable), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another umbra-agent is running"), "{said}");
    assert!(is(&agent.ask(&["status"]), Exit::Ok));
}

#[test]
fn the_agent_ends_in_order_when_it_is_told_to() {
    let mut agent = Running::start();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.child.id()).expect("a process ID"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("sent");
    assert!(
        is(&agent.ask(&["status"]), Exit::Ok),
        "SIGHUP ended the agent"
    );
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("sent");
    let until = Instant::now() + PATIENCE;
    let ended = loop {
        match agent.child.try_wait().expect("it can be waited for") {
            Some(status) => break status,
            None if Instant::now() > until => panic!("it never ended"),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(ended.code(), Some(0));
    assert!(!agent.root.path().join("run/umbra/agent.sock").exists());
}
