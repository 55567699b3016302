//! The server put together: `build` binds and knows its addresses, `run_until` serves until it is told to stop, and stops
//! in order. Every background task is spawned here, and joined here.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, bail};
use http::Request;
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};
use tonic::Status;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower_service::Service;
use tracing::{Instrument, info_span};

use crate::{
    api::{
        SERVICE_NAME, TreemapService,
        calls::{Answering, Calls, Others},
    },
    config::{Config, DataConfig, ServerConfig},
    metrics::Metrics,
    postgres::Db,
    proto,
    refresh::background::keep_fresh,
    reload::{Reloading, keep_loaded, listen::listen},
    retry::{Outage, Trouble},
    server::{
        Server,
        admin::{self, Admin},
    },
    treemap::model::ReadModel,
    view::Store,
};

/// How soon the server is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// After a moment in which others learn that it is not ready any more.
    Gently,
    /// At once: somebody waits at the terminal.
    Now,
}

/// A server that is bound, and does nothing yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    admin: Option<TcpListener>,
    traced: bool,
}

impl App {
    /// Binds the addresses. The database is not asked for anything: it may come later. With `traced`, calls have spans.
    ///
    /// # Errors
    /// An address cannot be bound.
    pub async fn build(config: Config, traced: bool) -> anyhow::Result<Self> {
        let listener = bind(config.server.listen_addr, "TREEMAP_LISTEN_ADDR").await?;
        let admin = match config.server.admin_addr {
            Some(wanted) => Some(bind(wanted, "TREEMAP_ADMIN_ADDR").await?),
            None => None,
        };
        Ok(Self { config, listener, admin, traced })
    }

    /// Serves until `stop` is ready, then lets the calls in flight end, but waits for them no longer than a moment.
    ///
    /// # Errors
    /// Serving failed, or a background task did: both are for a restart to mend.
    pub async fn run_until(self, stop: impl Future<Output = Stop>) -> anyhow::Result<()> {
        let Config { server: ServerConfig { tls, limits, calls, drain_delay, .. }, data } = self.config;
        let (metrics, read_model) = (Arc::new(Metrics::default()), Arc::new(ReadModel::default()));
        let (health, others) = others().await?;
        let treemap = TreemapService::new(read_model.clone());
        let calls = Calls::new(treemap, others, calls, self.traced, metrics.clone());

        tracing::info!("listening on {}", self.listener.local_addr()?);
        let tls = tls.map(Arc::new);
        let (say_stop, stopped) = watch::channel(false);
        let server = Server { listener: self.listener, tls: tls.clone(), limits, calls, metrics: metrics.clone() };
        let mut server = tokio::spawn(server.run(stopped));
        let mut tasks = JoinSet::new();
        let pools = spawn_background(&mut tasks, data, &read_model, &metrics);
        if let Some(tls) = tls {
            tasks.spawn(tls.keep_current().instrument(info_span!("certificate")));
        }
        let stopping = Arc::new(AtomicBool::new(false));
        if let Some(listener) = self.admin {
            tracing::info!("metrics on http://{}/metrics", listener.local_addr()?);
            let admin = Admin { read_model: read_model.clone(), stopping: stopping.clone(), metrics, pools };
            tasks.spawn(admin::serve(admin, listener));
        }

        let ready = async {
            read_model.ready().await;
            say(&health, ServingStatus::Serving).await;
            std::future::pending::<Stop>().await
        };
        let stop = tokio::select! {
            ended = &mut server => bail!("serving ended by itself: {ended:?}"),
            ended = tasks.join_next() => bail!("a background task ended: {ended:?}"),
            stop = ready => stop,
            stop = stop => stop,
        };

        tracing::info!("stopping");
        stopping.store(true, Ordering::Relaxed);
        say(&health, ServingStatus::NotServing).await;
        if stop == Stop::Gently {
            tokio::time::sleep(drain_delay).await;
        }
        say_stop.send_replace(true);
        // Whoever watches our health would hold the drain to its end.
        for service in ["", SERVICE_NAME] {
            health.clone().clear_service_status(service).await;
        }
        let cut = server.await.context("serving failed")?;
        if cut > 0 {
            tracing::warn!(cut, "connections that did not end within {} s were cut", limits.drain.as_secs());
        }
        tasks.shutdown().await;
        tracing::info!("stopped");
        Ok(())
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({setting})"))
}

/// Starts what keeps the model and its view fresh; gives its connections to Postgres.
fn spawn_background(
    tasks: &mut JoinSet<()>,
    config: DataConfig,
    read_model: &Arc<ReadModel>,
    metrics: &Arc<Metrics>,
) -> [(&'static str, Db); 2] {
    let changed = Arc::new(Notify::new());
    let outage = Arc::new(Outage::new(changed.clone()));
    let trouble = || Trouble::of_a_loop(outage.clone());
    let reader = Db::new(&config.database);
    let primary = Db::new(&config.database.primary());
    let reloading = Reloading {
        store: Store::new(reader.clone(), config.tolerance),
        read_model: read_model.clone(),
        changed: changed.clone(),
        poll_interval: config.poll_interval,
        metrics: metrics.clone(),
    };
    let of_the_database = Trouble::of_the_database(outage.clone());
    tasks.spawn(keep_loaded(reloading, of_the_database).instrument(info_span!("reload")));
    let listening = listen(config.listen_database.primary(), primary.clone(), changed, trouble(), metrics.clone());
    tasks.spawn(listening.instrument(info_span!("listen")));
    if config.refresh.schedule.is_some() || config.refresh.sources.is_some() {
        let refreshing = keep_fresh(primary.clone(), config.refresh, signature(), trouble(), metrics.clone());
        tasks.spawn(refreshing.instrument(info_span!("refresh")));
    }
    [("read", reader), ("refresh", primary)]
}

/// How this replica signs its refreshes in the log.
fn signature() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    format!("treemap serve on {}, process {}", host.as_deref().unwrap_or("this host").trim(), std::process::id())
}

async fn say(health: &HealthReporter, status: ServingStatus) {
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}

/// Health, not serving yet, and reflection in both of its versions.
async fn others() -> anyhow::Result<(HealthReporter, Others)> {
    let (reporter, health) = tonic_health::server::health_reporter();
    // tonic's reporter begins with "" as serving: a probe would find us ready before any data is.
    say(&reporter, ServingStatus::NotServing).await;
    let (newer, older) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let others: Others = Arc::new(move |request: Request<Incoming>| {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            "grpc.health.v1.Health" => answer(health.clone(), request),
            "grpc.reflection.v1.ServerReflection" => answer(newer.clone(), request),
            "grpc.reflection.v1alpha.ServerReflection" => answer(older.clone(), request),
            _ => Box::pin(async { Status::unimplemented("there is no such service here").into_http() }),
        }
    });
    Ok((reporter, others))
}

fn answer<S>(mut service: S, request: Request<Incoming>) -> Answering
where
    S: Service<Request<Incoming>, Response = http::Response<tonic::body::Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let answer = service.call(request);
    Box::pin(async move {
        match answer.await {
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
