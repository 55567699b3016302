//! A fault of the database, suffered by a server that is being asked all the while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::{
    eventually,
    server::{Client, Server, get},
};

/// Within this time a server has to notice that something is wrong with its database.
pub const NOTICED: Duration = Duration::from_secs(15);

/// A client that calls at a steady rate and counts what fails.
pub struct Calls {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    calling: JoinHandle<()>,
}

impl Calls {
    /// 100 calls a second, each with a second to be answered.
    pub fn start(client: &Client) -> Self {
        let (stop, made, failed) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (client, ended, all, lost) = (client.clone(), stop.clone(), made.clone(), failed.clone());
        let calling = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(10));
            while !ended.load(Ordering::Relaxed) {
                beat.tick().await;
                let mut client = client.clone();
                let answer = get(&mut client, "3m", 10, 0);
                all.fetch_add(1, Ordering::Relaxed);
                match tokio::time::timeout(Duration::from_secs(1), answer).await {
                    Ok(Ok(_)) => {}
                    _ => drop(lost.fetch_add(1, Ordering::Relaxed)),
                }
            }
        });
        Self { stop, made, failed, calling }
    }

    /// Ends the calls; panics when there were none, or one failed.
    pub async fn none_failed(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.calling.await.unwrap();
        let made = self.made.load(Ordering::Relaxed);
        assert!(made > 0);
        assert_eq!(self.failed.load(Ordering::Relaxed), 0, "of {made} calls");
        made
    }
}

/// What a server does while its database is at fault.
pub struct Fault<'a> {
    /// What happens to the database, for the table in docs/connecting.md.
    pub name: &'a str,
    /// The words that tell of it, and those that tell of its end.
    pub told: [&'a str; 2],
    pub server: &'a Server,
}

impl Fault<'_> {
    /// Lets it happen, then lets it pass. Asserts that the server tells of it in time, once, and of its end, once; and that it
    /// answers all the while. Prints a row of the table.
    pub async fn suffer(&self, begin: impl Future<Output = ()>, end: impl Future<Output = ()>) {
        let server = self.server;
        let calls = Calls::start(&server.client().await);
        let quiet = server.log();
        assert!(!quiet.contains(" WARN ") && !quiet.contains(" ERROR "), "{quiet}");
        begin.await;
        let happened = Instant::now();
        server.logged(self.told[0]).await;
        let noticed = happened.elapsed();
        assert!(noticed < NOTICED, "{noticed:?}");
        // Long enough for every loop to run into it more than once.
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.await;
        let ended = Instant::now();
        server.logged(self.told[1]).await;
        let recovered = ended.elapsed();
        let made = calls.none_failed().await;
        let log = server.log();
        let alarms = log.matches(" WARN ").count() + log.matches(" ERROR ").count();
        assert_eq!(alarms, 1, "{log}");
        assert_eq!(log.matches(self.told[1]).count(), 1, "{log}");
        let (noticed, recovered) = (noticed.as_secs_f64(), recovered.as_secs_f64());
        println!("| {} | {noticed:.1} | 0 of {made} | {recovered:.1} |", self.name);
    }
}

/// Waits until a refresh, made now by hand, is served.
pub async fn refreshes_arrive(server: &Server, refresh: impl Fn()) {
    let client = server.client().await;
    let refreshed = async || {
        let answer = get(&mut client.clone(), "3m", 1, 0).await.unwrap();
        answer.metadata().get("treemap-last-refreshed").unwrap().clone()
    };
    let before = refreshed().await;
    refresh();
    eventually("the refresh is served", async || (refreshed().await != before).then_some(())).await;
}
