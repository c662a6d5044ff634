//! The machine with a person and a device that are written down, and simulated time.

use std::time::Duration;

use umbra_protocol::credentials::Credentials;
use umbra_protocol::{Fingerprint, Secret};

use super::*;
use crate::event::{Again, LogOnStage, Plan, Reached, Stage};
use crate::view::{Item, State, Step};

const KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";
const HOST: &str = "gw.example.com";

pub(super) fn root() -> Fingerprint {
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(index * 7 + 10).unwrap_or(0);
    }
    Fingerprint::from_bytes(bytes)
}

fn address() -> Address {
    Address {
        host: HOST.into(),
        port: 8443,
    }
}

pub(super) fn credentials() -> Credentials {
    Credentials {
        endpoints: vec![umbra_protocol::credentials::Endpoint {
            host: HOST.into(),
            port: 8443,
            root_fingerprint: root(),
        }],
        key: umbra_protocol::first_auth::FirstAuthKey::parse(KEY).expect("a key"),
    }
}

fn stick() -> Found {
    Found::of_credentials(
        &credentials(),
        Source::Stick {
            medium: "/media/stick".into(),
            file: "icg.xml".into(),
        },
    )
}

/// A machine, its clock, and what it asked for last.
struct Desk {
    machine: Machine,
    now: Moment,
    asked: Vec<Effect>,
}

impl Desk {
    fn with(start: Start) -> Self {
        Self::under(start, Rules::default())
    }

    fn under(start: Start, rules: Rules) -> Self {
        let now = Duration::from_secs(100);
        let (machine, asked) = Machine::new(start, rules, now);
        Self {
            machine,
            now,
            asked,
        }
    }

    fn fresh() -> Self {
        Self::with(Start::Fresh(Language::En))
    }

    fn tell(&mut self, event: Event) {
        let asked = self.machine.handle(event, self.now);
        self.asked.extend(asked);
    }

    fn press(&mut self, action: &str) -> &mut Self {
        self.asked.clear();
        self.tell(Event::Input(Input::Press {
            action: action.into(),
        }));
        self
    }

    fn set(&mut self, entry: &str, text: &str) -> &mut Self {
        self.tell(Event::Input(Input::Set {
            entry: entry.into(),
            text: Secret::new(text),
        }));
        self
    }

    fn choose(&mut self, choice: &str, option: &str) -> &mut Self {
        self.tell(Event::Input(Input::Choose {
            choice: choice.into(),
            option: option.into(),
        }));
        self
    }

    fn view(&self) -> View {
        self.machine.view(self.now)
    }

    fn step(&self) -> Step {
        self.view().step
    }

    fn notice(&self) -> String {
        self.view()
            .notice
            .map_or_else(String::new, |notice| notice.text)
    }

    fn can(&self, action: &str) -> bool {
        self.view()
            .actions
            .iter()
            .any(|offered| offered.id == action && offered.enabled)
    }

    /// Lets time pass as a driver would: with a tick at each deadline.
    fn wait(&mut self, long: Duration) {
        let end = self.now + long;
        while let Some(due) = self.machine.next_deadline(self.now) {
            if due > end {
                break;
            }
            assert!(due > self.now, "a deadline that is already due never ends");
            self.now = due;
            self.tell(Event::Tick);
        }
        self.now = end;
    }

    fn stored(&self) -> Option<Progress> {
        self.asked.iter().rev().find_map(|effect| match effect {
            Effect::Store(progress) => Some(progress.clone()),
            Effect::Discover { .. }
            | Effect::LookAtSticks
            | Effect::ResolveMail { .. }
            | Effect::Check { .. }
            | Effect::LogOn { .. }
            | Effect::Stop
            | Effect::Forget
            | Effect::Finish(_) => None,
        })
    }

    fn check_job(&self) -> (Job, Endpoint) {
        self.asked
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::Check { job, endpoint } => Some((*job, endpoint.clone())),
                Effect::Discover { .. }
                | Effect::LookAtSticks
                | Effect::ResolveMail { .. }
                | Effect::LogOn { .. }
                | Effect::Store(_)
                | Effect::Stop
                | Effect::Forget
                | Effect::Finish(_) => None,
            })
            .expect("a check was asked for")
    }

    fn plan(&self) -> (Job, Plan) {
        self.asked
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::LogOn { job, plan } => Some((*job, plan.clone())),
                Effect::Discover { .. }
                | Effect::LookAtSticks
                | Effect::ResolveMail { .. }
                | Effect::Check { .. }
                | Effect::Store(_)
                | Effect::Stop
                | Effect::Forget
                | Effect::Finish(_) => None,
            })
            .expect("logging on was asked for")
    }

    fn search_job(&self) -> Job {
        self.asked
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::Discover { job } | Effect::ResolveMail { job, .. } => Some(*job),
                Effect::LookAtSticks
                | Effect::Check { .. }
                | Effect::LogOn { .. }
                | Effect::Store(_)
                | Effect::Stop
                | Effect::Forget
                | Effect::Finish(_) => None,
            })
            .expect("a search was asked for")
    }

    /// The device reaches the server, and its root is this one.
    fn reach(&mut self, root: Fingerprint, public_ca: Option<&str>) {
        let (job, endpoint) = self.check_job();
        for stage in Stage::ALL {
            self.tell(Event::Checking {
                job,
                stage,
                state: State::Running,
                sentence: "".into(),
            });
            self.tell(Event::Checking {
                job,
                stage,
                state: State::Good,
                sentence: "works".into(),
            });
        }
        self.tell(Event::Reached {
            job,
            reached: Reached {
                address: endpoint.address,
                root: Some(root),
                public_ca: public_ca.map(Into::into),
            },
        });
    }

    /// The part that is asked for, and its number from 1.
    fn missing(&self) -> (String, usize) {
        let view = self.view();
        let label = view
            .items
            .iter()
            .find_map(|item| match item {
                Item::Entry { id, label, .. } if id == "part" => Some(label.clone()),
                Item::Entry { .. }
                | Item::Choice { .. }
                | Item::Progress { .. }
                | Item::Fact { .. } => None,
            })
            .expect("a part is asked for");
        let number: usize = label
            .chars()
            .find(char::is_ascii_digit)
            .and_then(|digit| digit.to_digit(10))
            .and_then(|digit| usize::try_from(digit).ok())
            .expect("its number");
        (root().parts()[number - 1].clone(), number)
    }

    fn to_address() -> Self {
        let mut desk = Self::fresh();
        desk.press("next");
        desk
    }

    fn to_check() -> Self {
        let mut desk = Self::to_address();
        desk.set("address", HOST).press("next");
        desk
    }

    fn to_fingerprint() -> Self {
        let mut desk = Self::to_check();
        desk.reach(root(), None);
        desk.press("next");
        desk
    }

    fn to_key() -> Self {
        let mut desk = Self::to_fingerprint();
        let (part, _) = desk.missing();
        desk.set("part", &part).press("next");
        desk
    }

    fn to_log_on() -> Self {
        let mut desk = Self::to_key();
        desk.set("key", KEY).press("next");
        desk
    }

    fn to_ready() -> Self {
        let mut desk = Self::to_log_on();
        let (job, plan) = desk.plan();
        for stage in LogOnStage::ALL {
            desk.tell(Event::LoggingOn { job, stage });
        }
        desk.tell(Event::LoggedOn {
            job,
            taken: TakenOn {
                address: plan.address,
                device_name: "reception".into(),
                online: Some(true),
            },
        });
        desk
    }
}

#[test]
fn a_person_who_makes_no_mistake_gets_to_connection_ready() {
    let mut desk = Desk::fresh();
    assert_eq!(desk.step(), Step::Language);
    desk.press("next");
    assert_eq!(desk.step(), Step::Address);
    desk.set("address", " gw.example.com ").press("next");
    assert_eq!(desk.step(), Step::Check);
    assert!(desk.view().busy && !desk.can("next"));
    assert_eq!(desk.check_job().1.address, address());
    desk.reach(root(), None);
    assert!(!desk.view().busy);
    desk.press("next");
    assert_eq!(desk.step(), Step::Fingerprint);
    let (part, _) = desk.missing();
    desk.set("part", &part).press("next");
    assert_eq!(desk.step(), Step::Key);
    desk.set("key", KEY).press("next");
    assert_eq!(desk.step(), Step::LogOn);
    let (job, plan) = desk.plan();
    assert_eq!(plan.trust, Trust::Fingerprint(root()));
    assert_eq!(plan.key, Secret::new(KEY));
    desk.tell(Event::LoggedOn {
        job,
        taken: TakenOn {
            address: plan.address,
            device_name: "reception\u{1b}[2J".into(),
            online: Some(true),
        },
    });
    let view = desk.view();
    assert_eq!(
        (view.step, view.title.as_str()),
        (Step::Ready, "Connection ready")
    );
    assert!(!format!("{view:?}").contains("u{1b}"), "{view:?}");
    assert_eq!(desk.asked.last(), Some(&Effect::Forget));
    desk.press("finish");
    assert!(desk.machine.is_over());
    assert_eq!(desk.asked, [Effect::Finish(Outcome::Ready)]);
}

#[test]
fn the_language_changes_every_text_at_once() {
    let mut desk = Desk::to_ready();
    assert_eq!(desk.view().title, "Connection ready");
    desk = Desk::fresh();
    desk.choose("language", "de");
    let view = desk.view();
    assert_eq!(
        (view.language, view.title.as_str()),
        (Language::De, "Sprache")
    );
    desk.press("next");
    assert_eq!(desk.view().title, "Server finden");
    assert_eq!(desk.stored().map(|kept| kept.language), Some(Language::De));
    desk.choose("language", "xx");
    assert_eq!(desk.view().language, Language::De);
}

#[test]
fn three_parts_are_shown_and_the_missing_one_is_not() {
    let desk = Desk::to_fingerprint();
    let (part, number) = desk.missing();
    let shown = serde_json::to_string(&desk.view()).expect("serialises");
    assert!(!shown.contains(&part) && !shown.contains(&crate::text::grouped(&part)));
    for (index, other) in root().parts().iter().enumerate() {
        if index + 1 != number {
            assert!(shown.contains(&crate::text::grouped(other)), "{shown}");
        }
    }
}

#[test]
fn which_part_is_missing_depends_on_chance_and_stays_for_a_server() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64_u64 {
        let rules = Rules {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..Rules::default()
        };
        let mut desk = Desk::under(Start::Fresh(Language::En), rules);
        desk.press("next").set("address", HOST).press("next");
        desk.reach(root(), None);
        desk.press("next");
        let first = desk.missing();
        seen.insert(first.1);
        // Neither going back nor starting again shows what is asked.
        desk.press("back").press("next");
        desk.reach(root(), None);
        let kept = {
            desk.press("next");
            desk.stored().expect("kept")
        };
        assert_eq!(desk.missing(), first);
        let mut again = Desk::with(Start::Resume(kept));
        again.reach(root(), None);
        again.press("next");
        assert_eq!(again.missing(), first);
    }
    assert_eq!(seen.len(), 4, "each part is asked for sometimes");
}

#[test]
fn a_part_may_be_typed_as_people_type() {
    let (part, _) = Desk::to_fingerprint().missing();
    let spaced = crate::text::grouped(&part).to_lowercase();
    let colons: Vec<String> = part
        .as_bytes()
        .chunks(2)
        .map(|two| String::from_utf8_lossy(two).into_owned())
        .collect();
    let whole = root().to_string();
    for typed in [
        spaced.clone(),
        colons.join(":"),
        part.replace('0', "O"),
        part.replace('1', "l"),
        format!("  {part}\n"),
        whole,
    ] {
        let mut desk = Desk::to_fingerprint();
        desk.set("part", &typed).press("next");
        assert_eq!(desk.step(), Step::Key, "{typed:?}");
    }
}

#[test]
fn credentials_pasted_as_a_part_count_by_their_fingerprint_and_do_not_show_their_key() {
    let mut desk = Desk::to_fingerprint();
    let text = credentials().to_text();
    desk.set("part", &text[..300]);
    assert!(
        desk.notice().contains("Copy all of it"),
        "{}",
        desk.notice()
    );
    desk.set("part", &text);
    let shown = serde_json::to_string(&desk.view()).expect("serialises");
    assert!(!shown.contains("ABCDE"), "{shown}");
    desk.press("next");
    assert_eq!(desk.step(), Step::Key);
    let mut others = credentials();
    others.endpoints[0].root_fingerprint = Fingerprint::from_bytes([3; 32]);
    let mut desk = Desk::to_fingerprint();
    desk.set("part", &others.to_text()).press("next");
    assert_eq!(desk.stored().map(|kept| kept.wrong), Some(1));
}

#[test]
fn what_is_no_part_or_another_part_is_told_and_not_counted() {
    let mut desk = Desk::to_fingerprint();
    let (_, number) = desk.missing();
    let other = (number % 4) + 1;
    for _ in 0..5 {
        desk.set("part", "0123").press("next");
        assert!(desk.notice().contains("This has 4."), "{}", desk.notice());
        desk.set("part", &root().parts()[other - 1]).press("next");
        assert!(
            desk.notice().contains(&format!("This is part {other}")),
            "{}",
            desk.notice()
        );
    }
    assert!(desk.can("next"));
    assert_eq!(desk.step(), Step::Fingerprint);
}

#[test]
fn three_wrong_parts_are_free_and_then_every_try_waits_longer() {
    let mut desk = Desk::to_fingerprint();
    let (part, _) = desk.missing();
    let wrong = "0000000000000000";
    for _ in 0..2 {
        desk.set("part", wrong).press("next");
        assert!(desk.can("next"), "{}", desk.notice());
    }
    for (count, seconds) in [
        (3_u64, 30_u64),
        (4, 60),
        (5, 120),
        (6, 240),
        (7, 480),
        (8, 900),
        (9, 900),
    ] {
        desk.set("part", wrong).press("next");
        assert!(!desk.can("next"));
        let said = desk.notice();
        assert!(
            said.contains(&format!("{seconds} seconds")) && said.contains(&count.to_string()),
            "{said}"
        );
        // Neither the right part nor going back gets round it.
        desk.set("part", &part).press("next");
        assert_eq!(desk.step(), Step::Fingerprint);
        desk.wait(Duration::from_secs(seconds - 1));
        assert!(desk.notice().contains(" 1 seconds"), "{}", desk.notice());
        assert!(!desk.can("next"));
        desk.wait(Duration::from_secs(1));
        assert!(
            desk.can("next") && desk.notice().contains("try again"),
            "{}",
            desk.notice()
        );
    }
    desk.set("part", &part).press("next");
    assert_eq!(desk.step(), Step::Key);
    assert_eq!(desk.stored().map(|kept| kept.wrong), Some(0));
}

#[test]
fn the_end_of_a_pause_is_told_even_if_something_else_comes_at_that_moment() {
    let mut desk = Desk::to_fingerprint();
    for _ in 0..3 {
        desk.set("part", "0000000000000000").press("next");
    }
    // Something was heard just then, so the tick that was due is asked for again.
    desk.now += Duration::from_secs(30);
    let due = desk.machine.next_deadline(desk.now);
    assert_eq!(due, Some(desk.now));
    desk.machine.handle(Event::Tick, desk.now);
    assert!(desk.notice().contains("try again"), "{}", desk.notice());
    assert_eq!(desk.machine.next_deadline(desk.now), None);
}

#[test]
fn going_back_or_starting_again_does_not_shorten_a_pause() {
    let mut desk = Desk::to_fingerprint();
    for _ in 0..3 {
        desk.set("part", "0000000000000000").press("next");
    }
    let kept = desk.stored().expect("kept");
    assert_eq!(kept.wrong, 3);
    desk.press("back").press("next");
    desk.reach(root(), None);
    desk.press("next");
    assert!(!desk.can("next"));
    let mut again = Desk::with(Start::Resume(kept));
    again.reach(root(), None);
    again.press("next");
    assert_eq!(again.step(), Step::Fingerprint);
    assert!(
        !again.can("next") && again.notice().contains("30 seconds"),
        "{}",
        again.notice()
    );
}

#[test]
fn a_public_authority_makes_the_fingerprint_needless_unless_it_is_required() {
    let mut desk = Desk::to_check();
    desk.reach(root(), Some("Example Trust Root"));
    desk.press("next");
    assert_eq!(desk.step(), Step::Key);
    assert!(desk.view().text[0].contains("Example Trust Root"));
    desk.set("key", KEY).press("next");
    assert_eq!(desk.plan().1.trust, Trust::PublicCa);

    let strict = Rules {
        require_fingerprint: true,
        ..Rules::default()
    };
    let mut desk = Desk::under(Start::Fresh(Language::En), strict);
    desk.press("next").set("address", HOST).press("next");
    desk.reach(root(), Some("Example Trust Root"));
    desk.press("next");
    assert_eq!(desk.step(), Step::Fingerprint);
}

#[test]
fn credentials_on_a_stick_are_offered_and_never_applied_unasked() {
    let mut desk = Desk::to_address();
    let sticks = |found: Vec<Found>| Event::Sticks {
        found,
        problems: vec!["icg.txt is damaged".into()],
    };
    desk.tell(sticks(vec![stick()]));
    let view = desk.view();
    assert!(view.text.iter().any(|line| line.contains("damaged")));
    let Some(Item::Choice {
        options, selected, ..
    }) = view.items.first()
    else {
        panic!("a choice: {view:?}");
    };
    assert_eq!(options[0].label, "gw.example.com:8443");
    assert!(options[0].detail.contains("icg.xml"), "{options:?}");
    assert_eq!(selected.as_deref(), Some("typed"));
    desk.press("next");
    assert_eq!(desk.step(), Step::Address, "nothing was chosen");

    desk.choose("found", "found-0").press("next");
    assert_eq!(desk.check_job().1.root, Some(root()));
    desk.reach(root(), None);
    desk.press("next");
    assert_eq!(desk.step(), Step::Key, "the credentials name the root");
    let view = desk.view();
    assert!(
        !serde_json::to_string(&view)
            .expect("serialises")
            .contains("ABCDE")
    );
    desk.press("next");
    assert_eq!(desk.plan().1.key, Secret::new(KEY));
}

#[test]
fn a_stick_that_was_pulled_out_is_no_choice_any_more() {
    let mut desk = Desk::to_address();
    let sticks = |found: Vec<Found>| Event::Sticks {
        found,
        problems: Vec::new(),
    };
    desk.tell(sticks(vec![stick()]));
    desk.choose("found", "found-0");
    desk.tell(sticks(vec![stick()]));
    desk.tell(sticks(Vec::new()));
    desk.press("next");
    assert_eq!(desk.step(), Step::Address);
    desk.wait(STICKS_EVERY);
    assert!(desk.asked.contains(&Effect::LookAtSticks));
}

#[test]
fn a_server_with_another_root_than_the_credentials_name_is_not_gone_on_with() {
    let mut desk = Desk::to_address();
    desk.tell(Event::Sticks {
        found: vec![stick()],
        problems: Vec::new(),
    });
    desk.choose("found", "found-0").press("next");
    // Not even a public authority helps: the credentials say which root it is.
    desk.reach(Fingerprint::from_bytes([1; 32]), Some("Example Trust Root"));
    assert!(!desk.can("next"));
    let view = desk.view();
    assert!(
        format!("{view:?}").contains("call your administrator"),
        "{view:?}"
    );
}

#[test]
fn the_key_of_credentials_is_not_used_for_another_server() {
    let mut desk = Desk::to_address();
    desk.tell(Event::Sticks {
        found: vec![stick()],
        problems: Vec::new(),
    });
    desk.choose("found", "found-0").press("next");
    desk.reach(root(), None);
    desk.press("next").press("back");
    assert_eq!(desk.step(), Step::Address);
    desk.set("address", "other.example.com").press("next");
    desk.reach(Fingerprint::from_bytes([1; 32]), Some("Example Trust Root"));
    desk.press("next").press("next");
    assert_eq!(desk.step(), Step::Key);
    assert_eq!(desk.notice(), "Type or paste the key.");
}

#[test]
fn of_several_ways_in_each_is_tried_until_one_works() {
    let mut several = stick();
    let other = Endpoint {
        address: Address {
            host: "down.example.com".into(),
            port: 443,
        },
        root: Some(root()),
    };
    several.endpoints.insert(0, other);
    let mut desk = Desk::to_address();
    desk.tell(Event::Sticks {
        found: vec![several],
        problems: Vec::new(),
    });
    desk.choose("found", "found-0").press("next");
    let (job, endpoint) = desk.check_job();
    assert_eq!(endpoint.address.host, "down.example.com");
    desk.tell(Event::NotReached {
        job,
        sentence: "nobody answers".into(),
    });
    assert_eq!(desk.check_job().1.address, address());
    // An answer about the first one comes too late.
    desk.tell(Event::NotReached {
        job,
        sentence: "nobody answers".into(),
    });
    desk.reach(root(), None);
    assert!(
        desk.notice()
            .contains("down.example.com:443: nobody answers"),
        "{}",
        desk.notice()
    );
    desk.press("next");
    assert_eq!(desk.step(), Step::Key);
}

#[test]
fn a_failed_stage_is_marked_and_told_and_the_check_can_be_tried_again() {
    for (language, other) in [
        (Language::En, "Other address"),
        (Language::De, "Andere Adresse"),
    ] {
        let mut desk = Desk::with(Start::Fresh(language));
        desk.press("next").set("address", HOST).press("next");
        let (job, _) = desk.check_job();
        let failed = Event::Checking {
            job,
            stage: Stage::Tcp,
            state: State::Failed,
            sentence: "nobody answers at 10.0.0.1\u{1b}".into(),
        };
        desk.tell(failed);
        desk.tell(Event::NotReached {
            job,
            sentence: "nobody answers".into(),
        });
        let view = desk.view();
        let line = view
            .items
            .iter()
            .find(|item| matches!(item, Item::Progress { id, .. } if id == "tcp"));
        assert!(
            matches!(line, Some(Item::Progress { state: State::Failed, sentence, .. })
                if sentence.contains("nobody answers at 10.0.0.1\u{fffd}")),
            "{line:?}"
        );
        assert!(view.actions.iter().any(|action| action.label == other));
        desk.press("again");
        assert!(desk.check_job().0 > job);
        assert!(desk.view().busy);
    }
}

#[test]
fn a_mail_address_asks_its_domain_and_shows_the_answer_before_it_is_used() {
    let mut desk = Desk::to_address();
    desk.set("address", "Somebody@Example.COM").press("next");
    assert!(desk.view().busy && !desk.can("next"));
    let job = desk.search_job();
    assert_eq!(
        desk.asked,
        [Effect::ResolveMail {
            job,
            domain: "example.com".into()
        }]
    );
    desk.tell(Event::Discovered {
        job,
        found: vec![Found {
            source: Source::Record {
                domain: "example.com".into(),
            },
            endpoints: vec![Endpoint {
                address: address(),
                root: None,
            }],
            key: None,
        }],
        problems: Vec::new(),
    });
    assert_eq!(desk.step(), Step::Address);
    assert!(
        desk.notice().contains("gw.example.com:8443"),
        "{}",
        desk.notice()
    );
    desk.press("next");
    assert_eq!(desk.check_job().1.address, address());
}

#[test]
fn a_domain_that_names_nothing_is_told_with_what_was_wrong() {
    let mut desk = Desk::to_address();
    desk.set("address", "a@example.com").press("next");
    let job = desk.search_job();
    desk.tell(Event::Discovered {
        job,
        found: Vec::new(),
        problems: vec!["the record is garbage".into()],
    });
    assert!(desk.notice().contains("example.com names no gateway"));
    assert!(
        desk.view()
            .text
            .iter()
            .any(|line| line == "the record is garbage")
    );
}

#[test]
fn mistakes_in_an_address_are_told_by_their_kind() {
    for (typed, said) in [
        ("", "Type an address"),
        ("host:0", "1 to 65535"),
        ("host:99999", "1 to 65535"),
        ("two words", "not a host name"),
        ("1.2.3.400", "not a host name"),
        ("pаypal.com", "xn--"),
        ("@example.com", "e-mail"),
        ("a b@example.com", "e-mail"),
    ] {
        let mut desk = Desk::to_address();
        desk.set("address", typed).press("next");
        assert_eq!(desk.step(), Step::Address, "{typed:?}");
        assert!(desk.notice().contains(said), "{typed:?}: {}", desk.notice());
    }
    for (typed, host, port) in [
        (
            "https://gw.example.com:443/usg/endpoint",
            "gw.example.com",
            443,
        ),
        ("[2001:db8::1]:9000", "2001:db8::1", 9000),
        ("2001:db8::1", "2001:db8::1", 8443),
        ("192.0.2.10:8443", "192.0.2.10", 8443),
    ] {
        let mut desk = Desk::to_address();
        desk.set("address", typed).press("next");
        let found = desk.check_job().1.address;
        assert_eq!((found.host.as_str(), found.port), (host, port), "{typed:?}");
    }
}

#[test]
fn credentials_pasted_as_an_address_are_offered_and_their_key_is_not_shown() {
    let text = credentials().to_text();
    for pasted in [text.to_string(), text.replace('\n', "\r\n")] {
        let mut desk = Desk::to_address();
        desk.set("address", &pasted);
        let shown = serde_json::to_string(&desk.view()).expect("serialises");
        assert!(
            !shown.contains("ABCDE") && shown.contains("that you pasted"),
            "{shown}"
        );
        desk.press("next");
        assert_eq!(desk.check_job().1.root, Some(root()));
        assert!(!format!("{:?}", desk.stored()).contains("ABCDE"));
    }
    let half: String = text.chars().take(200).collect();
    let mut desk = Desk::to_address();
    desk.set("address", &half);
    assert!(
        desk.notice().contains("Copy all of it"),
        "{}",
        desk.notice()
    );
}

#[test]
fn the_key_is_hidden_until_it_is_to_be_seen_and_hidden_again_afterwards() {
    let mut desk = Desk::to_key();
    desk.set("key", KEY);
    let entry = |desk: &Desk| {
        let view = desk.view();
        let Some(Item::Entry { text, revealed, .. }) = view.items.first() else {
            panic!("an entry: {view:?}");
        };
        (text.clone(), *revealed)
    };
    assert_eq!(entry(&desk), ("•".repeat(KEY.len()), false));
    let reveal = |on| {
        Event::Input(Input::Reveal {
            entry: "key".into(),
            on,
        })
    };
    desk.tell(reveal(true));
    assert_eq!(entry(&desk), (KEY.to_owned(), true));
    desk.tell(reveal(false));
    assert!(!entry(&desk).1);
    desk.tell(reveal(true));
    desk.press("back")
        .set("part", &Desk::to_fingerprint().missing().0)
        .press("next");
    assert!(!entry(&desk).1, "a screen that was left hides it again");
}

#[test]
fn a_key_is_read_as_people_paste_it() {
    for typed in [
        format!("  {KEY}\r\n"),
        KEY.to_lowercase(),
        KEY.replace('-', " "),
    ] {
        let mut desk = Desk::to_key();
        desk.set("key", &typed).press("next");
        assert_eq!(desk.step(), Step::LogOn, "{typed:?}");
    }
    for (typed, said) in [
        ("", "Type or paste the key."),
        ("schlüssel-schlüssel", "in no key"),
    ] {
        let mut desk = Desk::to_key();
        desk.set("key", typed).press("next");
        assert_eq!(desk.notice(), desk.notice());
        assert!(desk.notice().contains(said), "{typed:?}: {}", desk.notice());
    }
    // The whole text does as well, if it is for this server.
    let mut desk = Desk::to_key();
    desk.set("key", &credentials().to_text()).press("next");
    assert_eq!(desk.plan().1.key, Secret::new(KEY));
    let mut others = credentials();
    others.endpoints[0].root_fingerprint = Fingerprint::from_bytes([3; 32]);
    let mut desk = Desk::to_key();
    desk.set("key", &others.to_text());
    assert!(
        desk.notice().contains("another server"),
        "{}",
        desk.notice()
    );
}

#[test]
fn after_a_refusal_the_person_can_go_on_where_it_helps() {
    for (again, default) in [
        (Again::Key, "key"),
        (Again::Later, "again"),
        (Again::Address, "address"),
    ] {
        let mut desk = Desk::to_log_on();
        assert!(!desk.can("back"), "a key may be on its way");
        let (job, _) = desk.plan();
        desk.tell(Event::Refused {
            job,
            sentence: "the key is used up".into(),
            again,
        });
        assert!(desk.notice().contains("the key is used up"));
        let view = desk.view();
        let pressed = view.actions.iter().find(|action| action.default);
        assert_eq!(pressed.map(|action| action.id.as_str()), Some(default));
        desk.press("back");
        assert_eq!(desk.step(), Step::Key);
    }
    let mut desk = Desk::to_log_on();
    let (job, first) = desk.plan();
    desk.tell(Event::Refused {
        job,
        sentence: "busy".into(),
        again: Again::Later,
    });
    desk.press("again");
    let (next, second) = desk.plan();
    assert!(next > job && first == second);
}

#[test]
fn every_step_goes_back_to_the_one_before() {
    let mut desk = Desk::to_key();
    for step in [Step::Fingerprint, Step::Address, Step::Language] {
        desk.press("back");
        assert_eq!(desk.step(), step);
    }
    assert!(!desk.can("back"));
    let mut desk = Desk::to_check();
    desk.press("back");
    assert_eq!(desk.step(), Step::Address);
    assert!(desk.asked.contains(&Effect::Stop));
}

#[test]
fn leaving_is_asked_about_and_keeps_what_was_entered() {
    for mut desk in [
        Desk::to_address(),
        Desk::to_check(),
        Desk::to_fingerprint(),
        Desk::to_key(),
        Desk::to_log_on(),
    ] {
        let before = desk.view();
        desk.press("cancel");
        assert_eq!(desk.step(), Step::Leave);
        desk.press("stay");
        assert_eq!(desk.view(), before);
        desk.press("cancel").press("leave");
        assert_eq!(desk.asked.first(), Some(&Effect::Stop));
        assert!(desk.stored().is_some());
        assert_eq!(desk.asked.last(), Some(&Effect::Finish(Outcome::Left)));
    }
    let mut desk = Desk::to_key();
    desk.press("cancel").press("forget");
    assert_eq!(
        desk.asked,
        [Effect::Stop, Effect::Forget, Effect::Finish(Outcome::Left)]
    );
}

#[test]
fn what_goes_on_behind_the_question_about_leaving_is_not_lost() {
    let mut desk = Desk::to_log_on();
    let (job, plan) = desk.plan();
    desk.press("cancel");
    assert!(
        desk.view()
            .text
            .iter()
            .any(|line| line.contains("one-time key"))
    );
    desk.tell(Event::LoggedOn {
        job,
        taken: TakenOn {
            address: plan.address,
            device_name: "reception".into(),
            online: Some(true),
        },
    });
    assert_eq!(desk.step(), Step::Ready);
}

#[test]
fn a_power_cut_at_any_step_goes_on_at_that_step_without_the_key() {
    // Address: what was typed is there.
    let kept = {
        let mut desk = Desk::to_address();
        desk.set("address", "gw.example");
        desk.tell(Event::Input(Input::Close));
        desk.stored().expect("kept")
    };
    let desk = Desk::with(Start::Resume(kept));
    assert_eq!(desk.step(), Step::Address);
    assert!(format!("{:?}", desk.view()).contains("gw.example"));
    // Check and fingerprint: the check begins again.
    for mut desk in [Desk::to_check(), Desk::to_fingerprint()] {
        if desk.stored().is_none() {
            desk.asked.clear();
        }
        let kept = desk.stored().expect("kept when the step began");
        let mut again = Desk::with(Start::Resume(kept));
        assert_eq!(again.step(), Step::Check);
        again.reach(root(), None);
        again.press("next");
        assert_eq!(again.step(), Step::Fingerprint);
    }
    // Key and logging on: the comparison was made, the key is gone.
    for desk in [Desk::to_key(), Desk::to_log_on()] {
        let kept = desk
            .stored()
            .or_else(|| Desk::to_key().stored())
            .expect("kept");
        assert!(!format!("{kept:?}").contains("ABCDE"));
        let mut again = Desk::with(Start::Resume(kept));
        again.reach(root(), None);
        again.press("next");
        assert_eq!(again.step(), Step::Key);
        again.press("next");
        assert_eq!(again.notice(), "Type or paste the key.");
    }
    // Another server behind the same address is not taken for the one that was compared.
    let kept = Desk::to_key().stored().expect("kept");
    let mut again = Desk::with(Start::Resume(kept));
    again.reach(Fingerprint::from_bytes([9; 32]), None);
    again.press("next");
    assert_eq!(again.step(), Step::Fingerprint);
}

#[test]
fn a_device_that_has_a_server_and_a_second_assistant_are_told_so() {
    let mut desk = Desk::with(Start::Belongs {
        language: Language::De,
        address: address(),
    });
    assert!(desk.view().text[0].contains("gw.example.com:8443"));
    desk.press("finish");
    assert_eq!(desk.asked, [Effect::Finish(Outcome::Belonged)]);
    let mut desk = Desk::with(Start::Taken {
        language: Language::En,
        who: "root on tty1\u{1b}".into(),
    });
    assert!(desk.view().text[0].contains("root on tty1\u{fffd}"));
    desk.tell(Event::Input(Input::Close));
    assert_eq!(desk.asked, [Effect::Finish(Outcome::Taken)]);
    // Taken on from elsewhere in the middle.
    let mut desk = Desk::to_key();
    desk.tell(Event::Belongs { address: address() });
    assert_eq!(desk.step(), Step::Belongs);
    assert!(desk.asked.contains(&Effect::Forget));
}

#[test]
fn progress_reads_back_from_the_disk() {
    let kept = Desk::to_key().stored().expect("kept");
    let text = serde_json::to_string(&kept).expect("serialises");
    let read: Progress = serde_json::from_str(&text).expect("parses");
    assert_eq!(read, kept);
    assert!(kept.confirmed.is_some() && kept.checking);
}

#[test]
fn views_and_inputs_read_back_as_lines() {
    for desk in [
        Desk::fresh(),
        Desk::to_address(),
        Desk::to_check(),
        Desk::to_fingerprint(),
        Desk::to_key(),
        Desk::to_log_on(),
        Desk::to_ready(),
    ] {
        let line = serde_json::to_string(&desk.view()).expect("serialises");
        assert!(!line.contains('\n'));
        let read: View = serde_json::from_str(&line).expect("parses");
        assert_eq!(read, desk.view());
    }
    let read: Input =
        serde_json::from_str(r#"{"input":"set","entry":"key","text":"x"}"#).expect("parses");
    assert_eq!(
        read,
        Input::Set {
            entry: "key".into(),
            text: Secret::new("x")
        }
    );
    assert!(!format!("{read:?}").contains("\"x\""));
    assert!(serde_json::from_str::<Input>(r#"{"input":"press","action":"a","b":1}"#).is_err());
}
