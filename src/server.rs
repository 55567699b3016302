//! The listener of the gRPC server: accepts connections within their limits, serves each, and drains them at the end.
//!
//! It stands in the place of tonic's own transport, which has no limit on connections, waits for ever for a client that
//! never speaks, and answers a deadline with CANCELLED. What a connection does is in [`connection`].

pub mod admin;
pub mod connection;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use self::connection::{Client, Room};
use crate::{api::calls::Calls, config::Limits, metrics::Metrics, tls::listener::Tls};

/// Connections beyond the limit that are told so in the protocol's own words, and whose health checks are answered. Beyond
/// these too a connection is closed as it comes.
const CROWD: usize = 256;
/// The pause after a connection that could not be accepted: what is missing, file descriptors say, is not back at once.
pub const RECOVERY: Duration = Duration::from_millis(100);
/// Without another failure for so long, accepting works again.
const QUIET: Duration = Duration::from_secs(1);

/// A listener with all that a connection needs.
#[derive(Debug)]
pub struct Server {
    /// Bound, and not yet accepting.
    pub listener: TcpListener,
    /// Present when connections are to be private.
    pub tls: Option<Arc<Tls>>,
    /// See there.
    pub limits: Limits,
    /// What answers.
    pub calls: Calls,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Accepts and serves connections until `stop` says so, then lets them end; gives the number of those that did not in time,
    /// and were cut.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> usize {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let crowd = Arc::new(Semaphore::new(CROWD));
        let mut connections = JoinSet::new();
        let mut last_error: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // One that gets through among many that do not ends nothing.
                    if last_error.take_if(|at| at.elapsed() > QUIET).is_some() {
                        tracing::info!("connections are accepted again");
                    }
                    if let Some(room) = room(&places, &crowd) {
                        connections.spawn(self.client(peer, room, stop.clone()).serve(stream));
                    } else {
                        self.metrics.closed("crowded");
                    }
                }
                // The client went away before we came to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    if last_error.replace(Instant::now()).is_none() {
                        tracing::error!("no connection can be accepted, and this is tried again: {error}");
                    }
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
        drop(self.listener);
        let drained = timeout(self.limits.drain, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_ok() {
            return 0;
        }
        let cut = connections.len();
        connections.shutdown().await;
        for _ in 0..cut {
            self.metrics.closed("cut");
        }
        cut
    }

    fn client(&self, peer: SocketAddr, room: Room, stop: watch::Receiver<bool>) -> Client {
        Client {
            peer,
            room,
            stop,
            tls: self.tls.clone(),
            age: self.limits.connection_age,
            calls: self.calls.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// A place for a connection: among the served, or else in the crowd.
fn room(places: &Arc<Semaphore>, crowd: &Arc<Semaphore>) -> Option<Room> {
    let place = |of: &Arc<Semaphore>| of.clone().try_acquire_owned().ok();
    place(places)
        .map(|permit| Room { crowded: false, _permit: permit })
        .or_else(|| place(crowd).map(|permit| Room { crowded: true, _permit: permit }))
}
