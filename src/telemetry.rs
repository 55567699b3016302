//! Logs of the process, and traces where somebody collects them.
//!
//! Logs go to standard error, for people on a terminal and as JSON otherwise. Traces are sent when one of the standard variables
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set; nothing of it is started otherwise.

use std::{env, io::IsTerminal};

use anyhow::Context as _;
use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tonic::Code;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::metrics::Method;

/// The target of the spans that are traced: those of the tasks, which never end, are for the logs only.
const TRACED: &str = "treemap::traced";

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Logging and tracing, to be ended with the process.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    logs_json: bool,
}

impl Telemetry {
    /// Starts logging, and tracing when the environment asks for it.
    ///
    /// Fails when a filter or a variable cannot be used.
    pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(filter)
            .map_err(|error| anyhow::anyhow!("TREEMAP_LOG is {filter:?}: {error}; expected a level, as info"))?;
        // The pool's own line for a broken connection says less than ours, a second time.
        let filter = filter.add_directive("deadpool.postgres=off".parse()?);
        let terminal = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        let logs_json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
        let log = if logs_json {
            log.json().flatten_event(true).with_current_span(false).boxed()
        } else {
            log.with_ansi(terminal).boxed()
        };
        let traces = exporter()?;
        let spans = traces.as_ref().map(|traces| {
            tracing_opentelemetry::layer()
                .with_tracer(traces.tracer("treemap"))
                .with_location(false)
                .with_threads(false)
                .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TRACED))
        });
        Registry::default().with(log.with_filter(filter)).with(spans).init();
        Ok(Self { traces, logs_json })
    }

    /// Whether each line of the log is a JSON object.
    pub const fn logs_json(&self) -> bool {
        self.logs_json
    }

    /// Whether spans are collected.
    pub const fn is_tracing(&self) -> bool {
        self.traces.is_some()
    }

    /// Sends what has not been sent yet.
    pub fn end(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown_with_timeout(std::time::Duration::from_secs(2))
        {
            tracing::warn!("the last traces may be lost: {error}");
        }
    }
}

fn exporter() -> anyhow::Result<Option<SdkTracerProvider>> {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let endpoint =
        ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter().find(|name| is_set(name));
    let disabled = env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
        || env::var("OTEL_TRACES_EXPORTER").is_ok_and(|value| value == "none");
    let (Some(setting), false) = (endpoint, disabled) else { return Ok(None) };
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        let protocol = env::var(name).unwrap_or_default();
        anyhow::ensure!(
            protocol.is_empty() || protocol == "grpc",
            "{name} is {protocol:?}; this server sends traces by grpc"
        );
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .with_context(|| format!("{setting} cannot be used; expected http://host:4317"))?;
    let mut resource = Resource::builder();
    if !is_set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("treemap");
    }
    Ok(Some(SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build()))
}

/// The span of a call, in the trace that its caller began (W3C `traceparent`).
pub fn call_span(method: &Method, headers: &HeaderMap) -> Span {
    let name = format!("{}/{}", method.grpc_service, method.grpc_method);
    let span = tracing::info_span!(
        target: TRACED,
        "call",
        otel.name = name,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = method.grpc_service,
        rpc.method = method.grpc_method,
        rpc.grpc.status_code = Empty,
        treemap.protocol = Empty,
    );
    let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    // Fails only where nobody collects spans.
    let _ = span.set_parent(caller);
    span
}

/// Records the protocol that a call came by: `rpc.system` is that of its code.
pub fn call_protocol(span: &Span, protocol: &'static str) {
    span.record("treemap.protocol", protocol);
}

/// Records how a call ended.
pub fn call_ended(span: &Span, code: Code) {
    span.record("rpc.grpc.status_code", code as i32);
}

/// The span of a step of a background task.
pub fn step_span(step: &'static str) -> Span {
    tracing::info_span!(target: TRACED, "step", otel.name = step)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
