//! The suite's `ConformanceService`: it answers as each request tells it to, and repeats what it has received.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use industry_treemap::protocols::{Call, Codec, Failure, Message, Messages, MethodKind, Reply, Service};
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
    prost::{Message as _, bytes::Bytes},
};
use tonic::{Code, Status};
use tonic_types::pb;

const PACKAGE: &str = "connectrpc.conformance.v1";

/// The service.
#[derive(Clone)]
pub struct Conformance {
    pool: DescriptorPool,
}

/// A method of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Unary,
    IdempotentUnary,
    ServerStream,
    Unimplemented,
}

impl Method {
    const ALL: [Self; 4] = [Self::Unary, Self::IdempotentUnary, Self::ServerStream, Self::Unimplemented];

    const fn name(self) -> &'static str {
        match self {
            Self::Unary => "Unary",
            Self::IdempotentUnary => "IdempotentUnary",
            Self::ServerStream => "ServerStream",
            Self::Unimplemented => "Unimplemented",
        }
    }
}

impl Service for Conformance {
    type Method = Method;

    fn method(&self, path: &str) -> Option<(Method, MethodKind)> {
        let name = path.strip_prefix('/')?.strip_prefix(PACKAGE)?.strip_prefix(".ConformanceService/")?;
        let method = Method::ALL.into_iter().find(|method| method.name() == name)?;
        let kind = MethodKind {
            server_stream: method == Method::ServerStream,
            no_side_effects: method == Method::IdempotentUnary,
        };
        Some((method, kind))
    }

    async fn call(&self, method: Method, call: Call<'_>) -> Result<Reply, Failure> {
        let kind = self.message(&format!("{}Request", method.name()));
        let request = decode(kind, &call).map_err(Status::invalid_argument)?;
        if method == Method::Unimplemented {
            return Err(Status::unimplemented("not implemented").into());
        }
        let info = self.request_info(&request, &call);
        let definition = message(&request, "response_definition");
        let metadata = |name: &str| definition.as_ref().map(|definition| headers(definition, name)).unwrap_or_default();
        let (headers, trailers) = (metadata("response_headers"), metadata("response_trailers"));
        let trailers = (!trailers.is_empty()).then(|| Box::new(trailers));
        let delay = Duration::from_millis(definition.as_ref().map_or(0, |all| number(all, "response_delay_ms")));
        let error = definition.as_ref().and_then(|definition| message(definition, "error"));
        let reply = self.message(&format!("{}Response", method.name()));
        if method != Method::ServerStream {
            tokio::time::sleep(delay).await;
            if let Some(error) = error {
                return Err(Failure { status: status(&error, Some(&info)), headers, trailers });
            }
            let data = definition.map(|definition| bytes(&definition, "response_data")).unwrap_or_default();
            let message = self.payload(reply, data, Some(&info), call.codec);
            return Ok(Reply { headers, trailers, messages: Messages::One(message), entity_tag: None });
        }
        let data = definition.map(|definition| list(&definition, "response_data")).unwrap_or_default();
        let failure = error.map(|error| status(&error, data.is_empty().then_some(&info)));
        let messages = data.iter().enumerate().map(|(place, data)| {
            let data = data.as_bytes().cloned().unwrap_or_default();
            Ok(self.payload(reply.clone(), data, (place == 0).then_some(&info), call.codec))
        });
        let messages: Vec<_> = messages.chain(failure.map(Err)).collect();
        let messages = stream::iter(messages).then(move |message| async move {
            if message.is_ok() {
                tokio::time::sleep(delay).await;
            }
            message
        });
        Ok(Reply { headers, trailers, messages: Messages::Stream(messages.boxed()), entity_tag: None })
    }
}

impl Conformance {
    pub const fn new(pool: DescriptorPool) -> Self {
        Self { pool }
    }

    fn message(&self, name: &str) -> MessageDescriptor {
        self.pool.get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap()
    }

    /// What was received, for the client to compare.
    fn request_info(&self, request: &DynamicMessage, call: &Call<'_>) -> DynamicMessage {
        let mut info = DynamicMessage::new(self.message("ConformancePayload.RequestInfo"));
        let names = call.headers.keys().map(|name| {
            let values = call.headers.get_all(name).iter();
            let values = values.map(|value| Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned()));
            self.header(name.as_str(), values.collect())
        });
        info.set_field_by_name("request_headers", Value::List(names.collect()));
        if let Some(timeout) = call.timeout {
            let milliseconds = i64::try_from(timeout.as_millis()).unwrap();
            info.set_field_by_name("timeout_ms", Value::I64(milliseconds));
        }
        info.set_field_by_name("requests", Value::List(vec![Value::Message(self.any(request))]));
        if let Some(query) = call.query {
            let mut get = DynamicMessage::new(self.message("ConformancePayload.ConnectGetInfo"));
            let parameters = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| {
                let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
                self.header(name, vec![Value::String(value)])
            });
            get.set_field_by_name("query_params", Value::List(parameters.collect()));
            info.set_field_by_name("connect_get_info", Value::Message(get));
        }
        info
    }

    fn header(&self, name: &str, values: Vec<Value>) -> Value {
        let mut header = DynamicMessage::new(self.message("Header"));
        header.set_field_by_name("name", Value::String(name.to_owned()));
        header.set_field_by_name("value", Value::List(values));
        Value::Message(header)
    }

    fn any(&self, message: &DynamicMessage) -> DynamicMessage {
        let mut any = DynamicMessage::new(self.pool.get_message_by_name("google.protobuf.Any").unwrap());
        any.set_field_by_name("type_url", Value::String(type_url(message)));
        any.set_field_by_name("value", bytes_value(message.encode_to_vec().into()));
        any
    }

    fn payload(&self, reply: MessageDescriptor, data: Bytes, info: Option<&DynamicMessage>, codec: Codec) -> Message {
        let mut payload = DynamicMessage::new(self.message("ConformancePayload"));
        payload.set_field_by_name("data", bytes_value(data));
        if let Some(info) = info {
            payload.set_field_by_name("request_info", Value::Message(info.clone()));
        }
        let mut reply = DynamicMessage::new(reply);
        reply.set_field_by_name("payload", Value::Message(payload));
        match codec {
            Codec::Proto => Message::new(&reply.encode_to_vec()),
            Codec::Json => {
                let mut json = serde_json::Serializer::new(Vec::new());
                reply.serialize_with_options(&mut json, &SerializeOptions::new()).unwrap();
                Message::new(&json.into_inner())
            }
        }
    }
}

fn decode(kind: MessageDescriptor, call: &Call<'_>) -> Result<DynamicMessage, String> {
    match call.codec {
        Codec::Proto => DynamicMessage::decode(kind, &call.message[..]).map_err(|error| error.to_string()),
        Codec::Json => {
            let mut json = serde_json::Deserializer::from_slice(&call.message);
            DynamicMessage::deserialize(kind, &mut json).map_err(|error| error.to_string())
        }
    }
}

fn type_url(message: &DynamicMessage) -> String {
    format!("type.googleapis.com/{}", message.descriptor().full_name())
}

/// An error as a status, with what was received among its details.
fn status(error: &DynamicMessage, info: Option<&DynamicMessage>) -> Status {
    let code = error.get_field_by_name("code").unwrap().as_enum_number().unwrap();
    let message = error.get_field_by_name("message").unwrap().as_str().unwrap_or_default().to_owned();
    let details = list(error, "details").into_iter().filter_map(|detail| {
        let any = detail.as_message()?;
        let type_url = any.get_field_by_name("type_url")?.as_str()?.to_owned();
        Some(prost_types::Any { type_url, value: bytes(any, "value").to_vec() })
    });
    let info = info.map(|info| prost_types::Any { type_url: type_url(info), value: info.encode_to_vec() });
    let all = pb::Status { code, message: message.clone(), details: details.chain(info).collect() };
    Status::with_details(Code::from_i32(code), message, all.encode_to_vec().into())
}

fn headers(definition: &DynamicMessage, field: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for header in list(definition, field) {
        let header = header.as_message().unwrap().clone();
        let name = header.get_field_by_name("name").unwrap().as_str().unwrap().parse::<HeaderName>().unwrap();
        for value in list(&header, "value") {
            headers.append(name.clone(), HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
    }
    headers
}

fn message(of: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    of.has_field_by_name(field).then(|| of.get_field_by_name(field).unwrap().as_message().unwrap().clone())
}

fn list(of: &DynamicMessage, field: &str) -> Vec<Value> {
    of.get_field_by_name(field).unwrap().as_list().map(<[_]>::to_vec).unwrap_or_default()
}

/// A field of bytes.
pub fn bytes(of: &DynamicMessage, field: &str) -> Bytes {
    of.get_field_by_name(field).unwrap().as_bytes().cloned().unwrap_or_default()
}

/// A value of bytes.
pub const fn bytes_value(bytes: Bytes) -> Value {
    Value::Bytes(bytes)
}

/// A field of a number.
pub fn number(of: &DynamicMessage, field: &str) -> u64 {
    of.get_field_by_name(field).unwrap().as_u32().unwrap_or_default().into()
}
