use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    app::{App, Stop},
    config::ServeArgs,
    telemetry::Telemetry,
};

/// Serve GetIndustryTreeMap over gRPC, gRPC-Web and Connect, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Serve {
    #[command(flatten)]
    settings: ServeArgs,
}

impl Serve {
    pub async fn run(self, telemetry: &Telemetry) -> anyhow::Result<ExitCode> {
        let config = self.settings.check()?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => Stop::Gently,
                _ = interrupt.recv() => Stop::Now,
            }
        };
        let hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
        // Signals that would end the process without a drain.
        let ignored = [SignalKind::user_defined1(), SignalKind::user_defined2()];
        let ignored = ignored.into_iter().map(signal).collect::<Result<Vec<_>, _>>();
        let _ignored = ignored.context("cannot handle SIGUSR1 and SIGUSR2")?;
        let (say_stop, stop) = oneshot::channel();
        let signals = async {
            let _ = say_stop.send(next().await);
            next().await
        };
        let app = App::build(config, telemetry.is_tracing()).await?;
        tokio::select! {
            ran = app.run_until(async { stop.await.unwrap_or(Stop::Now) }, hangup) => ran.map(|()| ExitCode::SUCCESS),
            never = telemetry.count_dropped() => match never {},
            _ = signals => bail!("stopped by a second signal: calls in flight were cut"),
        }
    }
}
