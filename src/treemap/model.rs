//! The answers, ready to be sliced: for each period and view mode the industries in order, each with its stocks in rank
//! order, encoded as the protobuf fields that a client receives. Also which model is current, and how fresh it is.
//! How a protocol frames an answer is none of this module's business.

use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderValue;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use prost::encoding;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{
    config::Tolerance,
    proto::stocks::v1alpha1::TreemapShortPosition,
    treemap::{Limit, Period, Request, ViewMode},
};

/// When the view was refreshed and how far its reports reach. `None` where the view has no rows to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// The view's `last_refreshed`.
    pub last_refreshed: Option<Timestamp>,
    /// The anchor: the date of the newest report.
    pub data_date: Option<Date>,
}

impl Freshness {
    /// The instant from which an answer is stale; the beginning of time when its age cannot be told.
    #[must_use]
    pub fn stale_from(&self, tolerance: Tolerance) -> SystemTime {
        let end_of = |start: Timestamp, reach: Duration| SystemTime::from(start) + reach;
        let data = self.data_date.and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map(|day| day.timestamp());
        match (self.last_refreshed, data) {
            (Some(view), Some(data)) => end_of(view, tolerance.view).min(end_of(data, tolerance.data)),
            _ => SystemTime::UNIX_EPOCH,
        }
    }
}

/// Everything that can be answered from one state of the view. Immutable.
#[derive(Debug)]
pub struct Model {
    lists: [List; Period::ALL.len() * ViewMode::ALL.len()],
    /// How fresh it is.
    pub freshness: Freshness,
    /// A digest of all answers and the data date: the same on every replica, and changed only when one of them changed.
    pub version: HeaderValue,
    /// The data date as YYYY-MM-DD.
    pub data_date: Option<HeaderValue>,
    /// When the view was refreshed, by RFC 3339 in UTC.
    pub last_refreshed: Option<HeaderValue>,
    /// [`Freshness::stale_from`].
    pub stale_from: SystemTime,
    /// Stocks over all lists.
    pub stocks: usize,
}

/// The ranked stocks of one period and view mode.
#[derive(Debug, Default)]
struct List {
    /// The `industries` field of every answer: an industry that has any stock has one within any limit.
    industries: Bytes,
    /// Elements of the `stocks` field, industry after industry.
    stocks: Bytes,
    /// For each industry, where in `stocks` it begins and where each of its stocks ends, in rank order.
    industry_ends: Vec<(usize, Vec<usize>)>,
}

impl List {
    fn ranges(&self, limit: Limit) -> impl Iterator<Item = Range<usize>> {
        self.industry_ends.iter().map(move |(start, ends)| *start..ends[limit.get().min(ends.len()) - 1])
    }
}

const fn list_index(period: Period, view_mode: ViewMode) -> usize {
    period.index() * ViewMode::ALL.len() + view_mode.index()
}

impl Model {
    /// How long ago the view was refreshed; `None` when it has no rows.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let refreshed = SystemTime::from(self.freshness.last_refreshed?);
        Some(SystemTime::now().duration_since(refreshed).unwrap_or_default())
    }

    /// Whether its answers are to be marked stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        SystemTime::now() >= self.stale_from
    }

    /// The beginning of the data date in UTC, in seconds since 1970.
    #[must_use]
    pub fn data_timestamp(&self) -> Option<i64> {
        Some(self.freshness.data_date?.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
    }

    /// The name of each period, and how many stocks it can answer with.
    pub fn stocks_per_period(&self) -> impl Iterator<Item = (&'static str, usize)> {
        Period::ALL.into_iter().map(|period| {
            let list = &self.lists[list_index(period, ViewMode::CurrentChange)];
            (period.name(), list.industry_ends.iter().map(|(_, ends)| ends.len()).sum())
        })
    }
}

/// Collects the ranked stocks of all lists into a [`Model`].
#[derive(Debug)]
pub struct Builder {
    lists: [ListBuilder; Period::ALL.len() * ViewMode::ALL.len()],
}

#[derive(Debug, Default)]
struct ListBuilder {
    industries: Vec<u8>,
    stocks: Vec<u8>,
    industry_ends: Vec<(usize, Vec<usize>)>,
    last_industry: String,
}

impl Default for Builder {
    fn default() -> Self {
        Self { lists: std::array::from_fn(|_| ListBuilder::default()) }
    }
}

impl Builder {
    /// Adds the next stock of a list. Stocks come industry by industry, each in rank order; one that exceeds
    /// [`Limit::MAX`] in its industry must not come.
    pub fn push(&mut self, period: Period, view_mode: ViewMode, stock: &TreemapShortPosition) {
        let list = &mut self.lists[list_index(period, view_mode)];
        if list.industry_ends.is_empty() || list.last_industry != stock.industry {
            encoding::string::encode(1, &stock.industry, &mut list.industries);
            list.industry_ends.push((list.stocks.len(), Vec::new()));
            list.last_industry.clone_from(&stock.industry);
        }
        encoding::message::encode(2, stock, &mut list.stocks);
        if let Some((_, ends)) = list.industry_ends.last_mut() {
            ends.push(list.stocks.len());
        }
    }

    /// The finished model.
    #[must_use]
    pub fn build(self, freshness: Freshness, tolerance: Tolerance) -> Model {
        let mut digest = Sha256::new();
        let mut stocks = 0;
        let lists = self.lists.map(|list| {
            // The lengths keep a byte from moving between the parts unseen.
            digest.update(list.industries.len().to_le_bytes());
            digest.update(&list.industries);
            digest.update(list.stocks.len().to_le_bytes());
            digest.update(&list.stocks);
            stocks += list.industry_ends.iter().map(|(_, ends)| ends.len()).sum::<usize>();
            List { industries: list.industries.into(), stocks: list.stocks.into(), industry_ends: list.industry_ends }
        });
        digest.update(format!("{:?}", freshness.data_date));
        let version =
            format!("{:016x}", digest.finalize()[..8].iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte)));
        Model {
            lists,
            freshness,
            version: header(&version),
            data_date: freshness.data_date.map(|date| header(&date.to_string())),
            last_refreshed: freshness.last_refreshed.map(|instant| header(&instant.to_string())),
            stale_from: freshness.stale_from(tolerance),
            stocks,
        }
    }
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
    #[must_use]
    pub const fn new(model: Arc<Model>, request: Request) -> Self {
        Self { model, request }
    }

    /// The model that the slices are taken from.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The period that is served, which may be longer than the one asked for.
    #[must_use]
    pub const fn period(&self) -> Period {
        self.request.period
    }

    /// The encoded `stocks.v1alpha1.IndustryTreeMap`, piece by piece.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let list = self.list();
        std::iter::once(&list.industries[..]).chain(list.ranges(self.request.limit).map(|range| &list.stocks[range]))
    }

    /// The length of all [`Answer::slices`] together, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        let list = self.list();
        list.industries.len() + list.ranges(self.request.limit).map(|range| range.len()).sum::<usize>()
    }

    /// Whether the answer holds no stock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list().industries.is_empty()
    }

    fn list(&self) -> &List {
        &self.model.lists[list_index(self.request.period, self.request.view_mode)]
    }
}

/// The current [`Model`], swapped as a whole.
#[derive(Debug)]
pub struct ReadModel {
    current: ArcSwapOption<Model>,
    first_load: watch::Sender<FirstLoad>,
}

/// How far the first load has come. Until it has ended either way, requests wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FirstLoad {
    Running,
    /// With the reason.
    Failing(String),
    Done,
}

impl Default for ReadModel {
    fn default() -> Self {
        Self { current: ArcSwapOption::empty(), first_load: watch::Sender::new(FirstLoad::Running) }
    }
}

impl ReadModel {
    /// The current model, or `None` before the first load.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Model>> {
        self.current.load_full()
    }

    /// The current model; before the first load it waits for it. `None` when that load has failed: it will be tried
    /// again, but nobody knows when it succeeds.
    pub async fn first(&self) -> Option<Arc<Model>> {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.first_load.subscribe().wait_for(|state| *state != FirstLoad::Running).await;
        self.current()
    }

    /// Waits until there is a model, however long that takes.
    pub async fn ready(&self) {
        let _ = self.first_load.subscribe().wait_for(|state| *state == FirstLoad::Done).await;
    }

    /// Makes `model` the current one. Answers that are being written go on with the one they have.
    pub fn publish(&self, model: Model) {
        self.current.store(Some(Arc::new(model)));
        self.first_load.send_replace(FirstLoad::Done);
    }

    /// Says that a load has failed, and why. Without a model, requests no longer wait; with one, nothing changes.
    pub fn load_failed(&self, why: &impl fmt::Display) {
        self.first_load.send_if_modified(|state| {
            let waiting = *state == FirstLoad::Running;
            if *state != FirstLoad::Done {
                *state = FirstLoad::Failing(why.to_string());
            }
            waiting
        });
    }

    /// Why there is no model; `None` when there is one.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match &*self.first_load.borrow() {
            FirstLoad::Done => None,
            FirstLoad::Running => Some("the first load has not ended yet".into()),
            FirstLoad::Failing(why) => Some(why.clone()),
        }
    }
}
