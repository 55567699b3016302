//! `GetIndustryTreeMap` as a tonic service: from the message to a request, and from an answer to a response with its metadata.

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Response, Status, metadata::MetadataMap};

use super::{Treemap, refusal::Refusal};
use crate::{
    proto::shorts::v1alpha1::GetIndustryTreeMapRequest,
    treemap::{Request, model::Answer},
};

#[allow(clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/shorts.v1alpha1.ShortedStocksService.rs"));
}
pub use generated::shorted_stocks_service_server::{SERVICE_NAME, ShortedStocksServiceServer};

#[tonic::async_trait]
impl generated::shorted_stocks_service_server::ShortedStocksService for Treemap {
    async fn get_industry_tree_map(
        &self,
        request: tonic::Request<GetIndustryTreeMapRequest>,
    ) -> Result<Response<Answer>, Status> {
        let message = request.get_ref();
        let request = Request::parse(&message.period, message.limit, message.view_mode);
        let answer = match request {
            Ok(request) => self.answer(request).await,
            Err(invalid) => Err(Refusal::Invalid(invalid)),
        };
        let answer = answer.map_err(Refusal::status)?;
        let metadata = freshness(&answer);
        let mut response = Response::new(answer);
        *response.metadata_mut() = metadata;
        Ok(response)
    }
}

/// The initial metadata of an answer: the period that is served, and how fresh the data is.
fn freshness(answer: &Answer) -> MetadataMap {
    static PERIOD: HeaderName = HeaderName::from_static("treemap-period");
    static VERSION: HeaderName = HeaderName::from_static("treemap-version");
    static DATA_DATE: HeaderName = HeaderName::from_static("treemap-data-date");
    static LAST_REFRESHED: HeaderName = HeaderName::from_static("treemap-last-refreshed");
    static STALE: HeaderName = HeaderName::from_static("treemap-stale");
    let model = answer.model();
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(&PERIOD, HeaderValue::from_static(answer.period().name()));
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
