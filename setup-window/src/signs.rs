//! The signs in front of things, painted: no font has them all, and a shape says what a colour alone must not. Each also has a
//! word beside it, for those who see neither.

use eframe::egui::epaint::QuadraticBezierShape;
use eframe::egui::{Color32, Painter, Pos2, Shape, Stroke, Theme, Vec2};
use umbra_setup::{State, Tone};

use crate::look;

/// A shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sign {
    /// An empty circle.
    Circle,
    /// Three dots.
    Dots,
    /// A stroke.
    Dash,
    /// A tick in a filled circle.
    Tick,
    /// A triangle with an exclamation mark.
    Triangle,
    /// A cross in a filled circle.
    Cross,
    /// An “i” in a filled circle.
    Letter,
}

pub(crate) fn of_state(state: State) -> (Sign, Option<Tone>) {
    match state {
        State::Waiting => (Sign::Circle, None),
        State::Skipped => (Sign::Dash, None),
        State::Running => (Sign::Dots, Some(Tone::Information)),
        State::Good => (Sign::Tick, Some(Tone::Good)),
        State::Warning => (Sign::Triangle, Some(Tone::Warning)),
        State::Failed => (Sign::Cross, Some(Tone::Problem)),
    }
}

pub(crate) fn of_tone(tone: Tone) -> Sign {
    match tone {
        Tone::Information => Sign::Letter,
        Tone::Good => Sign::Tick,
        Tone::Warning => Sign::Triangle,
        Tone::Problem => Sign::Cross,
    }
}

/// The colour of a state's sign and word.
pub(crate) fn colour(tone: Option<Tone>, theme: Theme) -> Color32 {
    tone.map_or(look::palette(theme).quiet, |tone| {
        look::of_tone(tone, theme)
    })
}

/// Paints a sign of this radius around the centre; `on` is the colour of what is cut out of a filled shape.
pub(crate) fn paint(
    painter: &Painter,
    sign: Sign,
    centre: Pos2,
    radius: f32,
    colour: Color32,
    on: Color32,
) {
    let at = |x: f32, y: f32| centre + Vec2::new(x, y) * radius;
    let thick = Stroke::new(radius * 0.22, on);
    match sign {
        Sign::Circle => {
            painter.circle_stroke(centre, radius * 0.82, Stroke::new(radius * 0.17, colour));
        }
        Sign::Dots => {
            for x in [-0.68, 0.0, 0.68] {
                painter.circle_filled(at(x, 0.0), radius * 0.22, colour);
            }
        }
        Sign::Dash => {
            painter.line_segment(
                [at(-0.55, 0.0), at(0.55, 0.0)],
                Stroke::new(radius * 0.2, colour),
            );
        }
        Sign::Tick => {
            painter.circle_filled(centre, radius, colour);
            painter.add(Shape::line(
                vec![at(-0.45, 0.02), at(-0.12, 0.36), at(0.48, -0.34)],
                thick,
            ));
        }
        Sign::Triangle => {
            let corners = vec![at(0.0, -0.98), at(1.05, 0.88), at(-1.05, 0.88)];
            painter.add(Shape::convex_polygon(
                corners,
                colour,
                Stroke::new(radius * 0.12, colour),
            ));
            painter.line_segment([at(0.0, -0.36), at(0.0, 0.26)], thick);
            painter.circle_filled(at(0.0, 0.58), radius * 0.13, on);
        }
        Sign::Cross => {
            painter.circle_filled(centre, radius, colour);
            painter.line_segment([at(-0.36, -0.36), at(0.36, 0.36)], thick);
            painter.line_segment([at(-0.36, 0.36), at(0.36, -0.36)], thick);
        }
        Sign::Letter => {
            painter.circle_filled(centre, radius, colour);
            painter.circle_filled(at(0.0, -0.46), radius * 0.14, on);
            painter.line_segment([at(0.0, -0.12), at(0.0, 0.54)], thick);
        }
    }
}

/// An eye; crossed out while the secret is hidden.
pub(crate) fn paint_eye(painter: &Painter, centre: Pos2, radius: f32, colour: Color32, open: bool) {
    let at = |x: f32, y: f32| centre + Vec2::new(x, y) * radius;
    let stroke = Stroke::new(radius * 0.17, colour);
    for bend in [-1.15, 1.15] {
        painter.add(QuadraticBezierShape::from_points_stroke(
            [at(-1.0, 0.0), at(0.0, bend), at(1.0, 0.0)],
            false,
            Color32::TRANSPARENT,
            stroke,
        ));
    }
    painter.circle_filled(centre, radius * 0.28, colour);
    if !open {
        painter.line_segment([at(-0.75, 0.75), at(0.75, -0.75)], stroke);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_state_has_a_shape_of_its_own() {
        let states = [
            State::Waiting,
            State::Skipped,
            State::Running,
            State::Good,
            State::Warning,
            State::Failed,
        ];
        let signs: HashSet<Sign> = states.iter().map(|state| of_state(*state).0).collect();
        assert_eq!(signs.len(), states.len());
    }

    #[test]
    fn every_tone_has_a_shape_of_its_own() {
        let tones = [Tone::Information, Tone::Good, Tone::Warning, Tone::Problem];
        let signs: HashSet<Sign> = tones.iter().map(|tone| of_tone(*tone)).collect();
        assert_eq!(signs.len(), tones.len());
    }
}
