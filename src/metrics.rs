//! What the service counts and measures, for Prometheus. The names for calls are those of the gRPC ecosystem (go-grpc-
//! middleware), so that its dashboards work; the others begin with `treemap_`. docs/operations.md says what each is for.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};
use tonic::Code;

use crate::treemap::model::ReadModel;

/// From a copy out of memory to a call that waited for the first load, in seconds.
const CALL_SECONDS: [f64; 14] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0];
/// From a view of 1,000 stocks to a busy server, in seconds.
const REFRESH_SECONDS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A method of a gRPC service, as the ecosystem labels it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Method {
    /// `unary`, `server_stream` or `bidi_stream`.
    pub grpc_type: &'static str,
    /// The full name of the service.
    pub grpc_service: &'static str,
    /// The name of the method.
    pub grpc_method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "these are the labels")]
struct Handled {
    grpc_type: &'static str,
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultOf {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeriod {
    period: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: &'static str,
    state: &'static str,
}

/// The metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: Family<Method, Counter>,
    handled: Family<Handled, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    /// Calls of the treemap that are being answered.
    pub in_flight: Gauge,
    /// Connections of clients that are open.
    pub connections: Gauge,
    closed: Family<Why, Counter>,
    /// Connections that could not be accepted, for want of file descriptors, say.
    pub accept_errors: Counter,
    reloads: Family<ResultOf, Counter>,
    refreshes: Family<ResultOf, Counter>,
    refresh_seconds: Histogram,
    /// 1 while refreshes are heard of at once.
    pub listener_up: Gauge,
    model_age: Gauge<f64, AtomicU64>,
    model_data_date: Gauge,
    model_stale: Gauge,
    model_stocks: Family<OfPeriod, Gauge>,
    model_info: Family<ModelVersion, Gauge>,
    pool: Family<OfPool, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelVersion {
    version: String,
}

/// The handles of one method, found once.
#[derive(Debug)]
pub struct MethodMetrics {
    started: Counter,
    handled: [Counter; CODES.len()],
    seconds: Histogram,
}

/// The names of the codes, in the order of their numbers, as Go prints them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl MethodMetrics {
    /// A call has come.
    pub fn started(&self) {
        self.started.inc();
    }

    /// A call is over: its answer is handed on, or nobody waits for it.
    pub fn handled(&self, code: Code, took: Duration) {
        self.handled[code as usize].inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let all = &mut registry;
        let seconds: Family<Method, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS));
        all.register(
            "treemap_build",
            "What is running",
            Info::new([("version", env!("CARGO_PKG_VERSION")), ("rust_version", env!("CARGO_PKG_RUST_VERSION"))]),
        );
        let metrics = Self {
            started: add(all, "grpc_server_started", "Calls that have come", Family::default()),
            handled: add(all, "grpc_server_handled", "Calls that are over, by code", Family::default()),
            seconds: add(
                all,
                "grpc_server_handling_seconds",
                "Seconds from a call until its answer is handed to HTTP/2",
                seconds,
            ),
            in_flight: add(all, "treemap_calls_in_flight", "Calls of the treemap being answered", Gauge::default()),
            connections: add(all, "treemap_connections", "Open connections of clients", Gauge::default()),
            closed: add(all, "treemap_connections_closed", "Connections that ended, by why", Family::default()),
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
            model_age: add_seconds(
                all,
                "treemap_model_age",
                "Seconds since the refresh that the answers are from",
                Gauge::default(),
            ),
            model_data_date: add(
                all,
                "treemap_model_data_date_timestamp_seconds",
                "The newest report's day, as seconds since 1970 in UTC",
                Gauge::default(),
            ),
            model_stale: add(all, "treemap_model_stale", "1 while answers are marked stale", Gauge::default()),
            model_stocks: add(
                all,
                "treemap_model_stocks",
                "Stocks that can be answered, per period",
                Family::default(),
            ),
            model_info: add(all, "treemap_model", "The version of the model that answers", Family::default()),
            pool: add(all, "treemap_pool_connections", "Connections to Postgres", Family::default()),
            registry,
        };
        // What has not happened yet is 0, not absent: a rate begins somewhere.
        for result in RELOADS {
            drop(metrics.reloads.get_or_create(&ResultOf { result }));
        }
        for result in REFRESHES {
            drop(metrics.refreshes.get_or_create(&ResultOf { result }));
        }
        for why in CLOSED {
            drop(metrics.closed.get_or_create(&Why { why }));
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

const RELOADS: [&str; 3] = ["loaded", "unchanged", "failed"];
const REFRESHES: [&str; 3] = ["refreshed", "already_done", "failed"];
const CLOSED: [&str; 7] = ["client", "age", "crowded", "silent", "stalled", "stopped", "cut"];

impl Metrics {
    /// The handles of a method.
    #[must_use]
    pub fn method(&self, method: &Method) -> MethodMetrics {
        let Method { grpc_type, grpc_service, grpc_method } = *method;
        let handled = |grpc_code| Handled { grpc_type, grpc_service, grpc_method, grpc_code };
        MethodMetrics {
            started: self.started.get_or_create(method).clone(),
            handled: CODES.map(|code| self.handled.get_or_create(&handled(code)).clone()),
            seconds: self.seconds.get_or_create(method).clone(),
        }
    }

    /// A connection has ended; `why` is one of `client`, `age`, `crowded`, `silent`, `stalled`, `stopped`, `cut`.
    pub fn closed(&self, why: &'static str) {
        self.closed.get_or_create(&Why { why }).inc();
    }

    /// A look at the view is over: `loaded`, `unchanged` or `failed`.
    pub fn reload(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultOf { result }).inc();
    }

    /// A refresh is over: `already_done` or `failed`.
    pub fn refresh(&self, result: &'static str) {
        self.refreshes.get_or_create(&ResultOf { result }).inc();
    }

    /// The view was refreshed.
    pub fn refreshed(&self, seconds: f64) {
        self.refresh("refreshed");
        self.refresh_seconds.observe(seconds);
    }

    /// Everything in the text format, with the model and the pools (`name`, connections in all, idle ones) as they are now.
    #[must_use]
    pub fn render(
        &self,
        read_model: &ReadModel,
        pools: impl IntoIterator<Item = (&'static str, usize, usize)>,
    ) -> String {
        // What is not there is older than anything: a replica without a model must not make the others look fresh.
        let model = read_model.current();
        let age = model.as_ref().and_then(|model| model.age());
        self.model_age.set(age.map_or(f64::INFINITY, |age| age.as_secs_f64()));
        self.model_stale.set(model.as_ref().is_none_or(|model| model.is_stale()).into());
        if let Some(model) = model {
            self.model_data_date.set(model.data_timestamp().unwrap_or_default());
            for (period, stocks) in model.stocks_per_period() {
                self.model_stocks.get_or_create(&OfPeriod { period }).set(i64::try_from(stocks).unwrap_or(i64::MAX));
            }
            self.model_info.clear();
            let version = String::from_utf8_lossy(model.version.as_bytes()).into_owned();
            self.model_info.get_or_create(&ModelVersion { version }).set(1);
        }
        for (pool, all, idle) in pools {
            for (state, count) in [("idle", idle), ("in_use", all.saturating_sub(idle))] {
                self.pool.get_or_create(&OfPool { pool, state }).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
