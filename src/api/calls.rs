//! What happens to every call before and after it is answered: routing, limits, deadline, counting, tracing.

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};
use tower_service::Service as _;
use tracing::{Instrument, Span};

use super::{
    SERVICE_NAME, ShortedStocksServiceServer, TreemapService,
    in_flight::{Call, Counted, Flight, Pace, code_of},
};
use crate::{
    metrics::{Method, MethodMetrics, Metrics},
    telemetry,
};

/// Bytes of a request message; ours are some 20.
const REQUEST: usize = 4 * 1024;
/// When a client that came at a bad time should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const PATH: &str = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";
const TREEMAP: Method = Method { grpc_type: "unary", grpc_service: SERVICE_NAME, grpc_method: "GetIndustryTreeMap" };

/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers the calls of other services than the treemap's: health and reflection.
pub type Others = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Answers calls, over any number of connections.
#[derive(Clone)]
pub struct Calls {
    treemap: ShortedStocksServiceServer<TreemapService>,
    others: Others,
    /// Calls of the treemap at a time.
    limit: i64,
    traced: bool,
    metrics: Arc<Metrics>,
    treemap_metrics: Arc<MethodMetrics>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Calls {
    /// At most `limit` calls of the treemap are answered at a time; all others are never refused. With `traced`, each has a span.
    #[must_use]
    pub fn new(treemap: TreemapService, others: Others, limit: u32, traced: bool, metrics: Arc<Metrics>) -> Self {
        let treemap = ShortedStocksServiceServer::new(treemap).max_decoding_message_size(REQUEST);
        let treemap_metrics = Arc::new(metrics.method(&TREEMAP));
        Self { treemap, others, limit: limit.into(), traced, metrics, treemap_metrics }
    }

    /// The same over one connection, which is told from `pace` when its calls do not end. In a crowd, calls of the treemap are
    /// refused.
    #[must_use]
    pub fn over(&self, pace: Arc<Pace>, crowded: bool) -> OverConnection {
        OverConnection { calls: self.clone(), pace, crowded }
    }
}

/// [`Calls`] over one connection.
#[derive(Debug, Clone)]
pub struct OverConnection {
    calls: Calls,
    pace: Arc<Pace>,
    crowded: bool,
}

impl hyper::service::Service<Request<Incoming>> for OverConnection {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Calls { mut treemap, others, limit, traced, metrics, treemap_metrics } = self.calls.clone();
        let is_treemap = request.uri().path() == PATH;
        let (method, counts) = if is_treemap {
            (TREEMAP, treemap_metrics)
        } else {
            let method = method_of(request.uri().path());
            let counts = Arc::new(metrics.method(&method));
            (method, counts)
        };
        let span = if traced { telemetry::call_span(&method, request.headers()) } else { Span::none() };
        let mut call = Call::begin(counts, span.clone());
        let mut refusal = None;
        if is_treemap {
            let flight = Flight::begin(metrics, self.pace.clone());
            if self.crowded {
                refusal = Some("this replica serves all the connections that it can");
            } else if flight.others() >= limit {
                refusal = Some("this replica answers all the calls that it can");
            }
            call.flies(flight);
        }
        let answered = async move {
            let mut response = match refusal {
                Some(why) => refuse(why),
                None if is_treemap => within(deadline(request.headers()), treemap.call(request)).await,
                None => others(request).await,
            };
            let headers = response.headers_mut();
            // tonic's word for a message that is too large; the protocol's is another.
            if code_of(headers) == Some(Code::OutOfRange) {
                headers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::ResourceExhausted as i32));
            }
            call.ends_with(code_of(headers));
            Ok(response.map(|body| Counted::new(body, call)))
        };
        // Boxed once; nothing is entered for a call that is not traced.
        if traced { Box::pin(answered.instrument(span)) } else { Box::pin(answered) }
    }
}

fn method_of(path: &str) -> Method {
    let (grpc_type, grpc_service, grpc_method) = match path {
        "/grpc.health.v1.Health/Check" => ("unary", "grpc.health.v1.Health", "Check"),
        "/grpc.health.v1.Health/List" => ("unary", "grpc.health.v1.Health", "List"),
        "/grpc.health.v1.Health/Watch" => ("server_stream", "grpc.health.v1.Health", "Watch"),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => {
            ("bidi_stream", "grpc.reflection.v1.ServerReflection", "ServerReflectionInfo")
        }
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            ("bidi_stream", "grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo")
        }
        // What somebody made up does not become a label of ours.
        _ => ("unary", "unknown", "unknown"),
    };
    Method { grpc_type, grpc_service, grpc_method }
}

fn refuse(why: &str) -> Response<Body> {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, why, details).into_http()
}

/// The answer, or that it did not come before the deadline.
async fn within(
    deadline: Option<Duration>,
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Response<Body> {
    let answered = match deadline {
        None => Ok(answer.await),
        Some(Duration::ZERO) => Err(()),
        Some(left) => timeout(left, answer).await.map_err(|_| ()),
    };
    match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(()) => Status::deadline_exceeded("the deadline passed before the treemap could be answered").into_http(),
    }
}

/// How long the client waits, by its `grpc-timeout`.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows eight digits; what is longer than u64 nanoseconds is no deadline.
    let count: u32 = digits.parse().ok()?;
    let nanoseconds: u64 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    nanoseconds.checked_mul(count.into()).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_every_unit_and_nonsense_is_none() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = text.parse() {
                headers.insert("grpc-timeout", value);
            }
            deadline(&headers)
        };
        assert_eq!(read("10S"), Some(Duration::from_secs(10)));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("50000u"), Some(Duration::from_millis(50)));
        assert_eq!(read("10n"), Some(Duration::from_nanos(10)));
        assert_eq!(read("1M"), Some(Duration::from_secs(60)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        for nonsense in ["", "S", "10", "10x", "-1S", "99999999H", "\u{e9}"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
