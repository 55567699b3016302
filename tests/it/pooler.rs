//! The service behind PgBouncer in transaction mode.

use std::time::Duration;

use crate::support::{
    cluster::cluster,
    database::Database,
    eventually,
    files::sample,
    pooler::Pooler,
    server::{Server, get, stocks},
    treemap::{command, run},
};

#[tokio::test]
async fn a_listen_connection_that_delivers_nothing_is_logged_once_and_the_server_polls() {
    let database = Database::with_sample();
    let pooler = Pooler::start(cluster().port);
    let server = Server::start_with(&pooler.url(&database), &["--poll-interval", "200ms"]).await;
    server.wait_until_ready().await;
    let why = server.wait_for_log("LISTEN does not work; polling for refreshes: ").await;
    assert!(why.contains("delivers nothing") && why.contains("LISTEN_DATABASE_URL"), "{why}");
    for _ in 0..3 {
        let mut client = server.client().await;
        let before = get(&mut client, "3m", 1, 0).await.unwrap().metadata().get("treemap-last-refreshed").cloned();
        database.refresh();
        eventually("the poll finds the refresh", async || {
            let answer = get(&mut client.clone(), "3m", 1, 0).await.unwrap();
            (answer.metadata().get("treemap-last-refreshed") != before.as_ref()).then_some(())
        })
        .await;
    }
    assert_eq!(server.log().matches("LISTEN does not work").count(), 1, "{}", server.log());
    assert!(!server.log().contains("listening for refreshes"), "{}", server.log());
    assert!(!server.log().contains("retrying"), "{}", server.log());
}

#[tokio::test]
async fn with_a_direct_connection_for_listen_a_refresh_is_served_at_once() {
    let database = Database::with_sample();
    let pooler = Pooler::start(cluster().port);
    let arguments = ["--poll-interval", "1h", "--listen-database-url", &database.url()];
    let server = Server::start_with(&pooler.url(&database), &arguments).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    database.add_companies(&[("TOP", "'Banks'")]);
    database.add_shorts(&[("2023-12-29", "TOP", "99")]);
    database.refresh();
    let client = server.client().await;
    eventually("the new stock is served", async || {
        stocks(&mut client.clone(), "3m", 1, 0).await.iter().any(|stock| stock.1 == "TOP").then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_command_works_repeatedly_through_the_pooler() {
    let database = Database::empty();
    let pooler = Pooler::start(cluster().port);
    let through = |arguments: &[&str]| run(command(arguments).env("DATABASE_URL", pooler.url(&database)));
    for _ in 0..3 {
        through(&["migrate"]).succeeds();
        through(&["load", "companies", &sample().companies()]).succeeds();
        through(&["load", "shorts", &sample().reports()]).succeeds();
        through(&["refresh"]).succeeds();
        through(&["status", "--max-data-age", "36500d"]).succeeds();
    }
    through(&["migrate", "--down"]).succeeds();
    assert_eq!(
        database
            .psql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"),
        "0"
    );
    // Only the loader has to prepare a statement. It must leave none on the connections of the pooler.
    let left = pooler.psql(&database, "SELECT count(*) FROM pg_prepared_statements");
    assert_eq!(left.trim(), "0");
    let lock = pooler.psql(&database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");
    assert_eq!(lock.trim(), "0");
    tokio::time::timeout(Duration::from_secs(5), database.connect()).await.unwrap();
}
