//! The `treemap` command: one file per subcommand.

mod load;
mod migrate;
mod refresh;
mod sample;
mod serve;
mod status;
mod table;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The industry treemap of ASX short positions: loads the reports, keeps the view, serves the answers
#[derive(Debug, Parser)]
#[command(name = "treemap", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug or trace, also per module
    #[arg(long, env = "TREEMAP_LOG", default_value = "info", global = true, value_name = "FILTER")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Migrate(migrate::Migrate),
    Load(load::Load),
    Refresh(refresh::Refresh),
    Status(status::Status),
    Sample(sample::Sample),
}

impl Cli {
    /// Runs the subcommand. The exit code is 0 when all was done and well, 1 otherwise; a wrong command line ends with 2
    /// before this is reached.
    ///
    /// # Errors
    /// What went wrong, in words for a person.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let filter = EnvFilter::try_new(&self.log)
            .map_err(|error| anyhow::anyhow!("TREEMAP_LOG is {:?}: {error}; expected a level, as info", self.log))?;
        // The pool's own line for a broken connection says less than ours, a second time.
        let filter = filter.add_directive("deadpool.postgres=off".parse()?);
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
        match self.command {
            Command::Serve(command) => command.run().await,
            Command::Migrate(command) => command.run().await,
            Command::Load(command) => command.run().await,
            Command::Refresh(command) => command.run().await,
            Command::Status(command) => command.run().await,
            Command::Sample(command) => command.run(),
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
