//! `refresh_treemap_data()` and `treemap refresh`.

use std::time::Duration;

use crate::support::{cluster::output, database::Database, eventually, treemap::treemap};

#[test]
fn treemap_refresh_shows_the_view_before_and_after() {
    let database = Database::migrated();
    let sample = crate::support::files::sample();
    treemap(&database, &["load", "companies", &sample.companies()]).succeeds();
    treemap(&database, &["load", "shorts", &sample.reports()]).succeeds();
    let table = treemap(&database, &["refresh"]).succeeds().stdout();
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("rows").split_whitespace().nth(1) == Some("0"), "{table}");
    assert!(line("periods").contains("-  ") && line("periods").contains("3m 60"), "{table}");
    assert!(line("industries").ends_with("27"), "{table}");
    assert!(line("data date").contains("2023-12-29"), "{table}");
    assert!(line("last refreshed").contains("ago"), "{table}");
}

#[test]
fn treemap_refresh_fills_a_view_that_was_never_filled() {
    let database = Database::with_sample();
    database.psql("REFRESH MATERIALIZED VIEW mv_treemap_data WITH NO DATA");
    treemap(&database, &["status"]).exits(1).prints(&["never filled", "treemap refresh"]);
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(database.psql("SELECT count(*) > 0 FROM mv_treemap_data"), "t");
}

#[test]
fn the_log_records_who_refreshed_and_keeps_a_thousand_rows() {
    let database = Database::with_sample();
    database.psql(
        "INSERT INTO treemap_refreshes (id, started_at, finished_at, row_count, who) \
         SELECT number, now(), now(), 0, 'x' FROM generate_series(1, 1500) AS number",
    );
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(database.psql("SELECT count(*) FROM treemap_refreshes"), "1000");
    let newest = database.psql(
        "SELECT who, row_count = (SELECT count(*) FROM mv_treemap_data), data_date, tick IS NULL, \
         last_refreshed = (SELECT max(last_refreshed) FROM mv_treemap_data), finished_at >= started_at \
         FROM treemap_refreshes ORDER BY id DESC LIMIT 1",
    );
    assert_eq!(newest, "postgres treemap|t|2023-12-29|t|t|t");
}

#[test]
fn a_tick_is_refreshed_once_even_if_the_second_caller_is_late() {
    let database = Database::with_sample();
    let call = |tick: &str| database.psql(&format!("SELECT outcome FROM refresh_treemap_data({tick}, 'a replica')"));
    assert_eq!(call("'2026-01-02 03:00Z'"), "refreshed");
    assert_eq!(call("'2026-01-02 03:00Z'"), "already done");
    assert_eq!(call("'2026-01-01 03:00Z'"), "already done", "an earlier tick needs no refresh");
    assert_eq!(call("'2026-01-03 03:00Z'"), "refreshed");
    assert_eq!(call("NULL"), "refreshed", "a refresh by hand always runs");
    assert_eq!(database.psql("SELECT count(*) FROM treemap_refreshes WHERE tick IS NOT NULL"), "2");
}

#[test]
fn a_tick_that_is_far_in_the_future_is_refused() {
    let database = Database::with_sample();
    let call = database
        .psql_command()
        .args(["-c", "SELECT refresh_treemap_data(now() + interval '1 hour')"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&call.stderr).contains("lies in the future"));
    assert_eq!(database.psql("SELECT count(*) FROM treemap_refreshes WHERE tick IS NOT NULL"), "0");
}

#[tokio::test]
async fn a_refresh_by_hand_waits_for_the_running_one_and_includes_rows_loaded_meanwhile() {
    let database = Database::with_sample();
    let mut running = database.connect().await;
    let transaction = running.transaction().await.unwrap();
    transaction.batch_execute("SELECT refresh_treemap_data()").await.unwrap();
    database.add_companies(&[("NEWCOMER", "'Banks'")]);
    database.add_shorts(&[("2023-12-29", "NEWCOMER", "1")]);
    let name = database.name.clone();
    let second = {
        let mut psql = database.psql_command();
        tokio::task::spawn_blocking(move || output(psql.args(["-c", "SELECT refresh_treemap_data()"])))
    };
    let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'advisory'");
    eventually("the second refresh waits", async || (database.psql(&waiting) == "1").then_some(())).await;
    transaction.commit().await.unwrap();
    second.await.unwrap();
    assert_eq!(database.psql("SELECT count(*) FROM mv_treemap_data WHERE product_code = 'NEWCOMER'"), "6");
}

#[tokio::test]
async fn readers_do_not_wait_for_a_refresh() {
    let database = Database::with_sample();
    let mut refreshing = database.connect().await;
    let transaction = refreshing.transaction().await.unwrap();
    transaction.batch_execute("SELECT refresh_treemap_data()").await.unwrap();
    // The refresh has done its work and holds its locks until it commits.
    let read = database.psql("SET statement_timeout = '5s'; SELECT count(*) > 0 FROM mv_treemap_data");
    assert_eq!(read, "t");
    transaction.rollback().await.unwrap();
}

#[test]
fn the_error_for_a_missing_view_or_index_names_the_command_to_run() {
    let database = Database::with_sample();
    database.psql("DROP INDEX idx_mv_treemap_unique");
    treemap(&database, &["refresh"]).exits(1).prints(&["has no usable unique index", "treemap migrate"]);
    database.psql("DROP MATERIALIZED VIEW mv_treemap_data");
    treemap(&database, &["refresh"]).exits(1).prints(&["mv_treemap_data does not exist", "treemap migrate"]);
    treemap(&Database::empty(), &["refresh"]).exits(1).prints(&["refresh_treemap_data", "treemap migrate"]);
}

#[tokio::test]
async fn every_refresh_notifies_listening_sessions() {
    let database = Database::with_sample();
    let (client, mut connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    let (sender, mut payloads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                sender.send(notification.payload().to_owned()).unwrap();
            }
        }
    });
    client.batch_execute("LISTEN treemap_refreshed").await.unwrap();
    database.refresh();
    let id = tokio::time::timeout(Duration::from_secs(10), payloads.recv()).await.unwrap().unwrap();
    assert_eq!(id, database.psql("SELECT max(id) FROM treemap_refreshes"));
}
