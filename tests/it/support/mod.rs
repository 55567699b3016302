//! What tests stand on: a Postgres of their own, a database each, the real binary, a running server.

pub mod cluster;
pub mod database;
pub mod docs;
pub mod files;
pub mod outage;
pub mod pooler;
pub mod proxy;
pub mod raw;
pub mod server;
pub mod treemap;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// How long a test waits for what must happen, before it calls it broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
