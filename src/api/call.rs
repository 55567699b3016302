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
    span: Span,
    watcher: Option<Watcher>,
    stream: Option<OpenStream>,
}

impl Call {
    /// A call has arrived.
    pub fn begin(counts: Arc<MethodMetrics>, span: Span) -> Self {
        counts.started();
        Self { counts, began: Instant::now(), code: Code::Cancelled, span, watcher: None, stream: None }
    }

    /// It is a stream of treemaps.
    pub fn holds(&mut self, watcher: Option<Watcher>) {
        self.watcher = watcher;
    }

    /// It is a stream of health or reflection, one of a few.
    pub fn holds_stream(&mut self, stream: OpenStream) {
        self.stream = Some(stream);
    }

    /// The protocol that it came by.
    pub fn speaks(&self, protocol: &'static str) {
        telemetry::call_protocol(&self.span, protocol);
    }

    /// It is over, with this code.
    pub fn ended(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counts.handled(self.code, self.began.elapsed());
        telemetry::call_ended(&self.span, self.code);
    }
}
