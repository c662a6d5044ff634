//! How the window looks: large letters, strong contrast, light or dark as the desktop says. The person may stand a metre away,
//! see few colours, or look at a screen of any size.

use eframe::egui::epaint::FontColorTransferFunction;
use eframe::egui::style::TextCursorStyle;
use eframe::egui::{
    Color32, Context, CornerRadius, FontFamily, FontId, Stroke, Style, TextStyle, Theme, Vec2,
};
use umbra_setup::Tone;

/// The widest that the window's content may become: longer lines are hard to read.
pub(crate) const COLUMN: f32 = 820.0;
/// What one screen shows without scrolling; larger screens show it larger.
const SCREEN: Vec2 = Vec2::new(1180.0, 740.0);
const ZOOM_MAX: f32 = 4.0;

/// The colours of a theme.
#[derive(Debug)]
pub(crate) struct Palette {
    /// Around the card.
    pub(crate) page: Color32,
    /// Behind the text.
    pub(crate) card: Color32,
    /// Text.
    pub(crate) ink: Color32,
    /// Text that is less important, and still has to be read.
    pub(crate) quiet: Color32,
    /// Lines that only part things.
    pub(crate) line: Color32,
    /// The edge of what can be operated.
    pub(crate) edge: Color32,
    /// Behind what can be operated, under the pointer.
    pub(crate) touched: Color32,
    /// What is chosen, what has the focus, the default button.
    pub(crate) accent: Color32,
    /// Text on that.
    pub(crate) on_accent: Color32,
}

const fn rgb(value: u32) -> Color32 {
    let [_, red, green, blue] = value.to_be_bytes();
    Color32::from_rgb(red, green, blue)
}

const LIGHT: Palette = Palette {
    page: rgb(0xE9_EE_F4),
    card: rgb(0xFF_FF_FF),
    ink: rgb(0x10_18_21),
    quiet: rgb(0x42_4F_5D),
    line: rgb(0xCF_D8_E1),
    edge: rgb(0x6B_78_86),
    touched: rgb(0xEA_F2_FB),
    accent: rgb(0x0B_57_A6),
    on_accent: rgb(0xFF_FF_FF),
};

const DARK: Palette = Palette {
    page: rgb(0x0D_12_17),
    card: rgb(0x19_20_29),
    ink: rgb(0xF4_F7_FA),
    quiet: rgb(0xBC_C7_D3),
    line: rgb(0x37_43_50),
    edge: rgb(0x8B_98_A6),
    touched: rgb(0x22_31_42),
    accent: rgb(0x86_BD_FF),
    on_accent: rgb(0x06_10_1B),
};

/// The colours of the theme.
pub(crate) const fn palette(theme: Theme) -> &'static Palette {
    match theme {
        Theme::Light => &LIGHT,
        Theme::Dark => &DARK,
    }
}

/// A colour for signs and words of this tone.
pub(crate) const fn of_tone(tone: Tone, theme: Theme) -> Color32 {
    match (tone, theme) {
        (Tone::Information, Theme::Dark) => rgb(0x9C_C9_FF),
        (Tone::Information, Theme::Light) => rgb(0x0B_4F_9E),
        (Tone::Good, Theme::Dark) => rgb(0x7F_E0_9B),
        (Tone::Good, Theme::Light) => rgb(0x10_66_2E),
        (Tone::Warning, Theme::Dark) => rgb(0xFF_D1_66),
        (Tone::Warning, Theme::Light) => rgb(0x7A_4A_00),
        (Tone::Problem, Theme::Dark) => rgb(0xFF_A3_9B),
        (Tone::Problem, Theme::Light) => rgb(0xA3_1B_12),
    }
}

/// Behind a notice of this tone.
pub(crate) const fn behind(tone: Tone, theme: Theme) -> Color32 {
    match (tone, theme) {
        (Tone::Information, Theme::Dark) => rgb(0x1B_2B_3F),
        (Tone::Information, Theme::Light) => rgb(0xE7_F0_FB),
        (Tone::Good, Theme::Dark) => rgb(0x19_30_22),
        (Tone::Good, Theme::Light) => rgb(0xE5_F4_E9),
        (Tone::Warning, Theme::Dark) => rgb(0x38_2D_12),
        (Tone::Warning, Theme::Light) => rgb(0xFD_F2_D8),
        (Tone::Problem, Theme::Dark) => rgb(0x40_20_1D),
        (Tone::Problem, Theme::Light) => rgb(0xFC_E9_E7),
    }
}

pub(crate) fn apply(context: &Context) {
    context.options_mut(|options| options.fallback_theme = Theme::Light);
    for theme in [Theme::Light, Theme::Dark] {
        context.style_mut_of(theme, |style| paint(style, palette(theme)));
    }
}

fn paint(style: &mut Style, colours: &Palette) {
    for (kind, size) in [
        (TextStyle::Heading, 30.0),
        (TextStyle::Body, 18.0),
        (TextStyle::Button, 18.0),
        (TextStyle::Small, 15.5),
    ] {
        let font = FontId::new(size, FontFamily::Proportional);
        style.text_styles.insert(kind, font);
    }
    let typed = FontId::new(19.0, FontFamily::Monospace);
    style.text_styles.insert(TextStyle::Monospace, typed);
    style.spacing.item_spacing = Vec2::new(12.0, 10.0);
    style.spacing.button_padding = Vec2::new(20.0, 10.0);
    style.spacing.interact_size = Vec2::new(48.0, 44.0);
    // Nothing moves by itself: that tires weak processors and eyes, and a still window can be compared with a picture.
    style.animation_time = 0.0;
    let visuals = &mut style.visuals;
    // The letters are thin; this makes them a little stronger on both grounds.
    visuals.text_options.color_transfer_function =
        FontColorTransferFunction::TwoCoverageMinusCoverageSq;
    visuals.panel_fill = colours.page;
    visuals.window_fill = colours.card;
    visuals.extreme_bg_color = colours.card;
    visuals.text_edit_bg_color = Some(colours.card);
    visuals.weak_text_color = Some(colours.quiet);
    visuals.selection.bg_fill = colours.accent.gamma_multiply(0.35);
    visuals.selection.stroke = Stroke::new(2.0, colours.accent);
    visuals.text_cursor = TextCursorStyle {
        stroke: Stroke::new(2.0, colours.ink),
        blink: false,
        ..TextCursorStyle::default()
    };
    visuals.disabled_alpha = 0.55;
    let widgets = &mut visuals.widgets;
    for (state, fill, edge) in [
        (
            &mut widgets.noninteractive,
            colours.card,
            Stroke::new(1.0, colours.line),
        ),
        (
            &mut widgets.inactive,
            colours.card,
            Stroke::new(1.5, colours.edge),
        ),
        (
            &mut widgets.hovered,
            colours.touched,
            Stroke::new(1.5, colours.accent),
        ),
        (
            &mut widgets.active,
            colours.touched,
            Stroke::new(2.0, colours.accent),
        ),
        (
            &mut widgets.open,
            colours.touched,
            Stroke::new(1.5, colours.accent),
        ),
    ] {
        state.bg_fill = fill;
        state.weak_bg_fill = fill;
        state.bg_stroke = edge;
        state.fg_stroke = Stroke::new(1.5, colours.ink);
        state.corner_radius = CornerRadius::same(8);
        state.expansion = 0.0;
    }
}

/// How much larger than usual everything is to be on a screen of this size, given in the system's own units. What the system says
/// about its pixels is often wrong on large screens, and a person who sets a device up can't change it yet.
pub(crate) fn zoom(screen: Vec2) -> f32 {
    let fits = (screen.x / SCREEN.x).min(screen.y / SCREEN.y);
    if !fits.is_finite() {
        return 1.0;
    }
    // In steps: sizes between them only make the letters blurred.
    ((fits * 8.0).floor() / 8.0).clamp(1.0, ZOOM_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TONES: [Tone; 4] = [Tone::Information, Tone::Good, Tone::Warning, Tone::Problem];

    /// Relative luminance as WCAG 2.2 defines it.
    fn luminance(colour: Color32) -> f64 {
        let linear = |byte: u8| {
            let part = f64::from(byte) / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(colour.r()) + 0.7152 * linear(colour.g()) + 0.0722 * linear(colour.b())
    }

    fn contrast(one: Color32, other: Color32) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn every_text_can_be_read_on_what_is_behind_it() {
        for theme in [Theme::Dark, Theme::Light] {
            let colours = palette(theme);
            let mut pairs = vec![(colours.on_accent, colours.accent)];
            for ground in [colours.page, colours.card, colours.touched] {
                pairs.extend([(colours.ink, ground), (colours.quiet, ground)]);
            }
            for tone in TONES {
                let behind = behind(tone, theme);
                pairs.extend([
                    (of_tone(tone, theme), colours.card),
                    (of_tone(tone, theme), behind),
                    (colours.ink, behind),
                ]);
            }
            for (text, ground) in pairs {
                let contrast = contrast(text, ground);
                assert!(
                    contrast >= 4.5,
                    "{text:?} on {ground:?} in {theme:?}: {contrast:.2}"
                );
            }
            assert!(contrast(colours.ink, colours.card) >= 12.0);
        }
    }

    #[test]
    fn what_can_be_operated_has_an_edge_that_can_be_seen() {
        for theme in [Theme::Dark, Theme::Light] {
            let colours = palette(theme);
            for edge in [colours.edge, colours.accent] {
                assert!(contrast(edge, colours.card) >= 3.0, "{theme:?}");
            }
        }
    }

    #[test]
    fn larger_screens_show_the_same_larger_and_small_ones_never_smaller() {
        let at = |width: f32, height: f32| zoom(Vec2::new(width, height));
        assert_eq!(at(800.0, 600.0), 1.0);
        assert_eq!(at(1024.0, 768.0), 1.0);
        assert!((1.25..=1.5).contains(&at(1920.0, 1080.0)));
        assert!((2.5..=3.0).contains(&at(3840.0, 2160.0)));
        assert_eq!(at(30_000.0, 20_000.0), ZOOM_MAX);
        assert_eq!(at(f32::NAN, 0.0), 1.0);
        // Upright screens are as wide as they are.
        assert_eq!(at(1080.0, 1920.0), 1.0);
    }
}
