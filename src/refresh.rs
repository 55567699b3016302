//! One refresh of the view, by the function in Postgres that alone refreshes.

pub mod background;

use std::time::Duration;

use jiff::{Timestamp, civil::Date};
use tokio_postgres::types::{ToSql, Type};

use crate::postgres::{Session, error::DbError};

/// A refresh takes a second, but may first wait for another, or be slow on a busy server.
const REFRESH_WITHIN: Duration = Duration::from_secs(300);
/// The vacuum after it takes some milliseconds.
const VACUUM_WITHIN: Duration = Duration::from_secs(60);

/// Why a refresh is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A person or a pipeline asked for it.
    ByHand,
    /// The schedule's tick: done once, by whichever replica comes first.
    Tick(Timestamp),
    /// The view was never filled, since a restore without its rows, say.
    NeverFilled,
    /// The source tables have changed: done once for a change.
    SourceChanged,
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The view was refreshed.
    Refreshed {
        /// Rows of the view.
        rows: i64,
        /// The anchor: the newest report.
        data_date: Option<Date>,
        /// How long it took, in seconds, without waiting for another.
        seconds: f64,
    },
    /// Another refresh has served the same reason.
    AlreadyDone,
}

/// Refreshes, after whatever refresh is running, and leaves the view without dead rows. Readers of the view do not wait.
///
/// Fails with what Postgres reports; the view is then as it was before.
pub async fn refresh_once(session: &Session, reason: Reason, who: Option<&str>) -> Result<Outcome, DbError> {
    const STATEMENT: &str =
        "SELECT outcome, row_count, data_date, seconds FROM public.refresh_treemap_data($1, $2, $3)";
    let tick = if let Reason::Tick(tick) = reason { Some(tick) } else { None };
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&tick, Type::TIMESTAMPTZ), (&who, Type::TEXT), (&(reason == Reason::SourceChanged), Type::BOOL)];
    let outcome = session
        .transaction("refresh the view", REFRESH_WITHIN, async {
            let row = session.client().query_typed_one(STATEMENT, &parameters).await?;
            if row.try_get::<_, &str>("outcome")? != "refreshed" {
                return Ok(Outcome::AlreadyDone);
            }
            Ok(Outcome::Refreshed {
                rows: row.try_get("row_count")?,
                data_date: row.try_get("data_date")?,
                seconds: row.try_get("seconds")?,
            })
        })
        .await?;
    if let Outcome::Refreshed { .. } = outcome {
        // Every row has just been written anew. Autovacuum would come within a minute, but refreshes may come faster; and
        // the ranked queries read only the index once the old rows are gone. A role without the privilege skips it.
        let vacuum = "VACUUM (SKIP_LOCKED) public.mv_treemap_data";
        if let Err(error) = session.alone("vacuum the view", VACUUM_WITHIN, vacuum).await {
            tracing::debug!("{error}");
        }
    }
    Ok(outcome)
}
