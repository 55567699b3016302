//! How a refreshed view reaches the answers.

use std::time::{Duration, Instant};

use crate::support::{
    database::Database,
    eventually,
    server::{Client, Server, get},
};

async fn version(client: &mut Client) -> String {
    let answer = get(client, "3m", 1, 0).await.unwrap();
    answer.metadata().get("treemap-version").unwrap().to_str().unwrap().to_owned()
}

async fn refreshed_at(client: &mut Client) -> String {
    let answer = get(client, "3m", 1, 0).await.unwrap();
    answer.metadata().get("treemap-last-refreshed").unwrap().to_str().unwrap().to_owned()
}

/// A server that listens and does not poll during the test, and a client of it.
async fn listening(database: &Database) -> (Server, Client) {
    let server = Server::start_with(&database.url(), &["--poll-interval", "1h"]).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    let client = server.client().await;
    (server, client)
}

/// Waits until the server serves another refresh than that of `before`.
async fn wait_for_reload(client: &Client, before: &str) {
    eventually("the server reloads", async || (refreshed_at(&mut client.clone()).await != before).then_some(())).await;
}

#[tokio::test]
async fn a_notification_reloads_the_model_long_before_the_next_poll() {
    let database = Database::with_sample();
    let (_server, mut client) = listening(&database).await;
    let before = refreshed_at(&mut client).await;
    database.add_companies(&[("TOP", "'Banks'")]);
    database.add_shorts(&[("2023-12-29", "TOP", "99")]);
    database.refresh();
    wait_for_reload(&client, &before).await;
    let answer = get(&mut client, "3m", 1, 0).await.unwrap().into_inner();
    assert!(answer.stocks.iter().any(|stock| stock.product_code == "TOP"));
}

#[tokio::test]
async fn a_refresh_without_a_notification_is_found_by_polling() {
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), &["--poll-interval", "200ms"]).await;
    server.wait_until_ready().await;
    let mut client = server.client().await;
    let before = refreshed_at(&mut client).await;
    database.psql("REFRESH MATERIALIZED VIEW mv_treemap_data");
    wait_for_reload(&client, &before).await;
    assert_eq!(get(&mut client, "3m", 1, 0).await.unwrap().metadata().get("treemap-data-date").unwrap(), "2023-12-29");
}

#[tokio::test]
async fn the_version_changes_exactly_when_the_content_does() {
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), &["--poll-interval", "200ms"]).await;
    server.wait_until_ready().await;
    let mut client = server.client().await;
    let first = version(&mut client).await;
    let bytes = get(&mut client, "max", 500, 1).await.unwrap().into_inner();

    let before = refreshed_at(&mut client).await;
    database.refresh();
    wait_for_reload(&client, &before).await;
    assert_eq!(version(&mut client).await, first, "the same rows");
    assert_eq!(get(&mut client, "max", 500, 1).await.unwrap().into_inner(), bytes);
    let other = Server::ready(&database).await;
    assert_eq!(version(&mut other.client().await).await, first, "the same on every replica");

    let before = refreshed_at(&mut client).await;
    database.psql(
        r#"UPDATE shorts SET "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" = 77
        WHERE "DATE" = '2023-12-29' AND "PRODUCT_CODE" = 'AAA'"#,
    );
    database.refresh();
    wait_for_reload(&client, &before).await;
    let second = version(&mut client).await;
    assert_ne!(second, first);

    let before = refreshed_at(&mut client).await;
    database.add_shorts(&[("2024-01-02", "ZZZZ", "1")]);
    database.refresh();
    wait_for_reload(&client, &before).await;
    assert_ne!(version(&mut client).await, second, "the same rows, but as of another day");
}

#[tokio::test]
async fn every_answer_comes_from_one_model() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    server.wait_for_log("listening for refreshes").await;
    let client = server.client().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                let mut seen = std::collections::BTreeMap::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = get(&mut client, "1y", 500, 0).await.unwrap();
                    let version = answer.metadata().get("treemap-version").unwrap().to_str().unwrap().to_owned();
                    let stocks = answer.into_inner().stocks;
                    let first = stocks[0].short_position;
                    if first >= 1000.0 {
                        assert!(
                            stocks.iter().all(|stock| stock.short_position.to_bits() == first.to_bits()),
                            "two models are mixed"
                        );
                        // The same version always has the same content.
                        assert_eq!(seen.entry(version).or_insert(first).to_bits(), first.to_bits());
                    }
                }
                seen.len()
            })
        })
        .collect();
    for value in 1000..1010 {
        // All stocks have the same value, which changes with each refresh.
        database.psql(&format!(
            r#"UPDATE shorts SET "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" = {value} WHERE "DATE" > '2023-11-01'"#
        ));
        let before = refreshed_at(&mut client.clone()).await;
        database.refresh();
        wait_for_reload(&client, &before).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() >= 5, "the reader saw the models change");
    }
}

#[tokio::test]
async fn a_loaded_model_is_served_even_after_the_view_is_dropped() {
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), &["--poll-interval", "100ms"]).await;
    server.wait_until_ready().await;
    let mut client = server.client().await;
    let before = get(&mut client, "3m", 10, 0).await.unwrap().into_inner();
    database.psql("DROP MATERIALIZED VIEW mv_treemap_data");
    let why = server.wait_for_log("serving the last model; retrying: ").await;
    assert!(why.contains("treemap migrate"), "{why}");
    assert_eq!(get(&mut client, "3m", 10, 0).await.unwrap().into_inner(), before);
    assert_eq!(server.health("").await, Ok("SERVING"));
}

#[tokio::test]
async fn a_burst_of_notifications_causes_one_reload_per_refresh() {
    let database = Database::with_sample();
    let (server, mut client) = listening(&database).await;
    for _ in 0..5 {
        let before = refreshed_at(&mut client).await;
        database.psql("SELECT pg_notify('treemap_refreshed', n::text) FROM generate_series(1, 2000) AS n");
        database.refresh();
        wait_for_reload(&client, &before).await;
    }
    // A thread of its own writes the log.
    let loads = || server.log().matches("loaded the treemap").count();
    eventually("the last load is logged", async || (loads() >= 6).then_some(())).await;
    assert_eq!(loads(), 6, "one at the start, one for each refresh");
}

#[tokio::test]
async fn a_listener_that_lost_its_connection_reconnects_and_loads_the_missed_refresh() {
    let database = Database::with_sample();
    let (server, mut client) = listening(&database).await;
    let before = refreshed_at(&mut client).await;
    // Both in one transaction: the refresh is committed while no session listens.
    database.psql(
        "BEGIN; SELECT refresh_treemap_data(); SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid(); COMMIT",
    );
    wait_for_reload(&client, &before).await;
    eventually("the server listens again", async || {
        (server.log().matches("listening for refreshes").count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_holds_at_most_three_connections() {
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), &["--poll-interval", "20ms"]).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    let client = server.client().await;
    let sql = database.connect().await;
    let mut most = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let _ = get(&mut client.clone(), "3m", 500, 1).await.unwrap();
        database.refresh();
        let held: i64 = sql
            .query_one("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'treemap'", &[])
            .await
            .unwrap()
            .get(0);
        most = most.max(held);
    }
    assert!((2..=3).contains(&most), "{most} connections");
}

#[tokio::test]
async fn a_load_reads_the_view_a_few_times_whatever_the_planner_of_the_database_prefers() {
    let database = Database::with_sample();
    // As on hosts with fast disks, and more so: plans by index, of nested loops.
    for setting in ["random_page_cost = 1.1", "enable_sort = off", "enable_bitmapscan = off", "enable_hashjoin = off"] {
        database.psql(&format!("ALTER DATABASE {} SET {setting}", database.name));
    }
    database.psql("VACUUM ANALYZE mv_treemap_data");
    let rows: f64 = database.psql("SELECT count(*) FROM mv_treemap_data").trim().parse().unwrap();
    let read = || -> f64 {
        let statement = "SELECT pg_stat_clear_snapshot(), coalesce(sum(seq_tup_read), 0) + coalesce(sum(idx_tup_fetch), 0) \
            FROM pg_stat_user_tables WHERE relname = 'mv_treemap_data'";
        database.psql(statement).trim().trim_start_matches('|').parse().unwrap()
    };
    let before = eventually("the reads so far are counted", async || {
        let first = read();
        tokio::time::sleep(Duration::from_millis(200)).await;
        (read() == first).then_some(first)
    })
    .await;
    let server = Server::start_with(&database.url(), &["--poll-interval", "1h"]).await;
    server.wait_until_ready().await;
    // Its connections count what they have read when they end.
    drop(server);
    let load =
        eventually("the reads of the load are counted", async || Some(read() - before).filter(|read| *read > 0.0))
            .await;
    // Two rankings and one count by all rows, and a few looks at single ones.
    assert!(load < 5.0 * rows, "{load} reads of {rows} rows");
}
