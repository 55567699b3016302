//! `GetIndustryTreeMap`: from proto to domain to read model to wire, and what goes wrong to gRPC status.

pub mod codec;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tonic::{
    Code, Response, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    proto::shorts::v1alpha1::GetIndustryTreeMapRequest,
    read_model::{Answer, Model, ReadModel},
    treemap::{InvalidRequest, Period, Request},
};

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/shorts.v1alpha1.ShortedStocksService.rs"));
}
pub use generated::shorted_stocks_service_server::{SERVICE_NAME, ShortedStocksServiceServer};

/// How long a request without a deadline of its own waits for the first model.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// When a client that found no model should come back.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The service, answering from a read model.
#[derive(Debug, Clone)]
pub struct TreemapService {
    read_model: Arc<ReadModel>,
}

impl TreemapService {
    /// A service that answers from `read_model`.
    #[must_use]
    pub const fn new(read_model: Arc<ReadModel>) -> Self {
        Self { read_model }
    }

    /// The current model, or the first one when the server has just started.
    async fn model(&self, metadata: &MetadataMap) -> Result<Arc<Model>, Status> {
        if let Some(model) = self.read_model.current() {
            return Ok(model);
        }
        let deadline = deadline(metadata);
        let wait = deadline.map_or(LONGEST_WAIT, |left| left.min(LONGEST_WAIT));
        match tokio::time::timeout(wait, self.read_model.first()).await {
            Ok(Some(model)) => Ok(model),
            Err(_) if deadline.is_some_and(|left| left <= LONGEST_WAIT) => {
                Err(Status::deadline_exceeded("the treemap was not loaded before the deadline"))
            }
            Ok(None) | Err(_) => Err(Status::with_error_details(
                Code::Unavailable,
                "the treemap is not loaded yet; the server goes on trying",
                ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
            )),
        }
    }
}

#[tonic::async_trait]
impl generated::shorted_stocks_service_server::ShortedStocksService for TreemapService {
    async fn get_industry_tree_map(
        &self,
        request: tonic::Request<GetIndustryTreeMapRequest>,
    ) -> Result<Response<Answer>, Status> {
        let message = request.get_ref();
        let treemap_request = Request::parse(&message.period, message.limit, message.view_mode).map_err(refuse)?;
        let model = self.model(request.metadata()).await?;
        let mut response = Response::new(Answer::new(model, treemap_request));
        let metadata = freshness(response.get_ref());
        *response.metadata_mut() = metadata;
        Ok(response)
    }
}

fn refuse(invalid: InvalidRequest) -> Status {
    Status::with_error_details(
        Code::InvalidArgument,
        invalid.message,
        ErrorDetails::with_bad_request_violation(invalid.field, invalid.message),
    )
}

/// The initial metadata of an answer: what served it, and how fresh it is.
fn freshness(answer: &Answer) -> MetadataMap {
    let model = answer.model();
    let mut metadata = MetadataMap::with_capacity(8);
    metadata.insert("treemap-period", MetadataValue::from_static(Period::name(answer.period())));
    let text = |bytes: &Bytes| MetadataValue::<Ascii>::try_from(bytes.clone()).ok();
    let dated = [
        ("treemap-version", Some(&model.version)),
        ("treemap-data-date", model.data_date.as_ref()),
        ("treemap-last-refreshed", model.last_refreshed.as_ref()),
    ];
    for (key, value) in dated {
        if let Some(value) = value.and_then(text) {
            metadata.insert(key, value);
        }
    }
    if SystemTime::now() >= model.stale_from {
        metadata.insert("treemap-stale", MetadataValue::from_static("true"));
    }
    metadata
}

/// How long the client still waits, less a margin: tonic counts the same deadline since a little earlier, and answers
/// CANCELLED if it gets there first.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let nanoseconds: u64 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    // The protocol allows eight digits; a longer wait than u64 nanoseconds is no deadline.
    let left = digits.parse::<u32>().ok().and_then(|count| nanoseconds.checked_mul(count.into()))?;
    let left = Duration::from_nanos(left);
    Some(left.saturating_sub((left / 10).max(Duration::from_millis(10))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_every_unit_and_nonsense_is_none() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("10S"), Some(Duration::from_secs(9)));
        assert_eq!(read("100m"), Some(Duration::from_millis(90)));
        assert_eq!(read("50000u"), Some(Duration::from_millis(40)));
        assert_eq!(read("10n"), Some(Duration::ZERO));
        assert_eq!(read("1M"), Some(Duration::from_secs(54)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3240)));
        for nonsense in ["", "S", "10", "10x", "-1S", "99999999H", "\u{e9}"] {
            let mut metadata = MetadataMap::new();
            if let Ok(value) = nonsense.parse() {
                metadata.insert("grpc-timeout", value);
            }
            assert_eq!(deadline(&metadata), None, "{nonsense:?}");
        }
    }
}
