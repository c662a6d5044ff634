//! Screens without a display: keys go in, inputs and what a screen reader is told come out.

use eframe::egui::accesskit::{Node, Role, TreeUpdate};
use eframe::egui::{Context, Modifiers, RawInput, pos2};
use umbra_setup::{Choice, Language, Notice, State, Step, Tone, VIEW_VERSION};

use super::*;

fn action(id: &str, default: bool) -> Action {
    Action {
        id: id.into(),
        label: format!("Do {id}"),
        enabled: true,
        default,
    }
}

fn view(step: Step, items: Vec<Item>, actions: Vec<Action>) -> View {
    View {
        version: VIEW_VERSION,
        step,
        number: 2,
        of: 7,
        language: Language::En,
        title: "A title".into(),
        text: vec!["A paragraph.".into()],
        items,
        actions,
        notice: None,
        busy: false,
    }
}

fn entry(secret: bool, text: &str) -> Item {
    Item::Entry {
        id: "line".into(),
        label: "The line".into(),
        hint: "An example".into(),
        text: text.into(),
        secret,
        revealed: false,
    }
}

fn found(selected: &str) -> Item {
    let option = |id: &str| Choice {
        id: id.into(),
        label: format!("Option {id}"),
        detail: "more about it".into(),
    };
    Item::Choice {
        id: "found".into(),
        label: "Connect to".into(),
        options: vec![option("one"), option("two")],
        selected: Some(selected.into()),
    }
}

fn key(key: Key, pressed: bool) -> Event {
    Event::Key {
        key,
        physical_key: None,
        pressed,
        repeat: false,
        modifiers: Modifiers::NONE,
    }
}

fn press_key(which: Key) -> Vec<Event> {
    vec![key(which, true), key(which, false)]
}

fn pressed(id: &str) -> Vec<Input> {
    vec![Input::Press { action: id.into() }]
}

fn set(text: &str) -> Vec<Input> {
    vec![Input::Set {
        entry: "line".into(),
        text: umbra_protocol::Secret::new(text),
    }]
}

/// A screen that is drawn nowhere.
struct Stage {
    context: Context,
    screen: Screen,
    view: View,
    told: Option<TreeUpdate>,
}

impl Stage {
    fn new(view: View) -> Self {
        let context = Context::default();
        context.enable_accesskit();
        look::apply(&context);
        let mut screen = Screen::default();
        screen.take(&view);
        let mut stage = Self {
            context,
            screen,
            view,
            told: None,
        };
        for _ in 0..6 {
            assert_eq!(stage.frame(Vec::new()), [], "nobody did anything");
        }
        stage
    }

    fn frame(&mut self, events: Vec<Event>) -> Vec<Input> {
        let input = RawInput {
            screen_rect: Some(Rect::from_min_max(pos2(0.0, 0.0), pos2(1024.0, 768.0))),
            focused: true,
            events,
            ..RawInput::default()
        };
        let mut inputs = Vec::new();
        let mut output = self.context.run_ui(input, |ui| {
            inputs.extend(self.screen.draw(ui, &self.view));
        });
        // No picture is made of it.
        output.textures_delta.clear();
        self.told = output.platform_output.accesskit_update.or(self.told.take());
        inputs
    }

    /// What came of these keys, and of the frame after them.
    fn does(&mut self, events: Vec<Event>) -> Vec<Input> {
        let mut inputs = self.frame(events);
        inputs.extend(self.frame(Vec::new()));
        inputs
    }

    fn shows(&mut self, view: View) {
        self.screen.take(&view);
        self.view = view;
    }

    fn nodes(&self) -> &[(eframe::egui::accesskit::NodeId, Node)] {
        &self.told.as_ref().expect("a tree for screen readers").nodes
    }

    fn has(&self, role: Role, label: &str) -> bool {
        self.nodes()
            .iter()
            .any(|(_, node)| node.role() == role && node.label() == Some(label))
    }
}

#[test]
fn what_is_typed_is_sent_whole_and_enter_goes_on() {
    let mut stage = Stage::new(view(
        Step::Address,
        vec![found("two"), entry(false, "")],
        vec![action("next", true), action("back", false)],
    ));
    assert_eq!(stage.does(vec![Event::Text("g".into())]), set("g"));
    assert_eq!(stage.does(vec![Event::Text("w".into())]), set("gw"));
    assert_eq!(stage.does(press_key(Key::Enter)), pressed("next"));
    // The line still has the cursor: something may have been wrong with it.
    assert_eq!(stage.does(vec![Event::Text("!".into())]), set("gw!"));
}

#[test]
fn tab_goes_through_everything_from_top_to_bottom() {
    let mut stage = Stage::new(view(
        Step::Key,
        vec![entry(true, "")],
        vec![
            action("next", true),
            action("back", false),
            action("cancel", false),
        ],
    ));
    let reveal = vec![Input::Reveal {
        entry: "line".into(),
        on: true,
    }];
    for expected in [reveal, pressed("back"), pressed("cancel"), pressed("next")] {
        assert_eq!(stage.does(press_key(Key::Tab)), []);
        assert_eq!(stage.does(press_key(Key::Enter)), expected);
    }
}

#[test]
fn arrows_choose_and_the_chosen_one_is_only_confirmed() {
    let mut stage = Stage::new(view(
        Step::Language,
        vec![found("one")],
        vec![action("next", true)],
    ));
    let chosen = vec![Input::Choose {
        choice: "found".into(),
        option: "two".into(),
    }];
    assert_eq!(stage.does(press_key(Key::ArrowDown)), chosen);
    let other = view(
        Step::Language,
        vec![found("two")],
        vec![action("next", true)],
    );
    stage.shows(other);
    assert_eq!(stage.does(Vec::new()), []);
    assert_eq!(stage.does(press_key(Key::Enter)), pressed("next"));
}

#[test]
fn escape_goes_back_and_f2_shows_the_secret() {
    let mut stage = Stage::new(view(
        Step::Key,
        vec![entry(true, "")],
        vec![
            action("next", true),
            action("cancel", false),
            action("back", false),
        ],
    ));
    let reveal = vec![Input::Reveal {
        entry: "line".into(),
        on: true,
    }];
    assert_eq!(stage.does(press_key(Key::F2)), reveal);
    assert_eq!(stage.does(press_key(Key::Escape)), pressed("back"));
}

#[test]
fn a_button_that_can_not_be_pressed_is_not_pressed_by_a_key() {
    let mut next = action("next", true);
    next.enabled = false;
    let mut stage = Stage::new(view(Step::Check, Vec::new(), vec![next]));
    assert_eq!(stage.does(press_key(Key::Enter)), []);
    assert_eq!(stage.does(press_key(Key::Escape)), []);
}

#[test]
fn a_key_that_is_held_down_goes_one_step_only() {
    let mut stage = Stage::new(view(
        Step::Key,
        vec![entry(true, "")],
        vec![action("next", true)],
    ));
    assert_eq!(stage.does(vec![key(Key::Enter, true)]), pressed("next"));
    assert_eq!(stage.does(vec![key(Key::Enter, true)]), []);
    // The same on the button itself.
    assert_eq!(stage.does(press_key(Key::Tab)), []);
    assert_eq!(stage.does(press_key(Key::Tab)), []);
    assert_eq!(stage.does(vec![key(Key::Enter, true)]), []);
}

#[test]
fn a_copied_key_loses_its_line_end_and_copied_credentials_go_as_a_whole() {
    let mut stage = Stage::new(view(
        Step::Key,
        vec![entry(true, "")],
        vec![action("next", true)],
    ));
    let line = Event::Paste("ABC-DEF\r\n".into());
    assert_eq!(stage.does(vec![line]), set("ABC-DEF"));
    let text = "-----\nHost: x\n-----\n";
    assert_eq!(stage.does(vec![Event::Paste(text.into())]), set(text));
    // And nothing of it stays in the line.
    assert_eq!(stage.does(vec![Event::Text("A".into())]), set("A"));
}

#[test]
fn a_screen_reader_is_told_the_name_of_everything_and_never_the_key() {
    let mut shown = view(
        Step::Key,
        vec![
            found("one"),
            entry(true, ""),
            Item::Progress {
                id: "tcp".into(),
                label: "Network".into(),
                state: State::Failed,
                sentence: "Nobody answers.".into(),
            },
            Item::Fact {
                label: "Part 1".into(),
                value: "0A11 181F".into(),
            },
        ],
        vec![action("next", true), action("back", false)],
    );
    shown.notice = Some(Notice {
        tone: Tone::Problem,
        text: "Something happened.".into(),
    });
    let mut stage = Stage::new(shown);
    stage.does(vec![Event::Text("HUNTER2".into())]);
    for (role, label) in [
        (Role::Button, "Do next"),
        (Role::Button, "Do back"),
        (Role::RadioButton, "Option one, more about it"),
        (Role::Alert, "Something happened."),
        (Role::Button, "show"),
    ] {
        assert!(stage.has(role, label), "no {role:?} “{label}”");
    }
    let line = stage
        .nodes()
        .iter()
        .find(|(_, node)| node.role() == Role::PasswordInput)
        .map(|(_, node)| node)
        .expect("the line is a line for a secret");
    let named: Vec<_> = stage
        .nodes()
        .iter()
        .filter(|(id, _)| line.labelled_by().contains(id))
        .filter_map(|(_, node)| node.value().or(node.label()))
        .collect();
    assert_eq!(named, ["The line"]);
    let told = format!("{:?}", stage.nodes());
    for text in [
        "Nobody answers.",
        "failed",
        "0A11 181F",
        "A title",
        "Step 2 of 7",
    ] {
        assert!(told.contains(text), "“{text}” is not told");
    }
    assert!(!told.contains("HUNTER2"), "the key is told");
}

#[test]
fn what_the_window_says_itself_is_in_the_language_of_the_view() {
    let mut shown = view(Step::Key, vec![entry(true, "")], vec![action("next", true)]);
    shown.language = Language::De;
    shown.busy = true;
    let (german, english) = (Catalogue::of(Language::De), Catalogue::of(Language::En));
    let mut stage = Stage::new(shown);
    stage.does(Vec::new());
    let told = format!("{:?}", stage.nodes());
    let step = |texts: &Catalogue| fill(texts.face_step, &[("number", "2"), ("of", "7")]);
    for (text, other) in [
        (german.window_keys, english.window_keys),
        (german.face_show, english.face_show),
        (german.face_busy, english.face_busy),
        (&step(german), &step(english)),
    ] {
        let quoted = |text: &str| format!("{text:?}");
        assert!(told.contains(&quoted(text)), "“{text}” is not told");
        assert!(!told.contains(&quoted(other)), "“{other}” is told");
    }
}

#[test]
fn every_screen_fits_every_window() {
    for (width, height) in [
        (640.0, 480.0),
        (800.0, 600.0),
        (1080.0, 1920.0),
        (3840.0, 2160.0),
    ] {
        let mut screen = Screen::default();
        let shown = view(
            Step::Address,
            vec![found("one"), entry(true, "•••")],
            ["next", "search", "back", "cancel"]
                .map(|id| action(id, id == "next"))
                .to_vec(),
        );
        let context = Context::default();
        look::apply(&context);
        screen.take(&shown);
        let area = Rect::from_min_max(pos2(0.0, 0.0), pos2(width, height));
        let mut foot = Rect::NOTHING;
        for _ in 0..6 {
            let input = RawInput {
                screen_rect: Some(area),
                ..RawInput::default()
            };
            let mut output = context.run_ui(input, |ui| {
                screen.draw(ui, &shown);
                foot = ui.min_rect();
            });
            output.textures_delta.clear();
        }
        assert!(
            area.expand(0.5).contains_rect(foot),
            "{foot:?} at {width}x{height}"
        );
        assert!(
            screen.foot < height / 2.0,
            "{} at {width}x{height}",
            screen.foot
        );
    }
}
