//! The status in words: what is the case, why, what the device does about it, and what a person can do.

use std::fmt::Write as _;

use umbra_protocol::refusal::clip;

use super::{Moment, Session, SessionStage, Stage, Status, Way};
use crate::clock;

impl Stage {
    /// The stage as a clause.
    pub fn clause(self) -> &'static str {
        match self {
            Stage::Starting => "The agent is starting",
            Stage::NoIdentity => "This device has no usable identity",
            Stage::NotEnrolled => "No server has taken this device on yet",
            Stage::Enrolling => "A server is being asked to take this device on",
            Stage::ManagementOff => "Remote management is switched off on this device",
            Stage::Connecting => "The agent is connecting to its server",
            Stage::Online => "This device is connected to its server",
            Stage::Waiting => "The server can't be reached at the moment",
            Stage::Refused => "The server refuses this device",
            Stage::Stopping => "The agent is stopping",
        }
    }

    /// What a person can do about it; nothing where there is nothing to do.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Stage::NoIdentity => {
                Some("Run “umbra-agent doctor” to see what is wrong with key and certificate.")
            }
            Stage::NotEnrolled => Some(
                "Ask your administrator for the address, the root fingerprint and a first-authentication key, then run \
                 “umbra-agent setup”, which asks for them, or \
                 “umbra-agent enroll --address HOST --fingerprint P1-P2-P3-P4 --key-file FILE”.",
            ),
            Stage::ManagementOff => Some(
                "Switch it on with “umbra-agent registry set system.remotemanager.allow_remote_management true”.",
            ),
            Stage::Waiting => {
                Some("It tries again by itself. “umbra-agent doctor” says what stands in the way.")
            }
            Stage::Refused => Some(
                "Tell your administrator; the agent tries again seldom until something changes.",
            ),
            Stage::Starting
            | Stage::Enrolling
            | Stage::Connecting
            | Stage::Online
            | Stage::Stopping => None,
        }
    }
}

impl Status {
    /// The whole status in one sentence, for a service manager's line or a notification.
    pub fn sentence(&self) -> String {
        let mut text = self.stage.clause().to_owned();
        if let (Stage::Online, Some(server)) = (self.stage, &self.server) {
            let _ = write!(text, " at {}", server.address);
        }
        if let Some(cause) = &self.cause {
            let _ = write!(text, ": {}", cause.trim_end_matches('.'));
        }
        if let Some(next) = self.next_attempt {
            let _ = write!(text, " (next attempt in {})", span(next.seconds_ahead()));
        }
        text.push('.');
        let running = self
            .sessions
            .iter()
            .filter(|s| s.stage == SessionStage::Running);
        for session in running {
            let _ = write!(text, " {} sees the screen.", clip(session.operator.clone()));
        }
        text
    }

    /// The status for a terminal, several lines.
    pub fn report(&self) -> String {
        let mut text = format!("{}\n", self.sentence());
        let _ = writeln!(text, "  since          {}", ago(self.since));
        text.push_str(&self.facts());
        match self.shadow_port {
            Some(port) => {
                let _ = writeln!(text, "  shadowing      accepted on port {port}");
            }
            None => text.push_str("  shadowing      not accepted at the moment\n"),
        }
        if let Some(advice) = self.stage.advice() {
            let _ = writeln!(text, "{advice}");
        }
        text
    }

    /// What is known about the device, its server and its sessions, one line each.
    pub fn facts(&self) -> String {
        let mut text = String::new();
        if let Some(code) = &self.code {
            let _ = writeln!(text, "  code           {code}");
        }
        if let Some(identity) = &self.identity {
            let _ = writeln!(text, "  unit ID        {}", identity.unit_id);
            let _ = writeln!(text, "  device ID      {}", identity.device_id);
            let _ = writeln!(
                text,
                "  certificate    {}, valid until {}",
                identity.certificate,
                clock::date(identity.not_after)
            );
        }
        if let Some(server) = &self.server {
            let _ = writeln!(text, "  server         {}", server.address);
            if !server.device_name.is_empty() {
                let _ = writeln!(text, "  name there     {}", server.device_name);
            }
        }
        if let Some(connector) = &self.connector {
            let _ = writeln!(text, "  connected by   {connector}");
        }
        for way in &self.ways {
            let _ = writeln!(text, "  way            {}", way_line(way));
        }
        for session in &self.sessions {
            let _ = writeln!(text, "  session        {}", session_line(session));
        }
        for consent in &self.consents {
            let _ = writeln!(
                text,
                "  question       {} asks to see this screen ({} left): “umbra-agent consent accept {}” or “… deny {}”",
                named(&consent.operator, &consent.reason),
                span(consent.until.seconds_ahead()),
                consent.session,
                consent.session,
            );
        }
        if let Some(update) = &self.update {
            let percent = update.percent.map(|percent| format!("{percent} %: "));
            let percent = percent.unwrap_or_default();
            let _ = writeln!(text, "  update         {percent}{}", update.sentence);
        }
        for message in &self.messages {
            let _ = writeln!(
                text,
                "  message        {} ({})",
                message.text,
                ago(message.at)
            );
        }
        for confined in &self.confined {
            let _ = writeln!(
                text,
                "  confinement    {}: {}",
                confined.layer.name(),
                confined.sentence
            );
        }
        for warning in self.warnings.values() {
            let _ = writeln!(text, "  warning        {warning}");
        }
        text
    }
}

fn way_line(way: &Way) -> String {
    let mut line = match way.kind.as_str() {
        "icg" => format!("through the gateway {}", way.address),
        _ => format!("directly to {}", way.address),
    };
    if let Some(proxy) = &way.proxy {
        let _ = write!(line, " by the proxy {proxy}");
    }
    match (&way.trouble, way.in_use) {
        (_, true) => line.push_str(": in use"),
        (Some(trouble), false) => {
            let _ = write!(line, ": {}", clip(trouble.clone()));
        }
        (None, false) => {}
    }
    line
}

fn session_line(session: &Session) -> String {
    let who = named(&session.operator, &session.reason);
    let how = if session.permissions.control {
        "see and operate"
    } else {
        "see"
    };
    match session.stage {
        SessionStage::Announced => {
            format!("{who} is about to {how} this screen [{}]", session.session)
        }
        SessionStage::Asking => format!(
            "{who} waits for permission to {how} this screen [{}]",
            session.session
        ),
        SessionStage::Running => {
            let how = if session.permissions.control {
                "sees and operates"
            } else {
                "sees"
            };
            format!(
                "{who} {how} this screen, {} [{}]",
                ago(session.since),
                session.session
            )
        }
    }
}

/// Both texts come from elsewhere: they are made harmless for a terminal once more, where they are shown.
fn named(operator: &str, reason: &str) -> String {
    let named = if reason.is_empty() {
        operator.to_owned()
    } else {
        format!("{operator} ({reason})")
    };
    clip(named)
}

fn ago(moment: Moment) -> String {
    format!("{} ago", span(moment.seconds_ago()))
}

/// A span of time in the two largest units: `3 h 20 min`.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_why_and_what_happens_next() {
        let mut status = Status::default();
        status.go_because(Stage::Waiting, "10.0.0.1:8443 refuses connections.");
        status.next_attempt = Some(Moment::in_seconds(90));
        let sentence = status.sentence();
        assert!(
            sentence.starts_with("The server can't be reached at the moment: 10.0.0.1:8443 refuses connections (next attempt in 1 min "),
            "{sentence}"
        );
        assert!(status.report().contains("umbra-agent doctor"));
    }

    #[test]
    fn spans_of_time_are_short_and_right() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(61), "1 min 1 s");
        assert_eq!(span(3_600 * 5 + 120), "5 h 2 min");
        assert_eq!(span(86_400 * 3 + 3_600), "3 d 1 h");
    }
}
