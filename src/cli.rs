//! The `treemap` command: one file per subcommand.

mod healthcheck;
mod load;
mod migrate;
mod refresh;
mod sample;
mod serve;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{LogFormat, Telemetry};

/// The industry treemap of ASX short positions: loads the reports, keeps the view, serves the answers
#[derive(Debug, Parser)]
#[command(name = "treemap", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug or trace, also per module
    #[arg(long, env = "TREEMAP_LOG", default_value = "info", global = true, value_name = "FILTER")]
    log: String,
    /// How to write logs: text on a terminal and JSON otherwise, or always one of them
    #[arg(long, env = "TREEMAP_LOG_FORMAT", default_value = "auto", global = true, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Migrate(migrate::Migrate),
    Load(load::Load),
    Refresh(refresh::Refresh),
    Status(status::Status),
    Sample(sample::Sample),
    Healthcheck(healthcheck::Healthcheck),
}

impl Cli {
    /// Runs the subcommand. The exit code is 0 when all was done and well, 1 otherwise; a wrong command line ends with 2
    /// before this is reached.
    /// What went wrong is printed as one line for a person, with the whole chain of causes; by a server that logs JSON, as JSON.
    pub async fn run(self) -> ExitCode {
        let serves = matches!(self.command, Command::Serve(_));
        let mut logs_json = false;
        let mut telemetry = None;
        let ran = match Telemetry::start(&self.log, self.log_format, serves) {
            Ok(started) => {
                logs_json = started.logs_json();
                let ran = self.command.run(&started).await;
                started.end();
                telemetry = Some(started);
                ran
            }
            Err(error) => Err(error),
        };
        ran.unwrap_or_else(|error| {
            if serves && logs_json {
                tracing::error!("{error:#}");
            } else {
                // What was logged before it comes first.
                drop(telemetry);
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        })
    }
}

impl Command {
    async fn run(self, telemetry: &Telemetry) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(command) => command.run(telemetry).await,
            Self::Migrate(command) => command.run().await,
            Self::Load(command) => command.run().await,
            Self::Refresh(command) => command.run().await,
            Self::Status(command) => command.run().await,
            Self::Sample(command) => command.run(),
            Self::Healthcheck(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_soundly_defined() {
        Cli::command().debug_assert();
    }
}
