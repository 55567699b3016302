//! What happens to every call before and after it is answered: routing, limits, counting, tracing.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Version, header};
use tokio::time::timeout;
use tonic::Code;
use tracing::{Instrument, Span};

use super::{
    Treemap,
    body::{Body, date, leave_out_body, plain},
    call::{Call, Held, code_of},
    cors,
    in_flight::{Answering, Counts, InFlight, Open, OpenStream, Place, Watcher},
    pictures::{self, Resource},
    protocol::{self, Protocol, Settings},
    refusal::Refusal,
    request::{COMPLETE_WITHIN, RequestBody, discard_in_time},
    service::{MethodKind, Service as _},
    services::{Services, method_of},
    treemap_service::Method,
};
use crate::{
    config::{CallLimits, Origins},
    metrics::{MethodMetrics, Metrics, ProtocolMetrics},
    telemetry,
};

/// For hosts that probe the port that they serve.
const HEALTH: &str = "/health";

/// Answers calls, over any number of connections.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

struct Shared {
    treemap: Treemap,
    services: Services,
    settings: Settings,
    origins: Origins,
    limits: CallLimits,
    /// Whether page and pictures are served.
    page: bool,
    open: Arc<Open>,
    /// Set once the server is to stop: no more calls should be sent here.
    stopping: AtomicBool,
    traced: bool,
    metrics: Arc<Metrics>,
    /// By method of the treemap.
    treemap_metrics: [Arc<MethodMetrics>; Method::ALL.len()],
    protocol_metrics: [ProtocolMetrics; Protocol::NAMES.len()],
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Calls {
    /// Calls of the treemap beyond `limits` are refused; others never. With `traced`, each has a span.
    pub fn new(
        treemap: Treemap,
        services: Services,
        (settings, origins): (Settings, Origins),
        (limits, page): (CallLimits, bool),
        traced: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        let treemap_metrics = Method::ALL.map(|method| Arc::new(metrics.method(&method.labels())));
        let protocol_metrics = Protocol::NAMES.map(|name| metrics.protocol(name));
        Self(Arc::new(Shared {
            treemap,
            services,
            settings,
            origins,
            limits,
            page,
            open: Arc::default(),
            stopping: AtomicBool::new(false),
            traced,
            metrics,
            treemap_metrics,
            protocol_metrics,
        }))
    }

    /// How many calls of the treemap are being answered.
    pub fn in_flight(&self) -> usize {
        self.0.open.calls()
    }

    /// How many streams of treemaps are open.
    pub fn watchers(&self) -> usize {
        self.0.open.watchers()
    }

    /// The server is about to stop, and reports that it is not ready.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Why no calls should be sent here; `None` when they may.
    pub fn not_ready(&self) -> Option<String> {
        self.0.not_ready()
    }

    /// The same over one connection of an address, over all of whose connections `of_client` counts. When all places for connections are
    /// taken (`crowded`), calls of the treemap are refused.
    pub fn over_connection(&self, of_client: Arc<Open>, crowded: bool) -> CallsOverConnection {
        let connection = Arc::new(Counts::new(self.0.open.clone(), of_client, self.0.limits.share));
        CallsOverConnection(Arc::new(OverConnection { calls: self.clone(), connection, crowded }))
    }
}

/// [`Calls`] over one connection.
#[derive(Debug, Clone)]
pub struct CallsOverConnection(Arc<OverConnection>);

#[derive(Debug)]
struct OverConnection {
    calls: Calls,
    connection: Arc<Counts>,
    crowded: bool,
}

impl CallsOverConnection {
    /// What is open over this connection.
    pub fn connection(&self) -> &Arc<Counts> {
        &self.0.connection
    }

    /// Answers a call.
    pub fn answer(&self, mut request: Request<RequestBody>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let over = self.0.clone();
        async move {
            let OverConnection { calls: Calls(shared), connection, crowded } = &*over;
            let crowded = *crowded;
            let is_head = request.method() == HttpMethod::HEAD;
            let is_http1 = request.version() < Version::HTTP_2;
            let _answering = Answering::begin(connection);
            let path = request.uri().path();
            let treemap = shared.treemap.method(path);
            // What is rare is boxed: see `request::in_time`.
            let mut response = if shared.traced {
                let method = treemap.map_or_else(|| method_of(path), |(method, _)| method.labels());
                let span = telemetry::call_span(&method, request.headers());
                let within = span.clone();
                let answer = async {
                    match treemap {
                        Some(method) => shared.answer_treemap(method, &mut request, connection, crowded, span).await,
                        None => shared.answer_other(request, connection, crowded, span).await,
                    }
                };
                Box::pin(answer.instrument(within)).await
            } else {
                match treemap {
                    Some(method) => {
                        shared.answer_treemap(method, &mut request, connection, crowded, Span::none()).await
                    }
                    None => shared.answer_other(request, connection, crowded, Span::none()).await,
                }
            };
            if is_head {
                leave_out_body(&mut response);
            }
            if is_http1 && (crowded || connection.is_closing() || shared.stopping.load(Ordering::Relaxed)) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.body_mut().sent_over(connection);
            response
        }
    }
}

impl Shared {
    /// Answers what is no call of the treemap.
    fn answer_other<'a>(
        &'a self,
        request: Request<RequestBody>,
        connection: &'a Arc<Counts>,
        crowded: bool,
        span: Span,
    ) -> BoxFuture<'a, Response<Body>> {
        let path = request.uri().path();
        if path == HEALTH {
            return self.health(request).boxed();
        }
        // The published server knows no other method of "/".
        let is_read = matches!(*request.method(), HttpMethod::GET | HttpMethod::HEAD);
        let served = |resource: &Resource| self.page && (is_read || !matches!(resource, Resource::File(_)));
        match Resource::of(path).filter(served) {
            Some(resource) => self.answer_page(resource, request, connection, crowded).boxed(),
            None => self.answer_services(request, connection, span).boxed(),
        }
    }

    /// Answers calls of health and reflection, and those of nobody.
    async fn answer_services(
        &self,
        mut request: Request<RequestBody>,
        connection: &Arc<Counts>,
        span: Span,
    ) -> Response<Body> {
        let method = method_of(request.uri().path());
        let mut call = Call::begin(Arc::new(self.metrics.method(&method)), span);
        let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.as_bytes();
            kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
        });
        if method.is_unknown() || !is_grpc || request.version() != Version::HTTP_2 {
            discard_in_time(request.body_mut()).await;
            let response = plain(StatusCode::NOT_FOUND, "404 page not found\n");
            return ended_by(response, call, Code::Unimplemented);
        }
        if method.grpc_type != "unary" {
            let Some(stream) = OpenStream::begin(connection) else {
                return ended_by(refused(Refusal::TooManyStreams), call, Code::ResourceExhausted);
            };
            call.holds(Held::Stream(stream));
            // Streams are few: theirs is not counted among the requests that are not complete.
            request = request.map(RequestBody::of_stream);
        }
        let Ok(response) = timeout(COMPLETE_WITHIN, self.services.answer(request)).await else {
            return ended_by(refused(Refusal::Incomplete), call, Code::DeadlineExceeded);
        };
        let code = code_of(response.headers()).unwrap_or(Code::Unknown);
        ended_by(response.map(Body::tonic), call, code)
    }

    async fn answer_treemap(
        &self,
        (method, kind): (Method, MethodKind),
        request: &mut Request<RequestBody>,
        connection: &Arc<Counts>,
        crowded: bool,
        span: Span,
    ) -> Response<Body> {
        if let Some(preflight) = cors::preflight(&self.origins, request) {
            return preflight;
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut call = Call::begin(self.treemap_metrics[method as usize].clone(), span);
        let admit = || {
            if crowded {
                return Err(Refusal::TooManyConnections);
            }
            if kind.server_stream {
                let watcher = Watcher::begin(connection, self.limits.watchers).ok_or(Refusal::TooManyWatchers)?;
                return Ok(Place { in_flight: None, watcher: Some(watcher), closing: Some(connection.closing()) });
            }
            Ok(Place { in_flight: Some(place_of(connection, self.limits.calls)?), ..Place::default() })
        };
        let answered = protocol::serve(&self.treemap, &self.settings, (method, kind), request, connection, admit).await;
        let mut response = answered.response;
        if let Some(protocol) = answered.protocol {
            self.protocol_metrics[protocol.index()].replied(answered.code);
            call.speaks(Protocol::NAMES[protocol.index()]);
        }
        if !matches!(answered.protocol, Some(Protocol::Grpc | Protocol::GrpcWeb { .. })) {
            // For caches, which compute ages from it. hyper would add it only over HTTP/1.1.
            response.headers_mut().insert(header::DATE, date());
        }
        // No browser speaks gRPC itself.
        if origin.is_some() || answered.protocol != Some(Protocol::Grpc) {
            cors::expose(&self.origins, origin.as_ref(), response.headers_mut());
        }
        let Place { in_flight, watcher, .. } = answered.place;
        if let Some(watcher) = watcher {
            call.holds(Held::Watcher(watcher));
        }
        let body = response.body_mut();
        body.ends(call, answered.code);
        if let Some(place) = in_flight {
            body.in_flight(place);
        }
        response
    }

    async fn answer_page(
        &self,
        resource: Resource,
        mut request: Request<RequestBody>,
        connection: &Arc<Counts>,
        crowded: bool,
    ) -> Response<Body> {
        let admit = || {
            if crowded {
                return Err(Refusal::TooManyConnections);
            }
            // Those who look hold up no calls: the other half is for these.
            place_of(connection, self.limits.calls.div_ceil(2))
        };
        let cache_control = &self.settings.cache_control;
        let response = pictures::answer(resource, &self.treemap, cache_control, &mut request, connection, admit).await;
        self.metrics.page(resource.path(), response.status());
        response
    }

    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) { Some("stopping".into()) } else { self.treemap.missing() }
    }

    async fn health(&self, mut request: Request<RequestBody>) -> Response<Body> {
        discard_in_time(request.body_mut()).await;
        if !matches!(*request.method(), HttpMethod::GET | HttpMethod::HEAD | HttpMethod::POST) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
            return response;
        }
        match self.not_ready() {
            None => plain(StatusCode::OK, "OK"),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}\n")),
        }
    }
}

/// A place among the calls in flight, if there are fewer than `most`.
fn place_of(connection: &Arc<Counts>, most: usize) -> Result<InFlight, Refusal> {
    InFlight::begin(connection, most).ok_or(Refusal::TooManyCalls)
}

/// A response with whose last frame `call` is over.
fn ended_by(mut response: Response<Body>, call: Call, code: Code) -> Response<Body> {
    response.body_mut().ends(call, code);
    response
}

/// A refusal over gRPC.
fn refused(refusal: Refusal) -> Response<Body> {
    refusal.status().into_http::<tonic::body::Body>().map(Body::tonic)
}
