//! The port for ops: `/livez` (the process runs; no database in it), `/readyz` (a model is loaded and we are
//! not stopping; with the reason), `/metrics`. Apart from the treemap's port, so that what happens there keeps nobody from looking.

use std::{collections::VecDeque, convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::ACCEPT_PAUSE;
use crate::{
    api::calls::Calls,
    metrics::{Format, Metrics, State},
    postgres::Db,
    treemap::read_model::ReadModel,
};

/// Connections at a time; a probe and a scraper need two. When all are taken the oldest gives way: a probe is answered, whatever
/// others do.
pub const CONNECTIONS: usize = 64;
/// How long a connection may be idle, and the head of a request may take: longer than the usual interval of a scraper.
const IDLE: Duration = Duration::from_secs(75);
/// How long a connection lives before it is asked to close after the answer that it is in, and how long that may take.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(10));

/// What can be asked for.
#[derive(Debug)]
pub struct Admin {
    /// The model that answers.
    pub read_model: Arc<ReadModel>,
    /// Whether calls may be sent here, and how many are being answered.
    pub calls: Calls,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The connections to Postgres, by name.
    pub pools: Vec<(&'static str, Db)>,
}

/// Answers on `listener` for ever.
pub async fn serve(admin: Admin, listener: TcpListener) {
    let admin = Arc::new(admin);
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // The other listener logs it.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        oldest_first.retain(|connection: &tokio::task::AbortHandle| !connection.is_finished());
        if oldest_first.len() >= CONNECTIONS
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(connections.spawn(serve_connection(admin.clone(), stream)));
    }
}

async fn serve_connection(admin: Arc<Admin>, stream: TcpStream) {
    let service = service_fn(|request| {
        let response = admin.answer(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(16 * 1024);
    let mut http = pin!(http.serve_connection(TokioIo::new(stream), service));
    if timeout(LIFETIME.0, http.as_mut()).await.is_err() {
        http.as_mut().graceful_shutdown();
        let _ = timeout(LIFETIME.1, http).await;
    }
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Format::OpenMetrics,
            _ => Format::Text,
        };
        let (status, text) = match path {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into())
            }
            "/livez" => (StatusCode::OK, "alive\n".into()),
            "/readyz" => match self.calls.not_ready() {
                None => (StatusCode::OK, "ready\n".into()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            },
            "/metrics" => (StatusCode::OK, self.metrics(format)),
            _ => (StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n".into()),
        };
        let kind = match (path, format) {
            ("/metrics", Format::OpenMetrics) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ("/metrics", Format::Text) => "text/plain; version=0.0.4; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
        response.body(Full::new(text.into())).expect("these headers are sound")
    }

    fn metrics(&self, format: Format) -> String {
        let pool = |(name, db): &(&'static str, Db)| {
            let (all, idle) = db.connections();
            (*name, all, idle)
        };
        let pools: Vec<_> = self.pools.iter().map(pool).collect();
        let model = self.read_model.current();
        let state = State {
            model: model.as_deref(),
            of_file: self.read_model.is_of_file(),
            calls_in_flight: self.calls.in_flight(),
            watchers: self.calls.watchers(),
            pools: &pools,
        };
        self.metrics.render(&state, format)
    }
}
