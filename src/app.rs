//! The server put together: `build` binds and knows its address, `run_until` serves until it is told to stop, and stops
//! in order. Every background task is spawned here, and joined here.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    task::JoinSet,
    time::timeout,
};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::ServingStatus;

use crate::{
    config::Config,
    db::Db,
    grpc::{SERVICE_NAME, ShortedStocksServiceServer, TreemapService},
    listen::listen,
    proto,
    read_model::ReadModel,
    refresher::keep_fresh,
    reload::keep_loaded,
    store::Store,
    trouble::{Outage, Trouble},
};

/// How long calls in flight may take to end after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A server that is bound, and does nothing yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    addr: SocketAddr,
}

impl App {
    /// Binds the address. The database is not asked for anything: it may come later.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let wanted = config.listen_addr;
        let listener = TcpListener::bind(wanted)
            .await
            .with_context(|| format!("cannot listen on {wanted} (TREEMAP_LISTEN_ADDR)"))?;
        let addr = listener.local_addr()?;
        Ok(Self { config, listener, addr })
    }

    /// The address that was bound: the port is never 0.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop` is ready, then lets the calls in flight end, but waits for them no longer than a moment.
    ///
    /// # Errors
    /// Serving failed, or a background task did: both are for a restart to mend.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let read_model = Arc::new(ReadModel::default());
        let (health, health_service) = tonic_health::server::health_reporter();
        let say = async |status: ServingStatus| {
            health.set_service_status("", status).await;
            health.set_service_status(SERVICE_NAME, status).await;
        };
        // tonic's reporter begins with "" as serving: a probe would find us ready before any data is.
        say(ServingStatus::NotServing).await;

        let (stop_serving, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .add_service(ShortedStocksServiceServer::new(TreemapService::new(read_model.clone())))
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .serve_with_incoming_shutdown(TcpIncoming::from(self.listener).with_nodelay(Some(true)), async {
                _ = stopped.await;
            });
        let mut server = std::pin::pin!(server);
        let mut tasks = self.config.spawn_background(&read_model);
        tracing::info!("listening on {}", self.addr);

        let ready = async {
            read_model.ready().await;
            say(ServingStatus::Serving).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = &mut server => {
                ended.context("serving failed")?;
                bail!("serving ended by itself");
            }
            ended = tasks.join_next() => bail!("a background task ended: {ended:?}"),
            () = ready => {}
            () = stop => {}
        }

        tracing::info!("stopping");
        say(ServingStatus::NotServing).await;
        drop(stop_serving);
        // Whoever watches our health would hold the drain for ever.
        for service in ["", SERVICE_NAME] {
            health.clone().clear_service_status(service).await;
        }
        if let Ok(ended) = timeout(DRAIN, server).await {
            ended.context("stopping failed")?;
        } else {
            tracing::warn!("connections that did not end within {} s were cut", DRAIN.as_secs());
        }
        tasks.shutdown().await;
        tracing::info!("stopped");
        Ok(())
    }
}

impl Config {
    fn spawn_background(self, read_model: &Arc<ReadModel>) -> JoinSet<()> {
        let changed = Arc::new(Notify::new());
        let outage = Arc::new(Outage::new(changed.clone()));
        let trouble = || Trouble::of_a_loop(outage.clone());
        let store = Store::new(Db::new(&self.database), self.tolerance);
        let primary = Db::new(&self.database.primary());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_loaded(
            store,
            read_model.clone(),
            changed.clone(),
            self.poll_interval,
            Trouble::of_the_database(outage.clone()),
        ));
        tasks.spawn(listen(self.listen_database.primary(), primary.clone(), changed, trouble()));
        if self.refresh.schedule.is_some() || self.refresh.sources.is_some() {
            tasks.spawn(keep_fresh(primary, self.refresh, signature(), trouble()));
        }
        tasks
    }
}

/// How this replica signs its refreshes in the log.
fn signature() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    format!("treemap serve on {}, process {}", host.as_deref().unwrap_or("this host").trim(), std::process::id())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that grpcurl can show the details of a refusal.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
