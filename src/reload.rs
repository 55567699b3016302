//! Keeps the read model equal to the view: loads it, and loads it again when the view was refreshed. A notification
//! only hastens the look; the poll finds every refresh, also one that was made by hand.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::{backoff::Backoff, error::DbError, read_model::ReadModel, store::Store, trouble::Trouble};

/// Loads the model, then waits for `changed` or for the next poll, for ever. A failed step keeps the old model, is told
/// once when the trouble begins and once when it ends, and is tried again, less and less often.
pub async fn keep_loaded(
    store: Store,
    read_model: Arc<ReadModel>,
    changed: Arc<Notify>,
    poll_interval: Duration,
    mut trouble: Trouble,
) {
    let mut backoff = Backoff::new(Duration::from_millis(250), poll_interval.min(Duration::from_secs(10)));
    loop {
        trouble.begin();
        match step(&store, &read_model).await {
            Ok(()) => {
                if let Some(ended) = trouble.over() {
                    tracing::info!(seconds = ended.seconds, "the database answers again");
                }
                backoff.reset();
                // A notification that came during the step is kept by `changed`: the last one is never lost.
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep(poll_interval) => {}
                }
            }
            Err(error) => {
                read_model.load_failed();
                if let Some(words) = trouble.met(&error).await {
                    let serving = if read_model.current().is_some() { "serving the last model" } else { "not ready" };
                    tracing::warn!("{serving}, and trying again: {words}");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Looks whether the view is another than the model's, and loads it then.
async fn step(store: &Store, read_model: &ReadModel) -> Result<(), DbError> {
    let current = read_model.current();
    if let Some(model) = &current
        && store.last_refreshed().await? == model.freshness.last_refreshed
    {
        return Ok(());
    }
    let started = Instant::now();
    let model = store.load().await?;
    tracing::info!(
        stocks = model.stocks,
        version = %String::from_utf8_lossy(&model.version),
        data_date = model.freshness.data_date.map(tracing::field::display),
        milliseconds = started.elapsed().as_millis(),
        "{} the treemap",
        if current.is_some() { "reloaded" } else { "loaded" },
    );
    read_model.publish(model);
    Ok(())
}
