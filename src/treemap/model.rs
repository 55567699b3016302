//! Everything that can be answered from one state of the view: a list for each period and view mode, and how fresh they are.
//! Immutable. How a protocol frames an answer is none of this module's business.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    Period, Request, ViewMode,
    freshness::{Freshness, Tolerance},
    lists::{self, List},
    memo::Memo,
    stocks::{self, Industry, Stock},
};
use crate::proto::stocks::v1alpha1::TreemapShortPosition;

const LISTS: usize = Period::ALL.len() * ViewMode::ALL.len();

const fn list_index(period: Period, view_mode: ViewMode) -> usize {
    period.index() * ViewMode::ALL.len() + view_mode.index()
}

/// What tells a drawing from others of the same answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Width, height, and whether it is for a dark page; `None` for a table.
    pub canvas: Option<(u16, u16, bool)>,
    /// Whether it is compressed with gzip.
    pub gzip: bool,
    /// The only industry; `None` for all.
    pub industry: Option<Box<str>>,
}

/// The answers to all valid requests.
#[derive(Debug)]
pub struct Model {
    lists: [List; LISTS],
    /// By period.
    industries: [Vec<Industry>; Period::ALL.len()],
    /// How fresh it is.
    pub freshness: Freshness,
    /// A digest of all answers and the data date: the same on every replica, and changed only when one of them changed.
    pub version: HeaderValue,
    /// The same as a weak entity tag of HTTP.
    pub entity_tag: HeaderValue,
    /// By period, before and after it is stale.
    metadata: [[HeaderMap; 2]; Period::ALL.len()],
    /// Before and after it is stale.
    tags_with_freshness: [HeaderValue; 2],
    stale_from: SystemTime,
    /// By list, limit and form.
    memo: Memo<(usize, usize, u8)>,
    /// By list, limit, staleness and kind.
    drawings: Memo<(usize, usize, bool, Kind)>,
}

impl Model {
    /// Whether its answers are to be marked stale.
    pub fn is_stale(&self) -> bool {
        SystemTime::now() >= self.stale_from
    }

    /// A weak entity tag of what also shows when the data was refreshed, and whether it is stale.
    pub fn entity_tag_with_freshness(&self) -> HeaderValue {
        self.tags_with_freshness[usize::from(self.is_stale())].clone()
    }

    /// The name of each period, and how many stocks it can answer with.
    pub fn stocks_per_period(&self) -> impl Iterator<Item = (&'static str, usize)> {
        Period::ALL
            .into_iter()
            .map(|period| (period.name(), self.lists[list_index(period, ViewMode::CurrentChange)].stocks()))
    }

    /// The industries of a period, by name.
    pub fn industries(&self, period: Period) -> &[Industry] {
        &self.industries[period.index()]
    }

    /// Stocks over all lists.
    pub fn stocks(&self) -> usize {
        self.lists.iter().map(List::stocks).sum()
    }
}

/// Collects the ranked stocks of all lists into a [`Model`].
#[derive(Debug, Default)]
pub struct Builder {
    lists: [lists::Builder; LISTS],
    stocks: [stocks::Builder; Period::ALL.len()],
    /// Kept for its memory.
    position: TreemapShortPosition,
}

impl Builder {
    /// Begins with an industry of a list, which has `count` stocks in all. Industries come in byte order of their names.
    pub fn industry(&mut self, period: Period, view_mode: ViewMode, name: &str, count: usize) {
        name.clone_into(&mut self.position.industry);
        self.stocks[period.index()].industry(view_mode, name, count);
    }

    /// Adds the next stock of the industry, in rank order, and no more than [`Limit::MAX`](super::Limit::MAX).
    pub fn push(&mut self, period: Period, view_mode: ViewMode, stock: Stock) {
        self.rank(period, view_mode, &stock.code, stock.value(view_mode));
        self.stocks[period.index()].push(view_mode, stock);
    }

    /// The same for a stock that was added for another view mode of the period.
    pub fn push_known(&mut self, period: Period, view_mode: ViewMode, code: &str) {
        let known = self.stocks[period.index()].push_known(view_mode, code).map(|stock| stock.value(view_mode));
        debug_assert!(known.is_some(), "{code} was not added before");
        if let Some(value) = known {
            self.rank(period, view_mode, code, value);
        }
    }

    fn rank(&mut self, period: Period, view_mode: ViewMode, code: &str, value: f64) {
        self.position.product_code.clear();
        self.position.product_code.push_str(code);
        self.position.short_position = value;
        self.lists[list_index(period, view_mode)].push(&self.position);
    }

    /// The finished model.
    pub fn build(self, freshness: Freshness, tolerance: Tolerance) -> Model {
        let mut digest = Sha256::new();
        let lists = self.lists.map(|list| list.build(&mut digest));
        let industries = self.stocks.map(|stocks| stocks.build(&mut digest));
        digest.update(format!("{:?}", freshness.data_date));
        let digest = digest.finalize()[..8].iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        let version = header(&format!("{digest:016x}"));
        let refreshed = freshness.last_refreshed.map_or(0, Timestamp::as_microsecond);
        Model {
            lists,
            industries,
            freshness,
            entity_tag: header(&format!("W/\"{digest:016x}\"")),
            tags_with_freshness: [0, 1].map(|stale| header(&format!("W/\"{digest:016x}-{refreshed:x}-{stale}\""))),
            metadata: Period::ALL.map(|period| [false, true].map(|stale| metadata(period, &version, freshness, stale))),
            version,
            stale_from: freshness.view_stale_from(tolerance).min(freshness.data_stale_from(tolerance)),
            memo: Memo::default(),
            drawings: Memo::default(),
        }
    }
}

/// What tells of a period's answers which they are, and how fresh. Copied for each answer: that costs a third of making it (measured).
fn metadata(period: Period, version: &HeaderValue, freshness: Freshness, stale: bool) -> HeaderMap {
    let data_date = freshness.data_date.map(|date| header(&date.to_string()));
    let last_refreshed = freshness.last_refreshed.map(|instant| header(&instant.to_string()));
    let all = [
        // A place for the content type. A copy has no room to spare: one header more than were copied makes it allocate again and move all. A
        // plain answer of gRPC adds none (measured: 5 % of a call).
        ("content-type", Some(HeaderValue::from_static("application/grpc"))),
        ("treemap-period", Some(HeaderValue::from_static(period.name()))),
        ("treemap-version", Some(version.clone())),
        ("treemap-data-date", data_date),
        ("treemap-last-refreshed", last_refreshed),
        ("treemap-stale", stale.then_some(HeaderValue::from_static("true"))),
    ];
    // With room in its index for what protocols and pictures add.
    let mut metadata = HeaderMap::with_capacity(20);
    metadata.extend(all.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), value?))));
    metadata
}

/// A value that is sent with every answer, checked once.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits, dates and times are visible ASCII")
}

/// The answer to one request: slices of one model.
#[derive(Debug, Clone)]
pub struct Answer {
    model: Arc<Model>,
    request: Request,
}

impl Answer {
    /// What `model` answers to `request`.
    pub const fn new(model: Arc<Model>, request: Request) -> Self {
        Self { model, request }
    }

    /// The model that the slices are taken from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its initial metadata: the period that is served, which may be longer than the one asked for, and how fresh the data is. The content
    /// type is there too, and is to be replaced or removed.
    pub fn metadata(&self) -> HeaderMap {
        self.model.metadata[self.request.period.index()][usize::from(self.model.is_stale())].clone()
    }

    /// The `stocks.v1alpha1.IndustryTreeMap` in protobuf, piece by piece.
    pub fn proto(&self) -> impl Iterator<Item = &[u8]> {
        self.list().proto(self.request.limit)
    }

    /// The same in JSON.
    pub fn json(&self) -> impl Iterator<Item = &[u8]> {
        self.list().json(self.request.limit)
    }

    /// What `make` makes of this answer, once for a model and `form`.
    pub fn once<E>(&self, form: u8, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        let Request { period, limit, view_mode } = self.request;
        let key = (list_index(period, view_mode), limit.get(), form);
        if let Some(kept) = self.model.memo.kept(&key) {
            return Ok(kept);
        }
        let bytes = make()?;
        self.model.memo.keep(key, bytes.clone());
        Ok(bytes)
    }

    /// The drawing of a `kind`, if it was made and is kept.
    pub fn drawing(&self, kind: &Kind) -> Option<Bytes> {
        self.model.drawings.kept(&self.drawing_key(kind))
    }

    /// Keeps a drawing.
    pub fn keep_drawing(&self, kind: &Kind, drawing: Bytes) {
        self.model.drawings.keep(self.drawing_key(kind), drawing);
    }

    fn drawing_key(&self, kind: &Kind) -> (usize, usize, bool, Kind) {
        let Request { period, limit, view_mode } = self.request;
        (list_index(period, view_mode), limit.get(), self.model.is_stale(), kind.clone())
    }

    /// The request that it answers.
    pub const fn request(&self) -> Request {
        self.request
    }

    /// The industries that have a stock in this answer, by name, with the stocks.
    pub fn industries(&self) -> impl Iterator<Item = (&Industry, impl ExactSizeIterator<Item = &Stock>)> {
        let Request { period, limit, view_mode } = self.request;
        let industries = self.model.industries[period.index()].iter();
        industries
            .map(move |industry| (industry, industry.ranked(view_mode, limit)))
            .filter(|(_, stocks)| stocks.len() > 0)
    }

    fn list(&self) -> &List {
        &self.model.lists[list_index(self.request.period, self.request.view_mode)]
    }
}
