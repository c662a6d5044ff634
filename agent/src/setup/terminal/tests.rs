use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::backend::TestBackend;
use umbra_protocol::Fingerprint;
use umbra_setup::{
    Address, Catalogue, Effect, Event as Told, Item, Language, Machine, Reached, Rules, Stage,
    Start, State, Step,
};

use super::*;

const KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";

/// A person at a terminal of this size.
struct Seat {
    machine: Machine,
    form: Form,
    terminal: Terminal<TestBackend>,
    asked: Vec<Effect>,
    now: Duration,
}

impl Seat {
    fn new(language: Language, width: u16, height: u16) -> Self {
        let (machine, asked) =
            Machine::new(Start::Fresh(language), Rules::default(), Duration::ZERO);
        let backend = TestBackend::new(width, height);
        let mut seat = Self {
            machine,
            form: Form::default(),
            terminal: Terminal::new(backend).expect("a terminal"),
            asked,
            now: Duration::ZERO,
        };
        seat.settle();
        seat
    }

    fn settle(&mut self) {
        loop {
            let view = self.machine.view(self.now);
            self.form.take(&view);
            let Some(input) = self.form.next() else {
                return;
            };
            let asked = self.machine.handle(Told::Input(input), self.now);
            self.asked.extend(asked);
        }
    }

    fn tell(&mut self, told: Told) {
        let asked = self.machine.handle(told, self.now);
        self.asked.extend(asked);
        self.settle();
    }

    fn hear(&mut self, event: &Event) {
        let view = self.machine.view(self.now);
        self.form.hear(event, &view);
        self.settle();
    }

    fn key(&mut self, code: KeyCode) -> &mut Self {
        self.hear(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        self
    }

    fn control(&mut self, character: char) -> &mut Self {
        let key = KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL);
        self.hear(&Event::Key(key));
        self
    }

    fn type_in(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            self.key(KeyCode::Char(character));
        }
        self
    }

    fn paste(&mut self, text: &str) -> &mut Self {
        self.hear(&Event::Paste(text.to_owned()));
        self
    }

    fn step(&self) -> Step {
        self.machine.view(self.now).step
    }

    fn screen(&mut self) -> String {
        let view = self.machine.view(self.now);
        let form = &self.form;
        self.terminal
            .draw(|frame| draw::draw(frame, &view, form, false))
            .expect("drawn");
        let buffer = self.terminal.backend().buffer();
        let width = usize::from(buffer.area.width).max(1);
        let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
        cells
            .chunks(width)
            .map(|row| row.concat().trim_end().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn root() -> Fingerprint {
        Fingerprint::from_bytes([0xA7; 32])
    }

    fn reach(&mut self) {
        self.reach_saying("as far as can be seen from here");
    }

    /// The check goes through, and each stage says that.
    fn reach_saying(&mut self, what: &str) {
        let job = self
            .asked
            .iter()
            .rev()
            .find_map(|effect| {
                if let Effect::Check { job, .. } = effect {
                    Some(*job)
                } else {
                    None
                }
            })
            .expect("a check");
        for stage in Stage::ALL {
            self.tell(Told::Checking {
                job,
                stage,
                state: State::Good,
                sentence: format!("All is well with {}, {what}.", stage.id()).into(),
            });
        }
        self.tell(Told::Reached {
            job,
            reached: Reached {
                address: Address {
                    host: "gw.example.com".into(),
                    port: 8443,
                },
                root: Some(Self::root()),
                public_ca: None,
            },
        });
    }

    fn at_key(language: Language) -> Self {
        let mut seat = Self::new(language, 80, 24);
        seat.key(KeyCode::Enter)
            .type_in("gw.example.com")
            .key(KeyCode::Enter);
        seat.reach();
        seat.key(KeyCode::Enter);
        let part = Self::root().parts()[0].clone();
        seat.type_in(&part).key(KeyCode::Enter);
        assert_eq!(seat.step(), Step::Key);
        seat
    }
}

#[test]
fn the_whole_check_is_on_a_small_screen_and_what_is_not_is_announced() {
    const LABELS: [&str; 7] = [
        "] Name",
        "] Network",
        "] Proxy",
        "] Encryption",
        "] Certificates",
        "] Gateway",
        "] Server",
    ];
    let texts = Catalogue::of(Language::En);
    let at_check = |what: &str| {
        let mut seat = Seat::new(Language::En, 80, 24);
        seat.key(KeyCode::Enter)
            .type_in("gw.example.com")
            .key(KeyCode::Enter);
        seat.reach_saying(what);
        seat
    };
    let mut seat = at_check("thanks");
    let screen = seat.screen();
    for label in LABELS {
        assert!(screen.contains(label), "{label} in\n{screen}");
    }
    assert!(screen.contains("All is well with server"), "{screen}");
    assert!(!screen.contains(texts.face_more_below), "{screen}");

    // Sentences that are too long for that.
    let mut seat = at_check(&"and so on ".repeat(12));
    let screen = seat.screen();
    assert!(!screen.contains("] Server"), "{screen}");
    assert!(screen.contains(texts.face_more_below), "{screen}");
    assert!(!screen.contains(texts.face_more_above), "{screen}");
    let screen = (0..6).fold(String::new(), |_, _| {
        seat.key(KeyCode::PageDown);
        seat.screen()
    });
    assert!(screen.contains("] Server"), "{screen}");
    assert!(screen.contains(texts.face_more_above), "{screen}");
    assert!(!screen.contains(texts.face_more_below), "{screen}");
}

#[test]
fn what_has_just_happened_is_to_be_seen_however_long_the_rest_is() {
    let mut seat = Seat::new(Language::En, 80, 24);
    seat.key(KeyCode::Enter);
    let problem = "One of the files on this stick can't be used. ".repeat(6);
    seat.tell(Told::Sticks {
        found: Vec::new(),
        problems: vec![problem.as_str().into(); 3],
    });
    seat.key(KeyCode::Enter);
    let screen = seat.screen();
    let texts = Catalogue::of(Language::En);
    assert!(screen.contains(texts.face_more_above), "{screen}");
    assert!(screen.contains(texts.address_empty), "{screen}");
}

#[test]
fn a_keyboard_alone_leads_to_logging_on_and_every_screen_fits_80_by_24() {
    for language in Language::ALL {
        let mut seat = Seat::new(language, 80, 24);
        let mut screens = vec![(seat.machine.view(seat.now), seat.screen())];
        let mut look = |seat: &mut Seat| screens.push((seat.machine.view(seat.now), seat.screen()));
        seat.key(KeyCode::Enter);
        look(&mut seat);
        seat.type_in("gw.example.com").key(KeyCode::Enter);
        look(&mut seat);
        seat.reach();
        seat.key(KeyCode::Enter);
        look(&mut seat);
        let part = Seat::root().parts()[0].clone();
        seat.type_in(&part).key(KeyCode::Enter);
        look(&mut seat);
        seat.type_in(KEY);
        look(&mut seat);
        seat.key(KeyCode::Enter);
        look(&mut seat);
        assert_eq!(seat.step(), Step::LogOn);
        let plan = seat.asked.iter().find_map(|effect| {
            if let Effect::LogOn { plan, .. } = effect {
                Some(plan.key.reveal().to_owned())
            } else {
                None
            }
        });
        assert_eq!(plan.as_deref(), Some(KEY));
        assert_eq!(screens.len(), 7);
        for (view, screen) in screens {
            assert!(screen.contains(&view.title), "{screen}");
            for action in &view.actions {
                assert!(
                    screen.contains(&action.label),
                    "{} in\n{screen}",
                    action.label
                );
            }
            for item in &view.items {
                if let Item::Entry { label, .. } | Item::Fact { label, .. } = item {
                    assert!(screen.contains(label.as_str()), "{label} in\n{screen}");
                }
            }
            assert!(!screen.contains("FGHJK"), "{screen}");
        }
    }
}

#[test]
fn a_key_is_pasted_seen_by_f2_and_hidden_again() {
    let mut seat = Seat::at_key(Language::De);
    seat.paste(&format!("{KEY}\r\n"));
    assert!(
        seat.screen().contains(&"•".repeat(KEY.len())),
        "{}",
        seat.screen()
    );
    assert!(seat.screen().contains("[F2: anzeigen]"));
    seat.key(KeyCode::F(2));
    assert!(seat.screen().contains(KEY) && seat.screen().contains("[F2: verbergen]"));
    seat.control('r');
    assert!(!seat.screen().contains("FGHJK"));
    // Changing what is typed goes on with it.
    seat.key(KeyCode::Backspace).type_in("Y").key(KeyCode::F(2));
    assert!(seat.screen().contains("STVWY"), "{}", seat.screen());
    seat.key(KeyCode::Home).key(KeyCode::Delete).type_in("Z");
    assert!(seat.screen().contains("ZBCDE"), "{}", seat.screen());
}

#[test]
fn a_key_that_cannot_be_seen_is_typed_anew_and_not_gone_on_with() {
    let mut seat = Seat::at_key(Language::En);
    seat.type_in("OLD-OLD-OLD-OLD");
    // Back to the fingerprint and here again: the key is still in the machine, but not in this form.
    let part = Seat::root().parts()[0].clone();
    seat.key(KeyCode::Esc);
    assert_eq!(seat.step(), Step::Fingerprint);
    seat.type_in(&part).key(KeyCode::Enter);
    assert_eq!(seat.step(), Step::Key);
    seat.type_in(KEY).key(KeyCode::F(2));
    assert!(
        seat.screen().contains(KEY) && !seat.screen().contains("OLD"),
        "{}",
        seat.screen()
    );
}

#[test]
fn pasted_credentials_become_a_choice_and_nothing_of_them_stays_in_the_line() {
    let credentials = umbra_protocol::credentials::Credentials {
        endpoints: vec![umbra_protocol::credentials::Endpoint {
            host: "gw.example.com".into(),
            port: 8443,
            root_fingerprint: Seat::root(),
        }],
        key: umbra_protocol::first_auth::FirstAuthKey::parse(KEY).expect("a key"),
    };
    let mut seat = Seat::new(Language::En, 80, 24);
    seat.key(KeyCode::Enter)
        .paste(&credentials.to_text().replace('\n', "\r"));
    let screen = seat.screen();
    assert!(screen.contains("(•) gw.example.com:8443"), "{screen}");
    assert!(!screen.contains("FGHJK"), "{screen}");
    seat.key(KeyCode::Enter);
    assert_eq!(seat.step(), Step::Check);
}

#[test]
fn ctrl_c_leaves_and_esc_goes_back() {
    let mut seat = Seat::at_key(Language::En);
    seat.control('c');
    assert!(seat.machine.is_over());
    let mut seat = Seat::at_key(Language::En);
    for step in [
        Step::Fingerprint,
        Step::Address,
        Step::Language,
        Step::Leave,
        Step::Language,
    ] {
        seat.key(KeyCode::Esc);
        assert_eq!(seat.step(), step);
    }
}

#[test]
fn any_size_is_drawn_and_what_has_the_focus_is_seen() {
    for (width, height) in [(80, 24), (40, 12), (20, 6), (200, 60), (1, 1), (3, 2)] {
        let mut seat = Seat::at_key(Language::De);
        seat.terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        seat.hear(&Event::Resize(width, height));
        seat.type_in("XY");
        let screen = seat.screen();
        if width >= 40 && height >= 12 {
            assert!(screen.contains("> ••"), "{width}x{height}:\n{screen}");
        }
    }
}

#[test]
fn arrows_choose_and_the_language_follows_at_once() {
    let mut seat = Seat::new(Language::En, 80, 24);
    seat.key(KeyCode::Down);
    assert!(seat.screen().contains("Sprache"), "{}", seat.screen());
    assert!(seat.screen().contains("Schritt 1 von 7"));
    seat.key(KeyCode::Up);
    assert!(seat.screen().contains("Step 1 of 7"));
}
