//! A picture as SVG: complete by itself, in an `<img>`, a README or a mail. Only presentation attributes, no style and no script, so that it
//! can also stand inside a page with a strict Content-Security-Policy. The page adds its behaviour over the `data-` attributes.

use std::fmt::Write;

use super::{
    Picture,
    colour::{self, Rgb, Theme},
    layout::{Group, Rect, groups},
    percent, value,
};
use crate::{
    proto::treemap::v1::{Stock, Treemap},
    treemap::ViewMode,
};

/// What is asked of a drawing, in CSS pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Canvas {
    pub width: u16,
    pub height: u16,
    pub theme: Theme,
}

/// Title, date and legend; a narrow picture has the legend in a line of its own.
const TOP: f64 = 40.0;
const NARROW: f64 = 640.0;
/// The room beside them.
const EDGE: f64 = 6.0;
/// The head of an industry, and what it must be at least to have one.
const HEAD: f64 = 18.0;
const HEADED: (f64, f64) = (34.0, 40.0);
const MARGIN: f64 = 1.0;
/// The least side of a tile as it is drawn: none is 0, and a stock that is there can be found.
const LEAST: f64 = 0.5;
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
/// The smallest text.
const SMALL: f64 = 9.0;
/// The largest text of a tile, in a picture of the usual size or a smaller one.
const LARGE: f64 = 26.0;

/// Draws.
pub fn draw(picture: &Picture, canvas: Canvas, only: Option<&str>) -> String {
    let mut svg = Svg { text: String::with_capacity(256 * 1024), picture, canvas };
    svg.begin(only);
    let (width, height) = (f64::from(canvas.width), f64::from(canvas.height));
    let top = if width < NARROW { 1.5 * TOP } else { TOP };
    let whole = Rect { x: 0.0, y: top, width, height: (height - top).max(1.0) };
    svg.top();
    for group in groups(&picture.treemap.industries, whole, inner) {
        svg.industry(group);
    }
    if picture.treemap.industries.is_empty() {
        let [_, ink, _] = canvas.theme.ground();
        let text = "There are no stocks to show.";
        let size = ((width - 2.0 * EDGE) / self::width(text, 1.0)).min(14.0);
        svg.label("empty", (width / 2.0, f64::midpoint(top, height)), "middle", size, ink, text);
    }
    svg.text.push_str("</svg>\n");
    // A server keeps drawings.
    svg.text.shrink_to_fit();
    svg.text
}

struct Svg<'a> {
    text: String,
    picture: &'a Picture,
    canvas: Canvas,
}

impl Svg<'_> {
    fn begin(&mut self, only: Option<&str>) {
        let Picture { treemap: Treemap { period, version, data_date, stale, .. }, limit } = self.picture;
        let Canvas { width, height, .. } = self.canvas;
        let refreshed = self.picture.refreshed();
        let mode = mode(self.picture.view_mode());
        let title = self.picture.title();
        let label = escape(&match only {
            Some(industry) => format!("{title}, {industry}, reports up to {data_date}"),
            None => format!("{title} by industry, reports up to {data_date}"),
        });
        let only = only.map(|industry| format!(" data-industry=\"{}\"", escape(industry))).unwrap_or_default();
        let ground = hex(self.canvas.theme.ground()[0]);
        // Writing into a string does not fail, here and below.
        let _ = writeln!(
            self.text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{label}\" font-family=\"{FONT}\" data-version=\"{version}\" data-date=\"{data_date}\" data-refreshed=\"{refreshed}\" \
             data-stale=\"{stale}\" data-period=\"{period}\" data-mode=\"{mode}\" data-limit=\"{limit}\"{only}>\
             <title>{label}</title><rect class=\"ground\" width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>"
        );
    }

    fn top(&mut self) {
        let values: &[f64] = match self.picture.view_mode() {
            ViewMode::CurrentChange => &colour::POSITIONS,
            ViewMode::PercentageChange => &colour::CHANGES,
        };
        let whole = f64::from(self.canvas.width);
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let count = values.len() as f64;
        let step = ((whole - 2.0 * EDGE) / count).min(58.0);
        // The legend is below title and date, or to the right of both.
        let (legend, room) = if whole < NARROW {
            ((EDGE, 41.0), whole - 2.0 * EDGE)
        } else {
            let left = whole - EDGE - step * count;
            ((left, 11.0), left - 2.0 * EDGE)
        };
        let [_, text, weak] = self.canvas.theme.ground();
        let title = self.picture.title();
        let size = if whole < NARROW || width(&title, 15.0) > room { 13.0 } else { 15.0 };
        let title = fitting(&title, size, room).unwrap_or_default();
        self.label("title", (EDGE, 17.0), "start", size, text, &title);
        let stale = if self.picture.treemap.stale { " (old data)" } else { "" };
        let date = match self.picture.treemap.data_date.as_str() {
            "" => "no reports".to_owned(),
            date => [format!("reports up to {date}{stale}"), format!("{date}{stale}")]
                .into_iter()
                .find(|date| width(date, 11.0) <= room)
                .unwrap_or_default(),
        };
        self.label("date", (EDGE, 33.0), "start", 11.0, weak, &date);
        self.legend(values, step, legend);
    }

    fn legend(&mut self, values: &[f64], step: f64, (mut x, y): (f64, f64)) {
        let view_mode = self.picture.view_mode();
        self.text.push_str("<g class=\"legend\">");
        for (place, value) in values.iter().enumerate() {
            let ground = colour::of(*value, view_mode, self.canvas.theme);
            let signed = view_mode == ViewMode::PercentageChange;
            let end = place == values.len() - 1 || (signed && place == 0);
            let sign = match (signed && *value > 0.0, *value < 0.0) {
                (true, _) => "+",
                (_, true) => "\u{2212}",
                _ => "",
            };
            let bound = if end { if *value < 0.0 { "\u{2264}" } else { "\u{2265}" } } else { "" };
            let _ = write!(
                self.text,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"16\" fill=\"{}\"/>",
                short(x),
                short(step),
                hex(ground)
            );
            // Where there is no room, the number alone.
            let number = format!("{sign}{}", value.abs());
            let labels = [format!("{bound}{number}\u{202f}%"), number];
            if let Some(label) = labels.iter().find(|label| width(label, 10.0) <= step - 2.0) {
                let middle = (x + step / 2.0, y + 12.0);
                self.label("step", middle, "middle", 10.0, colour::text_on(ground), label);
            }
            x += step;
        }
        self.text.push_str("</g>\n");
    }

    fn industry(&mut self, Group { industry, rect, tiles }: Group<'_>) {
        let theme = self.canvas.theme;
        let name = escape(&industry.name);
        let _ = write!(
            self.text,
            "<g class=\"industry\" data-industry=\"{name}\" data-stocks=\"{}\"><rect{} fill=\"{}\"/>",
            industry.stock_count,
            place(rect.inset(MARGIN, 0.0)),
            hex(theme.head())
        );
        if is_headed(rect) {
            let head = Rect { height: HEAD, ..rect.inset(MARGIN, 0.0) };
            let _ = write!(
                self.text,
                "<g class=\"head\"><title>{name}</title><rect{} fill=\"{}\"/>",
                place(head),
                hex(theme.head())
            );
            if let Some(label) = fitting(&industry.name, 11.0, head.width - 8.0) {
                self.label("name", (head.x + 4.0, head.y + 13.0), "start", 11.0, theme.ground()[1], &label);
            }
            self.text.push_str("</g>");
        }
        for (stock, rect) in tiles {
            self.tile(stock, rect);
        }
        self.text.push_str("</g>\n");
    }

    fn tile(&mut self, stock: &Stock, rect: Rect) {
        let view_mode = self.picture.view_mode();
        let ground = colour::of(value(stock, view_mode), view_mode, self.canvas.theme);
        let value = percent(value(stock, view_mode), view_mode == ViewMode::PercentageChange);
        let (code, name) = (escape(&stock.code), escape(&stock.company_name));
        // Four decimals are more than anybody reads, and half of the digits.
        let rounded = |change: f64| (change * 1e4).round() / 1e4;
        let change = stock.change_percent.map(|change| format!(" data-change=\"{}\"", rounded(change)));
        let change = change.unwrap_or_default();
        let colon = if name.is_empty() { "" } else { ": " };
        // Too small to be pointed at: the page's keyboard does not stop there.
        let tiny = if rect.width.min(rect.height) < LEAST { " data-tiny=\"\"" } else { "" };
        let _ = write!(
            self.text,
            "<g class=\"tile\" data-code=\"{code}\" data-name=\"{name}\" data-current=\"{}\" data-earliest=\"{}\"{change} \
             data-reported=\"{}\"{tiny}><title>{code}{colon}{name}, {value}</title><rect{} fill=\"{}\"/>",
            stock.current_percent,
            stock.earliest_percent,
            escape(&stock.report_date),
            place(gap(rect)),
            hex(ground)
        );
        let text = colour::text_on(ground);
        let room = rect.width - 4.0;
        // As large as the tile allows, and the code before the value.
        let largest = (f64::from(self.canvas.width.min(self.canvas.height)) / 27.0).max(LARGE);
        let size = (rect.width / 4.2).min(rect.height / 2.4).clamp(SMALL, largest);
        let (x, middle) = (rect.x + rect.width / 2.0, rect.y + rect.height / 2.0);
        let below = (size * 0.72).max(SMALL);
        let both = rect.height >= size + below + 5.0 && width(&value, below) <= room;
        if rect.height >= size + 2.0 && width(&stock.code, size) <= room {
            let y = if both { middle - 1.0 } else { middle + size * 0.36 };
            self.label("code", (x, y), "middle", size, text, &stock.code);
            if both {
                self.label("value", (x, middle + below + 1.0), "middle", below, text, &value);
            }
        }
        self.text.push_str("</g>");
    }

    fn label(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, size: f64, fill: Rgb, text: &str) {
        let anchor = if anchor == "start" { String::new() } else { format!(" text-anchor=\"{anchor}\"") };
        let _ = write!(
            self.text,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" font-size=\"{}\"{anchor} fill=\"{}\">{}</text>",
            short(x),
            short(y),
            short(size),
            hex(fill),
            escape(text)
        );
    }
}

/// The name of a view mode in URLs.
pub const fn mode(view_mode: ViewMode) -> &'static str {
    match view_mode {
        ViewMode::CurrentChange => "current",
        ViewMode::PercentageChange => "change",
    }
}

fn is_headed(industry: Rect) -> bool {
    industry.height >= HEADED.0 && industry.width >= HEADED.1
}

/// What the tiles of an industry fill.
fn inner(industry: Rect) -> Rect {
    industry.inset(MARGIN, if is_headed(industry) { HEAD } else { 0.0 })
}

/// A line of ground between tiles, where they are large enough to have one.
fn gap(rect: Rect) -> Rect {
    let room = |side: f64| if side > 3.0 { side - 1.0 } else { side.max(LEAST) };
    Rect { width: room(rect.width), height: room(rect.height), ..rect }
}

fn place(rect: Rect) -> String {
    let Rect { x, y, width, height } = rect;
    format!(" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"", short(x), short(y), short(width), short(height))
}

/// With one decimal, and none that is 0.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// How wide a text is, guessed from the advances of common fonts: those of server and browser differ.
fn width(text: &str, size: f64) -> f64 {
    let advance = |character: char| match character {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | '\'' | '|' | ' ' | '\u{202f}' | ':' => 0.32,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.95,
        'A'..='Z' | '&' | '+' | '\u{2212}' | '\u{2264}' | '\u{2265}' => 0.72,
        character if character.is_ascii() => 0.58,
        _ => 1.1,
    };
    text.chars().map(advance).sum::<f64>() * size
}

/// A text as far as there is room for it, with an ellipsis where it was cut; `None` where three letters have no room.
fn fitting(text: &str, size: f64, room: f64) -> Option<String> {
    if width(text, size) <= room {
        return Some(text.to_owned());
    }
    let mut cut = String::new();
    for character in text.chars() {
        let longer = format!("{cut}{character}");
        if width(&longer, size) + width("\u{2026}", size) > room {
            break;
        }
        cut = longer;
    }
    (cut.chars().count() >= 3).then(|| format!("{}\u{2026}", cut.trim_end()))
}

/// Text within XML. Characters that XML does not allow are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            // Control characters, and those that would turn the direction of the text around them.
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{fffe}'
            | '\u{ffff}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::proto::treemap::v1::{Industry, ViewMode as Wire};

    fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
        let (_, value) = element.split_once(&format!(" {name}=\"")).unwrap();
        value.split_once('"').unwrap().0
    }

    fn number(element: &str, name: &str) -> f64 {
        attribute(element, name).parse().unwrap()
    }

    /// The texts of a drawing: the class of each, and its room from the top of a capital down to the line.
    fn labels(svg: &str) -> Vec<(&str, Rect)> {
        let label = |element| {
            let (attributes, text) = str::split_once(element, '>').unwrap();
            let text = text.split_once("</text>").unwrap().0.replace("&amp;", "&");
            let size = number(attributes, "font-size");
            let (width, height) = (width(&text, size), 0.75 * size);
            let before = if attributes.contains("\"middle\"") { width / 2.0 } else { 0.0 };
            let (x, y) = (number(attributes, "x") - before, number(attributes, "y") - height);
            (attribute(attributes, "class"), Rect { x, y, width, height })
        };
        svg.split("<text").skip(1).map(label).collect()
    }

    fn is_within(one: Rect, other: Rect) -> bool {
        // Numbers are written with one decimal.
        let off = 0.2;
        one.x >= other.x - off
            && one.y >= other.y - off
            && one.x + one.width <= other.x + other.width + off
            && one.y + one.height <= other.y + other.height + off
    }

    fn overlap(one: Rect, other: Rect) -> bool {
        let wide = (one.x + one.width).min(other.x + other.width) - one.x.max(other.x);
        let high = (one.y + one.height).min(other.y + other.height) - one.y.max(other.y);
        wide > 0.0 && high > 0.0
    }

    fn industries() -> impl Strategy<Value = Vec<Industry>> {
        let percent = prop_oneof![9 => 1e-4..30.0_f64, 1 => Just(0.0)];
        let stock = ("[A-Z0-9]{3,6}", percent, option::of(-100.0..1e5_f64));
        let stock = stock.prop_map(|(code, current_percent, change_percent)| Stock {
            code,
            current_percent,
            change_percent,
            ..Stock::default()
        });
        let industry = ("[A-Z][a-z &]{0,40}", vec(stock, 0..12));
        vec(industry.prop_map(|(name, stocks)| Industry { name, stocks, ..Industry::default() }), 0..12)
    }

    proptest! {
        #[test]
        fn no_text_runs_over_its_room(
            (width, height) in (160..=1000_u16, 120..=1000_u16),
            view_mode in prop_oneof![Just(Wire::Current), Just(Wire::Change)],
            period in prop_oneof![Just("3m"), Just("max")],
            stale: bool,
            data_date in prop_oneof![1 => Just(""), 9 => Just("2026-11-30")],
            industries in industries(),
        ) {
            let treemap = Treemap {
                period: period.into(),
                view_mode: view_mode.into(),
                data_date: data_date.into(),
                stale,
                industries,
                ..Treemap::default()
            };
            let canvas = Canvas { width, height, theme: Theme::Light };
            let svg = draw(&Picture { treemap, limit: 12 }, canvas, None);
            let whole = Rect { x: 0.0, y: 0.0, width: width.into(), height: height.into() };
            let labels = labels(&svg);
            for (class, label) in &labels {
                prop_assert!(is_within(*label, whole), "{} {:?}", class, label);
            }
            let of_head = labels.iter().filter(|(class, _)| matches!(*class, "title" | "date" | "step" | "empty"));
            let of_head: Vec<_> = of_head.collect();
            for (place, (class, label)) in of_head.iter().enumerate() {
                for (other, other_label) in &of_head[place + 1..] {
                    prop_assert!(!overlap(*label, *other_label), "{} {:?}, {} {:?}", class, label, other, other_label);
                }
            }
            for tile in svg.split("<g class=\"tile\"").skip(1) {
                let (tile, _) = tile.split_once("</g>").unwrap();
                let (_, rect) = tile.split_once("<rect").unwrap();
                let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| number(rect, name));
                prop_assert!(width >= LEAST && height >= LEAST, "{}", tile);
                prop_assert!(!tile.contains("data-tiny") || width.min(height) <= LEAST, "{}", tile);
                for (class, label) in self::labels(tile) {
                    prop_assert!(is_within(label, Rect { x, y, width, height }), "{} {:?} in {}", class, label, tile);
                }
            }
            prop_assert!(svg.capacity() < svg.len() + 1024, "{} for {}", svg.capacity(), svg.len());
        }
    }

    #[test]
    fn what_has_no_room_is_said_in_fewer_words() {
        let treemap = Treemap {
            period: "max".into(),
            view_mode: Wire::Change.into(),
            data_date: "2026-11-30".into(),
            stale: true,
            ..Treemap::default()
        };
        let picture = Picture { treemap, limit: 10 };
        let drawn = |width| draw(&picture, Canvas { width, height: 400, theme: Theme::Light }, None);
        let (narrow, wide) = (drawn(160), drawn(1200));
        for text in
            ["Change of ASX", ">2026-11-30 (old data)<", ">\u{2212}100<", ">+30<", "There are no stocks to show."]
        {
            assert!(narrow.contains(text), "{text} in {narrow}");
        }
        for text in ["over 10 years", ">reports up to 2026-11-30 (old data)<", ">\u{2264}\u{2212}100\u{202f}%<"] {
            assert!(wide.contains(text), "{text} in {wide}");
        }
    }
}
