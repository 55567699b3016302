use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    app::{App, Stop},
    config::ServeArgs,
};

/// Serve GetIndustryTreeMap over gRPC, gRPC-Web and Connect, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Serve {
    #[command(flatten)]
    settings: ServeArgs,
}

impl Serve {
    pub async fn run(self, traced: bool) -> anyhow::Result<ExitCode> {
        let config = self.settings.check()?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => Stop::Gently,
                _ = interrupt.recv() => Stop::Now,
            }
        };
        let (say_stop, stop) = oneshot::channel();
        let signals = async {
            let _ = say_stop.send(next().await);
            next().await
        };
        let app = App::build(config, traced).await?;
        tokio::select! {
            ran = app.run_until(async { stop.await.unwrap_or(Stop::Now) }) => ran.map(|()| ExitCode::SUCCESS),
            _ = signals => bail!("stopped by a second signal: calls in flight were cut"),
        }
    }
}
