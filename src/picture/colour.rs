//! The colour of a value. People who cannot tell red from green read the lightness: a position is darker the larger it is (in a dark theme:
//! lighter), a change goes from blue through grey to orange, each end by lightness too.

use crate::treemap::ViewMode;

/// Red, green and blue.
pub type Rgb = [u8; 3];

/// A light or a dark picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Theme {
    Light,
    Dark,
}

impl Theme {
    /// The ground of the picture, the text on it, and a weaker text.
    pub const fn ground(self) -> [Rgb; 3] {
        match self {
            Self::Light => [[255, 255, 255], [27, 31, 36], [87, 96, 106]],
            Self::Dark => [[20, 23, 27], [230, 233, 237], [154, 163, 173]],
        }
    }

    /// The head of an industry.
    pub const fn head(self) -> Rgb {
        match self {
            Self::Light => [230, 234, 239],
            Self::Dark => [38, 44, 52],
        }
    }

    /// From 0 to the highest position.
    const fn positions(self) -> [Rgb; 4] {
        match self {
            Self::Light => [[226, 236, 247], [150, 190, 226], [52, 122, 188], [12, 52, 110]],
            Self::Dark => [[28, 42, 60], [30, 78, 128], [76, 142, 204], [188, 220, 246]],
        }
    }

    /// From the strongest fall through no change to the strongest rise.
    const fn changes(self) -> [Rgb; 5] {
        match self {
            Self::Light => [[8, 72, 130], [120, 176, 220], [235, 235, 235], [240, 170, 104], [158, 66, 6]],
            Self::Dark => [[140, 196, 240], [38, 92, 146], [46, 50, 56], [150, 84, 30], [250, 184, 120]],
        }
    }
}

/// The legend's values, which are where the scale changes its colour.
pub const POSITIONS: [f64; 4] = [0.0, 2.0, 6.0, 15.0];
/// The same for changes.
pub const CHANGES: [f64; 5] = [-100.0, -30.0, 0.0, 30.0, 100.0];

/// The colour of a value.
pub fn of(value: f64, view_mode: ViewMode, theme: Theme) -> Rgb {
    match view_mode {
        ViewMode::CurrentChange => between(&POSITIONS, &theme.positions(), value),
        ViewMode::PercentageChange => between(&CHANGES, &theme.changes(), value),
    }
}

fn between(values: &[f64], colours: &[Rgb], value: f64) -> Rgb {
    let value = value.clamp(values[0], values[values.len() - 1]);
    let place = values[1..values.len() - 1].iter().take_while(|step| **step < value).count();
    let share = (value - values[place]) / (values[place + 1] - values[place]);
    std::array::from_fn(|part| {
        let (from, to) = (f64::from(colours[place][part]), f64::from(colours[place + 1][part]));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two bytes")]
        let mixed = (from + (to - from) * share).round() as u8;
        mixed
    })
}

/// The colour of text on a ground: of black and white the one with more contrast, which is 4.5 to 1 or more on any ground.
pub fn text_on(ground: Rgb) -> Rgb {
    let (black, white) = ([0, 0, 0], [255, 255, 255]);
    if contrast(ground, black) >= contrast(ground, white) { black } else { white }
}

/// By WCAG 2: 1 to 21.
fn contrast(one: Rgb, other: Rgb) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

fn luminance(colour: Rgb) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEMES: [Theme; 2] = [Theme::Light, Theme::Dark];

    #[test]
    fn text_can_be_read_on_every_tile_and_ground() {
        for theme in THEMES {
            for view_mode in ViewMode::ALL {
                for step in -1200..1200 {
                    let ground = of(f64::from(step) / 10.0, view_mode, theme);
                    assert!(contrast(ground, text_on(ground)) >= 4.5, "{ground:?}");
                }
            }
            let [ground, text, weak] = theme.ground();
            for (text, ground) in [(text, ground), (weak, ground), (text, theme.head())] {
                assert!(contrast(ground, text) >= 4.5, "{text:?} on {ground:?}");
            }
        }
    }

    #[test]
    fn lightness_alone_tells_how_much() {
        for theme in THEMES {
            let light = |value: f64, view_mode| luminance(of(value, view_mode, theme));
            let one_way = |values: [f64; 2], view_mode| {
                let steps = (0..=100)
                    .map(|step| light(values[0] + (values[1] - values[0]) * f64::from(step) / 100.0, view_mode));
                let steps: Vec<f64> = steps.collect();
                steps.is_sorted() || steps.iter().rev().is_sorted()
            };
            assert!(one_way([0.0, 15.0], ViewMode::CurrentChange));
            assert!(one_way([0.0, 100.0], ViewMode::PercentageChange));
            assert!(one_way([-100.0, 0.0], ViewMode::PercentageChange));
        }
    }
}
