//! What is given up can't be had back, so each case happens in a process of its own: this program, started again for one test.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::*;
use crate::registry::Registry;

/// Names the folder of the device to the process that confines itself.
const DEVICE: &str = "UMBRA_TEST_CONFINED_DEVICE";

fn plan_with(parameters: &str) -> Plan {
    let root = tempfile::tempdir().expect("a folder");
    let paths = Paths::new(root.path());
    std::fs::create_dir_all(paths.kept()).expect("made");
    std::fs::write(paths.registry(), parameters).expect("written");
    Plan::derive(&Registry::open_quietly(&paths).snapshot(), &paths)
}

const PORT: &str = "umbra.vncserver.upstream = \"tcp:127.0.0.1:5901\"\n";

#[test]
fn what_is_given_up_follows_from_the_programs_that_are_configured() {
    assert_eq!(plan_with(PORT).starts, Starts::Nothing);
    assert_eq!(
        plan_with("umbra.vncserver.upstream = \"spawn\"\n").starts,
        Starts::Programs
    );
    for name in [
        "umbra.consent.program",
        "umbra.indicator.program",
        "umbra.message.program",
    ] {
        let plan = plan_with(&format!("{PORT}{name} = [\"/usr/bin/ask\"]\n"));
        assert_eq!(plan.starts, Starts::Programs, "{name}");
    }
    for name in [
        "umbra.update.command",
        "umbra.power.reboot_command",
        "umbra.power.shutdown_command",
    ] {
        let plan = plan_with(&format!("{PORT}{name} = [\"/usr/bin/rauc\"]\n"));
        assert_eq!(plan.starts, Starts::System, "{name}");
    }
}

#[test]
fn an_agent_that_starts_nothing_writes_only_to_its_own_folders() {
    let root = tempfile::tempdir().expect("a folder");
    let paths = Paths::new(root.path());
    std::fs::create_dir_all(paths.kept()).expect("made");
    std::fs::write(paths.registry(), PORT).expect("written");
    let plan = Plan::derive(&Registry::open_quietly(&paths).snapshot(), &paths);
    assert_eq!(
        plan.written,
        ["wfs", "run/umbra", "wfs/umbra"].map(|folder| root.path().join(folder))
    );
    assert!(!plan.read.contains(&PathBuf::from("/")), "{plan:?}");
}

#[test]
fn files_that_parameters_name_can_be_read_and_what_is_named_later_does_not_fit() {
    let named = plan_with(&format!(
        "{PORT}umbra.proxy.ca_file = \"/opt/roots/proxy.pem\"\n"
    ));
    assert!(
        named.read.contains(&PathBuf::from("/opt/roots")),
        "{named:?}"
    );
    let before = Plan {
        read: vec!["/etc".into()],
        ..named.clone()
    };
    let inside = Plan {
        read: vec!["/etc/roots".into()],
        ..named.clone()
    };
    assert!(inside.fits_in(&before) && !named.fits_in(&before));
    let programs = Plan {
        starts: Starts::Programs,
        ..before.clone()
    };
    assert!(!programs.fits_in(&before) && before.fits_in(&programs));
}

/// Runs the test of this name once more, in a process that may lose everything; returns what it said.
fn alone(test: &str, parameters: &str) -> String {
    let root = tempfile::tempdir().expect("a folder");
    let paths = Paths::new(root.path());
    for folder in [paths.kept(), paths.run(), root.path().join("elsewhere")] {
        std::fs::create_dir_all(folder).expect("made");
    }
    std::fs::write(paths.registry(), parameters).expect("written");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DEVICE, root.path())
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// One line per thing that was tried.
fn tried(what: &str, outcome: Result<(), impl std::fmt::Display>) {
    let mut out = std::io::stdout().lock();
    match outcome {
        Ok(()) => writeln!(out, "=={what}: done"),
        Err(error) => writeln!(out, "=={what}: {error}"),
    }
    .expect("written");
}

#[test]
#[ignore = "confines its process for good: started by the tests below"]
fn the_confined_process() {
    let root = PathBuf::from(std::env::var_os(DEVICE).expect("a device"));
    let paths = Paths::new(&root);
    let plan = Plan::derive(&Registry::open_quietly(&paths).snapshot(), &paths);
    for confined in plan.apply() {
        let hold = serde_json::to_string(&confined.hold).expect("JSON");
        tried(
            &format!("{} {hold}", confined.layer.name()),
            Ok::<(), String>(()),
        );
    }
    let write = |path: PathBuf| std::fs::write(path, "text");
    tried("write own", write(paths.kept().join("file")));
    tried(
        "rename own",
        std::fs::rename(
            paths.kept().join("file"),
            paths.state_partition().join("file"),
        ),
    );
    tried("write elsewhere", write(root.join("elsewhere/file")));
    tried("read hosts", std::fs::read("/etc/hosts").map(drop));
    tried("list the root's home", std::fs::read_dir("/root").map(drop));
    tried("run", Command::new("/bin/true").status().map(drop));
    tried("thread", std::thread::Builder::new().spawn(|| ()).map(drop));
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        None,
    );
    tried("packet socket", raw.map(drop));
    let listener = TcpListener::bind("127.0.0.1:0");
    let spoken = listener.and_then(|listener| TcpStream::connect(listener.local_addr()?));
    tried("speak", spoken.map(drop));
    tried("pair", UnixStream::pair().map(drop));
    let ptraced = nix::sys::ptrace::traceme();
    tried("trace", ptraced.map_err(|error| error.desc()));
}

#[track_caller]
fn says(said: &str, line: &str) {
    assert!(
        said.lines().any(|l| l.contains(line)),
        "no “{line}” in:\n{said}"
    );
}

#[test]
fn a_confined_agent_works_and_can_do_nothing_else() {
    let said = alone("confine::tests::the_confined_process", PORT);
    for done in [
        "write own",
        "rename own",
        "read hosts",
        "thread",
        "speak",
        "pair",
    ] {
        says(&said, &format!("=={done}: done"));
    }
    says(&said, "==new privileges \"full\"");
    says(&said, "==system calls \"full\"");
    says(&said, "==write elsewhere: Permission denied");
    says(&said, "==list the root's home: Permission denied");
    says(&said, "==run: Function not implemented");
    says(&said, "==packet socket: ENOSYS");
    says(&said, "==trace: Function not implemented");
}

#[test]
fn programs_that_are_configured_can_still_be_run() {
    let said = alone(
        "confine::tests::the_confined_process",
        "umbra.vncserver.upstream = \"spawn\"\n",
    );
    for done in ["write own", "read hosts", "run", "thread", "speak", "pair"] {
        says(&said, &format!("=={done}: done"));
    }
    says(&said, "==system calls \"part\"");
    says(&said, "==trace: Operation not permitted");
}
