//! A view on a terminal. Nothing is told by colour alone: every state has its sign and its word.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use umbra_setup::text::fill;
use umbra_setup::{Catalogue, Item, State, Tone, View};

use super::form::{Focus, Form};

/// Wider lines are hard to read.
const WIDTH_MAX: u16 = 100;
const MARGIN: u16 = 2;
/// A longer notice would leave no room for anything else.
const NOTICE_MAX: usize = 10;

/// What lies between header and buttons, line by line.
struct Body {
    lines: Vec<Line<'static>>,
    /// The line that has the focus, and where the cursor is in it.
    focus: Option<(usize, Option<usize>)>,
    width: usize,
}

impl Body {
    fn push(&mut self, text: &str, indent: usize, style: Style) {
        for line in wrapped(text, self.width.saturating_sub(indent)) {
            let spans = vec![Span::raw(" ".repeat(indent)), Span::styled(line, style)];
            self.lines.push(Line::from(spans));
        }
    }

    fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| line.width() > 0) {
            self.lines.push(Line::default());
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &View, form: &Form, colours: bool) {
    let texts = Catalogue::of(view.language);
    let area = frame.area();
    let width = area.width.min(WIDTH_MAX).saturating_sub(MARGIN * 2);
    let inner = Rect::new(area.x + MARGIN.min(area.width), area.y, width, area.height);
    let look = Look { colours };
    let buttons = buttons(view, form, &look, usize::from(width));
    let help = wrapped(texts.face_keys, usize::from(width));
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    // What has just happened stands above everything that can be scrolled.
    let notice = notice(view, &look, usize::from(width));
    let told = match notice.len() {
        0 => 0,
        count => rows(count.min(NOTICE_MAX) + 1),
    };
    let [head, news, above, body, below, foot, hints] =
        parts(inner, told, rows(buttons.len()), rows(help.len()));

    let place = if view.number == 0 {
        texts.product.to_owned()
    } else {
        let step = fill(
            texts.face_step,
            &[
                ("number", &view.number.to_string()),
                ("of", &view.of.to_string()),
            ],
        );
        format!("{} · {step}", texts.product)
    };
    let heading = vec![
        Line::from(place),
        Line::from(Span::styled(
            view.title.clone(),
            Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
        )),
    ];
    frame.render_widget(Text::from(heading), head);
    let news = Rect::new(
        news.x,
        news.y + 1,
        news.width,
        news.height.saturating_sub(1),
    );
    frame.render_widget(Text::from(notice), news);

    let lines = lines(view, form, &look, usize::from(body.width));
    let height = usize::from(body.height);
    let total = lines.lines.len();
    // What has the focus is always to be seen.
    let mut from = usize::from(form.scroll).min(total.saturating_sub(height));
    if let Some((line, _)) = lines.focus {
        from = from.max((line + 2).saturating_sub(height)).min(line);
        if line + 1 < height && form.scroll == 0 {
            from = 0;
        }
    }
    if let Some((line, Some(column))) = lines.focus
        && line >= from
        && line - from < height
    {
        let column = column.min(usize::from(body.width.saturating_sub(1)));
        frame.set_cursor_position(Position::new(
            body.x + rows(column),
            body.y + rows(line - from),
        ));
    }
    let dim = Style::new().add_modifier(Modifier::DIM);
    // Nobody should take what is on the screen for all there is.
    for (there_is, text, place) in [
        (from > 0, texts.face_more_above, above),
        (from + height < total, texts.face_more_below, below),
    ] {
        if there_is {
            frame.render_widget(Line::from(Span::styled(text, dim)), place);
        }
    }
    let seen: Vec<Line<'static>> = lines.lines.into_iter().skip(from).take(height).collect();
    frame.render_widget(Text::from(seen), body);
    frame.render_widget(Text::from(buttons), foot);
    let help: Vec<Line<'static>> = help
        .into_iter()
        .map(|line| Line::from(Span::styled(line, dim)))
        .collect();
    frame.render_widget(Text::from(help), hints);
}

/// The parts of the screen, from top to bottom: heading, notice, the line that says that there is more above, the body, the line that
/// says that there is more below, buttons and keys. The body has at least three rows; what is left goes to the others, and on a
/// terminal that is too small for all, the buttons come first.
fn parts(area: Rect, notice: u16, buttons: u16, keys: u16) -> [Rect; 7] {
    let least = area.height.min(3);
    let mut left = area.height - least;
    let mut have = |wanted: u16| {
        let got = wanted.min(left);
        left -= got;
        got
    };
    let (buttons, heading, notice) = (have(buttons), have(2), have(notice));
    let (keys, above, below) = (have(keys), have(1), have(1));
    let body = least + left;
    let mut y = area.y;
    [heading, notice, above, body, below, buttons, keys].map(|height| {
        let part = Rect::new(area.x, y, area.width, height);
        y += height;
        part
    })
}

struct Look {
    colours: bool,
}

impl Look {
    fn tone(&self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Information => Color::Cyan,
            Tone::Good => Color::Green,
            Tone::Warning => Color::Yellow,
            Tone::Problem => Color::Red,
        };
        if self.colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn focus(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

fn notice(view: &View, look: &Look, width: usize) -> Vec<Line<'static>> {
    let Some(notice) = &view.notice else {
        return Vec::new();
    };
    let sign = match notice.tone {
        Tone::Information => "i",
        Tone::Good => "+",
        Tone::Warning => "!",
        Tone::Problem => "x",
    };
    let style = look.tone(notice.tone).add_modifier(Modifier::BOLD);
    wrapped(&format!("[{sign}] {}", notice.text), width)
        .into_iter()
        .map(|line| Line::from(Span::styled(line, style)))
        .collect()
}

fn lines(view: &View, form: &Form, look: &Look, width: usize) -> Body {
    let texts = Catalogue::of(view.language);
    let focus = form.focus(view);
    let mut body = Body {
        lines: Vec::new(),
        focus: None,
        width: width.max(20),
    };
    for paragraph in &view.text {
        body.push(paragraph, 0, Style::new());
    }
    body.gap();
    for (index, item) in view.items.iter().enumerate() {
        match item {
            Item::Choice {
                label,
                options,
                selected,
                ..
            } => {
                body.push(label, 0, Style::new().add_modifier(Modifier::BOLD));
                for (option_index, option) in options.iter().enumerate() {
                    let is_chosen = selected.as_ref() == Some(&option.id);
                    let has_focus = focus == Some(Focus::Option(index, option_index));
                    let style = if has_focus {
                        look.focus()
                    } else {
                        Style::new()
                    };
                    if has_focus {
                        body.focus = Some((body.lines.len(), None));
                    }
                    let sign = if is_chosen { "(•)" } else { "( )" };
                    body.push(&format!("{sign} {}", option.label), 2, style);
                    body.push(&option.detail, 6, Style::new().add_modifier(Modifier::DIM));
                }
                body.gap();
            }
            Item::Entry {
                label,
                hint,
                text,
                secret,
                revealed,
                ..
            } => {
                let has_focus = focus == Some(Focus::Entry(index));
                let eye = match (secret, revealed) {
                    (true, false) => format!("   [F2: {}]", texts.face_show),
                    (true, true) => format!("   [F2: {}]", texts.face_hide),
                    (false, _) => String::new(),
                };
                body.push(
                    &format!("{label}:{eye}"),
                    0,
                    Style::new().add_modifier(Modifier::BOLD),
                );
                let room = body.width.saturating_sub(4);
                let cursor = if has_focus { form.cursor() } else { 0 };
                let cursor = cursor.min(text.chars().count());
                let skipped = (cursor + 1).saturating_sub(room);
                let seen: String = text.chars().skip(skipped).take(room).collect();
                let line = format!("> {seen:<room$}");
                if has_focus {
                    body.focus = Some((body.lines.len(), Some(2 + cursor - skipped)));
                }
                let style = Style::new().add_modifier(Modifier::UNDERLINED);
                body.lines.push(Line::from(Span::styled(line, style)));
                body.push(hint, 2, Style::new().add_modifier(Modifier::DIM));
                body.gap();
            }
            Item::Progress {
                label,
                state,
                sentence,
                ..
            } => {
                let (sign, word, style) = match state {
                    State::Waiting => (
                        " ",
                        texts.state_waiting,
                        Style::new().add_modifier(Modifier::DIM),
                    ),
                    State::Running => (".", texts.state_running, look.tone(Tone::Information)),
                    State::Skipped => (
                        "-",
                        texts.state_skipped,
                        Style::new().add_modifier(Modifier::DIM),
                    ),
                    State::Good => ("+", texts.state_good, look.tone(Tone::Good)),
                    State::Warning => ("!", texts.state_warning, look.tone(Tone::Warning)),
                    State::Failed => ("x", texts.state_failed, look.tone(Tone::Problem)),
                };
                let line = format!("[{sign}] {label}: {word}");
                let together = line.chars().count() + 3 + sentence.chars().count();
                let is_short = !sentence.is_empty() && together <= body.width;
                if is_short && matches!(state, State::Good | State::Skipped | State::Running) {
                    // One line for what needs no attention: the whole list fits a small screen.
                    body.lines.push(Line::from(vec![
                        Span::styled(line, style),
                        Span::raw(format!(" – {sentence}")),
                    ]));
                } else {
                    body.push(&line, 0, style);
                    body.push(sentence, 4, Style::new());
                }
                // What goes on, and what went wrong, is always to be seen.
                if matches!(state, State::Running | State::Failed) {
                    body.focus = Some((body.lines.len().saturating_sub(1), None));
                }
            }
            Item::Fact { label, value } => {
                body.push(&format!("{label}: {value}"), 0, Style::new());
            }
        }
    }
    if view.busy {
        body.gap();
        body.push(
            texts.face_busy,
            0,
            Style::new().add_modifier(Modifier::BOLD),
        );
    }
    body
}

fn buttons(view: &View, form: &Form, look: &Look, width: usize) -> Vec<Line<'static>> {
    let focus = form.focus(view);
    let mut rows: Vec<Line<'static>> = Vec::new();
    let mut row: Vec<Span<'static>> = Vec::new();
    let mut used = 0;
    for (index, action) in view.actions.iter().enumerate() {
        let label = if action.default {
            format!("[>{}<]", action.label)
        } else {
            format!("[ {} ]", action.label)
        };
        let style = if focus == Some(Focus::Action(index)) {
            look.focus()
        } else if action.enabled {
            Style::new()
        } else {
            Style::new().add_modifier(Modifier::DIM | Modifier::CROSSED_OUT)
        };
        let needed = label.chars().count() + 2;
        if used > 0 && used + needed > width {
            rows.push(Line::from(std::mem::take(&mut row)));
            used = 0;
        }
        used += needed;
        row.push(Span::styled(label, style));
        row.push(Span::raw("  "));
    }
    if !row.is_empty() {
        rows.push(Line::from(row));
    }
    rows
}

/// Words put together to lines that are no longer than that. A word that is longer is cut.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        } else if used > 0 {
            line.push(' ');
            used += 1;
        }
        while used + word.len() > width {
            let rest = word.split_off(width - used);
            line.extend(word);
            lines.push(std::mem::take(&mut line));
            used = 0;
            word = rest;
        }
        used += word.len();
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
