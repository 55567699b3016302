//! Reads what the view holds, and the log of its refreshes.

use std::time::Duration;

use jiff::{Timestamp, civil::Date};

use crate::{
    postgres::{Session, error::DbError},
    treemap::{Period, freshness::Freshness},
};

const BOUND: Duration = Duration::from_secs(30);

/// What the view holds, or why it holds nothing.
#[derive(Debug)]
pub enum View {
    /// The materialized view does not exist.
    Missing,
    /// The view exists, but not the log of its refreshes: it is older than this service and has to be migrated.
    Foreign,
    /// The view was never filled, for example after a restore of the schema only.
    Unpopulated,
    /// The view can be read.
    Populated(Contents),
}

/// The contents of a populated view.
#[derive(Debug)]
pub struct Contents {
    /// Rows over all periods.
    pub rows: i64,
    /// Distinct industries.
    pub industries: i64,
    /// The number of stocks in each period that has any, shortest period first.
    pub periods: Vec<(String, i64)>,
    /// When the view was refreshed, and the date of its newest report.
    pub freshness: Freshness,
}

impl View {
    /// Reads the view's state.
    ///
    /// Fails: the database cannot be reached, or the role may not read the view.
    pub async fn read(session: &Session) -> Result<Self, DbError> {
        const POPULATED: &str = "SELECT relispopulated, to_regclass('public.treemap_refreshes') IS NULL \
            FROM pg_catalog.pg_class WHERE oid = to_regclass('public.mv_treemap_data') AND relkind = 'm'";
        const CONTENTS: &str = concat!(include_str!("freshness.sql"), include_str!("contents.sql"));
        session
            .read("read the state of the view", BOUND, async {
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
                        future_rows: row.try_get("future_rows")?,
                    },
                }))
            })
            .await
    }

    /// The state in one or two words.
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Foreign => "not migrated",
            Self::Unpopulated => "never filled",
            Self::Populated(_) => "populated",
        }
    }

    /// The contents of the view, if it is populated.
    pub const fn contents(&self) -> Option<&Contents> {
        if let Self::Populated(contents) = self { Some(contents) } else { None }
    }
}

/// A row of the refresh log.
#[derive(Debug)]
pub struct Refresh {
    /// Its key in the log: microseconds since 1970.
    pub id: i64,
    /// The tick of the schedule that caused it; `None` for a refresh by hand or after a change of the source.
    pub tick: Option<Timestamp>,
    /// When it began, after it had waited for other refreshes.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Rows of the view after the refresh.
    pub rows: i64,
    /// The anchor date of the refreshed view.
    pub data_date: Option<Date>,
    /// Who refreshed the view.
    pub who: String,
}

impl Refresh {
    /// The last five refreshes, newest first.
    ///
    /// Fails: the database cannot be reached, or the role may not read the log.
    pub async fn newest(session: &Session) -> Result<Vec<Self>, DbError> {
        const STATEMENT: &str = "SELECT id, tick, started_at, finished_at, row_count, data_date, who \
            FROM public.treemap_refreshes ORDER BY finished_at DESC LIMIT 5";
        session
            .read("read the log of refreshes", BOUND, async {
                let rows = session.client().query_typed(STATEMENT, &[]).await?;
                let refresh = |row: &tokio_postgres::Row| {
                    Ok(Self {
                        id: row.try_get("id")?,
                        tick: row.try_get("tick")?,
                        started_at: row.try_get("started_at")?,
                        finished_at: row.try_get("finished_at")?,
                        rows: row.try_get("row_count")?,
                        data_date: row.try_get("data_date")?,
                        who: row.try_get("who")?,
                    })
                };
                rows.iter().map(refresh).collect()
            })
            .await
    }

    /// How long it took, in seconds.
    pub fn seconds(&self) -> f64 {
        self.finished_at.duration_since(self.started_at).as_secs_f64()
    }
}
