//! Tests that take minutes: `make soak`. They run with optimisation, one at a time, on a machine without other load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{
    cluster::cluster,
    database::Database,
    proxy::{Mode, Proxy},
    server::{Server, get},
};

const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn at_500_calls_per_second_no_call_fails_or_takes_longer_than_100_ms_during_slow_refreshes() {
    let database = Database::with_sample();
    database.slow_down_refreshes(2);
    let schedule = ["--refresh-schedule", "*/3 * * * * *", "--source-interval", "off"];
    let server = Server::refreshing(&database.url(), &schedule).await;
    server.wait_until_ready().await;
    let client = server.client().await;
    let (failed, slowest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let before = database.psql("SELECT count(*) FROM treemap_refreshes").parse::<u64>().unwrap();
    let started = Instant::now();
    let mut beat = tokio::time::interval(Duration::from_millis(2));
    while started.elapsed() < LONG {
        beat.tick().await;
        let (mut client, failed, slowest) = (client.clone(), failed.clone(), slowest.clone());
        tokio::spawn(async move {
            let sent = Instant::now();
            if get(&mut client, "3m", 10, 0).await.is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            slowest.fetch_max(u64::try_from(sent.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
        });
    }
    let refreshes = database.psql("SELECT count(*) FROM treemap_refreshes").parse::<u64>().unwrap() - before;
    let slowest = Duration::from_micros(slowest.load(Ordering::Relaxed));
    println!("{refreshes} refreshes of two seconds, slowest call {slowest:?}");
    assert!(refreshes > 20);
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
}

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn starting_and_killing_replicas_gives_one_refresh_for_each_tick() {
    let database = Database::with_sample();
    let schedule = ["--refresh-schedule", "*/2 * * * * *", "--source-interval", "off"];
    let mut replicas = std::collections::VecDeque::new();
    for _ in 0..5 {
        replicas.push_back(Server::refreshing(&database.url(), &schedule).await);
    }
    let started = Instant::now();
    while started.elapsed() < LONG {
        tokio::time::sleep(Duration::from_millis(700 + fastrand::u64(..2000))).await;
        // Dropping a server kills it, at any point of its work.
        drop(replicas.pop_front());
        replicas.push_back(Server::refreshing(&database.url(), &schedule).await);
    }
    let ticks = database.psql(
        "SELECT count(*) = count(DISTINCT tick) AND count(*) = extract(epoch FROM max(tick) - min(tick)) / 2 + 1, count(*) > 50 \
         FROM treemap_refreshes WHERE tick IS NOT NULL",
    );
    assert_eq!(ticks, "t|t");
}

#[tokio::test]
#[ignore = "for a release build: make soak"]
async fn a_cold_start_takes_a_few_round_trips_to_the_database() {
    let database = Database::with_sample();
    for away in [0, 1, 20] {
        let proxy = Proxy::to(cluster().port).await;
        proxy.set(if away == 0 { Mode::Forward } else { Mode::Delay(Duration::from_millis(away) / 2) });
        let mut times = Vec::new();
        for _ in 0..9 {
            let begun = Instant::now();
            let server = Server::start_with(&database.url_at(proxy.port), &[]).await;
            get(&mut server.client().await, "3m", 10, 0).await.unwrap();
            times.push(begun.elapsed());
        }
        times.sort();
        println!("from the start of the process to its first answer, with the database {away} ms away: {:?}", times[4]);
        assert!(times[4] < Duration::from_secs(1), "{times:?}");
    }
}
