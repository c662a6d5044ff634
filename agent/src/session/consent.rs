//! The program that asks the person at the device. It gets what it needs in its environment and nothing of ours, nothing of it
//! passes through a shell, and it is ended with the question, together with all that it has started.

use std::process::Stdio;

use tokio::process::Command;
use tracing::warn;
use umbra_protocol::refusal::clip;
use umbra_protocol::session::SessionRequest;

use super::machine::Consent;
use crate::commands::program::{Group, PATH};
use crate::registry::Snapshot;

/// Runs the program and takes its exit code for an answer: 0 is yes, 1 is no, anything else means that nobody is there.
/// Dropping the future ends the program and what it has started.
pub(super) async fn ask(snapshot: &Snapshot, request: &SessionRequest) -> Consent {
    let permission = if request.permissions.control {
        "control"
    } else {
        "view"
    };
    let mut environment = snapshot.vnc.environment.clone();
    for (name, value) in [
        ("UMBRA_OPERATOR", clip(request.operator.clone())),
        ("UMBRA_REASON", clip(request.reason.clone())),
        ("UMBRA_SESSION", request.session.to_string()),
        ("UMBRA_PERMISSION", permission.to_owned()),
        (
            "UMBRA_TIMEOUT",
            snapshot.consent.timeout.as_secs().to_string(),
        ),
    ] {
        environment.push((name.to_owned(), value));
    }
    run(&snapshot.consent.program, environment).await
}

async fn run(command: &[String], environment: Vec<(String, String)>) -> Consent {
    let Some((program, arguments)) = command.split_first() else {
        return Consent::Nobody;
    };
    let started = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that what it has started can be ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let ended = match started {
        Ok(mut child) => {
            let group = Group::of(&child);
            let ended = child.wait().await;
            group.forget();
            ended
        }
        Err(error) => {
            warn!(%error, program, "the program that asks for consent can't be started");
            return Consent::Nobody;
        }
    };
    match ended.map(|status| status.code()) {
        Ok(Some(0)) => Consent::Accepted,
        Ok(Some(1)) => Consent::Denied,
        Ok(Some(_) | None) => Consent::Nobody,
        Err(error) => {
            warn!(%error, program, "the program that asks for consent got lost");
            Consent::Nobody
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use umbra_protocol::SessionId;
    use umbra_protocol::session::Permissions;

    use super::*;
    use crate::paths::Paths;
    use crate::registry::Registry;

    fn snapshot(script: &str) -> Snapshot {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = Registry::open_quietly(&Paths::new(folder.path()));
        let mut snapshot = (*registry.snapshot()).clone();
        snapshot.consent.program = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        snapshot.vnc.environment = vec![("DISPLAY".to_owned(), ":7".to_owned())];
        snapshot
    }

    fn request() -> SessionRequest {
        SessionRequest {
            session: SessionId::from_bytes([1; 16]),
            operator: "Ada".into(),
            reason: "Printer; $(reboot)".into(),
            permissions: Permissions {
                control: false,
                clipboard: false,
            },
        }
    }

    #[tokio::test]
    async fn the_program_is_told_what_it_needs_and_gets_nothing_of_our_environment() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let script = "[ \"$DISPLAY,$UMBRA_OPERATOR,$UMBRA_PERMISSION,$UMBRA_REASON\" = ':7,Ada,view,Printer; $(reboot)' ] \
                      && [ -n \"$UMBRA_SESSION\" ] && [ -n \"$UMBRA_TIMEOUT\" ] && [ \"$(pwd)\" = / ] \
                      && [ -z \"$CARGO_MANIFEST_DIR$HOME\" ] && command -v sleep >/dev/null || exit 7";
        assert_eq!(ask(&snapshot(script), &request()).await, Consent::Accepted);
    }

    #[tokio::test]
    async fn yes_no_and_everything_else_are_told_apart() {
        for (script, expected) in [
            ("exit 0", Consent::Accepted),
            ("exit 1", Consent::Denied),
            ("exit 2", Consent::Nobody),
            ("kill -9 $$", Consent::Nobody),
        ] {
            assert_eq!(ask(&snapshot(script), &request()).await, expected);
        }
        let mut missing = snapshot("");
        missing.consent.program = vec!["/nowhere/ask".to_owned()];
        assert_eq!(ask(&missing, &request()).await, Consent::Nobody);
    }

    #[tokio::test]
    async fn a_question_that_is_over_takes_along_all_that_its_program_has_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let child = folder.path().join("child");
        let script = format!("sleep 1000 & echo $! > {}; wait", child.display());
        let (snapshot, request) = (snapshot(&script), request());
        let mut asking = Box::pin(ask(&snapshot, &request));
        let patience = Duration::from_secs(20);
        let started = async {
            loop {
                let said = std::fs::read_to_string(&child).unwrap_or_default();
                if said.ends_with('\n') {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let id = tokio::select! {
            _ = &mut asking => panic!("nobody has answered"),
            id = tokio::time::timeout(patience, started) => id.expect("it was started"),
        };
        drop(asking);
        let stat = format!("/proc/{}/stat", id.trim());
        let gone = async {
            // A zombie that nobody has reaped yet has ended all the same.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(patience, gone)
            .await
            .expect("it was ended");
    }
}
