//! The Connect protocol: unary calls by POST and GET, and the envelopes of streams.
//! <https://connectrpc.com/docs/protocol>

use std::time::Duration;

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::pb;

use super::{
    body::{Body, frames, response},
    message::{decompress, envelope},
    protocol::{Asked, Protocol, Settings},
    query::Query,
    refusal::{Refusal, in_connect},
    request::{Head, names},
    service::{Failure, Messages, Reply},
};

static STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
static STREAM_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");
static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
static TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
static GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// The flag of the envelope that ends a stream.
const END_STREAM: u8 = 2;
/// What trailers are called among the headers of a unary response.
const TRAILER: &str = "trailer-";
/// Base64 as in a query: padding is optional.
const QUERY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads what the headers of a request say; those of a GET stand in its query.
pub fn head(headers: &HeaderMap, asked: &Asked) -> Result<Head, Status> {
    if let Some(version) = headers.get(&PROTOCOL_VERSION).filter(|version| !version.is_empty())
        && version != "1"
    {
        let words = format!("Connect-Protocol-Version must be \"1\": got {version:?}");
        return Err(Status::invalid_argument(words));
    }
    let timeout = headers.get(&TIMEOUT).filter(|value| !value.is_empty()).map(timeout).transpose()?;
    let (encoding, accept) = match asked.protocol {
        Protocol::ConnectStream => (&STREAM_ENCODING, &STREAM_ACCEPT_ENCODING),
        _ => (&header::CONTENT_ENCODING, &header::ACCEPT_ENCODING),
    };
    let (gzip_in, gzip_out) = Head::compression(headers, encoding, accept)?;
    // Who sends gzip takes it.
    Ok(Head { timeout, gzip_in, gzip_out: gzip_out || gzip_in })
}

/// A `Connect-Timeout-Ms`: up to ten digits.
fn timeout(value: &HeaderValue) -> Result<Duration, Status> {
    let text = value.to_str().unwrap_or_default();
    if text.starts_with('-') && text[1..].parse::<u64>().is_ok() {
        return Err(Status::invalid_argument(format!("parse timeout: {text:?} is negative")));
    }
    if text.len() > 10 && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Status::invalid_argument(format!("parse timeout: {text:?} has >10 digits")));
    }
    let milliseconds = text.parse().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()));
    let invalid = || Status::invalid_argument(format!("parse timeout: {text:?} is not a number of milliseconds"));
    milliseconds.map(Duration::from_millis).ok_or_else(invalid)
}

/// The message of a unary POST: its body.
pub fn message(body: Bytes, gzip: bool, limit: usize) -> Result<Bytes, Status> {
    if gzip {
        return decompress(&body, limit);
    }
    if body.len() > limit { Err(Refusal::TooLarge.status()) } else { Ok(body) }
}

/// The message of a GET.
pub fn message_of_query(query: Query<'_>, asked: &mut Asked, limit: usize) -> Result<Bytes, Status> {
    if let Some(version) = query.value("connect").filter(|version| !version.is_empty())
        && version != "v1"
    {
        return Err(Status::invalid_argument(format!("connect must be \"v1\": got {version:?}")));
    }
    let gzip = match query.value("compression").as_deref() {
        None | Some("" | "identity") => false,
        Some("gzip") => true,
        Some(other) => {
            let words = format!("unknown compression {other:?}: supported encodings are gzip");
            return Err(Status::unimplemented(words));
        }
    };
    asked.gzip |= gzip;
    let missing = || Status::invalid_argument("missing message parameter");
    let mut bytes = query.bytes("message").ok_or_else(missing)?;
    if query.value("base64").as_deref() == Some("1") {
        let decoded = QUERY_BASE64.decode(&bytes);
        let illegal = |error| Status::invalid_argument(format!("read message: illegal base64 data: {error}"));
        bytes = decoded.map_err(illegal)?.into();
    }
    message(bytes, gzip, limit)
}

/// The reply of a unary call.
pub fn render(asked: &Asked, settings: &Settings, result: Result<Reply, Failure>) -> Response<Body> {
    match result {
        Ok(reply) => render_reply(asked, settings, reply),
        Err(failure) => render_failure(failure),
    }
}

fn render_reply(asked: &Asked, settings: &Settings, reply: Reply) -> Response<Body> {
    let Reply { mut headers, trailers, messages, entity_tag } = reply;
    let Messages::One(message) = messages else {
        return render_failure(Status::internal("a unary method has answered with a stream").into());
    };
    add_trailers(trailers, &mut headers);
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Origin"));
    let mut not_modified = false;
    if let Some(get) = &asked.get {
        headers.insert(header::CACHE_CONTROL, settings.cache_control.clone());
        if let Some(tag) = entity_tag {
            not_modified = get.if_none_match.iter().any(|known| names(known, &tag));
            headers.insert(header::ETAG, tag);
        }
    }
    if not_modified {
        headers.remove(header::CONTENT_TYPE);
        let mut response = response(headers, Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.content_type));
    headers.insert(header::ACCEPT_ENCODING, GZIP.clone());
    let message = asked.compressed(message);
    if message.is_compressed() {
        headers.insert(header::CONTENT_ENCODING, GZIP.clone());
    }
    response(headers, Body::whole(message.bytes()))
}

fn render_failure(failure: Failure) -> Response<Body> {
    let Failure { status, mut headers, trailers } = failure;
    let (_, http) = in_connect(status.code());
    add_trailers(trailers, &mut headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Origin"));
    let mut response = response(headers, Body::whole(error(&status).to_string().into()));
    *response.status_mut() = http;
    response
}

/// The reply of a call with a stream: also a failure is a stream, of its end alone.
pub fn render_stream(asked: &Asked, result: Result<Reply, Failure>) -> Response<Body> {
    let (mut headers, body) = match result {
        Ok(Reply { headers, trailers, messages, .. }) => {
            let messages = match messages {
                Messages::Stream(messages) => messages,
                Messages::One(message) => stream::once(async { Ok(message) }).boxed(),
            };
            let end = move |status: Option<Status>| Frame::data(end(status.as_ref(), trailers.as_deref()));
            (headers, Body::stream(frames(messages, asked.gzip, end)))
        }
        Err(Failure { status, headers, trailers }) => (headers, Body::whole(end(Some(&status), trailers.as_deref()))),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.content_type));
    headers.insert(&STREAM_ACCEPT_ENCODING, GZIP.clone());
    if asked.gzip {
        headers.insert(&STREAM_ENCODING, GZIP.clone());
    }
    response(headers, body)
}

/// The last envelope of a stream: how it ended, and the trailers.
fn end(status: Option<&Status>, trailers: Option<&HeaderMap>) -> Bytes {
    let mut end = json!({});
    if let Some(status) = status {
        end["error"] = error(status);
    }
    if let Some(trailers) = trailers {
        let values = |name: &HeaderName| {
            let values =
                trailers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            Value::from(values.collect::<Vec<_>>())
        };
        end["metadata"] = trailers.keys().map(|name| (name.as_str().to_owned(), values(name))).collect::<Value>();
    }
    envelope(END_STREAM, end.to_string().as_bytes())
}

/// An error as Connect has it.
fn error(status: &Status) -> Value {
    let mut error = json!({ "code": in_connect(status.code()).0 });
    if !status.message().is_empty() {
        error["message"] = status.message().into();
    }
    let details = pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    if !details.is_empty() {
        let details = details.into_iter().map(|detail| {
            let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
            json!({ "type": kind, "value": STANDARD_NO_PAD.encode(detail.value) })
        });
        error["details"] = details.collect();
    }
    error
}

/// Trailing metadata of a unary response are headers with a prefix.
fn add_trailers(trailers: Option<Box<HeaderMap>>, headers: &mut HeaderMap) {
    let mut last = None;
    for (name, value) in trailers.into_iter().flat_map(|trailers| *trailers) {
        // A name is given only with the first of its values.
        last = name.or(last);
        if let Some(name) = last.as_ref().and_then(|name| HeaderName::try_from(format!("{TRAILER}{name}")).ok()) {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::api::{
        message::tests::{damage, is_read_or_refused},
        service::Codec,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_query_and_every_body_is_a_message_or_is_refused(
            content in vec(any::<u8>(), 0..200),
            gzip: bool,
            damage in damage(),
            random in "[ -~]{0,80}",
            timeout in "-?[0-9]{0,12}|[ -~]{0,12}",
        ) {
            let query = |compression: &str| {
                let message = QUERY_BASE64.encode(&content);
                format!("connect=v1&encoding=proto&compression={compression}&base64=1&message={message}")
            };
            let read = |query: &str| {
                // What is no URL does not come so far.
                let uri = format!("/?{query}").parse().ok()?;
                let (protocol, codec) = (Protocol::Connect, Codec::Proto);
                let content_type = "application/proto";
                let mut asked = Asked { protocol, codec, content_type, gzip: false, http1: true, get: None };
                Some(message_of_query(Query::of(&uri), &mut asked, 200))
            };
            let sound = read(&query("identity")).unwrap().unwrap();
            prop_assert_eq!(&sound[..], &content[..]);
            let damaged = damage.of(query(if gzip { "gzip" } else { "identity" }).into_bytes());
            let queries = [String::from_utf8_lossy(&damaged).into_owned(), format!("message={random}"), random];
            for result in queries.iter().filter_map(|query| read(query)) {
                is_read_or_refused(result, 200)?;
            }
            is_read_or_refused(message(damage.of(content.clone()).into(), gzip, 100), 100)?;
            if let Err(status) = super::timeout(&HeaderValue::from_str(&timeout).unwrap()) {
                prop_assert_eq!(status.code(), tonic::Code::InvalidArgument);
            }
        }
    }

    #[test]
    fn a_timeout_is_a_number_of_milliseconds_with_up_to_ten_digits() {
        let read =
            |text: &str| timeout(&HeaderValue::from_str(text).unwrap()).map_err(|status| status.message().to_owned());
        assert_eq!(read("5000"), Ok(Duration::from_secs(5)));
        assert_eq!(read("0"), Ok(Duration::ZERO));
        assert_eq!(read("9999999999"), Ok(Duration::from_millis(9_999_999_999)));
        assert_eq!(read("10000000000"), Err("parse timeout: \"10000000000\" has >10 digits".into()));
        assert_eq!(read("-1"), Err("parse timeout: \"-1\" is negative".into()));
        assert!(read("soon").is_err() && read("+5").is_err() && read("1.5").is_err());
    }
}
