//! What the test desktop shows: wallpaper, taskbar, a window with the keys typed last, a counter and a ball that moves.
//! Pure: the same moment and the same input always give the same picture.

use super::font;
use crate::image::{Image, Rect};

/// The wallpaper's colours at its upper and lower edge, and the others that the scene uses.
const WALLPAPER: [[u16; 3]; 2] = [[24, 52, 96], [96, 148, 160]];
const TASKBAR: u32 = 0x1B_1F_2A;
const START_BUTTON: u32 = 0x2E_9E_5B;
const WINDOW: u32 = 0xF4_F1_E8;
const TITLE_BAR: u32 = 0x8A_2B_4F;
const FIELD: u32 = 0xFF_FF_FF;
const INK: u32 = 0x20_20_20;
const PALE: u32 = 0xFF_FF_FF;
const BALL: u32 = 0xF2_8C_1E;
const POINTER: u32 = 0xE0_10_10;
/// Side of the ball.
const BALL_SIDE: u16 = 28;
/// How many of the keys typed last the window shows.
pub(super) const TYPED_SHOWN: usize = 32;

/// The picture's moving parts.
#[derive(Debug, Clone, Default)]
pub(super) struct Moment {
    /// Steps since the desktop started.
    pub tick: u64,
    /// The keys typed last.
    pub typed: String,
    /// Where the pointer is, once it was moved.
    pub pointer: Option<(u16, u16)>,
    /// How many keys arrived in all.
    pub keys: u64,
}

/// The still parts, painted once, and the recipe for the rest.
pub(super) struct Scene {
    still: Image,
    window: Rect,
}

impl Scene {
    /// Paints what doesn't move.
    pub(super) fn new(width: u16, height: u16, name: &str) -> Self {
        let mut still = Image::new(width, height);
        for y in 0..height {
            let colour = (0..3).fold(0u32, |colour, channel| {
                let [top, bottom] = [WALLPAPER[0][channel], WALLPAPER[1][channel]].map(u32::from);
                let share = u32::from(y) * 256 / u32::from(height.max(1));
                (colour << 8) | ((top * (256 - share) + bottom * share) / 256)
            });
            still.row_mut(y).fill(colour);
        }
        let bar = height.saturating_sub(32);
        still.fill(Rect::new(0, bar, width, 32), TASKBAR);
        still.fill(Rect::new(4, bar + 4, 76, 24), START_BUTTON);
        font::write(&mut still, 12, bar + 9, 2, PALE, "Start");
        font::write(&mut still, 96, bar + 9, 2, PALE, name);

        let window = Rect::new(width / 10, height / 8, width * 4 / 5, height / 2);
        still.fill(
            Rect::new(window.x + 6, window.y + 6, window.width, window.height),
            0x10_18_28,
        );
        still.fill(window, WINDOW);
        still.fill(Rect::new(window.x, window.y, window.width, 28), TITLE_BAR);
        font::write(
            &mut still,
            window.x + 10,
            window.y + 7,
            2,
            PALE,
            &format!("Umbra test desktop: {name}"),
        );
        font::write(
            &mut still,
            window.x + 16,
            window.y + 48,
            2,
            INK,
            "Last keys typed:",
        );
        still.fill(Scene::field(window), FIELD);
        Self { still, window }
    }

    fn field(window: Rect) -> Rect {
        Rect::new(
            window.x + 16,
            window.y + 72,
            window.width.saturating_sub(32),
            32,
        )
    }

    /// Paints one moment.
    pub(super) fn paint(&self, moment: &Moment, onto: &mut Image) {
        onto.clone_from(&self.still);
        let (width, height, window) = (onto.width(), onto.height(), self.window);
        let field = Scene::field(window);
        let skip = moment.typed.chars().count().saturating_sub(TYPED_SHOWN);
        let typed: String = moment.typed.chars().skip(skip).collect();
        font::write(onto, field.x + 8, field.y + 8, 2, INK, &typed);
        let count = format!("{} keys", moment.keys);
        font::write(onto, window.x + 16, field.y + 48, 2, INK, &count);

        let seconds = moment.tick / 10;
        let clock = format!(
            "{:02}:{:02}:{:02}.{}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            moment.tick % 10
        );
        let left = width.saturating_sub(font::width(&clock, 2) + 8);
        font::write(onto, left, height.saturating_sub(23), 2, PALE, &clock);

        let floor = height.saturating_sub(32 + BALL_SIDE);
        let x = bounce(moment.tick * 9, u64::from(width.saturating_sub(BALL_SIDE)));
        let y = bounce(moment.tick * 7 + 40, u64::from(floor));
        disc(onto, x, y);
        if let Some((x, y)) = moment.pointer {
            onto.fill(Rect::new(x.saturating_sub(6), y, 13, 1), POINTER);
            onto.fill(Rect::new(x, y.saturating_sub(6), 1, 13), POINTER);
        }
    }
}

/// A position that runs to and fro between 0 and `limit`.
fn bounce(way: u64, limit: u64) -> u16 {
    if limit == 0 {
        return 0;
    }
    let place = way % (2 * limit);
    u16::try_from(if place < limit {
        place
    } else {
        2 * limit - place
    })
    .unwrap_or(0)
}

fn disc(onto: &mut Image, x: u16, y: u16) {
    let radius = i32::from(BALL_SIDE) / 2;
    for row in 0..BALL_SIDE {
        let up = i32::from(row) - radius;
        let half = f64::from(radius * radius - up * up).sqrt() as u16;
        onto.fill(
            Rect::new(x + BALL_SIDE / 2 - half, y + row, 2 * half, 1),
            BALL,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paint(moment: &Moment) -> Image {
        let mut image = Image::new(0, 0);
        Scene::new(640, 400, "tc-1").paint(moment, &mut image);
        image
    }

    #[test]
    fn the_same_moment_is_the_same_picture_and_another_one_is_not() {
        let moment = Moment {
            tick: 12,
            ..Moment::default()
        };
        assert!(paint(&moment) == paint(&moment));
        assert!(
            paint(&moment)
                != paint(&Moment {
                    tick: 13,
                    ..Moment::default()
                })
        );
        let typed = Moment {
            typed: "x".into(),
            ..moment.clone()
        };
        assert!(paint(&typed) != paint(&moment));
    }

    #[test]
    fn the_picture_has_enough_in_it_to_be_recognised() {
        assert!(paint(&Moment::default()).colours(100) > 50);
    }

    #[test]
    fn tiny_and_wide_screens_are_painted_without_falling_over_the_edge() {
        for (width, height) in [(1, 1), (40, 20), (4096, 10), (33, 2048)] {
            let mut image = Image::new(0, 0);
            let scene = Scene::new(width, height, "a name much longer than the screen is wide");
            for tick in 0..50 {
                let moment = Moment {
                    tick,
                    pointer: Some((width - 1, height - 1)),
                    ..Moment::default()
                };
                scene.paint(&moment, &mut image);
            }
            assert_eq!((image.width(), image.height()), (width, height));
        }
    }

    #[test]
    fn the_ball_turns_round_at_both_ends() {
        assert_eq!(
            [0, 5, 9, 10, 11, 19, 20, 21].map(|way| bounce(way, 10)),
            [0, 5, 9, 10, 9, 1, 0, 1]
        );
        assert_eq!(bounce(7, 0), 0);
    }
}
