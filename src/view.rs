//! Everything that is read of `mv_treemap_data`. Each statement runs in a read-only transaction of its own, unnamed, with a time limit.

pub mod contents;

use std::time::Duration;

use jiff::{Timestamp, civil::Date};
use tokio_postgres::types::{ToSql, Type};

use crate::{
    postgres::{Db, Session, error::DbError},
    treemap::{
        Limit, Period, ViewMode,
        freshness::{Freshness, Tolerance},
        model::{Builder, Model},
        stocks::Stock,
    },
};

/// Reads one row of an index.
const LAST_REFRESHED_WITHIN: Duration = Duration::from_secs(3);
/// For errors.
pub const LOAD_DOING: &str = "load the treemap";
/// Reads the whole view; one of 100,000 stocks takes under two seconds.
const LOAD_WITHIN: Duration = Duration::from_secs(10);

/// When the view was refreshed last; `None` when it has no rows. Differs whenever the view's content may.
///
/// Fails when the database is out of reach, or the view is missing or was never filled.
pub async fn last_refreshed(db: &Db) -> Result<Option<Timestamp>, DbError> {
    const STATEMENT: &str = "SELECT max(last_refreshed) FROM public.mv_treemap_data";
    let mut refreshed = None;
    db.rows("look at mv_treemap_data", LAST_REFRESHED_WITHIN, STATEMENT, &[], |row| {
        refreshed = row.try_get(0)?;
        Ok(())
    })
    .await?;
    Ok(refreshed)
}

/// The model of the view as it is now.
///
/// Fails when the database is out of reach, or the view is missing or was never filled.
pub async fn load(session: &Session, tolerance: Tolerance) -> Result<Model, DbError> {
    const STATEMENT: &str = concat!(include_str!("view/freshness.sql"), include_str!("view/load_model.sql"));
    let mut builder = Builder::default();
    let mut freshness = None;
    let periods = Period::ALL.map(Period::name);
    let limit = i64::from(Limit::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&&periods[..], Type::TEXT_ARRAY), (&limit, Type::INT8)];
    session
        .rows(LOAD_DOING, LOAD_WITHIN, STATEMENT, &parameters, |row| {
            // Only the periods that were asked for come back.
            let Some(period) = Period::of_name(row.try_get("period_name")?) else { return Ok(()) };
            let view_mode = ViewMode::ALL[usize::from(row.try_get::<_, i32>("view_mode")? != 0)];
            let codes: Vec<&str> = row.try_get("product_codes")?;
            let mut places: Vec<_> = row.try_get::<_, Vec<i64>>("places")?.into_iter().enumerate().collect();
            places.sort_unstable_by_key(|(_, place)| *place);
            let count = row.try_get::<_, i64>("stock_count")?;
            let industry: &str = row.try_get("industry")?;
            builder.industry(period, view_mode, industry, usize::try_from(count).unwrap_or_default());
            // Absent where the rank by position has brought it.
            if let Some(names) = row.try_get::<_, Option<Vec<Option<&str>>>>("company_names")? {
                let currents: Vec<f64> = row.try_get("currents")?;
                let earliests: Vec<f64> = row.try_get("earliests")?;
                let changes: Vec<Option<f64>> = row.try_get("changes")?;
                let dates: Vec<Date> = row.try_get("report_dates")?;
                for (at, _) in places {
                    let stock = Stock {
                        code: codes[at].into(),
                        name: names[at].unwrap_or_default().into(),
                        current: currents[at],
                        earliest: earliests[at],
                        change: changes[at],
                        reported: dates[at],
                    };
                    builder.push(period, view_mode, stock);
                }
            } else {
                for (at, _) in places {
                    builder.push_known(period, view_mode, codes[at]);
                }
            }
            if freshness.is_none() {
                // The same in all rows.
                freshness = Some(Freshness {
                    last_refreshed: row.try_get("last_refreshed")?,
                    data_date: row.try_get("data_date")?,
                    future_rows: row.try_get("future_rows")?,
                });
            }
            Ok(())
        })
        .await?;
    Ok(builder.build(freshness.unwrap_or_default(), tolerance))
}
