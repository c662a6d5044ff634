//! Who is on the device: callers that wait for the person's answer, and running sessions. It counts, lists and tells them to end;
//! it never decides who may come in.

use std::collections::VecDeque;

use tokio::sync::{mpsc, watch};
use umbra_protocol::session::SessionRequest;
use umbra_protocol::{RefusalCode, SessionId};
use umbra_vnc_proxy::StopCause;

use super::machine::{Consent, Turned};
use crate::numbered::Numbered;
use crate::registry::Vnc;
use crate::status::{Moment, PendingConsent, Session, SessionStage};

/// Most announcements that are remembered, and for how long: a ticket is valid for a minute.
const ANNOUNCED_MAX: usize = 32;
const ANNOUNCED_SECONDS: u64 = 90;

/// Why a session has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An administrator, at the server.
    Administrator,
    /// The person at the device.
    User,
    /// A changed setting.
    Settings,
    /// The agent ends.
    Shutdown,
}

impl Ending {
    /// For a running session.
    pub fn cause(&self) -> StopCause {
        match self {
            Self::Administrator => StopCause::Administrator,
            Self::User => StopCause::User,
            Self::Settings => StopCause::Settings,
            Self::Shutdown => StopCause::Shutdown,
        }
    }

    /// For a caller who is not in yet.
    pub fn turned(&self) -> Turned {
        let (code, sentence) = match self {
            Self::Administrator => (
                RefusalCode::SessionWithdrawn,
                "The session was withdrawn before it began.",
            ),
            Self::User => (
                RefusalCode::ConsentDenied,
                "The person at the device said no.",
            ),
            Self::Settings => (
                RefusalCode::ShadowingDisabled,
                "The device's settings do not allow this session any more.",
            ),
            Self::Shutdown => (
                RefusalCode::ShuttingDown,
                "The device's agent is being restarted, or the device is going down; try again in a moment.",
            ),
        };
        Turned::new(code, sentence)
    }
}

#[derive(Debug)]
struct Place {
    shown: Session,
    /// A plain viewer, whom no server knows.
    plain: bool,
    ending: watch::Sender<Option<Ending>>,
    question: Option<(mpsc::Sender<Consent>, Moment)>,
}

/// A place in the table.
#[derive(Debug)]
pub struct Admission {
    /// Names the place.
    pub number: u64,
    /// Says when the session has to end.
    pub ending: watch::Receiver<Option<Ending>>,
}

/// Who is on the device.
#[derive(Debug, Default)]
pub struct Table {
    next: u64,
    places: Numbered<Place>,
    announced: VecDeque<(SessionRequest, Moment)>,
}

impl Table {
    /// The server says that a session is coming.
    pub fn announce(&mut self, request: SessionRequest) {
        self.announced
            .retain(|(known, _)| known.session != request.session);
        if self.announced.len() >= ANNOUNCED_MAX {
            self.announced.pop_front();
        }
        self.announced.push_back((request, Moment::now()));
    }

    /// Whether the server has said that this session is coming, and nobody has come for it yet.
    pub fn expects(&self, session: SessionId) -> bool {
        self.announced
            .iter()
            .any(|(known, _)| known.session == session)
    }

    /// Takes a place if fewer than so many are taken.
    pub fn admit(
        &mut self,
        request: &SessionRequest,
        from: String,
        plain: bool,
        instances: usize,
    ) -> Option<Admission> {
        if self.places.len() >= instances {
            return None;
        }
        self.announced
            .retain(|(known, _)| known.session != request.session);
        let number = self.next;
        self.next += 1;
        let (sender, ending) = watch::channel(None);
        self.places.insert(
            number,
            Place {
                shown: Session {
                    session: request.session,
                    operator: umbra_protocol::refusal::clip(request.operator.clone()),
                    reason: umbra_protocol::refusal::clip(request.reason.clone()),
                    permissions: request.permissions,
                    stage: SessionStage::Announced,
                    since: Moment::now(),
                    from: Some(from),
                },
                plain,
                ending: sender,
                question: None,
            },
        );
        Some(Admission { number, ending })
    }

    /// The person is asked; who answers sends the answer here.
    pub fn asks(&mut self, number: u64, answers: mpsc::Sender<Consent>, until: Moment) {
        if let Some(place) = self.places.get_mut(number) {
            place.shown.stage = SessionStage::Asking;
            place.question = Some((answers, until));
        }
    }

    /// The question is taken back.
    pub fn asks_no_more(&mut self, number: u64) {
        if let Some(place) = self.places.get_mut(number) {
            place.shown.stage = SessionStage::Announced;
            place.question = None;
        }
    }

    /// The operator sees the screen.
    pub fn runs(&mut self, number: u64) {
        if let Some(place) = self.places.get_mut(number) {
            place.shown.stage = SessionStage::Running;
            place.shown.since = Moment::now();
        }
    }

    /// Gives a place back.
    pub fn release(&mut self, number: u64) {
        self.places.remove(number);
    }

    /// The person's answer; whether anybody had asked.
    pub fn answer(&mut self, session: SessionId, consent: Consent) -> bool {
        self.places
            .values_mut()
            .filter(|place| place.shown.session == session)
            .filter_map(|place| place.question.take())
            // Who asked may have got an answer just now.
            .any(|(answers, _)| answers.try_send(consent).is_ok())
    }

    /// Tells a session to end; whether there was one.
    pub fn end(&mut self, session: SessionId, ending: &Ending) -> bool {
        self.announced.retain(|(known, _)| known.session != session);
        self.end_where(ending, |place| place.shown.session == session)
    }

    /// Tells all sessions to end.
    pub fn end_all(&mut self, ending: &Ending) {
        self.end_where(ending, |_| true);
    }

    /// Tells those sessions to end that a changed setting does not allow any more.
    pub fn enforce(&mut self, vnc: &Vnc) {
        self.end_where(&Ending::Settings, |place| {
            !vnc.enabled
                || (place.plain && vnc.secure_mode)
                || (place.shown.permissions.control && !vnc.remote_input)
        });
    }

    fn end_where(&mut self, ending: &Ending, which: impl Fn(&Place) -> bool) -> bool {
        let mut any = false;
        for place in self.places.values().filter(|place| which(place)) {
            any = true;
            // The first reason counts.
            place.ending.send_if_modified(|present| {
                let first = present.is_none();
                if first {
                    *present = Some(ending.clone());
                }
                first
            });
        }
        any
    }

    /// For people: sessions that run or are about to.
    pub fn sessions(&self) -> Vec<Session> {
        let announced = self
            .announced
            .iter()
            .filter(|(_, at)| at.seconds_ago() < ANNOUNCED_SECONDS)
            .map(|(request, at)| Session {
                session: request.session,
                operator: umbra_protocol::refusal::clip(request.operator.clone()),
                reason: umbra_protocol::refusal::clip(request.reason.clone()),
                permissions: request.permissions,
                stage: SessionStage::Announced,
                since: *at,
                from: None,
            });
        self.places
            .values()
            .map(|place| place.shown.clone())
            .chain(announced)
            .collect()
    }

    /// For people: open questions.
    pub fn questions(&self) -> Vec<PendingConsent> {
        self.places
            .values()
            .filter_map(|place| {
                let (_, until) = place.question.as_ref()?;
                Some(PendingConsent {
                    session: place.shown.session,
                    operator: place.shown.operator.clone(),
                    reason: place.shown.reason.clone(),
                    permissions: place.shown.permissions,
                    until: *until,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {

    use umbra_protocol::session::Permissions;

    use super::*;
    use crate::registry::Upstream;

    fn request(number: u8) -> SessionRequest {
        SessionRequest {
            session: SessionId::from_bytes([number; 16]),
            operator: "Ada".into(),
            reason: "Printer".into(),
            permissions: Permissions {
                control: true,
                clipboard: true,
            },
        }
    }

    fn admit(table: &mut Table, number: u8, plain: bool, instances: usize) -> Option<Admission> {
        table.admit(&request(number), "127.0.0.1".to_owned(), plain, instances)
    }

    fn vnc() -> Vnc {
        Vnc {
            enabled: true,
            port: 0,
            listen: Vec::new(),
            secure_mode: false,
            tls12: false,
            remote_input: true,
            password: None,
            instances: 2,
            upstream: Upstream::Spawn,
            command: Vec::new(),
            environment: Vec::new(),
        }
    }

    fn ending(admission: &Admission) -> Option<Ending> {
        admission.ending.borrow().clone()
    }

    #[test]
    fn a_place_is_free_again_once_its_session_has_ended() {
        let mut table = Table::default();
        let first = admit(&mut table, 1, false, 2).expect("a place");
        let _second = admit(&mut table, 2, false, 2).expect("a place");
        assert!(admit(&mut table, 3, false, 2).is_none());
        table.release(first.number);
        assert!(admit(&mut table, 3, false, 2).is_some());
    }

    #[test]
    fn only_the_named_session_is_told_to_end_and_the_first_reason_counts() {
        let mut table = Table::default();
        let first = admit(&mut table, 1, false, 9).expect("a place");
        let second = admit(&mut table, 2, false, 9).expect("a place");
        assert!(table.end(request(1).session, &Ending::User));
        table.end_all(&Ending::Shutdown);
        assert_eq!(ending(&first), Some(Ending::User));
        assert_eq!(ending(&second), Some(Ending::Shutdown));
        assert!(!table.end(request(9).session, &Ending::User));
    }

    #[test]
    fn an_answer_reaches_the_question_once() {
        let mut table = Table::default();
        let admission = admit(&mut table, 1, false, 9).expect("a place");
        assert!(
            !table.answer(request(1).session, Consent::Accepted),
            "nobody asked"
        );
        let (answers, mut answered) = mpsc::channel(1);
        table.asks(admission.number, answers, Moment::in_seconds(30));
        assert_eq!(table.questions().len(), 1);
        assert!(!table.answer(request(2).session, Consent::Accepted));
        assert!(table.answer(request(1).session, Consent::Denied));
        assert_eq!(answered.try_recv(), Ok(Consent::Denied));
        assert!(
            !table.answer(request(1).session, Consent::Accepted),
            "answered before"
        );
        assert!(table.questions().is_empty());
    }

    #[test]
    fn a_changed_setting_ends_only_what_it_does_not_allow() {
        let changes: [(Vnc, [bool; 2]); 4] = [
            (vnc(), [false, false]),
            (
                Vnc {
                    secure_mode: true,
                    ..vnc()
                },
                [false, true],
            ),
            (
                Vnc {
                    remote_input: false,
                    ..vnc()
                },
                [true, true],
            ),
            (
                Vnc {
                    enabled: false,
                    ..vnc()
                },
                [true, true],
            ),
        ];
        for (vnc, expected) in changes {
            let mut table = Table::default();
            let secure = admit(&mut table, 1, false, 9).expect("a place");
            let plain = admit(&mut table, 2, true, 9).expect("a place");
            table.enforce(&vnc);
            let ended = [&secure, &plain].map(|place| ending(place) == Some(Ending::Settings));
            assert_eq!(ended, expected, "{vnc:?}");
        }
    }

    #[test]
    fn announcements_are_bounded_shown_and_replaced_by_the_session_itself() {
        let mut table = Table::default();
        for number in 0..=ANNOUNCED_MAX {
            table.announce(request(u8::try_from(number).expect("small")));
        }
        assert_eq!(table.sessions().len(), ANNOUNCED_MAX);
        let admission = admit(&mut table, 5, false, 9).expect("a place");
        assert_eq!(table.sessions().len(), ANNOUNCED_MAX);
        table.runs(admission.number);
        assert_eq!(table.sessions()[0].stage, SessionStage::Running);
        table.end(request(6).session, &Ending::Administrator);
        assert_eq!(table.sessions().len(), ANNOUNCED_MAX - 1);
    }
}
