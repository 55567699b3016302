//! What is open over a connection, over all of its client's address, and in all: calls, streams, and the bytes of their answers. A call is
//! in flight until the client has made room for its answer: HTTP/2 keeps the answer in memory for as long as that takes.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::refusal::Refusal;
use crate::{config::Share, treemap::memo};

/// Streams of health and reflection over one connection. A client needs one of each.
const STREAMS_PER_CONNECTION: usize = 8;
/// The same over all connections; each takes some 8 KB.
const STREAMS: usize = 1000;

/// Requests over HTTP/2 that are not complete, over all connections: each takes some 10 KB until it is.
const INCOMPLETE: usize = 1000;
/// When there are as many, each connection may have so many more.
const INCOMPLETE_PER_CONNECTION: usize = 2;

/// Bytes of answers beside those that the model keeps: answers that nobody else asks for, and that wait for their client.
const BYTES: usize = 16 * 1024 * 1024;
/// What an address may have of them also when others have used them up.
const BYTES_ALWAYS: usize = 1024 * 1024;

/// What is open, over all connections or over those of one address.
#[derive(Debug, Default)]
pub struct Open {
    calls: AtomicUsize,
    watchers: AtomicUsize,
    streams: AtomicUsize,
    incomplete: AtomicUsize,
    /// Bytes of the answers that were made for it and are in memory still.
    bytes: AtomicUsize,
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

/// What is open over one connection. It notices one whose calls do not end: each call belongs to the round in which it began, and must be
/// over one round later.
#[derive(Debug, Default)]
pub struct Counts {
    /// What is open over all connections, and over those of the client's address.
    all: Arc<Open>,
    of_client: Arc<Open>,
    /// What one address may have.
    share: Share,
    round: AtomicUsize,
    open: [AtomicUsize; 3],
    /// Requests of any method, and of these the ones that are being answered.
    requests: AtomicUsize,
    answering: AtomicUsize,
    /// Open streams of health and reflection.
    streams: AtomicUsize,
    /// Requests that are not complete.
    incomplete: AtomicUsize,
    /// Turns true when the connection takes no more calls, and waits for those that it has. Made for the first who asks: few connections
    /// watch anything.
    closing: OnceLock<watch::Sender<bool>>,
}

impl Counts {
    /// Of a connection, among `all`, of an address over all of whose connections `of_client` counts.
    pub fn new(all: Arc<Open>, of_client: Arc<Open>, share: Share) -> Self {
        Self { all, of_client, share, ..Self::default() }
    }

    /// The connection is about to end: streams that would go on for ever end.
    pub fn close(&self) {
        self.closing.get_or_init(watch::Sender::default).send_replace(true);
    }

    /// Whether the connection is about to end.
    pub fn is_closing(&self) -> bool {
        self.closing.get().is_some_and(|closing| *closing.borrow())
    }

    /// Turns true when the connection is about to end.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.get_or_init(watch::Sender::default).subscribe()
    }

    /// How many requests have arrived, of any method, and whether one is being answered.
    pub fn requests(&self) -> (usize, bool) {
        (self.requests.load(Ordering::Relaxed), self.answering.load(Ordering::Relaxed) > 0)
    }

    /// Makes an answer, unless too many wait for clients already. Its bytes count until the last of those who hold them is gone.
    pub fn make(self: &Arc<Self>, make: impl FnOnce() -> Bytes) -> Result<Bytes, Refusal> {
        let [all, of_client] = [&self.all, &self.of_client].map(|open| open.bytes.load(Ordering::Relaxed));
        // What the model keeps may all have been made for one address.
        let is_over = of_client > self.share.of(BYTES) + memo::MOST_BYTES;
        if is_over || (all > BYTES + memo::MOST_BYTES && of_client > BYTES_ALWAYS) {
            return Err(Refusal::TooManyBytes);
        }
        let bytes = make();
        for open in [&self.all, &self.of_client] {
            open.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        Ok(Bytes::from_owner(Made { bytes, all: self.all.clone(), of_client: self.of_client.clone() }))
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

/// Bytes of an answer.
#[derive(Debug)]
struct Made {
    bytes: Bytes,
    all: Arc<Open>,
    of_client: Arc<Open>,
}

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for open in [&self.all, &self.of_client] {
            open.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// Counted among all and among those of its address until it is dropped.
#[derive(Debug)]
struct Counted {
    connection: Arc<Counts>,
    which: fn(&Open) -> &AtomicUsize,
}

impl Counted {
    /// One more, and whether that is within `most`.
    fn begin(connection: &Arc<Counts>, most: usize, which: fn(&Open) -> &AtomicUsize) -> (Self, bool) {
        let in_all = which(&connection.all).fetch_add(1, Ordering::Relaxed);
        let of_client = which(&connection.of_client).fetch_add(1, Ordering::Relaxed);
        (Self { connection: connection.clone(), which }, in_all < most && of_client < connection.share.of(most))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for open in [&self.connection.all, &self.connection.of_client] {
            (self.which)(open).fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An open stream of treemaps. It is no call in flight: it may be silent for long.
#[derive(Debug)]
pub struct Watcher(#[expect(dead_code, reason = "held to be counted")] Counted);

impl Watcher {
    /// One more; `None` when there are as many as there may be.
    pub fn begin(connection: &Arc<Counts>, most: usize) -> Option<Self> {
        let (counted, within) = Counted::begin(connection, most, |open| &open.watchers);
        within.then_some(Self(counted))
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
pub struct OpenStream(Counted);

impl OpenStream {
    /// One more; `None` when the connection, its address, or the server has as many as it may.
    pub fn begin(connection: &Arc<Counts>) -> Option<Self> {
        let (counted, within) = Counted::begin(connection, STREAMS, |open| &open.streams);
        let here = connection.streams.fetch_add(1, Ordering::Relaxed);
        let stream = Self(counted);
        (within && here < STREAMS_PER_CONNECTION).then_some(stream)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.connection.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is not complete yet.
#[derive(Debug)]
pub struct Incomplete(Counted);

impl Incomplete {
    /// One more; `None` when there are too many.
    pub fn begin(connection: &Arc<Counts>) -> Option<Self> {
        let (counted, within) = Counted::begin(connection, INCOMPLETE, |open| &open.incomplete);
        let here = connection.incomplete.fetch_add(1, Ordering::Relaxed);
        let incomplete = Self(counted);
        (within || here < INCOMPLETE_PER_CONNECTION).then_some(incomplete)
    }
}

impl Drop for Incomplete {
    fn drop(&mut self) {
        self.0.connection.incomplete.fetch_sub(1, Ordering::Relaxed);
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
    pub fn begin(connection: &Arc<Counts>, most: usize) -> Option<Self> {
        let (counted, within) = Counted::begin(connection, most, |open| &open.calls);
        within.then(|| Self { round: connection.begin(), counted })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counted.connection.end(self.round);
    }
}

/// Bytes that a client is to take, of what is no call in flight.
#[derive(Debug)]
pub struct Unsent {
    connection: Arc<Counts>,
    round: usize,
}

impl Unsent {
    /// More of them.
    pub fn begin(connection: &Arc<Counts>) -> Self {
        Self { round: connection.begin(), connection: connection.clone() }
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.connection.end(self.round);
    }
}

/// A request that is being answered: from its head until there is a response.
#[derive(Debug)]
pub struct Answering<'a>(&'a Counts);

impl<'a> Answering<'a> {
    /// A request has arrived over a connection.
    pub fn begin(connection: &'a Counts) -> Self {
        connection.requests.fetch_add(1, Ordering::Relaxed);
        connection.answering.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_outlives_the_next_round_has_stalled_and_no_other_has() {
        let stalls = Counts::default();
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

    #[test]
    fn answers_are_made_until_too_many_bytes_wait_and_again_once_they_are_gone() {
        let (all, of_others) = <(Arc<Open>, Arc<Open>)>::default();
        let share = Share::of_all(1, 4);
        let attacker = Arc::new(Counts::new(all.clone(), Arc::default(), share));
        let other = Arc::new(Counts::new(all.clone(), of_others, share));
        let megabyte = || Bytes::from(vec![0; 1024 * 1024]);
        let mut waiting = Vec::new();
        while let Ok(bytes) = attacker.make(megabyte) {
            waiting.push(bytes);
        }
        let most = BYTES / 4 + memo::MOST_BYTES;
        assert_eq!(waiting.len(), most / (1024 * 1024) + 1);
        assert!(other.make(megabyte).is_ok(), "another address has its own");
        waiting.truncate(1);
        assert!(attacker.make(megabyte).is_ok());
        drop(waiting);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_address_has_a_few_answers_of_its_own_when_others_have_used_up_all() {
        let all = Arc::<Open>::default();
        let address = || Arc::new(Counts::new(all.clone(), Arc::default(), Share::of_all(1, 4)));
        let megabyte = || Bytes::from(vec![0; 1024 * 1024]);
        let attackers: Vec<_> = (0..8).map(|_| address()).collect();
        let mut waiting = Vec::new();
        for attacker in &attackers {
            while let Ok(bytes) = attacker.make(megabyte) {
                waiting.push(bytes);
            }
        }
        let late = address();
        let own: Vec<_> = std::iter::from_fn(|| late.make(megabyte).ok()).collect();
        assert_eq!(own.len(), BYTES_ALWAYS / (1024 * 1024) + 1);
    }
}
