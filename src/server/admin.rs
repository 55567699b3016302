//! The port for those who run the service: `/livez` (the process runs; no database in it), `/readyz` (a model is loaded and we are
//! not stopping; says why not), `/metrics`. Apart from the gRPC port, so that what happens there does not keep anybody from looking.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};

use super::RECOVERY;
use crate::{metrics::Metrics, postgres::Db, treemap::model::ReadModel};

/// Connections at a time; a probe and a scraper need two.
const CONNECTIONS: usize = 64;
/// How long a connection lives: a request and its answer take some milliseconds.
const LIFETIME: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug)]
pub struct Admin {
    /// Whether there is a model, and which.
    pub read_model: Arc<ReadModel>,
    /// Set once the signal to stop has come.
    pub stopping: Arc<AtomicBool>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
    /// The connections to Postgres, by name.
    pub pools: [(&'static str, Db); 2],
}

/// Answers on `listener` for ever.
pub async fn serve(admin: Admin, listener: TcpListener) {
    let admin = Arc::new(admin);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // The other listener tells of it.
            tokio::time::sleep(RECOVERY).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let admin = admin.clone();
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let response = admin.answer(&request);
                async { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(LIFETIME).max_buf_size(16 * 1024);
            let _ = timeout(LIFETIME, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let (status, text) = match path {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into())
            }
            "/livez" => (StatusCode::OK, "alive\n".into()),
            "/readyz" => match self.not_ready() {
                None => (StatusCode::OK, "ready\n".into()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            },
            "/metrics" => {
                let pools = self.pools.iter().map(|(name, db)| {
                    let (all, idle) = db.connections();
                    (*name, all, idle)
                });
                (StatusCode::OK, self.metrics.render(&self.read_model, pools))
            }
            _ => (StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n".into()),
        };
        let kind = if path == "/metrics" {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; charset=utf-8"
        };
        let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
        response.body(Full::new(text.into())).expect("these headers are sound")
    }

    fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("stopping".into());
        }
        self.read_model.missing()
    }
}
