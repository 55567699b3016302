//! The services that tonic brings beside the treemap's: health, and reflection in both of its versions.

use std::{convert::Infallible, fmt, pin::Pin, sync::Arc};

use http::{Request, Response};
use tonic::{body::Body, codec::CompressionEncoding};
use tonic_health::{ServingStatus, pb::health_server, server::HealthReporter};
use tonic_reflection::pb::{v1, v1alpha};
use tower_service::Service;

use super::{refusal::Refusal, request::RequestBody, treemap_service};
use crate::{metrics::Method, proto};

const CHECK: Method = method("unary", health_server::SERVICE_NAME, "Check");
const LIST: Method = method("unary", health_server::SERVICE_NAME, "List");
const WATCH: Method = method("server_stream", health_server::SERVICE_NAME, "Watch");
const REFLECT: Method = method("bidi_stream", v1::server_reflection_server::SERVICE_NAME, "ServerReflectionInfo");
const REFLECT_V1ALPHA: Method =
    method("bidi_stream", v1alpha::server_reflection_server::SERVICE_NAME, "ServerReflectionInfo");

const fn method(grpc_type: &'static str, grpc_service: &'static str, grpc_method: &'static str) -> Method {
    Method { grpc_type, grpc_service, grpc_method }
}

/// A response that is not ready yet.
pub type PendingResponse = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Sets what health checks are answered with, for the empty name and for the treemap's services.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Whether calls may be sent here.
    pub async fn set(&self, status: ServingStatus) {
        for service in watched() {
            self.0.set_service_status(service, status).await;
        }
    }

    /// Ends the streams of those who watch: they would hold up the drain.
    pub async fn end_watches(&self) {
        for service in watched() {
            self.0.clone().clear_service_status(service).await;
        }
    }
}

/// What health can be asked for.
fn watched() -> impl Iterator<Item = &'static str> {
    std::iter::once("").chain(treemap_service::SERVICE_NAMES)
}

/// Answers calls of health and reflection, and refuses those of unknown methods.
#[derive(Clone)]
pub struct Services(Arc<dyn Fn(Request<RequestBody>) -> PendingResponse + Send + Sync>);

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// Health, which reports that it is not serving yet, and reflection. A message of a request has at most `request_limit` bytes.
    ///
    /// Fails when the descriptors that were built in cannot be decoded.
    pub async fn new(request_limit: usize) -> anyhow::Result<(Health, Self)> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let health = health.max_decoding_message_size(request_limit);
        let health = health.accept_compressed(CompressionEncoding::Gzip);
        let reporter = Health(reporter);
        // tonic's reporter begins with "" as serving: a probe would find us ready before any data is.
        reporter.set(ServingStatus::NotServing).await;
        let (newer, older) = (reflection().build_v1()?, reflection().build_v1alpha()?);
        let (newer, older) =
            (newer.max_decoding_message_size(request_limit), older.max_decoding_message_size(request_limit));
        let newer = newer.accept_compressed(CompressionEncoding::Gzip);
        let older = older.accept_compressed(CompressionEncoding::Gzip);
        let answer = move |request: Request<RequestBody>| match method_of(request.uri().path()).grpc_service {
            health_server::SERVICE_NAME => respond(health.clone(), request),
            v1::server_reflection_server::SERVICE_NAME => respond(newer.clone(), request),
            v1alpha::server_reflection_server::SERVICE_NAME => respond(older.clone(), request),
            _ => Box::pin(async { Refusal::UnknownMethod.status().into_http() }),
        };
        Ok((reporter, Self(Arc::new(answer))))
    }

    /// Answers a call.
    pub fn answer(&self, request: Request<RequestBody>) -> PendingResponse {
        (self.0)(request)
    }
}

/// The method of a path, for metrics and traces.
pub fn method_of(path: &str) -> Method {
    let named = |method: &Method| {
        let (service, name) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
        method.grpc_service == service && method.grpc_method == name
    };
    [CHECK, LIST, WATCH, REFLECT, REFLECT_V1ALPHA].into_iter().find(named).unwrap_or(Method::UNKNOWN)
}

fn respond<S>(mut service: S, request: Request<RequestBody>) -> PendingResponse
where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let response = service.call(request);
    Box::pin(async move {
        match response.await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    })
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that grpcurl can show the details of a refusal.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
