use std::sync::{Arc, Mutex};
use std::time::Duration;

use umbra_setup::{Event, Language, Machine, Rules, Start};

use super::*;

#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<bool>>>);

impl Echo for Noted {
    fn show(&mut self, on: bool) {
        self.0.lock().expect("not poisoned").push(on);
    }
}

fn key_view() -> View {
    View {
        version: umbra_setup::VIEW_VERSION,
        step: Step::Key,
        number: 5,
        of: 7,
        language: Language::En,
        title: "Key".into(),
        text: Vec::new(),
        items: vec![Item::Entry {
            id: "key".into(),
            label: "Key".into(),
            hint: "hint".into(),
            text: "••••".into(),
            secret: true,
            revealed: false,
        }],
        actions: Vec::new(),
        notice: None,
        busy: false,
    }
}

#[test]
fn a_key_is_typed_unseen_and_what_follows_is_seen_again() {
    let echo = Noted::default();
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Box::new(echo.clone()));
    let view = key_view();
    plain.show(&view).expect("shown");
    assert_eq!(plain.next(&view).expect("asked"), None);
    assert_eq!(echo.0.lock().expect("not poisoned").last(), Some(&false));
    plain
        .hear(Some(Zeroizing::new("HUNTER2".into())))
        .expect("heard");
    let input = plain.next(&view).expect("understood");
    assert_eq!(
        input,
        Some(Input::Set {
            entry: "key".into(),
            text: Secret::new("HUNTER2")
        })
    );
    assert_eq!(echo.0.lock().expect("not poisoned").last(), Some(&true));
    drop(plain);
    let said = String::from_utf8(out).expect("text");
    assert!(!said.contains("HUNTER2"), "{said}");
    // Dots would be read out one by one.
    assert!(said.contains("[…]") && !said.contains('•'), "{said}");
}

#[test]
fn what_comes_after_an_unanswered_question_for_the_key_is_seen_again() {
    let echo = Noted::default();
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Box::new(echo.clone()));
    let mut view = key_view();
    plain.show(&view).expect("shown");
    plain.next(&view).expect("asked");
    assert_eq!(echo.0.lock().expect("not poisoned").last(), Some(&false));
    view.step = umbra_setup::Step::Ready;
    plain.show(&view).expect("shown");
    assert_eq!(echo.0.lock().expect("not poisoned").last(), Some(&true));
}

#[test]
fn an_end_while_the_key_is_asked_for_gives_the_echo_back() {
    let echo = Noted::default();
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Box::new(echo.clone()));
    let view = key_view();
    plain.show(&view).expect("shown");
    plain.next(&view).expect("asked");
    drop(plain);
    assert_eq!(echo.0.lock().expect("not poisoned").last(), Some(&true));
}

#[test]
fn seconds_that_are_counted_down_are_told_once() {
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Box::new(NoEcho));
    let mut view = key_view();
    for seconds in (0..30).rev() {
        view.notice = Some(Notice {
            tone: umbra_setup::Tone::Problem,
            text: format!("The next try is possible in {seconds} seconds."),
        });
        plain.show(&view).expect("shown");
    }
    drop(plain);
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.matches("The next try").count(), 1, "{text}");
}

#[test]
fn a_pasted_text_of_many_lines_is_one_answer() {
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Box::new(NoEcho));
    let (mut machine, _) =
        Machine::new(Start::Fresh(Language::En), Rules::default(), Duration::ZERO);
    machine.handle(
        Event::Input(Input::Press {
            action: "next".into(),
        }),
        Duration::ZERO,
    );
    let view = machine.view(Duration::ZERO);
    plain.show(&view).expect("shown");
    for line in [
        "----------------------------------------",
        "Host: h",
        "Port: 1",
    ] {
        plain
            .hear(Some(Zeroizing::new(line.into())))
            .expect("heard");
    }
    let Some(Input::Set { text, .. }) = plain.next(&view).expect("understood") else {
        panic!("an address");
    };
    assert!(text.reveal().ends_with("Host: h\nPort: 1"));
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_and_never_fills_the_memory() {
    let (sender, mut lines) = mpsc::channel(8);
    let reading = tokio::task::spawn_blocking(move || {
        let mut input = io::BufReader::new(io::repeat(b'x').take(10_000));
        read_lines(&mut input, 4_000, &sender);
    });
    let mut lengths = Vec::new();
    while let Some(line) = lines.recv().await {
        lengths.push(line.len());
    }
    reading.await.expect("read");
    assert_eq!(lengths, [4_000, 4_000, 2_000]);
}
