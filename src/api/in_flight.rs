//! A call from its beginning to the last byte that its client makes room for: counted, bounded, traced.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tracing::Span;

use crate::{
    metrics::{MethodMetrics, Metrics},
    telemetry,
};

/// The status in headers or trailers, if it is there.
#[must_use]
pub fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// A call, counted when it is over: when its last frame is written, or nobody wants it any more.
#[derive(Debug)]
pub struct Call {
    counts: Arc<MethodMetrics>,
    begun: Instant,
    /// Of a call that is dropped before it has another: its client went away.
    code: Code,
    span: Span,
    flight: Option<Flight>,
}

impl Call {
    /// A call has come.
    #[must_use]
    pub fn begin(counts: Arc<MethodMetrics>, span: Span) -> Self {
        counts.started();
        Self { counts, begun: Instant::now(), code: Code::Cancelled, span, flight: None }
    }

    /// It is one of those that are bounded.
    pub fn flies(&mut self, flight: Flight) {
        self.flight = Some(flight);
    }

    /// Its code, if it is known already.
    pub const fn ends_with(&mut self, code: Option<Code>) {
        if let Some(code) = code {
            self.code = code;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counts.handled(self.code, self.begun.elapsed());
        telemetry::call_ended(&self.span, self.code);
    }
}

/// One of the calls that are being answered.
#[derive(Debug)]
pub struct Flight {
    others: i64,
    metrics: Arc<Metrics>,
    pace: Arc<Pace>,
    round: usize,
}

impl Flight {
    /// One more.
    #[must_use]
    pub fn begin(metrics: Arc<Metrics>, pace: Arc<Pace>) -> Self {
        let (others, round) = (metrics.in_flight.inc(), pace.begin());
        Self { others, metrics, pace, round }
    }

    /// How many others there were when it began.
    #[must_use]
    pub const fn others(&self) -> i64 {
        self.others
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.pace.end(self.round);
    }
}

/// Whether the calls over a connection end: each belongs to the round in which it began, and must be over one round later.
#[derive(Debug, Default)]
pub struct Pace {
    round: AtomicUsize,
    open: [AtomicUsize; 3],
}

impl Pace {
    fn begin(&self) -> usize {
        let round = self.round.load(Ordering::Relaxed) % self.open.len();
        self.open[round].fetch_add(1, Ordering::Relaxed);
        round
    }

    fn end(&self, round: usize) {
        self.open[round].fetch_sub(1, Ordering::Relaxed);
    }

    /// Begins a new round; says whether a call of the one before the last is still open.
    pub fn has_stalled(&self) -> bool {
        let ended = self.round.fetch_add(1, Ordering::Relaxed);
        // Three rounds: the ended one, the one before it, and the new one, whose place was found empty last time.
        self.open[(ended + self.open.len() - 1) % self.open.len()].load(Ordering::Relaxed) > 0
    }
}

/// An answer's body with the call that it ends.
#[derive(Debug)]
pub struct Counted {
    body: Body,
    call: Option<Call>,
}

/// Bytes of an answer. Its call is in flight until the client has made room for them: HTTP/2 keeps them for as long as that takes.
#[derive(Debug)]
pub struct Sending {
    bytes: Bytes,
    _flight: Option<Flight>,
}

impl Buf for Sending {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Counted {
    /// `body` ends `call`.
    #[must_use]
    pub const fn new(body: Body, call: Call) -> Self {
        Self { body, call: Some(call) }
    }
}

impl http_body::Body for Counted {
    type Data = Sending;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            if let Some(trailers) = frame.trailers_ref()
                && let Some(mut call) = self.call.take()
            {
                call.code = code_of(trailers).unwrap_or(Code::Unknown);
            }
            frame.map_data(|bytes| {
                let flight = self.call.as_mut().and_then(|call| call.flight.take());
                Sending { bytes, _flight: flight }
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_outlives_the_next_round_has_stalled_and_no_other_has() {
        let pace = Pace::default();
        let first = pace.begin();
        assert!(!pace.has_stalled(), "it may have begun just now");
        let second = pace.begin();
        assert!(pace.has_stalled());
        pace.end(first);
        pace.end(second);
        for _ in 0..5 {
            let short = pace.begin();
            pace.end(short);
            assert!(!pace.has_stalled());
        }
    }
}
