//! Notices a head of a request over HTTP/1.1 that takes too long. hyper has one limit for that and for the pause between two requests,
//! which may be long.

use std::time::Duration;

use tokio::time::Instant;

use super::gather::Received;
use crate::api::in_flight::Counts;

/// How long the head of a request may take from its first byte.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// The clock of one connection.
#[derive(Debug, Default)]
pub struct HeadClock {
    /// Bytes that were received when no head had begun.
    before: u64,
    requests: usize,
    begun: Option<Instant>,
}

impl HeadClock {
    /// When the head that has begun must be complete; `None` when none has.
    pub fn due(&mut self, received: Received, calls: &Counts) -> Option<Instant> {
        let (requests, answering) = calls.requests();
        if received.http2 || answering || requests != self.requests {
            *self = Self { before: received.bytes, requests, begun: None };
        }
        if received.bytes == self.before {
            return None;
        }
        Some(*self.begun.get_or_insert_with(Instant::now) + HEAD_WITHIN)
    }
}
