//! The program that asks the person at the device. It gets what it needs in its environment, nothing of it passes through a shell,
//! and it is ended with the question.

use std::process::Stdio;

use tokio::process::Command;
use tracing::warn;
use umbra_protocol::refusal::clip;
use umbra_protocol::session::SessionRequest;

use super::machine::Consent;
use crate::registry::Snapshot;

/// Runs the program and takes its exit code for an answer: 0 is yes, 1 is no, anything else means that nobody is there.
/// Dropping the future ends the program.
pub(super) async fn ask(snapshot: &Snapshot, request: &SessionRequest) -> Consent {
    let Some((program, arguments)) = snapshot.consent.program.split_first() else {
        return Consent::Nobody;
    };
    let permission = if request.permissions.control {
        "control"
    } else {
        "view"
    };
    let started = Command::new(program)
        .args(arguments)
        .envs(
            snapshot
                .vnc
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .env("UMBRA_OPERATOR", clip(request.operator.clone()))
        .env("UMBRA_REASON", clip(request.reason.clone()))
        .env("UMBRA_SESSION", request.session.to_string())
        .env("UMBRA_PERMISSION", permission)
        .env(
            "UMBRA_TIMEOUT",
            snapshot.consent.timeout.as_secs().to_string(),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let ended = match started {
        Ok(mut child) => child.wait().await,
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
