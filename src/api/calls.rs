//! What happens to every call before and after it is answered: routing, limits, deadline, counting, tracing.

use std::{convert::Infallible, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::{Code, body::Body};
use tower_service::Service as _;
use tracing::{Instrument, Span};

use super::{
    Treemap,
    call::{Call, CallBody, code_of},
    grpc::{SERVICE_NAME, ShortedStocksServiceServer},
    in_flight::{CallsInFlight, InFlight, StallClock},
    refusal::Refusal,
    services::{Services, method_of},
};
use crate::{
    metrics::{Method, MethodMetrics, Metrics},
    telemetry,
};

/// Bytes of a request message; ours are some 20.
const REQUEST: usize = 4 * 1024;

const PATH: &str = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";
const TREEMAP: Method = Method { grpc_type: "unary", grpc_service: SERVICE_NAME, grpc_method: "GetIndustryTreeMap" };

/// Answers calls, over any number of connections.
#[derive(Clone)]
pub struct Calls {
    treemap: ShortedStocksServiceServer<Treemap>,
    services: Services,
    /// Calls of the treemap at a time.
    limit: usize,
    in_flight: Arc<CallsInFlight>,
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
    /// At most `limit` calls of the treemap are answered at a time; others are never refused. With `traced`, each has a span.
    pub fn new(treemap: Treemap, services: Services, limit: usize, traced: bool, metrics: Arc<Metrics>) -> Self {
        let treemap = ShortedStocksServiceServer::new(treemap).max_decoding_message_size(REQUEST);
        let treemap_metrics = Arc::new(metrics.method(&TREEMAP));
        Self { treemap, services, limit, in_flight: Arc::default(), traced, metrics, treemap_metrics }
    }

    /// The calls of the treemap that are being answered.
    pub fn in_flight(&self) -> Arc<CallsInFlight> {
        self.in_flight.clone()
    }

    /// The same over one connection, whose calls `stalls` watches. When all places for connections are taken (`crowded`), calls of the
    /// treemap are refused.
    pub fn over_connection(&self, stalls: Arc<StallClock>, crowded: bool) -> CallsOverConnection {
        CallsOverConnection { calls: self.clone(), stalls, crowded }
    }
}

/// [`Calls`] over one connection.
#[derive(Debug, Clone)]
pub struct CallsOverConnection {
    calls: Calls,
    stalls: Arc<StallClock>,
    crowded: bool,
}

impl hyper::service::Service<Request<Incoming>> for CallsOverConnection {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CallBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Calls { mut treemap, services, limit, in_flight, traced, metrics, treemap_metrics } = self.calls.clone();
        let is_treemap = request.uri().path() == PATH;
        let (method, counts) = if is_treemap {
            (TREEMAP, treemap_metrics)
        } else {
            let method = method_of(request.uri().path());
            let counts = Arc::new(metrics.method(&method));
            (method, counts)
        };
        let span = if traced { telemetry::call_span(&method, request.headers()) } else { Span::none() };
        let in_flight = is_treemap.then(|| InFlight::begin(in_flight, self.stalls.clone()));
        let refusal = match &in_flight {
            Some(_) if self.crowded => Some(Refusal::TooManyConnections),
            Some(in_flight) if in_flight.others() >= limit => Some(Refusal::TooManyCalls),
            _ => None,
        };
        let mut call = Call::begin(counts, span.clone(), in_flight);
        let answered = async move {
            let mut response = match refusal {
                Some(refusal) => refusal.status().into_http(),
                None if is_treemap => within(deadline(request.headers()), treemap.call(request)).await,
                None => services.answer(request).await,
            };
            if code_of(response.headers()) == Some(Code::OutOfRange) {
                // tonic's code for a message that is too large; the protocol's is another.
                response = Refusal::TooLarge.status().into_http();
            }
            call.ends_with(code_of(response.headers()));
            Ok(response.map(|body| CallBody::new(body, call)))
        };
        // Boxed once; nothing is entered for a call that is not traced.
        if traced { Box::pin(answered.instrument(span)) } else { Box::pin(answered) }
    }
}

/// The answer, or a refusal when it did not come before the deadline.
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
        Err(()) => Refusal::DeadlinePassed.status().into_http(),
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
