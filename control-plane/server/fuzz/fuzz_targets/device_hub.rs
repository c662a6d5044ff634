//! Who is online, against links that come, go and do not listen. What holds: the newest link is the device's, the one before is told that
//! it was replaced; the end of an old one takes nobody offline; news go to the newest, in their order, and never more wait than
//! there is room for; whoever does not listen is cut off and told; and two machines with one key are found, but one that restarts
//! never is.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_protocol::hello::DeviceFacts;
use umbra_protocol::{DeviceId, Fingerprint, Refusal, RefusalCode, RunId};
use umbra_server::hub::{Attachment, Hub, News, Online};
use umbra_server::store::devices::{DeviceCertificate, Row};

#[derive(Arbitrary, Debug)]
enum Step {
    Attach(u8),
    Drop(u8),
    Listen(u8, u8),
    Tell(u8, bool),
    TellAll,
    Flood(u8),
    End(u8),
    Run { row: u8, run: u8 },
    ForgetRuns(u8),
}

fn online() -> Online {
    Online {
        peer: "192.0.2.1:1".parse().expect("an address"),
        gateway: Some("gw".into()),
        certificate: DeviceCertificate {
            fingerprint: Fingerprint::from_bytes([1; 32]),
            device_id: DeviceId::from_bytes([2; 32]),
            der: Vec::new(),
        },
        facts: DeviceFacts {
            unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
            name: String::new(),
            os: String::new(),
            agent_version: String::new(),
            architecture: String::new(),
            shadowing: false,
            shadow_port: None,
            addresses: Vec::new(),
            secure_mode: true,
        },
        last_heard: Arc::default(),
    }
}

struct Link {
    row: i64,
    attachment: Attachment,
    /// News that were taken for it and not heard yet.
    waiting: Vec<News>,
    ended: Option<RefusalCode>,
}

const ROOM: usize = 64;

#[derive(Default)]
struct Model {
    hub: Hub,
    links: Vec<Link>,
    /// For each device the place of its link.
    newest: BTreeMap<i64, usize>,
}

impl Model {
    fn tell(&mut self, row: i64, news: &News) {
        let told = self.hub.tell(Row(row), news.clone());
        let Some(link) = self.newest.get(&row).copied() else {
            assert!(told.is_err(), "told to nobody");
            return;
        };
        if self.links[link].waiting.len() < ROOM {
            assert!(told.is_ok(), "cut off though there is room");
            self.links[link].waiting.push(news.clone());
        } else {
            assert!(told.is_err(), "it grows");
            self.links[link].ended = Some(RefusalCode::TooSlow);
            self.newest.remove(&row);
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut model = Model::default();
    let mut runs: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for step in steps.iter().take(200) {
        let row = |number: u8| i64::from(number % 3);
        match step {
            Step::Attach(number) => {
                let row = row(*number);
                let attachment = model.hub.attach(Row(row), online());
                if let Some(older) = model.newest.insert(row, model.links.len()) {
                    model.links[older].ended = Some(RefusalCode::Superseded);
                }
                model.links.push(Link { row, attachment, waiting: Vec::new(), ended: None });
            }
            Step::Drop(which) if !model.links.is_empty() => {
                let place = usize::from(*which) % model.links.len();
                let link = model.links.remove(place);
                if model.newest.get(&link.row) == Some(&place) {
                    model.newest.remove(&link.row);
                }
                for newest in model.newest.values_mut().filter(|newest| **newest > place) {
                    *newest -= 1;
                }
            }
            Step::Drop(_) => {}
            Step::Listen(which, count) if !model.links.is_empty() => {
                let place = usize::from(*which) % model.links.len();
                let link = &mut model.links[place];
                for _ in 0..*count {
                    let Ok(news) = link.attachment.news.try_recv() else { break };
                    assert_eq!(news, link.waiting.remove(0), "news of somebody else, or in another order");
                }
            }
            Step::Listen(..) => {}
            Step::Tell(number, settings) => {
                model.tell(row(*number), if *settings { &News::Settings } else { &News::Commands });
            }
            Step::TellAll => {
                let rows: Vec<i64> = model.newest.keys().copied().collect();
                model.hub.tell_all(&News::Settings);
                for row in rows {
                    let link = model.newest[&row];
                    if model.links[link].waiting.len() < ROOM {
                        model.links[link].waiting.push(News::Settings);
                    } else {
                        model.links[link].ended = Some(RefusalCode::TooSlow);
                        model.newest.remove(&row);
                    }
                }
            }
            Step::Flood(number) => (0..ROOM).for_each(|_| model.tell(row(*number), &News::Commands)),
            Step::End(number) => {
                let row = row(*number);
                model.hub.end(Row(row), Refusal::new(RefusalCode::ShuttingDown, "Bye."));
                if let Some(link) = model.newest.remove(&row) {
                    model.links[link].ended = Some(RefusalCode::ShuttingDown);
                }
            }
            Step::Run { row: number, run } => {
                let known = runs.entry(number % 3).or_default();
                let again = known.last() != Some(run) && known.contains(run);
                let told = model.hub.takes_turns(Row(row(*number)), RunId::from_bytes([*run; 16]));
                assert_eq!(told, again, "{run} after {known:?}");
                known.retain(|earlier| earlier != run);
                known.push(*run);
            }
            Step::ForgetRuns(number) => {
                model.hub.forget_runs(Row(row(*number)));
                runs.remove(&(number % 3));
            }
        }
        for row in 0..3 {
            assert_eq!(model.hub.find(Row(row)).is_some(), model.newest.contains_key(&row), "who is online");
        }
        for link in &model.links {
            assert_eq!(link.attachment.end.borrow().as_ref().map(|refusal| refusal.code), link.ended);
        }
        assert_eq!(usize::try_from(model.hub.through("gw")).ok(), Some(model.newest.len()));
    }
});
