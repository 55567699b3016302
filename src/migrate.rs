//! Puts the treemap's objects into a database, reports what is missing there, and takes them out again.
//!
//! The SQL files are the definition, and the database itself is the record of what was applied: each file can be run
//! again and changes only what is not as it says, and differences are read from the catalog. So there is no history
//! table to disagree with a file that was applied by `psql` or `supabase db push`. A migration library would bring one,
//! and the usual ones bring no lock (four of them starting at once: three fail).

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use crate::postgres::{Session, error::DbError};

/// The newest migration that holds everything, and those after it in order: name and SQL. migrations/README.md says how to add one.
const MIGRATIONS: [(&str, &str); 1] = [("006_treemap", include_str!("../migrations/006_treemap.sql"))];
const DOWN: &str = include_str!("../migrations/down/006_treemap.sql");

/// The functions, each with the quotes of its body.
const FUNCTIONS: [(&str, &str); 11] = [
    ("public.refresh_treemap_data(timestamptz, text, boolean)", "$refresh$"),
    ("public.get_treemap_data(text, integer, text)", "$ranked$"),
    ("public.treemap_source_state()", "$state$"),
    ("public.treemap_build_view()", "$build$"),
    ("public.treemap_view_reads_source()", "$reads$"),
    ("public.treemap_percent(text)", "$percent$"),
    ("public.treemap_percent(double precision)", "$same$"),
    ("public.treemap_place()", "$place$"),
    ("public.treemap_source_facts()", "$facts$"),
    ("public.treemap_column_differences()", COLUMNS),
    ("public.treemap_require_columns()", "$require$"),
];

/// The quotes of the list of columns, which also runs where nothing is migrated yet.
const COLUMNS: &str = "$columns$";

/// Building an index on the source table and filling the view take seconds; waiting for another migration as long.
const MIGRATED_WITHIN: Duration = Duration::from_secs(300);
const CATALOG_READ_WITHIN: Duration = Duration::from_secs(30);
/// One migration at a time; then wait no longer than this for a lock that readers would queue behind.
const LOCKS: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('treemap.migrate', 0)); SET LOCAL lock_timeout = '10s'";

/// The names of all migrations.
pub fn names() -> Vec<&'static str> {
    MIGRATIONS.iter().map(|(name, _)| *name).collect()
}

/// Applies all migrations in one transaction: all of it, or nothing. Safe when several start at once.
///
/// Fails with what Postgres reports; then nothing is changed.
pub async fn up(session: &Session) -> Result<(), DbError> {
    session
        .transaction("migrate", MIGRATED_WITHIN, async {
            session.client().batch_execute(LOCKS).await?;
            for (_, sql) in MIGRATIONS {
                session.client().batch_execute(sql).await?;
            }
            Ok(())
        })
        .await
}

/// Rolls back the view, its log and its functions. The source tables stay.
///
/// Fails with what Postgres reports; then nothing is changed.
pub async fn down(session: &Session) -> Result<(), DbError> {
    session
        .transaction("roll back", MIGRATED_WITHIN, async {
            session.client().batch_execute(LOCKS).await?;
            session.client().batch_execute(DOWN).await
        })
        .await
}

/// What in the database is not as the migrations say, as sentences. Empty when all is.
pub async fn differences(session: &Session) -> Result<Vec<String>, DbError> {
    const STATEMENT: &str = include_str!("migrate/drift.sql");
    let view = quoted("$view$");
    let (signatures, bodies): (Vec<_>, Vec<_>) =
        FUNCTIONS.iter().map(|(signature, tag)| (*signature, quoted(tag))).unzip();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&view, Type::TEXT), (&signatures, Type::TEXT_ARRAY), (&bodies, Type::TEXT_ARRAY)];
    session
        .read("read the catalog", CATALOG_READ_WITHIN, async {
            // It would quote the names of types, too, which are compared.
            session.client().batch_execute("SET LOCAL quote_all_identifiers = off").await?;
            let rows = session.client().query_typed(STATEMENT, &parameters).await?;
            let columns = session.client().query_typed(quoted(COLUMNS), &[]).await?;
            let found = rows.iter().map(|row| row.try_get(0));
            found.chain(columns.iter().map(|row| row.try_get("difference"))).collect()
        })
        .await
}

/// The text that the newest migration quotes with `tag`: what Postgres keeps of it, to the letter.
fn quoted(tag: &str) -> &'static str {
    MIGRATIONS.iter().rev().find_map(|(_, sql)| sql.split(tag).nth(1)).unwrap_or_default()
}
