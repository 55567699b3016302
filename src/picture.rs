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

use crate::{
    proto::treemap::v1::{Stock, Treemap, ViewMode as Wire},
    treemap::ViewMode,
};

/// What is drawn: a treemap as `treemap.v1` has it. A tile's area is its stock's current position, in both view modes: a change is a colour.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The treemap.
    pub treemap: Treemap,
    /// The most stocks of an industry that were asked for.
    pub limit: usize,
}

impl Picture {
    /// The same with one industry only; without any when there is none of that name.
    pub fn only(mut self, industry: &str) -> Self {
        self.treemap.industries.retain(|candidate| candidate.name == industry);
        self
    }

    /// What ranks and colours the tiles.
    pub fn view_mode(&self) -> ViewMode {
        if self.treemap.view_mode() == Wire::Change { ViewMode::PercentageChange } else { ViewMode::CurrentChange }
    }

    /// What the numbers are.
    pub fn title(&self) -> String {
        let period = match self.treemap.period.as_str() {
            "3m" => "3 months",
            "6m" => "6 months",
            "1y" => "1 year",
            "2y" => "2 years",
            "5y" => "5 years",
            _ => "10 years",
        };
        match self.view_mode() {
            ViewMode::CurrentChange => "ASX short positions".into(),
            ViewMode::PercentageChange => format!("Change of ASX short positions over {period}"),
        }
    }

    /// When the data was refreshed, by RFC 3339; empty when it never was.
    pub fn refreshed(&self) -> String {
        let at = self.treemap.refreshed_at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
        at.map(|at| at.to_string()).unwrap_or_default()
    }
}

/// The value that is printed on a tile, and gives its colour.
fn value(stock: &Stock, view_mode: ViewMode) -> f64 {
    match view_mode {
        ViewMode::CurrentChange => stock.current_percent,
        ViewMode::PercentageChange => stock.change_percent.unwrap_or_default(),
    }
}

/// A text without what a terminal would act upon.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
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
