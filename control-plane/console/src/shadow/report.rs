//! What is said when a session is over: why, how long, how much. The device knows more than the closed connection tells,
//! so its record at the server is asked for where it matters.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use umbra_protocol::SessionId;
use umbra_protocol::api::{SessionInfo, SessionState};
use umbra_vnc_proxy::{EndReason, Outcome};

use super::pause;
use crate::api::Client;
use crate::failure::Exit;
use crate::text::{amount, printable, span};

/// How long the device's record is waited for.
const RECORD: Duration = Duration::from_secs(3);

/// The end, for a person, for a script, and for whoever started the program.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) sentence: String,
    pub(super) json: Value,
    pub(super) exit: Exit,
}

/// The report of a session that began.
pub(super) async fn of(
    outcome: &Outcome,
    session: SessionId,
    device: &str,
    client: &Client,
) -> Report {
    let record = match outcome.reason {
        // The device closed, and only it knows for whom.
        EndReason::DeviceClosed | EndReason::PeerVanished => record(session, client).await,
        EndReason::ViewerClosed
        | EndReason::VncServerClosed
        | EndReason::VncServerLost(_)
        | EndReason::IdleLimit
        | EndReason::TotalLimit
        | EndReason::Stopped(_)
        | EndReason::InputViolation(_)
        | EndReason::ViewerMisbehaved(_)
        | EndReason::ViewerSilent
        | EndReason::Upstream(_)
        | EndReason::Refused { .. } => None,
    };
    write(outcome, session, device, record)
}

/// The code and the sentence of the device's record, if it reaches the server in time.
async fn record(session: SessionId, client: &Client) -> Option<(String, String)> {
    let end = Instant::now() + RECORD;
    loop {
        let looked: Option<SessionInfo> = timeout_at(end, client.session(session))
            .await
            .ok()?
            .ok()
            .map(|reply| reply.value);
        if let Some(info) = looked.filter(|info| info.state == SessionState::Ended) {
            return Some((info.end_code?, info.end_sentence?));
        }
        if !pause(end).await {
            return None;
        }
    }
}

fn write(
    outcome: &Outcome,
    session: SessionId,
    device: &str,
    record: Option<(String, String)>,
) -> Report {
    let (code, why) = match (record, &outcome.reason) {
        (Some(record), _) => record,
        (None, EndReason::Stopped(_)) => (
            "interrupted".to_owned(),
            "You ended the session.".to_owned(),
        ),
        (None, reason) => (reason.code().to_owned(), reason.for_operator()),
    };
    let (to_device, to_viewer) = (outcome.bytes_to_device, outcome.bytes_to_console);
    let sentence = format!(
        "{device}: {} It lasted {}; {} came from the device, {} went to it.",
        printable(&why),
        span(outcome.duration),
        amount(to_viewer),
        amount(to_device)
    );
    let json = json!({
        "event": "ended",
        "session": session,
        "code": code,
        "sentence": why,
        "duration_ms": u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
        "bytes_to_device": to_device,
        "bytes_to_console": to_viewer,
    });
    Report {
        sentence,
        json,
        exit: if in_order(&code) {
            Exit::Done
        } else {
            Exit::Failed
        },
    }
}

/// Whether somebody wanted this end, or a rule did.
fn in_order(code: &str) -> bool {
    matches!(
        code,
        "viewer_closed"
            | "device_closed"
            | "vnc_server_closed"
            | "idle_limit"
            | "total_limit"
            | "interrupted"
    ) || code.starts_with("ended_by_")
}

#[cfg(test)]
mod tests {
    use umbra_vnc_proxy::StopCause;

    use super::*;

    fn outcome(reason: EndReason) -> Outcome {
        Outcome {
            reason,
            bytes_to_device: 812,
            bytes_to_console: 3_500,
            duration: Duration::from_secs(200),
        }
    }

    #[test]
    fn the_end_says_why_how_long_and_how_much() {
        let session = SessionId::from_bytes([1; 16]);
        let report = write(&outcome(EndReason::ViewerClosed), session, "till-5", None);
        assert_eq!(
            report.sentence,
            "till-5: The viewer closed the session. It lasted 3 min 20 s; 3.4 KiB came from the device, 812 bytes went to it."
        );
        assert_eq!(report.exit, Exit::Done);
        assert_eq!(report.json["code"], "viewer_closed");
        assert_eq!(report.json["bytes_to_console"], 3_500);
    }

    #[test]
    fn the_devices_record_goes_before_what_the_connection_told() {
        let session = SessionId::from_bytes([1; 16]);
        let record = (
            "ended_by_user".to_owned(),
            "The person at the device\u{7} ended the session.".to_owned(),
        );
        let report = write(
            &outcome(EndReason::DeviceClosed),
            session,
            "till-5",
            Some(record),
        );
        assert!(
            report
                .sentence
                .contains("The person at the device\\u{7} ended"),
            "{}",
            report.sentence
        );
        assert_eq!(
            (report.json["code"].as_str(), report.exit),
            (Some("ended_by_user"), Exit::Done)
        );
    }

    #[test]
    fn only_an_end_that_somebody_wanted_is_a_success() {
        let session = SessionId::from_bytes([1; 16]);
        for (reason, exit) in [
            (EndReason::PeerVanished, Exit::Failed),
            (
                EndReason::VncServerLost(std::io::ErrorKind::ConnectionReset.into()),
                Exit::Failed,
            ),
            (EndReason::DeviceClosed, Exit::Done),
            (EndReason::Stopped(StopCause::Shutdown), Exit::Done),
        ] {
            assert_eq!(write(&outcome(reason), session, "d", None).exit, exit);
        }
    }
}
