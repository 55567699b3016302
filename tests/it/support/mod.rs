//! The test environment: a Postgres cluster, a database for each test, the real binary, a running server.

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
pub mod web;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// How long a test waits for an expected event before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` returns `Some`, and returns its value. Panics after `PATIENCE`.
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
