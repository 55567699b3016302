//! The treemap as a picture: laid out once, then drawn as SVG or in the cells of a terminal, or listed as CSV.
//!
//! - [`layout`]: where each tile goes
//! - [`colour`]: the colour of a value, and of the text on it
//! - [`svg`], [`terminal`]: drawings; [`csv`]: the rows
//! - [`page`]: the files of the page

pub mod colour;
pub mod csv;
pub mod layout;
pub mod page;
pub mod svg;
pub mod terminal;

use crate::treemap::ViewMode;

/// An industry to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Industry {
    /// Its name.
    pub name: String,
    /// How many stocks it has in all.
    pub count: usize,
    /// Those that are drawn, highest rank first.
    pub stocks: Vec<Stock>,
}

/// A stock to draw. Its tile's area is its current position, in both view modes: a change is a colour.
#[derive(Debug, Clone, PartialEq)]
pub struct Stock {
    /// The code.
    pub code: String,
    /// The company's name.
    pub name: String,
    /// The latest short position, in percent.
    pub current: f64,
    /// The earliest of the period, in percent.
    pub earliest: f64,
    /// The change, in percent of the earliest.
    pub change: Option<f64>,
    /// The day of the latest report.
    pub reported: String,
}

impl Stock {
    /// The value that is printed on its tile.
    pub fn value(&self, view_mode: ViewMode) -> f64 {
        match view_mode {
            ViewMode::CurrentChange => self.current,
            ViewMode::PercentageChange => self.change.unwrap_or_default(),
        }
    }
}

/// What a picture shows, and how fresh it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The industries, by name.
    pub industries: Vec<Industry>,
    /// `3m` to `max`.
    pub period: &'static str,
    /// What ranks and colours the tiles.
    pub view_mode: ViewMode,
    /// The most stocks of an industry.
    pub limit: usize,
    /// The version of the data.
    pub version: String,
    /// The day of the newest report; empty when there is none.
    pub data_date: String,
    /// When it was refreshed, by RFC 3339.
    pub refreshed: String,
    /// Whether it is too old.
    pub stale: bool,
}

impl Picture {
    /// The same with one industry only; without any when there is none of that name.
    pub fn only(mut self, industry: &str) -> Self {
        self.industries.retain(|candidate| candidate.name == industry);
        self
    }

    /// What the numbers are.
    pub fn title(&self) -> String {
        let period = match self.period {
            "3m" => "3 months",
            "6m" => "6 months",
            "1y" => "1 year",
            "2y" => "2 years",
            "5y" => "5 years",
            _ => "10 years",
        };
        match self.view_mode {
            ViewMode::CurrentChange => "ASX short positions".into(),
            ViewMode::PercentageChange => format!("Change of ASX short positions over {period}"),
        }
    }
}

/// A percentage for people: with as many decimals as tell something.
pub fn percent(value: f64, signed: bool) -> String {
    let size = value.abs();
    let decimals = if size >= 1000.0 {
        0
    } else if size >= 100.0 {
        usize::from(!signed)
    } else if signed {
        1
    } else {
        2
    };
    let sign = if signed && value > 0.0 { "+" } else { "" };
    let text = format!("{value:.decimals$}");
    let text = text.replace('-', "\u{2212}");
    format!("{sign}{text}\u{202f}%")
}
