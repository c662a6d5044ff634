//! The control link as a pure machine: what arrives goes in with the time, what shall be done comes out. It owns no socket,
//! task or clock, it never gives up, and it never waits without a deadline.

use std::time::Duration;

use umbra_protocol::codec::DecodeError;
use umbra_protocol::hello::{Hello, Welcome, feature};
use umbra_protocol::link::{Beat, Goodbye};
use umbra_protocol::message::Leave;
use umbra_protocol::session::{Presented, SessionVerify};
use umbra_protocol::{FromDevice, FromServer, Refusal, RefusalCode, Remedy, limits, version};

use super::backoff::Backoff;
use super::events::{Answer, Delivery, Input, LinkSettings, LinkStatus, Moment, Output};
use super::trouble::Trouble;
use crate::numbered::Numbered;

/// How long the device waits when only a person can change something: seldom, but for ever.
pub const SLOW_RETRY: Duration = Duration::from_secs(5 * 60);
/// The shortest time between two attempts, whatever asks for a new one.
pub const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// After a change of network, an answer is due this soon.
const PROBE: Duration = Duration::from_secs(10);
/// How often a way that the device likes better is tried beside the link that stands.
const LOOK_FOR_BETTER: Duration = Duration::from_secs(10 * 60);
/// How soon after the first link of this run: the device may have woken up elsewhere.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// How soon after a change of network.
const LOOK_AFTER_CHANGE: Duration = Duration::from_secs(3);
/// The shortest time between two such looks, whatever changes.
const LOOKS_APART: Duration = Duration::from_secs(30);
/// A change to a better way that holds this long was right.
const STEADY: Duration = Duration::from_secs(60 * 60);
/// After so many changes that did not hold, the looks do not become rarer.
const REGRETS_MAX: u32 = 4;
/// How long the device waits for the server to confirm that it was removed.
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);
/// Somebody else links with this identity: the two must not take turns every second.
const SUPERSEDED_WAIT: Duration = Duration::from_secs(60);
/// Devices that have lost their links together come back spread over this time.
const HERD_SPREAD: Duration = Duration::from_secs(10);
/// A connection that ends this soon after a refusal ends because of it.
const REASON_HOLDS: Duration = Duration::from_secs(5);
/// More open questions than sessions that could be waiting.
const QUESTIONS: usize = 64;

#[derive(Debug)]
enum State {
    Offline,
    Connecting { deadline: Moment },
    Greeting { deadline: Moment },
    Online(Online),
    Waiting { until: Moment },
    Stopped,
}

#[derive(Debug)]
struct Online {
    heartbeat: Duration,
    /// When to ask whether the server is still there, unless it asks the device.
    next_ping: Option<Moment>,
    silent_at: Moment,
    number: u64,
    leaving: Option<Moment>,
    /// What the server refused last: the reason, if it closes now.
    refused: Option<(Trouble, Moment)>,
    /// When a better way is looked for, where there is one; while one is tried, when that is given up.
    look: Option<Moment>,
    looking: bool,
    /// Whether the server wants to hear how far commands are.
    hears_progress: bool,
}

/// The link.
#[derive(Debug)]
pub struct Machine {
    state: State,
    settings: LinkSettings,
    backoff: Backoff,
    /// For each connector whether the device prefers it.
    preferred: Vec<bool>,
    /// Until when a gateway asked not to be tried.
    held: Vec<Option<Moment>>,
    /// The connector of the attempt at hand; the one that worked last is tried first.
    connector: usize,
    /// When a better way was looked for last, and how often such a change did not hold.
    looked: Option<Moment>,
    changed: Option<Moment>,
    regrets: u32,
    /// Whether a better way is to be looked for soon, because the network is another one or not known yet.
    look_within: Option<Duration>,
    /// The connector to go on with once the link has ended, if not the same.
    then: Option<usize>,
    /// How many connectors were tried since the last wait.
    tried: usize,
    last_attempt: Option<Moment>,
    questions: Numbered<Moment>,
}

impl Machine {
    /// A link that has not begun. `connectors`: how many ways to the server there are, at least one.
    pub fn new(settings: LinkSettings, connectors: usize, mut backoff: Backoff) -> Self {
        backoff.set_longest(settings.reconnect_interval);
        Self {
            state: State::Offline,
            settings,
            backoff,
            preferred: vec![false; connectors.max(1)],
            held: vec![None; connectors.max(1)],
            connector: 0,
            then: None,
            looked: None,
            changed: None,
            regrets: 0,
            look_within: Some(FIRST_LOOK),
            tried: 0,
            last_attempt: None,
            questions: Numbered::default(),
        }
    }

    /// The largest frame that the server may send now.
    pub fn frame_limit(&self) -> usize {
        match self.state {
            State::Online(_) => limits::FRAME,
            State::Offline
            | State::Connecting { .. }
            | State::Greeting { .. }
            | State::Waiting { .. }
            | State::Stopped => limits::FRAME_BEFORE_WELCOME,
        }
    }

    /// Whether the server has welcomed the device.
    pub fn is_online(&self) -> bool {
        matches!(self.state, State::Online(_))
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        let own = match &self.state {
            State::Offline | State::Stopped => None,
            State::Connecting { deadline } | State::Greeting { deadline } => Some(*deadline),
            State::Waiting { until } => Some(*until),
            State::Online(online) => [
                online.next_ping,
                Some(online.silent_at),
                online.leaving,
                online.look,
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        own.into_iter()
            .chain(self.questions.values().copied())
            .min()
    }

    /// Takes what happened; returns what shall be done, in this order.
    pub fn handle(&mut self, input: Input, now: Moment) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Start => {
                if matches!(self.state, State::Offline) {
                    self.begin(now, &mut out);
                }
            }
            Input::Connected(hello) => self.connected(hello, now, &mut out),
            Input::ConnectFailed(trouble) => {
                if matches!(self.state, State::Connecting { .. }) {
                    self.attempt_failed(trouble, now, &mut out);
                }
            }
            Input::Frame(frame) => self.frame(*frame, now, &mut out),
            Input::Unreadable(error) => self.unreadable(error, now, &mut out),
            Input::Ended => self.ended(now, &mut out),
            Input::Closed(trouble) => self.closed(trouble, now, &mut out),
            Input::Tick => self.tick(now, &mut out),
            Input::Ask {
                question,
                presented,
            } => self.ask(question, presented, now, &mut out),
            Input::Tell(message) => {
                let State::Online(online) = &self.state else {
                    return out;
                };
                // An older server would not know what to do with it.
                if online.hears_progress || !matches!(*message, FromDevice::CommandProgress(_)) {
                    out.push(Output::Send(message));
                }
            }
            Input::Leave => self.leave(now, &mut out),
            Input::Settings(settings) => self.take_settings(settings, now, &mut out),
            Input::Relink(sentence) => self.relink(sentence, now, &mut out),
            Input::NetworkChanged => self.network_changed(now, &mut out),
            Input::Ways {
                preferred,
                start,
                leave,
            } => self.take_ways(preferred, start, leave, now, &mut out),
            Input::Probed { connector, result } => self.probed(connector, result, now, &mut out),
            Input::Shutdown => self.shutdown(&mut out),
        }
        out
    }

    fn begin(&mut self, now: Moment, out: &mut Vec<Output>) {
        if !self.settings.allowed {
            self.state = State::Offline;
            out.push(Output::Status(LinkStatus::Offline));
            return;
        }
        self.tried = 0;
        // Where all of them are held, somebody has asked for an attempt nevertheless.
        let from = self.then.take().unwrap_or(self.connector);
        self.connector = self.free(from, now).unwrap_or(from);
        out.push(Output::Status(LinkStatus::Connecting));
        self.connect(now, out);
    }

    fn connect(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.last_attempt = Some(now);
        self.state = State::Connecting {
            deadline: now + self.settings.connect_timeout,
        };
        out.push(Output::Connect(self.connector));
    }

    fn connected(&mut self, hello: Box<Hello>, now: Moment, out: &mut Vec<Output>) {
        match self.state {
            State::Connecting { .. } => {
                self.state = State::Greeting {
                    deadline: now + limits::HELLO_DEADLINE,
                };
                out.push(Output::Send(Box::new(FromDevice::Hello(*hello))));
            }
            // The attempt was given up meanwhile.
            State::Offline | State::Waiting { .. } | State::Stopped => out.push(Output::Close),
            State::Greeting { .. } | State::Online(_) => {}
        }
    }

    /// The first way from this one on that no gateway holds back.
    fn free(&self, from: usize, now: Moment) -> Option<usize> {
        let count = self.held.len();
        (0..count)
            .map(|step| (from + step) % count)
            .find(|index| self.held[*index].is_none_or(|until| until <= now))
    }

    /// This way to the server did not lead to a welcome: the next way at once, or all ways again after a wait.
    fn attempt_failed(&mut self, trouble: Trouble, now: Moment, out: &mut Vec<Output>) {
        out.push(Output::Failed {
            connector: self.connector,
            trouble: trouble.clone(),
        });
        self.tried += 1;
        self.hold(&trouble, now);
        let count = self.preferred.len();
        let failed = self.connector;
        if trouble.of_way || trouble.remedy == Remedy::Retry {
            self.connector = (failed + 1) % count;
            let next = self.free(self.connector, now);
            if let Some(next) = next.filter(|next| *next != failed)
                && self.tried < count
            {
                self.connector = next;
                out.push(Output::Close);
                self.connect(now, out);
                return;
            }
        }
        self.lost(trouble, now, out);
    }

    /// Keeps off a way for as long as its gateway asks for, within bounds, and not as long as all other devices.
    fn hold(&mut self, trouble: &Trouble, now: Moment) {
        if let (true, Some(hint)) = (trouble.of_way, trouble.retry_after) {
            self.held[self.connector] = Some(now + self.hint(hint));
        }
    }

    /// The hint is clamped so that it stays within the bound with its jitter.
    fn hint(&mut self, hint: Duration) -> Duration {
        self.backoff
            .about(hint.min(limits::RETRY_AFTER_MAX / 5 * 4))
    }

    /// There is no link any more; the next attempt comes after a wait that fits the trouble.
    fn lost(&mut self, trouble: Trouble, now: Moment, out: &mut Vec<Output>) {
        let mut usual = self.backoff.next_wait();
        if matches!(self.state, State::Online(_)) {
            // Whoever carried this link may have carried thousands, which have all lost it in this moment.
            usual = self.backoff.anywhere_within(HERD_SPREAD);
        }
        let superseded = trouble.code == RefusalCode::Superseded.as_str();
        let wait = match trouble.remedy {
            Remedy::Retry if superseded => self.backoff.about(SUPERSEDED_WAIT),
            Remedy::Retry => usual,
            Remedy::AskPerson | Remedy::Stop => self.backoff.about(SLOW_RETRY),
        };
        let mut until = now + wait;
        if trouble.of_way {
            // What one gateway asks for is no reason to keep off the others.
            let all_held = self.held.iter().copied().collect::<Option<Vec<_>>>();
            if let Some(first) = all_held.and_then(|held| held.into_iter().min()) {
                until = until.max(first);
            }
        } else if let Some(hint) = trouble.retry_after {
            until = until.max(now + self.hint(hint));
        }
        self.wait(trouble, until, out);
    }

    fn wait(&mut self, trouble: Trouble, until: Moment, out: &mut Vec<Output>) {
        out.push(Output::Close);
        self.forget_questions(out);
        self.forget_leaving(&trouble, out);
        self.state = State::Waiting { until };
        out.push(Output::Status(LinkStatus::Waiting { trouble, until }));
    }

    /// Whoever waits for the server's word about leaving is not left waiting.
    fn forget_leaving(&mut self, trouble: &Trouble, out: &mut Vec<Output>) {
        if let State::Online(online) = &mut self.state
            && online.leaving.take().is_some()
        {
            out.push(Output::Left(Err(trouble.clone())));
        }
    }

    fn forget_questions(&mut self, out: &mut Vec<Output>) {
        for question in std::mem::take(&mut self.questions).into_numbers() {
            out.push(Output::Answer {
                question,
                answer: Answer::Unreachable,
            });
        }
    }

    fn frame(&mut self, frame: FromServer, now: Moment, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Greeting { .. } => self.greeting(frame, now, out),
            State::Online(online) => {
                online.silent_at = now + online.heartbeat * limits::SILENCE_FACTOR;
                self.online(frame, now, out);
            }
            State::Offline | State::Connecting { .. } | State::Waiting { .. } | State::Stopped => {}
        }
    }

    fn greeting(&mut self, frame: FromServer, now: Moment, out: &mut Vec<Output>) {
        match frame {
            FromServer::Welcome(welcome) => self.welcomed(welcome, now, out),
            FromServer::Refusal(refusal) => {
                let trouble = Trouble::refused(&refusal);
                self.lost(trouble, now, out);
            }
            FromServer::Goodbye(goodbye) => {
                let trouble = Trouble::goodbye(&goodbye);
                self.lost(trouble, now, out);
            }
            other @ (FromServer::Challenge(_)
            | FromServer::Enrolled(_)
            | FromServer::Pong(_)
            | FromServer::Ping(_)
            | FromServer::Settings(_)
            | FromServer::Command(_)
            | FromServer::ResultFiled(_)
            | FromServer::SessionRequest(_)
            | FromServer::SessionTunnel(_)
            | FromServer::SessionVerdict(_)
            | FromServer::SessionEnd(_)
            | FromServer::RecordFiled(_)
            | FromServer::Anchors(_)
            | FromServer::CertificateFiled(_)
            | FromServer::Left(_)) => {
                out.push(refuse(
                    RefusalCode::UnexpectedMessage,
                    format!(
                        "The device waits for a welcome, and the server said “{}”.",
                        other.kind()
                    ),
                ));
                let trouble = Trouble::protocol(format!(
                    "The server said “{}” where a welcome was expected.",
                    other.kind()
                ));
                self.lost(trouble, now, out);
            }
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now: Moment, out: &mut Vec<Output>) {
        if !version::SUPPORTED.contains(&welcome.version) {
            let sentence = format!(
                "The server wants to speak version {} of the protocol, which this device does not know.",
                welcome.version
            );
            out.push(refuse(RefusalCode::UnsupportedVersion, sentence.clone()));
            let trouble =
                Trouble::refused(&Refusal::new(RefusalCode::UnsupportedVersion, sentence));
            self.lost(trouble, now, out);
            return;
        }
        self.backoff.reset();
        self.held.fill(None);
        if !self.preferred[self.connector]
            && self.changed.is_some_and(|changed| now < changed + STEADY)
        {
            // Back on the way that it had left for a better one: it looks less often.
            self.regrets = (self.regrets + 1).min(REGRETS_MAX);
            self.changed = None;
        }
        let look = self.next_look(now);
        let heartbeat = Duration::from_secs(u64::from(welcome.heartbeat_seconds))
            .clamp(limits::HEARTBEAT_MIN, limits::HEARTBEAT_MAX);
        self.state = State::Online(Online {
            heartbeat,
            next_ping: (!told(&welcome, feature::SERVER_HEARTBEATS)).then_some(now + heartbeat),
            silent_at: now + heartbeat * limits::SILENCE_FACTOR,
            number: 0,
            leaving: None,
            refused: None,
            look,
            looking: false,
            hears_progress: told(&welcome, feature::COMMAND_PROGRESS),
        });
        let device_name = welcome.device_name.clone();
        out.push(Output::Status(LinkStatus::Online { device_name }));
        out.push(Output::Welcomed(Box::new(welcome)));
    }

    fn online(&mut self, frame: FromServer, now: Moment, out: &mut Vec<Output>) {
        let delivery = match frame {
            FromServer::Pong(_) => return,
            FromServer::Ping(beat) => {
                out.push(Output::Send(Box::new(FromDevice::Pong(beat))));
                return;
            }
            FromServer::Settings(settings) => Delivery::Settings(settings),
            FromServer::Command(command) => Delivery::Command(command),
            FromServer::ResultFiled(filed) => Delivery::ResultFiled(filed.id),
            FromServer::SessionRequest(request) => Delivery::SessionRequest(request),
            FromServer::SessionTunnel(tunnel) => Delivery::SessionTunnel(tunnel),
            FromServer::SessionEnd(end) => Delivery::SessionEnd(end),
            FromServer::RecordFiled(filed) => Delivery::RecordFiled(filed.session),
            FromServer::Anchors(anchors) => Delivery::Anchors(anchors),
            FromServer::CertificateFiled(filed) => Delivery::CertificateFiled(filed),
            FromServer::SessionVerdict(verdict) => {
                // A verdict that comes too late belongs to nobody.
                if self.questions.remove(verdict.question).is_some() {
                    out.push(Output::Answer {
                        question: verdict.question,
                        answer: Answer::Verdict(verdict.verdict),
                    });
                }
                return;
            }
            FromServer::Left(_) => {
                self.left(now, out);
                return;
            }
            FromServer::Refusal(refusal) => {
                self.refused_online(refusal, now, out);
                return;
            }
            FromServer::Goodbye(goodbye) => {
                let trouble = Trouble::goodbye(&goodbye);
                self.lost(trouble, now, out);
                return;
            }
            unexpected @ (FromServer::Challenge(_)
            | FromServer::Enrolled(_)
            | FromServer::Welcome(_)) => {
                out.push(refuse(
                    RefusalCode::UnexpectedMessage,
                    format!(
                        "The link stands already, and the server said “{}”.",
                        unexpected.kind()
                    ),
                ));
                return;
            }
        };
        out.push(Output::Deliver(Box::new(delivery)));
    }

    /// The server has removed the device. Where nobody waits for that, be it unasked or too late, the device still belongs to it, and
    /// an end of the link for good would be one that nobody has decided.
    fn left(&mut self, now: Moment, out: &mut Vec<Output>) {
        if let State::Online(Online {
            leaving: Some(_), ..
        }) = self.state
        {
            out.push(Output::Left(Ok(())));
            out.push(Output::Close);
            self.forget_questions(out);
            self.state = State::Offline;
            out.push(Output::Status(LinkStatus::Offline));
            return;
        }
        let sentence =
            "The server says that it has removed this device, which nobody here is waiting for.";
        self.lost(Trouble::lasting("left", sentence), now, out);
    }

    /// A refusal on a standing link answers one thing of ours; the link goes on, unless the server closes it now.
    fn refused_online(&mut self, refusal: Refusal, now: Moment, out: &mut Vec<Output>) {
        let trouble = Trouble::refused(&refusal);
        if let State::Online(online) = &mut self.state {
            if online.leaving.take().is_some() {
                out.push(Output::Left(Err(trouble.clone())));
            }
            online.refused = Some((trouble, now + REASON_HOLDS));
        }
        out.push(Output::Deliver(Box::new(Delivery::Refused(refusal))));
    }

    /// The server has ended the connection; if it has just said why, that is the reason.
    fn ended(&mut self, now: Moment, out: &mut Vec<Output>) {
        let said = match &mut self.state {
            State::Online(online) => online.refused.take(),
            State::Offline
            | State::Connecting { .. }
            | State::Greeting { .. }
            | State::Waiting { .. }
            | State::Stopped => None,
        };
        let reason = match said {
            Some((reason, until)) if now <= until => reason,
            Some(_) | None => Trouble::passing("closed", "The server closed the connection."),
        };
        self.closed(reason, now, out);
    }

    fn closed(&mut self, trouble: Trouble, now: Moment, out: &mut Vec<Output>) {
        match self.state {
            State::Connecting { .. } | State::Greeting { .. } => {
                self.attempt_failed(trouble, now, out);
            }
            State::Online(_) => {
                self.hold(&trouble, now);
                self.lost(trouble, now, out);
            }
            State::Offline | State::Waiting { .. } | State::Stopped => {}
        }
    }

    fn unreadable(&mut self, error: DecodeError, now: Moment, out: &mut Vec<Output>) {
        if !matches!(self.state, State::Greeting { .. } | State::Online(_)) {
            return;
        }
        match error {
            DecodeError::UnknownType(kind) => {
                if let State::Online(online) = &mut self.state {
                    online.silent_at = now + online.heartbeat * limits::SILENCE_FACTOR;
                }
                out.push(refuse(
                    RefusalCode::UnknownMessage,
                    format!("The device does not know messages of the type “{kind}”."),
                ));
            }
            DecodeError::Malformed(detail) => {
                out.push(refuse(
                    RefusalCode::Malformed,
                    format!("The device cannot read the server's message: {detail}"),
                ));
                let trouble = Trouble::protocol(format!(
                    "The server sent a message that cannot be read: {detail}"
                ));
                self.lost(trouble, now, out);
            }
            DecodeError::TooLarge { size, limit } => {
                out.push(refuse(
                    RefusalCode::TooLarge,
                    format!("The server's message has {size} bytes, and {limit} are allowed."),
                ));
                let trouble = Trouble::protocol(format!(
                    "The server sent a message of {size} bytes, and {limit} are allowed."
                ));
                self.lost(trouble, now, out);
            }
        }
    }

    fn ask(&mut self, question: u64, presented: Presented, now: Moment, out: &mut Vec<Output>) {
        if !self.is_online() || self.questions.len() >= QUESTIONS {
            out.push(Output::Answer {
                question,
                answer: Answer::Unreachable,
            });
            return;
        }
        self.questions
            .insert(question, now + limits::VERDICT_DEADLINE);
        out.push(Output::Send(Box::new(FromDevice::SessionVerify(
            SessionVerify {
                question,
                presented,
            },
        ))));
    }

    fn leave(&mut self, now: Moment, out: &mut Vec<Output>) {
        let State::Online(online) = &mut self.state else {
            out.push(Output::Left(Err(Trouble::not_linked())));
            return;
        };
        online.leaving = Some(now + LEAVE_DEADLINE);
        out.push(Output::Send(Box::new(FromDevice::Leave(Leave {}))));
    }

    fn take_settings(&mut self, settings: LinkSettings, now: Moment, out: &mut Vec<Output>) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.backoff.set_longest(settings.reconnect_interval);
        match (before.allowed, settings.allowed) {
            (true, false) => {
                if self.is_online() {
                    out.push(goodbye("Remote management was switched off on the device."));
                }
                out.push(Output::Close);
                self.forget_questions(out);
                self.forget_leaving(&Trouble::not_linked(), out);
                if !matches!(self.state, State::Stopped) {
                    self.state = State::Offline;
                    out.push(Output::Status(LinkStatus::Offline));
                }
            }
            (false, true) => {
                if matches!(self.state, State::Offline) {
                    self.begin(now, out);
                }
            }
            (true, true) | (false, false) => {
                if before != settings {
                    self.network_changed_while_waiting(now);
                }
            }
        }
    }

    fn relink(&mut self, sentence: String, now: Moment, out: &mut Vec<Output>) {
        match self.state {
            State::Online(_) | State::Greeting { .. } => {
                if self.is_online() {
                    out.push(goodbye(&sentence));
                }
                let wait = self.backoff.about(SHORTEST_WAIT);
                self.wait(Trouble::passing("relink", sentence), now + wait, out);
            }
            // The hello is made when the connection stands: it will say the new things.
            State::Connecting { .. } | State::Waiting { .. } | State::Offline | State::Stopped => {}
        }
    }

    /// A way that the device likes better than the one in use, if there is one. With several, each has its turn.
    fn better(&self) -> Option<usize> {
        if self.preferred[self.connector] {
            return None;
        }
        let count = self.preferred.len();
        (1..count)
            .map(|step| (self.connector + step) % count)
            .find(|index| self.preferred[*index])
    }

    /// Until the next look for a better way; longer after changes that did not hold.
    fn pause(&mut self) -> Duration {
        self.backoff.about(LOOK_FOR_BETTER * (1 << self.regrets))
    }

    /// When a better way than the one in use is to be looked for, where there is one.
    fn next_look(&mut self, now: Moment) -> Option<Moment> {
        self.better()?;
        let pause = self.pause();
        let Some(within) = self.look_within else {
            return Some(now + pause);
        };
        let earliest = self
            .looked
            .map_or(now, |looked| looked + LOOKS_APART * (1 << self.regrets));
        Some((now + self.backoff.about(within)).max(earliest))
    }

    fn take_ways(
        &mut self,
        preferred: Vec<bool>,
        start: usize,
        leave: Option<String>,
        now: Moment,
        out: &mut Vec<Output>,
    ) {
        let preferred = if preferred.is_empty() {
            vec![false]
        } else {
            preferred
        };
        self.held = vec![None; preferred.len()];
        self.connector = start.min(preferred.len() - 1);
        self.preferred = preferred;
        self.tried = 0;
        (self.regrets, self.changed, self.then) = (0, None, None);
        if let Some(sentence) = leave {
            match self.state {
                State::Online(_) | State::Greeting { .. } | State::Connecting { .. } => {
                    if self.is_online() {
                        out.push(goodbye(&sentence));
                    }
                    let wait = self.backoff.about(SHORTEST_WAIT);
                    self.wait(Trouble::passing("relink", sentence), now + wait, out);
                }
                State::Waiting { .. } | State::Offline | State::Stopped => {}
            }
        }
        let look = self.next_look(now);
        if let State::Online(online) = &mut self.state {
            online.look = look;
            online.looking = false;
        }
        self.network_changed_while_waiting(now);
    }

    /// The link stays on the way that has this place now. A way that was never tried is due once the link has ended.
    pub fn stays(&mut self, connector: usize, fresh: Option<usize>) {
        let last = self.preferred.len() - 1;
        self.connector = connector.min(last);
        self.then = fresh.map(|fresh| fresh.min(last));
    }

    fn probed(
        &mut self,
        connector: usize,
        result: Result<(), Trouble>,
        now: Moment,
        out: &mut Vec<Output>,
    ) {
        let pause = self.pause();
        let State::Online(online) = &mut self.state else {
            return;
        };
        if !std::mem::take(&mut online.looking) {
            return;
        }
        match result {
            Ok(()) => {
                out.push(goodbye("The device has found a better way to the server."));
                let wait = self.backoff.about(SHORTEST_WAIT);
                self.connector = connector.min(self.preferred.len() - 1);
                self.then = None;
                self.changed = Some(now);
                let sentence = "The device has found a better way to the server and takes it.";
                self.wait(Trouble::passing("relink", sentence), now + wait, out);
            }
            Err(trouble) => {
                online.look = Some(now + pause);
                out.push(Output::Failed { connector, trouble });
            }
        }
    }

    /// The better way is tried beside the link that stands.
    fn look_for_better(&mut self, now: Moment, out: &mut Vec<Output>) {
        let Some(better) = self.better() else {
            return;
        };
        let patience = self.settings.connect_timeout + limits::HELLO_DEADLINE;
        let pause = self.pause();
        self.looked = Some(now);
        self.look_within = None;
        if let State::Online(online) = &mut self.state {
            if std::mem::replace(&mut online.looking, true) {
                // It has no end: the driver's own deadline failed.
                online.looking = false;
                online.look = Some(now + pause);
                return;
            }
            online.look = Some(now + patience + patience / 2);
            out.push(Output::Probe(better));
        }
    }

    fn network_changed(&mut self, now: Moment, out: &mut Vec<Output>) {
        self.look_within = Some(LOOK_AFTER_CHANGE);
        let look = self.next_look(now);
        match &mut self.state {
            State::Online(online) => {
                online.number += 1;
                online.next_ping = online.next_ping.map(|_| now + online.heartbeat);
                online.silent_at = online.silent_at.min(now + PROBE);
                if !online.looking {
                    online.look = look;
                }
                let number = online.number;
                out.push(Output::Send(Box::new(FromDevice::Ping(Beat { number }))));
            }
            State::Waiting { .. } => {
                self.network_changed_while_waiting(now);
                self.tick(now, out);
            }
            State::Connecting { .. } | State::Greeting { .. } | State::Offline | State::Stopped => {
            }
        }
    }

    /// The wait ends at once, unless the last attempt was only just now.
    fn network_changed_while_waiting(&mut self, now: Moment) {
        if let State::Waiting { until } = &mut self.state {
            let earliest = self.last_attempt.map_or(now, |last| last + SHORTEST_WAIT);
            *until = (*until).min(earliest.max(now));
        }
    }

    fn shutdown(&mut self, out: &mut Vec<Output>) {
        if matches!(self.state, State::Stopped) {
            return;
        }
        if self.is_online() {
            out.push(goodbye("The device's agent ends."));
        }
        out.push(Output::Close);
        self.forget_questions(out);
        self.forget_leaving(&Trouble::not_linked(), out);
        self.state = State::Stopped;
        out.push(Output::Status(LinkStatus::Offline));
        out.push(Output::Stopped);
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Output>) {
        let late: Vec<u64> = self
            .questions
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(question, _)| question)
            .collect();
        for question in late {
            self.questions.remove(question);
            out.push(Output::Answer {
                question,
                answer: Answer::Unreachable,
            });
        }
        match &mut self.state {
            State::Connecting { deadline } if *deadline <= now => {
                self.attempt_failed(
                    Trouble::passing("timed_out", "The server did not answer in time."),
                    now,
                    out,
                );
            }
            State::Greeting { deadline } if *deadline <= now => {
                self.attempt_failed(
                    Trouble::passing(
                        "timed_out",
                        "The server did not welcome the device in time.",
                    ),
                    now,
                    out,
                );
            }
            State::Waiting { until } if *until <= now => self.begin(now, out),
            State::Online(online) if online.silent_at <= now => {
                self.lost(
                    Trouble::passing("silent", "The server has fallen silent."),
                    now,
                    out,
                );
            }
            State::Online(online) => {
                if online.leaving.is_some_and(|deadline| deadline <= now) {
                    online.leaving = None;
                    out.push(Output::Left(Err(Trouble::passing(
                        "timed_out",
                        "The server did not confirm in time that the device leaves.",
                    ))));
                }
                if online.next_ping.is_some_and(|due| due <= now) {
                    online.number += 1;
                    online.next_ping = Some(now + online.heartbeat);
                    let number = online.number;
                    out.push(Output::Send(Box::new(FromDevice::Ping(Beat { number }))));
                }
                if online.look.is_some_and(|due| due <= now) {
                    online.look = None;
                    self.look_for_better(now, out);
                }
            }
            State::Connecting { .. }
            | State::Greeting { .. }
            | State::Waiting { .. }
            | State::Offline
            | State::Stopped => {}
        }
    }
}

/// Whether the server has this ability.
fn told(welcome: &Welcome, feature: &str) -> bool {
    welcome.features.iter().any(|name| name == feature)
}

fn refuse(code: RefusalCode, sentence: impl Into<String>) -> Output {
    Output::Send(Box::new(FromDevice::Refusal(Refusal::new(code, sentence))))
}

fn goodbye(sentence: &str) -> Output {
    Output::Send(Box::new(FromDevice::Goodbye(Goodbye {
        sentence: umbra_protocol::refusal::clip(sentence.to_owned()),
        retry_after_seconds: None,
    })))
}

#[cfg(test)]
#[path = "machine_tests/mod.rs"]
mod tests;
