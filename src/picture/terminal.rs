//! A picture in the cells of a terminal. The tiles are laid out in cells twice as high as wide; their labels are real text.

use super::{
    Picture,
    colour::{self, Rgb, Theme},
    layout::{Group, Rect, groups},
    percent, value,
};
use crate::{proto::treemap::v1::Stock, treemap::ViewMode};

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// 24 bits.
    True,
    /// The 256 of xterm.
    Palette,
    /// None: tiles are told apart by their edges.
    None,
}

#[derive(Clone)]
struct Cell {
    character: char,
    ground: Option<Rgb>,
    text: Rgb,
}

/// The lines of a picture of `columns` by `lines` cells, each with its line break.
pub fn draw(picture: &Picture, columns: usize, lines: usize, colours: Colours) -> String {
    let empty = Cell { character: ' ', ground: None, text: [0, 0, 0] };
    let mut screen = Screen { cells: vec![vec![empty; columns]; lines], picture, colours };
    #[expect(clippy::cast_precision_loss, reason = "the size of a terminal")]
    let whole = Rect { width: columns as f64, height: 2.0 * lines as f64, ..Rect::default() };
    for Group { industry, rect, tiles } in groups(&picture.treemap.industries, whole, |rect| Cells::of(rect).inner()) {
        screen.head(&industry.name, Cells::of(rect));
        for (stock, rect) in tiles {
            screen.tile(stock, Cells::of(rect));
        }
    }
    screen.print()
}

struct Screen<'a> {
    cells: Vec<Vec<Cell>>,
    picture: &'a Picture,
    colours: Colours,
}

/// Columns and lines of cells: from, to.
#[derive(Clone, Copy)]
struct Cells {
    columns: (usize, usize),
    lines: (usize, usize),
}

impl Cells {
    /// The cells whose middles lie in a rectangle, so that neighbours share none and leave none.
    fn of(rect: Rect) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the terminal")]
        let cell = |edge: f64| edge.round().max(0.0) as usize;
        Self {
            columns: (cell(rect.x), cell(rect.x + rect.width)),
            lines: (cell(rect.y / 2.0), cell(f64::midpoint(rect.y, rect.height))),
        }
    }

    const fn width(self) -> usize {
        self.columns.1.saturating_sub(self.columns.0)
    }

    const fn height(self) -> usize {
        self.lines.1.saturating_sub(self.lines.0)
    }

    /// Whether an industry has a head, which takes a line: a small one does without it.
    const fn is_headed(self) -> bool {
        self.height() >= 4 && self.width() >= 8
    }

    /// Those of an industry that its tiles fill, by their edges.
    #[expect(clippy::cast_precision_loss, reason = "the size of a terminal")]
    fn inner(self) -> Rect {
        let head = usize::from(self.is_headed());
        Rect {
            x: self.columns.0 as f64,
            y: 2.0 * (self.lines.0 + head) as f64,
            width: self.width() as f64,
            height: 2.0 * (self.height() - head) as f64,
        }
    }
}

impl Screen<'_> {
    fn head(&mut self, industry: &str, cells: Cells) {
        if cells.is_headed() {
            let theme = Theme::Dark;
            let head = Cells { lines: (cells.lines.0, cells.lines.0 + 1), ..cells };
            self.fill(head, Some(theme.head()), theme.ground()[1]);
            self.write(head, cells.lines.0, industry, false);
        }
    }

    fn tile(&mut self, stock: &Stock, cells: Cells) {
        let view_mode = self.picture.view_mode();
        let ground = colour::of(value(stock, view_mode), view_mode, Theme::Dark);
        self.fill(cells, Some(ground), colour::text_on(ground));
        let value = percent(value(stock, view_mode), view_mode == ViewMode::PercentageChange).replace('\u{202f}', "");
        let middle = cells.lines.0 + cells.height().saturating_sub(1) / 2;
        let one_line = format!("{} {value}", stock.code);
        if cells.height() >= 2 && value.chars().count() <= cells.width() {
            self.write(cells, middle, &stock.code, true);
            self.write(cells, middle + 1, &value, true);
        } else if one_line.chars().count() <= cells.width() {
            self.write(cells, middle, &one_line, true);
        } else {
            self.write(cells, middle, &stock.code, true);
        }
    }

    fn fill(&mut self, cells: Cells, ground: Option<Rgb>, text: Rgb) {
        let edged = self.colours == Colours::None;
        for line in cells.lines.0..cells.lines.1 {
            for column in cells.columns.0..cells.columns.1 {
                let Some(cell) = self.cells.get_mut(line).and_then(|line| line.get_mut(column)) else { continue };
                // Without colours a tile begins with an edge.
                let character = if edged && column == cells.columns.0 { '|' } else { ' ' };
                *cell = Cell { character, ground, text };
            }
        }
    }

    /// Writes a text into a line of a tile, in its middle or from its left, cut to the room; nothing where three letters have none.
    fn write(&mut self, cells: Cells, line: usize, text: &str, centred: bool) {
        let edge = usize::from(self.colours == Colours::None || !centred);
        let room = cells.width().saturating_sub(edge);
        // What a terminal would act upon is no text.
        let text: Vec<char> = text.chars().filter(|character| !character.is_control()).collect();
        if text.len() > room && room < 3 || line >= cells.lines.1 {
            return;
        }
        let shown = &text[..text.len().min(room)];
        let before = if centred { (room - shown.len()) / 2 } else { 0 };
        for (place, character) in shown.iter().enumerate() {
            if let Some(cell) =
                self.cells.get_mut(line).and_then(|line| line.get_mut(cells.columns.0 + edge + before + place))
            {
                cell.character = *character;
            }
        }
    }

    fn print(&self) -> String {
        let mut text = String::new();
        for line in &self.cells {
            let mut last = None;
            for cell in line {
                let look = (cell.ground, cell.text);
                if self.colours != Colours::None && last != Some(look) {
                    text.push_str(&self.look(look));
                    last = Some(look);
                }
                text.push(cell.character);
            }
            if self.colours != Colours::None {
                text.push_str("\x1b[0m");
            }
            text.push('\n');
        }
        text
    }

    fn look(&self, (ground, text): (Option<Rgb>, Rgb)) -> String {
        let Some(ground) = ground else { return "\x1b[0m".into() };
        if self.colours == Colours::True {
            let ([red, green, blue], [r, g, b]) = (ground, text);
            return format!("\x1b[48;2;{red};{green};{blue}m\x1b[38;2;{r};{g};{b}m");
        }
        // The cube of 6 x 6 x 6 colours.
        let step = |part: u8| u16::from(part) * 5 / 255;
        let number = |[red, green, blue]: Rgb| 16 + 36 * step(red) + 6 * step(green) + step(blue);
        let ground = number(ground);
        let cube = |place: u16| u8::try_from([0, 95, 135, 175, 215, 255][usize::from(place)]).unwrap_or(255);
        let shown = [(ground - 16) / 36, (ground - 16) / 6 % 6, (ground - 16) % 6].map(cube);
        format!("\x1b[48;5;{ground}m\x1b[38;5;{}m", number(colour::text_on(shown)))
    }
}
