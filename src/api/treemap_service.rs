//! `GetIndustryTreeMap` for every protocol: from the message to a request, and from an answer to a message with its metadata.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tonic::{Response, Status, metadata::MetadataMap};

use super::{
    Treemap, json,
    message::Message,
    refusal::Refusal,
    service::{Call, Codec, Failure, Messages, MethodKind, Reply, Service},
};
use crate::{
    proto::shorts::v1alpha1::GetIndustryTreeMapRequest,
    treemap::{Request, model::Answer},
};

#[allow(clippy::all, clippy::pedantic, dead_code)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/shorts.v1alpha1.ShortedStocksService.rs"));
}
pub use generated::shorted_stocks_service_server::SERVICE_NAME;
use generated::shorted_stocks_service_server::ShortedStocksService;

/// The path of the method.
pub const PATH: &str = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";

#[tonic::async_trait]
impl ShortedStocksService for Treemap {
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

impl Service for Treemap {
    type Method = ();

    fn method(&self, path: &str) -> Option<((), MethodKind)> {
        (path == PATH).then_some(((), MethodKind { server_stream: false, no_side_effects: true }))
    }

    async fn call(&self, (): (), call: Call) -> Result<Reply, Failure> {
        let request =
            decode(&call).map_err(|problem| Status::invalid_argument(format!("unmarshal message: {problem}")))?;
        let response = self.get_industry_tree_map(tonic::Request::new(request)).await?;
        let (metadata, answer, _) = response.into_parts();
        Ok(Reply {
            headers: metadata.into_headers(),
            entity_tag: Some(answer.model().entity_tag.clone()),
            messages: Messages::One(encode(&answer, call.codec, call.gzip)),
            trailers: HeaderMap::new(),
        })
    }
}

fn decode(call: &Call) -> Result<GetIndustryTreeMapRequest, String> {
    match call.codec {
        Codec::Json => json::read_request(&call.message),
        Codec::Proto => GetIndustryTreeMapRequest::decode(&call.message[..]).map_err(|error| error.to_string()),
    }
}

/// The message of an answer, made and compressed once for a model.
fn encode(answer: &Answer, codec: Codec, gzip: bool) -> Message {
    let make = |slices: &mut dyn Iterator<Item = &[u8]>| -> Bytes {
        let slices: Vec<_> = slices.collect();
        let length = slices.iter().map(|slice| slice.len()).sum();
        let message = Message::of_slices(length, slices.into_iter());
        if gzip { message.gzip() } else { message }.envelope()
    };
    Message::of_envelope(answer.once(u8::from(codec == Codec::Json) + 2 * u8::from(gzip), || match codec {
        Codec::Proto => make(&mut answer.proto()),
        Codec::Json => make(&mut answer.json()),
    }))
}

/// The initial metadata of an answer: the period that is served, and how fresh the data is.
fn freshness(answer: &Answer) -> MetadataMap {
    static PERIOD: HeaderName = HeaderName::from_static("treemap-period");
    static VERSION: HeaderName = HeaderName::from_static("treemap-version");
    static DATA_DATE: HeaderName = HeaderName::from_static("treemap-data-date");
    static LAST_REFRESHED: HeaderName = HeaderName::from_static("treemap-last-refreshed");
    static STALE: HeaderName = HeaderName::from_static("treemap-stale");
    let model = answer.model();
    let mut headers = HeaderMap::with_capacity(6);
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
