//! What a screen is made of: choices, lines to type in, progress, facts, notices, buttons. Each is drawn from the view alone and
//! says what the person did; each has its name for a screen reader, and shows when it has the focus.

use eframe::egui::{
    self, Align, Button, Color32, CornerRadius, FontSelection, Frame, Id, Label, Layout, Margin,
    Response, RichText, Role, Sense, Stroke, StrokeKind, TextEdit, TextStyle, Ui, Vec2, WidgetInfo,
    WidgetText, accesskit,
};
use umbra_protocol::Secret;
use umbra_setup::{Action, Catalogue, Choice, Input, Notice, State};

use crate::look;
use crate::signs;
use crate::typing::{self, LINE_MAX, Line};

/// Around what has the focus.
const RING: f32 = 3.0;
/// Facts stand beside their labels where those are no wider than this.
const LABELS: f32 = 190.0;
/// Half of a sign.
const SIGN: f32 = 11.0;

/// A ring around what has the focus: keyboards have no pointer. What the focus moves to comes into sight.
fn show_focus(ui: &Ui, response: &Response, radius: u8) {
    if response.gained_focus() {
        response.scroll_to_me(None);
    }
    if response.has_focus() {
        let accent = look::palette(ui.theme()).accent;
        ui.painter().rect_stroke(
            response.rect.expand(3.0),
            CornerRadius::same(radius + 3),
            Stroke::new(RING, accent.gamma_multiply(0.75)),
            StrokeKind::Middle,
        );
    }
}

fn sign(ui: &mut Ui, sign: signs::Sign, colour: Color32, on: Color32, height: f32) {
    let (rect, _) = ui.allocate_exact_size(Vec2::new(SIGN * 2.4, height), Sense::hover());
    signs::paint(ui.painter(), sign, rect.center(), SIGN, colour, on);
}

/// What has just happened.
pub(crate) fn notice(ui: &mut Ui, Notice { tone, text }: &Notice) {
    let theme = ui.theme();
    let (colour, behind) = (look::of_tone(*tone, theme), look::behind(*tone, theme));
    let frame = Frame::new()
        .fill(behind)
        .stroke(Stroke::new(1.5, colour))
        .corner_radius(10)
        .inner_margin(Margin::symmetric(16, 12));
    let shown = frame.show(ui, |ui| {
        ui.set_min_width(ui.available_width());
        ui.horizontal_top(|ui| {
            sign(ui, signs::of_tone(*tone), colour, behind, 24.0);
            ui.vertical(|ui| ui.add(Label::new(text).wrap()));
        });
    });
    // A screen reader says it without being asked.
    ui.ctx().accesskit_node_builder(shown.response.id, |node| {
        node.set_role(accesskit::Role::Alert);
        node.set_live(accesskit::Live::Assertive);
        node.set_label(text.as_str());
    });
}

/// One of several; the arrow keys choose, as everywhere.
pub(crate) struct Choosing<'a> {
    pub(crate) id: &'a str,
    pub(crate) label: &'a str,
    pub(crate) options: &'a [Choice],
    pub(crate) selected: Option<&'a str>,
}

impl Choosing<'_> {
    pub(crate) fn draw(
        &self,
        ui: &mut Ui,
        moved_to: Option<Id>,
        greet: &mut bool,
        inputs: &mut Vec<Input>,
    ) {
        if !self.label.is_empty() {
            ui.label(RichText::new(self.label).color(look::palette(ui.theme()).quiet));
        }
        for choice in self.options {
            let is_chosen = self.selected == Some(choice.id.as_str());
            let response = option(ui, (self.id, &choice.id), choice, is_chosen);
            if is_chosen && std::mem::take(greet) {
                response.request_focus();
            }
            let is_moved_to = moved_to == Some(response.id);
            if is_moved_to {
                response.scroll_to_me(None);
            }
            if (response.clicked() || is_moved_to) && !is_chosen {
                inputs.push(Input::Choose {
                    choice: self.id.to_owned(),
                    option: choice.id.clone(),
                });
            }
        }
    }
}

fn option(ui: &mut Ui, id: (&str, &String), choice: &Choice, is_chosen: bool) -> Response {
    let colours = look::palette(ui.theme());
    let id = ui.make_persistent_id(id);
    let width = ui.available_width();
    // As tall as its text: so it is laid out before it is painted.
    let (pad, circle) = (Vec2::new(18.0, 12.0), 34.0);
    let wrap = width - 2.0 * pad.x - circle;
    let font = |style: TextStyle| style.resolve(ui.style());
    let painter = ui.painter();
    let label = painter.layout(
        choice.label.clone(),
        font(TextStyle::Body),
        colours.ink,
        wrap,
    );
    let detail = (!choice.detail.is_empty()).then(|| {
        painter.layout(
            choice.detail.clone(),
            font(TextStyle::Small),
            colours.quiet,
            wrap,
        )
    });
    let text_height = label.size().y + detail.as_ref().map_or(0.0, |detail| 4.0 + detail.size().y);
    let (_, rect) = ui.allocate_space(Vec2::new(width, text_height + 2.0 * pad.y));
    let response = ui.interact(rect, id, Sense::click());
    response.widget_info(|| {
        let name = if choice.detail.is_empty() {
            choice.label.clone()
        } else {
            format!("{}, {}", choice.label, choice.detail)
        };
        WidgetInfo::selected(Role::RadioButton, ui.is_enabled(), is_chosen, name)
    });
    let is_touched = response.hovered() || response.has_focus();
    let edge = if is_chosen {
        Stroke::new(2.0, colours.accent)
    } else {
        Stroke::new(1.5, colours.edge)
    };
    let fill = if is_chosen || is_touched {
        colours.touched
    } else {
        colours.card
    };
    let painter = ui.painter();
    painter.rect(rect, CornerRadius::same(10), fill, edge, StrokeKind::Inside);
    let centre = rect.left_top() + pad + Vec2::new(11.0, label.size().y / 2.0);
    painter.circle(centre, 10.0, colours.card, edge);
    if is_chosen {
        painter.circle_filled(centre, 5.5, colours.accent);
    }
    let text = rect.left_top() + pad + Vec2::new(circle, 0.0);
    let below = text + Vec2::new(0.0, label.size().y + 4.0);
    painter.galley(text, label, colours.ink);
    if let Some(detail) = detail {
        painter.galley(below, detail, colours.quiet);
    }
    show_focus(ui, &response, 10);
    response
}

/// A line to type or to paste.
pub(crate) struct Entry<'a> {
    pub(crate) id: &'a str,
    pub(crate) label: &'a str,
    pub(crate) hint: &'a str,
    pub(crate) secret: bool,
    pub(crate) revealed: bool,
}

impl Entry<'_> {
    pub(crate) fn draw(
        &self,
        ui: &mut Ui,
        line: &mut Line,
        texts: &Catalogue,
        greet: &mut bool,
        inputs: &mut Vec<Input>,
    ) {
        let colours = look::palette(ui.theme());
        let named = ui.label(self.label);
        let id = ui.make_persistent_id(("entry", self.id));
        self.take_pasted(ui, id, line, inputs);
        ui.horizontal(|ui| {
            let word = if self.revealed {
                texts.face_hide
            } else {
                texts.face_show
            };
            let eye = if self.secret {
                eye_width(ui, word) + ui.spacing().item_spacing.x
            } else {
                0.0
            };
            let is_hidden = self.secret && !self.revealed;
            let unknown = line.unknown().unwrap_or_default().to_owned();
            let response = ui.add(
                TextEdit::singleline(&mut *line.text)
                    .id(id)
                    .password(is_hidden)
                    .char_limit(LINE_MAX)
                    .hint_text(RichText::new(unknown).color(colours.ink))
                    .margin(Margin::symmetric(14, 11))
                    .desired_width(ui.available_width() - eye)
                    .font(FontSelection::Style(TextStyle::Monospace)),
            );
            let response = response.labelled_by(named.id);
            let entered =
                response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            if std::mem::take(greet) || entered {
                response.request_focus();
            }
            if response.changed() {
                line.sent();
                inputs.push(Input::Set {
                    entry: self.id.to_owned(),
                    text: Secret::new(line.text.as_str()),
                });
            }
            show_focus(ui, &response, 8);
            if self.secret {
                forget_undo(ui, &response);
                if eye_button(ui, word, self.revealed).clicked() {
                    inputs.push(Input::Reveal {
                        entry: self.id.to_owned(),
                        on: !self.revealed,
                    });
                }
            }
        });
        if !self.hint.is_empty() {
            ui.add(Label::new(RichText::new(self.hint).small().color(colours.quiet)).wrap());
        }
    }

    /// What is pasted into the line: without the line ends around it, or as a whole to the assistant if it is no line.
    fn take_pasted(&self, ui: &Ui, id: Id, line: &mut Line, inputs: &mut Vec<Input>) {
        if !ui.memory(|memory| memory.has_focus(id)) {
            return;
        }
        let mut whole = None;
        ui.input_mut(|input| {
            input.events.retain_mut(|event| {
                let egui::Event::Paste(text) = event else {
                    return true;
                };
                match typing::pasted(text) {
                    typing::Pasted::Line(cut) => {
                        *text = cut;
                        true
                    }
                    typing::Pasted::Whole(text) => {
                        whole = Some(text);
                        false
                    }
                }
            });
        });
        if let Some(text) = whole {
            line.handed_over();
            inputs.push(Input::Set {
                entry: self.id.to_owned(),
                text: Secret::new(text.as_str()),
            });
        }
    }
}

fn eye_width(ui: &Ui, word: &str) -> f32 {
    let font = TextStyle::Button.resolve(ui.style());
    let text = ui
        .painter()
        .layout_no_wrap(word.to_owned(), font, Color32::PLACEHOLDER);
    text.size().x + 68.0
}

/// Shows and hides a secret. The word stands beside the picture: a picture alone says nothing to many.
fn eye_button(ui: &mut Ui, word: &str, is_open: bool) -> Response {
    let colours = look::palette(ui.theme());
    let size = Vec2::new(eye_width(ui, word), 46.0);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::Button, ui.is_enabled(), is_open, word));
    let fill = if response.hovered() || response.has_focus() {
        colours.touched
    } else {
        colours.card
    };
    let painter = ui.painter();
    painter.rect(
        rect,
        CornerRadius::same(8),
        fill,
        Stroke::new(1.5, colours.edge),
        StrokeKind::Inside,
    );
    let centre = rect.left_center() + Vec2::new(28.0, 0.0);
    signs::paint_eye(painter, centre, 12.0, colours.ink, is_open);
    painter.text(
        rect.left_center() + Vec2::new(50.0, 0.0),
        egui::Align2::LEFT_CENTER,
        word,
        TextStyle::Button.resolve(ui.style()),
        colours.ink,
    );
    show_focus(ui, &response, 8);
    response
}

/// A line remembers what it held, for undoing; a key is not remembered.
fn forget_undo(ui: &Ui, response: &Response) {
    if let Some(mut state) = TextEdit::load_state(ui.ctx(), response.id) {
        state.clear_undoer();
        state.store(ui.ctx(), response.id);
    }
}

/// Something that runs or ran.
pub(crate) fn progress(
    ui: &mut Ui,
    label: &str,
    state: State,
    sentence: &str,
    texts: &Catalogue,
    is_news: bool,
) {
    let theme = ui.theme();
    let colours = look::palette(theme);
    let (shape, tone) = signs::of_state(state);
    let colour = signs::colour(tone, theme);
    let word = match state {
        State::Waiting => texts.state_waiting,
        State::Running => texts.state_running,
        State::Skipped => texts.state_skipped,
        State::Good => texts.state_good,
        State::Warning => texts.state_warning,
        State::Failed => texts.state_failed,
    };
    let is_waiting = matches!(state, State::Waiting | State::Skipped);
    let shown = ui.horizontal_top(|ui| {
        // Nothing in here can be operated: the lines may be as low as their text.
        ui.spacing_mut().interact_size.y = 24.0;
        sign(ui, shape, colour, colours.card, 24.0);
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            ui.horizontal(|ui| {
                let ink = if is_waiting {
                    colours.quiet
                } else {
                    colours.ink
                };
                ui.label(RichText::new(label).color(ink));
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    ui.label(RichText::new(word).small().color(colour));
                });
            });
            if !sentence.is_empty() {
                let text = RichText::new(sentence)
                    .small()
                    .color(if state == State::Failed {
                        colours.ink
                    } else {
                        colours.quiet
                    });
                ui.add(Label::new(text).wrap());
            }
        });
    });
    // What goes on, and what went wrong, comes into sight by itself.
    if is_news && matches!(state, State::Running | State::Failed) {
        shown.response.scroll_to_me(None);
    }
}

/// Something to read or to compare.
pub(crate) fn fact(ui: &mut Ui, label: &str, value: &str) {
    let colours = look::palette(ui.theme());
    let font = TextStyle::Body.resolve(ui.style());
    let width = ui
        .painter()
        .layout_no_wrap(label.to_owned(), font, colours.quiet)
        .size()
        .x;
    let label = RichText::new(label).color(colours.quiet);
    let value = RichText::new(value).monospace().color(colours.ink);
    if width <= LABELS && ui.available_width() > 2.6 * LABELS {
        ui.horizontal_top(|ui| {
            let space = ui.label(label).rect.width();
            ui.add_space((LABELS - space).max(0.0));
            ui.vertical(|ui| ui.add(Label::new(value).wrap()));
        });
    } else {
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            ui.add(Label::new(label).wrap());
            ui.add(Label::new(value).wrap());
        });
    }
}

/// The buttons: the default one at the right, the others from the left in their order. Where they do not fit beside each other,
/// the others stand below it.
pub(crate) fn actions(ui: &mut Ui, actions: &[Action], greet: &mut bool, inputs: &mut Vec<Input>) {
    let font = TextStyle::Button.resolve(ui.style());
    let padding = ui.spacing().button_padding.x * 2.0 + ui.spacing().item_spacing.x;
    let width: f32 = actions
        .iter()
        .map(|action| {
            let text = ui.painter().layout_no_wrap(
                action.label.clone(),
                font.clone(),
                Color32::PLACEHOLDER,
            );
            (text.size().x + padding).max(ui.spacing().interact_size.x)
        })
        .sum();
    let (main, others): (Vec<&Action>, Vec<&Action>) =
        actions.iter().partition(|action| action.default);
    if width <= ui.available_width() {
        ui.horizontal(|ui| {
            for action in others {
                button(ui, action, greet, inputs);
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                for action in main {
                    button(ui, action, greet, inputs);
                }
            });
        });
    } else {
        ui.vertical(|ui| {
            for action in main {
                button(ui, action, greet, inputs);
            }
            ui.horizontal_wrapped(|ui| {
                for action in others {
                    button(ui, action, greet, inputs);
                }
            });
        });
    }
}

fn button(ui: &mut Ui, action: &Action, greet: &mut bool, inputs: &mut Vec<Input>) {
    let colours = look::palette(ui.theme());
    let text = RichText::new(&action.label);
    let button = if action.default {
        Button::new(text.color(colours.on_accent))
            .fill(colours.accent)
            .stroke(Stroke::new(1.5, colours.accent))
    } else {
        Button::new(WidgetText::from(text))
    };
    let response = ui.add_enabled(action.enabled, button.min_size(Vec2::new(96.0, 46.0)));
    if action.default && action.enabled && std::mem::take(greet) {
        response.request_focus();
    }
    show_focus(ui, &response, 8);
    if response.clicked() {
        inputs.push(press(action));
    }
}

pub(crate) fn press(action: &Action) -> Input {
    Input::Press {
        action: action.id.clone(),
    }
}
