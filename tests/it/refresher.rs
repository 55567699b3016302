//! The background refresh: when it runs, how often with many replicas, and what it logs when it fails.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    cluster::output,
    database::Database,
    eventually,
    files::sample,
    server::{Server, get},
    treemap::{command, treemap},
};

const SOURCES: [&str; 6] = ["--refresh-schedule", "off", "--source-interval", "200ms", "--source-quiet", "500ms"];

impl Database {
    /// Makes each refresh take longer, while it holds all its locks.
    pub fn slow_down_refreshes(&self, seconds: u32) {
        self.psql(&format!(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END';
             CREATE TRIGGER slow BEFORE INSERT ON treemap_refreshes FOR EACH ROW EXECUTE FUNCTION slow()"
        ));
    }

    pub fn count(&self, of: &str) -> usize {
        self.psql(&format!("SELECT count(*) FROM {of}")).parse().unwrap()
    }

    async fn wait_for_refresh(&self, more_than: usize) {
        eventually("the view is refreshed", async || (self.count("treemap_refreshes") > more_than).then_some(())).await;
    }
}

#[tokio::test]
async fn five_replicas_with_skewed_clocks_refresh_once_per_tick() {
    let database = Database::with_sample();
    let schedule = ["--refresh-schedule", "*/2 * * * * *", "--source-interval", "off"];
    let mut replicas = Vec::new();
    // The fastest clock starts first: it refreshes for its ticks early, and no earlier tick is due on the others.
    for skew in ["+4s", "+1.5s", "+0s", "-1s", "-3s"] {
        replicas.push(Server::with_clock(skew, &[], &database.url(), &schedule).await);
    }
    let ticks = "treemap_refreshes WHERE tick IS NOT NULL";
    let started = Instant::now();
    eventually("ten ticks", async || (database.count(ticks) >= 10).then_some(())).await;
    assert!(started.elapsed() > Duration::from_secs(10), "ten ticks take some twenty seconds");
    drop(replicas);
    let gaps = database.psql(
        "SELECT count(*), count(DISTINCT tick), extract(epoch FROM max(tick) - min(tick)) / 2 + 1 \
         FROM treemap_refreshes WHERE tick IS NOT NULL",
    );
    let numbers: Vec<f64> = gaps.split('|').map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers[0].to_bits(), numbers[1].to_bits(), "no tick twice: {gaps}");
    // One tick may be lost if this machine pauses for longer than the time between two ticks.
    assert!(numbers[2] - numbers[0] <= 1.0, "one refresh for each tick: {gaps}");
}

#[tokio::test]
async fn when_a_replica_is_killed_during_a_refresh_another_replica_refreshes() {
    let database = Database::with_sample();
    database.slow_down_refreshes(2);
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    let first = Server::refreshing(&database.url(), &schedule).await;
    let waits = |event: &str| {
        database.psql(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = '{event}'"
        )) == "1"
    };
    eventually("the first is refreshing", async || waits("PgSleep").then_some(())).await;
    let second = Server::refreshing(&database.url(), &schedule).await;
    eventually("the second waits for it", async || waits("advisory").then_some(())).await;
    let done_by =
        |server: &Server| database.count(&format!("treemap_refreshes WHERE who LIKE '%process {}'", server.id()));
    let before = done_by(&first);
    first.signal("KILL");
    eventually("the second has refreshed", async || (done_by(&second) > 0).then_some(())).await;
    assert_eq!(done_by(&first), before, "what was not committed is not in the log");
}

#[tokio::test]
async fn a_missed_tick_is_refreshed_once_at_the_next_start() {
    let database = Database::with_sample();
    database.refresh();
    // A daily tick, one second from now. It passes while no server runs.
    let pattern =
        database.psql("SELECT to_char((now() + interval '1 second') AT TIME ZONE 'UTC', 'FMSS FMMI FMHH24 * * *')");
    let passed = "SELECT clock_timestamp() > started_at + interval '2.1 seconds' FROM treemap_refreshes ORDER BY id DESC LIMIT 1";
    eventually("the tick passes", async || (database.psql(passed) == "t").then_some(())).await;
    let arguments = ["--refresh-schedule", &pattern, "--refresh-timezone", "UTC", "--source-interval", "off"];
    let before = database.count("treemap_refreshes");
    let server = Server::refreshing(&database.url(), &arguments).await;
    server.wait_for_log("refreshed the view for the tick of").await;
    assert_eq!(database.count("treemap_refreshes"), before + 1);
    let again = Server::refreshing(&database.url(), &[&arguments[..], &["--log", "debug"]].concat()).await;
    again.wait_until_ready().await;
    // When the server is ready, it has already checked whether a refresh is due.
    assert_eq!(database.count("treemap_refreshes"), before + 1);
    assert!(!again.log().contains("refreshed the view"), "{}", again.log());
}

#[tokio::test]
async fn every_kind_of_change_of_the_source_leads_to_a_refresh() {
    let database = Database::with_sample();
    let server = Server::refreshing(&database.url(), &SOURCES).await;
    server.wait_until_ready().await;
    let percent = r#""PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS""#;
    let view = "SELECT md5(string_agg(v.product_code || v.industry || v.current_short_position, ',' \
        ORDER BY v.period_name, v.product_code)) FROM mv_treemap_data v";
    for change in [
        "INSERT INTO shorts VALUES ('2023-12-30', 'AAA', 'AAA', 1, 100, 55)".to_owned(),
        format!(r#"UPDATE shorts SET {percent} = 66 WHERE "DATE" = '2023-12-29' AND "PRODUCT_CODE" = 'AAB'"#),
        r#"DELETE FROM shorts WHERE "PRODUCT_CODE" = 'AAC'"#.to_owned(),
        r#"UPDATE "company-metadata" SET industry = 'Elsewhere' WHERE stock_code = 'AAD'"#.to_owned(),
        r#"CREATE TABLE kept AS SELECT * FROM shorts WHERE "PRODUCT_CODE" <> 'AAE'; TRUNCATE shorts; INSERT INTO shorts TABLE kept"#
            .to_owned(),
        format!(r#"SELECT pg_stat_reset(); UPDATE shorts SET {percent} = 77 WHERE "DATE" = '2023-12-29' AND "PRODUCT_CODE" = 'AAF'"#),
        "TRUNCATE shorts".to_owned(),
    ] {
        let before = database.psql(view);
        database.psql(&change);
        eventually(&change, async || (database.psql(view) != before).then_some(())).await;
    }
    server.wait_for_log("refreshed the view because its source has changed").await;
}

#[tokio::test]
async fn the_view_includes_the_committed_rows_of_a_loader_that_was_killed() {
    let database = Database::migrated();
    treemap(&database, &["load", "companies", &sample().companies()]).succeeds();
    let server = Server::refreshing(&database.url(), &SOURCES).await;
    let mut loader = command(&["load", "shorts", &sample().reports()]);
    let mut loader =
        loader.env("DATABASE_URL", database.url()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("rows are committed", async || (database.count("shorts") > 0).then_some(())).await;
    loader.kill().unwrap();
    loader.wait().unwrap();
    let fresh = r#"SELECT (SELECT max("DATE") FROM shorts) = (SELECT max(latest_date) FROM mv_treemap_data)"#;
    eventually("the view is fresh", async || (database.psql(fresh) == "t").then_some(())).await;
    drop(server);
}

#[tokio::test]
async fn a_source_that_keeps_changing_is_refreshed_after_the_longest_wait() {
    let database = Database::with_sample();
    let patient = ["--refresh-schedule", "off", "--source-interval", "200ms", "--source-quiet", "1h"];
    let before = database.count("treemap_refreshes");
    let server = Server::refreshing(&database.url(), &[&patient[..], &["--source-longest-wait", "2s"]].concat()).await;
    let started = Instant::now();
    for day in 1.. {
        database.psql(&format!("INSERT INTO shorts VALUES (date '2024-01-01' + {day}, 'AAA', 'AAA', 1, 100, 1)"));
        if database.count("treemap_refreshes") > before {
            break;
        }
        assert!(started.elapsed() < crate::support::PATIENCE, "never refreshed");
    }
    assert!(started.elapsed() >= Duration::from_secs(2), "it did not wait for the longest wait");
    drop(server);
}

#[tokio::test]
async fn many_replicas_refresh_once_for_the_same_change() {
    let database = Database::with_sample();
    let mut replicas = Vec::new();
    for _ in 0..4 {
        replicas.push(Server::refreshing(&database.url(), &[&SOURCES[..], &["--log", "debug"]].concat()).await);
    }
    let before = database.count("treemap_refreshes");
    database.psql("INSERT INTO shorts VALUES ('2023-12-30', 'AAA', 'AAA', 1, 100, 55)");
    database.wait_for_refresh(before).await;
    // By then each replica has refreshed, or has seen that another replica did.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(database.count("treemap_refreshes"), before + 1);
}

#[tokio::test]
async fn no_call_waits_for_a_refresh() {
    let database = Database::with_sample();
    database.slow_down_refreshes(3);
    let server = Server::ready(&database).await;
    server.wait_for_log("listening for refreshes").await;
    let refresh = {
        let mut psql = database.psql_command();
        std::thread::spawn(move || psql.args(["-c", "SELECT refresh_treemap_data()"]).status().unwrap())
    };
    let client = server.client().await;
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while !refresh.is_finished() {
        let sent = Instant::now();
        let mut client = client.clone();
        get(&mut client, "3m", 10, 0).await.unwrap();
        slowest = slowest.max(sent.elapsed());
        calls += 1;
    }
    assert!(refresh.join().unwrap().success());
    // Other tests on the same two cores cause delays. A call that waited for the refresh would take three seconds.
    assert!(slowest < Duration::from_millis(1500), "the slowest of {calls} calls took {slowest:?}");
}

#[tokio::test]
async fn a_lock_on_the_view_delays_the_refresh_but_no_call() {
    let database = Database::with_sample();
    let holder = database.connect().await;
    let server = Server::refreshing(&database.url(), &SOURCES).await;
    server.wait_until_ready().await;
    holder.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW mv_treemap_data").await.unwrap();
    let before = database.count("treemap_refreshes");
    database.psql("INSERT INTO shorts VALUES ('2023-12-30', 'AAA', 'AAA', 1, 100, 55)");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'relation' \
        AND query LIKE '%mv_treemap_data%'";
    eventually("the refresh waits", async || (database.psql(waiting) != "0").then_some(())).await;
    get(&mut server.client().await, "3m", 10, 0).await.unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    database.wait_for_refresh(before).await;
}

#[tokio::test]
async fn each_failure_is_logged_once_with_its_cause_and_its_remedy_and_refreshes_continue() {
    // The function fails with each SQLSTATE in turn.
    let failures = [
        ("42501", "Use the role that owns"),
        ("25006", "DATABASE_URL has to name the primary"),
        ("53100", "Free space on the database server"),
        ("21000", "look at the data that was loaded last"),
        ("55P03", "Another session holds a lock"),
        ("57014", "Postgres is overloaded"),
        ("40P01", "Try again"),
        ("42P01", "treemap migrate"),
        ("57P01", "Is Postgres running"),
        ("42703", "treemap migrate --check"),
        ("28000", "set sslmode=verify-full"),
        // Not from the view, but perhaps from the refresh log, which does not depend on the loaded data.
        ("23505", "SQLSTATE 23505"),
    ];
    let database = Database::with_sample();
    let real = database.psql("SELECT pg_get_functiondef('refresh_treemap_data'::regproc)");
    for (state, words) in failures {
        database.psql(&format!(
            "CREATE OR REPLACE FUNCTION refresh_treemap_data(p_tick timestamptz DEFAULT NULL, p_who text DEFAULT NULL, \
                p_if_source_changed boolean DEFAULT false, OUT outcome text, OUT row_count bigint, OUT data_date date, \
                OUT seconds double precision) LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{state}'; END $$"
        ));
        let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
        let server = Server::refreshing(&database.url(), &schedule).await;
        let why = server.wait_for_log("cannot keep the view fresh; retrying: ").await;
        assert!(why.contains(&format!("SQLSTATE {state}")) && why.contains(words), "{why}");
        assert_eq!(why.contains("look at the data"), state == "21000", "{why}");
        let before = database.count("treemap_refreshes");
        database.psql(&real);
        database.wait_for_refresh(before).await;
        server.wait_for_log("refreshes work again").await;
        assert_eq!(server.log().matches("cannot keep the view fresh").count(), 1, "{}", server.log());
    }
}

#[tokio::test]
async fn a_long_refresh_does_not_block_the_listener() {
    let database = Database::with_sample();
    // Longer than other tasks wait for a connection.
    database.slow_down_refreshes(12);
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    let server = Server::refreshing(&database.url(), &schedule).await;
    server.wait_for_log("listening for refreshes").await;
    server.wait_for_log("refreshed the view for the tick").await;
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());
}

#[tokio::test]
async fn another_default_isolation_level_causes_no_error_and_loses_no_tick() {
    let database = Database::with_sample();
    database.psql(&format!("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'", database.name));
    database.slow_down_refreshes(1);
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    let servers =
        [Server::refreshing(&database.url(), &schedule).await, Server::refreshing(&database.url(), &schedule).await];
    database.wait_for_refresh(8).await;
    for server in servers {
        assert!(!server.log().contains(" ERROR "), "{}", server.log());
    }
}

#[test]
fn a_call_in_sql_at_another_isolation_level_succeeds_or_fails_with_a_clear_message() {
    let database = Database::with_sample();
    database.psql(&format!("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'", database.name));
    database.slow_down_refreshes(2);
    let running = |call: &'static str| {
        let mut psql = database.psql_command();
        let running = std::thread::spawn(move || psql.args(["-c", call]).output().unwrap());
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while database.psql(waits) == "0" {}
        running
    };
    let fails = |call: &str| {
        let failed = database.psql_command().args(["-c", call]).output().unwrap();
        assert!(!failed.status.success());
        String::from_utf8(failed.stderr).unwrap()
    };
    let tick = "SELECT outcome FROM refresh_treemap_data(date_trunc('day', now()))";
    let first = running(tick);
    assert_eq!(database.psql(tick), "already done");
    assert!(first.join().unwrap().status.success(), "without another refresh to wait for, it succeeds");
    let first = running("SELECT refresh_treemap_data()");
    let why = fails("SELECT refresh_treemap_data()");
    assert!(why.contains("has the isolation level REPEATABLE READ") && why.contains("READ COMMITTED"), "{why}");
    first.join().unwrap();
    let client = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1";
    let mut psql = database.psql_command();
    let ran = psql.args(["-c", client, "-c", "SELECT refresh_treemap_data()"]).output().unwrap();
    let why = String::from_utf8(ran.stderr).unwrap();
    assert!(why.contains("has the isolation level SERIALIZABLE"), "{why}");
}

#[test]
fn the_log_keeps_a_thousand_rows_even_if_many_finished_at_once() {
    let database = Database::with_sample();
    database.psql(
        "INSERT INTO treemap_refreshes (id, started_at, finished_at, row_count, who)
         SELECT 1000 * number, now() - interval '1 day', now() - interval '1 day', 0, 'before' FROM generate_series(1, 1500) AS number",
    );
    database.refresh();
    assert_eq!(database.count("treemap_refreshes"), 1000);
    assert_ne!(database.psql("SELECT who FROM treemap_refreshes ORDER BY finished_at DESC LIMIT 1"), "before");
}

#[tokio::test]
async fn a_replica_whose_clock_is_a_day_ahead_is_refused_its_ticks_and_notices_changes_of_the_source() {
    let database = Database::with_sample();
    let arguments = ["--refresh-schedule", "* * * * * *", "--source-interval", "100ms", "--source-quiet", "100ms"];
    let server = Server::with_clock("+1d", &[], &database.url(), &arguments).await;
    server.wait_for_log("lies in the future").await;
    database.psql(
        "UPDATE shorts SET \"PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS\" = 42 \
         WHERE \"DATE\" = '2023-12-29' AND \"PRODUCT_CODE\" = 'AAB'",
    );
    let changed = "mv_treemap_data WHERE current_short_position = 42";
    eventually("the change is in the view", async || (database.count(changed) > 0).then_some(())).await;
    server.wait_for_log("refreshed the view because its source has changed").await;
    assert_eq!(database.count("treemap_refreshes WHERE tick IS NOT NULL"), 0);
}

#[tokio::test]
async fn when_a_background_task_panics_the_server_logs_its_name_and_drains() {
    let database = Database::with_sample();
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let arguments = ["--refresh-schedule", "* * * * * *", "--source-interval", "off", "--drain-delay", "1s"];
    let file = [("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()), ("FAKETIME_NO_CACHE", "1")];
    let mut server = Server::with_clock("+0", &file, &database.url(), &arguments).await;
    server.wait_until_ready().await;
    // The date library cannot represent the year 10026: the task that reads the schedule panics.
    std::fs::write(&clock, "+8000y").unwrap();
    let why = server.wait_for_log("the background task ").await;
    assert!(why.contains("refresh panicked; stopping, for a restart"), "{why}");
    assert_eq!(server.wait_for_exit().await.code(), Some(1));
    server.wait_for_log("INFO stopped").await;
}

#[tokio::test]
async fn a_missing_index_or_view_is_logged_and_refreshes_work_again_after_migrating() {
    let database = Database::with_sample();
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    let server = Server::refreshing(&database.url(), &schedule).await;
    server.wait_until_ready().await;
    for (harm, words) in [
        ("DROP INDEX idx_mv_treemap_unique", "has no usable unique index"),
        ("DROP MATERIALIZED VIEW mv_treemap_data", "public.mv_treemap_data does not exist"),
    ] {
        database.psql(harm);
        let why = server.wait_for_log(words).await;
        assert!(why.contains("treemap migrate"), "{why}");
        get(&mut server.client().await, "3m", 10, 0).await.unwrap();
        treemap(&database, &["migrate"]).succeeds();
        let before = database.count("treemap_refreshes WHERE tick IS NOT NULL");
        eventually("the server refreshes again", async || {
            (database.count("treemap_refreshes WHERE tick IS NOT NULL") > before).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_view_that_was_restored_without_rows_is_filled_at_the_start() {
    let database = Database::with_sample();
    database.psql("REFRESH MATERIALIZED VIEW mv_treemap_data WITH NO DATA");
    let schedule = ["--refresh-schedule", "0 3 * * *", "--source-interval", "off"];
    let server = Server::refreshing(&database.url(), &schedule).await;
    server.wait_until_ready().await;
    assert!(database.count("mv_treemap_data") > 0);
    // The same while it runs, at the next look.
    database.psql("REFRESH MATERIALIZED VIEW mv_treemap_data WITH NO DATA");
    let filled = "SELECT relispopulated FROM pg_class WHERE relname = 'mv_treemap_data'";
    let begun = Instant::now();
    while database.psql(filled) != "t" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is never filled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn two_hundred_refreshes_do_not_bloat_the_view() {
    let database = Database::with_sample();
    let size = || database.psql("SELECT pg_total_relation_size('mv_treemap_data')").parse::<u64>().unwrap();
    treemap(&database, &["refresh"]).succeeds();
    let before = size();
    for _ in 0..200 {
        treemap(&database, &["refresh"]).succeeds();
    }
    assert!(size() < 4 * before, "the view grew from {before} to {} bytes", size());
}

#[test]
fn status_shows_the_schedule_and_the_refreshes_as_text_and_as_json() {
    let database = Database::with_sample();
    database.psql("SELECT refresh_treemap_data('2026-01-02 03:00Z', 'a replica')");
    treemap(&database, &["status", "--max-data-age", "36500d"]).succeeds().prints(&[
        "next tick",
        "T03:00:00+",
        "[Australia/Sydney]",
        "trading days",
        "2026-01-02T03:00:00Z",
        "a replica",
    ]);
    treemap(&database, &["status", "--max-data-age", "36500d", "--refresh-schedule", "off"])
        .succeeds()
        .prints(&["the schedule is off"]);
    let json = treemap(&database, &["status", "--json"]).exits(1).stdout();
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["well"], false);
    assert_eq!(status["problems"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(status["view"], "populated");
    assert_eq!(status["periods"]["3m"], 60);
    assert_eq!(status["data_date"], "2023-12-29");
    assert!(status["data_lag_trading_days"].as_u64().unwrap() > 700);
    assert!(status["age_seconds"].as_i64().unwrap() < 60);
    assert_eq!(status["refreshes"][0]["who"], "a replica");
    assert_eq!(status["refreshes"][0]["tick"], "2026-01-02T03:00:00Z");
    assert_eq!(status["refreshes"][0]["rows"], status["rows"]);
}

impl Server {
    /// Starts a server whose clock differs from the database's, with faketime.
    async fn with_clock(skew: &str, more: &[(&str, &str)], database_url: &str, arguments: &[&str]) -> Self {
        // Use only the environment that faketime sets: if faketime ran the server, a kill would end faketime alone.
        let set = output(Command::new("faketime").args(["--exclude-monotonic", "-f", skew, "env"]));
        let set = set.lines().filter_map(|line| line.split_once('='));
        let set = set.filter(|(name, _)| {
            ["LD_PRELOAD", "DYLD_", "FAKETIME"].iter().any(|prefix| name.starts_with(prefix))
                && *name != "FAKETIME_SHARED"
        });
        let mut server = command(&[]);
        server.envs(set).envs(more.iter().copied());
        if !more.is_empty() {
            // The clock comes from the file. This variable would override it.
            server.env_remove("FAKETIME");
        }
        Self::run(server, database_url, arguments).await
    }
}

#[tokio::test]
async fn a_view_that_was_never_filled_is_refilled_at_once_whatever_the_log_says() {
    let database = Database::with_sample();
    assert_ne!(database.psql("SELECT count(*) FROM public.treemap_refreshes").trim(), "0");
    database.psql("REFRESH MATERIALIZED VIEW public.mv_treemap_data WITH NO DATA");
    let server = Server::refreshing(&database.url(), &["--source-interval", "off"]).await;
    server.wait_until_ready().await;
    server.wait_for_log("refreshed the view because it was never filled").await;
}
