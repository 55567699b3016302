//! Which protocol a request speaks, and the way that all of them share: read the request whole, call the service, render its reply.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::poll;
use http::{HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Version, header};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::{
    body::Body,
    connect, grpc,
    in_flight::{Counts, Place},
    message::Message,
    query::Query,
    refusal::Refusal,
    request::{COMPLETE_WITHIN, RequestBody, discard_in_time, in_time, read},
    service::{Call, Codec, Failure, MethodKind, Reply, Service},
};

/// The protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// gRPC-Web, binary or in base64.
    GrpcWeb {
        /// In base64.
        text: bool,
    },
    /// A unary call of Connect.
    Connect,
    /// A call of Connect whose messages are in envelopes.
    ConnectStream,
}

impl Protocol {
    /// The names in metrics.
    pub const NAMES: [&str; 3] = ["grpc", "grpc_web", "connect"];

    /// The place of its name.
    pub const fn index(self) -> usize {
        match self {
            Self::Grpc => 0,
            Self::GrpcWeb { .. } => 1,
            Self::Connect | Self::ConnectStream => 2,
        }
    }
}

/// The content types that are served, in lower case and without spaces.
static TYPES: [(&str, Protocol, Codec); 15] = [
    ("application/grpc", Protocol::Grpc, Codec::Proto),
    ("application/grpc+proto", Protocol::Grpc, Codec::Proto),
    ("application/grpc+json", Protocol::Grpc, Codec::Json),
    ("application/grpc+json; charset=utf-8", Protocol::Grpc, Codec::Json),
    ("application/grpc-web", Protocol::GrpcWeb { text: false }, Codec::Proto),
    ("application/grpc-web+proto", Protocol::GrpcWeb { text: false }, Codec::Proto),
    ("application/grpc-web+json", Protocol::GrpcWeb { text: false }, Codec::Json),
    ("application/grpc-web+json; charset=utf-8", Protocol::GrpcWeb { text: false }, Codec::Json),
    ("application/grpc-web-text", Protocol::GrpcWeb { text: true }, Codec::Proto),
    ("application/grpc-web-text+proto", Protocol::GrpcWeb { text: true }, Codec::Proto),
    ("application/json", Protocol::Connect, Codec::Json),
    ("application/json; charset=utf-8", Protocol::Connect, Codec::Json),
    ("application/proto", Protocol::Connect, Codec::Proto),
    ("application/connect+json", Protocol::ConnectStream, Codec::Json),
    ("application/connect+proto", Protocol::ConnectStream, Codec::Proto),
];

/// Whether a unary or a streaming method may be called by a protocol.
fn serves(protocol: Protocol, kind: MethodKind) -> bool {
    match protocol {
        Protocol::Connect => !kind.server_stream,
        Protocol::ConnectStream => kind.server_stream,
        Protocol::Grpc | Protocol::GrpcWeb { .. } => true,
    }
}

/// What the rendering of a reply has to know of its request.
#[derive(Debug)]
pub struct Asked {
    /// The protocol.
    pub protocol: Protocol,
    /// The codec.
    pub codec: Codec,
    /// The content type of the reply.
    pub content_type: &'static str,
    /// Whether the reply may be compressed with gzip.
    pub gzip: bool,
    /// Over HTTP/1.0 or HTTP/1.1.
    pub http1: bool,
    /// Present when it came by GET or HEAD.
    pub get: Option<Get>,
}

impl Asked {
    /// A message, compressed if the reply may be.
    pub fn compressed(&self, message: Message) -> Message {
        if self.gzip { message.gzip() } else { message }
    }
}

/// A request by GET or HEAD.
#[derive(Debug)]
pub struct Get {
    /// Lists of the versions that the client has.
    pub if_none_match: Vec<HeaderValue>,
}

/// How the protocols behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most bytes of a request message, after decompression.
    pub request_limit: usize,
    /// `Cache-Control` of a reply to GET.
    pub cache_control: HeaderValue,
}

/// `Cache-Control` of a reply that a browser or a CDN may keep for `max_age`, and show for longer while it asks for a newer one or
/// while nobody answers.
pub fn cache_control(max_age: Option<Duration>) -> HeaderValue {
    let keep = max_age
        .map(|age| format!("public, max-age={}, stale-while-revalidate=600, stale-if-error=86400", age.as_secs()));
    keep.and_then(|keep| HeaderValue::try_from(keep).ok()).unwrap_or(HeaderValue::from_static("no-store"))
}

/// A response, and how the call ended.
#[derive(Debug)]
pub struct Answered {
    /// The response.
    pub response: Response<Body>,
    /// The code; of a stream the one that it has begun with.
    pub code: Code,
    /// The protocol; `None` when the request spoke none.
    pub protocol: Option<Protocol>,
    /// What the call holds until its answer is taken.
    pub place: Place,
}

impl Answered {
    /// A response of HTTP alone.
    fn http(response: Response<Body>, code: Code) -> Self {
        Self { response, code, protocol: None, place: Place::default() }
    }
}

/// Serves a call of a method. `admit` gives it a place among the calls once its request is complete.
pub async fn serve<S: Service>(
    service: &S,
    settings: &Settings,
    (method, kind): (S::Method, MethodKind),
    request: &mut Request<RequestBody>,
    connection: &Arc<Counts>,
    admit: impl FnOnce() -> Result<Place, Refusal>,
) -> Answered {
    let mut asked = match asked(request, kind) {
        Ok(asked) => asked,
        Err(refused) => {
            discard_in_time(request.body_mut()).await;
            return Answered::http(*refused, Code::Unimplemented);
        }
    };
    let protocol = asked.protocol;
    let (result, place) = match call(settings, request, &mut asked, connection).await {
        Ok(mut call) => match admit() {
            Ok(mut place) => {
                call.closing = place.closing.take();
                (run(service, method, call).await, place)
            }
            Err(refusal) => (Err(refusal.status().into()), Place::default()),
        },
        Err(status) => (Err(status.into()), Place::default()),
    };
    let code = result.as_ref().map_or_else(|failure| failure.status.code(), |_| Code::Ok);
    let (response, code) = match protocol {
        Protocol::Grpc => (grpc::render(&asked, result), code),
        Protocol::GrpcWeb { text } => match grpc::render_web(&asked, text, result, connection) {
            Ok(response) => (response, code),
            Err(refusal) => {
                let status = refusal.status();
                let code = status.code();
                (grpc::render_failure(&asked, status.into()), code)
            }
        },
        Protocol::Connect => (connect::render(&asked, settings, result), code),
        Protocol::ConnectStream => (connect::render_stream(&asked, result), code),
    };
    Answered { response, code, protocol: Some(protocol), place }
}

/// Tells the protocol of a request by its method and content type; or the response that HTTP has for it.
fn asked(request: &Request<RequestBody>, kind: MethodKind) -> Result<Asked, Box<Response<Body>>> {
    let http1 = request.version() < Version::HTTP_2;
    let get = kind.no_side_effects && !kind.server_stream;
    match *request.method() {
        HttpMethod::POST => {
            let given = request.headers().get(header::CONTENT_TYPE);
            let given = given.and_then(|value| value.to_str().ok()).unwrap_or_default();
            let (content_type, protocol, codec) = content_type(given)
                .filter(|(_, protocol, _)| serves(*protocol, kind))
                .ok_or_else(|| unsupported(kind))?;
            Ok(Asked { protocol, codec, content_type, gzip: false, http1, get: None })
        }
        HttpMethod::GET | HttpMethod::HEAD if get => {
            let codec = match Query::of(request.uri()).value("encoding").as_deref() {
                Some("json") => Codec::Json,
                Some("proto") => Codec::Proto,
                _ => return Err(unsupported(kind)),
            };
            let content_type = if codec == Codec::Json { "application/json" } else { "application/proto" };
            let if_none_match = request.headers().get_all(header::IF_NONE_MATCH).into_iter().cloned().collect();
            let get = Get { if_none_match };
            Ok(Asked { protocol: Protocol::Connect, codec, content_type, gzip: false, http1, get: Some(get) })
        }
        _ => {
            let allow = HeaderValue::from_static(if get { "GET, HEAD, POST" } else { "POST" });
            Err(refused(StatusCode::METHOD_NOT_ALLOWED, header::ALLOW, allow))
        }
    }
}

fn content_type(given: &str) -> Option<(&'static str, Protocol, Codec)> {
    // Nearly all are written as they are here.
    let found = TYPES.iter().find(|(name, ..)| *name == given).or_else(|| {
        // By RFC 9110, 8.3.1: letter case, blanks around parameters, and quotes around their values make no difference.
        let plain = |text: &str| text.replace([' ', '\t', '"'], "").to_ascii_lowercase();
        let given = plain(given);
        TYPES.iter().find(|(name, ..)| plain(name) == given)
    });
    found.copied()
}

fn unsupported(kind: MethodKind) -> Box<Response<Body>> {
    let served = TYPES.iter().filter(|(_, protocol, _)| serves(*protocol, kind));
    let mut types: Vec<_> = served.map(|(name, ..)| *name).collect();
    types.sort_unstable();
    let types = HeaderValue::from_str(&types.join(", ")).unwrap_or(HeaderValue::from_static("*/*"));
    refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, HeaderName::from_static("accept-post"), types)
}

/// A response of HTTP alone, with a header that says what would be served.
fn refused(status: StatusCode, name: HeaderName, value: HeaderValue) -> Box<Response<Body>> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(name, value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Box::new(response)
}

/// The call that a request makes. The request is read before anything is refused.
async fn call<'a>(
    settings: &Settings,
    request: &'a mut Request<RequestBody>,
    asked: &mut Asked,
    connection: &'a Arc<Counts>,
) -> Result<Call<'a>, Status> {
    // The deadline is read first: it bounds the reading too.
    let head = match asked.protocol {
        Protocol::Grpc | Protocol::GrpcWeb { .. } => grpc::head(request.headers()),
        Protocol::Connect | Protocol::ConnectStream => connect::head(request.headers(), asked),
    };
    let deadline = head.as_ref().ok().and_then(|head| head.timeout);
    let (read, waited) = read_in_time(request.body_mut(), settings.request_limit, deadline).await;
    let head = head?;
    let body = read.map_err(Refusal::status)?;
    asked.gzip = head.gzip_out;
    let limit = settings.request_limit;
    let message = match asked.protocol {
        Protocol::Connect if asked.get.is_some() => connect::message_of_query(Query::of(request.uri()), asked, limit)?,
        Protocol::Connect => connect::message(body, head.gzip_in, limit)?,
        Protocol::GrpcWeb { text: true } => grpc::message_of_text(&body, head.gzip_in, limit)?,
        _ => super::message::only_message(&body, head.gzip_in, limit)?,
    };
    let query = asked.get.is_some().then(|| request.uri().query().unwrap_or_default());
    let headers = request.headers();
    let timeout = head.timeout.map(|timeout| timeout.saturating_sub(waited));
    Ok(Call { codec: asked.codec, message, headers, timeout, gzip: asked.gzip, query, connection, closing: None })
}

/// The whole body of a request, within the client's deadline and ours; and how long that took.
async fn read_in_time(
    body: &mut RequestBody,
    limit: usize,
    deadline: Option<Duration>,
) -> (Result<Bytes, Refusal>, Duration) {
    let mut waited = Duration::ZERO;
    let read = {
        let mut reading = pin!(read(body, limit));
        // Nearly all requests are here with their head: no clock is looked at for those.
        match poll!(reading.as_mut()) {
            Poll::Ready(read) => read,
            Poll::Pending => {
                let begun = Instant::now();
                let (most, refusal) = match deadline.filter(|left| *left < COMPLETE_WITHIN && !left.is_zero()) {
                    Some(left) => (left, Refusal::DeadlinePassed),
                    None => (COMPLETE_WITHIN, Refusal::Incomplete),
                };
                let read = Box::pin(timeout(most, reading)).await.unwrap_or(Err(refusal));
                waited = begun.elapsed();
                read
            }
        }
    };
    if read == Err(Refusal::TooLarge) {
        discard_in_time(body).await;
    }
    (if deadline == Some(Duration::ZERO) { Err(Refusal::DeadlinePassed) } else { read }, waited)
}

/// Calls the service, within the client's deadline.
async fn run<S: Service>(service: &S, method: S::Method, call: Call<'_>) -> Result<Reply, Failure> {
    let deadline = call.timeout;
    let calling = pin!(service.call(method, call));
    let Some(left) = deadline else { return calling.await };
    in_time(left, calling).await.unwrap_or_else(|| Err(Refusal::DeadlinePassed.status().into()))
}
