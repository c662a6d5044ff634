//! The conversation on an uplink's control stream: a server attaches first, then says what it wants, and has to be heard
//! of now and then. No stream, no task, no clock.

use std::time::{Duration, Instant};

use umbra_protocol::gateway::{
    self, Attach, DropStream, FromGateway, OpenRendezvous, ToGateway, VERSIONS,
};
use umbra_protocol::{Refusal, RefusalCode, RendezvousId};

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// The server said this.
    Heard(ToGateway),
    /// The server said something of a newer version.
    HeardUnknown,
    /// What the server said could not be read.
    HeardNonsense(String),
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Take the server on; the answer follows from its place in the roster.
    Attach(Attach, u16),
    /// Another limit.
    Limit(Option<u32>),
    /// A device may stay.
    Admit(u64),
    /// A device has to go.
    Drop(DropStream),
    /// Two ends will come.
    Open(OpenRendezvous),
    /// They will not.
    Withdraw(RendezvousId),
    /// Say this.
    Say(FromGateway),
    /// End the uplink, for this reason. Nothing follows.
    End(String),
}

/// The conversation.
#[derive(Debug)]
pub struct Conversation {
    state: State,
    silence: Duration,
    unknown: u64,
}

#[derive(Debug)]
enum State {
    Greeting { until: Instant },
    Attached { heard: Instant },
    Over,
}

impl Conversation {
    /// With a server that has until `until` to attach, and is dead after such a silence.
    pub fn new(until: Instant, silence: Duration) -> Self {
        Self {
            state: State::Greeting { until },
            silence,
            unknown: 0,
        }
    }

    /// When to tick; `None` once it is over.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Greeting { until } => Some(*until),
            State::Attached { heard } => Some(*heard + self.silence),
            State::Over => None,
        }
    }

    /// Messages of types that this build does not know.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Goes on.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        match (&mut self.state, input) {
            (State::Over, _) => Vec::new(),
            (State::Greeting { until }, Input::Tick) => {
                if now < *until {
                    return Vec::new();
                }
                self.end("the server didn't attach in time")
            }
            (State::Attached { heard }, Input::Tick) => {
                if now < *heard + self.silence {
                    return Vec::new();
                }
                self.end("nothing was heard of the server for too long")
            }
            (State::Greeting { .. }, Input::Heard(ToGateway::Attach(attach))) => {
                match gateway::agree(&attach.versions) {
                    Some(version) => {
                        self.state = State::Attached { heard: now };
                        vec![Output::Attach(attach, version)]
                    }
                    None => self.refuse(
                        RefusalCode::UnsupportedVersion,
                        format!("This gateway speaks the versions {VERSIONS:?} of the uplink: update the older of the two."),
                    ),
                }
            }
            (State::Greeting { .. }, Input::Heard(message)) => self.refuse(
                RefusalCode::UnexpectedMessage,
                format!("The first message must be “attach”, not “{}”.", message.kind()),
            ),
            (State::Greeting { .. }, Input::HeardUnknown) => self.refuse(
                RefusalCode::UnexpectedMessage,
                "The first message must be “attach”.".to_owned(),
            ),
            (State::Greeting { .. } | State::Attached { .. }, Input::HeardNonsense(why)) => {
                self.refuse(RefusalCode::Malformed, format!("A message can't be read: {why}."))
            }
            (State::Attached { heard }, Input::HeardUnknown) => {
                *heard = now;
                self.unknown += 1;
                Vec::new()
            }
            (State::Attached { heard }, Input::Heard(message)) => {
                *heard = now;
                match message {
                    ToGateway::Attach(_) => self.refuse(
                        RefusalCode::UnexpectedMessage,
                        "This uplink is attached already.".to_owned(),
                    ),
                    ToGateway::Limit(limit) => vec![Output::Limit(limit.devices)],
                    ToGateway::Admit(admit) => vec![Output::Admit(admit.stream)],
                    ToGateway::Drop(drop) => vec![Output::Drop(drop)],
                    ToGateway::Rendezvous(request) => vec![Output::Open(request)],
                    ToGateway::Withdraw(withdraw) => vec![Output::Withdraw(withdraw.id)],
                    ToGateway::Ping(beat) => vec![Output::Say(FromGateway::Pong(beat))],
                }
            }
        }
    }

    fn end(&mut self, why: &str) -> Vec<Output> {
        self.state = State::Over;
        vec![Output::End(why.to_owned())]
    }

    fn refuse(&mut self, code: RefusalCode, sentence: String) -> Vec<Output> {
        self.state = State::Over;
        vec![
            Output::Say(Refusal::new(code, sentence.clone()).into()),
            Output::End(sentence),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_protocol::ServerRoot;
    use umbra_protocol::gateway::{Admit, Limit, SILENCE};
    use umbra_protocol::link::Beat;

    fn attach(versions: &[u16]) -> Attach {
        Attach {
            versions: versions.to_vec(),
            server_root: ServerRoot::from_bytes([1; 32]),
            server_name: "ums".into(),
            limit: None,
        }
    }

    fn attached(now: Instant) -> Conversation {
        let mut conversation = Conversation::new(now + gateway::ATTACH_DEADLINE, SILENCE);
        let outputs = conversation.handle(Input::Heard(attach(&[9, 1]).into()), now);
        assert_eq!(outputs, [Output::Attach(attach(&[9, 1]), 1)]);
        conversation
    }

    fn ended_with(outputs: &[Output], code: RefusalCode) {
        match outputs {
            [Output::Say(FromGateway::Refused(refusal)), Output::End(_)] => {
                assert_eq!(refusal.code, code);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_comes_before_attach_and_attach_comes_once() {
        let now = Instant::now();
        for first in [
            ToGateway::from(Admit { stream: 0 }),
            Beat { number: 1 }.into(),
        ] {
            let mut conversation = Conversation::new(now + SILENCE, SILENCE);
            ended_with(
                &conversation.handle(Input::Heard(first), now),
                RefusalCode::UnexpectedMessage,
            );
            assert_eq!(conversation.next_deadline(), None);
            assert_eq!(
                conversation.handle(Input::Heard(attach(&[1]).into()), now),
                []
            );
        }
        ended_with(
            &attached(now).handle(Input::Heard(attach(&[1]).into()), now),
            RefusalCode::UnexpectedMessage,
        );
    }

    #[test]
    fn a_server_without_a_common_version_is_told_so() {
        let now = Instant::now();
        let mut conversation = Conversation::new(now + SILENCE, SILENCE);
        ended_with(
            &conversation.handle(Input::Heard(attach(&[2]).into()), now),
            RefusalCode::UnsupportedVersion,
        );
    }

    #[test]
    fn a_server_that_does_not_attach_is_sent_away_in_time() {
        let now = Instant::now();
        let mut conversation = Conversation::new(now + gateway::ATTACH_DEADLINE, SILENCE);
        let deadline = conversation.next_deadline().expect("waits");
        assert_eq!(deadline, now + gateway::ATTACH_DEADLINE);
        assert_eq!(
            conversation.handle(Input::Tick, deadline - Duration::from_millis(1)),
            []
        );
        assert!(matches!(
            conversation.handle(Input::Tick, deadline)[..],
            [Output::End(_)]
        ));
    }

    #[test]
    fn whatever_is_heard_keeps_the_uplink_and_silence_ends_it() {
        let mut now = Instant::now();
        let mut conversation = attached(now);
        for input in [
            Input::Heard(Beat { number: 7 }.into()),
            Input::HeardUnknown,
            Input::Heard(Limit { devices: Some(3) }.into()),
        ] {
            now += SILENCE - Duration::from_secs(1);
            assert_eq!(conversation.handle(Input::Tick, now), []);
            conversation.handle(input, now);
            assert_eq!(conversation.next_deadline(), Some(now + SILENCE));
        }
        assert_eq!(conversation.unknown(), 1);
        assert!(matches!(
            conversation.handle(Input::Tick, now + SILENCE)[..],
            [Output::End(_)]
        ));
    }

    #[test]
    fn a_ping_is_answered_with_its_number() {
        let now = Instant::now();
        assert_eq!(
            attached(now).handle(Input::Heard(Beat { number: 7 }.into()), now),
            [Output::Say(FromGateway::Pong(Beat { number: 7 }))]
        );
    }

    #[test]
    fn nonsense_ends_the_uplink_with_a_code() {
        let now = Instant::now();
        ended_with(
            &attached(now).handle(Input::HeardNonsense("no JSON".into()), now),
            RefusalCode::Malformed,
        );
    }
}
