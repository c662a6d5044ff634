//! The window's life: it shows the newest view, passes on what the person does, closes when the assistant has nothing more to
//! show, and says in words when the assistant is gone for another reason.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use eframe::egui::{self, Context, Key, Label, Theme, Vec2, ViewportCommand};
use umbra_setup::text::{fill, printable};
use umbra_setup::{Action, Catalogue, Input, Language, Tone, View};

use crate::assistant::{Assistant, End, Heard, Over};
use crate::look;
use crate::parts;
use crate::screen::{self, Screen};

/// How long a window without a view waits before it looks again; a view wakes it earlier.
const IDLE: Duration = Duration::from_secs(1);

/// How the assistant is started.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

pub(crate) struct Window<'a> {
    origin: Origin,
    now: Now,
    screen: Screen,
    language: Language,
    /// Whether the window is to be as large as the screen.
    whole_screen: bool,
    /// What was done about it so far.
    filled: bool,
    /// For which size of the screen the letters were chosen.
    zoomed_for: Option<Vec2>,
    /// The exit code of the whole.
    outcome: &'a Cell<u8>,
}

/// What there is to show.
enum Now {
    /// An assistant, with what it showed last.
    Runs(Assistant, Option<Box<View>>),
    /// None, and why.
    Stopped { why: String, foot: f32, greet: bool },
    /// Everything was said.
    Closes,
}

impl<'a> Window<'a> {
    pub(crate) fn new(
        origin: Origin,
        context: &Context,
        whole_screen: bool,
        outcome: &'a Cell<u8>,
    ) -> Self {
        let mut window = Self {
            origin,
            now: Now::Closes,
            screen: Screen::default(),
            language: of_locale(),
            whole_screen,
            filled: false,
            zoomed_for: None,
            outcome,
        };
        window.start(context);
        window
    }

    fn start(&mut self, context: &Context) {
        self.screen = Screen::default();
        let wake = context.clone();
        let Origin { program, arguments } = &self.origin;
        match Assistant::start(program, arguments, move || wake.request_repaint()) {
            Ok(assistant) => self.now = Now::Runs(assistant, None),
            Err(error) => {
                let texts = Catalogue::of(self.language);
                let why = fill(
                    texts.window_not_started,
                    &[
                        ("program", &printable(&program.display().to_string())),
                        ("sentence", &printable(&error.to_string())),
                    ],
                );
                self.stop(why);
            }
        }
    }

    fn stop(&mut self, why: String) {
        self.now = Now::Stopped {
            why,
            foot: 0.0,
            greet: true,
        };
    }

    fn take_news(&mut self, context: &Context) {
        let over = loop {
            let Now::Runs(assistant, view) = &mut self.now else {
                return;
            };
            match assistant.heard() {
                None => return,
                Some(Heard::View(news)) => {
                    self.language = news.language;
                    self.screen.take(&news);
                    *view = Some(news);
                }
                Some(Heard::Over(over)) => break over,
            }
        };
        let now = std::mem::replace(&mut self.now, Now::Closes);
        let Now::Runs(mut assistant, view) = now else {
            return;
        };
        let texts = Catalogue::of(self.language);
        let end = End::of(assistant.end(), view.is_some());
        match (over, end) {
            (Over::Silent, End::Done(code)) => {
                self.outcome.set(code);
                context.send_viewport_cmd(ViewportCommand::Close);
            }
            (Over::Silent, End::Broken) => {
                let said = assistant.last_words();
                let mut why = texts.window_ended.to_owned();
                if !said.is_empty() {
                    why.push('\n');
                    why += &fill(texts.window_said, &[("sentence", &said)]);
                }
                self.stop(why);
            }
            (Over::Unreadable, _) => self.stop(texts.window_unreadable.to_owned()),
            (Over::OtherVersion, _) => self.stop(texts.window_other_version.to_owned()),
        }
    }

    /// As large as the screen, also where no window manager sees to it; and letters that fit its size.
    fn fit(&mut self, context: &Context) {
        let (screen, inner, scale) = context.input(|input| {
            let viewport = input.viewport();
            let scale = viewport.native_pixels_per_point.unwrap_or(1.0);
            (viewport.monitor_size, viewport.inner_rect, scale)
        });
        let Some(inner) = inner else {
            return;
        };
        if self.whole_screen
            && !self.filled
            && let Some(screen) = screen
        {
            self.filled = true;
            if inner.width() + 1.0 < screen.x || inner.height() + 1.0 < screen.y {
                context.send_viewport_cmd(ViewportCommand::OuterPosition(egui::Pos2::ZERO));
                context.send_viewport_cmd(ViewportCommand::InnerSize(screen));
            }
            // Without a window manager nobody gives it the keyboard either.
            context.send_viewport_cmd(ViewportCommand::Focus);
        }
        // In the system's units: without the zoom that this chooses.
        let size = inner.size() * context.pixels_per_point() / scale;
        if self
            .zoomed_for
            .is_none_or(|known| (known - size).abs().max_elem() > 1.0)
        {
            self.zoomed_for = Some(size);
            context.set_zoom_factor(look::zoom(size));
        }
    }
}

impl eframe::App for Window<'_> {
    fn logic(&mut self, context: &Context, _: &mut eframe::Frame) {
        self.take_news(context);
        self.fit(context);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        let texts = Catalogue::of(self.language);
        match &mut self.now {
            Now::Runs(assistant, Some(view)) => {
                for input in self.screen.draw(ui, view) {
                    assistant.say(&input);
                }
            }
            Now::Runs(_, None) => {
                let body = |ui: &mut egui::Ui, (): &mut ()| {
                    ui.heading(texts.face_busy);
                };
                screen::frame(ui, texts, None, 0.0, &mut (), body, |_, ()| {});
                ui.ctx().request_repaint_after(IDLE);
            }
            Now::Stopped { why, foot, greet } => match stopped(ui, texts, why, foot, greet) {
                Some(Wish::Again) => self.start(ui.ctx()),
                Some(Wish::Close) => ui.ctx().send_viewport_cmd(ViewportCommand::Close),
                None => {}
            },
            Now::Closes => {}
        }
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        let theme = if visuals.dark_mode {
            Theme::Dark
        } else {
            Theme::Light
        };
        look::palette(theme).page.to_normalized_gamma_f32()
    }
}

enum Wish {
    Again,
    Close,
}

/// What happened, and what can be done about it.
fn stopped(
    ui: &mut egui::Ui,
    texts: &Catalogue,
    why: &str,
    foot: &mut f32,
    greet: &mut bool,
) -> Option<Wish> {
    let action = |id: &str, label: &str, default: bool| Action {
        id: id.to_owned(),
        label: label.to_owned(),
        enabled: true,
        default,
    };
    let actions = [
        action("again", texts.again, true),
        action("close", texts.window_close, false),
    ];
    let mut inputs = Vec::new();
    *foot = screen::frame(
        ui,
        texts,
        None,
        *foot,
        &mut (&mut inputs, greet),
        |ui, _| {
            ui.add(Label::new(egui::RichText::new(texts.window_stopped).heading()).wrap());
            ui.add_space(4.0);
            let notice = umbra_setup::Notice {
                tone: Tone::Problem,
                text: why.to_owned(),
            };
            parts::notice(ui, &notice);
            ui.add_space(4.0);
            ui.add(Label::new(texts.window_elsewhere).wrap());
        },
        |ui, (inputs, greet)| parts::actions(ui, &actions, greet, inputs),
    );
    let pressed = inputs.first().and_then(|input| match input {
        Input::Press { action } => Some(action.as_str()),
        Input::Set { .. } | Input::Choose { .. } | Input::Reveal { .. } | Input::Close => None,
    });
    match pressed {
        Some("again") => Some(Wish::Again),
        Some(_) => Some(Wish::Close),
        None if ui.input(|input| input.key_pressed(Key::Enter)) => Some(Wish::Again),
        None if ui.input(|input| input.key_pressed(Key::Escape)) => Some(Wish::Close),
        None => None,
    }
}

/// Until the assistant says which language it is.
fn of_locale() -> Language {
    ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|locale| !locale.is_empty())
        .and_then(|locale| Language::of_locale(&locale))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// Long enough for any machine; nothing waits for it to pass.
    const PATIENCE: Duration = Duration::from_secs(60);

    const GERMAN: &str = r#"{"version":1,"step":"language","number":1,"of":7,"language":"de","title":"Sprache","text":[],"items":[],"actions":[],"notice":null,"busy":false}"#;

    /// A shell instead of the agent.
    fn shell(folder: &Path, script: &str) -> Origin {
        let program = folder.join("agent");
        // Written by another process: no test that forks meanwhile holds it open for writing.
        let written = Command::new("sh")
            .args(["-c", "printf '%s' \"$1\" >\"$2\" && chmod 700 \"$2\"", "sh"])
            .arg(format!("#!/bin/sh\n{script}\n"))
            .arg(&program)
            .status();
        assert!(written.is_ok_and(|status| status.success()), "not written");
        Origin {
            program,
            arguments: Vec::new(),
        }
    }

    /// What a window over this script says once nothing runs behind it any more; none if it closes. And with which exit code.
    fn said_after(script: &str) -> (Option<String>, u8) {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = shell(folder.path(), script);
        let (context, outcome) = (Context::default(), Cell::new(1));
        let mut window = Window::new(origin, &context, false, &outcome);
        let begun = Instant::now();
        loop {
            window.take_news(&context);
            match &window.now {
                Now::Runs(..) => {
                    assert!(begun.elapsed() < PATIENCE, "it still runs");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Now::Stopped { why, .. } => return (Some(why.clone()), outcome.get()),
                Now::Closes => return (None, outcome.get()),
            }
        }
    }

    #[test]
    fn the_death_of_the_assistant_is_told_in_the_language_of_its_last_screen() {
        let (why, _) = said_after(&format!("echo '{GERMAN}'; kill -9 $$"));
        let why = why.expect("it is told");
        let (german, english) = (Catalogue::of(Language::De), Catalogue::of(Language::En));
        assert!(why.contains(german.window_ended), "{why}");
        assert_ne!(german.window_ended, english.window_ended);
        let (why, _) = said_after(&format!("echo '{GERMAN}'; echo nonsense"));
        assert_eq!(why.as_deref(), Some(german.window_unreadable));
    }

    #[test]
    fn an_assistant_that_ends_without_a_screen_is_told_of_and_one_that_has_shown_its_end_is_not() {
        let (why, code) = said_after("exit 0");
        assert!(why.is_some());
        assert_eq!(code, 1);
        assert_eq!(said_after(&format!("echo '{GERMAN}'; exit 75")), (None, 75));
    }

    #[test]
    fn a_window_that_goes_takes_its_assistant_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (begun_mark, mark) = (folder.path().join("begun"), folder.path().join("ended"));
        let script = format!(
            "touch '{}'; cat >/dev/null; touch '{}'",
            begun_mark.display(),
            mark.display()
        );
        let outcome = Cell::new(1);
        let origin = shell(folder.path(), &script);
        let window = Window::new(origin, &Context::default(), false, &outcome);
        let begun = Instant::now();
        while !begun_mark.exists() {
            assert!(begun.elapsed() < PATIENCE, "it does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(window);
        // Without another wait: the window's own end waits for it.
        assert!(mark.exists(), "it was left running");
    }
}
