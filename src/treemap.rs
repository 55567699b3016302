//! What a valid request is: period, view mode and limit, parsed once at the edge. Inside, an invalid request cannot be
//! written down. Source of the rules: the RPC's contract, section "Request".

pub mod freshness;
pub mod json;
mod lists;
pub mod memo;
pub mod model;
pub mod read_model;
pub mod snapshot;
pub mod stocks;

/// A look-back period of the view, counted back from the anchor date (the newest report).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// Three months: the shortest that the view holds.
    ThreeMonths,
    /// Six months.
    SixMonths,
    /// One year.
    OneYear,
    /// Two years.
    TwoYears,
    /// Five years.
    FiveYears,
    /// Ten years: the longest.
    Max,
}

/// Every period in order: its `period_name` in the view, and what a request may call it.
const PERIODS: [(Period, &str, &[&str]); 6] = [
    (Period::ThreeMonths, "3m", &["1D", "1W", "1M", "3M"]),
    (Period::SixMonths, "6m", &["6M"]),
    (Period::OneYear, "1y", &["1Y"]),
    (Period::TwoYears, "2y", &["2Y"]),
    (Period::FiveYears, "5y", &["5Y"]),
    (Period::Max, "max", &["10Y", "MAX"]),
];
const DEFAULT_PERIOD: &str = "1M";
const INVALID_PERIOD: &str = "invalid period format. Valid periods: 1D, 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y, 10Y, MAX";

impl Period {
    /// Every period, shortest first.
    pub const ALL: [Self; PERIODS.len()] =
        [Self::ThreeMonths, Self::SixMonths, Self::OneYear, Self::TwoYears, Self::FiveYears, Self::Max];

    /// The view's `period_name`.
    pub const fn name(self) -> &'static str {
        PERIODS[self.index()].1
    }

    /// The place in [`Period::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The period of a `period_name` of the view.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = if text.is_empty() { DEFAULT_PERIOD } else { text };
        PERIODS
            .into_iter()
            .find(|(_, _, accepted)| accepted.iter().any(|name| name.eq_ignore_ascii_case(text)))
            .map(|(period, _, _)| period)
    }
}

/// What ranks and sizes a stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewMode {
    /// The current short position, in percent of the issued product.
    CurrentChange,
    /// The change of the short position over the period, in percent of its earliest value.
    PercentageChange,
}

impl ViewMode {
    /// Both, in the order of their numbers on the wire.
    pub const ALL: [Self; 2] = [Self::CurrentChange, Self::PercentageChange];

    /// The number on the wire, and the place in [`ViewMode::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    fn parse(number: i32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// How many stocks an industry may have in an answer: 1 to [`Limit::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// The most stocks per industry that a request may ask for, and that the model holds.
    pub const MAX: u16 = 500;
    const DEFAULT: u16 = 100;

    /// The number of stocks.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    fn parse(number: i32) -> Result<Self, InvalidRequest> {
        match u16::try_from(number) {
            Ok(0) => Ok(Self(Self::DEFAULT)),
            Ok(number @ 1..=Self::MAX) => Ok(Self(number)),
            _ if number < 0 => Err(InvalidRequest { field: "limit", message: "limit must be positive" }),
            _ => Err(InvalidRequest { field: "limit", message: "limit cannot exceed 500 for treemap data" }),
        }
    }
}

/// A checked `GetIndustryTreeMap` request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The period that is served.
    pub period: Period,
    /// The most stocks per industry.
    pub limit: Limit,
    /// What ranks the stocks.
    pub view_mode: ViewMode,
}

/// Why a request is invalid: the field of the message, and the contract's words for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// The field's name in the .proto.
    pub field: &'static str,
    /// The message for the client.
    pub message: &'static str,
}

impl Request {
    /// Checks the three fields of the message, defaults first, in the contract's order.
    ///
    /// Fails: the first field that is invalid.
    pub fn parse(period: &str, limit: i32, view_mode: i32) -> Result<Self, InvalidRequest> {
        let request = Self::of(period, limit, ViewMode::CurrentChange)?;
        let view_mode = ViewMode::parse(view_mode).ok_or(InvalidRequest {
            field: "view_mode",
            message: "invalid view mode. Valid modes: CURRENT_CHANGE, PERCENTAGE_CHANGE",
        })?;
        Ok(Self { view_mode, ..request })
    }

    /// Checks the period and the limit, defaults first.
    ///
    /// Fails: the first field that is invalid.
    pub fn of(period: &str, limit: i32, view_mode: ViewMode) -> Result<Self, InvalidRequest> {
        let period = Period::parse(period).ok_or(InvalidRequest { field: "period", message: INVALID_PERIOD })?;
        Ok(Self { period, limit: Limit::parse(limit)?, view_mode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_periods_agrees_with_itself_and_with_the_message() {
        for (place, (period, _, _)) in PERIODS.into_iter().enumerate() {
            assert_eq!((period.index(), Period::ALL[place]), (place, period));
        }
        let accepted: Vec<_> = PERIODS.iter().flat_map(|(_, _, accepted)| accepted.iter().copied()).collect();
        assert!(INVALID_PERIOD.ends_with(&format!(": {}", accepted.join(", "))));
        assert!(accepted.contains(&DEFAULT_PERIOD));
    }
}
