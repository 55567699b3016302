//! What the service counts and measures, for Prometheus. The names for calls are those of the gRPC ecosystem (go-grpc-
//! middleware), so that its dashboards work; the others begin with `treemap_`. docs/operations.md explains each.
//!
//! What happens is counted here as it happens. What only mirrors a state (the model, the pools, the calls in flight) is read
//! when it is scraped: see [`State`].

mod labels;

use std::time::Duration;

use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};
use tonic::Code;

use self::labels::{CODES, Handled, OfPage, OfPeriod, OfPool, OfProtocol, OfResult, OfVersion, Why};
pub use self::labels::{Closed, FileWrite, Method, RefreshResult, ReloadResult};
use crate::treemap::model::Model;
use http::StatusCode;

/// From a copy out of memory to a call that waited for the first load, in seconds.
const CALL_SECONDS: [f64; 14] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0];
/// From a view of 1,000 stocks to a busy server, in seconds.
const REFRESH_SECONDS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The counters of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: Family<Method, Counter>,
    handled: Family<Handled, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    calls: Family<OfProtocol, Counter>,
    /// Open connections of clients.
    pub connections: Gauge,
    closed: Family<Why, Counter>,
    /// Connections that could not be accepted, for want of file descriptors, say.
    pub accept_errors: Counter,
    reloads: Family<OfResult, Counter>,
    refreshes: Family<OfResult, Counter>,
    refresh_seconds: Histogram,
    /// 1 while LISTEN delivers.
    pub listener_up: Gauge,
    /// Messages of streams of treemaps.
    pub watch_messages: Counter,
    pages: Family<OfPage, Counter>,
    model_file_writes: Family<OfResult, Counter>,
}

/// The counters of one method, found once.
#[derive(Debug)]
pub struct MethodMetrics {
    started: Counter,
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

impl MethodMetrics {
    /// A call has arrived.
    pub fn started(&self) {
        self.started.inc();
    }

    /// A call is over: its answer is handed on, or its client went away.
    pub fn handled(&self, code: Code, took: Duration) {
        self.handled[code as usize].inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

/// The counters of one protocol, found once.
#[derive(Debug)]
pub struct ProtocolMetrics([Counter; CODES.len()]);

impl ProtocolMetrics {
    /// A call of the treemap has a reply.
    pub fn replied(&self, code: Code) {
        self.0[code as usize].inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let all = &mut registry;
        let seconds: Family<Method, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS));
        let build = [("version", env!("CARGO_PKG_VERSION")), ("rust_version", env!("CARGO_PKG_RUST_VERSION"))];
        all.register("treemap_build", "What is running", Info::new(build));
        let metrics = Self {
            started: add(all, "grpc_server_started", "Calls that have arrived", Family::default()),
            handled: add(all, "grpc_server_handled", "Calls that are over, by code", Family::default()),
            seconds: add(
                all,
                "grpc_server_handling_seconds",
                "Seconds from a call until its answer is handed to HTTP",
                seconds,
            ),
            calls: add(all, "treemap_calls", "Calls of the treemap, by protocol and code", Family::default()),
            connections: add(all, "treemap_connections", "Open connections of clients", Gauge::default()),
            closed: add(all, "treemap_connections_closed", "Connections that ended, by reason", Family::default()),
            accept_errors: add(
                all,
                "treemap_accept_errors",
                "Connections that could not be accepted",
                Counter::default(),
            ),
            reloads: add(all, "treemap_reloads", "Looks at the view, by result", Family::default()),
            refreshes: add(
                all,
                "treemap_refreshes",
                "Refreshes asked for by this replica, by result",
                Family::default(),
            ),
            refresh_seconds: add_seconds(
                all,
                "treemap_refresh",
                "Seconds that a refresh took",
                Histogram::new(REFRESH_SECONDS),
            ),
            listener_up: add(all, "treemap_listener_up", "1 while LISTEN delivers", Gauge::default()),
            watch_messages: add(
                all,
                "treemap_watch_messages",
                "Treemaps and heartbeats that were sent to watchers",
                Counter::default(),
            ),
            pages: add(all, "treemap_pages", "Requests of page and pictures, by path and status", Family::default()),
            model_file_writes: add(
                all,
                "treemap_model_file_writes",
                "Writes of the model file, by result",
                Family::default(),
            ),
            registry,
        };
        // What has not happened yet is 0, not absent: a rate needs a first value.
        for result in ReloadResult::ALL {
            drop(metrics.reloads.get_or_create(&OfResult { result: result.name() }));
        }
        for result in RefreshResult::ALL {
            drop(metrics.refreshes.get_or_create(&OfResult { result: result.name() }));
        }
        for result in FileWrite::ALL {
            drop(metrics.model_file_writes.get_or_create(&OfResult { result: result.name() }));
        }
        for why in Closed::ALL {
            drop(metrics.closed.get_or_create(&Why { why: why.name() }));
        }
        metrics
    }
}

/// Registers a metric, and gives it back to be counted with.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// The same for seconds, which are a part of its full name.
fn add_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

impl Metrics {
    /// The counters of a method.
    pub fn method(&self, method: &Method) -> MethodMetrics {
        let Method { grpc_type, grpc_service, grpc_method } = *method;
        let handled = |grpc_code| Handled { grpc_type, grpc_service, grpc_method, grpc_code };
        MethodMetrics {
            started: self.started.get_or_create(method).clone(),
            handled: CODES.map(|code| self.handled.get_or_create(&handled(code)).clone()),
            seconds: self.seconds.get_or_create(method).clone(),
        }
    }

    /// A request of the page or of a picture has a response.
    pub fn page(&self, path: &'static str, status: StatusCode) {
        self.pages.get_or_create(&OfPage { path, status: status.as_u16() }).inc();
    }

    /// The counters of a protocol.
    pub fn protocol(&self, protocol: &'static str) -> ProtocolMetrics {
        let counter = |grpc_code| self.calls.get_or_create(&OfProtocol { protocol, grpc_code }).clone();
        ProtocolMetrics(CODES.map(counter))
    }

    /// A connection has ended.
    pub fn closed(&self, why: Closed) {
        self.closed.get_or_create(&Why { why: why.name() }).inc();
    }

    /// A look at the view is over.
    pub fn reload(&self, result: ReloadResult) {
        self.reloads.get_or_create(&OfResult { result: result.name() }).inc();
    }

    /// A refresh is over.
    pub fn refresh(&self, result: RefreshResult) {
        self.refreshes.get_or_create(&OfResult { result: result.name() }).inc();
    }

    /// A write of the model file is over.
    pub fn model_file(&self, result: FileWrite) {
        self.model_file_writes.get_or_create(&OfResult { result: result.name() }).inc();
    }

    /// How long a refresh took.
    pub fn refresh_took(&self, seconds: f64) {
        self.refresh_seconds.observe(seconds);
    }

    /// Everything in the text format, with the state as it is now.
    pub fn render(&self, state: &State<'_>, format: Format) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &state.registry()))
            .and_then(|()| encode_eof(&mut text));
        match format {
            Format::OpenMetrics => text,
            Format::Text => as_text(&text),
        }
    }
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format, version 0.0.4, which every scraper reads.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

/// `OpenMetrics` as the older text format: there a counter is named with its suffix, and units and the end have no line.
fn as_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take_if(|(of, _)| *of == name) {
                text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

/// What is read when it is scraped. Each scrape has its own, so that two at a time do not mix.
#[derive(Debug)]
pub struct State<'a> {
    /// The model that answers; `None` before the first load.
    pub model: Option<&'a Model>,
    /// Whether it was read from a file.
    pub of_file: bool,
    /// Calls of the treemap being answered.
    pub calls_in_flight: usize,
    /// Open streams of treemaps.
    pub watchers: usize,
    /// The connections to Postgres: a name, all of them, the idle ones.
    pub pools: &'a [(&'static str, usize, usize)],
}

impl State<'_> {
    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let all = &mut registry;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        add::<Gauge>(all, "treemap_calls_in_flight", "Calls of the treemap being answered", Gauge::default())
            .set(number(self.calls_in_flight));
        add::<Gauge>(all, "treemap_watchers", "Open streams of treemaps", Gauge::default()).set(number(self.watchers));
        // Without a model the age is infinite: a replica that has none must not make the others look fresh.
        let age = self.model.and_then(|model| model.freshness.view_age());
        add_seconds::<Gauge<f64, std::sync::atomic::AtomicU64>>(
            all,
            "treemap_model_age",
            "Seconds since the refresh that the answers are from",
            Gauge::default(),
        )
        .set(age.map_or(f64::INFINITY, |age| age.as_secs_f64().max(0.0)));
        add::<Gauge>(all, "treemap_model_stale", "1 while answers are marked stale", Gauge::default())
            .set(self.model.is_none_or(Model::is_stale).into());
        add::<Gauge>(all, "treemap_model_of_file", "1 while answers are those of a file", Gauge::default())
            .set(self.of_file.into());
        let data_date = self.model.and_then(|model| model.freshness.data_start());
        add::<Gauge>(
            all,
            "treemap_model_data_date_timestamp_seconds",
            "The newest report's day, as seconds since 1970 in UTC",
            Gauge::default(),
        )
        .set(data_date.map_or(0, jiff::Timestamp::as_second));
        let future_rows = self.model.map_or(0, |model| model.freshness.future_rows);
        add::<Gauge>(
            all,
            "treemap_source_future_rows",
            "Rows of shorts with a date in the future, which the view leaves out",
            Gauge::default(),
        )
        .set(future_rows);
        let stocks: Family<OfPeriod, Gauge> =
            add(all, "treemap_model_stocks", "Stocks that can be answered, per period", Family::default());
        let version: Family<OfVersion, Gauge> =
            add(all, "treemap_model", "The version of the model that answers", Family::default());
        if let Some(model) = self.model {
            for (period, count) in model.stocks_per_period() {
                stocks.get_or_create(&OfPeriod { period }).set(number(count));
            }
            let of_version = OfVersion { version: String::from_utf8_lossy(model.version.as_bytes()).into_owned() };
            version.get_or_create(&of_version).set(1);
        }
        let pools: Family<OfPool, Gauge> =
            add(all, "treemap_pool_connections", "Connections to Postgres", Family::default());
        for &(pool, count, idle) in self.pools {
            for (state, count) in [("idle", idle), ("in_use", count.saturating_sub(idle))] {
                pools.get_or_create(&OfPool { pool, state }).set(number(count));
            }
        }
        registry
    }
}
