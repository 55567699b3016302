//! What a valid request is: period, view mode and limit, parsed once at the edge. Inside, an invalid one cannot be
//! written down. Source of the rules: the RPC's contract, section "Request".

pub mod model;

/// A look-back period of the view, counted back from the anchor date (the newest report).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// Three months: the shortest the view holds, also the answer for a day, a week and a month.
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

impl Period {
    /// Every period, in the order in which [`Period::index`] counts.
    pub const ALL: [Self; 6] =
        [Self::ThreeMonths, Self::SixMonths, Self::OneYear, Self::TwoYears, Self::FiveYears, Self::Max];

    /// The view's `period_name`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ThreeMonths => "3m",
            Self::SixMonths => "6m",
            Self::OneYear => "1y",
            Self::TwoYears => "2y",
            Self::FiveYears => "5y",
            Self::Max => "max",
        }
    }

    /// The place in [`Period::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The period of a `period_name` of the view.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }

    fn parse(text: &str) -> Option<Self> {
        const ACCEPTED: [(&str, Period); 10] = [
            ("1D", Period::ThreeMonths),
            ("1W", Period::ThreeMonths),
            ("1M", Period::ThreeMonths),
            ("3M", Period::ThreeMonths),
            ("6M", Period::SixMonths),
            ("1Y", Period::OneYear),
            ("2Y", Period::TwoYears),
            ("5Y", Period::FiveYears),
            ("10Y", Period::Max),
            ("MAX", Period::Max),
        ];
        let text = if text.is_empty() { "1M" } else { text };
        ACCEPTED.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, period)| period)
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
    #[must_use]
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
    /// The most stocks per industry that can be asked for, and that the read model holds.
    pub const MAX: u16 = 500;
    const DEFAULT: u16 = 100;

    /// The number of stocks.
    #[must_use]
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

/// Why a request is refused: the field of the message, and the words of the contract.
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
    /// # Errors
    /// The first field that is not acceptable.
    pub fn parse(period: &str, limit: i32, view_mode: i32) -> Result<Self, InvalidRequest> {
        Ok(Self {
            period: Period::parse(period).ok_or(InvalidRequest {
                field: "period",
                message: "invalid period format. Valid periods: 1D, 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y, 10Y, MAX",
            })?,
            limit: Limit::parse(limit)?,
            view_mode: ViewMode::parse(view_mode).ok_or(InvalidRequest {
                field: "view_mode",
                message: "invalid view mode. Valid modes: CURRENT_CHANGE, PERCENTAGE_CHANGE",
            })?,
        })
    }
}
