//! What happens to a connection from outside, in time.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// The time between two looks at a connection over HTTP/2, and the time to answer a PING. One that was silent between two looks is
/// sent a PING.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(20));

/// What may happen to a connection from outside.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// The server stops.
    Stop,
    /// The connection is too old.
    TooOld,
    /// It is time to see whether the client is still there.
    Keepalive,
    /// It is time to see whether calls end.
    Round,
    /// A connection that was told to go should be gone.
    GraceOver,
}

/// Those that may still happen. Only what has happened is polled: a call costs none of it.
pub type Events = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// An event after some time.
pub fn after(time: Duration, event: Event) -> Pin<Box<dyn Future<Output = Event> + Send>> {
    Box::pin(async move {
        sleep(time).await;
        event
    })
}

/// Notices a client over HTTP/2 that is gone without a word: one that is silent is asked for a sign of life, and must give one.
#[derive(Debug, Default)]
pub struct Keepalive {
    received: u64,
    /// Whether it was asked.
    pub asked: bool,
}

impl Keepalive {
    /// The first look, and the time until the second.
    pub const BEGIN: Duration = KEEPALIVE.0;

    /// How long to wait until the next look, given the bytes that were received so far; `None` when the client is gone.
    pub fn next(&mut self, received: u64) -> Option<Duration> {
        let silent = std::mem::replace(&mut self.received, received) == received;
        if silent && self.asked {
            return None;
        }
        self.asked = silent;
        Some(if silent { KEEPALIVE.1 } else { KEEPALIVE.0 })
    }
}
