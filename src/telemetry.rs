//! Logs of the process, and traces where somebody collects them.
//!
//! Logs go to standard error, for people on a terminal and as JSON otherwise. Traces are sent when one of the standard variables
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set; nothing of it is started otherwise.

mod log;
mod redacted;

use std::{
    convert::Infallible,
    env,
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::Context as _;
use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tonic::{Code, transport::ClientTlsConfig};
use tracing::{Span, field::Empty, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, fmt::writer::BoxMakeWriter, layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::log::{Queue, Redacting};
pub use self::redacted::{may_hold_secret, redacted};
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
    /// The log of a server.
    log: Option<Queue>,
}

/// How often it is looked whether lines of the log were dropped.
const LOOK_FOR_DROPPED: Duration = Duration::from_secs(1);

impl Telemetry {
    /// Starts logging; for a server (`serves`) on a thread of its own, and with tracing when the environment asks for it.
    ///
    /// Fails when a filter or a variable cannot be used.
    pub fn start(filter: &str, format: LogFormat, serves: bool) -> anyhow::Result<Self> {
        let filter = log_filter(filter)?;
        let terminal = std::io::stderr().is_terminal();
        let log = serves.then(|| Queue::start(std::io::stderr())).transpose();
        let log = log.context("cannot start the thread that writes the log")?;
        let writer = match log.clone() {
            Some(queue) => BoxMakeWriter::new(move || Redacting(queue.clone())),
            None => BoxMakeWriter::new(|| Redacting(std::io::stderr())),
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
        let logs_json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
        let lines = if logs_json {
            lines.json().flatten_event(true).with_current_span(false).boxed()
        } else {
            lines.with_ansi(terminal).boxed()
        };
        let traces = if serves { exporter()? } else { None };
        let spans = traces.as_ref().map(|traces| {
            tracing_opentelemetry::layer()
                .with_tracer(traces.tracer("treemap"))
                .with_location(false)
                .with_threads(false)
                .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TRACED))
        });
        Registry::default().with(lines.with_filter(filter)).with(spans).init();
        if serves {
            // A panic that is printed otherwise would wait for whoever reads standard error.
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        }
        Ok(Self { traces, logs_json, log })
    }

    /// Logs how many lines were dropped, once the log is read again; for ever.
    pub async fn count_dropped(&self) -> Infallible {
        let Some(log) = &self.log else { return std::future::pending().await };
        let mut logged = 0;
        loop {
            tokio::time::sleep(LOOK_FOR_DROPPED).await;
            let dropped = log.dropped();
            // This line is not to be dropped too.
            if dropped > logged && log.is_read() {
                let lines = dropped - logged;
                tracing::warn!("dropped {lines} lines of the log: standard error is read too slowly");
                logged = dropped;
            }
        }
    }

    /// Prints a line to standard error, after all that was logged.
    pub fn print(&self, line: &str) {
        match self.log.clone() {
            // A line that does not fit is dropped, and counted.
            Some(mut queue) => drop(queue.write_all(format!("{line}\n").as_bytes())),
            None => eprintln!("{line}"),
        }
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
    pub fn end(&self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(Duration::from_secs(2))
        {
            tracing::warn!("the last traces may be lost: {error}");
        }
    }
}

/// Dropped, it lets the last lines be written, for a limited time.
impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.finish();
        }
    }
}

fn log_filter(text: &str) -> anyhow::Result<EnvFilter> {
    let refused = |why: &str| {
        anyhow::anyhow!(
            "TREEMAP_LOG is {text:?}: {why}; expected off, error, warn, info, debug or trace, or target=level"
        )
    };
    // A word alone would be taken for a target, and nothing would be logged.
    let level = |word: &str| word.is_empty() || word.contains(['=', '[']) || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = text.split(',').map(str::trim).find(|word| !level(word)) {
        return Err(refused(&format!("{word:?} is no level")));
    }
    let mut filter = EnvFilter::try_new(text).map_err(|error| refused(&error.to_string()))?;
    // The pool's own line for a broken connection says less than ours, a second time. h2 warns of what any client can do, each time.
    for (target, directive) in [("deadpool", "deadpool.postgres=off"), ("h2", "h2=error"), ("rustls", "rustls=error")] {
        if !text.contains(target) {
            filter = filter.add_directive(directive.parse()?);
        }
    }
    Ok(filter)
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
    let mut exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
    // By itself it would trust no CA. An endpoint without a scheme is encrypted too.
    if !env::var(setting).is_ok_and(|endpoint| endpoint.starts_with("http://")) {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build().with_context(|| format!("{setting} cannot be used; expected http://host:4317"))?;
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
