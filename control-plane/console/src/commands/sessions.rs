//! Shadowing sessions, past and present: who, what, when, how much, and why they ended.

use std::time::Duration;

use serde_json::json;
use umbra_protocol::api::{SessionInfo, SessionState};
use umbra_protocol::session::Permissions;

use super::Call;
use crate::cli::{SessionsArgs, SessionsCommand};
use crate::failure::Failure;
use crate::table::{Facts, Table};
use crate::text;

pub(super) async fn run(call: &mut Call<'_, '_>, args: SessionsArgs) -> Result<(), Failure> {
    let client = call.client()?;
    match args.command {
        None => {
            let reply = client.sessions(args.device.as_deref(), args.limit).await?;
            if call.json {
                return call.write_json(&reply.json);
            }
            let table = table(&reply.value, call.now());
            if table.is_empty() {
                return call.write(|out| writeln!(out, "There are no sessions."));
            }
            call.write(|out| table.write(out))
        }
        Some(_) if args.device.is_some() || args.limit.is_some() => Err(Failure::Usage(
            "--device and --limit belong to the list of sessions".to_owned(),
        )),
        Some(SessionsCommand::Show { id }) => {
            let reply = client.session(id).await?;
            if call.json {
                return call.write_json(&reply.json);
            }
            let facts = facts(&reply.value, call.now());
            call.write(|out| facts.write(out))
        }
        Some(SessionsCommand::End { id }) => {
            client.end_session(id).await?;
            call.say(
                &format!("The device is told to end the session {id}."),
                &json!({"ending": id}),
            )
        }
    }
}

fn table(sessions: &[SessionInfo], now: i64) -> Table {
    let mut table = Table::new(&[
        "SESSION", "DEVICE", "OPERATOR", "STATE", "ASKED", "LENGTH", "DATA", "REASON", "END",
    ]);
    for session in sessions {
        table.row([
            &session.session.to_string(),
            &session.device_name,
            &session.user,
            state_name(session.state),
            &text::relative(session.created_at, now),
            &session.duration_ms.map(length).unwrap_or_default(),
            &data(session),
            &session.reason,
            session.end_sentence.as_deref().unwrap_or_default(),
        ]);
    }
    table
}

fn facts(session: &SessionInfo, now: i64) -> Facts {
    let mut facts = Facts::new();
    facts.add("Session", session.session.to_string());
    facts.add(
        "Device",
        format!("{} ({})", session.device_name, session.device),
    );
    facts.add("Operator", &session.user);
    facts.add("Reason", &session.reason);
    facts.add("May", may(session.permissions));
    facts.add("State", state_name(session.state));
    facts.add("Asked for", text::moment(session.created_at, now));
    facts.add_some("Began", session.started_at.map(|at| text::moment(at, now)));
    facts.add_some("Ended", session.ended_at.map(|at| text::moment(at, now)));
    facts.add_some("Length", session.duration_ms.map(length));
    facts.add_some("To the device", session.bytes_to_device.map(text::amount));
    facts.add_some("To the viewer", session.bytes_to_console.map(text::amount));
    facts.add_some("End", session.end_sentence.as_deref());
    facts.add_some("Code", session.end_code.as_deref());
    facts
}

fn length(milliseconds: u64) -> String {
    text::span(Duration::from_millis(milliseconds))
}

fn data(session: &SessionInfo) -> String {
    match (session.bytes_to_device, session.bytes_to_console) {
        (None, None) => String::new(),
        (to, from) => text::amount(to.unwrap_or(0).saturating_add(from.unwrap_or(0))),
    }
}

fn may(permissions: Permissions) -> &'static str {
    match (permissions.control, permissions.clipboard) {
        (true, true) => "see, operate, use the clipboard",
        (true, false) => "see and operate",
        (false, true) => "see, use the clipboard",
        (false, false) => "see",
    }
}

fn state_name(state: SessionState) -> &'static str {
    match state {
        SessionState::Offered => "offered",
        SessionState::Allowed => "allowed",
        SessionState::Running => "running",
        SessionState::Ended => "ended",
        SessionState::Refused => "refused",
    }
}
