//! One call from its start to the last byte that its client makes room for: counted and traced.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tracing::Span;

use super::in_flight::InFlight;
use crate::{metrics::MethodMetrics, telemetry};

/// The gRPC code in headers or trailers, if it is there.
pub fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// A call. It is counted when it is over: when its last frame is written, or its client went away.
#[derive(Debug)]
pub struct Call {
    counts: Arc<MethodMetrics>,
    began: Instant,
    /// Until it has another, that of a client that went away.
    code: Code,
    span: Span,
    in_flight: Option<InFlight>,
}

impl Call {
    /// A call has arrived; `in_flight` where its number is limited.
    pub fn begin(counts: Arc<MethodMetrics>, span: Span, in_flight: Option<InFlight>) -> Self {
        counts.started();
        Self { counts, began: Instant::now(), code: Code::Cancelled, span, in_flight }
    }

    /// Sets its code, if that is known already.
    pub const fn ends_with(&mut self, code: Option<Code>) {
        if let Some(code) = code {
            self.code = code;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counts.handled(self.code, self.began.elapsed());
        telemetry::call_ended(&self.span, self.code);
    }
}

/// An answer's body with the call that it ends.
#[derive(Debug)]
pub struct CallBody {
    body: Body,
    call: Option<Call>,
}

/// Bytes of an answer, in flight until the client has made room for them.
#[derive(Debug)]
pub struct AnswerBytes {
    bytes: Bytes,
    _in_flight: Option<InFlight>,
}

impl Buf for AnswerBytes {
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

impl CallBody {
    /// `body` ends `call`.
    pub const fn new(body: Body, call: Call) -> Self {
        Self { body, call: Some(call) }
    }
}

impl http_body::Body for CallBody {
    type Data = AnswerBytes;
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
                let in_flight = self.call.as_mut().and_then(|call| call.in_flight.take());
                AnswerBytes { bytes, _in_flight: in_flight }
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
