//! How many calls are being answered, in all and over each connection, and whether they end. A call is in flight until the client has made
//! room for its answer: HTTP/2 keeps the answer in memory for as long as that takes.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

/// Streams of health and reflection over one connection. A client needs one of each.
const STREAMS_PER_CONNECTION: usize = 8;
/// The same over all connections; each takes some 8 KB.
const STREAMS: usize = 1000;

/// The calls that are being answered, over all connections.
#[derive(Debug, Default)]
pub struct CallsInFlight {
    calls: AtomicUsize,
    streams: AtomicUsize,
    watchers: AtomicUsize,
}

impl CallsInFlight {
    /// How many calls of the treemap there are.
    pub fn count(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many streams of treemaps are open.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }
}

/// An open stream of treemaps. It is no call in flight: it may be silent for long.
#[derive(Debug)]
pub struct Watcher(Arc<CallsInFlight>);

impl Watcher {
    /// One more; `None` when there are `limit`.
    pub fn begin(calls: Arc<CallsInFlight>, limit: usize) -> Option<Self> {
        let others = calls.watchers.fetch_add(1, Ordering::Relaxed);
        // Dropped, it counts itself out again.
        let watcher = Self(calls);
        (others < limit).then_some(watcher)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a call holds while it is answered.
#[derive(Debug, Default)]
pub struct Place {
    /// A place among the calls in flight.
    pub in_flight: Option<InFlight>,
    /// A place among the watchers.
    pub watcher: Option<Watcher>,
    /// Turns true when the connection is about to end.
    pub closing: Option<watch::Receiver<bool>>,
}

/// An open stream of health or reflection.
#[derive(Debug)]
pub struct OpenStream {
    calls: Arc<CallsInFlight>,
    connection: Arc<StallClock>,
}

impl OpenStream {
    /// One more; `None` when the connection, or the server, has as many as it may.
    pub fn begin(calls: Arc<CallsInFlight>, connection: Arc<StallClock>) -> Option<Self> {
        let here = connection.streams.fetch_add(1, Ordering::Relaxed);
        let in_all = calls.streams.fetch_add(1, Ordering::Relaxed);
        // Dropped, it counts itself out again.
        let stream = Self { calls, connection };
        (here < STREAMS_PER_CONNECTION && in_all < STREAMS).then_some(stream)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.calls.streams.fetch_sub(1, Ordering::Relaxed);
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the calls that are being answered.
#[derive(Debug)]
pub struct InFlight {
    others: usize,
    others_of_client: usize,
    calls: Arc<CallsInFlight>,
    stalls: Arc<StallClock>,
    round: usize,
}

impl InFlight {
    /// One more.
    pub fn begin(calls: Arc<CallsInFlight>, stalls: Arc<StallClock>) -> Self {
        let (others, round) = (calls.calls.fetch_add(1, Ordering::Relaxed), stalls.begin());
        let others_of_client = stalls.of_client.fetch_add(1, Ordering::Relaxed);
        Self { others, others_of_client, calls, stalls, round }
    }

    /// How many others there were when it began: of all clients, and of its own address.
    pub const fn others(&self) -> (usize, usize) {
        (self.others, self.others_of_client)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.calls.calls.fetch_sub(1, Ordering::Relaxed);
        self.stalls.of_client.fetch_sub(1, Ordering::Relaxed);
        self.stalls.end(self.round);
    }
}

/// Notices a connection whose calls do not end: each call belongs to the round in which it began, and must be over one round later.
#[derive(Debug, Default)]
pub struct StallClock {
    round: AtomicUsize,
    open: [AtomicUsize; 3],
    /// Requests of any method, and of these the ones that are being answered.
    requests: AtomicUsize,
    answering: AtomicUsize,
    /// Open streams of health and reflection.
    streams: AtomicUsize,
    /// Calls in flight over all connections of the client's address.
    of_client: Arc<AtomicUsize>,
    /// Turns true when the connection takes no more calls, and waits for those that it has. Made for the first who asks: few connections
    /// watch anything.
    closing: OnceLock<watch::Sender<bool>>,
}

impl StallClock {
    /// Of a connection of an address, whose calls in flight `of_client` counts.
    pub fn of_client(of_client: Arc<AtomicUsize>) -> Self {
        Self { of_client, ..Self::default() }
    }

    /// The connection is about to end: streams that would go on for ever end.
    pub fn close(&self) {
        self.closing.get_or_init(watch::Sender::default).send_replace(true);
    }

    /// Turns true when the connection is about to end.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.get_or_init(watch::Sender::default).subscribe()
    }

    /// How many requests have arrived, of any method, and whether one is being answered.
    pub fn requests(&self) -> (usize, bool) {
        (self.requests.load(Ordering::Relaxed), self.answering.load(Ordering::Relaxed) > 0)
    }

    fn begin(&self) -> usize {
        let round = self.round.load(Ordering::Relaxed) % self.open.len();
        self.open[round].fetch_add(1, Ordering::Relaxed);
        round
    }

    fn end(&self, round: usize) {
        self.open[round].fetch_sub(1, Ordering::Relaxed);
    }

    /// Begins a new round; true when a call of the round before the last is still open.
    pub fn has_stalled(&self) -> bool {
        let ended = self.round.fetch_add(1, Ordering::Relaxed);
        // Three rounds: the ended one, the one before it, and the new one, whose place was found empty last time.
        self.open[(ended + self.open.len() - 1) % self.open.len()].load(Ordering::Relaxed) > 0
    }
}

/// A request that is being answered: from its head until there is a response.
#[derive(Debug)]
pub struct Answering(Arc<StallClock>);

impl Answering {
    /// A request has arrived over a connection.
    pub fn begin(connection: Arc<StallClock>) -> Self {
        connection.requests.fetch_add(1, Ordering::Relaxed);
        connection.answering.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_outlives_the_next_round_has_stalled_and_no_other_has() {
        let stalls = StallClock::default();
        let first = stalls.begin();
        assert!(!stalls.has_stalled(), "it may have begun just now");
        let second = stalls.begin();
        assert!(stalls.has_stalled());
        stalls.end(first);
        stalls.end(second);
        for _ in 0..5 {
            let short = stalls.begin();
            stalls.end(short);
            assert!(!stalls.has_stalled());
        }
    }
}
