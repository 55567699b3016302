//! One refresh of the view, through the function that owns how it is done.

use std::time::Duration;

use jiff::civil::Date;

use crate::{db::Session, error::DbError};

/// A refresh takes a second, but may first wait for another, or be slow on a busy server.
const BOUND: Duration = Duration::from_secs(900);

/// What a refresh came to.
#[derive(Debug)]
pub struct Refreshed {
    /// Rows of the view.
    pub rows: i64,
    /// The anchor: the newest report.
    pub data_date: Option<Date>,
    /// How long it took, in seconds, without waiting for another.
    pub seconds: f64,
}

/// Refreshes now, after whatever refresh is running. Readers of the view do not wait.
///
/// # Errors
/// What Postgres says; the view is as it was then.
pub async fn refresh_now(session: &Session) -> Result<Refreshed, DbError> {
    const STATEMENT: &str = "SELECT row_count, data_date, seconds FROM public.refresh_treemap_data()";
    session
        .transaction("refresh the view", BOUND, async {
            let row = session.client().query_typed_one(STATEMENT, &[]).await?;
            Ok(Refreshed {
                rows: row.try_get("row_count")?,
                data_date: row.try_get("data_date")?,
                seconds: row.try_get("seconds")?,
            })
        })
        .await
}
