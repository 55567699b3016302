//! Failover from a primary to a standby, with real streaming replication.

use crate::support::{
    cluster::OwnCluster,
    database::Database,
    eventually,
    outage::{Calls, refresh_and_wait},
    server::Server,
    treemap,
};

/// Waits until the standby has all refreshes of the primary.
async fn wait_until_caught_up(primary: &OwnCluster, standby: &OwnCluster, database: &Database) {
    let refreshes = "SELECT count(*), max(id) FROM treemap_refreshes";
    eventually("the standby has caught up", async || {
        let here = primary.psql(&database.name, refreshes);
        (standby.psql_command(&database.name).args(["-c", refreshes]).output().unwrap().stdout == here.as_bytes())
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_fails_no_call_and_the_new_primary_is_refreshed_once_per_tick() {
    let primary = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&primary);
    let standby = primary.standby();
    let both = format!("127.0.0.1:{},127.0.0.1:{}", standby.port, primary.port);
    let url = database.url().replace(&format!("127.0.0.1:{}", primary.port), &both);
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    // Two replicas: either of them may refresh, before and after the failover.
    let server = Server::refreshing(&url, &schedule).await;
    let _other = Server::refreshing(&url, &schedule).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    let ticks = |cluster: &OwnCluster| -> u32 {
        let count = cluster.psql(&database.name, "SELECT count(*) FROM treemap_refreshes WHERE tick IS NOT NULL");
        count.trim().parse().unwrap()
    };
    eventually("the primary is refreshed", async || (ticks(&primary) >= 3).then_some(())).await;
    wait_until_caught_up(&primary, &standby, &database).await;

    let calls = Calls::start(&server.client().await);
    primary.kill();
    let begun = std::time::Instant::now();
    let why = server.wait_for_log("cannot keep the view fresh; retrying: ").await;
    let noticed = begun.elapsed().as_secs_f64();
    assert!(why.contains("Connection refused") || why.contains("does not allow writes"), "{why}");
    let before = ticks(&standby);
    standby.promote();
    let promoted = std::time::Instant::now();
    eventually("the new primary is refreshed", async || (ticks(&standby) > before + 2).then_some(())).await;
    let recovered = promoted.elapsed().as_secs_f64();
    eventually("the server logs it", async || server.log().contains("refreshes work again").then_some(())).await;
    let refresh = || drop(standby.psql(&database.name, "SELECT refresh_treemap_data()"));
    refresh_and_wait(&server, refresh).await;
    let made = calls.assert_none_failed().await;
    let twice = "SELECT count(*) - count(DISTINCT tick) FROM treemap_refreshes WHERE tick IS NOT NULL";
    assert_eq!(standby.psql(&database.name, twice).trim(), "0");
    println!("| the primary killed, the standby promoted | {noticed:.1} | 0 of {made} | {recovered:.1} |");
}

#[tokio::test]
async fn a_server_on_a_standby_polls_and_a_refresh_there_fails_with_the_reason() {
    let primary = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&primary);
    let standby = primary.standby();
    let url = standby.url(&database.name);
    let server = Server::start_with(&url, &["--poll-interval", "200ms"]).await;
    server.wait_until_ready().await;
    let why = server.wait_for_log("LISTEN does not work; polling for refreshes: ").await;
    assert!(why.contains("database does not allow writes") && why.contains("This is a standby"), "{why}");
    refresh_and_wait(&server, || database.refresh()).await;
    wait_until_caught_up(&primary, &standby, &database).await;
    treemap::run(treemap::command(&["refresh"]).env("DATABASE_URL", &url)).exits(1).prints(&["This is a standby"]);
    treemap::run(treemap::command(&["status", "--max-data-age", "36500d"]).env("DATABASE_URL", &url)).succeeds();
    assert_eq!(server.log().matches(" WARN ").count(), 1, "{}", server.log());
}
