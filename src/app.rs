//! The server put together: `build` binds and knows its addresses, `run_until` serves until it is told to stop, and stops
//! in order. Every background task is started here, and joined here.

use std::{collections::HashMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{
    net::TcpListener,
    signal::unix::Signal,
    sync::{Notify, watch},
    task::{Id, JoinError, JoinSet},
};
use tonic_health::ServingStatus;
use tracing::{Instrument, Span, info_span};

use crate::{
    api::{
        Treemap,
        calls::Calls,
        protocol::{Settings, cache_control},
        services::Services,
    },
    config::{Config, DataConfig, ServerConfig, Source},
    metrics::Metrics,
    model_file,
    postgres::{Db, current::Current},
    refresh::background::keep_fresh,
    reload::{Reloader, keep_loaded, listen::listen},
    renew::{self, Renewal, RenewedDatabases},
    retry::{FailureLog, LastRead},
    server::{
        Server,
        admin::{self, Admin},
        descriptors::connections_that_fit,
        workers::Workers,
    },
    treemap::{freshness::Tolerance, read_model::ReadModel},
};

/// Bytes of a request message; ours are some 20.
const REQUEST: usize = 4 * 1024;

/// How soon the server is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// After a moment in which balancers notice that it is no longer ready.
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
    /// Binds the addresses. The database is not needed yet. With `traced`, calls have spans.
    ///
    /// Fails when an address cannot be bound.
    pub async fn build(mut config: Config, traced: bool) -> anyhow::Result<Self> {
        config.server.limit_connections(connections_that_fit(config.server.limits.connections));
        let listener = bind(config.server.listen_addr, "TREEMAP_LISTEN_ADDR").await?;
        let admin = match config.server.admin_addr {
            Some(wanted) => Some(bind(wanted, "TREEMAP_ADMIN_ADDR").await?),
            None => None,
        };
        Ok(Self { config, listener, admin, traced })
    }

    /// Serves until `stop` is ready, then lets the calls in flight end, for a limited time.
    /// `hangup` has certificates and connection strings read again.
    ///
    /// Fails, after the same drain, when a background task ended by itself: a restart mends that.
    pub async fn run_until(self, stop: impl Future<Output = Stop>, hangup: Signal) -> anyhow::Result<()> {
        let Config { server, tolerance, poll_interval, source } = self.config;
        let ServerConfig { tls, limits, calls, page, watch_heartbeat, origins, cache_max_age, drain_delay, .. } =
            server;
        let (metrics, read_model) = (Arc::new(Metrics::default()), Arc::new(ReadModel::default()));
        let (health, services) = Services::new(REQUEST).await?;
        let treemap = Treemap::new(read_model.clone(), watch_heartbeat, &metrics);
        let settings = Settings { request_limit: REQUEST, cache_control: cache_control(cache_max_age) };
        let calls = Calls::new(treemap, services, (settings, origins), (calls, page), self.traced, metrics.clone());

        match &source {
            Source::File(path) => model_file::begin_alone(path, tolerance, &read_model).await?,
            Source::Database(data) => {
                if let Some(path) = &data.model_file {
                    model_file::begin(path, tolerance, &read_model).await;
                }
            }
        }
        tracing::info!("listening on {}", self.listener.local_addr()?);
        let tls = tls.map(Arc::new);
        let workers = Workers::start().context("cannot start the threads that serve connections")?;
        let (stop_server, server_stops) = watch::channel(false);
        let server = Server {
            listener: self.listener,
            tls: tls.clone(),
            workers,
            limits,
            calls: calls.clone(),
            metrics: metrics.clone(),
        };
        let mut server = tokio::spawn(server.run(server_stops));
        let mut tasks = Tasks::default();
        let (pools, databases) = match source {
            Source::Database(data) => {
                let background = Background { tolerance, poll_interval, read_model: &read_model, metrics: &metrics };
                let (pools, databases) = background.start(&mut tasks, *data);
                (pools, Some(databases))
            }
            Source::File(path) => {
                let reading = model_file::keep_read(path, tolerance, poll_interval, read_model.clone());
                tasks.start("model file", info_span!("model_file"), reading);
                (Vec::new(), None)
            }
        };
        let renewal = Renewal { hangup, tls, databases };
        tasks.start("renew", info_span!("renew"), renew::keep_current(renewal));
        if let Some(listener) = self.admin {
            tracing::info!("metrics on http://{}/metrics", listener.local_addr()?);
            let admin = Admin { read_model: read_model.clone(), calls: calls.clone(), metrics, pools };
            tasks.start("admin", Span::none(), admin::serve(admin, listener));
        }

        let ready = async {
            read_model.ready().await;
            health.set(ServingStatus::Serving).await;
            std::future::pending::<Stop>().await
        };
        let (stop, ended) = tokio::select! {
            ended = &mut server => return Err(anyhow!("serving ended by itself: {ended:?}")),
            ended = tasks.ended() => (Stop::Gently, Some(ended)),
            stop = ready => (stop, None),
            stop = stop => (stop, None),
        };
        if let Some(ended) = &ended {
            tracing::error!("{ended}; stopping, for a restart");
        }

        tracing::info!("stopping");
        calls.stopping();
        health.set(ServingStatus::NotServing).await;
        if stop == Stop::Gently {
            tokio::time::sleep(drain_delay).await;
        }
        stop_server.send_replace(true);
        health.end_watches().await;
        let cut = server.await.context("serving failed")?;
        if cut > 0 {
            tracing::warn!(cut, "cut connections that were still open after {} s", limits.drain.as_secs());
        }
        tasks.running.shutdown().await;
        tracing::info!("stopped");
        ended.map_or(Ok(()), |ended| Err(anyhow!(ended)))
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({setting})"))
}

/// The background tasks, each with its name. None of them ends by itself.
#[derive(Debug, Default)]
struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    fn start(&mut self, name: &'static str, span: Span, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.running.spawn(task.instrument(span)).id(), name);
    }

    /// Waits until one ends, which is a fault; gives words that name it.
    async fn ended(&mut self) -> String {
        let ended = self.running.join_next_with_id().await;
        let Some(ended) = ended else { return std::future::pending().await };
        let (id, how) = match ended {
            Ok((id, ())) => (id, "ended by itself"),
            Err(error) => (JoinError::id(&error), if error.is_panic() { "panicked" } else { "was aborted" }),
        };
        format!("the background task {} {how}", self.names.get(&id).unwrap_or(&"unknown"))
    }
}

/// What keeps the model and its view fresh.
#[derive(Debug)]
struct Background<'a> {
    tolerance: Tolerance,
    poll_interval: Duration,
    read_model: &'a Arc<ReadModel>,
    metrics: &'a Arc<Metrics>,
}

impl Background<'_> {
    /// Starts it; gives the connections to Postgres, and what renews them.
    fn start(self, tasks: &mut Tasks, data: DataConfig) -> (Vec<(&'static str, Db)>, RenewedDatabases) {
        let Self { tolerance, poll_interval, read_model, metrics } = self;
        let changed = Arc::new(Notify::new());
        let last_read = LastRead::new(changed.clone());
        let failures = || FailureLog::of_another(last_read.clone());
        let (current, databases) = watch::channel(data.databases);
        let reader = Db::new(Current::new(databases.clone(), |databases| databases.queries.clone()));
        let primary = Db::new(Current::new(databases.clone(), |databases| databases.queries.clone().primary()));
        let listened = Current::new(databases, |databases| databases.listen.clone().primary());
        if let Some(path) = data.model_file {
            let writing = model_file::keep_written(path, read_model.clone(), read_model.subscribe(), metrics.clone());
            tasks.start("model file", info_span!("model_file"), writing);
        }
        let reloader = Reloader {
            db: reader.clone(),
            tolerance,
            read_model: read_model.clone(),
            changed: changed.clone(),
            poll_interval,
            metrics: metrics.clone(),
        };
        let reading = keep_loaded(reloader, FailureLog::of_the_reader(last_read.clone()));
        tasks.start("reload", info_span!("reload"), reading);
        let listening = listen(listened, primary.clone(), changed, failures(), metrics.clone());
        tasks.start("listen", info_span!("listen"), listening);
        if data.refresh.schedule.is_some() || data.refresh.sources.is_some() {
            let refreshing = keep_fresh(primary.clone(), data.refresh, signature(), failures(), metrics.clone());
            tasks.start("refresh", info_span!("refresh"), refreshing);
        }
        let pools = [reader.clone(), primary.clone()];
        let renewed = RenewedDatabases { settings: data.databases_from, current, pools };
        (vec![("read", reader), ("refresh", primary)], renewed)
    }
}

/// How this replica signs its refreshes in the log.
fn signature() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    format!("treemap serve on {}, process {}", host.as_deref().unwrap_or("this host").trim(), std::process::id())
}
