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
/// The head of an industry, and what it must be at least to have one.
const HEAD: f64 = 18.0;
const HEADED: (f64, f64) = (34.0, 40.0);
const MARGIN: f64 = 1.0;
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
    svg.top(width);
    for group in groups(&picture.treemap.industries, whole, inner) {
        svg.industry(group);
    }
    if picture.treemap.industries.is_empty() {
        let [_, text, _] = canvas.theme.ground();
        svg.label("empty", (width / 2.0, height / 2.0), "middle", 14.0, text, "There are no stocks to show.");
    }
    svg.text.push_str("</svg>\n");
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

    fn top(&mut self, width: f64) {
        let [_, text, weak] = self.canvas.theme.ground();
        let title = self.picture.title();
        let size = if width < NARROW { 13.0 } else { 15.0 };
        let title = fitting(&title, size, width - 12.0).unwrap_or_default();
        self.label("title", (6.0, 17.0), "start", size, text, &title);
        let stale = if self.picture.treemap.stale { " (old data)" } else { "" };
        let date = match self.picture.treemap.data_date.as_str() {
            "" => "no reports".to_owned(),
            date => format!("reports up to {date}{stale}"),
        };
        self.label("date", (6.0, 33.0), "start", 11.0, weak, &date);
        self.legend(width);
    }

    fn legend(&mut self, width: f64) {
        let view_mode = self.picture.view_mode();
        let values: &[f64] = match view_mode {
            ViewMode::CurrentChange => &colour::POSITIONS,
            ViewMode::PercentageChange => &colour::CHANGES,
        };
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let (count, y) = (values.len() as f64, if width < NARROW { 41.0 } else { 11.0 });
        let step = ((width - 12.0) / count).min(58.0);
        let mut x = if width < NARROW { 6.0 } else { width - 6.0 - step * count };
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
            let middle = (x + step / 2.0, y + 12.0);
            self.label(
                "step",
                middle,
                "middle",
                10.0,
                colour::text_on(ground),
                &format!("{bound}{sign}{}\u{202f}%", value.abs()),
            );
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
        let _ = write!(
            self.text,
            "<g class=\"tile\" data-code=\"{code}\" data-name=\"{name}\" data-current=\"{}\" data-earliest=\"{}\"{change} \
             data-reported=\"{}\"><title>{code}{colon}{name}, {value}</title><rect{} fill=\"{}\"/>",
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
    let room = |side: f64| if side > 3.0 { side - 1.0 } else { side };
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
