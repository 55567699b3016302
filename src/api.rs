//! From a call to an answer, and back to bytes.
//!
//! - here: one answer or one refusal for a checked request, whatever the protocol
//! - [`refusal`]: what each refusal is in each protocol
//! - [`grpc`]: `GetIndustryTreeMap` as a tonic service; [`codec`] writes its answers
//! - [`calls`]: what happens to every call: routing, limits, deadline, counting, tracing; [`call`]: one of them, to its last byte
//! - [`in_flight`]: how many calls are being answered, and whether they end
//! - [`services`]: health and reflection

pub mod call;
pub mod calls;
pub mod codec;
pub mod grpc;
pub mod in_flight;
pub mod refusal;
pub mod services;

use std::{sync::Arc, time::Duration};

use self::refusal::Refusal;
use crate::treemap::{Request, model::Answer, read_model::ReadModel};

/// How long a request waits for the first model; its deadline may end that sooner.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Answers requests from the current model.
#[derive(Debug, Clone)]
pub struct Treemap {
    read_model: Arc<ReadModel>,
}

impl Treemap {
    /// Answers from `read_model`.
    pub const fn new(read_model: Arc<ReadModel>) -> Self {
        Self { read_model }
    }

    /// The answer of the current model, or of the first one when the server has just started.
    pub async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        let model = match self.read_model.current() {
            Some(model) => Some(model),
            None => tokio::time::timeout(LONGEST_WAIT, self.read_model.first()).await.ok().flatten(),
        };
        model.map(|model| Answer::new(model, request)).ok_or(Refusal::NotLoaded)
    }
}
