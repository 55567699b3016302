//! Loads reports into `shorts`. Each date is replaced as a whole, and each transaction holds a batch of dates. One
//! thread reads and checks files while Postgres writes the previous batch.

use std::{collections::BTreeMap, path::PathBuf, pin::pin, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use futures_util::SinkExt;
use jiff::civil::{Date, DateTime};
use tokio::sync::mpsc;
use tokio_postgres::types::Type;

use super::{
    Refused,
    plan::Plan,
    report::{Report, ReportName},
    text::Characters,
};
use crate::postgres::Session;

/// The size of a batch in bytes: large enough that commits cost little, small enough that memory use stays low.
const BATCH: usize = 4 << 20;
/// A day with fewer than one row for this many of the day before is reported.
const FEW: usize = 2;
/// A batch takes a fraction of a second, unless another session holds a lock.
const BOUND: Duration = Duration::from_secs(120);

/// What was loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Reports that were loaded.
    pub files: usize,
    /// The rows of these reports.
    pub rows: usize,
    /// The first and the last date of these reports.
    pub span: Option<(Date, Date)>,
    /// Reports that were skipped because a higher revision was loaded.
    pub superseded: usize,
    /// Files that were not loaded, with the reason.
    pub refused: Vec<Refused>,
    /// What was loaded as it is, and is unlikely: the file, and what of it.
    pub notes: Vec<String>,
}

/// The reports of some dates, in one buffer.
#[derive(Default)]
struct Batch {
    days: Vec<DateTime>,
    rows: usize,
    copy: Vec<u8>,
    superseded: usize,
    refused: Vec<Refused>,
    notes: Vec<String>,
    /// Files that this batch covers, with the superseded and the refused ones.
    files: usize,
}

/// Loads the reports of `plan`. Calls `progress` after each batch with the number of files that are done.
///
/// Fails: the database fails. Batches that were committed stay: each holds whole dates.
pub async fn load(session: &Session, plan: Plan, mut progress: impl FnMut(usize, &Loaded)) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded { refused: plan.refused, ..Loaded::default() };
    // One batch may wait while another is written. The reader never gets further ahead.
    let (send, mut batches) = mpsc::channel(1);
    let characters = super::characters(session).await?;
    let before = match plan.dates.keys().next() {
        Some(first) => rows_before(session, *first).await?,
        None => 0,
    };
    let reader = tokio::task::spawn_blocking(move || read(plan.dates, before, characters, &send));
    let mut files = 0;
    while let Some(batch) = batches.recv().await {
        let Batch { days, rows, copy, superseded, refused, notes, files: looked_at } = batch;
        if let (Some(first), Some(last)) = (days.first(), days.last()) {
            let (first, last) = (first.date(), last.date());
            write(session, &days, copy.into()).await.with_context(|| {
                let before =
                    loaded.span.map_or_else(|| "nothing".into(), |(_, last)| format!("all dates up to {last}"));
                format!("the reports from {first} to {last} were not loaded; loaded before: {before}")
            })?;
            loaded.files += days.len();
            loaded.rows += rows;
            loaded.span = Some((loaded.span.map_or(first, |(first, _)| first), last));
        }
        loaded.superseded += superseded;
        loaded.refused.extend(refused);
        loaded.notes.extend(notes);
        files += looked_at;
        progress(files, &loaded);
    }
    reader.await.context("the thread that reads the files failed")?;
    Ok(loaded)
}

/// How many rows the newest day before `date` has.
async fn rows_before(session: &Session, date: Date) -> anyhow::Result<usize> {
    let count = session.transaction("look at the day before", BOUND, async {
        let day = date.at(0, 0, 0, 0);
        let rows = session.client().query_typed(ROWS_BEFORE, &[(&day, Type::TIMESTAMP)]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)))
    });
    Ok(usize::try_from(count.await?).unwrap_or_default())
}

const ROWS_BEFORE: &str = r#"
    SELECT count(*) FROM public.shorts
    WHERE "DATE" = (SELECT max("DATE") FROM public.shorts WHERE "DATE" < $1)"#;

/// Reads the reports date by date and sends them in batches. Returns early when the receiver is gone.
/// `rows_before` are the rows of the day before the first.
fn read(
    dates: BTreeMap<Date, Vec<(ReportName, PathBuf)>>,
    mut rows_before: usize,
    characters: Characters,
    batches: &mpsc::Sender<Batch>,
) {
    let mut batch = Batch::default();
    for (date, mut reports) in dates {
        batch.files += reports.len();
        // Take the highest valid revision. When a revision is refused, the one before it is tried, so that the date
        // does not lose its data.
        while let Some((_, path)) = reports.pop() {
            match super::read(&path).and_then(|bytes| Report::parse(date, characters, &bytes)) {
                Ok(report) => {
                    let file = path.display();
                    batch.notes.extend(report.notes.iter().map(|note| format!("{file}: {note}")));
                    if report.rows * FEW < rows_before {
                        batch.notes.push(format!(
                            "{file}: has {} rows, where the day before has {rows_before}: it may be cut off",
                            report.rows
                        ));
                    }
                    rows_before = report.rows;
                    batch.days.push(date.at(0, 0, 0, 0));
                    batch.rows += report.rows;
                    batch.copy.extend_from_slice(&report.copy);
                    batch.superseded += reports.len();
                    break;
                }
                Err(reason) => batch.refused.push(Refused { path, reason }),
            }
        }
        if batch.copy.len() >= BATCH && batches.blocking_send(std::mem::take(&mut batch)).is_err() {
            return;
        }
    }
    drop(batches.blocking_send(batch));
}

/// Replaces the rows of `days` by those of `copy`.
async fn write(session: &Session, days: &[DateTime], copy: Bytes) -> Result<(), crate::postgres::error::DbError> {
    session
        .transaction("load reports into shorts", BOUND, async {
            let client = session.client();
            // Without this lock, two loaders at once would both delete the old rows of a date and both insert new ones.
            client.batch_execute("SELECT pg_advisory_xact_lock(hashtextextended('treemap.load', 0))").await?;
            // A table that has just been filled has no statistics. Without them, the planner scans all of it per batch.
            client.batch_execute("SET LOCAL enable_seqscan = off").await?;
            client
                .execute_typed(
                    r#"DELETE FROM public.shorts WHERE "DATE" = ANY ($1)"#,
                    &[(&days, Type::TIMESTAMP_ARRAY)],
                )
                .await?;
            // The driver can COPY only through a prepared statement. It must be closed within this transaction:
            // otherwise a transaction pooler keeps it for the next client. This block drops it before COMMIT.
            {
                let statement = client.prepare(COPY).await?;
                let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
                sink.send(copy).await?;
                sink.finish().await?;
            }
            Ok(())
        })
        .await
}

const COPY: &str = r#"COPY public.shorts ("DATE", "PRODUCT", "PRODUCT_CODE", "REPORTED_SHORT_POSITIONS",
    "TOTAL_PRODUCT_IN_ISSUE", "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") FROM STDIN (FORMAT csv)"#;
