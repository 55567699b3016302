//! The stocks of one period with all that is known of them, ranked for both view modes: what the lists do not hold, for the richer service
//! and the pictures.

use std::collections::HashMap;

use jiff::civil::Date;
use sha2::{Digest, Sha256};

use super::{Limit, ViewMode};

/// A stock of a period.
#[derive(Debug, Clone, PartialEq)]
pub struct Stock {
    /// The ASX code.
    pub code: Box<str>,
    /// The company's name; empty when unknown.
    pub name: Box<str>,
    /// The latest short position in the period, in percent of the issued product; above 0.
    pub current: f64,
    /// The first one in the period.
    pub earliest: f64,
    /// The change between the two, in percent of the first; `None` when that is 0.
    pub change: Option<f64>,
    /// The day of the latest report.
    pub reported: Date,
}

impl Stock {
    /// What ranks it. A stock that is ranked by its change has one.
    pub fn value(&self, view_mode: ViewMode) -> f64 {
        match view_mode {
            ViewMode::CurrentChange => self.current,
            ViewMode::PercentageChange => self.change.unwrap_or_default(),
        }
    }
}

/// An industry group in a period.
#[derive(Debug, Default)]
pub struct Industry {
    /// Its name.
    pub name: String,
    pub(super) stocks: Vec<Stock>,
    /// For each view mode, the places of its stocks in rank order, and how many there are without any limit.
    pub(super) ranks: [(Vec<usize>, usize); ViewMode::ALL.len()],
}

impl Industry {
    /// The first stocks by rank.
    pub fn ranked(&self, view_mode: ViewMode, limit: Limit) -> impl ExactSizeIterator<Item = &Stock> {
        self.ranks[view_mode.index()].0.iter().take(limit.get()).map(|place| &self.stocks[*place])
    }

    /// How many stocks a view mode has, without any limit.
    pub const fn count(&self, view_mode: ViewMode) -> usize {
        self.ranks[view_mode.index()].1
    }
}

/// Collects the industries of one period.
#[derive(Debug, Default)]
pub struct Builder {
    industries: Vec<Industry>,
    /// The industry whose stocks are added.
    current: usize,
    /// For each industry, the places of its stocks by code.
    places: Vec<HashMap<Box<str>, usize>>,
}

impl Builder {
    /// Begins with an industry of a view mode, which has `count` stocks in all.
    pub fn industry(&mut self, view_mode: ViewMode, name: &str, count: usize) {
        let place = self.industries.iter().position(|industry| industry.name == name);
        self.current = place.unwrap_or_else(|| {
            self.industries.push(Industry { name: name.into(), ..Industry::default() });
            self.places.push(HashMap::new());
            self.industries.len() - 1
        });
        self.industries[self.current].ranks[view_mode.index()].1 = count;
    }

    /// Adds the next stock of the industry, in rank order.
    pub fn push(&mut self, view_mode: ViewMode, stock: Stock) {
        let industry = &mut self.industries[self.current];
        let place = *self.places[self.current].entry(stock.code.clone()).or_insert(industry.stocks.len());
        if place == industry.stocks.len() {
            industry.stocks.push(stock);
        }
        industry.ranks[view_mode.index()].0.push(place);
    }

    /// The same for a stock that was added for another view mode; `None` if it was not.
    pub fn push_known(&mut self, view_mode: ViewMode, code: &str) -> Option<&Stock> {
        let place = *self.places.get(self.current)?.get(code)?;
        let industry = &mut self.industries[self.current];
        industry.ranks[view_mode.index()].0.push(place);
        industry.stocks.get(place)
    }

    /// The industries; `digest` takes in what the lists do not have.
    pub fn build(mut self, digest: &mut Sha256) -> Vec<Industry> {
        // One that only the second view mode has came last.
        self.industries.sort_by(|one, other| one.name.cmp(&other.name));
        for stock in self.industries.iter().flat_map(|industry| &industry.stocks) {
            digest.update(stock.name.len().to_le_bytes());
            digest.update(&*stock.name);
            digest.update(stock.earliest.to_bits().to_le_bytes());
            digest.update(stock.reported.year().to_le_bytes());
            digest.update(stock.reported.day_of_year().to_le_bytes());
        }
        self.industries
    }
}
