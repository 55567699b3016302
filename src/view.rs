//! Everything that is read of `mv_treemap_data`. Each statement runs in a read-only transaction of its own, unnamed, with a time limit.

pub mod contents;

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};

use crate::{
    postgres::{Db, error::DbError},
    proto::stocks::v1alpha1::TreemapShortPosition,
    treemap::{
        Limit, Period, ViewMode,
        freshness::{Freshness, Tolerance},
        model::{Builder, Model},
    },
};

/// Reads one row of an index.
const LAST_REFRESHED_WITHIN: Duration = Duration::from_secs(3);
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
pub async fn load(db: &Db, tolerance: Tolerance) -> Result<Model, DbError> {
    const STATEMENT: &str = concat!(include_str!("view/freshness.sql"), include_str!("view/load_model.sql"));
    let mut builder = Builder::default();
    let mut freshness = None;
    let periods = Period::ALL.map(Period::name);
    let limit = i64::from(Limit::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&&periods[..], Type::TEXT_ARRAY), (&limit, Type::INT8)];
    db.rows("load the treemap", LOAD_WITHIN, STATEMENT, &parameters, |row| {
        // Only the periods that were asked for come back.
        let Some(period) = Period::of_name(row.try_get("period_name")?) else { return Ok(()) };
        let view_mode = ViewMode::ALL[usize::from(row.try_get::<_, i32>("view_mode")? != 0)];
        let codes: Vec<&str> = row.try_get("product_codes")?;
        let values: Vec<f64> = row.try_get("short_positions")?;
        let places: Vec<i64> = row.try_get("places")?;
        let mut ranked: Vec<_> = places.into_iter().zip(codes.into_iter().zip(values)).collect();
        ranked.sort_unstable_by_key(|(place, _)| *place);
        let mut stock = TreemapShortPosition { industry: row.try_get("industry")?, ..Default::default() };
        for (_, (code, value)) in ranked {
            code.clone_into(&mut stock.product_code);
            stock.short_position = value;
            builder.push(period, view_mode, &stock);
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
