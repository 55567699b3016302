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

/// Requests over HTTP/2 that are not complete, over all connections: each takes some 10 KB until it is.
const INCOMPLETE: usize = 1000;
/// When there are as many, each connection may have so many more.
const INCOMPLETE_PER_CONNECTION: usize = 2;

/// What is open, over all connections or over those of one address.
#[derive(Debug, Default)]
pub struct Open {
    calls: AtomicUsize,
    watchers: AtomicUsize,
    streams: AtomicUsize,
    incomplete: AtomicUsize,
}

impl Open {
    /// How many calls of the treemap are in flight.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many streams of treemaps are open.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }
}

/// How many there may be: in all, and of one address.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// In all.
    pub in_all: usize,
    /// Of one address.
    pub of_client: usize,
}

/// Counted among all and among those of its address until it is dropped.
#[derive(Debug)]
struct Counted {
    all: Arc<Open>,
    connection: Arc<StallClock>,
    which: fn(&Open) -> &AtomicUsize,
}

impl Counted {
    /// One more; `None` when there are as many as there may be.
    fn begin(
        all: &Arc<Open>,
        connection: &Arc<StallClock>,
        most: Most,
        which: fn(&Open) -> &AtomicUsize,
    ) -> Option<Self> {
        let in_all = which(all).fetch_add(1, Ordering::Relaxed);
        let of_client = which(&connection.of_client).fetch_add(1, Ordering::Relaxed);
        // Dropped, it counts itself out again.
        let counted = Self { all: all.clone(), connection: connection.clone(), which };
        (in_all < most.in_all && of_client < most.of_client).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for open in [&self.all, &self.connection.of_client] {
            (self.which)(open).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An open stream of treemaps. It is no call in flight: it may be silent for long.
#[derive(Debug)]
pub struct Watcher(#[expect(dead_code, reason = "held to be counted")] Counted);

impl Watcher {
    /// One more; `None` when there are as many as there may be.
    pub fn begin(all: &Arc<Open>, connection: &Arc<StallClock>, most: Most) -> Option<Self> {
        Counted::begin(all, connection, most, |open| &open.watchers).map(Self)
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
    counted: Counted,
}

impl OpenStream {
    /// One more; `None` when the connection, its address, or the server has as many as it may.
    pub fn begin(all: &Arc<Open>, connection: &Arc<StallClock>, share: impl Fn(usize) -> usize) -> Option<Self> {
        let most = Most { in_all: STREAMS, of_client: share(STREAMS) };
        let counted = Counted::begin(all, connection, most, |open| &open.streams)?;
        let here = connection.streams.fetch_add(1, Ordering::Relaxed);
        let stream = Self { counted };
        (here < STREAMS_PER_CONNECTION).then_some(stream)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.counted.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the calls that are being answered.
#[derive(Debug)]
pub struct InFlight {
    counted: Counted,
    round: usize,
}

impl InFlight {
    /// One more; `None` when there are as many as there may be.
    pub fn begin(all: &Arc<Open>, connection: &Arc<StallClock>, most: Most) -> Option<Self> {
        let counted = Counted::begin(all, connection, most, |open| &open.calls)?;
        Some(Self { counted, round: connection.begin() })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counted.connection.end(self.round);
    }
}

/// Counts the requests of a connection that are not complete.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    all: Arc<Open>,
    connection: Arc<StallClock>,
}

impl Waiting {
    /// Over `connection`, among `all`.
    pub const fn new(all: Arc<Open>, connection: Arc<StallClock>) -> Self {
        Self { all, connection }
    }

    /// One more; `None` when there are too many.
    pub fn begin(&self) -> Option<Incomplete> {
        let in_all = self.all.incomplete.fetch_add(1, Ordering::Relaxed);
        let here = self.connection.incomplete.fetch_add(1, Ordering::Relaxed);
        let incomplete = Incomplete(self.clone());
        (in_all < INCOMPLETE || here < INCOMPLETE_PER_CONNECTION).then_some(incomplete)
    }
}

/// A request that is not complete yet.
#[derive(Debug)]
pub struct Incomplete(Waiting);

impl Drop for Incomplete {
    fn drop(&mut self) {
        self.0.all.incomplete.fetch_sub(1, Ordering::Relaxed);
        self.0.connection.incomplete.fetch_sub(1, Ordering::Relaxed);
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
    /// Requests that are not complete.
    incomplete: AtomicUsize,
    /// What is open over all connections of the client's address.
    of_client: Arc<Open>,
    /// Turns true when the connection takes no more calls, and waits for those that it has. Made for the first who asks: few connections
    /// watch anything.
    closing: OnceLock<watch::Sender<bool>>,
}

impl StallClock {
    /// Of a connection of an address, over all of whose connections `of_client` counts.
    pub fn of_client(of_client: Arc<Open>) -> Self {
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
