//! The listener of the treemap's port: accepts connections within their limits, serves each, and drains them at the end.
//!
//! It replaces tonic's own transport, which has no limit on connections, waits for ever for a client that
//! never speaks, and answers a deadline with CANCELLED. One connection is [`connection`]'s; the port for ops is [`admin`]'s.

pub mod admin;
pub mod connection;
pub mod descriptors;
mod events;
mod gather;
mod head_clock;
mod http1;
mod http2;
pub mod workers;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use self::{
    connection::{Client, Place},
    workers::Workers,
};
use crate::{
    api::{calls::Calls, in_flight::Open},
    config::Limits,
    metrics::{Closed, Metrics},
    tls::listener::Tls,
};

/// Connections beyond the limit that are refused in the protocol's own words, and whose health checks are answered. Beyond
/// these too a connection is closed as it arrives.
const CROWD: usize = 256;
/// The pause after a connection that could not be accepted: what is missing, file descriptors say, is not back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accepting works again after this long without another failure.
const QUIET: Duration = Duration::from_secs(1);

/// A listener with all that its connections need.
#[derive(Debug)]
pub struct Server {
    /// Bound, and not yet accepting.
    pub listener: TcpListener,
    /// Present when connections are encrypted.
    pub tls: Option<Arc<Tls>>,
    /// The threads that serve connections.
    pub workers: Workers,
    /// The limits on connections.
    pub limits: Limits,
    /// Answers calls.
    pub calls: Calls,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
}

impl Server {
    /// Accepts and serves connections until `stop`, then lets them end; gives the number of those that did not in time,
    /// and were cut.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> usize {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let crowd = Arc::new(Semaphore::new(CROWD));
        let peers = Peers::default();
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
                    // A single success among many failures ends nothing.
                    if last_error.take_if(|at| at.elapsed() > QUIET).is_some() {
                        tracing::info!("accepting connections again");
                    }
                    let of_client = peers.begin(peer.ip(), self.limits.connections_per_client);
                    if let Some(place) = of_client.and_then(|of_client| place(&places, &crowd, of_client)) {
                        let serving = self.client(peer, place, stop.clone()).serve(stream.into_std());
                        connections.spawn_on(serving, self.workers.next());
                    } else {
                        self.metrics.closed(Closed::Crowded);
                    }
                }
                // The client went away before we came to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    if last_error.replace(Instant::now()).is_none() {
                        tracing::error!("cannot accept connections; retrying: {error}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let drained = timeout(self.limits.drain, async { while connections.join_next().await.is_some() {} });
        let cut = if drained.await.is_ok() { 0 } else { connections.len() };
        connections.shutdown().await;
        for _ in 0..cut {
            self.metrics.closed(Closed::Cut);
        }
        self.workers.stop().await;
        cut
    }

    fn client(&self, peer: SocketAddr, place: Place, stop: watch::Receiver<bool>) -> Client {
        Client {
            peer,
            place,
            stop,
            tls: self.tls.clone(),
            age: self.limits.connection_age,
            calls: self.calls.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// A place for a connection: among the served, or else in the crowd.
fn place(places: &Arc<Semaphore>, crowd: &Arc<Semaphore>, of_client: OfClient) -> Option<Place> {
    let free = |of: &Arc<Semaphore>| of.clone().try_acquire_owned().ok();
    let (permit, crowded) = match free(places) {
        Some(permit) => (permit, false),
        None => (free(crowd)?, true),
    };
    Some(Place { crowded, _permit: permit, of_client })
}

/// What each address has.
#[derive(Debug, Default, Clone)]
struct Peers(Arc<Mutex<HashMap<IpAddr, Peer>>>);

/// What one address has.
#[derive(Debug, Default)]
struct Peer {
    connections: usize,
    /// What is open over all of its connections.
    open: Arc<Open>,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of an address; `None` when it has as many as it may.
    fn begin(&self, address: IpAddr, limit: Option<usize>) -> Option<OfClient> {
        // As IPv6 a client is a network of its own.
        let address = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut peers = self.lock();
        let peer = peers.entry(address).or_default();
        if limit.is_some_and(|limit| peer.connections >= limit) {
            return None;
        }
        peer.connections += 1;
        Some(OfClient { peers: self.clone(), address, open: peer.open.clone() })
    }
}

/// A connection of an address, counted until it is dropped.
#[derive(Debug)]
struct OfClient {
    peers: Peers,
    address: IpAddr,
    /// What is open over all connections of the address.
    open: Arc<Open>,
}

impl Drop for OfClient {
    fn drop(&mut self) {
        let mut peers = self.peers.lock();
        if let Entry::Occupied(mut peer) = peers.entry(self.address) {
            peer.get_mut().connections -= 1;
            if peer.get().connections == 0 {
                peer.remove();
            }
        }
    }
}
