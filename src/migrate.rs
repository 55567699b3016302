//! Puts the treemap's objects into a database, says what is missing there, and takes them out again.
//!
//! The SQL files are the definition, and the database itself is the record of what was applied: each of them can be run
//! again and changes only what is not as it says, and what differs is read from the catalog. So there is no history
//! table to disagree with a file that was applied by `psql` or `supabase db push`. A migration library would bring one,
//! and the usual ones bring no lock (four of them starting at once: three fail).

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use crate::postgres::{Session, error::DbError};

const SOURCE_TABLES: &str = include_str!("../migrations/001_source_tables.sql");
const TREEMAP_VIEW: &str = include_str!("../migrations/004_treemap_materialized_view.sql");
const TREEMAP_VIEW_DOWN: &str = include_str!("../migrations/down/004_treemap_materialized_view.sql");

/// Building an index on the source table and filling the view take seconds; waiting for another migration as long.
const BOUND: Duration = Duration::from_secs(300);
/// One migration at a time; then no lock that readers would queue behind is waited for longer than this.
const LOCKS: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('treemap.migrate', 0)); SET LOCAL lock_timeout = '10s'";

/// Applies all migrations in one transaction: all of it, or nothing. Safe when several start at once.
///
/// # Errors
/// What Postgres says; nothing is changed then.
pub async fn up(session: &Session) -> Result<(), DbError> {
    session
        .transaction("migrate", BOUND, async {
            session.client().batch_execute(LOCKS).await?;
            session.client().batch_execute(SOURCE_TABLES).await?;
            session.client().batch_execute(TREEMAP_VIEW).await
        })
        .await
}

/// Rolls back the view, its log and its functions. The source tables stay.
///
/// # Errors
/// What Postgres says; nothing is changed then.
pub async fn down(session: &Session) -> Result<(), DbError> {
    session
        .transaction("roll back 004", BOUND, async {
            session.client().batch_execute(LOCKS).await?;
            session.client().batch_execute(TREEMAP_VIEW_DOWN).await
        })
        .await
}

/// What in the database is not as the migrations say, as sentences. Empty when all is.
///
/// # Errors
/// The catalog cannot be read.
pub async fn differences(session: &Session) -> Result<Vec<String>, DbError> {
    const STATEMENT: &str = include_str!("migrate/drift.sql");
    let bodies = [quoted("$view$"), quoted("$refresh$"), quoted("$ranked$"), quoted("$state$")];
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        bodies.iter().map(|body| (body as &(dyn ToSql + Sync), Type::TEXT)).collect();
    session
        .transaction("read the catalog", Duration::from_secs(30), async {
            let rows = session.client().query_typed(STATEMENT, &parameters).await?;
            rows.iter().map(|row| row.try_get(0)).collect()
        })
        .await
}

/// The text that migration 004 quotes with `tag`: what Postgres keeps of it, to the letter.
fn quoted(tag: &str) -> &'static str {
    TREEMAP_VIEW.split(tag).nth(1).unwrap_or_default()
}
