//! Whether the program that shows the person who sees the screen has to run, and what it is told, as a pure machine. It never ends a
//! session by itself: that a program fails is told, and the program is started again.

use std::time::Duration;

use serde::Serialize;
use umbra_protocol::SessionId;

use crate::registry::Indicator;

/// Time as the machine sees it: since some fixed moment, never jumping.
pub type Moment = Duration;

/// How long the program has to run before what was said about its failures is taken back.
pub const STEADY: Duration = Duration::from_secs(10);
/// The first pause after a failure, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A session that is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Which session.
    pub id: SessionId,
    /// Display name of the operator.
    pub operator: String,
    /// Why, as the operator said it.
    pub reason: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// What the program reads at every change, as one line.
#[derive(Serialize)]
struct Line<'l> {
    sessions: &'l [Shown],
    position: &'l str,
    disconnect: bool,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These sessions are visible now; and whether somebody waits for the program before a session may be.
    Wanted {
        /// All of them.
        sessions: Vec<Shown>,
        /// Whether somebody waits.
        awaited: bool,
    },
    /// The parameters.
    Settings(Indicator),
    /// The program runs.
    Started,
    /// The program has failed, or could not be started: how.
    Failed(String),
    /// A line of the program's.
    Said(String),
    /// Time has passed.
    Tick,
}

/// What shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start this program.
    Start(Vec<String>),
    /// Tell the program this, with a line ending.
    Tell(String),
    /// End the program.
    Stop,
    /// The person wants this session to end.
    End(SessionId),
    /// What people are to know about it; nothing when all is well.
    Warn(Option<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Starting { failures: u32 },
    Running { since: Moment, failures: u32 },
    Pausing { until: Moment, failures: u32 },
}

/// The indicator.
#[derive(Debug)]
pub struct Machine {
    settings: Indicator,
    sessions: Vec<Shown>,
    awaited: bool,
    state: State,
    told: String,
    warned: bool,
}

impl Machine {
    /// Nobody is there yet.
    pub fn new(settings: Indicator) -> Self {
        Self {
            settings,
            sessions: Vec::new(),
            awaited: false,
            state: State::Idle,
            told: String::new(),
            warned: false,
        }
    }

    /// Whether the program runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        match self.state {
            State::Pausing { until, .. } => Some(until),
            State::Running { since, .. } if self.warned => Some(since + STEADY),
            State::Idle | State::Starting { .. } | State::Running { .. } => None,
        }
    }

    /// Takes what happened; returns what shall be done, in this order. What does not fit the state changes nothing.
    pub fn handle(&mut self, input: Input, now: Moment) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Wanted { sessions, awaited } => {
                self.take(sessions);
                self.awaited = awaited;
            }
            Input::Settings(settings) => self.set(settings, &mut outputs),
            Input::Started => {
                if let State::Starting { failures } = self.state {
                    self.state = State::Running {
                        since: now,
                        failures,
                    };
                    self.told.clear();
                }
            }
            Input::Failed(how) => self.failed(&how, now, &mut outputs),
            Input::Said(line) => outputs.extend(self.said(&line)),
            Input::Tick => self.tick(now, &mut outputs),
        }
        self.settle(&mut outputs);
        outputs
    }

    fn take(&mut self, mut sessions: Vec<Shown>) {
        // A clock that is set meanwhile makes no session begin anew.
        for session in &mut sessions {
            if let Some(known) = self.sessions.iter().find(|known| known.id == session.id) {
                session.since = known.since;
            }
        }
        self.sessions = sessions;
    }

    fn set(&mut self, settings: Indicator, outputs: &mut Vec<Output>) {
        let another = settings.program != self.settings.program;
        self.settings = settings;
        if !another {
            return;
        }
        if self.is_running() {
            outputs.push(Output::Stop);
        }
        self.state = State::Idle;
        if std::mem::take(&mut self.warned) {
            outputs.push(Output::Warn(None));
        }
    }

    fn failed(&mut self, how: &str, now: Moment, outputs: &mut Vec<Output>) {
        let failures = match self.state {
            State::Starting { failures } => failures,
            State::Running { since, .. } if now >= since + STEADY => 0,
            State::Running { failures, .. } => failures,
            State::Idle | State::Pausing { .. } => return,
        };
        let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
        self.state = State::Pausing {
            until: now + pause,
            failures: failures + 1,
        };
        self.warned = true;
        outputs.push(Output::Warn(Some(format!(
            "The program that shows who sees the screen has failed ({how}). It is started again as long as there are \
             sessions; look at umbra.indicator.program."
        ))));
    }

    fn said(&self, line: &str) -> Option<Output> {
        let session: SessionId = line.trim().strip_prefix("disconnect ")?.parse().ok()?;
        let known = self.sessions.iter().any(|shown| shown.id == session);
        (known && self.settings.disconnect && self.is_running()).then_some(Output::End(session))
    }

    fn tick(&mut self, now: Moment, outputs: &mut Vec<Output>) {
        match &mut self.state {
            State::Pausing { until, failures } if *until <= now => {
                self.state = State::Starting {
                    failures: *failures,
                };
                outputs.push(Output::Start(self.settings.program.clone()));
            }
            State::Running { since, failures } if *since + STEADY <= now => {
                *failures = 0;
                if std::mem::take(&mut self.warned) {
                    outputs.push(Output::Warn(None));
                }
            }
            State::Idle
            | State::Starting { .. }
            | State::Pausing { .. }
            | State::Running { .. } => {}
        }
    }

    fn settle(&mut self, outputs: &mut Vec<Output>) {
        let wanted = self.settings.shown
            && !self.settings.program.is_empty()
            && (self.awaited || !self.sessions.is_empty());
        match self.state {
            State::Idle if wanted => {
                self.state = State::Starting { failures: 0 };
                outputs.push(Output::Start(self.settings.program.clone()));
            }
            State::Running { .. } if !wanted => {
                self.state = State::Idle;
                outputs.push(Output::Stop);
            }
            State::Pausing { .. } if !wanted => self.state = State::Idle,
            State::Running { .. } => {
                let line = self.line();
                if line != self.told {
                    outputs.push(Output::Tell(line.clone()));
                    self.told = line;
                }
            }
            State::Idle | State::Starting { .. } | State::Pausing { .. } => {}
        }
    }

    fn line(&self) -> String {
        serde_json::to_string(&Line {
            sessions: &self.sessions,
            position: &self.settings.position,
            disconnect: self.settings.disconnect,
        })
        .expect("nothing in it that JSON cannot say")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Indicator {
        Indicator {
            shown: true,
            disconnect: true,
            position: "bottom-right".into(),
            program: vec!["/usr/bin/indicator".into()],
            required: false,
        }
    }

    fn shown(number: u8) -> Shown {
        Shown {
            id: SessionId::from_bytes([number; 16]),
            operator: "Anna".into(),
            reason: "Till; $(reboot)".into(),
            since: 1_000,
        }
    }

    fn wanted(numbers: &[u8]) -> Input {
        Input::Wanted {
            sessions: numbers.iter().copied().map(shown).collect(),
            awaited: false,
        }
    }

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn started(outputs: &[Output]) -> bool {
        matches!(outputs, [.., Output::Start(program)] if program == &settings().program)
    }

    fn running() -> Machine {
        let mut machine = Machine::new(settings());
        assert!(started(&machine.handle(wanted(&[1]), at(0))));
        machine.handle(Input::Started, at(0));
        machine
    }

    #[test]
    fn it_runs_from_the_first_visible_session_to_the_last_and_is_told_every_change_once() {
        let mut machine = Machine::new(settings());
        assert_eq!(machine.handle(wanted(&[]), at(0)), []);
        assert!(started(&machine.handle(wanted(&[1]), at(1))));
        let id = "01".repeat(16);
        let line = format!(
            r#"{{"sessions":[{{"id":"{id}","operator":"Anna","reason":"Till; $(reboot)","since":1000}}],"position":"bottom-right","disconnect":true}}"#
        );
        assert_eq!(machine.handle(Input::Started, at(1)), [Output::Tell(line)]);
        assert_eq!(machine.handle(wanted(&[1]), at(2)), []);
        let mut later = shown(1);
        later.since = 2_000;
        let again = Input::Wanted {
            sessions: vec![later],
            awaited: false,
        };
        assert_eq!(machine.handle(again, at(2)), [], "the clock was set");
        let told = machine.handle(wanted(&[1, 2]), at(3));
        assert!(matches!(&told[..], [Output::Tell(line)] if line.contains(&"02".repeat(16))));
        assert_eq!(machine.handle(wanted(&[]), at(4)), [Output::Stop]);
        assert_eq!(machine.next_deadline(), None);
    }

    #[test]
    fn who_waits_for_it_has_it_started_before_there_is_a_session() {
        let mut machine = Machine::new(settings());
        let awaited = Input::Wanted {
            sessions: Vec::new(),
            awaited: true,
        };
        assert!(started(&machine.handle(awaited, at(0))));
        assert!(!machine.is_running());
        machine.handle(Input::Started, at(0));
        assert!(machine.is_running());
    }

    #[test]
    fn without_a_program_or_where_it_is_not_wanted_nothing_is_started() {
        for settings in [
            Indicator {
                shown: false,
                ..settings()
            },
            Indicator {
                program: Vec::new(),
                ..settings()
            },
        ] {
            assert_eq!(Machine::new(settings).handle(wanted(&[1]), at(0)), []);
        }
    }

    #[test]
    fn a_program_that_fails_is_started_again_ever_later_and_people_are_told_until_it_holds() {
        let mut machine = running();
        let mut now = at(0);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            let outputs = machine.handle(Input::Failed("exit status 1".into()), now);
            assert!(
                matches!(&outputs[..], [Output::Warn(Some(sentence))] if sentence.contains("exit status 1")),
                "{outputs:?}"
            );
            assert!(!machine.is_running());
            assert_eq!(machine.next_deadline(), Some(now + at(pause)));
            now += at(pause);
            assert!(started(&machine.handle(Input::Tick, now)));
            machine.handle(Input::Started, now);
        }
        assert_eq!(machine.next_deadline(), Some(now + STEADY));
        let outputs = machine.handle(Input::Tick, now + STEADY);
        assert_eq!(outputs, [Output::Warn(None)]);
        assert_eq!(machine.next_deadline(), None);
        let later = now + at(100);
        machine.handle(Input::Failed("signal 9".into()), later);
        assert_eq!(
            machine.next_deadline(),
            Some(later + at(1)),
            "it had held: from the start"
        );
    }

    #[test]
    fn a_program_that_fails_is_not_started_again_without_a_session() {
        let mut machine = running();
        machine.handle(Input::Failed("signal 9".into()), at(1));
        machine.handle(wanted(&[]), at(1));
        assert_eq!(machine.next_deadline(), None);
        assert_eq!(machine.handle(Input::Tick, at(100)), []);
    }

    #[test]
    fn only_a_whole_line_about_a_visible_session_ends_it_and_only_where_the_person_may() {
        let said = |line: String| Input::Said(line);
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        let mut machine = running();
        assert_eq!(
            machine.handle(said(format!("disconnect {one}\r")), at(1)),
            [Output::End(shown(1).id)]
        );
        for line in [
            format!("disconnect {two}"),
            "disconnect".into(),
            format!("disconnect {one} {two}"),
            format!("Disconnect {one}"),
            one.clone(),
        ] {
            assert_eq!(machine.handle(said(line.clone()), at(1)), [], "{line}");
        }
        let outputs = machine.handle(
            Input::Settings(Indicator {
                disconnect: false,
                ..settings()
            }),
            at(2),
        );
        assert!(
            matches!(&outputs[..], [Output::Tell(line)] if line.ends_with(r#""disconnect":false}"#)),
            "{outputs:?}"
        );
        assert_eq!(machine.handle(said(format!("disconnect {one}")), at(3)), []);
    }

    #[test]
    fn another_program_takes_the_place_of_the_one_that_runs() {
        let mut machine = running();
        let other = Indicator {
            program: vec!["/usr/bin/other".into()],
            ..settings()
        };
        assert_eq!(
            machine.handle(Input::Settings(other.clone()), at(1)),
            [Output::Stop, Output::Start(other.program.clone())]
        );
        let off = Indicator {
            shown: false,
            ..other
        };
        machine.handle(Input::Started, at(1));
        assert_eq!(machine.handle(Input::Settings(off), at(2)), [Output::Stop]);
    }
}
