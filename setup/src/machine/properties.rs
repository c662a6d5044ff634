//! What holds whatever comes: no sequence of inputs and events brings the machine down, and a key is seen where its person wants to
//! see it and nowhere else.

use std::time::Duration;

use proptest::prelude::*;
use umbra_protocol::{Fingerprint, Secret};

use super::tests::{credentials, root};
use super::*;
use crate::event::{Again, LogOnStage, Reached, Stage};
use crate::view::{Item, State};

/// The key, and how it may not be seen.
const KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";
const TELLING: [&str; 3] = ["ABCDE", "FGHJK", "STVWX"];

fn input() -> impl Strategy<Value = Input> {
    let text = prop_oneof![
        Just(KEY.to_owned()),
        Just("gw.example.com".to_owned()),
        Just("a@example.com".to_owned()),
        Just("0000000000000000".to_owned()),
        (0..4_usize).prop_map(|part| root().parts()[part].clone()),
        Just(credentials().to_text().to_string()),
        Just(credentials().to_text().chars().skip(30).collect()),
        ".{0,40}",
        Just("x".repeat(100_000)),
    ];
    // The key is only ever typed where a key belongs, or with credentials; what else is typed may be shown.
    prop_oneof![
        4 => (prop_oneof![Just("address"), Just("part")], text.clone()).prop_filter_map(
            "a key in an open line is shown there",
            |(entry, text)| (text != KEY).then(|| Input::Set { entry: entry.into(), text: Secret::new(text) })
        ),
        3 => text.prop_map(|text| Input::Set { entry: "key".into(), text: Secret::new(text) }),
        2 => (
            prop_oneof![Just("language"), Just("found"), Just("x")],
            prop_oneof![Just("de"), Just("en"), Just("typed"), Just("found-0"), Just("found-1"), Just("found-99999999999999999999")],
        ).prop_map(|(choice, option)| Input::Choose { choice: choice.into(), option: option.into() }),
        1 => any::<bool>().prop_map(|on| Input::Reveal { entry: "key".into(), on }),
        12 => prop_oneof![
            8 => Just("next"), 1 => Just("back"), 1 => Just("cancel"), 2 => Just("stay"), 1 => Just("again"),
            1 => Just("search"), 1 => Just("key"), 1 => Just("address"), 1 => Just("nonsense"),
        ].prop_map(|action| Input::Press { action: action.into() }),
    ]
}

/// An answer to whatever was asked last, right or wrong or late.
#[derive(Clone, Debug)]
enum Deed {
    Input(Input),
    Wait(u64),
    Stick(bool),
    Found,
    Stage(usize, bool),
    Reached(bool, bool),
    NotReached,
    Stage2(usize),
    LoggedOn,
    Refused(u8),
    Belongs,
    Late,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        20 => input().prop_map(Deed::Input),
        2 => (0..2_000_u64).prop_map(Deed::Wait),
        2 => any::<bool>().prop_map(Deed::Stick),
        1 => Just(Deed::Found),
        1 => (0..7_usize, any::<bool>()).prop_map(|(stage, good)| Deed::Stage(stage, good)),
        8 => (prop::bool::weighted(0.9), prop::bool::weighted(0.2)).prop_map(|(right, public)| Deed::Reached(right, public)),
        1 => Just(Deed::NotReached),
        1 => (0..4_usize).prop_map(Deed::Stage2),
        1 => Just(Deed::LoggedOn),
        2 => (0..3_u8).prop_map(Deed::Refused),
        1 => prop::bool::weighted(0.05).prop_map(|so| if so { Deed::Belongs } else { Deed::Late }),
    ]
}

fn event(deed: Deed, job: Job, now: &mut Moment) -> Event {
    let address = || Address {
        host: "gw.example.com".into(),
        port: 8443,
    };
    match deed {
        Deed::Input(input) => Event::Input(input),
        Deed::Wait(seconds) => {
            *now += Duration::from_secs(seconds);
            Event::Tick
        }
        Deed::Stick(there) => Event::Sticks {
            found: there
                .then(|| {
                    Found::of_credentials(
                        &credentials(),
                        Source::Stick {
                            medium: "stick".into(),
                            file: "icg.xml".into(),
                        },
                    )
                })
                .into_iter()
                .collect(),
            problems: vec!["\u{202e}\u{1b}[2J".into()],
        },
        Deed::Found => Event::Discovered {
            job,
            found: vec![Found {
                source: Source::Dhcp {
                    interface: "eth0".into(),
                },
                endpoints: vec![Endpoint {
                    address: address(),
                    root: None,
                }],
                key: None,
            }],
            problems: Vec::new(),
        },
        Deed::Stage(stage, good) => Event::Checking {
            job,
            stage: Stage::ALL[stage],
            state: if good { State::Good } else { State::Failed },
            sentence: "\u{1b}]0;x\u{7}".into(),
        },
        Deed::Reached(right, public) => Event::Reached {
            job,
            reached: Reached {
                address: address(),
                root: Some(if right {
                    root()
                } else {
                    Fingerprint::from_bytes([1; 32])
                }),
                public_ca: public.then(|| "Example".to_owned()),
            },
        },
        Deed::NotReached => Event::NotReached {
            job,
            sentence: "x".into(),
        },
        Deed::Stage2(stage) => Event::LoggingOn {
            job,
            stage: LogOnStage::ALL[stage],
        },
        Deed::LoggedOn => Event::LoggedOn {
            job,
            taken: TakenOn {
                address: address(),
                device_name: "\u{1b}[31m".into(),
                online: None,
            },
        },
        Deed::Refused(kind) => Event::Refused {
            job,
            sentence: "no".into(),
            again: match kind {
                0 => Again::Key,
                1 => Again::Later,
                _ => Again::Address,
            },
        },
        Deed::Belongs => Event::Belongs { address: address() },
        Deed::Late => Event::NotReached {
            job: Job(0),
            sentence: "late".into(),
        },
    }
}

fn shows_a_key(view: &View) -> bool {
    let shown = format!("{view:?}");
    TELLING.iter().any(|piece| shown.contains(piece))
}

fn is_revealed(view: &View) -> bool {
    view.items.iter().any(|item| match item {
        Item::Entry {
            secret, revealed, ..
        } => *secret && *revealed,
        Item::Choice { .. } | Item::Progress { .. } | Item::Fact { .. } => false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_brings_the_machine_down_and_no_key_is_seen_unasked(
        seed in any::<u64>(),
        strict in any::<bool>(),
        deeds in prop::collection::vec(deed(), 0..120),
    ) {
        let mut now = Duration::from_secs(1);
        let rules = Rules { require_fingerprint: strict, seed };
        let (mut machine, _) = Machine::new(Start::Fresh(Language::En), rules, now);
        let mut compared = None;
        for deed in deeds {
            let job = Job(machine.last_job);
            let effects = machine.handle(event(deed, job, &mut now), now);
            let view = machine.view(now);
            // The example below the line of the key has the form of one.
            let view = View { items: view.items.into_iter().map(without_hint).collect(), ..view };
            prop_assert!(is_revealed(&view) || !shows_a_key(&view), "{view:?}");
            let text = format!("{view:?}");
            let strange = ["u{1b}", "u{202e}"].iter().any(|strange| text.contains(strange));
            prop_assert!(!strange, "{text}");
            prop_assert!(view.actions.iter().filter(|action| action.default).count() <= 1);
            prop_assert!(machine.is_over() || view.actions.iter().any(|action| action.enabled));
            prop_assert!(view.number <= view.of);
            for effect in effects {
                match effect {
                    Effect::Store(progress) => {
                        compared = progress.confirmed.or(compared);
                        let kept = serde_json::to_string(&progress).expect("serialises");
                        prop_assert!(!TELLING.iter().any(|piece| kept.contains(piece)), "{kept}");
                    }
                    // Whoever is logged on to was vouched for: by the comparison, by credentials, or by an authority.
                    Effect::LogOn { plan, .. } => match plan.trust {
                        Trust::Fingerprint(trusted) => prop_assert!(
                            compared == Some(trusted) || trusted == root()
                        ),
                        Trust::PublicCa => prop_assert!(!strict),
                    },
                    Effect::Discover { .. } | Effect::LookAtSticks | Effect::ResolveMail { .. } | Effect::Check { .. }
                    | Effect::Stop | Effect::Forget | Effect::Finish(_) => {}
                }
            }
            if let Some(due) = machine.next_deadline(now) {
                prop_assert!(due > now || matches!(machine.at, At::Address(_)), "{due:?} at {now:?}");
            }
        }
    }

    #[test]
    fn no_progress_on_the_disk_brings_the_machine_down(
        typed in ".{0,600}",
        checking in any::<bool>(),
        part in any::<u8>(),
        wrong in any::<u32>(),
        ways in 0..40_usize,
        confirmed in any::<bool>(),
    ) {
        let endpoint = Endpoint { address: Address { host: typed.clone(), port: 0 }, root: None };
        let progress = Progress {
            version: PROGRESS_VERSION,
            language: Language::De,
            typed,
            endpoints: vec![endpoint; ways],
            checking,
            confirmed: confirmed.then(root),
            asked: Some((root(), part)),
            wrong,
        };
        let now = Duration::from_secs(1);
        let (mut machine, effects) = Machine::new(Start::Resume(progress), Rules::default(), now);
        prop_assert!(!effects.is_empty());
        let job = Job(machine.last_job);
        let reached = Reached { address: Address { host: "h".into(), port: 1 }, root: Some(root()), public_ca: None };
        machine.handle(Event::Reached { job, reached }, now);
        machine.handle(Event::Input(Input::Press { action: "next".into() }), now);
        // Where a part is asked for, its pause has to pass before it is compared.
        let later = now + Duration::from_secs(3_600);
        let typed = Secret::new(root().parts()[0].as_str());
        machine.handle(Event::Input(Input::Set { entry: "part".into(), text: typed }), later);
        machine.handle(Event::Input(Input::Press { action: "next".into() }), later);
        let view = machine.view(now);
        let text = format!("{view:?}");
        let escaped = "u{1b}";
        prop_assert!(!text.contains(escaped));
    }
}

fn without_hint(item: Item) -> Item {
    match item {
        Item::Entry {
            id,
            label,
            text,
            secret,
            revealed,
            ..
        } => Item::Entry {
            id,
            label,
            hint: String::new(),
            text,
            secret,
            revealed,
        },
        Item::Choice { .. } | Item::Progress { .. } | Item::Fact { .. } => item,
    }
}
