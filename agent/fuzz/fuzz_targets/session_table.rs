//! Who is on the device: announcements, places, questions and ends in any order. What holds: never more sessions than places; an announced
//! session is expected until somebody comes for it, and no more of them are remembered than there is room for; an answer reaches
//! exactly the open question, once; whoever has to end is told, with the first reason; and a changed setting spares what it allows.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::registry::{Upstream, Vnc};
use umbra_agent::session::machine::Consent;
use umbra_agent::session::table::{Admission, Ending, Table};
use umbra_agent::status::{Moment, SessionStage};
use umbra_protocol::SessionId;
use umbra_protocol::session::{Permissions, SessionRequest};

#[derive(Arbitrary, Debug)]
enum Step {
    Announce { session: u8, control: bool },
    Admit { session: u8, control: bool, plain: bool, instances: u8 },
    Asks(u8),
    AsksNoMore(u8),
    Answer { session: u8, accept: bool },
    Runs(u8),
    Release(u8),
    End { session: u8, user: bool },
    EndAll,
    Enforce { enabled: bool, secure: bool, input: bool },
}

struct Place {
    admission: Admission,
    session: u8,
    control: bool,
    plain: bool,
    ending: Option<Ending>,
    question: Option<tokio::sync::mpsc::Receiver<Consent>>,
}

fn id(session: u8) -> SessionId {
    SessionId::from_bytes([session; 16])
}

fn request(session: u8, control: bool) -> SessionRequest {
    SessionRequest {
        session: id(session),
        operator: "A\u{1b}\n".into(),
        reason: "\u{202e}".repeat(2_000),
        permissions: Permissions { control, clipboard: control },
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut table = Table::default();
    let mut places: Vec<Place> = Vec::new();
    let mut announced: Vec<u8> = Vec::new();
    for step in steps.iter().take(200) {
        let count = places.len().max(1);
        let at = |which: u8| usize::from(which) % count;
        match step {
            Step::Announce { session, control } => {
                table.announce(request(*session, *control));
                announced.retain(|known| known != session);
                announced.push(*session);
                if announced.len() > 32 {
                    announced.remove(0);
                }
            }
            Step::Admit { session, control, plain, instances } => {
                let instances = usize::from(instances % 6);
                let admission = table.admit(&request(*session, *control), "192.0.2.1".into(), *plain, instances);
                assert_eq!(admission.is_some(), places.len() < instances, "more sessions than places");
                if let Some(admission) = admission {
                    assert!(places.iter().all(|place| place.admission.number != admission.number));
                    announced.retain(|known| known != session);
                    places.push(Place {
                        admission,
                        session: *session,
                        control: *control,
                        plain: *plain,
                        ending: None,
                        question: None,
                    });
                }
            }
            Step::Asks(which) => {
                if let Some(place) = places.get_mut(at(*which)) {
                    let (sender, receiver) = tokio::sync::mpsc::channel(1);
                    table.asks(place.admission.number, sender, Moment::in_seconds(30));
                    place.question = Some(receiver);
                }
            }
            Step::AsksNoMore(which) => {
                if let Some(place) = places.get_mut(at(*which)) {
                    table.asks_no_more(place.admission.number);
                    place.question = None;
                }
            }
            Step::Answer { session, accept } => {
                let consent = if *accept { Consent::Accepted } else { Consent::Denied };
                let asked = places.iter_mut().find(|place| place.session == *session && place.question.is_some());
                let heard = table.answer(id(*session), consent);
                assert_eq!(heard, asked.is_some(), "whether anybody had asked");
                if let Some(place) = asked {
                    let mut question = place.question.take().expect("a question");
                    assert_eq!(question.try_recv(), Ok(consent));
                }
            }
            Step::Runs(which) => {
                if let Some(place) = places.get(at(*which)) {
                    table.runs(place.admission.number);
                }
            }
            Step::Release(which) => {
                if !places.is_empty() {
                    let place = places.remove(at(*which));
                    table.release(place.admission.number);
                }
            }
            Step::End { session, user } => {
                let ending = if *user { Ending::User } else { Ending::Administrator };
                let known = places.iter().any(|place| place.session == *session);
                assert_eq!(table.end(id(*session), &ending), known);
                announced.retain(|known| known != session);
                for place in places.iter_mut().filter(|place| place.session == *session) {
                    place.ending.get_or_insert(ending.clone());
                }
            }
            Step::EndAll => {
                table.end_all(&Ending::Shutdown);
                for place in &mut places {
                    place.ending.get_or_insert(Ending::Shutdown);
                }
            }
            Step::Enforce { enabled, secure, input } => {
                table.enforce(&Vnc {
                    enabled: *enabled,
                    port: 0,
                    listen: Vec::new(),
                    secure_mode: *secure,
                    tls12: false,
                    remote_input: *input,
                    password: None,
                    instances: 2,
                    upstream: Upstream::Spawn,
                    command: Vec::new(),
                    environment: Vec::new(),
                });
                for place in &mut places {
                    if !enabled || (place.plain && *secure) || (place.control && !input) {
                        place.ending.get_or_insert(Ending::Settings);
                    }
                }
            }
        }
        for place in &places {
            assert_eq!(*place.admission.ending.borrow(), place.ending, "whoever has to end is told, and why");
        }
        let expected: BTreeMap<u8, ()> = announced.iter().map(|session| (*session, ())).collect();
        for session in 0..=255 {
            assert_eq!(table.expects(id(session)), expected.contains_key(&session));
        }
        let shown = table.sessions();
        assert_eq!(shown.len(), places.len() + announced.len());
        assert!(shown.iter().all(|session| session.reason.len() <= 2_048 && !session.operator.chars().any(char::is_control)));
        let asking = places.iter().filter(|place| place.question.is_some()).count();
        assert_eq!(table.questions().len(), asking);
        assert!(shown.iter().filter(|one| one.stage == SessionStage::Asking).count() <= places.len());
    }
});
