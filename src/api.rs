//! `GetIndustryTreeMap`: from proto to domain to read model to wire, and what goes wrong to gRPC status.

pub mod calls;
pub mod codec;
pub mod in_flight;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Response, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    proto::shorts::v1alpha1::GetIndustryTreeMapRequest,
    treemap::{
        InvalidRequest, Period, Request,
        model::{Answer, Model, ReadModel},
    },
};

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/shorts.v1alpha1.ShortedStocksService.rs"));
}
pub use generated::shorted_stocks_service_server::{SERVICE_NAME, ShortedStocksServiceServer};

/// How long a request waits for the first model; its deadline, which is seen to in [`calls`], may end that sooner.
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
    async fn model(&self) -> Result<Arc<Model>, Status> {
        if let Some(model) = self.read_model.current() {
            return Ok(model);
        }
        tokio::time::timeout(LONGEST_WAIT, self.read_model.first()).await.ok().flatten().ok_or_else(|| {
            Status::with_error_details(
                Code::Unavailable,
                "the treemap is not loaded yet; the server goes on trying",
                ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
            )
        })
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
        let model = self.model().await?;
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
    static PERIOD: HeaderName = HeaderName::from_static("treemap-period");
    static VERSION: HeaderName = HeaderName::from_static("treemap-version");
    static DATA_DATE: HeaderName = HeaderName::from_static("treemap-data-date");
    static LAST_REFRESHED: HeaderName = HeaderName::from_static("treemap-last-refreshed");
    static STALE: HeaderName = HeaderName::from_static("treemap-stale");
    let model = answer.model();
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(&PERIOD, HeaderValue::from_static(Period::name(answer.period())));
    headers.insert(&VERSION, model.version.clone());
    for (name, value) in [(&DATA_DATE, &model.data_date), (&LAST_REFRESHED, &model.last_refreshed)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    if model.is_stale() {
        headers.insert(&STALE, HeaderValue::from_static("true"));
    }
    MetadataMap::from_headers(headers)
}
