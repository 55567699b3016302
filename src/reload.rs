//! Keeps the read model equal to the view: loads it, and loads it again when the view was refreshed. A notification
//! only hastens the look; the poll finds every refresh, also one that was made by hand.

pub mod listen;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tracing::Instrument;

use crate::{
    metrics::Metrics,
    postgres::error::DbError,
    retry::{Trouble, backoff::Backoff},
    telemetry::step_span,
    treemap::model::ReadModel,
    view::Store,
};

/// What it takes to keep the read model loaded.
#[derive(Debug)]
pub struct Reloading {
    /// Where the view is read.
    pub store: Store,
    /// What is kept equal to it.
    pub read_model: Arc<ReadModel>,
    /// Notified when the view may have changed.
    pub changed: Arc<Notify>,
    /// The time between two looks without a notification.
    pub poll_interval: Duration,
    /// Where looks are counted.
    pub metrics: Arc<Metrics>,
}

/// Loads the model, then waits for `changed` or for the next poll, for ever. A failed step keeps the old model, is told
/// once when the trouble begins and once when it ends, and is tried again, less and less often.
pub async fn keep_loaded(reloading: Reloading, mut trouble: Trouble) {
    let Reloading { read_model, changed, poll_interval, metrics, .. } = &reloading;
    let mut backoff = Backoff::new(Duration::from_millis(250), (*poll_interval).min(Duration::from_secs(10)));
    loop {
        trouble.begin();
        match reloading.step().await {
            Ok(result) => {
                metrics.reload(result);
                if let Some(ended) = trouble.over() {
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
                metrics.reload("failed");
                read_model.load_failed(&error);
                if let Some(words) = trouble.met(&error).await {
                    let serving = if read_model.current().is_some() { "serving the last model" } else { "not ready" };
                    tracing::warn!("{serving}, and trying again: {words}");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

impl Reloading {
    /// Looks whether the view is another than the model's, and loads it then; says which.
    async fn step(&self) -> Result<&'static str, DbError> {
        let current = self.read_model.current();
        if let Some(model) = &current
            && self.store.last_refreshed().await? == model.freshness.last_refreshed
        {
            return Ok("unchanged");
        }
        let started = Instant::now();
        let model = self.store.load().instrument(step_span("load")).await?;
        tracing::info!(
            stocks = model.stocks,
            version = model.version.to_str().unwrap_or_default(),
            data_date = model.freshness.data_date.map(tracing::field::display),
            milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "{} the treemap",
            if current.is_some() { "reloaded" } else { "loaded" },
        );
        self.read_model.publish(model);
        Ok("loaded")
    }
}
