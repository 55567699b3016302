//! Fault injection: a fault of the database while a server is called at a steady rate.

use std::{
    error::Error as _,
    iter,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tonic::Status;

use super::{
    eventually,
    server::{Client, Server, get},
};

/// A server must log a fault of its database within this time.
pub const NOTICED: Duration = Duration::from_secs(15);

/// A client that calls at a steady rate and counts failed calls.
pub struct Calls {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    /// Why, of each that failed.
    failed: Arc<Mutex<Vec<String>>>,
    calling: JoinHandle<()>,
}

impl Calls {
    /// Starts 100 calls per second, on the other threads of a test that waits for processes. A call that takes three seconds has failed:
    /// other tests on the same processors cause delays.
    pub fn start(client: &Client) -> Self {
        Self::begin(client, false)
    }

    /// The same where the server closes connections: a call that it has not processed for that is sent over the next, up to twice. By gRPC's
    /// specification every client does so (transparent retries); tonic leaves it to its callers.
    pub fn start_over_ending_connections(client: &Client) -> Self {
        Self::begin(client, true)
    }

    fn begin(client: &Client, again: bool) -> Self {
        let (stop, made, failed) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<Mutex<Vec<String>>>)>::default();
        let (client, ended, all, lost) = (client.clone(), stop.clone(), made.clone(), failed.clone());
        let calling = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(10));
            while !ended.load(Ordering::Relaxed) {
                beat.tick().await;
                let mut client = client.clone();
                let answer = async {
                    let mut answer = get(&mut client, "3m", 10, 0).await;
                    let mut tries = if again { 2 } else { 0 };
                    while tries > 0 && answer.as_ref().is_err_and(was_not_processed) {
                        tries -= 1;
                        answer = get(&mut client, "3m", 10, 0).await;
                    }
                    answer
                };
                all.fetch_add(1, Ordering::Relaxed);
                match tokio::time::timeout(Duration::from_secs(3), answer).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(status)) => lost.lock().unwrap().push(format!("{status:?}")),
                    Err(_) => lost.lock().unwrap().push("no answer in time".into()),
                }
            }
        });
        Self { stop, made, failed, calling }
    }

    /// Stops the calls and returns their number. Panics if there were none, or if one failed.
    pub async fn assert_none_failed(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.calling.await.unwrap();
        let made = self.made.load(Ordering::Relaxed);
        assert!(made > 0);
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "of {made} calls: {failed:?}");
        made
    }
}

/// Whether a call has not left its client, or the server's GOAWAY says that it was not processed: the connection was ended in order.
fn was_not_processed(status: &Status) -> bool {
    let mut causes = iter::successors(status.source(), |cause| (*cause).source());
    causes.any(|cause| {
        let http2 = cause.downcast_ref::<h2::Error>();
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
            || http2.is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}

/// A fault of the database, and what the server must log.
pub struct Fault<'a> {
    /// The name of the fault in the table of docs/connecting.md.
    pub name: &'a str,
    /// The start of the log message about the fault, and of the message about its end.
    pub log_lines: [&'a str; 2],
    pub server: &'a Server,
}

impl Fault<'_> {
    /// Runs `begin`, and later `end`. Asserts that the server logs the fault once and in time, logs its end once, and
    /// answers every call meanwhile. Prints a row of the table.
    pub async fn inject(&self, begin: impl Future<Output = ()>, end: impl Future<Output = ()>) {
        let server = self.server;
        let calls = Calls::start(&server.client().await);
        let quiet = server.log();
        assert!(!quiet.contains(" WARN ") && !quiet.contains(" ERROR "), "{quiet}");
        begin.await;
        let happened = Instant::now();
        server.wait_for_log(self.log_lines[0]).await;
        let noticed = happened.elapsed();
        assert!(noticed < NOTICED, "{noticed:?}");
        // Long enough that every loop meets the fault more than once.
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.await;
        let ended = Instant::now();
        server.wait_for_log(self.log_lines[1]).await;
        let recovered = ended.elapsed();
        let made = calls.assert_none_failed().await;
        let log = server.log();
        let alarms = log.matches(" WARN ").count() + log.matches(" ERROR ").count();
        assert_eq!(alarms, 1, "{log}");
        assert_eq!(log.matches(self.log_lines[1]).count(), 1, "{log}");
        let (noticed, recovered) = (noticed.as_secs_f64(), recovered.as_secs_f64());
        println!("| {} | {noticed:.1} | 0 of {made} | {recovered:.1} |", self.name);
    }
}

/// Calls `refresh`, and waits until the server serves the refreshed view.
pub async fn refresh_and_wait(server: &Server, refresh: impl Fn()) {
    let client = server.client().await;
    let refreshed = async || {
        let answer = get(&mut client.clone(), "3m", 1, 0).await.unwrap();
        answer.metadata().get("treemap-last-refreshed").unwrap().clone()
    };
    let before = refreshed().await;
    refresh();
    eventually("the refresh is served", async || (refreshed().await != before).then_some(())).await;
}
