//! Whether the agent runs and answers on its control socket.

use super::{Check, Verdict};
use crate::control::client::{ANSWER_DEADLINE, Client, ClientError};
use crate::control::{Request, Response};
use crate::paths::Paths;
use crate::status::{Stage, Status};

const ID: &str = "agent";

pub(super) async fn check(paths: &Paths) -> (Check, Option<Status>) {
    let asked = async {
        let mut client = Client::connect(paths).await?;
        client.ask(&Request::Status {}, ANSWER_DEADLINE).await
    };
    match asked.await {
        Ok(Response::Status(status)) => {
            let verdict = match status.stage {
                Stage::Starting | Stage::Enrolling | Stage::Connecting | Stage::Online => {
                    Verdict::Good
                }
                Stage::NotEnrolled | Stage::ManagementOff | Stage::Waiting | Stage::Stopping => {
                    Verdict::Warning
                }
                Stage::NoIdentity | Stage::Refused => Verdict::Bad,
            };
            let mut check = Check::new(ID, verdict, status.sentence());
            check.advice = status
                .stage
                .advice()
                .filter(|_| verdict != Verdict::Good)
                .map(str::to_owned);
            (check, Some(*status))
        }
        Ok(Response::Failed(failure)) => {
            (Check::bad(ID, failure.sentence, "Restart the agent."), None)
        }
        Ok(Response::Registry { .. } | Response::Done { .. }) => (
            Check::bad(
                ID,
                "The agent answers with something else than was asked.",
                "Update agent and command line.",
            ),
            None,
        ),
        Err(error @ ClientError::NotRunning { .. }) => (
            Check::bad(
                ID,
                format!("{error}."),
                "Until then this device can't be shadowed.",
            ),
            None,
        ),
        Err(error) => (
            Check::bad(
                ID,
                super::chain(&error),
                "Look into “journalctl -u umbra-agent”.",
            ),
            None,
        ),
    }
}
