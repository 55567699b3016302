//! One call from its start to the last byte that its client makes room for: counted and traced.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Span;

use super::in_flight::{OpenStream, Watcher};
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
    /// Present where calls are traced.
    span: Option<Box<Span>>,
    held: Option<Held>,
}

/// What a stream holds until it is over.
#[derive(Debug)]
pub enum Held {
    /// It is a stream of treemaps.
    Watcher(Watcher),
    /// It is a stream of health or reflection, one of a few.
    Stream(OpenStream),
}

impl Call {
    /// A call has arrived.
    pub fn begin(counts: Arc<MethodMetrics>, span: Span) -> Self {
        counts.started();
        let span = (!span.is_none()).then(|| Box::new(span));
        Self { counts, began: Instant::now(), code: Code::Cancelled, span, held: None }
    }

    /// It is a stream.
    pub fn holds(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// The protocol that it came by.
    pub fn speaks(&self, protocol: &'static str) {
        if let Some(span) = &self.span {
            telemetry::call_protocol(span, protocol);
        }
    }

    /// It is over, with this code.
    pub fn ended(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counts.handled(self.code, self.began.elapsed());
        if let Some(span) = &self.span {
            telemetry::call_ended(span, self.code);
        }
    }
}
