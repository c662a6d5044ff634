//! The program that shows who sees the screen, in simulated time. What holds: it runs only where it is wanted and at most once; what
//! it is told is a line, never twice the same; only a session that is visible can be ended from it, and only where the person may;
//! it is not started again at once, nor later than a minute; and while it is wanted and holds, it runs and nobody is warned.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::registry::Indicator;
use umbra_agent::session::indicator::machine::{Input, Machine, Output, STEADY, Shown};
use umbra_protocol::SessionId;

#[derive(Arbitrary, Debug)]
struct Run {
    settings: Settings,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Settings {
    shown: bool,
    disconnect: bool,
    program: u8,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Wait(u16),
    Wanted { sessions: Vec<(u8, i64)>, awaited: bool },
    Settings(Settings),
    Started,
    Failed,
    Disconnect(u8),
    Said(String),
}

impl Settings {
    fn indicator(self) -> Indicator {
        Indicator {
            shown: self.shown,
            disconnect: self.disconnect,
            position: "bottom-right".into(),
            program: match self.program % 3 {
                0 => Vec::new(),
                1 => vec!["/usr/bin/one".into()],
                _ => vec!["/usr/bin/two".into(), "\n".into()],
            },
            required: false,
        }
    }
}

struct Driver {
    machine: Machine,
    now: Duration,
    settings: Indicator,
    sessions: Vec<SessionId>,
    awaited: bool,
    /// The program that was started, and whether it runs.
    program: Option<(Vec<String>, bool)>,
    failed_at: Option<Duration>,
    told: Option<String>,
    warned: bool,
}

impl Driver {
    fn wanted(&self) -> bool {
        self.settings.shown && !self.settings.program.is_empty() && (self.awaited || !self.sessions.is_empty())
    }

    fn feed(&mut self, input: Input) {
        let outputs = self.machine.handle(input, self.now);
        assert!(outputs.len() <= 4, "{outputs:?}");
        for output in outputs {
            match output {
                Output::Start(program) => {
                    assert!(self.program.is_none(), "a second program beside the first");
                    assert!(self.wanted() && program == self.settings.program, "a program that nobody wants");
                    if let Some(failed) = self.failed_at.take() {
                        assert!(self.now >= failed + Duration::from_secs(1), "started again at once");
                        // Where it was wanted all the time, a minute is the longest pause.
                    }
                    self.program = Some((program, false));
                    self.told = None;
                }
                Output::Stop => {
                    assert!(self.program.take().is_some(), "there was nothing to stop");
                }
                Output::Tell(line) => {
                    assert!(self.program.as_ref().is_some_and(|(_, runs)| *runs), "told to nobody");
                    assert!(!line.contains('\n') && self.told.as_ref() != Some(&line), "{line}");
                    assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
                    self.told = Some(line);
                }
                Output::End(session) => {
                    assert!(self.settings.disconnect && self.sessions.contains(&session), "it ended what it may not");
                }
                Output::Warn(warning) => self.warned = warning.is_some(),
            }
        }
        assert_eq!(self.machine.is_running(), self.program.as_ref().is_some_and(|(_, runs)| *runs));
        if self.machine.is_running() {
            assert!(self.wanted(), "it shows what nobody wants shown");
        }
    }

    fn wait(&mut self, until: Duration) {
        let mut at_once = 0;
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 4, "it runs hot");
            self.now = self.now.max(due);
            self.feed(Input::Tick);
        }
        self.now = self.now.max(until);
    }
}

fuzz_target!(|run: Run| {
    let settings = run.settings.indicator();
    let mut driver = Driver {
        machine: Machine::new(settings.clone()),
        now: Duration::ZERO,
        settings,
        sessions: Vec::new(),
        awaited: false,
        program: None,
        failed_at: None,
        told: None,
        warned: false,
    };
    for step in run.steps.iter().take(128) {
        match step {
            Step::Wait(tenths) => driver.wait(driver.now + Duration::from_millis(100) * u32::from(*tenths)),
            Step::Wanted { sessions, awaited } => {
                let sessions: Vec<Shown> = sessions
                    .iter()
                    .take(8)
                    .map(|(number, since)| Shown {
                        id: SessionId::from_bytes([*number; 16]),
                        operator: "A\u{1b}\n".into(),
                        reason: "\u{2028}".into(),
                        since: *since,
                    })
                    .collect();
                driver.sessions = sessions.iter().map(|shown| shown.id).collect();
                driver.awaited = *awaited;
                driver.failed_at = driver.failed_at.filter(|_| driver.wanted());
                driver.feed(Input::Wanted { sessions, awaited: *awaited });
            }
            Step::Settings(settings) => {
                let settings = settings.indicator();
                if settings.program != driver.settings.program {
                    driver.failed_at = None;
                    // What is just being started is given up by the driver when another is to be started.
                    if driver.program.as_ref().is_some_and(|(_, runs)| !runs) {
                        driver.program = None;
                    }
                }
                driver.settings = settings.clone();
                driver.failed_at = driver.failed_at.filter(|_| driver.wanted());
                driver.feed(Input::Settings(settings));
            }
            Step::Started => {
                if let Some((_, runs)) = driver.program.as_mut().filter(|(_, runs)| !runs) {
                    *runs = true;
                    let wanted = driver.wanted();
                    let outputs = driver.machine.handle(Input::Started, driver.now);
                    match &outputs[..] {
                        [Output::Tell(line)] if wanted => driver.told = Some(line.clone()),
                        [Output::Stop] if !wanted => driver.program = None,
                        other => panic!("{other:?}"),
                    }
                }
            }
            Step::Failed => {
                if driver.program.take().is_some() {
                    driver.failed_at = driver.wanted().then_some(driver.now);
                    driver.feed(Input::Failed("exit status 1".into()));
                    assert!(driver.warned);
                }
            }
            Step::Disconnect(number) => {
                let session = SessionId::from_bytes([*number; 16]);
                driver.feed(Input::Said(format!("disconnect {session}")));
            }
            Step::Said(line) => driver.feed(Input::Said(line.clone())),
        }
    }
    // A program that holds from here on runs for as long as it is wanted, and nothing is said about it after a while.
    driver.wait(driver.now + Duration::from_secs(60));
    if let Some((_, runs)) = driver.program.as_mut().filter(|(_, runs)| !runs) {
        *runs = true;
        driver.machine.handle(Input::Started, driver.now);
        if !driver.wanted() {
            driver.program = None;
        }
    }
    assert_eq!(driver.machine.is_running(), driver.wanted(), "after a minute");
    driver.wait(driver.now + STEADY);
    if driver.machine.is_running() {
        assert!(!driver.warned, "a warning that nobody takes back");
    }
});
