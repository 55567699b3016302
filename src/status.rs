//! The state of the view, and whether it is fit to be served.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use crate::{
    db::Session,
    error::DbError,
    migrate,
    read_model::{Freshness, Tolerance},
    treemap::Period,
};

const BOUND: Duration = Duration::from_secs(30);

/// What the view holds, or why it holds nothing.
#[derive(Debug)]
pub enum View {
    /// There is no materialized view of that name.
    Missing,
    /// It is there without the log of its refreshes: published before this service, and to be migrated.
    Foreign,
    /// It was never filled: a restored schema, for one.
    Unpopulated,
    /// It can be read.
    Populated(Contents),
}

/// The contents of a populated view.
#[derive(Debug)]
pub struct Contents {
    /// Rows over all periods.
    pub rows: i64,
    /// Distinct industries.
    pub industries: i64,
    /// Stocks of each period that has any, shortest first.
    pub periods: Vec<(String, i64)>,
    /// When it was refreshed, and up to which report.
    pub freshness: Freshness,
}

impl View {
    /// Reads the view's state.
    ///
    /// # Errors
    /// The database is out of reach, or the role may not read the view.
    pub async fn read(session: &Session) -> Result<Self, DbError> {
        const POPULATED: &str = "SELECT relispopulated, to_regclass('public.treemap_refreshes') IS NULL \
            FROM pg_catalog.pg_class WHERE oid = to_regclass('public.mv_treemap_data') AND relkind = 'm'";
        const CONTENTS: &str = include_str!("sql/view_state.sql");
        session
            .transaction("read the state of the view", BOUND, async {
                let Some(row) = session.client().query_typed_opt(POPULATED, &[]).await? else {
                    return Ok(Self::Missing);
                };
                if row.try_get::<_, bool>(1)? {
                    return Ok(Self::Foreign);
                }
                if !row.try_get::<_, bool>(0)? {
                    return Ok(Self::Unpopulated);
                }
                let row = session.client().query_typed_one(CONTENTS, &[]).await?;
                let names: Vec<String> = row.try_get("periods")?;
                let stocks: Vec<i64> = row.try_get("stocks")?;
                let mut periods: Vec<_> = names.into_iter().zip(stocks).collect();
                periods.sort_by_key(|(name, _)| Period::of_name(name).map_or(usize::MAX, Period::index));
                Ok(Self::Populated(Contents {
                    rows: row.try_get("rows")?,
                    industries: row.try_get("industries")?,
                    periods,
                    freshness: Freshness {
                        last_refreshed: row.try_get("last_refreshed")?,
                        data_date: row.try_get("data_date")?,
                    },
                }))
            })
            .await
    }
}

/// Everything that ops should act upon, as sentences; empty when all is well.
///
/// # Errors
/// The database is out of reach.
pub async fn problems(session: &Session, view: &View, tolerance: Tolerance) -> Result<Vec<String>, DbError> {
    let mut problems = migrate::differences(session).await?;
    if !problems.is_empty() {
        problems.push("mend the above with: treemap migrate".into());
    }
    match view {
        // Named by the differences already.
        View::Missing | View::Foreign => {}
        View::Unpopulated => problems.push("the view was never filled; fill it with: treemap refresh".into()),
        View::Populated(contents) => problems.extend(contents.staleness(tolerance)),
    }
    Ok(problems)
}

impl Contents {
    fn staleness(&self, tolerance: Tolerance) -> Vec<String> {
        let mut stale = Vec::new();
        let (Some(refreshed), Some(data_date)) = (self.freshness.last_refreshed, self.freshness.data_date) else {
            return vec!["the view holds no stocks; load reports and a company list, then: treemap refresh".into()];
        };
        let view_age = age(refreshed);
        if view_age > signed(tolerance.view) {
            stale.push(format!(
                "the view was last refreshed {} ago, and may be {} old; refresh it with: treemap refresh",
                words(view_age),
                words(signed(tolerance.view))
            ));
        }
        if let Some(data_age) = data_age(data_date).filter(|age| *age > signed(tolerance.data)) {
            stale.push(format!(
                "the newest report is of {data_date}, {} ago, and may be {} old; load newer ones with: treemap load shorts",
                words(data_age),
                words(signed(tolerance.data))
            ));
        }
        stale
    }
}

/// The time since `instant`.
#[must_use]
pub fn age(instant: Timestamp) -> SignedDuration {
    Timestamp::try_from(SystemTime::now()).map_or(SignedDuration::ZERO, |now| now.duration_since(instant))
}

/// The time since the start of `date` in UTC.
#[must_use]
pub fn data_age(date: Date) -> Option<SignedDuration> {
    date.to_zoned(TimeZone::UTC).ok().map(|day| age(day.timestamp()))
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A duration in its largest fitting unit, as a person would say it.
#[must_use]
pub fn words(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
