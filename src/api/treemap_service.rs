//! The treemap's methods for every protocol: from a message to a checked request, and from an answer to a message with its metadata.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use super::{
    Treemap,
    in_flight::Counts,
    json::{self, Fields},
    message::Message,
    refusal::Refusal,
    service::{Call, Codec, Failure, Messages, MethodKind, Reply, Service},
    treemap_v1, watch,
};
use crate::{
    metrics,
    proto::{shorts::v1alpha1 as published, treemap::v1},
    treemap::{Request, model::Answer},
};

/// The services, by their full names.
pub const SERVICE_NAMES: [&str; 2] = [PUBLISHED, V1];
const PUBLISHED: &str = "shorts.v1alpha1.ShortedStocksService";
const V1: &str = "treemap.v1.TreemapService";

/// A method of the treemap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The published one.
    GetIndustryTreeMap,
    /// The same with all that is known of each stock.
    GetTreemap,
    /// That as a stream.
    WatchTreemap,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GetIndustryTreeMap, Self::GetTreemap, Self::WatchTreemap];

    /// For metrics and traces.
    pub const fn labels(self) -> metrics::Method {
        let (grpc_type, grpc_service, grpc_method) = match self {
            Self::GetIndustryTreeMap => ("unary", PUBLISHED, "GetIndustryTreeMap"),
            Self::GetTreemap => ("unary", V1, "GetTreemap"),
            Self::WatchTreemap => ("server_stream", V1, "WatchTreemap"),
        };
        metrics::Method { grpc_type, grpc_service, grpc_method }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::GetIndustryTreeMap => "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap",
            Self::GetTreemap => "/treemap.v1.TreemapService/GetTreemap",
            Self::WatchTreemap => "/treemap.v1.TreemapService/WatchTreemap",
        }
    }

    fn fields(self, call: &Call<'_>) -> Result<Fields, String> {
        let message = &call.message[..];
        if call.codec == Codec::Json {
            let number: fn(&str) -> Option<i32> = match self {
                Self::GetIndustryTreeMap => |name| published::ViewMode::from_str_name(name).map(Into::into),
                Self::GetTreemap | Self::WatchTreemap => |name| v1::ViewMode::from_str_name(name).map(Into::into),
            };
            return json::read_request(message, number, self == Self::WatchTreemap);
        }
        let fields = match self {
            Self::GetIndustryTreeMap => published::GetIndustryTreeMapRequest::decode(message).map(|request| Fields {
                period: request.period,
                limit: request.limit,
                view_mode: request.view_mode,
                version: String::new(),
            }),
            Self::GetTreemap => v1::GetTreemapRequest::decode(message).map(|request| Fields {
                period: request.period,
                limit: request.limit,
                view_mode: request.view_mode,
                version: String::new(),
            }),
            Self::WatchTreemap => v1::WatchTreemapRequest::decode(message).map(|request| Fields {
                period: request.period,
                limit: request.limit,
                view_mode: request.view_mode,
                version: request.version,
            }),
        };
        fields.map_err(|error| error.to_string())
    }
}

impl Service for Treemap {
    type Method = Method;

    fn method(&self, path: &str) -> Option<(Method, MethodKind)> {
        let method = Method::ALL.into_iter().find(|method| method.path() == path)?;
        let server_stream = method == Method::WatchTreemap;
        Some((method, MethodKind { server_stream, no_side_effects: !server_stream }))
    }

    async fn call(&self, method: Method, call: Call<'_>) -> Result<Reply, Failure> {
        let unreadable = |problem| Status::invalid_argument(format!("unmarshal message: {problem}"));
        let fields = method.fields(&call).map_err(unreadable)?;
        let request = match method {
            Method::GetIndustryTreeMap => Request::parse(&fields.period, fields.limit, fields.view_mode),
            Method::GetTreemap | Method::WatchTreemap => {
                treemap_v1::parse(&fields.period, fields.limit, fields.view_mode)
            }
        };
        let request = request.map_err(|invalid| Refusal::Invalid(invalid).status())?;
        let answer = self.answer(request).await.map_err(Refusal::status)?;
        let headers = answer.metadata();
        let (entity_tag, messages) = match method {
            Method::GetIndustryTreeMap => {
                let message = encode(&answer, call.codec, call.gzip, call.connection).map_err(Refusal::status)?;
                (answer.model().entity_tag.clone(), Messages::One(message))
            }
            Method::GetTreemap => {
                let message = treemap_v1::message(&answer, treemap_v1::Of::Get, call.codec, call.gzip, call.connection);
                let message = message.map_err(Refusal::status)?;
                (answer.model().entity_tag_with_freshness(), Messages::One(message))
            }
            Method::WatchTreemap => {
                let messages = watch::treemaps(self.clone(), request, fields.version, call);
                return Ok(Reply { headers, messages: Messages::Stream(messages), ..Reply::default() });
            }
        };
        Ok(Reply { headers, entity_tag: Some(entity_tag), messages, trailers: None })
    }
}

/// The published message of an answer, made and compressed once for a model.
fn encode(answer: &Answer, codec: Codec, gzip: bool, connection: &Arc<Counts>) -> Result<Message, Refusal> {
    let make = |slices: &mut dyn Iterator<Item = &[u8]>| -> Bytes {
        let slices: Vec<_> = slices.collect();
        let length = slices.iter().map(|slice| slice.len()).sum();
        let message = Message::of_slices(length, slices.into_iter());
        if gzip { message.gzip() } else { message }.envelope()
    };
    let form = u8::from(codec == Codec::Json) + 2 * u8::from(gzip);
    let encoded = answer.once(form, || {
        connection.make(|| match codec {
            Codec::Proto => make(&mut answer.proto()),
            Codec::Json => make(&mut answer.json()),
        })
    });
    encoded.map(Message::of_envelope)
}
