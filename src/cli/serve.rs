use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{App, Stop},
    config::ServeArgs,
};

/// Serve GetIndustryTreeMap over gRPC, with health and reflection, until SIGTERM or Ctrl-C
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
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => Stop::Gently,
                _ = interrupt.recv() => Stop::Now,
            }
        };
        App::build(config, traced).await?.run_until(stop).await?;
        Ok(ExitCode::SUCCESS)
    }
}
