//! From a call to an answer, and back to bytes.
//!
//! - here: one answer or one refusal for a checked request, whatever the protocol
//! - [`calls`]: what happens to every call: routing, limits, counting, tracing; [`call`]: one of them, to its last byte
//! - [`protocol`]: which protocol a request speaks, and the way that all share; [`connect`], [`grpc`]: what is each one's own
//! - [`service`]: what stands between a protocol and a service; [`treemap_service`]: the treemap's methods; [`treemap_v1`]: the messages of
//!   the richer service; [`watch`]: its stream
//! - [`pictures`]: the page, the SVG and the CSV, by GET
//! - [`request`], [`query`], [`json`]: requests; [`message`], [`body`]: messages in envelopes, bodies of responses
//! - [`refusal`]: what each refusal is in each protocol; [`cors`]: which browsers may call
//! - [`in_flight`]: how many calls are being answered, and whether they end
//! - [`services`]: health and reflection

pub mod body;
mod call;
pub mod calls;
mod connect;
pub mod cors;
mod grpc;
pub mod in_flight;
mod json;
pub mod message;
mod pictures;
pub mod protocol;
mod query;
mod refusal;
pub mod request;
pub mod service;
pub mod services;
mod treemap_service;
pub mod treemap_v1;
mod watch;

use std::{sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;

use self::refusal::Refusal;
use crate::{
    metrics::Metrics,
    treemap::{Request, model::Answer, read_model::ReadModel},
};

/// How long a request waits for the first model; its deadline may end that sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Answers requests from the current model.
#[derive(Debug, Clone)]
pub struct Treemap {
    read_model: Arc<ReadModel>,
    /// How long a stream of treemaps is silent at most.
    heartbeat: Duration,
    watch_messages: Counter,
}

impl Treemap {
    /// Answers from `read_model`.
    pub fn new(read_model: Arc<ReadModel>, heartbeat: Duration, metrics: &Metrics) -> Self {
        Self { read_model, heartbeat, watch_messages: metrics.watch_messages.clone() }
    }

    /// Why no request can be answered; `None` when they can.
    pub fn missing(&self) -> Option<String> {
        self.read_model.missing()
    }

    /// The answer of the current model, or of the first one when the server has just started.
    pub async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        let model = match self.read_model.current() {
            Some(model) => Some(model),
            // Boxed, since it is rare: see `request::in_time`.
            None => Box::pin(tokio::time::timeout(LONGEST_WAIT, self.read_model.first())).await.ok().flatten(),
        };
        model.map(|model| Answer::new(model, request)).ok_or(Refusal::NotLoaded)
    }
}
