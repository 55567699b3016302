//! Keeps the read model equal to the view: loads it, and loads it again when the view was refreshed. A notification
//! only hastens the look; the poll finds every refresh, also one that was made by hand.

pub mod listen;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tracing::Instrument;

use crate::{
    metrics::{Metrics, ReloadResult},
    postgres::{Db, error::DbError},
    retry::{FailureLog, backoff::Backoff},
    telemetry::step_span,
    treemap::{freshness::Tolerance, read_model::ReadModel},
    view,
};

/// The first pause after a failed look, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What it takes to keep the read model loaded.
#[derive(Debug)]
pub struct Reloader {
    /// Where the view is read.
    pub db: Db,
    /// When its models are stale.
    pub tolerance: Tolerance,
    /// What is kept equal to the view.
    pub read_model: Arc<ReadModel>,
    /// Notified when the view may have changed.
    pub changed: Arc<Notify>,
    /// The time between two looks without a notification.
    pub poll_interval: Duration,
    /// Counts the looks.
    pub metrics: Arc<Metrics>,
}

/// Loads the model, then waits for `changed` or for the next poll, for ever. A failed step keeps the old model, and is retried.
pub async fn keep_loaded(reloader: Reloader, mut failures: FailureLog) {
    let Reloader { read_model, changed, poll_interval, metrics, .. } = &reloader;
    let mut backoff = Backoff::new(PAUSES.0);
    loop {
        failures.attempt(|_| {});
        match reloader.step().await {
            Ok(result) => {
                metrics.reload(result);
                if let Some(ended) = failures.succeeded() {
                    tracing::info!(seconds = ended.seconds, "the database answers again");
                }
                backoff.reset();
                // A notification that came during the step is kept by `changed`: the last one is never lost.
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep(*poll_interval) => {}
                }
            }
            Err(error) => {
                metrics.reload(ReloadResult::Failed);
                read_model.load_failed(&error);
                let serving = if read_model.current().is_some() { "serving the last model" } else { "not ready" };
                failures.failed(&error, |words| tracing::warn!("{serving}; retrying: {words}"));
                tokio::time::sleep(backoff.pause(PAUSES.1.min(*poll_interval))).await;
            }
        }
    }
}

impl Reloader {
    /// Loads the view if it is newer than the model.
    async fn step(&self) -> Result<ReloadResult, DbError> {
        let current = self.read_model.current();
        // A model of a file may be that of another database, or of another version of this one.
        if let Some(model) = current.as_ref().filter(|_| !self.read_model.is_of_file())
            && view::last_refreshed(&self.db).await? == model.freshness.last_refreshed
        {
            return Ok(ReloadResult::Unchanged);
        }
        let started = Instant::now();
        let load = async { view::load(&self.db.session(view::LOAD_DOING).await?, self.tolerance).await };
        let model = load.instrument(step_span("load")).await?;
        tracing::info!(
            stocks = model.stocks(),
            version = model.version.to_str().unwrap_or_default(),
            data_date = model.freshness.data_date.map(tracing::field::display),
            milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "{} the treemap",
            if current.is_some() { "reloaded" } else { "loaded" },
        );
        let rows = model.freshness.future_rows;
        if rows > 0 && current.is_none_or(|current| current.freshness.future_rows != rows) {
            tracing::warn!(
                rows,
                "shorts has rows with a date in the future; the treemap leaves them out (see: treemap status)"
            );
        }
        self.read_model.publish(model);
        Ok(ReloadResult::Loaded)
    }
}
