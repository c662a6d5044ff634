//! One screen: a view drawn from top to bottom, and what the person did with it, with pointer or keyboard alone.

use eframe::egui::{
    self, Align, CentralPanel, CornerRadius, Event, Frame, Id, Key, Label, Layout, Rect, RichText,
    ScrollArea, Stroke, StrokeKind, Ui, UiBuilder, Vec2,
};
use umbra_setup::text::fill;
use umbra_setup::{Action, Catalogue, Input, Item, View};

use crate::look;
use crate::parts::{self, Entry};
use crate::typing::Typing;

/// Below this a window is narrow: less space around things.
const NARROW: f32 = 700.0;
/// Above the card, and below it.
const HEAD: f32 = 62.0;
const HINTS: f32 = 40.0;
/// Frames until a new screen has its sizes and its focus.
const SETTLING: u8 = 4;

/// What a screen keeps from one frame to the next.
#[derive(Default)]
pub(crate) struct Screen {
    typing: Typing,
    /// Something is to get the focus that has not been there yet: the first thing to do on the screen.
    greet: bool,
    /// The view is new in this frame.
    is_news: bool,
    /// For how many frames the beginning of a new screen is still to be in sight, although something further down gets the focus.
    settling: u8,
    /// An arrow key was pressed in the frame before: what it moves the focus to has it in this one.
    arrow: bool,
    /// What had the focus in the frame before.
    focus: Option<Id>,
    /// How tall the buttons were. They are drawn after what stands above them, so that Tab reaches them after it.
    foot: f32,
}

impl Screen {
    /// A view is shown from now on.
    pub(crate) fn take(&mut self, view: &View) {
        self.is_news = true;
        if self.typing.follow(view) {
            self.greet = true;
            self.settling = SETTLING;
        }
    }

    /// Draws the view and gathers what the person does.
    pub(crate) fn draw(&mut self, ui: &mut Ui, view: &View) -> Vec<Input> {
        let mut inputs = Vec::new();
        let texts = Catalogue::of(view.language);
        let step = (view.number > 0).then_some((view.number, view.of));
        let arrow = ui.input_mut(|input| {
            // A key that is held down goes one step and no further.
            input.events.retain(|event| {
                !matches!(
                    event,
                    Event::Key {
                        key: Key::Enter,
                        repeat: true,
                        ..
                    }
                )
            });
            input.key_pressed(Key::ArrowUp) || input.key_pressed(Key::ArrowDown)
        });
        let focus = ui.memory(|memory| memory.focused());
        let by_arrow = std::mem::replace(&mut self.arrow, arrow) || arrow;
        let manner = Manner {
            texts,
            // The first thing to type in goes before the first thing to choose from.
            types: view
                .items
                .iter()
                .any(|item| matches!(item, Item::Entry { .. })),
            is_news: std::mem::take(&mut self.is_news),
            moved_to: focus.filter(|now| by_arrow && self.focus != Some(*now)),
        };
        let is_settling = self.settling > 0;
        let (typing, mut greet) = (&mut self.typing, self.greet);
        let foot = frame(
            ui,
            texts,
            step,
            self.foot,
            &mut (&mut inputs, &mut greet),
            |ui, (inputs, greet)| {
                let top = Rect::from_min_size(ui.cursor().min, Vec2::splat(1.0));
                head(ui, view, texts);
                for item in &view.items {
                    draw_item(ui, item, &manner, typing, greet, inputs);
                }
                if is_settling {
                    ui.scroll_to_rect(top, Some(Align::TOP));
                }
            },
            |ui, (inputs, greet)| parts::actions(ui, &view.actions, greet, inputs),
        );
        if (foot - self.foot).abs() > 0.5 {
            self.foot = foot;
            ui.ctx().request_repaint();
        }
        self.greet = greet;
        if is_settling {
            self.settling -= 1;
            ui.ctx().request_repaint();
        }
        self.focus = ui.memory(|memory| memory.focused());
        keys(ui, view, &mut inputs);
        inputs
    }
}

/// The page: what this is and how far it is, a card with a body that scrolls and a foot that stays, and what the keys do. Gives the
/// height of the foot.
pub(crate) fn frame<S>(
    ui: &mut Ui,
    texts: &Catalogue,
    step: Option<(u8, u8)>,
    foot_height: f32,
    state: &mut S,
    body: impl FnOnce(&mut Ui, &mut S),
    foot: impl FnOnce(&mut Ui, &mut S),
) -> f32 {
    let colours = look::palette(ui.theme());
    let mut measured = foot_height;
    let page = Frame::new().fill(colours.page);
    CentralPanel::default().frame(page).show(ui, |ui| {
        let area = ui.max_rect();
        let is_narrow = area.width() < NARROW;
        let side = if is_narrow { 14.0 } else { 40.0 };
        let width = (area.width() - 2.0 * side).min(look::COLUMN);
        let left = area.center().x - width / 2.0;
        let column = Rect::from_min_size(
            egui::pos2(left, area.top()),
            Vec2::new(width, area.height()),
        );
        let card = Rect::from_min_max(
            column.min + Vec2::new(0.0, HEAD + if is_narrow { 0.0 } else { 14.0 }),
            column.max - Vec2::new(0.0, HINTS + if is_narrow { 0.0 } else { 6.0 }),
        );
        let top = Rect::from_min_max(
            egui::pos2(left, card.top() - HEAD + 6.0),
            egui::pos2(column.right(), card.top() - 12.0),
        );
        ui.scope_builder(UiBuilder::new().max_rect(top), |ui| {
            how_far(ui, texts, step);
        });
        ui.painter().rect(
            card,
            CornerRadius::same(16),
            colours.card,
            Stroke::new(1.0, colours.line),
            StrokeKind::Inside,
        );
        let pad = if is_narrow {
            Vec2::new(18.0, 16.0)
        } else {
            Vec2::new(44.0, 30.0)
        };
        let foot_height = foot_height.clamp(46.0, (card.height() / 2.0).max(46.0));
        let line = (card.bottom() - pad.y.min(20.0) * 2.0 - foot_height).max(card.top() + pad.y);
        // The ring of what has the focus lies outside of it.
        let ring = 8.0;
        let inner = Rect::from_min_max(
            egui::pos2(card.left() + pad.x - ring, card.top() + 1.0),
            egui::pos2(card.right() - pad.x + ring, line),
        );
        ui.scope_builder(UiBuilder::new().max_rect(inner), |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                Frame::new().inner_margin(ring).show(ui, |ui| {
                    ui.set_min_width(ui.available_width());
                    ui.add_space(pad.y - ring);
                    body(ui, state);
                    ui.add_space(8.0);
                });
            });
        });
        ui.painter().hline(
            card.left() + pad.x..=card.right() - pad.x,
            line,
            Stroke::new(1.0, colours.line),
        );
        let buttons = Rect::from_min_max(
            egui::pos2(card.left() + pad.x, line + pad.y.min(20.0)),
            egui::pos2(card.right() - pad.x, card.bottom()),
        );
        let shown = ui.scope_builder(UiBuilder::new().max_rect(buttons), |ui| foot(ui, state));
        measured = shown.response.rect.height();
        let hints = Rect::from_min_max(
            egui::pos2(left, card.bottom() + 6.0),
            egui::pos2(column.right(), area.bottom()),
        );
        ui.scope_builder(UiBuilder::new().max_rect(hints), |ui| {
            ui.with_layout(Layout::top_down(Align::Center), |ui| {
                let hint = RichText::new(texts.window_keys)
                    .size(13.0)
                    .color(colours.quiet);
                ui.add(Label::new(hint).wrap());
            });
        });
    });
    measured
}

/// What this is, and which of the steps.
fn how_far(ui: &mut Ui, texts: &Catalogue, step: Option<(u8, u8)>) {
    let colours = look::palette(ui.theme());
    ui.horizontal(|ui| {
        ui.label(RichText::new(texts.product).color(colours.ink));
        if let Some((number, of)) = step {
            let values = [("number", &*number.to_string()), ("of", &*of.to_string())];
            let text = fill(texts.face_step, &values);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.label(RichText::new(text).small().color(colours.quiet));
            });
        }
    });
    let Some((number, of)) = step else {
        return;
    };
    let area = ui.max_rect();
    let (gap, count) = (6.0, f32::from(of.max(1)));
    let width = (area.width() - gap * (count - 1.0)) / count;
    for index in 0..of {
        let left = area.left() + f32::from(index) * (width + gap);
        let bar = Rect::from_min_size(egui::pos2(left, area.bottom() - 6.0), Vec2::new(width, 6.0));
        let colour = if index < number {
            colours.accent
        } else {
            colours.line
        };
        ui.painter().rect_filled(bar, CornerRadius::same(3), colour);
    }
}

fn head(ui: &mut Ui, view: &View, texts: &Catalogue) {
    ui.add(Label::new(RichText::new(&view.title).heading()).wrap());
    ui.add_space(4.0);
    if let Some(notice) = &view.notice {
        parts::notice(ui, notice);
        ui.add_space(4.0);
    }
    for paragraph in &view.text {
        ui.add(Label::new(paragraph).wrap());
    }
    if view.busy {
        let colours = look::palette(ui.theme());
        ui.horizontal(|ui| {
            ui.add(egui::Spinner::new().size(22.0).color(colours.accent));
            ui.label(RichText::new(texts.face_busy).color(colours.quiet));
        });
    }
    ui.add_space(10.0);
}

/// How the items of a screen are drawn.
struct Manner {
    texts: &'static Catalogue,
    /// There is something to type in.
    types: bool,
    /// The view is new in this frame.
    is_news: bool,
    /// What an arrow key has just moved the focus to.
    moved_to: Option<Id>,
}

fn draw_item(
    ui: &mut Ui,
    item: &Item,
    manner: &Manner,
    typing: &mut Typing,
    greet: &mut bool,
    inputs: &mut Vec<Input>,
) {
    match item {
        Item::Choice {
            id,
            label,
            options,
            selected,
        } => {
            let mut no = false;
            let choice = parts::Choosing {
                id,
                label,
                options,
                selected: selected.as_deref(),
            };
            let greet = if manner.types { &mut no } else { greet };
            choice.draw(ui, manner.moved_to, greet, inputs);
            ui.add_space(8.0);
        }
        Item::Entry {
            id,
            label,
            hint,
            secret,
            revealed,
            ..
        } => {
            let entry = Entry {
                id,
                label,
                hint,
                secret: *secret,
                revealed: *revealed,
            };
            ui.add_space(4.0);
            if let Some(line) = typing.line(id) {
                entry.draw(ui, line, manner.texts, greet, inputs);
            }
            ui.add_space(6.0);
        }
        Item::Progress {
            label,
            state,
            sentence,
            ..
        } => {
            parts::progress(ui, label, *state, sentence, manner.texts, manner.is_news);
        }
        Item::Fact { label, value } => parts::fact(ui, label, value),
    }
}

/// Enter presses the default action, unless something that has the focus took it; Esc goes back; F2 shows and hides.
fn keys(ui: &Ui, view: &View, inputs: &mut Vec<Input>) {
    let pressed = |key: Key| {
        ui.input(|input| {
            input.events.iter().any(|event| {
                matches!(event, Event::Key { key: which, pressed: true, repeat: false, .. } if *which == key)
            })
        })
    };
    let has_acted = inputs
        .iter()
        .any(|input| !matches!(input, Input::Set { .. }));
    if has_acted {
        return;
    }
    let can = |action: &&Action| action.enabled;
    if pressed(Key::Enter) {
        let default = view
            .actions
            .iter()
            .filter(can)
            .find(|action| action.default);
        inputs.extend(default.map(parts::press));
    } else if pressed(Key::Escape) {
        let back = ["stay", "back", "cancel"].into_iter().find_map(|id| {
            let mut actions = view.actions.iter().filter(can);
            actions.find(|action| action.id == id)
        });
        inputs.extend(back.map(parts::press));
    } else if pressed(Key::F2) {
        let secret = view.items.iter().find_map(|item| match item {
            Item::Entry {
                id,
                secret: true,
                revealed,
                ..
            } => Some(Input::Reveal {
                entry: id.clone(),
                on: !revealed,
            }),
            Item::Entry { .. }
            | Item::Choice { .. }
            | Item::Progress { .. }
            | Item::Fact { .. } => None,
        });
        inputs.extend(secret);
    }
}

#[cfg(test)]
mod tests;
